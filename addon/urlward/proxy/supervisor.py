"""Supervisor of ``urlward run``: holds the listening sockets, looks after workers and the service process.

Each worker accepts from listening sockets of its own, which the supervisor holds for it
(`urlward.proxy.listeners`). While a worker is not there, the others accept from its sockets as well, and a
new one takes its place; where it is the only one, connections wait. Where a reload leaves fewer workers,
those go on to accept from the sockets of the others: the kernel spreads connections over all, and closing one
resets what waits in it. Lists are made once for all of them, and their flat part is a file that all map
(`urlward.lists.run_folder`).

SIGUSR2 replaces the workers one by one: a new one starts on the same sockets, and where it serves the one
before it ends in order. So new code and another configuration come into use without a refused connection,
and where they do not work, those that run stay.

This process imports neither the configuration nor mitmproxy: what is to be started the first worker says
(`urlward.plan`).
"""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from urlward.engine.errors import UrlwardError, fault_text
from urlward.lists.run_folder import RunFolder
from urlward.plan import (
    AGAIN,
    CHANNEL,
    FIRST,
    PLANS,
    REPLACED,
    SHARED,
    SUPERVISOR,
    WORKER,
    Address,
    Plan,
    Service,
)
from urlward.process import ending, take_requests
from urlward.proxy import notify
from urlward.proxy.child import (
    BACKOFF,
    END_WITHIN,
    INSPECTOR,
    LOOK,
    MODULES,
    SERVICE,
    Attention,
    Child,
    say_of,
    start_service,
    start_within,
    starting,
)
from urlward.proxy.listeners import Listeners, address_space_warning, given, raise_limit

if TYPE_CHECKING:
    from urlward.records.metrics import RulesFacts

STOP_WITHIN = 12.0
"""Seconds that workers have to end."""

KILLED_WITHIN = 2.0
"""Seconds that a process has to be gone once it is killed."""

MOST_SOCKETS = 64
"""Sockets in a message."""

_BESIDE = (SERVICE, END_WITHIN, REPLACED), (INSPECTOR, STOP_WITHIN, signal.SIGTERM)
"""Processes beside the workers: how long each has to end, and by which signal another takes its place."""

OK, ERROR = 0, 2

_UNTOLD = 10
"""Seconds of silence, as `Plan.timeout`, before a plan says how many."""


class Rules(NamedTuple):
    """A gateway's rules in the kernel.

    Attributes:
        facts: gives how they are.
        end: has the kernel take no worker to live any more, once all were asked to end.
    """

    facts: "Callable[[], RulesFacts | None]" = lambda: None
    end: Callable[[], None] = lambda: None


type Beside = Callable[[Plan], AbstractContextManager[Rules]]


class Supervisor:
    """Starts workers, replaces those that die, and passes signals on.

    Args:
        command: of one worker.
        beside: what is held while the filter runs, for its first plan; gives a gateway's rules, of which
            workers are told. It may raise UrlwardError.

    Raises:
        UrlwardError: there is no place for temporary files.
    """

    def __init__(self, command: Sequence[str], beside: Beside) -> None:
        self._command = command
        self._beside = beside
        self._rules = Rules()
        self._plan = Plan(1, (), timeout=_UNTOLD)
        self._listeners = Listeners(given())
        self._held = Listeners()
        """Sockets of the service process."""
        self._workers: dict[int, Child] = {}
        self._beside_workers: dict[str, Child] = {}
        """The service process and the inspector, by their names."""
        self._leaving: list[Child] = []
        self._coming: Child | None = None
        """A worker that is to take another's place."""
        self._served: dict[int, set[Child]] = {}
        """Workers that serve another worker's sockets, by that worker's number."""
        self._run = RunFolder(SHARED)
        self._renewal: Iterator[None] | None = None
        self._renew_again = False
        self._refreshes = False
        """Whether feeds are to be refreshed that the service process does not know of yet."""
        self._again = 0.0
        """When the service process may be started that could not be."""
        self._attention = Attention()
        self._heard = time.monotonic()
        """When it has last heard of any worker."""
        self._stopping = 0
        """The signal that has asked for the end."""

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT.

        Returns:
            The exit code: that of the first worker where it ended before it served, and has said why.

        Raises:
            UrlwardError: an address is taken or not usable.
            UrlwardError: of `beside`.
        """
        raise_limit()
        if warning := address_space_warning():
            say_of(warning)
        for end in (signal.SIGTERM, signal.SIGINT):
            signal.signal(end, self._stop)
        signal.signal(signal.SIGHUP, self._pass_on)
        signal.signal(signal.SIGUSR2, self._ask_for_renewal)
        take_requests()
        with ExitStack() as held:
            try:
                # One first: what is wrong with a list or an option is said once, not once a worker.
                code = self._start_first(held)
                if code is not None or self._stopping:
                    return code or OK
                for number in range(1, self._plan.workers):
                    self._workers[number] = self._worker(number)
                for name, service in self._planned().items():
                    self._beside_workers[name] = self._started(service, name)
                notify.ready()
                while not self._stopping:
                    fails = [each.fails for each in self._workers.values() if each.ready and each.lives]
                    notify.withhold(fails[0] if fails and all(fails) else "")
                    if self._is_of_use():
                        notify.alive()
                    self._look()
                return OK
            finally:
                self._end()

    def _start_first(self, held: ExitStack) -> int | None:
        """Start the first worker, and take its plan; an exit code where that is the end."""
        first = self._workers[0] = self._worker(0, FIRST)
        planned = False
        while not first.ready and not self._stopping:
            self._listen(LOOK)
            self._attention.look()
            if first.plan is not None and not planned:
                planned = True
                self._rules = held.enter_context(self._beside(first.plan))
                self._listeners.open(first.plan.addresses, first.plan.workers)
                self._listeners.check_given()
                self._plan = first.plan
                first.timeout = self._plan.timeout
                self._hand_sockets(0, first)
            if not first.lives:
                if self._stopping:
                    return OK
                if first.process.returncode > 0:
                    return first.process.returncode  # and it has said why
                how = ending(first.process.returncode)
                say_of(f"urlward: {first.name} (process {first.process.pid}) {how} before it served")
                return ERROR
            if first.refused:
                say_of(f"urlward: {first.refused}")
                return ERROR
            if hangs := first.hangs(self._attention.since):
                say_of(f"urlward: {first.name} (process {first.process.pid}) {hangs}")
                first.process.kill()
                return ERROR
        return None

    # -- starting

    def _worker(self, number: int, plans: str = "") -> Child:
        """Start a worker.

        Args:
            number: its.
            plans: `FIRST` or `AGAIN` where it makes a plan, and is handed its sockets then.

        Raises:
            OSError: there is no process for it.
        """
        # Who makes a plan reads the file.
        with starting("" if plans else self._plan.text) as (ours, environment, passed):
            environment |= {WORKER: str(number), SUPERVISOR: str(os.getpid()), PLANS: plans}
            environment[CHANNEL] = str(passed[0])
            more, fds = self._run.pass_on()
            environment |= more
            passed += fds
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=passed,
                # Ctrl-C goes to the whole foreground group: the supervisor ends its workers itself.
                process_group=0,
            )
        start = lambda: self._worker(number)  # noqa: E731 - a method could not know the number
        made = Child(f"worker {number}", start, process, ours, self._plan.timeout)
        if not plans:
            self._hand_sockets(number, made)
        return made

    def _hand_sockets(self, number: int, worker: Child) -> None:
        """Give a worker its sockets, which it waits for."""
        for more, addresses, fds in self._sockets_of(number):
            if not worker.tell({"own": addresses, "more": more}, fds):
                say_of(f"{worker.name}: its sockets cannot be handed to it: it is ended")
                worker.process.kill()
                return

    def _sockets_of(self, number: int) -> Iterator[tuple[bool, list[Address], list[int]]]:
        """Sockets of a worker, as many at a time as a message takes, with whether there are more."""
        sockets = [
            (address, one.fileno())
            for address, some in self._listeners.of(number, self._plan.addresses)
            for one in some
        ]
        for first in range(0, max(len(sockets), 1), MOST_SOCKETS):
            some = sockets[first : first + MOST_SOCKETS]
            yield first + MOST_SOCKETS < len(sockets), [at for at, _ in some], [fd for _, fd in some]

    # -- looking after

    def _look(self) -> None:
        self._listen(LOOK)
        self._attention.look()
        for number, worker in list(self._workers.items()):
            self._workers[number] = self._look_after(worker)
        for name, child in self._beside_workers.items():
            self._beside_workers[name] = self._look_after(child)
        self._ask_for_refreshes()
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
            self._say_of_reload(f"{fault_text(e)}; what runs stays")

    def _look_after(self, child: Child) -> Child:
        child.end_if_hung(self._attention.since)
        return child if self._stopping else child.replaced()

    def _listen(self, seconds: float) -> None:
        """Take in what children say."""
        workers = self._of_workers()
        poll = select.poll()  # unlike select(), it takes descriptors of any number
        by_fd: dict[int, Child] = {}
        for child in (*workers, *self._of_others()):
            if child.channel is not None:
                by_fd[child.channel.fileno()] = child
                poll.register(child.channel, select.POLLIN)
        for fd, _ in poll.poll(seconds * 1000):
            by_fd[fd].hear()
        # One that has not served yet is heard by its work, too.
        self._heard = max([self._heard, *(each.heard for each in workers)])

    def _of_workers(self) -> list[Child]:
        leaving = (each for each in self._leaving if each.name not in MODULES)
        return [*self._workers.values(), *leaving, *filter(None, [self._coming])]

    def _of_others(self) -> list[Child]:
        """The processes beside the workers, those among them that leave."""
        leaving = (each for each in self._leaving if each.name in MODULES)
        return [*self._beside_workers.values(), *leaving]

    def _planned(self) -> dict[str, Service]:
        """The processes beside the workers, as they are to be started, by their names."""
        found, inspector = {}, self._plan.inspector
        if self._plan.service is not None:
            found[SERVICE] = self._plan.service
        if inspector is not None:
            # What it looks for is in the run folder.
            request = {**inspector.request, "folder": str(self._run.path)}
            found[INSPECTOR] = inspector._replace(request=request)
        return found

    def _is_of_use(self) -> bool:
        """Whether any worker lives; where none does for long, the service manager may do better."""
        silence = time.monotonic() - max(self._heard, self._attention.since)
        return not self._plan.timeout or silence < 2 * start_within(self._plan.timeout)

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
                    other.tell({"leave": number})
                del self._served[number]
                continue
            for other in serving.values():
                if other not in told and all(
                    other.tell({"serve": number, "at": addresses}, fds)
                    for _, addresses, fds in self._sockets_of(number)
                ):
                    told.add(other)

    def _tell_of_rules(self) -> None:
        rules = self._rules.facts()
        if rules is None:
            return
        message = {"rules": [rules.restored, rules.hand, list(rules.wrong)]}
        for worker in self._of_workers():
            if worker.ready and worker.told is not rules and worker.tell(message):
                worker.told = rules

    # -- renewal

    def _ask_for_renewal(self, _number: int, _frame: FrameType | None) -> None:
        self._renew_again = True

    def _renew(self) -> Iterator[None]:
        """Replace all workers, then the service process; each step is one look."""
        new = self._coming = self._worker(0, AGAIN)
        before, plan, why = self._plan, None, ""
        while plan is None and not why:
            yield
            plan, why = new.plan, new.refused or self._why_not(new)
        if plan is not None and plan.alone:
            self._give_up(new)
            self._say_of_reload(f"mode {plan.alone[0]} cannot be handed over: only lists are read again")
            self._pass_on(signal.SIGHUP, None)
            return
        if plan is not None:
            why = self._take_plan(plan)
        if plan is None or why:
            self._give_up(new)
            self._say_of_reload(f"{why}; what runs stays")
            return
        if _loses_file(before.text, plan.text):
            say_of("reload: the last file of `include` is gone: what it had is in force no more")
        say_of(f"reload: replacing {len(self._workers)} workers")
        self._hand_sockets(0, new)
        for number in range(plan.workers):
            if number:
                new = self._coming = self._worker(number)
            new.timeout = plan.timeout
            while not (why := self._why_not(new)) and not new.ready:
                yield
            if why:
                self._give_up(new)
                if not number:
                    self._plan = before
                # Else nobody reads what comes to a socket of one before, whose place another has taken.
                self._listeners.keep(self._plan.addresses)
                self._say_of_reload(f"the new worker {number} {why}; those that run stay")
                return
            self._coming = None
            old = self._workers.get(number)
            self._workers[number] = new
            if old is not None:
                yield from self._let_go(old, STOP_WITHIN)
        for number in sorted(self._workers):
            if number >= plan.workers:
                yield from self._let_go(self._workers.pop(number), STOP_WITHIN)
        begun = []
        for name, within, number in _BESIDE:
            if (child := self._beside_workers.pop(name, None)) is not None:
                # What workers have to say meanwhile waits in the outbox.
                yield from self._let_go(child, within, number)
            if (planned := self._planned().get(name)) is not None:
                while (made := self._tried(planned, name)) is None:
                    yield
                self._beside_workers[name] = made
                begun.append(made)
        self._listeners.keep(plan.addresses)
        self._held.keep(plan.served)
        while any(each.lives and not each.served for each in begun):
            yield
        failed = " and ".join(each.name for each in begun if not each.served)
        self._say_of_reload(f"{failed} ended before serving; the workers are new" if failed else "done")

    def _say_of_reload(self, text: str) -> None:
        say_of(f"reload: {text}")
        if (service := self._beside_workers.get(SERVICE)) is not None:  # the dashboard shows it
            service.tell({"reload": text})

    def _why_not(self, new: Child) -> str:
        """Why a new worker will not serve; empty where it may."""
        if new.lives:
            return new.hangs(self._attention.since)
        while new.hear():  # its last word
            pass
        return new.refused or "ended before it served"

    def _take_plan(self, plan: Plan) -> str:
        """Take another plan; or why it cannot be."""
        if plan.steer != self._plan.steer:
            return "steer: to change that, start urlward anew"
        if plan.watch != self._plan.watch:
            return "gateway: to change whose rules are watched, start urlward anew"
        try:
            self._listeners.open(plan.addresses, plan.workers)
        except UrlwardError as e:
            return str(e)
        self._plan = plan
        return ""

    def _give_up(self, new: Child) -> None:
        self._coming = None
        new.signal(signal.SIGKILL)
        self._leaving.append(new)

    def _started(self, service: Service, name: str) -> Child:
        """Start a process beside the workers.

        Raises:
            OSError: there is no process for it, or no descriptor.
        """
        served = self._plan.served if name == SERVICE else ()
        for address in served:
            with suppress(UrlwardError):  # it tries by itself then, and says so
                self._held.open([address], 1)
        return start_service(service, name, self._held.of(0, served))

    def _tried(self, service: Service, name: str) -> Child | None:
        """A process beside the workers; None where it cannot be started now."""
        now = time.monotonic()
        if now < self._again:
            return None
        try:
            return self._started(service, name)
        except OSError as e:
            say_of(f"{name}: no process for it: {e.strerror or e}; tried again")
            self._again = now + BACKOFF[-1]
            return None

    def _let_go(self, child: Child, within: float, number: int = signal.SIGTERM) -> Iterator[None]:
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
        for child in self._of_workers():
            child.signal(number)
        if number == signal.SIGHUP:
            self._refreshes = True
            self._ask_for_refreshes()

    def _ask_for_refreshes(self) -> None:
        """Have the service process refresh all feeds, once there is one."""
        service = self._beside_workers.get(SERVICE)
        if self._refreshes and service is not None and service.lives:
            self._refreshes = False
            service.signal(signal.SIGHUP)

    def _end(self) -> None:
        notify.stopping()
        self._listeners.close()
        self._held.close()
        self._rules.end()
        workers, beside = self._of_workers(), self._of_others()
        _end_all(workers, self._stopping or signal.SIGTERM, STOP_WITHIN)
        # What workers have said last is still to be recorded.
        _end_all(beside, signal.SIGTERM, END_WITHIN)
        for child in (*workers, *beside):
            child.close()
        self._run.close()


def _loses_file(before: str, now: str) -> bool:
    """Whether the last file that a configuration includes was there and is not any more, by its texts as
    `urlward.config.sources.Sources` has them."""
    try:
        had, has = (json.loads(text or "[]") for text in (before, now))
        return len(had) > 1 and len(has) > 1 and had[-1] is not None and has[-1] is None
    except (ValueError, TypeError, KeyError):
        return False  # of a release that writes another form


def _end_all(children: Collection[Child], number: int, within: float) -> None:
    for child in children:
        if child.ending is None:
            child.signal(number)
    end = time.monotonic() + within
    for child in children:
        try:
            child.process.wait(max(end - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            child.process.kill()
            # One that waits for a disk ends when that has answered, which may be never.
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(KILLED_WITHIN)
