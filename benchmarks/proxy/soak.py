"""Minutes of mixed traffic while the list changes every few seconds."""

import threading
import time
from collections.abc import Callable
from statistics import mean, median
from typing import Any

from benchmarks.proxy import load
from benchmarks.proxy.load import Tally, Wrk
from benchmarks.proxy.material import DOWNLOAD, INSPECTED, RELAYED
from benchmarks.proxy.measure import Bench, Subject, in_force
from benchmarks.proxy.plan import Plan
from benchmarks.proxy.processes import memory
from benchmarks.proxy.run import bench, make, started
from benchmarks.proxy.site import ORIGIN

type Segment = dict[str, Any]

_PAUSE = 1.0
"""Seconds between downloads, and between looks at the memory."""
_BLOCKS = ("blocked", "blocked in TLS")


def soak(plan: Plan, minutes: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Run it, and give what `results.json` has under ``soak``."""
    with bench(plan, True, say) as b:
        proxy = make(b, "urlward")
        proxy.prepare()
        with started(b, proxy, [0]) as subject:
            watch = _Watch(b, subject)
            threads = [
                threading.Thread(target=watch.guarded, args=(work,), daemon=True)
                for work in (watch.replace, watch.look, watch.download)
            ]
            for thread in threads:
                thread.start()
            segments: list[Segment] = []
            while time.monotonic() < watch.begun + minutes * 60:
                segments.append(_segment(b, len(segments)))
                say(f"{segments[-1]}; {watch.told()}")
            watch.stop.set()
            for thread in threads:
                thread.join()
        return _summary(plan, minutes, segments, watch, b.origin.missed())


class _Watch:
    """What goes on beside the load generators."""

    def __init__(self, bench: Bench, subject: Subject) -> None:
        self._bench, self._subject = bench, subject
        self.begun = time.monotonic()
        self.stop = threading.Event()
        self.waits: list[float | None] = []
        self.memory: list[tuple[float, float]] = []
        self.downloads: list[float] = []
        self.failed_downloads = 0
        self.faults: list[str] = []

    def guarded(self, work: Callable[[], None]) -> None:
        """What goes wrong in a thread must not pass for nothing having gone wrong."""
        try:
            work()
        except Exception as e:  # noqa: BLE001
            self.faults.append(f"{work.__name__}: {type(e).__name__}: {e}")

    def replace(self) -> None:
        """Put the other version in place, at fixed times, and wait until it is in force."""
        due = time.monotonic()
        while not self.stop.wait(max(due - time.monotonic(), 0)):
            version = 1 - self._subject.versions[0]
            begun = time.monotonic()
            self._subject.proxy.change(version)
            self._subject.proxy.tell(self._subject.pid)
            self.waits.append(in_force(self._subject.proxy, version, begun))
            self._subject.versions[0] = version
            due = max(due + self._bench.plan.soak_every, time.monotonic())

    def look(self) -> None:
        """Note the memory of the proxy."""
        while not self.stop.wait(_PAUSE):
            now = round(time.monotonic() - self.begun, 1)
            self.memory.append((now, round(memory(self._subject.pid) / 1e6, 1)))

    def download(self) -> None:
        """One download after the other, plain and intercepted in turn."""
        urls = [f"http://{RELAYED[0]}{DOWNLOAD}", f"https://{INSPECTED[0]}{DOWNLOAD}"]
        while not self.stop.wait(_PAUSE):
            done = load.download(urls[len(self.downloads) % 2], self._subject.trusted)
            whole = (done.status, done.size) == (200, self._bench.plan.download_bytes)
            self.downloads.append(round(done.seconds, 2))
            self.failed_downloads += done.failed or not whole

    def told(self) -> str:
        """How it goes."""
        late = sum(wait is None for wait in self.waits)
        return (
            f"{len(self.waits)} reloads, {late} not in force; {len(self.downloads)} downloads, "
            f"{self.failed_downloads} failed; {self.memory[-1][1] if self.memory else 0} MB; {self.faults}"
        )


def _segment(bench: Bench, number: int) -> Segment:
    """All kinds of traffic at once, each by load generators of its own."""
    m, seconds, begin = bench.material, bench.plan.soak_segment, (number % 10) / 10

    def plain(n: int, connections: int, *, close: bool = False) -> Wrk:
        return Wrk(bench.script, m.plain[n], ORIGIN, seconds, connections, close=close, begin=begin)

    def tls(n: int, host: str, file: Any, *, count: bool = False) -> Wrk:
        return Wrk(bench.script, file[n], host, seconds, 2, tls=True, count=count, begin=begin)

    kinds = {
        "plain": [plain(0, 4), plain(1, 4)],
        "new connections": [plain(2, 2, close=True)],
        "intercepted": [tls(n, INSPECTED[n], m.inspected) for n in range(2)],
        "relayed": [tls(0, RELAYED[0], m.relayed)],
        "blocked": [Wrk(bench.script, m.blocked[0], ORIGIN, seconds, 2, count=True, begin=begin)],
        "blocked in TLS": [tls(2, INSPECTED[2], m.blocked_inspected, count=True)],
    }
    tallies = {kind: load.total(generators) for kind, generators in kinds.items()}
    return {
        "requests": {kind: tally.requests for kind, tally in tallies.items()},
        "slowest_ms": {kind: round(tally.quantile(1), 1) for kind, tally in tallies.items()},
        "failed": sum(_failed(kind, tally) for kind, tally in tallies.items()),
        "missed": sum(tallies[kind].statuses[200] for kind in _BLOCKS),
    }


def _failed(kind: str, tally: Tally) -> int:
    if kind in _BLOCKS:
        return tally.failed + sum(n for status, n in tally.statuses.items() if status not in (200, 451))
    return tally.failed + tally.refused


def _summary(
    plan: Plan, minutes: float, segments: list[Segment], watch: _Watch, at_origin: int
) -> dict[str, Any]:
    waits = [wait for wait in watch.waits if wait is not None]
    requests = {kind: sum(s["requests"][kind] for s in segments) for kind in segments[0]["requests"]}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "minutes": minutes,
        "entries": plan.entries,
        "every_s": plan.soak_every,
        "segment_s": plan.soak_segment,
        "segments": segments,
        "memory": watch.memory,
        "faults": watch.faults,
        "figures": {
            "requests": requests,
            "downloads": len(watch.downloads),
            "reloads": len(watch.waits),
            "in_force_s": round(median(waits), 2) if waits else None,
            "in_force_max_s": max(waits, default=None),
            "slowest_ms": max(max(s["slowest_ms"].values()) for s in segments),
            "failed": sum(s["failed"] for s in segments)
            + watch.failed_downloads
            + (len(watch.waits) - len(waits))
            + len(watch.faults),
            "missed": max(sum(s["missed"] for s in segments), at_origin),
            **level(watch.memory),
        },
    }


def level(memory: list[tuple[float, float]]) -> dict[str, float]:
    """How the last third of a series compares with the first, the first tenth left out to warm up."""
    values = [size for _, size in memory[len(memory) // 10 :]]
    third = max(len(values) // 3, 1)
    first, last = mean(values[:third]), mean(values[-third:])
    return {
        "memory_mb": round(last, 1),
        "memory_peak_mb": max(values),
        "memory_ratio": round(last / first, 3),
    }
