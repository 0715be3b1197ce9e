"""The end of what is kept of persons outside the stores: objections, events that wait on the disk for a store
that is down or that nobody writes to any more, and damaged files that were set aside."""

import fcntl
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from urlward.config.records import RecordsTable
from urlward.engine.errors import UrlwardError
from urlward.lists.state import DAMAGED_DAYS, forget_damaged
from urlward.records.event import Event
from urlward.records.mend import folders_of
from urlward.records.objections import purge_objections, read_objections
from urlward.records.retention import KeepingStores, days_of, held_by_all
from urlward.records.spool import LOCK, SPOOL, Spool
from urlward.records.store import StoreError

_DAY_MS = 86_400_000


class Spooling(Protocol):
    """Something with events that wait on the disk."""

    def purge(self, over: Callable[[Event], bool]) -> int:
        """As `Spool.purge`."""


def purge_leftovers(
    records: RecordsTable,
    state: Path,
    held: Collection[str],
    now: float,
    *,
    ahead: float = 0.0,
    spools: Iterable[Spooling] | None = None,
) -> tuple[dict[str, int], list[UrlwardError]]:
    """Delete what is over.

    Args:
        records: the configuration.
        state: the state folder.
        held: references of what stays.
        now: seconds since 1970-01-01 UTC.
        ahead: what is over within so many seconds is deleted too.
        spools: to look through; where not given all that there are, unless a process writes to them.

    Returns:
        How much was deleted of what, and what stood in the way.
    """
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
    with _unless_another(state, spools is None) as alone:
        for spool in (_spools(state) if alone else ()) if spools is None else spools:
            try:
                events = spool.purge(lambda event: is_over(event, records, held, then))
                deleted["waiting for a store"] = deleted.get("waiting for a store", 0) + events
            except UrlwardError as e:
                errors.append(e)
    return deleted, errors


def _held_by_others(records: RecordsTable, state: Path, now: float) -> Collection[str]:
    """References that other nodes hold, where there are objections that may have them.

    Raises:
        StoreError: that is not known.
        StateError: the objections cannot be read.
    """
    if all(table.kind != "postgresql" for table in records.store) or not read_objections(state):
        return ()
    stores = KeepingStores(records, state, make=False)
    try:
        return held_by_all(records, *stores.all(), now)
    except StoreError as e:
        raise StoreError(f"objections: none is deleted: {e}") from e
    finally:
        stores.close()


def is_over(event: Event, records: RecordsTable, held: Collection[str], now: float) -> bool:
    """Whether an event is older than its days, and not held."""
    days = days_of(records.days).get(event.kind)
    return days is not None and event.time < now * 1000 - days * _DAY_MS and event.reference not in held


def unwritten_spools(state: Path, names: Collection[str]) -> Iterator[Spool]:
    """Those of stores of other names: of a configuration that was.

    Raises:
        SpoolError: the disk does not give them.
    """
    return (spool for spool in _spools(state) if spool.folder.name not in names)


def _spools(state: Path) -> Iterator[Spool]:
    folder = state / SPOOL
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir():
            yield Spool(path, 0, state)


@contextmanager
def _unless_another(state: Path, asked: bool) -> Iterator[bool]:
    """Whether no process records, and none begins to while this lasts."""
    try:
        fd = os.open(state / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK) if asked else -1
    except OSError:
        yield True  # none has ever
        return
    try:
        try:
            if fd >= 0:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        if fd >= 0:
            os.close(fd)
