import pytest

from urlward.engine.errors import UrlwardError
from urlward.policy.reasons import MAX_WHY, reason_of


@pytest.mark.parametrize(
    "text",
    [
        "order 12/2026 of the court", "Az. 4.12/2026, Dr.Smith", "mail of anna@example.test/office",
        "and/or", "entry S-1 of hotline", "release 1.2/3", "x" * MAX_WHY,
    ],
)  # fmt: skip
def test_words(text: str) -> None:
    assert reason_of(f"  {text} ") == text


@pytest.mark.parametrize(
    "text",
    [
        "asks for http://blocked.example/", "HXXP://blocked.example", "www.blocked.example",
        "is blocked.example/a?b",
        "(blocked.example:8080/a)", "//blocked.example", "bücher.example/ü",
    ],
)  # fmt: skip
def test_no_url(text: str) -> None:
    """It stays in the audit log for ever, where no entry of a list may be read."""
    with pytest.raises(UrlwardError, match="has a URL in it") as e:
        reason_of(text)
    assert "blocked" not in str(e.value)


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "x" * (MAX_WHY + 1)])
def test_no_words(text: str) -> None:
    with pytest.raises(UrlwardError, match="needed, one line"):
        reason_of(text)
