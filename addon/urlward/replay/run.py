"""Run of a replay: logs are read here one after the other, and judged in other processes.

Memory does not grow with a log.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from urlward.engine.matcher import Matcher
from urlward.engine.url import byte_string
from urlward.progress import Progress, silent
from urlward.replay.detection import detect
from urlward.replay.errors import ReplayError
from urlward.replay.formats import LogFormat
from urlward.replay.har import har_blocks
from urlward.replay.judge import Clock, Judge
from urlward.replay.pool import Pool
from urlward.replay.reading import Block, Source, blocks
from urlward.replay.tally import Tally


@dataclass(slots=True)
class Log:
    """Log to replay.

    Attributes:
        path: of the file; ``-`` is standard input.
        format: of its lines.
        size: bytes of the file; 0 where that is not known.
        source: its bytes, where it cannot be opened again.
        lines: that were read.
        trouble: why it could not be read to its end, or empty.
    """

    path: Path
    format: LogFormat
    size: int
    source: Source | None = None
    lines: int = 0
    trouble: str = ""


@dataclass(slots=True)
class Replay:
    """Outcome of a replay.

    Attributes:
        tally: the counts.
        logs: as given, with what is known of them now.
        clock: what entries that expire were judged at.
        now: when it began, in seconds since 1970-01-01 UTC.
        seconds: it took.
    """

    tally: Tally
    logs: Sequence[Log]
    clock: Clock
    now: float
    seconds: float


def open_logs(
    paths: Sequence[Path], *, kind: str = "", column: str = "", site: str = "", clock: Clock | None = None
) -> list[Log]:
    """Detect the formats of all logs, before anything is judged.

    Args:
        paths: of files; ``-`` is standard input.
        kind, column, site: as `detect` takes them.
        clock: ``log`` where each must have the time in it.

    Raises:
        ReplayError: one is not there, or not known.
    """
    logs = []
    for path in paths:
        source = Source(path)
        try:
            found = detect(source.head, source.name, kind=kind, column=column, site=byte_string(site))
            if clock == "log" and not found.second:
                raise ReplayError(f"{source.name}: no times in such a log; leave out --time log")
        except BaseException:
            source.close()
            raise
        if source.reopens:
            source.close()
        logs.append(Log(path, found, source.size, None if source.reopens else source))
    return logs


def replay(
    logs: Sequence[Log],
    matcher: Matcher,
    *,
    clock: Clock = "log",
    workers: int = 1,
    progress: Progress = silent,
) -> Replay:
    """Judge all lines of all logs.

    Args:
        logs: from `open_logs`.
        matcher: the lists.
        clock: whether entries that expire are judged at the time in the log, where it has one, or now.
        workers: processes that judge.
        progress: called often.

    Raises:
        ReplayError: a log cannot be read, or a process has died.
    """
    now, start = time.time(), time.monotonic()
    total = sum(log.size for log in logs) if all(log.size for log in logs) else 0
    done = lines = 0
    lost = Tally()
    with Pool(Judge(matcher, now, clock), workers) as pool:
        for number, log in enumerate(logs, 1):
            with log.source or Source(log.path) as source:
                for block in _blocks(source, log.format):
                    log.lines += block.lines
                    lines += block.lines
                    if block.lost:
                        lost.lines += 1
                        lost.bad.add(block.lost, 1, [(number, block.first)])
                        continue
                    pool.judge(log.format, block.data, number, block.first)
                    rate = lines / max(time.monotonic() - start, 0.001)
                    progress(
                        f"reading logs (log {number} of {len(logs)}, {lines:,} lines, {rate:,.0f} lines/s)",
                        (done + source.consumed) / total if total else 0.0,
                    )
                done += source.consumed
                log.trouble = source.trouble
        tally = pool.finish()
    tally.merge(lost)
    if not any(log.format.second for log in logs):
        clock = "now"
    return Replay(tally, logs, clock, now, time.monotonic() - start)


def _blocks(source: Source, log_format: LogFormat) -> Iterator[Block]:
    if log_format.kind == "har":
        yield from har_blocks(source)
        return
    for block in blocks(source, quotes=bool(log_format.delimiter)):
        if block.first == 1 and log_format.heading:
            # The line stays, so that the numbers of the others do.
            yield block._replace(data=re.sub(rb"\A[^\n]*", b"", block.data))
        else:
            yield block
