"""HTTP/2: streams are judged one by one, and become HTTP/1 requests that mean the same."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest
from hyperframe.frame import GoAwayFrame
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import Message, TextMessage

from conftest import wait_for
from e2e.support import LIST, TIMEOUT, Authority, Filter, Nginx, RawOrigin, running, tunnel
from e2e.test_websocket import echo

Fields = list[tuple[str, str]]


class Http2:
    """A client of a few lines."""

    def __init__(self, s: ssl.SSLSocket) -> None:
        assert s.selected_alpn_protocol() == "h2"
        self.socket = s
        config = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.flush()
        self.status: dict[int, int] = {}
        self.body: dict[int, bytes] = {}
        self.trailers: dict[int, Fields] = {}
        self.ended: dict[int, str] = {}
        self.goaway: int | None = None
        self.lasts: list[int] = []
        # The library would hear nothing more of the streams that go on.
        self.connection._frame_dispatch_table[GoAwayFrame] = self._told

    def _told(self, frame: GoAwayFrame) -> tuple[list[object], list[object]]:
        self.goaway = frame.error_code
        self.lasts.append(frame.last_stream_id)
        return [], []

    def flush(self) -> None:
        self.socket.sendall(self.connection.data_to_send())

    def start(
        self,
        authority: str,
        path: str = "/",
        method: str = "GET",
        end: bool = True,
        more: Fields | None = None,
    ) -> int:
        stream = self.connection.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
        self.connection.send_headers(stream, head + (more or []), end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        self.connection.send_data(stream, data, end_stream=end)
        self.flush()

    def receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed")
        for event in self.connection.receive_data(data):
            stream: int = getattr(event, "stream_id", 0) or 0
            if isinstance(event, h2.events.ResponseReceived):
                self.status[stream] = int(dict(event.headers)[":status"])  # type: ignore[arg-type,call-overload]
            elif isinstance(event, h2.events.DataReceived):
                self.body[stream] = self.body.get(stream, b"") + event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers[stream] = event.headers  # type: ignore[assignment]
            elif isinstance(event, h2.events.StreamEnded):
                self.ended[stream] = "ended"
            elif isinstance(event, h2.events.StreamReset):
                self.ended[stream] = "reset"
        self.flush()

    def until_closed(self) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while True:
                self.receive()

    def until_ended(self, *streams: int) -> None:
        while not all(stream in self.ended for stream in streams):
            self.receive()


@contextmanager
def http2(proxy: Filter, authority: Authority, port: int, host: str = "paged.example") -> Iterator[Http2]:
    """A connection that the filter decrypts, to an origin's port."""
    context = authority.client_context(proxy.ca, alpn=["h2", "http/1.1"])
    with tunnel(proxy.port, f"{host}:{port}") as s, context.wrap_socket(s, server_hostname=host) as t:
        yield Http2(t)


@pytest.fixture(scope="module")
def speaker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    trust = f"ssl_verify_upstream_trusted_ca={authority.certificate}"
    with running(tmp_path_factory.mktemp("http2"), "--set", trust) as proxy:
        yield proxy


@pytest.fixture
def proxy(speaker: Filter) -> Iterator[Filter]:
    """A filter that speaks HTTP/2."""
    yield speaker
    speaker.check_log()


@pytest.fixture(params=["h1", "h2"])
def port(request: pytest.FixtureRequest, origin: Nginx) -> int:
    """An origin's port, over HTTP/1 and HTTP/2."""
    return origin.https if request.param == "h1" else origin.h2


def test_one_stream_is_blocked_and_the_others_go_on(
    proxy: Filter, authority: Authority, origin: Nginx, port: int
) -> None:
    with http2(proxy, authority, port) as client:
        before = client.start("paged.example", "/part")
        blocked = client.start("paged.example", "/listed.html")
        other = client.start("blocked.example", "/")
        after = client.start("paged.example", "/other")
        client.until_ended(before, blocked, other, after)
    assert [client.status[s] for s in (blocked, other, before, after)] == [451, 451, 200, 200]
    assert len(client.body[before]) == 1 << 20
    assert client.body[after] == b"origin\n"
    assert sorted(seen["uri"] for seen in origin.requests(2)) == ["/other", "/part"]


def test_streams_share_a_connection_to_an_origin_that_speaks_http2(
    proxy: Filter, authority: Authority, origin: Nginx, port: int
) -> None:
    with http2(proxy, authority, port) as client:
        streams = [client.start("paged.example", f"/{i}") for i in range(60)]
        client.until_ended(*streams)
        assert [client.body[stream] for stream in streams] == [b"origin\n"] * 60
    seen = origin.requests(60)
    connections = {each["connection"] for each in seen}
    if port == origin.h2:
        assert ({each["protocol"] for each in seen}, len(connections)) == ({"HTTP/2.0"}, 1)
    else:
        assert {each["protocol"] for each in seen} == {"HTTP/1.1"}
        assert len(connections) <= 32


def test_a_blocked_upload_is_answered_and_then_cancelled(
    proxy: Filter, authority: Authority, raw: RawOrigin
) -> None:
    with http2(proxy, authority, raw.port) as client:
        stream = client.start("paged.example", "/listed.html", "POST", end=False)
        client.send(stream, b"the first of many")
        client.until_ended(stream)
        assert client.status[stream] == 451
        # Whatever still comes is not wanted.
        while client.ended[stream] != "reset":
            client.receive()
        other = client.start("paged.example", "/dir/x")
        client.until_ended(other)
        assert client.status[other] == 451
    assert raw.connections == 0


def test_a_body_cannot_become_a_request(authority: Authority, proxy: Filter) -> None:
    """An HTTP/2 body needs no length; unframed, an HTTP/1 origin would read it as the next request."""
    body = b"GET /listed.html HTTP/1.1\r\nHost: a.b"  # with its empty line it would be refused
    got = bytearray()
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        with authority_socket(authority, connection) as s:
            while b"Host: a.b" not in got:
                got.extend(s.recv(65536))
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            done.wait(60)

    with RawOrigin(serve) as raw, http2(proxy, authority, raw.port) as client:
        stream = client.start("paged.example", "/post", "POST", end=False)
        client.send(stream, body[:20])
        client.send(stream, body[20:], end=True)
        client.until_ended(stream)
        done.set()
        assert client.body[stream] == b"ok"
    head, _, rest = bytes(got).partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked" in head
    assert not rest.startswith(b"GET")


def authority_socket(authority: Authority, connection: object, *alpn: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if alpn:
        context.set_alpn_protocols(alpn)
    context.load_cert_chain(authority.folder / "origin.pem", authority.folder / "origin.key")
    plain = connection._connection  # type: ignore[attr-defined]
    return context.wrap_socket(plain, server_side=True)


@pytest.mark.parametrize(
    ("path", "method", "more"),
    [
        ("/ HTTP/1.1\r\nHost: blocked.example\r\n\r\nGET /listed.html", "GET", []),
        ("/a b", "GET", []),
        ("/", "GET /listed.html HTTP/1.1\r\nA: b\r\n\r\nGET", []),
        ("/", "GET", [("x", "a\r\nhost: blocked.example")]),
        ("/", "GET", [("x\r\nhost: blocked.example\r\ny", "a")]),
        ("/", "GET", [("host", "paged.example"), ("host", "blocked.example")]),
        ("/", "GET", [("host", "blocked.example")]),
        ("/", "GET", [("transfer-encoding", "chunked")]),
        ("/", "POST", [("content-length", "1"), ("content-length", "2")]),
    ],
)
def test_a_head_that_would_split_is_refused(
    proxy: Filter, authority: Authority, raw: RawOrigin, path: str, method: str, more: Fields
) -> None:
    with http2(proxy, authority, raw.port) as client:
        try:
            stream = client.start("paged.example", path, method, more=more)
            client.until_ended(stream)
        except (ConnectionError, ssl.SSLError):
            pass
        else:
            assert client.ended[stream] == "reset" or client.status[stream] in (400, 451, 502)
    assert bytes(raw.received) == b""


def test_trailers_of_an_http2_client_reach_an_http1_origin(proxy: Filter, authority: Authority) -> None:
    got = bytearray()

    def serve(connection: socket.socket) -> None:
        with authority_socket(authority, connection) as s:
            while b"x-sum: 1" not in got:
                got.extend(s.recv(65536))
            s.sendall(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-End: 2\r\n\r\n"
            )
            s.recv(1)

    with RawOrigin(serve) as raw, http2(proxy, authority, raw.port) as client:
        stream = client.start("paged.example", "/post", "POST", end=False)
        client.send(stream, b"abc")
        client.connection.send_headers(stream, [("x-sum", "1")], end_stream=True)
        client.flush()
        client.until_ended(stream)
        assert client.body[stream] == b"ok"
        assert client.trailers[stream] == [("x-end", "2")]


def test_an_upload_streams_to_both_kinds_of_origin(
    proxy: Filter, authority: Authority, origin: Nginx, port: int
) -> None:
    with http2(proxy, authority, port) as client:
        stream = client.start("paged.example", f"/upload/{port}", "PUT", end=False)
        left = 2 << 20
        while left:
            window = min(client.connection.local_flow_control_window(stream), 16384, left)
            if window > 0:  # what is sent before the settings are known makes it less
                client.send(stream, bytes(window), end=left == window)
                left -= window
            else:
                client.receive()
        client.until_ended(stream)
        assert client.status[stream] in (201, 204)
    assert (origin.folder / "upload" / str(port)).stat().st_size == 2 << 20


def test_streams_leave_nothing_behind(proxy: Filter, authority: Authority, origin: Nginx) -> None:
    with http2(proxy, authority, origin.h2) as client:
        for _ in range(20):
            client.until_ended(client.start("paged.example", "/listed.html"))
        before = proxy.memory()
        for _ in range(300):
            client.until_ended(client.start("paged.example", "/listed.html"))
        assert proxy.memory() - before < 5 << 20
    assert origin.requests() == []


def encrypted(
    authority: Authority, serve: Callable[[ssl.SSLSocket], None], *alpn: str
) -> Callable[[socket.socket], None]:
    """What an origin does inside TLS."""

    def inside(connection: socket.socket) -> None:
        with authority_socket(authority, connection, *alpn) as s:
            serve(s)

    return inside


def test_a_websocket_goes_over_http1(proxy: Filter, authority: Authority) -> None:
    speaker = encrypted(authority, echo, "h2", "http/1.1")
    with RawOrigin(speaker) as raw, http2(proxy, authority, raw.port) as client:
        stream = client.connection.get_next_available_stream_id()
        head = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/chat"),
            (":authority", "paged.example"), ("sec-websocket-version", "13"),
        ]  # fmt: skip
        client.connection.send_headers(stream, head)
        client.flush()
        ws, text, heard = Connection(ConnectionType.CLIENT), "hello " * 1000, ""
        client.send(stream, ws.send(Message(text)))
        seen = 0
        while len(heard) < len(text):
            client.receive()
            body = client.body.get(stream, b"")
            ws.receive_data(body[seen:])
            seen = len(body)
            heard += "".join(cast("str", e.data) for e in ws.events() if isinstance(e, TextMessage))
        assert (client.status[stream], heard) == (200, text)
        blocked = client.start("paged.example", "/listed.html")
        client.until_ended(blocked)
        assert client.status[blocked] == 451


def test_a_list_that_changes_cuts_a_stream(tmp_path: Path, authority: Authority) -> None:
    def endless(s: ssl.SSLSocket) -> None:
        s.recv(65536)
        s.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            s.sendall(b"5\r\nhello\r\n")
            time.sleep(0.02)

    trust = f"ssl_verify_upstream_trusted_ca={authority.certificate}"
    with (
        running(tmp_path, "--set", trust) as own,
        RawOrigin(encrypted(authority, endless)) as raw,
        http2(own, authority, raw.port) as client,
    ):
        listed, other = client.start("paged.example", "/stream"), client.start("paged.example", "/other")
        while not (client.body.get(listed) and client.body.get(other)):
            client.receive()
        new = own.list_file.with_suffix(".new")
        new.write_text(f"{LIST}http://paged.example/stream\n")
        new.replace(own.list_file)
        client.until_ended(listed)
        assert client.ended == {listed: "reset"}
        before = len(client.body[other])
        while len(client.body[other]) < before + 50:
            client.receive()
        wait_for(lambda: own.log().count(" cut ") == 1, "the log to say so")
        own.check_log()


@pytest.mark.parametrize("kind", ["ping", "reset"])
def test_a_flood_ends_its_connection_and_no_other(
    proxy: Filter, authority: Authority, origin: Nginx, kind: str
) -> None:
    def flood(client: Http2) -> bool:
        """Send some of it; whether the connection has ended."""
        for _ in range(500):
            if kind == "ping":
                client.connection.ping(bytes(8))
            else:
                stream = client.connection.get_next_available_stream_id()
                head = [(":method", "GET"), (":scheme", "https"), (":path", "/x")]
                client.connection.send_headers(stream, [*head, (":authority", "a.test")], end_stream=True)
                client.connection.reset_stream(stream)
        try:
            client.socket.settimeout(TIMEOUT)  # what is sent in part would leave a frame without its end
            client.flush()
            client.socket.settimeout(0.1)
            client.receive()
        except TimeoutError:
            return False
        except OSError:
            return True  # with so much unread that the reason may be lost on the way
        return False

    with (
        http2(proxy, authority, origin.https) as normal,
        http2(proxy, authority, origin.https) as client,
        # OpenSSL keeps errors by thread, and the other connection's calls could find one of this one's.
        ThreadPoolExecutor(1) as thread,
    ):
        for _ in range(1000):
            ended = thread.submit(flood, client).result()
            normal.until_ended(normal.start("paged.example", "/"))
            if ended:
                break
        assert ended
        assert client.goaway in (None, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        assert set(normal.status.values()) == {200}
