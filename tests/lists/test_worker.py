"""The short-lived processes that read lists, asked as the filter asks them."""

import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import termios
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from lists.support import SECRET
from urlward.config import Config, FeedTable
from urlward.engine.digest import Key
from urlward.feeds import feed as feeds_feed
from urlward.feeds.feed import Feed
from urlward.lists import worker
from urlward.lists.source import ErrorBudget


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a.example\n")
    return path


def request(path: Path, parent: int | None = None) -> bytes:
    """What a process is asked that refreshes a list of the operator's own."""
    feed = FeedTable(name="mine", path="mine", max_errors="1%")
    own = feeds_feed.Own(str(path), "list", SECRET.hex(), ())
    asked = Feed(feed, Config(), path.parent / "state", own).request(wait=True, first=True, progress=False)
    asked["parent"] = parent or os.getpid()
    return json.dumps(asked).encode()


def run(
    path: Path, cwd: Path | None = None, parent: int | None = None
) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-P", "-m", feeds_feed.MODULE],
        input=request(path, parent),
        capture_output=True,
        check=False,
        cwd=cwd,
    )


def test_it_answers(path: Path) -> None:
    done = run(path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["state"] == "new"


def test_a_parent_that_ended_before_it_began_wants_nothing(path: Path) -> None:
    done = run(path, parent=os.getppid())
    assert (done.returncode, done.stdout) == (1, b"")


def test_where_there_is_room_for_the_process_alone_it_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    processes: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(worker._thread, "start_new_thread", no_room)
    with pytest.raises(OSError, match="temporarily unavailable"):
        worker.ask(feeds_feed.MODULE, json.loads(request(path)), started=processes.append, computes=True)
    assert processes[0].returncode == -signal.SIGKILL


def test_a_watch_that_finds_no_memory_as_it_begins_is_not_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own threads are, for ever: a feed would never be refreshed again, and nobody told."""

    def waited_for(_: threading.Thread) -> None:
        raise AssertionError

    monkeypatch.setattr(threading.Thread, "start", waited_for)
    said = worker.ask(feeds_feed.MODULE, json.loads(request(path)), computes=True)
    assert said["state"] == "new"


PARENT = """
import subprocess, sys
command = [sys.executable, "-m", "urlward.feeds.refresh"]
print(subprocess.Popen(command, stdin=subprocess.PIPE).pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        process = Path("/proc") / parent.stdout.readline().decode().strip()
        # The end of its standard input would end it too.
        stdin = os.open(process / "fd" / "0", os.O_WRONLY)
        try:
            wait_for(lambda: int(field(process, "SigIgn"), 16) & 0b11 == 0b11, "its signals to be set")
            # What reads has asked before that to end with its parent.
            os.write(stdin, b" ")
            wait_for(lambda: not unread(stdin), "it to read what it is told")
            parent.kill()
            wait_for(lambda: field(process, "State")[:1] in ("", "Z"), "its end")
        finally:
            os.close(stdin)


def unread(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    waiting = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0]


def field(process: Path, name: str) -> str:
    """A field of a process's status, empty when it has ended."""
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return ""
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def test_the_folder_it_starts_in_lends_it_no_code(path: Path) -> None:
    (path.parent / "json.py").write_text("raise SystemExit(9)\n")
    assert run(path, cwd=path.parent).returncode == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_meant_for_its_parent_is_not_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    ignored: list[int] = []
    nice: list[int] = []
    asked = json.loads(request(path, parent=os.getppid())) | {"at_once": at_once}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asked)))
    monkeypatch.setattr(worker.signal, "signal", lambda number, _: ignored.append(number))
    monkeypatch.setattr(os, "nice", nice.append)
    monkeypatch.setattr(os, "getpriority", lambda *_: 0)  # ours may be nice
    monkeypatch.setattr("urlward.process.end_with_parent", lambda _: None)  # ours is none of its business
    assert worker.read_request() == asked
    assert set(ignored) >= {worker.signal.SIGHUP, worker.signal.SIGINT}
    assert [step > 0 for step in nice] == [True] * (not at_once)


def ask(path: Path, **more: Any) -> dict[str, Any]:
    return worker.ask(feeds_feed.MODULE, json.loads(request(path)), **more)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("exit 1", "ended with 1"),
        ("kill -9 $$", "was ended by signal 9 (out of memory?)"),
        ("kill -15 $$", "was ended by signal 15"),
    ],
)
def test_a_process_that_does_not_survive(
    code: str, how: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "module_command", lambda _: ["sh", "-c", code])
    with pytest.raises(OSError, match=re.escape(f"the process that compiles it {how}")):
        ask(path)
    own = Feed.named(path, Key(SECRET), ErrorBudget(), "auto", (), path.parent / "state")
    outcome = own.refresh(first=True)
    assert (outcome.state, outcome.reason) == ("failed", "system")
    assert outcome.error == f"{path}: the process that compiles it {how}"


def test_a_process_that_hangs_is_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"]
    monkeypatch.setattr(worker, "module_command", lambda _: stopped)
    monkeypatch.setattr(worker, "LOOK", 0.05)
    with pytest.raises(OSError, match="the process that compiles it used no processor for 1 s"):
        ask(path, computes=True)


def test_a_process_that_computes_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([0.5, *[0.5] * (worker.LOOKS - 1), 0.6, *[0.6] * worker.LOOKS])
    monkeypatch.setattr(worker, "used_by", lambda _: next(used))
    progress = worker._Progress(1)
    assert [progress.look() for _ in range(2 * worker.LOOKS + 1)] == [False] * 2 * worker.LOOKS + [True]
