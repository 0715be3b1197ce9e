"""SQLAlchemy engines for SQLite and PostgreSQL, set up for records."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from urlward.config.records import StoreTable
from urlward.encoding import without_bom
from urlward.records.sqlite import PRAGMAS, files_of, make_sqlite
from urlward.records.store import StoreError, identity
from urlward.regular import open_given
from urlward.state.folder import StateError, made_folder

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
            f'PostgreSQL needs its driver: install "urlward[postgresql]" ({e.name or e} is not there)'
        ) from e
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(f"{where}: not a postgresql:// URL") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres") or not parsed.database:
        raise StoreError(f"{where}: not a postgresql:// URL with a database's name")
    patience = {"connect_timeout": str(int(WAIT)), "tcp_user_timeout": str(int(WAIT * 1000))}
    # A server that is gone after it has taken a question: nothing is sent, so that only these find out.
    patience |= {"keepalives_idle": str(int(WAIT)), "keepalives_interval": "2", "keepalives_count": "5"}
    parsed = parsed.set(drivername="postgresql+psycopg").set(query={**patience, **parsed.query})
    return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)


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
        rewrite: whether the file is rewritten, which needs its size on the disk twice again; its
            ``user_version``, by which we know that this is due, is then 0.

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
                run("PRAGMA temp_store = FILE")  # the new one may not fit into memory; it has no name
                run("VACUUM")
            # Writers wait while this waits for readers, so it is to give up soon.
            run("PRAGMA busy_timeout = 20")
            for _ in range(TRIES):
                if not run("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]:
                    if rewrite:
                        run("PRAGMA user_version = 0")
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
