"""HTTP/1 through the filter: what is listed never reaches the origin, what is not passes as it is."""

import socket
import threading
from contextlib import suppress

import pytest

from e2e.support import (
    Authority,
    Filter,
    Nginx,
    RawOrigin,
    ask,
    connect,
    get,
    read_response,
    read_to_end,
    receive,
    settle,
    socks,
    tunnel,
)

MEGABYTE = 1 << 20


def head(host: str, port: int, path: str = "/", method: str = "GET", more: str = "") -> bytes:
    """A request head as an explicit proxy gets it; `more` is further header lines."""
    line = f"{method} http://{host}.example:{port}{path} HTTP/1.1\r\nHost: {host}.example\r\n"
    return f"{line}{more}\r\n".encode()


def test_an_unlisted_page_is_relayed(proxy: Filter, origin: Nginx) -> None:
    response = get(proxy.port, f"http://plain.example:{origin.http}/page?x=1")
    assert (response.status, response.body) == (200, b"origin\n")
    (seen,) = origin.requests(1)
    assert (seen["host"], seen["uri"]) == (f"plain.example:{origin.http}", "/page?x=1")


def test_a_listed_host_never_reaches_its_origin(proxy: Filter, origin: Nginx) -> None:
    response = get(proxy.port, f"http://blocked.example:{origin.http}/any")
    assert response.status == 451
    assert response.headers["cache-control"] == "no-store"
    assert 'rel="blocked-by"' in response.headers["link"]
    assert origin.requests() == []


@pytest.mark.parametrize(
    "target",
    [
        "/listed.html",
        "/listed.html?any",
        "/%6cisted.html",
        "/x/../listed.html",
        "/dir/deep/x",
        "/view?topic=q31337q&x",
    ],
)
def test_a_listed_page_and_no_other_is_blocked(proxy: Filter, origin: Nginx, target: str) -> None:
    assert get(proxy.port, f"http://paged.example:{origin.http}{target}").status == 451
    assert origin.requests() == []
    assert get(proxy.port, f"http://paged.example:{origin.http}/other").status == 200


def test_a_blocked_host_sees_not_even_a_connection(proxy: Filter, raw: RawOrigin) -> None:
    for host in ("blocked.example", "sub.blocked.example", "BLOCKED.example."):
        assert get(proxy.port, f"http://{host}:{raw.port}/").status == 451
    assert get(proxy.port, f"http://any.example:{raw.port}/gallery/do-not-visit/1").status == 451
    assert raw.connections == 0
    assert get(proxy.port, f"http://plain.example:{raw.port}/").status == 200
    assert raw.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        "GET http://plain.example:{port}/ HTTP/1.1\r\nHost: blocked.example\r\n\r\n",
        "GET http://blocked.example:{port}/ HTTP/1.1\r\nHost: plain.example\r\n\r\n",
        "GET http://user:word@blocked.example:{port}/ HTTP/1.1\r\nHost: plain.example\r\n\r\n",
        "GET http://BLOCKED%2eexample:{port}/ HTTP/1.1\r\nHost: plain.example\r\n\r\n",
        "CONNECT blocked.example:{port} HTTP/1.1\r\nHost: plain.example:{port}\r\n\r\n",
        "CONNECT plain.example:{port} HTTP/1.1\r\nHost: blocked.example:{port}\r\n\r\n",
        "GET http://127.0.0.9:{port}/ HTTP/1.1\r\nHost: plain.example\r\n\r\n",
        "GET http://0x7f.9:{port}/ HTTP/1.1\r\nHost: plain.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: blocked.example:{port}\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: blocked.example:{port}\r\n\r\n",
        "\r\n\r\nGET http://blocked.example:{port}/ HTTP/1.1\r\nHost: plain.example\r\n\r\n",
    ],
)
def test_every_name_of_a_request_counts(proxy: Filter, raw: RawOrigin, head: str) -> None:
    response = ask(proxy.port, head.format(port=raw.port))
    assert response.status in (451, 400), response
    assert raw.connections == 0


@pytest.mark.parametrize("host", ["blocked.example", "127.0.0.9"])
def test_connect_to_a_listed_host_gets_the_page_inside_the_tunnel(
    proxy: Filter, authority: Authority, raw: RawOrigin, host: str
) -> None:
    """A browser shows an error in place of what answers its CONNECT."""
    told = proxy.blocks_from_here()
    with (
        tunnel(proxy.port, f"{host}:{raw.port}") as s,
        authority.client_context(proxy.ca).wrap_socket(s, server_hostname=host) as t,
    ):
        t.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert read_response(t).status == 451
    assert len(told()) == 1
    with tunnel(proxy.port, f"{host}:{raw.port}") as s:
        s.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert read_response(s).status == 451
    assert raw.connections == 0


@pytest.mark.parametrize("piece", [1, 2, 3])
def test_a_request_in_tiny_segments(proxy: Filter, raw: RawOrigin, piece: int) -> None:
    with socks(proxy.ports[1], "plain.example", raw.port) as s:
        request = b"GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n"
        for i in range(0, len(request), piece):
            s.sendall(request[i : i + piece])
        assert read_response(s).status == 451
    assert raw.connections == 0


BAD_HEADS = [
    "GET / HTTP/1.1\r\nHost: plain.example\r\nHost: plain.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: plain.example\r\nHost: blocked.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost : plain.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: plain.example\r\nHost : blocked.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: plain.example\r\n .blocked.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: plain.example\r\nX-A: b\r\n Host: blocked.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: plain.example\r\nX-A: b\rHost: blocked.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: plain.example\r\nX-A: b\nHost: blocked.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: plain.example, blocked.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: plain.example:port\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: plain.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: plain.example\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: plain.example\r\nContent-Length: +3\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: plain.example\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: plain.example\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: plain.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET /\r\n\r\n",
    "hello there\r\n\r\n",
    "\x01\x02\x03\x04\r\n\r\n",
]


@pytest.mark.parametrize("head", BAD_HEADS)
def test_a_bad_head_is_refused_and_nothing_is_forwarded(proxy: Filter, raw: RawOrigin, head: str) -> None:
    # By address alone, as in transparent mode.
    with socks(proxy.ports[1], "127.0.0.1", raw.port) as s:
        s.sendall(head.encode("latin-1"))
        answer = read_to_end(s)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer
    assert answer.count(b"HTTP/1.1 ") == 1, "one answer and no more"
    assert bytes(raw.received) == b""


@pytest.mark.parametrize("body", [b"", b"abc"])
@pytest.mark.parametrize("protocol", ["h2c", "websocket, h2c", "TLS/1.0"])
def test_only_websocket_may_be_upgraded_to(proxy: Filter, raw: RawOrigin, body: bytes, protocol: str) -> None:
    more = f"Content-Length: {len(body)}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    more += f"HTTP2-Settings: AAMAAABkAAQ\r\nUpgrade: {protocol}\r\n"
    assert ask(proxy.port, head("plain", raw.port, "/", "POST", more) + body).status == 200
    assert b"upgrade:" not in raw.received.lower()
    assert b"http2-settings:" not in raw.received.lower()


def test_a_bad_chunk_ends_the_request(proxy: Filter, raw: RawOrigin) -> None:
    head = b"POST / HTTP/1.1\r\nHost: plain.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socks(proxy.ports[1], "127.0.0.1", raw.port) as s:
        s.sendall(head + b"3\r\nabc\r\nzz\r\nGET /smuggled HTTP/1.1\r\nHost: blocked.example\r\n\r\n")
        read_to_end(s)
    assert b"smuggled" not in raw.received


def test_keep_alive_goes_on_after_a_block_without_a_body(proxy: Filter, origin: Nginx) -> None:
    with connect(proxy.port) as s:
        for _ in range(3):
            s.sendall(head("blocked", origin.http))
            blocked = read_response(s)
            assert blocked.status == 451
            assert blocked.headers["connection"] == "keep-alive"
            s.sendall(head("plain", origin.http))
            assert read_response(s).body == b"origin\n"
    assert len(origin.requests(3)) == 3


def test_pipelined_requests_are_answered_in_order(proxy: Filter, origin: Nginx) -> None:
    hosts = ["plain", "blocked", "plain", "blocked", "plain"]
    request = "GET http://{0}.example:{1}/ HTTP/1.1\r\nHost: {0}.example\r\n\r\n"
    with connect(proxy.port) as s:
        s.sendall("".join(request.format(host, origin.http) for host in hosts).encode())
        statuses = [read_response(s).status for _ in hosts]
    assert statuses == [200, 451, 200, 451, 200]
    assert len(origin.requests(3)) == 3


def test_head_is_blocked_without_a_body(proxy: Filter, origin: Nginx) -> None:
    with connect(proxy.port) as s:
        for _ in range(2):
            s.sendall(head("blocked", origin.http, "/", "HEAD"))
            response = read_response(s, "HEAD")
            assert response.status == 451
            assert int(response.headers["content-length"]) > 0
            assert response.body == b""


def test_an_http_10_client(proxy: Filter, origin: Nginx) -> None:
    for host, status in (("blocked", b"451"), ("plain", b"200")):
        with connect(proxy.port) as s:
            s.sendall(f"GET http://{host}.example:{origin.http}/ HTTP/1.0\r\n\r\n".encode())
            answer = read_to_end(s)
        assert answer.split(b" ", 2)[1] == status
    assert len(origin.requests(1)) == 1


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: 1000000000\r\n", "Transfer-Encoding: chunked\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"], ids=["", "expect"])
def test_a_block_answers_while_the_body_is_still_coming(
    proxy: Filter, raw: RawOrigin, framing: str, expect: str
) -> None:
    with connect(proxy.port) as s:
        s.sendall(head("blocked", raw.port, "/", "POST", f"{framing}{expect}"))
        response = read_response(s)
        assert response.status == 451
        assert response.headers["connection"] == "close"
        assert s.recv(1) == b"" or not expect
    assert raw.connections == 0


@pytest.mark.parametrize("chunked", [True, False])
def test_an_endless_upload_gets_its_answer_and_an_end(proxy: Filter, raw: RawOrigin, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000000000"
    piece = b"10000\r\n" + bytes(65536) + b"\r\n" if chunked else bytes(65536)
    ended = threading.Event()
    with connect(proxy.port) as s:
        s.sendall(head("blocked", raw.port, "/", "POST", f"{framing}\r\n"))

        def upload() -> None:
            with suppress(OSError):
                while True:
                    s.sendall(piece)
            ended.set()

        before = proxy.memory()
        threading.Thread(target=upload, daemon=True).start()
        assert read_response(s).status == 451
        assert ended.wait(60), "the filter reads for ever"
        assert proxy.memory() - before < 20 * MEGABYTE
    assert raw.connections == 0


def test_a_small_body_of_a_blocked_request_is_dropped(proxy: Filter, raw: RawOrigin) -> None:
    """The answer must not be lost to a reset because the body came with the head."""
    with connect(proxy.port) as s:
        s.sendall(head("blocked", raw.port, "/", "POST", "Content-Length: 5\r\n") + b"12345")
        assert b"451" in read_to_end(s)
    assert raw.connections == 0


def test_a_response_streams(proxy: Filter) -> None:
    go_on = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        assert go_on.wait(60)
        connection.sendall(b"def")

    with RawOrigin(serve) as raw, connect(proxy.port) as s:
        s.sendall(head("plain", raw.port))
        start = b""
        while b"abc" not in start:
            start += s.recv(65536)
        go_on.set()
        assert receive(s, 3) == b"def"


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"], ids=["", "expect"])
def test_a_request_streams(proxy: Filter, expect: str) -> None:
    arrived = threading.Event()

    def serve(connection: socket.socket) -> None:
        data = b""
        while b"abc" not in data:
            data += connection.recv(65536)
            if data.endswith(b"\r\n\r\n") and b"Expect:" in data:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        arrived.set()
        while b"def" not in data:
            data += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with RawOrigin(serve) as raw, connect(proxy.port) as s:
        s.sendall(head("plain", raw.port, "/", "POST", f"Content-Length: 6\r\n{expect}"))
        if expect:
            assert receive(s, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b"abc")
        assert arrived.wait(60), "the body is waited for"
        s.sendall(b"def")
        assert read_response(s).body == b"ok"


def test_a_large_download_at_constant_memory(proxy: Filter, origin: Nginx) -> None:
    get(proxy.port, f"http://plain.example:{origin.http}/")
    before, peak, got = proxy.memory(), 0, 0
    with connect(proxy.port) as s:
        s.sendall(head("plain", origin.http, "/big"))
        while got < 50 * MEGABYTE:
            got += len(s.recv(1 << 18))
            peak = max(peak, proxy.memory())
    assert peak - before < 20 * MEGABYTE


def test_a_large_upload_at_constant_memory(proxy: Filter, origin: Nginx) -> None:
    get(proxy.port, f"http://plain.example:{origin.http}/")
    before, peak = proxy.memory(), 0
    with connect(proxy.port) as s:
        s.sendall(
            f"PUT http://plain.example:{origin.http}/upload/a HTTP/1.1\r\nHost: plain.example\r\n"
            f"Content-Length: {50 * MEGABYTE}\r\n\r\n".encode()
        )
        for _ in range(200):
            s.sendall(bytes(MEGABYTE // 4))
            peak = max(peak, proxy.memory())
        assert read_response(s).status in (201, 204)
    assert peak - before < 20 * MEGABYTE
    assert (origin.folder / "upload" / "a").stat().st_size == 50 * MEGABYTE


def test_trailers_pass_in_both_directions(proxy: Filter) -> None:
    def serve(connection: socket.socket) -> None:
        data = b""
        while b"X-Sum: 1\r\n\r\n" not in data:
            data += connection.recv(65536)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n"
            b"2\r\nok\r\n0\r\nX-End: 2\r\n\r\n"
        )
        answer_rest(connection)

    with RawOrigin(serve) as raw, connect(proxy.port) as s:
        s.sendall(
            f"POST http://plain.example:{raw.port}/ HTTP/1.1\r\nHost: plain.example\r\n"
            "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"X-End: 2\r\n\r\n"):
            data = s.recv(65536)
            assert data, answer
            answer += data
        s.sendall(head("plain", raw.port))
        assert read_response(s).body == b"again"


def answer_rest(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain")


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"])
def test_an_interim_response_does_not_stand_for_the_final_one(proxy: Filter, status: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nLink: </a.css>\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with RawOrigin(serve) as raw, connect(proxy.port) as s:
        s.sendall(head("plain", raw.port))
        response = read_response(s)
        if response.status < 200:
            response = read_response(s)
        assert (response.status, response.body) == (200, b"ok")


def test_an_address_entry_is_met_through_a_name(proxy: Filter) -> None:
    """The name is not listed; the address that it has is."""
    told = proxy.blocks_from_here()
    with RawOrigin(host="127.0.0.9") as raw:
        response = get(proxy.port, f"http://addressed.example:{raw.port}/")
        assert response.status == 451
        assert [block["entry"] for block in told()] == ["E-6"]
        assert bytes(raw.received) == b""
        with connect(proxy.port) as s:
            s.sendall(
                f"POST http://addressed.example:{raw.port}/ HTTP/1.1\r\nHost: addressed.example\r\n"
                "Content-Length: 3\r\n\r\n".encode()
            )
            assert read_response(s).status == 451
            s.sendall(b"abc")
        assert raw.connections == 0
        assert bytes(raw.received) == b""


def test_a_port_that_is_named_twice_is_met_by_either(proxy: Filter, raw: RawOrigin) -> None:
    request = "GET http://panel.example:{}/login HTTP/1.1\r\nHost: panel.example:{}\r\n\r\n"
    assert ask(proxy.port, request.format(raw.port, raw.port)).status == 200
    assert ask(proxy.port, request.format(raw.port, 8443)).status == 451
    assert ask(proxy.port, request.format(8443, raw.port)).status == 451


def test_a_block_line_has_what_an_audit_needs_and_never_the_url(proxy: Filter, origin: Nginx) -> None:
    told = proxy.blocks_from_here()
    with connect(proxy.port) as s:
        address = "{}:{}".format(*s.getsockname())
        s.sendall(head("paged", origin.http, "/listed.html"))
        response = read_response(s)
    (line,) = [block for block in told() if block["client"] == address]
    assert line["reference"] == response.reference != ""
    assert (line["list"], line["entry"], line["category"]) == ("list", "E-2", "csam")
    assert line["time"].endswith("Z")


def test_a_client_that_leaves_early_is_no_fault(proxy: Filter, origin: Nginx) -> None:
    for request in (
        b"GET http://plain.example",
        head("plain", origin.http, "/slow"),
        head("blocked", origin.http, "/", "POST", "Content-Length: 9\r\n"),
        head("plain", origin.http, "/", "POST", "Content-Length: 9\r\n"),
    ):
        with connect(proxy.port) as s:
            s.sendall(request)
            settle(0.05)
    assert get(proxy.port, f"http://plain.example:{origin.http}/").status == 200


def test_a_head_without_end_does_not_fill_the_memory(proxy: Filter) -> None:
    before = proxy.memory()
    with connect(proxy.port) as s:
        s.sendall(b"GET http://plain.example/ HTTP/1.1\r\nHost: plain.example\r\n")
        ended = False
        for i in range(400):
            try:
                s.sendall(b"X-%d: " % i + b"a" * 60_000 + b"\r\n")
            except OSError:
                ended = True
                break
        assert ended or read_response(s).status == 431
    assert proxy.memory() - before < 10 * MEGABYTE
