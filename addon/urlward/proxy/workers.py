"""``urlward run --workers N``: several filters behind one address, and one process that looks after them.

Each worker is an ordinary ``urlward run`` that shares its listening address (SO_REUSEPORT, so that the
kernel spreads connections over them). One that dies is replaced while the others serve on. Lists are
made once for all of them (`urlward.lists.broker`), and their flat part is memory that all map.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

from mitmproxy.proxy import mode_servers

from urlward.engine.errors import UrlwardError
from urlward.lists.broker import Broker
from urlward.lists.shared import DOOR
from urlward.proxy import notify
from urlward.proxy.companion import END_WITHIN, Companion, environment

WORKER = "URLWARD_WORKER"
"""In a worker's environment: its number."""

READY = "URLWARD_READY"
"""In a worker's environment: the file descriptor that it closes when it serves."""

PRIVATE = "URLWARD_PRIVATE"
"""In the supervisor's environment, set to anything: each worker keeps lists of its own, to compare with."""

STOP_WITHIN = 10.0
"""Seconds that workers have to end."""

_BACKOFF = (0.0, 0.5, 1.0, 2.0, 5.0)
_STEADY = 30.0
_LOOK = 0.1


class WorkersError(UrlwardError):
    """The workers could not start."""


@dataclass(slots=True)
class _Child:
    """A worker, or a companion.

    Attributes:
        name: for the log.
        start: starts it anew.
        process: that it is now.
        started: when, on a clock that does not go back.
        failures: ends in a row.
        due: when another is to take its place; None while it lives.
    """

    name: str
    start: "Callable[[], subprocess.Popen[bytes]]"
    process: "subprocess.Popen[bytes]"
    started: float
    failures: int = 0
    due: float | None = None


class Supervisor:
    """Starts workers, replaces those that die, and passes signals on.

    Args:
        command: of one worker.
        count: how many.
        addresses: hosts and ports that they will share.
        companions: processes beside them.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        addresses: Sequence[tuple[str, int]],
        companions: Sequence[Companion] = (),
    ) -> None:
        self._companions = tuple(companions)
        self._beside: list[_Child] = []
        self._command = list(command)
        self._count = count
        self._addresses = list(addresses)
        self._workers: list[_Child] = []
        self._broker: Broker | None = None
        self._stopping = 0
        """The signal that has asked for the end."""

    def run(self) -> bool:
        """Supervise until SIGTERM or SIGINT.

        Returns:
            False where the first worker ended before it served; it has said why.

        Raises:
            WorkersError: the address is taken or not usable.
        """
        self._check_addresses()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._pass_on)
        if not os.environ.get(PRIVATE):
            self._broker = Broker()
            self._broker.start()
        try:
            # One first: what is wrong with a list or an option is said once, not once a worker.
            if not self._start_first():
                return False
            self._workers.extend(self._worker(number) for number in range(1, self._count))
            self._beside.extend(map(self._companion, self._companions))
            notify.ready()
            while not self._stopping:
                time.sleep(_LOOK)
                notify.alive()
                for child in (*self._workers, *self._beside):
                    self._look_after(child)
            return True
        finally:
            self._end()

    def _check_addresses(self) -> None:
        """Shared addresses do not conflict, so a second urlward would take half of the first's clients."""
        for host, port in self._addresses:
            if not port:
                raise WorkersError("workers share one address: --listen needs a port")
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                socket.create_server((host, port), family=family).close()
            except OSError as e:
                reason = os.strerror(e.errno) if e.errno else str(e)
                raise WorkersError(f"cannot listen on {host or '*'}:{port}: {reason.lower()}") from e

    def _start_first(self) -> bool:
        ready, write = os.pipe()
        try:
            worker = self._worker(0, write)
        finally:
            os.close(write)
        self._workers.append(worker)
        # Nothing is ever written: the end of file says that the worker serves, or has ended.
        with os.fdopen(ready, "rb") as pipe:
            pipe.read()
        return bool(self._stopping) or not self._ended_soon(worker)

    @staticmethod
    def _ended_soon(worker: _Child) -> bool:
        try:
            worker.process.wait(0.2)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _worker(self, number: int, ready: int | None = None) -> _Child:
        process = self._start(number, ready)
        return _Child(f"worker {number}", partial(self._start, number), process, time.monotonic())

    def _companion(self, companion: Companion) -> _Child:
        start = partial(self._start_companion, companion)
        return _Child(companion.name, start, start(), time.monotonic())

    @staticmethod
    def _start_companion(companion: Companion) -> "subprocess.Popen[bytes]":
        variables = environment()
        for name in notify.FOR_THE_MAIN_PROCESS:
            variables.pop(name, None)
        with _hangup_blocked():
            process = subprocess.Popen(  # noqa: S603 - as above
                companion.command, env=variables, stdin=subprocess.PIPE, process_group=0
            )
        assert process.stdin is not None
        with suppress(OSError), process.stdin as pipe:
            pipe.write(companion.request)
        return process

    def _start(self, number: int, ready: int | None = None) -> "subprocess.Popen[bytes]":
        variables = {**os.environ, WORKER: str(number)}
        for name in notify.FOR_THE_MAIN_PROCESS:
            variables.pop(name, None)
        passed = []
        if ready is not None:
            variables[READY] = str(ready)
            passed.append(ready)
        if self._broker is not None:
            passed.append(self._broker.door.fileno())
            variables[DOOR] = str(passed[-1])
        with _hangup_blocked():
            return subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                self._command,
                env=variables,
                stdin=subprocess.DEVNULL,
                pass_fds=passed,
                # Ctrl-C goes to the whole foreground group: the supervisor ends its workers itself.
                process_group=0,
            )

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        code = child.process.poll()
        if code is None or self._stopping:
            return
        if child.due is None:
            child.failures = 0 if now - child.started > _STEADY else child.failures + 1
            child.due = now + _BACKOFF[min(child.failures, len(_BACKOFF) - 1)]
            print(
                f"{child.name} (process {child.process.pid}) ended with {code}; a new one takes its place",
                file=sys.stderr,
                flush=True,
            )
        elif now >= child.due:
            child.process, child.started, child.due = child.start(), now, None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            # Asked again: whoever asks does not want to wait for what is under way.
            self._pass_on(number, frame)
        self._stopping = number

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        beside = self._beside if number == signal.SIGHUP else []
        for child in (*self._workers, *beside):
            if child.process.poll() is None:
                child.process.send_signal(number)

    def _end(self) -> None:
        notify.stopping()
        _end_all(self._workers, self._stopping or signal.SIGTERM)
        # What workers have said last is still to be recorded.
        _end_all(self._beside, signal.SIGTERM, END_WITHIN)
        if self._broker is not None:
            self._broker.close()


def _end_all(children: Sequence[_Child], number: int, within: float = STOP_WITHIN) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.send_signal(number)
    end = time.monotonic() + within
    for child in children:
        try:
            child.process.wait(max(end - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


@contextmanager
def _hangup_blocked() -> Iterator[None]:
    """For a child to start with, until it can take it: a reload asked for too early is late and not fatal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def is_worker() -> bool:
    """Whether this process is one of several."""
    return WORKER in os.environ


def worker_name() -> str:
    """This process's number among several, or 0."""
    return os.environ.get(WORKER, "0")


def is_first() -> bool:
    """Whether this process does what one has to do for all."""
    return worker_name() == "0"


def share_addresses() -> None:
    """Let mitmproxy's TCP servers share their addresses with other workers'."""
    if getattr(mode_servers.AsyncioServerInstance.listen, "shared", False):
        return
    first = is_first()
    original = mode_servers.AsyncioServerInstance.listen

    async def listen(self: Any, host: str, port: int) -> list[Any]:
        if self.mode.transport_protocol == "udp":
            return await original(self, host, port)
        servers: list[Any] = [await asyncio.start_server(self.handle_stream, host, port, reuse_port=True)]
        if self.mode.transport_protocol == "both" and first:
            # Datagrams of one flow must all reach one process, so only one takes any.
            servers.append(await self.start_udp_based_server(host, port))
        return servers

    listen.shared = True  # type: ignore[attr-defined]
    mode_servers.AsyncioServerInstance.listen = listen  # type: ignore[method-assign]


def tell_ready() -> None:
    """Tell the supervisor that this worker serves, and take the signals that it held back."""
    if is_worker():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    fd = os.environ.pop(READY, "")
    if fd:
        os.close(int(fd))
