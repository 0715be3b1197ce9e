"""What `run`'s options of the data path do: ``--tls-block``, ``--other``, ``--no-http2``; and ECH."""

import socket
import ssl
from pathlib import Path

import pytest

from e2e.support import (
    Authority,
    Nginx,
    RawOrigin,
    ask,
    client_hello,
    connect,
    read_response,
    read_to_end,
    receive,
    running,
    send_to_the_end,
    socks,
)

ACCESS_DENIED = bytes([21, 3, 3, 0, 2, 2, 49])


def with_ech(hello: bytes) -> bytes:
    """A ClientHello with an encrypted_client_hello extension (RFC 9849), of an outer hello."""
    body = bytearray(hello[9:])
    at = 2 + 32
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2])
    at += 1 + body[at]
    payload = bytes([0, 0, 1, 0, 1, 7]) + (32).to_bytes(2) + bytes(32) + (144).to_bytes(2) + bytes(144)
    extension = (0xFE0D).to_bytes(2) + len(payload).to_bytes(2) + payload
    size = int.from_bytes(body[at : at + 2]) + len(extension)
    body[at : at + 2] = size.to_bytes(2)
    body += extension
    message = b"\x01" + len(body).to_bytes(3) + body
    return hello[:3] + len(message).to_bytes(2) + message


@pytest.mark.parametrize("intercept", ["listed", "all"])
def test_an_alert_for_hosts_listed_whole(tmp_path: Path, raw: RawOrigin, intercept: str) -> None:
    arguments = ["--tls-block", "alert", "--intercept", intercept]
    with running(tmp_path, *arguments, modes=("socks5", "regular")) as proxy:
        for name in ("blocked.example", "www.blocked.example"):
            with socks(proxy.port, "127.0.0.1", raw.port) as s:
                s.sendall(client_hello(name))
                assert read_to_end(s) == ACCESS_DENIED
        assert [block["entry"] for block in proxy.blocks()] == ["E-1", "E-1"]
        assert raw.connections == 0
        # Without TLS the page can be shown to anyone.
        request = "GET http://blocked.example/ HTTP/1.1\r\nHost: blocked.example\r\n\r\n"
        assert ask(proxy.ports[1], request).status == 451
        # A page that is listed cannot be told from its neighbours before its connection is decrypted.
        with socks(proxy.port, "127.0.0.1", raw.port) as s:
            s.sendall(client_hello("paged.example"))
            assert receive(s, 1) == b"\x16"


def protocol(port: int, target: int, name: str, context: ssl.SSLContext) -> str | None:
    with socks(port, "127.0.0.1", target) as plain, context.wrap_socket(plain, server_hostname=name) as s:
        return s.selected_alpn_protocol()


@pytest.mark.parametrize("flag", [[], ["--no-http2"]])
def test_http2_inside_intercepted_tls(
    tmp_path: Path, authority: Authority, origin: Nginx, flag: list[str]
) -> None:
    trust = ("--set", f"ssl_verify_upstream_trusted_ca={authority.certificate}")
    with running(tmp_path, *trust, *flag, modes=("socks5",)) as proxy:
        context = authority.client_context(proxy.ca, alpn=("h2", "http/1.1"))
        found = protocol(proxy.port, origin.h2, "paged.example", context)
        assert found == ("http/1.1" if flag else "h2")
        # What is relayed is between the client and its origin.
        assert protocol(proxy.port, origin.h2, "plain.example", context) == "h2"


def greet(connection: socket.socket) -> None:
    connection.sendall(b"you said " + connection.recv(65536))


@pytest.mark.parametrize("other", ["close", "relay"])
def test_what_is_neither_http_nor_tls(tmp_path: Path, authority: Authority, other: str) -> None:
    def greet_inside(connection: socket.socket) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(authority.folder / "origin.pem", authority.folder / "origin.key")
        with context.wrap_socket(connection._connection, server_side=True) as inner:  # type: ignore[attr-defined]
            greet(inner)

    trust = ("--set", f"ssl_verify_upstream_trusted_ca={authority.certificate}")
    with (
        running(tmp_path, *trust, "--other", other, modes=("socks5",)) as proxy,
        RawOrigin(greet) as raw,
        RawOrigin(greet_inside) as origin_of_tls,
        running(tmp_path / "r", "--other", other, modes=[f"reverse:http://127.0.0.1:{raw.port}"]) as reverse,
    ):
        for hello in (b"SSH-2.0-OpenSSH_9.2\r\n", b"\x10\x25\x00\x04MQTT", b"\x80\x01\x02"):
            for s in (socks(proxy.port, "127.0.0.1", raw.port), connect(reverse.port)):
                with s:
                    send_to_the_end(s, hello)
                    said = read_to_end(s)
                    assert (said == b"you said " + hello) is (other == "relay"), said
        # Inside TLS that is ended here it goes on inside TLS.
        context = authority.client_context(proxy.ca)
        for port, said in ((origin_of_tls.port, b"you said SSH-2.0-x"), (raw.port, b"")):
            with (
                socks(proxy.port, "127.0.0.1", port) as plain,
                context.wrap_socket(plain, server_hostname="paged.example") as inner,
            ):
                inner.sendall(b"SSH-2.0-x\r\n")
                assert (said in read_to_end(inner)) is (other == "relay" or not said)  # type: ignore[arg-type]
        assert b"SSH-2.0-x\r\n" not in bytes(raw.received)
        # A listed address is no way around.
        with socks(proxy.port, "127.0.0.9", raw.port) as s:
            s.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            assert b"you said" not in read_to_end(s)
        for trick in (b"\r\n\r\nGET /x\r\n", b"GET\t/x\r\n\r\n", b"\x00GET /x HTTP/1.1\r\n\r\n"):
            for s in (socks(proxy.port, "127.0.0.1", raw.port), connect(reverse.port)):
                with s:
                    s.sendall(trick)
                    assert read_response(s).status == 400


def test_an_encrypted_client_hello(tmp_path: Path, raw: RawOrigin) -> None:
    """The outer name decides, or the address: the inner name is for the origin alone."""
    with running(tmp_path, modes=("socks5",)) as own:
        for name, issuer in (("plain.example", b""), ("blocked.example", b"\x16")):
            raw.received.clear()
            with socks(own.port, "127.0.0.1", raw.port) as s:
                hello = with_ech(client_hello(name))
                # In pieces: within a record's head, and a record for each half.
                body = hello[5:]
                half = len(body) // 2
                records = b"".join(
                    hello[:3] + len(part).to_bytes(2) + part for part in (body[:half], body[half:])
                )
                for piece in (records[:2], records[2:7], records[7:]):
                    s.sendall(piece)
                if issuer:
                    assert receive(s, 1) == issuer
                    assert bytes(raw.received) == b""
                else:
                    s.shutdown(socket.SHUT_WR)
                    read_to_end(s)
                    assert bytes(raw.received) == records
        with socks(own.port, "127.0.0.9", raw.port) as s:
            s.sendall(with_ech(client_hello("plain.example")))
            assert receive(s, 1) == b"\x16"
