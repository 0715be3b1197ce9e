"""Metrics of a worker: plain numbers, since each request bumps several.

Nothing here takes a lock, asks the time or makes an object on the way of a request: a worker's event loop
is the only one that bumps. What is counted goes to the recorder as a snapshot (`urlward.records.exposition`).
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from urlward.lines import plain
from urlward.records.labels import ERRORS, OTHER, STAGES, VERDICTS, Origins

VERSION = 1
"""Version of snapshots."""

MAX_WHY = 500
"""Characters of why a list was refused."""

CHECK = (1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1)
ADDED = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)
STALL = (1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 5.0)
RELOAD = (1e-2, 5e-2, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of a histogram's buckets, seconds; one more has no bound."""

BUCKETS = {"check": CHECK, "added": ADDED, "stall": STALL, "collector": STALL, "reload": RELOAD}


class Histogram:
    """Histogram of lengths of time.

    Args:
        bounds: upper ones, seconds, ascending.

    Attributes:
        counts: in each bucket alone; the last is of what is longer than all bounds.
        sum: seconds.
    """

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Add one value."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    def snapshot(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"counts": list(self.counts), "sum": self.sum}


@dataclass(frozen=True, slots=True)
class ListFacts:
    """Facts of a list in force.

    Attributes:
        name: of it.
        serial: likewise.
        entries: how many it has.
        created: when it was made, seconds since 1970-01-01 UTC; 0 where that is not known.
    """

    name: str
    serial: int
    entries: int
    created: int = 0


@dataclass(frozen=True, slots=True)
class RulesFacts:
    """Facts of a gateway's rules in the kernel.

    Attributes:
        restored: how often they were put back, since the watch began.
        hand: what another hand has done to them last, and whose it was.
        wrong: what is wrong with them now, in a few words each.
    """

    restored: int = 0
    hand: str = ""
    wrong: tuple[str, ...] = ()


class Metrics:
    """Metrics of one worker since its start.

    Args:
        started: when that was, seconds since 1970-01-01 UTC; tells two workers of one name apart.

    Attributes:
        check: bumps how long a decision took, seconds.
        canary: when the canary has last come through, seconds since 1970-01-01 UTC; 0 where it has not.
        authority: when the certificate of the filter's authority ends, likewise; 0 where another worker says.
        added: how much later than without the filter a request went on, seconds.
        reload: how long it took to put a list into force, seconds.
        collected: how long the garbage collector took, seconds.
    """

    __slots__ = (
        "_blocks", "_errors", "_failed_reloads", "_histograms", "_in_force", "_longest", "_longest_before",
        "_newest", "_newest_before", "_open", "_origins", "_queue", "_refused", "_requests", "_rules",
        "_troubles", "_would_blocks",
        "added", "authority", "canary", "check", "collected", "dropped", "opened", "reload", "started",
    )  # fmt: skip

    def __init__(self, started: float) -> None:
        self.started = started
        self.opened = self.dropped = 0
        self._open = self._queue = self._failed_reloads = 0
        self._longest = self._longest_before = 0.0
        self._newest = self._newest_before = 0.0
        self._requests = {(stage, verdict): 0 for stage in (*STAGES, OTHER) for verdict in (*VERDICTS, OTHER)}
        self._errors = dict.fromkeys((*ERRORS, OTHER), 0)
        self._blocks: dict[tuple[str, str], int] = {}
        self._would_blocks: dict[tuple[str, str], int] = {}
        self._origins = Origins()
        self._in_force: tuple[ListFacts, ...] = ()
        self._refused: dict[str, str] = {}
        self._rules: RulesFacts | None = None
        self._troubles: dict[str, str] = {}
        self.authority = self.canary = 0.0
        self._histograms = {name: Histogram(bounds) for name, bounds in BUCKETS.items()}
        self.check = self._histograms["check"].add
        self.added = self._histograms["added"].add
        self.reload = self._histograms["reload"].add
        self.collected = self._histograms["collector"].add

    def requests(self, stage: str, verdict: str) -> None:
        """Count judged requests.

        Args:
            stage: ``dns``, ``peek`` (a TLS connection by its names) or ``match`` (a request).
            verdict: ``pass``, ``allow``, ``block``, ``monitor``, ``refuse`` or ``error``.
        """
        try:
            self._requests[stage, verdict] += 1
        except KeyError:
            self._requests[
                stage if stage in STAGES else OTHER, verdict if verdict in VERDICTS else OTHER
            ] += 1

    def blocked(self, list_: str, category: str, *, would: bool = False) -> None:
        """Count an entry that has blocked or cut, or would have."""
        key = self._origins.known.get((list_, category)) or self._origins(list_, category)
        counts = self._would_blocks if would else self._blocks
        counts[key] = counts.get(key, 0) + 1

    def connections(self, change: int) -> None:
        """Count a client's connection that has opened (1) or closed (-1)."""
        self._open += change
        if change > 0:
            self.opened += change

    def open(self, count: int) -> None:
        """Set the number of clients' connections, where somebody else counts them."""
        self._open = count

    def stall(self, seconds: float) -> None:
        """Record a stall: the event loop came back late by so much (`urlward.records.loop_watch`)."""
        self._histograms["stall"].add(seconds)
        if seconds > self._longest:
            self._longest = seconds
        if seconds > self._newest:
            self._newest = seconds

    def stall_window(self) -> None:
        """Start another window: the longest stall that is shown is of this one and the one before."""
        self._longest_before, self._longest = self._longest, 0.0

    def failed_reload(self) -> None:
        """Count a list that could not be put into force; the last good one stays."""
        self._failed_reloads += 1

    def error(self, kind: str = "decision") -> None:
        """Count an error of ours, of one of `labels.ERRORS`."""
        self._errors[kind if kind in self._errors else OTHER] += 1

    def queue(self, size: int, dropped: int) -> None:
        """Set how many events wait in this worker for the recorder, and how many it has had to drop so
        far."""
        self._queue, self.dropped = size, dropped

    def lists(self, in_force: Iterable[ListFacts]) -> None:
        """Set the lists in force from now on."""
        self._in_force = tuple(in_force)

    def refused(self, why: Mapping[str, str]) -> None:
        """Set the lists of which the last good one is in force instead of what their files have now, and
        why."""
        self._refused = {name: plain(text)[:MAX_WHY] for name, text in why.items()}

    def rules(self, facts: RulesFacts) -> None:
        """Set the state of the gateway's rules."""
        self._rules = facts

    def trouble(self, kind: str, why: str) -> None:
        """Set a trouble that keeps traffic from being filtered as it should be.

        Args:
            kind: one of `urlward.records.labels.TROUBLES`.
            why: in words of ours; empty where nothing does any more.
        """
        self._troubles.pop(kind, None)
        if why:
            self._troubles[kind] = plain(why)[:MAX_WHY]

    def snapshot(self) -> dict[str, Any]:
        """All of it, as JSON has it; cumulative but for what is a state. Called once a second, which
        `stall_newest` goes by: it is of the last two, so that whoever looks once a second misses none."""
        newest = max(self._newest, self._newest_before)
        self._newest_before, self._newest = self._newest, 0.0
        return {
            "version": VERSION,
            "started": self.started,
            "requests": _nested(self._requests),
            "blocks": _nested(self._blocks),
            "would_blocks": _nested(self._would_blocks),
            "errors": dict(self._errors),
            "failed_reloads": self._failed_reloads,
            "opened": self.opened,
            "open": max(self._open, 0),
            "queue": self._queue,
            "dropped": self.dropped,
            "stall_newest": newest,
            "stall_longest": max(self._longest, self._longest_before),
            "histograms": {name: one.snapshot() for name, one in self._histograms.items()},
            "lists": [[one.name, one.serial, one.entries, one.created] for one in self._in_force],
            "refused": dict(self._refused),
            "rules": self._rules and [self._rules.restored, self._rules.hand, list(self._rules.wrong)],
            "troubles": dict(self._troubles),
            "canary": self.canary,
            "authority": self.authority,
        }


def _nested(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Nest counts by the first label, then by the second; zeros are left out."""
    found: dict[str, dict[str, int]] = {}
    for (first, second), count in counts.items():
        if count:
            found.setdefault(first, {})[second] = count
    return found
