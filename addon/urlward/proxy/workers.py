"""Worker: a filter, perhaps of several behind one address, and its messages to and from its supervisor.

Both talk over a pair of sockets that the worker inherits, a JSON object a packet:

==================================  ==============================================================
a worker says                       the supervisor says
==================================  ==============================================================
``plan``, where it makes one, with  ``own`` (addresses), with its sockets there, and ``more`` where
it in a file (`Plan`), or           others follow
``refused``, why it cannot          ``serve`` (a worker's number), ``at`` (addresses), with their
``ready``                           sockets: that one is gone, take its connections meanwhile
``alive``, a few times a second,    ``leave`` (a worker's number): it is back
with ``fails``, what keeps it from  ``rules``: how the kernel's are (`RulesFacts`)
filtering, or nothing
==================================  ==============================================================

The worker ends where the supervisor ends (`PR_SET_PDEATHSIG`, prctl(2)).
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from urlward.engine.errors import UrlwardError
from urlward.lists import memfd
from urlward.plan import AGAIN, CHANNEL, PLANS, SUPERVISOR, WORKER, Address, Plan
from urlward.process import MAX_MESSAGE, beat, check_parent, end_with_parent, received, take_requests
from urlward.proxy import notify
from urlward.proxy.listeners import Sockets, open_sockets
from urlward.records.metrics import RulesFacts

MAX_SOCKETS = 64
_MOST_REFUSED = 4_096

logger = logging.getLogger("urlward")


Opener = Callable[[socket.socket], Awaitable[Any]]
"""Serves a socket; gives what `close` ends that with, and closes the socket."""


def is_worker() -> bool:
    """Whether this process is a worker; else a mitmproxy that has loaded the addon."""
    return WORKER in os.environ


def worker_name() -> str:
    """This worker's number; 0 in a mitmproxy."""
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


@cache
def _channel() -> socket.socket | None:
    """The channel to the supervisor; None where there is none."""
    fd = os.environ.pop(CHANNEL, "")
    if not fd:
        return None
    made = socket.socket(fileno=int(fd))
    made.set_inheritable(False)
    return made


def plans() -> str:
    """`FIRST` or `AGAIN` where this worker makes a plan for its supervisor; else empty."""
    return os.environ.get(PLANS, "")


def offer(plan: Plan) -> None:
    """Give the supervisor its plan."""
    channel, fd = _channel(), memfd.new()
    assert channel is not None
    memfd.write(fd, plan.written())
    os.lseek(fd, 0, os.SEEK_SET)
    socket.send_fds(channel, [b'{"plan": true}'], [fd])
    os.close(fd)


@contextmanager
def refusing() -> Iterator[None]:
    """Context in which an error of ours is the supervisor's to say, where it has others that run; then this
    worker ends."""
    try:
        yield
    except UrlwardError as e:
        channel = _channel()
        if channel is None or plans() != AGAIN:
            raise
        channel.send(json.dumps({"refused": str(e)[:_MOST_REFUSED]}).encode())
        sys.exit(2)


def _own_sockets(channel: socket.socket) -> dict[Address, list[socket.socket]]:
    """Wait for this worker's sockets."""
    found: dict[Address, list[socket.socket]] = {}
    more = True
    while more:
        data, fds, _, _ = socket.recv_fds(channel, MAX_MESSAGE, MAX_SOCKETS, socket.MSG_CMSG_CLOEXEC)
        if not data:
            sys.exit(1)  # the supervisor has ended
        message = json.loads(data)
        for at, fd in zip(message["own"], fds, strict=True):
            found.setdefault(Address(*at), []).append(socket.socket(fileno=fd))
        more = message["more"]
    return found


class Worker:
    """This worker's listening sockets, which its supervisor passes it.

    Args:
        sockets: where there is no supervisor.
    """

    def __init__(self, sockets: Sockets = ()) -> None:
        self._channel = _channel()
        self._own = dict(sockets)
        if self._channel is not None:
            self._own = _own_sockets(self._channel)
            self._channel.setblocking(False)
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
        if (said := received(self._channel, MAX_SOCKETS)) is None:
            return
        data, fds = said
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
