import asyncio
import json
import re
import shutil
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import until
from feeds.test_rollback import issue
from fleet.nodes import SEAL, Tasks, Wire, hanging
from fleet.servers import HAS_VALKEY, Server
from lists.support import key_file
from urlward.assignments.retention import hold_assignments, is_held
from urlward.assignments.store import AssignmentStore
from urlward.config import Config, FeedTable, FleetTable
from urlward.config.records import DaysTable, RecordsTable
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.matcher import Matcher
from urlward.feeds.feed import Feed
from urlward.feeds.rollback import release as release_feed
from urlward.feeds.rollback import roll_back
from urlward.feeds.status import accept
from urlward.feeds.store import Accepted, FeedStore, Refused
from urlward.fleet import decisions
from urlward.fleet.connection import FleetConnection
from urlward.fleet.decisions import FILE, SharedDecisions
from urlward.fleet.kinds import LONG, all_kinds
from urlward.lists.allows import TemporaryAllows
from urlward.objections.objections import (
    add_objection,
    decline,
    message_of,
    purge_objections,
    read_objections,
)
from urlward.policy import own
from urlward.policy.allows import add_allow, current_allows, end_allow, expire_allows
from urlward.policy.own import (
    LEARNED,
    OwnEntry,
    add_own,
    draft,
    learn_own,
    line_of,
    own_entries,
    remove_own,
)
from urlward.records.holds import current_holds, hold, release
from urlward.records.privacy import Level
from urlward.state.audit import read_audit, verify
from urlward.state.audit_view import Change
from urlward.state.folder import KeptFile, StateError, local_key, made_folder

pytestmark = pytest.mark.skipif(not HAS_VALKEY, reason="needs valkey-server and valkey-sentinel")

PAGE = "http://listed.example/a/page.html"
RECORDS = RecordsTable(days=DaysTable(blocks=30, operations=30))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "LOOK", 0.01)
    monkeypatch.setattr(decisions, "AGAIN", 0.1)


class Node(Tasks):
    """Service process of a node, as far as it shares decisions."""

    def __init__(
        self,
        folder: Path,
        url: str,
        name: str,
        config: Config | None = None,
        records: RecordsTable = RECORDS,
    ) -> None:
        self.name = name
        self.state = made_folder(made_folder(folder) / name)
        self.key = local_key(self.state)
        self.alarms: list[str] = []
        self.refreshed: list[str] = []
        self.connection = FleetConnection(FleetTable(url=(url,), node=name), SEAL, who=name)
        config = (config or Config()).model_copy(update={"records": records})
        kinds = all_kinds(self.state, self.key, config, self.refreshed.append)
        self.ahead = 0.0
        self.shared = SharedDecisions(
            self.connection, self.state, kinds, self.alarms.append, lambda: time.time() + self.ahead
        )
        super().__init__()

    async def __aenter__(self) -> "Node":
        self.run(self.connection.run(), self.shared.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    def allow(self, url: str = PAGE, seconds: int = 3_600, **more: Any) -> str:
        now = time.time()
        made = add_allow(
            self.state, self.key, url, seconds, "a mistake", "Ann", whole_host=False, now=now, **more
        )
        return made.id

    def allows(self) -> list[str]:
        return [one.id for one in current_allows(self.state, time.time())]

    def own(self, line: str = "http://own.example/p") -> str:
        return add_own(self.state, self.key, draft(line), "Ann", now=time.time()).id

    def owned(self) -> list[str]:
        return [line_of(one, self.key).split()[0] for one in own_entries(self.state)]

    def holds(self) -> dict[str, int]:
        return {one.reference: one.until for one in current_holds(self.state, time.time())}

    def audit(self) -> list[dict[str, Any]]:
        return [line for line in read_audit(self.state) if line is not None]

    async def told(self, id_: str, *, gone: bool = False) -> None:
        """Wait until Valkey has a record of this node's, or that it is gone."""

        def is_told() -> bool:
            known = self.shared._known.get(id_)
            return known is not None and known.told and (known.gone is not None) == gone

        await until(is_told)


async def test_an_allow_of_one_node_is_in_force_on_the_others(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        id_ = a.allow()
        await until(lambda: b.allows() == [id_])
        kept = TemporaryAllows(b.state, b.key)
        assert kept.look(time.time())
        verdict = Matcher(kept.lists).check("listed.example", "/a/page.html")
        assert str(verdict.action) == "allow"
        line = b.audit()[-1]
        assert (line["action"], line["who"], line["node"], line["id"]) == ("allowed", "Ann", "a", id_)
        assert verify(b.state).holds
        # A URL's digest is this node's own, so that its people can look for the URL.
        assert line["url"] == b.key.digest("ulisted.example/a/page.html").hex()
        end_allow(b.state, id_, "over", "Bob", now=time.time())
        await until(lambda: not a.allows())
        line = a.audit()[-1]
        assert (line["action"], line["who"], line["why"], line["node"]) == ("ended", "Bob", "over", "b")
        await asyncio.sleep(0.1)
        assert a.allows() == b.allows() == []


async def test_own_entries_holds_and_objections_are_shared(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        added = a.own()
        end = int(time.time()) + 1_000
        hold(a.state, "3K8XCVNTS9KS", end, "asked for", "Ann", now=time.time())
        objection = add_objection(a.state, a.key, "3K8XCVNTS9KS", "it is my shop", client="", now=time.time())
        await until(lambda: b.owned() and b.holds() and read_objections(b.state))
        assert b.owned() == ["http://own.example/p"]
        await until(lambda: b.refreshed == [own.NAME])
        assert list(b.holds().values()) == [end]
        (there,) = read_objections(b.state)
        assert (there.id, there.state) == (objection.id, "open")
        assert message_of(there, b.key) == "it is my shop"
        decline(b.state, objection.id, "it is listed", "Bob", now=time.time())
        remove_own(b.state, added, "not needed", "Bob", now=time.time())
        release(b.state, "3K8XCVNTS9KS", "done", "Bob", now=time.time())
        await until(
            lambda: read_objections(a.state)[0].state == "declined" and not a.owned() and not a.holds()
        )
        decided = read_objections(a.state)[0]
        assert (decided.who, decided.why) == ("Bob", "it is listed")
        said = {line["action"]: line.get("node") for line in a.audit()}
        assert said["objection-declined"] == said["own-removed"] == said["released"] == "b"


async def test_what_one_node_has_learned_is_on_the_others_until_it_is_over(
    tmp_path: Path, server: Server
) -> None:
    now = time.time()
    today = time.strftime("%Y-%m-%d", time.gmtime(now))
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        learned = draft("http://listed.example/known.jpg", note="reference R", expires=today)
        learn_own(a.state, a.key, [learned], 10, now=now)
        await until(b.owned)
        (there,) = own_entries(b.state)
        assert (there.who, there.note, there.expires) == (LEARNED, "reference R", today)
        assert b.audit()[-1]["who"] == LEARNED
        # Each looks by itself, and neither brings back what the other has removed.
        assert learn_own(b.state, b.key, [], 10, now=now + 86_400).changed
        await until(lambda: not a.owned())
        assert not learn_own(a.state, a.key, [], 10, now=now + 86_400).changed
        for node in (a, b):
            node.shared._merging.set()
        await asyncio.sleep(0.3)
        assert a.owned() == b.owned() == []
        # That it is gone is known for a month, since there may be many; of what somebody removes for longer.
        (of_learned,) = (one for name, one in b.shared._known.items() if name == f"own:{there.id}")
        assert 20 < (of_learned.ends - now) / 86_400 < 40
        id_ = a.own()
        await until(b.owned)
        remove_own(b.state, id_, "not needed", "Bob", now=now)
        await b.told(f"own:{id_}", gone=True)
        assert b.shared._known[f"own:{id_}"].ends > now + LONG / 2


async def test_nothing_is_told_twice(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        ids = [a.own(f"own{n}.example") for n in range(5)]
        await until(lambda: len(b.owned()) == 5)
        for node in (a, b):
            node.shared._merging.set()
        await asyncio.sleep(0.3)
    (b.state / FILE).unlink()
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        for id_ in ids:
            await b.told(f"own:{id_}")
            await a.told(f"own:{id_}")
        a.own("last.example")
        await until(lambda: len(b.owned()) == 6)
        for node in (a, b):
            assert sum(line["action"] == "own-added" for line in node.audit()) == len(ids) + 1


async def test_what_is_earlier_does_not_stay_in_the_place_of_what_is_later(
    tmp_path: Path, server: Server
) -> None:
    async with Node(tmp_path, server.url, "a") as a:
        name, end = a.connection.name("decided"), int(time.time()) + 1_000
        hold(a.state, "R1", end, "w", "Ann", now=time.time())
        await a.told("hold:R1")
        (before,) = await a.connection.ask(("HGET", name, "hold:R1")) or [None]
        version = a.shared._known["hold:R1"].version
        hold(a.state, "R1", end + 5, "w", "Ann", now=time.time())
        await until(lambda: a.shared._known["hold:R1"].version > version)
        await a.told("hold:R1")
        # As of two nodes that write at the same time.
        stream = a.connection.name("decisions")
        await a.connection.ask(
            ("HSET", name, "hold:R1", before), ("XADD", stream, "*", "p", "other", "n", '["hold:R1"]')
        )
        async with Node(tmp_path, server.url, "b") as b:
            await until(lambda: b.holds() == {"R1": end + 5})


async def test_valkey_holds_no_plain_text(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        a.allow()
        a.own()
        add_objection(a.state, a.key, "R", "about listed.example", client="192.0.2.1", now=time.time())
        await until(lambda: b.allows() and b.owned() and read_objections(b.state))
        found = await a.connection.ask(
            ("HGETALL", a.connection.name("decided")), ("XRANGE", a.connection.name("decisions"), "-", "+")
        )
        text = repr(found)
        for secret in ("listed", "own.example", "192.0.2.1", "Ann", "mistake"):
            assert secret not in text
        for node in (a, b):
            await until((node.state / FILE).exists)
            assert "listed" not in (node.state / FILE).read_text()


async def test_what_is_decided_while_valkey_is_away_is_merged(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        first = a.own("first.example")
        await until(lambda: len(b.owned()) == 1)
        server.kill()
        await until(lambda: not a.connection.up and not b.connection.up)
        remove_own(a.state, first, "not needed", "Ann", now=time.time())
        a.own("second.example")
        b.own("third.example")
        assert sorted(b.owned()) == ["first.example", "third.example"]
        server.start()  # empty
        await until(lambda: sorted(a.owned()) == sorted(b.owned()) == ["second.example", "third.example"])


async def test_a_flush_loses_nothing(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        a.own("first.example")
        await until(lambda: b.owned())
        server.run("FLUSHALL")
        b.own("second.example")
        async with Node(tmp_path, server.url, "c") as c:
            await until(lambda: len(c.owned()) == 2 and len(a.owned()) == 2)


async def test_after_a_flush_nobody_reads_what_it_has(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        ids = [a.own(f"own{n}.example") for n in range(5)]
        await until(lambda: len(b.owned()) == 5)
        await until(lambda: all(f"own:{id_}" in b.shared._known for id_ in ids))
        asked: list[str] = []
        for node in (a, b):

            def ask(*commands: Any, ask: Any = node.connection.ask, **more: Any) -> Any:
                asked.extend(command[0] for command in commands)
                return ask(*commands, **more)

            monkeypatch.setattr(node.connection, "ask", ask)
        server.run("FLUSHALL")
        await until(lambda: asked.count("HSCAN") >= 2 and asked.count("XADD"))
        for node in (a, b):
            await node.told(f"own:{ids[-1]}")
        assert "HMGET" not in asked


async def test_a_node_that_was_cut_off_takes_what_is_later_and_gives_what_is_later(
    tmp_path: Path, server: Server, wire: Wire
) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, wire.url, "b") as b:
        end = int(time.time()) + 1_000
        hold(a.state, "R1", end, "w", "Ann", now=time.time())
        await until(lambda: b.holds())
        wire.cut()
        with hanging():
            await until(lambda: not b.connection.up)
        release(a.state, "R1", "done", "Ann", now=time.time())
        b.own("meanwhile.example")
        await a.told("hold:R1", gone=True)
        wire.mend()
        await until(lambda: not b.holds() and a.owned() == ["meanwhile.example"])


async def test_the_longer_of_two_holds_stands(tmp_path: Path, server: Server, wire: Wire) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, wire.url, "b") as b:
        await until(lambda: b.connection.up and a.connection.up)
        wire.cut()
        with hanging():
            await until(lambda: not b.connection.up)
        now = int(time.time())
        hold(b.state, "R1", now + 9_000, "longer", "Bob", now=now)
        await asyncio.sleep(0.05)
        hold(a.state, "R1", now + 1_000, "shorter, and later", "Ann", now=now + 1)
        await a.told("hold:R1")
        wire.mend()
        await until(lambda: list(a.holds().values()) == list(b.holds().values()) == [now + 9_000])


async def test_a_file_that_is_lost_comes_back_and_removes_nothing(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        a.own("first.example")
        a.own("second.example")
        await until(lambda: len(b.owned()) == 2)
        (b.state / "own.json").write_bytes(b"damaged")
        assert b.owned() == []  # set aside
        await until(lambda: len(b.owned()) == 2)
        assert len(a.owned()) == 2
        assert not any(line["action"] == "own-removed" for line in a.audit())


async def test_what_was_removed_does_not_come_back_from_a_node_that_has_forgotten_all(
    tmp_path: Path, server: Server
) -> None:
    async with Node(tmp_path, server.url, "a") as a:
        async with Node(tmp_path, server.url, "b") as b:
            gone = a.own("gone.example")
            await b.told(f"own:{gone}")
        remove_own(a.state, gone, "not needed", "Ann", now=time.time())
        await a.told(f"own:{gone}", gone=True)
        (b.state / FILE).unlink()
        async with Node(tmp_path, server.url, "b") as b:
            await until(lambda: not b.owned())
        assert not a.owned()


async def test_a_node_knows_after_a_restart_what_was_removed_meanwhile(
    tmp_path: Path, server: Server
) -> None:
    async with Node(tmp_path, server.url, "a") as a:
        first, second = a.own("first.example"), a.own("second.example")
        async with Node(tmp_path, server.url, "b") as b:
            await b.told(f"own:{first}")
            await b.told(f"own:{second}")
        remove_own(b.state, first, "done here", "Bob", now=time.time())
        remove_own(a.state, second, "done there", "Ann", now=time.time())
        await a.told(f"own:{second}", gone=True)
        async with Node(tmp_path, server.url, "b") as b:
            await until(lambda: not a.owned() and not b.owned())


def put_back(path: Path, folder: Path) -> None:
    """At once, so that nobody reads a file of which only half is there."""
    shutil.copy2(path, folder.parent / path.name)
    (folder.parent / path.name).replace(folder / path.name)


@pytest.mark.parametrize(
    "files", [None, {"own.json", "allows.json", "holds.json"}, {"holds.json"}], ids=["all", "some", "holds"]
)
async def test_a_copy_of_an_earlier_day_that_is_put_back_while_a_node_runs_decides_nothing(
    files: set[str] | None, tmp_path: Path, server: Server
) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        nodes, now = (a, b), time.time()
        id_, added = a.allow(), a.own()
        hold(a.state, "K3-1", int(now) + 9_999, "court", "Ann", now=now)
        await until(lambda: b.allows() and b.owned() and b.holds())
        await b.told("hold:K3-1")
        await until(lambda: (b.state / FILE).exists() and "K3-1" in (b.state / FILE).read_text())
        shutil.copytree(b.state, tmp_path / "copy")
        end_allow(a.state, id_, "over", "Ann", now=now)
        remove_own(a.state, added, "wrong", "Ann", now=now)
        release(a.state, "K3-1", "over", "Ann", now=now)
        later = a.own("later.example")
        await until(lambda: not (b.allows() or b.holds()) and b.owned() == ["later.example"])
        await b.told(f"own:{later}")
        await until(lambda: later in (kept := (b.state / FILE).read_text()) and kept.count('"over"') == 2)
        await until(lambda: not b.shared._changed)  # or it takes what is put back for what it has just saved
        for path in sorted((tmp_path / "copy").iterdir()):
            if path.is_file() and (files is None or path.name in files):
                put_back(path, b.state)
        await until(lambda: not (b.allows() or b.holds()) and b.owned() == ["later.example"])
        # What somebody decides from here on is.
        remove_own(b.state, later, "too", "Bob", now=now)
        again = b.own("again.example")
        hold(b.state, "K3-1", int(now) + 9_999, "court", "Bob", now=now)
        await until(lambda: all(one.owned() == ["again.example"] and one.holds() for one in nodes))
        assert a.allows() == b.allows() == []
        assert again in {one.id for one in own_entries(a.state)}


async def test_a_copy_of_an_earlier_day_decides_nothing_though_it_is_put_back_slowly(
    tmp_path: Path, server: Server
) -> None:
    """What comes after the file of what is known is of that day, too."""
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        now = time.time()
        hold(a.state, "K3-1", int(now) + 9_999, "court", "Ann", now=now)
        await b.told("hold:K3-1")
        await until(lambda: (b.state / FILE).exists() and "K3-1" in (b.state / FILE).read_text())
        shutil.copytree(b.state, tmp_path / "copy")
        release(a.state, "K3-1", "over", "Ann", now=now)
        await b.told("hold:K3-1", gone=True)
        # Or it is saved over what is put back, which then was never there.
        await until(lambda: '"over"' in (b.state / FILE).read_text() and not b.shared._changed)
        before = b.shared._known["hold:K3-1"]
        for name in ("audit.head", "audit.jsonl", FILE):
            put_back(tmp_path / "copy" / name, b.state)
        await until(
            lambda: (known := b.shared._known.get("hold:K3-1")) is not before and known and known.gone
        )
        put_back(tmp_path / "copy" / "holds.json", b.state)
        await until(lambda: not b.holds())
        assert not a.holds()
        # Who holds it again does, also before anybody has looked.
        hold(b.state, "K3-1", int(now) + 9_999, "court, again", "Bob", now=now)
        await until(lambda: a.holds() and b.holds())


def later(monkeypatch: pytest.MonkeyPatch, node: Node, seconds: float) -> None:
    """Have it be later, by a node's clock and by Valkey's."""
    node.ahead = seconds
    now = node.connection.now
    monkeypatch.setattr(node.connection, "now", lambda: now() + seconds)


async def test_an_allow_that_is_over_leaves_valkey_too(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        a.allow(seconds=3_600)
        await until(lambda: b.allows())
        for node in (a, b):
            later(monkeypatch, node, 4_000)
            assert expire_allows(node.state, time.time() + node.ahead) == 1
        await until(lambda: server.run("HLEN", a.connection.name("decided")) == 0)
        await until(lambda: not a.shared._known and not b.shared._known)
        assert not a.allows()
        assert not any(line["action"] == "ended" for line in a.audit() + b.audit())


async def test_what_is_over_leaves_valkey_though_it_is_read_there_first(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Node(tmp_path, server.url, "a") as a:
        name = f"allow:{a.allow(seconds=3_600)}"
        await a.told(name)
        decided = a.connection.name("decided")
        async with a.shared._one:
            found = await a.connection.ask(("HGET", decided, name))
            assert found is not None
            later(monkeypatch, a, 4_000)
            assert expire_allows(a.state, time.time() + a.ahead) == 1
            a.shared._look()
            a.shared._take_each([(name, found[0])])
        await until(lambda: server.run("HLEN", decided) == 0)
        await until(lambda: not a.shared._known)


async def test_a_node_forgets_objections_after_its_own_days(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        add_objection(a.state, a.key, "R", "text", client="", now=time.time() - 86_400 * 5)
        await until(lambda: read_objections(b.state))
        purge_objections(b.state, 3, time.time())
        await until(lambda: server.run("HLEN", a.connection.name("decided")) == 0)
        b.shared._merging.set()
        await asyncio.sleep(0.2)
        assert read_objections(a.state)
        assert not read_objections(b.state)


async def test_a_release_is_of_each_nodes_assignments(tmp_path: Path, server: Server) -> None:
    """Each node has a database of its own, and its purges hold there what is held on any."""
    far, client = int(time.time()) + 86_400, ("192.0.2.7", 0, 1_795_000_000_000)

    def held(node: Node, reference: str) -> bool:
        with AssignmentStore(node.state / "assignments.db") as store:
            return is_held(store, reference)

    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        for reference in ("3K8X-CVNT-S9KS", "4K8X-CVNT-S9KS"):
            hold(a.state, reference, far, "a case", "Ann", now=time.time())
        await until(lambda: len(b.holds()) == 2)
        with AssignmentStore(b.state / "assignments.db") as store:
            for reference in b.holds():
                hold_assignments(store, reference, far * 1_000, [client])
        # Where that cannot be done, the hold stays, which is said, until it can.
        (b.state / "assignments.db").rename(b.state / "elsewhere.db")
        (b.state / "assignments.db").write_bytes(b"no database " * 100)
        release(a.state, "3K8X-CVNT-S9KS", "over", "Ann", now=time.time())
        await until(lambda: b.alarms)
        assert len(b.holds()) == 2
        assert "hold 3K8X-CVNT-S9KS, removed at a, is still here" in b.alarms[0]
        (b.state / "elsewhere.db").replace(b.state / "assignments.db")
        await until(lambda: len(b.holds()) == 1)
        assert not held(b, "3K8X-CVNT-S9KS")
        assert held(b, "4K8X-CVNT-S9KS")


async def test_a_node_without_days_takes_no_objections(tmp_path: Path, server: Server) -> None:
    """Nothing would ever delete them there: `privacy = "counts"` needs no days."""
    nothing = RecordsTable(privacy="counts")
    async with (
        Node(tmp_path, server.url, "a") as a,
        Node(tmp_path, server.url, "b", records=nothing) as b,
        Node(tmp_path, server.url, "c") as c,
    ):
        made = add_objection(a.state, a.key, "R", "text", client="192.0.2.7", now=time.time())
        id_ = a.allow()
        await until(lambda: read_objections(c.state) and b.allows() == [id_])
        decline(c.state, made.id, "it is listed", "Bob", now=time.time())
        a.own()
        await until(lambda: read_objections(a.state)[0].state == "declined" and b.owned())
        assert not read_objections(b.state)
    # One that it has of a time with days, and its knowledge of it, are in nobody's way.
    shutil.copy(c.state / "objections.json", b.state)
    shutil.copy(c.state / FILE, b.state)
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b", records=nothing) as b:
        end_allow(b.state, id_, "over", "Bob", now=time.time())
        await until(lambda: not a.allows())
        assert read_objections(a.state)[0].state == "declined"


@pytest.mark.parametrize(
    ("level", "kept"),
    [("full", "192.0.2.7"), ("short", "192.0.2.0/24"), ("digest", "[0-9a-f]{32}"), ("counts", "")],
)
async def test_a_node_keeps_of_a_client_what_its_privacy_leaves(
    tmp_path: Path, server: Server, level: Level, kept: str
) -> None:
    records = RECORDS.model_copy(update={"privacy": level})
    digest = "0123456789abcdef" * 2
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b", records=records) as b:
        now = time.time()
        made = [add_objection(a.state, a.key, "R", "text", client=c, now=now) for c in ("192.0.2.7", digest)]
        await until(lambda: len(read_objections(b.state)) == 2)
        there = {one.id: one.client for one in read_objections(b.state)}
        assert re.fullmatch(kept, there[made[0].id])
        # Another's digest of a day says nothing here that a digest of our own would not.
        assert there[made[1].id] == ("" if level == "counts" else digest)
        decline(b.state, made[0].id, "it is listed", "Bob", now=now)
        await until(lambda: any(one.state == "declined" for one in read_objections(a.state)))
        # Where it has come in, all that was kept of it is kept.
        assert [one.client for one in read_objections(a.state)] == ["192.0.2.7", digest]
        # Nor is the decision told again where a node has lost what it knew of it.
        (a.state / FILE).unlink()
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b", records=records) as b:
        await until(lambda: a.shared._merged and b.shared._merged)
        for node in (a, b):
            assert [line["action"] for line in node.audit()] == ["objection-declined"]


async def test_nodes_clocks_need_not_agree(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        # What a decides counts from an hour ahead; what b decides knowing of it is later all the same.
        later = a.shared._later
        monkeypatch.setattr(a.shared, "_later", lambda before, made=0: later(before, made + 3_600_000))
        end = int(time.time()) + 10_000
        hold(a.state, "R1", end, "w", "Ann", now=time.time())
        await until(lambda: b.holds())
        hold(a.state, "R1", end + 5, "w", "Ann", now=time.time())
        await until(lambda: b.holds() == {"R1": end + 5})
        release(b.state, "R1", "done", "Bob", now=time.time())
        await until(lambda: not a.holds())


@pytest.mark.parametrize("had", [False, True], ids=["unknown", "known"])
async def test_what_is_over_by_one_nodes_clock_alone_is_in_force_on_the_others(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, *, had: bool
) -> None:
    """It stays in Valkey, for nodes that come later, and that node has it once its clock is right."""
    monkeypatch.setattr(decisions, "FORGET_EVERY", 0.05)
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        name = a.connection.name("decided")
        if not had:
            b.ahead = 3_600
        id_ = a.allow(seconds=1_800)
        hold(a.state, "R1", int(time.time()) + 1_800, "w", "Ann", now=time.time())
        await a.told("hold:R1")
        if had:
            await until(lambda: b.allows() and b.holds())
            await b.told(f"allow:{id_}")
            b.ahead = 3_600
            assert expire_allows(b.state, time.time() + b.ahead) == 1
            await until(lambda: not b.shared._known[f"allow:{id_}"].here)
        before = b.shared._forgotten
        await until(lambda: abs(b.shared._forgotten - before) > 0.2, "several looks")
        async with Node(tmp_path, server.url, "c") as c:
            await until(lambda: c.allows() == [id_] and list(c.holds()) == ["R1"])
        assert server.run("HLEN", name) == 2
        b.ahead = 0
        if not had:
            b.shared._merging.set()
            await until(lambda: b.allows() == [id_])
        # What is over by Valkey's clock as well leaves it.
        for node in (a, b):
            later(monkeypatch, node, 4_000)
            expire_allows(node.state, time.time() + node.ahead)
        await until(lambda: server.run("HEXISTS", name, f"allow:{id_}") == 0)


async def test_what_cannot_be_taken_is_said_and_keeps_nothing_else_from_being_taken(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        await until(lambda: a.shared._merged)
        name = a.connection.name("decided")
        other = Key(b"o" * 32).seal(b"{}")
        forged = "own:o-2\n2026-01-01 forged"
        written = ("own:o-1", other), ("allow:a-1", SEAL.seal(b"[1]")), ("nokind:x", b"y"), (forged, b"z")
        for field, data in written:
            await a.connection.ask(("HSET", name, field, data))
        await a.connection.ask(("XADD", a.connection.name("decisions"), "*", "p", "x", "n", "not json"))
        b.shared._merging.set()
        a.own()
        await until(lambda: b.owned())
        await until(lambda: "own o-1" in caplog.text and "allow a-1" in caplog.text)
        assert "forged" not in caplog.text


async def test_a_record_counts_under_its_own_name_alone(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may write to Valkey, and has no key, could remove what is blocked by hand, allows and holds of
    records by the mark of any record that was removed."""
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        kept, removed = a.own("kept.example"), a.own("removed.example")
        hold(a.state, "R1", int(time.time()) + 1_000, "w", "Ann", now=time.time())
        await until(lambda: len(b.owned()) == 2 and b.holds())
        remove_own(a.state, removed, "not needed", "Ann", now=time.time())
        await until(lambda: b.owned() == ["kept.example"])
        await a.told(f"own:{removed}", gone=True)
        name, names = a.connection.name("decided"), [f"own:{kept}", "hold:R1"]
        (mark,) = await a.connection.ask(("HGET", name, f"own:{removed}")) or [None]
        for each in names:
            await a.connection.ask(("HSET", name, each, mark))
        stream = a.connection.name("decisions")
        await a.connection.ask(("XADD", stream, "*", "p", "x", "n", json.dumps(names)))
        await until(lambda: all(f"{each.replace(':', ' ')} of another node" in caplog.text for each in names))
        # Its own is in force as ever, also where it comes again.
        b.shared._merging.set()
        a.own("last.example")
        await until(lambda: "last.example" in b.owned())
        for node in (a, b):
            assert sorted(node.owned()) == ["kept.example", "last.example"]
            assert list(node.holds()) == ["R1"]


async def test_a_rollback_and_an_acceptance_are_of_all_nodes(
    tmp_path: Path, server: Server, compiles_here: None
) -> None:
    table = FeedTable(name="one", path=str(tmp_path / "list.ward"), max_shrink=1.0, min_entries=1)
    config = Config(feed=(table,), key=str(key_file(tmp_path / "lists.key")))
    nodes = [Node(tmp_path, server.url, name, config) for name in ("a", "b")]
    for serial in (3, 4):
        (tmp_path / "list.ward").write_bytes(issue(serial))
        for node in nodes:
            assert Feed(table, config, node.state).refresh().state == "new"
    a, b = nodes
    stores = [FeedStore(node.state, "one") for node in nodes]
    async with a, b:
        held = roll_back(table, config, a.state, None, why="too many", who="Ann", now=time.time())
        await until(lambda: stores[1].facts().held is not None)
        there = stores[1].facts().held
        assert there is not None
        assert (there.serial, there.who) == (held.serial, "Ann (a)")
        await until(lambda: getattr(stores[1].header(), "serial", 0) == held.serial)
        release_feed(table, b.state, why="mended", who="Bob", now=time.time())
        await until(lambda: stores[0].facts().held is None)
        await until(lambda: a.refreshed == ["one"])
        # A serial that another node has not kept is said, and alarmed.
        (b.state / "feeds" / "one.versions").rename(tmp_path / "away")
        roll_back(table, config, a.state, 4, why="again", who="Ann", now=time.time())
        await until(lambda: b.alarms)
        assert stores[1].facts().held is None
        # An acceptance is for a list of about that size.
        facts = stores[0].facts()
        facts.refused = Refused("grown", "digest", 900, 4, time.time())
        stores[0].write_facts(facts)
        accept(table, a.state, why="right", who="Ann", now=time.time())
        await until(lambda: stores[1].facts().accepted is not None)
        taken = stores[1].facts().accepted
        assert isinstance(taken, Accepted)
        assert (taken.entries, bool(taken.content)) == (900, True)
        await until(lambda: b.refreshed == ["one"])
        # It is used up on one node, and neither comes back there nor is taken from the other.
        facts = stores[1].facts()
        facts.accepted = None
        stores[1].write_facts(facts)
        await asyncio.sleep(0.1)
        b.shared._merging.set()
        await asyncio.sleep(0.2)
        assert stores[1].facts().accepted is None
        assert stores[0].facts().accepted is not None


async def test_an_acceptance_that_is_used_up_at_once_is_of_all_nodes(
    tmp_path: Path, server: Server, compiles_here: None
) -> None:
    """As that of a small list is, before anybody has looked."""
    (tmp_path / "list.txt").write_text("".join(f"h{n}.example\n" for n in range(100)))
    table = FeedTable(name="one", path=str(tmp_path / "list.txt"), max_shrink=0.5)
    config = Config(feed=(table,), key=str(key_file(tmp_path / "lists.key")))
    a, b = (Node(tmp_path, server.url, name, config) for name in ("a", "b"))
    feeds = {node: Feed(table, config, node.state) for node in (a, b)}
    stores = {node: FeedStore(node.state, "one") for node in (a, b)}
    assert [feed.refresh().state for feed in feeds.values()] == ["new", "new"]
    (tmp_path / "list.txt").write_text("".join(f"h{n}.example\n" for n in range(40)))
    assert [feed.refresh().reason for feed in feeds.values()] == ["shrunk", "shrunk"]
    accept(table, a.state, why="right", who="Ann", now=time.time())
    assert feeds[a].refresh().state == "new"
    assert stores[a].facts().accepted is None
    async with a, b:
        await until(lambda: b.refreshed == ["one"])
        assert feeds[b].refresh().state == "new"
        # It is used up there too, and is good for no other list on either.
        (tmp_path / "list.txt").write_text("h1.example\n")
        for node in (a, b):
            node.shared._merging.set()
        a.own("last.example")
        await until(lambda: b.owned())
        assert [feed.refresh().reason for feed in feeds.values()] == ["shrunk", "shrunk"]
        assert b.refreshed.count("one") == 1
        assert a.refreshed == []


async def test_what_cannot_be_taken_now_is_taken_later_and_goes_nowhere(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = {"b"}
    write = KeptFile.write

    def write_own(self: KeptFile[OwnEntry], state: Path, entries: Iterable[OwnEntry]) -> None:
        if state.name in full:
            raise StateError(f"{state}: No space left on device")
        write(self, state, entries)

    monkeypatch.setattr(KeptFile, "write", write_own)
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        id_ = a.own("own.example")
        await until(lambda: b.alarms == [f"own {id_}, decided at a, is not in force here"])
        assert not b.owned()
    # What is not in force here is not gone, whoever is started anew meanwhile.
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        await until(lambda: b.alarms)
        assert server.run("HLEN", a.connection.name("decided")) == 1
        full.clear()
        await until(lambda: b.owned() == ["own.example"])
        # Nor what is to go, and cannot go yet.
        full.add("b")
        remove_own(a.state, id_, "not needed", "Ann", now=time.time())
        await until(lambda: b.alarms[1:] == [f"own {id_}, removed at a, is still here"])
        assert b.owned()
        assert not a.owned()
        full.clear()
        await until(lambda: not b.owned())
        assert not a.owned()


async def test_a_full_disk_ends_no_sharing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, tried = decisions.write_kept, []

    def write_kept(path: Path, version: int, name: str, kept: Sequence[dict[str, Any]]) -> None:
        if path.parent.name == "b":
            tried.append(path)
            raise StateError(f"{path}: No space left on device")
        write(path, version, name, kept)

    monkeypatch.setattr(decisions, "write_kept", write_kept)
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        a.own("first.example")
        b.own("second.example")
        await until(lambda: tried and len(a.owned()) == len(b.owned()) == 2)
        a.own("third.example")
        b.own("fourth.example")
        await until(lambda: len(a.owned()) == len(b.owned()) == 4)
        assert not any(one.done() for one in b._running)


async def test_a_merge_that_fails_is_tried_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Node(tmp_path, server.url, "a") as a:
        await a.told(f"own:{a.own('first.example')}")
        b = Node(tmp_path, server.url, "b")
        take, failures = b.shared._take_each, [OSError("as it happens")]

        def take_each(pairs: Iterable[tuple[str, bytes]]) -> bool:
            if failures:
                raise failures.pop()
            return take(pairs)

        monkeypatch.setattr(b.shared, "_take_each", take_each)
        async with b:
            await until(lambda: b.owned() and not failures)
            b.own("second.example")
            await until(lambda: len(a.owned()) == 2)


async def test_two_entries_of_one_id_stay_both(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        for line in ("first.example", "second.example"):
            b.own(line)
        first, second = own_entries(b.state)
        own.KEPT.write(b.state, [first, replace(second, id=first.id)])
        a.own("third.example")
        await until(lambda: "third.example" in b.owned())
        assert sorted(b.owned()) == ["first.example", "second.example", "third.example"]


def test_entries_of_one_node_have_ids_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, drawn = local_key(made_folder(tmp_path / "state")), iter(["aa", "aa", "bb"])
    monkeypatch.setattr(own.secrets, "token_hex", lambda _: next(drawn))
    for line in ("first.example", "second.example"):
        add_own(tmp_path / "state", key, draft(line), "Ann", now=time.time())
    assert [one.id for one in own_entries(tmp_path / "state")] == ["o-aa", "o-bb"]


async def test_a_record_that_does_not_open_keeps_no_other_from_being_shared(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = Node(tmp_path, server.url, "a"), Node(tmp_path, server.url, "b")
    a.own("closed.example")
    (closed,) = own_entries(a.state)
    own.KEPT.write(a.state, [replace(closed, sealed=Key(b"o" * 32).seal(b"x"))])
    a.own("open.example")
    async with a, b:
        await until(lambda: b.owned() == ["open.example"])
        b.own("other.example")
        await until(lambda: len(own_entries(a.state)) == 3)
    assert caplog.text.count("not shared") == 1


async def test_many_records_are_written_together(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = KeptFile.write, []

    def write_own(self: KeptFile[OwnEntry], state: Path, entries: Iterable[OwnEntry]) -> None:
        written.append(state.name)
        write(self, state, entries)

    a = Node(tmp_path, server.url, "a")
    for n in range(40):
        a.own(f"own{n}.example")
    async with a:
        await until(lambda: len(a.shared._known) == 40 and all(one.told for one in a.shared._known.values()))
        monkeypatch.setattr(KeptFile, "write", write_own)
        async with Node(tmp_path, server.url, "b") as b:
            await until(lambda: len(b.owned()) == 40)
    assert written == ["b"]


async def test_nodes_of_one_name_share_what_they_decide(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path / "1", server.url, "a") as a, Node(tmp_path / "2", server.url, "a") as b:
        await until(lambda: a.shared._merged and b.shared._merged)
        a.own("first.example")
        await until(lambda: b.owned())
        b.own("second.example")
        await until(lambda: len(a.owned()) == 2)


async def test_a_removal_is_known_however_much_was_decided_since(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "_CHANGES", 2)
    async with Node(tmp_path, server.url, "a") as a:
        async with Node(tmp_path, server.url, "b") as b:
            ids = [b.own(f"own{n}.example") for n in range(5)]
            await until(lambda: len(a.owned()) == 5)
        for id_ in ids:
            remove_own(b.state, id_, "not needed", "Bob", now=time.time())
        async with Node(tmp_path, server.url, "b") as b:
            await until(lambda: not a.owned())
            assert not b.owned()


async def test_a_wrong_clock_keeps_nothing_that_was_removed(tmp_path: Path, server: Server) -> None:
    async with Node(tmp_path, server.url, "a") as a, Node(tmp_path, server.url, "b") as b:
        id_ = a.own("own.example")
        await until(lambda: b.owned())
        b.ahead = 2 * LONG
        remove_own(a.state, id_, "not needed", "Ann", now=time.time())
        await until(lambda: not b.owned())
        b.ahead = 0
        # Nor is what is removed by a clock that stands at the beginning forgotten at once.
        id_ = a.own("other.example")
        await until(lambda: b.owned())
        a.ahead = -time.time()
        remove_own(a.state, id_, "not needed", "Ann", now=time.time())
        await until(lambda: not b.owned())
        await b.told(f"own:{id_}", gone=True)
        assert b.shared._known[f"own:{id_}"].ends > time.time() + LONG / 2


async def test_who_is_cancelled_lets_go_of_the_files_once_they_are_left_alone(tmp_path: Path) -> None:
    connection = FleetConnection(FleetTable(url=("valkey://127.0.0.1:1",), node="a"), SEAL)
    shared, works, go_on = SharedDecisions(connection, tmp_path, []), threading.Event(), threading.Event()

    def work() -> None:
        works.set()
        go_on.wait(20)

    async def use() -> None:
        async with shared._one:
            await shared._in_thread(work)

    task = asyncio.ensure_future(use())
    await until(works.is_set)
    task.cancel()
    await asyncio.sleep(0.02)
    assert shared._one.locked()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not shared._one.locked()


def test_a_state_folder_of_another_release_stops_nothing_else(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"version": 9, "decisions": []}))
    connection = FleetConnection(FleetTable(url=("valkey://127.0.0.1:1",), node="a"), SEAL)
    shared = SharedDecisions(connection, tmp_path, [])
    with pytest.raises(UrlwardError, match="another version"):
        shared._look()


def test_what_is_done_with_a_published_list_is_not_done_with_the_feed_of_that_name(tmp_path: Path) -> None:
    (kind,) = (one for one in all_kinds(tmp_path, SEAL, Config(), print) if one.name == "rollback")
    fields = {"feed": "phish", "why": "w"}
    assert kind.word(Change(0, 1, "", "released", "Ann", fields)) == ("phish", True)
    assert kind.word(Change(0, 1, "", "released", "Ann", fields | {"published": "/srv/lists"}))[0] == ""
