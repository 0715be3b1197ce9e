"""Where connections arrive: which are carried here, and which mitmproxy carries."""

import asyncio
import os
import socket
import struct
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from mitmproxy import platform
from mitmproxy.proxy import mode_servers, mode_specs
from mitmproxy.test import taddons

from conftest import free_port, until
from proxy.rig import GET, OK, Rig, answer, closed
from urlward.plan import Address
from urlward.proxy import front
from urlward.proxy.addon import Urlward
from urlward.proxy.front import listen_in_front
from urlward.proxy.listeners import open_sockets
from urlward.proxy.workers import WORKER, Worker

pytestmark = pytest.mark.usefixtures("compiles_here")


async def test_what_is_not_ours_goes_to_mitmproxy_whole(rig: Rig) -> None:
    await rig.start(answer)
    for option, value in (
        ("ignore_hosts", ["x"]),
        ("urlward_flows", True),
        ("keep_host_header", False),
        ("tcp_hosts", ["y"]),
    ):
        rig.tctx.options.update(**{option: value})
        await rig.ask(b"anything")
        assert rig.handed.pop() == b"anything"
        rig.tctx.options.reset()
        rig.tctx.options.update(urlward_flows=False, keep_host_header=True)
    await rig.settled()


async def test_a_connection_to_itself_is_not_made(rig: Rig) -> None:
    await rig.start(answer)
    rig.addon.ports.add(rig.origin_port)
    assert (await rig.ask(GET % b"a")).startswith(b"HTTP/1.1 403 ")


async def test_a_connection_that_nothing_has_redirected_is_closed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await rig.start(answer, "transparent")
    monkeypatch.setattr(platform, "original_addr", lambda s: s.getsockname()[:2])
    reader, writer = await rig.connect()
    assert await closed(reader), "without waiting for what it has to say"
    writer.close()
    await rig.settled()
    assert caplog.text == ""


async def test_connections_of_which_the_kernel_does_not_tell_where_they_were_to_go_are_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.start(answer, "transparent")
    mark = rig.addon.canary
    mark.addresses = frozenset(("127.0.0.1",))
    original = platform.original_addr
    for left, found in ((1, None), (2, None), (2, original), (3, None), (0, original)):
        monkeypatch.setattr(platform, "original_addr", found or Mock(side_effect=FileNotFoundError))
        opened = rig.addon.metrics.opened
        reader, writer = await rig.connect()
        if found is None:
            assert await closed(reader)
        else:
            await until(lambda opened=opened: rig.addon.metrics.opened > opened, "it to be led")  # type: ignore[misc]
        assert mark.astray == left
        writer.close()
        if left == 3:
            mark.addresses = frozenset()
    monkeypatch.setattr(platform, "original_addr", Mock(side_effect=FileNotFoundError))
    with socket.create_connection(("127.0.0.1", rig.port)) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert await closed((await rig.connect())[0])
    assert mark.astray == 1, "where the client is gone the kernel may have forgotten it"
    await rig.settled()


async def test_what_waits_of_connections_that_there_are_keeps_no_new_ones_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of all the clients behind one NAT."""
    monkeypatch.setattr(front, "MOST_WAITING", 2)
    await rig.start(answer)
    poller, loop = rig.front.poller, asyncio.get_running_loop()
    share = poller.share("127.0.0.1")
    for _ in range(3):
        for _ in range(5):
            poller.later(share, lambda: None)
        made = []
        for _ in range(3):
            near, far = socket.socketpair()
            near.setblocking(False)
            far.setblocking(False)
            rig.front.take(near, ("127.0.0.1", 1))
            made.append(far)
        assert share.arriving == 2
        for far in made[:2]:
            await loop.sock_sendall(far, GET % b"a")
            assert await loop.sock_recv(far, 1 << 10) == OK
        assert await loop.sock_recv(made[2], 1) == b"", "one more than may wait"
        assert share.arriving == 0
        for far in made:
            far.close()
    await rig.settled()


async def test_every_mode_listens_on_the_sockets_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        mode_servers.AsyncioServerInstance, "listen", mode_servers.AsyncioServerInstance.listen
    )
    with taddons.context():
        for spec in ("transparent", "transparent@8090", "reverse:http://127.0.0.1", "regular", "socks5"):
            address = Address("127.0.0.1", free_port(), "tcp")
            (held,) = open_sockets(address)
            listen_in_front(Urlward(), Worker([(address, [held.dup()])]))
            instance: Any = SimpleNamespace(mode=mode_specs.ProxyMode.parse(spec), handle_stream=None)
            (server,) = await mode_servers.AsyncioServerInstance.listen(instance, *address[:2])
            assert os.path.sameopenfile(server.sockets[0].fileno(), held.fileno())
            server.close()
            held.close()


async def test_a_mode_over_udp_is_served_by_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        mode_servers.AsyncioServerInstance, "listen", mode_servers.AsyncioServerInstance.listen
    )
    monkeypatch.setenv(WORKER, "1")
    listen_in_front(Urlward(), Worker())
    instance: Any = SimpleNamespace(mode=mode_specs.ProxyMode.parse("wireguard"))
    (server,) = await mode_servers.AsyncioServerInstance.listen(instance, "127.0.0.1", free_port())
    assert server.sockets == ()


async def test_a_wireguard_client_has_so_many_connections_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        mode_servers.AsyncioServerInstance, "listen", mode_servers.AsyncioServerInstance.listen
    )
    monkeypatch.setattr(front, "MOST_IN_TUNNEL", 2)
    listen_in_front(Urlward(), Worker())
    begun, over = [], asyncio.Event()

    async def handle(stream: Any, _: Any) -> None:
        begun.append(stream)
        await over.wait()

    instance: Any = SimpleNamespace(
        mode=mode_specs.ProxyMode.parse("wireguard"), handle_stream=handle, start_udp_based_server=AsyncMock()
    )
    await mode_servers.AsyncioServerInstance.listen(instance, "127.0.0.1", free_port())
    one, other = (Mock(get_extra_info=lambda _, ip=ip: (ip, 1)) for ip in ("10.0.0.1", "10.0.0.2"))
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(instance.handle_stream(stream)) for stream in (one, one, one, other)]
        await until(made[2].done)
        assert begun == [one, one, other]
        one.close.assert_called_once()
        other.close.assert_not_called()
        over.set()
    await instance.handle_stream(one)
    assert len(begun) == 4
