"""History of traffic: the last ten minutes by seconds, two days by minutes, 400 days by hours.

Each second has what the workers' counters have added in it. Seconds are kept in memory; minutes, and hours
made of them, in ``history.db`` in the state folder, so many and no more: the oldest makes room. There are
counts alone, by the names that metrics have (`urlward.records.metrics`): no entry, no client. A time in which
nobody counted has no step, and a step says how many of its seconds were counted.
"""

import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from urlward.dashboard.sources import Now, Past, Row
from urlward.engine.errors import UrlwardError
from urlward.records.metrics import ADDED, Counts
from urlward.records.sqlite import DAMAGED, PRAGMAS, code_of, files_of, make_sqlite
from urlward.state.folder import StateError, set_aside
from urlward.state.watch import Signature

FILE: Final = "history.db"
TABLE: Final = "step"

SPAN = 600
"""Seconds that are kept."""

SET_BACK = 5
"""Seconds by which the clock must have been set back for what is kept to be of no use."""

MINUTE, HOUR, DAY = 60, 3_600, 86_400

KEPT: Final = {MINUTE: 2 * DAY // MINUTE, HOUR: 400 * DAY // HOUR}
"""How many steps of a length are kept."""

AHEAD = HOUR
"""Seconds by which a step may be ahead of the clock, before it is taken for one of a wrong clock."""

WAIT = 10.0
"""Seconds that the file is waited for."""

_STAGES = ("peek", "match")
"""Whose requests are traffic; a name that is asked for is none yet."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS step (length INTEGER NOT NULL, begin INTEGER NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY (length, begin)) WITHOUT ROWID"
)
_FIND = "SELECT data FROM step WHERE length = ? AND begin = ?"
_PUT = "INSERT OR REPLACE INTO step VALUES (?, ?, ?)"
# By number: a clock that runs ahead for an hour would take all that is older.
_FORGET = (
    "DELETE FROM step WHERE length = ?1 AND (begin > ?2 OR begin <"
    " (SELECT begin FROM step WHERE length = ?1 ORDER BY begin DESC LIMIT 1 OFFSET ?3))"
)
_RANGE = "SELECT begin, data FROM step WHERE length = ? AND begin >= ? AND begin < ? ORDER BY begin"


class Span(NamedTuple):
    """Span of time that is shown.

    Attributes:
        kept: length of the steps that it is made of, seconds.
        length: seconds.
        step: between two points of a plot.
        row: of a row of a table.
    """

    kept: int
    length: int
    step: int
    row: int


SPANS: Final = {
    "24h": Span(MINUTE, DAY, 10 * MINUTE, HOUR),
    "7d": Span(HOUR, 7 * DAY, HOUR, 6 * HOUR),
    "30d": Span(HOUR, 30 * DAY, 3 * HOUR, DAY),
    "400d": Span(HOUR, 400 * DAY, DAY, 7 * DAY),
}


class Step(msgspec.Struct, omit_defaults=True):
    """Counts of a second, a minute or an hour.

    Attributes:
        seconds: in which it was counted.
        requests: judged.
        lists, categories: blocks by the name of the list, and by category.
        dns: answers by verdict.
        errors: faults of the filter's own, by kind.
        added: requests by the bucket of what was added to them (`ADDED`).
        added_sum: seconds that were added to them.
        stall: the longest of an event loop, milliseconds.
        connections: most at a time.
        feeds: greatest age of each feed, seconds.
    """

    seconds: float = 0.0
    requests: int = 0
    lists: dict[str, int] = {}
    categories: dict[str, int] = {}
    dns: dict[str, int] = {}
    errors: dict[str, int] = {}
    added: list[int] = []
    added_sum: float = 0.0
    stall: float = 0.0
    connections: int = 0
    feeds: dict[str, float] = {}

    @property
    def blocks(self) -> int:
        """Blocks of all lists."""
        return sum(self.lists.values())

    def add(self, other: "Step") -> None:
        """Add what was counted in another step."""
        self.seconds += other.seconds
        self.requests += other.requests
        for own, others in (
            (self.lists, other.lists),
            (self.categories, other.categories),
            (self.dns, other.dns),
            (self.errors, other.errors),
        ):
            for name, count in others.items():
                own[name] = own.get(name, 0) + count
        if len(self.added) == len(other.added):
            self.added = [a + b for a, b in zip(self.added, other.added, strict=True)]
        elif len(self.added) < len(other.added):  # none, or those of a release with other bounds
            self.added = list(other.added)
        self.added_sum += other.added_sum
        self.stall = max(self.stall, other.stall)
        self.connections = max(self.connections, other.connections)
        for name, age in other.feeds.items():
            self.feeds[name] = max(self.feeds.get(name, 0.0), age)

    def latency(self, share: float) -> float | None:
        """Latency that so many of the requests have had at most, milliseconds; None without a request.

        Within a bucket it is taken to be even, as Prometheus' histogram_quantile does.
        """
        rank, below = share * sum(self.added), 0
        if not rank:
            return None
        for count, low, high in zip(self.added, (0.0, *ADDED), (*ADDED, ADDED[-1]), strict=False):
            if below + count >= rank and count:
                return round(1000 * (low + (high - low) * (rank - below) / count), 3)
            below += count
        return None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Step).decode


class History:
    """History of the last ten minutes, by seconds, and of the minute that is under way."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, Step]] = deque(maxlen=SPAN)
        self._before: Counts | None = None
        self._minute: tuple[int, Step] | None = None

    def sample(self, total: Counts, connections: int, stall: float, now: float) -> tuple[int, Step] | None:
        """Add a second; call it once a second.

        Args:
            total: the workers' counters, none of which goes down.
            connections: open now.
            stall: the longest of the last second, seconds.
            now: seconds since 1970-01-01 UTC.

        Returns:
            The minute that this second has ended, and when that began.
        """
        second, last = int(now), self._seconds[-1][0] if self._seconds else None
        if last is not None and second < last - SET_BACK:
            self._seconds.clear()
            last = None
        elif last is not None and second <= last:
            return None
        # What was counted before anybody looked is not of this second.
        before = total if self._before is None else self._before
        passed = 0.0 if self._before is None else float(second - last) if last is not None else 1.0
        self._before = total
        step = _step({key: count - before.get(key, 0) for key, count in total.items()})
        step.seconds, step.stall, step.connections = passed, round(1000 * stall, 2), connections
        self._seconds.append((second, step))
        begin = second - second % MINUTE
        ended = self.end() if self._minute is not None and self._minute[0] != begin else None
        if self._minute is None:
            self._minute = begin, Step()
        self._minute[1].add(step)
        return ended

    def end(self) -> tuple[int, Step] | None:
        """End the minute that is under way, and return it; None where nothing is in it."""
        ended, self._minute = self._minute, None
        return ended if ended is not None and ended[1].seconds else None

    def now(self, workers: Iterable[Row]) -> Now:
        """History of the last ten minutes.

        Args:
            workers: as `Now` has them.
        """
        newest = self._seconds[-1][0] if self._seconds else 0
        kept = [(second, step) for second, step in self._seconds if second > newest - SPAN]
        return Now(
            time=newest,
            seconds=[second for second, _ in kept],
            requests=[step.requests for _, step in kept],
            blocks=[step.blocks for _, step in kept],
            latency=[
                round(1000 * step.added_sum / count, 3) if (count := sum(step.added)) else None
                for _, step in kept
            ],
            stall=[step.stall for _, step in kept],
            connections=self._seconds[-1][1].connections if self._seconds else 0,
            workers=list(workers),
        )


class HistoryFile:
    """History on the disk. Thread-safe; each call opens the file.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, begin: int, step: Step, now: float) -> None:
        """Add a minute, and let the oldest go.

        Args:
            begin: when it began, seconds since 1970-01-01 UTC.
            step: what was counted in it.
            now: likewise, by which steps of a clock that was wrong are told.

        Raises:
            UrlwardError: it cannot be written.
        """
        with self._opened() as db:
            db.execute("BEGIN IMMEDIATE")
            for length, most in KEPT.items():
                key = length, begin - begin % length
                found = db.execute(_FIND, key).fetchone()
                whole = (None if found is None else _read(found[0])) or Step()
                whole.add(step)
                db.execute(_PUT, (*key, _encode(whole)))
                db.execute(_FORGET, (length, now + AHEAD, most - 1))
            db.execute("COMMIT")

    def read(self, length: int, since: int, until: int) -> list[tuple[int, Step]]:
        """Read the steps of a length that begin in a time, ascending.

        Raises:
            UrlwardError: they cannot be read.
        """
        if not self._path.exists():
            return []
        with self._opened() as db:
            rows = db.execute(_RANGE, (length, since, until)).fetchall()
        return [(begin, step) for begin, data in rows if (step := _read(data)) is not None]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        seen = Signature.of(self._path)
        try:
            make_sqlite(self._path)
            with closing(sqlite3.connect(self._path, timeout=WAIT, isolation_level=None)) as db:
                for pragma in PRAGMAS:
                    db.execute(f"PRAGMA {pragma}")
                db.execute(_SCHEMA)
                yield db
        except (sqlite3.Error, OSError, StateError) as e:
            text = str(e)
            if isinstance(e, sqlite3.Error) and code_of(e) in DAMAGED:
                with suppress(StateError):  # where it cannot be moved, whoever opens it next says this again
                    beside = files_of(self._path)[1:]
                    set_aside(self._path.parent, self._path, text, "begun anew", seen=seen, beside=beside)
            raise UrlwardError(text if text.startswith(str(self._path)) else f"{self._path}: {text}") from e


def past(
    name: str, read: Callable[[int, int, int], list[tuple[int, Step]]], now: float, *, rows: bool = False
) -> Past:
    """Traffic of a span.

    Args:
        name: of `SPANS`.
        read: as `HistoryFile.read`.
        now: seconds since 1970-01-01 UTC; the step that is under way is the last.
        rows: by the steps of a table in place of those of a plot.

    Raises:
        UrlwardError: as `read`.
    """
    span = SPANS[name]
    length = span.row if rows else span.step
    end = int(now) - int(now) % length + length
    times = range(end - span.length // length * length, end, length)
    found = by_step(read(span.kept, times[0], end), length)
    steps = [found.get(begin) for begin in times]
    return Past(
        span=name,
        step=length,
        times=list(times),
        counted=[0.0 if one is None else round(min(one.seconds / length, 1.0), 3) for one in steps],
        requests=_each(steps, lambda one: _rate(one.requests, one)),
        blocks=_each(steps, lambda one: one.blocks),
        errors=_each(steps, lambda one: sum(one.errors.values())),
        p50=_each(steps, lambda one: one.latency(0.5)),
        p99=_each(steps, lambda one: one.latency(0.99)),
        stall=_each(steps, lambda one: one.stall),
        connections=_each(steps, lambda one: one.connections),
        dns=_by_name(steps, lambda one: one.dns, _rate),
        lists=_by_name(steps, lambda one: one.lists, lambda count, _: count),
        categories=_by_name(steps, lambda one: one.categories, lambda count, _: count),
        feeds=_by_name(steps, lambda one: one.feeds, lambda age, _: round(age)),
    )


def by_step(found: Iterable[tuple[int, Step]], length: int) -> dict[int, Step]:
    """Steps put together to longer ones.

    Args:
        found: ascending.
        length: of the longer ones, seconds.
    """
    together: dict[int, Step] = {}
    for begin, group in groupby(found, lambda one: one[0] - one[0] % length):
        together[begin] = Step()
        for _, step in group:
            together[begin].add(step)
    return together


def _step(changes: Counts) -> Step:
    """What counters have added, as a step."""
    step = Step(added=[0] * (len(ADDED) + 1))
    for (name, *labels), change in changes.items():
        count = round(change)
        if count <= 0 and labels != ["sum"]:
            continue
        if name == "requests" and labels[0] in _STAGES:
            step.requests += count
        elif name == "requests" and labels[0] == "dns":
            _bump(step.dns, labels[1], count)
        elif name == "blocks":
            _bump(step.lists, labels[0], count)
            _bump(step.categories, labels[1], count)
        elif name == "errors":
            _bump(step.errors, labels[0], count)
        elif name == "added" and labels[0] == "sum":
            step.added_sum = max(change, 0.0)
        elif name == "added":
            step.added[int(labels[0])] += count
    return step


def _bump(counts: dict[str, int], name: str, count: int) -> None:
    counts[name] = counts.get(name, 0) + count


def _read(data: Any) -> Step | None:
    """Parse a step; None for what is none."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, TypeError):
        return None


def _rate(count: float, step: Step) -> float:
    rate = count / step.seconds if step.seconds else 0.0
    return round(rate, 1 if rate >= 10 else 3)


def _each[T](steps: Sequence[Step | None], of: Callable[[Step], T | None]) -> list[T | None]:
    return [None if one is None else of(one) for one in steps]


def _by_name[T](
    steps: Sequence[Step | None], of: Callable[[Step], Mapping[str, float]], shown: Callable[[Any, Step], T]
) -> dict[str, list[T | None]]:
    """Values of each name, of the one with the most first."""
    sums: Counter[str] = Counter()
    for one in steps:
        if one is not None:
            for name, count in of(one).items():
                sums[name] += count  # type: ignore[assignment]
    return {
        name: [None if one is None else shown(of(one).get(name, 0), one) for one in steps]
        for name, _ in sums.most_common()
    }


_RATE = 10
"""Seconds that the newest figures are of."""


def by_minute(now: Now) -> list[Row]:
    """Totals of each minute, newest first.

    Returns:
        ``begin`` (seconds since 1970-01-01 UTC), ``requests`` and ``blocks`` (a second, on average),
        ``latency`` (ms, mean; None without a request) and ``stall`` (ms, longest).
    """
    rows: dict[int, list[int]] = {}
    for n, second in enumerate(now["seconds"]):
        rows.setdefault(second - second % MINUTE, []).append(n)
    return [{"begin": begin} | _figures(now, places) for begin, places in reversed(rows.items())]


def newest(now: Now) -> Row:
    """Totals of the last ten seconds."""
    return _figures(now, list(range(len(now["seconds"])))[-_RATE:])


def _figures(now: Now, places: list[int]) -> Row:
    count = max(len(places), 1)
    weighed = [(t, now["requests"][n]) for n in places if (t := now["latency"][n]) is not None]
    requests = sum(weight for _, weight in weighed)
    return {
        "requests": round(sum(now["requests"][n] for n in places) / count, 1),
        "blocks": round(sum(now["blocks"][n] for n in places) / count, 1),
        "latency": round(sum(t * weight for t, weight in weighed) / requests, 2) if requests else None,
        "stall": round(max((now["stall"][n] for n in places), default=0.0), 1),
    }
