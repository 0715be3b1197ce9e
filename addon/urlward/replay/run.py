"""Run of a replay: logs are read here one after the other, and judged in other processes, as many as there
are cores.

They are forked from this process once the lists are loaded, so that all of them use one copy: started afresh,
each would load a million entries by itself. Memory does not grow with a log.
"""

import gc
import multiprocessing
import os
import re
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from urlward.engine.matcher import Matcher
from urlward.engine.url import byte_string
from urlward.process import check_parent, end_with_parent
from urlward.progress import Progress, silent
from urlward.replay.errors import ReplayError
from urlward.replay.formats import LogFormat, detect
from urlward.replay.judge import Clock, LogJudge
from urlward.replay.reading import LineBlock, LogSource, blocks, har_blocks
from urlward.replay.tally import Tally

_AHEAD = 2
"""Blocks for each process: one that it judges, one that waits."""

_judge: LogJudge
"""Judge of a worker process."""


class JudgePool:
    """Pool of processes that judge blocks; a context, at whose end no process is left.

    Args:
        judge: what each of them begins with a copy of.
        workers: how many.
    """

    def __init__(self, judge: LogJudge, workers: int) -> None:
        self._most = _AHEAD * workers
        self._tally = Tally()
        self._executor = ProcessPoolExecutor(
            workers, multiprocessing.get_context("fork"), _begin, (judge, os.getpid())
        )
        before = set(multiprocessing.active_children())
        # Ctrl-C goes to all processes of a terminal; these are ended in order. Whatever is there now
        # stays as it is, so the collector need not look at it, which would copy it.
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            # The first call forks all.
            self._pending: set[Future[Tally]] = {self._executor.submit(Tally)}
        except OSError as e:
            for process in set(multiprocessing.active_children()) - before:
                process.kill()
                process.join()
                process.close()
            self._executor.shutdown()
            raise ReplayError(f"no process to judge lines in: {e.strerror or e}") from e
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            gc.unfreeze()
        self._processes = set(multiprocessing.active_children()) - before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def judge(self, log_format: LogFormat, data: bytes, log: int, first: int) -> None:
        """Have a block judged; waits until a process has room for it.

        Args:
            log_format: its format.
            data: its lines.
            log: its number.
            first: number of its first line.

        Raises:
            ReplayError: a process has died.
        """
        while len(self._pending) >= self._most:
            self._receive()
        try:
            self._pending.add(self._executor.submit(_judged, log_format, data, log, first))
        except BrokenProcessPool as e:
            raise self._died() from e

    def finish(self) -> Tally:
        """Wait for all blocks; what they come to.

        Raises:
            ReplayError: a process has died.
        """
        while self._pending:
            self._receive()
        return self._tally

    def _receive(self) -> None:
        done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in done:
            try:
                self._tally.merge(future.result())
            except BrokenProcessPool as e:
                raise self._died() from e

    def _died(self) -> ReplayError:
        self._executor.shutdown()
        # The executor ends the others with SIGTERM.
        codes = {process.exitcode or 0 for process in self._processes} - {0}
        code = min(codes - {-signal.SIGTERM} or codes, default=0)
        ending = f"was ended by signal {-code} (out of memory?)" if code < 0 else f"has ended with {code}"
        return ReplayError(f"a process that judges lines {ending}")


def _begin(judge: LogJudge, parent: int) -> None:
    """Start a worker process."""
    global _judge
    _judge = judge
    end_with_parent(signal.SIGKILL)
    check_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which the executor ends all where one has died
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    gc.disable()  # nothing here makes cycles


def _judged(log_format: LogFormat, data: bytes, log: int, first: int) -> Tally:
    try:
        return _judge.judge(log_format, str(data, "latin-1"), log, first)
    except Exception as e:  # noqa: BLE001 - its text could be a line of the log
        place = traceback.extract_tb(e.__traceback__)[-1]
        raise ReplayError(
            f"a bug: {type(e).__name__} at {Path(place.filename).name}:{place.lineno}; please report it"
        ) from None


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
    source: LogSource | None = None
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
        source = LogSource(path)
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
    with JudgePool(LogJudge(matcher, now, clock), workers) as pool:
        for number, log in enumerate(logs, 1):
            with log.source or LogSource(log.path) as source:
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


def _blocks(source: LogSource, log_format: LogFormat) -> Iterator[LineBlock]:
    if log_format.kind == "har":
        yield from har_blocks(source)
        return
    for block in blocks(source, quotes=bool(log_format.delimiter)):
        if block.first == 1 and log_format.heading:
            # The line stays, so that the numbers of the others do.
            yield block._replace(data=re.sub(rb"\A[^\n]*", b"", block.data))
        else:
            yield block
