import pytest

from lists.support import HTML, PICTURE
from rows import each_row
from urlward.config import FeedTable
from urlward.feeds.guards import RefusedError, check_head, check_size
from urlward.feeds.store import Accepted

FEED = FeedTable(name="a", path="b", min_entries=2)


@each_row(
    ("head", "reason"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (HTML, "html"),
        (b"\n <?xml?>", "html"),
        (PICTURE, "binary"),
    ],
)
def test_heads_of_no_list(head: bytes, reason: str) -> None:
    with pytest.raises(RefusedError) as raised:
        check_head(head)
    assert raised.value.reason == reason


@each_row("head", [b"a.example\n", b"# <comment>\n", b'{"url": 1}', b"\n" * 4096, "é".encode()])
def test_heads_of_lists(head: bytes) -> None:
    check_head(head)


def reason(entries: int, before: int | None, accepted: Accepted | None = None, content: str = "x") -> str:
    try:
        return "accepted" if check_size(FEED, entries, before, accepted, content) else ""
    except RefusedError as e:
        return e.reason


@each_row(
    ("entries", "before", "expected"),
    [
        (2, None, ""),
        (1, None, "few"),
        (0, 3, "few"),
        (80, 100, ""),
        (79, 100, "shrunk"),
        (200, 100, ""),
        (201, 100, "grown"),
        # A handful is never too much.
        (2, 7, ""),
        (2, 8, "shrunk"),
        (8, 3, ""),
        (9, 3, "grown"),
        (10**6, None, ""),
    ],
)
def test_sizes(entries: int, before: int | None, expected: str) -> None:
    assert reason(entries, before) == expected


@each_row(
    ("accepted", "expected"),
    [
        (Accepted("x", 10, 0.0), "accepted"),
        (Accepted("", 0, 0.0), "accepted"),
        (Accepted("y", 10, 0.0), "accepted"),
        (Accepted("y", 15, 0.0), "accepted"),
        (Accepted("y", 60, 0.0), "shrunk"),
    ],
)
def test_an_operators_word(accepted: Accepted, expected: str) -> None:
    assert reason(10, 100, accepted) == expected


def test_a_refusal_says_what_an_operator_has_to_know() -> None:
    with pytest.raises(RefusedError) as raised:
        check_size(FEED, 10, 100, None, "x")
    assert (raised.value.entries, raised.value.before) == (10, 100)
    assert str(raised.value) == "10 entries after 100: shrunk by more than 20 %"


def test_a_word_that_was_not_needed_is_not_used() -> None:
    assert reason(100, 100, Accepted("", 0, 0.0)) == ""
