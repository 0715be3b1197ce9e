"""Valkey and Sentinel, the real ones, on loopback; each in a folder of its own, and ended by its id."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from conftest import free_port, wait_for

PATIENCE = 60.0
BINARIES = ("valkey-server", "valkey-sentinel")
HAS_VALKEY = all(shutil.which(name) for name in BINARIES)


class Server:
    """A server.

    Args:
        folder: for its files.
        options: of its command line, besides.
        port: where it listens; 0 for one that is free.
        sentinel: lines of its configuration, of a Sentinel.
        listens: the line of it that says the port.
    """

    def __init__(
        self, folder: Path, *options: str, port: int = 0, sentinel: str = "", listens: str = "port {port}"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self._options = options
        self._sentinel = sentinel
        self._listens = listens.format(port=self.port)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    def start(self) -> "Server":
        if self._sentinel:
            path = self.folder / "sentinel.conf"
            if not path.exists():
                path.write_text(f"{self._listens}\nbind 127.0.0.1\ndir {self.folder}\n{self._sentinel}")
            command = ["valkey-sentinel", str(path)]
        else:
            command = [
                "valkey-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *self._options,
            ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._stopped = False
        wait_for(self._answers, "a server to start")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "a server has not started"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.plain_port), PATIENCE).close()
            return True
        return False

    @property
    def plain_port(self) -> int:
        return self.port

    def run(self, *command: str | bytes | int) -> Any:
        """Run a command over a connection of its own; only simple replies, as text."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as s:
            parts = [one if isinstance(one, bytes) else str(one).encode() for one in command]
            s.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
            with s.makefile("rb") as answer:
                return _reply(answer)

    def stop(self) -> None:
        """Have it hang."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        self._stopped = True

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)
        self._stopped = False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _reply(answer: Any) -> Any:
    line = answer.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    if kind == b"*":
        return [_reply(answer) for _ in range(int(rest))]
    if kind == b"$":
        return None if int(rest) < 0 else answer.read(int(rest) + 2)[:-2]
    return int(rest) if kind == b":" else rest.decode()


@contextmanager
def valkey(folder: Path, *options: str) -> Iterator[Server]:
    """A server of its own."""
    server = Server(folder, *options).start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def with_sentinel(folder: Path) -> Iterator[tuple[Server, Server, Server]]:
    """A primary, its replica, and a Sentinel that watches them."""
    with ExitStack() as stack:
        primary = stack.enter_context(valkey(folder / "primary"))
        replica = stack.enter_context(valkey(folder / "replica", "--replicaof", f"127.0.0.1 {primary.port}"))
        watch = (
            f"sentinel monitor mymaster 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds mymaster {round(1000 * PATIENCE)}\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        sentinel = Server(folder / "sentinel", sentinel=watch).start()
        stack.callback(sentinel.kill)
        wait_for(
            lambda: (
                sentinel.run("SENTINEL", "REPLICAS", "mymaster") and replica.run("ROLE")[3] == b"connected"
            ),
            "the replica",
        )
        yield primary, replica, sentinel


def fail_over(primary: Server, sentinel: Server) -> None:
    """Kill a primary, and have the Sentinel find it out: earlier, one that waits for a processor is none."""
    assert sentinel.run("SENTINEL", "SET", "mymaster", "down-after-milliseconds", 1000) == "OK"
    primary.kill()
