"""Retention outside the stores: objections, events that wait in the outbox for a store that is down, and
damaged files that were set aside."""

from collections.abc import Collection
from pathlib import Path

from urlward.config.records import RecordsTable
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import purge_objections, read_objections
from urlward.records.outbox import Outbox
from urlward.records.retention import KeepingStores, days_of, held_by_all
from urlward.records.store import StoreError
from urlward.service.mend import folders_of
from urlward.state.folder import DAMAGED_DAYS, forget_damaged

_DAY_MS = 86_400_000


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
    outbox = Outbox(state, make=False)
    try:
        limits = {kind: round(then * 1000) - days * _DAY_MS for kind, days in days_of(records.days).items()}
        deleted["waiting for a store"] = outbox.purge(limits, held)
    except UrlwardError as e:
        errors.append(e)
    finally:
        outbox.close()
    return deleted, errors


def _held_by_others(records: RecordsTable, state: Path, now: float) -> Collection[str]:
    """References that other nodes hold, where there are objections that may have them.

    Raises:
        StoreError: that is not known.
        StateError: the objections cannot be read.
    """
    if all(table.kind != "postgresql" for table in records.store) or not read_objections(state):
        return ()
    with KeepingStores(records, state, make=False) as stores:
        try:
            return held_by_all(records, *stores.all(), now)
        except StoreError as e:
            raise StoreError(f"objections: none is deleted: {e}") from e
