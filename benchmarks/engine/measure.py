"""Clocks, stalls and memory.

Costs are CPU time, which does not count what other processes took meanwhile; seconds that somebody
waits for are wall time.
"""

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self, TypedDict

from benchmarks.engine.material import Request

_TICK = 0.001


class Took(TypedDict):
    """Seconds of some work.

    Attributes:
        wall: seconds waited.
        cpu: seconds worked.
        first_step: wall seconds of its first uninterrupted step.
        longest_step: wall seconds of the longest of the others; of the only one where there is one.
        longest_step_cpu: the CPU seconds of the step that took most of them, likewise.
    """

    wall: float
    cpu: float
    first_step: float
    longest_step: float
    longest_step_cpu: float


def drive(steps: Iterator[None]) -> Took:
    """Do all steps, timing each."""
    walls: list[float] = []
    cpus: list[float] = []
    done = object()
    while True:
        wall, cpu = time.perf_counter(), time.process_time()
        last = next(steps, done)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        if last is done:
            break
    return Took(
        wall=sum(walls),
        cpu=sum(cpus),
        first_step=walls[0],
        longest_step=max(walls[1:] or walls),
        longest_step_cpu=max(cpus[1:] or cpus),
    )


class Ticker(AbstractContextManager["Ticker"]):
    """A thread that ticks each millisecond, as an event loop would, and notes its longest wait.

    A wait takes in what the interpreter lets another thread run on before it switches
    (`sys.getswitchinterval`, 5 ms), so that no busy thread shows less than that.

    Attributes:
        longest: seconds.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _tick(self) -> None:
        last = time.perf_counter()
        while not self._stop.is_set():
            time.sleep(_TICK)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last - _TICK)
            last = now


class Series(TypedDict):
    """One series of requests, checked once: seconds, how many there were and how many were blocked."""

    wall: float
    cpu: float
    requests: int
    blocked: int


def timed(run: Callable[[Sequence[Request]], int], requests: Sequence[Request]) -> Series:
    wall, cpu = time.perf_counter(), time.process_time()
    blocked = run(requests)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Series(wall=wall, cpu=cpu, requests=len(requests), blocked=blocked)


def resident(trim: bool = True) -> int:
    """Bytes of resident memory, without what the allocator could give back if `trim`."""
    gc.collect()
    if trim and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return _status(Path("/proc/self/smaps_rollup"), "Rss:")


def peak() -> int:
    """Most bytes of resident memory that this process has had."""
    return _status(Path("/proc/self/status"), "VmHWM:")


def _status(path: Path, field: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)
