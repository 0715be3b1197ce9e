"""Throttles that nodes share: a real Valkey, and on each node the real counters."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from companion import Companion
from conftest import accepts, free_port, until, wait_for
from e2e.support import Filter, read_response, running
from fleet.nodes import SEAL, Tasks, Wire, hanging
from fleet.servers import HAS_VALKEY, Server
from proxy.test_probing import client
from urlward.config import FleetTable, ProbingTable
from urlward.dashboard.handler import BURST, WrongGuesses
from urlward.engine.digest import Key, format_key
from urlward.engine.verdict import Verdict
from urlward.fleet import throttles
from urlward.fleet.connection import FleetConnection
from urlward.fleet.throttles import SharedNotices, SharedProbing
from urlward.proxy.probing import Probe, Probing

if TYPE_CHECKING:
    from mitmproxy.connection import Client

pytestmark = pytest.mark.skipif(not HAS_VALKEY, reason="needs valkey-server")

PROBER, OTHER = "192.0.2.7", "2001:db8:7::1"
OTHERS_NETWORK = "2001:db8:7::/64"
ENTRIES = 4
NOW = 10_000.0
"""By the clock of those who guess, which stands still."""


class Node(Tasks):
    """One worker of a node.

    Attributes:
        alarms: of probes noticed here.
        told: of probes noticed by others, that are slowed here from then on.
    """

    def __init__(self, url: str, name: str, *, key: Key = SEAL, **limits: Any) -> None:
        self.connection = FleetConnection(FleetTable(url=(url,), node=name), key, who=name)
        table = ProbingTable(**{"entries": ENTRIES, "window": 600.0, "slow": True, "rate": 0.001, **limits})
        self.shared = SharedProbing(self.connection, table)
        self.alarms: list[Probe] = []
        self.told: list[Probe] = []
        self.probing = Probing(table, self._tell, lambda *_: None, shared=self.shared)
        self.shared.throttle = self.probing
        self.guesses = WrongGuesses()
        self.guesses.tell = SharedNotices(
            self.connection, "guesses", 600.0,
            lambda address, _, ago: self.guesses.wrong_elsewhere(address, NOW - ago),
        ).tell  # fmt: skip
        super().__init__()

    def _tell(self, probe: Probe) -> None:
        (self.told if probe.node else self.alarms).append(probe)

    def draw(self, *entries: str, address: str = PROBER) -> None:
        one: Client = client(address)
        for entry in entries:
            self.probing.drew(one, Verdict("block", entry=entry, list="test"))

    def slows(self, address: str = PROBER) -> bool:
        return self.probing.slowing and self.probing.connecting(client(address)) > 0

    def wrong(self, times: int = 1, address: str = "login 192.0.2.9") -> None:
        for _ in range(times):
            self.guesses.wrong(address, NOW)

    def waits(self, address: str = "login 192.0.2.9") -> bool:
        return self.guesses.wait(address, NOW) > 0

    async def start(self) -> None:
        self.run(self.connection.run(), self.shared.run())
        await until(lambda: self.connection.up)


@asynccontextmanager
async def nodes(*made: Node) -> AsyncIterator[None]:
    """Run them; each listens to the others."""
    async with AsyncExitStack() as stack:
        for node in made:
            stack.push_async_callback(node.end)
            await node.start()
        channels = [made[0].connection.name(f"notices-{kind}") for kind in ("probing", "guesses")]

        async def listened_to() -> bool:
            found = await made[0].connection.ask(("PUBSUB", "NUMSUB", *channels))
            return found is not None and min(found[0][1::2]) >= len(made)

        await until(listened_to, "all to listen")
        yield


async def counted(node: Node, number: int) -> None:
    """Wait until Valkey has so many draws."""

    async def has() -> int:
        found = await node.connection.ask(("KEYS", node.connection.name("drawn-*")))
        keys = found[0] if found else []
        counts = await node.connection.ask(*(("ZCARD", key) for key in keys)) if keys else []
        return sum(counts or [])

    async def enough() -> bool:
        return await has() == number

    await until(enough, f"{number} draws")


async def test_what_is_drawn_on_several_nodes_counts_together(server: Server) -> None:
    a, b = Node(server.url, "a"), Node(server.url, "b")
    async with nodes(a, b):
        a.draw("1", "2", "3")
        await counted(a, 3)
        b.draw("3", "4")
        b.draw("5", address=OTHER)
        await counted(a, 5)
        assert (a.alarms, b.alarms) == ([], []), (
            "four entries, of which some were drawn on both; another's is none"
        )
        b.draw("5")
        await until(lambda: b.alarms and a.told)
        assert b.alarms == [Probe(PROBER, ENTRIES + 1, 600.0, slowed=True)]
        assert a.told == [Probe(PROBER, ENTRIES + 1, 600.0, slowed=True, node="b")]
        assert (a.alarms, b.told) == ([], []), "one alarm in all"
        assert a.slows()
        assert b.slows()
        assert not a.slows(OTHER)
        # Nor does another alarm come within the window.
        a.draw("6", "7")
        b.draw("8", "9")
        assert (len(a.alarms), len(b.alarms)) == (0, 1)


async def test_who_is_noticed_by_one_is_slowed_by_all(server: Server) -> None:
    a, b = Node(server.url, "a"), Node(server.url, "b")
    async with nodes(a, b):
        a.draw(*"12345", address=OTHER)
        assert a.alarms == [Probe(OTHERS_NETWORK, ENTRIES + 1, 600.0, slowed=True)], "at once"
        await until(lambda: b.told)
        assert b.slows(OTHER)
        assert not b.slows(PROBER)
    c = Node(server.url, "c")
    async with nodes(c):
        await until(lambda: c.told)
        assert c.slows(OTHER), "though it began later"


async def test_a_node_that_slows_nobody_is_told_all_the_same(server: Server) -> None:
    a, b = Node(server.url, "a"), Node(server.url, "b", slow=False)
    async with nodes(a, b):
        a.draw(*"12345")
        await until(lambda: PROBER in b.probing._drawn)
        b.draw(*"123456")
        assert (b.alarms, b.told, b.probing.slowing) == ([], [], False)


async def test_each_counts_for_itself_while_valkey_is_away_and_all_together_when_it_is_back(
    server: Server, wire: Wire
) -> None:
    a, b, c = Node(server.url, "a"), Node(wire.url, "b"), Node(wire.url, "c")
    async with nodes(a, b, c):
        wire.cut()
        with hanging():
            await until(lambda: not b.connection.up and not c.connection.up)
        a.draw("1", "2", "3")
        await counted(a, 3)
        b.draw("4", "5")
        c.draw(*"12345", address=OTHER)
        b.wrong(BURST - 1)
        a.wrong(BURST - 1)
        assert c.slows(OTHER), "by its own count"
        assert not b.waits()
        assert (a.told, b.alarms) == ([], [])
        wire.mend()
        await until(lambda: {probe.client for probe in a.told} == {PROBER, OTHERS_NETWORK} and b.alarms)
        await until(lambda: a.slows() and a.slows(OTHER) and b.slows() and b.slows(OTHER))
        await until(lambda: a.waits() and b.waits() and c.waits())


async def test_valkey_that_hangs_holds_nothing_up(server: Server) -> None:
    a = Node(server.url, "a")
    async with nodes(a):
        server.stop()
        a.draw(*"12345")
        a.wrong(BURST)
        assert (len(a.alarms), a.slows(), a.waits()) == (1, True, True)
        with hanging():
            await until(lambda: not a.connection.up)
        server.go_on()


async def test_valkey_that_was_emptied_has_all_again(server: Server) -> None:
    a, b = Node(server.url, "a"), Node(server.url, "b")
    async with nodes(a, b):
        a.draw("1", "2", "3")
        a.wrong(BURST + 2)
        a.draw(*"12345", address=OTHER)
        await counted(a, 3 + ENTRIES + 1)
        await until(lambda: b.told and b.waits())
        server.run("FLUSHALL")
        await counted(a, 3 + ENTRIES)
        b.draw("4", "5")
        await until(lambda: b.alarms)
        c = Node(server.url, "c")
        async with nodes(c):
            await until(lambda: c.waits() and c.slows(OTHER))


async def test_wrong_guesses_count_everywhere_once_each(server: Server) -> None:
    a, b = Node(server.url, "a"), Node(server.url, "b")
    heard: list[str] = []
    b.guesses.wrong_elsewhere = lambda address, _: heard.append(address)  # type: ignore[method-assign]
    async with nodes(a, b):
        a.wrong(2)
        a.wrong(1, "script 192.0.2.9")
        await until(lambda: len(heard) == 3)
        server.run("FLUSHALL")
        await until(lambda: server.run("ZCARD", "{urlward}:notices-guesses") == 3)
        a.wrong()
        await until(lambda: len(heard) == 4)
    assert sorted(heard) == ["login 192.0.2.9"] * 3 + ["script 192.0.2.9"]
    assert a.guesses.wait("login 192.0.2.9", NOW) == 0, "its own came back to it not"


def written(server: Server) -> list[bytes]:
    """All that there is in Valkey."""
    found: list[bytes] = []
    for key in server.run("KEYS", "*"):
        found.append(key)
        if server.run("TYPE", key) == "zset":
            found += server.run("ZRANGE", key, 0, -1)
    return found


async def test_nothing_there_names_a_client_or_an_entry_and_all_of_it_ends(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Node(server.url, "a"), Node(server.url, "b")
    async with nodes(a, b):
        a.draw("secret-1", "secret-2")
        a.draw("secret-1", address=OTHER)
        a.wrong()
        b.draw(*"12345")
        await until(lambda: a.told)
        await counted(a, ENTRIES + 1 + 1)
        # Notices are over with the window, too.
        for key in server.run("KEYS", "*"):
            if b"drawn-" in key or b"notices" in key or b"drawers" in key:
                assert 0 < server.run("TTL", key) <= 600
        text = b"\n".join(written(server))
        for secret in (PROBER, OTHER, OTHERS_NETWORK, "secret-1", "192.0.2.9", "login"):
            assert secret.encode() not in text
        keys = {key for key in server.run("KEYS", "*") if b"drawn-" in key}
        members = {one for key in keys for one in server.run("ZRANGE", key, 0, -1)}
        assert len(keys) == 2
        assert len(members) == sum(server.run("ZCARD", key) for key in keys), (
            "one entry of two clients is two"
        )
        # What is of another day has another name, and counts on under it.
        day = a.connection.now() + 86_400
        monkeypatch.setattr(a.connection, "now", lambda: day)
        a.draw("secret-1")
        await until(lambda: len({key for key in server.run("KEYS", "*") if b"drawn-" in key}) > len(keys))
        await until(
            lambda: any(server.run("ZCARD", key) == 2 for key in {*server.run("KEYS", "*drawn-*")} - keys)
        )


async def test_what_others_write_there_without_the_key_is_not_taken(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = Node(server.url, "a"), Node(server.url, "b")
    async with nodes(a, b):
        a.wrong()
        await until(lambda: server.run("ZCARD", "{urlward}:notices-guesses"))
        (guess,) = server.run("ZRANGE", "{urlward}:notices-guesses", 0, -1)
        await until(lambda: b.guesses._full_at)
        before = b.guesses._full_at.copy()
        old = throttles._Notice("guesses", a.connection.now() - 700, "a", "1", "login 192.0.2.8")
        ahead = throttles._Notice("guesses", a.connection.now() + 700, "a", "2", "login 192.0.2.8")
        for name, message in (
            ("guesses", guess),  # again
            ("probing", guess),  # as another kind
            ("guesses", SEAL.seal(msgspec.json.encode(old))),
            ("guesses", SEAL.seal(msgspec.json.encode(ahead))),
            ("guesses", SEAL.seal(b"{}")),
            ("guesses", b"nonsense"),
            ("guesses", Key(b"x" * 32).seal(msgspec.json.encode(old))),
        ):
            server.run("PUBLISH", f"{{urlward}}:notices-{name}", message)
            server.run("ZADD", f"{{urlward}}:notices-{name}", round(a.connection.now()), message)
        a.wrong(1, "login 192.0.2.1")
        await until(lambda: "login 192.0.2.1" in b.guesses._full_at)
        del b.guesses._full_at["login 192.0.2.1"]
        assert b.guesses._full_at == before
        assert (b.told, b.probing.slowing) == ([], False)
        # Nor by a node that begins.
        c = Node(server.url, "c")
        async with nodes(c):
            await until(lambda: len(c.guesses._full_at) == 2)
            assert "login 192.0.2.8" not in c.guesses._full_at
    assert "a notice of another node is not understood" in caplog.text


async def test_what_is_kept_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttles, "MOST_CLIENTS", 3)
    monkeypatch.setattr(throttles, "MOST_NOTICES", 5)
    monkeypatch.setattr(throttles, "MOST_WAITING", 40)
    a = Node(server.url, "a")
    async with nodes(a):
        for number in range(6):
            a.draw(*"1234567890", address=f"192.0.2.{number}")
        assert sum(map(len, a.shared._waiting.values())) == 40
        for number in range(20):
            a.wrong(1, f"login 192.0.2.{number}")
        await until(lambda: server.run("ZCARD", "{urlward}:notices-guesses") == 5)
        await until(
            lambda: server.run("ZCARD", "{urlward}:drawers") == len(server.run("KEYS", "*drawn-*")) == 3
        )
        assert all(server.run("ZCARD", key) <= ENTRIES + 1 for key in server.run("KEYS", "*drawn-*"))
        assert len(a.guesses._full_at) == 20
        server.kill()
        await until(lambda: not a.connection.up)
        for number in range(20):
            a.wrong(1, f"login 192.0.2.{number}")
        server.start()
        await until(lambda: a.connection.up)
        await until(lambda: server.run("ZCARD", "{urlward}:notices-guesses") == 5)


LIST = "".join(f"h{n}.example id=P-{n} category=phishing\n" for n in range(20))


def settings(server: Server, name: str, more: str = "") -> str:
    return f"""
[fleet]
url = "{server.url}"
node = "{name}"
seal = "fleet.key"
[probing]
entries = {ENTRIES}
slow = true
[records]
days = {{ blocks = 1, operations = 1 }}
{more}"""


def test_a_client_that_probes_two_filters(server: Server, tmp_path: Path) -> None:
    """Explicit proxies, which steer nothing: what is drawn at one counts at the other."""
    with ExitStack() as stack:
        filters: list[Filter] = []
        for name in ("a", "b"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "fleet.key").write_bytes(format_key(b"k" * 32))
            (folder / "urlward.toml").write_text(f'state = "{folder}/state"\n{settings(server, name)}')
            filters.append(
                stack.enter_context(running(folder, "--config", str(folder / "urlward.toml"), text=LIST))
            )

        def draw(one: Filter, *entries: int) -> None:
            for n in entries:
                with socket.create_connection(("127.0.0.1", one.port), 30) as s:
                    s.sendall(f"GET http://h{n}.example/ HTTP/1.1\r\nHost: h{n}.example\r\n\r\n".encode())
                    assert read_response(s).status == 451

        def counted() -> int:
            return sum(server.run("ZCARD", key) for key in server.run("KEYS", "*drawn-*"))

        one, other = filters
        draw(one, 0, 1, 2)
        wait_for(lambda: counted() == 3, "what was drawn")
        draw(other, 3, 4)
        what = f"probing client=127.0.0.1: block pages of more than {ENTRIES} entries within 10m, slowed"
        wait_for(lambda: f"{what}\n" in other.log(), "the word of who has noticed it")
        wait_for(lambda: f"{what}, noticed by node b\n" in one.log(), "the word of the other")
        for each in filters:
            each.check_log()


def test_wrong_tokens_at_the_dashboards_of_two_nodes(server: Server, tmp_path: Path) -> None:
    made: list[Companion] = []
    ports: list[int] = []
    try:
        for name in ("a", "b"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "fleet.key").write_bytes(format_key(b"k" * 32))
            ports.append(free_port())
            text = settings(server, name, f'[admin]\nlisten = "127.0.0.1:{ports[-1]}"\n')
            made.append(Companion("urlward.service.process", folder, text))
        for name in ("a", "b"):
            wait_for(lambda name=name: server.run("HEXISTS", "{urlward}:nodes", name), "the node")

        def guess(port: int) -> int:
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/api/lists", headers={"Authorization": "Bearer wrong"})
            status = connection.getresponse().status
            connection.close()
            return status

        channel = "{urlward}:notices-guesses"
        wait_for(lambda: server.run("PUBSUB", "NUMSUB", channel)[1] == 2, "both to listen")
        for port in ports:
            wait_for(lambda port=port: accepts(port), "the dashboard")
        for _ in range(BURST):
            assert guess(ports[0]) == 401
        assert guess(ports[0]) == 429
        wait_for(lambda: server.run("ZCARD", channel) == BURST, "the guesses")
        for _ in range(2):  # what it says of itself comes after what it has heard
            before = server.run("HGET", "{urlward}:nodes", "b")
            wait_for(lambda before=before: server.run("HGET", "{urlward}:nodes", "b") != before, "a beat")
        assert guess(ports[1]) == 429
    finally:
        for one in made:
            one.process.kill()
            one.process.wait()
