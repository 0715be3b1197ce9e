import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from dashboard.admin_support import FIRST, event
from lists.policy_support import config as read
from urlward.dashboard.asked import OF_EVENTS
from urlward.dashboard.live_sources import LiveSources, RecorderParts
from urlward.dashboard.sources import NotConfiguredError, Row
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.feeds.store import Facts, FeedStore, Refused
from urlward.objections.objections import Grant
from urlward.records.store import EventQuery

NOW = FIRST / 1000 + 3_600
CONFIG = """
[[feed]]
name = "hotline"
path = "hotline.txt"
format = "hosts"
stale_after = "1h"
"""


class Store:
    """Finds what it was given, as a store does."""

    def __init__(self, events: list[Row]) -> None:
        self.events = sorted(events, key=lambda one: one["id"], reverse=True)
        self.asked: list[EventQuery] = []

    def find(self, wanted: EventQuery) -> list[Row]:
        self.asked.append(wanted)
        names = [name for name in ("reference", "list") if getattr(wanted, name) is not None]
        found = [one for one in self.events if wanted.before is None or one["id"] < wanted.before]
        found = [one for one in found if not wanted.kinds or one["kind"] in wanted.kinds]
        found = [one for one in found if all(one[name] == getattr(wanted, name) for name in names)]
        return found[: wanted.limit]

    def count(self, wanted: EventQuery, by: str) -> Mapping[str, int]:
        self.asked.append(wanted)
        return {"hotline": 3} if by == "list" else {"phishing": 3}


class Book:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def listed(self) -> list[Row]:
        return [
            {"id": "o-1", "state": "open", "reference": event(7)["reference"]},
            {"id": "o-2", "state": "open", "reference": "none"},
            {"id": "o-3", "state": "declined", "reference": event(7)["reference"]},
        ]

    def decide(self, id_: str, why: str, who: str, *, granted: Grant | None) -> None:
        self.told.append((id_, why, who, granted))


def snapshot(started: float, requests: int = 0, serial: int = 17) -> dict[str, Any]:
    return {
        "started": started, "open": 2, "queue": 1, "dropped": 0,
        "stall_longest": 0.001, "stall_newest": 0.001,
        "requests": {"match": {"pass": requests}}, "blocks": {},
        "histograms": {"added": {"counts": [requests], "sum": 0.0}},
        "lists": [["hotline", serial, 9, round(NOW - 60)], ["mine", 3, 4, 0]],
    }  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def sources(tmp_path: Path, parts: RecorderParts | None = None, text: str = CONFIG) -> LiveSources:
    return LiveSources(read(tmp_path, text), tmp_path / "state", parts, clock=lambda: NOW)


def test_without_parts_it_is_said_what_is_absent(tmp_path: Path):
    live = sources(tmp_path)
    absent = [
        live.metrics_text, live.now, live.hits, lambda: live.events(EventQuery()), live.objections,
        lambda: live.decide_objection("o-1", "x", "ann", granted=None),
    ]  # fmt: skip
    for ask in absent:
        with pytest.raises(NotConfiguredError):
            ask()
    assert live.health()
    assert live.alarms() == []
    (row,) = live.lists()
    assert (row["name"], row["kind"], row["entries"], row["hits"]) == ("hotline", "feed", None, None)


def test_ready_is_what_the_recorder_says_and_the_folder(tmp_path: Path, state: Path):
    live = sources(tmp_path, RecorderParts(ready=lambda: {"store": False}))
    assert live.ready() == {"state": False, "store": False}
    state.mkdir()
    assert sources(tmp_path).ready() == {"state": True}


def test_lists_are_those_that_workers_have(tmp_path: Path):
    snapshots = {"a": snapshot(2.0, serial=18), "b": snapshot(1.0)}
    live = sources(tmp_path, RecorderParts(finder=Store([]), snapshots=lambda: snapshots))
    hotline, own = live.lists()
    assert hotline == {
        "name": "hotline", "kind": "feed", "serial": 18, "created": time_text(NOW - 60), "age": 60,
        "entries": 9, "note": "", "hits": 3,
    }  # fmt: skip
    assert (own["kind"], own["age"], own["hits"]) == ("file", None, 0)


def test_now_is_what_the_ticks_have_seen(tmp_path: Path):
    moment, count = NOW, 0
    live = LiveSources(
        read(tmp_path, CONFIG),
        tmp_path / "state",
        RecorderParts(
            snapshots=lambda: {"w0": snapshot(1.0)}, total=lambda: {("requests", "match", "pass"): count}
        ),
        clock=lambda: moment,
    )
    for _ in range(3):
        live.tick()
        moment, count = moment + 1, count + 5
    now = live.now()
    assert now["requests"] == [0, 5, 5]
    assert now["workers"] == [
        {"name": "w0", "since": "1970-01-01T00:00:01Z", "connections": 2, "queue": 1, "dropped": 0}
    ]


def test_events_are_paged_by_their_ids(tmp_path: Path):
    store = Store([event(n) for n in range(5)])
    live = sources(tmp_path, RecorderParts(finder=store))
    first = live.events(EventQuery(limit=2))
    second = live.events(EventQuery(limit=2, before=first.older))
    third = live.events(EventQuery(limit=2, before=second.older))
    assert [len(page.events) for page in (first, second, third)] == [2, 2, 1]
    assert third.older == ""
    assert live.events(EventQuery(limit=5)).older == ""
    assert set(OF_EVENTS) - {"kind"} | {"kinds"} == {
        "kinds", "since", "until", "reference", "list", "category", "entry", "before", "limit",
    }  # fmt: skip


def test_hits_are_of_blocks_of_the_last_day(tmp_path: Path):
    store = Store([])
    assert sources(tmp_path, RecorderParts(finder=store)).hits() == {
        "list": {"hotline": 3},
        "category": {"phishing": 3},
    }
    assert store.asked[0] == EventQuery(kinds=("block", "cut"), since=round(NOW * 1000) - 86_400_000)


def test_alarms_are_current_or_recorded(tmp_path: Path, state: Path):
    store = FeedStore(state, "hotline")
    with store.locked():
        store.write_facts(Facts(since=NOW - 9_000, last_success=NOW - 8_000))
    detail = json.dumps({"alarm": "spool", "text": "the store was down"})
    past = event(1) | {"kind": "alarm", "list": "", "detail": detail}
    odd = event(0) | {"kind": "gap", "list": "", "detail": "[1"}
    own = {"time": "", "source": "gw1", "alarm": "store", "text": "down", "current": True}
    live = sources(tmp_path, RecorderParts(finder=Store([past, odd, event(2)]), alarms=lambda: [own]))
    found = live.alarms()
    assert [(one["source"], one["alarm"], one["current"]) for one in found] == [
        ("hotline", "missing", True),
        ("hotline", "stale", True),
        ("gw1", "store", True),
        ("gw1", "spool", False),
        ("gw1", "gap", False),
    ]
    assert found[3]["text"] == "the store was down"


def test_allows_are_made_shown_and_ended(tmp_path: Path, state: Path):
    live = sources(tmp_path)
    made = live.allow("http://listed.example/secret", 60, "ticket 31", "ann (dashboard)", whole_host=False)
    assert live.allows() == [made]
    assert (made["kind"], made["who"]) == ("page", "ann (dashboard)")
    with pytest.raises(UrlwardError):
        live.allow("http://listed.example/", 60, "for listed.example", "ann", whole_host=False)
    live.end_allow(made["id"], "done", "bob")
    assert live.allows() == []
    written = b"".join(path.read_bytes() for path in state.iterdir())
    assert b"listed.example" not in written
    assert b"bob" in written


def test_feeds_are_fetched_in_their_own_time(tmp_path: Path, state: Path):
    (tmp_path / "hotline.txt").write_text("".join(f"127.0.0.1 n{n}.example\n" for n in range(20)))
    live = sources(tmp_path)
    assert live.refresh_feed("hotline") == "hotline: being fetched"
    wait_for(lambda: live.feeds()[0]["state"] == "ok" and not +live._refreshes._begun, "the feed")
    assert live.feeds()[0]["entries"] == 20
    with pytest.raises(UrlwardError, match="no feed"):
        live.refresh_feed("other")


def test_a_refused_list_is_let_through(tmp_path: Path, state: Path):
    store = FeedStore(state, "hotline")
    with store.locked():
        store.write_facts(Facts(refused=Refused("shrunk", "x", 3, 20, NOW)))
    live = LiveSources(read(tmp_path, CONFIG), state, clock=time.time)
    said = live.accept_feed("hotline", "merged", "ann (dashboard)")
    assert said == "hotline: the list of 3 entries is let through once"
    wait_for(lambda: store.facts().last_attempt > 0 and not +live._refreshes._begun, "the refresh")
    audit = json.loads((state / "audit.jsonl").read_text().splitlines()[0])
    assert (audit["action"], audit["who"], audit["why"]) == ("accepted", "ann (dashboard)", "merged")


def test_open_objections_have_their_block(tmp_path: Path):
    book = Book()
    # Its own event is newer than that of the block, and has the same reference.
    own = event(7) | {"id": "f" * 32, "kind": "objection", "list": "", "entry": ""}
    live = sources(tmp_path, RecorderParts(finder=Store([own, event(7)]), objections=book))
    found, unknown, closed = live.objections()
    assert (found["list"], found["entry"]) == ("phishing", "e-7")
    assert "list" not in unknown
    assert "list" not in closed
    assert len(sources(tmp_path, RecorderParts(objections=book)).objections()) == 3
    live.decide_objection("o-1", "checked", "ann", granted=Grant())
    assert book.told == [("o-1", "checked", "ann", Grant())]
