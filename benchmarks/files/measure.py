"""Figures of pictures: how far a changed one is from what it was, and from strangers; and times."""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
from benchmarks.engine.measure import resident
from benchmarks.files.material import CHANGES, picture
from numpy.typing import NDArray

from urlward.files.decode import frames, prepare
from urlward.files.media import format_of
from urlward.files.pdq import CONFIDENT, QUALITY, Index, digests_of
from urlward.files.sandbox import started
from urlward.files.seen import DIGEST, DONE, TURNS
from urlward.lists import memfd

MOST = 96
"""Distances up to which shares are reported."""

_ASKED = 200
"""Lookups whose times are taken."""

_PICTURES = 60
"""Likewise, of pictures that are decoded."""


def _digests(data: bytes) -> tuple[bytes, float]:
    media = format_of(data)
    assert media is not None
    [frame] = frames(data, media, [])
    return digests_of(frame.pixels)


def _numbers(digests: Sequence[bytes]) -> "NDArray[np.uint64]":
    return np.frombuffer(b"".join(digests), np.uint64).reshape(len(digests), -1, DIGEST // 8)


def _distances(asked: "NDArray[np.uint64]", listed: "NDArray[np.uint64]") -> "NDArray[np.int64]":
    """Bits in which the nearest turn of each picture differs from a digest of its own."""
    return np.bitwise_count(asked ^ listed).sum(axis=2).min(axis=1)


def _shares(distances: "NDArray[np.int64]") -> list[float]:
    """The share that is not farther than each distance."""
    return [round(float((distances <= d).mean()), 5) for d in range(MOST + 1)]


def recall(pictures: int) -> dict[str, Any]:
    """Shares of changed pictures that are found, and of strangers that are taken for one, by distance."""
    prepare(video=False)
    listed: list[bytes] = []
    changed: dict[str, list[bytes]] = {name: [] for name in CHANGES}
    strangers: list[bytes] = []
    low = 0
    for seed in range(pictures):
        image = picture(seed)
        digests, quality = digests_of(np.asarray(image))
        low += quality < QUALITY
        listed.append(digests[:DIGEST])
        for name, change in CHANGES.items():
            changed[name].append(_digests(change(image))[0])
        strangers.append(digests_of(np.asarray(picture(pictures + seed)))[0])
    of_listed = _numbers(listed)
    nearest = []
    for one in _numbers(strangers):
        between = np.bitwise_count(one[None, :, :] ^ of_listed).sum(axis=2)
        nearest.append(int(between.min()))
    return {
        "pictures": pictures,
        "low_quality": low,
        "recall": {name: _shares(_distances(_numbers(each), of_listed)) for name, each in changed.items()},
        "strangers": _shares(np.asarray(nearest)),
    }


def _lookups(index: Index, listed: bytes) -> tuple[list[float], list[float]]:
    """Milliseconds of each lookup, and of CPU time; half of them of what is listed."""
    rng = np.random.default_rng(2)
    passed, used = [], []
    for turn in range(_ASKED):
        asked = rng.bytes(DIGEST * TURNS)
        if turn % 2:
            at = int(rng.integers(len(listed) // DIGEST)) * DIGEST
            asked = listed[at : at + DIGEST] + asked[DIGEST:]
        begun, before = time.perf_counter(), time.process_time()
        matches = index.search(asked)
        used.append(1_000 * (time.process_time() - before))
        passed.append(1_000 * (time.perf_counter() - begun))
        assert bool(matches) or not turn % 2
    return sorted(passed), sorted(used)


def lookups(entries: int, distance: int) -> dict[str, float]:
    """Times of one index."""
    listed = np.random.default_rng(1).bytes(entries * DIGEST)
    before = resident()
    begun = time.process_time()
    index = Index(listed, bytes([distance]) * entries, range(entries))
    took = time.process_time() - begun
    bytes_ = (resident() - before) / entries
    passed, used = _lookups(index, listed)
    return {
        "load_s": took,
        "bytes": bytes_,
        "median_ms": median(passed),
        "p99_ms": passed[int(0.99 * len(passed))],
        "cpu_ms": median(used),
    }


@contextmanager
def _sandbox() -> Iterator[socket.socket]:
    process, channel = started(deadline=60, video=True)
    try:
        with channel:
            assert json.loads(channel.recv(1 << 16)) == {"ready": True}
            yield channel
    finally:
        process.kill()
        process.wait()


def sandboxed() -> dict[str, float]:
    """Milliseconds of pictures from their files to their digests, each in a process of its own."""
    found = {}
    with _sandbox() as channel:
        for name, scale in (("small", 1), ("large", 4)):
            image = picture(1)
            data = CHANGES["JPEG, quality 70"](image.resize((image.width * scale, image.height * scale)))
            fd = memfd.new()
            memfd.write(fd, data)
            times = []
            for _ in range(_PICTURES):
                begun = time.perf_counter()
                socket.send_fds(channel, [json.dumps({"format": "jpeg"}).encode()], [fd])
                assert channel.recv(1 << 17).startswith(DONE.encode())
                times.append(1_000 * (time.perf_counter() - begun))
            os.close(fd)
            found[f"{name}_ms"] = median(times)
    return found


def times(entries: int) -> dict[str, Any]:
    """What a comparison costs.

    Args:
        entries: of the index whose lookups are timed.
    """
    return {
        "entries": entries,
        "close": lookups(entries, CONFIDENT),
        "far": lookups(entries, 2 * CONFIDENT),
        "sandbox": sandboxed(),
    }
