import asyncio
import math
import time
from pathlib import Path

import pytest

from conftest import until
from fleet.nodes import SEAL, FakeKernel, Node, Wire, fleet, hanging, meet, packed
from fleet.servers import HAS_VALKEY, Server, fail_over, with_sentinel
from urlward.engine.digest import Key
from urlward.fleet import steer_sets
from urlward.fleet.steer_sets import A_BATCH, packed_batch, read_batch

pytestmark = pytest.mark.skipif(not HAS_VALKEY, reason="needs valkey-server and valkey-sentinel")

ONE, TWO, THREE = "198.51.100.1", "198.51.100.2", "2001:db8::3"
MANY = [f"203.0.{n // 250}.{n % 250}" for n in range(3_000)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steer_sets, "BEAT", 0.1)
    monkeypatch.setattr(steer_sets, "SEEN", 0.12)
    monkeypatch.setattr(steer_sets, "MERGE_AFTER", 0.02)


async def test_an_answer_leaves_when_all_others_have_its_addresses(server: Server) -> None:
    async with fleet(server.url, "a", "b", "c") as (a, b, c):
        await a.steer(ONE, THREE)
        assert b.kernel.has(ONE, THREE)
        assert c.kernel.has(ONE, THREE)
        assert a.counts == {"settled": 1, "sent": 2}
        assert 1_300 < b.kernel.left(ONE) <= 1_322


async def test_an_answer_waits_while_a_kernel_has_yet_to_take_it(server: Server) -> None:
    async with fleet(server.url, "a", "b", "c") as (a, b, c):
        b.kernel.works.clear()
        steering = asyncio.ensure_future(a.steer(ONE))
        await until(lambda: c.kernel.has(ONE))
        await asyncio.sleep(0.02)
        assert not steering.done()
        b.kernel.works.set()
        await steering
        assert b.kernel.has(ONE)


async def test_an_answer_does_not_wait_longer_than_settle(server: Server) -> None:
    async with fleet(server.url, "a", "b", settle=0.03) as (a, b):
        b.kernel.works.clear()
        await a.steer(ONE)
        assert a.counts["late"] == 1
        b.kernel.works.set()
        await until(lambda: b.kernel.has(ONE))


async def test_what_is_steered_again_is_not_shared_again(server: Server) -> None:
    async with fleet(server.url, "a", "b") as (a, _):
        for _ in range(3):
            await a.steer(ONE)
        assert a.counts == {"settled": 1, "sent": 1}
        await a.steer(ONE, seconds=2_000)
        assert a.counts == {"settled": 2, "sent": 2}


async def test_addresses_of_one_turn_are_one_batch(server: Server) -> None:
    async with fleet(server.url, "a", "b") as (a, b):
        before = server.run("XLEN", "{urlward}:log")
        await asyncio.gather(*(a.steer(one) for one in MANY[:500]))
        assert b.kernel.has(*MANY[:500])
        assert server.run("XLEN", "{urlward}:log") == before + 1
        await a.steer(*MANY[: A_BATCH + 700])
        assert b.kernel.has(*MANY[: A_BATCH + 700])


async def test_cuts_are_shared(server: Server) -> None:
    async with fleet(server.url, "a", "b") as (a, b):
        a.shared.cut(packed(ONE), 300)
        await until(lambda: b.kernel.cut)
        assert b.kernel.cut == {packed(ONE)[0]: 300}
        assert not b.kernel.has(ONE)


async def test_nothing_readable_is_in_valkey(server: Server, tmp_path: Path) -> None:
    async with fleet(server.url, "a", "b") as (a, _):
        await a.steer(ONE, THREE)
        server.run("SAVE")
    data = (server.folder / "dump.rdb").read_bytes()
    for address in packed(ONE, THREE):
        assert address not in data
    assert ONE.encode() not in data
    members = server.run("ZRANGE", "{urlward}:steered", 0, -1)
    assert {SEAL.unseal(one) for one in members} == {*packed(ONE, THREE)}


async def test_a_node_that_joins_has_all_before_it_is_ready(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer_sets, "SEEN", 10 * steer_sets.BEAT)
    async with fleet(server.url, "a") as (a,):
        await a.steer(*MANY)
        await until(lambda: server.run("ZCARD", "{urlward}:steered") == len(MANY))
        b = Node(server.url, "b")
        b.start()
        try:
            await b.ready()
            assert b.kernel.has(*MANY)
            assert 1_300 < b.kernel.left(MANY[0]) <= 1_322
            # All who share wait for it from then on.
            await a.steer(ONE)
            assert b.kernel.has(ONE)
        finally:
            await b.end()


async def test_a_node_that_joins_is_waited_for_when_it_is_ready(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by those whom no message reaches."""
    monkeypatch.setattr(steer_sets, "SEEN", 10 * steer_sets.BEAT)
    async with fleet(server.url, "a") as (a,):
        a.connection._listeners[a.connection.name("members")] = lambda _: None
        b = Node(server.url, "b")
        b.start()
        try:
            await b.ready()
            assert a.shared._awaited() == {"b"}
        finally:
            await b.end()


async def test_what_a_merge_finds_goes_to_all(server: Server) -> None:
    async with fleet(server.url, "a", "b") as (a, b):
        a.kernel.steer(dict.fromkeys(packed(ONE), 600), 0)
        a.shared.again()
        await until(lambda: b.kernel.has(ONE))
        assert 590 < b.kernel.left(ONE) < 602


async def test_what_one_worker_alone_could_not_share(server: Server, wire: Wire) -> None:
    async with fleet(server.url, "a", "b") as (a, b):
        worker = Node(wire.url, "a", kernel=a.kernel, first=False)
        worker.start()
        try:
            await worker.ready()
            wire.cut()
            with hanging():
                await away(worker)
            await worker.steer(ONE)
            assert worker.counts == {"away": 1}
            wire.mend()
            await until(lambda: b.kernel.has(ONE))
        finally:
            await worker.end()


async def test_other_workers_of_a_node_are_ready_when_the_first_is(server: Server) -> None:
    kernel = FakeKernel()
    kernel.works.clear()
    async with fleet(server.url, "a") as (a,):
        await a.steer(ONE)
        await until(lambda: server.run("ZCARD", "{urlward}:steered"))
        workers = [Node(server.url, "b", kernel=kernel, first=first) for first in (True, False)]
        for one in workers:
            one.start()
        try:
            await until(lambda: all(one.connection.up for one in workers))
            await asyncio.sleep(0.2)
            assert not any(one.shared.ready.is_set() for one in workers)
            kernel.works.set()
            for one in workers:
                await one.ready()
            assert kernel.has(ONE)
            # What the second steers is for other nodes, and not for its own.
            await until(lambda: workers[1].shared._awaited() == {"a"})
            await workers[1].steer(TWO)
            assert a.kernel.has(TWO)
        finally:
            for one in workers:
                await one.end()


async def test_that_a_node_has_all_is_said_anew_where_it_is_lost_alone(server: Server) -> None:
    """Another of its workers would wait for it for minutes."""
    async with fleet(server.url, "a") as (a,):
        await until(lambda: server.run("HGET", "{urlward}:loaded", "a"))
        server.run("DEL", "{urlward}:loaded")
        await until(lambda: server.run("HGET", "{urlward}:loaded", "a") == a.shared._token.encode())


async def test_times_that_are_over_are_not_taken(server: Server) -> None:
    async with fleet(server.url, "a") as (a,):
        await a.steer(ONE, TWO)
        now = int(server.run("TIME")[0])
        await until(lambda: server.run("ZCARD", "{urlward}:steered") == 2)
        server.run("ZADD", "{urlward}:steered", now - 1, SEAL.seal(packed(ONE)[0]))
        b = Node(server.url, "b")
        b.start()
        try:
            await b.ready()
            assert b.kernel.has(TWO)
            assert not b.kernel.has(ONE)
        finally:
            await b.end()


async def test_what_another_has_sealed_is_not_taken(server: Server) -> None:
    other = Key(b"x" * 32)
    async with fleet(server.url, "a", "b") as (a, b):
        forged = other.seal(packed_batch(b"s", {packed(ONE)[0]: 60}))
        for data in (
            forged,
            b"",
            SEAL.seal(packed_batch(b"c", {packed(ONE)[0]: 60})),
            SEAL.seal(b"s\0\0\0\1\5abcde"),
        ):
            server.run("XADD", "{urlward}:log", "*", "p", "x 1", "k", "s", "n", 1, "d", data)
        server.run("XADD", "{urlward}:log", "*", "nonsense", "x")
        server.run("ZADD", "{urlward}:steered", 2**40, other.seal(packed(ONE)[0]))
        await until(lambda: b.counts.get("refused") == 5)
        await a.steer(TWO)
        assert b.kernel.has(TWO)
        assert not b.kernel.has(ONE)


# --- Valkey goes, and comes back


async def away(*nodes: Node) -> None:
    for node in nodes:
        await until(lambda node=node: not node.connection.up and node.told)


async def back(*nodes: Node) -> None:
    for node in nodes:
        await until(lambda node=node: node.connection.up and node.told[-1] == "")


async def test_killed_and_restarted_empty(server: Server) -> None:
    async with fleet(server.url, "a", "b", "c") as nodes:
        a, b, c = nodes
        await a.steer(ONE)
        server.kill()
        await away(*nodes)
        for node, address in ((a, TWO), (b, THREE)):
            node.kernel.steer(dict.fromkeys(packed(address), 1_200), 120)
            assert node.shared.share(packed(address), 1_200) is None, "nobody waits for what is away"
        assert a.counts["away"] == b.counts["away"] == 1
        # Another worker's, that has ended meanwhile.
        a.kernel.steer(dict.fromkeys(packed("192.0.2.5"), 600), 0)
        server.start()
        await back(*nodes)
        for node in nodes:
            await until(lambda node=node: node.kernel.has(ONE, TWO, THREE, "192.0.2.5"))
        await until(lambda: server.run("ZCARD", "{urlward}:steered") == 4)
        assert [len(node.told) for node in nodes] == [2, 2, 2], (
            "once that it is away, and once that it is back"
        )
        await meet(*nodes)
        await c.steer("192.0.2.4")
        assert a.kernel.has("192.0.2.4")


async def test_hung(server: Server) -> None:
    async with fleet(server.url, "a", "b", settle=0.05) as nodes:
        a, b = nodes
        server.stop()
        await a.steer(ONE)
        assert a.counts["late"] == 1
        with hanging():
            await away(*nodes)
        await b.steer(TWO)
        server.go_on()
        await back(*nodes)
        await until(lambda: b.kernel.has(ONE))
        await until(lambda: a.kernel.has(TWO))


async def test_flushed(server: Server) -> None:
    async with fleet(server.url, "a", "b") as (a, b):
        await a.steer(*MANY[:700])
        server.run("FLUSHALL")
        await until(lambda: server.run("ZCARD", "{urlward}:steered") == 700)
        c = Node(server.url, "c")
        c.start()
        try:
            await c.ready()
            assert c.kernel.has(*MANY[:700])
            await meet(a, b, c)
            await b.steer(ONE)
            assert a.kernel.has(ONE)
            assert c.kernel.has(ONE)
        finally:
            await c.end()
        assert a.told == b.told == []


async def test_partitioned_from_half_of_the_nodes(server: Server, wire: Wire) -> None:
    near = [Node(server.url, name) for name in ("a", "b")]
    far = [Node(wire.url, name) for name in ("c", "d")]
    nodes = [*near, *far]
    for node in nodes:
        node.start()
    try:
        for node in nodes:
            await node.ready()
        await meet(*nodes)
        wire.cut()
        with hanging():
            await away(*far)
        await far[0].steer(ONE)
        assert far[0].counts["away"] == 1
        await until(lambda: all(len(node.shared._awaited()) == 1 for node in near))
        await near[0].steer(TWO)
        assert near[1].kernel.has(TWO)
        assert not far[0].kernel.has(TWO)
        wire.mend()
        await back(*far)
        for node in nodes:
            await until(lambda node=node: node.kernel.has(ONE, TWO))
        assert [node.told for node in near] == [[], []]
    finally:
        for node in nodes:
            await node.end()


async def test_a_replica_takes_over_that_lacks_the_last_writes(tmp_path: Path) -> None:
    with with_sentinel(tmp_path) as (primary, replica, sentinel):
        async with fleet(sentinel.url, "a", "b", sentinel=True) as nodes:
            a, b = nodes
            await a.steer(ONE)
            await until(lambda: replica.run("ZCARD", "{urlward}:steered") == 1)
            replica.stop()
            await a.steer(TWO)
            assert b.kernel.has(TWO)
            fail_over(primary, sentinel)
            replica.go_on()
            await away(*nodes)
            await b.steer(THREE)
            await back(*nodes)
            await until(lambda: a.kernel.has(ONE, TWO, THREE))
            await until(lambda: replica.run("ZCARD", "{urlward}:steered") == 3)


async def test_a_node_that_hangs_is_not_waited_for_after_its_lease(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer_sets, "LEASE", 0.5)
    async with fleet(server.url, "a", "b") as (a, b):
        await b.end()
        await until(lambda: not a.shared._awaited())
        assert a.shared.share(packed(ONE), 60) is None


async def test_a_node_starts_with_what_it_has_where_nobody_is_there(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer_sets, "WITHOUT", 0.1)
    server.kill()
    node = Node(server.url, "a")
    node.start()
    try:
        await node.ready()
        await node.steer(ONE)
        server.start()
        await until(lambda: node.connection.up)
        await until(lambda: server.run("ZCARD", "{urlward}:steered") == 1)
    finally:
        await node.end()


@pytest.mark.parametrize("broken", ["adopt", "held"])
async def test_a_kernel_that_takes_nothing_keeps_nobody_from_starting(
    server: Server, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Such as one whose set is full, or whose rules are gone; what it lacks comes when it does."""
    monkeypatch.setattr(steer_sets, "AGAIN", 0.1)

    async def refused(*_: object, **__: object) -> None:
        raise OSError("the set is full")

    async with fleet(server.url, "a", settle=0.01) as (a,):
        await a.steer(*MANY)
        await until(lambda: server.run("ZCARD", "{urlward}:steered") == len(MANY))
        b = Node(server.url, "b")
        works = getattr(b.kernel, broken)
        setattr(b.kernel, broken, refused)
        b.start()
        try:
            await b.ready()
            await meet(a, b)
            await a.steer(ONE)
            # What is not in the kernel is not acknowledged.
            assert broken == "held" or a.counts["late"] == 1
            setattr(b.kernel, broken, works)
            await until(lambda: b.kernel.has(*MANY, ONE))
        finally:
            await b.end()


async def test_two_nodes_of_one_name_have_the_same(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(server.url, "a") as (a,):
        monkeypatch.setattr(steer_sets, "_boot", lambda: "another")
        other = Node(server.url, "a")
        other.start()
        try:
            await other.ready()
            seen: set[bytes] = set()
            await until(
                lambda: (
                    len(seen | {server.run("HGET", "{urlward}:loaded", "a")}) == 2
                    or seen.add(server.run("HGET", "{urlward}:loaded", "a"))
                )
            )
            await a.steer(ONE)
            await until(lambda: other.kernel.has(ONE))
        finally:
            await other.end()


async def test_what_the_kernel_has_lost_comes_back(server: Server) -> None:
    async with fleet(server.url, "a", "b") as (a, b):
        await a.steer(ONE)
        b.kernel.until.clear()
        b.shared.again()
        await until(lambda: b.kernel.has(ONE))


async def test_a_time_without_an_end_keeps_nothing_else_from_being_loaded(server: Server) -> None:
    """Times in Valkey are not sealed: who may write there needs no key to set one."""
    async with fleet(server.url, "a") as (a,):
        await a.steer(ONE, TWO, THREE)
        await until(lambda: server.run("ZCARD", a.connection.name("steered")) == 3)
        for time_, member in zip(
            ("inf", "1e15"), server.run("ZRANGE", a.connection.name("steered"), 0, 1), strict=True
        ):
            server.run("ZADD", a.connection.name("steered"), "XX", time_, member)
        b = Node(server.url, "b")
        b.start()
        await b.ready()
        assert b.kernel.has(ONE, TWO, THREE)
        assert max(map(b.kernel.left, (ONE, TWO, THREE))) <= steer_sets.MOST
        await b.end()


async def test_what_valkey_had_under_a_clock_that_ran_ahead_is_not_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is waited for by it, nor does the stream grow until the clock is there again."""
    monkeypatch.setattr(steer_sets, "SWEEP", 0.1)
    monkeypatch.setattr(steer_sets, "MOST_KEPT", 100)
    async with fleet(server.url, "a") as (a,):
        receivers, log = map(a.connection.name, ("receivers", "log"))
        year = int(server.run("TIME")[0]) + 365 * 86_400
        server.run("ZADD", receivers, year, "gone")
        for _ in range(1_000):
            server.run("XADD", log, f"{year * 1000}-*", "k", "x")
        await until(lambda: server.run("ZCARD", receivers) == 1 and server.run("XLEN", log) < 500)
        a.shared._receivers = {"gone": float(year)}
        assert a.shared._awaited() == set()
        await a.steer(ONE)
        assert server.run("XLEN", log) > 1


async def test_what_stays_for_ever_is_offered_once(server: Server) -> None:
    async with fleet(server.url, "a", "b") as (a, b):
        for node in (a, b):
            node.kernel.until[packed(ONE)[0]] = math.inf
        a.shared.again()
        await until(lambda: a.counts.get("offered") == 1)
        b.shared.again()
        await asyncio.sleep(0.3)
        assert a.counts["offered"] == 1
        assert "offered" not in b.counts


async def test_a_name_that_is_none_ends_no_sharing(server: Server) -> None:
    async with fleet(server.url, "a") as (a,):
        server.run("ZADD", a.connection.name("receivers"), int(time.time()), b"\xff")
        await until(lambda: "\ufffd" in a.shared._receivers)
        assert not any(one.done() for one in a._running)


async def test_a_node_starts_in_the_end_where_nothing_can_be_loaded(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steer_sets, "START_WITHIN", 0.3)
    node = Node(server.url, "a", first=False)  # of a node whose first worker does not live
    node.start()
    await node.ready()
    assert "is not loaded in time" in caplog.text
    await node.end()


def test_a_batch_is_read_as_it_was_packed() -> None:
    seconds = {packed(ONE)[0]: 60, packed(THREE)[0]: 2**31}
    data = packed_batch(b"s", seconds)
    assert dict(read_batch(b"s", data)) == seconds
    whole = {1, 1 + 5 + 4, len(data)}
    for end in {*range(len(data))} - whole:
        with pytest.raises(ValueError, match=r"cut short|no address|another kind"):
            dict(read_batch(b"s", data[:end]))
