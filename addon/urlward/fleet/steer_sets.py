"""Shared steer sets: what one node steers, every other has in its kernel before the DNS answer leaves.

Two keys in Valkey. ``steered`` is a sorted set of all addresses, sealed, by the time at which each ends, and
``log`` a stream of batches: all addresses that one worker steers while its last batch is under way make one.
The first worker of each node follows the stream, puts a batch into its kernel and acknowledges it on the
sender's channel. The sender's answers leave when all nodes in ``receivers`` (a sorted set by the time of
their last sign of life) have done so, or after `settle`; then that is counted.

Times in Valkey are Valkey's own, so that nodes' clocks need not agree.

A first worker that begins, or comes back, notes where the stream is, then merges: it puts into its kernel
all of ``steered`` that this lacks, and gives ``steered`` all of its kernel that is lacking there, whoever
put it there; where it gave something, an entry of the stream has the others merge as well. So it makes no
difference whether a node was away, or Valkey is empty, or a replica took over that lacked the last writes.
What the kernel holds stays until its time is over; nothing that comes from Valkey shortens it.

A node that starts shows no sign of life and answers no DNS until it has merged, and until every sender has
had the time to see that it is to be waited for.
"""

import asyncio
import logging
import math
import os
import random
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import batched
from pathlib import Path
from typing import Any, Protocol

from cachetools import LRUCache

from urlward.engine.errors import ArtifactError, fault_text
from urlward.fleet.connection import FleetConnection, StreamEntry

logger = logging.getLogger("urlward.fleet")

LONGER = 120
"""Seconds that an address stays beyond what was asked for; so long it is not shared again."""

LEASE = 3.0
"""Seconds without a sign of life after which a node is not waited for."""

BEAT = 1.0
"""Seconds between two signs of life, and between two looks for those of others."""

SEEN = 1.2 * BEAT
"""Seconds after which every worker of every node has seen that another node is to be waited for."""

WITHOUT = 3.0
"""Seconds without Valkey after which a node starts with what it has."""

START_WITHIN = 120.0
"""Seconds after which a node starts with what it has, although Valkey is there: it, or the first worker, is
too slow, or gives out again and again."""

MOST = 1_000_000
"""Seconds that an address is shared for at most: the kernel may have some without an end, and times in Valkey
are not sealed."""

MERGE_EVERY = 600.0
"""Seconds between two merges where there is no reason for one, so that nothing stays amiss for long."""

MERGE_AFTER = 0.3
"""Seconds in which reasons for a merge are gathered."""

AGAIN = 5.0
"""Seconds after which a kernel is tried again that has not taken all."""

SLACK = 60.0
"""Seconds by which ends may differ between a kernel and Valkey."""

KEPT = 120.0
"""Seconds for which the stream keeps its batches."""

SWEEP = 30.0
"""Seconds between two times that what has ended is removed from Valkey."""

MOST_KEPT = 100_000
"""Batches that the stream keeps at most: after a clock that ran ahead, none is older than `KEPT` for long."""

A_BATCH = 1_000
"""Addresses of one batch, beyond which another begins."""

A_LOOK = 500
"""Addresses that are read at a time, so that the event loop is free in between."""

_CACHED = 131_072
"""Addresses of which a worker knows until when it has shared them."""

_UNSENT = 65_536
"""Addresses that are kept for when Valkey is back; the first worker shares its whole kernel then."""

_STEER, _CUT, _MERGE = b"s", b"c", b"m"
_ONE = struct.Struct(">IB")


class Kernel(Protocol):
    """Part of `urlward.gateway.steer_set.SteerSet` that is needed; addresses are 4 or 16 bytes."""

    async def adopt(self, seconds: Mapping[bytes, int], *, many: bool = False) -> None:
        """Steer addresses, each for so many seconds at least."""

    async def adopt_cuts(self, addresses: Iterable[bytes], seconds: int) -> None:
        """End connections to addresses that bypass the filter."""

    async def held(self) -> dict[bytes, float]:
        """Addresses that are steered, with the seconds that each stays."""


class SteerBatch:
    """Addresses that are shared together.

    Attributes:
        number: by which it is acknowledged.
        kind: of entry.
        seconds: for which each address stays.
        waits: nodes that have yet to acknowledge it; None until it is sent.
        done: set once all have.
    """

    __slots__ = ("done", "kind", "number", "seconds", "waits")

    def __init__(self, number: int, kind: bytes) -> None:
        self.number = number
        self.kind = kind
        self.seconds: dict[bytes, int] = {}
        self.waits: set[str] | None = None
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def finish(self, *, settled: bool) -> None:
        """Have the answers go."""
        if not self.done.done():
            self.done.set_result(settled)


class SharedSteerSet:
    """Steer set of a node, as one of its workers shares it.

    Args:
        connection: of this worker.
        kernel: its sets.
        first: whether this is the worker that takes what others share.
        settle: seconds that an answer waits at most.
        count: counts, by one of `SETTLED` or `SHARED` of `urlward.records.metrics`.
        settled: is told how long an answer has waited, seconds.

    Attributes:
        ready: set once this node may be sent traffic.
    """

    def __init__(
        self,
        connection: FleetConnection,
        kernel: Kernel,
        *,
        first: bool,
        settle: float,
        count: Callable[[str, int], None] = lambda *_: None,
        settled: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.ready = asyncio.Event()
        self._connection = connection
        self._kernel = kernel
        self._first = first
        self._settle = settle
        self._count = count
        self._settled = settled
        self._token = f"{connection.node} {_boot()}"
        """Of this node since its filter has started."""
        self._process = f"{self._token} {os.getpid()}-{os.urandom(6).hex()}"
        self._number = 0
        self._queue: deque[SteerBatch] = deque()
        self._wake = asyncio.Event()
        self._under_way: dict[int, SteerBatch] = {}
        self._shared: LRUCache[bytes, float] = LRUCache(_CACHED)
        """Until when an address is shared, by the clock of `monotonic`."""
        self._unsent: LRUCache[bytes, float] = LRUCache(_UNSENT)
        """Likewise, of those that Valkey has yet to be told."""
        self._receivers: dict[str, float] = {}
        self._look = asyncio.Event()
        self._merging = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._swept = -math.inf
        self._loads = False
        self._said: set[str] = set()
        self._names = {
            name: connection.name(name) for name in ("steered", "log", "receivers", "loaded", "members")
        }
        connection.listen(connection.name(f"ack:{self._process}"), self._acknowledged)
        connection.listen(self._names["members"], lambda _: self._look.set())
        if first:
            connection.follow(self._names["log"], self._take)
        connection.on_begin(self._begin)

    def share(self, addresses: Iterable[bytes], seconds: int) -> asyncio.Future[None] | None:
        """Share addresses that this node steers.

        Args:
            addresses: 4 or 16 bytes each.
            seconds: for which they stay at least.

        Returns:
            What an answer has to wait for, `settle` at most; None where there is nothing to wait for.
        """
        now = time.monotonic()
        missing = [one for one in addresses if self._shared.get(one, 0.0) < now + seconds]
        if not missing:
            return None
        if not self._connection.up:
            for one in missing:
                self._unsent[one] = now + seconds + LONGER
            self._count("away", 1)
            return None
        batch = self._put(_STEER, missing, seconds + LONGER)
        if not self._settle or not self._awaited():
            return None
        return self._start(self._settling(batch))

    def cut(self, addresses: Iterable[bytes], seconds: int) -> None:
        """Have other nodes end connections to addresses that bypass the filter."""
        if self._connection.up:
            self._put(_CUT, addresses, seconds)

    def again(self) -> None:
        """Merge, since the kernel has lost its sets."""
        self._merging.set()

    async def run(self) -> None:
        """Share until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send())
                group.create_task(self._attend())
                group.create_task(self._start_without())
        finally:
            for task in self._tasks:
                task.cancel()

    # --- what this node steers

    def _put(self, kind: bytes, addresses: Iterable[bytes], seconds: int) -> SteerBatch:
        batch = self._queue[-1] if self._queue else None
        if batch is None or batch.kind != kind or len(batch.seconds) >= A_BATCH:
            self._number += 1
            batch = SteerBatch(self._number, kind)
            self._queue.append(batch)
            self._wake.set()
        for one in addresses:
            batch.seconds[one] = max(seconds, batch.seconds.get(one, 0))
        return batch

    async def _settling(self, batch: SteerBatch) -> None:
        begun = time.monotonic()
        await asyncio.wait((batch.done,), timeout=self._settle)
        self._count("settled" if batch.done.done() and batch.done.result() else "late", 1)
        self._settled(time.monotonic() - begun)

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._send_one(self._queue.popleft())

    async def _send_one(self, batch: SteerBatch) -> None:
        now, here = self._connection.now(), time.monotonic()
        batch.waits = self._awaited()
        if not batch.waits:
            batch.finish(settled=True)
        commands = []
        if batch.kind == _STEER:
            scored: list[bytes | int] = []
            for address, seconds in batch.seconds.items():
                scored += (math.ceil(now + seconds), self._connection.seal.seal(address))
            commands.append(("ZADD", self._names["steered"], "GT", *scored))
        packed = self._connection.seal.seal(packed_batch(batch.kind, batch.seconds))
        commands.append(self._entry(batch.kind, "n", batch.number, "d", packed))
        self._under_way[batch.number] = batch
        try:
            if await self._connection.ask(*commands, atomically=True) is None:
                batch.finish(settled=False)
                if batch.kind == _STEER:
                    for address, seconds in batch.seconds.items():
                        self._unsent[address] = here + seconds
                return
        finally:
            loop = asyncio.get_running_loop()
            loop.call_later(max(self._settle, BEAT), self._under_way.pop, batch.number, None)
        self._count("sent", len(batch.seconds))
        if batch.kind == _STEER:
            for address, seconds in batch.seconds.items():
                self._shared[address] = here + seconds

    def _entry(self, kind: bytes, *more: str | bytes | int) -> tuple[str | bytes | int, ...]:
        """Command that adds an entry to the stream, and lets go those that nobody needs any more."""
        since = max(round((self._connection.now() - KEPT) * 1000), 0)
        return ("XADD", self._names["log"], "MINID", "~", since, "*", "p", self._process, "k", kind, *more)

    def _acknowledged(self, message: bytes) -> None:
        number, _, node = message.partition(b" ")
        batch = self._under_way.get(int(number))
        if batch is not None and batch.waits is not None:
            batch.waits.discard(node.decode())
            if not batch.waits:
                batch.finish(settled=True)

    # --- who is to be waited for

    def _awaited(self) -> set[str]:
        now = self._connection.now()
        # Both ways: Valkey's clock may have been set back since a node has said something last.
        return {
            node
            for node, at in self._receivers.items()
            if abs(now - at) < LEASE and node != self._connection.node
        }

    async def _attend(self) -> None:
        """Show that this node takes what others share, and see who else does."""
        while True:
            self._look.clear()
            if self._connection.up:
                await self._see()
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._look.wait()

    async def _see(self) -> None:
        now, receivers = self._connection.now(), self._names["receivers"]
        commands: list[Sequence[str | bytes | int | float]] = []
        if self._first and self.ready.is_set():
            commands.append(("ZADD", receivers, now, self._connection.node))
            if time.monotonic() >= self._swept + SWEEP:
                self._swept = time.monotonic()
                commands.append(("ZREMRANGEBYSCORE", receivers, "-inf", now - 10 * LEASE))
                commands.append(("ZREMRANGEBYSCORE", receivers, now + 10 * LEASE, "+inf"))
                commands.append(("ZREMRANGEBYSCORE", self._names["steered"], "-inf", now - SLACK))
                commands.append(("XTRIM", self._names["log"], "MAXLEN", "~", MOST_KEPT))

        found = await self._connection.ask(
            *commands,
            ("HGET", self._names["loaded"], self._connection.node),
            ("ZRANGE", receivers, 0, -1, "WITHSCORES"),
        )
        if found is None:
            return
        *_, token, rows = found
        pairs = zip(rows[::2], rows[1::2], strict=True)
        self._receivers = {node.decode(errors="replace"): float(at) for node, at in pairs}
        if self._loads and token != self._token.encode():
            # Another node has this one's name, as `urlward.fleet.nodes` tells, or Valkey has lost it: nobody
            # waits in vain.
            await self._connection.ask(self._loaded())

    def _loaded(self) -> tuple[str, ...]:
        """Command that says that this node has all."""
        self._loads = True
        return ("HSET", self._names["loaded"], self._connection.node, self._token)

    # --- what others steer

    async def _take(self, entries: list[StreamEntry]) -> None:
        steered: dict[bytes, int] = {}
        cuts: dict[bytes, int] = {}
        acknowledged = []
        for entry in entries:
            process, kind = entry.fields.get(b"p", b""), entry.fields.get(b"k", b"")
            if process.startswith(f"{self._token} ".encode()):
                continue
            if kind == _MERGE:
                self._merging.set()
                continue
            try:
                data = self._connection.seal.unseal(entry.fields.get(b"d", b""))
                found = dict(read_batch(kind, data))
                number = int(entry.fields.get(b"n", b""))
            except (ArtifactError, ValueError) as e:
                self._refuse(e)
                continue
            into = steered if kind == _STEER else cuts
            for address, seconds in found.items():
                into[address] = max(min(seconds, MOST), into.get(address, 0))
            acknowledged.append((process.decode(errors="replace"), number))
        try:
            for some in _slices(steered.items()):
                await self._kernel.adopt(dict(some))
            if cuts:
                await self._kernel.adopt_cuts(cuts, max(cuts.values()))
        except Exception as e:  # noqa: BLE001 - whoever waits for it is not told that it is done
            self._failed(e)
            return
        if acknowledged:
            self._count("received", len(steered) + len(cuts))
            name, node = self._connection.name, self._connection.node
            self._start(
                self._publish([("PUBLISH", name(f"ack:{who}"), f"{n} {node}") for who, n in acknowledged])
            )

    async def _publish(self, commands: Sequence[Sequence[str]]) -> None:
        await self._connection.ask(*commands)

    def _refuse(self, error: Exception) -> None:
        self._count("refused", 1)
        self._say(f"an entry of another node is not taken: {fault_text(error)}")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.error("fleet: %s", text)

    # --- coming, and coming back

    async def _begin(self) -> None:
        self._look.set()
        self._again_unsent()
        if not self._first:
            await self._until_loaded()
            return
        receivers = self._names["receivers"]
        now, since = self._connection.now(), time.monotonic()
        found = await self._connection.ask(
            ("ZSCORE", receivers, self._connection.node),
            ("ZADD", receivers, now, self._connection.node),
            ("PUBLISH", self._names["members"], "came"),
        )
        known = found is not None and found[0] is not None and float(found[0]) > now - LEASE
        attending = self._start(self._stay_known())
        try:
            while not await self._merge():
                await asyncio.sleep(BEAT)
        finally:
            attending.cancel()
        if not self.ready.is_set():
            if not known:
                await asyncio.sleep(max(since + SEEN - time.monotonic(), 0.0))
            self.ready.set()
        await self._connection.ask(self._loaded())
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(MERGE_EVERY * random.uniform(0.8, 1.2)):
                    await self._merging.wait()
                    await asyncio.sleep(MERGE_AFTER * random.uniform(0.5, 1.5))
            self._merging.clear()
            await self._merge()

    async def _stay_known(self) -> None:
        """Show signs of life while a first merge takes its time."""
        while True:
            await asyncio.sleep(BEAT)
            now = self._connection.now()
            await self._connection.ask(("ZADD", self._names["receivers"], now, self._connection.node))

    async def _until_loaded(self) -> None:
        while not self.ready.is_set():
            found = await self._connection.ask(("HGET", self._names["loaded"], self._connection.node))
            if found is not None and found[0] == self._token.encode():
                self.ready.set()
                return
            await asyncio.sleep(BEAT / 10)

    async def _start_without(self) -> None:
        """Start with what this node has where Valkey is away."""
        begun = alone_since = time.monotonic()
        while not self.ready.is_set():
            if self._connection.up:
                alone_since = time.monotonic()
            elif time.monotonic() >= alone_since + WITHOUT:
                logger.error("fleet: Valkey is away: this node starts with what it has")
                self.ready.set()
            if time.monotonic() >= begun + START_WITHIN and not self.ready.is_set():
                logger.error(
                    "fleet: what is steered is not loaded in time: this node starts with what it has"
                )
                self.ready.set()
            await asyncio.sleep(BEAT / 10)
        await asyncio.Event().wait()

    def _again_unsent(self) -> None:
        unsent, now = dict(self._unsent), time.monotonic()
        self._unsent.clear()
        for address, until in unsent.items():
            if until > now:
                self._put(_STEER, (address,), math.ceil(until - now))

    async def _merge(self) -> bool:
        """Make the kernel and Valkey have what either has, as far as the kernel takes it.

        Returns:
            False: Valkey is away.
        """
        try:
            held = await self._kernel.held()
            return await self._merge_from(held) and await self._merge_to(held)
        except Exception as e:  # noqa: BLE001 - the kernel's; answers say so, and it may take them later
            self._failed(e)
            return True

    def _failed(self, error: Exception) -> None:
        self._say(f"what other nodes steer is not steered here: {fault_text(error)}")
        asyncio.get_running_loop().call_later(AGAIN, self._merging.set)

    async def _merge_from(self, held: dict[bytes, float]) -> bool:
        """Put what Valkey has into the kernel; leaves in `held` what Valkey lacks."""
        cursor = b"0"
        while True:
            found = await self._connection.ask(("ZSCAN", self._names["steered"], cursor, "COUNT", A_LOOK))
            if found is None:
                return False
            now = self._connection.now()
            cursor, rows = found[0]
            for i in range(0, len(rows), 2 * A_LOOK):
                some = rows[i : i + 2 * A_LOOK]
                wanted: dict[bytes, int] = {}
                for member, end in zip(some[::2], some[1::2], strict=True):
                    try:
                        address = self._connection.seal.unseal(member)
                    except ArtifactError as e:
                        self._refuse(e)
                        continue
                    left, here = min(float(end) - now, MOST), min(held.get(address, 0.0), MOST)
                    if left > 0 and (not here or here < left - SLACK):
                        wanted[address] = math.ceil(left)
                    if here <= left + SLACK:
                        held.pop(address, None)
                try:
                    if wanted:
                        await self._kernel.adopt(wanted, many=True)
                except Exception as e:  # noqa: BLE001 - of a full set others may have room
                    self._failed(e)
                await asyncio.sleep(0)
            if cursor == b"0":
                return True

    async def _merge_to(self, held: Mapping[bytes, float]) -> bool:
        """Give Valkey what it lacks."""
        seal, offered = self._connection.seal.seal, 0
        for some in _slices(held.items()):
            now = self._connection.now()
            scored: list[bytes | int] = []
            for address, left in some:
                if left > 1:
                    scored += (math.ceil(now + min(left, MOST)), seal(address))
            offered += len(scored) // 2
            if scored and await self._connection.ask(("ZADD", self._names["steered"], "GT", *scored)) is None:
                return False
            await asyncio.sleep(0)
        if not offered:
            return True
        self._count("offered", offered)
        return await self._connection.ask(self._entry(_MERGE)) is not None

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _slices[T](items: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """Items, some at a time, so that the event loop is free in between."""
    return batched(items, A_LOOK)


def packed_batch(kind: bytes, seconds: Mapping[bytes, int]) -> bytes:
    """Content of a batch, before it is sealed."""
    rows = [_ONE.pack(left, len(address)) + address for address, left in seconds.items()]
    return kind + b"".join(rows)


def read_batch(kind: bytes, data: bytes) -> Iterator[tuple[bytes, int]]:
    """Addresses, and for how many seconds, of what `packed_batch` made.

    Raises:
        ValueError: it is something else.
    """
    if data[:1] != kind or kind not in (_STEER, _CUT):
        raise ValueError("a batch of another kind")
    at = 1
    try:
        while at < len(data):
            seconds, size = _ONE.unpack_from(data, at)
            at += _ONE.size + size
            if size not in (4, 16) or at > len(data):
                raise ValueError("no address")
            yield data[at - size : at], seconds
    except struct.error as e:
        raise ValueError("cut short") from e


@cache
def _boot() -> str:
    """What tells this start of the node's filter from every other: the supervisor, and since when it runs."""
    parent = os.getppid()
    try:
        since = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, IndexError):
        return f"{parent}"
    return f"{boot}-{parent}-{since}"
