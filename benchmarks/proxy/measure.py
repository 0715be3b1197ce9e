"""One cell: one case through one running proxy, and whether it was right."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.proxy import load
from benchmarks.proxy.load import Generator, H2load, Sessions, Tally, Wrk
from benchmarks.proxy.material import DOWNLOAD, INSPECTED, MARKERS, RELAYED, Material, sample
from benchmarks.proxy.origin import BODY, Origin
from benchmarks.proxy.plan import (
    DOWNLOADS,
    EACH_NEW,
    INTERCEPTING,
    LOAD_CORE,
    PROCESSES,
    RELAYING,
    RESUMING,
    TUNNELLED,
    Case,
    Plan,
)
from benchmarks.proxy.probe import Answer, ask
from benchmarks.proxy.processes import cpu_seconds
from benchmarks.proxy.proxies import Proxy
from benchmarks.proxy.sessions import Job
from benchmarks.proxy.site import EXPLICIT, ORIGIN, overflows

type Cell = dict[str, Any]

_SAMPLES = 5
_IN_FORCE = 30
"""Seconds that a reload may take."""
_RESUMED = 0.9
"""Share of handshakes that are to resume a session where that is what is measured."""


@dataclass(slots=True)
class Bench:
    """What all cells share.

    Attributes:
        script: load.lua where the load's user can read it.
        round: from 0; other requests come first in each.
    """

    plan: Plan
    material: Material
    origin: Origin
    script: Path
    round: int = 0


@dataclass(frozen=True, slots=True)
class Subject:
    """A running proxy.

    Attributes:
        trusted: certificates of the origin's authority and of the proxy's.
        versions: the version of the list in force, as its only item.
    """

    proxy: Proxy
    pid: int
    trusted: Path
    versions: list[int]


def measure(bench: Bench, subject: Subject, case: Case) -> Cell:
    """Run one case.

    Raises:
        Exception: a load generator failed.
    """
    missed, lost = bench.origin.missed(), overflows()
    problems = check(bench, subject, case)
    warm_up = bench.plan.explicit_warm_up if case is Case.EXPLICIT else bench.plan.warm_up
    if warm_up and not problems and case not in DOWNLOADS:
        load.total(start(bench, case, warm_up, 0.0))
    passed = bench.origin.requests()
    busy, idle, begun = cpu_seconds(subject.pid), _idle(LOAD_CORE), time.monotonic()
    if problems:
        cell: Cell = {}
    elif case in DOWNLOADS:
        cell = _downloads(bench, subject, case)
    elif case is Case.RELOAD:
        cell = _reload(bench, subject)
    else:
        cell = figures(load.total(start(bench, case, bench.plan.seconds, _begin(bench))))
    took, spent = time.monotonic() - begun, cpu_seconds(subject.pid) - busy
    cell["proxy_busy"] = round(spent / took, 3)
    if "requests" in cell and spent > 0:
        cell["per_cpu_s"] = round(cell["requests"] / spent, 1)
    cell["load_idle"] = round((_idle(LOAD_CORE) - idle) / took, 3)
    cell["at_origin"] = bench.origin.requests() - passed
    cell["overflows"] = overflows() - lost
    problems += _doubts(subject, case, cell, bench.origin.missed() - missed)
    cell["problems"] = problems
    return cell


def start(bench: Bench, case: Case, seconds: int, begin: float) -> Sequence[Generator]:
    """Start a case's load generators."""
    material, connections = bench.material, bench.plan.connections
    if case in INTERCEPTING or case in RELAYING:
        files, hosts = (
            (material.inspected, INSPECTED) if case in INTERCEPTING else (material.relayed, RELAYED)
        )
        if case is Case.HTTP2:
            return [H2load(file, seconds, connections, begin=begin) for file in files]
        if case in EACH_NEW:
            via = "connect" if case in TUNNELLED else ""
            return [Sessions([job(file, begin, via, resume=case in RESUMING) for file in files], seconds)]
        return [
            Wrk(bench.script, file, host, seconds, connections, tls=True, begin=begin)
            for file, host in zip(files, hosts, strict=True)
        ]
    files = material.blocked if case is Case.BLOCK else material.plain
    host = f"{EXPLICIT[0]}:{EXPLICIT[1]}" if case is Case.EXPLICIT else ORIGIN
    return [
        Wrk(
            bench.script, file, host, seconds, connections, begin=begin, close=case is Case.CLOSE,
            count=case is Case.BLOCK, absolute=case is Case.EXPLICIT,
        )
        for file in files
    ]  # fmt: skip


def job(
    file: Path,
    begin: float,
    via: str = "",
    *,
    tls: bool = True,
    resume: bool = False,
    address: tuple[str, int] | None = None,
) -> Job:
    """One process of `Sessions`; to where the origin or the explicit proxy is, if no address is given."""
    where = address or (EXPLICIT if via == "connect" else (ORIGIN, 443 if tls else 80))
    return {"file": str(file), "begin": begin, "address": where, "via": via, "tls": tls, "resume": resume}


def check(bench: Bench, subject: Subject, case: Case) -> list[str]:
    """Look at some requests closely; what is not as it must be, in words."""
    proxy, material = subject.proxy, bench.material
    tls = case in INTERCEPTING or case in RELAYING
    files = material.plain
    if tls:
        files = material.inspected if case in INTERCEPTING else material.relayed
    elif case is Case.BLOCK:
        files = material.blocked
    explicit = case in TUNNELLED or case is Case.EXPLICIT
    for file in files[:_SAMPLES]:
        for host, target in sample(file, 1):
            try:
                answer = ask(host, target, subject.trusted if tls else None, explicit=explicit)
            except (OSError, HTTPException) as e:
                return [f"{type(e).__name__}: {e}"]
            if case is Case.BLOCK:
                if not blocked(proxy, answer):
                    return [f"status {answer.status}"]
            elif (answer.status, answer.size) != (200, len(BODY)):
                return [f"status {answer.status}, {answer.size} bytes"]
            theirs = answer.issuer.endswith("origin-ca")
            if tls and proxy.authority and theirs is (case in INTERCEPTING):
                return [f"a certificate by {answer.issuer}"]
    return []


def blocked(proxy: Proxy, answer: Answer) -> bool:
    """Whether it is the proxy's block page."""
    return answer.status in proxy.blocked and answer.size != len(BODY)


def figures(tally: Tally) -> Cell:
    """A tally as it goes into the result."""
    return {
        "requests": tally.requests,
        "requests_s": round(tally.requests / tally.seconds, 1),
        "p50_ms": round(tally.quantile(0.5), 3),
        "p99_ms": round(tally.quantile(0.99), 3),
        "max_ms": round(tally.quantile(1), 3),
        "failed": tally.failed,
        "refused": tally.refused,
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "resumed": tally.resumed,
    }


def _doubts(subject: Subject, case: Case, cell: Cell, missed: int) -> list[str]:
    problems = []
    if cell.get("requests") == 0:
        problems.append("not one answer")
    if missed:
        problems.append(f"{missed} listed requests reached the origin")
    if cell.get("failed") and case is Case.BLOCK:
        problems.append(f"{cell['failed']} connections were cut behind {cell['requests']} answers")
    elif cell.get("failed"):
        problems.append(f"{cell['failed']} failed requests")
    if case is Case.BLOCK:
        others = {s: n for s, n in cell.get("statuses", {}).items() if int(s) not in subject.proxy.blocked}
        if others:
            problems.append(f"answers that are no block page: {others}")
    elif cell.get("refused"):
        problems.append(f"{cell['refused']} requests were refused")
    elif cell["at_origin"] < cell.get("requests", 0):
        problems.append(f"{cell['at_origin']} requests at the origin for {cell['requests']} answers")
    # The first of each process has nothing to resume.
    if cell.get("resumed", 0) < _RESUMED * (cell.get("requests", 0) - PROCESSES) and case in RESUMING:
        problems.append(f"{cell['resumed']} of {cell['requests']} handshakes resumed a session")
    if cell["overflows"]:
        problems.append(f"{cell['overflows']} connections found a queue of the kernel's full")
    return problems


def _downloads(bench: Bench, subject: Subject, case: Case) -> Cell:
    secret = case is Case.DOWNLOAD_INTERCEPTED
    url = f"https://{INSPECTED[0]}{DOWNLOAD}" if secret else f"http://{RELAYED[0]}{DOWNLOAD}"
    # Not all speak HTTP/2.
    done = [load.download(url, subject.trusted, "--http1.1") for _ in range(bench.plan.downloads)]
    bad = [d for d in done if d.failed or (d.status, d.size) != (200, bench.plan.download_bytes)]
    return {
        "requests": len(done),
        "megabytes_s": round(bench.plan.download_bytes / median(d.seconds for d in done) / 1e6, 1),
        "p50_ms": round(median(d.seconds for d in done) * 1000, 1),
        "max_ms": round(max(d.seconds for d in done) * 1000, 1),
        "failed": len(bad),
    }


def _reload(bench: Bench, subject: Subject) -> Cell:
    proxy, version = subject.proxy, 1 - subject.versions[0]
    seconds = bench.plan.reload_seconds
    generators = start(bench, Case.RELOAD, seconds, _begin(bench))
    found: Cell = {"in_force_s": None}

    def replace() -> None:
        time.sleep(seconds / 3)
        begun = time.monotonic()
        proxy.change(version)
        proxy.tell(subject.pid)
        found["in_force_s"] = in_force(proxy, version, begun)

    thread = threading.Thread(target=replace)
    thread.start()
    tally = load.total(generators)
    thread.join()
    subject.versions[0] = version
    cell = figures(tally) | found
    if found["in_force_s"] is None:
        cell["failed"] += 1
    return cell


def in_force(proxy: Proxy, version: int, begun: float, patience: float = _IN_FORCE) -> float | None:
    """Seconds until a version's marker is blocked and the other's is not; None where that never is."""
    while time.monotonic() < begun + patience:
        with suppress(OSError):
            old, new = (ask(MARKERS[number], "/") for number in (1 - version, version))
            if blocked(proxy, new) and not blocked(proxy, old):
                return round(time.monotonic() - begun, 2)
        time.sleep(0.1)
    return None


def _begin(bench: Bench) -> float:
    """The first third is for the warm-up; rounds begin at different places behind it."""
    return 1 / 3 + (bench.round % 5) / 20


def _idle(core: int) -> float:
    """Seconds that a core has been idle."""
    with Path("/proc/stat").open() as file:
        fields: Sequence[str] = next(line for line in file if line.startswith(f"cpu{core} ")).split()
    return (int(fields[4]) + int(fields[5])) / 100
