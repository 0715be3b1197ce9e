"""Metrics of a worker: plain numbers, since each request bumps several; their labels, the event loop's lag,
and the snapshot that the recorder takes.

Nothing here takes a lock, asks the time or makes an object on the way of a request: a worker's event loop is
the only one that bumps. What is counted goes to the recorder as a snapshot (`urlward.records.exposition`).

Labels are bounded in number, and none could name an entry: a value that nobody foresaw is counted as
``other``, so that neither a list's publisher nor a client can make more series than a fixed number.

A snapshot has counters that can be added up, and state. It came over a socket, and perhaps from another
release: whatever in it is not as it should be is refused whole.

While one task keeps the event loop, all traffic of the worker waits: its lag is what each connection feels.
"""

import asyncio
import gc
import re
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any

import msgspec

from urlward.lines import plain

OTHER = "other"
NONE = "none"
"""Where an entry has no category."""

STAGES = ("dns", "peek", "match")
VERDICTS = ("pass", "allow", "block", "monitor", "refuse", "error")
ERRORS = ("decision", "page", "layer", "reload", "records", "snapshot", "descriptors", "ports", "late")
"""Kinds of errors of ours."""

TROUBLES = {
    "canary": ("canary-back", "the canary comes through"),
    "steer-set": ("steer-set-room", "there is room"),
    "resolvers": ("resolvers-back", "a resolver answers again"),
    "spool-down": ("spool-back", "the disk takes events again"),
    "users": ("users-read", "the users' file is in force"),
    "passwords": ("passwords-room", "all find room to wait"),
    "authority": ("authority-valid", "the authority's certificate lasts"),
    "fleet": ("fleet-back", "the fleet's Valkey is back"),
    "pictures": ("pictures-back", "pictures are looked at"),
}
"""Kinds of what a worker says is wrong for as long as it is; each is an alarm's kind too, and has the kind of
what ends that alarm, and its text."""

PUBLISHING = {
    "publish": ("published", "is published again"),
    "rollout-held": ("rollout-released", "no longer held"),
}
"""Likewise of what a publisher says."""

SETTLED = ("settled", "late", "away")
"""What has come of DNS answers whose addresses other nodes were to have first."""

HOOKED = ("passed", "steered", "replaced", "unread")
"""What has come of answers that a resolver handed over, or told of."""

SHARED = ("sent", "received", "offered", "refused")
"""Ways of addresses between nodes."""

HASHED = ("hashed", "bytes")
"""What is counted of bodies whose exact digests are looked up: how many, and their bytes."""

INSPECTED = ("done", "dropped", "late", "failed")
"""What has come of copies of pictures and video: looked at; no room for them; not within the deadline; no
picture that can be read."""

UNLEARNED = "unlearned"
"""Counted: known files whose URL was not handed on to be learned, as there were too many."""

FILES = (*HASHED, *INSPECTED, UNLEARNED)
"""What is counted of bodies that are looked at."""

ALGORITHMS = ("sha256", "sha1", "md5", "pdq", "classifier")
"""Ways to tell a known file."""

MAX_LISTS = 128
MAX_CATEGORIES = 64
MAX_PAIRS = 1000
"""Lists with categories, as they come together."""

MAX_STORES = 16

_NAME = re.compile(r"\w[\w. -]{0,63}").fullmatch
"""Letters of any alphabet: files are called as their owners write."""
_CATEGORY = re.compile(r"[a-z0-9_-]{1,64}").fullmatch

VERSION = 1
"""Version of snapshots."""

MAX_WHY = 500
"""Characters of why a list was refused."""

CHECK = (1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1)
ADDED = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)
STALL = (1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 5.0)
SETTLE = (2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 1.0)
RELOAD = (1e-2, 5e-2, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of a histogram's buckets, seconds; one more has no bound."""

BUCKETS = {
    "check": CHECK, "added": ADDED, "stall": STALL, "collector": STALL, "reload": RELOAD, "settle": SETTLE,
}  # fmt: skip

type Counts = dict[tuple[str, ...], float]
"""By the metric's name and its labels; a histogram's by its name and the number of the bucket or ``sum``."""

_Number = Annotated[float, msgspec.Meta(ge=0, lt=2.0**63)]

_MAX_WRONG, _MOST_WRONG = 80, 20
"""Characters of a word on what is wrong with rules, and how many there are."""

INTERVAL = 0.05
"""Seconds between two looks."""

WINDOW = 30.0
"""Seconds of one window; the longest stall that is shown is of one or two of them."""


def among(values: Iterable[str]) -> Callable[[str], str]:
    """Make a function that keeps these values, and turns all others into ``other``."""
    known = {value: value for value in values}
    return lambda value: known.get(value, OTHER)


class Bounded:
    """Bounded set of a label's values: the first ones seen; all further ones are ``other``.

    Args:
        most: how many there may be besides.
        fits: whether a value may stand in a label at all.
    """

    def __init__(self, most: int, fits: Callable[[str], object] = _NAME) -> None:
        self._fits = fits
        self._known = {OTHER: OTHER, NONE: NONE}
        self._most = most + len(self._known)

    def __call__(self, value: str) -> str:
        """Map a value to its label."""
        known = self._known.get(value)
        if known is not None:
            return known
        if len(self._known) >= self._most or not self._fits(value):
            return OTHER
        self._known[value] = value
        return value


class Categories(Bounded):
    """Categories of entries. Those with a dot are ``other``: they could be a host."""

    def __init__(self) -> None:
        super().__init__(MAX_CATEGORIES, _CATEGORY)

    def __call__(self, value: str) -> str:
        """Map a category to its label; ``none`` where an entry has none."""
        return super().__call__(value) if value else NONE


class BlockLabels:
    """Labels of blocks: list and category.

    Attributes:
        known: the labels of a list's name and a category, for those that have been seen; whoever is in haste
            looks here first.
        lists: labels of lists.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], tuple[str, str]] = {}
        self.lists = Bounded(MAX_LISTS)
        self._categories = Categories()
        self._pairs: set[tuple[str, str]] = set()

    def __call__(self, list_: str, category: str) -> tuple[str, str]:
        """Map a list and a category to their labels."""
        pair = self.lists(list_), self._categories(category)
        if pair not in self._pairs:
            if len(self._pairs) >= MAX_PAIRS:
                pair = (OTHER, OTHER)
            self._pairs.add(pair)
        if len(self.known) < 2 * MAX_PAIRS:
            self.known[list_, category] = pair
        return pair


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
        settle: how long a DNS answer has waited for other nodes, seconds.
        shares: whether this worker shares with other nodes.
        looks_at_files: whether bodies are looked at.
        resolvers: gives how many connections of resolvers there are; None where none can connect.
    """

    __slots__ = (
        "_blocks", "_errors", "_failed_reloads", "_files", "_fleet", "_histograms", "_hooked", "_in_force",
        "_longest", "_longest_before", "_matches", "_newest", "_newest_before", "_open", "_origins", "_queue",
        "_refused", "_requests", "_rules", "_troubles", "_would_blocks",
        "added", "authority", "canary", "check", "collected", "dropped", "looks_at_files", "opened", "reload",
        "resolvers",
        "settle", "shares", "started",
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
        self._origins = BlockLabels()
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
        self.settle = self._histograms["settle"].add
        self._fleet = dict.fromkeys((*SETTLED, *SHARED), 0)
        self.shares = False
        self._hooked = dict.fromkeys(HOOKED, 0)
        self.resolvers: Callable[[], int] | None = None
        self._files = dict.fromkeys(FILES, 0)
        self._matches: dict[tuple[str, str], int] = {}
        self.looks_at_files = False

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

    def fleet(self, what: str, number: int = 1) -> None:
        """Count what passes between nodes, by one of `SETTLED` or `SHARED`."""
        self._fleet[what] += number

    def hooked(self, what: str) -> None:
        """Count an answer that a resolver handed over or told of, by one of `HOOKED`."""
        self._hooked[what] += 1

    def files(self, what: str, number: int = 1) -> None:
        """Count what becomes of bodies that are looked at, by one of `FILES`."""
        self._files[what] += number

    def matched(self, list_: str, algorithm: str) -> None:
        """Count a known file.

        Args:
            list_: that it is on; empty for none.
            algorithm: one of `ALGORITHMS`.
        """
        key = self._origins.lists(list_ or NONE), algorithm if algorithm in ALGORITHMS else OTHER
        self._matches[key] = self._matches.get(key, 0) + 1

    def connections(self, change: int) -> None:
        """Count a client's connection that has opened (1) or closed (-1)."""
        self._open += change
        if change > 0:
            self.opened += change

    def open(self, count: int) -> None:
        """Set the number of clients' connections, where somebody else counts them."""
        self._open = count

    def stall(self, seconds: float) -> None:
        """Record a stall: the event loop came back late by so much."""
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

    def error(self, kind: str = "decision") -> int:
        """Count an error of ours, of one of `ERRORS`; returns how many of these there have been."""
        kind = kind if kind in self._errors else OTHER
        self._errors[kind] += 1
        return self._errors[kind]

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
            kind: one of `TROUBLES`.
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
            "fleet": dict(self._fleet) if self.shares else {},
            "hooked": dict(self._hooked) if self.resolvers is not None else {},
            "resolvers": None if self.resolvers is None else self.resolvers(),
            "files": dict(self._files) if self.looks_at_files else {},
            "matches": _nested(self._matches),
        }


def _nested(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Nest counts by the first label, then by the second; zeros are left out."""
    found: dict[str, dict[str, int]] = {}
    for (first, second), count in counts.items():
        if count:
            found.setdefault(first, {})[second] = count
    return found


@dataclass(slots=True)
class Snapshot:
    """Latest snapshot of one worker.

    Attributes:
        started: when it did, seconds since 1970-01-01 UTC.
        counts: since then.
        open: connections.
        queue: events that wait in it.
        stall_longest: of the last minute, seconds.
        lists: in force.
        refused: by list, why what its file has now is not in force.
        rules: of a gateway; None where there is none.
        troubles: what keeps traffic from being filtered as it should be, by kind.
        canary: when the canary has last come through; 0 where it has not.
        authority: when the certificate of the filter's authority ends; 0 where this worker does not say.
        shares: whether it shares with other nodes.
        resolvers: connections of resolvers; None where none can connect.
        looks_at_files: whether it looks at bodies.
        told: whether one before this was sent over another connection.
        said: the snapshot itself.
    """

    started: float = 0.0
    counts: Counts = field(default_factory=dict)
    open: int = 0
    queue: int = 0
    stall_longest: float = 0.0
    lists: tuple[ListFacts, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    rules: RulesFacts | None = None
    troubles: Mapping[str, str] = field(default_factory=dict)
    canary: float = 0.0
    authority: float = 0.0
    shares: bool = False
    resolvers: int | None = None
    looks_at_files: bool = False
    told: bool = False
    said: Mapping[str, Any] = field(default_factory=dict)


class Labels:
    """Labels of all workers' snapshots together, bounded once more."""

    def __init__(self) -> None:
        self.stage, self.verdict, self.error = among(STAGES), among(VERDICTS), among(ERRORS)
        self.algorithm = among(ALGORITHMS)
        self.origins = BlockLabels()


class _Histogram(msgspec.Struct):
    counts: list[_Number]
    sum: _Number


class _Said(msgspec.Struct):
    """Snapshot as `Metrics.snapshot` has it."""

    version: int
    started: _Number
    requests: dict[str, dict[str, _Number]]
    blocks: dict[str, dict[str, _Number]]
    would_blocks: dict[str, dict[str, _Number]]
    errors: dict[str, _Number]
    failed_reloads: _Number
    opened: _Number
    open: _Number
    queue: _Number
    dropped: _Number
    stall_longest: _Number
    histograms: dict[str, _Histogram]
    lists: list[tuple[str, _Number, _Number, _Number]]
    stall_newest: _Number = 0.0
    refused: dict[str, str] = {}
    rules: tuple[_Number, str, list[str]] | None = None
    troubles: dict[str, str] = {}
    canary: _Number = 0.0
    authority: _Number = 0.0
    fleet: dict[str, _Number] = {}
    hooked: dict[str, _Number] = {}
    resolvers: _Number | None = None
    files: dict[str, _Number] = {}
    matches: dict[str, dict[str, _Number]] = {}
    told: bool = False


def read_snapshot(data: dict[str, Any], labels: Labels) -> Snapshot:
    """Parse a snapshot.

    Raises:
        ValueError: it is none.
    """
    try:
        said = msgspec.convert(data, _Said)
    except msgspec.ValidationError as e:
        raise ValueError(f"not a snapshot: {e}") from e
    if said.version != VERSION:
        raise ValueError(f"a snapshot of version {said.version}, and not {VERSION}")
    label = labels.origins.lists
    return Snapshot(
        started=said.started,
        counts=_counts(said, labels),
        open=int(said.open),
        queue=int(said.queue),
        stall_longest=said.stall_longest,
        lists=tuple(ListFacts(label(name), *map(int, facts)) for name, *facts in said.lists[:MAX_LISTS]),
        refused={label(name): why[:MAX_WHY] for name, why in islice(said.refused.items(), MAX_LISTS)},
        rules=said.rules and _rules(*said.rules),
        troubles={kind: why[:MAX_WHY] for kind, why in said.troubles.items() if kind in TROUBLES},
        canary=said.canary,
        authority=said.authority,
        shares=bool(said.fleet),
        resolvers=None if said.resolvers is None else int(said.resolvers),
        looks_at_files=bool(said.files),
        told=said.told,
        said=data,
    )


def add(to: Counts, counts: Mapping[tuple[str, ...], float]) -> None:
    """Add counts to others, in place."""
    for key, count in counts.items():
        to[key] = to.get(key, 0) + count


def _counts(said: _Said, labels: Labels) -> Counts:
    found: Counts = {}
    for stage, row in said.requests.items():
        for verdict, count in row.items():
            add(found, {("requests", labels.stage(stage), labels.verdict(verdict)): count})
    for name, rows in (("blocks", said.blocks), ("would_blocks", said.would_blocks)):
        for list_, row in rows.items():
            for category, count in row.items():
                add(found, {(name, *labels.origins(list_, category)): count})
    for kind, count in said.errors.items():
        add(found, {("errors", labels.error(kind)): count})
    for list_, row in said.matches.items():
        for algorithm, count in row.items():
            add(found, {("matches", labels.origins.lists(list_), labels.algorithm(algorithm)): count})
    found |= {("fleet", name): said.fleet[name] for name in (*SETTLED, *SHARED) if name in said.fleet}
    found |= {("hooked", name): said.hooked[name] for name in HOOKED if name in said.hooked}
    found |= {("files", name): said.files[name] for name in FILES if name in said.files}
    found |= {("failed_reloads",): said.failed_reloads, ("opened",): said.opened, ("dropped",): said.dropped}
    for name, bounds in BUCKETS.items():
        histogram = said.histograms.get(name)
        if histogram is None or len(histogram.counts) != len(bounds) + 1:
            raise ValueError("not a snapshot: other buckets")
        found |= {(name, str(number)): count for number, count in enumerate(histogram.counts)}
        found[name, "sum"] = histogram.sum
    return found


def _rules(restored: float, hand: str, wrong: Sequence[str]) -> RulesFacts:
    texts = tuple(one[:_MAX_WRONG] for one in wrong[:_MOST_WRONG])
    return RulesFacts(int(restored), hand[:_MAX_WRONG], texts)


async def watch_loop(
    metrics: Metrics,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Measure the lag until cancelled.

    Args:
        metrics: that are told.
        clock: seconds.
        sleep: waits for seconds.
    """
    window = clock() + WINDOW
    with _collector_timed(metrics):
        while True:
            due = clock() + INTERVAL
            await sleep(INTERVAL)
            now = clock()
            metrics.stall(max(now - due, 0.0))
            if now >= window:
                metrics.stall_window()
                window = now + WINDOW


@contextmanager
def _collector_timed(metrics: Metrics) -> Iterator[None]:
    """Count the garbage collector's pauses: one cause of stalls that is Python's own."""
    begun = 0.0

    def called(phase: str, _: object) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        else:
            metrics.collected(time.perf_counter() - begun)

    gc.callbacks.append(called)
    try:
        yield
    finally:
        gc.callbacks.remove(called)
