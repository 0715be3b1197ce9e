"""Figures of a feed, from its facts and its artifact's header alone, so that a scrape costs little."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from urlward.config import FeedTable
from urlward.feeds.facts import Facts
from urlward.feeds.status import State, alarms, state_of
from urlward.feeds.store import FeedStore
from urlward.state.folder import StateError


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """Figures of a feed; times are seconds since 1970-01-01 UTC, 0 for never.

    Attributes:
        name: of it.
        state: as `state_of` has it.
        serial, entries: of the artifact in force; 0 where there is none.
        valid_until: of that artifact; 0 for always.
        last_success: when it was last refreshed, or found to be as it was.
        next_run: when it is refreshed next.
        failures: in a row.
        reason: of the last one.
        alarms: kinds of those that it gives: ``missing``, ``stale``, ``expiring``, ``expired``.
    """

    name: str
    state: State
    serial: int = 0
    entries: int = 0
    valid_until: int = 0
    last_success: float = 0.0
    next_run: float = 0.0
    failures: int = 0
    reason: str = ""
    alarms: tuple[str, ...] = ()


def feed_figures(feeds: Sequence[FeedTable], state: Path, now: float) -> list[FeedFigures]:
    """Read the figures of all feeds. One whose state is unreadable counts as failed."""
    return [_look(feed, state, now) for feed in feeds]


def _look(feed: FeedTable, state: Path, now: float) -> FeedFigures:
    store = FeedStore(state, feed.name)
    try:
        facts = store.facts()
    except StateError:
        facts = Facts(reason="state")
    header = store.header()
    found = tuple(alarms(feed, facts, header, now))
    return FeedFigures(
        name=feed.name,
        state=state_of(facts, found, has_list=header is not None),
        serial=header.serial if header is not None else 0,
        entries=facts.entries if header is not None else 0,
        valid_until=header.valid_until if header is not None else 0,
        last_success=facts.last_success,
        next_run=facts.next_run,
        failures=facts.failures,
        reason=facts.reason,
        alarms=found,
    )
