"""The process that fetches feeds, started by the filter and ended with it.

Fetching, unpacking and compiling take memory and time that the process which carries traffic has
better use for. What comes of them is put into the store, where the filter's keeper finds it; so this
process may die at any moment, and another takes its place.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger("urlward.lists")

MODULE = "urlward.lists.feed_process"

BACKOFF = (0.0, 1.0, 5.0, 30.0, 60.0)
"""Seconds before it is started again, after one end in a row and more."""

STEADY = 60.0
"""Seconds that it has to live for its end not to count as one in a row."""

END_WITHIN = 3.0


class Feeder:
    """Keeps one such process alive.

    Args:
        config: the configuration file that names the feeds.
        key: file of the lists' key where not the configuration's, or empty.
        command: of the process.
    """

    def __init__(
        self, config: Path, key: str = "", command: tuple[str, ...] = (sys.executable, "-P", "-m", MODULE)
    ) -> None:
        self._request = {"config": str(config), "key": key, "parent": os.getpid()}
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Look after it until cancelled."""
        ends = 0
        while True:
            started = time.monotonic()
            code = await self._once()
            ends = 1 if time.monotonic() - started > STEADY else ends + 1
            logger.error(
                "feeds: the process that fetches them ended with %s; a new one takes its place", code
            )
            await asyncio.sleep(BACKOFF[min(ends, len(BACKOFF) - 1)])

    def refresh(self) -> None:
        """Have all feeds fetched now."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP)

    async def _once(self) -> int | str:
        # Blocked until it can take it, so that a refresh asked for too early is late and not fatal.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                process_group=0,  # Ctrl-C is for us; it is ended in order
                # Its memory is used in bursts, and is a quarter faster with Python's own allocator.
                env={**os.environ, "PYTHONMALLOC": "default"},
            )
        except OSError as e:
            return e.strerror or str(e)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        self._process = process
        try:
            await process.communicate(json.dumps(self._request).encode() + b"\n")
        finally:
            self._process = None
            if process.returncode is None:
                await _end(process)
        assert process.returncode is not None
        return process.returncode


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it: what it has begun is lost, and nothing else."""
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(END_WITHIN):
                await asyncio.shield(process.wait())
        except (TimeoutError, asyncio.CancelledError):
            process.kill()
