"""Prometheus exposition: the metrics of all workers, in the text format.

Workers' counters are added up, ended workers included, so that no counter goes down; what they came to in the
last hour is kept, too.

What a worker has told another before is left out: it was in the sums of the process whose place this one has
taken, and would be counted twice by whoever follows both. So all sums begin near zero, as counters do whose
process is new.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from urlward.config import FeedTable
from urlward.records.families import of_feeds, of_filter, of_recorder, of_rules, of_workers
from urlward.records.feed_figures import FeedFigures, feed_figures
from urlward.records.metrics import RulesFacts
from urlward.records.recorder import RecorderState
from urlward.records.snapshot import Counts, Labels, Snapshot, SnapshotError, add, read_snapshot

HOUR = 3_600.0
STEP = 60.0
"""Seconds between two looks that are kept."""


class LastHour:
    """Samples of the counters for each minute of the last hour."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Counts]] = deque(maxlen=int(HOUR / STEP) + 1)

    def is_due(self, now: float) -> bool:
        """Whether the next sample is due."""
        return not self._looks or now - self._looks[-1][0] >= STEP

    def note(self, now: float, total: Counts) -> None:
        """Add a sample."""
        self._looks.append((now, total))

    def since(self, now: float, total: Counts) -> Counts:
        """Counts of the hour up to now, or since the first sample."""
        before = next((counts for at, counts in self._looks if now - at <= HOUR), None)
        if before is None:
            return {}
        return {key: count - before.get(key, 0) for key, count in total.items() if count > before.get(key, 0)}


MOST_GONE = 256
"""Workers that may come back under their name and be known; older ones are added up for good."""


class Sums:
    """Sums of snapshots, each of which is cumulative since its worker's start.

    Attributes:
        live: the last snapshot of each worker that is connected, by its name; what was told before is not in
            its counts.
    """

    def __init__(self) -> None:
        self.live: dict[str, Snapshot] = {}
        self._before: dict[str, Counts] = {}
        self._gone: OrderedDict[str, Snapshot] = OrderedDict()
        self._ended: Counts = {}

    def take(self, worker: str, snapshot: Snapshot) -> None:
        """Replace a worker's last snapshot."""
        last = self.live.pop(worker, None) or self._gone.pop(worker, None)
        if last is None or last.started != snapshot.started:
            if last is not None:
                add(self._ended, last.counts)
            self._before[worker] = dict(snapshot.counts) if snapshot.told else {}
        for key, count in self._before[worker].items():
            snapshot.counts[key] = max(snapshot.counts.get(key, 0) - count, 0)
        if last is not None and last.started == snapshot.started:
            # Whatever comes late, or twice, takes nothing back.
            _raise_to(snapshot.counts, last.counts)
        self.live[worker] = snapshot

    def gone(self, worker: str) -> None:
        """Note that a worker has ended or lost its connection; should it come back, nothing is counted
        twice."""
        last = self.live.pop(worker, None)
        if last is None:
            return
        self._gone[worker] = last
        while len(self._gone) > MOST_GONE:
            name, snapshot = self._gone.popitem(last=False)
            del self._before[name]
            add(self._ended, snapshot.counts)

    def total(self) -> Counts:
        """Totals of all workers, since the beginning."""
        total = dict(self._ended)
        for snapshot in (*self._gone.values(), *self.live.values()):
            add(total, snapshot.counts)
        return total


def _raise_to(counts: Counts, least: Counts) -> None:
    for key, count in least.items():
        if counts.get(key, 0) < count:
            counts[key] = count


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SILENT_AFTER = 5.0
"""Seconds without a word after which a worker no longer counts as one that reports."""

FIGURES_FOR = 1.0
"""Seconds for which figures of the feeds are good: files of all feeds are read for them, and whoever can
connect may ask whether the filter is ready."""

_OF_HOUR = {"requests": "judged", "blocks": "blocked", "would_blocks": "would_block", "errors": "errors"}


class Exposition(Collector):
    """Exposition: adds up the workers' snapshots, and renders the metrics.

    Args:
        feeds: whose state is shown.
        state: the state folder.
        expected: how many workers there should be.
        recorder: gives what the recorder says of itself.
        clock: seconds since 1970-01-01 UTC.
        steady: seconds that never go back.

    Attributes:
        expected: as above; may be set.
        refused: snapshots that were none.
    """

    def __init__(
        self,
        feeds: Sequence[FeedTable],
        state: Path,
        *,
        expected: int = 1,
        recorder: Callable[[], RecorderState] = RecorderState,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.expected = expected
        self.refused = 0
        self._feeds = tuple(feeds)
        self._state = state
        self._recorder = recorder
        self._clock = clock
        self._steady = steady
        self._sums = Sums()
        self._labels = Labels()
        self._heard: dict[str, float] = {}
        self._figures: tuple[float, list[FeedFigures]] | None = None
        self._hour = LastHour()
        self._hour.note(steady(), {})
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def take(self, worker: str, snapshot: dict[str, Any]) -> None:
        """Take a worker's snapshot: cumulative since its start; invalid ones are refused, and counted."""
        try:
            read = read_snapshot(snapshot, self._labels)
        except SnapshotError:
            self.refused += 1
            return
        self._sums.take(worker, read)
        now = self._heard[worker] = self._steady()
        if self._hour.is_due(now):
            self._hour.note(now, self._sums.total())

    def gone(self, worker: str) -> None:
        """Drop the connection of a worker that has ended; its counts stay."""
        self._sums.gone(worker)
        self._heard.pop(worker, None)

    def silence(self) -> dict[str, float]:
        """Seconds since each worker that is connected has reported."""
        now = self._steady()
        return {worker: now - heard for worker, heard in self._heard.items()}

    def last_hour(self) -> dict[str, int]:
        """Counts of the last hour, or since the start: judged, blocked, would_block, errors."""
        found = dict.fromkeys(_OF_HOUR.values(), 0.0)
        for (name, *_), count in self._hour.since(self._steady(), self._sums.total()).items():
            if name in _OF_HOUR:
                found[_OF_HOUR[name]] += count
        return {name: round(count) for name, count in found.items()}

    def dropped(self) -> int:
        """Events that found no place, in workers and in the recorder."""
        return round(self._sums.total().get(("dropped",), 0)) + self._recorder().dropped

    def live(self) -> list[Snapshot]:
        """Latest snapshots of the workers that are connected."""
        return list(self._sums.live.values())

    def snapshots(self) -> dict[str, Mapping[str, Any]]:
        """Latest snapshots as the workers sent them, by worker."""
        return {worker: snapshot.said for worker, snapshot in self._sums.live.items()}

    def refused_lists(self) -> dict[str, str] | None:
        """Reasons, by list, why its current file is not in force in some worker; None where no worker
        says."""
        live, found = self.live(), dict[str, str]()
        for snapshot in live:
            for name, why in snapshot.refused.items():
                found[name] = min(why, found.get(name, why))
        return found if live else None

    def rules(self) -> RulesFacts | None:
        """State of a gateway's rules, from the worker that knows of most restorations; None where none
        says."""
        known = [snapshot.rules for snapshot in self.live() if snapshot.rules is not None]
        return max(known, key=lambda facts: (facts.restored, len(facts.wrong)), default=None)

    def troubles(self) -> dict[tuple[str, str], str]:
        """Troubles with traffic, by kind, and a worker's machine and number."""
        found: dict[tuple[str, str], str] = {}
        for worker, snapshot in self._sums.live.items():
            number = worker.rsplit("-", 2)[0]  # without what tells it from the one before it
            found |= {(kind, number): why for kind, why in snapshot.troubles.items()}
        return found

    def feeds(self) -> list[FeedFigures]:
        """Figures of the feeds, good for `FIGURES_FOR`."""
        now = self._steady()
        if self._figures is None or now - self._figures[0] >= FIGURES_FOR:
            self._figures = now, feed_figures(self._feeds, self._state, self._clock())
        return self._figures[1]

    def recorder(self) -> RecorderState:
        """State of the recorder."""
        return self._recorder()

    def collect(self) -> Iterator[Metric]:
        """Collect all metrics, for prometheus-client."""
        now, total, live = self._clock(), self._sums.total(), self.live()
        add(total, {("errors", "snapshot"): self.refused})
        reporting = sum(silent <= SILENT_AFTER for silent in self.silence().values())
        yield from of_filter(_version(), reporting, self.expected)
        yield from of_workers(total, live, now)
        if (rules := self.rules()) is not None:
            yield from of_rules(rules)
        yield from of_feeds(self.feeds(), now)
        yield from of_recorder(
            self._recorder(), sum(snapshot.queue for snapshot in live), total.get(("dropped",), 0.0)
        )

    def render(self) -> bytes:
        """Render as text; `CONTENT_TYPE` is its media type."""
        return generate_latest(self._registry)


def _version() -> str:
    try:
        return version("urlward")
    except PackageNotFoundError:
        return "unknown"
