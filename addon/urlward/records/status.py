"""Status of the filter, by names that scripts rely on, for ``urlward status`` and the dashboard; with checks
of its health and readiness, ``/healthz`` and ``/readyz``.

Names and numbers only in those, since whoever asks for them needs no token: no list's content, and no error's
text.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from urlward.config import FeedTable
from urlward.engine.dates import age_or_none, time_or_none
from urlward.records.delivery import RecorderState
from urlward.records.exposition import Exposition, FeedFigures, PublishFigures, feed_figures
from urlward.records.metrics import OTHER, SETTLED, ListFacts, RulesFacts

REPORT_WITHIN = 5.0
"""Seconds in which each worker has to report."""

_SERVES = ("ok", "failed", "paused", "held")
"""States of a feed whose list is good enough to filter by; one without a list gives an alarm, or waits, or no
worker has it."""


@dataclass(frozen=True, slots=True)
class Health:
    """Result of health checks.

    Attributes:
        checks: for each check what fails; empty where all is well.
    """

    checks: Mapping[str, Sequence[str]]

    @property
    def ok(self) -> bool:
        """Whether no check fails."""
        return not any(self.checks.values())

    @property
    def passed(self) -> dict[str, bool]:
        """Result of each check: whether it passed."""
        return {name: not what for name, what in self.checks.items()}

    @property
    def status(self) -> int:
        """HTTP status: 200 or 503."""
        return 200 if self.ok else 503

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        failing = {name: list(what) for name, what in self.checks.items() if what}
        return {"ok": self.ok, "checks": list(self.checks), "failing": failing}


def healthy(
    silence: Mapping[str, float], expected: int, rules: RulesFacts | None = None, *, stopped: bool = False
) -> Health:
    """Check health: whether the workers are there, and the rules of a gateway that are wanted.

    Args:
        silence: seconds since each connected worker has reported.
        expected: how many there should be.
        rules: of a gateway.
        stopped: whether who would replace a worker is.
    """
    reporting = sum(seconds <= REPORT_WITHIN for seconds in silence.values())
    missing = [f"{reporting} of {expected} report"] if reporting < expected else []
    missing += ["the supervisor is stopped"] if stopped else []
    # Rules that the operator has taken away need no other process.
    unwanted = [what for what in rules.wrong if what != "down"] if rules is not None else []
    return Health({"workers": missing} | ({"rules": unwanted} if rules is not None else {}))


def ready(
    lists: Iterable[Sequence[ListFacts]],
    feeds: Iterable[FeedFigures],
    recorder: RecorderState,
    troubles: Mapping[tuple[str, str], str] | None = None,
    rules: RulesFacts | None = None,
    *,
    filters: bool = True,
) -> Health:
    """Check readiness: whether traffic is filtered and recorded as it should be.

    Args:
        lists: that are in force in each worker.
        feeds: how they are.
        recorder: what it says of itself.
        rules: of a gateway; None where there is none.
        troubles: what workers say of traffic, by kind and worker; of these, that the canary does not come
            through counts.
        filters: whether there is to be any worker, which a publisher has none of.
    """
    workers = list(lists)
    empty = sum(not any(facts.entries for facts in in_force) for in_force in workers)
    without = ["no worker has reported"] if filters and not workers else []
    without += [f"{empty} of {len(workers)} workers have none"] if empty else []
    known = [{facts.name for facts in in_force} for in_force in workers]

    def lacks(feed: FeedFigures) -> bool:
        # Beyond so many lists a worker does not tell their names apart.
        return feed.state not in _SERVES or any(not names & {feed.name, OTHER} for names in known)

    return Health(
        {
            "lists": without,
            "stores": sorted(name for name, store in recorder.stores.items() if not store.up),
            "feeds": sorted(feed.name for feed in feeds if lacks(feed)),
            "canary": sorted(
                f"worker {worker}: {why}"
                for (kind, worker), why in (troubles or {}).items()
                if kind == "canary"
            ),
        }
        | ({"rules": list(rules.wrong)} if rules is not None else {})
    )


VERSION = 1


def health_of(exposition: Exposition) -> Health:
    """Health for ``/healthz``."""
    return healthy(
        exposition.silence(), exposition.expected, exposition.rules(), stopped=exposition.stopped()
    )


def readiness_of(exposition: Exposition) -> Health:
    """Readiness for ``/readyz``."""
    return ready(
        [snapshot.lists for snapshot in exposition.live()], exposition.feeds(), exposition.recorder(),
        exposition.troubles(), exposition.rules(), filters=exposition.publishing() is None,
    )  # fmt: skip


def status_of(
    exposition: Exposition,
    *,
    node: str = "",
    now: float | None = None,
    changed: str = "",
    monitors: bool = False,
) -> dict[str, Any]:
    """Status that the recorder answers to ``{"ask": "status"}``; times as RFC 3339 has them, None for never.

    Args:
        exposition: of all workers.
        node: the machine's name.
        now: seconds since 1970-01-01 UTC, if not the time.
        changed: words where the configuration's files say other things than what is in force.
        monitors: whether nothing is blocked, and what would be is told.
    """
    now = time.time() if now is None else now
    silence, recorder = exposition.silence(), exposition.recorder()
    live, feeds = exposition.live(), exposition.feeds()
    alive, filters = health_of(exposition), readiness_of(exposition)
    rules, publishing = exposition.rules(), exposition.publishing()
    hooks = [snapshot.resolvers for snapshot in live if snapshot.resolvers is not None]
    return {
        "version": VERSION,
        "running": True,
        "ok": alive.ok and filters.ok and not recorder.alarms and not changed,
        "node": node,
        "time": time_or_none(now),
        "configuration": changed,
        "monitor": monitors,
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
        "canary": time_or_none(min((snapshot.canary for snapshot in live), default=0.0)),
        "authority": time_or_none(min((s.authority for s in live if s.authority), default=0.0)),
        "stall": max((snapshot.stall_longest for snapshot in live), default=0.0),
        "rules": rules and {"restored": rules.restored, "hand": rules.hand, "wrong": list(rules.wrong)},
        "publish": publishing and _publishing(publishing),
        "fleet": _fleet(exposition),
        "hook": {"connected": sum(hooks), "late": _late_hooks(exposition)} if hooks else None,
        "alarms": dict(recorder.alarms),
        "healthy": alive.as_json(),
        "ready": filters.as_json(),
    }


def _fleet(exposition: Exposition) -> dict[str, Any] | None:
    figures = exposition.fleet()
    if figures is None:
        return None
    live, total = exposition.live(), exposition.total()
    answers = {name: round(total.get(("fleet", name), 0)) for name in SETTLED}
    up = figures.has_valkey(live)
    return {"up": up, "why": figures.why, "nodes": dict(figures.nodes), "answers": answers}


def _late_hooks(exposition: Exposition) -> int:
    return round(exposition.total().get(("errors", "late"), 0))


def status_alone(feeds: Sequence[FeedTable], state: Path, now: float) -> dict[str, Any]:
    """Status without a recorder: the feeds alone."""
    return {
        "version": VERSION,
        "running": False,
        "ok": False,
        "time": time_or_none(now),
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
                "age": age_or_none(behind.created, now),
                # Several lists are `OTHER`, by names that no label takes.
                "agreed": name == OTHER or len({facts.serial for facts in each}) == 1,
            }
        )
    return shown


def _publishing(figures: PublishFigures) -> dict[str, Any]:
    return {
        "leads": figures.leads,
        "lists": [asdict(one) | {"last_success": time_or_none(one.last_success)} for one in figures.lists],
        "failures": dict(figures.failures),
    }


def _feed(feed: FeedFigures, now: float) -> dict[str, Any]:
    return {
        "name": feed.name,
        "state": feed.state,
        "kind": feed.kind,
        "serial": feed.serial,
        "entries": feed.entries,
        "age": age_or_none(feed.last_success, now),
        "last_success": time_or_none(feed.last_success),
        "next_run": time_or_none(feed.next_run),
        "failures": feed.failures,
        "reason": feed.reason,
        "alarms": list(feed.alarms),
    }
