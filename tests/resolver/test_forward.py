import asyncio
import logging

import dns.message
import pytest

from conftest import until
from resolver.test_wire import answer, question
from urlward.dns import upstream as dns_forward
from urlward.dns.upstream import DnsExchange, Forwarder, OutageLog
from urlward.dns.wire import read_question

NOTHING = object()


class Query(DnsExchange):
    """Keeps its answer."""

    __slots__ = ("got",)

    def __init__(self, name: str = "plain.example") -> None:
        wire = question(name).to_wire()
        super().__init__(wire, read_question(wire))
        self.got: object = NOTHING

    def answered(self, data: bytes | None) -> None:
        assert self.got is NOTHING, "answered once"
        self.got = data

    def answer(self, code: int = 0) -> bytes:
        data = answer(dns.message.from_wire(self.query), "plain.example 60 A 192.0.2.1").to_wire()
        return data[:3] + bytes([data[3] | code]) + data[4:]


class Way:
    """Does nothing but take notes."""

    def __init__(self, text: str = "192.0.2.53") -> None:
        self.text = text
        self.well = True
        self.again = self.heard = self.renewed = 0.0
        self.renewals = 0
        self.sent: list[DnsExchange] = []
        self.released: list[int] = []
        self.fault: OSError | None = None
        self.closed = False

    def renew(self) -> None:
        self.renewals += 1

    def send(self, exchange: DnsExchange) -> None:
        if self.fault is not None:
            raise self.fault
        self.sent.append(exchange)
        exchange.places.append((self, len(self.sent)))

    def release(self, number: int) -> None:
        self.released.append(number)

    def close(self) -> None:
        self.closed = True


class Waiting(Forwarder):
    """A forwarder with a clock that is set.

    Attributes:
        now: what the clock shows.
    """

    def __init__(self, *ways: Way, timeout: float) -> None:
        super().__init__(ways, timeout, OutageLog([way.text for way in ways]))
        self.now = 1000.0
        self._time = lambda: self.now


def forwarder(*ways: Way, timeout: float = 0.2) -> Waiting:
    return Waiting(*ways, timeout=timeout)


async def test_the_first_resolver_answers() -> None:
    first, second = Way(), Way()
    asks = forwarder(first, second)
    query = Query()
    assert asks.ask(query)
    asks.take(query, first, query.answer())
    assert query.got == query.answer()
    assert (len(first.sent), len(second.sent), first.released) == (1, 0, [1])
    assert asks.under_way == 0


async def test_the_next_is_asked_and_a_late_answer_counts() -> None:
    first, second = Way(), Way()
    asks = forwarder(first, second)
    query = Query()
    asks.ask(query)
    asks.now += 0.1
    await until(lambda: second.sent, "the second")
    assert query.got is NOTHING
    asks.take(query, first, query.answer())
    assert query.got == query.answer()


async def test_one_alone_is_asked_again() -> None:
    way = Way()
    asks = forwarder(way)
    query = Query()
    asks.ask(query)
    asks.now += 0.1
    await until(lambda: len(way.sent) == 2, "the second time")
    assert query.got is NOTHING
    asks.now += 0.1
    await until(lambda: query.got is not NOTHING, "the end")
    assert query.got is None
    assert len(way.sent) == 2
    assert way.released == [1, 2]
    assert asks.under_way == 0


async def test_a_slow_name_is_asked_for_again_each_second() -> None:
    first, second = Way(), Way()
    asks = forwarder(first, second, timeout=5)
    first.heard = second.heard = asks.now
    query = Query()
    asks.ask(query)
    for number in (2, 3, 4):
        asks.now += 1
        await until(lambda number=number: len(first.sent + second.sent) == number, "the next time")
    assert (len(first.sent), len(second.sent)) == (2, 2)
    assert not first.well, "others need not wait for it as long as this does"
    asks.now += 1.5
    asks.take(query, first, query.answer())
    assert query.got == query.answer()


async def test_a_slow_name_has_its_time_where_another_resolver_fails_at_once() -> None:
    first, second = Way(), Way()
    asks = forwarder(first, second, timeout=5)
    first.heard = asks.now
    query = Query()
    asks.ask(query)
    for number in (1, 2, 3, 4):
        asks.now += 1
        await until(lambda number=number: len(second.sent) == number, "the next time")
        first.heard = asks.now
        asks.failed(query, second)
        assert len(first.sent) == number + 1
    assert query.got is NOTHING
    asks.now += 1
    await until(lambda: query.got is not NOTHING, "the end")
    assert query.got is None


async def test_one_that_cannot_be_reached_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Way(), Way()
    asks = forwarder(first, second)
    first.fault = ConnectionRefusedError()
    for number in (1, 2):
        query = Query()
        asks.ask(query)
        assert len(second.sent) == number, "at once"
        asks.take(query, second, query.answer())
    first.fault = None
    asks.ask(Query())
    assert not first.sent
    first.again = 0.0
    one, other = Query(), Query()
    asks.ask(one)
    asks.ask(other)
    assert first.sent == [one], "one alone finds out"
    asks.take(one, first, one.answer())
    asks.ask(third := Query())
    assert first.sent[-1] is third


async def test_a_slow_name_says_nothing_of_a_resolver() -> None:
    first, second = Way(), Way()
    asks = forwarder(first, second, timeout=0.5)
    quick, slow = Query(), Query()
    asks.ask(slow)
    asks.ask(quick)
    asks.now += 0.125
    asks.take(quick, first, quick.answer())
    asks.now += 0.125
    await until(lambda: second.sent, "the second")
    assert first.well
    asks.now += 0.25
    await until(lambda: slow.got is None, "the end")
    asks.ask(Query())
    asks.now += 0.25
    await until(lambda: len(second.sent) == 2, "the second again")
    assert not first.well, "nothing has come for as long as an answer may take"


@pytest.mark.parametrize("code", [2, 5])
async def test_a_failure_is_told_where_no_other_does_better(code: int) -> None:
    first, second = Way(), Way()
    asks = forwarder(first, second)
    query = Query()
    asks.ask(query)
    asks.take(query, first, query.answer(code))
    assert second.sent == [query]
    asks.take(query, second, query.answer())
    assert query.got == query.answer()
    query = Query()
    asks.ask(query)
    asks.take(query, first, query.answer(code))
    asks.now += 0.1
    await until(lambda: query.got is not NOTHING, "the end")
    assert query.got == query.answer(code), "the second says nothing"
    alone = forwarder(first)
    query = Query()
    alone.ask(query)
    alone.take(query, first, query.answer(code))
    assert query.got == query.answer(code)


async def test_what_goes_wrong_at_once_everywhere() -> None:
    way = Way()
    way.fault = OSError()
    asks = forwarder(way)
    query = Query()
    asks.ask(query)
    assert query.got is None
    busy = Way()
    busy.fault = BlockingIOError()
    asks = forwarder(busy)
    asks.ask(query := Query())
    assert query.got is None
    assert busy.well, "which is not to say unwell"


async def test_a_failure_found_in_sending() -> None:
    """Told of while the query is being sent, and once more for an older one."""
    first, second = Way(), Way()
    asks = forwarder(first, second)
    query = Query()
    asks.ask(query)
    asks.failed(query, first)
    asks.failed(query, first)
    assert second.sent == [query]
    for way in (second, first, second):
        assert query.got is NOTHING
        asks.failed(query, way)
    assert query.got is None
    asks.failed(query, second)


async def test_a_resolver_that_fails_gets_other_sockets_once_a_second_at_most() -> None:
    way = Way()
    asks = forwarder(way)
    way.fault = OSError()
    for _ in range(100):
        asks.ask(Query())
    assert way.renewals == 1
    asks.now += 1
    asks.ask(Query())
    assert way.renewals == 2


async def test_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_forward, "UNDER_WAY", 3)
    way = Way()
    asks = forwarder(way, timeout=0.1)
    assert [asks.ask(Query()) for _ in range(4)] == [True, True, True, False]
    asks.now += 0.05
    await until(lambda: len(way.sent) == 6, "each once more")
    asks.now += 0.05
    await until(lambda: asks.under_way == 0, "the end")
    assert asks.ask(Query())


async def test_the_end() -> None:
    way = Way()
    asks = forwarder(way, timeout=5)
    query = Query()
    asks.ask(query)
    asks.close()
    assert query.got is None
    assert way.closed
    asks.close()


async def test_what_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    report = OutageLog(["192.0.2.53", "[2001:db8::53]:5300"])
    for now in (100.0, 100.1):
        report.unanswered(now, 2.0)
    assert not caplog.messages, "it may be the name"
    report.unanswered(100.2, 2.0)
    report.unanswered(130.0, 2.0)
    assert caplog.messages == [
        "no DNS resolver answers (192.0.2.53, [2001:db8::53]:5300): "
        "clients are told that the server has failed"
    ]
    report.unanswered(161.0, 2.0)
    report.answered(162.0)
    assert caplog.messages[2:] == ["DNS resolvers answer again"]
    for now in (163.0, 170.0, 170.1, 170.2):
        report.unanswered(now, 2.0)
    report.answered(171.0)
    assert len(caplog.messages) == 3, "once a minute at most"
    for now in (230.0, 230.1, 230.2):
        report.unanswered(now, 2.0)
    report.answered(231.0)
    assert len(caplog.messages) == 5


async def test_an_outage_is_a_trouble_until_a_resolver_answers() -> None:
    told: list[str] = []
    report = OutageLog(["192.0.2.53"], told.append)
    report.answered(90.0)
    for now in (100.0, 100.1):
        report.unanswered(now, 2.0)
    assert not told
    for now in (100.2, 100.3, 190.0):
        report.unanswered(now, 2.0)
    assert told == ["no DNS resolver answers (192.0.2.53): clients are told that the server has failed"]
    for now in (191.0, 192.0):
        report.answered(now)
    assert told[1:] == [""]
    # At once, though the log has it once a minute at most.
    for now in (200.0, 200.1, 200.2):
        report.unanswered(now, 2.0)
    assert told[2:] == told[:1]


async def test_a_name_that_fails_alone_is_nothing_to_speak_of(caplog: pytest.LogCaptureFixture) -> None:
    report = OutageLog(["192.0.2.53"])
    report.answered(100.0)
    for _ in range(10):
        report.unanswered(101.0, 2.0)
    assert not caplog.messages


def test_which_answer_is_one() -> None:
    query = Query("Plain.example")
    good = answer(question("Plain.example"), "Plain.example 60 A 192.0.2.1").to_wire()
    assert query.is_answer(good)
    assert query.is_answer(good.replace(b"Plain", b"pLAIN")), "letter case need not be kept"
    assert not query.is_answer(query.query), "a query"
    assert not query.is_answer(good[:20])
    assert not query.is_answer(good.replace(b"Plain", b"other"))
    assert not query.is_answer(good.replace(b"\0\1\0\1", b"\0\x1c\0\1", 1)), "another type"
    assert not query.is_answer(good[:4] + b"\0\2" + good[6:])
    assert not query.is_answer(good[:2] + b"\xa0" + good[3:]), "another opcode"
    error = query.answer_in(good[:2] + b"\x80\x01" + bytes(8))
    assert error is not None, "without a question"
    assert query.is_answer(error)
    for bare, refusal in ((b"\x80\x05", True), (b"\x80\x00", False)):
        assert query.answer_in(good[:2] + bare + bytes(8)) is None
        assert query.is_refusal(good[:2] + bare + bytes(8)) is refusal


def test_types_have_no_letter_case() -> None:
    wire = question("plain.example", "HTTPS").to_wire()
    query = DnsExchange(wire, read_question(wire))
    good = answer(question("plain.example", "HTTPS")).to_wire()
    assert query.is_answer(good)
    assert not query.is_answer(good.replace(b"\0\x41\0\1", b"\0\x61\0\1"))


async def test_memory_of_what_is_over() -> None:
    """What has been answered is let go in time."""
    way = Way()
    asks = forwarder(way, timeout=0.1)
    for _ in range(100):
        query = Query()
        asks.ask(query)
        asks.take(query, way, query.answer())
    asks.now += 0.05
    await until(lambda: not asks._deadlines, "nothing to wait for")
    await asyncio.sleep(0)
    assert asks._ticking is None
