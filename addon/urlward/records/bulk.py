"""Writing many rows at once: plain tuples, in the quickest way that each database has."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table


def insert_new(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows, in the order of the table's columns that are not counted up by themselves; what is there
    already stays as it is."""
    _write(connection, table, rows, "DO NOTHING")


def insert_or_replace(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows, in the order of the table's columns, or replace those of the same keys."""
    keys = ", ".join(f'"{column.name}"' for column in table.primary_key)
    others = [column.name for column in table.columns if not column.primary_key]
    changes = ", ".join(f'"{name}" = excluded."{name}"' for name in others)
    _write(connection, table, rows, f"({keys}) DO UPDATE SET {changes}")


def _write(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], conflict: str) -> None:
    if not rows:
        return
    # Names are this package's own, values never become part of a statement.
    columns = ", ".join(f'"{column.name}"' for column in table.columns if column.autoincrement is not True)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(rows[0]))
        connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({columns}) VALUES ({marks}) ON CONFLICT {conflict}",  # noqa: S608
            list(rows),
        )
        return
    new = f"new_{table.name}"
    cursor: Any = connection.connection.cursor()
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
    cursor.close()
