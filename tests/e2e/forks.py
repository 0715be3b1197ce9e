"""Filters by fork: a process that has imported what a filter imports makes one in the tenth of the time.

A filter spends most of its start importing the same modules. Here one process a run of tests does so
(`main`), and makes each filter by a fork, which then is what ``python -m urlward`` would be at its first
line: its own environment, its own output, nothing open but that. Tests of starting itself, and of processes
and their memory, start the command (`support.running`, ``forked=False``).
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

_LOOK = 0.01

_MODULES = (
    "urlward.cli",
    "urlward.proxy.preflight",
    "urlward.proxy.runner",
    "urlward.proxy.listeners",
    "urlward.supervise",
    "urlward.gateway.alone",
    "urlward.gateway.rules_watch",
)
"""With what they import in turn: all that a filter imports as it starts."""


class Forked:
    """What `subprocess.Popen` is to a process, for one that the forking process made."""

    def __init__(self, forks: "Forks", pid: int) -> None:
        self._forks = forks
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._forks.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("urlward", timeout or 0.0)
            time.sleep(_LOOK)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks, as a test sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._channel = ours.makefile("rw", encoding="utf-8")
        self._socket = ours

    def ask(self, message: dict[str, Any]) -> Any:
        """Its answer to a message."""
        with self._lock:
            self._channel.write(json.dumps(message) + "\n")
            self._channel.flush()
            return json.loads(self._channel.readline())

    def start(
        self,
        arguments: Sequence[str],
        out: Path,
        err: Path,
        environment: Mapping[str, str],
        before: str = "",
    ) -> "Forked":
        """Start ``urlward`` with arguments, and output to files; some Python may go before it."""
        for path in (out, err):
            path.write_bytes(b"")  # at once: whoever starts it reads from here on what this one says
        asked = {
            "start": list(arguments),
            "before": before,
            "out": str(out),
            "err": str(err),
            "env": dict(environment),
            "cwd": str(Path.cwd()),
        }
        return Forked(self, self.ask(asked))

    def close(self) -> None:
        """End it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()


_made_in: dict[int, Forks] = {}


def forks(environment: Mapping[str, str]) -> Forks:
    """The one of this process."""
    pid = os.getpid()
    if pid not in _made_in:
        _made_in[pid] = Forks(environment)
        atexit.register(_made_in[pid].close)
    return _made_in[pid]


# -- the process that forks


def _poll(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _start(asked: dict[str, Any], channel: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.close(channel)
        for number in range(1, signal.NSIG):
            with suppress(OSError, ValueError):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(
                        number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                    )
        for fd, path in ((1, asked["out"]), (2, asked["err"])):
            file = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.dup2(file, fd)
            os.close(file)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        time.tzset()
        sys.argv = ["urlward", *asked["start"]]
        from urlward.proxy import supervisor

        supervisor.spawn = _spawn
        exec(asked["before"], {})
        code = _run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _run() -> int:
    from urlward.start import main as run

    code = 0
    try:
        run()
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return code


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], passed: Collection[int]
) -> "subprocess.Popen[bytes]":
    """A worker, as a fork of its supervisor; what was patched there is so here as well."""
    pid = os.fork()
    if pid:
        made: subprocess.Popen[bytes] = subprocess.Popen.__new__(subprocess.Popen)
        made.pid, made.returncode, made.args = pid, None, command
        made.stdin = made.stdout = made.stderr = None
        made._child_created, made._waitpid_lock, made._sigint_wait_secs = True, threading.Lock(), 0.25
        return made
    code = 1
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
            if fd > 2 and fd not in passed:
                with suppress(OSError):
                    os.close(fd)
        for fd in passed:
            os.set_inheritable(fd, True)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["urlward", *command[command.index("urlward") + 1 :]]
        code = _run()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def main() -> None:
    """Answer messages until whoever started this has ended."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(channel.fileno(), False)
    sys.path[0] = str(Path(__file__).parent.parent)
    for module in _MODULES:
        import_module(module)
    gc.freeze()  # collections in those that are made leave what they share alone
    lines = channel.makefile("rw", encoding="utf-8")
    for line in lines:
        asked = json.loads(line)
        answer = _start(asked, channel.fileno()) if "start" in asked else _poll(asked["poll"])
        lines.write(json.dumps(answer) + "\n")
        lines.flush()


if __name__ == "__main__":
    main()
