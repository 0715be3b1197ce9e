"""What the tests of the dashboard share: sources that are made up, and a server in a thread."""

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from urlward.config import read_config
from urlward.dashboard.app import DashboardSettings, make_app, serve
from urlward.dashboard.editing import Editor
from urlward.dashboard.history import History, Step, past
from urlward.dashboard.live_sources import LiveSources
from urlward.dashboard.sources import (
    EventPage,
    NotConfiguredError,
    Now,
    Past,
    Row,
)
from urlward.engine.errors import UrlwardError
from urlward.feeds.own import UnsureError
from urlward.objections.objections import Grant
from urlward.policy.own import Draft, warnings_of
from urlward.records.store import EventQuery
from urlward.state.people import Person, add_person

TOKEN = "a-token-that-nobody-guesses-0123456789"
"""Of Ann, who is an operator."""

VIEWER_TOKEN = "another-token-that-nobody-guesses-9876543210"
"""Of Vic, who is a viewer."""

EVENTS = 100_000
FIRST = 1_795_600_000_000
"""Time of the first event, milliseconds since 1970-01-01 UTC; one a second follows."""


def event(number: int) -> Row:
    kind = ("block", "block", "block", "would-block", "cut")[number % 5]
    return {
        "id": f"{FIRST + 1000 * number:012x}{number:020d}",
        "time": FIRST + 1000 * number,
        "kind": kind,
        "node": "gw1",
        "client": f"192.0.2.{number % 250 + 1}",
        "client_port": 1024 + number % 60_000,
        "protocol": "http",
        "destination": "198.51.100.7",
        "destination_port": 443,
        "stage": "match",
        "list": ("hotline", "phishing")[number % 2],
        "serial": 17,
        "entry": f"e-{number % 977}",
        "category": ("child-abuse", "phishing", "=cmd")[number % 3],
        "verdict": "block",
        "reference": f"{number:04d}-2XKD-93FH" if number < 10_000 else f"{number:06d}",
        "digest": "0" * 32,
        "group": "",
        "detail": "",
    }


EDITED = """
[[feed]]
name = "hotline"
url = "https://hotline.example/list.ward"
paused = true
delta = false
[[group]]
name = "pupils"
networks = ["192.0.2.0/24"]
[[group.rule]]
categories = ["games"]
action = "allow"
schedule = "breaks"
[[rule]]
action = "monitor"
[schedule.breaks]
zone = "Europe/Madrid"
from = "10:00"
to = "10:30"
"""


EDITING = (
    "/own",
    "/configuration",
    "/configuration/feed",
    "/configuration/feed?at=feed.0",
    "/configuration/group?at=group.0",
    "/configuration/rule",
    "/configuration/rule?at=group.0.rule.0",
    "/configuration/schedule?at=schedule.breaks",
    "/lists/versions?name=hotline",
)
"""Pages by which something is edited."""
NOON = 1_795_608_000
"""2026-11-25 12:00 UTC, a while after which it is."""


def made_up(begin: int, length: int) -> Step:
    """A step of a day that is busy at noon."""
    busy = 1.5 - abs((begin % 86_400) / 43_200 - 1)
    requests = round(150 * busy * length)
    lists = {"hotline": 9, "phishing": 4, "own": 1, "malware": 3, "gambling": 2, "copyright": 1, "court": 1}
    return Step(
        seconds=length,
        requests=requests,
        lists={name: round(n * busy * length / 60) for name, n in lists.items()},
        categories={"child-abuse": round(9 * busy * length / 60), "none": round(12 * busy * length / 60)},
        dns={"pass": requests // 3, "block": length // 60},
        errors={"decision": 1} if begin % 7_200 == 0 else {},
        added=[requests // 2, requests // 3, requests // 12, requests // 12, *[0] * 9],
        added_sum=requests / 4_000,
        stall=2 + begin // length % 7,
        connections=round(900 * busy),
        feeds={"hotline": 240.0 + begin % 600, "phishing": 3_600.0 * (begin // 3_600 % 30)},
    )


class MadeUp(LiveSources):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.count = EVENTS
        self.second = 1_795_600_600
        self.in_force: dict[str, Row] = {}
        self.alarm = ""
        self.refused = True
        self.decided: dict[str, Row] = {}
        self.absent = False
        self.quiet = False
        """Whether nothing has happened, and nothing is configured."""
        self.unpublished = False
        self.folder = tempfile.TemporaryDirectory(prefix="urlward-made-up-")
        self.config = Path(self.folder.name) / "urlward.toml"
        self.config.write_text(EDITED)
        self.editor = Editor(read_config(self.config), Path(self.folder.name) / "state")

    def own(self) -> list[Row]:
        return [] if self.quiet else [{
            "id": "o-0000002a", "action": "block", "kind": "page", "category": "games", "note": "case 7",
            "expires": "2030-01-31", "created": "2026-11-25T08:00:00Z", "who": "Ann",
        }]  # fmt: skip

    def add_own(self, made: Draft, who: str, *, sure: bool) -> Row:
        if not sure and (found := warnings_of(made, lambda _: False)):
            raise UnsureError(found)
        self.told.append(("own", made.line, made.category, made.note, made.expires, who, sure))
        return self.own()[0]

    def remove_own(self, id_: str, why: str, who: str) -> Row:
        self.told.append(("own removed", id_, why, who))
        return self.own()[0]

    def reveal_own(self, id_: str, who: str) -> str:
        self.told.append(("own revealed", id_, who))
        return f"http://listed.example/page id={id_}"

    def versions(self, name: str) -> Row:
        held = {
            "serial": 5,
            "before": 6,
            "who": "Ann",
            "why": "too many",
            "at": "2026-11-25T08:00:00Z",
        }
        versions = [{"serial": n, "created": "2026-11-25T08:00:00Z"} for n in (6, 4)]
        return {"name": name, "versions": versions, "serial": 5, "held": held}

    def roll_back_feed(self, name: str, serial: int | None, why: str, who: str) -> None:
        self.told.append(("rollback", name, serial, why, who))

    def release_feed(self, name: str, why: str, who: str) -> None:
        self.told.append(("release", name, why, who))

    def metrics_text(self) -> bytes:
        return b"urlward_up 1\n"

    def now(self) -> Now:
        if self.quiet:
            return History().now([])
        self.second += 1
        seconds = list(range(self.second - 599, self.second + 1))
        return Now(
            time=self.second,
            seconds=seconds,
            requests=[180 + (s * 7919) % 60 for s in seconds],
            blocks=[(s * 31) % 9 for s in seconds],
            latency=[0.4 + (s % 13) / 40 for s in seconds],
            stall=[1 + (s * 17) % 23 / 5 for s in seconds],
            connections=1_204,
            workers=[
                {
                    "name": f"worker-{n}",
                    "since": "2026-11-25T10:00:00Z",
                    "connections": 602,
                    "queue": n,
                    "dropped": 0,
                }
                for n in range(2)
            ],
        )

    def history(self, span: str, *, rows: bool = False) -> Past:
        return past(span, self.steps, NOON + 1_234, rows=rows)

    def steps(self, length: int, since: int, until: int) -> list[tuple[int, Step]]:
        """What was counted, but for a time before the last noon."""
        if self.quiet:
            return []
        times = range(since - since % length, min(until, NOON + 1_234), length)
        return [
            (begin, made_up(begin, length)) for begin in times if not NOON - 20_000 < begin < NOON - 9_000
        ]

    def health(self) -> bool:
        return True

    def ready(self) -> dict[str, bool]:
        return {"store": not self.absent, "workers": True}

    def lists(self) -> list[Row]:
        if self.quiet:
            return []
        made = {"created": "2026-11-25T08:00:00Z", "age": 9_000, "note": ""}
        return [
            {
                "name": "hotline",
                "kind": "feed",
                "serial": 1_795_000_000,
                "entries": 1_204_311,
                "hits": 4_711,
                **made,
            },
            {"name": "own", "kind": "file", "serial": 0, "entries": 12, "hits": 0, **made},
        ]

    def hits(self) -> dict[str, dict[str, int]]:
        if self.quiet:
            return {"list": {}, "category": {}}
        return {
            "list": {"hotline": 4_711, "phishing": 811},
            "category": {"child-abuse": 4_000, "phishing": 1_522},
        }

    def feeds(self) -> list[Row]:
        if self.quiet:
            return []
        well = {
            "name": "hotline",
            "state": "ok",
            "entries": 1_204_311,
            "serial": 1_795_000_000,
            "valid_until": "2027-01-31T00:00:00Z",
            "last_attempt": "2026-11-25T10:00:00Z",
            "last_success": "2026-11-25T10:00:00Z",
            "last_change": "2026-11-25T08:00:00Z",
            "age": 240,
            "added": 31,
            "removed": 4,
            "bad": 0,
            "unsupported": 0,
            "next_run": "2026-11-25T10:05:00Z",
            "failures": 0,
            "reason": "",
            "error": "",
            "refused": None,
            "accepted": False,
            "paused": False,
            "held": None,
            "alarms": {},
        }
        held = {"serial": 5, "before": 6, "who": "Ann", "why": "too many", "at": "2026-11-25T08:00:00Z"}
        return [
            well,
            well | {"name": "games", "state": "paused", "paused": True, "next_run": None},
            well | {"name": "malware", "state": "held", "held": held, "next_run": None},
            well
            | {
                "name": "phishing",
                "state": "alarm",
                "failures": 3,
                "reason": "shrunk",
                "error": "120 entries, where 811 are in force; the limit is 50%",
                "refused": {"reason": "shrunk", "content": None, "entries": 120, "before": 811, "at": 0.0}
                if self.refused
                else None,
                "alarms": {
                    "stale": "no successful refresh since 2026-11-24T10:00:00Z, for 24h; the limit is 6h"
                },
            },
        ]

    def events(self, wanted: EventQuery) -> EventPage:
        if self.absent:
            raise NotConfiguredError("Events: no store that can be searched is configured.")
        found: list[Row] = []
        if self.quiet:
            return EventPage(found, "")
        newest = int(wanted.before[12:]) if wanted.before else self.count
        for number in range(newest - 1, -1, -1):
            one = event(number)
            if wanted.kinds and one["kind"] not in wanted.kinds:
                continue
            if wanted.since is not None and one["time"] < wanted.since:
                break
            names = ("reference", "list", "category", "entry")
            if any(value not in (None, one[name]) for name in names for value in [getattr(wanted, name)]):
                continue
            if len(found) == wanted.limit:
                return EventPage(found, found[-1]["id"])
            found.append(one)
        return EventPage(found, "")

    def check(self, url: str, client: str, at: float | None) -> Row:
        self.told.append(("check", url, client, at))
        entry = {
            "host": "blocked.example",
            "verdict": "block",
            "kind": "domain",
            "id": "S-1",
            "category": "phishing",
            "list": "hotline",
            "reason": "no rule fits, the list's use is block",
            "rule": "",
            "schedule": "",
            "resting": [],
        }
        return {
            "url": url,
            "canonical": "http://blocked.example/",
            "verdict": "block",
            "kind": "domain",
            "id": "S-1",
            "category": "phishing",
            "list": "hotline",
            "explanation": {
                "verdict": "block",
                "client": client,
                "time": "2026-11-25T10:00:00Z",
                "group": "",
                "member": "",
                "page": "",
                "until": None,
                "decided": entry,
                "others": [entry | {"verdict": "monitor", "list": "phishing"}],
                "protected": False,
                "allow": None,
            },
        }

    @property
    def shares(self) -> bool:
        return not self.quiet

    def nodes(self) -> list[Row]:
        if self.quiet:
            raise NotConfiguredError("This node is alone: there is no [fleet].")
        if self.absent:
            raise UrlwardError("The fleet's Valkey does not answer.")
        same = {"version": "0.1.0", "judged": 91_000, "blocked": 12, "load": 0.42, "alarms": [], "behind": []}
        return [
            {"name": "gw1", "state": "up", "silent": 1, "connections": 830, "lists": {"hotline": 7}, **same},
            {
                **same, "name": "gw2", "state": "failing", "silent": 0, "connections": 512,
                "lists": {"hotline": 6}, "behind": ["hotline"], "alarms": ["store-down"],
            },
            {"name": "gw3", "state": "away", "silent": 3_720, "connections": 0, "lists": {}, **same},
        ]  # fmt: skip

    @property
    def publishes(self) -> bool:
        return not self.unpublished

    def rollouts(self) -> Row:
        if self.unpublished:
            raise NotConfiguredError("Nothing is published from here: there is no [publish] with a place.")
        if self.quiet:
            return {"place": "/srv/lists", "leader": "", "lists": []}
        node = "https://node1.example:8443"
        versions = [
            {"serial": n, "entries": 800 + n, "at": "2026-11-25T08:00:00Z", "released": n < 9, "protected": 0}
            for n in (9, 8, 7)
        ]
        well = {
            "name": "hotline", "state": "offered", "stable": 9, "canary": 9, "entries": 809, "held": None,
            "can_promote": False, "watched": 0, "observe": 1800, "waiting": "", "max_rise": 2.0,
            "canaries": [], "versions": versions,
        }  # fmt: skip
        counted = {
            "url": node, "has": True, "requests": 91_000, "blocks": {"now": 12, "usual": 0.0021},
            "faults": {"now": 0, "usual": 0.0}, "objections": {"now": 1, "usual": 0.00001},
        }  # fmt: skip
        waits = f"{node}: has serial 8 in force (its feed: failed)"
        reason = f"{node}: 899 blocks of 1900 requests, where 0.00% was usual"
        guard = {"reason": reason, "who": "", "at": "2026-11-25T08:00:00Z"}
        return {"place": "/srv/lists", "leader": "publisher1:4711:0a1b2c3d", "lists": [
            well,
            {
                **well, "name": "phishing", "state": "tried", "stable": 8, "can_promote": True,
                "watched": 900, "waiting": waits,
                "canaries": [counted, counted | {"url": "https://node2.example:8443", "has": False}],
            },
            {**well, "name": "malware", "state": "held", "can_promote": True, "held": guard},
            {**well, "name": "games", "state": "held", "held": guard | {"reason": "wrong", "who": "Ann"}},
        ]}  # fmt: skip

    def act_on_rollout(self, act: str, name: str, serial: int | None, why: str, who: str) -> str:
        if name == "none":
            raise UrlwardError(f"{name}: no list of that name is published")
        self.told.append(("rollout", act, name, serial, why, who))
        return f"{name}: done"

    def alarms(self) -> list[Row]:
        if self.quiet:
            return []
        now = [
            {
                "time": "2026-11-24T10:00:00Z",
                "source": "phishing",
                "alarm": "stale",
                "text": "no refresh",
                "current": True,
            }
        ]
        return [
            *(now if self.alarm else []),
            {
                "time": "2026-11-20T10:00:00Z",
                "source": "gw1",
                "alarm": "spool",
                "text": "the store was down",
                "current": False,
            },
        ]

    def allows(self) -> list[Row]:
        if self.quiet:
            return []
        return list(self.in_force.values())

    def allow(self, url: str, seconds: int, why: str, who: str, *, whole_host: bool) -> Row:
        if "refused" in url:
            raise UrlwardError("not a URL or host")
        self.told.append(("allow", url, seconds, why, who, whole_host))
        id_ = f"a-{len(self.told):08x}"
        row = {
            "id": id_,
            "kind": "host" if whole_host else "page",
            "created": "2026-11-25T10:00:00Z",
            "until": "2026-11-25T12:00:00Z",
            "who": who,
            "why": why,
        }
        self.in_force[id_] = row
        return row

    def end_allow(self, id_: str, why: str, who: str) -> Row:
        if id_ not in self.in_force:
            raise UrlwardError(f"no allow {id_!r} is in force")
        self.told.append(("end", id_, why, who))
        return self.in_force.pop(id_)

    def refresh_feed(self, name: str) -> str:
        self.told.append(("refresh", name))
        return f"{name}: being fetched"

    def accept_feed(self, name: str, why: str, who: str) -> str:
        self.told.append(("accept", name, why, who))
        self.refused = False
        return f"{name}: let through"

    def objections(self) -> list[Row]:
        if self.absent:
            raise NotConfiguredError("Objections are not taken.")
        if self.quiet:
            return []
        one = {
            "id": "o-1",
            "time": "2026-11-25T09:00:00Z",
            "reference": "0042-2XKD-93FH",
            "message": "This is my shop.\nPlease look at it.",
            "list": "hotline",
            "category": "phishing",
            "entry": "e-42",
        }
        return [one | {"state": "open"} | self.decided.get(one["id"], {})]

    def decide_objection(self, id_: str, why: str, who: str, *, granted: Grant | None) -> None:
        self.told.append(("decide", id_, why, who, granted))
        self.decided[id_] = {
            "state": "granted" if granted is not None else "declined",
            "why": why,
            "who": who,
            "decided": "2026-11-25T10:00:00Z",
            "allow": "",
        }


class Site:
    """A dashboard that is served."""

    def __init__(self, port: int, sources: LiveSources, state: Path) -> None:
        self.port = port
        self.origin = f"http://127.0.0.1:{port}"
        self.sources = sources
        self.state = state


def join(state: Path, name: str, role: str, token: str) -> Person:
    """Add a person whose token is known."""
    file = state / "given.token"
    file.touch(0o600)
    file.write_text(token)
    person, _ = add_person(state, name, role, "test", now=FIRST / 1000 - 1, token=file)
    file.unlink()
    return person


@contextmanager
def serving(sources: LiveSources, state: Path, **settings: Any) -> Iterator[Site]:
    """Serve on a free port, in a thread that has an event loop."""
    join(state, "Ann", "operator", TOKEN)
    join(state, "Vic", "viewer", VIEWER_TOKEN)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> Any:
        return serve(make_app(sources, DashboardSettings(state, **settings)), "127.0.0.1:0")

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(60)
    (socket,) = server._sockets.values()
    try:
        yield Site(socket.getsockname()[1], sources, state)
    finally:

        async def end() -> None:
            server.stop()
            await server.close_all_connections()

        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
