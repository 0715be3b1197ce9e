"""Tables of the event database, in this version."""

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, MetaData, String, Table, Text, text

from urlward.records.migrations import Step
from urlward.records.vacuum import unwiped

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
(`urlward.records.nodes`); empty for a node of version 2 that has not been heard of since. ``days``: for how
many days the node's events are kept, by kind as JSON, as that node says: all who delete go by it; empty where
it has not said it. ``seen``: when it was last heard of, in milliseconds."""


def create(connection: Connection) -> None:
    """Make the tables of this version."""
    metadata.create_all(connection, checkfirst=False)
    unwiped.create(connection, checkfirst=True)


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
    """Upgrade to version 3: names belong to a node with an identity, which has days for all of its names."""
    for statement in (
        "CREATE TABLE nodes (name VARCHAR(255) NOT NULL, identity VARCHAR(32) NOT NULL, days TEXT NOT NULL,"
        " seen BIGINT NOT NULL, PRIMARY KEY (name))",
        "INSERT INTO nodes SELECT node, '', days, 0 FROM retention",
        "DROP TABLE retention",
    ):
        connection.execute(text(statement))


UPGRADES: tuple[Step, ...] = (_to_2, _to_3)
"""From version 1 on, for databases made by earlier versions (`urlward.records.migrations`). Whoever changes
the table adds one here, and a database of the version before to the tests."""
