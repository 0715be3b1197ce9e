"""Interface of the dashboard to the rest of urlward."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypedDict

from urlward.engine.errors import UrlwardError
from urlward.objections.book import Grant
from urlward.records.store import EventQuery

type Row = dict[str, Any]
"""By the names that the interface for scripts has too."""


class AdminError(UrlwardError):
    """A request that the dashboard cannot fulfil, or a dashboard that cannot be served."""


class NotConfiguredError(AdminError):
    """A part that is not configured; the message says how it would be."""


class EventPage(NamedTuple):
    """Page of events, newest first.

    Attributes:
        events: by the names of an event's fields.
        older: the `EventQuery.before` of the next page; empty where there is none.
    """

    events: list[Row]
    older: str


class Now(TypedDict):
    """Current traffic: the last ten minutes, and the workers.

    Keys:
        time: of the newest second, seconds since 1970-01-01 UTC; 0 where none is known yet.
        seconds: those of the last ten minutes that are known, ascending.
        requests, blocks: in each of these seconds.
        latency: that the filter added to a request, milliseconds, the mean of each second; None without one.
        stall: the longest of the event loops, milliseconds.
        connections: open now.
        workers: each with ``name``, ``since`` (RFC 3339), ``connections``, ``queue`` and ``dropped``.
    """

    time: int
    seconds: list[int]
    requests: list[int]
    blocks: list[int]
    latency: list[float | None]
    stall: list[float]
    connections: int
    workers: list[Row]


class Sources(Protocol):
    """Asked by the pages. `metrics_text`, `now`, `health` and `ready` are called on the event loop and
    answer at once; the others in threads, also several at a time.

    Each raises AbsentError where what it is about is not configured, and another UrlwardError where it
    cannot be had.
    """

    def metrics_text(self) -> bytes:
        """The exposition for Prometheus."""

    def now(self) -> Now:
        """Current traffic."""

    def health(self) -> bool:
        """Whether this process works."""

    def ready(self) -> Mapping[str, bool]:
        """Readiness: each thing that the filter needs, and whether it is there."""

    def lists(self) -> list[Row]:
        """Each: ``name``, ``kind``, ``serial``, ``created``, ``age`` (s), ``entries``, ``hits``, ``note``."""

    def hits(self) -> dict[str, dict[str, int]]:
        """Blocks of the last day by ``list`` and by ``category``."""

    def feeds(self) -> list[Row]:
        """As `urlward.feeds.status.status` has them."""

    def events(self, wanted: EventQuery) -> EventPage:
        """Find a page of events."""

    def check(self, url: str, client: str, at: float | None) -> Row:
        """Check a URL; the result is as of ``urlward check --explain --json``.

        Args:
            url: as typed.
            client: address, or empty.
            at: seconds since 1970-01-01 UTC; None for now.
        """

    def alarms(self) -> list[Row]:
        """Each with ``time``, ``source``, ``alarm``, ``text`` and ``current``; the current ones first."""

    def allows(self) -> list[Row]:
        """Allows in force: ``id``, ``kind``, ``created``, ``until``, ``who`` and ``why``."""

    def allow(self, url: str, seconds: int, why: str, who: str, *, whole_host: bool) -> Row:
        """Allow a page or a host for a while, as `urlward.policy.allows.add_allow`."""

    def end_allow(self, id_: str, why: str, who: str) -> Row:
        """End an allow before its time."""

    def refresh_feed(self, name: str) -> str:
        """Start a refresh of a feed; returns what to say of it."""

    def accept_feed(self, name: str, why: str, who: str) -> str:
        """Accept a list that was refused for its size; returns what to say of it."""

    def objections(self) -> list[Row]:
        """Open ones first: ``id``, ``time`` (RFC 3339), ``reference``, ``message``, ``state`` (``open``,
        ``granted``, ``declined``), and once it is decided ``why``, ``who``, ``decided`` (RFC 3339) and
        ``allow`` (an id, or empty); where the block is recorded ``list``, ``category`` and ``entry``."""

    def decide_objection(self, id_: str, why: str, who: str, *, granted: Grant | None) -> None:
        """Decide an objection, with the reason; None declines it."""
