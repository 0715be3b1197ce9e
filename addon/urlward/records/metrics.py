"""What a worker counts: plain numbers, since each request bumps several.

Nothing here takes a lock, asks the time or makes an object on the way of a request: a worker's event loop
is the only one that bumps. What is counted goes to the recorder as a snapshot (`urlward.records.exposition`).
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from urlward.records.labels import ERRORS, OTHER, STAGES, VERDICTS, Origins

VERSION = 1
"""Of snapshots."""

CHECK = (1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1)
ADDED = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)
STALL = (1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 5.0)
RELOAD = (1e-2, 5e-2, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of a histogram's buckets, seconds; one more has no bound."""

BUCKETS = {"check": CHECK, "added": ADDED, "stall": STALL, "reload": RELOAD}


class Histogram:
    """How often a length of time fell between two bounds.

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
        """Count one."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    def snapshot(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"counts": list(self.counts), "sum": self.sum}


@dataclass(frozen=True, slots=True)
class ListFacts:
    """A list in force.

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


class Metrics:
    """What one worker has counted since its start.

    Args:
        started: when that was, seconds since 1970-01-01 UTC; tells two workers of one name apart.

    Attributes:
        check: bumps how long a decision took, seconds.
        added: how much later than without the filter a request went on, seconds.
        reload: how long it took to put a list into force, seconds.
    """

    __slots__ = (
        "_blocks", "_errors", "_failed_reloads", "_histograms", "_in_force", "_longest", "_longest_before",
        "_open", "_origins", "_queue", "_requests", "_would_blocks", "added", "check", "dropped", "opened",
        "reload", "started",
    )  # fmt: skip

    def __init__(self, started: float) -> None:
        self.started = started
        self.opened = self.dropped = 0
        self._open = self._queue = self._failed_reloads = 0
        self._longest = self._longest_before = 0.0
        self._requests = {(stage, verdict): 0 for stage in (*STAGES, OTHER) for verdict in (*VERDICTS, OTHER)}
        self._errors = dict.fromkeys((*ERRORS, OTHER), 0)
        self._blocks: dict[tuple[str, str], int] = {}
        self._would_blocks: dict[tuple[str, str], int] = {}
        self._origins = Origins()
        self._in_force: tuple[ListFacts, ...] = ()
        self._histograms = {name: Histogram(bounds) for name, bounds in BUCKETS.items()}
        self.check = self._histograms["check"].add
        self.added = self._histograms["added"].add
        self.reload = self._histograms["reload"].add

    def requests(self, stage: str, verdict: str) -> None:
        """Count what was judged.

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
        """Count what an entry has blocked or cut, or would have."""
        key = self._origins.known.get((list_, category)) or self._origins(list_, category)
        counts = self._would_blocks if would else self._blocks
        counts[key] = counts.get(key, 0) + 1

    def connections(self, change: int) -> None:
        """A client's connection has opened (1) or closed (-1)."""
        self._open += change
        if change > 0:
            self.opened += change

    def open(self, count: int) -> None:
        """So many clients' connections are open, where somebody else counts them."""
        self._open = count

    def stall(self, seconds: float) -> None:
        """The event loop came back late by so much (`urlward.records.loop_watch`)."""
        self._histograms["stall"].add(seconds)
        if seconds > self._longest:
            self._longest = seconds

    def stall_window(self) -> None:
        """Begin another window: the longest stall that is shown is of this one and the one before."""
        self._longest_before, self._longest = self._longest, 0.0

    def failed_reload(self) -> None:
        """A list could not be put into force; the last good one stays."""
        self._failed_reloads += 1

    def error(self, kind: str = "decision") -> None:
        """Count an error of ours, of one of `labels.ERRORS`."""
        self._errors[kind if kind in self._errors else OTHER] += 1

    def queue(self, size: int, dropped: int) -> None:
        """How many events wait in this worker for the recorder, and how many it has had to drop so far."""
        self._queue, self.dropped = size, dropped

    def lists(self, in_force: Iterable[ListFacts]) -> None:
        """Say which lists are in force from now on."""
        self._in_force = tuple(in_force)

    def snapshot(self) -> dict[str, Any]:
        """All of it, as JSON has it; cumulative but for what is a state."""
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
            "stall_longest": max(self._longest, self._longest_before),
            "histograms": {name: one.snapshot() for name, one in self._histograms.items()},
            "lists": [[one.name, one.serial, one.entries, one.created] for one in self._in_force],
        }


def _nested(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """By the first label, then by the second; what is zero is left out."""
    found: dict[str, dict[str, int]] = {}
    for (first, second), count in counts.items():
        if count:
            found.setdefault(first, {})[second] = count
    return found
