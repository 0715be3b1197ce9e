"""One client that asks for much at once, and another that is served meanwhile.

What that costs the other is measured by hand (`e2e.bursts`).
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.bursts import ATTACKS, GREEDY, MODEST, Ports, attacked, connect, get
from e2e.support import Filter, Nginx, RawOrigin, read_response, running
from e2e.test_workers import workers_of

FINE = get(b"/", "fine.example")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, nginx_server: Nginx) -> Iterator[Filter]:
    modes = [
        f"reverse:http://127.0.0.1:{nginx_server.http}",
        "regular",
        f"reverse:https://127.0.0.1:{nginx_server.https}",
    ]
    arguments = ("--workers", "1", "--set", "ssl_insecure=true")
    with running(tmp_path_factory.mktemp("bursts"), *arguments, modes=modes) as proxy:
        yield proxy


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_served_meanwhile(proxy: Filter, name: str) -> None:
    workers = workers_of(proxy)
    ports = Ports(*proxy.ports)
    with attacked(name, ports), connect(ports.reverse, MODEST) as kept:
        for _ in range(100):
            kept.sendall(FINE)
            assert read_response(kept).status == 200
        for _ in range(20):
            with connect(ports.reverse, MODEST) as new:
                new.sendall(FINE)
                assert read_response(new).status == 200
    assert workers_of(proxy) == workers, "none has been taken to hang"


def drip(connection: socket.socket) -> None:
    """An answer that never ends, a byte now and then, for who asks for it."""
    while data := connection.recv(1 << 16):
        if b"GET /slow" in data:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            threading.Event().wait(0.5)
            with suppress(OSError):
                while True:
                    connection.sendall(b"x")
                    threading.Event().wait(0.5)
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\norigin\n")


@contextmanager
def downloading(port: int, connections: int) -> Iterator[None]:
    """One client with so many connections, by each of which something comes slowly, again and again."""
    ends = threading.Event()

    def one() -> None:
        while not ends.is_set():
            with suppress(OSError), connect(port, GREEDY) as s:
                s.settimeout(1)
                s.sendall(get(b"/slow", "fine.example"))
                while not ends.is_set():
                    with suppress(TimeoutError):
                        if not s.recv(1 << 10):
                            break

    threads = [threading.Thread(target=one, daemon=True) for _ in range(connections)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        ends.set()
        for each in threads:
            each.join()


def test_who_holds_most_makes_room(tmp_path: Path) -> None:
    with RawOrigin(drip) as origin, ExitStack() as stack:
        proxy = stack.enter_context(
            running(
                tmp_path,
                modes=[f"reverse:http://127.0.0.1:{origin.port}"],
                prefix=["prlimit", "--nofile=320:320"],
            )
        )
        kept = [stack.enter_context(connect(proxy.port, MODEST)) for _ in range(5)]
        for each in kept:
            each.sendall(FINE)
            assert read_response(each).status == 200
        stack.enter_context(downloading(proxy.port, 200))
        wait_for(lambda: "the limit is 320 files" in proxy.log(), "a shortage")
        for _ in range(20):
            with connect(proxy.port, MODEST) as new:
                new.sendall(FINE)
                assert read_response(new).status == 200
        for each in kept:
            each.sendall(FINE)
            assert read_response(each).status == 200
