"""``urlward status``: the status as JSON, or in lines for a terminal."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from urlward.commands.arguments import DONE, WRONG, Command, add_state_arguments
from urlward.config import SYSTEM, Config, configured
from urlward.engine.errors import UrlwardError
from urlward.lines import columns
from urlward.units import in_words, seconds

_LOOK = 0.5
"""Seconds between two looks while all is waited to be well."""

_LISTS = ("list", "entries", "serial", "age")
_PUBLISHED = ("list", "entries", "for all", "for canaries", "state")
_FEEDS = ("feed", "entries", "serial", "last success", "next run", "state")
_STORES = ("store", "written", "failures", "state")
_NUMBERS = ("entries", "serial", "for all", "for canaries", "written", "failures")


def add_status_commands(command: Command) -> None:
    """Declare ``urlward status``; what it needs is imported when it runs."""
    status = command("status", _status, "Exit code 0 where all is well, 1 where something is not.")
    status.add_argument("--json", action="store_true", help="as a JSON object")
    status.add_argument(
        "--wait",
        type=_length,
        default=0.0,
        metavar="TIME",
        help="for all to be well, so long at most: 30s, 2m (0s)",
    )
    add_state_arguments(status)


def _length(text: str) -> float:
    try:
        return cast("float", seconds(text))
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from e


def _status(args: argparse.Namespace) -> int:
    from urlward.records.asking import NotRunningError, ask
    from urlward.records.status import status_alone
    from urlward.state.folder import state_folder

    path, config = configured(args.config)
    state = state_folder(args.state or config.state)
    until = time.monotonic() + args.wait
    while True:
        alone, is_last = "", time.monotonic() >= until
        try:
            found = ask(state, "status")
        except NotRunningError as e:
            alone = f"urlward: {e}{_why(config, configures=path is not None)}"
            found = status_alone(config.feed, state, time.time())
        except UrlwardError:  # as from one whose place another takes
            if is_last:
                raise
            found = {"ok": False}
        if found["ok"] or is_last:
            break
        time.sleep(_LOOK)
    if alone:
        print(alone, file=sys.stderr)
    text = json.dumps(found, indent=1) if args.json else "\n".join(lines(found)).strip("\n")
    if text:
        print(text)
    return DONE if found["ok"] else WRONG


def _why(config: Config, *, configures: bool) -> str:
    if not configures:
        return f"; there is no {SYSTEM} either: give the filter's configuration with --config"
    return (
        ""
        if getattr(config, "records", None) is not None
        else ", since nothing is to be recorded: add [records] to the configuration"
    )


def lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Format a status as of `urlward.records.status`, one thing a line; between an upgrade and the reload
    behind it, of an earlier release, which says less."""
    if status["running"]:
        yield from _running(status)
    if status["feeds"]:
        yield ""
        yield from columns([_FEEDS, *map(_feed_row, status["feeds"])], _NUMBERS)
    if status["running"]:
        yield ""
        yield from _records(status)
    wrong = list(_wrong(status))
    if wrong:
        yield ""
    yield from wrong


def _running(status: Mapping[str, Any]) -> Iterator[str]:
    workers, hour = status["workers"], status["hour"]
    yield f"{'node':13}{status['node'] or '-'}"
    if publish := status.get("publish"):
        yield from _publishing(publish)
        return
    yield f"{'workers':13}{workers['reporting']} of {workers['expected']} report"
    if status.get("monitor"):
        yield f"{'monitor':13}nothing is blocked, what would be is recorded"
    yield f"{'connections':13}{status['connections']}"
    yield f"{'stall':13}{status['stall'] * 1000:.0f} ms at most in the last minute"
    yield (
        f"{'last hour':13}{hour['judged']} judged, {hour['blocked']} blocked, "
        f"{hour['would_block']} would be blocked, {hour['errors']} errors "
        "(or since the start, if that was later)"
    )
    yield from shared_lines(status)
    if status["lists"]:
        yield ""
        rows = [
            (li["name"], str(li["entries"]), str(li["serial"]), _ago(li["age"])) for li in status["lists"]
        ]
        yield from columns([_LISTS, *rows], _NUMBERS)


def _publishing(publish: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'publisher':13}{'leads' if publish['leads'] else 'waits: another leads, or may'}"
    if publish["lists"]:
        yield ""
        rows = [
            (each["name"], str(each["entries"]), str(each["stable"]), str(each["canary"]), each["state"])
            for each in publish["lists"]
        ]
        yield from columns([_PUBLISHED, *rows], _NUMBERS)


def shared_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Lines on the fleet and the hooks of resolvers, where there are some; of a version before, none."""
    if fleet := status.get("fleet"):
        yield f"{'fleet':13}{fleet_text(fleet)}"
    if hook := status.get("hook"):
        yield f"{'hook':13}{hook_text(hook)}"


def fleet_text(fleet: Mapping[str, Any]) -> str:
    """Words on a status' ``fleet``."""
    valkey = "Valkey is there" if fleet["up"] else f"Valkey is away{': ' * bool(fleet['why'])}{fleet['why']}"
    states = [f"{count} {state}" for state, count in fleet["nodes"].items() if count]
    answers, late = sum(fleet["answers"].values()), fleet["answers"]["late"]
    return f"{valkey}; {nodes_text(states)}; DNS answers late: {late} of {answers}"


def nodes_text(states: Sequence[str]) -> str:
    """Words on how many nodes are in each state."""
    return f"nodes: {', '.join(states)}" if states else "no node is known"


def hook_text(hook: Mapping[str, Any]) -> str:
    """Words on a status' ``hook``; what is not known is None."""
    connected, late = hook["connected"], hook["late"]
    there = "nobody listens" if connected is None else f"connections of resolvers: {connected}"
    return there if late is None else f"{there}; replies too late: {late}"


def _records(status: Mapping[str, Any]) -> Iterator[str]:
    if status["stores"]:
        rows = [
            (store["name"], str(store["written"]), str(store["failures"]), "up" if store["up"] else "down")
            for store in status["stores"]
        ]
        yield from columns([_STORES, *rows], _NUMBERS)
    spool = status["spool"]
    yield f"{'queue':13}{status['queue']} events"
    yield f"{'spool':13}{spool['events']} events, {spool['bytes']} of {spool['limit']} bytes"
    yield f"{'dropped':13}{status['dropped']} events"


def _wrong(status: Mapping[str, Any]) -> Iterator[str]:
    if changed := status.get("configuration"):
        yield f"configuration: {changed}"
    for kind, text in status.get("alarms", {}).items():
        yield f"alarm: {kind}: {text}"
    for name in status.get("workers", {}).get("silent", ()):
        yield f"worker {name}: silent"
    for li in status.get("lists", ()):
        if not li["agreed"]:
            yield f"list {li['name']}: workers have different serials"
    for feed in status["feeds"]:
        for alarm in feed["alarms"]:
            yield f"feed {feed['name']}: {alarm}"
        if feed["reason"]:
            times = f" ({feed['failures']} times)" if feed["failures"] > 1 else ""
            yield f"feed {feed['name']}: {feed['reason']}{times}"
    for name in ("healthy", "ready"):
        for check, what in status.get(name, {}).get("failing", {}).items():
            yield f"not {name}: {check}: {', '.join(what)}"


def _feed_row(feed: Mapping[str, Any]) -> tuple[str, ...]:
    success = f"{feed['last_success']} ({_ago(feed['age'])})" if feed["last_success"] else "never"
    return (
        feed["name"],
        str(feed["entries"]),
        str(feed["serial"]),
        success,
        feed["next_run"] or "-",
        feed["state"],
    )


def _ago(seconds: int | None) -> str:
    return "-" if seconds is None else f"{in_words(seconds)} ago"
