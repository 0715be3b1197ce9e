"""`urlward run` with a clock beside its worker (`benchmarks.reload.filter`), by the given configuration."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.reload.filter import Clock, answer
from mitmproxy import master

from urlward.cli import main
from urlward.plan import WORKER
from urlward.proxy.supervisor import Supervisor
from urlward.supervise import beside


def questions_of(config: Path) -> Path:
    """The named pipe by which a filter is asked."""
    return config.with_suffix(".questions")


def supervise() -> int:
    """Run a supervisor of this module; its exit code."""
    return Supervisor([sys.executable, "-m", "benchmarks.lists.filter", *sys.argv[1:]], beside).run()


def work() -> None:
    """Run a worker until told to end."""
    original: Callable[[master.Master], Awaitable[None]] = master.Master.running

    async def running(proxy: master.Master) -> None:
        await original(proxy)
        # A worker has no standard input.
        questions = questions_of(Path(sys.argv[1])).open("r+b", buffering=0)
        clock = Clock()
        tasks = [asyncio.create_task(clock.run()), asyncio.create_task(answer(clock, questions))]
        proxy.benchmark_tasks = tasks  # type: ignore[attr-defined]

    master.Master.running = running  # type: ignore[method-assign]
    main(["run", "--config", sys.argv[1]])


if __name__ == "__main__":
    work() if WORKER in os.environ else sys.exit(supervise())
