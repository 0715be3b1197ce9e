"""Store of assignments, in an SQLite file or in PostgreSQL."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from urlward.assignments.formats import MOST
from urlward.assignments.interval import (
    FOREVER,
    SECOND,
    AssignmentError,
    Ending,
    Interval,
    Place,
    SightingSource,
    length_of,
    ms_text,
)
from urlward.assignments.resolving import Lookup, is_held
from urlward.assignments.schema import (
    GONE,
    MOST_PARTITIONS,
    PARTITIONS_AT_ONCE,
    TABLES,
    PartitionInUse,
    Stretch,
    assignments,
    cell_of,
    cells_at,
    check_owner,
    current,
    files,
    formulas,
    gaps,
    lengths,
    locking,
    make_partitions,
    meeting_others,
    open_engine,
    partitions_of,
    sources,
    stretches,
    told,
)
from urlward.lines import plain
from urlward.records.sql import SqliteFiles, check_grant, copy_new, copy_or_replace, insert_new
from urlward.records.store import StoreError
from urlward.units import DAY_MS

type Key = tuple[Place, int]
"""A place and the first of the ports."""
type Held = list[Any]
"""What `current` has of a key and lane: network, last port, start, end, seen, ending, subscriber, session,
when it was first said, whether it was not so before that, and the lane."""

_LOCK = 0x75726C77
"""PostgreSQL's number, with a source's id, of the lock by which one program at a time writes to it."""
_MANY = 2_000
_TRIES = 10
"""Of a write whose partitions are dropped."""
NOT_YET = 1
"""Up to when a source is read of which nothing is known (again): what was may be deleted."""
_NOTHING = {"rows": 0, "skipped": 0, "read": 0, "node": "", "days": 0, "purged": 0}
"""What a source has of which nothing was read yet."""


@dataclass(frozen=True, slots=True)
class KeepingNode:
    """Keeper: a node that keeps sources, and for how many days.

    Attributes:
        node: its identity (`urlward.records.store`); empty where it shares no database.
        days: after which what is over is deleted.
    """

    node: str
    days: int


@dataclass(frozen=True, slots=True)
class ReadingPosition:
    """Position in a file: how far it is read; see `files`.

    Attributes:
        id: of its row; 0 for none yet.
    """

    path: str
    begin: str
    begin_size: int
    offset: int
    before: str
    size: int
    read: int = 0
    first: int = 0
    last: int = 0
    ended: int = 0
    lane: int = 0
    id: int = 0


ANEW = -1
"""In place of a file's id, of a gap: what came and went meanwhile is in no file any more, as it was written
anew with the last of each address."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Gap: a span of time of which a source's log is not read, as it was rotated before, or its file of
    leases written anew.

    Attributes:
        source: the source's id.
        path: of the log.
        since: in ms, as is `until`, which is not part of it.
        file: id of the file whose rest is missing; 0 for another's, that was never read; or `ANEW`.
        id: of its row; 0 for none yet.
    """

    source: int
    path: str
    since: int
    until: int
    file: int = 0
    id: int = 0

    def fields(self) -> dict[str, str]:
        """What is missing, as programs are told: the log's path, and from when to when."""
        return {"path": self.path, "from": ms_text(self.since), "to": ms_text(self.until)}

    @property
    def text(self) -> str:
        """What it is, for people, behind the log's name."""
        if self.file == ANEW:
            return (
                "written anew by its server, with the last of each address: who had one only between"
                f" {ms_text(self.since)} and {ms_text(self.until)} is not in it (have it followed)"
            )
        return missing_text(self.fields())


def missing_text(gap: Mapping[str, str]) -> str:
    """What a gap (`Gap.fields`) is that can be mended, and how, for people, behind the log's name."""
    return (
        "rotated before it was read to its end: import the rotated file:"
        f" {gap['from']} to {gap['to']} is missing"
    )


@dataclass(slots=True)
class Changes:
    """Changes of one source that one transaction writes.

    Attributes:
        ended: rows of `assignments`, by `ended_row`.
        held: of `current`, added or replaced, by key and lane.
        gone: of `current`, not any more.
        rows: that were read.
        skipped: of them, not understood.
        position: how far the file is read then.
        anew: whether the file was begun from its beginning, so that what another with the same had is not in
            this one.
        after: rows of the source that were there when they were made; None for any.
        until: up to when the source has told all, in ms; None for now.
        gaps: those that are known of now.
        closed: ids of those that are not any more.
    """

    ended: list[tuple[Any, ...]] = field(default_factory=list)
    held: dict[tuple[Key, int], Held] = field(default_factory=dict)
    gone: set[tuple[Key, int]] = field(default_factory=set)
    rows: int = 0
    skipped: int = 0
    position: ReadingPosition | None = None
    anew: bool = False
    after: int | None = None
    until: int | None = None
    gaps: list[Gap] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)


class SourceChanged(Exception):
    """Somebody else has written to a source meanwhile: what it holds is to be looked at again."""


def ended_row(source: int, place: Place, first_port: int, held: Held) -> tuple[Any, ...]:
    """Row of `assignments` with a key of its content, so that what is read twice is stored once."""
    network, last_port, start, end, seen, ending, subscriber, session, first, moved, _ = held
    late = _late(start, first, moved)
    unsaid = -(-(end - seen) // SECOND) if ending == Ending.NEXT and 0 < seen < end else 0
    text = f"{network}\0{first_port}\0{last_port}\0{start}\0{end}\0{source}\0{session}\0{subscriber}"
    if late or ending != Ending.TOLD:
        text += f"\0{late}\0{unsaid}\0{int(ending)}"
    return (
        cell_of(start, end), place, _digest(text), network, first_port, last_port, start, end, int(ending),
        subscriber, session, source, late, unsaid,
    )  # fmt: skip


def beside(source: int, first_port: int, held: Held) -> int:
    """Lane of a row of what was said out of order, by what it is."""
    network, last_port, start, _, _, ending, subscriber, session, first, *_ = held
    text = f"{network}\0{first_port}\0{last_port}\0{start}\0{first}\0{source}\0{session}\0{subscriber}"
    return -1 - abs(_digest(f"{text}\0{int(ending)}" if ending in (Ending.OWN, Ending.RESTARTED) else text))


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest(), signed=True)


def _late(start: int, first: int, moved: bool) -> int:
    """As `assignments` has it: when something was first said."""
    late = -(-(first - start) // SECOND)
    return -max(late, 1) if moved else late


class AssignmentStore:
    """Store of assignments in a database.

    Every method raises AssignmentError where the database refuses.
    """

    def __init__(self, database: Path | str) -> None:
        """Open the database.

        Args:
            database: an SQLite file, or a ``postgresql://`` URL.

        Raises:
            AssignmentError: it cannot be opened.
        """
        self.database = database
        self.engine = open_engine(database)
        with told(database):
            self._files = SqliteFiles(database) if isinstance(database, Path) else None
        self._alone: Connection | None = None
        self._lengths: set[int] = set()
        self._partitions: set[Stretch] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """Transaction that may write; a part of that of `alone`."""
        with told(self.database):
            if self._alone is not None:
                with self._alone.begin_nested():
                    yield self._alone
                return
            with self.engine.begin() as connection:
                yield connection
            if self._files is not None and (reason := self._files.replaced(self.engine)):
                raise StoreError(f"{reason}; begin again")

    @contextmanager
    def alone(self, source: int) -> Iterator[None]:
        """Transaction in which nobody else writes to a source. What is read is as it was before, whatever is
        written in it.

        Args:
            source: its id.
        """
        with self.changing() as connection:
            _wait_for(connection, source)
            self._alone = connection
            try:
                yield
            finally:
                self._alone = None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read-only connection."""
        with told(self.database), self.engine.connect() as connection:
            yield connection

    def source(self, name: str, format_: str, path: str) -> SightingSource:
        """The source of a name, made where there is none.

        What the database has as its path stays until something of this one is taken (`write`).

        Raises:
            AssignmentError: there is one of that name with another format, or it is no name.
        """
        # A file's name need not be text, as what a database keeps has to be, nor one to show.
        name, path = plain(name), plain(path)
        if not 0 < len(name) <= MOST:
            raise AssignmentError(f"source: a name of 1 to {MOST} characters is needed")
        with self.changing() as connection:
            new = {"name": name, "format": format_, "path": path} | _NOTHING
            _begin(connection, sources, new)  # another may be about to do so, too
            is_empty = and_(sources.c.name == name, sources.c.rows == 0, sources.c.read == NOT_YET)
            connection.execute(update(sources).where(is_empty).values(format=format_))
            row = connection.execute(select(sources).where(sources.c.name == name)).one()
            if row.format != format_:
                raise AssignmentError(f"source {name!r} is of format {row.format}: give another --source")
            return SightingSource(row.id, name, format_, path, row.read)

    @contextmanager
    def importing(
        self,
        name: str,
        format_: str,
        path: str,
        keeper: KeepingNode | None = None,
        *,
        takes_over: bool = True,
    ) -> Iterator[SightingSource]:
        """The source of a name while something is read into it; one that nothing came of is gone afterwards.

        Args:
            name: of the source.
            format_: of what is read.
            path: of it.
            keeper: whose source it is then.
            takes_over: whether it may be another node's.

        Raises:
            AssignmentError: as `source`; it is another node's; or the database's role could never have
                deleted forgotten, or may make no partitions.
        """
        with self.reading() as connection:
            check_owner(connection)
            check_grant(connection, TABLES[1:])
        source = self.source(name, format_, path)
        if keeper is not None:
            with self.changing() as connection:
                mine = update(sources).where(sources.c.id == source.id)
                if not takes_over:
                    mine = mine.where(sources.c.node.in_(("", keeper.node)))
                claimed = connection.execute(mine.values(node=keeper.node, days=keeper.days)).rowcount
            if not claimed:
                # What one says of an address would end what the other does.
                raise AssignmentError(
                    f"source {name!r} is read by another node: give this one's another name with --source, "
                    f"or --source {name} where it is the same server's"
                )
        try:
            yield source
        finally:
            with suppress(AssignmentError), self.changing() as connection:  # what went wrong is said already
                known = select(formulas.c.source).where(formulas.c.source == source.id).exists()
                connection.execute(
                    delete(sources).where(sources.c.id == source.id, sources.c.read == 0, ~known)
                )

    def say_days(self, keeper: KeepingNode) -> None:
        """Set the days for which a node's sources are kept, and those of no node at least as long.

        Args:
            keeper: the node. A file is this machine's.
        """
        with self.changing() as connection:
            for source, days in _days(connection, keeper, is_file=isinstance(self.database, Path)).items():
                connection.execute(update(sources).where(sources.c.id == source).values(days=days))

    def days(self, keeper: KeepingNode) -> dict[int, int]:
        """Days of each source, by its id, once a node has set its own."""
        with self.reading() as connection:
            return _days(connection, keeper, is_file=isinstance(self.database, Path))

    def sources(self) -> dict[int, SightingSource]:
        """All sources, by id."""
        with self.reading() as connection:
            rows = connection.execute(select(sources)).all()
        return {row.id: SightingSource(row.id, row.name, row.format, row.path, row.read) for row in rows}

    def status(self) -> list[dict[str, Any]]:
        """Import status of each source, as JSON has it."""
        with self.reading() as connection:
            rows = connection.execute(select(sources).order_by(sources.c.name)).all()
            read = connection.execute(select(files).order_by(files.c.id)).all()
        missing = [gap for gap in self.gaps() if gap.file != ANEW]
        return [
            {
                "name": row.name,
                "format": row.format,
                "path": row.path,
                "rows": row.rows,
                "skipped": row.skipped,
                "read": ms_text(row.read) if row.read > NOT_YET else None,
                "files": [
                    {
                        "path": file.path,
                        "offset": file.offset,
                        "size": file.size,
                        "read": ms_text(file.read) if file.read else None,
                    }
                    for file in read
                    if file.source == row.id
                ],
                "missing": [gap.fields() for gap in missing if gap.source == row.id],
            }
            for row in rows
        ]

    def find(self, address: str, port: int | None, since: int, until: int) -> list[Interval]:
        """All intervals with an address, and a port where one is given, at some time of a span.

        Args:
            address: IPv4 or IPv6.
            port: or None for all.
            since: in ms, as is `until`, which is part of the span.

        Raises:
            ValueError: not an address.
        """
        with self.reading() as connection:
            return Lookup(connection, address, port, since, until).intervals()

    def deleted_before(self) -> int:
        """Time before which something that had ended is deleted, in ms; 0 for none."""
        with self.reading() as connection:
            return connection.scalar(select(func.max(sources.c.purged))) or 0

    def keeps(self, address: str, port: int | None, since: int, until: int) -> bool:
        """Whether whoever had an address, and a port of it, in a span of time (in ms) is held."""
        with self.reading() as connection:
            return is_held(connection, address, port, since, until)

    def held(self, source: int, wanted: Collection[Place] | Collection[str]) -> Iterator[tuple[Key, Held]]:
        """Rows of `current` for some places, or for some sessions, of all lanes."""
        listed: list[Any] = list(wanted)
        column = current.c.session if listed and isinstance(listed[0], str) else current.c.place
        with self.reading() as connection:
            for at in range(0, len(listed), _MANY):
                some = column.in_(listed[at : at + _MANY])
                for row in connection.execute(select(current).where(some, current.c.source == source)):
                    yield (row.place, row.first_port), _held(row)

    def followed(self, source: int, since: int) -> set[str]:
        """Sessions that another's beginning has ended after a time, in ms."""
        mine = and_(_from(since), assignments.c.source == source, assignments.c.ending == int(Ending.NEXT))
        with self.reading() as connection:
            return {*connection.scalars(select(assignments.c.session).where(mine).distinct())} - {""}

    def sessions(self, source: int, beginning: str) -> Iterator[tuple[Key, Held]]:
        """Rows of `current` for sessions whose name begins so, of all lanes."""
        mine = current.c.session.startswith(beginning, autoescape=True)
        with self.reading() as connection:
            for row in connection.execute(select(current).where(current.c.source == source, mine)).all():
                yield (row.place, row.first_port), _held(row)

    def write(self, source: SightingSource, changes: Changes, now: int) -> None:
        """Write what was read, and how far, all or nothing.

        Args:
            source: of it.
            changes: what is to be written.
            now: in ms.

        Raises:
            SourceChanged: another reader of the source has written to it; nothing of this is.
        """
        # In the index's order, a page is written once for all that go to it.
        changes.ended.sort()
        for left in reversed(range(_TRIES)):
            self._have_partitions(row[0] for row in changes.ended)
            try:
                with self.changing() as connection, meeting_others(GONE):
                    new = self._write(connection, source, changes, now)
            except PartitionInUse:
                self._partitions.clear()
                if not left:
                    raise AssignmentError("what is written is deleted all the time") from None
            else:
                self._lengths |= new
                return

    def _write(self, connection: Connection, source: SightingSource, changes: Changes, now: int) -> set[int]:
        """Write in a transaction; returns the prefix lengths that are new."""
        _wait_for(connection, source.id)
        file = 0
        if changes.position is not None:
            if changes.anew:
                _leave_file(connection, source.id, changes.position)
            file = _set_position(connection, source.id, changes.position, now)
        copy_new(connection, assignments, changes.ended)
        copy_or_replace(
            connection,
            current,
            [
                (
                    *key,
                    source.id,
                    *held[:5],
                    int(held[5]),
                    *held[6:8],
                    file,
                    now,
                    lane,
                    _late(held[2], held[8], held[9]),
                )
                for (key, lane), held in sorted(changes.held.items(), key=itemgetter(0))
            ],
        )
        if changes.gone:
            connection.execute(
                delete(current).where(
                    current.c.place == bindparam("p"),
                    current.c.first_port == bindparam("f"),
                    current.c.source == source.id,
                    current.c.lane == bindparam("l"),
                ),
                [{"p": place, "f": port, "l": lane} for (place, port), lane in changes.gone],
            )
        networks = [row[3] for row in changes.ended]
        networks += [held[0] for held in changes.held.values()]
        new = {length_of(network) for network in networks if "/" in network} - self._lengths
        insert_new(connection, lengths, [(length,) for length in new])
        if changes.closed:
            connection.execute(delete(gaps).where(gaps.c.id.in_(changes.closed)))
        for gap in changes.gaps:
            connection.execute(
                insert(gaps).values(
                    source=source.id, file=gap.file, path=gap.path, since=gap.since, until=gap.until
                )
            )
            # Nothing is missing of it twice, unless it is read on.
            connection.execute(update(files).where(files.c.id == gap.file).values(ended=1))
        _count(connection, source, changes, now)
        return new

    def doubt(self, gap: Gap) -> None:
        """Put in doubt, from the beginning of a gap in a file of leases on, all that has no end yet: what the
        file has still is renewed as that is read."""
        untold = map(int, (Ending.EXPIRY, Ending.RELEASED, Ending.NONE))
        mine = and_(current.c.source == gap.source, current.c.ending.in_(untold))
        seen = case((current.c.seen > gap.since, current.c.seen), else_=gap.since)
        is_back = current.c.ending == int(Ending.RELEASED)
        ending = case((is_back, int(Ending.GIVEN_BACK)), else_=int(Ending.MISSED))
        with self.changing() as connection:
            _wait_for(connection, gap.source)
            connection.execute(update(current).where(mine).values(ending=ending, seen=seen))

    def gaps(self, source: int | None = None) -> list[Gap]:
        """The gaps of a source, or of all, in order."""
        wanted = select(gaps).order_by(gaps.c.source, gaps.c.since, gaps.c.id)
        with self.reading() as connection:
            rows = connection.execute(wanted if source is None else wanted.where(gaps.c.source == source))
            return [Gap(row.source, row.path, row.since, row.until, row.file, row.id) for row in rows]

    def end_file(self, source: SightingSource, position: ReadingPosition) -> None:
        """Note that a file is read to its end, after another had its path."""
        with self.changing() as connection:
            connection.execute(update(files).where(_file_of(source.id, position)).values(ended=1))

    def rows(self, source: int) -> tuple[int, int]:
        """Rows that were read of a source, which grow as somebody writes to it; and before when what had
        ended is deleted, in ms, or 0."""
        with self.reading() as connection:
            row = connection.execute(select(sources).where(sources.c.id == source)).first()
        return (row.rows, row.purged) if row else (0, 0)

    def kept_from(self, source: int, now: int) -> int:
        """Time before which what has ended of a source is not kept, as its node has said, in ms; 0 for none.

        Args:
            source: its id.
            now: in ms.
        """
        with self.reading() as connection:
            days = connection.scalar(select(sources.c.days).where(sources.c.id == source))
        return now - days * DAY_MS if days else 0

    def _have_partitions(self, cells: Iterable[int]) -> None:
        """Have the partitions of some cells, in a transaction of their own, where there are partitions.

        Raises:
            AssignmentError: there would be too many.
        """
        if isinstance(self.database, Path):
            return
        wanted = partitions_of(cells)
        if wanted <= self._partitions:
            return
        with self.reading() as connection:
            self._partitions = {*stretches(connection)}
        new = sorted(wanted - self._partitions)
        if len(self._partitions) + len(new) > MOST_PARTITIONS:
            raise AssignmentError(
                "not imported: its times lie on so many days that there would be more than "
                f"{MOST_PARTITIONS} partitions: see that its times are read right, and delete what is old"
            )
        for at in range(0, len(new), PARTITIONS_AT_ONCE):
            self.locking(partial(make_partitions, wanted=new[at : at + PARTITIONS_AT_ONCE]))
        self._partitions |= wanted

    def locking[T](self, work: Callable[[Connection], T]) -> T:
        """Do something to partitions in a transaction (`urlward.assignments.schema.locking`)."""
        with told(self.database):
            return locking(self.engine.begin, work)

    def renew(
        self, source: SightingSource, position: ReadingPosition, now: int, until: int | None = None
    ) -> None:
        """Note that a file still has what was read of it, with all assignments of its that have no end.

        Args:
            source: the file's.
            position: of the file.
            now: in ms.
            until: as of `Changes`.
        """
        with self.changing() as connection:
            same = _file_of(source.id, position)
            known = update(files).where(same).values(read=now, path=position.path)
            if connection.execute(known).rowcount:  # else it is deleted by now
                read = _read(until, now)
                connection.execute(update(sources).where(sources.c.id == source.id).values(read=read))

    def looked(self, source: SightingSource, now: int, until: int | None = None) -> None:
        """Note that a source was read, and had nothing new. Of one that nothing came of yet it is not noted.

        Args:
            source: that was.
            now: in ms.
            until: as of `Changes`.
        """
        with self.changing() as connection:
            mine = and_(sources.c.id == source.id, sources.c.rows > 0)
            connection.execute(update(sources).where(mine).values(read=_read(until, now)))

    def renew_sessions(
        self, source: SightingSource, sessions: Collection[tuple[Key, str, str]], now: int
    ) -> None:
        """Note that a source still has sessions without an end.

        Args:
            source: theirs.
            sessions: the key, the session's name and the subscriber of each.
            now: in ms.
        """
        same = and_(
            current.c.place == bindparam("p"),
            current.c.first_port == bindparam("f"),
            current.c.source == source.id,
            current.c.session == bindparam("i"),
            current.c.subscriber == bindparam("s"),
            current.c.end == FOREVER,
        )
        rows = [{"p": key[0], "f": key[1], "i": session, "s": whose} for key, session, whose in sessions]
        with self.changing() as connection:
            _wait_for(connection, source.id)
            if rows:
                connection.execute(update(current).where(same).values(read=now), rows)
            connection.execute(update(sources).where(sources.c.id == source.id).values(read=now))

    def not_renewed(self, source: SightingSource, now: int) -> list[str]:
        """Sessions without an end that a source was not seen to have now.

        Args:
            source: theirs.
            now: in ms.
        """
        mine = and_(current.c.source == source.id, current.c.end == FOREVER, current.c.read < now)
        with self.reading() as connection:
            return [*connection.scalars(select(current.c.session).where(mine).distinct())]

    def positions(self, source: int) -> list[ReadingPosition]:
        """Reading positions of a source's files, those that are known by the longest beginning first."""
        order = (files.c.begin_size.desc(), files.c.offset.desc())
        with self.reading() as connection:
            rows = connection.execute(select(files).where(files.c.source == source).order_by(*order)).all()
        return [
            ReadingPosition(
                r.path,
                r.begin,
                r.begin_size,
                r.offset,
                r.before,
                r.size,
                r.read,
                r.first,
                r.last,
                r.ended,
                r.lane,
                r.id,
            )
            for r in rows
        ]


def _from(since: int) -> ColumnElement[bool]:
    """Rows of `assignments` that ended after a time, in ms."""
    cells = [
        assignments.c.cell.between(cells[0], (span + 1 << 40) - 1)
        for span, cells in enumerate(cells_at(since, since))
    ]
    return and_(or_(*cells), assignments.c.end > since)


def wait_for_all(connection: Connection) -> None:
    """Wait until nobody writes to any source, in a transaction, to whose end nobody does."""
    for source in connection.scalars(select(sources.c.id).order_by(sources.c.id)).all():
        _wait_for(connection, source)


def _wait_for(connection: Connection, source: int) -> None:
    """Wait until nobody else writes to a source, in a transaction, to whose end nobody does."""
    if connection.dialect.name == "sqlite":  # whoever has begun to write is the only one
        connection.execute(update(sources).where(sources.c.id == source).values(rows=sources.c.rows))
    else:
        # What is written in it may take longer to be found than the server waits for who says nothing.
        idle = "set_config('idle_in_transaction_session_timeout', '0', true)"
        connection.execute(
            text(f"SELECT pg_advisory_xact_lock(:lock, :source), {idle}"), {"lock": _LOCK, "source": source}
        )


def _held(row: Row[Any]) -> Held:
    return [
        row.network, row.last_port, row.start, row.end, row.seen, row.ending, row.subscriber, row.session,
        row.start + abs(row.late) * SECOND, row.late < 0, row.lane,
    ]  # fmt: skip


def _days(connection: Connection, keeper: KeepingNode, *, is_file: bool) -> dict[int, int]:
    found = {}
    for row in connection.execute(select(sources)).all():
        if is_file or row.node == keeper.node:
            found[row.id] = keeper.days
        else:
            found[row.id] = row.days if row.node else max(row.days, keeper.days)
    return found


def _count(connection: Connection, source: SightingSource, changes: Changes, now: int) -> None:
    values: dict[str, Any] = {
        "rows": sources.c.rows + changes.rows, "skipped": sources.c.skipped + changes.skipped,
        "read": _read(changes.until, now),
    }  # fmt: skip
    if changes.rows > changes.skipped:  # else nothing that is known comes from there
        values["path"] = source.path
    mine = and_(sources.c.id == source.id, sources.c.name == source.name)
    same = mine if changes.after is None else and_(mine, sources.c.rows == changes.after)
    if not connection.execute(update(sources).where(same).values(values)).rowcount:
        if connection.scalar(select(sources.c.id).where(mine)) is not None:
            raise SourceChanged
        # Another reader of the same source, which nothing came of, has taken it away.
        new = {"id": source.id, "name": source.name, "format": source.format, "path": source.path}
        counts = {"rows": changes.rows, "skipped": changes.skipped, "read": changes.until or now}
        connection.execute(insert(sources).values(new | _NOTHING | counts))


def _read(until: int | None, now: int) -> ColumnElement[int]:
    """Up to when a source is read: an older file that is read later takes nothing of it back."""
    until = now if until is None else until
    return case((sources.c.read.between(until, now), sources.c.read), else_=until)


def _file_of(source: int, position: ReadingPosition) -> ColumnElement[bool]:
    return and_(
        files.c.source == source, files.c.begin == position.begin, files.c.begin_size == position.begin_size
    )


def _leave_file(connection: Connection, source: int, position: ReadingPosition) -> None:
    """Detach assignments from another file with the same beginning: they count from when that was last
    there."""
    for row in connection.execute(select(files.c.id, files.c.read).where(_file_of(source, position))).all():
        mine = and_(current.c.source == source, current.c.file == row.id)
        connection.execute(update(current).where(mine).values(file=0, read=row.read))


def _begin(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row, unless it is there."""
    insert_new(connection, table, [tuple(row[one.name] for one in table.columns if one.name in row)])


def _set_position(connection: Connection, source: int, position: ReadingPosition, now: int) -> int:
    """Store how far a file is read; returns its id."""
    values = {
        "path": position.path, "offset": position.offset, "before": position.before, "size": position.size,
        "read": position.read or now, "first": position.first, "last": position.last, "ended": 0,
        "lane": position.lane,
    }  # fmt: skip
    same = _file_of(source, position)
    # A copy that was made earlier tells less than what has been read of the log itself.
    last = case((files.c.last > position.last, files.c.last), else_=position.last)
    if not connection.execute(update(files).where(same).values(values | {"last": last})).rowcount:
        new = {"source": source, "begin": position.begin, "begin_size": position.begin_size}
        _begin(connection, files, new | values)  # as another may meanwhile
    return int(connection.execute(select(files.c.id).where(same)).scalar_one())
