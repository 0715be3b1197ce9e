"""Plan of a run: what its supervisor starts, as the first worker reads it from the command line and the
configuration.

The supervisor lives for as long as the filter, and holds next to nothing; so it reads neither. The first
worker does so before anything else, and in a reload the one that takes its place, with the code and the
configuration as they are then. The service process asks the supervisor for a reload, and hears what comes of
it.
"""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from urlward.process import MAX_MESSAGE, state_of

if TYPE_CHECKING:
    import asyncio

WORKER = "URLWARD_WORKER"
"""In a worker's environment: its number."""

SUPERVISOR = "URLWARD_SUPERVISOR"
"""In a worker's environment: the process id of its supervisor."""

CHANNEL = "URLWARD_CHANNEL"
"""In a worker's environment: the file descriptor by which it and its supervisor talk."""

PLANS = "URLWARD_PLANS"
"""In the environment of a worker that makes the plan: `FIRST` at the start, `AGAIN` in a reload."""

FIRST, AGAIN = "first", "again"

REPLACED = signal.SIGINT
"""Signal to the service process that another takes its place, while workers go on; at the end of all,
SIGTERM has it wait for what they say last."""


MOST_USERS = 16 << 20
"""Bytes of a file of the explicit proxy's users."""

VERIFIED, USERS = "passwords", "users"
SHARED = {VERIFIED: 4 << 20, USERS: MOST_USERS + (64 << 10)}
"""Memory that the workers of one filter share (`RunFolder.memory`): bytes of right passwords, of which it has
room for 262,144, and of the last good file of users with its name. It is taken as it is written to."""


class Address(NamedTuple):
    """Listening address of a mode.

    Attributes:
        host: as configured; all addresses of this machine where empty. A path for ``unix``.
        port: 0 for any that is free.
        kind: ``tcp``, ``udp`` or ``unix``.
    """

    host: str
    port: int
    kind: str

    def __str__(self) -> str:
        if self.kind == "unix":
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host or '*'}:{self.port}"


class Service(NamedTuple):
    """The service process, or another beside the workers, as it is to be started.

    Attributes:
        request: what it is told (`urlward.service.process`, `urlward.files.inspector`), besides who starts
            it.
        timeout: seconds of silence after which it is taken to hang; 0 for never.
        text: of the configuration that is in force, a character a byte; where empty, it reads the file.
    """

    request: Mapping[str, Any]
    timeout: int = 0
    text: str = ""


class Plan(NamedTuple):
    """Processes that a supervisor starts, and what it holds for them.

    Attributes:
        workers: how many.
        addresses: where they listen.
        service: the process beside them; None where there is nothing for it to do.
        alone: modes that only one worker serves, on what cannot be handed over.
        timeout: seconds of silence after which a worker is taken to hang; 0 for never.
        steer: whether workers answer DNS, as those of no other filter here may.
        watch: interfaces of a gateway whose rules in the kernel are watched; None where there are none.
        text: of the configuration, a character a byte; empty where there is none.
        served: where the service process listens.
        inspector: the process that looks at pictures; None where nobody does.
    """

    workers: int
    addresses: Sequence[Address]
    service: Service | None = None
    alone: Sequence[str] = ()
    timeout: int = 0
    steer: bool = False
    watch: Sequence[str] | None = None
    text: str = ""
    served: Sequence[Address] = ()
    inspector: Service | None = None

    def written(self) -> bytes:
        """As JSON, for another process."""
        return json.dumps(self._asdict()).encode()

    @classmethod
    def read(cls, data: bytes) -> "Plan":
        """One that is `written`, perhaps by another version: what that knows beyond this one is left out.

        Raises:
            ValueError, TypeError, KeyError: it makes no sense.
        """
        found = {name: value for name, value in json.loads(data).items() if name in cls._fields}
        for name in {"addresses", *found} & {"addresses", "served"}:
            found[name] = [Address(*each) for each in found[name]]
        for name in ("service", "inspector"):
            if service := found.get(name):
                found[name] = Service(*service)
        return cls(**found)


class Reloads:
    """Reloads of the filter that has started this process.

    Args:
        parent: process id of its supervisor.
        channel: descriptor on which that says what comes of them; None where there is none.

    Attributes:
        said: what it has said last.
        under_way: whether one was asked for of which nothing has been said: where it comes to pass, another
            process takes this one's place.
    """

    def __init__(self, parent: int, channel: int | None) -> None:
        self.said = ""
        self.under_way = False
        self._parent = parent
        self._channel = channel

    def ask(self) -> None:
        """Ask for one."""
        self.said, self.under_way = "", True
        os.kill(self._parent, signal.SIGUSR2)

    def is_stopped(self) -> bool:
        """Whether the supervisor is stopped, as by Ctrl-Z, so that nothing that ends is replaced."""
        return state_of(self._parent) == "T"

    def listen(self, loop: "asyncio.AbstractEventLoop") -> None:
        """Listen on the channel."""
        if self._channel is not None:
            loop.add_reader(self._channel, self._hear, loop)

    def _hear(self, loop: "asyncio.AbstractEventLoop") -> None:
        assert self._channel is not None
        try:
            data = os.read(self._channel, MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # it has ended with something unread
        if not data:
            loop.remove_reader(self._channel)
            return
        try:
            self.said, self.under_way = str(json.loads(data)["reload"]), False
        except (ValueError, KeyError, TypeError):
            from logging import getLogger  # a supervisor, which has the rest of this, logs nothing

            getLogger("urlward.records").error(
                "service: what the supervisor says of a reload is not understood"
            )
