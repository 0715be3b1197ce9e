"""Companion processes of the filter: started by it, and ended with it.

Fetching and compiling feeds, and keeping records, take memory and time that the process which carries
traffic has better use for. What comes of them lies in the state folder; so such a process may die at any
moment, and another takes its place.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from urlward.config import IN_FORCE, WORKER_TIMEOUT, Config
from urlward.lists import memory
from urlward.process import BEAT, module_command, used_by
from urlward.proxy.hanging import BREAK, is_hung, state_of
from urlward.proxy.workers import MAX_MESSAGE

logger = logging.getLogger("urlward")

FEEDS, RECORDS = "urlward.feeds.process", "urlward.service.process"
"""The modules that they run."""

BACKOFF = (0.0, 1.0, 5.0, 30.0, 60.0)
"""Seconds before it is started again, after one end in a row and more."""

STEADY = 60.0
"""Seconds that it has to live for its end not to count as one in a row."""

_PATIENCE = 3
"""Times as long as a worker may one of them be silent: no traffic waits for it."""

_START_WITHIN = 60.0
"""Seconds that it may take to say that it lives, at least."""

END_WITHIN = 15.0
"""Seconds that it has to bring what it is at to an end."""


def told_of_lists(
    lists: Iterable[str | Path], trust: Iterable[str], max_errors: str, format_: str
) -> dict[str, object]:
    """The lists that are not feeds, as a companion is passed them (`Companion.lists`)."""
    return {
        "list": [str(Path(path).absolute()) for path in lists],
        "trust": list(trust),
        "max_errors": max_errors,
        "format": format_,
    }


class Companion(NamedTuple):
    """Companion process: what to start, and when it is taken to hang.

    Attributes:
        name: for the log.
        module: that it runs.
        config: the configuration file.
        key: file of the lists' key where not the configuration's, or empty.
        admin: the dashboard's HOST:PORT where not the configuration's, or empty.
        timeout: seconds of silence after which it is taken to hang; 0 for never.
        lists: what the filter is told of lists, by flags or by the file (`told_of_lists`).
        text: of the configuration that is in force; where empty, it reads the file.
    """

    name: str
    module: str
    config: Path
    key: str = ""
    admin: str = ""
    timeout: int = 0
    lists: Mapping[str, object] = MappingProxyType({})
    text: bytes = b""

    @property
    def command(self) -> tuple[str, ...]:
        """Command line that starts the companion."""
        return tuple(module_command(self.module))

    def request(self, channel: int) -> bytes:
        """Settings that the parent process writes to the companion's standard input.

        Args:
            channel: descriptor that it inherits, on which it says that it lives (`urlward.process.beat`).
        """
        asked = {
            "config": str(self.config),
            "key": self.key,
            "admin": self.admin,
            "parent": os.getpid(),
            "channel": channel,
            **self.lists,
        }
        return json.dumps(asked).encode() + b"\n"


def environment() -> dict[str, str]:
    """Environment of a companion: its memory is used in bursts, and is a quarter faster with Python's own
    allocator."""
    return {**os.environ, "PYTHONMALLOC": "default"}


@contextmanager
def in_force(text: bytes) -> Iterator[tuple[dict[str, str], list[int]]]:
    """Environment variables and descriptors by which a new process has the configuration in force.

    Its file may be broken, or half written, when the process takes another's place.

    Args:
        text: of the configuration; where empty, the process reads its file, or has none.
    """
    if not text:
        yield {}, []
        return
    fd = memory.new()
    try:
        memory.write(fd, text)
        yield {IN_FORCE: str(fd)}, [fd]
    finally:
        os.close(fd)


def companions(
    config: Config,
    path: Path | None,
    key: str = "",
    admin: str = "",
    lists: Mapping[str, object] = MappingProxyType({}),
) -> list[Companion]:
    """The processes that a configuration needs besides the filter; for the arguments see `Companion`."""
    if path is None:
        return []
    made = []
    timeout = _PATIENCE * (WORKER_TIMEOUT if config.worker_timeout is None else config.worker_timeout)
    if config.feed:
        made.append(Companion("feeds", FEEDS, path, key, timeout=timeout, text=config.text))
    if config.records is not None:
        made.append(Companion("records", RECORDS, path, key, admin, timeout, lists, config.text))
    return made


def channel() -> tuple[socket.socket, socket.socket]:
    """Socket pair between parent and child: the parent's end, which never blocks, and the child's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


class Keeping:
    """Keeper of one companion, where the filter is a single process; see `urlward.proxy.workers` for
    several.

    Args:
        companion: what it is.
        command: in place of its own.
    """

    def __init__(self, companion: Companion, command: tuple[str, ...] = ()) -> None:
        self._companion = companion
        self._command = command or companion.command
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Start the companion and restart it when it dies, until cancelled."""
        ends = 0
        while True:
            started = time.monotonic()
            code = await self._once()
            ends = 1 if time.monotonic() - started > STEADY else ends + 1
            logger.error(
                "%s: their process ended with %s; a new one takes its place", self._companion.name, code
            )
            await asyncio.sleep(BACKOFF[min(ends, len(BACKOFF) - 1)])

    def refresh(self) -> None:
        """Have all feeds fetched now, if this is the companion for feeds."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP)

    async def _once(self) -> int | str:
        try:
            ours, theirs = channel()
        except OSError as e:
            return e.strerror or str(e)
        # Blocked until it can take it, so that a refresh asked for too early is late and not fatal.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            with in_force(self._companion.text) as (more, fds):
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    process_group=0,  # Ctrl-C is for us; it is ended in order
                    env=environment() | more,
                    pass_fds=[theirs.fileno(), *fds],
                )
            request = self._companion.request(theirs.fileno())
        except OSError as e:
            ours.close()
            return e.strerror or str(e)
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        self._process = process
        watch = asyncio.create_task(self._end_if_hung(process, ours))
        try:
            await process.communicate(request)
        finally:
            watch.cancel()
            self._process = None
            if process.returncode is None:
                await _end(process)
        assert process.returncode is not None
        return process.returncode

    async def _end_if_hung(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        """Kill the companion if it has been silent for too long."""
        timeout = self._companion.timeout
        heard = looked = time.monotonic()
        limit, spent = max(_START_WITHIN, timeout), 0.0
        with channel:
            while timeout:
                await asyncio.sleep(BEAT)
                now = time.monotonic()
                if now - looked > BEAT + BREAK:
                    heard = now  # this process has not had its turn either
                looked = now
                with suppress(OSError):
                    while channel.recv(MAX_MESSAGE):
                        heard, limit = now, timeout
                        spent = used_by(process.pid)
                    return  # it ends
                silence = now - heard
                if is_hung(silence, limit, state_of(process.pid), used_by(process.pid) - spent):
                    logger.error(
                        "%s (process %d) has not answered for %.0f s: it is ended",
                        self._companion.name, process.pid, silence,
                    )  # fmt: skip
                    process.kill()
                    return


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a companion: what it has begun is lost, and nothing else."""
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(END_WITHIN):
                await asyncio.shield(process.wait())
        except (TimeoutError, asyncio.CancelledError):
            process.kill()
