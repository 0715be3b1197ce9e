"""``urlward records``: what is kept, for how long, and what is held longer."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urlward.config import configured
from urlward.config.records import RecordsTable
from urlward.engine.dates import parse_time, time_text
from urlward.engine.errors import UrlwardError
from urlward.lists.arguments import DONE, WRONG, Command, state_subcommand
from urlward.lists.caller import caller
from urlward.lists.state import state_folder

if TYPE_CHECKING:
    from urlward.records.database import Database

_DAY_MS = 86_400_000


class RecordsCommandError(UrlwardError):
    """What was asked for cannot be done."""


def add_records_commands(command: Command) -> None:
    """Declare them; what they need is imported when they run."""
    records = command("records", None, "What is kept of events, and how long.")
    of_records = records.add_subparsers(required=True, metavar="COMMAND")

    status = state_subcommand(
        of_records, "status", _status, "Exit code 0 where nothing is older than it may be, 1 where it is."
    )
    status.add_argument("--json", action="store_true", help="as a JSON object")

    state_subcommand(
        of_records, "purge", _purge, "Delete now what is older than it may be, as the filter does each hour."
    )

    hold = state_subcommand(
        of_records, "hold", _hold, "Keep what has a reference until a date, whatever its days are."
    )
    hold.add_argument("reference", metavar="REFERENCE", help="as it stands on the block page")
    hold.add_argument("--until", required=True, metavar="DATE", help="its end, or a time (RFC 3339)")
    hold.add_argument("--why", required=True, metavar="TEXT", help="for the record (audit.jsonl)")

    release = state_subcommand(of_records, "release", _release, "End a hold.")
    release.add_argument("reference", metavar="REFERENCE", help="that is held")
    release.add_argument("--why", required=True, metavar="TEXT", help="for the record (audit.jsonl)")


def _read(args: argparse.Namespace) -> tuple[RecordsTable, Path]:
    path, config = configured(args.config)
    if config.records is None:
        raise RecordsCommandError(f"{path or 'no --config given'}: no [records]: nothing is recorded")
    return config.records, state_folder(args.state or config.state)


def _status(args: argparse.Namespace) -> int:
    from urlward.records.assignments.configured import kept_assignments
    from urlward.records.holds import current_holds
    from urlward.records.retention import KeepingStores, days_of, held_in

    records, state = _read(args)
    now = time.time()
    holds = current_holds(state, now)
    stores = KeepingStores(records, state, make=False)
    opened, found = stores.all()
    errors: list[UrlwardError] = [*found]
    held = [one.reference for one in holds]
    rows = []
    for store in opened:
        try:
            for kind, age in sorted(store.ages(held_in(store, held, now)).items()):
                rows.append(_row(store.name, kind, age.count, age.oldest, days_of(records.days), now))
        except UrlwardError as e:
            errors.append(e)
    stores.close()
    try:
        if (kept := kept_assignments(records, state, now)) is not None:
            row = _row(kept.place, "assignments", kept.count, kept.oldest, {}, now)
            rows.append(row | {"days": records.days.assignments, "over": kept.over})
    except UrlwardError as e:
        errors.append(e)
    shown = {
        "records": rows,
        "holds": [
            {"reference": one.reference, "until": time_text(one.until), "who": one.who, "why": one.why}
            for one in holds
        ],
    }
    _show(shown, as_json=args.json)
    for error in errors:
        print(f"urlward: {error}", file=sys.stderr)
    return WRONG if errors or any(row["over"] for row in rows) else DONE


def _row(
    store: str, kind: str, count: int, oldest: int, days: Mapping[str, int], now: float
) -> dict[str, Any]:
    allowed = days.get(kind)
    end = None if allowed is None else oldest + allowed * _DAY_MS
    return {
        "store": store,
        "kind": kind,
        "count": count,
        "oldest": time_text(oldest // 1000),
        "days": allowed,
        "purged": None if end is None else time_text(end // 1000),
        "over": end is not None and end < now * 1000,
    }


def _show(shown: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    table = [("STORE", "KIND", "COUNT", "OLDEST", "DAYS", "NEXT PURGE")]
    for row in shown["records"]:
        # An assignment's days begin when it ends.
        end = row["purged"] or ("as they end" if row["days"] else "never")
        end += " (over!)" * row["over"]
        cells = row["store"], row["kind"], str(row["count"]), row["oldest"], str(row["days"] or "-"), end
        table.append(cells)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    for one in shown["holds"]:
        print(f"held: {one['reference']} until {one['until']}  {one['who']}: {one['why']}")


def _purge(args: argparse.Namespace) -> int:
    from urlward.records.assignments.configured import purge_configured
    from urlward.records.holds import held_references
    from urlward.records.retention import KeepingStores, days_of, purge

    records, state = _read(args)
    now = time.time()
    stores = KeepingStores(records, state, make=False)
    deleted, errors = purge(stores, days_of(records.days), lambda: held_references(state, now), now)
    stores.close()
    try:
        if records.days.assignments is not None:
            deleted["assignments"] = purge_configured(records, state, now)
    except UrlwardError as e:
        errors.append(e)
    for name, number in deleted.items():
        print(f"{name}: {number} deleted")
    for error in errors:
        print(f"urlward: {error}", file=sys.stderr)
    return WRONG if errors else DONE


def _hold(args: argparse.Namespace) -> int:
    from urlward.records.holds import hold

    records, state = _read(args)
    try:
        until = parse_time(args.until, whole_day=True)
    except ValueError as e:
        raise RecordsCommandError(f"--until: {args.until!r}: {e}") from None
    made = hold(state, args.reference, until, args.why, caller(), now=time.time())
    print(f"{made.reference}: held until {time_text(made.until)}")
    return _tell_databases(records, state, lambda database: database.hold(made.reference, made.until * 1000))


def _tell_databases(records: RecordsTable, state: Path, tell: Callable[["Database"], None]) -> int:
    """Other nodes that write there go by it too."""
    from urlward.records.database import Database
    from urlward.records.retention import KeepingStores

    stores = KeepingStores(records, state, make=False)
    opened, found = stores.all()
    errors: list[UrlwardError] = [*found]
    for store in opened:
        if isinstance(store, Database):
            try:
                tell(store)
            except UrlwardError as e:
                errors.append(e)
    stores.close()
    for error in errors:
        print(f"urlward: not told: {error}; do it again", file=sys.stderr)
    return WRONG if errors else DONE


def _release(args: argparse.Namespace) -> int:
    from urlward.records.holds import release

    records, state = _read(args)
    if _tell_databases(records, state, lambda database: database.release(args.reference)) != DONE:
        return WRONG
    released = release(state, args.reference, args.why, caller(), now=time.time())
    print(f"{released.reference}: released; it is deleted when its days are over")
    return DONE
