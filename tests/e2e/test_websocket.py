"""WebSocket through the filter, in the clear and decrypted."""

import socket
import ssl
from typing import cast

from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.events import AcceptConnection, CloseConnection, Message, Request, TextMessage

from e2e.support import (
    Authority,
    Filter,
    RawOrigin,
    connect,
    read_response,
    tunnel,
)


def echo(connection: socket.socket) -> None:
    """Echo text messages until the client closes."""
    ws = WSConnection(ConnectionType.SERVER)
    while data := connection.recv(65536):
        ws.receive_data(data)
        for event in ws.events():
            if isinstance(event, Request):
                connection.sendall(ws.send(AcceptConnection()))
            elif isinstance(event, TextMessage):
                connection.sendall(ws.send(Message(event.data)))
            elif isinstance(event, CloseConnection):
                connection.sendall(ws.send(event.response()))
                return


HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def conversation(s: socket.socket) -> list[str]:
    """Say three things; what comes back."""
    ws, heard = Connection(ConnectionType.CLIENT), []
    for text in ("one", "two " * 5000, "three"):
        s.sendall(ws.send(Message(text)))
        whole = ""
        while len(whole) < len(text):
            ws.receive_data(s.recv(65536))
            whole += "".join(cast("str", e.data) for e in ws.events() if isinstance(e, TextMessage))
        heard.append(whole)
    s.sendall(ws.send(CloseConnection(1000)))
    return heard


def test_an_echo_in_the_clear(proxy: Filter) -> None:
    with RawOrigin(echo) as origin, connect(proxy.port) as s:
        host = f"plain.example:{origin.port}"
        s.sendall(HANDSHAKE.format(f"http://{host}/chat", host).encode())
        assert read_response(s).status == 101
        assert conversation(s) == ["one", "two " * 5000, "three"]


def test_an_echo_in_a_tunnel(proxy: Filter) -> None:
    with RawOrigin(echo) as origin, tunnel(proxy.port, f"plain.example:{origin.port}") as s:
        s.sendall(HANDSHAKE.format("/chat", f"plain.example:{origin.port}").encode())
        assert read_response(s).status == 101
        assert conversation(s) == ["one", "two " * 5000, "three"]


def test_an_echo_that_is_decrypted(proxy: Filter, authority: Authority) -> None:
    def serve(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.folder / "origin.pem", authority.folder / "origin.key")
        with context.wrap_socket(connection._connection, server_side=True) as s:  # type: ignore[attr-defined]
            echo(s)

    context = authority.client_context(proxy.ca, alpn=["http/1.1"])
    with (
        RawOrigin(serve) as origin,
        tunnel(proxy.port, f"paged.example:{origin.port}") as s,
        context.wrap_socket(s, server_hostname="paged.example") as t,
    ):
        t.sendall(HANDSHAKE.format("/chat", f"paged.example:{origin.port}").encode())
        assert read_response(t).status == 101
        assert conversation(t) == ["one", "two " * 5000, "three"]


def test_a_listed_handshake_is_blocked(proxy: Filter, raw: RawOrigin) -> None:
    for host, path in (("blocked.example", "/chat"), ("paged.example", "/dir/chat")):
        with connect(proxy.port) as s:
            target = f"http://{host}:{raw.port}{path}"
            s.sendall(HANDSHAKE.format(target, f"{host}:{raw.port}").encode())
            assert read_response(s).status == 451
    assert raw.connections == 0


def test_a_long_conversation_is_not_kept(proxy: Filter) -> None:
    with RawOrigin(echo) as origin, connect(proxy.port) as s:
        host = f"plain.example:{origin.port}"
        s.sendall(HANDSHAKE.format(f"http://{host}/chat", host).encode())
        assert read_response(s).status == 101
        ws = Connection(ConnectionType.CLIENT)
        text, before = "x" * 100_000, 0
        for i in range(320):
            if i == 20:
                before = proxy.memory()
            s.sendall(ws.send(Message(text)))
            got = 0
            while got < len(text):
                ws.receive_data(s.recv(1 << 18))
                got += sum(len(e.data) for e in ws.events() if isinstance(e, TextMessage))
        assert proxy.memory() - before < 15 << 20
