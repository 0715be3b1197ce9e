"""Figures of one list of digests: compiled in a process of its own, then loaded and asked in this one."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.engine.measure import Ticker, drive, resident

from urlward.engine.digest import KEY_SIZE, Key
from urlward.engine.loaded import LoadedList, loading
from urlward.engine.matcher import Matcher
from urlward.engine.verdict import PASS
from urlward.lists.build import compile_sources

_KEY = Key(bytes(range(KEY_SIZE)))
_ROUNDS = 10
_LOADS = 5
_SIZE = 32


def build(folder: Path, entries: int) -> dict[str, float]:
    """Write and compile a list; the artifact is left in the folder."""
    source = folder / "list.txt"
    with source.open("w") as file:
        for n, digest in enumerate(_digests(entries, "sha256")):
            file.write(f"sha256:{digest.hex()} id=S-{n} category=csam\n")
        for n, digest in enumerate(_digests(entries, "pdq")):
            file.write(f"pdq:{digest.hex()} id=P-{n} category=csam\n")
    begun = time.perf_counter()
    data, report = compile_sources([source], _KEY, name="digests", now=1)
    took = time.perf_counter() - begun
    assert report.entries == 2 * entries, report.bad_lines
    source.unlink()
    (folder / "list.ward").write_bytes(data)
    return {"build_s": took}


def measure(folder: Path, entries: int, lookups: int) -> dict[str, Any]:
    """Everything that is reported.

    Args:
        folder: for files; nothing is left there.
        entries: exact digests, and as many of PDQ.
        lookups: of each of ten rounds.
    """
    command = [sys.executable, "-m", "benchmarks.digests.measure", str(folder), str(entries)]
    root = Path(__file__).parents[2]
    built = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    path = folder / "list.ward"
    size = path.stat().st_size
    before = resident(trim=False)
    data = path.read_bytes()
    held = resident(trim=False) - before
    first = drive(loading(data, _KEY))
    listed = _loaded(data)
    memory = resident(trim=False) - before - held
    loads, stalls, releases = [first], [], []
    for _ in range(_LOADS):
        with Ticker() as ticker:
            other = _loaded(data)
        stalls.append(ticker.longest)
        releases.append(drive(other.release()))
        loads.append(drive(loading(data, _KEY)))
    matcher = Matcher([listed])
    unlisted, hits = _lookups(matcher, entries, lookups)
    begun = time.perf_counter()
    [pictures] = matcher.perceptual()
    opened = time.perf_counter() - begun
    rows = random.Random(2).sample(pictures.rows.tolist(), min(200, entries))
    begun = time.process_time()
    found = [matcher.file_verdict("digests", row) for row in rows]
    verdict = (time.process_time() - begun) / len(rows)
    assert all(one.blocked for one in found)
    path.unlink()
    return {
        "entries": entries,
        **json.loads(built.stdout),
        "bytes": size,
        "load_s": median(load["wall"] for load in loads),
        "load_step_ms": 1e3 * median(load["longest_step"] for load in loads),
        "release_step_ms": 1e3 * median(release["longest_step"] for release in releases),
        "stall_ms": 1e3 * median(stalls),
        "memory": memory,
        "unlisted_us": unlisted,
        "listed_us": hits,
        "pictures_s": opened,
        "picture_verdict_ms": 1e3 * verdict,
    }


def _loaded(data: bytes) -> LoadedList:
    steps = loading(data, _KEY)
    while True:
        try:
            next(steps)
        except StopIteration as e:
            found: LoadedList = e.value
            return found


def _lookups(matcher: Matcher, entries: int, count: int) -> tuple[float, float]:
    """Microseconds of CPU time that a digest takes: of files that are not listed, and of those that are."""
    draw = random.Random(3)
    known = list(_digests(entries, "sha256"))
    costs: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        unlisted = [{"sha256": draw.randbytes(_SIZE)} for _ in range(count)]
        listed = [{"sha256": digest} for digest in draw.sample(known, min(count // 10, entries))]
        for digests, cost, blocked in zip((unlisted, listed), costs, (False, True), strict=True):
            cost.append(_timed(matcher, digests, blocked=blocked))
    return median(costs[0]), median(costs[1])


def _timed(matcher: Matcher, digests: Sequence[dict[str, bytes]], *, blocked: bool) -> float:
    check = matcher.check_file
    begun = time.process_time()
    found = [check(one) for one in digests]
    took = time.process_time() - begun
    assert all(one.blocked for one in found) if blocked else all(one is PASS for one in found)
    return took / len(digests) * 1e6


def _digests(count: int, algorithm: str) -> list[bytes]:
    draw = random.Random(algorithm)
    return [draw.randbytes(_SIZE) for _ in range(count)]


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[1]), int(sys.argv[2]))))
