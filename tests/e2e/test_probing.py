"""A client that reads the list out of a filter, over real sockets: told of once, slowed in all, and alone."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest

from conftest import free_port, wait_for
from e2e.support import TIMEOUT, Filter, RawOrigin, Response, read_response, running
from rows import each_row

if TYPE_CHECKING:
    from pathlib import Path

RATE = 10
ENTRIES = 3
CONFIG = f"""
[probing]
entries = {ENTRIES}
window = "10m"
slow = true
rate = {RATE}
"""
LIST = "".join(f"h{n}.example id=P-{n} category=phishing\n" for n in range(20))

_clients = (f"127.0.1.{n}" for n in count(1))


@pytest.fixture(scope="module")
def origin() -> Iterator[RawOrigin]:
    with RawOrigin() as origin:
        yield origin


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, origin: RawOrigin) -> Iterator[Filter]:
    folder: Path = tmp_path_factory.mktemp("probing")
    config = folder / "urlward.toml"
    config.write_text(CONFIG)
    modes = (f"reverse:http://127.0.0.1:{origin.port}@127.0.0.1:{free_port()}", "regular")
    with running(folder, "--config", str(config), text=LIST, modes=modes) as proxy:
        proxy.secrets = ("h0.example", "h1.example")
        yield proxy


class Client:
    """One of an address of its own, in one of the filter's modes."""

    def __init__(self, proxy: Filter, origin: RawOrigin, mode: str) -> None:
        self.address = next(_clients)
        served = "regular" if mode == "tunnel" else mode
        self._port = next(p for p in proxy.ports if f":{p} ({served}" in proxy.log())
        self._authority = f"127.0.0.1:{origin.port}"
        self._absolute = f"http://{self._authority}" if mode == "regular" else ""
        self._connect = f"CONNECT {self._authority} HTTP/1.1\r\n\r\n" if mode == "tunnel" else ""

    def connect(self) -> socket.socket:
        s = socket.create_connection(("127.0.0.1", self._port), TIMEOUT, source_address=(self.address, 0))
        if self._connect:
            s.sendall(self._connect.encode())
            assert read_response(s, "HEAD").status == 200
        return s

    def send(self, s: socket.socket, listed: int | None = None) -> Response:
        """Ask for something that is listed, or for what is not."""
        host, absolute = self._authority, self._absolute
        if listed is not None:
            host = f"h{listed}.example"
            absolute = absolute and f"http://{host}"
        s.sendall(f"GET {absolute}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return read_response(s)

    def ask(self, listed: int | None = None) -> Response:
        """Likewise, on a connection of its own."""
        with self.connect() as s:
            return self.send(s, listed)

    def probe(self) -> None:
        """Draw one block page more than a person would."""
        for entry in range(ENTRIES + 1):
            assert self.ask(entry).status == 451


def seconds_for(client: Client, requests: int) -> float:
    """How long so many take of what is not listed."""
    start = time.monotonic()
    assert [client.ask().status for _ in range(requests)] == [200] * requests
    return time.monotonic() - start


def warnings(proxy: Filter, client: Client) -> int:
    return proxy.log().count(f"probing client={client.address}: block pages of more than {ENTRIES} entries")


@pytest.mark.parametrize("mode", ["reverse", "regular"])
def test_connections_of_who_is_slowed_wait(proxy: Filter, origin: RawOrigin, mode: str) -> None:
    client, other = Client(proxy, origin, mode), Client(proxy, origin, mode)
    client.probe()
    wait_for(lambda: warnings(proxy, client), "the alarm")
    start = time.monotonic()
    # What is listed and what is not, in turn: both wait.
    statuses = [client.ask(n if n % 2 else None).status for n in range(6)]
    slow = time.monotonic() - start
    assert statuses == [200, 451] * 3
    assert slow >= 4 / RATE
    # Were it slowed, none of these would take less than nine moments.
    assert min(seconds_for(other, 10) for _ in range(10)) < 8 / RATE
    assert warnings(proxy, client) == 1
    assert warnings(proxy, other) == 0


@each_row("mode", ["reverse", "regular", "tunnel"])
def test_requests_on_one_connection_wait(proxy: Filter, origin: RawOrigin, mode: str) -> None:
    client = Client(proxy, origin, mode)
    with client.connect() as s:
        assert client.send(s).status == 200
        client.probe()
        start = time.monotonic()
        assert [client.send(s).status for _ in range(6)] == [200] * 6
        assert time.monotonic() - start >= 3 / RATE
    assert warnings(proxy, client) == 1


def test_one_that_is_slowed_can_still_send_much(proxy: Filter, origin: RawOrigin) -> None:
    client = Client(proxy, origin, "reverse")
    client.probe()
    body = bytes(4 << 20)
    with client.connect() as s:
        for _ in range(3):
            s.sendall(f"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            s.sendall(body)
            assert read_response(s).status == 200


def test_connections_that_would_wait_for_too_long_are_closed(proxy: Filter, origin: RawOrigin) -> None:
    client = Client(proxy, origin, "reverse")
    client.probe()
    with ExitStack() as stack:
        held: list[socket.socket] = []
        poll = select.poll()

        def connect(number: int) -> None:
            for _ in range(number):
                held.append(stack.enter_context(client.connect()))
                poll.register(held[-1], select.POLLIN)

        def closed() -> list[socket.socket]:
            ready = {fd for fd, _ in poll.poll(0)}
            return [s for s in held if s.fileno() in ready]

        def are_closed() -> bool:
            if len(closed()) >= 40:
                return True
            connect(5)  # in the place of those whose moment came while these were made
            return False

        connect(20 * RATE + 60)
        wait_for(are_closed, "connections to be closed")
        with suppress(ConnectionError):
            assert closed()[-1].recv(1) == b""
        assert client.send(held[0]).status == 200


def test_who_draws_few_is_left_alone(proxy: Filter, origin: RawOrigin) -> None:
    client = Client(proxy, origin, "reverse")
    for _ in range(10):
        for entry in range(ENTRIES):
            assert client.ask(entry).status == 451
    assert warnings(proxy, client) == 0
