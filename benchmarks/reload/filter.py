"""The filter as `urlward run` runs it, with a clock beside it that notices when the event loop stands still.

Started by `benchmarks/reload/run.py`; the longest stall since the last question is printed for each
line on standard input.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any

from mitmproxy import master

from urlward.proxy import runner

TICK = 0.001


class Clock:
    """Wakes up every millisecond and remembers how late it was."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            start = time.perf_counter()
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, time.perf_counter() - start - TICK)


def resident() -> int:
    """Bytes of resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def answer(clock: Clock, questions: IO[Any] = sys.stdin) -> None:
    """Print the longest stall in seconds and the resident memory for each line read."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), questions)
    while await reader.readline():
        print(f"stall {clock.longest} {resident()}", flush=True)
        clock.longest = 0.0


def main() -> None:
    """Run the filter with the arguments: list, key, origin's port, port."""
    path, key, origin, port = sys.argv[1:]
    original: Callable[[master.Master], Awaitable[None]] = master.Master.running

    async def running(proxy: master.Master) -> None:
        await original(proxy)
        clock = Clock()
        tasks = [asyncio.create_task(clock.run()), asyncio.create_task(answer(clock))]
        proxy.benchmark_tasks = tasks  # type: ignore[attr-defined]

    master.Master.running = running  # type: ignore[method-assign]
    runner.run(
        runner.Settings(
            lists=(Path(path),),
            modes=(f"reverse:http://127.0.0.1:{origin}",),
            listen=("127.0.0.1", int(port)),
            options={"urlward_key": key},
            confdir="",
            extra=(),
        )
    )


if __name__ == "__main__":
    main()
