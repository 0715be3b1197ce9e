import pytest

from urlward.engine import errors


def test_every_error_has_the_one_base() -> None:
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert errors.ArtifactError in found
    assert all(issubclass(e, errors.UrlwardError) for e in found)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.EntryError(3, "not an entry"), "column 3: not an entry"),
        (errors.EntryError(3, "not an entry", "example.test"), "column 3: not an entry (example.test)"),
    ],
)
def test_an_error_says_what_is_wrong_in_one_line(error: errors.UrlwardError, said: str) -> None:
    assert str(error) == said


def test_errors_carry_what_a_caller_needs() -> None:
    fault = errors.EntryError(3, "reason", "hint")
    assert (fault.column, fault.reason, fault.hint) == (3, "reason", "hint")
