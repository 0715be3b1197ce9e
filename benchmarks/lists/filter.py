"""`urlward run` with a clock beside it (`benchmarks.reload.filter`); the argument is the configuration."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from benchmarks.reload.filter import Clock, answer
from mitmproxy import master

from urlward.cli import main


def run() -> None:
    """Run it until told to end."""
    original: Callable[[master.Master], Awaitable[None]] = master.Master.running

    async def running(proxy: master.Master) -> None:
        await original(proxy)
        clock = Clock()
        tasks = [asyncio.create_task(clock.run()), asyncio.create_task(answer(clock))]
        proxy.benchmark_tasks = tasks  # type: ignore[attr-defined]

    master.Master.running = running  # type: ignore[method-assign]
    main(["run", "--config", sys.argv[1]])


if __name__ == "__main__":
    run()
