"""Process settings: the allocator, ending with the parent, privacy of memory, signals and heartbeats.

None of it outlasts an execve(2), so each process asks at its start.

`choose_allocator` is for `urlward run`. Python's own keeps small objects in arenas that it can give back only
whole. A reload leaves holes in nearly all of them, and with each the process grows. Mimalloc, which comes
with Python from 3.13 on, gives back single pages. So does the C library's, which serves where there is none,
for 5 to 10 % more a request, and what is not Python's; but its fast bins keep freed chunks apart, so that
giving back after a reload walks over millions of them, with traffic waiting.
"""

import ctypes
import io
import json
import os
import resource
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


BEAT = 0.25
"""Seconds between two signs of life of a process that its parent looks after."""

MAX_MESSAGE = 1 << 16
"""Bytes of a message between a process and one that it has started."""

REQUESTS = frozenset({signal.SIGHUP, signal.SIGUSR2})
"""Signals that ask a filter for something; they end a process that has no handler for them yet."""

IN_FORCE = "URLWARD_CONFIG"
"""In the environment of a process that a filter has started: the descriptor of memory with the text of the
configuration that is in force, which its file may have no longer."""

SERVICE = Path("/var/lib/urlward")
"""The service's state folder, and root's (Filesystem Hierarchy Standard 3.0, section 5.8)."""

OURS = "urlward:nft"
"""The name of threads that change the kernel's rules, by which it tells whose a change is (`called`)."""

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME, _PR_GET_NAME = 15, 16
_CPUCLOCK_SCHED = 2
"""The clock of a process (``linux/posix-timers.h``)."""


def module_command(module: str, *arguments: str) -> list[str]:
    """Command that starts one of our modules in a process of its own.

    It imports nothing that lies in the current directory (-P), which may be anybody's.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def keep_private() -> None:
    """Leave no core dump, and keep other processes of the same user out of this one's memory.

    Keys, and in short-lived processes a list's text, must not get to the disk by a crash, nor be had by
    whoever may attach a debugger (prctl(2), PR_SET_DUMPABLE; proc(5)). Only a process with CAP_SYS_PTRACE
    can read this one's memory, maps and descriptors from here on. What it writes, the authority's folder
    among it, is for nobody else to change, whatever umask it was started with.
    """
    _prctl(_PR_SET_DUMPABLE, 0)
    os.umask(os.umask(0o077) | 0o002)
    # Programs that this process starts are dumpable again, and have no business with cores either.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def give_way(by: int) -> None:
    """Have this process, or on Linux this thread alone, come behind traffic, where a sandbox does not forbid
    to say so, as ``SystemCallFilter=~@resources`` does (nice(2), systemd.exec(5)).

    Args:
        by: steps of niceness.
    """
    with suppress(PermissionError):
        os.nice(by)


def hold_requests() -> None:
    """Block the signals in `REQUESTS`, also over an execve(2), until `take_requests`: an early one is only
    late."""
    signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS)


def take_requests() -> None:
    """Unblock the signals in `REQUESTS`; they have handlers by now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS)


def end_with_parent(by: signal.Signals) -> None:
    """Have the kernel send a signal when the parent ends.

    What a killed process had begun, another begins anew: two at once would only take its memory.
    """
    _prctl(_PR_SET_PDEATHSIG, by)


def check_parent(parent: int) -> None:
    """Exit if the parent has ended before `end_with_parent`."""
    if parent != os.getppid():
        sys.exit(1)


def ending(code: int) -> str:
    """How a process ended, by its return code (`subprocess.Popen.returncode`)."""
    if code >= 0:
        return f"ended with {code}"
    return f"was ended by signal {-code}" + (" (out of memory?)" if code == -signal.SIGKILL else "")


def open_standard_streams() -> None:
    """Open closed standard streams as nothing, or what is opened next, such as a socket, would be one of
    them; and have those that are text take any file name or URL.

    One that another program has left not to wait is to wait again: what is not there yet would be its end,
    and what a slow reader has no room for would be lost, without a word.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free; children have it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        os.set_blocking(number, True)
        if getattr(sys, name) is None:  # or what is printed as an error would be among the output
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w" if number else "r", closefd=False)))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name or URL need not be text, nor the terminal know all letters.
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def called(name: str) -> Iterator[None]:
    """Name this thread in the kernel inside the block (prctl(2), PR_SET_NAME), of 15 bytes at most."""
    before = ctypes.create_string_buffer(16)
    _prctl(_PR_GET_NAME, before)
    _prctl(_PR_SET_NAME, name.encode())
    try:
        yield
    finally:
        _prctl(_PR_SET_NAME, before)


def told(by: signal.Signals) -> dict[str, Any]:
    """Read what the parent sends on standard input, as JSON; from here on this process ends with it.

    Args:
        by: the signal that it gets then.
    """
    end_with_parent(by)
    try:
        request: dict[str, Any] = json.load(sys.stdin)
    except ValueError:
        sys.exit(1)  # the parent has ended before it could say all
    check_parent(request["parent"])
    return request


def used_by(process: int) -> float:
    """Seconds of CPU time that a process has used (clock_getcpuclockid(3))."""
    try:
        return time.clock_gettime(~process << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def beat(
    loop: "asyncio.AbstractEventLoop",
    channel: int,
    message: str = "ready",
    fails: Callable[[], str] = str,
) -> None:
    """Send heartbeats to the parent: that this process serves, and from here on that its event loop turns.

    Args:
        loop: the event loop.
        channel: descriptor of a socket that keeps the bounds of messages (`socket.SOCK_SEQPACKET`).
        message: what is said first.
        fails: gives what keeps this process from its work, which is said too; nothing where it is empty.
    """
    # First: an error below, such as one of memory, costs this sign of life, and not all that follow.
    loop.call_later(BEAT, beat, loop, channel, "alive", fails)
    # A parent that is slow to read has been told often enough; one that is gone takes this process with it.
    with suppress(OSError):
        os.write(channel, json.dumps({message: True, "fails": fails()}).encode())


def state_of(process: int) -> str:
    """A process's state, a letter (proc_pid_stat(5)), or nothing where that is not to be had.

    Stopped, or else that of whichever thread could go on soonest: where one computes, the event loop's may
    wait for it.
    """
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/stat"):
        with suppress(OSError, IndexError):
            found.append(path.read_text().rpartition(")")[2].split()[0])
    return next((state for state in "TtDR" if state in found), found[0] if found else "")


def taken_channel(asked: Mapping[str, Any]) -> int | None:
    """Take the descriptor for `beat` where the parent gives one (``channel``); no child inherits it."""
    channel: int | None = asked.get("channel")
    if channel is not None:
        os.set_blocking(channel, False)
        os.set_inheritable(channel, False)
    return channel


def received(channel: socket.socket, descriptors: int) -> tuple[bytes, list[int]] | None:
    """Receive a message without waiting; None where there is none, nothing where the other side has ended.

    Args:
        channel: that keeps the bounds of messages, and does not block.
        descriptors: files that may come with it, whose numbers are returned as well.
    """
    try:
        data, passed, _, _ = socket.recv_fds(channel, MAX_MESSAGE, descriptors, socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    except OSError:
        return b"", []
    return data, passed


def _prctl(option: int, value: "int | bytes | ctypes.Array[ctypes.c_char]") -> None:
    _libc().prctl(option, value, 0, 0, 0)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


ALLOCATOR = "PYTHONMALLOC"
"""Variable of the environment that chooses the allocator."""

_M_MXFAST = 1


def best_allocator() -> str:
    """The allocator for `urlward run`, as `ALLOCATOR` names it: one that this Python has."""
    return "mimalloc" if sysconfig.get_config_var("WITH_MIMALLOC") else "malloc"


def choose_allocator() -> None:
    """Restart with the best one, unless one has been chosen; then turn off the C library's fast bins."""
    if sys.platform != "linux":
        return
    if ALLOCATOR not in os.environ:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, ALLOCATOR: best_allocator()})  # noqa: S606
    # GNU's C library has it; where another does not, nothing is lost.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MXFAST, 0)
