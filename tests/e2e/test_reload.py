"""A changed list takes effect under traffic, and nothing that is under way notices."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.support import (
    LIST,
    Filter,
    Nginx,
    connect,
    get,
    read_response,
    running,
    status_of,
)

ADDED = "http://plain.example/added.html id=R-1\n"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Filter]:
    """A filter whose list may be changed."""
    with running(tmp_path) as proxy:
        yield proxy


def replace(proxy: Filter, text: str) -> None:
    new = proxy.list_file.with_suffix(".new")
    new.write_text(text)
    new.replace(proxy.list_file)


class Load:
    """Steady requests over kept and new connections; what is neither 200 nor 451 is a failure."""

    def __init__(self, proxy: Filter, port: int) -> None:
        self._proxy, self._port = proxy, port
        self._stop = threading.Event()
        self.done = 0
        self.failures: list[object] = []
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._kept, self._kept, self._new)
        ]

    def _request(self, s: socket.socket) -> None:
        url = f"http://plain.example:{self._port}/steady"
        s.sendall(f"GET {url} HTTP/1.1\r\nHost: plain.example\r\n\r\n".encode())
        response = read_response(s)
        if (response.status, response.body) != (200, b"origin\n"):
            self.failures.append(response)
        self.done += 1
        time.sleep(0.005)

    def _kept(self) -> None:
        try:
            with connect(self._proxy.port) as s:
                while not self._stop.is_set():
                    self._request(s)
        except OSError as e:
            self.failures.append(e)

    def _new(self) -> None:
        try:
            while not self._stop.is_set():
                with connect(self._proxy.port) as s:
                    self._request(s)
        except OSError as e:
            self.failures.append(e)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)


def test_a_replaced_list_takes_effect_without_a_failed_request(own: Filter, origin: Nginx) -> None:
    added = f"http://plain.example:{origin.http}/added.html"
    assert get(own.port, added).status == 200
    with Load(own, origin.http) as load:
        for i in range(4):
            before = load.done
            replace(own, LIST + (ADDED if i % 2 == 0 else ""))
            expected = 451 if i % 2 == 0 else 200
            wait_for(lambda e=expected: status_of(own.port, added) == e, "the list")  # type: ignore[misc]
            wait_for(lambda b=before: load.done > b + 50, "requests after the change")  # type: ignore[misc]
    assert load.failures == []
    assert load.done > 200


def test_sighup_reloads(own: Filter, origin: Nginx) -> None:
    count = own.log().count(" in force, ")
    for n in range(1, 3):
        own.process.send_signal(signal.SIGHUP)
        wait_for(lambda n=n: own.log().count(" in force, ") >= count + n, "the reload")  # type: ignore[misc]
    assert get(own.port, f"http://blocked.example:{origin.http}/").status == 451


@pytest.mark.parametrize(
    "text", ["", "<html><body>Please log in</body></html>\n", "not a list at all ~~ \n" * 50]
)
def test_a_bad_list_changes_nothing_but_the_log(own: Filter, origin: Nginx, text: str) -> None:
    replace(own, text)
    wait_for(lambda: "last good one stays in force" in own.log(), "the refusal")
    assert get(own.port, f"http://blocked.example:{origin.http}/").status == 451
    assert get(own.port, f"http://plain.example:{origin.http}/").status == 200
