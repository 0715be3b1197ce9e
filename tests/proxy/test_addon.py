import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import iscoroutinefunction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import Mock, patch

import pytest
from mitmproxy import exceptions
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Server
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import events, layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import Http2Server
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import taddons, tflow
from mitmproxy.tls import TlsData

from e2e.support import client_hello
from proxy.driver import Driver, make_context
from urlward import lasting
from urlward.config import ProxyTable
from urlward.feeds.keeper import Keeper
from urlward.feeds.learn import Match
from urlward.proxy.access import Access
from urlward.proxy.addon import Urlward
from urlward.proxy.layers import (
    CloseLayer,
    ListedAddress,
    RefuseTlsLayer,
    RelayLayer,
    Undecided,
    WardHttp1Server,
    WardHttpLayer,
)
from urlward.proxy.live import Live

pytestmark = pytest.mark.usefixtures("compiles_here")

LIST = """\
blocked.example id=A-1
http://paged.example/listed id=A-2
127.0.0.66 id=A-3
"""


@contextmanager
def loaded(urlward: Urlward, folder: Path, *others: object, **changes: Any) -> Iterator[taddons.context]:
    (folder / "list.txt").write_text(LIST)
    with taddons.context(Proxyserver(), NextLayer(), *others, urlward) as tctx:
        tctx.configure(urlward, urlward_list=[str(folder / "list.txt")])
        if changes:
            tctx.options.update(**changes)
        yield tctx


@pytest.fixture
async def addon(tmp_path: Path) -> AsyncIterator[Urlward]:
    urlward = Urlward()
    with loaded(urlward, tmp_path):
        yield urlward
        urlward.done()


@pytest.fixture
async def tctx(tmp_path: Path) -> AsyncIterator[taddons.context]:
    urlward = Urlward()
    with loaded(urlward, tmp_path) as context:
        yield context
        urlward.done()


def flow_to(host: str, path: str = "/") -> HTTPFlow:
    flow = tflow.tflow()
    flow.request.host_header = host
    flow.request.data.host = host
    flow.request.path = path
    flow.server_conn = Server(address=None)
    return flow


def decided(
    addon: Urlward, data: bytes, mode: str = "transparent", address: str = "203.0.113.10"
) -> layer.Layer:
    context = make_context(mode)
    context.server.address = (address, 443)
    top: dict[str, type[layer.Layer]] = {"regular": modes.HttpProxy, "reverse": modes.ReverseProxy}
    top.get(re.split("[:@]", mode)[0], modes.TransparentProxy)(context)
    return ask(addon, context, data)


def ask(addon: Urlward, context: Context, *pieces: bytes) -> layer.Layer:
    nextlayer = layer.NextLayer(context)
    nextlayer.events = [events.Start(), *(events.DataReceived(context.client, piece) for piece in pieces)]
    addon.next_layer(nextlayer)
    assert nextlayer.layer is not None, "mitmproxy's own addon would decide"
    return nextlayer.layer


# -- options


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("urlward_list", ["/no/such/list"], "No such file"),
        ("urlward_key", "/no/such/key", "No such file"),
        ("urlward_config", "/no/such/config", "No such file"),
        ("urlward_status", 200, "status"),
        ("urlward_intercept", "sometimes", "listed, all, none"),
        ("urlward_on_error", "ignore", "block, pass"),
        ("urlward_intercept_port", 65536, "urlward_intercept_port is a port"),
        ("urlward_max_errors", "many", "urlward_max_errors: 'many' is not a count"),
        ("urlward_format", "scroll", "format: 'scroll' is not one of auto, grammar"),
    ],
)
async def test_a_bad_option_is_refused_and_changes_nothing(
    tctx: taddons.context, option: str, value: object, said: str
) -> None:
    addon = tctx.master.addons.get("urlward")
    guard, keeper = addon.guard, addon.keeper
    with pytest.raises(exceptions.OptionsError, match=said):
        tctx.options.update(**{option: value})
    assert addon.keeper.matcher.check_host("blocked.example").blocked
    assert getattr(tctx.options, option) != value
    assert (guard is None, keeper is None) == (False, False)


@pytest.mark.parametrize(
    "other", [{"urlward_flows": True}, {"tcp_hosts": ["plain.example"]}, {"connect_addr": "192.0.2.1"}]
)
async def test_what_would_hide_clients_from_origins(tctx: taddons.context, other: dict[str, Any]) -> None:
    """Mitmproxy's own connections have this machine's address."""
    addon = tctx.master.addons.get("urlward")
    tctx.options.update(urlward_flows=False)
    tctx.options.update(urlward_keep_source=True)
    assert addon.keep_source
    (name,) = other
    with pytest.raises(
        exceptions.OptionsError, match=rf"with {name} origins would not see the client's address"
    ):
        tctx.options.update(**other)
    assert addon.keep_source


async def test_the_format_of_lists(
    tctx: taddons.context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    addon = tctx.master.addons.get("urlward")
    caplog.set_level("INFO", "urlward.lists")
    path = tmp_path / "list.txt"
    path.write_text("url\nhttp://csv.example/x\n")
    tctx.options.update(urlward_list=[str(path)], urlward_format="csv")
    assert addon.keeper.matcher.check_url("http://csv.example/x").blocked
    path.write_text("||rule.example/x/^\n")
    tctx.options.update(urlward_format="auto")
    assert addon.keeper.matcher.check_url("http://rule.example/x/").blocked
    assert f"list {path}: read as format adblock, by its first lines" in caplog.text


async def test_counts_outlive_a_change_of_options(tctx: taddons.context) -> None:
    addon = tctx.master.addons.get("urlward")
    before = addon.guard.metrics
    tctx.options.update(urlward_status=403)
    flow = flow_to("blocked.example")
    addon.requestheaders(flow)
    assert flow.response.status_code == 403
    assert addon.guard.metrics is before


async def test_tls_on_a_port_where_none_is_relayed_unread(tctx: taddons.context) -> None:
    addon = tctx.master.addons.get("urlward")
    tctx.options.update(urlward_intercept_port=8090)
    hello = client_hello("plain.example")
    assert isinstance(decided(addon, hello, "transparent@8090"), layers.ServerTLSLayer)
    assert isinstance(decided(addon, hello, "transparent@8080"), RelayLayer)


async def test_other_options_are_not_ours(tctx: taddons.context) -> None:
    addon = tctx.master.addons.get("urlward")
    guard = addon.guard
    tctx.options.update(stream_large_bodies="1m")
    assert addon.guard is guard


# -- the ordinary hooks


async def test_a_request_outside_our_layers_is_decided_in_the_hook(
    addon: Urlward, tctx: taddons.context
) -> None:
    flow = flow_to("blocked.example")
    addon.requestheaders(flow)
    assert flow.response is not None
    assert (flow.response.status_code, flow.request.stream) == (451, False)
    addon.responseheaders(flow)
    assert flow.response.stream is False

    for flows in (True, False):
        tctx.options.update(urlward_flows=flows)
        flow = flow_to("plain.example")
        addon.requestheaders(flow)
        # Where other addons see flows, they see bodies, and change what a client gets.
        assert (flow.response, flow.request.stream) == (None, not flows)
        flow.response = tflow.tresp()
        addon.responseheaders(flow)
        assert flow.response.stream is not flows


async def test_a_decided_request_is_not_decided_again(addon: Urlward) -> None:
    assert addon.guard is not None
    flow = flow_to("blocked.example")
    flow.metadata["urlward"] = "passed"
    addon.requestheaders(flow)
    assert flow.response is None


async def test_a_monitored_request_passes(tctx: taddons.context, caplog: pytest.LogCaptureFixture) -> None:
    addon = tctx.master.addons.get("urlward")
    caplog.set_level(logging.INFO)
    tctx.options.update(urlward_monitor=True)
    addon.running()
    assert "monitor: nothing is blocked" in caplog.text
    flow = flow_to("blocked.example")
    addon.requestheaders(flow)
    assert flow.response is None
    assert " would-block client=" in caplog.text


async def test_what_looks_after_a_worker_outlasts_a_shortage(
    tctx: taddons.context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A list that changes later comes into force all the same, and what has become listed is cut."""
    from conftest import until

    addon = tctx.master.addons.get("urlward")
    fails = {"watch": Keeper, "look_after": Live, "recheck": Live}
    left = dict.fromkeys(fails, 1)

    def failing(name: str, original: Any) -> Any:
        async def once(self: Any, *args: Any) -> Any:
            if left[name]:
                left[name] = 0
                raise MemoryError
            done.add(name)
            return await original(self, *args)

        return once

    done: set[str] = set()
    for name, owner in fails.items():
        monkeypatch.setattr(owner, name, failing(name, getattr(owner, name)))
    monkeypatch.setattr(lasting, "AGAIN", 0.01)
    addon.running()
    await until(lambda: {"watch", "look_after"} <= done)
    path = Path(tctx.options.urlward_list[0])
    path.write_text(path.read_text() + "\nplain.example\n")
    await until(lambda: "recheck" in done)
    assert len([text for text in caplog.messages if "MemoryError; begun again" in text]) == 3
    flow = flow_to("plain.example")
    addon.requestheaders(flow)
    assert flow.response is not None
    addon.done()


async def test_a_replayed_request_is(addon: Urlward) -> None:
    flow = flow_to("blocked.example")
    flow.metadata["urlward"] = "passed"
    flow.is_replay = "request"
    addon.requestheaders(flow)
    assert flow.response is not None
    assert flow.response.status_code == 451


async def test_another_addons_answer_stands(addon: Urlward) -> None:
    flow = flow_to("plain.example")
    flow.response = answer = tflow.tresp()
    addon.requestheaders(flow)
    assert flow.response is answer
    assert flow.request.stream is False


async def test_without_a_list_all_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    addon = Urlward()
    with taddons.context(Proxyserver(), NextLayer(), addon) as tctx:
        tctx.configure(addon, urlward_status=403)
        addon.running()
        assert "no list is loaded" in caplog.text
        flow = flow_to("plain.example")
        addon.requestheaders(flow)
        assert flow.response is not None
        assert flow.response.status_code == 503
        addon.done()


async def test_before_the_options_are_read_all_is_refused() -> None:
    addon = Urlward()
    flow = flow_to("plain.example")
    addon.requestheaders(flow)
    assert flow.error is not None
    assert isinstance(ask(addon, make_context(), b"GET / HTTP/1.1\r\n\r\n"), CloseLayer)


# -- layers


async def test_first_bytes_that_do_not_tell(addon: Urlward) -> None:
    hello = client_hello("plain.example")
    for data in (b"\x16", b"\x16\x03", hello[:3], hello[:-1]):
        assert isinstance(decided(addon, data), Undecided), data


@pytest.mark.parametrize(
    ("name", "address", "kind"),
    [
        ("plain.example", "203.0.113.10", RelayLayer),
        (None, "203.0.113.10", RelayLayer),
        ("paged.example", "203.0.113.10", layers.ServerTLSLayer),
        ("blocked.example", "203.0.113.10", layers.ServerTLSLayer),
        ("plain.example", "127.0.0.66", layers.ServerTLSLayer),
    ],
)
async def test_tls(addon: Urlward, name: str | None, address: str, kind: type[layer.Layer]) -> None:
    assert type(decided(addon, client_hello(name), address=address)) is kind


@pytest.mark.parametrize(
    ("port", "data", "kind"),
    [
        (443, b"\xc0\0\0\0\1".ljust(1200, b"\0"), CloseLayer),
        # Another version, another port, and a packet of a connection that began elsewhere.
        (9000, b"\xd0\x6b\x33\x43\xcf".ljust(1200, b"\0"), CloseLayer),
        (443, b"\x40".ljust(40, b"\1"), CloseLayer),
        (53, b"\x80\1\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1", layers.DNSLayer),
        (3478, b"\0\1\0\0\x21\x12\xa4\x42".ljust(20, b"\0"), layers.UDPLayer),
    ],
)
async def test_no_http3_passes(addon: Urlward, port: int, data: bytes, kind: type[layer.Layer]) -> None:
    context = make_context("transparent")
    context.client.transport_protocol = "udp"
    context.server.address = ("203.0.113.10", port)
    modes.TransparentProxy(context)
    assert isinstance(ask(addon, context, data), kind)


async def test_a_hello_that_is_none(addon: Urlward) -> None:
    assert isinstance(decided(addon, b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"), RefuseTlsLayer)
    assert isinstance(
        decided(addon, b"\x16\x03\x01\xff\xff" + b"\x01\xff\xff\xff" + bytes(1 << 17)), RefuseTlsLayer
    )


@pytest.mark.parametrize("rawtcp", [True, False])
@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"G", b"\r\nGET", b"SSH-2.0-x\r\n", b"\x00" * 9])
async def test_whatever_else_is_read_as_http(tctx: taddons.context, data: bytes, rawtcp: bool) -> None:
    tctx.options.update(rawtcp=rawtcp)
    addon = tctx.master.addons.get("urlward")
    for mode in ("transparent", "regular", "reverse:http://203.0.113.10"):
        assert isinstance(decided(addon, data, mode), WardHttpLayer), mode


async def test_layers_keep_their_order(addon: Urlward) -> None:
    for mode, data, kinds in (
        ("reverse:https://203.0.113.10", b"GET", [layers.ServerTLSLayer, WardHttpLayer]),
        (
            "reverse:https://203.0.113.10",
            client_hello("paged.example"),
            [layers.ServerTLSLayer, layers.ClientTLSLayer, WardHttpLayer],
        ),
        ("regular", client_hello("proxy.invalid"), [layers.ClientTLSLayer, WardHttpLayer]),
        ("reverse:tcp://203.0.113.10:443", b"GET", [layers.TCPLayer]),
    ):
        top = decided(addon, data, mode)
        assert [type(part) for part in top.context.layers[1:]] == kinds
        part: Any = top
        for kind in kinds[1:]:
            part = part.child_layer
            assert type(part) is kind


async def test_a_handshake_may_not_take_for_ever(addon: Urlward) -> None:
    top = decided(addon, client_hello("paged.example"))
    client = top.context.client
    (member,) = addon.live
    assert (member.head(), member.client) == (0, client)
    addon.tls_established_client(TlsData(client, top.context))
    assert list(addon.live) == []


async def test_an_origin_over_quic_has_its_ciphers(tctx: taddons.context) -> None:
    """mitmproxy reads `ciphers_server` in its own words there, and the origin would not be reached."""
    suites = import_module("aioquic.tls").CipherSuite.__members__
    addon = tctx.master.addons.get("urlward")
    for mode, kept in (("reverse:http3://203.0.113.10", False), ("reverse:dtls://203.0.113.10:443", True)):
        server = Server(address=("203.0.113.10", 443), transport_protocol="udp")
        await addon.server_connect(ServerConnectionHookData(server, make_context(mode).client))
        assert (not server.cipher_list) is kept
        assert set(server.cipher_list) <= set(suites)


async def test_the_filter_does_not_connect_to_itself(tctx: taddons.context) -> None:
    addon = tctx.master.addons.get("urlward")
    addon.ports.add(8080)
    for host, port, client, refused in (
        ("127.0.0.1", 8080, "127.0.0.1", True),
        ("127.0.0.1", 8081, "127.0.0.1", False),
        ("127.0.0.1", 8081, "192.0.2.1", True),
        ("localhost", 8081, "192.0.2.1", True),
        ("::1", 8080, "::1", True),
        ("[::1]", 8081, "192.0.2.1", True),
        ("203.0.113.10", 8080, "192.0.2.1", False),
        ("localhost", 8080, "127.0.0.1", True),
        (r"\108ocalhost", 8081, "127.0.0.1", True),
    ):
        data = ServerConnectionHookData(Server(address=(host, port)), make_context().client)
        data.client.peername = (client, 1234)
        await addon.server_connect(data)
        assert (data.server.error is not None) is refused, (host, port, client)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("allowed", [False, True])
async def test_a_tunnel_leads_to_nothing_that_only_this_machine_reaches(
    tctx: taddons.context, protocol: Literal["tcp", "udp"], allowed: bool
) -> None:
    """No kernel is between that would drop what is sent there, or says that it comes from there."""
    addon = tctx.master.addons.get("urlward")
    addon.access = Access(ProxyTable(allow_local=allowed))
    for host, client, refused in (
        ("127.0.0.1", "10.0.0.1", not allowed),
        ("127.0.0.1", "127.0.0.1", not allowed),
        ("169.254.169.254", "10.0.0.1", not allowed),
        ("203.0.113.10", "10.0.0.1", False),
    ):
        server = Server(address=(host, 8081), transport_protocol=protocol)
        data = ServerConnectionHookData(server, make_context("wireguard").client)
        data.client.peername = (client, 1234)
        await addon.server_connect(data)
        assert (server.error is not None) is refused, (host, client)


async def test_socks_leads_to_no_other_port(tctx: taddons.context) -> None:
    addon = tctx.master.addons.get("urlward")
    for mode, port, refused in (
        ("socks5", 25, True),
        ("socks5", 80, False),
        ("upstream:http://a", 25, False),
    ):
        data = ServerConnectionHookData(Server(address=("203.0.113.10", port)), make_context(mode).client)
        await addon.server_connect(data)
        assert (data.server.error is not None) is refused, (mode, port)


@pytest.mark.parametrize(("client", "refused"), [("192.0.2.1", True), ("127.0.0.1", False)])
async def test_a_name_that_leads_elsewhere_once_it_is_connected_to(
    addon: Urlward, client: str, refused: bool
) -> None:
    """A name of the client's own choice has another address each time that it is asked for."""
    data = ServerConnectionHookData(Server(address=("name.example", 8081)), make_context().client)
    data.client.peername = (client, 1234)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    data.server.peername = ("127.0.0.1", port)
    carrier = Mock()
    handler = SimpleNamespace(
        client=data.client,
        transports={
            data.server: SimpleNamespace(reader=None, writer=writer),
            data.client: SimpleNamespace(handler=carrier),
        },
    )
    with patch.object(addon, "handler", return_value=handler):
        addon.server_connected(data)
    assert writer.transport.is_closing() is refused
    assert carrier.cancel.called is refused
    writer.close()
    server.close()


@pytest.mark.parametrize(("alpn", "kind"), [(b"http/1.1", WardHttp1Server), (b"h2", Http2Server)])
async def test_what_is_inside_tls_is_known_once_it_has_begun(
    addon: Urlward, alpn: bytes, kind: type[layer.Layer]
) -> None:
    top: Any = decided(addon, client_hello("paged.example"), "reverse:https://203.0.113.10")
    context = top.context
    ours = top.child_layer.child_layer
    assert type(ours) is WardHttpLayer
    assert context.layers[-1] is ours
    context.client.sni, context.client.alpn = "paged.example", alpn
    list(ours.handle_event(events.Start()))
    assert type(ours.connections[context.client]) is kind


async def test_the_operators_own_exceptions_stand(tctx: taddons.context) -> None:
    addon = tctx.master.addons.get("urlward")
    tctx.options.update(ignore_hosts=["^203\\.0\\.113\\.10:"])
    ignored = decided(addon, client_hello("blocked.example"))
    assert isinstance(ignored, layers.TCPLayer)
    assert ignored.flow is None
    # And no others: what is not ignored is relayed undecrypted as before.
    assert type(decided(addon, client_hello("plain.example"), address="203.0.113.11")) is RelayLayer
    tctx.options.update(ignore_hosts=[], tcp_hosts=["203.0.113.12"], rawtcp=True)
    assert isinstance(decided(addon, b"SSH-2.0", address="203.0.113.12"), layers.TCPLayer)
    assert isinstance(decided(addon, b"SSH-2.0", address="203.0.113.13"), WardHttpLayer)


@pytest.mark.parametrize("on_error", ["block", "pass"])
async def test_a_fault_in_choosing_a_layer(
    tctx: taddons.context, on_error: str, caplog: pytest.LogCaptureFixture
) -> None:
    addon = tctx.master.addons.get("urlward")
    tctx.options.update(urlward_on_error=on_error)
    with patch.object(addon, "_next_layer", side_effect=RuntimeError("blocked.example")):
        chosen = decided(addon, b"GET / HTTP/1.1\r\n\r\n")
    assert type(chosen) is (CloseLayer if on_error == "block" else layers.HttpLayer)
    assert "error=RuntimeError" in caplog.text
    assert "blocked.example" not in caplog.text


async def test_through_the_whole_stack(addon: Urlward) -> None:
    """From mitmproxy's own question for a layer to the answer."""
    context = make_context("transparent")
    context.server.address = ("203.0.113.10", 80)

    def hooks(hook: Any) -> None:
        if (handler := getattr(addon, hook.name, None)) and not iscoroutinefunction(handler):
            handler(*hook.args())

    driver = Driver(modes.TransparentProxy(context), on_hook=hooks)
    for byte in b"GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n":
        driver.receive(bytes([byte]))
    assert driver.to_client.startswith(b"HTTP/1.1 451 ")
    assert driver.opened == []


# -- addresses of names


async def looked_up(addon: Urlward, host: str, address: str | None) -> str | None:
    server = Server(address=(host, 443))
    found: Any = socket.gaierror() if address is None else None
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]
    with patch("socket.getaddrinfo", side_effect=found, return_value=answer) as lookup:
        await addon.server_connect(ServerConnectionHookData(server, tflow.tclient_conn()))
        assert lookup.called is not host.startswith("127.")
    return server.error


async def test_a_name_with_a_listed_address_is_not_connected_to(addon: Urlward) -> None:
    error = await looked_up(addon, "name.example", "127.0.0.66")
    assert isinstance(error, ListedAddress)
    assert error == "127.0.0.66"
    assert await looked_up(addon, "name.example", "127.0.0.1") is None
    assert await looked_up(addon, "name.example", None) is None
    assert await looked_up(addon, "127.0.0.66", "127.0.0.66") is None, "decided on before"


async def test_names_are_not_looked_up_where_no_address_is_listed(addon: Urlward, tmp_path: Path) -> None:
    assert addon.keeper is not None
    (tmp_path / "list.txt").write_text("blocked.example\n")
    await addon.keeper.reload()
    with patch("socket.getaddrinfo") as lookup:
        data = ServerConnectionHookData(Server(address=("name.example", 443)), tflow.tclient_conn())
        await addon.server_connect(data)
    assert not lookup.called


# -- reload


async def test_the_reload_command(tctx: taddons.context, tmp_path: Path) -> None:
    addon = tctx.master.addons.get("urlward")
    (tmp_path / "list.txt").write_text(LIST + "plain.example id=A-9\n")
    tctx.master.commands.call("urlward.reload")
    for _ in range(3000):
        if addon.keeper.matcher.check_host("plain.example").blocked:
            break
        await asyncio.sleep(0.02)
    flow = flow_to("plain.example")
    addon.requestheaders(flow)
    assert flow.response.status_code == 451


async def test_running_and_done(tctx: taddons.context, caplog: pytest.LogCaptureFixture) -> None:
    addon = tctx.master.addons.get("urlward")
    caplog.set_level(logging.WARNING)
    tctx.options.update(connection_strategy="eager", rawtcp=True)
    addon.running()
    assert "connection_strategy=lazy" in caplog.text
    assert "rawtcp=false" in caplog.text
    watches = list(addon._watches)
    assert watches
    addon.done()
    for watch in watches:
        with pytest.raises(asyncio.CancelledError):
            await watch


def test_the_script_has_one_addon() -> None:
    from urlward import script

    (addon,) = script.addons
    assert isinstance(addon, Urlward)


async def test_the_script_takes_what_no_option_says_from_the_configuration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A trial that blocks, or a list that anybody has signed, would be no trial and no trust."""
    from urlward.script import Script

    (tmp_path / "list.txt").write_text(LIST)
    first, second = tmp_path / "urlward.toml", tmp_path / "second.toml"
    own = 'intercept = "none"\non_error = "pass"\n'
    first.write_text(f'list = ["list.txt"]\nmonitor = true\nstatus = 403\n{own}')
    second.write_text('list = ["list.txt"]\nstatus = 403\n')
    script = Script()
    with taddons.context(Proxyserver(), NextLayer(), script) as tctx:
        options = tctx.options
        options.set("urlward_intercpt=none", defer=True)
        said = {"urlward_intercept": "all", "urlward_on_error": "block"}
        tctx.configure(script, urlward_config=str(first), **said)
        script.configure(set(options.keys()))  # as mitmproxy does once a script is there
        assert script.keeper is not None
        assert script.keeper.matcher.check_host("blocked.example").blocked
        assert (options.urlward_monitor, options.urlward_status) == (True, 403)
        assert options.urlward_intercept == "all", "an option goes before"
        assert options.urlward_on_error == "block", "one that says what is so by itself, too"
        script.running()
        options.update(urlward_config=str(second))
        assert (options.urlward_monitor, options.urlward_status) == (False, 403)
        with pytest.raises(exceptions.OptionsError, match="No such file"):
            options.update(urlward_config=str(tmp_path / "none.toml"))
        script.done()
        await script.close()
    assert "urlward_intercpt: no such option" in caplog.text


def test_in_mitmproxys_tools_nobody_gets_in_whose_password_is_not_asked_for(tmp_path: Path) -> None:
    from mitmproxy.addons.proxyauth import ProxyAuth

    from urlward.script import Script

    (tmp_path / "list.txt").write_text(LIST)
    config = tmp_path / "urlward.toml"
    config.write_text('list = ["list.txt"]\n[proxy]\nusers = "users"\n')
    script = Script()
    with taddons.context(Proxyserver(), NextLayer(), ProxyAuth(), script) as tctx:
        with pytest.raises(exceptions.OptionsError, match="set proxyauth"):
            tctx.configure(script, urlward_config=str(config))
        tctx.options.proxyauth = "a:b"
        tctx.configure(script, urlward_config=str(config))
        assert script.keeper is not None
        script.done()


@pytest.mark.parametrize(
    ("text", "learns"),
    [
        ("{records}[files]\n", True),
        ("{records}[files]\nlearn_days = 0\n", False),
        ("{records}", False),
        ("[files]\n", False),
    ],
    ids=["files", "for no days", "no files", "no records"],
)
async def test_urls_of_known_files_are_learned_where_that_is_configured(
    text: str, learns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = 'state = "state"\n[records]\n[records.days]\nblocks = 1\noperations = 1\n'
    (tmp_path / "urlward.toml").write_text(text.format(records=records))
    urlward = Urlward()
    with loaded(urlward, tmp_path, urlward_config=str(tmp_path / "urlward.toml")):
        assert urlward.guard is not None
        assert (urlward.guard.learner is not None) is learns
        assert urlward.learner is urlward.guard.learner
        if urlward.recording is not None:
            assert urlward.recording.metrics.looks_at_files is ("[files]" in text)
        if urlward.learner is not None:
            urlward.learner.learn(Match("listed.example/a", "hotline", "H-7", "", "R-1"))
        urlward.running()
        urlward.done()
        await urlward.close()
    assert ("files: without [records]" in caplog.text) is (text == "[files]\n")
    assert len(list(tmp_path.glob("state/learn/*"))) == learns, "what was handed on is written"


@pytest.mark.parametrize(
    ("text", "mode", "options", "said"),
    [
        ("[files]\n", "regular", {}, False),
        ("[files]\n", "transparent", {}, False),
        ("[files]\n", "socks5", {}, False),
        ("[files]\n", "reverse:https://192.0.2.7", {"keep_host_header": True}, False),
        ("[files]\n", "reverse:https://192.0.2.7", {"keep_host_header": False}, True),
        ("", "upstream:http://192.0.2.7:3128", {}, False),
        ("[files]\n", "upstream:http://192.0.2.7:3128", {}, True),
        ("[files]\n", "wireguard", {}, True),
        ("[files]\n", "reverse:dns://192.0.2.7", {}, True),
        ("[files]\n", "regular", {"urlward_flows": True}, True),
        ("[files]\n", "regular", {"body_size_limit": "1m"}, True),
    ],
)
async def test_it_is_said_where_known_files_are_not_looked_for(
    text: str,
    mode: str,
    options: dict[str, Any],
    said: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "urlward.toml").write_text(text)
    urlward = Urlward()
    given = {"urlward_flows": False, "mode": [mode], "urlward_config": str(tmp_path / "urlward.toml")}
    with loaded(urlward, tmp_path, **given | options):
        urlward.running()
        urlward.done()
        await urlward.close()
    assert ("is not compared with known files: mode " + mode in caplog.text) is said


@pytest.mark.parametrize("compares", [True, False])
async def test_the_inspector_is_told_of_lists_that_pictures_are_compared_with(
    compares: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier needs none, and what is wrong with one is no trouble then."""
    monkeypatch.setattr("urlward.proxy.addon.is_worker", lambda: True)
    run = SimpleNamespace(path=tmp_path, secret=b"s" * 32)
    monkeypatch.setattr("urlward.proxy.addon.inherited", lambda: run)
    pictures = "alert" if compares else "off"
    (tmp_path / "urlward.toml").write_text(f'[files]\npictures = "{pictures}"\nclassifier = "json:loads"\n')
    urlward = Urlward()
    with loaded(urlward, tmp_path, urlward_config=str(tmp_path / "urlward.toml")):
        assert urlward.inspector is not None
        assert bool(urlward.inspector._lists()) is compares
        await urlward.close()


async def test_what_is_under_way_is_judged_again_once_a_day_is_over(
    addon: Urlward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry with `@@` may have been in force on it for the last time."""
    found = []
    for now in (86_398.0, 86_399.0, 86_400.0):
        monkeypatch.setattr("urlward.proxy.addon.time", Mock(time=Mock(return_value=now)))
        found.append(addon._in_force())
    assert found[0] == found[1] != found[2]
