"""Bulk inserts: plain tuples, in the fastest way that each database has."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError


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
    cursor: Any = connection.connection.cursor()
    try:
        cursor.execute(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {new} ON COMMIT DELETE ROWS"  # noqa: S608
            f" AS SELECT {columns} FROM {table.name} WITH NO DATA"
        )
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
