"""Runs rows along ways, and says what went past the filter or was stopped without a reason."""

import re
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from evasion.client import Answer, exchange
from evasion.lab import Lab, Way
from evasion.origins import Line, Log
from evasion.rows import MODES, Row, StreamRow
from evasion.streams import exchange_streams

IN_TURN = ("flows", "relay")
"""Engines whose reading of a request is that of ``layer``, in mitmproxy's flows or beside what it relays."""
LATE = 0.01
"""Seconds by which an origin's log may lag behind its answer."""
LOGGED_WITHIN = 30.0
"""The same where a line must come."""
MAY_LAG = 1.0
"""The same where one may come for a response that need not have come."""


@dataclass(frozen=True)
class Result:
    """What became of a row on a way; `fault` is empty where all is as it should be."""

    way: Way
    row: Row
    answer: Answer
    lines: tuple[Line, ...]
    fault: str

    def __str__(self) -> str:
        lines = "".join(f"\n    origin: {line}" for line in self.lines)
        return (
            f"{self.way}: {self.fault}\n    sent: {self.row.turns!r}"
            f"\n    got: {self.answer.data[:200]!r} {self.answer.error}{lines}"
        )


@dataclass(frozen=True)
class StreamResult:
    """The same for a row of HTTP/2."""

    way: Way
    row: StreamRow
    answer: Answer
    got: tuple[str, ...]
    lines: tuple[Line, ...]
    fault: str

    def __str__(self) -> str:
        lines = "".join(f"\n    origin: {line}" for line in self.lines)
        return (
            f"{self.way}: {self.fault}\n    sent: {self.row.before} {self.row.fields}"
            f"\n    got: {self.got} {self.answer.error}{lines}"
        )


def takes(way: Way, row: Row) -> bool:
    """Whether a row is meant for a way."""
    if row.listed_address and way.mode != "transparent":
        return False
    if way.wire not in row.wires or way.origin not in row.origins:
        return False
    if way.engine == "bare" or (way.engine == "relay" and "layer" in row.engines):
        return True
    return way.engine in row.engines and way.mode in row.expected


def expectation(way: Way, row: Row) -> tuple[str, ...]:
    """What a row is to come to on a way.

    A filter that relays what it cannot read may let an origin refuse what is refused otherwise.
    """
    expected = row.expected.get(way.mode, ("any",))
    if way.engine in row.engines or set(expected) == {"served"}:
        return expected
    return ("any",)


def answered(expected: Sequence[str]) -> int:
    """How many responses must come for an expectation to be met."""
    said = ("blocked", "served", "relayed")
    return max((n for n, word in enumerate(expected, 1) if word in said), default=0)


def run(lab: Lab, ways: Iterable[Way], rows: Iterable[Row], in_turn: int = 1, first: int = 0) -> list[Result]:
    """Rows along the ways that they are meant for, which are gone side by side; on one way a row follows the
    other. That way, what an origin logs can be laid to a row.

    Args:
        in_turn: of the ways of an engine that does what another does as well (`IN_TURN`), how many have a row
            between them: each goes along one of so many, the next row along the next ones. Where it is more
            than one, a row goes by each mode of ``layer`` over one of its wires to one of its origins, and
            by the next mode along the next of these.
        first: along which of them the first row goes, of any number of them.
    """
    ways, by_way = list(ways), defaultdict[Way, list[Row]](list)
    for number, row in enumerate(rows):
        for engine in sorted({way.engine for way in ways}):
            meant = [way for way in ways if way.engine == engine and takes(way, row)]
            step = min(in_turn, len(meant)) if engine in IN_TURN else 1
            if engine == "layer" and in_turn > 1:
                modes = [[way for way in meant if way.mode == mode] for mode in MODES]
                meant = [of[(number + first + n) % len(of)] for n, of in enumerate(modes) if of]
            for way in meant[(number + first) % step :: step] if meant else ():
                by_way[way].append(row)
    with ThreadPoolExecutor(max(1, len(ways))) as pool:
        parts = [pool.submit(_along, lab, way, by_way[way]) for way in ways]
        return [result for part in parts for result in part.result()]


def _is_late(line: Line, row: Row, before: Iterable[Row]) -> bool:
    """Whether a line is of an earlier row: origins tell of some only when they give the connection up.

    Args:
        line: that nothing listed was served by.
        row: after which it was found.
        before: the rows before that.
    """
    request = _as_sent(line)
    if request in b"".join(row.turns):
        return False
    refused = line.status == "400" and line.request.startswith("GET ") and "\\" not in line.request
    return refused or any(request in b"".join(earlier.turns) for earlier in before)


def _as_sent(line: Line) -> bytes:
    """The request line that a line of a log is of: origins escape what is not printable."""
    return re.sub(
        rb"\\x([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), line.request.encode()
    )


def _along(lab: Lab, way: Way, rows: list[Row]) -> list[Result]:
    log, address = lab.log_of(way), lab.addresses[way]
    listed = lab.listed[way.engine]
    log.take(address)
    results = []
    before = deque[Row](maxlen=3)
    absolute = way.mode == "absolute"
    forms = [(r, sent) for r in rows for sent in (r.in_absolute_form() if absolute else (r,))]
    for row, sent in forms:
        expected = expectation(way, sent)
        must = way.origin in row.bare if way.engine == "bare" else answered(expected)
        answer = exchange(lab, way, sent, must=must)
        # What was served though it need not be, too: its line would be taken for one of the next row.
        served = expected.count("served")
        if (more := answer.outcomes().count("served")) > served:
            _until_logged(log, address, more, MAY_LAG)
        # And of the connection whose session is resumed.
        _until_logged(log, address, served and served + row.tls.resume)
        lines = (*log.take(address), *(log.take(listed) if row.listed_address else ()))
        if row.tls.resume and lines and not lines[0].listed:
            lines = lines[1:]  # of the connection whose session is resumed
        lines = tuple(line for line in lines if line.listed or not _is_late(line, row, before))
        before.append(row)
        fault = "" if way.engine == "bare" else judge(expected, answer, lines)
        results.append(Result(way, sent, answer, lines, fault))
    time.sleep(0.3)
    late = tuple(line for line in log.take(address) if line.listed)
    if late and way.engine != "bare" and results:
        results.append(Result(way, results[-1].row, Answer(), late, "the log tells late of a listed page"))
    return results


def _until_logged(log: Log, address: str, lines: int, within: float = LOGGED_WITHIN) -> None:
    """Wait until an origin has logged so many requests, or will not."""
    end = time.monotonic() + within
    while lines and len(log.take(address, keep=True)) < lines and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(LATE)


def judge(
    expected: tuple[str, ...], answer: Answer, lines: tuple[Line, ...], got: list[str] | None = None
) -> str:
    """What is wrong with an answer, or empty."""
    if answer.leaked:
        return "BYPASS: the listed page came back"
    if any(line.listed for line in lines):
        return "BYPASS: the origin served the listed page"
    got = answer.outcomes() if got is None else got
    if not _matches(expected, got):
        silent = ", then silence" if answer.silent else ""
        return f"expected {' '.join(expected)}, got {' '.join(got) or 'no answer'}{silent}"
    if set(expected) <= {"blocked", "served"} and len(lines) > expected.count("served"):
        return "what was blocked reached the origin"
    return ""


def _matches(expected: tuple[str, ...], got: list[str]) -> bool:
    for number, word in enumerate(expected):
        seen = got[number] if number < len(got) else "refused"
        if word in ("held", "refused"):
            allowed = ("blocked", "refused") if word == "held" else ("refused",)
            # What follows is lost with the connection, or refused as well.
            return (
                all(w in allowed for w in (seen, *got[number + 1 :]))
                if _last(expected, number)
                else (seen in allowed and _matches(expected[number + 1 :], got[number + 1 :]))
            )
        if word == "relayed":
            return number < len(got)
        if word == "any":
            if _last(expected, number):
                return True
            continue
        if seen != word or number >= len(got):
            return False
    return len(got) <= len(expected)


def _last(expected: tuple[str, ...], number: int) -> bool:
    return number == len(expected) - 1


def run_streams(lab: Lab, ways: Iterable[Way], rows: Iterable[StreamRow]) -> list[StreamResult]:
    """The same for rows of HTTP/2."""
    rows, ways = list(rows), list(ways)
    with ThreadPoolExecutor(max(1, len(ways))) as pool:
        parts = [pool.submit(_streams_along, lab, way, rows) for way in ways]
        return [result for part in parts for result in part.result()]


def _streams_along(lab: Lab, way: Way, rows: list[StreamRow]) -> list[StreamResult]:
    log, address = lab.log_of(way), lab.addresses[way]
    log.take(address)
    results = []
    for row in rows:
        answer, got = exchange_streams(lab, way, row)
        expected = ("served",) * bool(row.before) + (row.expected,)
        _until_logged(log, address, 0 if way.engine == "bare" else expected.count("served"))
        lines = tuple(log.take(address))
        fault = "" if way.engine == "bare" else judge(expected, answer, lines, got)
        results.append(StreamResult(way, row, answer, tuple(got), lines, fault))
    return results
