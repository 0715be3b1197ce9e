"""An nginx over the configuration in a folder, and what it has served, by its access log."""

import itertools
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conftest import accepts, wait_for

_marks = itertools.count()


@contextmanager
def nginx_in(folder: Path, ports: Iterable[int]) -> Iterator[None]:
    """Run nginx by ``nginx.conf`` of a folder, once it listens on some ports of 127.0.0.1."""
    log, ports = folder / "error.log", list(ports)
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-e", str(log), "-c", str(folder / "nginx.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: process.poll() is not None or all(map(accepts, ports)), "nginx")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(60)


class AccessLog:
    """An access log whose lines have the request's target in them, read up to now.

    nginx writes its line in the same turn of its loop in which a client gets the last of its answer, though
    after that. So what a request of our own finds before it is all that anybody has had an answer to, and
    what is not there then has not been served: a test need not hope that a line will come, or will not.

    Args:
        path: of the log.
        port: on 127.0.0.1, of any server of that nginx, plain.
    """

    def __init__(self, path: Path, port: int) -> None:
        self._path = path
        self._port = port
        self._read = 0

    def lines(self) -> list[str]:
        """All of them; where nothing listens, of all the time that something did."""
        mark = f"/read-up-to-{next(_marks)}."
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self._port), 60) as s:
            s.sendall(f"GET {mark} HTTP/1.1\r\nHost: log.test\r\nConnection: close\r\n\r\n".encode())
            while s.recv(1 << 16):
                pass
            wait_for(lambda: mark in self._text(), "a line of nginx's log")
        return [line for line in self._text().splitlines() if "/read-up-to-" not in line]

    def new(self, expected: int = 0) -> list[str]:
        """Those since this was last asked.

        Args:
            expected: so many are waited for, where no client's answer tells that they are there.
        """
        found: list[str] = []

        def arrived() -> bool:
            found[:] = self.lines()[self._read :]
            return len(found) >= expected

        wait_for(arrived, f"{expected} requests at the origin")
        self._read += len(found)
        return found

    def _text(self) -> str:
        text = self._path.read_text() if self._path.exists() else ""
        return text[: text.rfind("\n") + 1]
