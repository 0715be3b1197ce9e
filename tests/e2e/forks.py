"""Filters by fork: a process that has imported what a filter imports makes one in the tenth of the time.

A filter spends most of its start importing the same modules. Here one process a run of tests does so
(`main`), and makes each filter by a fork, which then is what ``python -m urlward`` would be at its first
line: its own environment, its own output, in a network namespace where one is named, nothing open but that.
The processes that compile its lists, one or more at each start, its service process, and those that try a
configuration which is edited, are made by forks in turn. Tests of starting itself, and of processes, their
names and their memory, start the command (`support.running`, ``forked=False`` or ``executes=True``).
"""

import atexit
import gc
import inspect
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import _lru_cache_wrapper, cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from cryptography.hazmat.primitives import serialization

_LOOK = 0.01

_BESIDE = ("urlward.feeds.refresh", "urlward.service.process")
"""What processes beside a filter's workers run: those that compile its lists, and the service process."""

_MODULES = (
    "urlward.cli",
    "urlward.proxy.preflight",
    "urlward.proxy.runner",
    "urlward.proxy.listeners",
    "urlward.supervise",
    "urlward.gateway.system",
    "urlward.gateway.rules_watch",
    "urlward.gateway.steering",
    "urlward.service.services",
    *_BESIDE,
)
"""With what they import in turn: all that a filter, and the processes beside it, import as they start."""


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
        namespace: str = "",
        executes: bool = False,
    ) -> "Forked":
        """Start ``urlward`` with arguments, and output to files; some Python may go before it.

        Args:
            namespace: name of a network namespace to start it in; this one where empty.
            executes: whether the processes beside its workers are no forks.
        """
        for path in (out, err):
            path.write_bytes(b"")  # at once: whoever starts it reads from here on what this one says
        asked = {
            "start": list(arguments),
            "before": before,
            "namespace": namespace,
            "executes": executes,
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
        _reset_signals()
        for fd, path in ((1, asked["out"]), (2, asked["err"])):
            file = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.dup2(file, fd)
            os.close(file)
        if asked["namespace"]:
            # As ip-netns(8) does; what it mounts besides, urlward does not look at.
            inside = os.open(f"/run/netns/{asked['namespace']}", os.O_RDONLY)
            os.setns(inside, os.CLONE_NEWNET)
            os.close(inside)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        time.tzset()
        sys.argv = ["urlward", *asked["start"]]
        from urlward.proxy import supervisor
        from urlward.start import main as run

        supervisor.spawn = _spawn
        if not asked["executes"]:
            warnings.filterwarnings("ignore", message=".*is multi-threaded, use of fork")
            subprocess.Popen._execute_child = _execute_child  # type: ignore[attr-defined]
        exec(asked["before"], {})
        code = _code_of(run)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], passed: Collection[int]
) -> "subprocess.Popen[bytes]":
    """Make a worker by a fork of its supervisor; what was patched there is so here as well."""
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
        _reset_signals()
        for fd in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
            if fd > 2 and fd not in passed:
                with suppress(OSError):
                    os.close(fd)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["urlward", *command[command.index("urlward") + 1 :]]
        from urlward.start import main as run

        code = _code_of(run)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _reset_signals() -> None:
    """As execve(2) does: what has a handler has none, what is ignored stays so."""
    for number in range(1, signal.NSIG):
        with suppress(OSError, ValueError):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(
                    number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                )


def _code_of(run: Callable[[], object]) -> int:
    """Run a program to its end, as the interpreter does; its exit code."""
    code = 0
    try:
        run()
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return code


# -- processes beside a filter's workers

_execute = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_SIGNATURE = inspect.signature(_execute)
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def _module_of(command: Sequence[str]) -> str:
    """The module whose `main` a command is, where that is to be made by a fork; else nothing."""
    match command[1:]:
        case ["-P", "-m", module] if module in _BESIDE:
            return module
        case ["-P", "-m", "urlward", "run", *_]:
            return "urlward.start"
    return ""


def _execute_child(self: "subprocess.Popen[bytes]", args: Any, *more: Any) -> None:
    """Make a process beside a worker by a fork, and all others as ever."""
    command = list(args)
    if not (module := _module_of(command)):
        _execute(self, args, *more)
        return
    asked = _SIGNATURE.bind(self, args, *more).arguments
    pid = os.fork()
    if not pid:
        _become(module, command[4:], asked)
    self.pid = pid
    self._child_created = True  # type: ignore[attr-defined]
    self._close_pipe_fds(*(asked[name] for name in _PIPES))  # type: ignore[attr-defined]


def _become(module: str, arguments: Sequence[str], asked: Mapping[str, Any]) -> NoReturn:
    """Be what the command would be, in the fork of a process that may have threads."""
    code = 1
    try:
        gc.freeze()  # nothing of the parent's is taken apart here
        atexit._clear()
        signal.set_wakeup_fd(-1)
        _reset_signals()
        if asked["process_group"] >= 0:
            os.setpgid(0, asked["process_group"])
        for number, name in enumerate(("p2cread", "c2pwrite", "errwrite")):
            if asked[name] >= 0:
                os.dup2(asked[name], number)
        for fd in [int(each) for each in os.listdir("/proc/self/fd")]:  # noqa: PTH208 - names alone
            if fd > 2 and fd not in asked["pass_fds"]:
                with suppress(OSError):
                    os.close(fd)
        Path("/proc/self/comm").write_text("python")
        if asked["env"] is not None:
            given = dict(asked["env"])
            os.environ.clear()
            os.environ.update(given)
        _open_streams()
        _reset_logging()
        _forget()
        sys.argv = [module, *arguments]
        code = _code_of(import_module(module).main)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _open_streams() -> None:
    """As the interpreter does where PYTHONUNBUFFERED is set."""
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), "utf-8", errors, write_through=True)  # type: ignore[arg-type]
        for fd, errors in ((1, "strict"), (2, "backslashreplace"))
    )


def _reset_logging() -> None:
    """Nobody logs anywhere, as at the start of a process."""
    root = logging.getLogger()
    for logger in [root, *map(logging.getLogger, list(root.manager.loggerDict))]:
        logger.handlers.clear()
        logger.filters.clear()
        logger.setLevel(logging.WARNING if logger is root else logging.NOTSET)
        logger.propagate = True


def _forget() -> None:
    """What functions of ours keep, as the configuration that the parent was given, is not this process's."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "urlward":
            for each in vars(module).values():
                if isinstance(each, _lru_cache_wrapper):
                    each.cache_clear()


def _keep_authority(folder: Path) -> None:
    """Have the key of a CA at hand, for whoever is made by a fork from here on."""
    path = folder / "mitmproxy-ca.pem"
    with suppress(OSError, ValueError):
        if path.is_file():  # a test may have put a pipe there, which nobody writes
            serialization.load_pem_private_key(path.read_bytes(), None)


def main() -> None:
    """Answer messages until whoever started this has ended."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(channel.fileno(), False)
    sys.path[0] = str(Path(__file__).parent.parent)
    # Each process of a filter checks the key of its CA some times, and each worker makes its block page.
    serialization.load_pem_private_key = cache(serialization.load_pem_private_key)
    for module in _MODULES:
        import_module(module)
    import_module("urlward.proxy.block_page").load_templates(None)
    gc.freeze()  # collections in those that are made leave what they share alone
    lines = channel.makefile("rw", encoding="utf-8")
    for line in lines:
        asked = json.loads(line)
        if "--confdir" in asked.get("start", ()):
            _keep_authority(Path(asked["start"][asked["start"].index("--confdir") + 1]))
        answer = _start(asked, channel.fileno()) if "start" in asked else _poll(asked["poll"])
        lines.write(json.dumps(answer) + "\n")
        lines.flush()


if __name__ == "__main__":
    main()
