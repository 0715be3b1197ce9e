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
"""Makes one version of the one before."""

_versions = Table(
    "urlward_versions",
    MetaData(),
    Column("part", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
)

_LOCK = 0x75726C77617264
"""PostgreSQL's number of the lock by which one program at a time changes tables: ``urlward``."""


def migrate(engine: Engine, part: str, steps: Sequence[Step]) -> None:
    """Take the steps that a database has not taken yet, all or none.

    Args:
        engine: whose transactions are for writing.
        part: whose tables they are.
        steps: the first makes version 1 of a database without these tables.

    Raises:
        StoreError: its tables are of a later version.
        SQLAlchemyError: a step fails.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _versions.create(connection, checkfirst=True)
        of_part = _versions.c.part == part
        version = connection.execute(select(_versions.c.version).where(of_part)).scalar()
        if version is not None and version > len(steps):
            raise StoreError(
                f"its {part} are of version {version}, made by a later urlward; this one knows up to "
                f"{len(steps)}: use the later one"
            )
        for step in steps[version or 0 :]:
            step(connection)
        if version is None:
            connection.execute(insert(_versions).values(part=part, version=len(steps)))
        elif version < len(steps):
            connection.execute(update(_versions).where(of_part).values(version=len(steps)))
