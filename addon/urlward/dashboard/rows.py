"""Rows of the dashboard's tables, from the data of urlward's parts."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from urlward.dashboard.sources import Row
from urlward.engine.dates import time_text
from urlward.policy.allows import rfc3339


def of_list(
    name: str, serial: int, entries: int | None, created: int, *, now: float, feeds: Collection[str]
) -> Row:
    """Row of a list, without its ``hits``.

    Args:
        name: of it.
        serial: 0 where it is not known, as `created`.
        entries: None where no worker has it.
        created: seconds since 1970-01-01 UTC, as `now`.
        now: for its age.
        feeds: names of those that are feeds.
    """
    return {
        "name": name,
        "kind": "feed" if name in feeds else "allows" if name == "allows" else "file",
        "serial": serial,
        "created": time_text(created) if created else "",
        "age": max(round(now - created), 0) if created else None,
        "entries": entries,
        "note": "" if entries is not None else "no worker has it in force",
    }


def of_worker(name: str, snapshot: Mapping[str, Any]) -> Row:
    """Row of a worker, from its snapshot."""
    return {
        "name": name,
        "since": rfc3339(snapshot["started"]),
        "connections": snapshot["open"],
        "queue": snapshot["queue"],
        "dropped": snapshot["dropped"],
    }


def of_alarm(event: Row) -> Row:
    """Row of a recorded alarm."""
    try:
        detail = json.loads(event["detail"] or "{}")
    except ValueError:
        detail = {}
    found = detail if isinstance(detail, dict) else {}
    return {
        "time": rfc3339(event["time"] / 1000),
        "source": event["list"] or event["node"],
        "alarm": str(found.get("alarm") or event["kind"]),
        "text": str(found.get("text") or event["detail"]),
        "current": False,
    }
