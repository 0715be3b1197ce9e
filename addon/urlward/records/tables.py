"""The tables of a database that keeps events: those below, in this version."""

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, MetaData, String, Table, Text

from urlward.records.migrations import Step

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

holds = Table(
    "holds",
    metadata,
    Column("reference", String(100), primary_key=True),
    Column("until", BigInteger, nullable=False),
)
"""References whose events no node that writes here deletes before a time (milliseconds)."""


def create(connection: Connection) -> None:
    """Make the tables of this version."""
    metadata.create_all(connection, checkfirst=False)


UPGRADES: tuple[Step, ...] = ()
"""From version 1 on, for databases made by earlier versions (`urlward.records.migrations`). Whoever changes
the table adds one here, and a database of the version before to the tests."""
