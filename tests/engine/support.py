"""What the engine's tests share: keys, one-line compiling, hypothesis settings."""

import hashlib
import os
from collections.abc import Iterable
from itertools import batched
from typing import NamedTuple

from hypothesis import HealthCheck, settings

from urlward.engine.artifact import dump
from urlward.engine.compiler import Compiled, Compiler, Rows
from urlward.engine.digest import DIGEST_SIZE, Key
from urlward.engine.entry import ALGORITHMS
from urlward.engine.grammar import parse_line
from urlward.engine.loaded import LoadedList, load
from urlward.engine.matcher import Matcher

SECRET = bytes(range(32))
OTHER_SECRET = bytes(range(1, 33))
CREATED = 1_700_000_000

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
"""HYPOTHESIS_PROFILE=long tries other examples at each run, and a hundred times as many."""
SHARE = 4
"""Otherwise one in so many is tried: everyday the same ones, in CI others each time."""


def examples(count: int) -> settings:
    """Settings for a property that `count` examples are enough for."""
    return settings(
        max_examples=count * 100 if LONG else count // SHARE,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def key() -> Key:
    """A key with empty caches, always of the same secret."""
    return Key(SECRET)


def digest(algorithm: str, number: int) -> bytes:
    """An invented file's digest; PDQ digests of two numbers differ in about half of their bits."""
    material = f"{algorithm} {number}".encode()
    return hashlib.blake2b(material, digest_size=ALGORITHMS[algorithm]).digest()


def file_line(algorithm: str, number: int, **attributes: object) -> str:
    """A line that lists an invented file."""
    more = (f"{name}={value}" for name, value in attributes.items())
    return " ".join([f"{algorithm}:{digest(algorithm, number).hex()}", *more])


def compile_lines(lines: Iterable[str], under: Key) -> Compiled:
    compiler = Compiler(under)
    for line in lines:
        for entry in parse_line(line):
            compiler.add(entry)
    return compiler.finish()


class Row(NamedTuple):
    """One of a pool's rows, in the order by which those of one pattern are sorted."""

    digest: bytes
    shape: int
    length: int
    below: bytes
    more: list[bytes]
    id: str


def rows_of(pool: Rows) -> list[Row]:
    """A pool row by row."""
    digests = map(bytes, batched(pool.digests, DIGEST_SIZE))
    belows = map(bytes, batched(pool.below, 4))
    more = (pool.more.get(row, []) for row in range(len(pool)))
    return list(map(Row, digests, pool.shapes, pool.lengths, belows, more, pool.ids))


def build(lines: Iterable[str], under: Key, name: str = "list") -> bytes:
    return dump(compile_lines(lines, under), under, name=name, serial=1, created=CREATED)


def load_lines(lines: Iterable[str], under: Key, name: str = "list") -> LoadedList:
    return load(build(lines, under, name), under)


def matcher(*lines: str, **named: Iterable[str]) -> Matcher:
    """A matcher of one list of these lines, or of several by name."""
    under = key()
    lists = [load_lines(entries, under, name) for name, entries in named.items()]
    if lines:
        lists.insert(0, load_lines(lines, under))
    return Matcher(lists)
