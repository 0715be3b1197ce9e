"""TLS: which connections are decrypted, and that no trick of the handshake passes a listed name."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import trust
from e2e.support import (
    Authority,
    Filter,
    Nginx,
    RawOrigin,
    Response,
    client_hello,
    issuer,
    read_response,
    read_to_end,
    receive,
    running,
    send_to_the_end,
    socks,
    tunnel,
)

OURS, ORIGINS = "mitmproxy", "Test origin CA"


def wrapped(
    s: socket.socket, proxy: Filter, authority: Authority, name: str, alpn: tuple[str, ...] = ()
) -> ssl.SSLSocket:
    context = authority.client_context(proxy.ca, alpn=alpn)
    return context.wrap_socket(s, server_hostname=name)


def fetch(s: ssl.SSLSocket, host: str, path: str = "/") -> Response:
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    return read_response(s)


def https(
    proxy: Filter, authority: Authority, host: str, port: int, path: str = "/", sni: str = ""
) -> tuple[str, Response]:
    """GET through a tunnel: whose certificate it was, and the answer."""
    with wrapped(tunnel(proxy.port, f"{host}:{port}"), proxy, authority, sni or host) as s:
        return issuer(s), fetch(s, host, path)


@pytest.fixture(scope="module", params=["all", "none"])
def other(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Filter]]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    arguments = ("--intercept", request.param, *trust(authority))
    with running(folder, *arguments, modes=("regular", "socks5")) as proxy:
        yield request.param, proxy


def test_an_unlisted_host_is_relayed_undecrypted(proxy: Filter, authority: Authority, origin: Nginx) -> None:
    whose, response = https(proxy, authority, "plain.example", origin.https)
    assert (whose, response.body) == (ORIGINS, b"origin\n")
    assert len(origin.requests(1)) == 1


def test_a_host_with_a_page_entry_is_decrypted(proxy: Filter, authority: Authority, origin: Nginx) -> None:
    whose, response = https(proxy, authority, "paged.example", origin.https, "/other")
    assert (whose, response.body) == (OURS, b"origin\n")
    assert len(origin.requests(1)) == 1
    whose, response = https(proxy, authority, "paged.example", origin.https, "/listed.html")
    assert (whose, response.status) == (OURS, 451)
    assert origin.requests() == []


def test_a_host_listed_whole_gets_the_block_page(proxy: Filter, authority: Authority, raw: RawOrigin) -> None:
    with (
        socks(proxy.ports[1], "127.0.0.1", raw.port) as s,
        wrapped(s, proxy, authority, "blocked.example") as t,
    ):
        assert issuer(t) == OURS
        assert fetch(t, "blocked.example").status == 451
    assert raw.connections == 0


def test_the_sni_counts_whatever_the_host_says(proxy: Filter, authority: Authority, raw: RawOrigin) -> None:
    with (
        tunnel(proxy.port, f"plain.example:{raw.port}") as s,
        wrapped(s, proxy, authority, "blocked.example") as t,
    ):
        assert fetch(t, "plain.example").status == 451
    assert raw.connections == 0


def test_the_host_counts_whatever_the_sni_says(proxy: Filter, authority: Authority, origin: Nginx) -> None:
    with wrapped(tunnel(proxy.port, f"paged.example:{origin.https}"), proxy, authority, "plain.example") as s:
        assert fetch(s, "blocked.example").status == 451
    assert origin.requests() == []


def test_a_listed_address_gets_the_block_page(proxy: Filter, authority: Authority) -> None:
    with RawOrigin(host="127.0.0.9") as raw:
        with (
            socks(proxy.ports[1], "127.0.0.9", raw.port) as s,
            wrapped(s, proxy, authority, "any.example") as t,
        ):
            assert issuer(t) == OURS
            assert fetch(t, "any.example").status == 451
        # By a name that has it, nothing is decrypted, but nothing is relayed either.
        told = proxy.blocks_from_here()
        with tunnel(proxy.port, f"addressed.example:{raw.port}") as s:
            s.sendall(client_hello("addressed.example"))
            assert read_to_end(s) == b""
        assert [block["entry"] for block in told()] == ["E-6"]
        assert raw.connections == 0


def test_intercept_all_or_none(other: tuple[str, Filter], authority: Authority, origin: Nginx) -> None:
    policy, proxy = other
    whose, response = https(proxy, authority, "plain.example", origin.https)
    assert (whose, response.status) == (OURS if policy == "all" else ORIGINS, 200)
    whose, response = https(proxy, authority, "paged.example", origin.https, "/listed.html")
    assert (whose, response.status) == ((OURS, 451) if policy == "all" else (ORIGINS, 200))


def test_intercept_none_alerts_for_a_listed_host(
    other: tuple[str, Filter], authority: Authority, raw: RawOrigin
) -> None:
    policy, proxy = other
    told = proxy.blocks_from_here()
    with socks(proxy.ports[1], "127.0.0.1", raw.port) as s:
        if policy == "none":
            with pytest.raises(ssl.SSLError, match=r"ALERT_ACCESS_DENIED|access denied"):
                wrapped(s, proxy, authority, "blocked.example")
            assert [block["entry"] for block in told()] == ["E-1"]
        else:
            with wrapped(s, proxy, authority, "blocked.example") as t:
                assert fetch(t, "blocked.example").status == 451
    assert raw.connections == 0


def test_intercept_all_finds_a_path_on_any_host(
    other: tuple[str, Filter], authority: Authority, origin: Nginx
) -> None:
    policy, proxy = other
    _, response = https(proxy, authority, "plain.example", origin.https, "/gallery/do-not-visit/1")
    assert response.status == (451 if policy == "all" else 200)
    expected = 0 if policy == "all" else 1
    assert len(origin.requests(expected)) == expected


def test_no_sni(proxy: Filter, authority: Authority, origin: Nginx) -> None:
    context = authority.client_context(proxy.ca)
    context.check_hostname = False
    with context.wrap_socket(tunnel(proxy.port, f"plain.example:{origin.https}")) as s:
        assert issuer(s) == ORIGINS
        assert fetch(s, "plain.example").status == 200
    with context.wrap_socket(tunnel(proxy.port, f"paged.example:{origin.https}")) as s:
        assert issuer(s) == OURS
        assert fetch(s, "paged.example", "/listed.html").status == 451
    assert len(origin.requests(1)) == 1


@pytest.mark.parametrize("first", [1, 2, 3, 6, 60])
@pytest.mark.parametrize("name", ["plain.example", "blocked.example"])
def test_a_client_hello_in_pieces(
    proxy: Filter, authority: Authority, origin: Nginx, raw: RawOrigin, first: int, name: str
) -> None:
    """Whatever the first segment is, and however many follow, the SNI decides."""
    listed = name == "blocked.example"
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.client_context(proxy.ca).wrap_bio(incoming, outgoing, server_hostname=name)
    with socks(proxy.ports[1], "127.0.0.1", raw.port if listed else origin.https) as s:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        s.sendall(hello[:first])
        for i in range(first, len(hello)):
            s.sendall(hello[i : i + 1])
        done = False
        while not done:
            incoming.write(s.recv(65536))
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            s.sendall(outgoing.read())
        certificate = tls.getpeercert()
        assert certificate is not None
        assert (OURS if listed else ORIGINS) in str(certificate["issuer"])
    assert raw.connections == 0


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x13BitTorrent protocol",
        b"\x00\x00\x00\x00\x00\x00",
        b"EHLO plain.example\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x00",
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
    ],
)
def test_what_is_neither_http_nor_tls_is_not_tunnelled(proxy: Filter, raw: RawOrigin, data: bytes) -> None:
    for s in (tunnel(proxy.port, f"plain.example:{raw.port}"), socks(proxy.ports[1], "127.0.0.1", raw.port)):
        with s:
            send_to_the_end(s, data, b"\r\n\r\nGET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n")
            read_to_end(s)
    assert bytes(raw.received) == b""


def test_what_is_inside_tls_and_not_http_is_not_tunnelled(
    proxy: Filter, authority: Authority, raw: RawOrigin
) -> None:
    with (
        tunnel(proxy.port, f"paged.example:{raw.port}") as s,
        wrapped(s, proxy, authority, "paged.example") as t,
    ):
        t.sendall(b"S")
        t.sendall(b"SH-2.0-x\r\n\r\n")
        assert b"400 Bad Request" in read_to_end(t)
    assert raw.connections == 0


def test_a_request_in_pieces_inside_tls(proxy: Filter, authority: Authority, origin: Nginx) -> None:
    with (
        tunnel(proxy.port, f"paged.example:{origin.https}") as s,
        wrapped(s, proxy, authority, "paged.example") as t,
    ):
        for byte in b"GET /listed.html HTTP/1.1\r\nHost: paged.example\r\n\r\n":
            t.sendall(bytes([byte]))
        assert read_response(t).status == 451
    assert origin.requests() == []


def test_plain_http_in_a_tunnel_is_read(proxy: Filter, origin: Nginx) -> None:
    with tunnel(proxy.port, f"plain.example:{origin.http}") as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        assert read_response(s).status == 200
        s.sendall(b"GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n")
        assert read_response(s).status == 451
    assert len(origin.requests(1)) == 1


def test_a_tunnel_in_a_tunnel_is_no_way_around(proxy: Filter, raw: RawOrigin) -> None:
    with tunnel(proxy.port, f"plain.example:{raw.port}") as s:
        s.sendall(b"CONNECT blocked.example:443 HTTP/1.1\r\n\r\n")
        assert read_response(s).status == 405
    with tunnel(proxy.port, f"plain.example:{raw.port}") as s:
        s.sendall(b"GET http://blocked.example/ HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        assert read_response(s).status == 451
    assert raw.connections == 0


def test_a_client_that_refuses_our_certificate_leaves_no_name(proxy: Filter, authority: Authority) -> None:
    context = authority.client_context()
    for name in ("blocked.example", "paged.example"):
        with socks(proxy.ports[1], "127.0.0.1", 9) as s, pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(s, server_hostname=name)
    proxy.check_log()


def test_a_relayed_stream_keeps_its_ends_apart(proxy: Filter) -> None:
    """A half-closed TLS connection still gets its answer."""

    def serve(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass
        connection.sendall(b"\x16 after the end")

    with RawOrigin(serve) as raw, socks(proxy.ports[1], "127.0.0.1", raw.port) as s:
        s.sendall(client_hello("plain.example"))
        s.shutdown(socket.SHUT_WR)
        assert receive(s, 15) == b"\x16 after the end"


def test_an_origin_whose_certificate_is_not_trusted(
    authority: Authority, origin: Nginx, tmp_path: Path
) -> None:
    with running(tmp_path) as proxy:
        whose, response = https(proxy, authority, "paged.example", origin.https, "/other")
        assert (whose, response.status) == (OURS, 502)
        assert b"certificate of the origin is not valid: " in response.body
        (line,) = [line for line in proxy.log().splitlines() if " untrusted " in line]
        assert "reason=" in line
        assert origin.requests() == []
