"""Service process: refreshes feeds, delivers events and serves the dashboard, apart from the filter.

Whoever looks after the filter starts it, and it ends with that one. On standard input it is given one JSON
object: ``config`` (path of the configuration file), ``parent`` (the process id of who starts it), ``channel``
(a descriptor on which to say that it lives), ``sockets`` (host, port and descriptors of each address that it
listens on), and where they are not as configured ``key`` (path of the lists' key), ``state`` (the state
folder), ``admin`` (where the dashboard is), ``list``, ``trust``, ``max_errors`` and ``format`` (as the
flags).

SIGHUP refreshes every feed now. SIGTERM ends it, when the stores have what is in the outbox, or have had time
for it; feeds are left as they are. Where another one records in the state folder already it waits to take its
place; its filter's workers use the other meanwhile. What is wrong with records keeps no feed from being
refreshed.
"""

import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urlward.config import AdminTable, Config, ConfigError, read_config
from urlward.engine.errors import UrlwardError, fault_report
from urlward.feeds.updates import Feeds
from urlward.lasting import lasting
from urlward.lines import finish
from urlward.lists.formats import AUTO
from urlward.logs import LineHandler, last_lines
from urlward.plan import REPLACED, Reloads
from urlward.process import beat, give_way, keep_private, taken_channel, told
from urlward.state.audit import mend_audit
from urlward.state.folder import local_key, made_folder, open_private, state_folder, unusable

if TYPE_CHECKING:
    from urlward.publish.run import Publisher
    from urlward.records.bounded_server import Held
    from urlward.service.services import Services

logger = logging.getLogger("urlward.records")


def read_asked(asked: Mapping[str, Any]) -> tuple[Config, Path]:
    """Read the configuration that a process is started with, and find its state folder.

    Args:
        asked: ``config``, a file; and where they go before what stands there ``key``, ``state``, ``list``,
            ``trust``, ``max_errors``, ``monitor`` and ``workers``.

    Raises:
        ConfigError: it cannot be used.
        StateError: nor the folder.
    """
    config = read_config(Path(asked["config"]))
    config = config.model_copy(
        update={name: asked[name] for name in ("key", "max_errors", "monitor", "workers") if asked.get(name)}
        | {name: tuple(asked[name]) for name in ("list", "trust") if name in asked}
    )
    return config, state_folder(asked.get("state") or config.state)


LOCK = "records.lock"
"""In the state folder, held by the process that records there."""

LOCK_LOOK = 0.2
"""Seconds between two attempts to be that."""

THREADS = 32
"""Threads for what may wait, such as for a database server that is stuck: all else is to find one, too, on a
machine with one processor."""


async def run(
    config: Config,
    state: Path,
    channel: int | None = None,
    list_format: str = AUTO,
    reloads: Reloads | None = None,
    publisher: "Publisher | None" = None,
    held: "Held | None" = None,
) -> None:
    """Serve until SIGTERM, or `REPLACED`.

    Args:
        config: with feeds, with what is recorded, or with both.
        state: the state folder.
        channel: descriptor on which to say that this process lives.
        list_format: of the filter's sources.
        reloads: of the filter.
        publisher: that looks after the feeds where this is no filter's process.
        held: sockets to listen on, which outlive this process.

    Raises:
        ConfigError: there is nothing to do.
        StateError: the state folder cannot be used.
        UrlwardError: of the publisher.
    """
    if config.records is None and not config.feed:
        raise ConfigError("neither [[feed]] nor [records] in the configuration: there is nothing to do")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, "service"))
    feeds = publisher or Feeds(config, state)
    if channel is not None:
        beat(loop, channel)
    if reloads is not None:
        reloads.listen(loop)
    loop.add_signal_handler(signal.SIGHUP, feeds.refresh_all)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    replaced = asyncio.Event()

    def leave() -> None:
        replaced.set()
        stop.set()

    loop.add_signal_handler(REPLACED, leave)
    made_folder(state)
    await asyncio.to_thread(mend_audit, state, time.time())
    feeding = asyncio.ensure_future(feeds.run())
    feeding.add_done_callback(lambda _: stop.set())  # it ends by a fault alone

    def services() -> "Services":
        from urlward.service.services import Services  # a third of the memory, which few need

        return Services(
            config, state, local_key(state), list_format, reloads,
            lambda name: loop.call_soon_threadsafe(feeds.refresh, name), publisher, held,
        )  # fmt: skip

    async def record() -> None:
        """Record until stopped, once no other process does so in the state folder."""
        async with _only_one(state, stop):
            if not stop.is_set():
                await _record(services, stop, replaced)

    try:
        if config.records is not None:
            await lasting("records", record, stop=stop)
        await stop.wait()
    finally:
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding


async def _record(services: "Callable[[], Services]", stop: asyncio.Event, replaced: asyncio.Event) -> None:
    made = await asyncio.to_thread(services)  # reads and writes the state folder
    await made.recorder.run(stop, made.beside(), replaced=replaced)


@asynccontextmanager
async def _only_one(state: Path, stop: asyncio.Event) -> AsyncIterator[None]:
    """Hold the lock of a state folder's only service; waits for it, unless stopped before."""
    path = state / LOCK
    try:
        fd = open_private(path)
    except OSError as e:
        raise unusable(path, e) from e
    try:
        told = False
        while not stop.is_set() and not _lock(fd, path):
            if not told:
                logger.info("records: another process records in %s, and does so for this one", state)
                told = True
            await asyncio.sleep(LOCK_LOOK)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        raise unusable(path, e) from e
    return True


async def _run_to_the_end(
    config: Config, state: Path, channel: int | None, list_format: str, reloads: Reloads, held: "Held"
) -> None:
    await run(config, state, channel, list_format, reloads, held=held)
    finish()
    # Threads that wait for a feed or a store would be waited for; nothing is lost by ending them here.
    os._exit(0)


def _taken(fd: int) -> socket.socket:
    """A socket that the parent has passed, which no child inherits."""
    one = socket.socket(fileno=fd)
    one.set_inheritable(False)
    one.setblocking(False)  # Python takes it to block, whatever it does
    return one


def main() -> None:
    """Run as a process; the configuration comes on standard input."""
    # As the filter starts it: one that comes too early is late, and not fatal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    keep_private()
    give_way(5)
    asked = told(signal.SIGTERM)
    # A kernel that keeps files' leases sends this to whoever holds one (`urlward.state.watch`).
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    log = logging.getLogger("urlward")
    log.setLevel(logging.INFO)
    log.addHandler(LineHandler())
    log.addHandler(last_lines)
    try:
        config, state = read_asked(asked)
        if asked.get("admin"):
            table = config.admin or AdminTable()
            config = config.model_copy(update={"admin": table.model_copy(update={"listen": asked["admin"]})})
        channel = taken_channel(asked)
        reloads = Reloads(asked["parent"], channel)
        held = {(host, port): [_taken(fd) for fd in fds] for host, port, fds in asked.get("sockets", ())}
        asyncio.run(_run_to_the_end(config, state, channel, asked.get("format", AUTO), reloads, held))
    except UrlwardError as e:
        logger.error("service: %s", e)
        sys.exit(2)
    except Exception as e:  # noqa: BLE001 - another takes its place, and tracebacks would bury why
        logger.error("service: %s", fault_report(e))
        finish()
        os._exit(1)  # threads may hang, or none be had to wait for them


if __name__ == "__main__":
    main()
