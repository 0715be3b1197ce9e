"""Brings the tables of a database to the version that this program has."""

from collections.abc import Callable, Sequence

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    insert,
    select,
    text,
    update,
)

from urlward.records.store import StoreError

type Step = Callable[[Connection], object]
"""Makes or changes tables."""

_versions = Table(
    "urlward_versions",
    MetaData(),
    Column("part", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
)

_LOCK = 0x75726C77617264
"""PostgreSQL's number of the lock by which one program at a time changes tables: ``urlward``."""


def migrate(engine: Engine, part: str, create: Step, upgrades: Sequence[Step] = ()) -> None:
    """Make the tables of a part where they are not there yet, or bring them to the last version; all or
    nothing.

    Args:
        engine: whose transactions are for writing (`urlward.records.engines.writing`).
        part: whose tables they are.
        create: makes the tables of the last version in a database without them.
        upgrades: the first makes version 2 of version 1, and so on; one that has been released is never
            changed.

    Raises:
        StoreError: the tables are of a later version.
        SQLAlchemyError: a step fails.
    """
    last = 1 + len(upgrades)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _versions.create(connection, checkfirst=True)
        of_part = _versions.c.part == part
        version = connection.execute(select(_versions.c.version).where(of_part)).scalar()
        if version is None:
            create(connection)
            connection.execute(insert(_versions).values(part=part, version=last))
        elif version > last:
            raise StoreError(
                f"its {part} are of version {version}, made by a later urlward, and this one knows up to "
                f"{last}: use the later one"
            )
        elif version < last:
            for step in upgrades[version - 1 :]:
                step(connection)
            connection.execute(update(_versions).where(of_part).values(version=last))
