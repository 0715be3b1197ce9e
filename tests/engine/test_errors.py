import pytest

from urlward.engine import errors


def test_every_error_has_the_one_base() -> None:
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(found) >= 10
    assert all(issubclass(e, errors.UrlwardError) for e in found)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.EntryError(3, "not an entry"), "column 3: not an entry"),
        (errors.EntryError(3, "not an entry", "example.test"), "column 3: not an entry (example.test)"),
        (errors.NewerVersionError(2, 1), "format version 2, this release reads up to 1: update urlward"),
        (errors.TruncatedError(10, 20), "10 bytes where the header says 20: copy or fetch it again"),
        (errors.WrongKeyError("aa", "bb"), "compiled under key bb, the key given is aa"),
        (errors.UnsignedError(), "not signed"),
        (
            errors.SignatureError("ab" * 32),
            "its signature is not one of the key it names, abababababababab…: fetch it again",
        ),
    ],
)
def test_an_error_says_what_is_wrong_in_one_line(error: errors.UrlwardError, said: str) -> None:
    assert str(error) == said


def test_errors_carry_what_a_caller_needs() -> None:
    fault = errors.EntryError(3, "reason", "hint")
    assert (fault.column, fault.reason, fault.hint) == (3, "reason", "hint")
    assert (errors.NewerVersionError(2, 1).found, errors.NewerVersionError(2, 1).supported) == (2, 1)
    assert (errors.TruncatedError(1, 2).found, errors.TruncatedError(1, 2).expected) == (1, 2)
    assert (errors.WrongKeyError("a", "b").found, errors.WrongKeyError("a", "b").expected) == ("a", "b")
