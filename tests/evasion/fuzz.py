"""Differential fuzzing: what a bare origin serves as a listed page must never pass the filter.

    python tests/evasion/fuzz.py --minutes 10 [--seed N] [--way layer-reverse-plain-nginx]...

Each way has a thread, and a source of chance of its own, so a seed gives the same requests however the
threads run. A request goes to the way's bare origin first; those that get a listed page there go to the
filter, and a share of the others too. The second invariant keeps the filter honest: a plainly formed
request for what is not listed is served.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from evasion import grammar
from evasion.client import PATIENCE, Answer, open_connection
from evasion.lab import ENGINES, Lab, Way, lab
from evasion.rows import Tls
from evasion.runs import arguments, servers_folder

BARE_SILENCE = 0.25
SILENCE = 0.6
OTHERS = 0.1
"""Share of the requests that get nothing listed from the bare origin, and still go to the filter."""


@dataclass(frozen=True)
class Violation:
    """A request that got past, or an innocent one that did not."""

    way: Way
    what: str
    segments: tuple[bytes, ...]
    got: bytes

    def __str__(self) -> str:
        return f"{self.way}: {self.what}\n    sent: {list(self.segments)!r}\n    got: {self.got[:200]!r}"


@dataclass
class Tally:
    """What has been done."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)


def ask(lab: Lab, way: Way, segments: Iterable[bytes], silence: float, sni: str = "paged.example") -> Answer:
    """Send segments and read until the end or silence."""
    answer = Answer()
    try:
        connection = open_connection(lab, way, Tls(sni=sni))
    except OSError as e:
        return Answer(ended=True, error=str(e))
    try:
        with suppress(OSError):
            for number, segment in enumerate(segments):
                if number:
                    time.sleep(0.001)
                connection.send(segment)
        while True:
            # Where something has come, the rest comes soon.
            data = connection.receive(0.05 if answer.data else silence)
            if not data:
                break
            answer.data += data
    except OSError as e:
        answer.error = str(e)
    finally:
        connection.close()
    return answer


class Fuzzer:
    """One way's requests."""

    def __init__(self, lab: Lab, way: Way, seed: int, tally: Tally) -> None:
        self._lab, self._way, self._tally = lab, way, tally
        self._bare = Way("bare", "bare", way.wire, way.origin)
        self._rng = random.Random(f"{seed} {way}")

    def run(self, requests: int, until: float) -> None:
        while requests > 0 and time.monotonic() < until:
            requests -= 1
            if self._rng.random() < 0.1:
                self._innocent()
            else:
                self._listed()

    def _innocent(self) -> None:
        host, request = grammar.innocent_request(self._rng)
        if ask(self._lab, self._bare, [request], PATIENCE, host).outcomes() != ["served"]:
            self._tally.counts["innocent, but not served by the origin"] += 1
            return
        answer = ask(self._lab, self._way, [request], PATIENCE, host)
        self._tally.counts["innocent"] += 1
        if answer.outcomes() != ["served"]:
            self._tally.violations.append(
                Violation(self._way, "an innocent request is stopped", (request,), answer.data)
            )

    def _listed(self) -> None:
        data = grammar.listed_request(self._rng)
        segments = grammar.segments(self._rng, data)
        also = self._rng.random() < OTHERS
        gets = ask(self._lab, self._bare, segments, BARE_SILENCE).leaked
        self._tally.counts["listed at the origin" if gets else "nothing at the origin"] += 1
        if not gets and not also:
            return
        got = self._passes(segments)
        if got is not None:
            segments = self._smallest(segments)
            self._tally.violations.append(
                Violation(self._way, "BYPASS: the listed page got past", tuple(segments), got)
            )

    def _passes(self, segments: Iterable[bytes]) -> bytes | None:
        """What came back if a listed page came back or was served; None where it did not."""
        log, address = self._lab.log_of(self._way), self._lab.addresses[self._way]
        answer = ask(self._lab, self._way, segments, SILENCE)
        self._tally.counts["filtered"] += 1
        lines = log.take(address)
        return answer.data if answer.leaked or any(line.listed for line in lines) else None

    def _smallest(self, segments: list[bytes]) -> list[bytes]:
        """Leave out what is not needed for the violation."""
        if self._passes([b"".join(segments)]) is not None:
            segments = [b"".join(segments)]
        size = max(map(len, segments)) // 2
        while size:
            for number, segment in enumerate(segments):
                at = 0
                while at < len(segments[number]):
                    segment = segments[number]
                    shorter = [
                        *segments[:number],
                        segment[:at] + segment[at + size :],
                        *segments[number + 1 :],
                    ]
                    if self._passes(shorter) is not None:
                        segments = shorter
                    else:
                        at += size
            size //= 2
        return segments


def fuzz(lab: Lab, ways: Iterable[Way], seed: int, requests: int, seconds: float) -> Tally:
    """Go along all ways side by side.

    Args:
        requests: how many each way gets at most.
        seconds: how long this may take.
    """
    tally, until, ways = Tally(), time.monotonic() + seconds, list(ways)
    with ThreadPoolExecutor(max(1, len(ways))) as pool:
        done = [pool.submit(Fuzzer(lab, way, seed, tally).run, requests, until) for way in ways]
        for part in done:
            part.result()
    return tally


def fuzzed_ways(lab: Lab) -> list[Way]:
    """Those on which a request's bytes reach a filter that reads HTTP/1 as they are."""
    engines = ("layer", "flows", "relay")
    return [way for way in lab.ways if way.engine in engines and way.mode != "absolute"]


def main() -> int:
    given = arguments("Fuzz the filter against bare origins.", "way", "layer-transparent-tls-apache")
    engines = [
        e for e in ENGINES if e != "all" and (not given.way or any(w.startswith(e) for w in given.way))
    ]
    with servers_folder("fuzz") as folder, lab(folder, engines) as laboratory:
        ways = [w for w in fuzzed_ways(laboratory) if not given.way or str(w) in given.way]
        print(f"seed {given.seed}, ways: {' '.join(map(str, ways))}", flush=True)
        tally = fuzz(laboratory, ways, given.seed, 1 << 60, given.minutes * 60)
    for violation in tally.violations[:20]:
        print(violation)
    print(", ".join(f"{what}: {count}" for what, count in sorted(tally.counts.items())))
    print(f"{len(tally.violations)} violations")
    return 1 if tally.violations or not ways else 0


if __name__ == "__main__":
    sys.exit(main())
