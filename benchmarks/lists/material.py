"""Issues of one list, each a thousand changes from the one before."""

import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.workload import Workload

from urlward.engine.artifact import parse
from urlward.engine.delta import make_delta
from urlward.engine.digest import Key
from urlward.engine.signing import SigningKey
from urlward.lists.build import Issue, compile_sources

KEY = Key(b"benchmark-key-with-32-bytes-----")
CHANGES = 1_000
"""Entries that go or come from one issue to the next, half of them each."""


def marker(issue: int) -> str:
    """A host that this issue lists and no other does."""
    return f"issue-marker-{issue}.test"


def write_sources(folder: Path, entries: int, issues: int) -> list[Path]:
    """The issues as text."""
    lines = list(Workload(1).entries(entries))
    more = Workload(2).entries(CHANGES * issues)
    choose = random.Random(3)
    paths = []
    for issue in range(issues):
        if issue:
            for at in choose.sample(range(len(lines)), CHANGES // 2 - 1):
                lines[at] = next(more)
        path = folder / f"issue{issue}.txt"
        path.write_text("\n".join([*lines, marker(issue), ""]))
        paths.append(path)
    return paths


def _compiled(path: Path, serial: int, signing: bytes) -> bytes:
    key = SigningKey(signing)
    return compile_sources([path], KEY, name="bench", issue=Issue(serial=serial, key=key))[0]


def artifacts(paths: list[Path], signing: bytes) -> list[bytes]:
    """The issues, compiled and signed, with serials from 1."""
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(_compiled, paths, range(1, len(paths) + 1), [signing] * len(paths)))


def _delta(old: bytes, new: bytes) -> bytes:
    return make_delta(parse(old), parse(new), KEY)


def deltas(issues: list[bytes]) -> list[bytes]:
    """From each issue to the next."""
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(_delta, issues[:-1], issues[1:]))
