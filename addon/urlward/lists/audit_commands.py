"""``urlward audit``."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from urlward.lists.arguments import DONE, WRONG, Command, state_of, state_subcommand
from urlward.lists.audit import FILE, AuditError, Report, read_audit, verify

_HASH = re.compile(r"[0-9A-Fa-f]{64}").fullmatch
_CHAIN = ("seq", "time", "action", "who", "prev", "hash")


def add_audit_commands(command: Command) -> None:
    """Declare them."""
    audit = command("audit", None, "The log of who did or asked what, when and why.")
    of_audit = audit.add_subparsers(required=True, metavar="COMMAND")
    checked = _sub(
        of_audit, "verify", _verify, "Exit code 0 where the log is as it was written, 1 where not."
    )
    checked.add_argument("--known", metavar="HASH", default="", help="a hash that a line must have")
    listed = _sub(of_audit, "list", _list, "Show the log.")
    listed.add_argument("--action", metavar="NAME", help="lines of that action alone")
    listed.add_argument("--last", type=int, metavar="N", default=0, help="the last N of them (all)")


def _sub(commands: Any, name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
    sub = state_subcommand(commands, name, function, help_text)
    sub.add_argument("--json", action="store_true", help="as JSON objects")
    return sub


def _verify(args: argparse.Namespace) -> int:
    if args.known and not _HASH(args.known):
        raise AuditError("known: not a hash of 64 hexadecimal digits, as `urlward audit verify` shows")
    state = state_of(args)
    report = verify(state, args.known)
    print(json.dumps(_shown(report)) if args.json else "\n".join(_told(state / FILE, report)))
    return DONE if report.holds else WRONG


def _shown(report: Report) -> dict[str, Any]:
    return {
        "holds": report.holds,
        "lines": report.lines,
        "unchained": report.unchained,
        "torn": report.torn,
        "broken": {"line": report.broken.line, "reason": report.broken.reason} if report.broken else None,
        "has_known": report.has_known,
        "head": report.head,
    }


def _told(path: Path, report: Report) -> list[str]:
    if report.broken:
        return [f"{path}:{report.broken.line}: {report.broken.reason}"]
    told = [f"{path}: {report.lines} lines, the chain holds"]
    if report.unchained:
        told.append(f"lines 1 to {report.unchained} are older than the chain, and bound by its first line")
    if report.torn:
        told.append(f"cut short as they were written: lines {', '.join(map(str, report.torn))}")
    if not report.has_known:
        told.append("no line has the hash that is known: the log was cut, or made anew")
    if report.head:
        told.append(f"last hash {report.head}")
    return told


def _list(args: argparse.Namespace) -> int:
    lines = [
        (number, line)
        for number, line in enumerate(read_audit(state_of(args)), 1)
        if args.action is None or (line is not None and line.get("action") == args.action)
    ]
    for number, line in lines[-args.last :] if args.last > 0 else lines:
        print(json.dumps(line) if args.json else _row(number, line))
    return DONE


def _row(number: int, line: dict[str, Any] | None) -> str:
    if line is None:
        return f"{number:>6}  (cut short as it was written)"
    fields = "  ".join(f"{name}={json.dumps(value)}" for name, value in line.items() if name not in _CHAIN)
    # Whatever the file says, a terminal gets no control characters of it.
    time, action, who = (json.dumps(str(line.get(name) or "-"))[1:-1] for name in ("time", "action", "who"))
    return f"{number:>6}  {time}  {action}  {who}  {fields}"
