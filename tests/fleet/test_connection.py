import asyncio
import logging
import re
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import free_port, until
from fleet.nodes import Node, hanging, meet
from fleet.servers import HAS_VALKEY, Server, fail_over, valkey, with_sentinel
from proxy.test_probing import client
from urlward.config import FleetTable, ProbingTable
from urlward.docs import FOLDER
from urlward.engine.digest import Key
from urlward.engine.verdict import Verdict
from urlward.fleet import connection, throttles
from urlward.fleet.connection import FleetConnection, StreamEntry
from urlward.fleet.nodes import FleetNodes, NodeReport
from urlward.fleet.throttles import SharedProbing
from urlward.proxy.probing import Probing

pytestmark = pytest.mark.skipif(not HAS_VALKEY, reason="needs valkey-server and valkey-sentinel")

SEAL = Key(b"k" * 32)


class Told(list[str]):
    """What was told of Valkey being away."""


@asynccontextmanager
async def connected(
    table: FleetTable, seal: Key = SEAL, *, prepare: Any = lambda _: None, waits: bool = True
) -> AsyncIterator[tuple[FleetConnection, Told]]:
    told = Told()
    made = FleetConnection(table, seal, who="test", tell=told.append)
    prepare(made)
    running = asyncio.ensure_future(made.run())
    try:
        if waits:
            await until(lambda: made.up)
        yield made, told
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def table(server: Server, **more: Any) -> FleetTable:
    return FleetTable(url=(server.url,), node="a", **more)


async def test_commands_run_in_order_and_many_at_a_time(server: Server) -> None:
    async with connected(table(server)) as (c, _):
        found = await asyncio.gather(*(c.ask(("INCR", "n"), ("ECHO", number)) for number in range(100)))
    assert [one[1] for one in found if one] == [str(n).encode() for n in range(100)]
    assert [one[0] for one in found if one] == list(range(1, 101))


async def test_commands_run_atomically(server: Server) -> None:
    async with connected(table(server)) as (c, _):
        assert await c.ask(("SET", "x", 1), ("INCR", "x"), atomically=True) == [b"OK", 2]


async def test_nothing_is_raised_where_nobody_is_there(server: Server) -> None:
    server.kill()
    async with connected(table(server), waits=False) as (c, told):
        assert await c.ask(("PING",)) is None
        await until(lambda: told)
        assert told == [f"127.0.0.1:{server.port}: Connection refused"]


async def test_it_is_said_once_that_it_is_away_and_once_that_it_is_back(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STEADY", 0.2)
    caplog.set_level(logging.INFO, "urlward.fleet")
    async with connected(table(server)) as (c, told):
        server.kill()
        await until(lambda: told)
        assert await c.ask(("PING",)) is None
        await asyncio.sleep(0.5)  # several attempts
        server.start()
        await until(lambda: c.up)
        assert await c.ask(("PING",)) == [b"PONG"], "before it is said that it is back"
        await until(lambda: len(told) == 2)
        assert [bool(why) for why in told] == [True, False]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "WARNING"]


async def test_one_that_hangs_is_away_and_comes_back(server: Server) -> None:
    async with connected(table(server)) as (c, told):
        server.stop()
        with hanging():
            assert await c.ask(("PING",)) is None
            await until(lambda: told)
        assert told == [f"127.0.0.1:{server.port}: no answer in time"]
        server.go_on()
        await until(lambda: c.up)
        assert await c.ask(("PING",)) == [b"PONG"]


async def test_a_connection_that_does_not_last_is_not_said_to_be_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a user's who lacks a right: each is made, and lost with the first command of that kind."""
    monkeypatch.setattr(connection, "BACKOFF", (0.01, 0.02))
    monkeypatch.setattr(connection, "STEADY", 2.0)
    user = ("on", ">word", "~{urlward}:*", "&{urlward}:*", "+@all", "-@dangerous", "+info", "+role")
    server.run("ACL", "SETUSER", "filter", *user, "-subscribe")
    (tmp_path / "password").write_text("word")
    begun: list[int] = []
    settings = table(server, user="filter", password_file=str(tmp_path / "password"))

    def prepare(c: FleetConnection) -> None:
        c.listen(c.name("told"), lambda _: None)
        begin = c._begin

        async def counted(link: Any) -> None:
            begun.append(1)
            await begin(link)

        monkeypatch.setattr(c, "_begin", counted)

    async with connected(settings, prepare=prepare, waits=False) as (c, told):
        await until(lambda: len(begun) > 5)
        assert len(told) == 1
        assert "may not do what is needed" in told[0] == c.why
        # It is back once a connection lasts.
        server.run("ACL", "SETUSER", "filter", "+subscribe")
        await until(lambda: told[1:] == [""])
        assert c.up
        assert c.why == ""


async def test_a_server_that_has_become_a_replica_is_left_by_who_only_reads(
    server: Server, tmp_path: Path
) -> None:
    with valkey(tmp_path / "other") as other:
        async with connected(FleetTable(url=(server.url, other.url), node="a")) as (c, told):
            # It takes over with all data, as a failover has it.
            other.run("REPLICAOF", "127.0.0.1", server.port)
            await until(lambda: other.run("GET", c.name("epoch")) == c._epoch)
            other.run("REPLICAOF", "NO", "ONE")
            server.run("REPLICAOF", "127.0.0.1", other.port)
            await until(lambda: told)
            assert told == [f"127.0.0.1:{server.port}: a replica, which takes no writes"]
            await until(lambda: c.up)
            assert await c.ask(("SET", c.name("x"), 1)) == [b"OK"]


async def test_streams_and_channels_are_followed_over_a_restart(server: Server) -> None:
    taken: list[StreamEntry] = []
    heard: list[bytes] = []
    begun: list[int] = []

    async def take(entries: list[StreamEntry]) -> None:
        taken.extend(entries)

    async def begin() -> None:
        begun.append(1)

    def prepare(c: FleetConnection) -> None:
        c.follow(c.name("log"), take)
        c.listen(c.name("told"), heard.append)
        c.on_begin(begin)

    async with connected(table(server), prepare=prepare) as (c, _):
        for number in (1, 2):
            await until(lambda number=number: len(begun) == number)
            while not heard:
                await c.ask(("PUBLISH", c.name("told"), "x"))
                await asyncio.sleep(0.01)
            await c.ask(("XADD", c.name("log"), "*", "n", number))
            await until(lambda number=number: len(taken) == number)
            server.kill()
            await until(lambda: not c.up)
            heard.clear()
            server.start()
            await until(lambda: c.up)
    assert [entry.fields for entry in taken] == [{b"n": b"1"}, {b"n": b"2"}]


async def test_who_begins_is_listening_already(server: Server) -> None:
    """Else what is published after a look, and before that, would be heard by nobody."""
    heard: list[bytes] = []
    reached: list[object] = []

    def prepare(made: FleetConnection, *, follows: bool = False) -> None:
        async def begin() -> None:
            reached.append(await made.ask(("PUBLISH", made.name("news"), "x")))

        async def take(_: list[StreamEntry]) -> None:
            pass

        for number in range(20):
            made.listen(made.name(f"other-{number}"), heard.append)
        made.listen(made.name("news"), heard.append)
        if follows:
            made.follow(made.name("log"), take)
        made.on_begin(begin)

    async with connected(table(server), prepare=prepare):
        await until(lambda: reached)
    async with connected(table(server), prepare=lambda made: prepare(made, follows=True)):
        await until(lambda: len(reached) == 2)
        await until(lambda: len(heard) == 2)
    assert reached == [[1], [1]]


async def test_a_bug_of_who_takes_does_not_end_it(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    taken: list[StreamEntry] = []

    async def take(entries: list[StreamEntry]) -> None:
        taken.extend(entries)
        raise KeyError("secret")

    async with connected(table(server), prepare=lambda c: c.follow(c.name("log"), take)) as (c, told):
        for number in (1, 2):
            await c.ask(("XADD", c.name("log"), "*", "n", number))
            await until(lambda number=number: len(taken) == number)
    assert told == []
    assert "secret" not in caplog.text


async def test_silence_is_no_fault(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a stream nor of a channel: the library takes it for one after five seconds."""
    made: list[Any] = []

    class Noted(connection.Plain):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    async def take(_: list[StreamEntry]) -> None: ...

    def prepare(c: FleetConnection) -> None:
        c.follow(c.name("log"), take)
        c.listen(c.name("told"), lambda _: None)

    monkeypatch.setattr(connection, "Plain", Noted)
    async with connected(table(server), prepare=prepare):
        await until(lambda: len(made) == 3)
        assert [one.socket_timeout for one in made] == [None] * 3


async def test_it_begins_anew_where_the_data_are_lost(server: Server) -> None:
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    async with connected(table(server), prepare=lambda c: c.on_begin(begin)) as (c, told):
        await until(lambda: begun)
        server.run("FLUSHALL")
        await until(lambda: len(begun) == 2)
        assert c.up
        assert told == []


async def test_it_begins_anew_where_valkeys_clock_was_set(server: Server) -> None:
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    async with connected(table(server), prepare=lambda c: c.on_begin(begin)) as (c, told):
        await until(lambda: begun)
        c._ahead -= 3_600
        await until(lambda: len(begun) == 2)
        assert abs(c.now() - time.time()) < 60
        assert told == []


async def test_valkeys_clock_is_what_counts(server: Server) -> None:
    async with connected(table(server)) as (c, _):
        seconds = int(server.run("TIME")[0])
        assert abs(c.now() - seconds) < 60


async def test_another_key_is_told_before_anything_is_shared(server: Server) -> None:
    async with connected(table(server)):
        pass
    async with connected(table(server), Key(b"x" * 32), waits=False) as (c, told):
        await until(lambda: told)
        assert "another key" in told[0]
        assert not c.up


async def test_an_epoch_that_is_none_is_told(server: Server) -> None:
    async with connected(table(server)) as (c, told):
        server.run("SET", c.name("epoch"), b"x \xff")
        await until(lambda: told)
        assert "another key" in told[0]
        server.run("DEL", c.name("epoch"))
        await until(lambda: c.up)


async def test_a_user_and_its_password(server: Server, tmp_path: Path) -> None:
    server.run("ACL", "SETUSER", "filter", "on", ">s3cret-word", "~{urlward}:*", "&{urlward}:*", "+@all")
    (tmp_path / "password").write_text("s3cret-word\n")
    (tmp_path / "wrong").write_text("another\n")
    good = table(server, user="filter", password_file=str(tmp_path / "password"))
    async with connected(good) as (c, told):
        assert await c.ask(("GET", c.name("epoch")))
        assert await c.ask(("GET", "elsewhere")) is None
        await until(lambda: told)
        assert (
            told[0]
            == f"127.0.0.1:{server.port}: the user may not do what is needed: see `urlward help fleet`"
        )
    bad = table(server, user="filter", password_file=str(tmp_path / "wrong"))
    async with connected(bad, waits=False) as (c, told):
        await until(lambda: told)
        assert told == [f"127.0.0.1:{server.port}: the user or the password is refused"]


async def test_the_documented_user_may_do_all_that_is_needed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a node steers, takes what others steer, shows how it is, and counts what clients draw."""
    (line,) = re.findall("^ACL SETUSER .*", (FOLDER / "fleet.md").read_text(), re.MULTILINE)
    assert server.run(*line.replace("PASSWORD", "word").split()) == "OK"
    (tmp_path / "password").write_text("word")
    nodes = [Node(server.url, name) for name in ("a", "b")]
    monkeypatch.setattr(throttles, "MOST_CLIENTS", 1)
    user = {"user": "urlward", "password_file": str(tmp_path / "password")}
    limits = ProbingTable(entries=2)
    probings, shareds = [], []
    for node in nodes:
        node.connection._table = table(server, **user)
        shared = SharedProbing(node.connection, limits)
        shared.throttle = Probing(limits, lambda _: None, lambda *_: None, shared=shared)
        probings.append(shared.throttle)
        shareds.append(shared)
        FleetNodes(node.connection, lambda at: NodeReport(at, True, "1", {}, 0, 0, 0, 0.0, []))
        node.start()
    try:
        for node in nodes:
            await node.ready()
        await meet(*nodes)
        await nodes[0].steer("192.0.2.1")
        assert nodes[1].kernel.has("192.0.2.1")
        for address, entries in (("192.0.2.7", "abc"), ("192.0.2.8", "a")):
            for entry in entries:
                probings[0].drew(client(address), Verdict("block", entry=entry, list="test"))
        running = asyncio.ensure_future(shareds[0].run())
        await until(
            lambda: len(server.run("KEYS", "*drawn-*")) == server.run("ZCARD", "{urlward}:drawers") == 1
        )
        await until(lambda: "192.0.2.7" in probings[1]._drawn)
        running.cancel()
        server.run("FLUSHALL")
        await until(
            lambda: server.run("ZCARD", "{urlward}:steered") and server.run("HLEN", "{urlward}:nodes")
        )
        assert [node.told for node in nodes] == [[], []]
    finally:
        for node in nodes:
            await node.end()


async def test_a_password_file_that_is_not_there(server: Server, tmp_path: Path) -> None:
    bad = table(server, user="filter", password_file=str(tmp_path / "none"))
    async with connected(bad, waits=False) as (_, told):
        await until(lambda: told)
        assert told == [f"{tmp_path}/none: No such file or directory"]


def certificates(folder: Path) -> None:
    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    run(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    name = "subjectAltName=IP:127.0.0.1"
    run(*new, "-keyout", "own.key", "-out", "own.pem", "-subj", "/CN=own", "-addext", name,
        "-addext", "basicConstraints=CA:FALSE", "-CA", "ca.pem", "-CAkey", "ca.key")  # fmt: skip


async def test_tls_with_certificates_of_both(tmp_path: Path) -> None:
    certificates(tmp_path)
    files = {name: str(tmp_path / name) for name in ("ca.pem", "own.pem", "own.key")}
    with valkey(tmp_path / "valkey") as plain:
        port = plain.port
        plain.kill()
        server = Server(
            tmp_path / "tls", "--tls-port", str(port), "--tls-cert-file", files["own.pem"], "--tls-key-file",
            files["own.key"], "--tls-ca-cert-file", files["ca.pem"],
        ).start()  # fmt: skip
        try:
            url = (f"valkeys://127.0.0.1:{port}",)
            own = {"certificate": files["own.pem"], "key": files["own.key"]}
            async with connected(FleetTable(url=url, node="a", ca=files["ca.pem"], **own)) as (c, _):
                assert await c.ask(("PING",)) == [b"PONG"]
            async with connected(FleetTable(url=url, node="a", **own), waits=False) as (_, told):
                await until(lambda: told)
                assert "certificate: " in told[0]
        finally:
            server.kill()


async def test_sentinel_names_the_server_before_and_after_a_failover(tmp_path: Path) -> None:
    with with_sentinel(tmp_path) as (primary, replica, sentinel):
        settings = FleetTable(sentinels=(sentinel.url,), node="a")
        async with connected(settings) as (c, told):
            while await c.ask(("SET", c.name("x"), 1), ("WAIT", 1, 200)) != [b"OK", 1]:
                assert c.up
            fail_over(primary, sentinel)
            await until(lambda: told)
            await until(lambda: c.up)
            assert await c.ask(("GET", c.name("x"))) == [b"1"]
            assert replica.run("ROLE")[0] == b"master"


WATCH = "sentinel monitor mymaster 127.0.0.1 {port} 1\n"
USER = "user default off\nuser asker on >s3cret-word resetchannels +sentinel|get-master-addr-by-name\n"


async def test_a_sentinel_that_names_a_server_that_refuses_writes_is_passed_over(
    server: Server, tmp_path: Path
) -> None:
    """As one that is cut off from the others together with the primary that was."""
    with ExitStack() as stack:
        cut_off = stack.enter_context(valkey(tmp_path / "old", "--min-replicas-to-write", "1"))
        sentinels = []
        for name, watched in (("first", cut_off), ("second", server)):
            made = Server(tmp_path / name, sentinel=WATCH.format(port=watched.port)).start()
            stack.callback(made.kill)
            sentinels.append(made.url)
        async with connected(FleetTable(sentinels=tuple(sentinels), node="a")) as (c, told):
            assert told == []
            assert await c.ask(("SET", c.name("x"), 1)) == [b"OK"]
            assert server.run("GET", c.name("x")) == b"1"
        # Where no other does, it is said why the first did not.
        settings = FleetTable(sentinels=(sentinels[0],), node="a")
        async with connected(settings, waits=False) as (_, told):
            await until(lambda: told)
            assert told == [f"127.0.0.1:{cut_off.port}: refused: NOREPLICAS"]


NONSENSE = (
    b":1\r\n",
    b"*1\r\n*0\r\n",
    b"$-1\r\n",
    b"$2\r\n\xff\xff\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
)


@asynccontextmanager
async def talking(answer: bytes) -> AsyncIterator[str]:
    """URL of a server that gives one answer to each command."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, ValueError):
            while line := await reader.readline():
                for _ in range(int(line[1:])):
                    await reader.readexactly(int((await reader.readline())[1:]) + 2)
                writer.write(answer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"valkey://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


@pytest.mark.parametrize("answer", NONSENSE)
async def test_a_sentinel_that_talks_nonsense_is_passed_over(
    server: Server, tmp_path: Path, answer: bytes
) -> None:
    with ExitStack() as stack:
        sentinel = Server(tmp_path / "s", sentinel=WATCH.format(port=server.port)).start()
        stack.callback(sentinel.kill)
        async with (
            talking(answer) as url,
            connected(FleetTable(sentinels=(url, sentinel.url), node="a")) as (c, told),
        ):
            assert await c.ask(("PING",)) == [b"PONG"]
            assert told == []


@pytest.mark.parametrize("answer", NONSENSE)
async def test_a_server_that_talks_nonsense_is_away(answer: bytes) -> None:
    async with (
        talking(answer) as url,
        connected(FleetTable(url=(url,), node="a"), waits=False) as (c, told),
    ):
        await until(lambda: told)
        assert not c.up
        assert len(told) == 1


async def test_a_string_of_half_a_gigabyte_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_WITHIN", 3600.0)
    monkeypatch.setattr(connection, "ANSWER_WITHIN", 3600.0)
    async with (
        talking(b"$536870912\r\n") as url,
        connected(FleetTable(url=(url,), node="a"), waits=False) as (_, told),
    ):
        await until(lambda: told)


async def test_one_that_begins_to_talk_nonsense_is_away_and_comes_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STEADY", 0.2)
    lies = True
    check = connection._check_role

    def checked(role: Any, where: str) -> None:
        check(b"" if lies and beats else role, where)  # type: ignore[arg-type]

    beats: list[int] = []
    monkeypatch.setattr(connection, "_check_role", checked)
    async with connected(table(server)) as (c, told):
        beats.append(1)
        await until(lambda: told)
        assert "an answer that makes no sense" in told[0]
        lies = False
        await until(lambda: told[1:] == [""])
        assert c.up


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "noeviction"])
async def test_one_that_evicts_what_is_shared_is_told_once(
    server: Server, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    server.run("CONFIG", "SET", "maxmemory-policy", policy)
    async with connected(table(server)) as (c, told):
        server.run("FLUSHALL")
        epoch = c._epoch
        await until(lambda: c._epoch != epoch)
        assert told == []
    said = [record.getMessage() for record in caplog.records if "maxmemory-policy" in record.getMessage()]
    assert len(said) == (policy == "allkeys-lru")


async def test_one_that_is_full_is_told(server: Server) -> None:
    server.run("CONFIG", "SET", "maxmemory", "1")
    async with connected(table(server), waits=False) as (_, told):
        await until(lambda: told)
        assert told == [f"127.0.0.1:{server.port}: it is full (maxmemory)"]


async def test_sentinels_with_a_user_of_their_own(server: Server, tmp_path: Path) -> None:
    """And a password; the server wants another."""
    server.run("CONFIG", "SET", "requirepass", "other-word")
    words = {"own": "other-word\n", "sentinel": "s3cret-word\n"}
    for name, word in words.items():
        (tmp_path / name).write_text(word)
    own = {"password_file": str(tmp_path / "own")}
    given = {"sentinel_user": "asker", "sentinel_password_file": str(tmp_path / "sentinel")}
    sentinel = Server(tmp_path / "s", sentinel=WATCH.format(port=server.port) + USER).start()
    try:
        good = FleetTable(sentinels=(sentinel.url,), node="a", **own, **given)
        async with connected(good) as (c, told):
            assert await c.ask(("PING",)) == [b"PONG"]
            assert told == []
        for wrong in ({}, given | {"sentinel_password_file": str(tmp_path / "own")}):
            table = FleetTable(sentinels=(sentinel.url,), node="a", **own, **wrong)
            async with connected(table, waits=False) as (_, told):
                await until(lambda told=told: told)
                assert told == [f"127.0.0.1:{sentinel.port}: the user or the password is refused"]
        missing = given | {"sentinel_password_file": str(tmp_path / "none")}
        table = FleetTable(sentinels=(sentinel.url,), node="a", **own, **missing)
        async with connected(table, waits=False) as (_, told):
            await until(lambda: told)
            assert told == [f"{tmp_path}/none: No such file or directory"]
    finally:
        sentinel.kill()


async def test_sentinels_with_a_password_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sentinel").write_text("s3cret-word")
    watch = WATCH.format(port=server.port) + "requirepass s3cret-word\n"
    sentinel = Server(tmp_path / "s", sentinel=watch).start()
    try:
        given = {"sentinel_password_file": str(tmp_path / "sentinel")}
        async with connected(FleetTable(sentinels=(sentinel.url,), node="a", **given)) as (c, _):
            assert await c.ask(("PING",)) == [b"PONG"]
    finally:
        sentinel.kill()


async def test_sentinels_over_tls(tmp_path: Path) -> None:
    """With certificates of both, and the server likewise."""
    certificates(tmp_path)
    files = {name: str(tmp_path / name) for name in ("ca.pem", "own.pem", "own.key")}
    options = {
        "tls-cert-file": files["own.pem"],
        "tls-key-file": files["own.key"],
        "tls-ca-cert-file": files["ca.pem"],
    }
    port = free_port()
    server = Server(
        tmp_path / "tls",
        "--tls-port",
        str(port),
        *(part for name, file in options.items() for part in (f"--{name}", file)),
    ).start()
    lines = "".join(f"{name} {file}\n" for name, file in options.items())
    (tmp_path / "sentinel").write_text("s3cret-word")
    sentinel = Server(
        tmp_path / "s", sentinel=WATCH.format(port=port) + lines + USER + "tls-replication yes\n",
        listens="port 0\ntls-port {port}",
    ).start()  # fmt: skip
    try:
        url = (f"valkeys://127.0.0.1:{sentinel.port}",)
        word = {"sentinel_user": "asker", "sentinel_password_file": str(tmp_path / "sentinel")}
        own = {"certificate": files["own.pem"], "key": files["own.key"]}
        good = FleetTable(sentinels=url, node="a", ca=files["ca.pem"], **own, **word)
        async with connected(good) as (c, _):
            assert await c.ask(("PING",)) == [b"PONG"]
        async with connected(FleetTable(sentinels=url, node="a", **own, **word), waits=False) as (_, told):
            await until(lambda: told)
            assert "certificate: " in told[0]
    finally:
        sentinel.kill()
        server.kill()


async def test_a_cluster_is_asked_where_the_slot_is(tmp_path: Path) -> None:
    # The other port of a node is by default one that some connection of this machine may have.
    options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port")
    first, second = free_port(), free_port()
    with (
        valkey(tmp_path / "1", *options, str(first)) as one,
        valkey(tmp_path / "2", *options, str(second)) as two,
    ):
        one.run("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        two.run("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        one.run("CLUSTER", "MEET", "127.0.0.1", two.port, second)
        await until(lambda: all(b"cluster_state:ok" in each.run("CLUSTER", "INFO") for each in (one, two)))
        for each in (one, two):
            async with connected(FleetTable(url=(each.url,), node="a")) as (c, _):
                assert await c.ask(("INCR", c.name("n")))
        assert sorted(each.run("DBSIZE") for each in (one, two)) == [0, 2]
