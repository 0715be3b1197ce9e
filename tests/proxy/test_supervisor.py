"""The supervisor: workers that hang, that cannot be started, and reloads."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest

from conftest import free_port, in_turns, wait_for
from rows import each_row
from urlward.lists import memfd
from urlward.plan import Address, Plan, Service
from urlward.process import used_by
from urlward.proxy import child, supervisor
from urlward.proxy.child import SERVICE, Child, is_hung, start_service, state_of
from urlward.proxy.listeners import Sockets
from urlward.proxy.supervisor import Rules, Supervisor
from urlward.records.metrics import RulesFacts

WORKER = """
import asyncio, os, signal
from pathlib import Path
from urlward.plan import Plan
from urlward.proxy.workers import Worker, offer, plans

class Server:
    # One of asyncio that is closed loses what it has just accepted.
    def __init__(self, one):
        self.one = one
        one.listen(100)
        one.setblocking(False)
        asyncio.get_running_loop().add_reader(one, self.answer)

    def answer(self):
        try:
            connection, _ = self.one.accept()
        except BlockingIOError:
            return
        with connection:
            connection.sendall(b"served")

    def close(self):
        asyncio.get_running_loop().remove_reader(self.one)
        self.one.close()

async def opener(one):
    return Server(one)

signal.signal(signal.SIGHUP, signal.SIG_IGN)

async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    if plans():
        offer(Plan.read(Path(os.environ["PLAN"]).read_bytes()))
    worker = Worker()
    servers = [one for each in list(worker._own) for one in await worker.serve(each, opener)]
    worker.ready()
    await ended.wait()
    worker.stop()
    for one in servers:
        one.close()
    await asyncio.sleep(0.2)

asyncio.run(main())
"""
"""A worker without a filter, whose plan is in a file."""


HANGS = "import time; time.sleep(600)"

WORKS = """
import sys
from urlward.process import check_parent, end_with_parent
end_with_parent(9)
check_parent(int(sys.argv[1]))
while True: pass
"""

HAS_WORK_DONE = f"""
import os, subprocess, sys
subprocess.run([sys.executable, '-c', {WORKS!r}, str(os.getpid())], timeout=600)
"""


def supervisor_of(code: str, *arguments: str) -> Supervisor:
    return Supervisor([sys.executable, "-c", code, *arguments], lambda _: nullcontext(Rules()))


@contextmanager
def supervised(made: Supervisor, plan: Plan) -> Iterator[Supervisor]:
    """A supervisor whose workers have been started; whoever has it looks for it."""
    made._plan = plan
    made._listeners.open(plan.addresses, plan.workers)
    try:
        for number in range(plan.workers):
            made._workers[number] = made._worker(number)
        yield made
    finally:
        made._end()


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Plan], Plan]:
    """Has workers make a plan."""
    monkeypatch.setenv("PLAN", str(tmp_path / "plan"))

    def write(plan: Plan) -> Plan:
        (tmp_path / "plan").write_bytes(plan.written())
        return plan

    return write


@contextmanager
def handlers_as_before() -> Iterator[None]:
    """For whom this process forks later: a process that does not end by SIGTERM is waited for in vain."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


def look(at: Supervisor, until: Callable[[], bool], what: str) -> None:
    def looked() -> bool:
        at._look()
        return until()

    wait_for(looked, what, 60)


def reload(of: Supervisor) -> None:
    of._renew_again = True
    of._look()
    look(of, lambda: of._renewal is None, "the reload")


@each_row(
    ("silence", "state", "used", "hung"),
    [
        (9.9, "T", 0.0, False),
        (10.0, "T", 0.0, True),  # stopped
        (10.0, "S", 0.1, True),  # waits for something that does not come
        (10.0, "R", 9.0, True),  # in a circle
        (10.0, "R", 1.0, False),  # has hardly had its turn
        (59.0, "R", 1.0, False),
        (60.0, "R", 1.0, True),
        (10.0, "R", 7.0, False),  # busy, on a machine that is busy too
        (10.0, "", 1.0, False),  # its state is not to be had
        (59.0, "D", 0.0, False),  # waits for the disk
        (60.0, "D", 0.0, True),
    ],
)
def test_is_hung(silence: float, state: str, used: float, hung: bool) -> None:
    assert is_hung(silence, 10, state, used) is hung


BUSY_BESIDE = """
import threading, time
def compute():
    while True: pass
threading.Thread(target=compute, daemon=True).start()
time.sleep(600)
"""


@pytest.mark.parametrize(("code", "state"), [(HANGS, "S"), (BUSY_BESIDE, "R")])
def test_the_state_is_that_of_the_thread_that_could_go_on_soonest(code: str, state: str) -> None:
    """An event loop that waits for another thread, which computes, does not hang."""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            wait_for(lambda: state_of(process.pid) == state, "its state")
            process.send_signal(signal.SIGSTOP)
            wait_for(lambda: state_of(process.pid) == "T", "it to be stopped")
            assert used_by(process.pid) > 0
        finally:
            process.kill()


def test_where_no_process_can_be_started_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The supervisor does not end over it: the others serve on."""
    monkeypatch.setattr(child, "BACKOFF", (0.0, 0.0))
    looks = supervisor_of(HANGS)  # one that ended by itself may have done so before its sockets come
    ended = looks._worker(0)
    ended.process.kill()
    ended.process.wait()
    original = subprocess.Popen

    def none(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", none)
    assert looks._look_after(ended) is ended
    monkeypatch.setattr(subprocess, "Popen", original)
    another = looks._look_after(ended)
    assert another is not ended
    another.process.kill()
    another.process.wait()
    another.close()
    said = capsys.readouterr().err.splitlines()
    assert said[1] == "worker 0: no process for it: Resource temporarily unavailable; tried again"
    assert len(said) == 2


class Clients:
    """Connect again and again; counts what they get."""

    def __init__(self, port: int) -> None:
        self.got: Counter[str] = Counter()
        self._port = port
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.wait(0.002):
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=30) as s:
                    got = s.recv(6).decode()
            except OSError as e:
                got = type(e).__name__
            self.got[got] += 1


def test_fewer_workers_serve_the_sockets_of_more(planned: Callable[[Plan], Plan]) -> None:
    """The kernel spreads connections over all of them, and closing one resets what waits in it."""
    address = Address("127.0.0.1", free_port(), "tcp")
    with supervised(supervisor_of(WORKER), Plan(3, [address])) as one:
        look(one, lambda: all(each.ready for each in one._workers.values()), "all workers")
        with Clients(address.port) as clients:
            for workers in (1, 2):
                planned(Plan(workers, [address]))
                reload(one)
                assert len(one._workers) == workers
                enough = clients.got.total() + 50
                look(one, lambda: clients.got.total() > enough, "connections")  # noqa: B023
    assert set(clients.got) == {"served"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "START_WITHIN", 0.5)
    monkeypatch.setattr(child, "STARVED", 0)
    monkeypatch.setattr(child, "BREAK", 60.0)


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_hangs_before_it_serves_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    with supervised(supervisor_of(HANGS), Plan(1, [], timeout=1)) as one:
        first = one._workers[0]
        look(one, lambda: one._workers[0] is not first, "another")
        assert (first.failures, one._workers[0].failures) == (1, 1), "the next one has to wait longer"
    ended, replaced = capsys.readouterr().err.splitlines()[:2]
    assert re.fullmatch(
        rf"worker 0 \(process {first.process.pid}\) does not serve \d+ s after its start: it is ended", ended
    )
    assert replaced.endswith("ended with -9; a new one takes its place")


@pytest.mark.usefixtures("impatient")
def test_a_first_worker_that_hangs_is_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    one = supervisor_of(HANGS)
    try:
        with ExitStack() as held:
            assert one._start_first(held) == 2
    finally:
        one._end()
    (said,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"urlward: worker 0 \(process \d+\) does not serve \d+ s after its start", said)


@each_row(
    ("code", "said"),
    [
        (
            "import os; os.kill(os.getpid(), 9)",
            r"worker 0 .* was ended by signal 9 \(out of memory\?\) before it served",
        ),
        ("", r"worker 0 \(process \d+\) ended with 0 before it served"),
        (
            WORKER.replace(
                'offer(Plan.read(Path(os.environ["PLAN"]).read_bytes()))', "offer(Newer())"
            ).replace("asyncio.run", "class Newer:\n    def written(self): return b'[]'\n\nasyncio.run"),
            "its plan is of another version: start urlward anew",
        ),
    ],
)
def test_a_first_worker_that_does_not_come_to_serve_is_told_of(
    code: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the last one's worker, which waits for its sockets and hears of no signal.
    monkeypatch.setattr(supervisor, "STOP_WITHIN", 0.2)
    one = supervisor_of(code)
    try:
        with ExitStack() as held:
            assert one._start_first(held) == 2
    finally:
        one._end()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"urlward: {said}", line)


def test_where_the_end_is_asked_for_meanwhile_nothing_more_is_started(
    planned: Callable[[Plan], Plan],
) -> None:
    planned(Plan(3, []))
    one = supervisor_of(WORKER)
    started: list[int] = []
    start = one._worker

    def worker(number: int, plans: str = "") -> Child:
        started.append(number)
        one._stopping = signal.SIGTERM
        return start(number, plans)

    one._worker = worker  # type: ignore[method-assign]
    with handlers_as_before():
        assert one.run() == 0
    assert started == [0]


def test_why_a_new_worker_serves_not_is_told_where_it_has_ended_meanwhile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    refuses = "from urlward.proxy.workers import refusing\nwith refusing(): raise UrlwardError('so')"
    address = Address("127.0.0.1", free_port(), "tcp")
    with supervised(supervisor_of(WORKER), Plan(1, [address])) as one:
        look(one, lambda: one._workers[0].ready, "the worker")
        one._command = [sys.executable, "-c", f"from urlward.engine.errors import UrlwardError\n{refuses}"]
        renewal = one._renew()
        next(renewal)
        assert one._coming is not None
        one._coming.process.wait()
        assert next(renewal, None) is None
        look(one, lambda: not one._leaving, "the end of the new one")
    assert capsys.readouterr().err.splitlines() == ["reload: so; what runs stays"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("command", in_turns(WORKS, HAS_WORK_DONE))
def test_a_worker_that_works_may_take_longer_to_serve(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """It, or a process beneath it, compiles a large list; but not for ever."""
    monkeypatch.setattr(child, "START_WITHIN", 2.0)
    monkeypatch.setattr(child, "_WORK", 0.02)  # which it gets in two seconds on any machine
    monkeypatch.setattr(child, "_COUNT", 0.1)
    monkeypatch.setattr(child, "START_BUSY", 2)
    with supervised(supervisor_of(command, str(os.getpid())), Plan(1, [], timeout=1)) as one:
        worker = one._workers[0]
        look(one, lambda: not worker.lives, "its end")
        assert 4.0 <= time.monotonic() - worker.started < 60


@pytest.mark.usefixtures("impatient")
def test_without_a_timeout_no_worker_is_ended() -> None:
    with supervised(supervisor_of(HANGS), Plan(1, [], timeout=0)) as one:
        worker = one._workers[0]
        look(one, lambda: time.monotonic() > worker.started + 1.5, "a while")
        assert worker.lives


def test_what_waits_for_a_disk_for_ever_keeps_no_supervisor_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "KILLED_WITHIN", 0.0)
    with subprocess.Popen([sys.executable, "-c", HANGS]) as process:
        waits = Child("worker 0", pytest.fail, process, None, 1)
        with monkeypatch.context() as patched:
            patched.setattr(process, "kill", lambda: None)
            supervisor._end_all([waits], signal.SIGCONT, 0.0)
        assert waits.lives
        process.kill()


def test_a_reload_gives_up_a_new_worker_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    planned: Callable[[Plan], Plan],
    impatient: None,
) -> None:
    """Before it has a plan, or with one."""
    monkeypatch.setattr(child, "START_WITHIN", 60.0)
    address = Address("127.0.0.1", free_port(), "tcp")
    plan = planned(Plan(1, [address], timeout=60))
    with supervised(supervisor_of(WORKER), plan) as one:
        look(one, lambda: one._workers[0].ready, "the worker")
        runs = one._workers[0]
        for code in (HANGS, WORKER.replace("    worker = Worker()", f"    {HANGS}")):
            one._command = [sys.executable, "-c", code]
            one._renew_again = True
            one._look()
            if code != HANGS:  # however long its start takes
                look(one, lambda: one._coming is not None and one._plan is one._coming.plan, "its plan")
            with monkeypatch.context() as patched:
                patched.setattr(child, "START_WITHIN", 0.5)
                look(one, lambda: one._renewal is None, "the reload")
            assert one._workers == {0: runs}
            assert runs.lives
            look(one, lambda: not one._leaving, "the end of the new one")
            with socket.create_connection(address[:2], timeout=30) as s:
                assert s.recv(6) == b"served"
    without, begun, given_up = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"reload: does not serve \d+ s after its start; what runs stays", without)
    assert begun == "reload: replacing 1 workers"
    assert re.fullmatch(
        r"reload: the new worker 0 does not serve \d+ s after its start; those that run stay", given_up
    )


def test_a_reload_gives_up_a_new_worker_that_ends_as_it_begins_to_serve(
    capsys: pytest.CaptureFixture[str], planned: Callable[[Plan], Plan]
) -> None:
    """Such as one that there is no memory for beside those that run."""
    address = Address("127.0.0.1", free_port(), "tcp")
    with supervised(supervisor_of(WORKER), planned(Plan(1, [address]))) as one:
        look(one, lambda: one._workers[0].ready, "the worker")
        runs = dict(one._workers)
        one._command = [sys.executable, "-c", WORKER.replace("await ended.wait()", "os._exit(3)")]
        one._renew_again = True
        one._look()

        def is_taken() -> bool:
            """Whether its plan is; it may have ended by then, so that one look does all."""
            return one._renewal is None or (one._coming is not None and one._plan is one._coming.plan)

        look(one, is_taken, "its plan")
        if one._coming is not None:
            one._coming.process.wait()
        look(one, lambda: one._renewal is None, "the reload")
        assert one._workers == runs
        assert runs[0].lives
    assert capsys.readouterr().err.splitlines() == [
        "reload: replacing 1 workers",
        "reload: the new worker 0 ended before it served; those that run stay",
    ]


def test_who_comes_to_an_address_of_before_waits_for_nobody_where_a_reload_ends_halfway(
    planned: Callable[[Plan], Plan],
) -> None:
    """The first worker had been replaced by one that does not listen there, whose sockets nobody read."""
    before, now = (Address("127.0.0.1", free_port(), "tcp") for _ in range(2))
    ends = "async def main():\n    if os.environ['URLWARD_WORKER'] == '1': os._exit(3)\n"
    with supervised(supervisor_of(WORKER), Plan(2, [before])) as one:
        look(one, lambda: all(each.ready for each in one._workers.values()), "the workers")
        planned(Plan(2, [now]))
        one._command = [sys.executable, "-c", WORKER.replace("async def main():\n", ends)]
        reload(one)
        for address in (before, now):
            for _ in range(12):
                with socket.create_connection(address[:2], timeout=10) as s:
                    assert s.recv(6) == b"served"


def test_a_reload_that_would_not_work_changes_nothing(
    capsys: pytest.CaptureFixture[str], planned: Callable[[Plan], Plan]
) -> None:
    address = Address("127.0.0.1", free_port(), "tcp")
    taken = socket.create_server(("127.0.0.1", 0))
    elsewhere = Address(*taken.getsockname()[:2], "tcp")
    with taken, supervised(supervisor_of(WORKER), Plan(1, [address])) as one:
        look(one, lambda: one._workers[0].ready, "the worker")
        runs = dict(one._workers)
        for plan in (
            Plan(1, [address], alone=["wireguard"]),
            Plan(1, [address], steer=True),
            Plan(1, [address], watch=["lan0"]),
            Plan(1, [elsewhere]),
        ):
            planned(plan)
            reload(one)
            assert one._workers == runs
            look(one, lambda: not one._leaving, "the end of the new one")
    assert capsys.readouterr().err.splitlines() == [
        "reload: mode wireguard cannot be handed over: only lists are read again",
        "reload: steer: to change that, start urlward anew; what runs stays",
        "reload: gateway: to change whose rules are watched, start urlward anew; what runs stays",
        f"reload: cannot listen on {elsewhere}: address already in use; what runs stays",
    ]


@each_row(
    ("data", "plan", "refused"),
    [
        (
            b'{"workers": 3, "addresses": [["", 80, "tcp"]], "later": 1}',
            Plan(3, [Address("", 80, "tcp")]),
            "",
        ),
        (b'{"addresses": []}', None, "its plan is of another version: start urlward anew"),
        (b"[]", None, "its plan is of another version: start urlward anew"),
    ],
)
def test_a_plan_of_another_version(data: bytes, plan: Plan | None, refused: str) -> None:
    """A reload starts workers of the code as it is now, the supervisor is of before."""
    ours, theirs = child.channel()
    with subprocess.Popen([sys.executable, "-c", ""]) as process, theirs:
        made = Child("worker 0", lambda: made, process, ours, 0)
        fd = memfd.new()
        memfd.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        socket.send_fds(theirs, [b'{"plan": true}'], [fd])
        os.close(fd)
        assert made.hear()
        assert not made.hear()
        made.close()
    assert (made.plan, made.refused) == (plan, refused)


def test_rules_are_told_to_workers_that_leave_and_to_no_other_process() -> None:
    """One that listens for what comes of reloads would not understand it."""
    made = supervisor_of(WORKER)
    made._rules = Rules(RulesFacts)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pairs = {name: socket.socketpair(type=socket.SOCK_SEQPACKET) for name in ("worker 0", SERVICE)}
        for name, (ours, _) in pairs.items():
            made._leaving.append(Child(name, lambda: made._leaving[0], process, ours, 0, ready=True))
        made._tell_of_rules()
        for ours, _ in pairs.values():
            ours.close()
    told = {name: theirs.recv(1000) for name, (_, theirs) in pairs.items()}
    for _, theirs in pairs.values():
        theirs.close()
    assert told == {"worker 0": b'{"rules": [0, "", []]}', SERVICE: b""}


def test_more_sockets_than_a_message_holds() -> None:
    addresses = [Address("127.0.0.1", free_port(), "tcp") for _ in range(supervisor.MOST_SOCKETS + 3)]
    with supervised(supervisor_of(WORKER), Plan(1, addresses)) as one:
        look(one, lambda: one._workers[0].ready, "the worker")
        for address in (addresses[0], addresses[-1]):
            with socket.create_connection(address[:2], timeout=30) as s:
                assert s.recv(6) == b"served"


def test_more_sockets_than_a_message_holds_of_a_worker_that_is_not_there() -> None:
    addresses = [Address("127.0.0.1", free_port(), "tcp") for _ in range(supervisor.MOST_SOCKETS + 3)]
    with supervised(supervisor_of(WORKER), Plan(2, addresses)) as one:
        look(one, lambda: all(one._workers[n].ready for n in (0, 1)), "the workers")
        gone = one._workers[1]
        gone.due = float("inf")
        gone.signal(signal.SIGKILL)
        look(one, lambda: one._served.get(1), "its sockets to be another's")
        for address in (addresses[0], addresses[-1]):
            for _ in range(8):  # the kernel chooses whose socket
                with socket.create_connection(address[:2], timeout=30) as s:
                    assert s.recv(6) == b"served"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    config = tmp_path / "urlward.toml"
    config.write_text(f'state = "{tmp_path}/state"\n[[feed]]\nname = "body"\npath = "list.txt"\n')
    return Service({"config": str(config)}, 2)


def test_a_service_that_a_reload_cannot_start_is_tried_again(
    service: Service,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    planned: Callable[[Plan], Plan],
) -> None:
    planned(Plan(1, [], service))
    monkeypatch.setattr(supervisor, "BACKOFF", (0.0,))
    short = [OSError(11, "Resource temporarily unavailable")]

    def started(service: Service, name: str, sockets: Sockets) -> Child:
        if short:
            raise short.pop()
        return start_service(service, name, sockets)

    with supervised(supervisor_of(WORKER), Plan(1, [], service)) as made:
        before = made._beside_workers[SERVICE] = start_service(service)
        monkeypatch.setattr(supervisor, "start_service", started)
        reload(made)
        assert made._beside_workers[SERVICE] is not before
    said = capsys.readouterr().err
    assert "service: no process for it: Resource temporarily unavailable; tried again\n" in said


def test_a_reload_after_which_the_service_does_not_serve_says_so(
    service: Service, capsys: pytest.CaptureFixture[str], planned: Callable[[Plan], Plan]
) -> None:
    broken = Service({"config": "/nonexistent/urlward.toml"}, 2)
    with supervised(supervisor_of(WORKER), Plan(1, [], service)) as made:
        for of, said in ((broken, "service ended before serving; the workers are new"), (service, "done")):
            planned(Plan(1, [], of))
            reload(made)
            assert capsys.readouterr().err.splitlines()[-1] == f"reload: {said}"


def test_a_service_that_hangs_is_replaced(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has served; and what it says is no sign of life of a worker."""
    told: list[int] = []
    send = Child.signal

    def signalled(self: Child, number: int) -> None:
        told.append(number)
        send(self, number)

    monkeypatch.setattr(Child, "signal", signalled)
    with supervised(supervisor_of(HANGS), Plan(0, [])) as made:
        made._pass_on(signal.SIGHUP, None)
        assert told == []
        hung = made._beside_workers[SERVICE] = start_service(service)
        heard = made._heard
        look(made, lambda: hung.served, "it to serve")
        assert told == [signal.SIGHUP], "asked for before it was there, its feeds are refreshed late"
        hung.signal(signal.SIGSTOP)
        beside = made._beside_workers
        look(made, lambda: beside[SERVICE] is not hung and beside[SERVICE].served, "another")
        assert made._heard == heard
    said = capsys.readouterr().err
    assert f"service (process {hung.process.pid}) has not answered for " in said
    assert f"service (process {hung.process.pid}) ended with -9; a new one takes its place" in said


def test_the_service_manager_hears_of_a_supervisor_without_workers_no_more(impatient: None) -> None:
    with supervised(supervisor_of(HANGS), Plan(0, [], timeout=1)) as one:
        assert one._is_of_use()
        look(one, lambda: not one._is_of_use(), "silence")
        one._plan = one._plan._replace(timeout=0)
        assert one._is_of_use()


EARLY = f"""
import os, signal, sys
from contextlib import nullcontext
from urlward.process import hold_requests
from urlward.proxy.supervisor import Rules, Supervisor
from urlward.records.metrics import RulesFacts

again = Supervisor._renew
def renew(self):
    os.kill(os.getpid(), signal.SIGTERM)
    yield from again(self)
Supervisor._renew = renew

hold_requests()
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGUSR2)
print(Supervisor([sys.executable, "-c", {WORKER!r}], lambda _: nullcontext(Rules())).run())
"""


def test_a_reload_that_was_asked_for_too_early_is_late(planned: Callable[[Plan], Plan]) -> None:
    planned(Plan(1, []))
    done = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
