"""Nodes of a fleet: a fake kernel, the real rest, and a wire to Valkey that can be cut."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from ipaddress import ip_address
from typing import Any
from unittest.mock import patch

from conftest import until
from urlward.config import FleetTable
from urlward.engine.digest import Key
from urlward.fleet import connection
from urlward.fleet.connection import FleetConnection
from urlward.fleet.steer_sets import SharedSteerSet

SEAL = Key(b"k" * 32)
SETTLE = 10.0
"""So long that an answer which is not settled is a fault; tests of that say another."""


def packed(*addresses: str) -> list[bytes]:
    return [ip_address(one).packed for one in addresses]


@contextmanager
def hanging() -> Iterator[None]:
    """Meanwhile, a Valkey from which nothing comes is away soon."""
    with patch.object(connection, "ANSWER_WITHIN", 1.0), patch.object(connection, "CONNECT_WITHIN", 1.0):
        yield


class FakeKernel:
    """Elements with times, as `SteerSet` has them."""

    def __init__(self) -> None:
        self.until: dict[bytes, float] = {}
        self.cut: dict[bytes, int] = {}
        self.works = asyncio.Event()
        self.works.set()

    async def adopt(self, seconds: Mapping[bytes, int], *, many: bool = False) -> None:
        await self.works.wait()
        self.steer(seconds, 0)

    def steer(self, seconds: Mapping[bytes, int], more: int) -> None:
        now = time.monotonic()
        for address, left in seconds.items():
            if self.until.get(address, 0.0) < now + left:
                self.until[address] = now + left + more

    async def adopt_cuts(self, addresses: Iterable[bytes], seconds: int) -> None:
        self.cut |= dict.fromkeys(addresses, seconds)

    async def held(self) -> dict[bytes, float]:
        now = time.monotonic()
        return {address: end - now for address, end in self.until.items()}

    def has(self, *addresses: str) -> bool:
        return all(one in self.until for one in packed(*addresses))

    def left(self, address: str) -> float:
        return self.until[packed(address)[0]] - time.monotonic()


class Tasks:
    """What runs beside a test until it is ended."""

    def __init__(self) -> None:
        self._running: list[asyncio.Future[None]] = []

    def run(self, *coroutines: Coroutine[Any, Any, None]) -> None:
        self._running += map(asyncio.ensure_future, coroutines)

    async def end(self) -> None:
        for task in self._running:
            task.cancel()
        for task in self._running:
            with suppress(asyncio.CancelledError):
                await task


class Node(Tasks):
    """One worker of a node.

    Attributes:
        counts: of what it has counted.
        told: why Valkey was away, or nothing.
    """

    def __init__(
        self, url: str, name: str, *, kernel: FakeKernel | None = None, first: bool = True,
        settle: float = SETTLE, sentinel: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.kernel = kernel or FakeKernel()
        self.counts: dict[str, int] = {}
        self.told: list[str] = []
        table = FleetTable(**{"sentinels" if sentinel else "url": (url,)}, node=name)
        self.connection = FleetConnection(table, SEAL, who=name, tell=self.told.append)
        self.shared = SharedSteerSet(
            self.connection, self.kernel, first=first, settle=settle, count=self._count
        )
        super().__init__()

    def _count(self, name: str, number: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def start(self) -> None:
        self.run(self.connection.run(), self.shared.run())

    async def steer(self, *addresses: str, seconds: int = 1_200) -> None:
        """As an answer does: into the kernel, and shared; what was waited for is over then."""
        self.kernel.steer(dict.fromkeys(packed(*addresses), seconds), 120)
        waiting = self.shared.share(packed(*addresses), seconds)
        if waiting is not None:
            await waiting

    async def ready(self) -> None:
        await until(self.shared.ready.is_set, "it to be ready")


@asynccontextmanager
async def fleet(
    url: str, *names: str, settle: float = SETTLE, sentinel: bool = False
) -> AsyncIterator[list[Node]]:
    """Nodes that are ready and wait for each other."""
    nodes = [Node(url, name, settle=settle, sentinel=sentinel) for name in names]
    async with AsyncExitStack() as stack:
        for node in nodes:
            stack.push_async_callback(node.end)
            node.start()
        for node in nodes:
            await node.ready()
        await meet(*nodes)
        yield nodes


async def meet(*nodes: Node) -> None:
    """Wait until all wait for all others."""
    for node in nodes:
        await until(lambda node=node: len(node.shared._awaited()) == len(nodes) - 1)


class Wire:
    """A way to a port on which nothing comes through while it is cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> "Wire":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"valkey://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            for one in (self._carry(reader, back), self._carry(there, writer)):
                task = asyncio.ensure_future(one)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def end(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in [*self._tasks]:
            task.cancel()
