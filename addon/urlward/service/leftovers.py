"""Retention outside the stores: objections, events that wait in the outbox for a store that is down, damaged
files that were set aside, and files that nobody has written to their end."""

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path

from urlward.config import SYSTEM, Config
from urlward.config.records import ASSIGNMENTS, RecordsTable, StoreTable
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import FILE as OBJECTIONS
from urlward.objections.objections import purge_objections, read_objections
from urlward.policy.own import own_entries
from urlward.records.event import PERSONAL
from urlward.records.jsonl_store import numbered
from urlward.records.outbox import Outbox
from urlward.records.store import StoreError
from urlward.state.folder import DAMAGED_DAYS, forget_damaged, forget_unfinished, state_folder
from urlward.units import DAY_MS, counted


def purge_leftovers(
    records: RecordsTable,
    state: Path,
    held: Collection[str],
    now: float,
    *,
    ahead: float = 0.0,
) -> tuple[dict[str, int], list[UrlwardError]]:
    """Delete expired leftovers.

    Args:
        records: the configuration.
        state: the state folder.
        held: references of what stays.
        now: seconds since 1970-01-01 UTC.
        ahead: what is over within so many seconds is deleted too.

    Returns:
        How much was deleted of what, and what stood in the way.
    """
    # Which bring SQLAlchemy: no start of a filter waits for it.
    from urlward.records.retention import days_of
    from urlward.service.mend import folders_of

    deleted: dict[str, int] = {}
    errors: list[UrlwardError] = []
    then = now + ahead
    if records.days.blocks is not None:
        try:
            others = _held_by_others(records, state, now)
            deleted["objections"] = purge_objections(state, records.days.blocks, then, {*held, *others})
        except UrlwardError as e:
            errors.append(e)
    days = [days for days in records.days.model_dump().values() if days is not None]
    deleted["damaged files"] = sum(
        forget_damaged(folder, then, min([DAMAGED_DAYS, *days]))
        for folder in sorted(folders_of(records, state))
    )
    try:
        deleted["unfinished files"] = forget_unfinished(state)
    except UrlwardError as e:
        errors.append(e)
    errors += without_end(records, state)
    outbox = Outbox(state, make=False)
    try:
        limits = {kind: round(then * 1000) - days * DAY_MS for kind, days in days_of(records.days).items()}
        deleted["waiting for a store"] = outbox.purge(limits, held)
    except UrlwardError as e:
        errors.append(e)
    finally:
        outbox.close()
    return deleted, errors


def without_end(records: RecordsTable, state: Path) -> list[UrlwardError]:
    """Records of persons that nothing ever deletes: those in the place of a store that is none any more, and
    those of a time with another ``privacy``, where no days are said now."""
    errors: list[UrlwardError] = [
        StoreError(
            f"{path}: no store any more, so that nothing in it is ever deleted: "
            "delete it, or configure it again"
        )
        for path in _left_behind(
            (*records.store, records.assignments or StoreTable(kind="sqlite", path=ASSIGNMENTS)), state
        )
    ]
    if records.days.blocks is not None:
        return errors
    try:
        objections = len(read_objections(state))
    except UrlwardError as e:
        errors.append(e)
    else:
        if objections:
            errors.append(_endless("objections.json", objections, "objections"))
    from urlward.records.retention import KeepingStores

    stores = KeepingStores(records, state, make=False)
    try:
        for store in stores.all()[0]:
            count = sum(age.count for kind, age in store.ages().items() if kind in PERSONAL)
            if count:
                errors.append(_endless(store.name, count, "events of persons"))
    except UrlwardError as e:
        errors.append(e)
    finally:
        stores.close()
    return errors


def unheeded(config: Config) -> list[str]:
    """What a filter's state folder has from a time with other tables in the configuration, and that neither
    filters nor is ever deleted now. Only of a folder that is surely this filter's: another's, with a
    configuration elsewhere, may have the default one.
    """
    if config.records is not None or not (config.state or config.file == SYSTEM):
        return []
    told: list[str] = []
    with suppress(UrlwardError, OSError):  # who may not read it is told by the start itself
        state = state_folder(config.state)
        if not config.keeps_state and (own := len(own_entries(state))):
            told.append(f"{state}/own.json: {counted(own, 'own entry')}, not in force without `state`")
        kept = [*_left_behind((), state)]
        kept += [state / OBJECTIONS] * bool(read_objections(state))
        told += [
            f"{path}: records of persons, which nothing deletes without [records]: delete it, or let it end"
            for path in kept
        ]
    return told


def _endless(where: str, count: int, what: str) -> StoreError:
    return StoreError(
        f"{where}: {count} {what} from before, which nothing ever deletes: "
        "say for how many days they are kept (records.days.blocks)"
    )


def _left_behind(tables: Collection[StoreTable], state: Path) -> Iterator[Path]:
    """Files with records where stores are that have no ``path``, and that none of those configured has."""
    used = {os.path.realpath(state / table.file) for table in tables if table.file}
    for table in (StoreTable(kind="sqlite"), StoreTable(kind="sqlite", path=ASSIGNMENTS)):
        path = state / table.file
        if os.path.realpath(path) not in used and _has_rows(path):
            yield path
    path = state / StoreTable(kind="jsonl").file
    if os.path.realpath(path) not in used and state.is_dir():
        yield from (one for one in (path, *numbered(path).values()) if one.is_file() and one.stat().st_size)


def _has_rows(path: Path) -> bool:
    """Whether a database has records; of one that cannot be read that is to be supposed."""
    if not path.is_file():
        return False
    tables = ("events",) if path.name != ASSIGNMENTS else ("assignments", "assignments_current")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            return any(opened.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables)  # noqa: S608
    except sqlite3.Error:
        return True


def _held_by_others(records: RecordsTable, state: Path, now: float) -> Collection[str]:
    """References that other nodes hold, where there are objections that may have them.

    Raises:
        StoreError: that is not known.
        StateError: the objections cannot be read.
    """
    if all(table.kind != "postgresql" for table in records.store) or not read_objections(state):
        return ()
    from urlward.records.retention import KeepingStores, held_by_all

    with KeepingStores(records, state, make=False) as stores:
        try:
            return held_by_all(records, *stores.all(), now)
        except StoreError as e:
            raise StoreError(f"objections: none is deleted: {e}") from e
