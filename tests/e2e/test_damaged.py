"""Whatever a filter keeps for itself may be damaged: it starts, filters, says so, and makes it anew."""

import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import urllib3

from conftest import free_port, in_turns, wait_for
from e2e import support
from e2e.support import Filter, Nginx, children_of, command_of, running, status_of
from e2e.test_confidential import processes
from obstacles import a_folder, a_pipe
from urlward.assignments.store import AssignmentStore
from urlward.engine.digest import format_key
from urlward.policy.allows import add_allow
from urlward.records.asking import ask
from urlward.records.holds import hold
from urlward.records.watches import ALARMS
from urlward.state.audit import verify
from urlward.state.folder import local_key, write_kept

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.long

LISTED, OWN = "listed.example", "blocked.example"

CONFIG = """\
state = "state"
workers = {workers}
{more}
[[feed]]
name = "body"
path = "{list}"
interval = "1h"
[records]
node = "gw1"
[records.days]
blocks = 30
operations = 365
[[records.store]]
kind = "sqlite"
[[records.store]]
kind = "jsonl"
[admin]
listen = "127.0.0.1:{admin}"
"""

KEPT = {
    "admin.json", "admin.token", "alarms.json", "allows.json", "assignments.db", "audit.head", "audit.jsonl",
    "feeds/body.json", "feeds/body.lock", "feeds/body.ward", "feeds/own-entries.json",
    "feeds/own-entries.lock", "feeds/own-entries.ward", "history.db", "holds.json", "key", "key.copy",
    "own.json", "people.json", "records.db", "records.jsonl", "records.lock", "retention.json",
    "outbox.level", "outbox/outbox.db",
}  # fmt: skip
"""Files of a state folder whose filter has ended. Whoever adds one says below what becomes of it."""

STAYS = {"holds.json"}
"""What would be deleted without it must not be."""

WITHOUT_CONTENT = {"feeds/body.lock", "feeds/own-entries.lock", "records.lock"}

UNSEEN = {
    "key",
    "admin.json",
    "admin.token",
    "records.db",
    "records.jsonl",
    "assignments.db",
    "history.db",
    "outbox/outbox.db",
}
"""A flipped bit need not be seen in these (in the key: where its copy is damaged too), nor a cut."""


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        # Not in its middle, where it could be in a text that means nothing.
        data[len(data) // 3] ^= 4
        path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": _flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "noise": lambda path: path.write_bytes(b"\x81\x00\xff\x1f" * 700),
    "folder": a_folder,
    "pipe": a_pipe,
    "unreadable": lambda path: path.chmod(0),
}

AS_SOMEBODY = """
import ctypes

libc = ctypes.CDLL(None)
header, words = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, words) == 0
for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP
    for kind in range(3):
        words[kind] &= ~(1 << capability)
assert libc.capset(header, words) == 0
"""
"""Root without what lets it read whatever it likes: files' permissions hold as for a service's user."""


@contextmanager
def filtering(
    folder: Path, name: str, workers: int = 1, more: str = "", *, executes: bool = False
) -> Iterator[tuple[Filter, str]]:
    """A filter with a state folder, and where its dashboard is."""
    admin = free_port()
    config = folder / "urlward.toml"
    config.write_text(CONFIG.format(workers=workers, more=more, admin=admin, list=folder / "feed.txt"))
    before = AS_SOMEBODY if os.geteuid() == 0 else ""
    with running(folder / name, "--config", str(config), before=before, executes=executes) as proxy:
        proxy.secrets = (LISTED, OWN)
        yield proxy, f"http://127.0.0.1:{admin}"


def status(proxy: Filter, origin: Nginx, host: str) -> int:
    return status_of(proxy.port, f"http://{host}:{origin.http}/")


def urlward(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return support.urlward(*arguments, "--config", folder / "urlward.toml")


def is_ready(admin: str) -> bool:
    try:
        return urllib3.request("GET", f"{admin}/readyz", timeout=5, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def names(state: Path) -> set[str]:
    """Files of a state folder, but for lists on the command line, which are named after their paths."""
    files = (path.relative_to(state) for path in state.rglob("*") if path.is_file())
    return {str(path) for path in files if path.parts[0] != "lists"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, nginx_server: Nginx) -> Path:
    """A folder with all that a filter keeps."""
    folder = tmp_path_factory.mktemp("kept")
    state = folder / "state"
    (folder / "feed.txt").write_text(f"{LISTED} id=F-1\n")
    with filtering(folder, "filter") as (proxy, admin):
        wait_for(lambda: status(proxy, nginx_server, LISTED) == 451, "the feed")
        wait_for(lambda: is_ready(admin), "the records")
        add_allow(
            state, local_key(state), "excused.example", 86_400, "asked for", "me",
            whole_host=True, now=time.time(),
        )  # fmt: skip
        assert urlward(folder, "own", "add", "mine.example").returncode == 0
        hold(state, "ABCD-EFGH-JKMN", round(time.time()) + 86_400, "asked for", "me", now=time.time())
        wait_for(lambda: (state / "records.jsonl").stat().st_size > 1000, "lines")
        made_here = {ALARMS, "assignments.db"}
        wait_for(lambda: KEPT - made_here <= names(state), "all of it, what is compiled too")
        proxy.stop()
    AssignmentStore(state / "assignments.db").close()
    # Of a machine on which something was wrong.
    write_kept(state / ALARMS, 1, "alarms", [{"alarm": "canary", "whose": "gw1-0", "text": "redirect"}])
    shutil.rmtree(folder / "filter")
    assert names(state) == KEPT
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "copied"
    shutil.copytree(kept, copied)
    return copied


@pytest.mark.parametrize("damage", in_turns(*DAMAGES))
def test_all_that_is_kept_may_be_damaged(folder: Path, damage: str, origin: Nginx) -> None:
    state = folder / "state"
    for name in KEPT:
        DAMAGES[damage](state / name)
    with filtering(folder, "filter") as (proxy, admin):
        assert status(proxy, origin, OWN) == 451, "from the first second"
        wait_for(lambda: status(proxy, origin, LISTED) == 451, "the feed anew")
        wait_for(lambda: is_ready(admin), "all of it")

        def aside() -> set[str]:
            return {re.sub(r"\.2.*", "", path.name) for path in (state / "damaged").iterdir()}

        expected = KEPT - STAYS
        if damage not in ("folder", "pipe", "unreadable"):
            expected = expected - WITHOUT_CONTENT
        if damage == "empty":
            expected = expected - {"outbox/outbox.db"}  # as one is that was begun on a full disk
        if damage in ("flipped", "cut"):
            expected = expected - UNSEEN - ({"audit.jsonl"} if damage == "cut" else set())
        wait_for(lambda: not {Path(name).name for name in expected} - aside(), "all to be set aside")
        for name in expected:
            begins = f"{state / name}: "
            # Of what was done by another process, its parent says so.
            wait_for(lambda begins=begins: f"\n{begins}" in f"\n{proxy.log()}", begins)  # type: ignore[misc]
            lines = [line for line in proxy.log().splitlines() if line.startswith(begins)]
            assert len(lines) == 1, (name, lines)
            assert "; set aside as damaged/" in lines[0]
        wait_for(lambda: ask(state, "status")["ready"]["ok"], "all of it, as the recorder says")
        found = ask(state, "status")
        assert not found["ok"]
        assert found["alarms"]["set-aside"].startswith("damaged and set aside: ")
        assert [feed["state"] for feed in found["feeds"]] == ["ok"]
        report = verify(state)
        assert report.broken is None
        # A log that was cut within a line goes on, and tells that its head was lost.
        assert bool(report.anew) == ("audit.head" in expected)
        proxy.stop()


def test_what_was_made_anew_is_good(folder: Path, origin: Nginx) -> None:
    state = folder / "state"
    for name in KEPT:
        DAMAGES["folder"](state / name)
    with filtering(folder, "filter") as (proxy, admin):
        wait_for(lambda: is_ready(admin), "all of it anew")
        done = urlward(folder, "status")
        assert done.returncode == 1
        assert "alarm: set-aside: damaged and set aside: " in done.stdout
        done = urlward(folder, "audit", "verify")
        assert done.returncode == 1
        assert "begun anew, since what was before is not known" in done.stdout
        proxy.stop()
    with filtering(folder, "again") as (proxy, admin):
        assert status(proxy, origin, OWN) == status(proxy, origin, LISTED) == 451
        wait_for(lambda: is_ready(admin), "all of it")
        assert "set aside" not in proxy.log()


def test_another_key(folder: Path, origin: Nginx) -> None:
    (folder / "state/key").write_bytes(format_key(b"\x5a" * 32))
    with filtering(folder, "filter") as (proxy, _):
        assert status(proxy, origin, OWN) == 451
        wait_for(lambda: status(proxy, origin, LISTED) == 451, "the feed anew")
        assert f"{folder}/state/feeds/body.ward: compiled under key" in proxy.log()


@pytest.mark.parametrize("damage", in_turns(*DAMAGES))
def test_what_is_kept_of_the_operators_own_lists_may_be_damaged(
    tmp_path: Path, damage: str, origin: Nginx
) -> None:
    (tmp_path / "feed.txt").write_text(f"{LISTED}\n")
    with filtering(tmp_path, "filter") as (proxy, _):
        proxy.stop()
    kept = sorted((tmp_path / "state/lists").iterdir())
    assert [path.suffix for path in kept] == [".json", ".lock", ".ward"]
    for path in kept:
        DAMAGES[damage](path)
    with filtering(tmp_path, "filter") as (proxy, _):
        assert status(proxy, origin, OWN) == 451, "from the first second"
        for path in kept:
            if path.suffix == ".lock" and damage not in ("folder", "pipe", "unreadable"):
                continue  # it has no content
            begins = f"{path}: "
            wait_for(lambda begins=begins: f"\n{begins}" in f"\n{proxy.log()}", begins)  # type: ignore[misc]
            lines = [line for line in proxy.log().splitlines() if line.startswith(begins)]
            assert len(lines) == 1, (path, lines)
            assert "; set aside as damaged/" in lines[0]


def stop_outside_locks(pid: int, state: Path) -> None:
    """Stop a process while it holds neither folder's lock, which others wait for."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        with ExitStack() as stack:
            try:
                for folder in (state, state / "feeds"):
                    fd = os.open(folder, os.O_RDONLY)
                    stack.callback(os.close, fd)
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.kill(pid, signal.SIGCONT)
            else:
                return


def test_a_replaced_worker_filters_with_what_the_others_have(folder: Path, origin: Nginx) -> None:
    state = folder / "state"
    # Nobody takes the service process, which is stopped below, to hang; it is known by its command.
    with filtering(folder, "filter", workers=2, more="worker_timeout = 0", executes=True) as (proxy, admin):
        wait_for(lambda: is_ready(admin), "both workers")
        (feeds,) = (pid for pid in processes(proxy.process.pid) if "service.process" in command_of(pid))
        workers = [pid for pid in children_of(proxy.process.pid) if pid != feeds]
        assert len(workers) == 2
        stop_outside_locks(feeds, state)  # nothing is made anew meanwhile
        try:
            wait_for(lambda: processes(feeds) == [feeds], "the end of a refresh that is under way")
            for name in ("feeds/body.ward", "allows.json", "key"):
                DAMAGES["noise"](state / name)
            os.kill(workers[0], signal.SIGKILL)
            wait_for(lambda: proxy.log().count("listening on") == 3, "the new one")
            assert {status(proxy, origin, host) for host in (OWN, LISTED) for _ in range(20)} == {451}
            wait_for(lambda: "body.ward: " in proxy.log(), "what is said of it")
            told = [line for line in proxy.log().splitlines() if "body.ward: " in line]
            assert sum("set aside" in line for line in told) <= 1
        finally:
            os.kill(feeds, signal.SIGCONT)
        # Not more often than once a minute, and it may have been made anew at the start.
        wait_for(lambda: (state / "feeds/body.ward").exists(), "the list anew", 150)
        assert {status(proxy, origin, host) for host in (OWN, LISTED) for _ in range(20)} == {451}


@pytest.mark.parametrize("name", ["list.txt", "state"])
def test_what_the_operator_named_and_cannot_be_used_ends_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "list.txt").write_text(f"{OWN}\n")
    (tmp_path / "urlward.toml").write_text('state = "state"\n')
    (tmp_path / name).unlink(missing_ok=True)
    if name == "state":
        (tmp_path / name).write_text("a file")
    listen = f"127.0.0.1:{free_port()}"
    done = support.urlward(
        "run", "--list", tmp_path / "list.txt", "--listen", listen,
        "--config", tmp_path / "urlward.toml", "--confdir", tmp_path / "confdir",
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{tmp_path / name}: " in done.stderr
    assert done.stderr.count("\n") == 1
