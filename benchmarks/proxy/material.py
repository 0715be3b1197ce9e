"""Hosts, lists and requests: invented, on reserved names, the same in every run.

A filter keeps what it knows of hosts, and a proxy keeps connections to them, so requests come as
they do from people: a few dozen to one host, then to another. No URL comes twice in a cell that is
short enough, and there are far more of them than any cache of verdicts should hold.
"""

import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.proxy.plan import PROCESSES, Plan
from benchmarks.workload import Workload

from urlward.engine.digest import format_key
from urlward.engine.entry import Entry, Kind
from urlward.engine.grammar import parse_line

type Request = tuple[str, str]
"""Host and target."""

HOSTS = 300
"""Of plain requests, and as many that are listed."""
INSPECTED = tuple(f"s{n}.inspected.test" for n in range(PROCESSES))
"""Hosts with listed pages: their TLS is intercepted."""
RELAYED = tuple(f"s{n}.relayed.test" for n in range(PROCESSES))
"""Hosts of which no list has anything."""
BLOCKED_ZONE = "listed.test"
"""What the names of listed hosts end in, so that the origin knows them when it sees one."""
PAGES = 100
"""Listed, of each inspected host."""
PAGE_FOLDER = "/listed/"
MARKERS = ("zero.marker.test", "one.marker.test")
"""Each is listed in one version of the lists, which tells when a reload is in force."""
DOWNLOAD = "/download.bin"
BIN = Path(sys.executable).parent
"""Where commands of this environment are."""

_RUN = 40
"""Requests of one load generator to a host before it asks the next one."""
_EXPRESSIBLE = (Kind.DOMAIN, Kind.HOST, Kind.PAGE, Kind.PREFIX)
"""Kinds that every peer can say."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that is the same for all proxies, in a folder.

    Attributes:
        key: of urlward's artifacts.
        entries: of urlward's list.
        artifacts: urlward's list, in two versions.
        peers: what the peers' lists say, in two versions.
        plain, inspected, relayed, blocked, blocked_inspected: requests, a file for each load
            generator; those of `inspected`, `blocked_inspected` and `relayed` are for one host each.
        hosts: all names that the origin goes by.
    """

    key: Path
    entries: int
    artifacts: tuple[Path, Path]
    peers: tuple[tuple[Entry, ...], tuple[Entry, ...]]
    plain: tuple[Path, ...]
    inspected: tuple[Path, ...]
    relayed: tuple[Path, ...]
    blocked: tuple[Path, ...]
    blocked_inspected: tuple[Path, ...]
    hosts: tuple[str, ...]


def prepare(folder: Path, plan: Plan, urlward: bool = True) -> Material:
    """Write requests and lists; urlward's list is compiled only if it is asked for."""
    plain = _different(Workload(99), plan.urls)
    listed = [f"s{n}.{BLOCKED_ZONE}" for n in range(HOSTS)]
    pages = [f"{PAGE_FOLDER}{n}.html" for n in range(PAGES)]
    each = plan.urls // PROCESSES
    workload = Workload(98)
    paths = list(_paths(workload, each))
    of_pages = [f"{pages[n % PAGES]}?{workload.query()}&n={n}" for n in range(each)]
    on_listed = [(listed[n % HOSTS], path) for n, path in enumerate(_paths(workload, plan.urls))]
    ours = [*(f"{host} id=B-1" for host in listed)]
    ours += [f"http://{host}{page} id=B-2" for host in INSPECTED for page in pages]
    key = folder / "lists.key"
    artifacts = folder / "zero.ward", folder / "one.ward"
    if urlward:
        lines = list(Workload(1).entries(plan.entries - len(ours) - 1)) + ours
        _compile(key, artifacts, lines)
    entries = _expressible(plan.peer_entries - len(ours) - 1, ours)
    return Material(
        key=key,
        entries=plan.entries,
        artifacts=artifacts,
        peers=(entries + parse_line(MARKERS[0]), entries + parse_line(MARKERS[1])),
        plain=_deal(folder, "plain", plain),
        inspected=_one_each(folder, "inspected", INSPECTED, paths),
        relayed=_one_each(folder, "relayed", RELAYED, paths),
        blocked=_deal(folder, "blocked", on_listed),
        blocked_inspected=_one_each(folder, "pages", INSPECTED, of_pages),
        hosts=(*sorted({host for host, _ in plain}), *listed, *INSPECTED, *RELAYED, *MARKERS),
    )


def sample(path: Path, count: int) -> list[Request]:
    """The first requests of a file."""
    with path.open() as file:
        rows = (line.rstrip("\n").split("\t") for line in islice(file, count))
        return [(host, target) for host, target in rows]


def _different(workload: Workload, count: int) -> list[Request]:
    found: dict[Request, None] = {}
    # The names are drawn anew by each call, so there is one call, and enough of it.
    for request in workload.requests(count + count // 5, hosts=HOSTS):
        found[request] = None
        if len(found) == count:
            return list(found)
    raise AssertionError("the workload repeats itself too often")


def _paths(workload: Workload, count: int) -> Iterator[str]:
    return (f"{workload.path()}?n={n}" for n in range(count))


def _deal(folder: Path, name: str, requests: Iterable[Request]) -> tuple[Path, ...]:
    """A file for each load generator, in runs to one host."""
    by_host: dict[str, list[Request]] = {}
    for request in requests:
        by_host.setdefault(request[0], []).append(request)
    runs = [rows[at : at + _RUN] for rows in by_host.values() for at in range(0, len(rows), _RUN)]
    random.Random(1).shuffle(runs)
    hands = [[request for run in runs[n::PROCESSES] for request in run] for n in range(PROCESSES)]
    return tuple(_write(folder / f"{name}.{n}", hand) for n, hand in enumerate(hands))


def _one_each(folder: Path, name: str, hosts: Iterable[str], targets: list[str]) -> tuple[Path, ...]:
    return tuple(
        _write(folder / f"{name}.{n}", [(host, target) for target in targets]) for n, host in enumerate(hosts)
    )


def _write(path: Path, requests: Iterable[Request]) -> Path:
    path.write_text("".join(f"{host}\t{target}\n" for host, target in requests))
    return path


def _compile(key: Path, artifacts: tuple[Path, Path], lines: list[str]) -> None:
    """Compile both versions at once.

    Raises:
        CalledProcessError: it is not possible.
    """
    key.write_bytes(format_key(b"benchmark-key-with-32-bytes-----"))
    text = "\n".join([*lines, ""])
    running = []
    for artifact, marker in zip(artifacts, MARKERS, strict=True):
        source = artifact.with_suffix(".txt")
        source.write_text(f"{text}{marker} id=M-1\n")
        command = [
            str(BIN / "urlward"),
            "compile",
            str(source),
            "-o",
            str(artifact),
            "--key",
            str(key),
            "--name",
            "feed",
        ]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for process in running:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)
    for artifact in artifacts:
        artifact.with_suffix(".txt").unlink()


def _expressible(count: int, ours: list[str]) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    drawn = (entry for line in Workload(1).entries(2 * count) for entry in parse_line(line))
    entries += islice((entry for entry in drawn if entry.kind in _EXPRESSIBLE), count)
    return (*entries, *(entry for line in ours for entry in parse_line(line)))
