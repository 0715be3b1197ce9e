"""Worker processes that judge blocks of lines, as many as there are cores.

They are forked from this process once the lists are loaded, so that all of them use one copy: started
afresh, each would load a million entries by itself.
"""

import gc
import multiprocessing
import os
import signal
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Self

from urlward.process import check_parent, end_with_parent
from urlward.replay.errors import ReplayError
from urlward.replay.formats import LogFormat
from urlward.replay.judge import Judge
from urlward.replay.tally import Tally

_AHEAD = 2
"""Blocks for each process: one that it judges, one that waits."""

_judge: Judge
"""Judge of a worker process."""


class Pool:
    """Pool of processes that judge blocks; a context, at whose end no process is left.

    Args:
        judge: what each of them begins with a copy of.
        workers: how many.
    """

    def __init__(self, judge: Judge, workers: int) -> None:
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


def _begin(judge: Judge, parent: int) -> None:
    """Start a worker process."""
    global _judge
    _judge = judge
    end_with_parent(signal.SIGKILL)
    check_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
