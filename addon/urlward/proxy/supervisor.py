"""Supervisor of ``urlward run --workers N``: several filters behind one address.

Each worker is an ordinary ``urlward run`` that accepts from listening sockets of its own, which the
supervisor holds for it (`urlward.proxy.listeners`). While a worker is not there, the others accept from
its sockets as well, and a new one takes its place. Where a reload leaves fewer workers, those go on to
accept from the sockets of the others: the kernel spreads connections over all, and closing one resets
what waits in it. Lists are made once for all of them,
and their flat part is a file that all map (`urlward.lists.run_folder`).

SIGUSR2 replaces the workers one by one: a new one starts on the same sockets, and where it serves the one
before it ends in order. So new code and another configuration come into use without a refused connection,
and where they do not work, those that run stay.
"""

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from urlward.engine.errors import UrlwardError
from urlward.lines import say
from urlward.lists.run_folder import RunFolder
from urlward.process import hold_requests, take_requests, used_by
from urlward.proxy import hanging, notify
from urlward.proxy.companion import END_WITHIN, Companion, channel, environment, in_force
from urlward.proxy.hanging import is_hung, state_of
from urlward.proxy.listeners import LISTENERS, Address, Listeners, described, given, raise_limit
from urlward.proxy.verified import SHARED
from urlward.proxy.workers import CHANNEL, MAX_MESSAGE, SUPERVISOR, WORKER
from urlward.records.metrics import RulesFacts

PRIVATE = "URLWARD_PRIVATE"
"""In the supervisor's environment, set to anything: each worker keeps lists of its own, to compare with."""

STOP_WITHIN = 10.0
"""Seconds that workers have to end."""

_BACKOFF = (0.0, 0.5, 1.0, 2.0, 5.0)
_STEADY = 30.0
_LOOK = 0.1

_START_WITHIN = 60.0
"""Seconds that a child may take to serve while it does nothing, at least; `STARVED` timeouts, if longer."""

_START_BUSY = 10
"""Times as long may a worker take that works, such as one that compiles a large list."""

_WORK = 1.0
"""Seconds of CPU time that are a sign of work."""

_COUNT = 2.0
"""Seconds between two looks at that."""


class Plan(NamedTuple):
    """Processes that a supervisor starts.

    Attributes:
        command: of one worker.
        workers: how many.
        addresses: where they listen.
        companions: processes beside them.
        alone: modes that only one worker serves, on a socket that cannot be handed over.
        timeout: seconds of silence after which a worker is taken to hang; 0 for never.
        text: of the configuration; empty where there is none.
    """

    command: Sequence[str]
    workers: int
    addresses: Sequence[Address]
    companions: Sequence[Companion] = ()
    alone: Sequence[str] = ()
    timeout: int = 0
    text: bytes = b""


@dataclass(slots=True, eq=False)
class _Child:
    """Child process: a worker, or a companion; either sends its supervisor signs of life.

    Attributes:
        name: for the log.
        start: makes another of its kind.
        process: that it is.
        channel: by which it and its supervisor talk.
        timeout: seconds of silence after which it is taken to hang; 0 for never.
        started: when, on a clock that does not go back.
        ready: whether it serves.
        served: whether it has ever been ready.
        heard: when it has last said that it lives; before it is ready, when it was last seen to work.
        used: seconds of CPU time that it had used by then; before it is ready, with its children.
        counted: when that was looked at last.
        fails: what keeps it from filtering, as it says itself; empty where nothing does.
        failures: ends in a row of those before it.
        due: when another is to take its place; None while it lives.
        ending: when it is killed that has been told to end; None where it has not.
        told: what it knows of a gateway's rules.
    """

    name: str
    start: "Callable[[], _Child]"
    process: "subprocess.Popen[bytes]"
    channel: socket.socket | None
    timeout: int
    started: float
    ready: bool = False
    served: bool = False
    heard: float = 0.0
    used: float = 0.0
    counted: float = 0.0
    fails: str = ""
    failures: int = 0
    due: float | None = None
    ending: float | None = None
    told: RulesFacts | None = None

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.lives:
            self.process.send_signal(number)

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None


class Supervisor:
    """Starts workers, replaces those that die, and passes signals on.

    Args:
        plan: reads anew what is to be started; asked for again at SIGUSR2.
        rules: how a gateway's rules in the kernel are, which workers are told.

    Raises:
        UrlwardError: of `plan`.
    """

    def __init__(
        self, plan: Callable[[], Plan], rules: Callable[[], RulesFacts | None] = lambda: None
    ) -> None:
        self._make_plan = plan
        self._rules = rules
        self._plan = plan()
        self._listeners = Listeners(given(), shared=True)
        self._workers: dict[int, _Child] = {}
        self._beside: list[_Child] = []
        self._leaving: list[_Child] = []
        self._coming: _Child | None = None
        """A worker that is to take another's place."""
        self._served: dict[int, set[_Child]] = {}
        """Workers that serve another worker's sockets, by that worker's number."""
        self._run: RunFolder | None = None
        self._renewal: Iterator[None] | None = None
        self._renew_again = False
        self._again = 0.0
        """When a companion may be started that could not be."""
        self._looked = self._awake = time.monotonic()
        """When it has looked last, and since when it has done so without a break."""
        self._heard = self._looked
        """When it has last heard of any worker."""
        self._stopping = 0
        """The signal that has asked for the end."""

    def run(self) -> bool:
        """Supervise until SIGTERM or SIGINT.

        Returns:
            False where the first worker ended before it served; it has said why.

        Raises:
            ListenError: an address is taken or not usable.
        """
        raise_limit()
        self._listeners.open(self._plan.addresses, self._plan.workers)
        self._listeners.check_given()
        for end in (signal.SIGTERM, signal.SIGINT):
            signal.signal(end, self._stop)
        signal.signal(signal.SIGHUP, self._pass_on)
        signal.signal(signal.SIGUSR2, self._ask_for_renewal)
        take_requests()
        if not os.environ.get(PRIVATE):
            self._run = RunFolder(SHARED)
        try:
            # One first: what is wrong with a list or an option is said once, not once a worker.
            if not self._start_first():
                return False
            for number in range(1, self._plan.workers):
                self._workers[number] = self._worker(number)
            self._beside = [self._companion(each) for each in self._plan.companions]
            notify.ready()
            while not self._stopping:
                fails = [each.fails for each in self._workers.values() if each.ready and each.lives]
                notify.withhold(fails[0] if fails and all(fails) else "")
                if self._is_of_use():
                    notify.alive()
                self._look()
            return True
        finally:
            self._end()

    def _start_first(self) -> bool:
        first = self._workers[0] = self._worker(0)
        while not first.ready and not self._stopping:
            self._listen(_LOOK)
            self._note_break()
            if not first.lives:
                return bool(self._stopping)
            if hangs := self._hangs(first):
                _say(f"urlward: {first.name} (process {first.process.pid}) {hangs}")
                first.process.kill()
                return False
        return True

    # -- starting

    def _worker(self, number: int) -> _Child:
        variables = {**os.environ, WORKER: str(number), SUPERVISOR: str(os.getpid())}
        for name in notify.FOR_THE_MAIN_PROCESS:
            variables.pop(name, None)
        sockets = self._listeners.of(number, self._plan.addresses)
        ours, theirs = channel()
        variables |= {LISTENERS: described(sockets), CHANNEL: str(theirs.fileno())}
        passed = [theirs.fileno(), *(one.fileno() for _, some in sockets for one in some)]
        if self._run is not None:
            more, fds = self._run.pass_on()
            variables |= more
            passed += fds
        try:
            with theirs, _held_back(), in_force(self._plan.text) as (more, fds):
                process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                    self._plan.command,
                    env=variables | more,
                    stdin=subprocess.DEVNULL,
                    pass_fds=passed + fds,
                    # Ctrl-C goes to the whole foreground group: the supervisor ends its workers itself.
                    process_group=0,
                )
        except OSError:
            ours.close()
            raise
        start = lambda: self._worker(number)  # noqa: E731 - a method could not know the number
        return _Child(f"worker {number}", start, process, ours, self._plan.timeout, time.monotonic())

    def _companion(self, companion: Companion) -> _Child:
        variables = environment()
        for name in notify.FOR_THE_MAIN_PROCESS:
            variables.pop(name, None)
        ours, theirs = channel()
        try:
            with theirs, _held_back(), in_force(companion.text) as (more, fds):
                process = subprocess.Popen(  # noqa: S603 - as above
                    companion.command,
                    env=variables | more,
                    stdin=subprocess.PIPE,
                    pass_fds=[theirs.fileno(), *fds],
                    process_group=0,
                )
                request = companion.request(theirs.fileno())
        except OSError:
            ours.close()
            raise
        assert process.stdin is not None
        with suppress(OSError), process.stdin as pipe:
            pipe.write(request)
        start = lambda: self._companion(companion)  # noqa: E731 - as a worker's
        return _Child(companion.name, start, process, ours, companion.timeout, time.monotonic())

    # -- looking after

    def _look(self) -> None:
        self._listen(_LOOK)
        self._note_break()
        for number, worker in list(self._workers.items()):
            self._end_if_hung(worker)
            self._workers[number] = self._look_after(worker)
        for child in self._beside:
            self._end_if_hung(child)
        self._beside = [self._look_after(child) for child in self._beside]
        self._see_off()
        self._share_out()
        self._tell_of_rules()
        if self._renewal is None and self._renew_again:
            self._renew_again = False
            self._renewal = self._renew()
        try:
            if self._renewal is not None and next(self._renewal, self) is self:
                self._renewal = None
        except Exception as e:  # noqa: BLE001 - nothing in a reload must end what runs
            self._renewal = None
            why = e.strerror or str(e) if isinstance(e, OSError) else f"a bug: {type(e).__name__}"
            _say(f"reload: {why}; what runs stays")

    def _note_break(self) -> None:
        now = time.monotonic()
        if now - self._looked > hanging.BREAK:
            self._awake = now  # this process has not had its turn either, so silence says nothing
        self._looked = now

    def _listen(self, seconds: float) -> None:
        """Take in what children say; the end of one is the end of its channel."""
        workers = self._of_workers()
        found = {each.channel: each for each in (*workers, *self._beside) if each.channel is not None}
        poll = select.poll()  # unlike select(), it takes descriptors of any number
        by_fd = {channel.fileno(): (channel, child) for channel, child in found.items()}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(seconds * 1000):
            channel, child = by_fd[fd]
            try:
                data = channel.recv(MAX_MESSAGE)
            except OSError:
                data = b""
            if not data:
                child.close()
                continue
            child.heard = time.monotonic()
            child.used = used_by(child.process.pid)
            message = json.loads(data)
            if "ready" in message:
                child.ready = child.served = True
            child.fails = message.get("fails", "")
            if child in workers:
                self._heard = child.heard

    def _of_workers(self) -> "list[_Child]":
        return [*self._workers.values(), *self._leaving, *filter(None, [self._coming])]

    def _look_after(self, child: _Child) -> _Child:
        """Check a child; returns it, or its replacement when one is due."""
        now = time.monotonic()
        if child.lives or self._stopping:
            return child
        if child.due is None:
            child.close()
            child.ready = False
            child.failures = 0 if child.served and now - child.started > _STEADY else child.failures + 1
            child.due = now + _BACKOFF[min(child.failures, len(_BACKOFF) - 1)]
            _say(
                f"{child.name} (process {child.process.pid}) ended with {child.process.returncode}; "
                "a new one takes its place"
            )
        if now < child.due:
            return child
        try:
            another = child.start()
        except OSError as e:
            _say(f"{child.name}: no process for it: {e.strerror or e}; tried again")
            child.due = now + _BACKOFF[-1]
            return child
        another.failures = child.failures
        return another

    def _end_if_hung(self, child: _Child) -> None:
        if child.lives and (hangs := self._hangs(child)):
            _say(f"{child.name} (process {child.process.pid}) {hangs}: it is ended")
            child.process.kill()
            child.ready = False

    def _hangs(self, child: _Child) -> str:
        """Description of a hung child; empty where it does not hang."""
        now, timeout = time.monotonic(), child.timeout
        silence = now - max(child.started, child.heard, self._awake)
        if not timeout or (child.served and silence < timeout):
            return ""
        if child.served:
            process = child.process.pid
            hung = is_hung(silence, timeout, state_of(process), used_by(process) - child.used)
            return f"has not answered for {silence:.0f} s" if hung else ""
        if now > child.counted + _COUNT:
            child.counted = now
            used = _used_by_all(child.process.pid)
            if used >= child.used + _WORK:
                child.heard = now
                child.used, silence = used, 0.0
                if child not in self._beside:
                    self._heard = now
        taken, within = now - max(child.started, self._awake), _start_within(timeout)
        hung = silence >= within or taken >= _START_BUSY * within
        return f"does not serve {taken:.0f} s after its start" if hung else ""

    def _is_of_use(self) -> bool:
        """Whether any worker lives; where none does for long, the service manager may do better."""
        silence = time.monotonic() - max(self._heard, self._awake)
        return not self._plan.timeout or silence < 2 * _start_within(self._plan.timeout)

    def _see_off(self) -> None:
        """Wait for children that have been asked to end, within their time limit."""
        for child in list(self._leaving):
            if child.lives and child.ending is not None and time.monotonic() > child.ending:
                child.process.kill()
            if not child.lives:
                child.close()
                self._leaving.remove(child)

    def _share_out(self) -> None:
        """Hand the sockets of each worker that does not serve to all that do."""
        serving = {n: each for n, each in self._workers.items() if each.ready and each.lives}
        for number in self._listeners.numbers:
            told = self._served.setdefault(number, set())
            told.intersection_update(self._of_workers())
            if number in serving:
                for other in told:
                    _tell(other, {"leave": number})
                del self._served[number]
                continue
            sockets = [
                (address, one)
                for address, some in self._listeners.of(number, self._plan.addresses)
                for one in some
            ]
            message = {"serve": number, "at": [address for address, _ in sockets]}
            for other in serving.values():
                if other not in told and _tell(other, message, [one.fileno() for _, one in sockets]):
                    told.add(other)

    def _tell_of_rules(self) -> None:
        rules = self._rules()
        if rules is None:
            return
        message = {"rules": [rules.restored, rules.hand, list(rules.wrong)]}
        for worker in self._of_workers():
            if worker.ready and worker.told is not rules and _tell(worker, message):
                worker.told = rules

    # -- renewal

    def _ask_for_renewal(self, _number: int, _frame: FrameType | None) -> None:
        self._renew_again = True

    def _renew(self) -> Iterator[None]:
        """Replace all workers, then the companions; each step is one look."""
        try:
            plan = self._make_plan()
            if plan.alone:
                raise UrlwardError(f"mode {plan.alone[0]} cannot be handed over: start urlward anew")
            self._listeners.open(plan.addresses, plan.workers)
        except UrlwardError as e:
            _say(f"reload: {e}; what runs stays")
            return
        _say(f"reload: replacing {len(self._workers)} workers")
        before, self._plan = self._plan, plan
        for number in range(plan.workers):
            new = self._coming = self._worker(number)
            why = ""
            while not new.ready and not why:
                yield
                why = self._hangs(new) if new.lives else "ended before it served"
            self._coming = None
            if not new.ready:
                new.signal(signal.SIGKILL)
                self._leaving.append(new)
                if not number:
                    self._plan = before
                    self._listeners.keep(before.addresses)
                _say(f"reload: the new worker {number} {why}; those that run stay")
                return
            old = self._workers.get(number)
            self._workers[number] = new
            if old is not None:
                yield from self._let_go(old, signal.SIGTERM, STOP_WITHIN)
        for number in sorted(self._workers):
            if number >= plan.workers:
                yield from self._let_go(self._workers.pop(number), signal.SIGTERM, STOP_WITHIN)
        while self._beside:
            # What workers have to say meanwhile waits in them.
            yield from self._let_go(self._beside.pop(), signal.SIGTERM, END_WITHIN)
        for each in plan.companions:
            while (made := self._tried(each)) is None:
                yield
            self._beside.append(made)
        self._listeners.keep(plan.addresses)
        _say("reload: done")

    def _tried(self, companion: Companion) -> _Child | None:
        """Replacement for a companion that has ended; None where it cannot be started now."""
        now = time.monotonic()
        if now < self._again:
            return None
        try:
            return self._companion(companion)
        except OSError as e:
            _say(f"{companion.name}: no process for it: {e.strerror or e}; tried again")
            self._again = now + _BACKOFF[-1]
            return None

    def _let_go(self, child: _Child, number: int, within: float) -> Iterator[None]:
        child.signal(number)
        child.ending = time.monotonic() + within
        self._leaving.append(child)
        while child in self._leaving:
            yield

    # -- the end

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            # Asked again: whoever asks does not want to wait for what is under way.
            self._pass_on(number, frame)
        self._stopping = number

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        beside = self._beside if number == signal.SIGHUP else []
        for child in (*self._of_workers(), *beside):
            child.signal(number)

    def _end(self) -> None:
        notify.stopping()
        self._listeners.close()
        workers = self._of_workers()
        _end_all(workers, self._stopping or signal.SIGTERM)
        # What workers have said last is still to be recorded.
        _end_all(self._beside, signal.SIGTERM, END_WITHIN)
        for child in (*workers, *self._beside):
            child.close()
        if self._run is not None:
            self._run.close()


def _start_within(timeout: int) -> float:
    """Seconds that a child with this timeout may take to serve while it does nothing."""
    return max(_START_WITHIN, hanging.STARVED * timeout)


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


def _say(text: str) -> None:
    say(text, warning=True)


def _tell(child: _Child, message: Mapping[str, object], fds: Sequence[int] = ()) -> bool:
    """Send a message to a worker; False where it cannot take it, and gets it later or has ended."""
    if child.channel is None:
        return False
    try:
        socket.send_fds(child.channel, [json.dumps(message).encode()], fds, socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def _end_all(children: Sequence[_Child], number: int, within: float = STOP_WITHIN) -> None:
    for child in children:
        if child.ending is None:
            child.signal(number)
    end = time.monotonic() + within
    for child in children:
        try:
            child.process.wait(max(end - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


@contextmanager
def _held_back() -> Iterator[None]:
    """Context that blocks refresh signals while a child starts: one too early is late, not fatal."""
    hold_requests()
    try:
        yield
    finally:
        take_requests()
