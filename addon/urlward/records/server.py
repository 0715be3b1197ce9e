"""Where workers hand in their events: a Unix socket for the owner's processes alone.

A batch is acknowledged when whoever takes it says that a crash no longer loses it. A worker that goes without
a word, and whose process has ended, was killed: what it had not handed in is missing.
"""

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from urlward.lists.state import unusable
from urlward.records.event import Event
from urlward.records.wire import (
    MAX_LINE,
    Ask,
    Batch,
    Bye,
    Hello,
    Message,
    Snapshot,
    WireError,
    decode,
    encode,
    listening,
)

logger = logging.getLogger("urlward.records")

HELLO_WITHIN = 5.0
"""Seconds that whoever connects has to say who they are."""

ROOM_WITHIN = 2.0
"""Seconds that a worker is not listened to for a store that is behind."""

GONE_LOOK = 0.5
"""Seconds between two looks at whether a worker lives that is not connected."""

_PEER = struct.Struct("3i")
"""Process, user and group of the other end (socket(7), SO_PEERCRED)."""


class Taker(Protocol):
    """What becomes of all that workers say."""

    def take(self, events: Sequence[Event], safe: Callable[[], None]) -> None:
        """Keep events, and call `safe`, from any thread, when a crash no longer loses them."""

    @property
    def crowded(self) -> bool:
        """Whether a moment's pause would do it good."""

    def measure(self, worker: str, metrics: dict[str, Any]) -> None:
        """Take what a worker has counted."""

    def refused(self, worker: str, count: int) -> None:
        """So many of its events are none."""

    def gone(self, worker: Hello, killed: float | None) -> None:
        """A worker has ended; where it said nothing, when that was, seconds since 1970-01-01 UTC."""

    def answer(self, question: str) -> bytes:
        """One line for whoever asks."""


class Server:
    """Listens to workers.

    Args:
        path: of the socket.
        taker: takes what they say.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(self, path: Path, taker: Taker, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._taker = taker
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._connected: dict[asyncio.Task[None], Hello | None] = {}
        self._absent: dict[str, tuple[Hello, int, float]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            StateError: the socket cannot be made.
        """
        try:
            self._socket = listening(self._path)
        except OSError as e:
            raise unusable(self._path, e) from e
        self._server = await asyncio.start_unix_server(self._serve, sock=self._socket, limit=MAX_LINE)
        self._watching = asyncio.ensure_future(self._watch())

    async def close(self, within: float) -> None:
        """Let the workers end, and take no more.

        Args:
            within: seconds that they have.
        """
        assert self._server is not None
        assert self._watching is not None
        end = time.monotonic() + within
        while self._connected and time.monotonic() < end:
            await asyncio.sleep(0.02)
        self._server.close()
        for task in self._connected:
            task.cancel()
        self._watching.cancel()
        for hello, process, when in self._absent.values():
            if not _lives(process):
                self._taker.gone(hello, when)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connected[task] = None
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                hello = _next(await reader.readline())
            if isinstance(hello, Ask):
                writer.write(self._taker.answer(hello.question))
                return
            if not isinstance(hello, Hello):
                raise WireError("said no hello")
            self._connected[task] = hello
            self._absent.pop(hello.worker, None)
            await self._listen(hello, reader, writer)
        except (WireError, ValueError) as e:
            logger.error("records: a worker is not listened to any more: %s", e)
        except (OSError, EOFError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            del self._connected[task]
            writer.close()

    async def _listen(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        process = _process_of(writer)
        try:
            while line := await reader.readline():
                message = _next(line)
                if isinstance(message, Bye):
                    process = 0
                    self._taker.gone(hello, None)
                    return
                await self._take(hello, message, writer)
        finally:
            if process:
                self._absent[hello.worker] = hello, process, self._clock()

    async def _take(self, hello: Hello, message: Message, writer: asyncio.StreamWriter) -> None:
        if isinstance(message, Snapshot):
            self._taker.measure(hello.worker, message.metrics)
        elif isinstance(message, Batch):
            await self._room()
            if message.refused:
                self._taker.refused(hello.worker, message.refused)
            loop, line = asyncio.get_running_loop(), encode({"ack": message.number})
            self._taker.take(message.events, lambda: _say(loop, writer, line))

    async def _room(self) -> None:
        """Leave what workers say where it is while a store is behind; not for long, since others are not."""
        end = time.monotonic() + ROOM_WITHIN
        while self._taker.crowded and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(GONE_LOOK)
            here = {hello.worker for hello in self._connected.values() if hello is not None}
            for worker, (hello, process, when) in list(self._absent.items()):
                if worker in here or _lives(process):
                    continue
                del self._absent[worker]
                self._taker.gone(hello, when)


def _next(line: bytes) -> Message:
    if not line.endswith(b"\n"):
        raise EOFError
    return decode(line)


def _say(loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter, line: bytes) -> None:
    # Whoever is no longer there is told over the next connection, where it sends the batch again.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_write, writer, line)


def _write(writer: asyncio.StreamWriter, line: bytes) -> None:
    if not writer.is_closing():
        writer.write(line)


def _process_of(writer: asyncio.StreamWriter) -> int:
    found: bytes = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size
    )
    return int(_PEER.unpack(found)[0])


def _lives(process: int) -> bool:
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
