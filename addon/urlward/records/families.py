"""Metric families of Prometheus: names, units and labels of all that is counted.

Names follow https://prometheus.io/docs/practices/naming/.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from urlward.feeds.status import STATES
from urlward.records.event import KINDS
from urlward.records.feed_figures import FeedFigures
from urlward.records.labels import ERRORS, MAX_STORES, NONE, STAGES, TROUBLES, VERDICTS, Bounded, among
from urlward.records.metrics import BUCKETS, ListFacts, RulesFacts
from urlward.records.recorder import RecorderState
from urlward.records.snapshot import Counts, Snapshot, add

ALARMS = (
    "store-down", "spool-damaged", "dropped", "refused", "probing", "set-aside",
    "descriptors", "missing", "stale", "expiring", "expired", "store-lagging", "store-replaced", "clock-set",
    "refused-list", "rules-removed", "rules-wrong", *TROUBLES,
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
}

type Row = tuple[Sequence[str], float]
type Rows = dict[tuple[str, ...], float]


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
        yield _histogram(key, total)
    for name, text, value in (
        ("urlward_open_connections", "Clients' connections now.", sum(s.open for s in live)),
        (
            "urlward_event_loop_stall_seconds",
            "Longest stall of a worker's event loop in the last minute.",
            max((s.stall_longest for s in live), default=0.0),
        ),
    ):
        yield _gauge(name, text, (), [((), value)])
    if any(s.canary or "canary" in s.troubles for s in live):
        yield _gauge(
            "urlward_canary_last_success_timestamp_seconds",
            "When the canary has last come through, of the worker for which that is longest ago.",
            (),
            [((), min(s.canary for s in live))],
        )
    if ends := [s.authority for s in live if s.authority]:
        yield _gauge(
            "urlward_authority_valid_until_timestamp_seconds",
            "When the certificate of the filter's authority ends.",
            (),
            [((), min(ends))],
        )
    yield from _lists([facts for snapshot in live for facts in snapshot.lists], now)


def of_rules(rules: RulesFacts) -> Iterator[Metric]:
    """State of a gateway's rules."""
    restored: Rows = {(): float(rules.restored)}
    text = "Times that rules which another hand had removed were put back."
    yield _counter("urlward_rules_restored", text, (), restored)
    text = "1 where the kernel has the rules, and nobody keeps removing them."
    yield _gauge("urlward_rules_up", text, (), [((), float(not rules.wrong))])


def of_feeds(feeds: Sequence[FeedFigures], now: float) -> Iterator[Metric]:
    """State of the feeds."""

    def by_feed(name: str, text: str, value: Callable[[FeedFigures], float]) -> GaugeMetricFamily:
        return _gauge(f"urlward_feed_{name}", text, ("feed",), [((f.name,), value(f)) for f in feeds])

    yield _gauge(
        "urlward_feed_age_seconds",
        "Time since the last success; none where there never was one.",
        ("feed",),
        [((f.name,), max(now - f.last_success, 0.0)) for f in feeds if f.last_success],
    )
    yield by_feed("failures", "Failed refreshes in a row.", lambda f: f.failures)
    yield by_feed("entries", "Entries of the artifact in force.", lambda f: f.entries)
    yield by_feed("serial", "Serial of the artifact in force.", lambda f: f.serial)
    yield by_feed("next_run_timestamp_seconds", "When it is refreshed next.", lambda f: f.next_run)
    yield _gauge(
        "urlward_feed_valid_until_timestamp_seconds",
        "When the artifact in force expires; none where it does not.",
        ("feed",),
        [((f.name,), f.valid_until) for f in feeds if f.valid_until],
    )
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
    for name, text, value in (
        (
            "urlward_spool_events",
            "Events in the outbox for stores that are down or slow.",
            recorder.spool_events,
        ),
        (
            "urlward_spool_bytes",
            "Bytes of the outbox, while events wait there for such stores.",
            recorder.spool_bytes,
        ),
        ("urlward_spool_limit_bytes", "Bytes that the outbox may have.", recorder.spool_limit),
    ):
        yield _gauge(name, text, (), [((), value)])
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
    yield _gauge(
        "urlward_workers", "Workers that have reported in the last seconds.", (), [((), float(reporting))]
    )
    yield _gauge("urlward_workers_expected", "Workers that there should be.", (), [((), float(expected))])


def _lists(found: Sequence[ListFacts], now: float) -> Iterator[Metric]:
    """Lists in force; where workers disagree, the figures of the oldest."""
    behind: dict[str, ListFacts] = {}
    for facts in found:
        known = behind.get(facts.name)
        if known is None or facts.serial < known.serial:
            behind[facts.name] = facts
    lists = list(behind.values())
    labels = ("list",)
    yield _gauge(
        "urlward_list_serial", "Serial in force.", labels, [((li.name,), float(li.serial)) for li in lists]
    )
    yield _gauge(
        "urlward_list_entries", "Entries in force.", labels, [((li.name,), float(li.entries)) for li in lists]
    )
    yield _gauge(
        "urlward_list_age_seconds",
        "Time since the list was made.",
        labels,
        [((li.name,), max(now - li.created, 0.0)) for li in lists if li.created],
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


def _histogram(key: str, counts: Counts) -> HistogramMetricFamily:
    name, text = _HISTOGRAMS[key]
    family = HistogramMetricFamily(name, text, labels=())
    buckets, so_far = [], 0.0
    for number, bound in enumerate((*BUCKETS[key], float("inf"))):
        so_far += counts.get((key, str(number)), 0)
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), so_far))
    family.add_metric((), buckets, counts.get((key, "sum"), 0.0))
    return family
