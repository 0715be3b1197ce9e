"""``urlward records``: kinds and ages of records, retention, and holds; and ``urlward audit``.

The process that records has every store keep the heads of the audit log, as events of kind ``audit``;
`verify` compares those in databases with the log.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urlward.commands.arguments import DONE, WRONG, Command, caller, recorded, state_of, state_subcommand
from urlward.commands.events import read_span
from urlward.config import configured
from urlward.config.problem import SettingError
from urlward.config.records import RecordsTable
from urlward.engine.dates import parse_time, time_text
from urlward.engine.errors import UrlwardError
from urlward.lines import columns, quoted
from urlward.options import given_number
from urlward.policy.reasons import reason_of
from urlward.progress import progress_bar
from urlward.records.event import Event, canonical_reference, detail_of, parse_reference
from urlward.records.store import Age, KeepingStore
from urlward.state.audit import FILE, AuditReport, Copy, append, read_audit, verify
from urlward.state.audit_view import CHAIN, ChangeQuery, change_of, report_words
from urlward.state.folder import found_folder, state_folder
from urlward.units import DAY_MS

if TYPE_CHECKING:
    from urlward.records.database import Database
    from urlward.records.holds import Evidence
    from urlward.records.store import Node


def add_records_commands(command: Command) -> None:
    """Declare ``urlward records``; what it needs is imported when it runs."""
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

    adopt = state_subcommand(
        of_records, "adopt", _adopt, "Say that this is the node of a name, in databases that several share."
    )
    adopt.add_argument("name", metavar="NAME", nargs="?", help="that it has or had (the configuration's)")
    adopt.add_argument("--why", required=True, metavar="TEXT", help="for the record (audit.jsonl)")


def _status(args: argparse.Namespace) -> int:
    from urlward.assignments.retention import kept_assignments
    from urlward.objections.objections import FILE, read_objections
    from urlward.records.database import Database
    from urlward.records.holds import current_holds, evidence_of
    from urlward.records.retention import KeepingStores, days_of, held_elsewhere
    from urlward.service.leftovers import without_end

    records, state = recorded(args)
    found_folder(state)
    now = time.time()
    here = {one.reference: one for one in current_holds(state, now)}
    stores = KeepingStores(records, state, make=False)
    opened, found = stores.all()
    others, unasked = held_elsewhere(opened, now)
    held = {**others, **{reference: one.until for reference, one in here.items()}}
    evidence = evidence_of(held, opened, found, state)
    errors: list[UrlwardError] = [*unasked.values()]
    rows, kept_for = [], {reference: _counted(evidence.of(reference)) for reference in held}
    for store in opened:
        try:
            if isinstance(store, Database) and not store.is_file:
                if taken := store.taken_from(stores.node):
                    errors.append(taken)
                nodes = store.days_of_nodes(days_of(records.days), stores.node)
                unheld = store.ages_of_nodes(held)
                for (node, kind), age in sorted((store.ages_of_nodes() if held else unheld).items()):
                    days = nodes.get(node, nodes[""])
                    name = f"{store.name} ({node})"
                    rows.append(_row(name, kind, age, unheld.get((node, kind)), days, now))
                continue
            free = store.ages(held)
            for kind, age in sorted(store.ages().items() if held else free.items()):
                rows.append(_row(store.name, kind, age, free.get(kind), days_of(records.days), now))
        except UrlwardError as e:
            errors.append(e)
    stores.close()
    errors = [*dict.fromkeys((*evidence.errors, *errors)), *without_end(records, state)]
    try:
        if (kept := kept_assignments(records, state, now)) is not None:
            age = Age(kept.count, kept.oldest)
            row = _row(kept.place, "assignments", age, None, {}, now)
            purged = None if kept.purged is None else time_text(kept.purged // 1000)
            row |= {"days": records.days.assignments, "purged": purged}
            row |= {"over": kept.over, "held": sum(kept.held.values())}
            rows.append(row)
            for reference, count in kept.held.items():
                if count and reference in held:
                    kept_for[reference].append({"store": kept.place, "kind": "assignments", "count": count})
        for objection in read_objections(state):
            if objection.reference in held:
                where = {"store": str(state / FILE), "kind": "objection", "count": 1}
                kept_for[objection.reference].append(where)
    except UrlwardError as e:
        errors.append(e)
    shown = {
        "records": rows,
        "holds": [
            {
                "reference": reference,
                "until": time_text(until),
                "who": here[reference].who if reference in here else None,
                "why": here[reference].why if reference in here else None,
                "kept": kept_for[reference],
            }
            for reference, until in held.items()
        ],
    }
    _show(shown, as_json=args.json)
    for error in errors:
        print(f"urlward: {error}", file=sys.stderr)
    return WRONG if errors or any(row["over"] for row in rows) else DONE


def _counted(found: Mapping[str, list[Event]]) -> list[dict[str, Any]]:
    return [
        {"store": store, "kind": kind, "count": count}
        for store, events in found.items()
        for kind, count in sorted(Counter(event.kind for event in events).items())
    ]


def _row(
    store: str, kind: str, age: Age, free: Age | None, days: Mapping[str, int], now: float
) -> dict[str, Any]:
    """Row of a kind of event, with when the next one is deleted.

    Args:
        store: its name.
        kind: of event.
        age: of all.
        free: of what nobody holds; None for nothing.
        days: of each kind.
        now: seconds since 1970-01-01 UTC.
    """
    allowed = days.get(kind)
    end = None if allowed is None or free is None else free.oldest + allowed * DAY_MS
    return {
        "store": store,
        "kind": kind,
        "count": age.count,
        "held": age.count - (free.count if free else 0),
        "oldest": time_text(age.oldest // 1000),
        "days": allowed,
        "purged": None if end is None else time_text(end // 1000),
        "over": end is not None and end < now * 1000,
    }


def _show(shown: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(shown, indent=1))
        return
    table = [("STORE", "KIND", "COUNT", "HELD", "OLDEST", "DAYS", "NEXT PURGE")]
    for row in shown["records"]:
        end = "never" if row["days"] is None else row["purged"] or "when released"
        end += " (over!)" * row["over"]
        held, days = str(row["held"] or "-"), str(row["days"] or "-")
        table.append((row["store"], row["kind"], str(row["count"]), held, row["oldest"], days, end))
    print("\n".join(columns(table)))
    for one in shown["holds"]:
        by = "by another node" if one["who"] is None else f"{one['who']}: {one['why']}"
        print(f"held: {one['reference']} until {one['until']}  {by}")
        for kept in one["kept"]:
            print(f"  {kept['store']}: {kept['count']} {kept['kind']}")
        if not one["kept"]:
            print("  nothing that can be found")


def _purge(args: argparse.Namespace) -> int:
    from urlward.assignments.retention import purge_configured
    from urlward.records.holds import held_references
    from urlward.records.retention import KeepingStores, days_of, purge
    from urlward.service.leftovers import purge_leftovers

    records, state = recorded(args)
    found_folder(state)
    now = time.time()
    # Before anything is deleted: where it cannot be written down, nothing is.
    append(state, caller(), "purge", now, days=records.days.model_dump(exclude_none=True))
    with KeepingStores(records, state, make=False) as stores:
        deleted, errors = purge(stores, days_of(records.days), lambda: held_references(state, now), now)
    try:
        if records.days.assignments is not None:
            deleted["assignments"] = purge_configured(records, state, now)
    except UrlwardError as e:
        errors.append(e)
    try:
        more, found = purge_leftovers(records, state, held_references(state, now), now)
        deleted |= {name: number for name, number in more.items() if number}
        errors += found
    except UrlwardError as e:  # said before
        errors += [] if str(e) in map(str, errors) else [e]
    for name, number in deleted.items():
        print(f"{name}: {number} deleted")
    for error in errors:
        print(f"urlward: {error}", file=sys.stderr)
    append(state, caller(), "purged", time.time(), deleted=deleted, errors=[*map(str, errors)])
    return WRONG if errors else DONE


def _hold(args: argparse.Namespace) -> int:
    from urlward.assignments.interval import AssignmentError
    from urlward.assignments.retention import hold_configured
    from urlward.records.holds import evidence_of, hold
    from urlward.records.retention import KeepingStores, in_databases

    records, state = recorded(args)
    found_folder(state)
    try:
        until = parse_time(args.until, whole_day=True)
    except ValueError as e:
        raise UrlwardError(f"--until: {args.until!r}: {e}") from None
    reference = parse_reference(args.reference)
    with KeepingStores(records, state, make=False) as stores:
        opened, found = stores.all()
        evidence = evidence_of([reference], opened, found, state)
        known = bool(evidence.hits(reference))
        if not known and not evidence.errors:
            print(f"urlward: no event has the reference {reference}: nothing is held", file=sys.stderr)
            return WRONG
        # It may be in what cannot be read: holding too much is the smaller harm.
        made = hold(state, reference, until, args.why, caller(), now=time.time())
        print(f"{made.reference}: held until {time_text(made.until)}")
        failed = {str(e): "" if known else ", and nothing else has the reference" for e in evidence.errors}
        held = {reference: made.until * 1000}
        untold = in_databases(opened, lambda database: database.hold(held, stores.node))
        failed |= {str(e): "" for e in untold.values()}
        gone, unseen = _deleted_meanwhile(reference, opened, evidence, state)
        failed |= unseen
    try:
        hold_configured(records, state, {reference: made.until}, evidence)
    except AssignmentError as e:
        failed |= {str(e): ""} if known else {}
    for line in gone:
        print(f"urlward: {line}", file=sys.stderr)
    return max(_tell_failed(failed), WRONG if gone else DONE)


def _deleted_meanwhile(
    reference: str, opened: Collection[KeepingStore], before: "Evidence", state: Path
) -> tuple[list[str], dict[str, str]]:
    """What a purge that was under way has deleted before it knew of a hold, and what cannot be told of it, as
    of `_tell_failed`."""
    from urlward.records.holds import evidence_of

    failed = list[UrlwardError]()
    for store in opened:
        try:
            store.check()  # waits for a purge that rewrites a file
        except UrlwardError as e:
            failed.append(e)
    after = evidence_of([reference], opened, failed, state)
    gone = []
    for store in opened:
        events = {*before.events.get(store.name, ())}.difference(after.events.get(store.name, ()))
        if events and store.name in after.events:
            gone.append(f"{store.name}: {len(events)} of what is held was deleted meanwhile")
    return gone, {str(e): "" for e in after.errors}


def _tell_failed(failed: Mapping[str, str]) -> int:
    for error, more in failed.items():
        print(f"urlward: not told: {error}{more}; do it again", file=sys.stderr)
    return WRONG if failed else DONE


def _release(args: argparse.Namespace) -> int:
    from urlward.assignments.retention import release_configured
    from urlward.records.holds import held_references, release
    from urlward.records.retention import KeepingStores, in_databases

    records, state = recorded(args)
    found_folder(state)
    reference = canonical_reference(args.reference)
    until = held_references(state, time.time()).get(reference)
    with KeepingStores(records, state, make=False) as stores:
        opened, found = stores.all()
        if until is None and (until := _told_before(opened, stores.node, reference)) is None:
            raise UrlwardError(f"{reference!r} is not held here")
        end = until * 1000
        untold = in_databases(opened, lambda database: database.release(reference, stores.node, end))
        failed = {str(e): "" for e in (*found, *untold.values())}
    try:
        release_configured(records, state, reference)
    except UrlwardError as e:
        failed[str(e)] = ""
    if failed:
        return _tell_failed(failed)
    released = release(state, reference, args.why, caller(), now=time.time(), until=until)
    print(f"{released.reference}: released; all that it held is deleted when its days are over")
    return DONE


def _told_before(opened: Iterable[KeepingStore], node: "Node", reference: str) -> int | None:
    """Until when a node holds a reference by a database alone, as one does that has lost its state folder;
    None where it does not."""
    from urlward.records.database import Database

    for store in opened:
        if isinstance(store, Database) and not store.is_file:
            for name, until in store.held_by(node).items():
                if canonical_reference(name) == reference and until > time.time() * 1000:
                    return until // 1000
    return None


def _adopt(args: argparse.Namespace) -> int:
    from urlward.records.database import Database
    from urlward.records.retention import KeepingStores, in_databases

    records, state = recorded(args)
    name, why = args.name or records.node, reason_of(args.why)
    with KeepingStores(records, state, make=False) as stores:
        opened, found = stores.all()
        if not found and not any(isinstance(store, Database) and not store.is_file for store in opened):
            raise UrlwardError("no store is a database that several nodes share")

        def adopt(store: Database) -> None:
            store.find_node(name, stores.node)
            # Before it is so: what was said is in the audit log whatever happens next.
            append(state, caller(), "adopted", time.time(), node=name, store=store.name, why=why)
            store.adopt(name, stores.node)
            print(f"{store.name}: {name} is this node")

        errors = [*found, *in_databases(opened, adopt, shared=True).values()]
    for error in errors:
        print(f"urlward: {error}", file=sys.stderr)
    return WRONG if errors else DONE


_HASH = re.compile(r"[0-9A-Fa-f]{64}").fullmatch
_PAGE = 1_000


def add_audit_commands(command: Command) -> None:
    """Declare ``urlward audit``."""
    audit = command("audit", None, "The log of who did or asked what, when and why.")
    of_audit = audit.add_subparsers(required=True, metavar="COMMAND")
    checked = _sub(
        of_audit, "verify", _verify, "Exit code 0 where the log is as it was written, 1 where not."
    )
    checked.add_argument("--known", metavar="HASH", help="a hash that a line must have")
    listed = _sub(of_audit, "list", _list, "Show the log.")
    listed.add_argument("--action", metavar="NAME", help="lines of that action alone")
    listed.add_argument("--who", metavar="NAME", help="of whoever has that in the name")
    listed.add_argument("--list", metavar="NAME", help="about that list or feed")
    listed.add_argument("--since", metavar="T", help="a date, a time (RFC 3339), or 2h for that long ago")
    listed.add_argument("--until", metavar="T", help="likewise; a date is until its end")
    listed.add_argument("--last", type=given_number, metavar="N", default=0, help="the last N of them (all)")


def _sub(commands: Any, name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
    sub = state_subcommand(commands, name, function, help_text)
    sub.add_argument("--json", action="store_true", help="as JSON objects")
    return sub


def _verify(args: argparse.Namespace) -> int:
    if args.known is not None and not _HASH(args.known):
        raise SettingError("known", "not a hash of 64 hexadecimal digits, as `urlward audit verify` shows")
    config = configured(args.config)[1]
    state = found_folder(args.state or state_folder(config.state))
    copies, errors = _copies(config.records, state) if config.records is not None else ([], [])
    with progress_bar() as progress:
        report = verify(state, args.known or "", copies, progress)
    words = report_words(state / FILE, report)
    if report.holds and not (copies or errors or args.known):
        words.append("compared with no copy, so a log that was put back with its head is not noticed")
    print(json.dumps(_shown(report)) if args.json else "\n".join(words))
    for error in errors:
        print(f"urlward: not compared with: {error}", file=sys.stderr)
    return DONE if report.holds and not errors else WRONG


def _copies(records: RecordsTable, state: Path) -> tuple[list[Copy], list[UrlwardError]]:
    """Heads of this node's log that databases have, and why others could not be read."""
    from urlward.records.retention import KeepingStores, in_databases

    copies = list[Copy]()
    with KeepingStores(records, state, make=False) as stores:
        opened, found = stores.all()

        def read(database: "Database") -> None:
            for node in database.names_of(stores.node):
                copies.extend(_copies_in(database, node))

        return copies, [*found, *in_databases(opened, read).values()]


def _copies_in(database: "Database", node: str) -> Iterator[Copy]:
    from urlward.records.store import EventQuery

    before = None
    while events := database.find(EventQuery(("audit",), node=node, before=before, limit=_PAGE)):
        before = events[-1].id
        for event in events:
            detail = detail_of(event)
            yield Copy(detail.get("line", 0), detail.get("hash", ""), detail.get("time", ""), database.name)


def _shown(report: AuditReport) -> dict[str, Any]:
    return {
        "holds": report.holds,
        "lines": report.lines,
        "unchained": report.unchained,
        "taken_over": report.taken,
        "torn": report.torn,
        "broken": {"line": report.broken.line, "reason": report.broken.reason} if report.broken else None,
        "unsigned": report.unsigned,
        "has_known": report.has_known,
        "anew": report.anew,
        "copies": report.copies,
        "differs": report.differs,
        "head": report.head,
    }


def _list(args: argparse.Namespace) -> int:
    for name in ("who", "list"):
        if getattr(args, name) == "":
            # Such as of a variable that is not set: without it, it would be everybody's lines.
            raise SettingError(f"--{name}", "is empty")
    since, until = read_span(args.since, args.until, time.time())
    query = ChangeQuery(
        who=args.who or "", list=args.list or "",
        since=None if since is None else since / 1000, until=None if until is None else until / 1000,
    )  # fmt: skip
    lines = list(enumerate(read_audit(found_folder(state_of(args))), 1))
    if args.action is not None:
        actions = sorted({str(line.get("action")) for _, line in lines if line is not None})
        lines = [(n, line) for n, line in lines if line is not None and line.get("action") == args.action]
        if not lines and actions:
            raise SettingError("--action", f"no line has that; it has {', '.join(map(ascii, actions))}")
    if query != ChangeQuery():
        lines = [(n, line) for n, line in lines if line is not None and query.takes(change_of(line))]
    for number, line in lines[-args.last :]:  # 0 is all of them
        print(json.dumps(line) if args.json else _audit_row(number, line))
    return DONE


def _audit_row(number: int, line: dict[str, Any] | None) -> str:
    if line is None:
        return f"{number:>6}  (cut short as it was written)"
    fields = "  ".join(f"{name}={quoted(value)}" for name, value in line.items() if name not in CHAIN)
    time, action, who = (quoted(str(line.get(name) or "-"))[1:-1] for name in ("time", "action", "who"))
    return f"{number:>6}  {time}  {action}  {who}  {fields}"
