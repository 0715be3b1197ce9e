"""FreeRADIUS's ``radacct`` table (rlm_sql), in any database that SQLAlchemy has a driver for."""

import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, MetaData, Row, Table, create_engine, inspect, or_, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SAWarning, SQLAlchemyError

from urlward.records.assignments.formats import RADACCT
from urlward.records.assignments.importing import Imported
from urlward.records.assignments.interval import (
    FOREVER,
    LAST_PORT,
    AssignmentError,
    Said,
    Sighting,
    Source,
    place_of,
)
from urlward.records.assignments.merging import Merger
from urlward.records.assignments.parsers import ReadOptions, name_of
from urlward.records.assignments.store import AssignmentStore, Position
from urlward.records.assignments.times import to_ms

_ADDRESSES = ("framedipaddress", "framedipv6address", "framedipv6prefix", "delegatedipv6prefix")
_TIMES = ("acctstarttime", "acctupdatetime", "acctstoptime")
_MANY = 20_000
_AGAIN = 60_000
"""Rows are looked at again that changed up to so many ms before the last that was seen: what is written at
the same time need not be seen at the same time."""


def import_radacct(
    store: AssignmentStore, source: Source, url: str, options: ReadOptions, now: float
) -> Imported:
    """Read all sessions, or those that have changed since the last time.

    Args:
        store: where to.
        source: what they are of.
        url: of the database with the table, as SQLAlchemy has it.
        options: the column of the ``subscriber`` (``username``), and the zone of the times.
        now: seconds since 1970-01-01 UTC.

    Raises:
        AssignmentError: no such database or table, or the store refuses.
    """
    options.only("subscriber")
    result = Imported()
    merger = Merger(store, source.id)
    known = next(iter(store.positions(source.id)), None)
    result.resumed = result.offset = known.offset if known else 0
    for rows in _batches(url, options, max(0, result.resumed - _AGAIN)):
        sightings: list[Sighting] = []
        skipped = 0
        for row in rows:
            try:
                found, changed = _sightings(row, options)
            except ValueError:
                skipped += 1
            else:
                sightings += found
                result.offset = max(result.offset, changed)
        merger.take(sightings)
        changes = merger.finished()
        changes.rows, changes.skipped = len(rows), changes.skipped + skipped
        result.rows += changes.rows
        result.skipped += changes.skipped
        # Only the last batch says how far: they are in order of their beginnings, not of their changes.
        store.write(source, changes, int(now * 1000))
    if result.rows:
        merger.changes.position = Position(source.path, RADACCT, 0, result.offset, "", result.offset)
        store.write(source, merger.finished(), int(now * 1000))
    return result


def shown_url(url: str) -> str:
    """A database's URL without its password.

    Raises:
        AssignmentError: it is none.
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError as e:
        raise AssignmentError("not a database's URL, such as postgresql+psycopg://user@host/radius") from e


def _batches(url: str, options: ReadOptions, since: int) -> Iterator[Sequence[Row[Any]]]:
    wanted = options.columns.get("subscriber", "username")
    try:
        engine = create_engine(url)
        try:
            with warnings.catch_warnings():
                # Of types that are none of SQLAlchemy's; the names alone are wanted.
                warnings.simplefilter("ignore", SAWarning)
                there = {column["name"] for column in inspect(engine).get_columns(RADACCT)}
            names = ["acctuniqueid", *_TIMES, *_ADDRESSES]
            for name in (wanted, "acctuniqueid", *_TIMES):
                if name not in there:
                    raise AssignmentError(f"{shown_url(url)}: radacct has no column {name!r}")
            wanted_too = [name for name in dict.fromkeys([*names, wanted]) if name in there]
            table = Table(RADACCT, MetaData(), *map(Column, wanted_too))
            query = select(table).order_by(table.c.acctstarttime)
            if since:
                after = datetime.fromtimestamp(since / 1000, options.zone).replace(tzinfo=None)
                # FreeRADIUS writes numbers into SQLite, where text is greater than any number.
                least = since // 1000 if engine.dialect.name == "sqlite" else after
                query = query.where(or_(*(table.c[name] >= least for name in _TIMES)))
            columns = [column for column in table.c if column.name != wanted]
            query = query.with_only_columns(table.c[wanted].label("subscriber"), *columns)
            with engine.connect().execution_options(yield_per=_MANY) as connection:
                yield from connection.execute(query).partitions(_MANY)
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as e:
        reason = getattr(e, "orig", None) or e
        line = next(iter(str(reason).splitlines()), type(e).__name__)
        raise AssignmentError(f"{shown_url(url)}: {line}") from e


def _sightings(row: Row[Any], options: ReadOptions) -> tuple[list[Sighting], int]:
    if not row.acctstarttime or not row.subscriber:
        raise ValueError("nobody's, or no beginning")
    start = to_ms(row.acctstarttime, options.zone)
    stop = to_ms(row.acctstoptime, options.zone) if row.acctstoptime else 0
    seen = to_ms(row.acctupdatetime, options.zone) if row.acctupdatetime else start
    changed = max(start, stop, seen)
    said, end = (Said.ENDED, stop) if stop else (Said.HELD, FOREVER)
    subscriber, session = name_of(str(row.subscriber)), name_of(str(row.acctuniqueid))
    found: list[Sighting] = []
    for name in _ADDRESSES:
        # PostgreSQL's type inet comes as an object of its own.
        address = str(getattr(row, name, None) or "")
        if address:
            place, network = place_of(address.removesuffix("/32"))
            found.append((place, network, 0, LAST_PORT, start, end, changed, subscriber, session, int(said)))
    return found, changed
