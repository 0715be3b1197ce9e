"""FreeRADIUS's ``radacct`` table (rlm_sql), in any database that SQLAlchemy has a driver for."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Row, Table, create_engine, inspect, or_, select
from sqlalchemy.exc import ArgumentError, SAWarning, SQLAlchemyError

from urlward.assignments.formats import RADACCT, ReadOptions, name_of, reason_of
from urlward.assignments.importing import KEPT_FAULTS, Imported, Judge
from urlward.assignments.interval import (
    LAST_PORT,
    AssignmentError,
    Moment,
    RowError,
    Sighting,
    SightingKind,
    SightingSource,
    back_of,
    held_from,
    held_until,
    moment_of,
    place_of,
)
from urlward.assignments.merging import Merger
from urlward.assignments.store import AssignmentStore, Changes, ReadingPosition, SourceChanged
from urlward.records import sql
from urlward.units import DAY_MS

_ADDRESSES = ("framedipaddress", "framedipv6address", "framedipv6prefix", "delegatedipv6prefix")
_NUMBER = "radacctid"
_TIMES = ("acctstarttime", "acctupdatetime", "acctstoptime")
_LASTED = "acctsessiontime"
_CAUSE = "acctterminatecause"
_NOT_TOLD = (None, "", "NAS-Reboot", "NAS reboot")
"""Of what FreeRADIUS ends as a server says that it is up again, and scripts as nothing was said for long."""
_OFF = 60_000
"""Milliseconds by which that may be off: a session's beginning may be told late."""
_MANY = 20_000
_SOME = 500
"""Sessions that are asked for by their names at once."""
_RENEW_AFTER = 3_600_000
"""Milliseconds after which it is noted anew which sessions the table still has without an end."""
_LATEST = DAY_MS
"""Milliseconds for which a session that another has followed is asked for: its own end may be told late."""
_AGAIN = 60_000
"""Rows are looked at again that changed up to so many ms before the last that was seen: what is written at
the same time need not be seen at the same time."""


def import_radacct(
    store: AssignmentStore,
    source: SightingSource,
    url: str,
    options: ReadOptions,
    now: float,
    judge: Judge = lambda _: "",
) -> Imported:
    """Read all sessions, or those that have changed since the last time.

    Args:
        store: where to.
        source: what they are of.
        url: of the database with the table, as SQLAlchemy has it.
        options: the column of the ``subscriber`` (``username``), and the zone of the times.
        now: seconds since 1970-01-01 UTC.
        judge: of all of it, before any of it is taken.

    Raises:
        AssignmentError: no such database or table, or the store refuses.
    """
    options.only("subscriber")
    result = Imported()
    known = next(iter(store.positions(source.id)), None)
    # An earlier urlward noted a time to come.
    result.resumed = result.offset = min(known.offset, int(now * 1000)) if known else 0
    result.last = known.last if known else 0
    since, last = max(0, result.resumed - _AGAIN), result.last
    looked = Imported(resumed=result.resumed, offset=result.resumed)
    for rows in _batches(url, options, since, last):
        _read(rows, options, looked)
        looked.rows += len(rows)
        looked.skipped = looked.faulty
    if reason := judge(looked):
        looked.refused = reason
        return looked
    _take(store, source, _batches(url, options, since, last), options, result, int(now * 1000))
    if result.rows:
        read = known.read if known is not None else 0
        # A session that a wrong clock says is to come keeps none before it from being read.
        offset = min(result.offset, int(now * 1000))
        position = ReadingPosition(source.path, RADACCT, 0, offset, "", offset, read, last=result.last)
        store.write(source, Changes(position=position), int(now * 1000))
    if known is not None:
        if not 0 <= int(now * 1000) - known.read < _RENEW_AFTER:
            _renew(store, source, url, options, known, result, int(now * 1000))
        elif not result.rows:
            store.looked(source, int(now * 1000))
    return result


def _take(
    store: AssignmentStore,
    source: SightingSource,
    batches: Iterable[Sequence[Row[Any]]],
    options: ReadOptions,
    result: Imported,
    now: int,
) -> None:
    """Take sessions in; how many is added to a result.

    How far they are read is noted afterwards: they are in order of their beginnings, not of their changes.
    """
    merger = Merger(store, source.id, source.format)
    for rows in batches:
        faulty = result.faulty
        sightings = _read(rows, options, result)
        while True:
            merger.take(sightings)
            merger.changes.rows = len(rows)
            merger.changes.skipped += result.faulty - faulty
            changes = merger.finished()
            try:
                store.write(source, changes, now)
            except SourceChanged:
                merger = Merger(store, source.id, source.format)
            else:
                break
        result.rows += changes.rows
        result.skipped += changes.skipped


def _renew(
    store: AssignmentStore,
    source: SightingSource,
    url: str,
    options: ReadOptions,
    known: ReadingPosition,
    result: Imported,
    now: int,
) -> None:
    """Renew the sessions that the table has without an end: they count from now, however long nothing was
    said of them.

    Others may have ended before what was read last: servers that had no answer tell of it later, also of what
    another has followed since.
    """
    for rows in _batches(url, options, still_open=True):
        sessions = [
            ((place, first), session, subscriber)
            for place, _, first, _, _, _, _, subscriber, session, _ in _read(rows, options, Imported())
        ]
        store.renew_sessions(source, sessions, now)
    left = sorted({*store.not_renewed(source, now), *store.followed(source.id, now - _LATEST)})
    for at in range(0, len(left), _SOME):
        some = _batches(url, options, ended=left[at : at + _SOME])
        _take(store, source, some, options, result, now)
    store.renew(source, known, now)


def _read(rows: Sequence[Row[Any]], options: ReadOptions, result: Imported) -> list[Sighting]:
    """Parse rows; faults, and how far the rows go, are added to a result."""
    sightings: list[Sighting] = []
    for number, row in enumerate(rows, result.rows + 1):
        result.last = max(result.last, getattr(row, _NUMBER, 0) or 0)  # a view's may lack some
        try:
            found, changed = _sightings(row, options)
        except ValueError as e:
            result.faulty += 1
            if len(result.faults) < KEPT_FAULTS:
                result.faults.append((number, reason_of(e)))
        else:
            sightings += found
            result.offset = max(result.offset, changed)
    return sightings


def shown_url(url: str) -> str:
    """A database's URL without its secrets.

    Raises:
        AssignmentError: it is none.
    """
    try:
        return sql.shown_url(url)
    except ArgumentError as e:
        raise AssignmentError("not a database's URL, such as postgresql+psycopg://user@host/radius") from e


def _batches(
    url: str,
    options: ReadOptions,
    since: int = 0,
    last: int = 0,
    *,
    still_open: bool = False,
    ended: Sequence[str] = (),
) -> Iterator[Sequence[Row[Any]]]:
    wanted = options.columns.get("subscriber", "username")
    try:
        engine = create_engine(url)
        try:
            with warnings.catch_warnings():
                # Of types that are none of SQLAlchemy's; the names alone are wanted.
                warnings.simplefilter("ignore", SAWarning)
                there = {one["name"]: one["type"] for one in inspect(engine).get_columns(RADACCT)}
            names = ["acctuniqueid", *_TIMES, _LASTED, _CAUSE, *_ADDRESSES]
            is_numbered = isinstance(there.get(_NUMBER), Integer)
            names += [_NUMBER] if is_numbered else []
            for name in (wanted, "acctuniqueid", *_TIMES):
                if name not in there:
                    raise AssignmentError(f"{shown_url(url)}: radacct has no column {name!r}")
            wanted_too = [name for name in dict.fromkeys([*names, wanted]) if name in there]
            table = Table(RADACCT, MetaData(), *map(Column, wanted_too))
            query = select(table).order_by(table.c.acctstarttime)
            if still_open:
                query = query.where(table.c.acctstoptime.is_(None))
            if ended:
                query = query.where(table.c.acctstoptime.is_not(None), table.c.acctuniqueid.in_(ended))
            if since:
                known = datetime.fromtimestamp(since / 1000, options.zone)
                after = known.replace(tzinfo=None)
                # What is written while a clock shows an hour again has times before what was seen.
                after -= back_of(after, options.zone)
                # FreeRADIUS writes numbers into SQLite, where text is greater than any number.
                least = since // 1000 if engine.dialect.name == "sqlite" else after
                # A time without its zone PostgreSQL takes for one of the database's.
                has_zone = {name: getattr(there[name], "timezone", False) for name in _TIMES}
                read = [table.c[name] >= (known if has_zone[name] else least) for name in _TIMES]
                # A server that had no answer, or whose clock is behind others', tells of times before.
                read += [table.c[_NUMBER] > last] if last and is_numbered else []
                query = query.where(or_(*read))
            columns = [column for column in table.c if column.name != wanted]
            query = query.with_only_columns(table.c[wanted].label("subscriber"), *columns)
            with engine.connect().execution_options(yield_per=_MANY) as connection:
                yield from connection.execute(query).partitions(_MANY)
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as e:
        reason = getattr(e, "orig", None) or e
        line = next(iter(str(reason).splitlines()), type(e).__name__)
        raise AssignmentError(f"{shown_url(url)}: {sql.without_secrets(line, url)}") from e


def _sightings(row: Row[Any], options: ReadOptions) -> tuple[list[Sighting], int]:
    if not row.acctstarttime or not row.subscriber:
        raise RowError("no subscriber, or no beginning")
    start = moment_of(row.acctstarttime, options.zone)
    stop = moment_of(row.acctstoptime, options.zone) if row.acctstoptime else None
    seen = moment_of(row.acctupdatetime, options.zone) if row.acctupdatetime else start
    changed = max(start.last, seen.last, stop.last if stop else 0)
    # FreeRADIUS's queries for MySQL update also what another's restart or a script has ended too early, and
    # what is over, where that is told late: how long it lasts by then says which.
    if stop and start.first <= stop.first < seen.first:
        lasts = start.last + int(getattr(row, _LASTED, None) or 0) * 1000
        stop = stop if lasts <= stop.last + _OFF else None
    if stop and getattr(row, _CAUSE, _CAUSE) in _NOT_TOLD and seen.last < stop.last:
        stop = Moment(seen.last, stop.last)  # it may have ended since then
    subscriber, session = name_of(str(row.subscriber)), name_of(str(row.acctuniqueid or ""))
    found: list[Sighting] = []
    for name in _ADDRESSES:
        # PostgreSQL's type inet comes as an object of its own.
        address = str(getattr(row, name, None) or "")
        if address:
            what = (*place_of(address), 0, LAST_PORT)
            if stop:
                found += held_until(what, start, stop, subscriber, session)
            else:
                found += held_from(what, start, subscriber, session, changed)
    if stop and session and not found:
        # FreeRADIUS empties what an end does not name, and it has to name nothing but the session.
        ended = start.last if start else 0, stop.last, stop.first
        found.append((0, "", 0, LAST_PORT, *ended, subscriber, session, int(SightingKind.STOPPED)))
    return found, changed
