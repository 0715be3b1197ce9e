"""Server for hooks in resolvers: takes answers that may concern the lists, and replies once their addresses
are steered.

A hook connects to a socket in the file system, and waits on each connection for one reply at a time:

===========  =============================================================================================
a hook says  2 bytes of length; 1 byte, the size of the client's address: 0 where it is unknown, 4 or 16; the
             address; the answer as a DNS message, as the client is to get it. With 128 added to the size, the
             answer is text (`from_text`), for a hook that sees no wire format, and so is what replaces it
reply        2 bytes of length; ``P``: the answer may go as it is. Or ``S`` or ``R`` and what replaces it: a
             message in which nothing is compressed, so that its records can be read without looking back
===========  =============================================================================================

With ``S`` all addresses of the answer are steered, and what cannot be changed any more may go as it is; with
``R`` it must not.
"""

import asyncio
import logging
import re
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from io import BytesIO
from ipaddress import ip_address
from typing import Any, override

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from urlward.dns.answers import error, text_of
from urlward.dns.handling import Answers
from urlward.dns.judge import Faults
from urlward.dns.policy import MOST_WEIGHT, Asker
from urlward.dns.wire import (
    AAAA,
    CNAME,
    DNAME,
    HEADER,
    HTTPS,
    LONGEST,
    SERVFAIL,
    SVCB,
    A,
    Question,
    Scan,
    StreamMessages,
    WireError,
    addresses_alone,
    contents,
    framed,
    read_question,
    records_in,
    scan,
    services,
    spelt_out,
)
from urlward.proxy.acceptor import Acceptor, Transports

logger = logging.getLogger("urlward.gateway")


class ResolverSocket(ABC):
    """Server of resolvers' connections."""

    def __init__(self) -> None:
        self._acceptors: list[Acceptor] = []

    @property
    @abstractmethod
    def connections(self) -> int:
        """Count of those that are open."""

    async def serve(self, one: socket.socket) -> Acceptor:
        """Take resolvers' connections from a bound socket.

        Raises:
            OSError: another process listens there.
        """
        made = Acceptor(self.take, one)
        self._acceptors.append(made)
        return made

    @abstractmethod
    def take(self, sock: socket.socket, peername: tuple[Any, ...] = ()) -> None:
        """Take an accepted connection."""

    async def end(self) -> None:
        """Stop; resolvers connect to another worker, or have been handed over to it."""
        for acceptor in self._acceptors:
            acceptor.close()


_ADDRESS_SIZES = (0, 4, 16)
_TEXT = 128
_PASS = framed(b"P")
_OUTCOMES = {ord("P"): "passed", ord("S"): "steered", ord("R"): "replaced"}
_MOST = 32
"""Records that an answer with addresses of a listed name may have, and twice that with what is beside it.
Whoever runs such a name could send more, and have hooks go on without a reply while they are rewritten."""

_LEADING = frozenset(str(kind) for kind in (A, AAAA, CNAME, DNAME, SVCB, HTTPS))
_ADDRESS_TEXTS = frozenset(map(str, (A, AAAA)))
_ASKS_WAY = frozenset((A, AAAA, SVCB, HTTPS))
_NAMES = (dns.rdatatype.CNAME, dns.rdatatype.DNAME, dns.rdatatype.NS, dns.rdatatype.PTR)
_ADDRESSES = (dns.rdatatype.A, dns.rdatatype.AAAA)
_PLAIN = re.compile(r'(?:[^"();\\]|\\.|(?<=[ =])"(?:[^"\\]|\\.)*"(?![^ ]))*+', re.DOTALL).fullmatch
"""Matches content, with a space before it, that stands in a zone file for what it is."""


class HookServer(ResolverSocket):
    """Server at a hook's socket.

    Args:
        answers: what becomes of them.
        faults: are told what goes wrong.
        settle: seconds after which a hook waits no longer.
        late: called for each reply that came later.
        count: told of each reply: ``passed``, ``steered`` or ``replaced``.
    """

    def __init__(
        self,
        answers: Answers,
        faults: Faults,
        settle: float,
        late: Callable[[], None] = lambda: None,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._take = Transports(lambda: _Hook(self)).take
        self._open: set[asyncio.BaseTransport] = set()
        self.answers = answers
        self.faults = faults
        self._settle = settle
        self._late = late
        self._count = count

    @property
    @override
    def connections(self) -> int:
        return len(self._open)

    @override
    def take(self, sock: socket.socket, peername: tuple[Any, ...] = ()) -> None:
        self._take(sock, peername)

    @override
    async def end(self) -> None:
        await super().end()
        for transport in tuple(self._open):
            transport.close()

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """A resolver has connected."""
        self._open.add(transport)

    def closed(self, transport: asyncio.BaseTransport) -> None:
        """A resolver's connection has ended."""
        self._open.discard(transport)

    def replied(self, reply: bytes, since: float) -> None:
        """A reply has left to what came at a time by `time.monotonic`."""
        self._count(_OUTCOMES[reply[2]])
        if time.monotonic() - since > self._settle:
            self._late()


class _Hook(asyncio.Protocol):
    """Connection of a hook."""

    def __init__(self, server: HookServer) -> None:
        self._server = server
        self._messages = StreamMessages()
        self._transport: asyncio.Transport | None = None
        self._steering: asyncio.Task[None] | None = None
        self._written: Callable[[bytes], bytes] = uncompressed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.opened(transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Called by the event loop. What is being steered will be: the answer may have gone on."""
        assert self._transport is not None
        self._server.closed(self._transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        try:
            for frame in self._messages.feed(data):
                self._take(frame)
        except Exception as e:  # noqa: BLE001 - the hook does what it is to do without this filter
            self._server.faults.say(e, "an answer from a hook is not judged")
            assert self._transport is not None
            self._transport.close()

    def _take(self, frame: bytes) -> None:
        since = time.monotonic()
        if self._steering is not None and not self._steering.done():
            raise WireError("a hook waits for one reply at a time")
        size = frame[0] & ~_TEXT
        if size not in _ADDRESS_SIZES or len(frame) < 1 + size + HEADER:
            raise WireError("not what a hook sends")
        askers = (Asker(str(ip_address(frame[1 : 1 + size])) if size else ""),)
        data = frame[1 + size :]
        self._written = uncompressed
        left_out = False
        if frame[0] & _TEXT:
            self._written = to_text
            try:
                data, left_out = shortened(data)
                data = from_text(data)
            except (ValueError, dns.exception.DNSException):
                # Such as a listed name's own servers can have sent it: nobody can tell where it leads.
                self._write(framed(b"R%d" % SERVFAIL), since)
                return
        question = read_question(data)
        query = _query(data, question)
        answers = self._server.answers
        reason = answers.reason(question)
        if reason is None:
            if question.type in _ASKS_WAY and _is_long(data) and answers.has_entry(question.host):
                # To read 4,000 addresses takes as long as a hook waits.
                self._write(framed(b"R" + self._written(error(query, SERVFAIL, question))), since)
                return
            try:
                read = scan(data, question)
            except WireError:
                self._write(framed(b"R" + self._written(error(query, SERVFAIL, question))), since)
                return
            found = answers.look(read)
            if not found:
                self._write(_PASS, since)
                return
            leads = bool(read.four or read.six or read.service)
            if (leads and _is_long(data)) or (left_out and (leads or read.beside or len(read.chain) > 1)):
                self._write(framed(b"R" + self._written(error(query, SERVFAIL, question))), since)
                return
            work: Coroutine[Any, Any, bytes | None] = answers.steer(
                query, question, data, read, found, LONGEST, askers
            )
        else:
            work = answers.own(query, question, reason, askers)
        steered = self._steered(work, query, question, data, since)
        self._steering = asyncio.get_running_loop().create_task(steered)

    async def _steered(
        self,
        work: Coroutine[Any, Any, bytes | None],
        query: bytes,
        question: Question,
        data: bytes,
        since: float,
    ) -> None:
        told = await work
        if told is None or told is data:
            self._write(_PASS, since)
        else:
            try:
                self._reply(told, data, since)
            except Exception as e:  # noqa: BLE001 - the server of a listed name may have it so
                # Without a reply it would go, and after three so would all: a hook waits for nothing then.
                self._server.faults.say(e, "an answer from a hook does not go")
                self._write(framed(b"R" + self._written(error(query, SERVFAIL, question))), since)

    def _reply(self, message: bytes, data: bytes, since: float) -> None:
        status = b"S" if _may_go(data, message) else b"R"
        self._write(framed(status + self._written(message)), since)

    def _write(self, reply: bytes, since: float) -> None:
        self._server.replied(reply, since)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply)


def _query(answer: bytes, question: Question) -> bytes:
    """The query that an answer is to, as far as the answer says."""
    flags = bytes([answer[2] & 0x79, answer[3] & 0x10])
    return answer[:2] + flags + b"\0\1" + bytes(6) + answer[HEADER : question.end]


def _is_long(answer: bytes) -> bool:
    """Whether an answer has more records than are handled."""
    return int.from_bytes(answer[6:8]) > _MOST or records_in(answer) > 2 * _MOST


def _may_go(answer: bytes, told: bytes) -> bool:
    """Whether an answer leads nowhere that what replaces it does not, all of which is steered."""
    question = read_question(answer)
    before, after = scan(answer, question), scan(told, question)
    if before.service and not services(answer, question) <= services(told, read_question(told)):
        return False
    return _addresses(before) <= _addresses(after)


def _addresses(read: Scan) -> set[bytes]:
    four = {read.four[i : i + 4] for i in range(0, len(read.four), 4)}
    six = {read.six[i : i + 16] for i in range(0, len(read.six), 16)}
    return four | six | {address for _, address in read.beside if address}


def shortened(data: bytes) -> tuple[bytes, bool]:
    """Lines as `from_text` takes them, but of an answer with more records than are handled only as many as
    tell what it speaks of: each takes so long to read that thousands would keep all traffic waiting.

    Returns:
        The lines, and whether any are left out.

    Raises:
        ValueError: they are none, or speak of more than can be read in time.
    """
    first, *lines = data.decode("latin-1").split("\n")
    records = [line.split(" ", 4) for line in lines]
    if any(len(record) < 5 for record in records):
        raise ValueError("not a record")
    leading = [record for record in records if record[0] != "2" and record[3] in _LEADING]
    if len(records) <= 2 * _MOST and len(leading) <= _MOST and _weight(data) <= MOST_WEIGHT:
        return data, False
    # Of the addresses of a name one says as much as all.
    read = {tuple(record[1:2] if record[3] in _ADDRESS_TEXTS else record): record for record in leading}
    short = "\n".join((first, *map(" ".join, read.values()))).encode("latin-1")
    if len(read) > _MOST or _weight(short) > MOST_WEIGHT:
        raise ValueError("more names than are read")
    return short, True


def _weight(lines: bytes) -> int:
    """As `urlward.dns.wire.weight`, of an answer in text, with what takes as long to read."""
    return len(lines) + sum(word.count(b".") ** 2 for word in lines.split())


def from_text(data: bytes) -> bytes:
    """The DNS message that lines of text stand for.

    The first has the question's name and type and the response code, each other the section (1 to 3), owner,
    TTL, type and content of a record; numbers stand for types, the content is as in a zone file.

    Raises:
        ValueError, dns.exception.DNSException: they stand for none.
    """
    first, *lines = data.decode("latin-1").split("\n")
    name, kind, code = first.split(" ")
    message = dns.message.make_response(
        dns.message.make_query(name, dns.rdatatype.RdataType(int(kind))), recursion_available=True
    )
    message.set_rcode(dns.rcode.Rcode(int(code)))
    names: dict[str, dns.name.Name] = {}
    for line in lines:
        section, owner, ttl, type_, content = line.split(" ", 4)
        if owner not in names:
            names[owner] = dns.name.from_text(owner)
        rdata = _content(dns.rdatatype.RdataType(int(type_)), content)
        message.find_rrset(
            int(section), names[owner], rdata.rdclass, rdata.rdtype, rdata.covers(), create=True
        ).add(rdata, int(ttl))
    return message.to_wire(max_size=LONGEST, want_shuffle=False)


def _content(kind: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
    """Content of a record.

    In a name resolvers escape few of the signs that mean something in a zone file: behind ``;`` is a comment.

    Raises:
        ValueError, dns.exception.DNSException: it has such signs where it is more than a name, or is none.
    """
    if kind in _NAMES or kind in _ADDRESSES:
        make: Callable[..., dns.rdata.Rdata] = dns.rdata.get_rdata_class(dns.rdataclass.IN, kind)
        return make(dns.rdataclass.IN, kind, dns.name.from_text(text) if kind in _NAMES else text)
    if not _PLAIN(f" {text}"):
        raise ValueError("a sign that means something else in a zone file")
    return dns.rdata.from_text(dns.rdataclass.IN, kind, text)


def to_text(message: bytes) -> bytes:
    """Lines for a message: its code, and its records as `from_text` has them.

    Raises:
        dns.exception.DNSException: dnspython does not read it.
    """
    question = read_question(message)
    if records := addresses_alone(message, question):
        name, _ = dns.name.from_wire(message, HEADER)
        shown = ((int.from_bytes(message[at + 6 : at + 10]), message[at + 3]) for at in records)
        return f"{message[3] & 15}".encode() + b"".join(
            f"\n1 {name} {life} {kind} {text_of(address)}".encode("latin-1")
            for (life, kind), address in zip(shown, contents(message, records), strict=True)
        )
    read = dns.message.from_wire(message, keyring=False)
    lines = [str(int(read.rcode()))]
    for number, section in enumerate((read.answer, read.authority, read.additional), 1):
        for rrset in section:
            for rdata in rrset:
                content = rdata.to_text()
                if rdata.rdtype in (SVCB, HTTPS):
                    content = content.replace('"', "")
                lines.append(f"{number} {rrset.name} {rrset.ttl} {int(rdata.rdtype)} {content}")
    return "\n".join(lines).encode("latin-1")


def uncompressed(message: bytes) -> bytes:
    """A message without compression (RFC 1035 section 4.1.4).

    Raises:
        dns.exception.DNSException: dnspython does not read it.
    """
    question = read_question(message)
    records = addresses_alone(message, question)
    if records:
        return spelt_out(message, question, records)
    read = dns.message.from_wire(message, keyring=False)
    file = BytesIO()
    counts = [
        sum(rrset.to_wire(file, want_shuffle=False) for rrset in section)
        for section in (read.answer, read.authority, read.additional)
    ]
    if read.opt is not None:
        counts[-1] += read.opt.to_wire(file)
    head = message[:4] + struct.pack(">4H", 1, *counts)
    return head + message[HEADER : question.end] + file.getvalue()
