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
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import free_port, wait_for
from urlward.process import used_by
from urlward.proxy import hanging, supervisor
from urlward.proxy.companion import FEEDS, Companion
from urlward.proxy.hanging import is_hung, state_of
from urlward.proxy.listeners import Address
from urlward.proxy.supervisor import Plan, Supervisor

WORKER = """
import asyncio, json, os, signal
from urlward.proxy.listeners import LISTENERS, Address
from urlward.proxy.workers import Worker

async def answer(reader, writer):
    writer.write(b"served")
    writer.close()

signal.signal(signal.SIGHUP, signal.SIG_IGN)

async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    at = [Address(*one[:3]) for one in json.loads(os.environ[LISTENERS])]
    worker = Worker()
    opener = lambda one: asyncio.start_server(answer, sock=one)
    servers = [one for each in at for one in await worker.serve(each, opener)]
    worker.ready()
    await ended.wait()
    worker.stop()
    for one in servers:
        one.close()
    await asyncio.sleep(0.2)

asyncio.run(main())
"""
"""A worker without a filter."""


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


@contextmanager
def supervised(plan: Callable[[], Plan]) -> Iterator[Supervisor]:
    """A supervisor whose workers have been started; whoever has it looks for it."""
    made = Supervisor(plan)
    made._listeners.open(made._plan.addresses, made._plan.workers)
    try:
        for number in range(made._plan.workers):
            made._workers[number] = made._worker(number)
        yield made
    finally:
        made._end()


def look(at: Supervisor, until: Callable[[], bool], what: str) -> None:
    def looked() -> bool:
        at._look()
        return until()

    wait_for(looked, what, 60)


def reload(of: Supervisor) -> None:
    of._renew_again = True
    of._look()
    look(of, lambda: of._renewal is None, "the reload")


@pytest.mark.parametrize(
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
    monkeypatch.setattr(supervisor, "_BACKOFF", (0.0, 0.0))
    looks = Supervisor(lambda: Plan([sys.executable, "-c", ""], 1, []))
    ended = looks._worker(0)
    ended.process.wait()
    original = subprocess.Popen

    def none(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", none)
    assert looks._look_after(ended) is ended
    monkeypatch.setattr(subprocess, "Popen", original)
    another = looks._look_after(ended)
    assert another is not ended
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


def test_fewer_workers_serve_the_sockets_of_more() -> None:
    """The kernel spreads connections over all of them, and closing one resets what waits in it."""
    address = Address("127.0.0.1", free_port(), "tcp")
    workers = 3
    with supervised(lambda: Plan([sys.executable, "-c", WORKER], workers, [address])) as one:
        look(one, lambda: all(each.ready for each in one._workers.values()), "all workers")
        with Clients(address.port) as clients:
            for workers in (1, 2):
                reload(one)
                assert len(one._workers) == workers
                enough = clients.got.total() + 50
                look(one, lambda: clients.got.total() > enough, "connections")  # noqa: B023
    assert set(clients.got) == {"served"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_START_WITHIN", 0.5)
    monkeypatch.setattr(hanging, "STARVED", 0)
    monkeypatch.setattr(hanging, "BREAK", 60.0)


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_hangs_before_it_serves_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    with supervised(lambda: Plan([sys.executable, "-c", HANGS], 1, [], timeout=1)) as one:
        first = one._workers[0]
        look(one, lambda: one._workers[0] is not first, "another")
        assert first.failures == 1, "the next one has to wait longer"
    ended, replaced = capsys.readouterr().err.splitlines()[:2]
    assert re.fullmatch(
        rf"worker 0 \(process {first.process.pid}\) does not serve \d+ s after its start: it is ended", ended
    )
    assert replaced.endswith("ended with -9; a new one takes its place")


@pytest.mark.usefixtures("impatient")
def test_a_first_worker_that_hangs_is_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    one = Supervisor(lambda: Plan([sys.executable, "-c", HANGS], 1, [], timeout=1))
    try:
        assert not one._start_first()
    finally:
        one._end()
    (said,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"urlward: worker 0 \(process \d+\) does not serve \d+ s after its start", said)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("command", [WORKS, HAS_WORK_DONE])
def test_a_worker_that_works_may_take_longer_to_serve(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """It, or a process beneath it, compiles a large list; but not for ever."""
    monkeypatch.setattr(supervisor, "_START_WITHIN", 2.0)
    monkeypatch.setattr(supervisor, "_WORK", 0.02)  # which it gets in two seconds on any machine
    monkeypatch.setattr(supervisor, "_COUNT", 0.1)
    monkeypatch.setattr(supervisor, "_START_BUSY", 2)
    command_line = [sys.executable, "-c", command, str(os.getpid())]
    with supervised(lambda: Plan(command_line, 1, [], timeout=1)) as one:
        worker = one._workers[0]
        look(one, lambda: not worker.lives, "its end")
        assert 4.0 <= time.monotonic() - worker.started < 60


@pytest.mark.usefixtures("impatient")
def test_without_a_timeout_no_worker_is_ended() -> None:
    with supervised(lambda: Plan([sys.executable, "-c", HANGS], 1, [], timeout=0)) as one:
        worker = one._workers[0]
        look(one, lambda: time.monotonic() > worker.started + 1.5, "a while")
        assert worker.lives


def test_a_reload_gives_up_a_new_worker_that_hangs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], impatient: None
) -> None:
    monkeypatch.setattr(supervisor, "_START_WITHIN", 60.0)
    address = Address("127.0.0.1", free_port(), "tcp")
    command = WORKER
    with supervised(lambda: Plan([sys.executable, "-c", command], 1, [address], timeout=60)) as one:
        look(one, lambda: one._workers[0].ready, "the worker")
        runs = one._workers[0]
        command = HANGS
        monkeypatch.setattr(supervisor, "_START_WITHIN", 0.5)
        reload(one)
        assert one._workers == {0: runs}
        assert runs.lives
        look(one, lambda: not one._leaving, "the end of the new one")
        with socket.create_connection(address[:2], timeout=30) as s:
            assert s.recv(6) == b"served"
    begun, given_up = capsys.readouterr().err.splitlines()
    assert begun == "reload: replacing 1 workers"
    assert re.fullmatch(
        r"reload: the new worker 0 does not serve \d+ s after its start; those that run stay", given_up
    )


def test_a_companion_that_a_reload_cannot_start_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text(f'state = "{tmp_path}/state"\n[[feed]]\nname = "body"\npath = "list.txt"\n')
    feeds = Companion("feeds", FEEDS, config)
    made = Supervisor(lambda: Plan([sys.executable, "-c", HANGS], 0, [], [feeds]))
    monkeypatch.setattr(supervisor, "_BACKOFF", (0.0,))
    start, short = made._companion, [OSError(11, "Resource temporarily unavailable")]

    def started(companion: Companion) -> supervisor._Child:
        if short:
            raise short.pop()
        return start(companion)

    try:
        before = made._companion(feeds)
        made._beside = [before]
        monkeypatch.setattr(made, "_companion", started)
        reload(made)
        assert len(made._beside) == 1
        assert made._beside[0] is not before
    finally:
        made._end()
    said = capsys.readouterr().err
    assert "feeds: no process for it: Resource temporarily unavailable; tried again\n" in said


def test_a_companion_that_hangs_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once it has served; and what it says is no sign of life of a worker."""
    config = tmp_path / "urlward.toml"
    config.write_text(f'state = "{tmp_path}/state"\n[[feed]]\nname = "body"\npath = "list.txt"\n')
    made = Supervisor(lambda: Plan([sys.executable, "-c", HANGS], 0, []))
    try:
        feeds = made._companion(Companion("feeds", FEEDS, config, timeout=2))
        made._beside = [feeds]
        heard = made._heard
        look(made, lambda: feeds.served, "it to serve")
        feeds.signal(signal.SIGSTOP)
        look(made, lambda: made._beside[0] is not feeds and made._beside[0].served, "another")
        assert made._heard == heard
    finally:
        made._end()
    said = capsys.readouterr().err
    assert f"feeds (process {feeds.process.pid}) has not answered for " in said
    assert f"feeds (process {feeds.process.pid}) ended with -9; a new one takes its place" in said


def test_the_service_manager_hears_of_a_supervisor_without_workers_no_more(impatient: None) -> None:
    with supervised(lambda: Plan([sys.executable, "-c", HANGS], 0, [], timeout=1)) as one:
        assert one._is_of_use()
        look(one, lambda: not one._is_of_use(), "silence")
        one._plan = one._plan._replace(timeout=0)
        assert one._is_of_use()


EARLY = f"""
import os, signal, sys
from urlward.process import hold_requests
from urlward.proxy.supervisor import Plan, Supervisor

asked = []

def plan():
    asked.append(None)
    if len(asked) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return Plan([sys.executable, "-c", {WORKER!r}], 1, [])

hold_requests()
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGUSR2)
print(Supervisor(plan).run())
"""


def test_a_reload_that_was_asked_for_too_early_is_late() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "reload: replacing 1 workers\n")
