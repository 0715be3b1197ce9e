"""What an HTTP/2 client's streams after each other share, and what each finds out anew, with real sockets."""

import asyncio
import ssl
import time
from contextlib import suppress
from math import inf
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes

from conftest import until
from proxy.rig import LONG, Rig, Serve, answer, answer_http2
from urlward.proxy.guard import Guard
from urlward.proxy.session import Session
from urlward.proxy.tls import Origins


class Client:
    """A client that speaks HTTP/2 through a tunnel of the explicit proxy."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._number = -1
        self.h2 = H2Connection(H2Configuration(header_encoding="ascii"))

    async def begin(self) -> None:
        authority = b"paged.example:%d" % self._rig.origin_port
        self._reader, self._writer = streams = await self._rig.connect()
        self._writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
        await self._reader.readuntil(b"\r\n\r\n")
        assert await self._rig.secure(streams, "paged.example", "h2") == "mitmproxy"
        self.h2.initiate_connection()

    async def ask(self, path: str = "/other", streams: int = 1) -> str:
        """The status of the last of so many streams at once, when all have ended."""
        head = [(":method", "GET"), (":scheme", "https"), (":authority", "paged.example"), (":path", path)]
        for _ in range(streams):
            self._number += 2
            self.h2.send_headers(self._number, head, end_stream=True)
        status, left = "", streams
        while left:
            self._writer.write(self.h2.data_to_send())
            data = await asyncio.wait_for(self._reader.read(1 << 16), LONG)
            assert data
            for event in self.h2.receive_data(data):
                if isinstance(event, ResponseReceived) and event.headers:
                    status = str(event.headers[0][1])
                if isinstance(event, StreamReset):
                    status = "reset"
                left -= isinstance(event, StreamEnded | StreamReset)
        return status

    def close(self) -> None:
        self.h2._frame_dispatch_table.clear()
        self._writer.close()


async def client_of(rig: Rig, serve: Serve) -> Client:
    rig.addon.http2 = True
    rig.lead()
    await rig.start(serve, "regular", tls=True, http2=serve is not answer)
    client = Client(rig)
    await client.begin()
    return client


async def at(address: str, rig: Rig, serve: Serve) -> None:
    """The same origin at another address, to which its name leads from now on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(rig.authority / "origin.pem", rig.authority / "origin.key")
    context.set_alpn_protocols(["h2"])
    rig.origins.append(await asyncio.start_server(serve, address, rig.origin_port, ssl=context))
    rig.lead((address, rig.origin_port))


def members(rig: Rig) -> int:
    return len(list(rig.addon.live))


def is_shared(rig: Rig) -> bool:
    """Whether there is a connection for the streams of the only client."""
    (http2,) = (each._relay for each in rig.addon.live if isinstance(each, Session) and each.progress() < inf)
    return http2.origin.http2 is not None


@pytest.mark.parametrize(("serve", "left"), [(answer_http2, 1), (answer, 5)])
async def test_what_has_no_connection_to_keep_does_not_rest_for_long(
    rig: Rig, serve: Serve, left: int
) -> None:
    """Each look at everything that is under way would look at it, with every client that has had a burst."""
    client = await client_of(rig, serve)
    assert await client.ask(streams=4) == "200"
    now = time.monotonic()
    await rig.addon.live.tick(now)
    assert members(rig) == 5, "they have just been in use"
    await rig.addon.live.tick(now + 5)
    await until(lambda: members(rig) == left)
    assert await client.ask() == "200"
    client.close()
    await rig.settled()


async def test_a_stream_is_judged_under_the_address_that_it_goes_to(rig: Rig) -> None:
    """Not under the one before it has gone to: where that is listed, its name may have moved."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await answer_http2(reader, writer)

    client = await client_of(rig, serve)
    assert await client.ask() == "200"
    await rig.relist("127.0.0.1 id=A-9", "http://paged.example/listed id=A-2")
    assert await client.ask() == "451", "it would go to where the one before has gone"
    await at("127.0.0.2", rig, serve)
    assert await client.ask() == "451", "it still would"
    connections.pop().close()
    await until(lambda: not is_shared(rig))
    assert await client.ask() == "200"
    await rig.relist("127.0.0.3 id=A-9", "http://paged.example/listed id=A-2")
    await at("127.0.0.3", rig, serve)
    assert await client.ask() == "200", "it goes to where the one before has gone"
    connections.pop().close()
    await until(lambda: not is_shared(rig))
    assert await client.ask() == "451"
    assert not connections
    client.close()
    await rig.settled()


async def test_an_address_is_judged_once_where_nothing_changes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    judged = Guard.answer_connected

    def answer_connected(self: Guard, *args: Any) -> object:
        found.append(args[3])
        return judged(self, *args)

    monkeypatch.setattr(Guard, "answer_connected", answer_connected)
    client = await client_of(rig, answer_http2)
    for path in ("/other", "/other", "/listed", "/other"):
        assert await client.ask(path) == ("451" if path == "/listed" else "200")
    assert await client.ask(streams=4) == "200"
    assert found == ["127.0.0.1"]
    client.close()
    await rig.settled()


async def test_a_reload_takes_back_a_response_for_which_its_client_has_no_window(rig: Rig) -> None:
    client = await client_of(rig, answer_http2)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    asked = asyncio.create_task(client.ask())
    await until(lambda: [each for each in rig.addon.live if each._client.waiting == 2])  # type: ignore[attr-defined]
    await rig.relist("http://paged.example/other id=A-2")
    assert rig.addon.guard is not None
    await rig.addon.live.recheck(rig.addon.guard)  # where the addon has not done so by itself meanwhile
    with suppress(StreamClosedError):  # it is known to be reset already
        client.h2.increment_flow_control_window(2, 1)
    assert await asked == "reset"
    client.close()
    await rig.settled()


async def test_a_ticket_is_kept_once_a_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []
    keep = Origins.keep

    def keeps(self: Origins, address: Any, name: bytes, tls: Any) -> None:
        kept.append(name)
        keep(self, address, name, tls)

    monkeypatch.setattr(Origins, "keep", keeps)
    client = await client_of(rig, answer_http2)
    for _ in range(3):
        assert await client.ask(streams=2) == "200"
    client.close()
    await rig.settled()
    assert kept == [b"paged.example"]
    assert len(rig.addon.origins._sessions) == 1, "by which the next connection is resumed"
