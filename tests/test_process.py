"""What a process asks of the kernel for itself."""

import asyncio
import errno
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import urlward
from conftest import wait_for
from e2e.support import has_ended
from urlward import process
from urlward.process import check_parent, module_command

NOBODY = 65_534

SCRIPT = """
import os, sys
from urlward.process import keep_private
keep_private()
os.write(int(sys.argv[1]), b".")
os.read(0, 1)
"""


def test_no_core_and_no_other_eyes() -> None:
    ready, told = os.pipe()
    # Everything is root's business: what others may see shows with another user alone.
    user = NOBODY if os.geteuid() == 0 else None
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(told)], stdin=subprocess.PIPE, pass_fds=[told], user=user
    )
    try:
        os.close(told)
        assert os.read(ready, 1) == b"."
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        # The kernel gives the files of a process that cannot be dumped to root (proc(5)).
        assert Path(f"/proc/{process.pid}/environ").stat().st_uid == 0
        # It gets at its own all the same.
        if user is None:
            with pytest.raises(PermissionError):
                Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        os.close(ready)
        process.kill()
        process.communicate()


def test_what_is_written_is_for_nobody_else_to_change() -> None:
    before = os.umask(0)
    try:
        process.keep_private()
    finally:
        after = os.umask(before)
    assert after == 0o002


def test_a_parent_that_is_gone() -> None:
    check_parent(os.getppid())
    with pytest.raises(SystemExit):
        check_parent(1 if os.getppid() != 1 else 2)


def test_the_end_of_a_parent_is_told() -> None:
    parent = (
        "import os, signal, subprocess, sys\n"
        "child = 'import signal, time; from urlward.process import end_with_parent; '"
        "'end_with_parent(signal.SIGTERM); print(1, flush=True); time.sleep(60)'\n"
        "p = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE)\n"
        "p.stdout.readline()\n"
        "print(p.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    child = int(done.stdout)
    wait_for(lambda: has_ended(child), "the end of the child")


def test_what_is_started_takes_nothing_of_the_current_directory(tmp_path: Path) -> None:
    for name in ("dns", "ssl", "json", "urlward"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the current directory')\n")
    done = subprocess.run(
        module_command("urlward", "--version"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_process_is_started_so() -> None:
    sources = Path(urlward.__file__).parent.rglob("*.py")
    found = [path.name for path in sources if '"-m", "urlward' in path.read_text()]
    assert found == []


def test_a_sandbox_that_forbids_to_give_way_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `SystemCallFilter=~@resources` does."""
    asked: list[int] = []
    monkeypatch.setattr(os, "nice", asked.append)
    process.give_way(5)
    assert asked == [5]

    def forbidden(_: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "nice", forbidden)
    process.give_way(5)


def test_every_process_gives_way_so() -> None:
    sources = Path(urlward.__file__).parent.rglob("*.py")
    found = [path.name for path in sources if re.search(r"os\.(nice|setpriority)\(", path.read_text())]
    assert found == ["process.py"]


async def test_an_error_costs_one_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BEAT", 0.01)
    loop, said = asyncio.get_running_loop(), list[bytes]()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    asked = 0

    def fails() -> str:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise MemoryError
        return ""

    with ours, theirs:
        process.beat(loop, theirs.fileno(), fails=fails)
        async with asyncio.timeout(60):
            while len(said) < 3:
                said.append(await loop.sock_recv(ours, 1024))
        assert b"ready" in said[0]
        over = asyncio.Event()
        monkeypatch.setattr(process, "beat", lambda *_: over.set())
        await over.wait()
