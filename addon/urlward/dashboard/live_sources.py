"""The dashboard's sources in the recorder: feeds, allows and lists as they are in the state folder, and what
the recorder itself has of events, metrics and objections. It filters nothing itself: to check a URL, lists
are loaded on demand.
"""

import json
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from urlward.config import Config, FeedTable
from urlward.config.records import StoreTable
from urlward.dashboard.editing import Editor
from urlward.dashboard.history import FILE, History, HistoryFile, Step, past
from urlward.dashboard.sources import EventPage, NotConfiguredError, Now, Past, Row
from urlward.engine.dates import age_or_none, time_text
from urlward.engine.errors import UrlwardError, fault_text
from urlward.feeds.feed import Feed
from urlward.feeds.keeper import Keeper
from urlward.feeds.own import add_to_own, remove_from_own
from urlward.feeds.rollback import release, roll_back
from urlward.feeds.setup import configured_keeper, make_neighbours, make_policy, protecting
from urlward.feeds.status import accept, alarms, status
from urlward.feeds.store import FeedStore
from urlward.lists.explain import Checker
from urlward.lists.formats import AUTO
from urlward.objections.objections import Grant, ObjectionBook
from urlward.plan import Reloads
from urlward.policy.allows import add_allow, allow_row, current_allows, end_allow
from urlward.policy.neighbours import Neighbours
from urlward.policy.own import FILE as OWN_FILE
from urlward.policy.own import Draft, own_entries, own_row, reveal_own
from urlward.policy.policy import Policy
from urlward.records.database import Database
from urlward.records.event import HITS
from urlward.records.metrics import Counts
from urlward.records.store import EventQuery, StoreError
from urlward.records.stores import open_store
from urlward.samples import SAMPLE
from urlward.state.folder import local_key
from urlward.state.watch import Signature
from urlward.units import DAY_MS

if TYPE_CHECKING:
    from urlward.publish.desk import Act, RolloutDesk

ANSWER_WITHIN = 30.0
"""Seconds that a store has to answer the dashboard."""

FINDERS = 4
"""Questions that it is asked at a time."""

FORGET = 300.0
"""Seconds without a question after which the lists' memory is given back."""

_KINDS = {"allows": "allows", "own-entries": "own"}
"""Of lists that the filter makes itself."""

type _Seen = tuple[Signature | str | None, ...]


class _Loaded(NamedTuple):
    seen: _Seen
    keeper: Keeper
    neighbours: Neighbours | None
    policy: Policy | None


class Checks:
    """Checker of URLs as the filter decides. Thread-safe.

    Args:
        config: the filter's.
        state: the state folder.
        list_format: of the sources.
    """

    def __init__(self, config: Config, state: Path, list_format: str = AUTO) -> None:
        self._format = list_format
        self._config = config.model_copy(update={"state": str(state)})
        self._state = state
        self._paths = [] if config.list or config.feed else [SAMPLE]
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._forget: threading.Timer | None = None

    def check(self, url: str, client: str, at: float | None, now: float) -> Row:
        """Check a URL; the result is as of ``urlward check --explain --json``.

        Args:
            url: as typed.
            client: address, or empty.
            at: seconds since 1970-01-01 UTC; None for now.
            now: likewise.

        Raises:
            UrlwardError: a list is bad.
        """
        with self._lock:
            loaded = self._in_force(now)
            if loaded.neighbours is not None:
                loaded.neighbours.refresh()
            moment, allows = now if at is None else at, current_allows(self._state, now)
            checker = Checker(loaded.keeper.matcher, loaded.policy, client, moment, allows)
            found = checker.check(url)
            if "error" not in found:
                explanation, protected = checker.explain(url)
                found["explanation"] = {**explanation.as_json(), "protected": protected}
        return found

    def close(self) -> None:
        """Unload the lists."""
        with self._lock:
            self._loaded = None
            if self._forget is not None:
                self._forget.cancel()

    def _in_force(self, now: float) -> _Loaded:
        if self._loaded is None or self._loaded.seen != self._seen(self._loaded.keeper, now):
            self._loaded = None  # not both in memory at a time
            self._loaded = self._load(now)
        if self._forget is not None:
            self._forget.cancel()
        self._forget = threading.Timer(FORGET, self.close)
        self._forget.daemon = True
        self._forget.start()
        return self._loaded

    def _load(self, now: float) -> _Loaded:
        config = self._config
        keeper = configured_keeper(config, self._paths, format=self._format)
        seen = self._seen(keeper, now)
        keeper.load()
        neighbours = make_neighbours(config)
        return _Loaded(seen, keeper, neighbours, make_policy(config, keeper, neighbours))

    def _seen(self, keeper: Keeper, now: float) -> _Seen:
        """Fingerprint that changes with the lists or the temporary allows."""
        files = (Signature.of(file.path) for file in keeper.files)
        return (*files, *(allow.id for allow in current_allows(self._state, now)))


class Remembered[T]:
    """Cache of one answer. Thread-safe; one thread finds out, the others wait for it.

    Args:
        seconds: how long an answer is good.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: tuple[object, float, T] | None = None

    def get(self, of: object, now: float, find: Callable[[], T]) -> T:
        """Return the answer, found anew where it is too old.

        Args:
            of: what it depends on; when that is another, so is the answer.
            now: seconds.
            find: finds it out; what it raises is raised, and not remembered.
        """
        with self._lock:
            if self._known is not None and self._known[0] == of and 0 <= now - self._known[1] < self._seconds:
                return self._known[2]
            found = find()
            self._known = of, now, found
            return found


logger = logging.getLogger("urlward.records")


class Refreshes:
    """Refreshes of feeds in threads of their own; their results are in the feeds' facts, as those of any
    refresh.

    Args:
        config: of the feeds.
        state: the state folder.
    """

    def __init__(self, config: Config, state: Path) -> None:
        self._config = config
        self._state = state
        self._begun: Counter[str] = Counter()
        self._counting = threading.Lock()

    def begin(self, feed: FeedTable) -> str:
        """Start a refresh of the feed, after any that is under way; returns what to say of it.

        Raises:
            UrlwardError: no thread can be had for it now.
        """
        with self._counting:
            # One that waits for its turn will do what is asked for.
            if self._begun[feed.name] > 1:
                return f"{feed.name}: about to be fetched already"
            self._begun[feed.name] += 1
        thread = threading.Thread(
            target=self._refresh, args=(feed,), name=f"refresh {feed.name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as e:  # none can be had now
            self._ended(feed)
            raise UrlwardError(f"{feed.name}: not fetched: {e}") from e
        return f"{feed.name}: being fetched"

    def _refresh(self, feed: FeedTable) -> None:
        try:
            Feed(feed, self._config, self._state).refresh()
        except Exception as e:  # noqa: BLE001 - a bug must not end the thread with a traceback
            logger.error("list %s: %s", feed.name, fault_text(e))
        finally:
            self._ended(feed)

    def _ended(self, feed: FeedTable) -> None:
        with self._counting:
            self._begun[feed.name] -= 1


def of_list(
    name: str, serial: int, entries: int | None, created: int, *, now: float, feeds: Collection[str]
) -> Row:
    """Row of a list, without its ``hits``.

    Args:
        name: of it.
        serial: 0 where it is not known, as `created`.
        entries: None where no worker has it.
        created: seconds since 1970-01-01 UTC, as `now`.
        now: for its age.
        feeds: names of those that are feeds.
    """
    return {
        "name": name,
        "kind": "feed" if name in feeds else _KINDS.get(name, "file"),
        "serial": serial,
        "created": time_text(created) if created else "",
        "age": age_or_none(created, now),
        "entries": entries,
        "note": "" if entries is not None else "no worker has it in force",
    }


def of_worker(name: str, snapshot: Mapping[str, Any]) -> Row:
    """Row of a worker, from its snapshot."""
    return {
        "name": name,
        "since": time_text(snapshot["started"]),
        "connections": snapshot["open"],
        "queue": snapshot["queue"],
        "dropped": snapshot["dropped"],
    }


def of_alarm(event: Row) -> Row:
    """Row of a recorded alarm."""
    try:
        detail = json.loads(event["detail"] or "{}")
    except ValueError:
        detail = {}
    found = detail if isinstance(detail, dict) else {}
    return {
        "time": time_text(event["time"] / 1000),
        "source": event["list"] or event["node"],
        "alarm": str(found.get("alarm") or event["kind"]),
        "text": str(found.get("text") or event["detail"]),
        "current": False,
    }


UNKEPT = 60
"""Minutes that wait for the disk; those before them become a gap."""

HITS_FOR, FEEDS_FOR = 30.0, 10.0
"""Seconds that such an answer is good."""

_ALARM_DAYS = 30
_MAX_ALARMS = 200
_LOOKED_UP = 50
"""Open objections whose block is looked for."""

_BLOCKS = ("block", "cut")
_NO_STORE = (
    "Events: no store that can be searched is configured; sqlite and postgresql are ([[records.store]])."
)


class EventFinder:
    """Finder of events in a store that can be searched, opened on demand.

    It asks in threads of its own: a server that is stuck, which no question to it can be taken back from, is
    not to take those of the dashboard, which needs no store for most of what it shows and does.

    Args:
        table: of that store.
        state: the state folder.
    """

    def __init__(self, table: StoreTable, state: Path) -> None:
        self._table = table
        self._state = state
        self._opened: Database | None = None
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(FINDERS, "events")
        self._late: set[Future[Any]] = set()
        """Questions that have had no answer in time, and have none yet."""

    def find(self, wanted: EventQuery) -> list[Row]:
        """Find events, by the names of their fields, newest first.

        Raises:
            StoreError: the store cannot be read, or does not answer.
        """
        return [event._asdict() for event in self._answer(lambda store: store.find(wanted))]

    def count(self, wanted: EventQuery, by: Literal["list", "category"]) -> Mapping[str, int]:
        """Count events by list or category.

        Raises:
            StoreError: as `find`.
        """
        return self._answer(lambda store: store.count(wanted, by))

    def _answer[T](self, question: Callable[[Database], T]) -> T:
        late = f"{self._table.kind}: has not answered within {ANSWER_WITHIN:.0f} s"
        if self._late:
            raise StoreError(late)
        asked = self._threads.submit(lambda: question(self._database()))
        wait([asked], ANSWER_WITHIN)
        if not asked.done():
            if not asked.cancel():
                self._late.add(asked)
                asked.add_done_callback(self._late.discard)
            raise StoreError(late)
        return asked.result()

    def _database(self) -> Database:
        with self._lock:
            # A server is asked below, where nobody waits for the lock.
            if self._opened is not None and self._opened.is_file:
                try:
                    self._opened.check()
                except StoreError:
                    self._opened.close()
                    self._opened = None
            if self._opened is None:
                self._opened = cast("Database", open_store(self._table, self._state))
            return self._opened


@dataclass(frozen=True, slots=True)
class RecorderParts:
    """Parts of the recorder that the sources need; None where not configured.

    Attributes:
        finder: of events.
        objections: those that clients have made.
        metrics: gives the exposition.
        snapshots: the newest snapshot of each worker, as `Metrics.snapshot` has it.
        total: the workers' counters together, none of which goes down.
        alarms: the recorder's own alarms, as `LiveSources.alarms` has them.
        ready: what the recorder needs, and whether it is there.
        healthy: whether all workers report.
        reloads: of the filter.
        nodes: of a fleet, as of `urlward.fleet.nodes.row_of`; gives None while Valkey does not answer.
        rollouts: of the lists that are published.
        resting: whether another publisher looks after the feeds.
        filters: whether there are to be workers, which a publisher has none of.
    """

    finder: EventFinder | None = None
    objections: ObjectionBook | None = None
    metrics: Callable[[], bytes] | None = None
    snapshots: Callable[[], Mapping[str, Mapping[str, Any]]] | None = None
    total: Callable[[], Counts] | None = None
    alarms: Callable[[], list[Row]] | None = None
    ready: Callable[[], Mapping[str, bool]] | None = None
    healthy: Callable[[], bool] | None = None
    reloads: Reloads | None = None
    nodes: Callable[[], list[Row] | None] | None = None
    rollouts: "RolloutDesk | None" = None
    resting: Callable[[], bool] = lambda: False
    filters: bool = True


class LiveSources:
    """Sources in the recorder, which the pages ask. `metrics_text`, `now`, `health` and `ready` are called on
    the event loop and answer at once; the others in threads, also several at a time.

    Each raises NotConfiguredError where what it is about is not configured, and another UrlwardError where it
    cannot be had.

    Args:
        config: the filter's.
        state: the state folder.
        parts: of the recorder.
        clock: seconds since 1970-01-01 UTC.
        list_format: of the filter's sources.
    """

    def __init__(
        self,
        config: Config,
        state: Path,
        parts: RecorderParts | None = None,
        *,
        list_format: str = AUTO,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._state = state
        self._parts = parts or RecorderParts()
        self._clock = clock
        self._history = History()
        self._file = HistoryFile(state / FILE)
        self._keeping = ThreadPoolExecutor(1, "history")
        self._unkept: deque[tuple[int, Step]] = deque(maxlen=UNKEPT)
        self._not_kept = ""
        self._hits = Remembered[dict[str, dict[str, int]]](HITS_FOR)
        self._feeds = Remembered[list[Row]](FEEDS_FOR)
        self._own = Remembered[list[Row]](inf)
        self._refreshes = Refreshes(config, state)
        self._checks = Checks(config, state, list_format)
        self.editor = Editor(config, state, self._parts.reloads, list_format=list_format, clock=clock)

    def tick(self) -> None:
        """Add the last second to the history; call it once a second."""
        if self._parts.snapshots is None or self._parts.total is None:
            return
        snapshots = self._parts.snapshots().values()
        connections = sum(int(one["open"]) for one in snapshots)
        stall = max((float(one.get("stall_newest", 0.0)) for one in snapshots), default=0.0)
        if ended := self._history.sample(self._parts.total(), connections, stall, self._clock()):
            self._keep(ended)

    def close(self) -> None:
        """Close what was opened to answer requests, and write down what the last minute has so far."""
        self._checks.close()
        if ended := self._history.end():
            self._keep(ended)
        self._keeping.shutdown()

    def _keep(self, minute: tuple[int, Step]) -> None:
        """Write a minute down, apart from the event loop: a disk may keep it waiting."""
        self._unkept.append(minute)
        self._keeping.submit(self._write_history)

    def _write_history(self) -> None:
        now = self._clock()
        try:
            while self._unkept:
                begin, step = self._unkept[0]
                step.feeds = self._feed_ages(now)
                self._file.add(begin, step, now)
                self._unkept.popleft()
        except Exception as e:  # noqa: BLE001 - a bug must not end the thread with a traceback
            if (text := fault_text(e)) != self._not_kept:
                logger.error("admin: the history of traffic is not kept: %s", text)
            self._not_kept = text
        else:
            self._not_kept = ""

    def _feed_ages(self, now: float) -> dict[str, float]:
        found = {}
        for feed in self._config.feed:
            with suppress(UrlwardError):  # the page on feeds says so
                if last := FeedStore(self._state, feed.name).facts().last_success:
                    found[feed.name] = max(now - last, 0.0)
        return found

    def history(self, span: str, *, rows: bool = False) -> Past:
        """Traffic of a span.

        Args:
            span: a name of `urlward.dashboard.history.SPANS`.
            rows: by the steps of a table in place of those of a plot.
        """
        if self._parts.total is None:
            raise NotConfiguredError("Metrics are not collected.")
        return past(span, self._file.read, self._clock(), rows=rows)

    def metrics_text(self) -> bytes:
        """The exposition for Prometheus."""
        if self._parts.metrics is None:
            raise NotConfiguredError("Metrics are not collected.")
        return self._parts.metrics()

    def now(self) -> Now:
        """Current traffic."""
        if self._parts.snapshots is None:
            raise NotConfiguredError("Metrics are not collected.")
        workers = [of_worker(name, one) for name, one in sorted(self._parts.snapshots().items())]
        return self._history.now(workers)

    @property
    def shares(self) -> bool:
        """Whether this is one of several nodes."""
        return self._parts.nodes is not None

    def nodes(self) -> list[Row]:
        """Nodes of the fleet, as they were last seen."""
        if self._parts.nodes is None:
            raise NotConfiguredError("This node is alone: there is no [fleet].")
        rows = self._parts.nodes()
        if rows is None:
            raise UrlwardError("The fleet's Valkey does not answer.")
        return rows

    @property
    def publishes(self) -> bool:
        """Whether lists are published by this configuration."""
        return self._parts.rollouts is not None

    def rollouts(self) -> Row:
        """Published lists, as `urlward.publish.desk.RolloutDesk.rows` has them."""
        return self._desk().rows()

    def act_on_rollout(self, act: str, name: str, serial: int | None, why: str, who: str) -> str:
        """Do ``rollback``, ``release`` or ``promote`` to a published list; returns what to say of it."""
        return self._desk().act(cast("Act", act), name, why=why, who=who, serial=serial)

    def health(self) -> bool:
        """Whether this process works."""
        return self._parts.healthy is None or self._parts.healthy()

    def ready(self) -> Mapping[str, bool]:
        """Readiness: each thing that the filter needs, and whether it is there."""
        state = {"state": os.access(self._state, os.W_OK)}
        return state | dict(self._parts.ready()) if self._parts.ready is not None else state

    def lists(self) -> list[Row]:
        """Each: ``name``, ``kind``, ``serial``, ``created``, ``age`` (s), ``entries``, ``hits``, ``note``."""
        try:
            hits = self.hits()["list"]
        except UrlwardError:
            hits = None
        feeds = {feed.name for feed in self._config.feed}
        rows = [of_list(*facts, now=self._clock(), feeds=feeds) for facts in self._in_force()]
        known = {row["name"] for row in rows}
        paths = self._config.list or (() if feeds else (str(SAMPLE),))
        # Nothing is known of a list that no worker has said to be in force.
        names = [] if rows else [Path(path).stem for path in paths]
        names += [name for name in feeds if name not in known]
        rows += [of_list(name, 0, None, 0, now=self._clock(), feeds=feeds) for name in names]
        more: Row = {"note": ""} if not self._parts.filters else {}
        return [{**row, "hits": None if hits is None else hits.get(row["name"], 0), **more} for row in rows]

    def hits(self) -> dict[str, dict[str, int]]:
        """Blocks of the last day by ``list`` and by ``category``."""
        # Counting goes through all events of a day.
        return self._hits.get(None, self._clock(), self._count)

    def _count(self) -> dict[str, dict[str, int]]:
        wanted = EventQuery(kinds=_BLOCKS, since=self._milliseconds() - DAY_MS)
        finder = self._finder()
        return {
            "list": dict(finder.count(wanted, "list")),
            "category": dict(finder.count(wanted, "category")),
        }

    def feeds(self) -> list[Row]:
        """As `urlward.feeds.status.status` has them."""
        now, feeds = self._clock(), self._config.feed
        stores = [FeedStore(self._state, feed.name) for feed in feeds]
        seen = [Signature.of(p) for one in stores for p in (one.path, one.path.with_suffix(".json"))]
        # Each reads a whole artifact.
        return self._feeds.get(seen, now, lambda: [status(feed, self._state, now) for feed in feeds])

    def events(self, wanted: EventQuery) -> EventPage:
        """Find a page of events."""
        # One more than wanted tells whether there are others.
        found = self._finder().find(replace(wanted, limit=wanted.limit + 1))
        more = len(found) > wanted.limit
        found = found[: wanted.limit]
        return EventPage(found, found[-1]["id"] if more else "")

    def check(self, url: str, client: str, at: float | None) -> Row:
        """Check a URL; the result is as of ``urlward check --explain --json``.

        Args:
            url: as typed.
            client: address, or empty.
            at: seconds since 1970-01-01 UTC; None for now.
        """
        return self._checks.check(url, client, at, self._clock())

    def alarms(self) -> list[Row]:
        """Each with ``time``, ``source``, ``alarm``, ``text`` and ``current``; the current ones first."""
        current: list[Row] = []
        for feed in () if self._parts.resting() else self._config.feed:
            store = FeedStore(self._state, feed.name)
            facts = store.facts()
            for kind, text in alarms(feed, facts, store.header(), self._clock()).items():
                since = time_text(facts.last_success) if kind == "stale" and facts.last_success else ""
                alarm = {"time": since, "source": feed.name, "alarm": kind, "text": text, "current": True}
                current.append(alarm)
        if self._parts.alarms is not None:
            current += self._parts.alarms()
        return current + self._past_alarms()

    def allows(self) -> list[Row]:
        """Allows in force: ``id``, ``kind``, ``created``, ``until``, ``who`` and ``why``."""
        return [allow_row(one) for one in current_allows(self._state, self._clock())]

    def allow(self, url: str, seconds: int, why: str, who: str, *, whole_host: bool) -> Row:
        """Allow a page or a host for a while, as `urlward.policy.allows.add_allow`."""
        key, now = local_key(self._state), self._clock()
        return allow_row(add_allow(self._state, key, url, seconds, why, who, whole_host=whole_host, now=now))

    def end_allow(self, id_: str, why: str, who: str) -> Row:
        """End an allow before its time."""
        return allow_row(end_allow(self._state, id_, why, who, now=self._clock()))

    def refresh_feed(self, name: str) -> str:
        """Start a refresh of a feed; returns what to say of it."""
        return self._refreshes.begin(self._feed(name))

    def accept_feed(self, name: str, why: str, who: str) -> str:
        """Accept a list that was refused for its size; returns what to say of it."""
        feed = self._feed(name)
        refused = accept(feed, self._state, why=why, who=who, now=self._clock())
        self._refreshes.begin(feed)
        if refused is None:
            return f"{name}: nothing was refused; the next list that is, for its size, is let through once"
        return f"{name}: the list of {refused.entries} entries is let through once"

    def versions(self, name: str) -> Row:
        """Earlier lists of a feed: ``versions`` (``serial``, ``created``), ``serial`` in force, ``held``."""
        feed = self._feed(name)
        store = FeedStore(self._state, feed.name)
        now = status(feed, self._state, self._clock())
        found = [{"serial": one.serial, "created": time_text(one.created)} for one in store.versions()]
        return {"name": name, "versions": found, "serial": now["serial"], "held": now["held"]}

    def roll_back_feed(self, name: str, serial: int | None, why: str, who: str) -> None:
        """Put an earlier list of a feed in force, and hold the feed there (`urlward.feeds.rollback`)."""
        roll_back(self._feed(name), self._config, self._state, serial, why=why, who=who, now=self._clock())

    def release_feed(self, name: str, why: str, who: str) -> None:
        """Release a feed that is held, and fetch it."""
        feed = self._feed(name)
        release(feed, self._state, why=why, who=who, now=self._clock())
        self._refreshes.begin(feed)

    def own(self) -> list[Row]:
        """Own entries, as `urlward.policy.own.own_row` has them; not to be changed.

        They are read once for as long as their file stays as it is: of a hundred thousand that takes a second
        and 100 MB, whoever asks, and several who ask at a time would take so much each.
        """
        seen = Signature.of(self._state / OWN_FILE)
        return self._own.get(seen, 0.0, lambda: [own_row(one) for one in own_entries(self._state)])

    def add_own(self, made: Draft, who: str, *, sure: bool) -> Row:
        """Add an own entry, and put it in force (`urlward.feeds.own`)."""
        return own_row(add_to_own(self._config, self._state, made, who, sure=sure, protects=self._protects))

    def remove_own(self, id_: str, why: str, who: str) -> Row:
        """Remove an own entry, and put it out of force."""
        return own_row(remove_from_own(self._config, self._state, id_, why, who))

    def reveal_own(self, id_: str, who: str) -> str:
        """The line of an own entry; the audit log has who asked for it."""
        return reveal_own(self._state, local_key(self._state), id_, who, now=self._clock())

    def _protects(self, host: str) -> bool:
        return protecting(self._config)(host)

    def objections(self) -> list[Row]:
        """Open ones first: ``id``, ``time`` (RFC 3339), ``reference``, ``message``, ``state`` (``open``,
        ``granted``, ``declined``), and once it is decided ``why``, ``who``, ``decided`` (RFC 3339) and
        ``allow`` (an id, or empty); where the block is recorded ``list``, ``category`` and ``entry``."""
        rows = self._book().listed()
        if self._parts.finder is None:
            return rows
        looked_up = [
            row | self._block(row["reference"]) for row in rows[:_LOOKED_UP] if row["state"] == "open"
        ]
        return looked_up + rows[len(looked_up) :]

    def decide_objection(self, id_: str, why: str, who: str, *, granted: Grant | None) -> None:
        """Decide an objection, with the reason; None declines it."""
        self._book().decide(id_, why, who, granted=granted)

    def _finder(self) -> EventFinder:
        if self._parts.finder is None:
            raise NotConfiguredError(_NO_STORE)
        return self._parts.finder

    def _desk(self) -> "RolloutDesk":
        if self._parts.rollouts is None:
            raise NotConfiguredError("Nothing is published from here: there is no [publish] with a place.")
        return self._parts.rollouts

    def _book(self) -> ObjectionBook:
        if self._parts.objections is None:
            raise NotConfiguredError(
                "Objections are not taken: the block page's form is not configured ([objections])."
            )
        return self._parts.objections

    def _feed(self, name: str) -> FeedTable:
        for feed in self._config.feed:
            if feed.name == name:
                return feed
        raise UrlwardError("no feed of that name")

    def _in_force(self) -> list[tuple[str, int, int, int]]:
        """Name, serial, entries and date of the lists that workers have, as the newest of them says."""
        if self._parts.snapshots is None:
            return []
        snapshots = sorted(self._parts.snapshots().values(), key=lambda one: float(one["started"]))
        found = {row[0]: tuple(row) for one in snapshots for row in one["lists"]}
        return sorted(found.values())

    def _block(self, reference: str) -> Row:
        # Objections have the reference too.
        found = self._finder().find(EventQuery(reference=reference, kinds=tuple(sorted(HITS)), limit=1))
        return {name: found[0][name] for name in ("list", "category", "entry")} if found else {}

    def _past_alarms(self) -> list[Row]:
        if self._parts.finder is None:
            return []
        since = self._milliseconds() - _ALARM_DAYS * DAY_MS
        wanted = EventQuery(kinds=("alarm", "gap"), since=since, limit=_MAX_ALARMS)
        return [of_alarm(event) for event in self._parts.finder.find(wanted)]

    def _milliseconds(self) -> int:
        return round(self._clock() * 1000)
