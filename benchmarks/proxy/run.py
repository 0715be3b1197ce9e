"""All rounds of all proxies."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.engine.machine import describe
from benchmarks.proxy import load, site
from benchmarks.proxy.material import prepare
from benchmarks.proxy.measure import Bench, Subject, measure
from benchmarks.proxy.origin import origin
from benchmarks.proxy.plan import LOAD_CORE, Case, Plan
from benchmarks.proxy.processes import ProcessError, memory, running
from benchmarks.proxy.proxies import PROXIES, Proxy, Setting
from benchmarks.proxy.summary import SUBJECT, goals, summarise

type Say = Callable[[str], None]


@contextmanager
def bench(plan: Plan, urlward: bool, say: Say) -> Iterator[Bench]:
    """Lists and requests, an empty network, and the origin in it."""
    with tempfile.TemporaryDirectory(prefix="proxy-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        say("lists and requests")
        material = prepare(folder, plan, urlward)
        script = Path(shutil.copy(load.SCRIPT, folder))
        site.enter(folder, material.hosts)
        os.sched_setaffinity(0, {LOAD_CORE})
        with origin(folder / "origin", material.hosts, plan.download_bytes) as server:
            yield Bench(plan, material, server, script)


def make(bench: Bench, kind: type[Proxy]) -> Proxy:
    """A proxy with its folder, not yet prepared."""
    return kind(Setting(bench.script.parent / kind.name, bench.material, bench.origin.authority))


@contextmanager
def started(bench: Bench, proxy: Proxy, versions: list[int]) -> Iterator[Subject]:
    """The proxy in the path.

    Raises:
        ProcessError: it does not come up.
    """
    ports = sorted(set(proxy.ports))
    with running(proxy.command(), proxy.cores, proxy.folder / "output.log", ports) as process:
        site.redirect(proxy.ports)
        trusted = proxy.folder / "all.pem"
        own = proxy.authority.read_bytes() if proxy.authority else b""
        trusted.write_bytes(bench.origin.authority.read_bytes() + own)
        trusted.chmod(0o644)
        yield Subject(proxy, process.pid, trusted, versions)


def run(plan: Plan, names: Sequence[str], cases: Sequence[Case], say: Say) -> dict[str, Any]:
    """Measure, and give the result."""
    result: dict[str, Any] = {
        "format": 2,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": describe() | {"load_generator": load.version()},
        "plan": asdict(plan),
        "proxies": {name: _describe(PROXIES[name]) for name in names},
        "results": [],
    }
    present = [name for name in names if result["proxies"][name]["status"] == "ok"]
    rows: dict[tuple[str, Case], dict[str, Any]] = {}
    with bench(plan, any(name.startswith(SUBJECT) for name in names), say) as b:
        proxies = {name: make(b, PROXIES[name]) for name in present}
        versions: dict[str, list[int]] = {name: [0] for name in present}
        for name, proxy in proxies.items():
            say(f"{proxy.title}: configuration and lists")
            try:
                proxy.prepare()
            except (OSError, subprocess.SubprocessError) as e:
                result["proxies"][name]["status"] = f"failed: {e}"
                say(f"{proxy.title}: {e}")
        for number in range(plan.rounds):
            b.round = number
            # Each is the first in some round.
            at = number % len(present) if present else 0
            for name in present[at:] + present[:at]:
                described = result["proxies"][name]
                if described["status"] != "ok":
                    continue
                try:
                    with started(b, proxies[name], versions[name]) as subject:
                        for case in cases:
                            if case in proxies[name].without:
                                continue
                            try:
                                cell = measure(b, subject, case)
                            except Exception as e:  # noqa: BLE001  it is not to cost all others theirs
                                cell = {"problems": [f"{type(e).__name__}: {e}"]}
                            row = rows.setdefault(
                                (name, case), {"proxy": name, "case": str(case), "rounds": []}
                            )
                            row["rounds"].append(cell)
                            say(f"round {number + 1}: {proxies[name].title}, {case}: {_told(cell)}")
                        described["memory"].append(memory(subject.pid))
                except ProcessError as e:
                    described["status"] = f"failed: {e}"
                    say(f"{proxies[name].title}: {e}")
    order = list(PROXIES)
    result["results"] = sorted(
        rows.values(), key=lambda r: (order.index(r["proxy"]), list(Case).index(r["case"]))
    )
    for row in result["results"]:
        summarise(row)
    result["goals"] = goals(result)
    return result


def _describe(proxy: type[Proxy]) -> dict[str, Any]:
    missing = proxy.missing()
    return {
        "title": proxy.title,
        "version": "" if missing else proxy.version(),
        "note": proxy.note,
        "status": f"not installed: no {', '.join(missing)} ({proxy.package})" if missing else "ok",
        "without": {str(case): why for case, why in proxy.without.items()},
        "memory": [],
    }


def _told(cell: dict[str, Any]) -> str:
    speed = (
        f"{cell['megabytes_s']:,.0f} MB/s" if "megabytes_s" in cell else f"{cell.get('requests_s', 0):,.0f}/s"
    )
    if "proxy_busy" in cell:
        speed += f"; proxy {cell['proxy_busy']:.0%} busy, load {cell['load_idle']:.0%} idle"
    return "; ".join([speed, *cell["problems"]])
