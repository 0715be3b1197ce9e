"""``urlward audit``.

The process that records has every store keep the heads of the audit log, as events of kind ``audit``;
`verify` compares those in databases with the log.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urlward.commands.arguments import DONE, WRONG, Command, state_of, state_subcommand
from urlward.commands.events import read_span
from urlward.config import configured
from urlward.config.problem import SettingError
from urlward.config.records import RecordsTable
from urlward.engine.errors import UrlwardError
from urlward.progress import progress_bar
from urlward.records.event import detail_of
from urlward.state.audit import FILE, AuditReport, Copy, read_audit, verify
from urlward.state.audit_view import CHAIN, ChangeQuery, change_of, report_words
from urlward.state.folder import found_folder, state_folder

if TYPE_CHECKING:
    from urlward.records.database import Database

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
    listed.add_argument("--last", type=int, metavar="N", default=0, help="the last N of them (all)")


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
    print(json.dumps(_shown(report)) if args.json else "\n".join(report_words(state / FILE, report)))
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
    if args.last < 0:
        raise SettingError("--last", "a number from 1 on is needed")
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
        print(json.dumps(line) if args.json else _row(number, line))
    return DONE


def _row(number: int, line: dict[str, Any] | None) -> str:
    if line is None:
        return f"{number:>6}  (cut short as it was written)"
    fields = "  ".join(f"{name}={json.dumps(value)}" for name, value in line.items() if name not in CHAIN)
    # Whatever the file says, a terminal gets no control characters of it.
    time, action, who = (json.dumps(str(line.get(name) or "-"))[1:-1] for name in ("time", "action", "who"))
    return f"{number:>6}  {time}  {action}  {who}  {fields}"
