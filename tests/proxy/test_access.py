"""Who may use the explicit proxy, and for what, with real sockets in one process."""

import asyncio
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bcrypt
import pytest

from conftest import until
from proxy.driver import refused
from proxy.rig import OK, Rig, answer, reset
from rows import each_row
from urlward.config import ProxyTable
from urlward.config.proxy import PacTable
from urlward.proxy import session
from urlward.proxy.access import Access, is_inside
from urlward.proxy.head import RequestFields, RequestHead
from urlward.proxy.passwords import MOST_WAITING, Passwords
from urlward.proxy.session import SessionClient
from urlward.proxy.upstream import Opening

RIGHT, WRONG = (
    b"Proxy-Authorization: %b %b\r\n" % (s, b64encode(c)) for s, c in ((b"basic", b"a:x"), (b"Basic", b"a:y"))
)
BAD_SOCKS = b"\x05\x01\x02\x01\x01a\x01y"
SOCKS = b"\x05\x01\x02\x01\x01a\x01x"


def get(rig: Rig, more: bytes = b"", port: int = 0) -> bytes:
    port = port or rig.origin_port
    return b"GET http://plain.example:%d/ HTTP/1.1\r\nHost: plain.example\r\n%b\r\n" % (port, more)


def connect(rig: Rig, more: bytes = b"", port: int = 0) -> bytes:
    return b"CONNECT plain.example:%d HTTP/1.1\r\n%b\r\n" % (port or rig.origin_port, more)


def to_name(port: int) -> bytes:
    return b"\x05\x01\x00\x03\x0dplain.example" + port.to_bytes(2)


def statuses(said: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d+) ", said)]


@pytest.fixture
def users(tmp_path: Path) -> Passwords:
    (tmp_path / "users").write_bytes(b"a:" + bcrypt.hashpw(b"x", bcrypt.gensalt(4)) + b"\n")
    return Passwords(f"@{tmp_path / 'users'}")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients come from another machine."""
    made = SessionClient.__init__

    def init(self: SessionClient, _peername: object, *more: Any) -> None:
        made(self, ("192.0.2.1", 1234), *more)

    monkeypatch.setattr(SessionClient, "__init__", init)


# -- passwords


async def test_requests_with_a_password(rig: Rig, users: Passwords) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(OK)
        writer.close()

    await rig.start(serve, "regular")
    rig.lead()
    rig.addon.take_passwords(users)
    said = await rig.ask(
        get(rig), get(rig, WRONG), get(rig, RIGHT), get(rig, b"Proxy-Authorization: x\r\n"), get(rig, RIGHT)
    )
    assert statuses(said) == [407, 407, 200, 407, 200]
    assert said.count(b'\r\nProxy-Authenticate: Basic realm="urlward", charset="UTF-8"\r\n') == 3
    assert len(heads) == 2
    assert not [head for head in heads if b"authorization" in head.lower()]
    assert refused(rig.addon.guard) == 3
    await rig.settled()


async def test_tunnels_with_a_password(rig: Rig, users: Passwords) -> None:
    await rig.start(answer, "regular")
    rig.lead()
    rig.addon.take_passwords(users)
    inside = b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"
    # What comes with the request waits with it.
    for before, codes in ((connect(rig) + connect(rig, WRONG), [407, 407]), (b"", [])):
        rig.addon.take_passwords(users if before else Passwords("a:x"))
        reader, writer = await rig.connect()
        writer.write(before + connect(rig, RIGHT) + inside)
        assert statuses(await reader.readuntil(b"\r\n\r\nok")) == [*codes, 200, 200]
        writer.close()
    post = (
        b"POST http://plain.example:%d/ HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n" % rig.origin_port
    )
    assert statuses(await rig.ask(post + WRONG + b"\r\n" + b"x" * 200_000, end=False)) == [407]
    await rig.settled()


async def test_socks_with_a_password(rig: Rig, users: Passwords) -> None:
    await rig.start(answer, "socks5")
    rig.lead()
    rig.addon.take_passwords(users)
    rest = to_name(rig.origin_port) + b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"
    said = await rig.ask(SOCKS + rest)
    assert said.startswith(b"\x05\x02\x01\x00\x05\x00")
    assert said.endswith(OK)
    assert await rig.ask(BAD_SOCKS + rest) == b"\x05\x02\x01\x01"
    assert await rig.ask(b"\x05\x01\x00" + rest) == b"\x05\xff"
    await rig.settled()


def looks_later(held: Passwords) -> threading.Event:
    """Have a look at a password take until this is set."""
    go_on, check = threading.Event(), held._check
    held._check = lambda *of: go_on.wait(60) and check(*of)
    return go_on


async def test_a_password_is_looked_at_beside_other_traffic(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.start(answer, "regular")
    rig.lead()
    held, troubles = Passwords("a:x"), []
    monkeypatch.setattr(rig.addon, "trouble", lambda kind, why: troubles.append((kind, bool(why))))
    rig.addon.take_passwords(held)
    go_on = looks_later(held)
    waits, writer = await rig.connect()
    writer.write(get(rig, RIGHT))
    await until(lambda: held._threads.works)
    for number in range(MOST_WAITING - 1):
        held.ask(b64encode(b"guess%d:" % number), "127.0.0.1", lambda: None)
    said = await rig.ask(get(rig, WRONG))
    assert statuses(said) == [503]
    assert b"Retry-After" not in said
    assert troubles == [("passwords", True)]
    held._seconds, held._begun = 0.25, time.monotonic()
    assert b"Retry-After: 1024\r\n" in await rig.ask(get(rig, WRONG))
    other = Passwords("a:x")
    rig.addon.take_passwords(other)
    assert troubles[1:] == [("users", False), ("passwords", False)]
    assert statuses(await rig.ask(get(rig, RIGHT))) == [200]
    rig.addon.take_passwords(held)
    go_on.set()
    assert (await waits.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await rig.settled()


async def test_a_client_that_leaves_before_its_password_was_looked_at(rig: Rig) -> None:
    await rig.start(answer, "regular")
    held = Passwords("a:x")
    rig.addon.take_passwords(held)
    go_on = looks_later(held)
    _, writer = await rig.connect()
    writer.write(get(rig, RIGHT))
    await until(lambda: held._threads.works)
    reset(writer)
    await rig.settled()
    go_on.set()
    await until(lambda: not held._threads.works)
    assert rig.errors == []


# -- destinations


@pytest.mark.parametrize("port", [25, 80, 8443])
async def test_ports(rig: Rig, port: int) -> None:
    await rig.start(answer, "regular")
    rig.lead()
    rig.addon.access = Access(ProxyTable(connect_ports=("8000-9000",)))
    assert statuses(await rig.ask(get(rig, port=port))) == [403 if port == 25 else 200]
    assert statuses(await rig.ask(connect(rig, port=port))) == [200 if port == 8443 else 403]
    await rig.start(answer, "socks5")
    said = await rig.ask(b"\x05\x01\x00" + to_name(port), end=False) if port != 8443 else b""
    assert said in (b"", b"\x05\x00\x05\x02\x00\x01" + bytes(6))[port != 8443 :]
    await rig.settled()


@each_row(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.169.254",
        "::1", "::", "fe80::1", "fe80::1%lo", "::ffff:127.0.0.1", "::ffff:169.254.1.1", "::ffff:0.0.0.0",
    ],
)  # fmt: skip
def test_addresses_that_mean_another_machine_to_each(address: str) -> None:
    assert is_inside(address)


@each_row("address", ["203.0.113.7", "10.0.0.1", "192.168.1.1", "2001:db8::7", "fd00::1", "::ffff:10.0.0.1"])
def test_other_addresses(address: str) -> None:
    assert not is_inside(address)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("mode", ["regular", "socks5", "transparent"])
@pytest.mark.parametrize("allowed", [False, True])
async def test_no_name_leads_a_client_to_what_only_this_machine_reaches(
    rig: Rig, mode: str, allowed: bool
) -> None:
    await rig.start(answer, mode)
    rig.lead()
    rig.addon.access = Access(ProxyTable(allow_local=allowed))
    request = get(rig) if mode == "regular" else b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n"
    before = b"\x05\x01\x00" + to_name(rig.origin_port) if mode == "socks5" else b""
    reached = 200 if allowed or mode == "transparent" else 403
    said = await rig.ask(before + request, end=False) if reached == 403 else await rig.ask(before + request)
    assert statuses(said[12 * bool(before) :]) == [reached]
    assert refused(rig.addon.guard) == (reached == 403)
    await rig.settled()


@pytest.mark.usefixtures("elsewhere")
async def test_each_address_of_a_name_is_judged(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Sequence[Any]] = []

    class Noted(Opening):
        def __init__(
            self, poller: Any, share: Any, addresses: Sequence[Any], *more: Any, **named: Any
        ) -> None:
            tried.append(addresses)
            super().__init__(poller, share, [("127.0.0.1", rig.origin_port)], *more, **named)

    monkeypatch.setattr(session, "Opening", Noted)
    await rig.start(answer, "regular")
    rig.lead(
        ("127.0.0.1", 80), ("203.0.113.7", 80), ("::ffff:127.0.0.1", 80, 0, 0), ("2001:db8::7", 80, 0, 0)
    )
    # Where the connection has led to is judged once more.
    assert statuses(await rig.ask(get(rig), end=False)) == [403]
    assert tried == [[("203.0.113.7", 80), ("2001:db8::7", 80, 0, 0)]]
    await rig.settled()


async def test_the_dashboard_is_no_destination(rig: Rig) -> None:
    await rig.start(answer, "regular")
    rig.lead()
    rig.addon._admin_port = rig.origin_port
    assert statuses(await rig.ask(get(rig), end=False)) == [403]
    by_address = get(rig).replace(b"http://plain.example", b"http://127.0.0.1")
    assert statuses(await rig.ask(by_address, end=False)) == [403]
    await rig.settled()


# -- proxy auto-configuration


PAC = PacTable(
    proxies=("proxy.example:8080", "[2001:db8::8]:8080"),
    direct=("Intranet.example", "192.0.2.0/24", "2001:db8:1::/48"),
)


def head(method: bytes, target: bytes) -> RequestHead:
    return RequestHead(method, target, RequestFields(1, keep_alive=True))


# As in clients that look for a dot alone, which an IPv6 address has none of; Firefox has no `isInNetEx`.
NAIVE = """
function isPlainHostName(host) { return host.indexOf(".") < 0; }
function dnsDomainIs(host, domain) { return host.endsWith(domain); }
function isInNet(host) { return host === "192.0.2.1"; }
"""


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_what_goes_past_the_proxy() -> None:
    names = "intranet", "a.intranet.example"
    direct = (*names, "192.0.2.1", "2001:db8:1::1", "[2001:db8:1::]", "2001:db8:1:2:3:4:5:6")
    names = "www.example", "xintranet.example"
    others = (*names, "198.51.100.7", "2001:db8::7", "[2001:db8::7]", "2001:db8:10::1", "::1")
    script = Access(ProxyTable(pac=PAC)).own(head(b"GET", b"/proxy.pac")).body.decode()
    asked = f"{json.dumps(direct + others)}.map(host => FindProxyForURL('', host))"
    told = subprocess.run(
        ["node", "-p", f"{NAIVE}{script}JSON.stringify({asked})"], capture_output=True, check=True, text=True
    )
    found = [answer == "DIRECT" for answer in json.loads(told.stdout)]
    assert found == [True] * len(direct) + [False] * len(others)


def test_what_the_proxy_serves() -> None:
    access = Access(ProxyTable(pac=PAC))
    found = access.own(head(b"GET", b"/proxy.pac"))
    assert found == access.own(head(b"GET", b"/wpad.dat?x"))
    assert dict(found.headers)[b"Content-Type"] == b"application/x-ns-proxy-autoconfig"
    assert b'return "PROXY proxy.example:8080; PROXY [2001:db8::8]:8080";' in found.body
    over_tls = Access(ProxyTable(pac=PAC.model_copy(update={"tls": True}))).own(head(b"GET", b"/proxy.pac"))
    assert b'return "HTTPS proxy.example:8080; HTTPS [2001:db8::8]:8080";' in over_tls.body
    assert b'host == "intranet.example" || dnsDomainIs(host, ".intranet.example")' in found.body
    assert b'isInNet(host, "192.0.2.0", "255.255.255.0")' in found.body
    assert found.body.startswith(b"function bits(")
    asked = access.own(head(b"HEAD", b"/proxy.pac"))
    assert (asked.body, asked.headers) == (b"", found.headers)
    assert access.own(head(b"POST", b"/proxy.pac")).status == 405
    assert access.own(head(b"GET", b"/other")).status == 400
    assert Access(ProxyTable()).own(head(b"GET", b"/proxy.pac")).status == 400


async def test_the_proxy_serves_it_without_a_password(rig: Rig, users: Passwords) -> None:
    await rig.start(answer, "regular")
    rig.lead()
    rig.addon.access = Access(ProxyTable(pac=PAC), users)
    ask = b"GET /proxy.pac HTTP/1.1\r\nHost: proxy.example\r\n\r\n"
    said = await rig.ask(ask, ask, get(rig, RIGHT), b"GET /x HTTP/1.1\r\nHost: proxy.example\r\n\r\n")
    assert statuses(said) == [200, 200, 200, 400]
    assert said.count(b"FindProxyForURL") == 2
    assert refused(rig.addon.guard) == 1
    await rig.settled()


# -- the end of a response that only the connection's end tells


class Origin:
    """Ends a response without length, when it is told to, without close_notify."""

    def __init__(self) -> None:
        self.may = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await self.may.wait()
        writer.transport.abort()


async def test_an_end_without_close_notify_is_none_for_a_client_without_tls(rig: Rig) -> None:
    origin = Origin()
    await rig.start(origin, "reverse:https://127.0.0.1", tls=True)
    rig.tctx.options.update(ssl_insecure=True)
    reader, writer = await rig.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n")
    await reader.readuntil(b"half")
    origin.may.set()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 30)
    writer.close()
    await rig.settled()


@pytest.mark.parametrize("notified", [True, False])
async def test_inside_tls_it_comes_to_the_client_as_it_came(rig: Rig, notified: bool) -> None:
    """A client is as strict or as lenient about it as it is without the filter."""
    origin = Origin()
    if notified:
        rude = origin.__call__

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            polite = SimpleNamespace(write=writer.write, transport=SimpleNamespace(abort=writer.close))
            await rude(reader, polite)  # type: ignore[arg-type]

        await rig.start(serve, "transparent", tls=True)
    else:
        await rig.start(origin, "transparent", tls=True)
    loop = asyncio.get_running_loop()

    def ask() -> bytes:
        context = rig.client_context()
        with (
            socket.create_connection(("127.0.0.1", rig.port), 30) as plain,
            context.wrap_socket(plain, server_hostname="paged.example", suppress_ragged_eofs=False) as s,
        ):
            s.sendall(b"GET / HTTP/1.1\r\nHost: paged.example\r\n\r\n")
            said = b""
            while not said.endswith(b"half"):
                said += s.recv(1000)
            loop.call_soon_threadsafe(origin.may.set)
            return said + s.recv(1000)

    if notified:
        assert (await asyncio.to_thread(ask)).endswith(b"half")
    else:
        with pytest.raises(ssl.SSLEOFError):
            await asyncio.to_thread(ask)
    await rig.settled()
