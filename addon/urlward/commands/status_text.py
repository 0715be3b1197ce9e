"""Text of the status, in lines for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from urlward.units import in_words

_LISTS = ("list", "entries", "serial", "age")
_FEEDS = ("feed", "entries", "serial", "last success", "next run", "state")
_STORES = ("store", "written", "failures", "state")
_NUMBERS = ("entries", "serial", "written", "failures")


def lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Format a status as of `urlward.records.status`, one thing a line."""
    if status["running"]:
        yield from _running(status)
    if status["feeds"]:
        yield ""
        yield from _columns(_FEEDS, [_feed_row(feed) for feed in status["feeds"]])
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
    yield f"{'workers':13}{workers['reporting']} of {workers['expected']} report"
    yield f"{'connections':13}{status['connections']}"
    yield f"{'stall':13}{status['stall'] * 1000:.0f} ms at most in the last minute"
    yield (
        f"{'last hour':13}{hour['judged']} judged, {hour['blocked']} blocked, "
        f"{hour['would_block']} would be blocked, {hour['errors']} errors "
        "(or since the start, if that was later)"
    )
    if status["lists"]:
        yield ""
        yield from _columns(
            _LISTS,
            [(li["name"], str(li["entries"]), str(li["serial"]), _ago(li["age"])) for li in status["lists"]],
        )


def _records(status: Mapping[str, Any]) -> Iterator[str]:
    if status["stores"]:
        yield from _columns(
            _STORES,
            [
                (
                    store["name"],
                    str(store["written"]),
                    str(store["failures"]),
                    "up" if store["up"] else "down",
                )
                for store in status["stores"]
            ],
        )
    spool = status["spool"]
    yield f"{'queue':13}{status['queue']} events"
    yield f"{'spool':13}{spool['events']} events, {spool['bytes']} of {spool['limit']} bytes"
    yield f"{'dropped':13}{status['dropped']} events"


def _wrong(status: Mapping[str, Any]) -> Iterator[str]:
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


def _columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cells = [names, *rows]
    widths = [max(len(row[number]) for row in cells) for number in range(len(names))]
    for row in cells:
        padded = (
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(names, row, widths, strict=True)
        )
        yield "  ".join(padded).rstrip()
