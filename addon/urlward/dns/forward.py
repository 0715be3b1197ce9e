"""Forwarding to resolvers: the order, timeouts and retries, and the response where none answers.

The first resolver is asked, and the next where it says nothing in time or cannot be reached. One that has
failed is left alone for a while, until a single query has found it well again. There is no cache: the
resolver has one, and what lists say of an answer is looked up anew each time anyway.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from urlward.dns.wire import FORMERR, HEADER, NOTIMP, REFUSED, SERVFAIL, Question

logger = logging.getLogger("urlward.gateway")

LEFT_ALONE = 10.0
"""Seconds for which a resolver that has failed is asked last."""

SAID_AGAIN = 60.0
"""Seconds between two lines on resolvers that do not answer."""

UNDER_WAY = 10_000
"""Queries that may wait for resolvers; beyond, clients get SERVFAIL."""

_SEVERAL = 3
"""Queries without an answer that are not a name's fault."""

_TICK = 0.05
_FAILURES = (SERVFAIL, REFUSED)
_REFUSALS = (FORMERR, SERVFAIL, NOTIMP, REFUSED)


class Exchange:
    """Query under way, from its arrival to its response.

    Args:
        query: as the client sent it.
        question: of it.

    Attributes:
        places: where answers are awaited, and under which ids.
        way: that was asked last.
        attempts: how many times a way was asked.
        fallback: an answer that says no more than that a resolver has failed.
        over: whether it is answered.
    """

    __slots__ = ("attempts", "fallback", "order", "over", "places", "query", "question", "way")

    def __init__(self, query: bytes, question: Question) -> None:
        self.query = query
        self.question = question
        self.order: Sequence[Way] = ()
        self.places: list[tuple[Place, int]] = []
        self.way: Way | None = None
        self.attempts = 0
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

    @staticmethod
    def is_refusal(data: bytes) -> bool:
        """Whether a message says no more than that the resolver does not answer, without the question."""
        return bool(data[2] & 0x80 and data[4:6] == b"\0\0" and data[3] & 15 in _REFUSALS)

    def answered(self, data: bytes | None) -> None:
        """Called once: with a response, or None where no resolver has given one."""
        raise NotImplementedError


class Place(Protocol):
    """Connection or socket where responses are awaited."""

    def release(self, number: int) -> None:
        """Stop waiting for a response with this id."""


class Way(Protocol):
    """Upstream: a resolver over one transport.

    Attributes:
        text: the resolver's address, for the log.
        well: whether it has not failed lately.
        again: when it may be tried again where it has.
        heard: when an answer has come from it last.
    """

    text: str
    well: bool
    again: float
    heard: float

    def send(self, exchange: Exchange) -> None:
        """Send a query.

        Raises:
            BlockingIOError: too much is under way there.
            OSError: it cannot be reached.
        """

    def close(self) -> None:
        """Send no more queries."""


class Forwarder:
    """Forwarder of queries to resolvers over one transport.

    Args:
        ways: to the resolvers, in the order of preference; at least one.
        timeout: seconds that the answer to a query may take in all.
        report: says when nobody answers.
    """

    def __init__(self, ways: Sequence[Way], timeout: float, report: "Report") -> None:
        self._ways = tuple(ways)
        self._timeout = timeout
        self._attempts = max(2, len(ways))
        self._interval = timeout / self._attempts
        self._report = report
        self._deadlines: deque[tuple[float, Exchange, int]] = deque()
        self._ticking: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self.under_way = 0

    def ask(self, exchange: Exchange) -> bool:
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

    def take(self, exchange: Exchange, way: Way, data: bytes) -> None:
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

    def failed(self, exchange: Exchange, way: Way) -> None:
        """An upstream reports that there will be no response."""
        self.mark(way)
        if exchange.way is way and not exchange.over:
            self._next(exchange)

    def mark(self, way: Way) -> None:
        """Use this resolver last for a while."""
        way.well = False
        way.again = self._time() + LEFT_ALONE

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

    def _next(self, exchange: Exchange) -> None:
        order = exchange.order
        while exchange.attempts < self._attempts:
            way = exchange.way = order[exchange.attempts % len(order)]
            exchange.attempts += 1
            number = exchange.attempts
            try:
                way.send(exchange)
            except BlockingIOError:
                continue  # busy, which is not to say unwell
            except OSError:
                self.mark(way)
                continue
            if exchange.attempts == number and not exchange.over:
                self._deadlines.append((self._time() + self._interval, exchange, number))
                if self._ticking is None:
                    self._tick_later()
            return
        self._finish(exchange, exchange.fallback)

    def _finish(self, exchange: Exchange, data: bytes | None) -> None:
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
                if way is not None and way.heard < now - self._timeout:
                    self.mark(way)
                self._next(exchange)
        finally:
            self._ticking = None
            if deadlines:
                self._tick_later()


class Report:
    """Report of an outage: when no resolver responds any more, and when one does again; in the log once a
    minute at most.

    Args:
        resolvers: their addresses.
        trouble: takes what is wrong at once, and an empty text when it is over.
    """

    def __init__(self, resolvers: Sequence[str], trouble: Callable[[str], None] = lambda _: None) -> None:
        self._resolvers = ", ".join(resolvers)
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
        why = f"no DNS resolver answers ({self._resolvers}): clients are told that the server has failed"
        if not self._is_down:
            self._is_down = True
            self._trouble(why)
        if now >= self._said + SAID_AGAIN:
            self._said, self._is_said = now, True
            logger.error("%s", why)
