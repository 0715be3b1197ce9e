"""Events in SQLite or PostgreSQL: one code for both."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Engine,
    and_,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
)

from urlward.config.records import StoreTable
from urlward.engine.dates import time_text
from urlward.records.bulk import insert_new
from urlward.records.engines import PAUSE, open_postgresql, open_sqlite, told, wipe_sqlite, writing
from urlward.records.event import FIELDS, Event
from urlward.records.migrations import migrate
from urlward.records.store import AbsentError, Age, By, EventQuery
from urlward.records.tables import UPGRADES, create, events
from urlward.records.tables import holds as held

CHUNK = 2_000
"""Events deleted in one transaction, while which nothing is written."""

SHARE = 0.01
"""Of the time, in which a file may be rewritten: for large ones that is not at each purge."""

_DAY_MS = 86_400_000
_SPANS: Mapping[By, int] = {"minute": 60_000, "hour": 3_600_000, "day": _DAY_MS}
_TABLE = events
_FIELDS = tuple(events.c[name] for name in FIELDS)
_EQUAL = ("reference", "list", "category", "client", "entry", "group")


class Database:
    """A database of events, brought to this version's tables when it is opened.

    Args:
        engine: to connect with.
        name: for messages.
        pause: waits that many seconds.

    Attributes:
        name: for messages.
        engine: for other tables in the same database.

    Raises:
        StoreError: it cannot be used.
    """

    def __init__(self, engine: Engine, name: str, pause: Callable[[float], None] = time.sleep) -> None:
        self.name = name
        self.engine = engine
        self._writing = writing(engine)
        self._pause = pause
        self._is_file = engine.dialect.name == "sqlite"
        self._dirty = False
        self._rewrite_after = 0
        try:
            with told(name):
                migrate(self._writing, "events", create, UPGRADES)
        except BaseException:
            engine.dispose()
            raise

    def write(self, events: Sequence[Event]) -> None:
        """As `Store.write`: one transaction."""
        if not events:
            return
        with told(self.name), self._writing.begin() as connection:
            insert_new(connection, _TABLE, events)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def find(self, query: EventQuery) -> list[Event]:
        """The events of a query, the newest first.

        Raises:
            StoreError: they cannot be read.
        """
        wanted = select(*_FIELDS).where(*_conditions(query))
        if query.before is not None:
            wanted = wanted.where(_after(query.before))
        wanted = wanted.order_by(events.c.time.desc(), events.c.id.desc()).limit(query.limit)
        with told(self.name), self.engine.connect() as connection:
            return [Event(*row) for row in connection.execute(wanted)]

    def came_after(self, seq: int, query: EventQuery) -> list[tuple[int, Event]]:
        """Those of a query that came after a number of `last`, in the order in which they came, each with
        its number.

        Raises:
            StoreError: they cannot be read.
        """
        wanted = select(events.c.seq, *_FIELDS).where(events.c.seq > seq, *_conditions(query))
        with told(self.name), self.engine.connect() as connection:
            rows = connection.execute(wanted.order_by(events.c.seq).limit(query.limit))
            return [(row[0], Event(*row[1:])) for row in rows]

    def last(self) -> int:
        """The number of the event that came last; 0 where there is none.

        Raises:
            StoreError: it cannot be read.
        """
        with told(self.name), self.engine.connect() as connection:
            return connection.execute(select(func.max(events.c.seq))).scalar() or 0

    def count(self, query: EventQuery, by: By) -> dict[str, int]:
        """How many events of a query there are of each value, the most frequent first, or the earliest time;
        its `before` and `limit` do not count.

        Raises:
            StoreError: they cannot be read.
        """
        span = _SPANS.get(by)
        value = events.c[by] if span is None else events.c.time // span
        number = func.count()
        order = number.desc() if span is None else value
        wanted = select(value, number).where(*_conditions(query)).group_by(text("1")).order_by(order)
        with told(self.name), self.engine.connect() as connection:
            rows = connection.execute(wanted).all()
        return {found if span is None else _beginning(found * span): number for found, number in rows}

    def ages(self, holds: Collection[str] = ()) -> dict[str, Age]:
        """As `KeepingStore.ages`."""
        wanted = select(events.c.kind, func.count(), func.min(events.c.time)).group_by(events.c.kind)
        if holds:
            wanted = wanted.where(events.c.reference.not_in(sorted(holds)))
        with told(self.name), self.engine.connect() as connection:
            return {kind: Age(count, oldest) for kind, count, oldest in connection.execute(wanted)}

    def purge(self, kind_days: Mapping[str, int], now_ms: int, holds: Collection[str] = ()) -> int:
        """As `KeepingStore.purge`: in bounded chunks, so that writers wait for none of them long."""
        deleted = 0
        for days in sorted(set(kind_days.values())):
            kinds = sorted(kind for kind, allowed in kind_days.items() if allowed == days)
            over = [events.c.kind.in_(kinds), events.c.time < now_ms - days * _DAY_MS]
            if holds:
                over.append(events.c.reference.not_in(sorted(holds)))
            deleted += self._delete(over)
        self._wipe(now_ms, deleted)
        return deleted

    def hold(self, reference: str, until_ms: int) -> None:
        """Have all nodes that write here keep what has a reference until a time, in milliseconds.

        Raises:
            StoreError: they are not told.
        """
        with told(self.name), self._writing.begin() as connection:
            connection.execute(delete(held).where(held.c.reference == reference))
            connection.execute(insert(held).values(reference=reference, until=until_ms))

    def release(self, reference: str) -> None:
        """End that.

        Raises:
            StoreError: they are not told.
        """
        with told(self.name), self._writing.begin() as connection:
            connection.execute(delete(held).where(held.c.reference == reference))

    def held(self, now_ms: int) -> set[str]:
        """The references that some node holds at a time.

        Raises:
            StoreError: they cannot be read.
        """
        with told(self.name), self.engine.connect() as connection:
            return {*connection.execute(select(held.c.reference).where(held.c.until > now_ms)).scalars()}

    def _delete(self, over: Iterable[ColumnElement[bool]]) -> int:
        chunk = select(events.c.seq).where(*over).limit(CHUNK)
        deleted = 0
        while True:
            with told(self.name), self._writing.begin() as connection:
                count = connection.execute(delete(events).where(events.c.seq.in_(chunk))).rowcount
                if count and self._is_file:
                    # For whoever opens the file after us, should we end before it is rewritten.
                    connection.exec_driver_sql("PRAGMA user_version = 1")
            deleted += count
            self._dirty |= count > 0
            if count < CHUNK:
                return deleted
            self._pause(PAUSE)

    def _wipe(self, now_ms: int, deleted: int) -> None:
        """Have the files forget what has been deleted."""
        with told(self.name):
            if not self._is_file:
                if not deleted:
                    return
                # Not in a transaction.
                alone = self.engine.execution_options(isolation_level="AUTOCOMMIT")
                with alone.connect() as connection:
                    connection.execute(text("VACUUM events"))
                return
            with self.engine.connect() as connection:
                self._dirty |= bool(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
            if not self._dirty:
                return
            rewrite = now_ms >= self._rewrite_after
            start = time.monotonic()
            wipe_sqlite(self.engine, self._pause, rewrite=rewrite)
            if rewrite:
                self._dirty = False
                self._rewrite_after = now_ms + int((time.monotonic() - start) * 1000 / SHARE)


def _conditions(query: EventQuery) -> list[ColumnElement[bool]]:
    found = [events.c[name] == value for name in _EQUAL if (value := getattr(query, name)) is not None]
    if query.kinds:
        found.append(events.c.kind.in_(query.kinds))
    if query.since is not None:
        found.append(events.c.time >= query.since)
    if query.until is not None:
        found.append(events.c.time < query.until)
    return found


def _after(before: str) -> ColumnElement[bool]:
    """What comes after an event where the newest is first; one that is no longer there has its time in its
    id."""
    known = select(events.c.time).where(events.c.id == before).scalar_subquery()
    at = func.coalesce(known, literal(_time_in(before), BigInteger))
    # The first says nothing new, but is what an index is searched by.
    return and_(events.c.time <= at, or_(events.c.time < at, events.c.id < before))


def _time_in(id_: str) -> int:
    try:
        return int(id_[:12], 16)
    except ValueError:
        return 0


def _beginning(milliseconds: int) -> str:
    return time_text(milliseconds // 1000)


def open_database(table: StoreTable, state: Path, *, make: bool = True) -> Database:
    """The database of a configuration's table.

    Args:
        table: of kind ``sqlite`` or ``postgresql``.
        state: the state folder.
        make: whether a file that is not there is made.

    Raises:
        AbsentError: it is not there, and is not to be made.
        StoreError: it cannot be used.
    """
    if table.kind == "postgresql":
        engine = open_postgresql(table)
        return Database(engine, f"postgresql {engine.url.host or ''}/{engine.url.database}")
    path = state / table.file
    if not make and not path.exists():
        raise AbsentError(f"{path}: not there: nothing has been recorded yet")
    with told(str(path)):
        engine = open_sqlite(path)
    return Database(engine, str(path))
