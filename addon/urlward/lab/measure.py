"""Measurements: added latency, throughput, transfer, and reloads, each compared with plain routing.

Plain routing is the neighbour's way through the same gateway to the same origins, which no rule is about.
Both are measured in turns in the same run, so that what else the machine does meets both.
"""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from urlward.engine.errors import UrlwardError
from urlward.lab.isolation import WRK, environment, find
from urlward.lab.outcome import STAGES
from urlward.lab.scenario import Measure, Measured
from urlward.lab.services import AgentLink
from urlward.lab.topology import CLIENT, NEIGHBOUR, inside
from urlward.lab.world import World

_SLICE = 0.25
_ROUNDS = 2
_RATE = 200.0
"""Requests a second while a reload's effect is measured."""

_LONGER = (1, 4, 16)
"""Times as long is measured, one after the other, until there was an answer."""

_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")


type Probe = Callable[[Measured], None]


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of single requests in milliseconds, one at a time.

    Attributes:
        at: what was asked for.
        fresh: whether each request had a connection of its own.
        plain, through: by plain routing, and from a filtered client.
        failed: requests that were not answered with a page.
    """

    at: Measured
    fresh: bool
    plain: tuple[float, ...]
    through: tuple[float, ...]
    failed: int


@dataclass(frozen=True, slots=True)
class Rate:
    """Throughput of the runs by plain routing and of those from a filtered client, in turns.

    Attributes:
        at: what was asked for.
        unit: ``requests/s`` or ``MB/s``.
        plain, through: of each run.
        failed: requests.
    """

    at: Measured
    unit: str
    plain: tuple[float, ...]
    through: tuple[float, ...]
    failed: int


@dataclass(frozen=True, slots=True)
class Reload:
    """Reload measurement: requests at a steady rate while the list is replaced.

    Attributes:
        at: what was asked for.
        samples: seconds since the begin, milliseconds, and whether it was answered.
        reloads: seconds since the begin of each.
    """

    at: Measured
    samples: tuple[tuple[float, float, bool], ...]
    reloads: tuple[float, ...]


@dataclass(slots=True)
class Figures:
    """All measurements of a run."""

    latencies: list[Latency] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    reloads: list[Reload] = field(default_factory=list)
    tool: str = ""
    """Tool that has measured throughput."""


def measure(world: World, wanted: Measure, seconds: float | None, figures: Figures, probe: Probe) -> None:
    """Take the measurements of a step.

    Args:
        world: the lab.
        wanted: what.
        seconds: for each figure, in place of the step's own.
        figures: is added to.
        probe: sees, before and after each figure, whether it is of the stage that it should be of.

    Raises:
        UrlwardError: nothing could be measured.
    """
    each = seconds or wanted.seconds
    for at in wanted.urls:
        for name in wanted.names:
            for kind in ("A", "AAAA"):
                world.agent(CLIENT.name).ask("dns", name=name, kind=kind, server=world.resolver_of(4))
        probe(at)
        match wanted.what:
            case "latency":
                figures.latencies += [_latency(world, at, fresh, each) for fresh in (False, True)]
            case "throughput":
                figures.tool = "wrk" if find(WRK.name) else "the lab's own client, itself slow"
                figures.rates.append(_throughput(world, at, each, wanted.connections))
            case "bulk":
                figures.rates.append(_bulk(at, each))
            case "reload":
                figures.reloads.append(_reload(world, at, each))
        probe(at)


def _latency(world: World, at: Measured, fresh: bool, seconds: float) -> Latency:
    agents = [world.agent(machine.name) for machine in (NEIGHBOUR, CLIENT)]
    found: list[list[float]] = [[], []]
    failed = 0
    for agent in agents:
        _sample(agent, at.url, _SLICE, fresh)  # warms up caches, also the filter's
    for turn in range(max(2, round(seconds / _SLICE))):
        samples = _sample(agents[turn % 2], at.url, _SLICE, fresh)
        found[turn % 2] += [ms for _, ms, status in samples if status == 200]
        failed += sum(status != 200 for _, _, status in samples)
    if not all(found):
        raise UrlwardError(f"lab: nothing was answered, so stage {at.stage} cannot be measured")
    return Latency(at, fresh, tuple(found[0]), tuple(found[1]), failed)


def _sample(agent: AgentLink, url: str, seconds: float, fresh: bool, rate: float = 0) -> list[Any]:
    answer = agent.ask(
        "sample", url=url, family=4, seconds=seconds, fresh=fresh, rate=rate, patience=seconds + 60
    )
    if "error" in answer:
        raise UrlwardError(f"lab: cannot measure: {answer['error']}")
    samples: list[Any] = answer["samples"]
    return samples


def _throughput(world: World, at: Measured, seconds: float, connections: int) -> Rate:
    # wrk runs for whole seconds.
    rounds = _ROUNDS if seconds >= _ROUNDS else 1

    def run(machine: str) -> tuple[float, int]:
        if find(WRK.name):
            return _wrk(machine, at.url, seconds / rounds, connections)
        return _own(world.agent(machine), at.url, seconds / rounds, connections)

    return _in_turns(at, "requests/s", run, rounds)


def _in_turns(at: Measured, unit: str, run: Callable[[str], tuple[float, int]], rounds: int) -> Rate:
    done = [[run(machine.name) for machine in (NEIGHBOUR, CLIENT)] for _ in range(rounds)]
    plain, through = (tuple(pair[place][0] for pair in done) for place in (0, 1))
    return Rate(at, unit, plain, through, sum(bad for pair in done for _, bad in pair))


def _wrk(machine: str, url: str, seconds: float, connections: int) -> tuple[float, int]:
    """Requests a second, and how many failed. A machine with other work may answer none in a second."""
    rate, failed = 0.0, 0
    for longer in _LONGER:
        rate, failed = _wrk_once(machine, url, max(1, round(seconds)) * longer, connections)
        if rate or failed:
            break
    return rate, failed


def _wrk_once(machine: str, url: str, seconds: int, connections: int) -> tuple[float, int]:
    command = [
        find(WRK.name) or WRK.name, "-t1", f"-c{connections}", f"-d{seconds}s",
        "--timeout=10s", "-H", "User-Agent: urlward-load", url,
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - the scenario's URL is an argument
        inside(machine, command), capture_output=True, text=True, check=False, env=environment()
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if not rate:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["says nothing"]
        raise UrlwardError(f"lab: wrk: {words[0]}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    errors = _ERRORS.search(done.stdout)
    failed = sum(map(int, errors.groups())) if errors else 0
    return float(rate[1]), failed + (int(refused[1]) if refused else 0)


def _own(agent: AgentLink, url: str, seconds: float, connections: int) -> tuple[float, int]:
    def one(_: int) -> Sequence[Any]:
        return _sample(agent, url, seconds, fresh=False)

    with ThreadPoolExecutor(min(connections, 16)) as pool:
        samples = [sample for found in pool.map(one, range(min(connections, 16))) for sample in found]
    failed = sum(status != 200 for _, _, status in samples)
    return (len(samples) - failed) / seconds, failed


def _bulk(at: Measured, seconds: float) -> Rate:
    def run(machine: str) -> tuple[float, int]:
        command = [
            find("curl") or "curl", "-s", "-4", "--max-time", "120", "-A", "urlward-load", "-o", "/dev/null",
            "-w", "%{speed_download} %{http_code}", at.url,
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603 - the scenario's URL is an argument
            inside(machine, command), capture_output=True, text=True, check=False, env=environment()
        )
        speed, _, status = done.stdout.partition(" ")
        return float(speed or 0) / 1e6, int(bool(done.returncode) or status != "200")

    return _in_turns(at, "MB/s", run, max(_ROUNDS, round(seconds)))


def _reload(world: World, at: Measured, seconds: float) -> Reload:
    agent = world.agent(CLIENT.name)
    _sample(agent, at.url, _SLICE, fresh=False)
    begin = time.time()
    reloads = []

    def replace(number: int) -> None:
        world.filter.write_list(f"later{number}.invalid id=LATER-{number}\n")
        reloads.append(time.time() - begin)

    timers = [threading.Timer(seconds * share, replace, [n]) for n, share in enumerate((0.25, 0.6))]
    for timer in timers:
        timer.start()
    try:
        samples = _sample(agent, at.url, seconds, fresh=False, rate=_RATE)
    finally:
        for timer in timers:
            timer.cancel()
        world.filter.write_list("")
    found = tuple((moment - begin, ms, status == 200) for moment, ms, status in samples)
    return Reload(at, found, tuple(reloads))


def label(at: Measured) -> str:
    """Label of a measured URL for a report: its stage and scheme."""
    return f"{STAGES[at.stage]}, {urlsplit(at.url).scheme.upper()}"
