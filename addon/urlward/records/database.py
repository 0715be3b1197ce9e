"""Event store in SQLite or PostgreSQL: its tables in this version, and one code for both."""

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    inspect,
    literal,
    not_,
    or_,
    select,
    text,
    tuple_,
    update,
)

from urlward.config.records import StoreTable
from urlward.engine.dates import time_text
from urlward.records.event import FIELDS, HITS, VERSIONS, Event
from urlward.records.sql import (
    PAUSE,
    Pace,
    SqliteFiles,
    Step,
    check_grant,
    deletions,
    has_part,
    insert_new,
    keep_no_samples,
    migrate,
    note_deleted,
    note_wiped,
    open_postgresql,
    open_sqlite,
    told,
    unwiped,
    vacuum,
    wipe_sqlite,
    writing,
)
from urlward.records.store import AbsentError, Age, By, EventQuery, Node, ReplacedError, StoreError
from urlward.units import DAY_MS

metadata = MetaData()

events = Table(
    "events",
    metadata,
    # In the order in which they came, which a follower goes by; late ones have older ids. In SQLite only a
    # column of type INTEGER is the table's own number.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("time", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("node", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("client_port", Integer, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("destination_port", Integer, nullable=False),
    Column("stage", Text, nullable=False),
    Column("list", Text, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("entry", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("digest", String(32), nullable=False),
    Column("group", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("events_time", "time", "id"),
    Index("events_kind_time", "kind", "time"),
    Index("events_reference", "reference"),
    Index("events_list_time", "list", "time"),
    Index("events_category_time", "category", "time"),
    # A number that has been given is not given again, so that a follower never takes a new event for an old.
    sqlite_autoincrement=True,
)

held = Table(
    "holds",
    metadata,
    Column("reference", String(100), primary_key=True),
    Column("until", BigInteger, nullable=False),
    Column("node", String(255), primary_key=True),
)
"""References whose events no node that writes here deletes before a time (milliseconds), and which node says
so: none where it was one of version 1."""

nodes = Table(
    "nodes",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("identity", String(32), nullable=False),
    Column("days", Text, nullable=False),
    Column("seen", BigInteger, nullable=False),
)
"""Names of nodes that write here, of which a node may have had others before. ``identity``: whose the name is
(`urlward.records.store`); empty for a node of version 2 that has not been heard of since. ``days``: for how
many days the node's events are kept, by kind as JSON, as that node says: all who delete go by it; empty where
it has not said it. ``seen``: when it was last heard of, in milliseconds."""

CHUNK = 2_000
"""Events deleted in one transaction, while which nothing is written."""

_SPANS: Mapping[By, int] = {"minute": 60_000, "hour": 3_600_000, "day": DAY_MS}
_TABLE = events
_PART = "events"
_FIELDS = tuple(events.c[name] for name in FIELDS)
_EQUAL = ("reference", "list", "category", "entry", "group", "node")


def create(connection: Connection) -> None:
    """Make the tables of this version that are not there."""
    metadata.create_all(connection)
    unwiped.create(connection, checkfirst=True)
    keep_no_samples(connection, events.c.client)


def _to_2(connection: Connection) -> None:
    """Upgrade to version 2: nodes have days, deletions are noted for rewriting, and a hold belongs to its
    node."""
    connection.execute(
        text("CREATE TABLE retention (node VARCHAR(255) NOT NULL, days TEXT NOT NULL, PRIMARY KEY (node))")
    )
    unwiped.create(connection, checkfirst=True)
    if connection.dialect.name == "sqlite":  # which changes no primary key
        statements = (
            "ALTER TABLE holds RENAME TO holds_of_1",
            "CREATE TABLE holds (reference VARCHAR(100) NOT NULL, until BIGINT NOT NULL,"
            " node VARCHAR(255) NOT NULL, PRIMARY KEY (reference, node))",
            "INSERT INTO holds SELECT reference, until, '' FROM holds_of_1",
            "DROP TABLE holds_of_1",
        )
    else:
        statements = (
            "ALTER TABLE holds ADD COLUMN node VARCHAR(255) NOT NULL DEFAULT ''",
            "ALTER TABLE holds ALTER COLUMN node DROP DEFAULT",
            "ALTER TABLE holds DROP CONSTRAINT holds_pkey",
            "ALTER TABLE holds ADD PRIMARY KEY (reference, node)",
        )
    for statement in statements:
        connection.execute(text(statement))


def _to_3(connection: Connection) -> None:
    """Upgrade to version 3: names belong to a node with an identity, which has days for all of its names; the
    server keeps no samples of clients."""
    for statement in (
        "CREATE TABLE nodes (name VARCHAR(255) NOT NULL, identity VARCHAR(32) NOT NULL, days TEXT NOT NULL,"
        " seen BIGINT NOT NULL, PRIMARY KEY (name))",
        "INSERT INTO nodes SELECT node, '', days, 0 FROM retention",
        "DROP TABLE retention",
    ):
        connection.execute(text(statement))
    keep_no_samples(connection, events.c.client)


UPGRADES: tuple[Step, ...] = (_to_2, _to_3)
"""From version 1 on, for databases made by earlier versions (`urlward.records.sql`). Whoever changes
the table adds one here, and a database of the version before to the tests."""


class Database:
    """Database store of events, migrated to this version's tables when it is opened.

    Args:
        engine: to connect with.
        name: for messages.
        path: of an SQLite database; None of a server's.
        forgets: whether a role is refused that may not have the server's files forget what it deletes.

    Attributes:
        name: for messages.
        engine: for other tables in the same database.
        is_file: whether it is SQLite's.

    Raises:
        StoreError: it cannot be used.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        path: Path | None = None,
        *,
        forgets: bool = True,
    ) -> None:
        self.name = name
        self.engine = engine
        self._writing = writing(engine)
        self._pause = time.sleep
        self.is_file = engine.dialect.name == "sqlite"
        self._node: Node | None = None
        self._pace = Pace()
        try:
            with told(name):
                migrate(self._writing, _PART, create, UPGRADES)
                if not inspect(engine).has_table(_TABLE.name):  # somebody has dropped it alone
                    with self._writing.begin() as connection:
                        create(connection)
                if forgets:
                    with engine.connect() as connection:
                        check_grant(connection, (_TABLE.name,))
                self._files = SqliteFiles(path) if path is not None else None
        except BaseException:
            engine.dispose()
            raise

    def write(self, events: Sequence[Event]) -> None:
        """As `Store.write`: one transaction."""
        if not events:
            return
        try:
            with told(self.name), self._writing.begin() as connection:
                insert_new(connection, _TABLE, self._under_own_name(connection, events))
        finally:
            # Only now: what is committed to files that are gone by then is in no file that anybody can open.
            if self.is_file:
                self.check()

    def check(self) -> None:
        """As `Store.check`; a server answers, and has its tables: another may be in its place."""
        with told(self.name):
            if self._files is not None:
                reason = self._files.replaced(self.engine)
            else:
                with self.engine.connect() as connection:
                    there = has_part(connection, _PART) and inspect(connection).has_table(_TABLE.name)
                    reason = "" if there else "its tables are gone"
        if reason:
            raise ReplacedError(f"{self.name}: {reason}")

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def find(self, query: EventQuery) -> list[Event]:
        """Find the events of a query, the newest first.

        Raises:
            StoreError: they cannot be read.
        """
        # An index has the events of each kind in this order, and none those of several: all would be sorted.
        is_by_kind = query.reference is query.list is query.category is None
        kinds = dict.fromkeys(query.kinds if is_by_kind else ())
        of_kinds = [replace(query, kinds=(kind,)) for kind in kinds] or [query]
        found: list[Event] = []
        with told(self.name), self.engine.connect() as connection:
            for one in of_kinds:
                wanted = select(*_FIELDS).where(*_conditions(one))
                if query.before is not None:
                    wanted = wanted.where(_after(query.before))
                if full := found[query.limit - 1 :]:  # what is older is on another page
                    wanted = wanted.where(events.c.time >= full[0].time)
                wanted = wanted.order_by(events.c.time.desc(), events.c.id.desc()).limit(query.limit)
                found += [Event(*row) for row in connection.execute(wanted)]
                found = sorted(found, key=lambda event: (event.time, event.id), reverse=True)[: query.limit]
        return found

    def came_after(self, seq: int, query: EventQuery) -> list[tuple[int, Event]]:
        """Find events of a query that came after a number of `last`, in the order in which they came, each
        with its number.

        Raises:
            StoreError: they cannot be read.
        """
        wanted = select(events.c.seq, *_FIELDS).where(events.c.seq > seq, *_conditions(query))
        with told(self.name), self.engine.connect() as connection:
            rows = connection.execute(wanted.order_by(events.c.seq).limit(query.limit))
            return [(row[0], Event(*row[1:])) for row in rows]

    def last(self) -> int:
        """Number of the latest event; 0 where there is none.

        Raises:
            StoreError: it cannot be read.
        """
        with told(self.name), self.engine.connect() as connection:
            return connection.execute(select(func.max(events.c.seq))).scalar() or 0

    def count(self, query: EventQuery, by: By) -> dict[str, int]:
        """Count the events of a query by value, the most frequent first, or by time, the earliest first; the
        query's `before` and `limit` are ignored.

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

    def ages_of_nodes(self, holds: Collection[str] = ()) -> dict[tuple[str, str], Age]:
        """As `ages`, by node and kind."""
        wanted = select(events.c.node, events.c.kind, func.count(), func.min(events.c.time))
        wanted = wanted.group_by(events.c.node, events.c.kind)
        with told(self.name), self.engine.connect() as connection:
            rows = connection.execute(wanted.where(*_but_for(connection, holds)))
            return {(node, kind): Age(count, oldest) for node, kind, count, oldest in rows}

    def ages(self, holds: Collection[str] = ()) -> dict[str, Age]:
        """As `KeepingStore.ages`."""
        wanted = select(events.c.kind, func.count(), func.min(events.c.time)).group_by(events.c.kind)
        with told(self.name), self.engine.connect() as connection:
            wanted = wanted.where(*_but_for(connection, holds))
            return {kind: Age(count, oldest) for kind, count, oldest in connection.execute(wanted)}

    def evidence(self, references: Collection[str]) -> list[Event]:
        """As `KeepingStore.evidence`."""
        with told(self.name), self.engine.connect() as connection:
            which = or_(events.c.reference.in_(sorted(references)), _of_versions(connection, references))
            return [Event(*row) for row in connection.execute(select(*_FIELDS).where(which))]

    def purge(
        self,
        kind_days: Mapping[str, int],
        now_ms: int,
        holds: Collection[str] = (),
        node: Node | None = None,
    ) -> int:
        """As `KeepingStore.purge`: in bounded chunks, so that writers wait for none of them long."""
        said_days: Mapping[str, Mapping[str, int]] = {}
        if node is not None and not self.is_file:
            with told(self.name), self._writing.begin() as connection:
                _claim(connection, node, kind_days)
            said_days = self.days_of_nodes(kind_days, node)
        deleted = 0
        # A file is this machine's, whatever that was called before.
        for name, said in said_days.items() or [("", kind_days)]:
            whose = (
                [events.c.node == name]
                if name
                else [events.c.node.not_in(sorted(filter(None, said_days)))] * bool(said_days)
            )
            for days in sorted(set(said.values())):
                kinds = sorted(kind for kind, allowed in said.items() if allowed == days)
                over = [events.c.kind.in_(kinds), events.c.time < now_ms - days * DAY_MS, *whose]
                deleted += self._delete(over, holds, now_ms)
        self._wipe()
        return deleted

    def register(self, node: Node) -> None:
        """Register a node that writes here, under its name alone, as long as that is its own. A file has no
        other.

        Raises:
            StoreError: the name is another node's.
        """
        if not self.is_file:
            with told(self.name), self._writing.begin() as connection:
                _claim(connection, node)
            self._node = node

    def find_node(self, name: str, node: Node) -> None:
        """Check whether a name can be adopted.

        Raises:
            StoreError: no node has it, or this one has it already; or that cannot be read.
        """
        with told(self.name), self.engine.connect() as connection:
            row = connection.execute(select(nodes).where(nodes.c.name == name)).first()
            if row is None:
                raise StoreError(f"no node is called {name!r} there")
            if row.identity == node.identity:
                raise StoreError(f"{name!r} is this node there already")

    def adopt(self, name: str, node: Node) -> None:
        """Give a name, whoever has it, to a node, with what was recorded and is held under it.

        Raises:
            StoreError: it cannot be.
        """
        with told(self.name), self._writing.begin() as connection:
            connection.execute(update(nodes).where(nodes.c.name == name).values(identity=node.identity))

    def taken_from(self, node: Node) -> StoreError | None:
        """Why a node cannot use its name, as it is another's; None where it can.

        Raises:
            StoreError: it cannot be read.
        """
        with told(self.name), self.engine.connect() as connection:
            row = connection.execute(select(nodes).where(nodes.c.name == node.name)).first()
        if row is None or row.identity in ("", node.identity):
            return None
        return StoreError(f"{self.name}: {_taken(row.name, row.seen)}")

    def names_of(self, node: Node) -> list[str]:
        """Names that a node has, and has had, in a database that several share.

        Raises:
            StoreError: they cannot be read.
        """
        with told(self.name), self.engine.connect() as connection:
            found = connection.scalars(select(nodes.c.name).where(nodes.c.identity == node.identity)).all()
        return sorted({node.name, *found})

    def days_of_nodes(self, kind_days: Mapping[str, int], node: Node) -> dict[str, Mapping[str, int]]:
        """Days of each node that has set them, with one's own; of all others, by the name of none, the
        longest of these.

        Raises:
            StoreError: they cannot be read.
        """
        with told(self.name), self.engine.connect() as connection:
            rows = connection.execute(select(nodes)).all()
        said: dict[str, Mapping[str, int]] = {row.name: json.loads(row.days) for row in rows if row.days}
        others = {row.name for row in rows if row.identity not in ("", node.identity)}
        mine = {row.name for row in rows if row.identity == node.identity} | {node.name} - others
        said |= dict.fromkeys(mine, kind_days)
        every = [*said.values()] or [kind_days]
        kinds = set(kind_days).intersection(*every)
        return {**said, "": {kind: max(days[kind] for days in every) for kind in kinds}}

    def _under_own_name(self, connection: Connection, events: Sequence[Event]) -> Sequence[Event]:
        """Rename this node's events that waited from before its name changed.

        Raises:
            StoreError: its name is another's by now.
        """
        if self._node is None:
            return events
        whose = dict(connection.execute(select(nodes.c.name, nodes.c.identity)).all())
        others = {name for name, identity in whose.items() if identity not in ("", self._node.identity)}
        if self._node.name in others:
            _claim(connection, self._node)
        name = self._node.name
        return [event._replace(node=name) if event.node in others else event for event in events]

    def hold(self, holds: Mapping[str, int], node: Node) -> None:
        """Hold the events of references in all nodes that write here, at least until a time.

        Args:
            holds: references with those times, in milliseconds. One that the node has said before stays until
                the later of the two.
            node: that holds them; what others say of them stays.

        Raises:
            StoreError: they are not told, or the node's name is another's.
        """
        if not holds:
            return
        with told(self.name), self._writing.begin() as connection:
            if not self.is_file:
                _claim(connection, node)
            for reference, until in sorted(holds.items()):
                connection.execute(
                    text(
                        "INSERT INTO holds (reference, node, until) VALUES (:reference, :node, :until)"
                        " ON CONFLICT (reference, node) DO UPDATE SET until = excluded.until"
                        " WHERE holds.until < excluded.until"
                    ),
                    {"reference": reference, "node": node.name, "until": until},
                )
                mine = (held.c.node != node.name, _before_identities(until))
                connection.execute(delete(held).where(held.c.reference == reference, *mine))

    def release(self, reference: str, node: Node, until: int = 0) -> None:
        """End what a node holds, under whatever name; a file is this machine's.

        Args:
            reference: that is held.
            node: that holds it.
            until: when it would have ended, in milliseconds.

        Raises:
            StoreError: they are not told.
        """
        whose = or_(_held_by(node), _before_identities(until))
        with told(self.name), self._writing.begin() as connection:
            connection.execute(
                delete(held).where(held.c.reference == reference, *([] if self.is_file else [whose]))
            )

    def held_by(self, node: Node) -> dict[str, int]:
        """The references that a node holds here, with the times until which it does, in milliseconds.

        Raises:
            StoreError: they cannot be read.
        """
        wanted = select(held.c.reference, func.max(held.c.until)).group_by(held.c.reference)
        with told(self.name), self.engine.connect() as connection:
            whose = [] if self.is_file else [_held_by(node)]
            return dict(connection.execute(wanted.where(*whose)).all())

    def held(self, now_ms: int) -> dict[str, int]:
        """The references that some node holds at a time, each with the time until which it does, in ms.

        Raises:
            StoreError: they cannot be read.
        """
        with told(self.name), self.engine.connect() as connection:
            until = func.max(held.c.until)
            wanted = select(held.c.reference, until).group_by(held.c.reference).having(until > now_ms)
            return dict(connection.execute(wanted).all())

    def _delete(self, over: Iterable[ColumnElement[bool]], holds: Collection[str], now_ms: int) -> int:
        deleted = 0
        while True:
            with told(self.name), self._writing.begin() as connection:
                # Also what is held since this began: who holds it waits for this, and sees what is left.
                if not self.is_file:
                    connection.execute(text("LOCK TABLE holds IN SHARE MODE"))
                held_now = connection.scalars(select(held.c.reference).where(held.c.until > now_ms)).all()
                free = _but_for(connection, {*holds, *held_now})
                chunk = select(events.c.seq).where(*over, *free).limit(CHUNK)
                count = connection.execute(delete(events).where(events.c.seq.in_(chunk))).rowcount
                # For whoever opens it after us, should we end before it is rewritten.
                if count:
                    note_deleted(connection, _PART)
            deleted += count
            if count < CHUNK:
                return deleted
            self._pause(PAUSE)

    def _wipe(self) -> None:
        """Wipe what has been deleted from the files.

        Raises:
            StoreError: they do not, or not all of it.
        """
        with told(self.name):
            with self.engine.connect() as connection:
                count = deletions(connection, _PART)
            if count is None:
                return
            rewrite = self._pace.is_due()
            with self._pace.rewriting() if rewrite else nullcontext():
                if self.is_file:
                    wipe_sqlite(self.engine, self._pause, rewrite=rewrite)
                else:
                    vacuum(self.engine, (_TABLE.name,), self._pause, rewrite=rewrite)
            if rewrite:
                with self._writing.begin() as connection:
                    note_wiped(connection, _PART, count)


def _claim(connection: Connection, node: Node, days: Mapping[str, int] | None = None) -> None:
    """Claim a node's name, unless it is another's.

    Args:
        connection: of a transaction that writes.
        node: whose name it is.
        days: by kind, for which events under any of its names are kept; as said before where not given.

    Raises:
        StoreError: it is another's.
    """
    connection.execute(
        text(
            "INSERT INTO nodes (name, identity, days, seen) VALUES (:name, :identity, '', :seen)"
            " ON CONFLICT (name) DO UPDATE SET identity = excluded.identity, seen = excluded.seen"
            " WHERE nodes.identity IN ('', excluded.identity)"
        ),
        {"name": node.name, "identity": node.identity, "seen": int(time.time() * 1000)},
    )
    row = connection.execute(select(nodes).where(nodes.c.name == node.name)).one()
    if row.identity != node.identity:
        raise StoreError(_taken(node.name, row.seen))
    if days is not None:
        said = json.dumps(dict(days), sort_keys=True)
        connection.execute(update(nodes).where(nodes.c.identity == node.identity).values(days=said))


def _taken(name: str, seen: int) -> str:
    return (
        f"the node name {name!r} is another node's there, last heard of {_beginning(seen)}: give this one a "
        "name of its own (node, in [records]), or if it is that one with a new state folder say so with "
        "`urlward records adopt --why TEXT`"
    )


def _held_by(node: Node) -> ColumnElement[bool]:
    """Condition on a node's holds, under whatever name."""
    mine = select(nodes.c.name).where(nodes.c.identity == node.identity)
    return or_(held.c.node.in_(mine), and_(held.c.node == node.name, held.c.node.not_in(_claimed())))


def _before_identities(until: int) -> ColumnElement[bool]:
    """Condition on a hold that ends at a time and is under no node's name: one that the node which holds
    the same until the same time made before there were identities, under the name it had then or none.
    Were it another's, that one says so again before it deletes anything."""
    return and_(held.c.until == until, held.c.node.not_in(_claimed()))


def _claimed() -> Select[tuple[str]]:
    return select(nodes.c.name).where(nodes.c.identity != "")


def _but_for(connection: Connection, holds: Collection[str]) -> list[ColumnElement[bool]]:
    """Conditions that exclude the evidence of references."""
    if not holds:
        return []
    return [events.c.reference.not_in(sorted(holds)), not_(_of_versions(connection, holds))]


def _of_versions(connection: Connection, references: Collection[str]) -> ColumnElement[bool]:
    """Condition on the events that describe the list version by which a reference's event was listed."""
    hits = (
        events.c.reference.in_(sorted(references)),
        events.c.kind.in_(sorted(HITS)),
        events.c.serial > 0,
    )
    versions = connection.execute(select(events.c.list, events.c.serial).where(*hits).distinct()).all()
    same = tuple_(events.c.list, events.c.serial).in_([tuple(row) for row in versions])
    # What the list is called is said by itself too, which is what an index is searched by.
    names = events.c.list.in_(sorted({row.list for row in versions}))
    return and_(events.c.kind.in_(sorted(VERSIONS)), names, same)


def _conditions(query: EventQuery) -> list[ColumnElement[bool]]:
    found = [events.c[name] == value for name in _EQUAL if (value := getattr(query, name)) is not None]
    if query.client is not None:
        found.append(events.c.client.in_((query.client, *query.digests)))
    if query.kinds:
        found.append(events.c.kind.in_(query.kinds))
    if query.since is not None:
        found.append(events.c.time >= query.since)
    if query.until is not None:
        found.append(events.c.time < query.until)
    return found


def _after(before: str) -> ColumnElement[bool]:
    """Condition on events that come after one, the newest first; one that is no longer there has its time
    in its id."""
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
    """Open the database store of a configuration's table.

    Args:
        table: of kind ``sqlite`` or ``postgresql``.
        state: the state folder.
        make: whether a file that is not there is made, and a server's role refused that may not have the
            files forget what it deletes: who only looks needs neither.

    Raises:
        AbsentError: it is not there, and is not to be made.
        StoreError: it cannot be used.
    """
    if table.kind == "postgresql":
        engine = open_postgresql(table)
        return Database(engine, f"postgresql {engine.url.host or ''}/{engine.url.database}", forgets=make)
    path = state / table.file
    if not make and not path.exists():
        raise AbsentError(f"{path}: not there: nothing has been recorded yet")
    with told(str(path)):
        engine = open_sqlite(path)
    return Database(engine, str(path), path=path)
