"""Runs one filter, changes its list, and reads its processes' memory from ``/proc``."""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE = 120.0
_SAMPLED_EVERY = 0.25


class Memory(NamedTuple):
    """Bytes of one or several processes.

    Attributes:
        proportional: pages divided by the number of processes that map them (PSS).
        private: pages that no other process maps (USS).
    """

    proportional: int
    private: int


class Running:
    """A filter under measurement.

    Args:
        process: the supervisor, or the only process.
        workers: how many filter.
    """

    def __init__(self, process: "subprocess.Popen[str]", workers: int) -> None:
        self._process = process
        self._workers = workers
        self._lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.wait("listening on", workers)

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(iter(self._process.stdout.readline, ""))

    def wait(self, text: str, times: int) -> None:
        """Wait until the log has a text so many times.

        Raises:
            TimeoutError: it has not.
        """
        end = time.monotonic() + PATIENCE
        while self._count(text) < times:
            if time.monotonic() > end or self._process.poll() is not None:
                raise TimeoutError("".join(self._lines))
            time.sleep(0.005)

    def _count(self, text: str) -> int:
        return sum(line.count(text) for line in list(self._lines))

    def workers(self) -> list[int]:
        """Process ids of those that filter."""
        return _children(self._process.pid)

    def memory(self) -> dict[str, Any]:
        """Of all processes together, and of each worker."""
        each = [memory(pid) for pid in self.workers()]
        return {
            "total_pss": sum(m.proportional for m in [*each, memory(self._process.pid)]),
            "worker_pss": [m.proportional for m in each],
            "worker_private": [m.private for m in each],
        }

    def reload(self, path: Path, content: Path) -> dict[str, Any]:
        """Put another list in place; seconds until it is in force in all workers, and the highest total."""
        before = self._count(" after ")
        peak = _Peak(self._process.pid)
        beside = path.with_name("beside")
        beside.write_bytes(content.read_bytes())
        try:
            start = time.perf_counter()
            beside.replace(path)
            self.wait(" after ", before + self._workers)
            took = time.perf_counter() - start
        finally:
            highest = peak.end()
        return {"in_force_s": took, "peak_pss": highest}


class _Peak:
    """The highest total of a process and all below it, looked at now and then."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._highest = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(_SAMPLED_EVERY):
            total = sum(memory(pid).proportional for pid in _tree(self._pid))
            self._highest = max(self._highest, total)

    def end(self) -> int:
        self._done.set()
        self._thread.join()
        return self._highest


@contextmanager
def running(path: Path, key: Path, workers: int) -> Iterator[Running]:
    """Run a filter over a list until the end of the context."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "urlward", "run", "--list", str(path), "--key", str(key),
            "--workers", str(workers), "--listen", f"127.0.0.1:{_free_port()}",
            "--confdir", str(path.parent / "confdir"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        yield Running(process, workers)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def memory(pid: int) -> Memory:
    """Of one process; nothing where it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return Memory(0, 0)
    kib = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    return Memory(kib["Pss"] << 10, kib["Private_Clean"] + kib["Private_Dirty"] << 10)


def _tree(pid: int) -> list[int]:
    return [pid, *(below for child in _children(pid) for below in _tree(child))]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found.extend(map(int, task.read_text().split()))
        except OSError:
            continue
    return found


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
