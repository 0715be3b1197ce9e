"""Processes that judge blocks of lines, as many as there are cores.

They are forked from this process once the lists are loaded, so that all of them use one copy: started
afresh, each would load a million entries by itself. Blocks go to them through memory that all share, what
they have counted comes back once, at the end.
"""

import contextlib
import gc
import json
import mmap
import multiprocessing
import os
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Self

from urlward.gateway.lab.errors import LabError
from urlward.gateway.lab.replay_check import Judge
from urlward.gateway.lab.replay_formats import Spec, line_format
from urlward.gateway.lab.replay_read import BLOCK
from urlward.gateway.lab.replay_tally import Tally

_MESSAGE = 4096
_SLOTS = 2
"""Blocks of memory for each process: one that it judges, one that waits."""

_AGAIN = 0.1
"""Seconds between two calls of `Pool.idle`."""


@dataclass(frozen=True, slots=True)
class _Worker:
    process: ForkProcess
    results: Connection


class Pool:
    """Judges blocks in several processes; a context, at whose end no process is left.

    Args:
        judge: what each of them begins as a copy of.
        workers: how many.
        idle: called every now and then while there is nothing to do but wait.
    """

    def __init__(self, judge: Judge, workers: int, idle: Callable[[], None] = lambda: None) -> None:
        self._idle = idle
        self._memory = mmap.mmap(-1, _SLOTS * workers * BLOCK)
        self._free = list(range(_SLOTS * workers))
        self._tally = Tally()
        self._workers: list[_Worker] = []
        self._tasks, tasks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        context = multiprocessing.get_context("fork")
        # Ctrl-C goes to all processes of a terminal; these are ended in order. Whatever is there now
        # stays as it is, so the collector need not look at it, which would copy it.
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            for _ in range(workers):
                results, theirs = context.Pipe(duplex=False)
                inherited = [self._tasks, results, *(worker.results for worker in self._workers)]
                process = context.Process(
                    target=_work, args=(tasks, theirs, self._memory, judge, inherited), daemon=True
                )
                process.start()
                theirs.close()
                self._workers.append(_Worker(process, results))
        except OSError as e:
            self.__exit__()
            raise LabError(f"no process to judge lines in: {e.strerror or e}") from e
        finally:
            tasks.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            gc.unfreeze()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.close()
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.process.close()
            worker.results.close()

    def judge(self, spec: Spec, data: bytes, log: int, first: int) -> None:
        """Have a block judged; waits until a process has room for it.

        Args:
            spec: its kind.
            data: `BLOCK` bytes at most.
            log: its number.
            first: number of its first line.

        Raises:
            LabError: a process has died.
        """
        while not self._free:
            self._receive()
        slot = self._free.pop()
        self._memory[slot * BLOCK : slot * BLOCK + len(data)] = data
        try:
            self._tasks.send(json.dumps([slot, len(data), log, first, spec]).encode())
        except OSError:
            self._receive()  # which says what is wrong

    def finish(self) -> Tally:
        """Wait for all blocks; what all have counted.

        Raises:
            LabError: a process has died.
        """
        self._tasks.close()
        waiting = len(self._workers)
        while waiting:
            waiting -= self._receive()
        return self._tally

    def _receive(self) -> int:
        """Take what processes say; how many of them have finished."""
        finished = 0
        ready = wait([w.results for w in self._workers if not w.results.closed], timeout=_AGAIN)
        for worker in self._workers:
            if worker.results not in ready:
                continue
            try:
                answer = worker.results.recv()
            except (EOFError, OSError) as e:
                worker.process.join()
                raise LabError(f"a process that judges lines {_ending(worker.process.exitcode)}") from e
            if isinstance(answer, int):
                self._free.append(answer)
            elif isinstance(answer, Tally):
                self._tally.merge(answer)
                worker.results.close()
                finished += 1
            else:
                raise LabError(answer)
        if not ready:
            self._idle()
        return finished


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by signal {-code} (out of memory?)"
    return f"has ended with {code}"


def _work(
    tasks: socket.socket,
    results: Connection,
    memory: mmap.mmap,
    judge: Judge,
    inherited: list[socket.socket | Connection],
) -> None:
    """One process: judge until there are no more tasks, or nobody who gives them."""
    gc.disable()  # nothing here makes cycles
    for one in inherited:
        one.close()
    with contextlib.suppress(BrokenPipeError), memoryview(memory) as blocks:
        try:
            while message := tasks.recv(_MESSAGE):
                slot, size, log, first, spec = json.loads(message)
                text = str(blocks[slot * BLOCK : slot * BLOCK + size], "latin-1")
                judge.block(line_format(Spec(*spec)), text, log, first)
                results.send(slot)
            results.send(judge.tally)
        except Exception as e:  # noqa: BLE001 - its text could be a line of the log
            place = traceback.extract_tb(e.__traceback__)[-1]
            results.send(
                f"a bug: {type(e).__name__} at {Path(place.filename).name}:{place.lineno}; please report it"
            )
    os._exit(0)  # freeing millions of objects one by one takes a second
