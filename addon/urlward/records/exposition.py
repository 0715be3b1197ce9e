"""Prometheus exposition: the metrics of all workers, feeds and stores, in the text format.

Workers' counters are added up, ended workers included, so that no counter goes down; what they came to in the
last hour is kept, too.

What a worker has told another before is left out: it was in the sums of the process whose place this one has
taken, and would be counted twice by whoever follows both. So all sums begin near zero, as counters do whose
process is new.

Figures of a feed come from its facts and its artifact's header alone, so that a scrape costs little. Names
follow https://prometheus.io/docs/practices/naming/.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from urlward.config import FeedTable
from urlward.feeds.status import STATES, State, alarms, state_of
from urlward.feeds.store import Facts, FeedStore
from urlward.records.delivery import RecorderState
from urlward.records.event import KINDS
from urlward.records.metrics import (
    BUCKETS,
    ERRORS,
    HASHED,
    HOOKED,
    INSPECTED,
    MAX_STORES,
    NONE,
    PUBLISHING,
    SETTLED,
    SHARED,
    STAGES,
    TROUBLES,
    UNLEARNED,
    VERDICTS,
    Bounded,
    Counts,
    Labels,
    ListFacts,
    RulesFacts,
    Snapshot,
    add,
    among,
    read_snapshot,
)
from urlward.state.folder import StateError

ALARMS = (
    "store-down", "spool-damaged", "dropped", "refused", "probing", "set-aside",
    "descriptors", "ports", "missing", "stale", "expiring", "expired", "store-lagging", "store-replaced",
    "clock-set", "refused-list", "rules-removed", "rules-wrong", "known-file", "learned-full", *TROUBLES,
    *PUBLISHING, "lease-lost", "included", "twin-node", "begun-again",
)  # fmt: skip

_HISTOGRAMS = {
    "check": ("urlward_check_seconds", "Time that a decision took."),
    "added": ("urlward_added_seconds", "Time that the filter added to a request."),
    "stall": ("urlward_event_loop_lag_seconds", "How late a worker's event loop came back."),
    "collector": (
        "urlward_collector_pause_seconds",
        "For how long Python's garbage collector stopped a worker's event loop.",
    ),
    "reload": ("urlward_reload_seconds", "Time that it took to put a list into force."),
    "settle": ("urlward_fleet_settle_seconds", "Time that a DNS answer waited for other nodes."),
}

_OF_FLEET = ("settle",)
"""Histograms of what nodes share."""

type Row = tuple[Sequence[str], float]
type Rows = dict[tuple[str, ...], float]

HOUR = 3_600.0
STEP = 60.0
"""Seconds between two looks that are kept."""


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """Figures of a feed; times are seconds since 1970-01-01 UTC, 0 for never.

    Attributes:
        name: of it.
        state: as `state_of` has it.
        kind: of what its server has, ``artifact`` or ``text``; empty where that is not known yet.
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
    kind: str = ""
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
        state=state_of(feed, facts, found, has_list=header is not None),
        kind=facts.kind,
        serial=header.serial if header is not None else 0,
        entries=facts.entries if header is not None else 0,
        valid_until=header.valid_until if header is not None else 0,
        last_success=facts.last_success,
        next_run=facts.next_run,
        failures=facts.failures,
        reason=facts.reason,
        alarms=found,
    )


def of_workers(total: Counts, live: Sequence[Snapshot], now: float) -> Iterator[Metric]:
    """Counters and gauges of the workers."""
    # A counter that begins with the first of what it counts would have no increase to show for it.
    quiet = {(facts.name, NONE): 0.0 for snapshot in live for facts in snapshot.lists}
    judged = {(stage, verdict): 0.0 for stage in STAGES for verdict in VERDICTS} | _of(total, "requests")
    yield _counter("urlward_requests", "Requests and connections judged.", ("stage", "verdict"), judged)
    for key, text in (
        ("blocks", "What a list has blocked or cut."),
        ("would_blocks", "What a list would have blocked or cut."),
    ):
        yield _counter(f"urlward_{key}", text, ("list", "category"), quiet | _of(total, key))
    faults = {(kind,): 0.0 for kind in ERRORS} | _of(total, "errors")
    yield _counter("urlward_errors", "Faults of the filter's own.", ("kind",), faults)
    for name, key, text in (
        ("urlward_failed_reloads", "failed_reloads", "Lists that could not be put into force."),
        ("urlward_connections", "opened", "Clients' connections taken."),
    ):
        yield _counter(name, text, (), {(): 0.0} | _of(total, key))
    for key in BUCKETS:
        if key not in _OF_FLEET:
            yield _histogram(key, total)
    yield _one("urlward_open_connections", "Clients' connections now.", sum(s.open for s in live))
    longest = max((s.stall_longest for s in live), default=0.0)
    text = "Longest stall of a worker's event loop in the last minute."
    yield _one("urlward_event_loop_stall_seconds", text, longest)
    if any(s.canary or "canary" in s.troubles for s in live):
        text = "When the canary has last come through, of the worker for which that is longest ago."
        yield _one("urlward_canary_last_success_timestamp_seconds", text, min(s.canary for s in live))
    if ends := [s.authority for s in live if s.authority]:
        text = "When the certificate of the filter's authority ends."
        yield _one("urlward_authority_valid_until_timestamp_seconds", text, min(ends))
    yield from _lists([facts for snapshot in live for facts in snapshot.lists], now)


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """Figures of several nodes.

    Attributes:
        up: whether the recording process has Valkey.
        nodes: how many are in each state.
        why: Valkey is away, as far as is known.
    """

    up: bool
    nodes: Mapping[str, int]
    why: str = ""

    def has_valkey(self, live: Sequence[Snapshot]) -> bool:
        """Whether every process has Valkey."""
        return self.up and not any("fleet" in snapshot.troubles for snapshot in live)


def of_fleet(total: Counts, live: Sequence[Snapshot], figures: FleetFigures) -> Iterator[Metric]:
    """What passes between nodes, and how many there are."""
    sharing = [snapshot for snapshot in live if snapshot.shares]
    text = "1 where every process has the fleet's Valkey."
    yield _one("urlward_fleet_up", text, figures.has_valkey(live))
    nodes = [((state,), float(count)) for state, count in figures.nodes.items()]
    yield _gauge("urlward_fleet_nodes", "Nodes in each state.", ("state",), nodes)
    if not sharing:
        return
    counts = _of(total, "fleet")
    for name, text, label, values in (
        ("answers", "DNS answers whose addresses other nodes were to have first.", "outcome", SETTLED),
        ("addresses", "Addresses that passed between nodes.", "way", SHARED),
    ):
        rows: Rows = {(value,): counts.get((value,), 0.0) for value in values}
        yield _counter(f"urlward_fleet_{name}", text, (label,), rows)
    for key in _OF_FLEET:
        yield _histogram(key, total)


def of_resolvers(total: Counts, live: Sequence[Snapshot]) -> Iterator[Metric]:
    """What resolvers hand over or tell of, where some can."""
    connected = [snapshot.resolvers for snapshot in live if snapshot.resolvers is not None]
    if not connected:
        return
    rows: Rows = {(outcome,): 0.0 for outcome in HOOKED} | _of(total, "hooked")
    text = "Answers that resolvers handed over by a hook, or told of by dnstap."
    yield _counter("urlward_hook_answers", text, ("outcome",), rows)
    yield _one("urlward_hook_connections", "Connections of resolvers now.", sum(connected))


def of_files(total: Counts) -> Iterator[Metric]:
    """Bodies that were looked at, and known files among them."""
    counts = _of(total, "files")
    texts = (
        "Bodies whose digests were looked up.",
        "Bytes of these.",
        "Known files whose URL was not learned, as there were too many.",
    )
    for what, text in zip((*HASHED, UNLEARNED), texts, strict=True):
        yield _counter(f"urlward_files_{what}", text, (), {(): counts.get((what,), 0.0)})
    inspected: Rows = {(what,): counts.get((what,), 0.0) for what in INSPECTED}
    text = "Copies of pictures and video for the inspector, by what came of them."
    yield _counter("urlward_files_inspected", text, ("outcome",), inspected)
    yield _counter("urlward_files_matches", "Known files.", ("list", "algorithm"), _of(total, "matches"))


OFFERS = ("offered", "tried", "held")
"""States of a published list: the same for all, another for canaries, and nothing new."""


@dataclass(frozen=True, slots=True)
class PublishedList:
    """Figures of a list that is published.

    Attributes:
        name: of it.
        state: one of `OFFERS`.
        stable, canary: serials that are offered to all and to canaries; 0 for none.
        entries: of the one for all.
        observed: share of its time for which canaries have had the one that is tried.
        last_success: when nothing stood in its way last, seconds since 1970-01-01 UTC; 0 for never.
    """

    name: str
    state: str
    stable: int = 0
    canary: int = 0
    entries: int = 0
    observed: float = 0.0
    last_success: float = 0.0


@dataclass(frozen=True, slots=True)
class PublishFigures:
    """Figures of a publisher.

    Attributes:
        leads: whether it publishes, and no other.
        lists: that it publishes; none where another does.
        failures: how often something stood in the way, by list.
    """

    leads: bool
    lists: Sequence[PublishedList]
    failures: Mapping[str, int]


def of_publisher(figures: PublishFigures) -> Iterator[Metric]:
    """State of a publisher and of its lists."""
    lists = figures.lists
    yield _one("urlward_publish_leads", "1 where it leads.", figures.leads)
    serials = [
        ((one.name, channel), float(serial))
        for one in lists
        for channel, serial in (("stable", one.stable), ("canary", one.canary))
    ]
    labels = ("list", "channel")
    yield _gauge("urlward_publish_serial", "Serial that is offered; 0 for none.", labels, serials)
    by_list = partial(_by_name, "list", lists)
    yield by_list("urlward_publish_entries", "Entries of the list that all have.", lambda one: one.entries)
    states = [((one.name, state), float(one.state == state)) for one in lists for state in OFFERS]
    text = "1 for the state that it is in."
    yield _gauge("urlward_publish_state", text, ("list", "state"), states)
    text = "Share of its time for which canaries have had the list that is tried."
    yield by_list("urlward_publish_observed_ratio", text, lambda one: one.observed)
    name, text = "urlward_publish_last_success_timestamp_seconds", "When nothing stood in its way last."
    yield by_list(name, text, lambda one: one.last_success or None)
    failures: Rows = {(name,): float(count) for name, count in figures.failures.items()}
    yield _counter("urlward_publish_failures", "Times that something stood in its way.", ("list",), failures)


def of_rules(rules: RulesFacts) -> Iterator[Metric]:
    """State of a gateway's rules."""
    restored: Rows = {(): float(rules.restored)}
    text = "Times that rules which another hand had removed were put back."
    yield _counter("urlward_rules_restored", text, (), restored)
    text = "1 where the kernel has the rules, and nobody keeps removing them."
    yield _one("urlward_rules_up", text, not rules.wrong)


def of_feeds(feeds: Sequence[FeedFigures], now: float) -> Iterator[Metric]:
    """State of the feeds."""
    by_feed = partial(_by_name, "feed", feeds)
    text = "Time since the last success; none where there never was one."
    yield by_feed(
        "urlward_feed_age_seconds", text, lambda f: max(now - f.last_success, 0.0) if f.last_success else None
    )
    yield by_feed("urlward_feed_failures", "Failed refreshes in a row.", lambda f: f.failures)
    yield by_feed("urlward_feed_entries", "Entries of the artifact in force.", lambda f: f.entries)
    yield by_feed("urlward_feed_serial", "Serial of the artifact in force.", lambda f: f.serial)
    name, text = "urlward_feed_next_run_timestamp_seconds", "When it is refreshed next."
    yield by_feed(name, text, lambda f: f.next_run)
    name = "urlward_feed_valid_until_timestamp_seconds"
    text = "When the artifact in force expires; none where it does not."
    yield by_feed(name, text, lambda f: f.valid_until or None)
    yield _gauge(
        "urlward_feed_state",
        "1 for the state that it is in.",
        ("feed", "state"),
        [((f.name, state), float(f.state == state)) for f in feeds for state in STATES],
    )
    yield _gauge(
        "urlward_feed_alarm",
        "1 for each alarm that it gives.",
        ("feed", "alarm"),
        [
            ((f.name, a), float(a in f.alarms))
            for f in feeds
            for a in ("missing", "stale", "expiring", "expired")
        ],
    )


def of_recorder(recorder: RecorderState, queued: int, dropped: float) -> Iterator[Metric]:
    """Delivery and loss of events, and alarms.

    Args:
        recorder: what it says of itself.
        queued: events that wait in workers.
        dropped: by workers.
    """
    events = _among(KINDS, recorder.events)
    yield _counter("urlward_events", "Events that came to the outbox.", ("kind",), events)
    dropping: Rows = {("worker",): dropped, ("recorder",): float(recorder.dropped)}
    yield _counter("urlward_events_dropped", "Events that found no place.", ("where",), dropping)
    waiting = [(("worker",), float(queued)), (("recorder",), float(recorder.queue))]
    yield _gauge("urlward_queue_events", "Events that wait.", ("where",), waiting)
    text = "Events in the outbox for stores that are down or slow."
    yield _one("urlward_spool_events", text, recorder.spool_events)
    text = "Bytes of the outbox, while events wait there for such stores."
    yield _one("urlward_spool_bytes", text, recorder.spool_bytes)
    yield _one("urlward_spool_limit_bytes", "Bytes that the outbox may have.", recorder.spool_limit)
    store = Bounded(MAX_STORES)
    stores = {(store(name),): state for name, state in recorder.stores.items()}
    up = [(name, float(state.up)) for name, state in stores.items()]
    yield _gauge("urlward_store_up", "1 where it can be written.", ("store",), up)
    written: Rows = {name: float(state.written) for name, state in stores.items()}
    yield _counter("urlward_store_written", "Events written.", ("store",), written)
    failures: Rows = {name: float(state.failures) for name, state in stores.items()}
    yield _counter("urlward_store_failures", "Writing that has failed.", ("store",), failures)
    lasting = _among(ALARMS, dict.fromkeys(recorder.alarms, 1)).items()
    yield _gauge(
        "urlward_alarm",
        "1 for each alarm that lasts.",
        ("alarm",),
        [(name, min(count, 1.0)) for name, count in lasting],
    )
    raised = _among(ALARMS, recorder.raised)
    yield _counter("urlward_alarms", "Alarms that have begun.", ("alarm",), raised)


def of_filter(version: str, reporting: int, expected: int) -> Iterator[Metric]:
    """Build info and worker gauges."""
    yield _gauge("urlward_build_info", "1, with the release.", ("version",), [((version,), 1.0)])
    yield _one("urlward_workers", "Workers that have reported in the last seconds.", reporting)
    yield _one("urlward_workers_expected", "Workers that there should be.", expected)


def _lists(found: Sequence[ListFacts], now: float) -> Iterator[Metric]:
    """Lists in force; where workers disagree, the figures of the oldest."""
    behind: dict[str, ListFacts] = {}
    for facts in found:
        known = behind.get(facts.name)
        if known is None or facts.serial < known.serial:
            behind[facts.name] = facts
    by_list = partial(_by_name, "list", behind.values())
    yield by_list("urlward_list_serial", "Serial in force.", lambda li: li.serial)
    yield by_list("urlward_list_entries", "Entries in force.", lambda li: li.entries)
    text = "Time since the list was made."
    yield by_list(
        "urlward_list_age_seconds", text, lambda li: max(now - li.created, 0.0) if li.created else None
    )


def _of(counts: Counts, name: str) -> Rows:
    """Counts of one metric, by its labels."""
    return {key[1:]: count for key, count in counts.items() if key[0] == name}


def _among(values: Sequence[str], counts: Mapping[str, float]) -> Rows:
    """Counts by one of these values, or ``other``."""
    known = among(values)
    found: Rows = {(value,): 0.0 for value in values}
    for value, count in counts.items():
        add(found, {(known(value),): count})
    return found


def _counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in sorted(rows.items()):
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return _gauge(name, text, (), [((), float(value))])


def _by_name(
    label: str, figures: Iterable[Any], name: str, text: str, value: Callable[[Any], float | None]
) -> GaugeMetricFamily:
    """Gauge of each that has a value, by its name."""
    rows = [((one.name,), float(found)) for one in figures if (found := value(one)) is not None]
    return _gauge(name, text, (label,), rows)


def _histogram(key: str, counts: Counts) -> HistogramMetricFamily:
    name, text = _HISTOGRAMS[key]
    family = HistogramMetricFamily(name, text, labels=())
    buckets, so_far = [], 0.0
    for number, bound in enumerate((*BUCKETS[key], float("inf"))):
        so_far += counts.get((key, str(number)), 0)
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), so_far))
    family.add_metric((), buckets, counts.get((key, "sum"), 0.0))
    return family


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
        fleet: gives the figures of several nodes; None where there is one.
        publishing: gives those of a publisher; None where this is none.
        stopped: whether the supervisor is, as by Ctrl-Z.
        clock: seconds since 1970-01-01 UTC.
        steady: seconds that never go back.

    Attributes:
        expected, stopped: as above; may be set.
        refused: snapshots that were none.
    """

    def __init__(
        self,
        feeds: Sequence[FeedTable],
        state: Path,
        *,
        expected: int = 1,
        recorder: Callable[[], RecorderState] = RecorderState,
        fleet: Callable[[], FleetFigures | None] = lambda: None,
        publishing: Callable[[], PublishFigures | None] = lambda: None,
        stopped: Callable[[], bool] = bool,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.expected = expected
        self.refused = 0
        self._feeds = tuple(feeds)
        self._state = state
        self._recorder = recorder
        self._fleet = fleet
        self._publishing = publishing
        self.stopped = stopped
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
        except ValueError:
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

    def total(self) -> Counts:
        """Counts of all workers, ended ones included; none goes down."""
        return self._sums.total()

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

    def fleet(self) -> FleetFigures | None:
        """Figures of several nodes; None where this one is alone."""
        return self._fleet()

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

    def known_files(self) -> tuple[dict[str, float], float]:
        """Known files that all workers have met, by the list that they are on; and how many have not been
        handed on to be learned, as there were too many."""
        total, found = self._sums.total(), dict[str, float]()
        for (list_, _), count in _of(total, "matches").items():
            found[list_] = found.get(list_, 0.0) + count
        return found, total.get(("files", UNLEARNED), 0.0)

    def feeds(self) -> list[FeedFigures]:
        """Figures of the feeds, good for `FIGURES_FOR`; none where another publisher looks after them."""
        now, publishing = self._steady(), self._publishing()
        if publishing is not None and not publishing.leads:
            return []
        if self._figures is None or now - self._figures[0] >= FIGURES_FOR:
            self._figures = now, feed_figures(self._feeds, self._state, self._clock())
        return self._figures[1]

    def publishing(self) -> PublishFigures | None:
        """Figures of the publisher; None where this is none."""
        return self._publishing()

    def recorder(self) -> RecorderState:
        """State of the recorder."""
        return self._recorder()

    def collect(self) -> Iterator[Metric]:
        """Collect all metrics, for prometheus-client."""
        now, total, live = self._clock(), self._sums.total(), self.live()
        add(total, {("errors", "snapshot"): self.refused})
        reporting = sum(silent <= SILENT_AFTER for silent in self.silence().values())
        yield from of_filter(release(), reporting, self.expected)
        yield from of_workers(total, live, now)
        if (fleet := self.fleet()) is not None:
            yield from of_fleet(total, live, fleet)
        yield from of_resolvers(total, live)
        if any(snapshot.looks_at_files for snapshot in live):
            yield from of_files(total)
        if (publishing := self._publishing()) is not None:
            yield from of_publisher(publishing)
        if (rules := self.rules()) is not None:
            yield from of_rules(rules)
        yield from of_feeds(self.feeds(), now)
        yield from of_recorder(
            self._recorder(), sum(snapshot.queue for snapshot in live), total.get(("dropped",), 0.0)
        )

    def render(self) -> bytes:
        """Render as text; `CONTENT_TYPE` is its media type."""
        return generate_latest(self._registry)


def release() -> str:
    """Version of urlward that is installed."""
    try:
        return version("urlward")
    except PackageNotFoundError:
        return "unknown"
