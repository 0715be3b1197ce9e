"""Worker: one of several filters behind one address, and its messages to and from its supervisor.

Both talk over a pair of sockets that the worker inherits, a JSON object a packet:

==================================  ==============================================================
a worker says                       the supervisor says
==================================  ==============================================================
``ready``                           ``serve`` (a worker's number), ``at`` (addresses), with their
``alive``, a few times a second,    sockets: that one is gone, take its connections meanwhile
with ``fails``, what keeps it from  ``leave`` (a worker's number): it is back
filtering, or nothing               ``rules``: how the kernel's are (`RulesFacts`)
==================================  ==============================================================

The worker ends where the supervisor ends (`PR_SET_PDEATHSIG`, prctl(2)).
"""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from urlward.process import beat, check_parent, end_with_parent, take_requests
from urlward.proxy import notify
from urlward.proxy.listeners import Address, Sockets, inherited, open_sockets
from urlward.records.metrics import RulesFacts

WORKER = "URLWARD_WORKER"
"""In a worker's environment: its number."""

SUPERVISOR = "URLWARD_SUPERVISOR"
"""In a worker's environment: the process id of its supervisor."""

CHANNEL = "URLWARD_CHANNEL"
"""In a worker's environment: the file descriptor by which it and its supervisor talk."""

MAX_MESSAGE = 1 << 16
MAX_SOCKETS = 64

logger = logging.getLogger("urlward")


Opener = Callable[[socket.socket], Awaitable[Any]]
"""Serves a socket; gives what `close` ends that with, and closes the socket."""


def is_worker() -> bool:
    """Whether this process is one of several workers."""
    return WORKER in os.environ


def worker_name() -> str:
    """This worker's number among several, or 0."""
    return os.environ.get(WORKER, "0")


def is_first() -> bool:
    """Whether this process does what one worker has to do for all."""
    return worker_name() == "0"


def end_with_supervisor() -> None:
    """Have the kernel end this worker when its supervisor ends."""
    supervisor = os.environ.pop(SUPERVISOR, "")
    if supervisor:
        end_with_parent(signal.SIGKILL)
        check_parent(int(supervisor))


class Worker:
    """This worker's listening sockets; it may be the only process.

    Args:
        sockets: where it is the only one; a worker inherits its own.
    """

    def __init__(self, sockets: Sockets = ()) -> None:
        fd = os.environ.pop(CHANNEL, "")
        self._channel = socket.socket(fileno=int(fd)) if fd else None
        if self._channel is not None:
            self._channel.setblocking(False)
            self._channel.set_inheritable(False)
        self._own = dict(sockets) or inherited()
        self._openers: dict[Address, Opener] = {}
        self._others: dict[int, list[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_rules: Callable[[RulesFacts], None] = lambda _: None
        """Called with the state of a gateway's rules, where a supervisor watches over them."""

    def sockets(self, address: Address) -> list[socket.socket]:
        """This worker's bound sockets at an address.

        Raises:
            OSError: it has none.
        """
        found = self._own.pop(address, None)
        if found is not None:
            return found
        if is_worker():
            raise OSError(0, "its supervisor has no socket there; start urlward anew")
        return open_sockets(address)

    async def serve(self, address: Address, opener: Opener) -> list[Any]:
        """Serve this worker's sockets at an address, and those of other workers that are gone.

        Args:
            address: where.
            opener: serves one socket.

        Raises:
            OSError: that is not possible.
        """
        servers = [await opener(one) for one in self.sockets(address)]
        self._openers[address] = opener
        return servers

    def ready(self) -> None:
        """Tell the supervisor that this worker serves, and send signs of life from here on."""
        take_requests()
        if self._channel is not None:
            asyncio.get_running_loop().add_reader(self._channel, self._told)
            beat(asyncio.get_running_loop(), self._channel.fileno(), fails=notify.withheld)

    def stop(self) -> None:
        """Stop serving other workers' sockets."""
        self._openers.clear()
        for number in list(self._others):
            self._leave(number)

    def _told(self) -> None:
        assert self._channel is not None
        try:
            data, fds, _, _ = socket.recv_fds(
                self._channel, MAX_MESSAGE, MAX_SOCKETS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            asyncio.get_running_loop().remove_reader(self._channel)
            return
        sockets = [socket.socket(fileno=fd) for fd in fds]
        message = json.loads(data)
        if "leave" in message:
            self._leave(message["leave"])
            return
        if "rules" in message:
            restored, hand, wrong = message["rules"]
            self.on_rules(RulesFacts(restored, hand, tuple(wrong)))
            return
        at = [Address(*address) for address in message["at"]]
        task = asyncio.get_running_loop().create_task(
            self._serve_another(message["serve"], list(zip(at, sockets, strict=True)))
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_another(self, number: int, sockets: Sequence[tuple[Address, socket.socket]]) -> None:
        servers = self._others.setdefault(number, [])
        for address, one in sockets:
            one.setblocking(False)
            opener = self._openers.get(address)
            try:
                if opener is None:
                    one.close()  # this worker has ended, or has begun before that address was configured
                else:
                    servers.append(await opener(one))
            except OSError as e:
                logger.warning("connections of worker %d wait for it: %s", number, e.strerror or e)
                one.close()
        if self._others.get(number) is not servers:
            for server in servers:  # it came back meanwhile
                server.close()

    def _leave(self, number: int) -> None:
        for server in self._others.pop(number, []):
            server.close()
