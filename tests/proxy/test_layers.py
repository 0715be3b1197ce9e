"""The layers, events in and commands out; what sockets do to them is in tests/e2e."""

import asyncio
import gc
import socket
from types import SimpleNamespace
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HTTPMode

from proxy.driver import Driver, make_context, nobody, refused
from proxy.rig import LONG
from proxy.test_guard import broken, guard
from proxy.test_http_layer import relay_layer
from proxy.test_names import to
from rows import each_row
from urlward.config import ProxyTable
from urlward.config.proxy import PacTable
from urlward.proxy.access import Access, Authentication
from urlward.proxy.layers import (
    MAX_HEAD,
    CloseLayer,
    Handshake,
    ListedAddress,
    RefuseTlsLayer,
    Undecided,
    WardHttpLayer,
    WardHttpStream,
)
from urlward.proxy.live import Live

ALERT = bytes([21, 3, 3, 0, 2, 2, 49])


def stream_bodies(hook: commands.StartHook) -> None:
    """What the addon's hooks do."""
    if hook.name == "requestheaders" and not hook.flow.response:  # type: ignore[attr-defined]
        hook.flow.request.stream = True  # type: ignore[attr-defined]
    if hook.name == "responseheaders" and hook.flow.metadata.get("urlward") != "answered":  # type: ignore[attr-defined]
        hook.flow.response.stream = True  # type: ignore[attr-defined]


def http(
    context: Context | None = None,
    mode: HTTPMode = HTTPMode.regular,
    live: Live | None = None,
    **changes: str,
) -> Driver:
    return Driver(
        WardHttpLayer(context or make_context(), mode, guard(), live or Live(), nobody),
        on_hook=stream_bodies,
        **changes,  # type: ignore[arg-type]
    )


def get(host: str, path: str = "/", more: str = "", method: str = "GET") -> bytes:
    return f"{method} http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def test_a_blocked_request_opens_nothing() -> None:
    driver = http()
    driver.receive(get("blocked.example"))
    assert driver.to_client.startswith(b"HTTP/1.1 451 Unavailable For Legal Reasons\r\n")
    assert b"Connection: close" not in driver.to_client
    assert (driver.opened, driver.closed, driver.wakeups) == ([], [], [])
    assert driver.hooks == ["requestheaders", "responseheaders", "response"]


def test_a_passing_request_is_sent_on() -> None:
    driver = http()
    driver.receive(get("plain.example"))
    assert driver.to_server == b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"
    driver.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", driver.opened[0])
    assert driver.to_client == b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"
    driver.receive(b"def", driver.opened[0])
    assert driver.to_client.endswith(b"\r\n\r\nabcdef")


def test_a_request_body_is_sent_on_as_it_comes() -> None:
    driver = http()
    driver.receive(get("plain.example", more="Content-Length: 6\r\n", method="POST") + b"abc")
    assert driver.to_server.endswith(b"\r\n\r\nabc")
    driver.receive(b"def")
    assert driver.to_server.endswith(b"\r\n\r\nabcdef")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_content_that_an_origin_may_take_for_a_request(method: str) -> None:
    inner = b"--batch\r\n\r\nGET /listed HTTP/1.1\r\nHost: plain.example\r\n\r\n"
    judge = guard()
    layer = WardHttpLayer(make_context(), HTTPMode.regular, judge, Live(), nobody)
    driver = Driver(layer, on_hook=stream_bodies)
    head = get("plain.example", more=f"Content-Length: {len(inner)}\r\n", method=method)
    driver.receive(head + inner[:20])
    driver.receive(inner[20:])
    has_meaning = method == "POST"
    assert (inner in driver.to_server) == has_meaning
    assert (driver.client in driver.closed) != has_meaning
    assert refused(judge) == (not has_meaning)


@pytest.mark.parametrize("framing", ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_block_does_not_wait_for_the_body(framing: str) -> None:
    driver = http()
    driver.receive(get("blocked.example", more=framing, method="POST"))
    assert b"\r\nConnection: close\r\n" in driver.to_client
    assert driver.closed == []
    answer = driver.to_client
    driver.receive(b"5\r\nabcde\r\n")
    driver.wake()
    assert driver.closed == [driver.client]
    assert driver.to_client == answer


def test_a_body_that_ends_ends_the_connection() -> None:
    driver = http()
    driver.receive(get("blocked.example", more="Content-Length: 3\r\n", method="POST"))
    driver.receive(b"abc")
    assert driver.closed == [driver.client]
    driver.wake()
    assert driver.closed.count(driver.client) >= 1


def test_a_client_that_leaves_during_the_body() -> None:
    driver = http()
    driver.receive(get("blocked.example", more="Content-Length: 3\r\n", method="POST"))
    driver.close()
    driver.wake()
    assert driver.client in driver.closed


def test_an_answered_stream_is_forgotten() -> None:
    driver = http()
    top = driver.top
    assert isinstance(top, WardHttpLayer)
    for _ in range(3):
        driver.receive(get("blocked.example"))
    assert top.streams == {}
    assert top.command_sources == {}
    gc.collect()
    assert not [
        o for o in gc.get_objects() if isinstance(o, WardHttpStream) and o.context.client is driver.client
    ]


def test_a_refused_head_closes() -> None:
    driver = http()
    driver.receive(b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n")
    assert driver.to_client.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert driver.closed == [driver.client]
    assert driver.opened == []


def test_a_head_that_mitmproxy_refuses_is_answered_once() -> None:
    driver = http()
    driver.receive(
        b"POST http://blocked.example/ HTTP/1.1\r\nHost: blocked.example\r\nContent-Length: x\r\n\r\n"
    )
    assert driver.to_client.count(b"HTTP/1.1 ") == 1
    assert driver.to_client.startswith(b"HTTP/1.1 400 ")
    assert (driver.hooks, driver.opened) == ([], [])


def test_a_fault_blocks() -> None:
    driver = Driver(
        WardHttpLayer(make_context(), HTTPMode.regular, broken(), Live(), nobody), on_hook=stream_bodies
    )
    driver.receive(get("plain.example"))
    assert driver.to_client.startswith(b"HTTP/1.1 503 ")
    assert driver.opened == []


def test_an_address_that_is_listed_gets_nothing_of_the_request() -> None:
    driver = http(peer="192.0.2.66")
    driver.receive(get("plain.example"))
    assert driver.to_client.startswith(b"HTTP/1.1 451 ")
    assert driver.to_server == b""


UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@each_row(
    ("more", "answer", "goes_on"),
    [
        ("", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", True),
        ("", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", False),
        (UPGRADE, SWITCH, True),
    ],
)
def test_what_goes_on_is_judged_again_by_its_names_and_address(
    more: str, answer: bytes, goes_on: bool
) -> None:
    live = Live()
    driver = http(live=live)
    driver.receive(get("plain.example", more=more))
    driver.receive(answer, driver.opened[0])
    found = [(names.hosts, names.address) for member in live for names in member.live()]
    assert found == [(("plain.example",), "203.0.113.10")] * goes_on


@pytest.mark.parametrize("body", [True, False])
def test_an_address_that_was_found_listed_before_connecting(body: bool) -> None:
    driver = http(refuse=ListedAddress("192.0.2.66"))
    more, method = ("Content-Length: 3\r\n", "POST") if body else ("", "GET")
    driver.receive(get("plain.example", more=more, method=method))
    assert driver.to_client.startswith(b"HTTP/1.1 451 ")
    assert (b"\r\nConnection: close\r\n" in driver.to_client) is body


def test_a_connection_that_fails_is_a_bad_gateway() -> None:
    for refuse in ("refused", ListedAddress("192.0.2.7")):
        driver = http(refuse=refuse)
        driver.receive(get("plain.example"))
        assert driver.to_client.startswith(b"HTTP/1.1 502 ")


def test_connect() -> None:
    driver = http()
    driver.receive(b"CONNECT blocked.example:443 HTTP/1.1\r\n\r\n")
    assert driver.to_client.startswith(b"HTTP/1.1 451 ")
    driver = http()
    driver.receive(b"CONNECT plain.example:443 HTTP/1.1\r\n\r\n")
    assert driver.to_client.startswith(b"HTTP/1.1 200 ")
    assert driver.opened == []


@each_row("mode", [HTTPMode.regular, HTTPMode.upstream])
@each_row(
    ("request_line", "status"),
    [("GET /proxy.pac?x", b"200 OK"), ("GET /", b"400 Bad Request"), ("GET http://plain.example/", b"")],
)
def test_the_proxys_own_pages(mode: HTTPMode, request_line: str, status: bytes) -> None:
    """A browser without the file goes past the filter."""
    access = Access(ProxyTable(pac=PacTable(proxies=["proxy.example:8080"])))
    own = Authentication(SimpleNamespace(access=access))

    def ask(command: commands.StartHook) -> None:
        stream_bodies(command)
        if command.name == "requestheaders":
            with pytest.raises(StopIteration):
                own.requestheaders(command.flow).send(None)  # type: ignore[attr-defined]

    context = make_context("upstream:http://next.example" if mode is HTTPMode.upstream else "regular")
    driver = Driver(WardHttpLayer(context, mode, guard(), Live(), nobody), on_hook=ask)
    driver.receive(f"{request_line} HTTP/1.1\r\nHost: proxy.example:8080\r\n\r\n".encode())
    assert driver.to_client.startswith(b"HTTP/1.1 " * bool(status) + status)
    assert bool(driver.opened) is not bool(status)
    assert (b"FindProxyForURL" in driver.to_client) is (status == b"200 OK")


def test_another_addons_answer_to_a_streamed_request() -> None:
    """mitmproxy would raise, and leave the client without one."""
    from mitmproxy.http import Response

    def answer(hook: commands.StartHook) -> None:
        if hook.name == "requestheaders":
            hook.flow.request.stream = True  # type: ignore[attr-defined]
            hook.flow.response = Response.make(418)  # type: ignore[attr-defined]

    driver = Driver(WardHttpLayer(make_context(), HTTPMode.regular, guard(), Live(), nobody), on_hook=answer)
    driver.receive(get("plain.example", more="Content-Length: 3\r\n", method="POST") + b"abc")
    assert driver.to_client.startswith(b"HTTP/1.1 418 ")
    assert driver.opened == []


@each_row(("hook", "body"), [("requestheaders", "abc"), ("requestheaders", ""), ("request", "")])
@each_row(
    "changes",
    [
        {"path": "/listed", "host_header": "paged.example"},
        {"host": "blocked.example"},
        {"url": "http://paged.example/listed"},
        {"url": "http://other.example/", "host_header": "www.other.example"},
    ],
)
def test_what_another_addon_makes_of_a_request_is_judged(
    hook: str, body: str, changes: dict[str, str]
) -> None:
    def change(command: commands.StartHook) -> None:
        stream_bodies(command)
        if command.name == hook:
            for name, value in changes.items():
                setattr(command.flow.request, name, value)  # type: ignore[attr-defined]

    driver = Driver(WardHttpLayer(make_context(), HTTPMode.regular, guard(), Live(), nobody), on_hook=change)
    driver.receive(
        get("plain.example", more=f"Content-Length: {len(body)}\r\n", method="POST") + body.encode()
    )
    if changes.get("url") == "http://other.example/":
        assert driver.to_server.startswith(b"POST / HTTP/1.1\r\nHost: www.other.example\r\n")
    else:
        assert driver.to_client.startswith(b"HTTP/1.1 451 ")
        assert driver.opened == []


# -- HTTP/1 connections


def test_empty_lines_before_a_request() -> None:
    driver = http()
    driver.receive(b"\r\n\r\n\r\n" + get("blocked.example"))
    assert driver.to_client.startswith(b"HTTP/1.1 451 ")


def test_a_head_without_end() -> None:
    driver = http()
    driver.receive(b"GET http://plain.example/ HTTP/1.1\r\nX: ")
    driver.receive(b"a" * (MAX_HEAD - 1000))
    assert driver.closed == []
    driver.receive(b"a" * 1000)
    assert driver.to_client.startswith(b"HTTP/1.1 431 ")
    assert driver.closed == [driver.client]


def test_a_response_head_without_end() -> None:
    driver = http()
    driver.receive(get("plain.example"))
    driver.receive(b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD, driver.opened[0])
    assert driver.to_client.startswith(b"HTTP/1.1 502 ")
    assert driver.opened[0] in driver.closed


@each_row("begin", [b"0\r\nX: ", b"5;", b"0"])
def test_chunks_of_a_response_hold_no_more_than_a_head(begin: bytes) -> None:
    driver = http()
    driver.receive(get("plain.example"))
    driver.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + begin, driver.opened[0])
    driver.receive(b"0" * (MAX_HEAD - 1000), driver.opened[0])
    assert driver.closed == []
    driver.receive(b"0" * 1100, driver.opened[0])
    assert driver.opened[0] in driver.closed
    assert driver.client in driver.closed


def test_interim_responses_without_end() -> None:
    driver = http()
    driver.receive(get("plain.example"))
    for _ in range(20):
        driver.receive(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100, driver.opened[0])
    assert driver.to_client.startswith(b"HTTP/1.1 502 ")
    assert driver.opened[0] in driver.closed


@each_row("cut", range(1, 60, 7))
def test_interim_responses(cut: int) -> None:
    driver = http()
    driver.receive(get("plain.example"))
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    driver.receive(answer[:cut], driver.opened[0])
    driver.receive(answer[cut:], driver.opened[0])
    assert driver.to_client == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    driver.receive(get("plain.example"))
    assert driver.to_server.count(b"GET / ") == 2


def test_trailers() -> None:
    driver = http()
    chunked = "Transfer-Encoding: chunked\r\n"
    driver.receive(get("plain.example", more=chunked, method="POST") + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert driver.to_server.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n")
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-End: 2\r\n\r\n"
    driver.receive(answer, driver.opened[0])
    assert driver.to_client == answer.replace(b"X-End", b"x-end")
    # A message without trailers follows.
    driver.receive(get("plain.example", more=chunked, method="POST") + b"0\r\n\r\n")
    assert driver.to_server.endswith(b"\r\n\r\n0\r\n\r\n")


# -- HTTP/2


class Http2:
    """A client's side of an HTTP/2 connection to a layer."""

    def __init__(self) -> None:
        context = make_context()
        context.client.alpn = b"h2"
        self.driver = http(context)
        config = h2.config.H2Configuration(validate_outbound_headers=False)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.driver.receive(self.connection.data_to_send())

    def start(self, host: str, end: bool = True, path: str = "/") -> int:
        stream = self.connection.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", host), (":path", path)]
        self.connection.send_headers(stream, head, end_stream=end)
        self.flush()
        return stream

    def events(self) -> list[h2.events.Event]:
        data = self.driver.sent.pop(self.driver.client, b"")
        return list(self.connection.receive_data(data))


def test_http2_streams_are_answered_apart() -> None:
    client = Http2()
    client.start("blocked.example")
    passing = client.start("plain.example")
    heads = [e for e in client.events() if isinstance(e, h2.events.ResponseReceived)]
    assert [(e.stream_id, dict(e.headers)[b":status"]) for e in heads or []] == [(1, b"451")]
    assert b"connection" not in dict(heads[0].headers)
    assert client.driver.to_server.startswith(b"POST / HTTP/1.1\r\n")
    client.driver.receive(b"HTTP/1.1 204 No Content\r\n\r\n", client.driver.opened[0])
    (head,) = [e for e in client.events() if isinstance(e, h2.events.ResponseReceived)]
    assert head.stream_id == passing


def test_an_http2_block_does_not_wait_for_the_body() -> None:
    client = Http2()
    stream = client.start("blocked.example", end=False)
    events = client.events()
    assert any(isinstance(e, h2.events.StreamEnded) for e in events)
    client.driver.wake()
    (reset,) = [e for e in client.events() if isinstance(e, h2.events.StreamReset)]
    assert reset.stream_id == stream
    assert client.driver.closed == []


def test_an_http2_body_without_a_length_is_framed() -> None:
    client = Http2()
    stream = client.start("plain.example", end=False)
    client.connection.send_data(stream, b"GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n", end_stream=True)
    client.flush()
    head, _, body = client.driver.to_server.partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked" in head
    assert body.startswith(b"29\r\nGET / ")
    assert body.endswith(b"\r\n0\r\n\r\n")


# -- other layers


def test_refusing_tls() -> None:
    driver = Driver(RefuseTlsLayer(to("203.0.113.10", 443)))
    assert (driver.to_client, driver.closed, driver.opened) == (ALERT, [driver.client], [])


def test_closing() -> None:
    driver = Driver(CloseLayer(to("203.0.113.10", 443)))
    assert (driver.to_client, driver.closed) == (b"", [driver.client])


def test_undecided_waits_and_loses_nothing() -> None:
    asked: list[bytes] = []

    def decide(nextlayer: layer.NextLayer) -> None:
        asked.append(nextlayer.data_client())
        if len(nextlayer.data_client()) >= 3:
            nextlayer.layer = relay_layer(nextlayer.context)

    driver = Driver(Undecided(to("203.0.113.10", 443), decide))
    for piece in (b"a", b"b", b"c", b"d"):
        driver.receive(piece)
    assert asked == [b"a", b"ab", b"abc"]
    assert driver.to_server == b"abcd"
    assert driver.hooks == [], "mitmproxy's own addon is not asked"


def test_undecided_and_then_closed() -> None:
    driver = Driver(Undecided(to("203.0.113.10", 443), lambda _: None))
    driver.receive(b"a")
    driver.close()
    assert driver.closed == [driver.client]


async def test_a_cut_takes_back_what_the_system_has_yet_to_send() -> None:
    client, ours = make_context().client, socket.create_server(("127.0.0.1", 0))
    with ours, socket.create_connection(ours.getsockname()) as theirs:
        reader, writer = await asyncio.open_connection(sock=ours.accept()[0])
        handler = asyncio.create_task(reader.read())
        io = SimpleNamespace(writer=writer, handler=handler)
        writer.write(bytes(1 << 24))
        carries: Any = SimpleNamespace(client=client, transports={client: io})
        Handshake(client, lambda _: carries).cut()
        await asyncio.wait([handler])
        theirs.settimeout(LONG)
        with pytest.raises(ConnectionResetError):
            b"".join(iter(lambda: theirs.recv(1 << 16), b""))
