"""gRPC as its own library speaks it: every kind of call, through every mode that ends TLS.

Its server speaks nothing but HTTP/2, and its status stands in trailers, or in a head without a body.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import grpc
import pytest

from conftest import until, wait_for
from proxy.rig import Rig

MODES = ["transparent", "regular", "reverse:https://127.0.0.1"]
LONG = 60
"""Seconds that a call may take on a machine that has much to do."""


class Service:
    """A server.

    Attributes:
        server: it.
        port: where it listens.
        begun: calls that wait without end.
        given_up: those of them that the server has heard the end of.
    """

    def __init__(self, rig: Rig, port: int = 0) -> None:
        self.begun: list[str] = []
        self.given_up: list[str] = []
        handlers = {
            "Twice": grpc.unary_unary_rpc_method_handler(self._twice),
            "Fails": grpc.unary_unary_rpc_method_handler(self._fails),
            "Counts": grpc.unary_stream_rpc_method_handler(self._counts),
            "Collects": grpc.stream_unary_rpc_method_handler(self._collects),
            "Echoes": grpc.stream_stream_rpc_method_handler(self._echoes),
            "Waits": grpc.unary_stream_rpc_method_handler(self._waits),
        }
        self.server = grpc.server(ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Calls", handlers),))
        pair = ((rig.authority / "origin.key").read_bytes(), (rig.authority / "origin.pem").read_bytes())
        self.port = self.server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
        self.server.start()

    def _twice(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last", "2"), ("x-last-bin", b"\0\xff")))
        return request * 2

    def _fails(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü")

    def _counts(self, request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        yield from (b"%d" % i for i in range(int(request)))

    def _collects(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        return b"%d" % sum(map(len, requests))

    def _echoes(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        yield from requests

    def _waits(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        name, over = request.decode(), threading.Event()

        def ended() -> None:
            self.given_up.append(name)
            over.set()

        # Where the call has ended already, nobody asks for what comes behind the first message.
        if not context.add_callback(ended):
            ended()
        self.begun.append(name)
        yield b"begun"
        over.wait(LONG)


@asynccontextmanager
async def calling(rig: Rig, mode: str) -> AsyncIterator[tuple[Service, grpc.Channel]]:
    """A service, and a channel to it through the filter, which ends TLS."""
    rig.addon.http2 = True
    service = Service(rig)
    await rig.start(service.port, mode)
    rig.lead()
    options = [("grpc.ssl_target_name_override", "paged.example"), ("grpc.enable_http_proxy", 0)]
    target = f"127.0.0.1:{rig.port}"
    if mode == "regular":
        options = [("grpc.http_proxy", f"http://{target}")]
        target = f"paged.example:{service.port}"
    trusted = (rig.authority / "mitmproxy-ca-cert.pem").read_bytes()
    channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(trusted), options)
    try:
        yield service, channel
    finally:
        await asyncio.to_thread(channel.close)
        await asyncio.to_thread(service.server.stop(0).wait)
    await rig.settled()


@pytest.mark.parametrize("mode", MODES)
async def test_every_kind_of_call(rig: Rig, mode: str) -> None:
    def call(channel: grpc.Channel) -> None:
        twice = channel.unary_unary("/test.Calls/Twice")
        for request in (b"", b"abc", bytes(1 << 20)):
            answer, seen = twice.with_call(request, timeout=LONG)
            assert answer == request * 2
            assert ("x-first", "1") in seen.initial_metadata()
            assert {("x-last", "2"), ("x-last-bin", b"\0\xff")} <= set(seen.trailing_metadata())
        counts = channel.unary_stream("/test.Calls/Counts")
        assert list(counts(b"500", timeout=LONG)) == [b"%d" % i for i in range(500)]
        assert list(counts(b"0", timeout=LONG)) == []
        collects = channel.stream_unary("/test.Calls/Collects")
        assert collects(iter([bytes(1000)] * 3000), timeout=LONG) == b"3000000"
        # Each message is sent when the answer to the one before it is there.
        said: list[bytes] = []
        heard = threading.Semaphore()

        def speak() -> Iterator[bytes]:
            for i in range(100):
                heard.acquire()
                yield b"%d" % i

        for message in channel.stream_stream("/test.Calls/Echoes")(speak(), timeout=LONG):
            said.append(message)
            heard.release()
        assert said == [b"%d" % i for i in range(100)]

    async with calling(rig, mode) as (_, channel):
        await asyncio.to_thread(call, channel)


@pytest.mark.parametrize("mode", MODES)
async def test_what_fails(rig: Rig, mode: str) -> None:
    def call(channel: grpc.Channel, service: Service) -> None:
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/test.Calls/Fails")(b"", timeout=LONG)
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
        assert failed.value.details() == "no such thing: ü"
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/test.Calls/Unknown")(b"", timeout=LONG)
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
        waits = channel.unary_stream("/test.Calls/Waits")
        calls = [waits(b"%d" % i, timeout=LONG) for i in range(3)]
        assert [next(each) for each in calls] == [b"begun"] * 3
        calls[0].cancel()
        while "late" not in service.begun:  # where even that has come too late
            with pytest.raises(grpc.RpcError) as failed:
                list(waits(b"late", timeout=1))
            assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # The others of the connection go on.
        assert all(each.is_active() for each in calls[1:])
        assert channel.unary_unary("/test.Calls/Twice")(b"a", timeout=LONG) == b"aa"
        for each in calls[1:]:
            each.cancel()

    async with calling(rig, mode) as (service, channel):
        await asyncio.to_thread(call, channel, service)
        await until(lambda: set(service.begun) == {"0", "1", "2", "late"} == set(service.given_up))


async def test_many_calls_at_once_and_a_listed_one(rig: Rig) -> None:
    """More streams than there are connections to an origin of HTTP/1.1, which none of them waits for."""

    def call(channel: grpc.Channel) -> None:
        waits = channel.unary_stream("/test.Calls/Waits")
        calls = [waits(b"%d" % i, timeout=LONG) for i in range(8)]
        assert [next(each) for each in calls] == [b"begun"] * 8
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/listed")(b"", timeout=LONG)
        assert failed.value.code() is grpc.StatusCode.UNKNOWN
        assert "451" in failed.value.details()
        for each in calls:
            each.cancel()

    async with calling(rig, "transparent") as (service, channel):
        await asyncio.to_thread(call, channel)
        await until(lambda: len(service.given_up) == 8)


async def test_many_small_messages(rig: Rig) -> None:
    """Both ways, each in a frame of its own: they are no flood."""

    def call(channel: grpc.Channel) -> None:
        echoes = channel.stream_stream("/test.Calls/Echoes")
        said = echoes((b"%d" % i for i in range(10_000)), timeout=2 * LONG)
        assert list(said) == [b"%d" % i for i in range(10_000)]

    async with calling(rig, "transparent") as (_, channel):
        await asyncio.to_thread(call, channel)


async def test_a_service_that_ends(rig: Rig) -> None:
    """GOAWAY: what is under way is answered, and what follows goes over a new connection."""

    def is_answered(channel: grpc.Channel) -> bool:
        try:
            return bool(channel.unary_unary("/test.Calls/Twice")(b"a", timeout=LONG) == b"aa")
        except grpc.RpcError as e:
            # A service that ends cancels what reaches it before its GOAWAY has left.
            if e.code() != grpc.StatusCode.CANCELLED:
                raise
            return False

    def call(channel: grpc.Channel, service: Service) -> None:
        waits = channel.unary_stream("/test.Calls/Waits")(b"last", timeout=LONG)
        assert next(waits) == b"begun"
        stopped = service.server.stop(LONG)
        other = Service(rig, service.port)
        try:
            wait_for(lambda: is_answered(channel), "an answer over a new connection")
            assert waits.is_active()
            waits.cancel()
            assert stopped.wait(LONG)
        finally:
            other.server.stop(0).wait(LONG)

    async with calling(rig, "transparent") as (service, channel):
        await asyncio.to_thread(call, channel, service)
