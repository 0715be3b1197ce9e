import pytest

from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.policy.reasons import MAX_WHY, names, reason_of


@each_row(
    "text",
    [
        "order 12/2026 of the court", "Az. 4.12/2026, Dr.Smith", "mail of anna@example.test/office",
        "and/or", "entry S-1 of hotline", "release 1.2/3", "x" * MAX_WHY,
    ],
)  # fmt: skip
def test_words(text: str) -> None:
    assert reason_of(f"  {text} ") == text


@each_row(
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


@each_row("text", ["", "  ", "two\nlines", "x" * (MAX_WHY + 1)])
def test_no_words(text: str) -> None:
    with pytest.raises(UrlwardError, match="needed, one line"):
        reason_of(text)


@pytest.mark.parametrize(
    ("host", "words", "named"),
    [
        ("listed.test", "it is Listed.TEST again", True),
        ("www.listed.test", "listed.test", True),
        ("xn--strae-oqa.test", "the page of Straße.test", True),
        ("xn--strae-oqa.test", "xn--strae-oqa.test", True),
        ("xn--bcher-kva.test", "bu\u0308cher.test", True),
        ("192.0.2.7/32", "the server 192.0.2.7.", True),
        ("192.0.2.7", "192.0.2.7: as of the case", True),
        ("192.0.2.7/32", "the one at 192.0.2.7:8080", True),
        ("2001:db8::1/128", "at 2001:0db8:0:0::1", True),
        ("[2001:db8::1]", "2001:DB8::1", True),
        ("192.0.2.0/24", "all of 192.0.2.0/24", True),
        ("192.0.2.0/24", "192.0.2.7 is one of them", False),
        ("xn--strae-oqa.test", "a street", False),
        ("xn--\u00e9.test", "nothing", False),
        ("localhost", "localhost", False),
        ("", "anything", False),
    ],
)
def test_words_that_name_a_host(host: str, words: str, *, named: bool) -> None:
    assert names(host, words) is named
