"""Worker processes that end with their task: the only ones that see a source's text.

Text that a process has read stays in memory that it has freed, so whatever reads a source ends with its
work. It also spares the process that filters a dozen seconds of Python for a million lines. A parent asks
with one JSON object on the child's standard input, which may hold secrets, and is answered with one on its
standard output, behind JSON arrays that say how far it is, or what there is to log, as soon as there is.
None of them ever quotes from a source.
"""

import _thread
import contextlib
import errno
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from urlward.process import ending, give_way, keep_private, module_command, told, used_by
from urlward.state.folder import FolderOwner

LOOK, LOOKS = 5.0, 12
"""Seconds between two looks at such a process, and how many find no processor used by one that hangs."""


class _Progress:
    """Watch on a process's CPU time. Millions of lines take minutes, and some of it each second; one that
    is stopped, or waits for a file system that hangs, would be waited for for ever."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._used = 0.0
        self._looks = 0

    @property
    def hangs(self) -> bool:
        """Whether it has used no CPU time for too long."""
        return self._looks >= LOOKS

    def look(self) -> bool:
        """Look anew, and return `hangs`; call it each `LOOK` seconds."""
        used = used_by(self._process)
        self._looks = self._looks + 1 if used == self._used else 0
        self._used = used
        return self.hangs


def ask(
    module: str,
    request: Mapping[str, Any],
    meanwhile: Callable[..., None] = lambda *_: None,
    started: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
    *,
    computes: bool = False,
    passed: Sequence[int] = (),
    owner: FolderOwner | None = None,
) -> dict[str, Any]:
    """Run a module in a process, and wait for its result.

    Args:
        module: that it runs.
        request: what it is told, besides who its parent is.
        meanwhile: called with what each array holds that the process writes before its answer (`say`).
        started: called with the process, which may be killed.
        computes: whether it waits for no network, so that one that uses no processor hangs.
        passed: file descriptors that it has too.
        owner: whom it runs as; this process's user where None.

    Returns:
        Its answer.

    Raises:
        OSError: it could not be started, or ended without an answer.
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        module_command(module),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C is for us
        pass_fds=passed,
        env=_environment(),
        **({} if owner is None else owner._asdict()),
    )
    line = b""
    progress, over = _Progress(process.pid), threading.Event()

    def look() -> None:
        while not over.wait(LOOK):
            if progress.look():
                process.kill()
                return

    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        started(process)
        try:
            if computes:
                _start(look)
            with contextlib.suppress(BrokenPipeError):  # what has ended says so by its code
                process.stdin.write(_told(request))
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            for line in process.stdout:
                if line.startswith(b"["):
                    meanwhile(*json.loads(line))
        except BaseException:
            process.kill()
            raise
        finally:
            over.set()
    return _answer(process.returncode, line, progress)


def _start(watch: Callable[[], None]) -> None:
    """Begin the watch on a process that may hang.

    A `threading.Thread` would be waited for, and for ever where it finds no memory as it begins.

    Raises:
        OSError: no thread can be had now, which the process may have been the last to be.
    """
    try:
        _thread.start_new_thread(watch, ())
    except RuntimeError as e:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from e


def _environment() -> dict[str, str]:
    # It ends with its memory, and is a quarter faster with Python's own allocator.
    return {**os.environ, "PYTHONMALLOC": "default"}


def _told(request: Mapping[str, Any]) -> bytes:
    return json.dumps({**request, "parent": os.getpid()}).encode()


def _answer(code: int, line: bytes, progress: _Progress) -> dict[str, Any]:
    if progress.hangs:
        raise OSError(0, f"the process that compiles it used no processor for {LOOK * LOOKS:.0f} s")
    if code or not line:
        raise OSError(0, f"the process that compiles it {ending(code)}")
    said: dict[str, Any] = json.loads(line)
    return said


def say(*parts: object) -> None:
    """Send a message to the parent before the result."""
    print(json.dumps(parts), flush=True)


class _Passed(logging.Handler):
    """Log handler that passes messages to the parent, whose log they belong in: at once, since who looks
    at what has been done finds it said, and a process that is killed has said why it did what it had done."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.levelno, record.getMessage())


def say_log() -> None:
    """Send what is logged from here on to the parent, each as its level and its text."""
    log = logging.getLogger("urlward")
    log.addHandler(_Passed())
    log.setLevel(logging.INFO)


def read_request() -> dict[str, Any]:
    """Read the parent's request; from here on, this process ends with the parent."""
    keep_private()
    # Signals that are meant for the parent and sent to all processes of that name.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = told(signal.SIGKILL)
    if not request.get("at_once"):
        # Traffic comes first: the parent's event loop is on the same machine.
        give_way(max(5 - os.getpriority(os.PRIO_PROCESS, 0), 0))
    return request
