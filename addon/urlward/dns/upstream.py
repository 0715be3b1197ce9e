"""Upstream resolvers: the order, timeouts and retries, and the response where none answers; over UDP and TCP.

The first resolver is asked, and the next where it says nothing in time or cannot be reached. One that has
failed is left alone for a while, until a single query has found it well again. There is no cache: the
resolver has one, and what lists say of an answer is looked up anew each time anyway.

Over UDP a response is accepted only from the resolver's address, to the query's port, and with its id and
question (RFC 5452). Sockets are connected, so that the kernel drops what comes from elsewhere and reports
unreachable ports. There are a few at a time, each with a random port and for so many queries, or until
nothing comes back to it, or the resolver fails: a connected socket keeps the address of this machine that
it began with, which may be gone (a lease that ended, PPPoE), or that of an uplink that is not used now. A
query that had no answer asks for one that needs no fragments, which may be dropped on the way (RFC 6891
section 6.2.5): a longer one is cut short then, and the client asks for it over TCP. Over TCP (RFC 7766) a
few persistent connections each have several queries under way.
"""

import asyncio
import logging
import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil
from typing import Protocol

from urlward.dns.resolver_addresses import ResolverAddress
from urlward.dns.wire import (
    FORMERR,
    HEADER,
    NOTIMP,
    PAYLOAD,
    RECURSION,
    REFUSED,
    SERVFAIL,
    Question,
    StreamMessages,
    framed,
    with_payload,
)

logger = logging.getLogger("urlward.gateway")

LEFT_ALONE = 10.0
"""Seconds for which a resolver that has failed is asked last."""

ASKED_AGAIN = 1.0
"""Seconds after which the next resolver is asked, or over UDP the only one again; less where all have less
time."""

SILENT = 1.0
"""Seconds without an answer after which a query that goes unanswered is the last from its socket."""

RENEWED_AT_MOST = 1.0
"""Seconds between two times that a resolver which fails gets other sockets."""

SAID_AGAIN = 60.0
"""Seconds between two lines on resolvers that do not answer."""

UNDER_WAY = 10_000
"""Queries that may wait for resolvers; beyond, clients get SERVFAIL."""

_SEVERAL = 3
"""Queries without an answer that are not a name's fault."""

_TICK = 0.05
_UNREAD, _REFUSALS = (FORMERR, NOTIMP), (SERVFAIL, REFUSED)
_FAILURES = (*_UNREAD, *_REFUSALS)
_ONE_QUESTION = b"\0\1\0\0\0\0\0\0"


class DnsExchange:
    """Query under way, from its arrival to its response.

    Args:
        query: as the client sent it.
        question: of it.

    Attributes:
        places: where answers are awaited, and under which ids.
        way: that was asked last.
        attempts: how many times a way was asked.
        failures: how many of these failed at once.
        fallback: an answer that says no more than that a resolver has failed.
        over: whether it is answered.
    """

    __slots__ = ("attempts", "failures", "fallback", "order", "over", "places", "query", "question", "way")

    def __init__(self, query: bytes, question: Question) -> None:
        self.query = query
        self.question = question
        self.order: Sequence[Way] = ()
        self.places: list[tuple[ResponsePlace, int]] = []
        self.way: Way | None = None
        self.attempts = self.failures = 0
        self.fallback: bytes | None = None
        self.over = False

    def is_answer(self, data: bytes) -> bool:
        """Whether a message from a resolver answers this question (RFC 5452 section 9.1)."""
        end = self.question.end
        if len(data) < end or data[2] & 0xF8 != 0x80:
            return False
        if data[4:6] != b"\0\1":
            return False
        asked, echoed = self.query[HEADER:end], data[HEADER:end]
        # Letter case need not be kept, but for the type and class it is none.
        return asked == echoed or (asked[-4:] == echoed[-4:] and asked[:-4].lower() == echoed[:-4].lower())

    def over_udp(self) -> bytes:
        """The query without its id, as it is sent now."""
        again = self.attempts > 1
        return _recursive(with_payload(self.query, self.question.end, PAYLOAD) if again else self.query)

    def over_tcp(self) -> bytes:
        """The query without its id, as it is sent."""
        return _recursive(self.query)

    def answer_in(self, data: bytes) -> bytes | None:
        """The answer that a message from a resolver is, with the question; None where it is none.

        What cannot be read is answered without it: who has sent that is to know, and the resolver is well.
        """
        if self.is_answer(data):
            return data
        if self._is_bare(data, _UNREAD):
            return data[:4] + _ONE_QUESTION + self.query[HEADER : self.question.end]
        return None

    def is_refusal(self, data: bytes) -> bool:
        """Whether a message says no more than that the resolver does not answer, without the question."""
        return self._is_bare(data, _REFUSALS)

    @staticmethod
    def _is_bare(data: bytes, codes: Sequence[int]) -> bool:
        return bool(data[2] & 0x80 and data[4:6] == b"\0\0" and data[3] & 15 in codes)

    def answered(self, data: bytes | None) -> None:
        """Called once: with a response, or None where no resolver has given one."""
        raise NotImplementedError


def _recursive(query: bytes) -> bytes:
    """A query without its id, with RD: most resolvers refuse others, or answer from their cache alone."""
    return bytes([query[2] | RECURSION]) + query[3:]


class ResponsePlace(Protocol):
    """Connection or socket where responses are awaited."""

    def release(self, number: int) -> None:
        """Stop waiting for a response with this id."""


class Way(ABC):
    """Upstream: a resolver over one transport.

    Args:
        resolver: whom.

    Attributes:
        resolver: as given.
        forwarder: takes the answers, which is made with its ways.
        text: the resolver's address, for the log.
        well: whether it has not failed lately.
        again: when it may be tried again where it has.
        renewed: when it got other sockets last.
        heard: when an answer has come from it last.
    """

    forwarder: "Forwarder"

    def __init__(self, resolver: ResolverAddress) -> None:
        self.resolver = resolver
        self.text = str(resolver)
        self.well = True
        self.again = self.heard = self.renewed = 0.0

    @abstractmethod
    def send(self, exchange: DnsExchange) -> None:
        """Send a query.

        Raises:
            BlockingIOError: too much is under way there.
            OSError: it cannot be reached.
        """

    @abstractmethod
    def renew(self) -> None:
        """Send further queries from other sockets."""

    @abstractmethod
    def close(self) -> None:
        """Send no more queries."""


class Forwarder:
    """Forwarder of queries to resolvers over one transport.

    Args:
        ways: to the resolvers, in the order of preference; at least one when a query comes.
        timeout: seconds that the answer to a query may take in all.
        report: says when nobody answers.
    """

    def __init__(self, ways: Sequence[Way], timeout: float, report: "OutageLog") -> None:
        self._ways: tuple[Way, ...] = ()
        self._timeout = timeout
        self._report = report
        self._deadlines: deque[tuple[float, DnsExchange, int]] = deque()
        self.take_ways(ways)
        self._ticking: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self.under_way = 0

    def take_ways(self, ways: Sequence[Way]) -> None:
        """Ask these resolvers from now on; what those before them have been asked they may still answer."""
        for way in self._ways:
            way.renew()
        self._ways = tuple(ways)
        for way in ways:
            way.forwarder = self
        self._attempts = max(2, len(ways), ceil(self._timeout / ASKED_AGAIN))
        self._interval = self._timeout / self._attempts
        self._report.resolvers = [way.text for way in ways]
        for _, exchange, _ in self._deadlines:
            exchange.order = self._ways

    def ask(self, exchange: DnsExchange) -> bool:
        """Start an exchange.

        Returns:
            False where too many are under way.
        """
        if self.under_way >= UNDER_WAY:
            return False
        self.under_way += 1
        exchange.order = self._ways if self._ways[0].well else self._in_order()
        self._next(exchange)
        return True

    def take(self, exchange: DnsExchange, way: Way, data: bytes) -> None:
        """A response to an exchange has arrived."""
        way.heard = self._time()
        if not way.well:
            way.well = True
        self._report.answered(way.heard)
        if data[3] & 15 in _FAILURES and exchange.fallback is None and len(self._ways) > 1:
            # Another resolver may do better.
            exchange.fallback = data
            if exchange.way is way:
                self._next(exchange)
            return
        self._finish(exchange, data)

    def failed(self, exchange: DnsExchange, way: Way) -> None:
        """An upstream reports that there will be no response."""
        self.mark(way)
        if exchange.way is way and not exchange.over:
            exchange.failures += 1
            self._next(exchange)

    def mark(self, way: Way) -> None:
        """Use this resolver last for a while."""
        now = self._time()
        if now - way.renewed >= RENEWED_AT_MOST:
            way.renewed = now
            way.renew()
        way.well = False
        way.again = now + LEFT_ALONE

    def close(self) -> None:
        """End pending exchanges without a response, and send no more."""
        if self._ticking is not None:
            self._ticking.cancel()
        for way in self._ways:
            way.close()
        for _, exchange, _ in list(self._deadlines):
            if not exchange.over:
                self._finish(exchange, None)
        self._deadlines.clear()

    def _in_order(self) -> list[Way]:
        now = self._time()
        well: list[Way] = []
        unwell: list[Way] = []
        for way in self._ways:
            if not way.well and now >= way.again:
                # This query alone finds out, and the others need not wait for it.
                way.again = now + LEFT_ALONE
                well.append(way)
            else:
                (well if way.well else unwell).append(way)
        return well + unwell

    def _next(self, exchange: DnsExchange) -> None:
        order = exchange.order
        # One that fails at once takes no time from another that is slow.
        more = self._attempts * (len(order) - 1)
        while exchange.attempts < self._attempts + min(exchange.failures, more):
            way = exchange.way = order[exchange.attempts % len(order)]
            exchange.attempts += 1
            number = exchange.attempts
            try:
                way.send(exchange)
            except BlockingIOError:
                continue  # busy, which is not to say unwell
            except OSError:
                self.mark(way)
                exchange.failures += 1
                continue
            if exchange.attempts == number and not exchange.over:
                self._deadlines.append((self._time() + self._interval, exchange, number))
                if self._ticking is None:
                    self._tick_later()
            return
        self._finish(exchange, exchange.fallback)

    def _finish(self, exchange: DnsExchange, data: bytes | None) -> None:
        exchange.over = True
        self.under_way -= 1
        for place, number in exchange.places:
            place.release(number)
        exchange.places.clear()
        if data is None:
            self._report.unanswered(self._time(), self._timeout)
        exchange.answered(data)

    def _tick_later(self) -> None:
        self._ticking = self._loop.call_later(min(_TICK, self._interval / 4), self._tick)

    def _tick(self) -> None:
        now = self._time()
        deadlines = self._deadlines
        try:
            while deadlines and deadlines[0][0] <= now:
                _, exchange, number = deadlines.popleft()
                if exchange.over or exchange.attempts != number:
                    continue
                way = exchange.way
                # A slow name says nothing of a resolver that answers others.
                if way is not None and way.heard < now - 2 * self._interval:
                    self.mark(way)
                self._next(exchange)
        finally:
            self._ticking = None
            if deadlines:
                self._tick_later()


class OutageLog:
    """Report of an outage: when no resolver responds any more, and when one does again; in the log once a
    minute at most.

    Args:
        resolvers: their addresses.
        trouble: takes what is wrong at once, and an empty text when it is over.

    Attributes:
        resolvers: as given.
    """

    def __init__(self, resolvers: Sequence[str], trouble: Callable[[str], None] = lambda _: None) -> None:
        self.resolvers = resolvers
        self._trouble = trouble
        self._is_down = False
        self._heard = self._said = float("-inf")
        self._is_said = False
        self._unanswered = 0

    def answered(self, now: float) -> None:
        """A resolver has responded."""
        self._heard = now
        self._unanswered = 0
        if self._is_down:
            self._is_down = False
            self._trouble("")
        if self._is_said:
            self._is_said = False
            logger.warning("DNS resolvers answer again")

    def unanswered(self, now: float, within: float) -> None:
        """No resolver has responded, and so a query has failed."""
        self._unanswered += 1
        if self._unanswered < _SEVERAL or self._heard > now - within:
            return
        named = ", ".join(self.resolvers)
        why = f"no DNS resolver answers ({named}): clients are told that the server has failed"
        if not self._is_down:
            self._is_down = True
            self._trouble(why)
        if now >= self._said + SAID_AGAIN:
            self._said, self._is_said = now, True
            logger.error("%s", why)


SOURCES = 8
"""Sockets, and so ports, in use at a time."""

QUERIES = 500
"""Queries that a socket sends."""

_READS = 64
_BUFFER = 1 << 20
_MESSAGE = bytearray(1 << 16)
_VIEW = memoryview(_MESSAGE)


class UdpWay(Way):
    """Upstream resolver over UDP."""

    def __init__(self, resolver: ResolverAddress) -> None:
        super().__init__(resolver)
        self._sources: list[_Source | None] = [None] * SOURCES

    def send(self, exchange: DnsExchange) -> None:
        """Send a query; see `Way.send`."""
        by_chance = os.urandom(3)
        index = by_chance[2] % SOURCES
        source = self._sources[index]
        if source is None or source.spent:
            source = self._sources[index] = _Source(self, self.resolver)
        source.send(exchange, by_chance[:2])

    def renew(self) -> None:
        """Send from sockets that this machine's addresses now are known to; see `Way.renew`."""
        for source in self._sources:
            if source is not None:
                source.retire()

    def close(self) -> None:
        """Close all sockets; see `Way.close`."""
        for source in self._sources:
            if source is not None:
                source.close()
        self._sources = [None] * SOURCES


class _Source:
    """Socket with a random port, and the queries sent from it."""

    __slots__ = ("_heard", "_left", "_socket", "_waiting", "_way")

    def __init__(self, way: UdpWay, resolver: ResolverAddress) -> None:
        self._way = way
        self._waiting: dict[int, DnsExchange] = {}
        self._left = QUERIES
        self._heard = asyncio.get_running_loop().time()
        self._socket = socket.socket(resolver.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.connect(resolver.reached())
        except OSError:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    @property
    def spent(self) -> bool:
        """Whether the socket is to send no more queries."""
        return self._left <= 0

    def send(self, exchange: DnsExchange, by_chance: bytes) -> None:
        """Send a query."""
        number = int.from_bytes(by_chance)
        waiting = self._waiting
        while number in waiting:
            by_chance = os.urandom(2)
            number = int.from_bytes(by_chance)
        self._left -= 1
        waiting[number] = exchange
        exchange.places.append((self, number))
        try:
            self._socket.send(by_chance + exchange.over_udp())
        except BlockingIOError:
            return  # as if it had been lost on the way
        except ConnectionError:
            # What the kernel has to say of an earlier query; this one has not been sent. The others have
            # their turn by themselves, for each may come to this again.
            asyncio.get_running_loop().call_soon(self._unreachable)
            raise

    def release(self, number: int) -> None:
        """Stop waiting for a response; see `ResponsePlace.release`."""
        unanswered = self._waiting.pop(number, None) is not None
        if unanswered and asyncio.get_running_loop().time() > self._heard + SILENT:
            self._left = 0  # it may be that nothing comes back to this one any more
        if self._left <= 0 and not self._waiting:
            self.close()

    def retire(self) -> None:
        """Send no more queries, and close when nothing is awaited any more."""
        self._left = 0
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        receive, waiting = self._socket.recv_into, self._waiting
        way = self._way
        for _ in range(_READS):
            try:
                size = receive(_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                self._unreachable()
                return
            if size < HEADER:
                continue
            exchange = waiting.get(_MESSAGE[0] << 8 | _MESSAGE[1])
            if exchange is None:
                continue
            message = bytes(_VIEW[:size])
            data = exchange.answer_in(message)
            if data is not None:
                del waiting[_MESSAGE[0] << 8 | _MESSAGE[1]]
                self._heard = asyncio.get_running_loop().time()
                way.forwarder.take(exchange, way, data)
            elif exchange.is_refusal(message):
                way.forwarder.failed(exchange, way)
            if self._socket.fileno() < 0:
                return

    def _unreachable(self) -> None:
        """The kernel reports that the port or the host cannot be reached."""
        for exchange in list(self._waiting.values()):
            self._way.forwarder.failed(exchange, self._way)


LINES = 8
"""Connections to a resolver."""

ON_A_LINE = 100
"""Queries under way on one connection."""

ENOUGH = 4
"""Queries under way from which another connection is opened, for resolvers that take them in turn."""

IDLE = 5.0
"""Seconds that a connection is kept for the next query."""


class TcpWay(Way):
    """Upstream resolver over TCP."""

    def __init__(self, resolver: ResolverAddress) -> None:
        super().__init__(resolver)
        self._lines: list[_Line] = []
        self._connecting: set[asyncio.Task[None]] = set()

    def send(self, exchange: DnsExchange) -> None:
        """Send a query; see `Way.send`."""
        if any(place in self._lines for place, _ in exchange.places):
            return  # a connection loses nothing, and each time would take room on it from others
        line = min(self._lines, key=len, default=None)
        if line is None or (len(line) >= ENOUGH and len(self._lines) < LINES):
            line = _Line(self)
            self._lines.append(line)
            line.send(exchange)
            task = line.connecting = asyncio.get_running_loop().create_task(self._connect(line))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        elif len(line) >= ON_A_LINE:
            raise BlockingIOError
        else:
            line.send(exchange)

    def renew(self) -> None:
        """Nothing: a connection on which nothing comes is left anyway, see `_Line.release`."""

    def close(self) -> None:
        """Close all connections; see `Way.close`."""
        for task in self._connecting:
            task.cancel()
        for line in tuple(self._lines):
            line.close()

    def drop(self, line: "_Line") -> None:
        """This connection takes no more queries."""
        with suppress(ValueError):
            self._lines.remove(line)

    async def _connect(self, line: "_Line") -> None:
        try:
            host, port = self.resolver.host, self.resolver.port
            await asyncio.get_running_loop().create_connection(lambda: line, host, port)
        except OSError:
            line.lost(reached=False)


class _Line(asyncio.Protocol):
    """Connection to the resolver.

    Args:
        way: that it is of.

    Attributes:
        connecting: the task that makes it.
    """

    def __init__(self, way: TcpWay) -> None:
        self._way = way
        self._waiting: dict[int, DnsExchange] = {}
        self._messages = StreamMessages()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._answers = 0
        self._heard = self._loop.time()
        self._dropped = False
        self._idle: asyncio.TimerHandle | None = None
        self.connecting: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, exchange: DnsExchange) -> None:
        """Send a query, now or once connected."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        by_chance = os.urandom(2)
        while int.from_bytes(by_chance) in self._waiting:
            by_chance = os.urandom(2)
        number = int.from_bytes(by_chance)
        self._waiting[number] = exchange
        exchange.places.append((self, number))
        if self._transport is not None:
            self._write(number, exchange)

    def _write(self, number: int, exchange: DnsExchange) -> None:
        assert self._transport is not None
        self._transport.write(framed(number.to_bytes(2) + exchange.over_tcp()))

    def release(self, number: int) -> None:
        """Stop waiting for a response; see `ResponsePlace.release`."""
        if self._waiting.pop(number, None) is not None and self._loop.time() > self._heard + SILENT:
            self._drop()  # it may be that nothing comes through any more
        if self._waiting or self._idle is not None:
            return
        if self._transport is None:
            if self._dropped:
                self.close()
        else:
            self._idle = self._loop.call_later(0 if self._dropped else IDLE, self.close)

    def _drop(self) -> None:
        self._dropped = True
        self._way.drop(self)

    def close(self) -> None:
        """Close the connection."""
        self._drop()
        if self._idle is not None:
            self._idle.cancel()
        if self._transport is not None:
            # What a resolver does not read would keep the connection for ever, and nobody waits for it.
            unread = self._transport.get_write_buffer_size()
            self._transport.abort() if unread else self._transport.close()
        elif self.connecting is not None:
            self.connecting.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        for number, exchange in tuple(self._waiting.items()):
            self._write(number, exchange)
        if not self._waiting:
            self.release(-1)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        way = self._way
        for message in self._messages.feed(data):
            self._heard = self._loop.time()  # not at each byte: what dribbles may never be a message
            if len(message) < HEADER:
                self.close()
                return
            number = message[0] << 8 | message[1]
            exchange = self._waiting.get(number)
            if exchange is None:
                continue
            answer = exchange.answer_in(message)
            if answer is not None:
                self._answers += 1
                del self._waiting[number]
                exchange.places.remove((self, number))  # so that it may be asked here again
                way.forwarder.take(exchange, way, answer)
                self.release(number)
            elif exchange.is_refusal(message):
                way.forwarder.failed(exchange, way)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Called by the event loop."""
        self.lost(reached=True)

    def lost(self, *, reached: bool) -> None:
        """Send the connection's pending queries again elsewhere.

        Args:
            reached: whether there has been a connection. One that has carried answers may be closed at any
                time, also with queries on their way (RFC 7766 section 6.2.4); the resolver may be well.
        """
        self.close()
        way = self._way
        again = reached and self._answers > 0
        for exchange in tuple(self._waiting.values()):
            if exchange.way is not way or exchange.over:
                continue
            if again:
                with suppress(OSError):
                    way.send(exchange)
                    continue
            way.forwarder.failed(exchange, way)
        self._waiting.clear()
