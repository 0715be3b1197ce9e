"""Minutes of mixed traffic in every mode of one filter, while the list changes every few seconds."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from statistics import mean, median
from typing import Any, ClassVar

from benchmarks.proxy import load
from benchmarks.proxy.load import Generator, H2load, Sessions, Tally, Wrk
from benchmarks.proxy.material import DOWNLOAD, INSPECTED, RELAYED
from benchmarks.proxy.measure import Bench, Subject, in_force, job
from benchmarks.proxy.plan import MODES, Plan
from benchmarks.proxy.processes import memory
from benchmarks.proxy.proxies.mitm import Urlward
from benchmarks.proxy.run import bench, make, started
from benchmarks.proxy.site import EXPLICIT, ORIGIN

type Segment = dict[str, Any]
type Traffic = tuple[str, str, bool, Callable[[int, float], Generator]]
"""Mode, kind, whether all of it is listed, and what makes it, given seconds and where to begin."""

_PAUSE = 1.0
"""Seconds between downloads, and between looks at the memory."""
_DOWNLOADS = "downloads"
_REVERSE, _REVERSE_TLS, _SOCKS5 = (("127.0.0.1", port) for port in (8082, 8083, 8084))
_BEHIND = 4
"""Number of the inspected host that the reverse proxy for TLS stands for."""


def _at(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


class Everywhere(Urlward):
    """The subject, listening in all its modes at once."""

    modes: ClassVar[tuple[str, ...]] = (
        *Urlward.modes,
        f"reverse:http://{ORIGIN}:80@{_at(_REVERSE)}",
        f"reverse:https://{INSPECTED[_BEHIND]}:443@{_at(_REVERSE_TLS)}",
        f"socks5@{_at(_SOCKS5)}",
    )


def soak(plan: Plan, minutes: float, modes: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Run it, and give what `results.json` has under ``soak``."""
    with bench(plan, True, say) as b:
        proxy = make(b, Everywhere)
        proxy.prepare()
        with started(b, proxy, [0]) as subject:
            traffic = [kind for kind in _traffic(b) if kind[0] in modes]
            watch = _Watch(b, subject, modes)
            threads = [
                threading.Thread(target=watch.guarded, args=(work,), daemon=True)
                for work in (watch.replace, watch.look, watch.download)
            ]
            for thread in threads:
                thread.start()
            segments: list[Segment] = []
            while time.monotonic() < watch.begun + minutes * 60:
                segments.append(_segment(plan, traffic, len(segments), watch))
                say(f"{segments[-1]['requests']}; {watch.told()}")
            watch.stop.set()
            for thread in threads:
                thread.join()
        return _summary(plan, minutes, segments, watch, b.origin.missed())


class _Watch:
    """What goes on beside the load generators, and what has come of all until now."""

    def __init__(self, bench: Bench, subject: Subject, modes: Sequence[str]) -> None:
        self._bench, self._subject = bench, subject
        self._downloads = cycle([row for row in _downloads() if row[0] in modes])
        self.begun = time.monotonic()
        self.stop = threading.Event()
        self.waits: list[float | None] = []
        self.memory: list[tuple[float, float]] = []
        self.faults: list[str] = []
        self.modes: dict[str, dict[str, dict[str, Any]]] = {}

    def guarded(self, work: Callable[[], None]) -> None:
        """What goes wrong in a thread must not pass for nothing having gone wrong."""
        try:
            work()
        except Exception as e:  # noqa: BLE001
            self.faults.append(f"{work.__name__}: {type(e).__name__}: {e}")

    def add(
        self, mode: str, kind: str, requests: int, failed: int, missed: int | None, slowest: float
    ) -> None:
        """Add to a kind's figures; `missed` is None where nothing is listed."""
        row = self.modes.setdefault(mode, {}).setdefault(
            kind, {"requests": 0, "failed": 0, "missed": None, "slowest_ms": 0.0}
        )
        row["requests"] += requests
        row["failed"] += failed
        row["missed"] = row["missed"] if missed is None else (row["missed"] or 0) + missed
        row["slowest_ms"] = max(row["slowest_ms"], round(slowest, 1))

    def sum(self, figure: str) -> int:
        """A figure over all modes and kinds."""
        return sum(row[figure] or 0 for kinds in list(self.modes.values()) for row in list(kinds.values()))

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
        """One download after the other, in each mode in turn."""
        while not self.stop.wait(_PAUSE):
            mode, url, more = next(self._downloads)
            done = load.download(url, self._subject.trusted, *more)
            whole = (done.status, done.size) == (200, self._bench.plan.download_bytes)
            self.add(mode, _DOWNLOADS, 1, int(done.failed or not whole), None, done.seconds * 1000)

    def told(self) -> str:
        """How it goes."""
        late = sum(wait is None for wait in self.waits)
        size = self.memory[-1][1] if self.memory else 0
        return (
            f"{len(self.waits)} reloads, {late} not in force; {self.sum('failed')} failed, "
            f"{self.sum('missed')} missed; {size} MB; {self.faults}"
        )


def _downloads() -> list[tuple[str, str, list[str]]]:
    """Mode, URL, and what curl needs to be told."""
    plain, secret = f"http://{RELAYED[0]}{DOWNLOAD}", f"https://{INSPECTED[_BEHIND]}{DOWNLOAD}"
    proxy, socks = ["-x", f"http://{_at(EXPLICIT)}"], ["--socks5-hostname", _at(_SOCKS5)]
    return [
        ("transparent", plain, []),
        ("transparent", secret, []),
        ("regular", plain, proxy),
        ("CONNECT", secret, proxy),
        ("reverse", plain, ["--connect-to", f"::{_at(_REVERSE)}"]),
        ("reverse", secret, ["--connect-to", f"::{_at(_REVERSE_TLS)}"]),
        ("socks5", plain, socks),
        ("socks5", secret, socks),
    ]


def _traffic(bench: Bench) -> Iterator[Traffic]:
    """All kinds of traffic at once, each by a load generator of its own."""
    m = bench.material

    def wrk(file: Any, host: str, connections: int, **how: bool) -> Callable[[int, float], Generator]:
        return lambda seconds, begin: Wrk(bench.script, file, host, seconds, connections, begin=begin, **how)

    def h2(file: Any, address: str = "") -> Callable[[int, float], Generator]:
        return lambda seconds, begin: H2load(file, seconds, 4, begin=begin, address=address)

    def new(file: Any, **how: Any) -> Callable[[int, float], Generator]:
        return lambda seconds, begin: Sessions([job(file, begin, **how)], seconds)

    explicit, reverse = _at(EXPLICIT), _at(_REVERSE)
    yield "transparent", "plain", False, wrk(m.plain[0], ORIGIN, 4)
    yield "transparent", "plain, new connections", False, wrk(m.plain[1], ORIGIN, 2, close=True)
    yield "transparent", "blocked", True, wrk(m.blocked[0], ORIGIN, 2, count=True)
    yield "transparent", "TLS intercepted", False, wrk(m.inspected[0], INSPECTED[0], 2, tls=True)
    yield "transparent", "TLS intercepted, resumed", False, new(m.inspected[1], resume=True)
    yield (
        "transparent",
        "TLS blocked",
        True,
        wrk(m.blocked_inspected[2], INSPECTED[2], 2, tls=True, count=True),
    )
    yield "transparent", "TLS relayed", False, wrk(m.relayed[0], RELAYED[0], 2, tls=True)
    yield "transparent", "HTTP/2", False, h2(m.inspected[3])
    yield "transparent", "HTTP/2 blocked", True, h2(m.blocked_inspected[3])
    yield "regular", "plain", False, wrk(m.plain[2], explicit, 4, absolute=True)
    yield "regular", "plain, new connections", False, wrk(m.plain[3], explicit, 2, absolute=True, close=True)
    yield "regular", "blocked", True, wrk(m.blocked[1], explicit, 2, absolute=True, count=True)
    yield "CONNECT", "TLS intercepted", False, new(m.inspected[5], via="connect")
    yield "CONNECT", "TLS blocked", True, new(m.blocked_inspected[5], via="connect")
    yield "CONNECT", "hosts blocked", True, new(m.blocked[2], via="connect")
    yield "CONNECT", "TLS relayed", False, new(m.relayed[1], via="connect")
    yield "reverse", "plain", False, wrk(m.plain[4], reverse, 2)
    yield "reverse", "blocked", True, wrk(m.blocked[3], reverse, 2, count=True)
    yield "reverse", "TLS", False, new(m.inspected[_BEHIND], address=_REVERSE_TLS)
    yield "reverse", "HTTP/2", False, h2(m.inspected[_BEHIND], _at(_REVERSE_TLS))
    yield "reverse", "HTTP/2 blocked", True, h2(m.blocked_inspected[_BEHIND], _at(_REVERSE_TLS))
    yield "socks5", "plain", False, new(m.plain[5], via="socks5", tls=False, address=_SOCKS5)
    yield "socks5", "blocked", True, new(m.blocked[4], via="socks5", tls=False, address=_SOCKS5)
    yield "socks5", "TLS intercepted", False, new(m.inspected[6], via="socks5", address=_SOCKS5)
    yield "socks5", "TLS blocked", True, new(m.blocked_inspected[6], via="socks5", address=_SOCKS5)
    yield "socks5", "TLS relayed", False, new(m.relayed[2], via="socks5", address=_SOCKS5)


def _segment(plan: Plan, traffic: Sequence[Traffic], number: int, watch: _Watch) -> Segment:
    """New load generators for all traffic, until they have ended."""
    begin = (number % 10) / 10
    running = [make(plan.soak_segment, begin) for *_, make in traffic]
    requests: dict[str, int] = {}
    for (mode, kind, listed, _), generator in zip(traffic, running, strict=True):
        try:
            tally = load.total([generator])
        except RuntimeError as e:
            watch.faults.append(f"{mode}, {kind}: {e}")
            tally = Tally()
        failed, missed = judge(tally, listed)
        watch.add(mode, kind, tally.requests, failed, missed, tally.quantile(1))
        requests[mode] = requests.get(mode, 0) + tally.requests
    return {"requests": requests}


def judge(tally: Tally, listed: bool) -> tuple[int, int | None]:
    """Failed requests, and missed blocks where all was listed; no answer at all is a failure too."""
    failed = tally.failed + (tally.requests == 0)
    if not listed:
        return failed + tally.refused, None
    wrong = sum(count for status, count in tally.statuses.items() if status not in (200, 451))
    return failed + wrong, tally.statuses[200]


def _summary(
    plan: Plan, minutes: float, segments: list[Segment], watch: _Watch, at_origin: int
) -> dict[str, Any]:
    waits = [wait for wait in watch.waits if wait is not None]
    late = len(watch.waits) - len(waits)
    if late:
        watch.faults.append(f"{late} reloads were not in force in time")
    answers = [row for kinds in watch.modes.values() for kind, row in kinds.items() if kind != _DOWNLOADS]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "minutes": minutes,
        "entries": plan.entries,
        "every_s": plan.soak_every,
        "segment_s": plan.soak_segment,
        "segments": segments,
        "memory": watch.memory,
        "faults": watch.faults,
        "modes": {
            mode: dict(sorted(kinds.items(), key=lambda item: item[0] == _DOWNLOADS))
            for mode, kinds in sorted(watch.modes.items(), key=lambda item: MODES.index(item[0]))
        },
        "figures": {
            "requests": {
                mode: sum(s["requests"][mode] for s in segments) for mode in segments[0]["requests"]
            },
            "downloads": sum(
                kinds[_DOWNLOADS]["requests"] for kinds in watch.modes.values() if _DOWNLOADS in kinds
            ),
            "reloads": len(watch.waits),
            "in_force_s": round(median(waits), 2) if waits else None,
            "in_force_max_s": max(waits, default=None),
            "slowest_ms": max(row["slowest_ms"] for row in answers),
            "failed": watch.sum("failed") + len(watch.faults),
            "missed": max(watch.sum("missed"), at_origin),
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
