"""Migration of a database's tables to this program's version."""

from collections.abc import Callable, Sequence

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import ProgrammingError

from urlward.records.engines import reading
from urlward.records.store import StoreError

type Step = Callable[[Connection], object]
"""Makes or changes tables."""

_versions = Table(
    "urlward_versions",
    MetaData(),
    Column("part", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
)

_NOT_ALLOWED = "42501"
"""PostgreSQL's code of a lack of privileges."""

_LOCK = 0x75726C77617264
"""PostgreSQL's number of the lock by which one program at a time changes tables: ``urlward``."""


def migrate(
    engine: Engine, part: str, create: Step, upgrades: Sequence[Step] = (), *, first: str = ""
) -> None:
    """Make the tables of a part where they are not there yet, or bring them to the last version; all or
    nothing. Where they are of the last version nothing is locked.

    Args:
        engine: whose transactions are for writing (`urlward.records.engines.writing`).
        part: whose tables they are.
        create: makes the tables of the last version in a database without them.
        upgrades: the first makes version 2 of version 1, and so on; one that has been released is never
            changed.
        first: a table that version 1 has; where it is there and nothing says the version, it is that.

    Raises:
        StoreError: the tables are of a later version, or the role may not change them.
        SQLAlchemyError: a step fails.
    """
    last = 1 + len(upgrades)
    with reading(engine).connect() as connection:
        version = _version(connection, part, first)
    if version == last:
        return
    if version is not None and version > last:
        raise _later(part, version, last)
    try:
        _change(engine, part, create, upgrades, first)
    except ProgrammingError as e:
        if getattr(e.orig, "sqlstate", "") != _NOT_ALLOWED:
            raise
        what = f"are of version {version}, and {last} is needed" if version else "are not there yet"
        raise StoreError(
            f"its {part} {what}, which its role may not make: open it once with the role of their owner"
        ) from e


def _version(connection: Connection, part: str, first: str) -> int | None:
    """Version of a part's tables; None where they are not there."""
    tables = inspect(connection)
    version: int | None = None
    if tables.has_table(_versions.name):
        version = connection.execute(select(_versions.c.version).where(_versions.c.part == part)).scalar()
    return 1 if version is None and first and tables.has_table(first) else version


def _later(part: str, version: int, last: int) -> StoreError:
    return StoreError(
        f"its {part} are of version {version}, made by a later urlward, and this one knows up to "
        f"{last}: use the later one"
    )


def _change(engine: Engine, part: str, create: Step, upgrades: Sequence[Step], first: str) -> None:
    last = 1 + len(upgrades)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _versions.create(connection, checkfirst=True)
        version = _version(connection, part, first)
        if version is None:
            create(connection)
        elif version > last:
            raise _later(part, version, last)
        elif version < last:
            for step in upgrades[version - 1 :]:
                step(connection)
        else:
            return
        connection.execute(delete(_versions).where(_versions.c.part == part))
        connection.execute(insert(_versions).values(part=part, version=last))
