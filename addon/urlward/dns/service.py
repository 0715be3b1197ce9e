"""DNS service: handles a query, from any client over any transport, until it is answered.

Queries that are in error, that ask for a way past the filter, or for a host that is not to be found, are
answered at once. The others are asked of a resolver; its answer is looked at, and passed on as it came
where no list says anything of its names. Otherwise the addresses are steered first.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from functools import lru_cache
from ipaddress import IPv6Address
from itertools import islice
from typing import Any, Protocol

from urlward.dns.answers import error, truncated
from urlward.dns.handling import Answers
from urlward.dns.judge import Faults, Found
from urlward.dns.policy import Asker, Reason
from urlward.dns.upstream import LINES, ON_A_LINE, UNDER_WAY, DnsExchange, Forwarder
from urlward.dns.wire import (
    FORMERR,
    HEADER,
    NOTIMP,
    PAYLOAD,
    PLAIN_SIZE,
    RECURSION,
    REFUSED,
    SERVFAIL,
    Question,
    Scan,
    WireError,
    read_edns,
    read_question,
    scan,
)
from urlward.records.privacy import network_of

logger = logging.getLogger("urlward.gateway")

OWED = (UNDER_WAY, LINES * ON_A_LINE)
"""Responses that may be pending, over UDP and over TCP: as many as a resolver is asked for at a time; beyond,
clients get SERVFAIL."""

OWED_TO_ONE = (1_000, 200)
"""To one address. Nor are there more than may be added still for others."""

OWED_TO_NETWORK = (5_000, 400)
"""To one network of IPv6, whose addresses a client may have all of."""

TOGETHER = 100
"""Clients that are sent an answer at once: thousands may have asked the same, from as many addresses."""

_AUTHORITATIVE, _RECURSIVE = 4, 0x80
"""AA of the flags, in their first byte, and RA in their second."""

_ONE_QUESTION = b"\0\1\0\0\0\0"
_TRANSFERS = (251, 252)
_MOST_TCP = 0xFFFF


class QueryClient(Protocol):
    """Client of the service, which takes the response to its query.

    Attributes:
        host: address.
    """

    host: str

    @property
    def asker(self) -> Asker:
        """Who it is, for records."""

    @property
    def place(self) -> Hashable:
        """Where its answer goes: what is asked again from there, under the same id, is the same query."""

    def answer(self, data: bytes) -> None:
        """Send an answer; never raises."""


class Asked(DnsExchange):
    """Query with all clients that have sent it, word for word, and so share its response."""

    __slots__ = ("clients", "service", "tcp")

    def __init__(self, query: bytes, question: Question, service: "QueryService", *, tcp: bool) -> None:
        super().__init__(query, question)
        self.service = service
        self.tcp = tcp
        self.clients: dict[tuple[bytes, Hashable], QueryClient] = {}
        """By the id of their query and their place."""

    @property
    def askers(self) -> list[Asker]:
        """All that have asked so far, each once however often it has."""
        return list(dict.fromkeys(client.asker for client in self.clients.values()))

    def take_some(self) -> "Asked":
        """Take the first `TOGETHER` of the clients out of this, as a query of their own."""
        some = Asked(self.query, self.question, self.service, tcp=self.tcp)
        for place in [*islice(self.clients, TOGETHER)]:
            some.clients[place] = self.clients.pop(place)
        return some

    def answered(self, data: bytes | None) -> None:
        """The exchange has ended; see `DnsExchange.answered`."""
        self.service.answered(self, data)


class QueryService:
    """Handler of queries.

    Args:
        udp: asks resolvers.
        tcp: asks resolvers for queries that have come over TCP, whose responses may be long.
        answers: what becomes of those.
        faults: are told what goes wrong.
    """

    def __init__(self, udp: Forwarder, tcp: Forwarder, answers: Answers, faults: Faults) -> None:
        self._forwarders = (udp, tcp)
        self._answers = answers
        self._faults = faults
        self._under_way: tuple[dict[bytes, Asked], dict[bytes, Asked]] = ({}, {})
        self._owed_to: tuple[dict[str, int], dict[str, int]] = ({}, {})
        """Responses pending by address and network, over UDP and over TCP."""
        self._owed = [0, 0]
        self._later: dict[str, deque[tuple[Asked, Callable[[Asked], None]]]] = {}
        """Work on answers that takes long, by the networks of who has asked."""
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, query: bytes, client: QueryClient, *, tcp: bool = False) -> bool:
        """Handle a query; it is answered once.

        Returns:
            False where it gets no answer: it is none, or has been asked before and is yet to be answered.
        """
        if len(query) < HEADER or query[2] & 0x80:
            return False
        if query[2] & 0x78:
            client.answer(error(query, NOTIMP))
            return True
        try:
            if query[4:10] != _ONE_QUESTION:
                raise WireError
            question = read_question(query)
        except WireError:
            client.answer(error(query, FORMERR))
            return True
        if question.type in _TRANSFERS:
            client.answer(error(query, REFUSED, question))
            return True
        if self._owed[tcp] >= OWED[tcp] or self._owes_enough(client.host, tcp):
            client.answer(error(query, SERVFAIL, question))
            return True
        key = query[2:]
        asked = self._under_way[tcp].get(key)
        if asked is not None:
            if (query[:2], client.place) in asked.clients:
                return False
            self._owe(asked, query[:2], client)
            return True
        asked = Asked(query, question, self, tcp=tcp)
        self._owe(asked, query[:2], client)
        self._under_way[tcp][key] = asked
        self._begin(asked)
        return True

    @property
    def owes(self) -> bool:
        """Whether a response is pending: at a resolver, or here, where it is steered."""
        return any(self._owed)

    def failed(self, cause: Exception) -> None:
        """A query has caused an error in its parser."""
        self._faults.say(cause, "a query has no answer")

    def _begin(self, asked: Asked) -> None:
        reason = self._answers.reason(asked.question)
        if reason is not None:
            self._do_later(asked, lambda some: self._start(self._answer_ourselves(some, reason)))
        else:
            self._forward(asked)

    def _forward(self, asked: Asked) -> None:
        if not self._forwarders[asked.tcp].ask(asked):
            self._reply(asked, self._failure(asked))

    def answered(self, asked: Asked, data: bytes | None) -> None:
        """A resolver has responded, or none has."""
        if len(asked.clients) <= TOGETHER and (data is None or len(data) <= PAYLOAD):
            self._take(asked, data)
        else:
            self._forget(asked)  # who asks from here on is none of those that this answer is for
            self._do_later(asked, lambda some: self._take(some, data))

    def _do_later(self, asked: Asked, work: Callable[[Asked], None]) -> None:
        """Work on an answer that is long, for many, to be steered or our own in the turn of who has asked."""
        if not self._later:
            asyncio.get_running_loop().call_soon(self._next_of_later)
        network = network_of(next(iter(asked.clients.values())).host)
        self._later.setdefault(network, deque()).append((asked, work))

    def _next_of_later(self) -> None:
        """Work on one answer in a round of the loop, of each network in turn: each takes milliseconds where
        whoever made it, or has asked for it, wants it to, and hundreds may come at once."""
        network, waiting = next(iter(self._later.items()))
        asked, work = waiting.popleft()
        if len(asked.clients) > TOGETHER:
            waiting.appendleft((asked, work))
            asked = asked.take_some()
        del self._later[network]
        if waiting:
            self._later[network] = waiting
        if self._later:
            asyncio.get_running_loop().call_soon(self._next_of_later)
        work(asked)

    def _take(self, asked: Asked, data: bytes | None) -> None:
        if data is None:
            self._reply(asked, self._failure(asked))
        else:
            self._judge(asked, data)

    def _judge(self, asked: Asked, data: bytes) -> None:
        try:
            self._look_at(asked, data)
        except Exception as e:  # noqa: BLE001 - as the operator says
            self._reply(asked, self._answers.despite(e, asked.query, asked.question, data))

    def _look_at(self, asked: Asked, data: bytes) -> None:
        question = asked.question
        try:
            read = scan(data, question)
        except WireError:
            # What we cannot read, no client could; one that is cut off says so, and is asked for by TCP.
            cut_off = not asked.tcp and len(data) > 2 and data[2] & 2
            self._reply(asked, truncated(asked.query, data, question) if cut_off else self._failure(asked))
            return
        if data[HEADER : question.end] != asked.query[HEADER : question.end]:
            data = data[:HEADER] + asked.query[HEADER : question.end] + data[question.end :]
        found = self._answers.look(read)
        if found:
            self._forget(asked)
            self._do_later(asked, lambda some: self._start(self._steer(some, data, read, found)))
        else:
            self._reply(asked, data)

    async def _answer_ourselves(self, asked: Asked, reason: Reason) -> None:
        data = await self._answers.own(asked.query, asked.question, reason, asked.askers)
        if data is None:
            self._forward(asked)
        else:
            self._reply(asked, data)

    async def _steer(self, asked: Asked, data: bytes, read: Scan, found: Found) -> None:
        size = _MOST_TCP if asked.tcp else _size(asked)
        query, question, askers = asked.query, asked.question, asked.askers
        self._reply(asked, await self._answers.steer(query, question, data, read, found, size, askers))

    def _owes_enough(self, host: str, tcp: bool) -> bool:
        owed, bounds = self._owed_to[tcp], (OWED_TO_ONE[tcp], OWED_TO_NETWORK[tcp])
        # No more than there is room left for others: with many networks, too, nobody takes all of it.
        room = OWED[tcp] - self._owed[tcp]
        return any(
            owed.get(key, 0) >= min(most, room) for key, most in zip(counted_by(host), bounds, strict=False)
        )

    def _owe(self, asked: Asked, number: bytes, client: QueryClient) -> None:
        asked.clients[number, client.place] = client
        self._owed[asked.tcp] += 1
        owed = self._owed_to[asked.tcp]
        for key in counted_by(client.host):
            owed[key] = owed.get(key, 0) + 1

    def _reply(self, asked: Asked, data: bytes) -> None:
        self._forget(asked)
        if len(data) > PLAIN_SIZE and not asked.tcp and len(data) > _size(asked):
            data = truncated(asked.query, data, asked.question)
        if not asked.query[2] & RECURSION:
            # A resolver at the client that asks authoritative servers by itself: to BIND others are lame.
            flags = [data[2] & ~RECURSION | _AUTHORITATIVE, data[3] & ~_RECURSIVE]
            data = data[:2] + bytes(flags) + data[4:]
        rest = data[2:]
        self._owed[asked.tcp] -= len(asked.clients)
        owed = self._owed_to[asked.tcp]
        for (number, _), client in asked.clients.items():
            for key in counted_by(client.host):
                if left := owed[key] - 1:
                    owed[key] = left
                else:
                    del owed[key]
            client.answer(number + rest)

    def _forget(self, asked: Asked) -> None:
        under_way = self._under_way[asked.tcp]
        if under_way.get(asked.query[2:]) is asked:
            del under_way[asked.query[2:]]

    def _failure(self, asked: Asked) -> bytes:
        return error(asked.query, SERVFAIL, asked.question)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@lru_cache(4_096)
def counted_by(host: str) -> tuple[str, ...]:
    """What a client's address counts against the limits of: itself and, for IPv6, its network of 64 bits.

    Link-local and mapped addresses count alone; an empty one, where the peer is gone already, not at all.
    """
    if ":" not in host:
        return (host,) if host else ()
    address = IPv6Address(host)
    return (host,) if address.ipv4_mapped or address.is_link_local else (host, network_of(host))


def _size(asked: Asked) -> int:
    edns = read_edns(asked.query, asked.question.end)
    return edns.size if edns else PLAIN_SIZE
