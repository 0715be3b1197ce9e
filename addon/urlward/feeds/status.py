"""Status of feeds, as JSON and as a table."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from urlward.config import FeedTable
from urlward.engine.dates import time_text
from urlward.feeds.alarms import alarms, state_of
from urlward.feeds.store import FeedStore
from urlward.lines import columns
from urlward.units import counted, in_words

_COLUMNS = ("feed", "entries", "serial", "last success", "change", "next run", "state")
_NUMBERS = (1, 2)


def status(feed: FeedTable, state: Path, now: float) -> dict[str, Any]:
    """Status of a feed, by names that scripts rely on; times as RFC 3339 has them, None for never.

    ``state`` is as `state_of` has it.

    Raises:
        StateError: the state folder cannot be used.
    """
    store = FeedStore(state, feed.name)
    facts, header, in_force = store.facts(), store.header(), store.in_force()
    found = alarms(feed, facts, header, now)
    return {
        "name": feed.name,
        "state": state_of(facts, found, has_list=in_force is not None),
        "entries": in_force.meta["entries"] if in_force else 0,
        "serial": in_force.header.serial if in_force else 0,
        "valid_until": _time(in_force.header.valid_until if in_force else 0),
        "last_attempt": _time(facts.last_attempt),
        "last_success": _time(facts.last_success),
        "last_change": _time(facts.last_change),
        "age": round(now - facts.last_success) if facts.last_success else None,
        "added": facts.added,
        "removed": facts.removed,
        "bad": facts.bad,
        "unsupported": facts.unsupported,
        "next_run": _time(facts.next_run),
        "failures": facts.failures,
        "reason": facts.reason,
        "error": facts.error,
        "refused": asdict(facts.refused) | {"content": None} if facts.refused else None,
        "accepted": facts.accepted is not None,
        "alarms": found,
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Format lines for a terminal: one a feed, and one for each thing that is wrong with it."""
    head, *lines = columns([_COLUMNS, *map(_cells, rows)], _NUMBERS)
    pairs = zip(rows, lines, strict=True)
    return [head, *(text for row, line in pairs for text in (line, *(f"  {one}" for one in _wrong(row))))]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    success = f"{row['last_success']} ({in_words(row['age'])} ago)" if row["last_success"] else "never"
    return (
        row["name"],
        str(row["entries"]),
        str(row["serial"]),
        success,
        f"+{row['added']} -{row['removed']}",
        row["next_run"] or "-",
        row["state"],
    )


def _wrong(row: dict[str, Any]) -> list[str]:
    lines = [f"{kind}: {text}" for kind, text in row["alarms"].items()]
    if row["reason"]:
        times = f" ({row['failures']} times)" if row["failures"] > 1 else ""
        lines.append(f"{row['reason']}: {row['error']}{times}")
    if row["refused"]:
        said = (
            "accepted, the next refresh takes it"
            if row["accepted"]
            else f"urlward feeds accept {row['name']}"
        )
        lines.append(f"refused: {counted(row['refused']['entries'], 'entry')}; {said}")
    return lines


def _time(seconds: float) -> str | None:
    return time_text(int(seconds)) if seconds else None
