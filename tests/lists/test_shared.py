"""The workers' side of sharing, against a broker in this process."""

import asyncio
import logging
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from conftest import wait_for
from lists.support import descriptors
from urlward.lists import memory, shared
from urlward.lists.broker import Broker, send
from urlward.lists.shared import Made, Shared, Turn, inherited


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    # Its thread has to have its turn among all others of the machine.
    monkeypatch.setattr(shared, "ANSWER_WITHIN", 60.0)
    before = descriptors()
    broker = Broker()
    broker.start()
    yield broker
    broker.close()
    assert descriptors() <= before


@pytest.fixture
def worker(broker: Broker) -> Iterator[Shared]:
    yield from joining(broker)


@pytest.fixture
def other(broker: Broker) -> Iterator[Shared]:
    yield from joining(broker)


def joining(broker: Broker) -> Iterator[Shared]:
    with socket.socket(fileno=os.dup(broker.door.fileno())) as door:
        yield Shared(door)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def give(turn: Turn, data: bytes, *, whole: bool = True) -> None:
    fd = memory.sealed(data)
    turn.give(Made(fd, whole))
    os.close(fd)


def make(worker: Shared, slot: str, content: str, data: bytes) -> None:
    with Turn(worker, slot, content) as turn:
        assert turn.result_now() is None
        give(turn, data)


def found(worker: Shared, slot: str, content: str) -> bytes | None:
    """What the others have made; whoever asks leaves the part to the next."""
    with Turn(worker, slot, content) as turn:
        return content_of(turn.result_now())


def content_of(made: Made | None) -> bytes | None:
    if made is None or made.fd is None:
        return None
    try:
        return bytes(memory.view(made.fd))
    finally:
        os.close(made.fd)


MAKER = """
import time
from urlward.lists.shared import Turn, inherited
with Turn(inherited(), "s", "c") as turn:
    print(turn.result_now(), flush=True)
    time.sleep(60)
"""


class TestTurn:
    def test_without_others_it_is_always_ones_own(self) -> None:
        with Turn(None, "s", "c") as turn:
            assert turn.result_now() is None
            turn.give(Made(None, error="bad"))

    def test_what_one_makes_all_have(self, worker: Shared, other: Shared) -> None:
        make(worker, "s", "c", b"artifact")
        assert found(other, "s", "c") == b"artifact"
        assert found(worker, "s", "c") == b"artifact"

    def test_it_is_one_piece_of_memory(self, worker: Shared, other: Shared) -> None:
        make(worker, "s", "c", b"artifact")
        inodes = set()
        for one in (worker, other):
            with Turn(one, "s", "c") as turn:
                made = turn.result_now()
                assert made is not None
                assert made.fd is not None
                inodes.add(os.fstat(made.fd).st_ino)
                os.close(made.fd)
        assert len(inodes) == 1

    def test_other_contents_and_other_files_are_others(self, worker: Shared) -> None:
        make(worker, "s", "c", b"artifact")
        assert found(worker, "s", "d") is None
        assert found(worker, "t", "c") is None

    def test_a_line_without_an_end_and_a_refusal_are_passed_on(self, worker: Shared) -> None:
        with Turn(worker, "s", "c") as turn:
            assert turn.result_now() is None
            give(turn, b"x", whole=False)
        with Turn(worker, "t", "c") as turn:
            assert turn.result_now() is None
            turn.give(Made(None, error="list.txt: empty"))
        with Turn(worker, "s", "c") as turn:
            made = turn.result_now()
            assert made is not None
            assert not made.whole
            assert content_of(made) == b"x"
        with Turn(worker, "t", "c") as turn:
            assert turn.result_now() == Made(None, error="list.txt: empty")

    async def test_others_wait_while_one_makes_it(self, worker: Shared, other: Shared) -> None:
        with Turn(worker, "s", "c") as turn, Turn(other, "s", "c") as second, Turn(other, "s", "c") as third:
            assert await turn.result() is None
            results = [asyncio.create_task(t.result()) for t in (second, third)]
            await asyncio.sleep(0.1)
            assert not any(result.done() for result in results)
            with Turn(other, "t", "c") as elsewhere:
                assert await elsewhere.result() is None
            give(turn, b"artifact")
            assert [content_of(made) for made in await asyncio.gather(*results)] == [b"artifact"] * 2

    def test_waiting_without_a_loop(self, worker: Shared, other: Shared) -> None:
        results: list[bytes | None] = []
        with Turn(worker, "s", "c") as turn:
            assert turn.result_now() is None
            waiting = threading.Thread(target=lambda: results.append(found(other, "s", "c")))
            waiting.start()
            give(turn, b"artifact")
            waiting.join(60)
        assert results == [b"artifact"]

    async def test_who_gives_up_leaves_it_to_the_next(self, worker: Shared, other: Shared) -> None:
        first = ExitStack()
        turn = first.enter_context(Turn(worker, "s", "c"))
        with Turn(other, "s", "c") as second, Turn(other, "s", "c") as third:
            assert await turn.result() is None
            results = [asyncio.create_task(t.result()) for t in (second, third)]
            await asyncio.sleep(0.05)
            first.close()
            done, waiting = await asyncio.wait(results, timeout=60, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result() for task in done] == [None]
            assert len(waiting) == 1
            give(second if results[0] in done else third, b"artifact")
            assert content_of(await asyncio.wait_for(waiting.pop(), 60)) == b"artifact"

    async def test_who_dies_leaves_it_to_the_next(self, broker: Broker, worker: Shared) -> None:
        door = broker.door.fileno()
        child = subprocess.Popen(
            [sys.executable, "-c", MAKER],
            env={**os.environ, shared.DOOR: str(door)},
            pass_fds=[door],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"None\n"
        with Turn(worker, "s", "c") as turn:
            result = asyncio.create_task(turn.result())
            await asyncio.sleep(0.05)
            assert not result.done()
            child.kill()
            child.wait()
            assert await asyncio.wait_for(result, 60) is None
            give(turn, b"artifact")
        assert found(worker, "s", "c") == b"artifact"
        child.stdout.close()

    async def test_who_waits_can_be_cancelled(self, worker: Shared, other: Shared) -> None:
        async def wait() -> None:
            with Turn(other, "s", "c") as turn:
                await turn.result()

        with Turn(worker, "s", "c") as turn:
            assert await turn.result() is None
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            give(turn, b"artifact")
        assert found(other, "s", "c") == b"artifact"


class TestKeeping:
    def test_what_is_in_force_outlives_what_was_made_after_it(self, worker: Shared, other: Shared) -> None:
        assert worker.current("s") is None
        make(worker, "s", "good", b"good")
        assert other.current("s") is None
        worker.keep("s", "good")
        assert content_of(other.current("s")) == b"good"
        for content in ("bad", "worse"):
            with Turn(worker, "s", content) as turn:
                assert turn.result_now() is None
                turn.give(Made(None, error="no list"))
            assert content_of(other.current("s")) == b"good"
        assert found(other, "s", "bad") is None
        assert found(other, "s", "good") == b"good"

    def test_what_is_past_is_let_go(self, worker: Shared) -> None:
        before = descriptors()
        for number in range(20):
            make(worker, "s", str(number), b"x")
            worker.keep("s", str(number))
        # Nobody is told when the broker has come to it.
        wait_for(lambda: len(descriptors() - before) == 1, "all but the last to be let go")
        assert found(worker, "s", "0") is None
        assert found(worker, "s", "19") == b"x"

    def test_a_mapping_outlives_what_it_was_made_from(self, worker: Shared) -> None:
        make(worker, "s", "1", b"first")
        with Turn(worker, "s", "1") as turn:
            made = turn.result_now()
        assert made is not None
        assert made.fd is not None
        view = memory.view(made.fd)
        os.close(made.fd)
        make(worker, "s", "2", b"second")
        worker.keep("s", "2")
        assert found(worker, "s", "1") is None
        assert bytes(view) == b"first"

    def test_nobody_can_keep_what_has_not_been_made(self, worker: Shared) -> None:
        make(worker, "s", "1", b"first")
        worker.keep("s", "1")
        worker.keep("s", "0")
        assert content_of(worker.current("s")) == b"first"


class TestFailures:
    """Whatever fails, it is this worker's turn, and one line says so."""

    def test_the_supervisor_is_gone(self, caplog: pytest.LogCaptureFixture) -> None:
        broker = Broker()
        broker.start()
        [worker] = [Shared(socket.socket(fileno=os.dup(broker.door.fileno())))]
        broker.close()
        assert found(worker, "s", "c") is None
        assert worker.key() is None
        assert worker.current("s") is None
        worker.keep("s", "c")
        assert len(warnings(caplog)) == 1
        assert "keeps its own" in warnings(caplog)[0]

    async def test_the_supervisor_ends_while_one_waits(self, caplog: pytest.LogCaptureFixture) -> None:
        broker = Broker()
        broker.start()
        [worker] = [Shared(socket.socket(fileno=os.dup(broker.door.fileno())))]
        with Turn(worker, "s", "c") as turn, Turn(worker, "s", "c") as second:
            assert await turn.result() is None
            result = asyncio.create_task(second.result())
            await asyncio.sleep(0.05)
            broker.close()
            assert await asyncio.wait_for(result, 60) is None
            give(turn, b"x")
        assert len(warnings(caplog)) == 1

    @pytest.mark.parametrize("loop", [True, False], ids=["async", "now"])
    async def test_the_supervisor_does_not_answer(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loop: bool
    ) -> None:
        monkeypatch.setattr(shared, "ANSWER_WITHIN", 0.1)
        broker = Broker()  # not started
        with Turn(Shared(broker.door), "s", "c") as turn:
            result = await turn.result() if loop else turn.result_now()
            assert result is None
            give(turn, b"x")
        assert len(warnings(caplog)) == 1
        broker.close()

    async def test_another_worker_never_gets_done(
        self,
        worker: Shared,
        other: Shared,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(shared, "MADE_WITHIN", 0.1)
        with Turn(worker, "s", "c") as turn, Turn(other, "s", "c") as second:
            assert await turn.result() is None
            assert await asyncio.wait_for(second.result(), 60) is None
            give(second, b"y")
            assert len(warnings(caplog)) == 1
            give(turn, b"x")
        assert found(other, "s", "c") == b"x"

    def test_it_is_told_again_after_it_has_worked(
        self, worker: Shared, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            raise OSError(24, "Too many open files")

        for _ in range(3):
            worker.attempt(fail)
        assert worker.key()
        worker.attempt(fail)
        assert (
            warnings(caplog)
            == ["lists are not shared with the other workers (Too many open files): this one keeps its own"]
            * 2
        )

    @pytest.mark.parametrize(
        "message", [{}, {"ask": "list"}, {"ask": []}, {"made": 1}, {"keep": {}, "slot": []}], ids=str
    )
    def test_nonsense_ends_no_broker(self, worker: Shared, message: dict[str, object]) -> None:
        with worker.converse(message):
            pass
        make(worker, "s", "c", b"x")
        assert found(worker, "s", "c") == b"x"

    def test_no_json_ends_no_broker(self, broker: Broker, worker: Shared) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine, theirs:
            mine.send(b"{")
            socket.send_fds(broker.door, [b"\0"], [theirs.fileno()])
        broker.door.send(b"no conversation with it")
        assert worker.key()

    def test_what_nobody_asked_for_is_not_taken(self, worker: Shared, other: Shared) -> None:
        with Turn(worker, "s", "c") as turn:
            assert turn.result_now() is None
            with Turn(other, "s", "c") as second:
                give(second, b"not my part")
            give(turn, b"mine")
        assert found(other, "s", "c") == b"mine"


class TestInherited:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Iterator[None]:
        inherited.cache_clear()
        yield
        inherited.cache_clear()

    def test_nothing_in_a_filter_of_one_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(shared.DOOR, raising=False)
        assert inherited() is None

    def test_a_door(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        fd = os.dup(broker.door.fileno())
        os.set_inheritable(fd, True)
        monkeypatch.setenv(shared.DOOR, str(fd))
        found = inherited()
        assert found is not None
        assert inherited() is found
        assert not os.get_inheritable(fd)
        assert shared.DOOR not in os.environ
        assert found.key()
        inherited.cache_clear()
        del found


def test_all_workers_have_one_key(worker: Shared, other: Shared) -> None:
    key = worker.key()
    assert key is not None
    assert len(key) == 32
    assert other.key() == key
    with_another_supervisor = Broker()
    with_another_supervisor.start()
    assert Shared(with_another_supervisor.door).key() != key
    with_another_supervisor.close()


def test_a_send_to_nobody_is_an_error() -> None:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with mine, pytest.raises(OSError):
        send(mine, {})


def test_memory_that_all_write_to(worker: Shared, other: Shared) -> None:
    one, same, another = worker.memory("a", 4096), other.memory("a", 4096), other.memory("b", 4096)
    assert one is not None
    assert same is not None
    assert another is not None
    with mmap.mmap(one, 4096) as first, mmap.mmap(same, 4096) as second, mmap.mmap(another, 4096) as third:
        first[7] = 1
        assert (second[7], third[7]) == (1, 0)
    for fd in (one, same, another):
        for size in (0, 8192):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        os.close(fd)
