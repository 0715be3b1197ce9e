"""Service process: records events, apart from the filter.

The first worker starts it and it ends with that one. On standard input it is given one JSON object:
``config`` (path of the configuration file), ``parent`` (the worker's process id), ``channel`` (a
descriptor on which to say that it lives), and where they are not as configured ``key`` (path of the lists'
key), ``state`` (the state folder), ``admin`` (where the dashboard is), ``list``, ``trust``,
``max_errors`` and ``format`` (as the flags). SIGTERM ends it, when the stores have what is in the outbox, or
have had time for it. Where another one serves the state folder already it waits to take its place; its
filter's workers use the other meanwhile.
"""

import asyncio
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from urlward.config import AdminTable, Config, ConfigError
from urlward.engine.errors import UrlwardError
from urlward.lines import finish
from urlward.lists.formats import AUTO
from urlward.process import beat, keep_private, taken_channel, told
from urlward.service.services import Services
from urlward.state.audit import mend_audit
from urlward.state.beside import LineHandler, read_asked
from urlward.state.folder import local_key, made_folder, open_private, unusable

logger = logging.getLogger("urlward.records")

LOCK = "records.lock"
"""In the state folder, held by the process that records there."""

LOCK_LOOK = 0.2
"""Seconds between two attempts to be that."""


async def run(config: Config, state: Path, channel: int | None = None, list_format: str = AUTO) -> None:
    """Record until SIGTERM or SIGINT.

    Args:
        config: with what is recorded.
        state: the state folder.
        channel: descriptor on which to say that this process lives.
        list_format: of the filter's sources.

    Raises:
        ConfigError: nothing is to be recorded.
        StateError: the state folder cannot be used.
    """
    if config.records is None:
        raise ConfigError("no [records] in the configuration: there is nothing to record")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    if channel is not None:
        beat(loop, channel)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _only_one(made_folder(state), stop):
        if not stop.is_set():
            await asyncio.to_thread(mend_audit, state, time.time())
            services = Services(config, state, local_key(state), list_format)
            await services.recorder.run(stop, services.beside())


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


def main() -> None:
    """Run as a process; the configuration comes on standard input."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # meant for the filter
    keep_private()
    os.nice(5)  # traffic comes first
    asked = told(signal.SIGTERM)
    logger.setLevel(logging.INFO)
    logger.addHandler(LineHandler())
    try:
        config, state = read_asked(asked)
        if asked.get("admin"):
            table = config.admin or AdminTable()
            config = config.model_copy(update={"admin": table.model_copy(update={"listen": asked["admin"]})})
        asyncio.run(run(config, state, taken_channel(asked), asked.get("format", AUTO)))
    except UrlwardError as e:
        logger.error("records: %s", e)
        sys.exit(2)
    finish()
    # A store that hangs would be waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
