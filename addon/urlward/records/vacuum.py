"""Vacuum of PostgreSQL tables, which removes deleted rows from the files.

What is deleted stays in a table's files until it is rewritten (``VACUUM FULL``): a plain ``VACUUM`` gives its
space back for use, and leaves the bytes in it. Rewriting is for the table's owner, whom everybody is who has
the owner's role, and from version 17 on for who was granted ``MAINTAIN``; of others the server says no more
than a warning. That something waits to be rewritten stands in a table, so that neither a process that ends
nor a rewriting that fails has it forgotten.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Column, Connection, Engine, MetaData, String, Table, delete, select, text

from urlward.records.store import StoreError

if TYPE_CHECKING:
    from psycopg.errors import Diagnostic

_MAINTAIN = 170_000
"""The version of the server that has that privilege."""

_LOCK_WITHIN = "2s"
"""Time that a rewrite waits for readers of the table; writers wait behind it."""

SHARE = 0.01
"""Share of the time in which a file or table may be rewritten: for large ones that is not at each purge."""

_TRIES = 30
_PAUSE = 1.0
_NUMBER = re.compile(r"\s*(\d+)")

unwiped = Table(
    "urlward_unwiped",
    MetaData(),
    Column("part", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""Parts with something deleted that is in the server's files still; ``count`` goes up with each deletion."""


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
    connection.execute(
        text(
            "INSERT INTO urlward_unwiped VALUES (:part, 1)"
            " ON CONFLICT (part) DO UPDATE SET count = urlward_unwiped.count + 1"
        ),
        {"part": part},
    )


def deletions(connection: Connection, part: str) -> int:
    """Count to give to `note_wiped`; 0 where nothing waits to be rewritten."""
    return connection.scalar(select(unwiped.c.count).where(unwiped.c.part == part)) or 0


def note_wiped(connection: Connection, part: str, count: int) -> None:
    """Note that everything deleted up to that count is in no file any more."""
    connection.execute(delete(unwiped).where(unwiped.c.part == part, unwiped.c.count == count))


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
