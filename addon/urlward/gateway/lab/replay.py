"""``urlward lab replay``: what would the lists have blocked in a real access log?

Logs are read here, one after the other, and judged in other processes; memory does not grow with a log.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from urlward.encoding import without_bom
from urlward.engine.matcher import Matcher
from urlward.gateway.lab.errors import LabError
from urlward.gateway.lab.replay_check import Clock, Judge
from urlward.gateway.lab.replay_formats import Spec, detect, line_format
from urlward.gateway.lab.replay_har import har_blocks
from urlward.gateway.lab.replay_pool import Pool
from urlward.gateway.lab.replay_read import Block, Source, blocks
from urlward.gateway.lab.replay_tally import Tally


@dataclass(slots=True)
class Log:
    """A log to replay.

    Attributes:
        path: of the file; ``-`` is standard input.
        spec: what it is.
        size: bytes of the file; 0 where that is not known.
        source: it, opened already, where it cannot be opened again.
        lines: that were read.
        trouble: why it could not be read to its end, or empty.
    """

    path: Path
    spec: Spec
    size: int
    source: Source | None = None
    lines: int = 0
    trouble: str = ""

    @property
    def has_time(self) -> bool:
        """Whether its lines say when."""
        return line_format(self.spec).has_time


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: number of the log, bytes of files read, lines."""

    log: int
    consumed: int
    lines: int


@dataclass(slots=True)
class Replay:
    """What came of it.

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
    """See what all logs are, before anything is judged.

    Args:
        paths: of files; ``-`` is standard input.
        kind, column, site: as `detect` takes them.
        clock: ``log`` where each must have the time in it.

    Raises:
        LabError: one is not there, or not known.
    """
    logs = []
    for path in paths:
        source = Source(path)
        try:
            spec = detect(source.peek(), source.name, kind=kind, column=column, site=site)
            log = Log(path, spec, source.size, None if source.may_reopen else source)
            if clock == "log" and not log.has_time:
                raise LabError(f"{source.name}: no times in such a log; leave out --time log")
        except BaseException:
            source.close()
            raise
        if source.may_reopen:
            source.close()
        logs.append(log)
    return logs


def replay(
    logs: Sequence[Log],
    matcher: Matcher,
    *,
    clock: Clock = "log",
    workers: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Replay:
    """Judge all lines of all logs.

    Args:
        logs: from `open_logs`.
        matcher: the lists.
        clock: whether entries that expire are judged at the time in the log, where it has one, or now.
        workers: processes that judge.
        progress: told how far it is, often.

    Raises:
        LabError: a log cannot be read, or a process has died.
    """
    now, start = time.time(), time.monotonic()
    so_far = Progress(1, 0, 0)
    with Pool(Judge(matcher, now, clock), workers, lambda: progress(so_far)) as pool:
        lost = Tally()
        done_bytes = done_lines = 0
        for number, log in enumerate(logs, 1):
            with log.source or Source(log.path) as source:
                for block in _blocks(source, log.spec):
                    log.lines = block.first - 1 + block.lines
                    if block.lost:
                        lost.lines += 1
                        lost.add_bad(block.lost, 1, [(number, block.first)])
                        continue
                    pool.judge(log.spec, block.data, number, block.first)
                    so_far = Progress(number, done_bytes + source.consumed, done_lines + log.lines)
                    progress(so_far)
                log.trouble = source.trouble
                done_bytes, done_lines = done_bytes + source.consumed, done_lines + log.lines
        tally = pool.finish()
    tally.merge(lost)
    if not any(log.has_time for log in logs):
        clock = "now"
    return Replay(tally, logs, clock, now, time.monotonic() - start)


def _blocks(source: Source, spec: Spec) -> Iterator[Block]:
    if spec.kind == "har":
        yield from har_blocks(source)
        return
    found = blocks(source, quotes=spec.kind == "csv")
    first = next(found, None)
    if first is None:
        return
    data = without_bom(first.data)
    if spec.heading:
        # A line without anything in it, so that the numbers of the others stay.
        end = data.find(b"\n")
        data = data[end:] if end >= 0 else b"\n"
    yield first._replace(data=data)
    yield from found
