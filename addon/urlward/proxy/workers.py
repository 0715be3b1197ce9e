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
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from mitmproxy.proxy import mode_servers

from urlward.engine.errors import UrlwardError
from urlward.lists.broker import Broker
from urlward.lists.shared import DOOR
from urlward.proxy import notify

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
class _Worker:
    number: int
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
    """

    def __init__(self, command: Sequence[str], count: int, addresses: Sequence[tuple[str, int]]) -> None:
        self._command = list(command)
        self._count = count
        self._addresses = list(addresses)
        self._workers: list[_Worker] = []
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
            self._workers.extend(self._start(number) for number in range(1, self._count))
            notify.ready()
            while not self._stopping:
                time.sleep(_LOOK)
                notify.alive()
                for worker in self._workers:
                    self._look_after(worker)
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
            worker = self._start(0, write)
        finally:
            os.close(write)
        self._workers.append(worker)
        # Nothing is ever written: the end of file says that the worker serves, or has ended.
        with os.fdopen(ready, "rb") as pipe:
            pipe.read()
        return bool(self._stopping) or not self._ended_soon(worker)

    @staticmethod
    def _ended_soon(worker: _Worker) -> bool:
        try:
            worker.process.wait(0.2)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _start(self, number: int, ready: int | None = None) -> _Worker:
        environment = {**os.environ, WORKER: str(number)}
        for name in notify.FOR_THE_MAIN_PROCESS:
            environment.pop(name, None)
        passed = []
        if ready is not None:
            environment[READY] = str(ready)
            passed.append(ready)
        if self._broker is not None:
            passed.append(self._broker.door.fileno())
            environment[DOOR] = str(passed[-1])
        # Blocked until the worker can take it, so that a reload asked for too early is late and not fatal.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=passed,
                # Ctrl-C goes to the whole foreground group: the supervisor ends its workers itself.
                process_group=0,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        return _Worker(number, process, time.monotonic())

    def _look_after(self, worker: _Worker) -> None:
        now = time.monotonic()
        code = worker.process.poll()
        if code is None or self._stopping:
            return
        if worker.due is None:
            worker.failures = 0 if now - worker.started > _STEADY else worker.failures + 1
            worker.due = now + _BACKOFF[min(worker.failures, len(_BACKOFF) - 1)]
            print(
                f"worker {worker.number} (process {worker.process.pid}) ended with {code}; "
                "a new one takes its place",
                file=sys.stderr,
                flush=True,
            )
        elif now >= worker.due:
            fresh = self._start(worker.number)
            worker.process, worker.started, worker.due = fresh.process, fresh.started, None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            # Asked again: whoever asks does not want to wait for what is under way.
            self._pass_on(number, frame)
        self._stopping = number

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    def _end(self) -> None:
        notify.stopping()
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(self._stopping or signal.SIGTERM)
        end = time.monotonic() + STOP_WITHIN
        for worker in self._workers:
            try:
                worker.process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        if self._broker is not None:
            self._broker.close()


def is_worker() -> bool:
    """Whether this process is one of several."""
    return WORKER in os.environ


def is_first() -> bool:
    """Whether this process does what one has to do for all."""
    return os.environ.get(WORKER, "0") == "0"


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
