"""Acceptance of a refused candidate by an operator, where a list has shrunk or grown too much."""

from pathlib import Path

from urlward.config import FeedTable
from urlward.feeds.facts import Accepted, Refused
from urlward.feeds.store import FeedStore
from urlward.state.audit import append


def accept(feed: FeedTable, state: Path, *, why: str, who: str, now: float) -> Refused | None:
    """Accept the candidate that was refused, once; where none was, the next that would be.

    Args:
        feed: whose.
        state: the state folder.
        why: one line, for the record.
        who: says so.
        now: seconds since 1970-01-01 UTC.

    Returns:
        What was refused.

    Raises:
        StateError: it cannot be written down.
    """
    store = FeedStore(state, feed.name)
    with store.locked():
        facts = store.facts()
        refused = facts.refused
        # Told first: whatever fails between the two, nothing is accepted that the record does not have.
        append(
            state, who, "accepted", now,
            feed=feed.name, why=why,
            entries=refused.entries if refused else None,
            before=refused.before if refused else facts.entries,
        )  # fmt: skip
        facts.accepted = Accepted(refused.content if refused else "", refused.entries if refused else 0, now)
        store.write_facts(facts)
    return refused
