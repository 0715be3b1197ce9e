"""Child process that is looked after: a worker, or the service process; heard, taken to hang, replaced.

Parent and child talk over a pair of sockets that the child inherits, a JSON object a packet
(`urlward.process.beat`). Whoever looks after children does so in a loop of its own: the supervisor
(`urlward.proxy.supervisor`), or the event loop of a mitmproxy that has loaded the addon (`Urlward`).
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from urlward.lines import say
from urlward.lists import memfd
from urlward.plan import Plan, Service
from urlward.process import (
    IN_FORCE,
    ending,
    hold_requests,
    module_command,
    received,
    state_of,
    take_requests,
    used_by,
)
from urlward.proxy.listeners import Sockets
from urlward.proxy.notify import FOR_THE_MAIN_PROCESS

STARVED = 6
"""Times as long may a process be silent that the machine does not let run."""

BREAK = 1.0
"""Seconds between two looks from which on whoever looks has not had its turn either, so that silence tells
nothing."""

BACKOFF = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Seconds before a child is started again, after one end in a row and more."""

STEADY = 30.0
"""Seconds that it has to live for its end not to count as one in a row."""

LOOK = 0.1
"""Seconds between two looks at a child."""

START_WITHIN = 60.0
"""Seconds that a child may take to serve while it does nothing, at least; `STARVED` timeouts, if longer."""

START_BUSY = 10
"""Times as long may a child take that works, such as one that compiles a large list."""

END_WITHIN = 15.0
"""Seconds that the service process has to bring what it is at to an end."""

PATIENCE = 3
"""Times as long as a worker may the service process be silent: no traffic waits for it."""

SERVICE, INSPECTOR = "service", "inspector"
"""Names of the processes beside the workers."""

MODULES = {SERVICE: "urlward.service.process", INSPECTOR: "urlward.files.inspector"}
"""The modules that they run."""

_BUSY = 0.75
"""Of its timeout, so much has a process to have computed that is in a circle. One that is only busy, with a
collection of all its garbage or with a list that changes, is so for less."""

_WORK = 1.0
"""Seconds of CPU time that are a sign of work."""

_COUNT = 2.0
"""Seconds between two looks at that."""


@dataclass(eq=False)
class Child:
    """Child process.

    Args:
        name: for the log.
        start: makes another of its kind.
        process: that it is.
        channel: by which it and its parent talk.
        timeout: seconds of silence after which it is taken to hang; 0 for never.

    Attributes:
        started: when, on a clock that does not go back.
        ready: whether it serves.
        served: whether it has ever been ready.
        heard: when it has last said that it lives; before it is ready, when it was last seen to work.
        fails: what keeps it from its work, as it says itself; empty where nothing does.
        failures: ends in a row of those before it.
        due: when another is to take its place; None while it lives.
        ending: when it is killed that has been told to end; None where it has not.
        hung: whether it was ended since it hung.
        told: what it knows of a gateway's rules.
        plan: that it has made; None where it has none to make, or not yet.
        refused: why it cannot make one.
    """

    name: str
    start: "Callable[[], Child]"
    process: "subprocess.Popen[bytes]"
    channel: socket.socket | None
    timeout: int
    started: float = field(default_factory=time.monotonic)
    ready: bool = False
    served: bool = False
    heard: float = 0.0
    fails: str = ""
    failures: int = 0
    due: float | None = None
    ending: float | None = None
    hung: bool = False
    told: object = None
    plan: Plan | None = None
    refused: str = ""
    _used: float = 0.0
    """Seconds of CPU time that it had used when it was heard; before it is ready, with its children."""
    _counted: float = 0.0

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.lives:
            self.process.send_signal(number)

    def close(self) -> None:
        """Close the channel."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def tell(self, message: Mapping[str, object], fds: Sequence[int] = ()) -> bool:
        """Send it a message; False where it cannot take it, and gets it later or has ended."""
        if self.channel is None:
            return False
        try:
            socket.send_fds(self.channel, [json.dumps(message).encode()], fds, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def hear(self) -> bool:
        """Take in its next message; False where there is none. The end of a child is that of its channel."""
        if self.channel is None:
            return False
        if (message := received(self.channel, 1)) is None:
            return False
        data, fds = message
        if not data:
            self.close()
            return False
        self.heard = time.monotonic()
        self._used = used_by(self.process.pid)
        said = json.loads(data)
        if "ready" in said:
            self.ready = self.served = True
        self.fails = said.get("fails", "")
        self.refused = said.get("refused", self.refused)
        for fd in fds:
            try:
                with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
                    self.plan = Plan.read(file.read())
            except (ValueError, TypeError, KeyError, AttributeError):
                self.refused = "its plan is of another version: start urlward anew"
        return True

    def hangs(self, awake: float) -> str:
        """Description of a hung child; empty where it does not hang.

        Args:
            awake: since when whoever asks has looked without a break.
        """
        now = time.monotonic()
        silence = now - max(self.started, self.heard, awake)
        if not self.timeout or (self.served and silence < self.timeout):
            return ""
        process = self.process.pid
        if self.served:
            hung = is_hung(silence, self.timeout, state_of(process), used_by(process) - self._used)
            return f"has not answered for {silence:.0f} s" if hung else ""
        if now > self._counted + _COUNT:
            self._counted = now
            used = _used_by_all(process)
            if used >= self._used + _WORK:
                self.heard, self._used, silence = now, used, 0.0
        taken, within = now - max(self.started, awake), start_within(self.timeout)
        hung = silence >= within or taken >= START_BUSY * within
        return f"does not serve {taken:.0f} s after its start" if hung else ""

    def end_if_hung(self, awake: float) -> None:
        """Kill it if it `hangs`, once: one that waits for a disk ends when that has answered."""
        if self.lives and not self.hung and (hangs := self.hangs(awake)):
            say_of(f"{self.name} (process {self.process.pid}) {hangs}: it is ended")
            self.process.kill()
            self.ready, self.hung = False, True

    def replaced(self) -> "Child":
        """The child, or its replacement where it has ended and one is due."""
        now = time.monotonic()
        if self.lives:
            return self
        if self.due is None:
            self.close()
            self.ready = False
            self.failures = 0 if self.served and now - self.started > STEADY else self.failures + 1
            self.due = now + BACKOFF[min(self.failures, len(BACKOFF) - 1)]
            code = self.process.returncode
            how = f"ended with {code}" if self.hung else ending(code)
            say_of(f"{self.name} (process {self.process.pid}) {how}; a new one takes its place")
        if now < self.due:
            return self
        try:
            another = self.start()
        except OSError as e:
            say_of(f"{self.name}: no process for it: {e.strerror or e}; tried again")
            self.due = now + BACKOFF[-1]
            return self
        another.failures = self.failures
        return another


class Attention:
    """Since when somebody has looked without a break.

    Attributes:
        since: on a clock that does not go back.
    """

    def __init__(self) -> None:
        self.since = self._looked = time.monotonic()

    def look(self) -> None:
        """Note a look: where the one before was long ago, silence of others says nothing."""
        now = time.monotonic()
        if now - self._looked > BREAK:
            self.since = now  # this process has not had its turn either
        self._looked = now


def channel() -> tuple[socket.socket, socket.socket]:
    """Socket pair between parent and child: the parent's end, which never blocks, and the child's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


@contextmanager
def starting(text: str) -> Iterator[tuple[socket.socket, dict[str, str], list[int]]]:
    """Context in which a child is started: this end of its channel, its environment, and the descriptors that
    are passed to it, the first of which is its end.

    Refresh signals are blocked meanwhile: one too early is late, not fatal.

    Args:
        text: of the configuration in force, a character a byte, since its file may be broken, or half
            written, when the child takes another's place; where empty, the child reads its file, or has none.
    """
    ours, theirs = channel()
    environment = {name: os.environ[name] for name in os.environ if name not in FOR_THE_MAIN_PROCESS}
    memory = []
    hold_requests()
    try:
        with theirs:
            if text:
                memory.append(memfd.new())
                memfd.write(memory[0], text.encode("latin-1"))
                environment[IN_FORCE] = str(memory[0])
            yield ours, environment, [theirs.fileno(), *memory]
    except OSError:
        ours.close()
        raise
    finally:
        take_requests()
        for fd in memory:
            os.close(fd)


def start_service(service: Service, name: str = SERVICE, sockets: Sockets = ()) -> Child:
    """Start the service process, or another one beside the workers.

    Args:
        service: as it is planned.
        name: its, of `MODULES`.
        sockets: that are held for it, and outlive it: whoever connects meanwhile waits for the next one.

    Raises:
        OSError: there is no process for it, or no descriptor.
    """
    held = [[at.host, at.port, [one.fileno() for one in some]] for at, some in sockets]
    with starting(service.text) as (ours, environment, passed):
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            module_command(MODULES[name]),
            # Its memory is used in bursts, and is a quarter faster with Python's own allocator.
            env=environment | {"PYTHONMALLOC": "default"},
            stdin=subprocess.PIPE,
            pass_fds=[*passed, *(one.fileno() for _, some in sockets for one in some)],
            # Ctrl-C goes to the whole foreground group: it is ended in order.
            process_group=0,
        )
    request = {**service.request, "parent": os.getpid(), "channel": passed[0], "sockets": held}
    assert process.stdin is not None
    with suppress(OSError), process.stdin as pipe:
        pipe.write(json.dumps(request).encode() + b"\n")
    return Child(name, lambda: start_service(service, name, sockets), process, ours, service.timeout)


def start_within(timeout: int) -> float:
    """Seconds that a child with this timeout may take to serve while it does nothing."""
    return max(START_WITHIN, STARVED * timeout)


def is_hung(silence: float, timeout: float, state: str, used: float) -> bool:
    """Whether a process hangs, rather than waits for its turn on an overloaded machine.

    Args:
        silence: seconds since it has last said that it lives.
        timeout: seconds that it may be silent.
        state: of the process, as `state_of` has it.
        used: seconds of CPU time that it has used since then.
    """
    if silence < timeout:
        return False
    waits_for_machine = state == "D" or (state in ("R", "") and used < timeout * _BUSY)
    return not waits_for_machine or silence >= STARVED * timeout


def say_of(text: str) -> None:
    """Write a line on a child to the log."""
    say(text, warning=True)


def _used_by_all(process: int) -> float:
    """Seconds of CPU time that a process and all beneath it have used (proc_pid_stat(5))."""
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = path.read_text().rpartition(")")[2].split()
            number = int(path.parent.name)
            used[number] = sum(map(int, fields[11:15]))  # with that of its children that have ended
            children.setdefault(int(fields[1]), []).append(number)
    found = [process]
    for each in found:
        found += children.get(each, ())
    return sum(used.get(each, 0) for each in found) / os.sysconf("SC_CLK_TCK")
