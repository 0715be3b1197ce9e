"""Command line of the replay benchmark."""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.engine.machine import measured
from benchmarks.goals import goals_table, judge
from benchmarks.replay.logs import requests, write
from benchmarks.workload import Workload

from urlward.engine.digest import Key, format_key
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.lists.build import compile_sources

_ENOUGH = 300_000
"""Requests a second on two cores that each kind of log is to be replayed at."""

_ALONE = "matcher alone"
_KEY = Key(b"benchmark-key-with-32-bytes-----")

type Figures = tuple[float, float]
"""Requests a second, and CPU seconds a million requests."""


def _measure(folder: Path, arguments: Namespace) -> dict[str, Any]:
    """All figures of all rounds."""
    entries, lines, rounds = (
        (20_000, 50_000, 1) if arguments.quick else (1_000_000, 1_000_000, arguments.rounds)
    )
    source = folder / "list.txt"
    source.write_text("\n".join([*Workload(1).entries(entries), ""]))
    (folder / "key").write_bytes(format_key(_KEY.secret))
    artifact = compile_sources([source], _KEY, name="benchmark")[0]
    (folder / "list.ward").write_bytes(artifact)
    pairs = requests(lines)
    logs = write(folder, pairs)
    matcher = Matcher([load(artifact, _KEY)])
    workers = len(os.sched_getaffinity(0))
    figures: dict[str, list[Figures]] = {name: [] for name in (_ALONE, *logs)}
    short = folder / "short.log"
    short.write_text("http://unlisted.test/\n")
    for _ in range(rounds):
        figures[_ALONE].append(alone(matcher, pairs, workers))
        _, without = replay(folder, short)
        for name, path in logs.items():
            seconds, cpu = replay(folder, path)
            figures[name].append((lines / seconds, (cpu - without) * 1e6 / lines))
    cluster = {
        count: [lines / on_cluster(folder, logs["squid"], count) for _ in range(rounds)] for count in (1, 2)
    }
    return {
        "entries": entries,
        "lines": lines,
        "workers": workers,
        "figures": figures,
        "cluster": cluster,
    }


def on_cluster(folder: Path, log: Path, workers: int) -> float:
    """Seconds that it says it took, on a cluster of so many workers with a thread each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    commands = [["dask_scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]]]
    commands += [
        ["dask_worker", address, "--nthreads", "1", "--no-nanny", "--local-directory", str(folder)]
    ] * workers
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{name}", *arguments, "--no-dashboard"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for name, *arguments in commands
    ]  # fmt: skip
    try:
        from distributed import Client

        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
        return replay(folder, log, "--cluster", address)[0]
    finally:
        for process in started:
            process.kill()
            process.wait()


def replay(folder: Path, log: Path, *more: str) -> tuple[float, float]:
    """Seconds that it says it took, and CPU seconds of all its processes."""
    command = [sys.executable, "-m", "urlward", "lab", "replay", "--json", *more]
    command += ["--list", str(folder / "list.ward"), "--key", str(folder / "key"), str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return json.loads(out)["seconds"], usage.ru_utime + usage.ru_stime


def alone(matcher: Matcher, pairs: list[tuple[str, str]], workers: int) -> Figures:
    """Nothing but `Matcher.check`."""

    def check(part: list[tuple[str, str]]) -> None:
        one = Matcher(matcher.lists)
        for host, target in part:
            one.check(host, target, (80,), 1.8e9)

    size = -(-len(pairs) // workers)
    start = time.monotonic()
    pids = [forked(check, pairs[at : at + size]) for at in range(0, len(pairs), size)]
    cpu = 0.0
    for pid in pids:
        _, _, usage = os.wait4(pid, 0)
        cpu += usage.ru_utime + usage.ru_stime
    return len(pairs) / (time.monotonic() - start), cpu * 1e6 / len(pairs)


def forked(check: Callable[[list[tuple[str, str]]], None], part: list[tuple[str, str]]) -> int:
    pid = os.fork()
    if not pid:
        check(part)
        os._exit(0)
    return pid


def report(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    figures = result["figures"]
    slowest = min(statistics.median(r for r, _ in figures[name]) for name in figures if name != _ALONE)
    goal = judge(
        "requests a second, median, the slowest kind of log", "", _ENOUGH, slowest,
        least=True, judged=result["workers"] == 2,
    )  # fmt: skip
    lines = [
        measured(
            result,
            f"{result['entries']:,} entries, {result['lines']:,} requests, {result['workers']} processes",
        ),
        "",
        goals_table([goal]),
        "",
        "| log | requests/s, median | best | CPU s a million requests, median | best |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, rounds in figures.items():
        rates, cpu = zip(*rounds, strict=True)
        lines.append(
            f"| {name} | {statistics.median(rates):,.0f} | {max(rates):,.0f} | {statistics.median(cpu):.2f} "
            f"| {min(cpu):.2f} |"
        )
    for count, found in result.get("cluster", {}).items():
        on = f"squid, on a cluster of {count} worker{'s' * (int(count) > 1)}"
        lines.append(f"| {on} | {statistics.median(found):,.0f} | {max(found):,.0f} | - | - |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    sys.exit(command("replay", _measure, report, parser))
