import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import rounds
from records.recording import events
from urlward.records import server as module
from urlward.records.event import Event
from urlward.records.server import Server
from urlward.records.wire import MAX_LINE, Hello, encode, encode_batch

HELLO = encode({"hello": "w", "node": "gw1"})


class Taker:
    """Takes note."""

    def __init__(self) -> None:
        self.taken: list[Event] = []
        self.safe: list[Callable[[], None]] = []
        self.crowded = False
        self.measured: list[Any] = []
        self.bad = 0
        self.ended: list[tuple[str, bool]] = []

    def take(self, events: Sequence[Event], safe: Callable[[], None]) -> None:
        self.taken += events
        self.safe.append(safe)

    def measure(self, worker: str, metrics: dict[str, Any]) -> None:
        self.measured.append((worker, metrics))

    def refused(self, worker: str, count: int) -> None:
        self.bad += count

    def gone(self, worker: Hello, killed: float | None) -> None:
        self.ended.append((worker.worker, killed is not None))


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
async def server(tmp_path: Path, taker: Taker) -> AsyncIterator[Path]:
    made = Server(tmp_path / "sock", taker)
    await made.start()
    yield tmp_path / "sock"
    await made.close(0.1)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_batch_is_acknowledged_when_it_is_safe_and_not_before(server: Path, taker: Taker) -> None:
    reader, writer = await asyncio.open_unix_connection(server)
    writer.write(HELLO + encode_batch(1, events(5)) + encode_batch(2, events(5, 5)))
    await until(lambda: len(taker.safe) == 2)
    assert taker.taken == events(10)
    await asyncio.to_thread(taker.safe[1])
    assert json.loads(await reader.readline()) == {"ack": 2}
    taker.safe[0]()
    assert json.loads(await reader.readline()) == {"ack": 1}
    writer.close()
    await until(lambda: not taker.ended)


@pytest.mark.parametrize(
    "said",
    [
        b"?\n",
        encode({"bye": True}),
        encode_batch(1, events(1)),
        HELLO + b"?\n",
        HELLO + b"{}\n",
        HELLO + HELLO[:-1] + b"x" * (MAX_LINE + 1),
        b"x" * (2 * MAX_LINE),
        HELLO + encode_batch(1, events(1))[:-5],
    ],
)
async def test_who_talks_nonsense_is_not_listened_to(server: Path, taker: Taker, said: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(server)
    writer.write(said)
    writer.write_eof()
    async with asyncio.timeout(60):
        with suppress(ConnectionError):  # also where it was still writing
            assert await reader.read() == b""
    writer.close()
    assert taker.taken == []
    # Others are, all the same.
    reader, writer = await asyncio.open_unix_connection(server)
    writer.write(HELLO + encode_batch(1, events(1)))
    await until(lambda: taker.taken)
    writer.close()


async def test_who_says_nothing_is_not_waited_for(
    server: Path, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELLO_WITHIN", 0.05)
    reader, writer = await asyncio.open_unix_connection(server)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()


async def test_what_is_counted_and_what_is_none_is_passed_on(server: Path, taker: Taker) -> None:
    _, writer = await asyncio.open_unix_connection(server)
    writer.write(HELLO + encode({"metrics": {"a": 1}}) + encode({"batch": 1, "events": [[], []]}))
    await until(lambda: taker.bad == 2)
    assert taker.measured == [("w", {"a": 1})]
    writer.close()


async def test_an_end_in_order_is_told_at_once(server: Path, taker: Taker) -> None:
    _, writer = await asyncio.open_unix_connection(server)
    writer.write(HELLO + encode({"bye": True}))
    await until(lambda: taker.ended == [("w", False)])
    writer.close()


async def test_a_worker_that_lives_may_come_back(server: Path, taker: Taker) -> None:
    for _ in range(3):
        _, writer = await asyncio.open_unix_connection(server)
        writer.write(HELLO + encode_batch(1, events(1)))
        count = len(taker.taken)
        await until(lambda count=count: len(taker.taken) > count)
        writer.close()
    await rounds(module.GONE_LOOK, 2)
    assert taker.ended == []


async def test_a_store_that_is_behind_is_given_time(server: Path, taker: Taker) -> None:
    taker.crowded = True
    _, writer = await asyncio.open_unix_connection(server)
    writer.write(HELLO + encode_batch(1, events(1)) + encode({"metrics": {}}))
    await asyncio.sleep(0.1)
    assert taker.taken == []
    taker.crowded = False
    await until(lambda: taker.taken)
    writer.close()
