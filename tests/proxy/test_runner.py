import io
import logging
import os
import ssl
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from mitmproxy import log, master, options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import websocket
from mitmproxy.test import tflow

from rows import each_row
from urlward.config import Config, ConfigError, GatewayTable
from urlward.lines import finish
from urlward.proxy.authority import make_authority
from urlward.proxy.mitm import authority_of, forget_log_events
from urlward.proxy.runner import (
    ForgetMessages,
    Messages,
    Startup,
    _master,
    in_one_line,
)
from urlward.proxy.settings import RunError, Settings
from urlward.proxy.tls import Origins

pytestmark = pytest.mark.usefixtures("compiles_here")


def settings(folder: Path, *extra: str) -> Settings:
    (folder / "list.txt").write_text("blocked.example\n")
    return Settings((folder / "list.txt",), ("regular",), ("127.0.0.1", 0), {}, str(folder), extra)


@pytest.mark.parametrize("store", ["file", "folder", "none"])
async def test_origins_are_trusted_by_the_systems_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    (tmp_path / "0a1b2c3d.0").touch()
    file = str(tmp_path / "bundle.pem") if store == "file" else None
    folder = str(tmp_path) if store != "none" else None
    paths = ssl.get_default_verify_paths()._replace(cafile=file, capath=folder)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)

    def trusted(*extra: str) -> tuple[str | None, str | None]:
        options = _master(settings(tmp_path, *extra), Messages()).options
        return options.ssl_verify_upstream_trusted_ca, options.ssl_verify_upstream_trusted_confdir

    assert trusted() == (file, folder if store == "folder" else None)
    other = str(tmp_path / "other.pem")
    assert trusted(f"ssl_verify_upstream_trusted_ca={other}") == (other, None)


async def test_defaults_are_safe(tmp_path: Path) -> None:
    options = _master(settings(tmp_path), Messages()).options
    assert options.connection_strategy == "lazy"
    assert options.rawtcp is False
    assert options.keep_host_header is True
    assert options.block_global is False
    assert options.store_streamed_bodies is False
    session = Origins(options).begin(("origin.example", 443, ""), b"origin.example").session
    exchanges = {cipher["kea"] for cipher in session.context.get_ciphers()}
    assert "kx-ecdhe" in exchanges
    assert "kx-dhe" not in exchanges, "in a group of the origin's choice"


async def test_an_option_of_mitmproxys_own(tmp_path: Path) -> None:
    assert _master(settings(tmp_path, "rawtcp=true"), Messages()).options.rawtcp is True
    with pytest.raises(ConfigError, match=r"^--set: .*no_such"):
        _master(settings(tmp_path, "no_such=1"), Messages())


async def test_the_key_of_an_authority_of_ones_own_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "mitmproxy-ca.pem"
    make_authority(tmp_path)
    key = load_pem_private_key(path.read_bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    path.write_bytes(sealed + (tmp_path / "mitmproxy-ca-cert.pem").read_bytes())
    proxy = _master(settings(tmp_path, "cert_passphrase=secret"), Messages())
    certificate, opened, _ = authority_of(proxy.addons.get("tlsconfig"))
    assert opened.public_key() == key.public_key() == certificate.public_key()


async def test_one_that_does_not_go_with_the_gateway(tmp_path: Path) -> None:
    given = settings(tmp_path, "connect_addr=192.0.2.1")
    assert _master(given, Messages()).options.connect_addr == "192.0.2.1"
    given = replace(given, config=Config(gateway=GatewayTable(keep_source=True)))
    with pytest.raises(ConfigError, match=r"^--set: with connect_addr origins would not see"):
        _master(given, Messages())


async def test_no_addon_keeps_flows(tmp_path: Path) -> None:
    names = set(_master(settings(tmp_path), Messages()).addons.lookup)
    assert "urlward" in names
    assert not names & {
        "view",
        "save",
        "readfile",
        "dumper",
        "eventstore",
        "clientplayback",
        "serverplayback",
    }


@each_row(
    ("error", "said"),
    [
        (
            "[Errno 98] HTTP(S) proxy failed to listen on 127.0.0.1:80 with [Errno 98] error while "
            "attempting to bind on address ('127.0.0.1', 80): [errno 98] address already in use",
            "cannot listen on 127.0.0.1:80: address already in use",
        ),
        (
            "[Errno 13] HTTP(S) proxy failed to listen on *:80 with [Errno 13] error while "
            "attempting to bind on address ('0.0.0.0', 80): [errno 13] permission denied",
            "cannot listen on *:80: permission denied",
        ),
        (
            "[Errno None] HTTP(S) proxy failed to listen on 192.0.2.1:80 with could not bind on any "
            "address out of [('192.0.2.1', 80)]",
            "cannot listen on 192.0.2.1:80: not an address of this machine",
        ),
        ("Something else", "Something else"),
    ],
)
def test_in_one_line(error: str, said: str) -> None:
    assert in_one_line(error) == said


def record(name: str, level: int, text: str, **more: Any) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, None, **{"exc_info": None, **more})


async def test_an_error_at_the_start_ends_it() -> None:
    messages = Messages()
    startup = Startup(messages)
    await startup.shutdown_if_errored()
    messages.emit(record("mitmproxy.proxy", logging.ERROR, "no such thing\nand more"))
    with pytest.raises(RunError, match=r"^no such thing$"):
        await startup.shutdown_if_errored()


async def test_what_urlward_keeps_for_itself_ends_no_start(capsys: pytest.CaptureFixture[str]) -> None:
    messages = Messages()
    messages.emit(record("urlward.lists", logging.ERROR, "allows.json: damaged"))
    await Startup(messages).shutdown_if_errored()
    assert capsys.readouterr().err == "allows.json: damaged\n"


async def test_no_line_of_the_log_becomes_an_event_of_mitmproxys() -> None:
    root = logging.getLogger()
    handler = log.LegacyLogEvents(master.Master(options.Options()))
    other = logging.NullHandler()
    root.addHandler(handler)
    root.addHandler(other)
    try:
        forget_log_events(root)
        assert not any(isinstance(one, log.LegacyLogEvents) for one in root.handlers)
        assert other in root.handlers
    finally:
        root.removeHandler(other)


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    messages = Messages()
    Startup(messages).finish()
    messages.emit(record("urlward", logging.INFO, "ours"))
    messages.emit(record("urlward.lists", logging.WARNING, "ours, to worry about"))
    messages.emit(record("mitmproxy.proxy", logging.WARNING, "client does not trust blocked.example"))
    messages.emit(record("asyncio", logging.INFO, "blocked.example"))
    try:
        raise RuntimeError("blocked.example")
    except RuntimeError:
        messages.emit(record("mitmproxy", logging.ERROR, "crashed!", exc_info=sys.exc_info()))
    out, err = capsys.readouterr()
    assert out == "ours\n"
    assert err == "ours, to worry about\nmitmproxy: crashed! (RuntimeError)\n"


def test_what_repeats_is_said_again_after_a_while_whatever_the_clock_is_set_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = Messages()
    Startup(messages).finish()
    steady = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: steady)
    for passed, set_to in ((0, 0), (1, 86_400), (6, -86_400), (1, -86_400)):
        steady += passed
        for text in ("no more files", "not WireGuard"):
            said = record("mitmproxy", logging.ERROR, text)
            said.created += set_to
            messages.emit(said)
    assert capsys.readouterr().err == "mitmproxy: no more files\nmitmproxy: not WireGuard\n" * 2


@each_row(
    ("said", "printed"),
    [
        ("too large (192.0.2.7 -> 10.0.0.1)", "too large (an address -> an address)"),
        (
            "192.0.2.7:443, [2001:db8::7]:443, ::ffff:192.0.2.7",
            "an address:443, [an address]:443, an address",
        ),
        ("WG::process: Err: Closed at 12:30, 12.3.1", "WG::process: Err: Closed at 12:30, 12.3.1"),
    ],
)
def test_no_address_is_in_what_mitmproxy_says(
    said: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = Messages()
    Startup(messages).finish()
    messages.emit(record("mitmproxy.packet_sources.wireguard", logging.ERROR, said))
    assert capsys.readouterr().err == f"mitmproxy: {printed}\n"


def test_a_closed_log_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    Messages().emit(record("urlward", logging.INFO, "ours"))


def test_a_log_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    with os.fdopen(writes, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        for _ in range(1000):
            Messages().emit(record("urlward", logging.INFO, "x" * 100))
        os.close(reads)
        finish()


def test_messages_are_forgotten() -> None:
    forget = ForgetMessages()
    tcp, udp = tflow.ttcpflow(), tflow.tudpflow()
    forget.tcp_message(tcp)
    forget.udp_message(udp)
    assert [len(tcp.messages), len(udp.messages)] == [1, 1]


async def test_websockets_pass_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message waited for addons, and all that was read meanwhile was kept: 150 MB a second."""
    monkeypatch.setattr(websocket, "WebsocketLayer", websocket.WebsocketLayer)
    _master(settings(tmp_path), Messages())
    flow = tflow.twebsocketflow()
    context = Context(flow.client_conn, options.Options())
    context.server = flow.server_conn
    layer = websocket.WebsocketLayer(context, flow)
    assert list(layer.handle_event(events.Start())) == []
    data = b"\x82\x01x" * 3 + b"\x02\x7f"
    [sent] = layer.handle_event(events.DataReceived(context.server, data))
    assert isinstance(sent, commands.SendData)
    assert (sent.connection, sent.data) == (context.client, data)
