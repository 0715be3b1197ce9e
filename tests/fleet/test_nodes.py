import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from companion import Companion
from conftest import run_command, until, wait_for
from feeds.test_rollback import issue
from fleet.nodes import SEAL
from fleet.servers import HAS_VALKEY, Server
from lists.support import SECRET
from urlward.commands import doctor, gateway
from urlward.commands.fleet import add_fleet_commands
from urlward.config import FleetTable, GatewayTable, read_config
from urlward.engine.digest import Key, format_key
from urlward.fleet import nodes as fleet_nodes
from urlward.fleet.connection import FleetConnection, seal_of
from urlward.fleet.nodes import FleetNodes, NodeReport, nodes_of, read_nodes, said_of
from urlward.records.asking import ask

pytestmark = pytest.mark.skipif(not HAS_VALKEY, reason="needs valkey-server")

SAID = NodeReport(
    at=0.0,
    ok=True,
    version="1",
    lists={"hotline": 7},
    connections=3,
    judged=10,
    blocked=2,
    load=0.5,
    alarms=[],
)  # fmt: skip


def said(at: float, **more: Any) -> NodeReport:
    return NodeReport(**{name: getattr(SAID, name) for name in SAID.__struct_fields__} | {"at": at} | more)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nodes that are this process; others beat as they do."""
    monkeypatch.setattr(fleet_nodes, "BEAT", 0.1)


@pytest.fixture
def urlward(server: Server, tmp_path: Path) -> Callable[..., int]:
    (tmp_path / "fleet.key").write_bytes(format_key(b"k" * 32))
    path = tmp_path / "status.toml"
    path.write_text(config(server, "status"))
    return partial(run_command, add_fleet_commands, "fleet", "status", "--config", path)


def config(server: Server, node: str, more: str = "") -> str:
    return (
        f'[fleet]\nurl = "{server.url}"\nnode = "{node}"\nseal = "fleet.key"\n'
        f"[records]\ndays = {{ blocks = 1, operations = 1 }}\n{more}"
    )


@asynccontextmanager
async def node(
    server: Server, name: str, key: Key = SEAL, twin: Callable[[bool], None] = lambda _: None, **more: Any
) -> AsyncIterator[FleetNodes]:
    connection = FleetConnection(FleetTable(url=(server.url,), node=name), key)
    made = FleetNodes(connection, lambda at: said(at, **more), twin)
    running = asyncio.ensure_future(connection.run())
    try:
        yield made
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def test_no_node_is_not_well(urlward: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert urlward() == 1
    assert capsys.readouterr().out.endswith("no node has said anything\n")


def test_a_node_is_as_it_said_lately() -> None:
    rows = {
        "b": said(100.0, ok=False, alarms=["store-down"]),
        "a": said(99.0, lists={"hotline": 9}),
        "c": said(90.0, lists={"hotline": 12}),
        "d": said(9_000.0),
    }
    a, b, c, d = nodes_of(rows, 100.0)
    assert [(one.name, one.state) for one in (a, b, c)] == [("a", "up"), ("b", "failing"), ("c", "away")]
    assert d.state == "away", "it has said nothing since Valkey's clock was set back"
    assert (a.behind, b.behind, c.behind) == ((), ("hotline",), ()), "not behind one that is away"
    assert (c.silent, b.alarms) == (10.0, ("store-down",))


def test_own_entries_have_a_serial_on_each_node() -> None:
    rows = {
        "a": said(100.0, lists={"hotline": 9, "own-entries": 1_796_010_344}),
        "b": said(100.0, lists={"hotline": 8, "own-entries": 1_796_010_349}),
    }
    a, b = nodes_of(rows, 100.0)
    assert (a.behind, b.behind) == ((), ("hotline",)), "each has compiled the same entries"
    assert a.lists["own-entries"] == 1_796_010_344


def test_a_list_that_a_node_compiles_is_behind_nobody_and_nobody_is_behind_it() -> None:
    rows = {
        "a": said(100.0, lists={"hotline": 9, "phish": 1_796_010_344}, issued=["hotline"]),
        "b": said(100.0, lists={"hotline": 8, "phish": 1_796_010_349}, issued=["hotline", "gone"]),
        # The same name, of a feed whose server has artifacts; the second's version does not say so.
        "c": said(100.0, lists={"hotline": 9, "phish": 4}, issued=["hotline", "phish"]),
        "d": said(100.0, lists={"hotline": 9, "phish": 3}),
    }
    assert [one.behind for one in nodes_of(rows, 100.0)] == [(), ("hotline",), (), ("phish",)]


def test_a_list_that_is_held_is_not_behind() -> None:
    feed = {"kind": "artifact", "state": "held"}
    status = {
        "ok": True, "lists": [{"name": "hotline", "serial": 8}, {"name": "phish", "serial": 4}],
        "feeds": [feed | {"name": "hotline"}, feed | {"name": "phish", "state": "ok"}],
        "connections": 0, "hour": {"judged": 0, "blocked": 0}, "alarms": {},
    }  # fmt: skip
    newer = said(100.0, lists={"hotline": 9, "phish": 5}, issued=["hotline", "phish"])
    nodes = nodes_of({"a": said_of(status, "1", 0.0, 100.0), "b": newer}, 100.0)
    assert [one.behind for one in nodes] == [("phish",), ()]


async def test_nodes_see_each_other_and_nobody_else_what_they_say(server: Server) -> None:
    async with node(server, "a") as a, node(server, "b", lists={"hotline": 8}) as b:
        for one in (a, b):
            await until(lambda one=one: one.latest is not None and len(one.latest) == 2)
        assert a.counts() == {"up": 2, "failing": 0, "away": 0}
        assert b.latest is not None
        assert b.latest[0].behind == ("hotline",)
        found = server.run("HGETALL", "{urlward}:nodes")
        assert len(found) == 4
        assert b"hotline" not in b"".join(found)
        server.kill()
        await until(lambda: not a.connection.up, "the word that Valkey is away")
        assert (a.latest, a.counts()) == (None, {}), "nobody knows how they are"


async def test_of_many_nodes_each_reads_so_many_in_a_second(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says how it is itself as often as ever."""
    monkeypatch.setattr(fleet_nodes, "BEAT", 0.01)
    monkeypatch.setattr(fleet_nodes, "READ_IN_A_SECOND", 0.01)
    reads: list[int] = []
    read = fleet_nodes.read_nodes

    async def counted(connection: FleetConnection) -> Any:
        reads.append(1)
        return await read(connection)

    monkeypatch.setattr(fleet_nodes, "read_nodes", counted)
    async with node(server, "a") as a:
        await until(lambda: a.latest)
        first = server.run("HGET", "{urlward}:nodes", "a")
        await until(lambda: server.run("HGET", "{urlward}:nodes", "a") != first, "another word")
        assert len(reads) == 1, "the next is due in a hundred seconds"
        # Of few, each second.
        monkeypatch.setattr(fleet_nodes, "READ_IN_A_SECOND", 1e6)
    async with node(server, "b"):
        await until(lambda: len(reads) > 3)


async def test_two_nodes_of_one_name_are_told_until_there_is_one(
    server: Server, urlward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = seal_of(FleetTable(url=(server.url,), seal=str(tmp_path / "fleet.key")), None)
    told: list[tuple[str, bool]] = []

    def twin(which: str) -> Callable[[bool], None]:
        return lambda there: told.append((which, there))

    async with node(server, "a", key, twin=twin("first")) as first:
        await until(lambda: first.latest)
        # The process before has left its word, which is one of another process: that alone is no twin.
        before = await first.connection.ask(("HGET", first.connection.name("nodes"), "a"))
    async with node(server, "a", key, twin=twin("second")) as second:
        looks: list[int] = []
        second._describe = lambda at: looks.append(1) or said(at)  # type: ignore[func-returns-value]
        await until(lambda: len(looks) > 3)
        assert told == []
        assert before is not None
        async with node(server, "a", key, twin=twin("third")):
            await until(lambda: {("second", True), ("third", True)} <= {*told})
            await until(lambda: second.latest is not None and second.latest[0].twin)
            assert second.counts() == {"up": 0, "failing": 1, "away": 0}
            assert await asyncio.to_thread(urlward) == 1
            assert (
                "node a: two nodes have this name: give each its own (fleet.node)\n"
                in capsys.readouterr().out
            )
        await until(lambda: ("second", False) in told)
        await until(lambda: second.latest is not None and second.latest[0].state == "up")
    assert sorted(told) == [("second", False), ("second", True), ("third", True)]


async def test_what_makes_no_sense_is_no_node(server: Server) -> None:
    async with node(server, "a") as a:
        key = "{urlward}:nodes"
        server.run("HSET", key, "x", "nonsense", "y", SEAL.seal(b"{}"), "z", SEAL.seal(b"\xff"), b"\xff", "")
        await until(lambda: a.latest)
        # Nor is what another node has said of itself, which hid that this one fails, or is away.
        (said,) = await a.connection.ask(("HGET", key, "a")) or [None]
        assert await a.connection.ask(("HSET", key, "w", said)) == [1]
        found = await read_nodes(a.connection)
        assert found is not None
        assert [one.name for one in found] == ["a"]


def test_status_of_nodes_that_run(
    server: Server, urlward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "gw1"
    folder.mkdir()
    (folder / "fleet.key").write_bytes(format_key(b"k" * 32))
    made = Companion("urlward.service.process", folder, config(server, "gw1"))
    try:
        wait_for(lambda: server.run("HEXISTS", "{urlward}:nodes", "gw1"), "the node")
        # No worker reports.
        assert urlward() == 1
        names, row, *_ = capsys.readouterr().out.splitlines()
        assert names.split() == [
            "node",
            "state",
            "connections",
            "judged",
            "blocked",
            "load",
            "version",
            "lists",
        ]
        assert row.split()[:3] == ["gw1", "failing", "0"]
        assert urlward("--json") == 1
        (found,) = json.loads(capsys.readouterr().out)["nodes"]
        assert (found["name"], found["state"]) == ("gw1", "failing")

        def metrics() -> dict[tuple[str, str], float]:
            text = ask(made.state, "metrics")["text"]
            families = text_string_to_metric_families(text)
            return {
                (one.name, one.labels.get("state", one.labels.get("alarm", ""))): one.value
                for family in families
                for one in family.samples
            }

        wait_for(lambda: metrics()["urlward_fleet_nodes", "failing"] == 1, "the metric")
        assert metrics()["urlward_fleet_up", ""] == 1
        server.kill()
        wait_for(lambda: metrics()["urlward_alarm", "fleet"] == 1, "the alarm")
        assert metrics()["urlward_fleet_up", ""] == 0
        assert urlward() == 1
        assert capsys.readouterr().out == f"Valkey is away: 127.0.0.1:{server.port}: Connection refused\n"
        server.start()
        wait_for(lambda: metrics()["urlward_alarm", "fleet"] == 0, "the end of the alarm")
        wait_for(lambda: server.run("HEXISTS", "{urlward}:nodes", "gw1"), "the node")
    finally:
        made.process.kill()
        made.process.wait()


def test_a_node_says_which_lists_were_issued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "fleet.key").write_bytes(format_key(b"k" * 32))
    (tmp_path / "list.txt").write_text("blocked.example\n")
    (tmp_path / "list.ward").write_bytes(issue(3))
    feeds = "".join(
        f'[[feed]]\nname = "{name}"\npath = "list.{kind}"\nkey = "lists.key"\n'
        for name, kind in (("phish", "txt"), ("hotline", "ward"))
    )
    (tmp_path / "lists.key").write_bytes(format_key(SECRET))
    made = Companion("urlward.service.process", tmp_path, config(server, "gw1", feeds))
    seal = seal_of(FleetTable(url=(server.url,), node="x", seal=str(tmp_path / "fleet.key")), None)

    def issued() -> object:
        sealed = server.run("HGET", "{urlward}:nodes", "gw1")
        return json.loads(seal.unseal(sealed))[1]["issued"] if sealed else None

    try:
        wait_for(lambda: issued() == ["hotline"], "what it says")
    finally:
        made.process.kill()
        made.process.wait()


def test_doctor_and_status_say_how_the_fleet_is(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "gw1"
    folder.mkdir()
    (folder / "fleet.key").write_bytes(format_key(b"k" * 32))
    made = Companion("urlward.service.process", folder, config(server, "gw1"))
    settings = read_config(made.config).model_copy(
        update={
            "state": str(made.state),
            "gateway": GatewayTable.model_validate({"hook": {"folder": str(folder / "hook")}}),
        }
    )

    def said(look: Callable[..., Any]) -> list[tuple[str, str]]:
        return [(one.state, one.text) for one in look(settings)]

    try:
        wait_for(lambda: server.run("HEXISTS", "{urlward}:nodes", "gw1"), "the node")
        # It says how it is before it reads how all are.
        wait_for(lambda: ask(made.state, "status")["fleet"]["nodes"].get("failing"), "its own look")
        # No worker reports.
        assert said(doctor._fleet) == [
            ("ok", "Valkey is reached; 0 of 1 nodes are up"),
            ("wrong", "node gw1 is failing"),
            ("ok", "0 of 0 DNS answers did not wait for all nodes"),
        ]
        assert said(doctor._hook) == [("note", f"{folder}/hook/socket: nobody listens")]
        assert gateway._shared(settings) == {
            "fleet": ask(made.state, "status")["fleet"],
            "hook": {"connected": None, "late": None},
        }
        words = {name: gateway._WORDS[name](value) for name, value in gateway._shared(settings).items()}
        assert words == {
            "fleet": "Valkey is there; nodes: 1 failing; DNS answers late: 0 of 0", "hook": "nobody listens",
        }  # fmt: skip
        assert ask(made.state, "status")["fleet"]["nodes"] == {"up": 0, "failing": 1, "away": 0}
        server.kill()
        wait_for(lambda: not ask(made.state, "status")["fleet"]["up"], "the word that it is away")
        why = f"127.0.0.1:{server.port}: Connection refused"
        assert said(doctor._fleet) == [("wrong", f"Valkey is away: {why}")]
        wait_for(lambda: ask(made.state, "status")["fleet"]["why"] == why, "the reason")
    finally:
        made.process.kill()
        made.process.wait()
    assert gateway._shared(settings) == {"fleet": None, "hook": {"connected": None, "late": None}}


def test_both_nodes_of_one_name_raise_an_alarm(server: Server, tmp_path: Path) -> None:
    made = []
    try:
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "fleet.key").write_bytes(format_key(b"k" * 32))
            made.append(Companion("urlward.service.process", folder, config(server, "gw1")))
        wait_for(lambda: all(one.answers() for one in made), "the processes")
        text = "fleet: another node is called gw1 as well: say another name in fleet.node"
        for one in made:
            wait_for(lambda one=one: ask(one.state, "status")["alarms"].get("twin-node") == text, "the alarm")
        made[0].process.kill()
        made[0].process.wait()
        wait_for(lambda: "twin-node" not in ask(made[1].state, "status")["alarms"], "its end")
    finally:
        for one in made:
            one.process.kill()
            one.process.wait()


def test_all_is_well(server: Server, urlward: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    table = FleetTable(url=(server.url,), node="a", seal=str(server.folder.parent / "fleet.key"))

    async def say() -> None:
        connection = FleetConnection(table, seal_of(table, None))
        made = FleetNodes(connection, lambda at: said(at, alarms=[]))
        async with connection.connected():
            task = asyncio.ensure_future(made._say_always())
            await until(lambda: made.latest)
            task.cancel()

    asyncio.run(say())
    assert urlward() == 0
    assert "hotline 7" in capsys.readouterr().out


def test_a_node_that_is_alone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "urlward.toml"
    path.write_text("workers = 1\n")
    with pytest.raises(Exception, match=r"no \[fleet\]: this node is alone"):
        run_command(add_fleet_commands, "fleet", "status", "--config", path)
