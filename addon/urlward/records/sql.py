"""SQL databases of records: SQLAlchemy engines for SQLite and PostgreSQL, migration of their tables, bulk
inserts, and removal of deleted rows from the files.

What is deleted stays in the files of a table of PostgreSQL until it is rewritten (``VACUUM FULL``): a plain
``VACUUM`` gives its space back for use, and leaves the bytes in it. Rewriting is for the table's owner, whom
everybody is who has the owner's role, and from version 17 on for who was granted ``MAINTAIN``; of others the
server says no more than a warning. That something waits to be rewritten stands in a table, so that neither a
process that ends nor a rewriting that fails has it forgotten.
"""

import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from urlward.config.records import StoreTable
from urlward.records.sqlite import PRAGMAS, files_of, make_sqlite, write_anew
from urlward.records.store import StoreError, identity
from urlward.regular import open_given, without_bom
from urlward.state.folder import StateError, made_folder

if TYPE_CHECKING:
    from psycopg.errors import Diagnostic

logger = logging.getLogger("urlward.records")

WAIT = 10.0
"""Seconds that a write waits for another's end, or for a server's answer."""

PAUSE = 0.02
"""Seconds between two steps of a long work, in which a writer's turn comes."""

TRIES = 100

_WRITING = "urlward_writing"
_MOST_OF_A_URL = 1 << 13
_SHOWN = frozenset(
    {
        "host", "hostaddr", "port", "user", "dbname", "charset", "service", "connect_timeout",
        "application_name", "target_session_attrs", "sslmode", "sslrootcert", "sslcert", "sslkey", "passfile",
    }
)  # fmt: skip
"""What may be said of a database URL's query."""

type Step = Callable[[Connection], object]
"""Makes or changes tables."""

_versions = Table(
    "urlward_versions",
    MetaData(),
    Column("part", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
)

_NOT_ALLOWED, _READ_ONLY = "42501", "25006"
"""PostgreSQL's codes of a lack of privileges, and of a transaction that writes where that may not be."""

_ENCODINGS = ("UTF8", "SQL_ASCII")
"""PostgreSQL's encodings that take any text; the second is that of a server made without a locale."""

_LOCK = 0x75726C77617264
"""PostgreSQL's number of the lock by which one program at a time changes tables: ``urlward``."""

_MAINTAIN = 170_000
"""The version of the server that has that privilege."""

_LOCK_WITHIN = "2s"
"""Time that a rewrite waits for readers of the table; writers wait behind it."""

SHARE = 0.01
"""Share of the time in which a file or table may be rewritten: for large ones that is not at each purge."""

_TRIES = 30
_PAUSE = 1.0
_NUMBER = re.compile(r"\s*(\d+)")

WAITS = 2.0
"""Seconds after which it is said that a transaction waits for a lock."""

_HOLDERS = text(
    "SELECT concat_ws(' ', 'process', holder, a.usename, nullif(a.application_name, ''), a.state, 'since',"
    " date_trunc('second', a.xact_start)) FROM unnest(pg_blocking_pids(:process)) AS holder"
    " LEFT JOIN pg_stat_activity a ON a.pid = holder ORDER BY holder"
)
"""Whose locks a server's process waits for; of other roles the server may tell no more than the name."""

unwiped = Table(
    "urlward_unwiped",
    MetaData(),
    Column("part", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""Parts with something deleted that is in the server's files still: ``count`` goes up with each deletion, and
is odd then. Where all is rewritten it is the next even number: one that has been is never again."""

CLEAN = {"events": 0, "assignments": 2}
"""``user_version`` of an SQLite file in which nothing has been deleted, by its part; it goes up as that count
does. Assignments of an urlward that wrote no file anew have 0."""


def open_sqlite(path: Path) -> Engine:
    """Open an SQLite file, made for its owner alone where it is not there.

    What is committed is on the disk, and what is deleted is overwritten (`PRAGMAS`, `wipe_sqlite`).

    Raises:
        StateError: it cannot be made.
        sqlite3.Error: likewise.
    """
    made_folder(path.parent)
    make_sqlite(path)
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": WAIT})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: object) -> None:
        # The driver's own transactions leave out changes of tables; "begin" below begins them all.
        connection.isolation_level = None
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that becomes a writer only later fails at once where another has written meanwhile.
        writing = connection.get_execution_options().get(_WRITING)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


class SqliteFiles:
    """Files of an SQLite database (`files_of`) as they are when it has just been opened.

    SQLite goes on writing to files that were deleted or moved, without an error, and nobody else sees what it
    writes. While one connection is open SQLite itself removes none of them.

    Args:
        path: of the database.

    Raises:
        OSError: they cannot be looked at.
    """

    def __init__(self, path: Path) -> None:
        self._paths = files_of(path)
        self._opened = identity(*self._paths)

    def replaced(self, engine: Engine) -> str:
        """Why the files are not the same any more; empty where they are.

        Args:
            engine: that has them open.

        Raises:
            OSError: they cannot be looked at.
        """
        present = identity(*self._paths)
        if present == self._opened:
            return ""
        # What is in the log alone goes into the database, which may have been moved, or still be there.
        with suppress(SQLAlchemyError, sqlite3.Error), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        what = "the write-ahead log" if present[0] == self._opened[0] else "the file"
        return f"{what} was deleted, moved or replaced while it was open"


def open_postgresql(table: StoreTable, environment: Mapping[str, str] = os.environ) -> Engine:
    """Open a database of a PostgreSQL server.

    Raises:
        StoreError: the URL cannot be had, or is none; or the driver is not installed.
    """
    return open_server(*url_of(table, environment))


def open_server(url: str, where: str) -> Engine:
    """Open a PostgreSQL database by its URL.

    Args:
        url: ``postgresql://…``.
        where: it is from, for messages.

    Raises:
        StoreError: it is none; or the driver is not installed.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError as e:
        raise StoreError(
            f"PostgreSQL needs the extra `postgresql`: urlward help install ({e.name or e} is not there)"
        ) from e
    # With each statement of many rows that fails, it says the error again, as one of its own insides.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(f"{where}: not a postgresql:// URL") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres") or not parsed.database:
        raise StoreError(f"{where}: not a postgresql:// URL with a database's name")
    patience = {"connect_timeout": str(int(WAIT)), "tcp_user_timeout": str(int(WAIT * 1000))}
    # A server that is gone after it has taken a question: nothing is sent, so that only these find out.
    patience |= {"keepalives_idle": str(int(WAIT)), "keepalives_interval": "2", "keepalives_count": "5"}
    # Whatever the database's own is: the driver would give bytes for text, or refuse what a name has.
    query = {**patience, **parsed.query, "client_encoding": "utf8"}
    parsed = parsed.set(drivername="postgresql+psycopg").set(query=query)
    # Nor is a transaction to fail because another has written, as the database's own default may have it.
    level = "READ COMMITTED"
    engine = create_engine(parsed, pool_pre_ping=True, hide_parameters=True, isolation_level=level)

    @event.listens_for(engine, "handle_error")
    def leave(context: ExceptionContext) -> None:
        # After a failover a server may go on as a standby, whose connections answer: new ones find the other.
        if getattr(context.original_exception, "sqlstate", "") == _READ_ONLY:
            context.is_disconnect = True

    @event.listens_for(engine, "connect")
    def see_all(connection: Any, record: ConnectionPoolEntry) -> None:
        # Where a policy would hide rows there is an error, and not an answer without them.
        connection.execute("SET row_security = off")
        # PgBouncer tells the driver another number.
        record.info["process"] = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        connection.commit()

    _tell_of_waiting(engine)
    return engine


def _tell_of_waiting(engine: Engine) -> None:
    """Have it said, once a transaction, that it waits for another's lock, and whose: it does so in silence,
    for as long as that takes."""
    server = create_engine(engine.url, poolclass=NullPool, hide_parameters=True)
    place = f"postgresql {engine.url.host or ''}/{engine.url.database}"
    guard = threading.RLock()  # the collector may give a connection back meanwhile
    begun: dict[int, float] = {}
    """When the transactions began of which nothing is said yet, by the server's processes."""
    is_watched = False

    def watch() -> None:
        nonlocal is_watched
        while True:
            time.sleep(WAITS)
            with guard:
                # Without transactions there is no thread.
                is_watched = bool(begun)
                if not is_watched:
                    return
                long = [one for one in begun.items() if time.monotonic() - one[1] >= WAITS]
            # Whoever cannot ask that, such as where there are too many connections, waits all the same.
            with suppress(SQLAlchemyError, RuntimeError):
                tell(long)

    def tell(long: Sequence[tuple[int, float]]) -> None:
        for process, since in long:
            with server.connect() as connection:
                holders = [*connection.scalars(_HOLDERS, {"process": process})]
            with guard:
                is_so = bool(holders) and begun.get(process) == since
                if is_so:
                    del begun[process]
            if is_so:
                logger.warning("%s: waits for a lock of %s", place, ", ".join(holders))

    @event.listens_for(engine, "checkout")
    def begin(_: object, record: ConnectionPoolEntry, __: object) -> None:
        nonlocal is_watched
        with guard:
            begun[record.info["process"]] = time.monotonic()
            # Without a thread for it, it is not said.
            if not is_watched:
                with suppress(RuntimeError):
                    threading.Thread(target=watch, name="waiting", daemon=True).start()
                    is_watched = True

    @event.listens_for(engine, "checkin")
    def end(_: object, record: ConnectionPoolEntry) -> None:
        with guard:
            begun.pop(record.info.get("process", 0), None)

    @event.listens_for(engine, "invalidate")
    def give_up(_: object, record: ConnectionPoolEntry, __: object) -> None:
        end(None, record)


def shown_url(url: str) -> str:
    """A database's URL for people and logs: of its query only what is known to be no secret is shown, since
    libpq takes passwords there too.

    Raises:
        ArgumentError: it is none.
    """
    parsed = make_url(url)
    query = {key: value if key in _SHOWN else "***" for key, value in parsed.query.items()}
    return parsed.set(query=query).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def without_secrets(text: str, url: str) -> str:
    """Text of a driver's error, without the parts of the URL that `shown_url` hides."""
    parsed = make_url(url)
    hidden = [parsed.password or ""]
    for key, value in parsed.query.items():
        hidden += [] if key in _SHOWN else [value] if isinstance(value, str) else value
    for each in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(each, "***")
    return text


def url_of(table: StoreTable, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """URL of a server's database, and the setting that it is from.

    Raises:
        StoreError: it cannot be had.
    """
    if table.url_env is not None:
        if not (found := environment.get(table.url_env, "").strip()):
            raise StoreError(f"url_env: {table.url_env} is not in the environment")
        return found, table.url_env
    assert table.url_file is not None
    return url_in(Path(table.url_file)), table.url_file


def url_in(file: Path) -> str:
    """The URL of a database that a file holds: a password is in it, which a command line would show to all.

    Raises:
        StoreError: it cannot be read, or has more in it.
    """
    try:
        with open_given(file) as opened:
            text = without_bom(opened.read(_MOST_OF_A_URL + 1)).decode()
    except (OSError, UnicodeDecodeError) as e:
        raise StoreError(f"{file}: {getattr(e, 'strerror', None) or 'not text'}") from e
    if len(text) > _MOST_OF_A_URL:
        raise StoreError(f"{file}: too large for a database's URL")
    return text.strip()


def writing(engine: Engine) -> Engine:
    """The engine for transactions that write."""
    return engine.execution_options(**{_WRITING: True})


def reading(engine: Engine) -> Engine:
    """The engine for transactions that only read."""
    return engine.execution_options(**{_WRITING: False})


def wipe_sqlite(engine: Engine, pause: Callable[[float], None], *, rewrite: bool) -> None:
    """Wipe what has been deleted from an SQLite file.

    What is deleted is overwritten where it stands, but of one in a thousand a copy remains that was made
    when SQLite moved it to another page. Only rewriting the file takes that away, during which nobody else
    writes. The write-ahead log has pages as they were before, and is emptied.

    Args:
        engine: to connect with.
        pause: waits that many seconds.
        rewrite: whether the file is rewritten, which needs its size on the disk twice again.

    Raises:
        StoreError: readers were in the way all the time.
        sqlite3.Error: it cannot be done.
    """
    # Were it the last to close, SQLite would remove the log, and `SqliteFiles` take that for somebody else's.
    with engine.connect():
        connection = engine.raw_connection()

        def run(statement: str) -> list[tuple[int, ...]]:
            return list(connection.cursor().execute(statement))

        try:
            if rewrite:
                assert isinstance(connection.driver_connection, sqlite3.Connection)
                write_anew(connection.driver_connection)
            # Writers wait while this waits for readers, so it is to give up soon.
            run("PRAGMA busy_timeout = 20")
            for _ in range(TRIES):
                if not run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]:
                    return
                pause(PAUSE * 5)
        finally:
            connection.invalidate()  # with what was set here alone
    raise StoreError("what was deleted is still in the write-ahead log, since somebody reads all the time")


@contextmanager
def told(name: str) -> Iterator[None]:
    """Describe a database error in one line, without the data that was to be written.

    Raises:
        StoreError: it did.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as e:
        cause: object = getattr(e, "orig", None) or (e if isinstance(e, sqlite3.Error) else type(e).__name__)
        reason = next(
            (line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__
        )
        raise StoreError(f"{name}: {reason}") from e
    except StoreError as e:
        raise StoreError(f"{name}: {e}") from e
    except OSError as e:
        raise StoreError(f"{e.filename or name}: {e.strerror or e}") from e
    except StateError as e:
        raise StoreError(str(e)) from e


def migrate(
    engine: Engine, part: str, create: Step, upgrades: Sequence[Step] = (), *, first: str = ""
) -> None:
    """Make the tables of a part where they are not there yet, or bring them to the last version; all or
    nothing. Where they are of the last version nothing is locked.

    Args:
        engine: whose transactions are for writing (`writing`).
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


def has_part(connection: Connection, part: str) -> bool:
    """Whether a part's tables are there."""
    return _version(connection, part, "") is not None


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
            _check_encoding(connection)
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


def _check_encoding(connection: Connection) -> None:
    """Check that a new database takes any text: one event that it cannot write would keep all others waiting.

    Raises:
        StoreError: it does not.
    """
    if connection.dialect.name == "postgresql":
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
        if encoding not in _ENCODINGS:
            raise StoreError(f"a database with the encoding UTF8 is needed, and this one has {encoding}")


def keep_no_samples(connection: Connection, *columns: Column[Any]) -> None:
    """Have a PostgreSQL server keep no statistics of columns of text that name persons, and drop what it has.

    What ``ANALYZE`` samples of a table, some hundred values of each column, stays in the server's own tables
    when the rows are deleted, and is in their files for longer (``pg_statistic``).
    """
    if connection.dialect.name != "postgresql":
        return
    for column in columns:
        change = f'ALTER TABLE {column.table.name} ALTER COLUMN "{column.name}"'
        # A change of its type, to the same one too, drops the statistics, and rewrites nothing.
        connection.execute(text(f'{change} TYPE TEXT, ALTER COLUMN "{column.name}" SET STATISTICS 0'))


class Pace:
    """Pace of rewrites: no more than `SHARE` of the time goes into them, whether they succeed or not, since
    one that does not locks tables for just as long.

    Attributes:
        after: the time of `time.monotonic` before which it may not.
    """

    def __init__(self) -> None:
        self.after = 0.0

    def is_due(self) -> bool:
        """Whether a rewrite is due."""
        return time.monotonic() >= self.after

    @contextmanager
    def rewriting(self) -> Iterator[None]:
        """Context of a rewrite, which measures its time."""
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self.after = end + (end - start) / SHARE


def note_deleted(connection: Connection, part: str) -> None:
    """Note in a transaction that it deletes something of a part."""
    if connection.dialect.name == "sqlite":
        _set_version(connection, max(_version_of(connection), CLEAN[part]) + 1 | 1)
        return
    connection.execute(
        text(
            # The first is none that a part of the same name had before, which is gone with its count.
            "INSERT INTO urlward_unwiped VALUES"
            " (:part, (extract(epoch FROM clock_timestamp()) * 1000)::bigint * 2 + 1) ON CONFLICT (part)"
            " DO UPDATE SET count = urlward_unwiped.count + 1 + urlward_unwiped.count % 2"
        ),
        {"part": part},
    )


def deletions(connection: Connection, part: str) -> int | None:
    """Count to give to `note_wiped`; None where nothing waits to be rewritten."""
    if connection.dialect.name == "sqlite":
        count = _version_of(connection)
        return count if count % 2 or count < CLEAN[part] else None
    wanted = select(unwiped.c.count).where(unwiped.c.part == part, unwiped.c.count % 2 == 1)
    found: int | None = connection.scalar(wanted)
    return found


def note_wiped(connection: Connection, part: str, count: int) -> None:
    """Note in a transaction that everything deleted up to that count is in no file any more."""
    if connection.dialect.name != "sqlite":
        same = (unwiped.c.part == part, unwiped.c.count == count)
        connection.execute(update(unwiped).where(*same).values(count=count + 1))
    elif _version_of(connection) == count:
        _set_version(connection, max(count + 1, CLEAN[part]))


def _version_of(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _set_version(connection: Connection, number: int) -> None:
    connection.exec_driver_sql(f"PRAGMA user_version = {number}")


def missing_grant(connection: Connection, tables: Sequence[str]) -> str:
    """Statement of SQL that grants the connection's role what it needs to rewrite tables; empty for
    nothing."""
    version = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    may = "pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE')"
    if version >= _MAINTAIN:
        may += " OR has_table_privilege(c.oid, 'MAINTAIN')"
    for table in tables:
        found = connection.execute(
            text(
                f"SELECT {may}, quote_ident(pg_get_userbyid(c.relowner)), quote_ident(current_user)"  # noqa: S608
                " FROM pg_class c, pg_database d"
                " WHERE c.oid = to_regclass(:table) AND d.datname = current_database()"
            ),
            {"table": table},
        ).one()
        if not found[0]:
            if version >= _MAINTAIN:
                return f"GRANT MAINTAIN ON {', '.join(tables)} TO {found[2]}"
            return f"GRANT {found[1]} TO {found[2]}"
    return ""


def check_grant(connection: Connection, tables: Sequence[str]) -> None:
    """Refuse a role that could delete, but not have the server's files forget it.

    Raises:
        StoreError: it is one.
    """
    if connection.dialect.name == "postgresql" and (grant := missing_grant(connection, tables)):
        raise StoreError(
            f"its role may not vacuum, so that what it deletes would stay in the server's files: {grant}"
        )


def vacuum(
    engine: Engine, tables: Sequence[str], pause: Callable[[float], None], *, rewrite: bool = True
) -> None:
    """Vacuum tables.

    Args:
        engine: of PostgreSQL.
        tables: names.
        pause: waits that many seconds.
        rewrite: whether they are rewritten, without what was deleted; otherwise its space is used again.

    Raises:
        StoreError: the server warns, somebody reads all the time, or an old transaction still sees what was
            deleted.
    """
    import psycopg

    connection = engine.raw_connection()
    driver: Any = connection.driver_connection
    warnings, dead = list[str](), 0

    def notice(said: "Diagnostic") -> None:
        nonlocal dead
        if said.severity_nonlocalized == "WARNING":
            if said.sqlstate == psycopg.errors.UndefinedTable.sqlstate:
                return  # another node has dropped it meanwhile, with what was in it
            warnings.append(said.message_primary or "a warning")
        elif rewrite and (number := _NUMBER.match(said.message_detail or "")):
            # "… dead row versions cannot be removed yet", in the server's language.
            dead += int(number[1])

    try:
        driver.rollback()
        driver.autocommit = True
        driver.add_notice_handler(notice)
        driver.execute(f"SET lock_timeout = '{_LOCK_WITHIN}'")
        driver.execute("SET client_min_messages = 'warning'")
        for table in tables:
            for left in reversed(range(_TRIES)):
                try:
                    driver.execute(f"VACUUM ({'FULL, VERBOSE' if rewrite else 'FULL false'}) {table}")
                    break
                except psycopg.errors.UndefinedTable:
                    break
                except psycopg.errors.LockNotAvailable:
                    if not left:
                        raise
                    pause(_PAUSE)
    except psycopg.errors.LockNotAvailable:
        warnings.append(f"somebody uses {table} all the time")
    except psycopg.Error as e:
        warnings.append(next(iter(str(e).splitlines()), type(e).__name__))
    finally:
        connection.invalidate()  # with what was set here alone
    if dead:
        warnings.append(f"a transaction that is open since before still sees {dead} rows")
    if warnings:
        raise StoreError(f"what was deleted is still in the server's files: {'; '.join(warnings)}")


def insert_new(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, in the order of the columns that are not autoincremented; rows that are there already
    stay as they are."""
    _insert(connection, table, rows, "DO NOTHING")


def copy_new(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert very many rows as `insert_new`; in PostgreSQL by way of a temporary table."""
    _copy(connection, table, rows, "DO NOTHING")


def copy_or_replace(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert very many rows, or replace those of the same keys; in PostgreSQL by way of a temporary table."""
    keys = ", ".join(f'"{column.name}"' for column in table.primary_key)
    others = [column.name for column in table.columns if not column.primary_key]
    changes = ", ".join(f'"{name}" = excluded."{name}"' for name in others)
    _copy(connection, table, rows, f"({keys}) DO UPDATE SET {changes}")


def _columns(table: Table) -> str:
    # Names are this package's own, values never become part of a statement.
    return ", ".join(f'"{column.name}"' for column in table.columns if column.autoincrement is not True)


def _insert(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], conflict: str) -> None:
    if not rows:
        return
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    marks = ", ".join([mark] * len(rows[0]))
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({_columns(table)}) VALUES ({marks}) ON CONFLICT {conflict}",  # noqa: S608
        list(rows),
    )


def _copy(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], conflict: str) -> None:
    if not rows or connection.dialect.name == "sqlite":
        _insert(connection, table, rows, conflict)
        return
    new, columns = f"new_{table.name}", _columns(table)
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {new} ON COMMIT DELETE ROWS"  # noqa: S608
        f" AS SELECT {columns} FROM {table.name} WITH NO DATA"
    )
    cursor: Any = connection.connection.cursor()
    try:
        with cursor.copy(f"COPY {new} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        cursor.execute(
            f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {new} ON CONFLICT {conflict}"  # noqa: S608
        )
    except connection.dialect.loaded_dbapi.Error as e:
        # As SQLAlchemy does with what goes through it.
        raise DBAPIError(f"COPY {table.name}", None, e) from e
    finally:
        cursor.close()
