"""Guards that keep a bad candidate from becoming the list in force: each with a reason of its own.

A feed that is broken, hostile or in somebody else's hands must not become a blocklist, and must not take
one away. Whatever is refused, the last good artifact stays in force.
"""

from typing import TYPE_CHECKING

from urlward.engine.errors import UrlwardError
from urlward.feeds.store import Accepted
from urlward.lists.source import head_fault
from urlward.units import counted

if TYPE_CHECKING:
    from urlward.config import FeedTable

ACCEPTABLE = frozenset({"few", "shrunk", "grown"})
"""Guards that an operator can overrule."""

SLACK = 5
"""Entries by which a list may shrink or grow whatever its size."""

LIKENESS = 0.1
"""Share by which a candidate may differ in size from the one that the operator accepted."""


class RefusedError(UrlwardError):
    """A candidate that a guard has refused.

    Attributes:
        reason: in a word.
        entries: how many it has, where that is why.
        before: how many are in force, likewise.
    """

    def __init__(self, reason: str, message: str, entries: int = 0, before: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.entries = entries
        self.before = before


def check_head(head: bytes) -> None:
    """Check whether a body that is no artifact can be a list at all.

    Args:
        head: its first `SNIFFED` bytes (`urlward.lists.formats`), or all of it.

    Raises:
        RefusedError: ``empty``, ``html`` or ``binary``.
    """
    if fault := head_fault(head):
        reason, text = fault
        raise RefusedError(reason, "the body is empty" if reason == "empty" else text)


def check_size(
    feed: "FeedTable", entries: int, before: int | None, accepted: Accepted | None, content: str
) -> bool:
    """Check whether a list has about as many entries as expected.

    Args:
        feed: with the bounds.
        entries: of the candidate.
        before: how many are in force; None where that says nothing.
        accepted: the operator's word.
        content: of the candidate.

    Returns:
        Whether it took the operator's word.

    Raises:
        RefusedError: ``few``, ``shrunk`` or ``grown``.
    """
    refused = _odd(feed, entries, before)
    if refused is None:
        return False
    if accepted is None or not _is_meant(accepted, entries, content):
        raise refused
    return True


def _odd(feed: "FeedTable", entries: int, before: int | None) -> RefusedError | None:
    if entries < feed.min_entries:
        text = f"{counted(entries, 'entry')}, min_entries is {feed.min_entries}"
        return RefusedError("few", text, entries, before or 0)
    if before is None:
        return None
    if before - entries > max(before * feed.max_shrink, SLACK):
        text = f"{counted(entries, 'entry')} after {before}: shrunk by more than {_percent(feed.max_shrink)}"
        return RefusedError("shrunk", text, entries, before)
    if entries - before > max(before * feed.max_grow, SLACK):
        text = f"{counted(entries, 'entry')} after {before}: grown by more than {_percent(feed.max_grow)}"
        return RefusedError("grown", text, entries, before)
    return None


def _is_meant(accepted: Accepted, entries: int, content: str) -> bool:
    """Whether the acceptance is for this candidate, or for one of a similar size."""
    likeness = abs(entries - accepted.entries) <= max(LIKENESS * accepted.entries, SLACK)
    return accepted.content in ("", content) or likeness


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
