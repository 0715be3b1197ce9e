"""The server for hooks, told directly."""

import asyncio
import os
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import dns.edns
import dns.message
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset
import pytest

from conftest import until
from resolver.hook_support import LIST, Urlward, loaded
from urlward.dns import hook as dns_hook
from urlward.dns.hook import from_text, to_text
from urlward.dns.hooks import FOLDER
from urlward.gateway.table import NftError
from urlward.plan import Address
from urlward.proxy.listeners import Listeners, open_sockets

CLIENT = ip_address("192.0.2.7").packed


@pytest.fixture
async def urlward(tmp_path: Path) -> AsyncIterator[Urlward]:
    one = Urlward(tmp_path, LIST, 30.0, "open")
    await one.start()
    yield one
    await one.stop()


class Hook:
    """A connection such as a hook has."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, urlward: Urlward) -> "Hook":
        return cls(*await asyncio.open_unix_connection(urlward.folder / "socket"))

    def send(self, data: bytes, client: bytes = CLIENT, *, text: bool = False) -> None:
        frame = bytes([len(client) + 128 * text]) + client + data
        self.writer.write(len(frame).to_bytes(2) + frame)

    async def reply(self) -> tuple[bytes, bytes]:
        data = await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(2)))
        return data[:1], data[1:]

    async def ask(self, data: bytes, client: bytes = CLIENT, *, text: bool = False) -> tuple[bytes, bytes]:
        self.send(data, client, text=text)
        return await self.reply()


def answer(name: str, *lines: str, kind: str = "A", code: int = 0) -> bytes:
    message = dns.message.make_response(dns.message.make_query(name, kind), recursion_available=True)
    message.set_rcode(dns.rcode.Rcode(code))
    for line in lines:
        owner, ttl, type_, data = line.split(" ", 3)
        message.answer.append(dns.rrset.from_text(f"{owner}.", int(ttl), "IN", type_, data))
    return message.to_wire()


async def test_what_nobody_lists(urlward: Urlward) -> None:
    hook = await Hook.to(urlward)
    assert await hook.ask(answer("plain.example", "plain.example 60 A 192.0.2.1")) == (b"P", b"")
    assert await hook.ask(answer("blocked.example")) == (b"P", b""), "nothing in it leads there"
    assert urlward.kernel.steered == []


async def test_what_is_steered(urlward: Urlward) -> None:
    hook = await Hook.to(urlward)
    for client in b"", CLIENT, ip_address("2001:db8::7").packed:
        status, told = await hook.ask(answer("blocked.example", "blocked.example 3600 A 203.0.113.1"), client)
        message = dns.message.from_wire(told)
        assert (status, message.answer[0].ttl) == (b"S", 300)
        assert told.count(b"\7blocked\7example\0") == 2, "nothing is compressed"
    assert urlward.kernel.addresses == {"203.0.113.1"}


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        ("1 . alpn=h2 ipv4hint=203.0.113.3", b"S"),
        ("1 . alpn=h3 ipv4hint=203.0.113.3", b"R"),
        ("1 . alpn=h2 ech=AAT+DQAA", b"R"),
        ("1 other.example. alpn=h2", b"R"),
    ],
)
async def test_services_that_lead_nowhere_else_may_go(urlward: Urlward, content: str, outcome: bytes) -> None:
    hook = await Hook.to(urlward)
    for section in "answer", "additional":
        message = dns.message.from_wire(answer("blocked.example", "blocked.example 60 A 203.0.113.1"))
        rrset = dns.rrset.from_text("blocked.example.", 60, "IN", "HTTPS", content)
        getattr(message, section).append(rrset)
        assert (await hook.ask(message.to_wire()))[0] == outcome


async def test_answers_are_counted(urlward: Urlward) -> None:
    hook = await Hook.to(urlward)
    record = 'blocked.example 3600 HTTPS 1 . alpn="h2" ech=AAT+DQAA'
    await hook.ask(answer("plain.example", "plain.example 60 A 192.0.2.1"))
    await hook.ask(answer("blocked.example", "blocked.example 3600 A 203.0.113.1"))
    await hook.ask(answer("blocked.example", record, kind="HTTPS"))
    assert urlward.counts == {"passed": 1, "steered": 1, "replaced": 1}


async def test_what_must_not_go_as_it_is(urlward: Urlward) -> None:
    hook = await Hook.to(urlward)
    record = 'blocked.example 3600 HTTPS 1 . alpn="h2" ech=AAT+DQAA'
    status, told = await hook.ask(answer("blocked.example", record, kind="HTTPS"))
    assert (status, str(dns.message.from_wire(told).answer[0][0])) == (b"R", '1 . alpn="h2"')
    status, told = await hook.ask(answer("use-application-dns.net", "use-application-dns.net 60 A 192.0.2.1"))
    assert (status, dns.message.from_wire(told).rcode()) == (b"R", dns.rcode.NXDOMAIN)
    urlward.kernel.fault = NftError("no room")
    status, told = await hook.ask(answer("blocked.example", "blocked.example 3600 A 203.0.113.1"))
    assert (status, dns.message.from_wire(told).rcode()) == (b"R", dns.rcode.SERVFAIL)
    urlward.policy.on_error = "pass"
    assert await hook.ask(answer("blocked.example", "blocked.example 3600 A 203.0.113.1")) == (b"P", b"")


@pytest.mark.parametrize("sign", ["(", ")", ";", '"', "$", "@", "\\\\", "\\.", "\\032", ".;."])
async def test_signs_of_zone_files_in_names(urlward: Urlward, sign: str) -> None:
    """Resolvers escape few of them, and the servers of a listed name may have it lead to any: the hook had no
    reply, and so where it does not fail closed the answer went on, its addresses not steered."""
    hook, name = await Hook.to(urlward), f"a{sign}b.example."
    text = f"blocked.example. 1 0\n1 blocked.example. 60 5 {name}\n1 {name} 60 1 203.0.113.9"
    status, told = await hook.ask(text.encode(), text=True)
    assert (status, told[:2]) in ((b"P", b""), (b"S", b"0\n"))
    assert urlward.kernel.addresses == {"203.0.113.9"}


@pytest.mark.parametrize(
    "text",
    [
        "blocked.example. 65 0\n1 blocked.example. 60 65 1 a;b. ech=AAAA",
        'blocked.example. 65 0\n1 blocked.example. 60 65 1 a";"b. ech=AAAA',
        "blocked.example. 65 0\n1 blocked.example. 60 65 1 (a. ech=AAAA",
        "blocked.example. 1 0\n1 blocked.example. 60 1 203.0.113.1\n1 a. 60 1 xxxx",
        "no such line",
        "blocked.example. 1 0\n1 blocked.example.",
        "blocked.example. 1 0\n1 blocked.example. 60 1 203.0.113.1\n",
        "blocked.example. 1 0\n"
        + "1 blocked.example. 60 1 203.0.113.1\n" * 64
        + "3 other.example. 60 1 203.0.113.2",
        "blocked.example. 65 0"
        + "".join(f"\n1 blocked.example. 60 65 1 t{n}.{'a.' * 100}example." for n in range(12)),
    ],
)
async def test_text_that_nobody_can_read_does_not_go(urlward: Urlward, text: str) -> None:
    hook = await Hook.to(urlward)
    assert await hook.ask(text.encode(), text=True) == (b"R", b"2")
    assert await hook.ask(answer("plain.example")) == (b"P", b"")


async def test_a_record_that_nobody_can_read_does_not_go(urlward: Urlward) -> None:
    """Nor is the hook left without a reply: after three such it lets all go for a while, whoever asks."""
    hook = await Hook.to(urlward)
    data = bytearray(answer("blocked.example", "blocked.example 3600 A 203.0.113.1"))
    data[7] += 1  # records
    data += b"\xc0\x0c\0\x10\0\1\0\0\0\x3c\0\2\x05a"  # TXT, whose text is cut short
    status, told = await hook.ask(bytes(data))
    message = dns.message.from_wire(told)
    assert (status, message.rcode(), message.answer) == (b"R", dns.rcode.SERVFAIL, [])
    assert message.id == int.from_bytes(data[:2])
    status, _ = await hook.ask(answer("blocked.example", "blocked.example 3600 A 203.0.113.1"))
    assert status == b"S"


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("name", "count", "outcome"),
    [
        ("many.blocked.example", 32, b"S"),
        ("many.blocked.example", 33, b"R"),
        ("many.blocked.example", 1500, b"R"),
        ("plain.example", 1500, b"P"),
    ],
)
async def test_what_would_take_longer_than_a_hook_waits_is_not_begun(
    urlward: Urlward, name: str, count: int, outcome: bytes, text: bool
) -> None:
    """By answering with that much the servers of a listed name had all their addresses told, none steered."""
    lines = [f"60 A 198.18.{n >> 8}.{n & 255}" for n in range(count)]
    data = answer(name)
    if text:
        records = [f"1 {name}. {line.replace('A', '1')}" for line in lines]
        data = "\n".join((f"{name}. 1 0", *records)).encode()
    else:
        message = dns.message.from_wire(data)
        texts = [line.split()[2] for line in lines]
        message.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "A", *texts))
        data = message.to_wire(max_size=65535)
    status, told = await (await Hook.to(urlward)).ask(data, text=text)
    assert status == outcome
    assert len(urlward.kernel.addresses) == (count if outcome == b"S" else 0)
    if outcome == b"R":
        assert told == b"2" if text else dns.message.from_wire(told).rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(
    ("name", "leads", "outcome"),
    [
        ("plain.example", "1 192.0.2.1", b"P"),
        ("plain.example", "5 blocked.example.", b"R"),
        ("many.blocked.example", "1 203.0.113.1", b"R"),
        ("many.blocked.example", "", b"P"),
    ],
)
async def test_thousands_of_records_that_lead_nowhere_are_not_read(
    urlward: Urlward, name: str, leads: str, outcome: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs a name that the filter takes for listed had a worker read one answer for a second."""
    read: list[str] = []

    def noted(kind: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
        read.append(text)
        return content(kind, text)

    content = dns_hook._content
    monkeypatch.setattr(dns_hook, "_content", noted)
    texts = [f'1 {name}. 60 16 "{n}"' for n in range(1_200)]
    lines = [f"{name}. 255 0", *texts, *([f"1 {name}. 60 {leads}"] if leads else [])]
    status, told = await (await Hook.to(urlward)).ask("\n".join(lines).encode(), text=True)
    assert (status, told) == (outcome, b"2" if outcome == b"R" else b"")
    assert len(read) == bool(leads)
    assert urlward.kernel.addresses == set()


@pytest.mark.parametrize("text", [False, True])
async def test_thousands_of_addresses_of_a_listed_name_are_not_read(
    urlward: Urlward, text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That took as long as a hook waits, so that the answer went on, its addresses not steered."""
    data, read = answer("blocked.example"), []
    if text:
        content = dns_hook._content

        def noted(kind: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
            read.append(text)
            return content(kind, text)

        monkeypatch.setattr(dns_hook, "_content", noted)
        lines = [f"1 blocked.example. 60 1 198.18.{n >> 8}.{n & 255}" for n in range(1_500)]
        data = "\n".join(("blocked.example. 1 0", *lines)).encode()
    else:
        monkeypatch.setattr(dns_hook, "scan", lambda *_: pytest.fail("read"))
        message = dns.message.from_wire(data)
        texts = [f"198.18.{n >> 8}.{n & 255}" for n in range(4_000)]
        message.answer.append(dns.rrset.from_text("blocked.example.", 60, "IN", "A", *texts))
        data = message.to_wire(max_size=65535)
    status, _ = await (await Hook.to(urlward)).ask(data, text=text)
    assert (status, len(read), urlward.kernel.addresses) == (b"R", text, set())


async def test_text(urlward: Urlward) -> None:
    hook = await Hook.to(urlward)
    status, told = await hook.ask(b"plain.example. 1 0\n1 plain.example. 60 1 192.0.2.1", text=True)
    assert (status, told) == (b"P", b"")
    text = (
        b"blocked.example. 1 0\n1 blocked.example. 3600 1 203.0.113.1\n1 blocked.example. 3600 1 203.0.113.2"
    )
    assert await hook.ask(text, text=True) == (
        b"S",
        b"0\n1 blocked.example. 300 1 203.0.113.1\n1 blocked.example. 300 1 203.0.113.2",
    )
    text = b'blocked.example. 65 0\n1 blocked.example. 60 65 1 . alpn="h2,h3" ipv4hint=203.0.113.3'
    assert await hook.ask(text, text=True) == (
        b"R",
        b"0\n1 blocked.example. 60 65 1 . alpn=h2 ipv4hint=203.0.113.3",
    )
    assert to_text(from_text(b"plain.example. 1 3")) == b"3"


@pytest.mark.parametrize(
    "frame",
    [
        b"\0\0",
        b"\0\1\0",
        b"\0\5\7abcd",
        b"\0\x0d\0" + bytes(12),
    ],
    ids=["nothing", "no message", "an odd address", "no question"],
)
async def test_what_no_hook_sends(urlward: Urlward, frame: bytes) -> None:
    hook = await Hook.to(urlward)
    hook.writer.write(frame)
    assert await hook.reader.read() == b"", "closed"
    other = await Hook.to(urlward)
    assert await other.ask(answer("plain.example")) == (b"P", b"")


async def test_one_at_a_time(urlward: Urlward) -> None:
    hook, other = await Hook.to(urlward), await Hook.to(urlward)
    urlward.kernel.gate = asyncio.Event()
    hook.send(answer("blocked.example", "blocked.example 3600 A 203.0.113.1"))
    await until(lambda: urlward.kernel.waiting, "the answer at the kernel")
    assert await other.ask(answer("plain.example")) == (b"P", b""), "others do not wait"
    hook.send(answer("plain.example"))
    assert await hook.reader.read() == b""
    urlward.kernel.gate.set()
    await until(lambda: urlward.kernel.steered, "the addresses, all the same")


async def test_late_replies_are_counted(tmp_path: Path) -> None:
    urlward = Urlward(tmp_path, LIST, 0.01, "open")
    await urlward.start()
    hook = await Hook.to(urlward)
    urlward.kernel.gate = asyncio.Event()
    hook.send(answer("blocked.example", "blocked.example 3600 A 203.0.113.1"))
    await until(lambda: urlward.kernel.waiting, "the answer at the kernel")
    await asyncio.sleep(0.02)
    assert urlward.late == 0
    urlward.kernel.gate.set()
    await until(lambda: urlward.late == 1, "the late reply")
    await urlward.stop()


async def test_unbound_has_more_descriptors_than_select_takes(urlward: Urlward) -> None:
    module = loaded(FOLDER / "unbound.py")
    taken = [os.dup(0) for _ in range(1_100)]
    try:
        hook = module.Hook(urlward.folder)
        hook.look()
        for _ in range(2):
            asked = asyncio.to_thread(hook.ask, CLIENT, answer("plain.example"))
            assert await asked == (b"P", b"")
    finally:
        for fd in taken:
            os.close(fd)


def test_a_fault_of_unbounds_hook_lets_nothing_leave(tmp_path: Path) -> None:
    module = loaded(FOLDER / "unbound.py")
    said: list[str] = []
    module.__dict__["log_err"] = said.append

    def breaks(*_: object) -> bool:
        raise LookupError("secret")

    module.__dict__["may_list"] = breaks
    module.hook._folder = tmp_path
    for callback in module.from_cache, module.leaves:
        rep = SimpleNamespace(flags=0x8180, an_numrrsets=1, ns_numrrsets=1, ar_numrrsets=1, ttl=60, this=1)
        assert callback(SimpleNamespace(qname=b"\1a\0"), None, rep, 0, None, None, None)
        assert (rep.flags & 15, rep.an_numrrsets, rep.ns_numrrsets, rep.ar_numrrsets) == (2, 0, 0, 0)
    assert [line for line in said if "a bug in its hook: LookupError" in line]
    assert "secret" not in str(said)


def test_a_service_record_that_ends_early_may_lead_anywhere() -> None:
    module = loaded(FOLDER / "unbound.py")
    held = module.NameFilter(bytes(24))
    assert not held.may_list_name(module._first_name(b"\5plain\7example\0\0\1"))
    for broken in b"", b"\5pla", b"\x3f":
        assert held.may_list_name(module._first_name(broken))


def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    address = Address(str(tmp_path / "socket"), 0, "unix")
    assert str(address) == str(tmp_path / "socket")
    (stale,) = open_sockets(address)
    assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o660
    stale.close()
    listeners = Listeners()
    listeners.open([address], 2)
    listeners.open([address], 3)
    sockets = [one for number in range(3) for _, some in listeners.of(number, [address]) for one in some]
    assert len({one.fileno() for one in sockets}) == 3
    assert {one.getsockname() for one in sockets} == {str(tmp_path / "socket")}
    # All are the same: what connects waits for whichever worker accepts.
    sockets[0].listen()
    assert all(one.getsockopt(1, 30) for one in sockets)
    listeners.close()
    (tmp_path / "file").write_text("somebody's")
    with pytest.raises(OSError, match="in use"):
        open_sockets(Address(str(tmp_path / "file"), 0, "unix"))
    assert (tmp_path / "file").read_text() == "somebody's"
