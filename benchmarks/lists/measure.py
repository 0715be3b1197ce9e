"""One run: a filter with one feed, which changes again and again under load."""

import asyncio
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.reload.run import CONNECTIONS, REQUESTS_PER_S, Load, free_port, origin, status

from urlward.engine.digest import format_key

from .filter import questions_of
from .material import KEY, artifacts, deltas, marker, write_sources

SETTLE = 8.0
"""Seconds after a change, in which the old list is let go."""

SIGNING = b"benchmark-signing-with-32-bytes-"


class Filter:
    """The filter's process.

    Attributes:
        port: where it listens.
    """

    def __init__(self, process: asyncio.subprocess.Process, port: int, questions: Path) -> None:
        self.port = port
        self._process = process
        self._questions = questions

    def refresh(self) -> None:
        """Have it fetch the feed now."""
        self._process.send_signal(signal.SIGHUP)

    async def stall(self) -> float:
        """The event loop's longest stall since the last question, milliseconds."""
        assert self._process.stdout is not None
        with self._questions.open("wb") as file:
            file.write(b"\n")
        while not (line := await self._process.stdout.readline()).startswith(b"stall"):
            assert line, "the filter has ended"
        return float(line.split()[1]) * 1000

    async def lists(self, host: str) -> float:
        """Wait until a host is blocked; the seconds that took."""
        start = time.perf_counter()
        while True:
            # What is under way to a host while it becomes listed is cut, without an answer.
            with suppress(IndexError, OSError):
                if await status(self.port, host) == 451:
                    break
            await asyncio.sleep(0.01)
        return time.perf_counter() - start


@asynccontextmanager
async def running(config: Path, port: int, *, clock: bool = True) -> AsyncIterator[tuple[Filter, float]]:
    """A filter that serves, and the seconds that took; without a clock beside it, the command as it is."""
    command = (
        [sys.executable, "-m", "benchmarks.lists.filter"]
        if clock
        else [str(Path(sys.executable).with_name("urlward")), "run", "--config"]
    )
    questions = questions_of(config)
    if clock:
        os.mkfifo(questions)
    start = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*command, str(config), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        while b"listening" not in (line := await process.stdout.readline()):
            assert line, "the filter did not start"
        yield Filter(process, port, questions), time.perf_counter() - start
    finally:
        process.terminate()
        await process.wait()


@contextmanager
def body(folder: Path, port: int) -> Iterator[Path]:
    """The list body's server, and the folder that it serves."""
    import subprocess

    served = folder / "served"
    served.mkdir()
    (folder / "body.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/body.pid; error_log {folder}/body.log;\n"
        "user root; events { worker_connections 64; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b2; proxy_temp_path {folder}/p2;\n"
        f"fastcgi_temp_path {folder}/f2; uwsgi_temp_path {folder}/u2; scgi_temp_path {folder}/s2;\n"
        f"server {{ listen 127.0.0.1:{port}; root {served}; }} }}\n"
    )
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(folder / "body.conf")], stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        yield served
    finally:
        process.terminate()
        process.wait()


def publish(served: Path, name: str, data: bytes) -> None:
    """Put a file in its place at once."""
    beside = served / ".new"
    beside.write_bytes(data)
    beside.replace(served / name)


def write_config(folder: Path, ports: dict[str, int], name: str, *more: str) -> Path:
    """The configuration of a filter with one feed, of a file that the body serves."""
    (folder / "key").write_bytes(format_key(KEY.secret))
    path = folder / f"{name}.toml"
    lines = [
        f'state = "state-{name}"',
        f'mode = ["reverse:http://127.0.0.1:{ports["origin"]}"]',
        f'listen = "127.0.0.1:{ports["filter"]}"',
        "[[feed]]",
        'name = "bench"',
        f'url = "http://127.0.0.1:{ports["body"]}/{name}"',
        'interval = "1d"',
        *more,
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@asynccontextmanager
async def loaded(filter_: Filter) -> AsyncIterator[Load]:
    """Requests at a steady pace."""
    load = Load(filter_.port)
    tasks = [asyncio.create_task(load.run(n / REQUESTS_PER_S)) for n in range(CONNECTIONS)]
    try:
        await asyncio.sleep(SETTLE)
        yield load
    finally:
        load.stop = True
        await asyncio.gather(*tasks)


async def change(filter_: Filter, issue: int, load: Load) -> dict[str, Any]:
    """Have a published issue come into force, and see what that costs."""
    load.latencies.clear()
    await filter_.stall()
    filter_.refresh()
    in_force = await filter_.lists(marker(issue))
    await asyncio.sleep(SETTLE)
    return {
        "in_force_s": in_force,
        "stall_ms": await filter_.stall(),
        "p50_ms": 1000 * statistics.median(load.latencies),
        "max_ms": 1000 * max(load.latencies),
    }


async def measure(folder: Path, entries: int, rounds: int) -> dict[str, Any]:
    """Run it all and give the figures."""
    from urlward.engine.signing import SigningKey

    sources = write_sources(folder, entries, 2 * rounds + 1)
    issues = artifacts(sources, SIGNING)
    changes = deltas(issues)
    public = str(SigningKey(SIGNING).public)
    ports = {name: free_port() for name in ("origin", "filter", "body")}
    config = write_config(folder, ports, "list.ward", 'key = "key"', f'trust = ["{public}"]')
    result: dict[str, Any] = {
        "entries": entries,
        "artifact_bytes": len(issues[0]),
        "delta_bytes": [len(d) for d in changes],
        "changes": [],
        "restarts": [],
    }
    with origin(folder, ports["origin"]), body(folder, ports["body"]) as served:
        publish(served, "list.ward", issues[0])
        async with running(config, ports["filter"]) as (filter_, _):
            result["first_s"] = await filter_.lists(marker(0))
            async with loaded(filter_) as load:
                await filter_.stall()
                await asyncio.sleep(SETTLE)
                result["baseline_stall_ms"] = await filter_.stall()
                for number in range(1, 2 * rounds + 1):
                    # By turns, so that what else the machine does meets both alike.
                    kind = "delta" if number % 2 else "full"
                    if kind == "delta":
                        publish(served, f"list.ward.{number}.delta", changes[number - 1])
                    publish(served, "list.ward", issues[number])
                    result["changes"].append({"kind": kind, **await change(filter_, number, load)})
                    print(result["changes"][-1], flush=True)
            result["requests"], result["failed"] = load.done, load.failed
        for _ in range(rounds):
            start = time.perf_counter()
            async with running(config, ports["filter"], clock=False) as (filter_, _):
                await filter_.lists(marker(2 * rounds))
                result["restarts"].append(time.perf_counter() - start)
        await _measure_text(folder, ports, served, sources, result)
    return result


async def _measure_text(
    folder: Path, ports: dict[str, int], served: Path, sources: list[Path], result: dict[str, Any]
) -> None:
    """The same list as text, which the provider compiles; for comparison."""
    publish(served, "list.txt", sources[0].read_bytes())
    config = write_config(folder, ports, "list.txt")
    async with running(config, ports["filter"]) as (filter_, _):
        await filter_.lists(marker(0))
        async with loaded(filter_) as load:
            publish(served, "list.txt", sources[1].read_bytes())
            result["changes"].append({"kind": "text", **await change(filter_, 1, load)})
            print(result["changes"][-1], flush=True)
        result["failed"] += load.failed
