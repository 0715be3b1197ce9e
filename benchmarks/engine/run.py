"""A run: every engine at every size, in processes of their own, their rounds taken alternately."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from benchmarks.engine.contenders import ENTRANTS
from benchmarks.engine.machine import describe
from benchmarks.engine.material import prepare, prepare_common
from benchmarks.engine.plan import Plan
from benchmarks.engine.summary import goals, summarise

FORMAT = 1
_ROOT = Path(__file__).parents[2]
_ANSWER_LIMIT = 600.0

type Say = Callable[[str], None]


class GaveUpError(Exception):
    """A worker did not answer: the result's status and its detail."""


class Worker:
    """The process of one engine with one list."""

    def __init__(self, mode: str, engine: str, size: int, work: Path, plan: Plan, core: int) -> None:
        command = [sys.executable, "-m", "benchmarks.engine.worker", mode, engine, str(size)]
        command += ["--work", str(work), "--plan", json.dumps(asdict(plan)), "--core", str(core)]
        self._errors = (work / f"{engine}-{size}-{mode}.err").open("w+")
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, command: object, limit: float = _ANSWER_LIMIT) -> dict[str, Any]:
        """Send a command, wait for its answer.

        Raises:
            GaveUpError: none came.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self.answer(limit)

    def answer(self, limit: float) -> dict[str, Any]:
        """Wait for an answer.

        Raises:
            GaveUpError: none came.
        """
        assert self._process.stdout is not None
        late = threading.Event()
        overdue = threading.Timer(limit, self._give_up, (late,))
        overdue.start()
        line = self._process.stdout.readline()
        overdue.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._process.wait()
        if late.is_set():
            raise GaveUpError("time limit", f"not built in {limit:.0f} s")
        self._errors.seek(0)
        last = self._errors.read().strip().rpartition("\n")[2]
        if "MemoryError" in last or "NoMemory" in last or "memory allocation" in last:
            raise GaveUpError("memory limit", last)
        raise GaveUpError("failed", last or f"ended with {self._process.returncode}")

    def _give_up(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._errors.close()


def run(plan: Plan, engines: Iterable[str], say: Say) -> dict[str, Any]:
    """Measure; the result is what is written as JSON.

    Args:
        plan: what.
        engines: names of `ENTRANTS`.
        say: told what goes on.
    """
    machine = describe()
    core = max(os.sched_getaffinity(0))
    results: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="urlward-benchmark-") as name:
        work = Path(name)
        listed: set[str] = set()
        for size in plan.sizes:
            say(f"{size:,} entries: making the list")
            listed |= prepare(work, size, plan)
        prepare_common(work, plan, listed)
        del listed
        workers: list[tuple[Worker, dict[str, Any]]] = []
        try:
            for size in plan.sizes:
                for engine in engines:
                    say(f"{size:,} entries: {engine}")
                    result: dict[str, Any] = {"engine": engine, "size": size, "status": "ok", "detail": ""}
                    results.append(result)
                    worker = _begin(work, plan, core, result)
                    if worker is not None:
                        workers.append((worker, result))
            _rounds(workers, plan, say)
        finally:
            for worker, _ in workers:
                worker.close()
    for result in results:
        summarise(result)
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine,
        "plan": asdict(plan),
        "engines": {
            name: {"title": e.title, "package": e.distribution, "version": e.version()}
            for name, e in ENTRANTS.items()
        },
        "results": results,
        "goals": goals(results, plan),
    }


def _begin(work: Path, plan: Plan, core: int, result: dict[str, Any]) -> Worker | None:
    """Build and start serving; what came of it goes into the result."""
    engine, size = result["engine"], result["size"]
    try:
        stores = ENTRANTS[engine].create().stores
    except ImportError as e:
        result |= {"status": "not installed", "detail": str(e)}
        return None
    try:
        if stores:
            with Worker("build", engine, size, work, plan, core) as builder:
                result |= builder.answer(plan.time_limit)
        worker = Worker("serve", engine, size, work, plan, core)
        try:
            result |= worker.answer(plan.time_limit)
        except GaveUpError:
            worker.close()
            raise
    except GaveUpError as e:
        result["status"], result["detail"] = e.args
        return None
    return worker


def _rounds(workers: list[tuple[Worker, dict[str, Any]]], plan: Plan, say: Say) -> None:
    for _, result in workers:
        result["rounds"] = []
    for index in range(plan.rounds):
        say(f"round {index + 1} of {plan.rounds}")
        # Each round another engine begins, so that none always follows the same one.
        start = index * 7 % max(len(workers), 1)
        for worker, result in workers[start:] + workers[:start]:
            result["rounds"].append(worker.ask(index))
    say("verifying")
    for worker, result in workers:
        result["found"] = worker.ask("verify")
