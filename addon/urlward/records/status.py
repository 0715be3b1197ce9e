"""Status of the filter, by names that scripts rely on, for ``urlward status`` and the dashboard."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urlward.config import FeedTable
from urlward.engine.dates import time_text
from urlward.records.exposition import Exposition
from urlward.records.feed_figures import FeedFigures, feed_figures
from urlward.records.health import REPORT_WITHIN, Health, healthy, ready
from urlward.records.metrics import ListFacts
from urlward.records.recorder import RecorderState

VERSION = 1


def health_of(exposition: Exposition) -> Health:
    """Health for ``/healthz``."""
    return healthy(exposition.silence(), exposition.expected, exposition.rules())


def readiness_of(exposition: Exposition) -> Health:
    """Readiness for ``/readyz``."""
    lists = [snapshot.lists for snapshot in exposition.live()]
    return ready(lists, exposition.feeds(), exposition.recorder(), exposition.troubles(), exposition.rules())


def status_of(exposition: Exposition, *, node: str = "", now: float | None = None) -> dict[str, Any]:
    """Status that the recorder answers to ``{"ask": "status"}``; times as RFC 3339 has them, None for never.

    Args:
        exposition: of all workers.
        node: the machine's name.
        now: seconds since 1970-01-01 UTC, if not the time.
    """
    now = time.time() if now is None else now
    silence, recorder = exposition.silence(), exposition.recorder()
    live, feeds = exposition.live(), exposition.feeds()
    alive, rules = health_of(exposition), exposition.rules()
    filters = ready([s.lists for s in live], feeds, recorder, exposition.troubles(), rules)
    return {
        "version": VERSION,
        "running": True,
        "ok": alive.ok and filters.ok and not recorder.alarms,
        "node": node,
        "time": _time(now),
        "workers": {
            "expected": exposition.expected,
            "reporting": sum(seconds <= REPORT_WITHIN for seconds in silence.values()),
            "silent": sorted(name for name, seconds in silence.items() if seconds > REPORT_WITHIN),
        },
        "lists": _lists([facts for snapshot in live for facts in snapshot.lists], now),
        "feeds": [_feed(feed, now) for feed in feeds],
        **_recorder(recorder, sum(snapshot.queue for snapshot in live)),
        "dropped": exposition.dropped(),
        "hour": exposition.last_hour(),
        "connections": sum(snapshot.open for snapshot in live),
        "canary": _time(min((snapshot.canary for snapshot in live), default=0.0)),
        "authority": _time(min((s.authority for s in live if s.authority), default=0.0)),
        "stall": max((snapshot.stall_longest for snapshot in live), default=0.0),
        "rules": rules and {"restored": rules.restored, "hand": rules.hand, "wrong": list(rules.wrong)},
        "alarms": dict(recorder.alarms),
        "healthy": alive.as_json(),
        "ready": filters.as_json(),
    }


def status_alone(feeds: Sequence[FeedTable], state: Path, now: float) -> dict[str, Any]:
    """Status without a recorder: the feeds alone."""
    return {
        "version": VERSION,
        "running": False,
        "ok": False,
        "time": _time(now),
        "feeds": [_feed(feed, now) for feed in feed_figures(feeds, state, now)],
    }


def _recorder(recorder: RecorderState, queued: int) -> dict[str, Any]:
    return {
        "stores": [
            {"name": name, "up": store.up, "written": store.written, "failures": store.failures}
            for name, store in recorder.stores.items()
        ],
        "queue": queued + recorder.queue,
        "spool": {
            "events": recorder.spool_events,
            "bytes": recorder.spool_bytes,
            "limit": recorder.spool_limit,
        },
    }


def _lists(found: Sequence[ListFacts], now: float) -> list[dict[str, Any]]:
    by_name: dict[str, list[ListFacts]] = {}
    for facts in found:
        by_name.setdefault(facts.name, []).append(facts)
    shown = []
    for name, each in sorted(by_name.items()):
        behind = min(each, key=lambda facts: facts.serial)
        shown.append(
            {
                "name": name,
                "serial": behind.serial,
                "entries": behind.entries,
                "age": round(now - behind.created) if behind.created else None,
                "agreed": len({facts.serial for facts in each}) == 1,
            }
        )
    return shown


def _feed(feed: FeedFigures, now: float) -> dict[str, Any]:
    return {
        "name": feed.name,
        "state": feed.state,
        "serial": feed.serial,
        "entries": feed.entries,
        "age": round(now - feed.last_success) if feed.last_success else None,
        "last_success": _time(feed.last_success),
        "next_run": _time(feed.next_run),
        "failures": feed.failures,
        "reason": feed.reason,
        "alarms": list(feed.alarms),
    }


def _time(seconds: float) -> str | None:
    return time_text(int(seconds)) if seconds else None
