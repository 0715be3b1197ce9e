"""What is listed while it is under way is cut soon, and the log says so."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from conftest import Stopwatch, wait_for
from e2e.conftest import trust
from e2e.support import (
    LIST,
    TIMEOUT,
    Authority,
    Filter,
    RawOrigin,
    connect,
    read_response,
    running,
    socks,
    tunnel,
)
from e2e.test_http2 import encrypted
from e2e.test_websocket import echo

A_WHILE = 1.0
"""Seconds from the list's taking effect in which what is cut has long ended."""


@pytest.fixture(scope="module")
def changed(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    """A filter whose list the module's tests change, one after the other."""
    folder = tmp_path_factory.mktemp("cut")
    with running(folder, *trust(authority), modes=("regular", "socks5")) as proxy:
        yield proxy


@pytest.fixture
def own(changed: Filter) -> Iterator[Filter]:
    """The same, with the list that it began with."""
    if changed.list_file.read_text() != LIST:
        put(changed, LIST)
    yield changed
    changed.check_log()


def add(proxy: Filter, line: str) -> None:
    put(proxy, f"{LIST}{line}\n")


def put(proxy: Filter, text: str) -> None:
    before = proxy.log().count(" in force, ")
    new = proxy.list_file.with_suffix(".new")
    new.write_text(text)
    new.replace(proxy.list_file)
    wait_for(lambda: proxy.log().count(" in force, ") > before, "the list to take effect")


def cut_lines(proxy: Filter) -> list[str]:
    """The entries that have cut something, in order."""
    return re.findall(r" cut client=\S+ list=list entry=(\S+) ", proxy.log())


def ends(s: socket.socket, *, soon: bool = True) -> bool:
    """Whether a stream ends that would go on for ever; where it is to, it has all the time that it needs."""
    seconds = TIMEOUT if soon else A_WHILE
    s.settimeout(0.1)
    watch = Stopwatch(seconds)
    while watch.seconds() < seconds:
        try:
            if not s.recv(1 << 16):
                return True
        except TimeoutError:
            continue
        except (ConnectionError, ssl.SSLError):
            return True
    return False


def endless(connection: socket.socket) -> None:
    """An origin that answers with a stream."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"5\r\nhello\r\n")
        time.sleep(0.02)


def request(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: plain.example\r\n\r\n".encode()


def by_socks(proxy: Filter, port: int) -> socket.socket:
    s = socks(proxy.ports[1], "plain.example", port)
    s.sendall(request("/stream"))
    return s


def by_connect(proxy: Filter, port: int) -> socket.socket:
    s = tunnel(proxy.port, f"plain.example:{port}")
    s.sendall(request("/stream"))
    return s


def explicit(proxy: Filter, port: int) -> socket.socket:
    s = connect(proxy.port)
    s.sendall(request(f"http://plain.example:{port}/stream"))
    return s


@pytest.mark.parametrize("way", [by_socks, by_connect, explicit])
@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("http://plain.example/stream id=C-1", True),
        ("plain.example id=C-2", True),
        ("http://plain.example/other id=C-3", False),
    ],
)
def test_a_stream(own: Filter, way: Callable[[Filter, int], socket.socket], line: str, cut: bool) -> None:
    before = len(cut_lines(own))
    with RawOrigin(endless) as raw, way(own, raw.port) as s:
        assert s.recv(12) == b"HTTP/1.1 200"
        add(own, line)
        assert ends(s, soon=cut) is cut
        assert cut_lines(own)[before:] == ([line.rpartition("=")[2]] if cut else [])


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("http://paged.example/listed-later id=C-1", True),
        ("http://paged.example/other id=C-2", False),
        ("127.0.0.1 id=C-3", True),
    ],
)
def test_a_stream_inside_intercepted_tls(own: Filter, authority: Authority, line: str, cut: bool) -> None:
    context = authority.client_context(own.ca)
    with (
        RawOrigin(encrypted(authority, endless)) as raw,
        socks(own.ports[1], "127.0.0.1", raw.port) as plain,
        context.wrap_socket(plain, server_hostname="paged.example") as s,
    ):
        s.sendall(b"GET /listed-later HTTP/1.1\r\nHost: paged.example\r\n\r\n")
        assert s.recv(12) == b"HTTP/1.1 200"
        add(own, line)
        assert ends(s, soon=cut) is cut


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("plain.example id=C-1", True),
        ("http://plain.example/any.html id=C-2", True),
        ("other.example id=C-3", False),
    ],
)
def test_tls_that_is_relayed(own: Filter, authority: Authority, line: str, cut: bool) -> None:
    context, before = authority.client_context(), len(cut_lines(own))
    with (
        RawOrigin(encrypted(authority, endless)) as raw,
        socks(own.ports[1], "127.0.0.1", raw.port) as plain,
        context.wrap_socket(plain, server_hostname="plain.example") as s,
    ):
        s.sendall(b"GET /slow HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        assert s.recv(12) == b"HTTP/1.1 200"
        add(own, line)
        assert ends(s, soon=cut) is cut
        assert (len(cut_lines(own)) > before) is cut


def test_a_websocket(own: Filter) -> None:
    with RawOrigin(echo) as raw, socks(own.ports[1], "plain.example", raw.port) as s:
        s.sendall(
            b"GET /chat HTTP/1.1\r\nHost: plain.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert s.recv(12) == b"HTTP/1.1 101"
        add(own, "http://plain.example/chat id=C-1")
        assert ends(s)


def test_an_upload(own: Filter, raw: RawOrigin) -> None:
    with socks(own.ports[1], "plain.example", raw.port) as s:
        s.sendall(b"PUT /up HTTP/1.1\r\nHost: plain.example\r\nContent-Length: 1000000000\r\n\r\n")
        stop = threading.Event()

        def send() -> None:
            try:
                while not stop.is_set():
                    s.sendall(b"x" * 1000)
                    time.sleep(0.01)
            except OSError:
                return

        thread = threading.Thread(target=send)
        thread.start()
        try:
            add(own, "http://plain.example/up id=C-1")
            wait_for(lambda: not thread.is_alive(), "the upload to be cut")
        finally:
            stop.set()
            thread.join()


def test_a_connection_at_rest_is_left_alone(own: Filter, raw: RawOrigin) -> None:
    with socks(own.ports[1], "plain.example", raw.port) as s:
        s.sendall(request("/stream"))
        assert read_response(s).status == 200
        add(own, "http://plain.example/stream id=C-1")
        time.sleep(A_WHILE)
        s.sendall(request("/other"))
        assert read_response(s).status == 200
        s.sendall(request("/stream"))
        assert read_response(s).status == 451
