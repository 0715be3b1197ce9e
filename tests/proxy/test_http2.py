"""HTTP/2 without sockets: frames of a client in, HTTP/1.1 to origins out, and back."""

import functools
import gc
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count, pairwise
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.proxy import http2_messages
from urlward.proxy.block_page import BlockResponse, plain
from urlward.proxy.connection import BEHIND, HIGH
from urlward.proxy.head import MAX_HEAD, HeadError, RequestHead, read_request_head, read_response_head
from urlward.proxy.http2 import CREDIT, LEAST_WINDOW, WINDOW, Http2, Lane
from urlward.proxy.http2_frames import _REST, MAX_STREAMS, MAX_WAITING, OF_NEW
from urlward.proxy.http2_messages import (
    Chunks,
    Decoder,
    Encoder,
    MalformedError,
    last_chunk,
    read_request,
    response_fields,
)
from urlward.proxy.http2_origin import MAX_LANES
from urlward.proxy.names import Names
from urlward.proxy.poller import Share
from urlward.proxy.raw_relay import RawRelay
from urlward.proxy.relay import FRESH, NO_ENDS, HttpRelay

Fields = list[tuple[str, str]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Origin:
    """A lane's session and its connection to the origin."""

    peer: Any = None
    active = 0.0
    share = Share()

    def __init__(self, lane: Lane, case: "Case") -> None:
        self.lane = lane.owned(self)
        self.case = case
        self.got = b""
        self.asked: list[str] = []
        self.over = self.unread = False
        self.relay: Any = HttpRelay(self, case.judge)
        lane.receive, lane.ended = self.relay.client_data, self.relay.client_ended
        lane.peer = self
        lane.start()

    # what the relay asks

    def connect(self) -> None:
        self.relay.connected()

    def send_client(self, data: bytes) -> None:
        self.lane.write(data)

    def send_server(self, data: bytes) -> None:
        self.got += data

    def client_is_behind(self) -> bool:
        return self.lane.waiting > 0

    def end_client(self) -> None:
        self.lane.end()

    def end_server(self) -> None:
        self.asked.append("end server")

    def turn_is_over(self) -> bool:
        return False

    def go_on_later(self) -> None:
        raise AssertionError

    def close_server(self) -> None:
        self.over = True

    def close(self) -> None:
        self.lane.close()
        self.over = True

    def cut(self) -> None:
        self.lane.abort()
        self.over = True

    def rest(self) -> None:
        """The connection stays."""

    def idle(self) -> bool:
        return self.relay.idle

    def takes_more(self, *, surely: bool) -> bool:
        return self.relay.takes_more and not (surely and self.unread)

    def switch(self, names: Names, early: bytes, *, ended: bool) -> None:
        self.relay = RawRelay(self, names, early)
        self.lane.receive, self.lane.ended = self.relay.client_data, self.relay.client_ended
        self.relay.connected()
        if ended:
            self.relay.client_ended()

    def hold_server(self, *, held: bool) -> None:
        self.asked.append("hold server" if held else "go on with server")

    def refused(self, stage: str) -> None:
        self.case.refusals.append(stage)

    def linger(self) -> None:
        """The lane closes by itself."""

    # as owner and as peer of the lane

    def broken(self, error: Exception) -> None:
        self.case.faults.append(error)
        self.cut()

    def lost(self, _: object) -> None:
        self.relay.ends = NO_ENDS
        self.lane.forget()
        self.over = True

    def pause(self, _: int) -> None:
        self.asked.append("pause")

    def resume(self, _: int) -> None:
        self.asked.append("resume")

    # what the origin does

    def says(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.relay.server_data(piece)

    def ends(self) -> None:
        self.relay.server_ended()

    @property
    def heads(self) -> list[RequestHead]:
        return [read_request_head(part + b"\r\n\r\n") for part in self.got.split(b"\r\n\r\n")[:-1]]


class Loop:
    """What is to be done soon."""

    def __init__(self) -> None:
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.waits: list[float] = []

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self.soon.append((call, arguments))

    def call_later(self, wait: float, call: Callable[..., None]) -> None:
        self.waits.append(wait)
        self.call_soon(call)

    def run(self) -> None:
        while self.soon:
            call, arguments = self.soon.pop(0)
            call(*arguments)


class Turns:
    """The client's connection, as far as its turns go."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.turn_is_over = False
        self.held: list[bool] = []
        self.tasks = 0

    def pause(self, _: int) -> None:
        self.held.append(True)

    def resume(self, _: int) -> None:
        self.held.append(False)

    def later(self, task: Callable[[], None]) -> None:
        self.tasks += 1
        self.loop.call_soon(task)


class Case:
    """A client and the filter; origins are reached at once."""

    active = 0.0
    held = False

    def __init__(self) -> None:
        self.loop = Loop()
        self.origins: list[Origin] = []
        self.refusals: list[str] = []
        self.faults: list[Exception] = []
        self.closed = False
        config = h2.config.H2Configuration(
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.client = h2.connection.H2Connection(config)
        self.client.initiate_connection()
        self.status: dict[int, list[int]] = {}
        self.fields: dict[int, dict[str, str]] = {}
        self.body: dict[int, bytes] = {}
        self.trailers: dict[int, Fields] = {}
        self.ended: dict[int, str] = {}
        self.goaway: int | None = None
        self.acknowledges = True
        self.http2 = Http2(self, self.loop)  # type: ignore[arg-type]
        self.turns = Turns(self.loop)
        self.http2.peer = self.turns  # type: ignore[assignment]
        self.http2.start()
        self.flush()

    def judge(self, head: RequestHead) -> Names | BlockResponse:
        if b"listed" in head.target:
            return plain(451, "blocked", head=head.method == b"HEAD")
        if b"fault" in head.target:
            raise RuntimeError
        return Names(("a.test",), (443,), "", head.target.decode("latin-1"))

    def send_client(self, data: bytes) -> None:
        assert not self.closed, "sent behind the end"
        for event in self.client.receive_data(data):
            self._take(event)

    def _take(self, event: h2.events.Event) -> None:
        stream: int = getattr(event, "stream_id", 0) or 0
        match event:
            case h2.events.ResponseReceived() | h2.events.InformationalResponseReceived():
                fields: Any = dict(event.headers or [])
                self.status.setdefault(stream, []).append(int(fields[":status"]))
                self.fields[stream] = fields
            case h2.events.DataReceived():
                self.body[stream] = self.body.get(stream, b"") + event.data
                if self.acknowledges:
                    self.client.acknowledge_received_data(event.flow_controlled_length, stream)
            case h2.events.TrailersReceived():
                self.trailers[stream] = list(event.headers)  # type: ignore[arg-type]
            case h2.events.StreamEnded():
                self.ended[stream] = "ended"
            case h2.events.StreamReset():
                self.ended.setdefault(stream, f"reset {int(event.error_code or 0)}")
            case h2.events.ConnectionTerminated():
                self.goaway = int(event.error_code or 0)

    def close(self) -> None:
        self.closed = True

    def refused(self, stage: str) -> None:
        self.refusals.append(stage)

    def broken(self, error: Exception) -> None:
        raise error

    def hold_client(self, *, held: bool) -> None:
        self.held = held

    def exchange(self, lane: Lane) -> None:
        self.origins.append(Origin(lane, self))

    # the client

    def flush(self) -> None:
        while data := self.client.data_to_send():
            self.http2.client_data(data)
        self.loop.run()

    def ask(self, path: str = "/", *more: tuple[str, str], method: str = "GET", end: bool = True) -> int:
        stream = self.client.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "a.test"), (":path", path)]
        self.client.send_headers(stream, head + list(more), end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.client.send_data(stream, data, end_stream=end)
        self.flush()


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    # No time goes by, in which a flood could earn anything.
    monkeypatch.setattr("urlward.proxy.http2_frames.perf_counter", lambda: 1.0)
    made = Case()
    yield made
    assert not made.faults


def test_a_request_is_one_of_http_1_1(case: Case) -> None:
    stream = case.ask("/p?q", ("cookie", "a=1"), ("accept", "x"), ("cookie", "b=2"), ("te", "trailers"))
    [head] = case.origins[0].heads
    assert (head.method, head.target, head.fields.hosts, head.fields.length) == (
        b"GET",
        b"/p?q",
        [b"a.test"],
        0,
    )
    assert [head.get(name) for name in (b"accept", b"cookie", b"te", b"connection")] == [
        b"x", b"a=1; b=2", b"trailers", b"TE",
    ]  # fmt: skip
    case.origins[0].says(
        b"HTTP/1.1 200 OK\r\nContent-", b"Length: 2\r\nA: b\r\nConnection: keep-alive\r\n\r\no", b"k"
    )
    assert case.fields[stream] == {":status": "200", "content-length": "2", "a": "b"}
    assert (case.body[stream], case.ended[stream]) == (b"ok", "ended")


@pytest.mark.parametrize("said", [b"o", b"okay"])
def test_a_body_of_another_length_ends_its_stream_alone(case: Case, said: bytes) -> None:
    stream = case.ask("/", ("content-length", "2"), method="POST", end=False)
    other = case.ask("/other")
    case.send(stream, said, end=True)
    assert (case.ended[stream], case.goaway) == (f"reset {h2.errors.ErrorCodes.PROTOCOL_ERROR}", None)
    case.origins[1].says(OK)
    assert case.body[other] == b"ok"


def test_who_opens_more_streams_than_may_be_open_is_closed(case: Case) -> None:
    case.client.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 2 * MAX_STREAMS
    case.client.remote_settings.acknowledge()
    for _ in range(MAX_STREAMS):
        case.ask()
    assert (case.goaway, case.closed) == (None, False)
    case.ask()
    assert (case.goaway, case.closed) == (h2.errors.ErrorCodes.PROTOCOL_ERROR, True)


def test_a_body_that_has_begun_before_our_settings_are_known_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urlward.proxy.http2_frames.perf_counter", lambda: 1.0)
    on_its_way: list[bytes] = []
    with monkeypatch.context() as slow:
        slow.setattr(Case, "send_client", lambda _, data: on_its_way.append(data))
        case = Case()
        stream = case.ask(method="POST", end=False)
        case.origins[0].lane.pause(BEHIND)
        for _ in range(3):
            case.send(stream, bytes(16_000))
    case.send_client(b"".join(on_its_way))
    case.flush()
    case.client.end_stream(stream)  # empty: no window keeps it
    case.flush()
    case.origins[0].lane.resume(BEHIND)
    assert case.goaway is None
    assert case.origins[0].got.endswith(b"\r\n0\r\n\r\n")


def test_lanes_are_used_again_and_no_more_than_allowed(case: Case) -> None:
    streams = [case.ask(f"/{i}") for i in range(MAX_STREAMS)]
    assert len(case.origins) == MAX_LANES
    for turn in range(-(-MAX_STREAMS // MAX_LANES)):
        for origin in case.origins:
            if len(origin.heads) > turn:
                origin.says(OK)
        case.loop.run()
    assert [case.body[stream] for stream in streams] == [b"ok"] * MAX_STREAMS
    asked = [head.target for origin in case.origins for head in origin.heads]
    assert len(case.origins) == MAX_LANES
    assert sorted(asked) == sorted(b"/%d" % i for i in range(MAX_STREAMS))


def test_one_stream_is_blocked_and_the_others_go_on(case: Case) -> None:
    before, blocked, after = case.ask("/a"), case.ask("/listed"), case.ask("/b")
    assert (case.status[blocked], case.body[blocked]) == ([451], b"blocked\n")
    for origin in case.origins:
        if origin.heads:
            origin.says(OK)
    assert case.body[before] == case.body[after] == b"ok"
    assert all(b"listed" not in origin.got for origin in case.origins)


def test_a_fault_of_ours_ends_one_stream(case: Case) -> None:
    other, failed = case.ask("/a"), case.ask("/fault")
    assert case.ended[failed] == "reset 2"
    case.origins[0].says(OK)
    assert case.body[other] == b"ok"
    assert [type(fault) for fault in case.faults] == [RuntimeError]
    case.faults.clear()


@pytest.mark.parametrize(
    ("said", "ended", "body", "how"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, None, "ended"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", False, None, "ended"),
        (CHUNKED + b"2;x=y\r\nok\r\n0\r\n\r\n", False, b"ok", "ended"),
        (b"HTTP/1.0 200 OK\r\n\r\nok", True, b"ok", "ended"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", False, b"ok", "ended"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", True, b"ok", "reset 2"),
        (CHUNKED + b"2\r\nok\r\n", True, b"ok", "reset 2"),
        (CHUNKED + b"xy\r\n", False, None, "reset 2"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", False, b"The response is none of HTTP.\n", "ended"),
        (b"ICQ\r\n\r\n", False, b"The response is none of HTTP.\n", "ended"),
        (b"", True, b"The origin does not answer.\n", "ended"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bytewise", [False, True])
def test_every_kind_of_response(
    case: Case, said: bytes, ended: bool, body: bytes | None, how: str, bytewise: bool
) -> None:
    stream = case.ask()
    [origin] = case.origins
    for piece in [said[i : i + 1] for i in range(len(said))] if bytewise else filter(None, [said]):
        origin.says(piece)
    if ended:
        origin.ends()
    assert (case.ended[stream], case.body.get(stream)) == (how, body)
    case.loop.run()
    other = case.ask("/other")
    case.origins[-1].says(OK)
    assert case.body[other] == b"ok"


def test_the_answer_to_head_has_no_body(case: Case) -> None:
    stream = case.ask(method="HEAD")
    case.origins[0].says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    assert (case.fields[stream]["content-length"], case.ended[stream]) == ("100", "ended")
    assert stream not in case.body


def test_interim_responses_and_trailers(case: Case) -> None:
    stream = case.ask(("/"), ("expect", "100-continue"), method="POST", end=False)
    [origin] = case.origins
    origin.says(b"HTTP/1.1 100 Continue\r\n\r\n")
    case.client.send_data(stream, b"abc")
    case.client.send_headers(stream, [("x-sum", "1"), ("host", "b.test")], end_stream=True)
    case.flush()
    assert origin.got.partition(b"\r\n\r\n")[2] == b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"
    origin.says(
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 7\r\n\r\n"
    )
    assert case.status[stream] == [100, 103, 200]
    assert (case.body[stream], case.trailers[stream]) == (b"ok", [("grpc-status", "0")])


def test_a_response_before_the_end_of_its_request_is_the_last_of_its_lane(case: Case) -> None:
    stream = case.ask(method="POST", end=False)
    case.send(stream, b"abc")
    case.origins[0].says(OK)
    assert (case.ended[stream], case.body[stream]) == ("ended", b"ok")
    assert case.origins[0].over
    case.ask("/other")
    assert len(case.origins) == 2


@pytest.mark.parametrize("closes", [b"Connection: close\r\n", b""])
def test_a_lane_whose_origin_closes(case: Case, closes: bytes) -> None:
    case.ask()
    case.origins[0].says(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % closes)
    assert case.origins[0].over is bool(closes)
    if not closes:
        # While the next request is on its way to it: that is asked again.
        stream = case.ask("/again")
        assert len(case.origins[0].heads) == 2
        case.origins[0].ends()
        case.loop.run()
        assert [head.target for head in case.origins[1].heads] == [b"/again"]
        case.origins[1].says(OK)
        assert case.body[stream] == b"ok"
        other = case.ask("/post", method="POST")
        case.origins[1].ends()
        assert case.status[other] == [502]


@pytest.mark.parametrize(
    ("said", "again"),
    [
        (OK, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", True),
        # Where a response ends, readers that bear different things find in different places.
        (CHUNKED + b"2\r\nok\n0\r\n\r\n", False),
        (CHUNKED + b"2\nok\r\n0\r\n\r\n", False),
        (CHUNKED + b"2\r\nok\r\n0\r\nA b: c\r\n\r\n", False),
        (OK + b"HTTP/1.1 200 OK\r\n\r\n", False),
        (OK + b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", False),
    ],
)
def test_a_lane_is_used_again_where_its_origin_takes_another_request(
    case: Case, said: bytes, again: bool
) -> None:
    first = case.ask()
    case.origins[0].says(said)
    case.loop.run()
    assert (case.body[first], case.ended[first]) == (b"ok", "ended")
    second = case.ask("/post", method="POST")
    assert len(case.origins) == (1 if again else 2)
    case.origins[-1].says(OK)
    assert (case.status[second], case.body[second]) == ([200], b"ok")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["fresh", "rested", "unread"])
def test_what_cannot_be_sent_twice_goes_where_an_answer_has_just_come_from(
    case: Case, monkeypatch: pytest.MonkeyPatch, method: str, how: str
) -> None:
    now = 1.0
    monkeypatch.setattr("urlward.proxy.http2.perf_counter", lambda: now)
    case.ask()
    case.origins[0].says(OK)
    case.loop.run()
    now += FRESH + 1 if how == "rested" else FRESH
    case.origins[0].unread = how == "unread"
    stream = case.ask("/next", method=method)
    assert len(case.origins) == (1 if method == "GET" or how == "fresh" else 2)
    case.origins[-1].says(OK)
    assert case.body[stream] == b"ok"


class Looking:
    """Inspection of a response that holds nothing of it, and goes on when that has arrived."""

    answer = None
    over = holds = False
    behind = waits = True

    def feed(self, content: bytes) -> None:
        """Its content has come."""

    def end(self) -> None:
        """All has come."""

    drop = work = end


def test_what_is_still_looked_into_has_its_lane_for_itself(case: Case) -> None:
    """Nobody else's response waits for that, or is broken off for what is found."""
    first, looking = case.ask("/a"), Looking()
    inspected: Any = lambda *_: looking  # noqa: E731
    case.origins[0].relay.inspect = inspected
    case.origins[0].says(OK)
    assert (case.body[first], case.ended[first]) == (b"ok", "ended")
    second = case.ask("/b")
    case.origins[1].says(OK)
    assert case.body[second] == b"ok"
    looking.over, looking.behind = True, False
    case.origins[0].relay.inspect_on()
    case.ask("/c")
    case.ask("/d")
    assert [len(origin.heads) for origin in case.origins] == [2, 2]


def test_lanes_at_rest_make_room(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1.0
    monkeypatch.setattr("urlward.proxy.http2.perf_counter", lambda: now)
    for _ in range(MAX_LANES):
        case.ask()
    for origin in case.origins:
        origin.says(OK)
    case.loop.run()
    now += FRESH + 1
    stream = case.ask("/post", method="POST")
    assert (len(case.origins), case.origins[0].over) == (MAX_LANES + 1, True)
    case.origins[-1].says(OK)
    assert case.body[stream] == b"ok"


def test_what_a_client_gives_up_ends_at_the_origin(case: Case) -> None:
    stream, other = case.ask(), case.ask()
    case.client.reset_stream(stream)
    case.flush()
    assert [origin.over for origin in case.origins] == [True, False]
    case.origins[0].says(OK)
    case.origins[1].says(OK)
    assert case.body == {other: b"ok"}


def test_what_is_cut_ends_one_stream(case: Case) -> None:
    stream, other = case.ask(), case.ask()
    assert [names.target for names in case.origins[0].relay.live] == ["/"]
    case.origins[0].cut()
    assert case.ended[stream] == "reset 2"
    case.origins[1].says(OK)
    assert case.body == {other: b"ok"}


def test_a_client_that_does_not_read_holds_its_origin_up(case: Case) -> None:
    case.acknowledges = False
    big, small = case.ask("/big"), case.ask("/small")
    piece = bytes(1 << 16)
    case.origins[0].says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * len(piece)))
    sent = 0
    while "pause" not in case.origins[0].asked:
        case.origins[0].says(piece)
        sent += len(piece)
    assert len(case.body[big]) == 65535
    assert sent - 65535 <= 2 * HIGH
    case.acknowledges = True
    case.client.increment_flow_control_window(1 << 20)
    case.client.increment_flow_control_window(1 << 20, big)
    case.flush()
    assert case.origins[0].asked == ["pause", "resume"]
    while sent < 4 * len(piece):
        case.origins[0].says(piece)
        sent += len(piece)
    case.origins[1].says(OK)
    assert (len(case.body[big]), case.body[small]) == (sent, b"ok")


def test_what_an_origin_says_unasked_is_not_put_into_a_response_that_waits(case: Case) -> None:
    case.acknowledges = False
    stream, size = case.ask(), 1 << 16
    case.origins[0].says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, bytes(size))
    case.origins[0].says(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
    case.origins[0].ends()
    case.client.increment_flow_control_window(1 << 20)
    case.client.increment_flow_control_window(1 << 20, stream)
    case.flush()
    assert case.status[stream] == [200]
    assert (case.ended[stream], len(case.body[stream])) == ("ended", size)


def test_what_waits_for_a_client_that_does_not_read_is_bounded(case: Case) -> None:
    case.acknowledges = False
    streams = [case.ask(f"/{i}") for i in range(MAX_LANES)]
    for origin in case.origins:
        origin.says(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
    sent = 0
    for _ in range(100):
        for origin in case.origins:
            if origin.asked != ["pause"]:
                # As the connection to an origin reads.
                piece = bytes(min(1 << 18, origin.lane.room))
                origin.says(piece)
                sent += len(piece)
    assert all(origin.asked == ["pause"] for origin in case.origins)
    assert MAX_WAITING // 2 < sent - 65535 < 2 * MAX_WAITING + MAX_LANES * LEAST_WINDOW
    # Each goes on as the client takes it.
    case.acknowledges = True
    case.client.increment_flow_control_window(1 << 24)
    for stream in reversed(streams):
        case.client.increment_flow_control_window(1 << 24, stream)
    case.flush()
    assert all(origin.asked == ["pause", "resume"] for origin in case.origins)
    assert sum(map(len, case.body.values())) == sent
    assert case.http2._waits == 0


def test_a_socket_that_is_full_holds_all_up(case: Case) -> None:
    stream = case.ask()
    case.http2.pause(BEHIND)
    case.origins[0].says(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", bytes(90000))
    assert stream not in case.body
    assert case.origins[0].asked == ["pause"]
    case.acknowledges = False
    case.http2.resume(BEHIND)
    assert len(case.body[stream]) == 65535


def test_a_client_that_is_behind_is_asked_nothing_and_told_nothing(case: Case) -> None:
    """Heads count against no window: what they are answers to is not read, nor are they."""
    for _ in range(3):
        case.ask(method="HEAD")
    case.origins[1].says(OK[:-2])
    case.http2.pause(BEHIND)
    assert case.held
    assert [origin.asked for origin in case.origins] == [["pause"]] * 3
    # What has been read goes no further.
    for _ in range(4):
        case.ask()
    assert [len(origin.heads) for origin in case.origins] == [1, 1, 1]
    case.http2.resume(BEHIND)
    case.loop.run()
    assert not case.held
    assert [origin.asked for origin in case.origins[:3]] == [["pause", "resume"]] * 3
    assert sum(len(origin.heads) for origin in case.origins) == 7


def test_an_upload_waits_for_its_origin(case: Case) -> None:
    stream = case.ask(method="PUT", end=False)
    case.origins[0].lane.pause(BEHIND)
    sent = 0
    while window := min(case.client.local_flow_control_window(stream), 16384):
        case.send(stream, bytes(window))
        sent += window
    assert sent == LEAST_WINDOW + CREDIT // OF_NEW
    case.origins[0].lane.resume(BEHIND)
    for _ in range(9):
        case.send(stream, bytes(LEAST_WINDOW))
        sent += LEAST_WINDOW
    assert WINDOW - 9 * LEAST_WINDOW <= case.client.local_flow_control_window(stream) <= WINDOW
    case.send(stream, b"", end=True)
    body = case.origins[0].got.partition(b"\r\n\r\n")[2]
    chunks = Chunks()
    chunks.feed(body, 0)
    assert len(b"".join(chunks.content)) == sent


def test_a_websocket(case: Case) -> None:
    stream = case.client.get_next_available_stream_id()
    head = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/chat"),
        (":authority", "a.test"), ("sec-websocket-version", "13"), ("origin", "https://a.test"),
    ]  # fmt: skip
    case.client.send_headers(stream, head)
    case.flush()
    [origin] = case.origins
    [asked] = origin.heads
    assert (asked.method, asked.fields.websocket, len(asked.get(b"sec-websocket-key"))) == (b"GET", True, 24)
    origin.says(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello"
    )
    assert case.fields[stream] == {":status": "200", "sec-websocket-protocol": "chat"}
    case.send(stream, b"\x81\x85mask")
    assert origin.got.endswith(b"\x81\x85mask")
    assert origin.relay.endless
    case.send(stream, b"bye", end=True)
    assert (origin.got[-3:], origin.asked) == (b"bye", ["end server"])
    origin.says(b"and you")
    origin.ends()
    assert (case.body[stream], case.ended[stream]) == (b"helloand you", "ended")


def test_the_settings(case: Case) -> None:
    settings = case.client.remote_settings
    assert settings.enable_connect_protocol == 1
    assert settings.max_concurrent_streams == MAX_STREAMS
    assert settings.max_header_list_size == MAX_HEAD


GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")]


def with_field(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """A request with one more field, or another value of one of its own."""
    if name.startswith(b":"):
        return [(n, value if n == name else v) for n, v in GET]
    return [*GET, (name, value)]


@each_row(
    "fields",
    [
        [],
        GET[1:],
        GET[:-1],
        [GET[0], *GET],
        [*GET, (b":unknown", b"x")],
        [(b"a", b"b"), *GET],
        [*GET[:2], GET[3]],
        [*GET, (b":protocol", b"websocket")],
        *(with_field(name, b"x") for name in (b"A", b"a b", b"a:", b"a\r", b"", b"\xc3\xa9", b"te")),
        *(
            with_field(name, b"x")
            for name in (b"connection", b"upgrade", b"transfer-encoding", b"keep-alive", b"proxy-connection")
        ),
        *(with_field(b"x", value) for value in (b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b", b" a", b"a\t")),
        *(with_field(b"content-length", value) for value in (b"x", b"-1", b"1,1", b"", b"1" * 20)),
        [*GET, (b"content-length", b"1"), (b"content-length", b"1")],
        *(with_field(b":path", value) for value in (b"", b"a", b"*", b"/a b", b"/\r\n", b"http://b.test/")),
        *(with_field(b":method", value) for value in (b"", b"GET /", b"G:T")),
        *(with_field(b":scheme", value) for value in (b"", b"ftp", b"https://b.test")),
        *(with_field(b":authority", value) for value in (b"", b"a.test b.test", b"a.test\r\nhost:b")),
        with_field(b"host", b"b.test"),
        [*GET, (b"host", b"a.test"), (b"host", b"a.test")],
    ],
)  # fmt: skip
def test_what_is_no_request_is_none(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(MalformedError):
        read_request(fields, ended=True)


def test_a_proxy_is_not_asked_for() -> None:
    connect = [(b":method", b"CONNECT"), (b":authority", b"a.test:443")]
    with pytest.raises(HeadError) as refused:
        read_request(connect, ended=False)
    assert refused.value.status == 405
    with pytest.raises(HeadError) as refused:
        read_request([*with_field(b":method", b"CONNECT"), (b":protocol", b"other")], ended=False)
    assert refused.value.status == 501


texts = st.binary(max_size=12)


@given(
    st.lists(st.tuples(st.sampled_from([b":method", b":scheme", b":authority", b":path", b"host"]), texts)),
    st.lists(st.tuples(texts, texts), max_size=4),
    st.booleans(),
)
def test_what_is_one_is_one_to_every_reader(
    changes: list[tuple[bytes, bytes]], more: list[tuple[bytes, bytes]], ended: bool
) -> None:
    changed = dict(changes)
    fields = [(name, changed.get(name, value)) for name, value in GET]
    fields += [(b"host", changed[b"host"])] if b"host" in changed else []
    try:
        request = read_request(fields + more, ended=ended)
    except (MalformedError, HeadError):
        return
    assert request.head.count(b"\r\n\r\n") == 1
    head = read_request_head(request.head)
    assert len(head.fields.hosts) == 1
    assert (head.fields.length is None) is request.chunked
    assert head.target == dict(fields)[b":path"]


def test_trailers_that_are_none() -> None:
    for name, value in ((b"A", b"b"), (b":path", b"/"), (b"a", b"b\r\nc: d"), (b"connection", b"x")):
        with pytest.raises(MalformedError):
            last_chunk([(name, value)])
    with pytest.raises(MalformedError):
        last_chunk([(b"a", b"b" * 10_000)] * 2)


def test_trailers_that_frame_to_some_are_left_out() -> None:
    assert last_chunk([(b"content_length", b"5"), (b"a", b"b")]) == b"0\r\na: b\r\n\r\n"


def test_the_fields_of_a_response() -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close, x\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n"
        b"Alt-Svc: h3\r\nA: b\r\n\r\n"
    )
    fields, closes = response_fields(read_response_head(raw, to_head=False))
    assert (fields, closes) == ([(b":status", b"200"), (b"a", b"b")], True)
    for fields, length in (
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", None),
        ("Content-Length: 5\r\nTransfer-Encoding: gzip", None),
        ("Content-Length: 11\r\nContent-Length: 11", b"11"),
        ("Content-Length: 11, 11", b"11"),
        ("Content-Length: 0", b"0"),
        ("X: y", None),
    ):
        raw = f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode()
        assert (
            dict(response_fields(read_response_head(raw, to_head=False))[0]).get(b"content-length") == length
        )
    for status, to_head, length in (
        (204, False, None),
        (304, False, b"5"),
        (103, False, None),
        (200, True, b"5"),
    ):
        raw = b"HTTP/1.1 %d A\r\nContent-Length: 5, 5\r\n\r\n" % status
        found = dict(response_fields(read_response_head(raw, to_head=to_head))[0])
        assert found.get(b"content-length") == length
    odd = b"HTTP/1.2 200 OK\nA: b\x01\n\xff: c\nD: e\n\n"
    fields, _ = response_fields(read_response_head(odd, to_head=False))
    assert fields == [(b":status", b"200"), (b"d", b"e")]


@each_row("size", [1, 3, 1000])
@each_row(
    ("body", "content"),
    [
        (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
        (b"5\nhello\n16\n" + bytes(22) + b"\n0\n\n", b"hello" + bytes(22)),
        (b"00000000000000000005 ; x\r\nhello\r\n0\r\nA: b\r\n\r\n", b"hello"),
        (b"5\r\nhello!\r\n", None),
        (b"5\r\nhello\r!\n", None),
        (b"5\r\nhello\r\n\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n\r\nx\r\n", None),
        (b"0\r\n" + b"a: b\r\n" * 400 + b"\r\n", b""),
        (b"0\r\n" + b"a: b\r\n" * 600 + b"\r\n", None),
    ],
)
def test_chunks_as_servers_write_them(body: bytes, content: bytes | None, size: int) -> None:
    chunks = Chunks()
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    if content is None:
        with pytest.raises(ValueError, match=r"chunk|trailers"):
            deque(chunks.feed(piece, 0) for piece in pieces)
        return
    for piece in pieces:
        assert chunks.feed(piece, 0) == len(piece)
    assert (chunks.done, b"".join(chunks.content)) == (True, content)


def test_long_fields_are_not_remembered() -> None:
    found = vars(http2_messages).values()
    ours = [each for each in found if isinstance(each, functools._lru_cache_wrapper)]
    assert len(ours) == 4
    for cache in ours:
        cache.cache_clear()  # which other tests may have filled
    Decoder(1 << 16).decode(hpack.Encoder().encode([(b"y", b"z")]))
    for size in (1, 1000):
        before = [cache.cache_info().currsize for cache in ours]
        name = bytes(random.choices(b"abcdefgh", k=40)) + b"x" * size
        read_request([*GET, (name, b"v")], ended=True)
        response_fields(read_response_head(b"HTTP/1.1 200 OK\r\n%b: v\r\n\r\n" % name, to_head=False))
        Encoder().encode([(name, b"v")])
        Decoder(1 << 16).decode(hpack.Encoder().encode([(b"y", name)]))
        after = [cache.cache_info().currsize for cache in ours]
        assert [b - a for a, b in zip(before, after, strict=True)] == [int(size == 1)] * 4


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.binary(max_size=300)), min_size=1))
def test_fields_are_encoded_so_that_all_can_read_them(fields: list[tuple[bytes, bytes]]) -> None:
    encoder, decoder = Encoder(), hpack.Decoder()
    decoder.max_header_list_size = 1 << 30
    for size in (None, 0, 1 << 16):
        if size is not None:
            encoder.header_table_size = size
            decoder.max_allowed_table_size = size
        block = encoder.encode([(b":status", b"200"), *fields])
        assert [tuple(field) for field in decoder.decode(block, raw=True)] == [(b":status", b"200"), *fields]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as sent (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def block(*more: tuple[bytes, bytes], method: bytes = b"GET") -> bytes:
    return Encoder().encode([(b":method", method), *GET[1:], *more])


# Behind a request on stream 1, whose body is to come.
FLOODS: dict[str, Callable[[int, hpack.Encoder], bytes]] = {
    "reset": lambda i, _: frame(1, 5, 2 * i + 3, block()) + frame(3, 0, 2 * i + 3, bytes(4)),
    "settings": lambda *_: frame(4, 0, 0),
    "ping": lambda *_: frame(6, 0, 0, bytes(8)),
    "priority": lambda *_: frame(2, 0, 1, bytes(5)),
    "unknown": lambda *_: frame(99, 0, 0, bytes(100)),
    "window": lambda *_: frame(8, 0, 0, b"\0\0\0\1"),
    "continuation": lambda i, _: frame(9, 0, 3) if i else frame(1, 1, 3, block()[:9]),
    "long continuation": lambda i, _: frame(9, 0, 3, bytes(16384)) if i else frame(1, 1, 3, block()[:9]),
    "no data": lambda *_: frame(0, 0, 1),
    "padding": lambda *_: frame(0, 8, 1, b"\7" + bytes(7)),
    "malformed": lambda i, _: frame(1, 5, 2 * i + 3, Encoder().encode([(b"A", b"b")])),
    # Each field after the first is a byte.
    "long heads": lambda i, e: frame(1, 5, 2 * i + 3, e.encode([*GET, *[(b"cookie", b"x" * 3900)] * 15])),
}


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("at_once", [1, 50])
def test_floods_end_their_connection(case: Case, kind: str, at_once: int) -> None:
    case.ask(method="POST", end=False)
    encoder = hpack.Encoder()
    made = [FLOODS[kind](i, encoder) for i in range(3000)]
    for start in range(0, len(made), at_once):
        case.http2.client_data(b"".join(made[start : start + at_once]))
        case.loop.run()
        if case.goaway is not None:
            break
    assert case.goaway == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
    assert case.closed
    assert case.refusals[-1] == "match"
    assert all(origin.over for origin in case.origins)


@pytest.mark.parametrize(("pieces", "tick"), [(1, 0.0005), (30_000, 0.00001)])
@pytest.mark.ours
def test_small_frames_of_data_are_read_by_and_by(
    case: Case, monkeypatch: pytest.MonkeyPatch, pieces: int, tick: float
) -> None:
    """As messages of gRPC can be: they are somebody's, but others have their turn."""
    clock = count(1.0, tick)
    monkeypatch.setattr("urlward.proxy.http2_frames.perf_counter", lambda: next(clock))
    stream, held = case.ask(method="POST", end=False), case.turns.held
    case.turns.turn_is_over = True
    sent = frame(0, 0, stream, b"x" * 2) * 30_000
    step = len(sent) // pieces
    for start in range(0, len(sent), step):
        case.http2.client_data(sent[start : start + step])
        case.loop.run()
    case.send(stream, b"", end=True)
    chunks = Chunks()
    chunks.feed(case.origins[0].got.partition(b"\r\n\r\n")[2], 0)
    assert b"".join(chunks.content) == b"x" * 60_000
    assert case.goaway is None
    assert case.loop.waits.count(_REST) > 0
    assert held.count(True) == held.count(False) == len(case.loop.waits) + case.turns.tasks


def test_streams_take_their_turns(case: Case) -> None:
    """What each asks takes time, in which nobody else is served."""
    case.turns.turn_is_over = True
    for number in range(5):
        stream = case.client.get_next_available_stream_id()
        head = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", f"/{number}")]
        case.client.send_headers(stream, head, end_stream=True)
    case.http2.client_data(case.client.data_to_send())
    for done in range(1, 6):
        assert sum(len(origin.heads) for origin in case.origins) == done
        case.loop.soon.pop(0)[0]() if case.loop.soon else None
    assert not case.loop.soon


@pytest.mark.parametrize(("size", "at_once"), [(20, 20), (50_000, 1)])
def test_heads_that_a_few_bytes_name_are_read_one_by_one(case: Case, size: int, at_once: int) -> None:
    """What they are decoded to takes time; of usual ones as many are read at once as ever."""
    case.turns.turn_is_over = True
    encoder, heads = hpack.Encoder(), []
    for number in range(1, 41, 2):
        fields = [*GET, *[(b"x", b"y" * 1000 if size > 1000 else b"y")] * max(size // 1000, 1)]
        heads.append(frame(1, 5, number, encoder.encode(fields)))
    assert sum(map(len, heads[1:])) < 20 * 200
    case.http2.client_data(b"".join(heads))
    taken = [len(case.http2._streams)]
    while case.loop.soon:
        case.loop.soon.pop(0)[0]()
        taken.append(len(case.http2._streams))
    assert taken[0] == at_once
    assert max(after - before for before, after in pairwise([0, *taken])) == at_once
    assert taken[-1] == sum(len(origin.heads) for origin in case.origins) == 20


@each_row("at", [0, 1, 2])
def test_each_byte_of_a_value_is_looked_at(at: int) -> None:
    for byte in range(256):
        value = b"ab"[:at] + bytes([byte]) + b"ab"[at:]
        wrong: type[Exception] | None = None
        if byte in b"\0\r\n" or (byte in b" \t" and at != 1):
            wrong = MalformedError
        elif (byte < 32 and byte != 9) or byte == 127:
            wrong = HeadError
        with pytest.raises(wrong) if wrong else nullcontext():
            assert b"\r\na: %b\r\n" % value in read_request([*GET, (b"a", value)], ended=True).head


def test_a_window_of_one_byte_has_to_be_paid_for(case: Case) -> None:
    case.acknowledges = False
    case.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1})
    stream = case.ask()
    case.origins[0].says(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n", bytes(50000))
    for _ in range(2000):
        case.client.increment_flow_control_window(1, stream)
        case.flush()
        if case.closed:
            break
    assert case.goaway == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(("size", "status"), [(22, 431), (80, 431), (120, None)])
def test_a_head_that_is_too_large_is_one_streams_matter(case: Case, size: int, status: int | None) -> None:
    """Up to a bound it is read, so that those that follow can be."""
    case.ask("/other")
    fields = [(f"x{i}", "x" * 3000) for i in range(size)]
    large = case.ask("/large", *fields)
    if status is None:
        assert case.goaway == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        return
    assert (case.status[large], case.goaway) == ([status], None)
    # What that has put into the table is known.
    assert len(case.client.encoder.encode(fields[-1:])) < 5
    case.ask("/again", fields[-1])
    heads = [head for origin in case.origins for head in origin.heads]
    name = fields[-1][0].encode()
    assert [(head.target, len(head.get(name))) for head in heads] == [(b"/other", 0), (b"/again", 3000)]
    assert len(case.origins) == 2  # it waits for nobody, but is answered at once


def test_a_refused_head_request_has_no_body(case: Case) -> None:
    """Clients take one for an error of the connection, or of the stream at least."""
    stream = case.ask("/", ("x", "x" * 70_000), method="HEAD")
    assert (case.status[stream], case.ended[stream], case.body.get(stream, b"")) == ([431], "ended", b"")


@pytest.mark.ours
def test_heads_under_way_are_bounded(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes make long ones, and an origin may read them all and answer none."""
    for _ in range(MAX_STREAMS):
        case.ask("/", ("cookie", "x" * 16_000), ("user-agent", "x" * 1_000))
    assert (case.ended, case.goaway) == ({}, None)
    monkeypatch.setattr("urlward.proxy.http2.MAX_UNDER_WAY", len(case.origins) * 17_000)
    for origin in case.origins[:2]:
        origin.says(OK)
    case.loop.run()
    taken = case.ask("/", ("x", "x" * 8_000))
    refused = case.ask("/", ("x", "x" * 60_000))
    assert case.ended.pop(refused) == "reset 7"
    assert taken not in case.ended


@pytest.mark.ours
def test_what_a_busy_client_sends_is_no_flood(case: Case) -> None:
    for i in range(3000):
        stream = case.ask(f"/{i}")
        case.origins[0].says(OK)
        assert case.ended[stream] == "ended"
        case.http2.client_data(frame(8, 0, 0, b"\0\0\0\2"))
    assert case.goaway is None
    assert len(case.origins) == 1


def test_a_frame_that_is_too_large_is_not_waited_for(case: Case) -> None:
    case.ask()
    case.http2.client_data((1 << 20).to_bytes(3) + bytes([0, 0, 0, 0, 0, 1]) + bytes(1000))
    assert (case.goaway, case.closed) == (h2.errors.ErrorCodes.FRAME_SIZE_ERROR, True)


def test_a_window_that_is_opened_by_nothing(case: Case) -> None:
    """An error of its stream, where it has one (RFC 9113 section 6.9)."""
    stream, other = case.ask(), case.ask()
    case.http2.client_data(frame(8, 0, stream, bytes(4)))
    assert case.ended[stream] == "reset 1"
    case.origins[1].says(OK)
    assert case.body[other] == b"ok"
    case.http2.client_data(frame(8, 0, 99, bytes(4)))
    assert case.goaway is None
    case.http2.client_data(frame(8, 0, 0, bytes(4)))
    assert (case.goaway, case.closed) == (h2.errors.ErrorCodes.PROTOCOL_ERROR, True)


def test_priorities_are_passed_over(case: Case) -> None:
    stream = case.ask()
    case.http2.client_data(frame(2, 0, stream, stream.to_bytes(4) + b"\xff"))
    case.http2.client_data(frame(2, 0, stream + 100, stream.to_bytes(4) + b"\xff"))
    case.origins[0].says(OK)
    assert (case.body[stream], case.goaway) == (b"ok", None)


def test_windows_that_become_smaller(case: Case) -> None:
    """Those of streams under way may so be less than nothing (RFC 9113 section 6.9.2)."""
    case.acknowledges = False
    stream = case.ask()
    size = 40_000
    case.origins[0].says(b"HTTP/1.1 200 OK\r\nContent-Length: 80000\r\n\r\n", bytes(size))
    assert len(case.body[stream]) == size
    case.client.update_settings(
        {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000, h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0}
    )
    case.flush()
    case.origins[0].says(bytes(size))
    assert len(case.body[stream]) == size
    case.client.increment_flow_control_window(size - 1000, stream)
    case.flush()
    assert len(case.body[stream]) == size
    case.client.increment_flow_control_window(size, stream)
    case.client.increment_flow_control_window(size)
    case.flush()
    assert (len(case.body[stream]), case.ended[stream]) == (2 * size, "ended")
    other = case.ask("/other")
    case.origins[0].says(OK)
    assert case.fields[other] == {":status": "200", "content-length": "2"}


class Early(Case):
    """A client that has yet to read what the filter has said."""

    def __init__(self) -> None:
        self.unheard: bytes | None = b""
        super().__init__()

    def send_client(self, data: bytes) -> None:
        if self.unheard is None:
            super().send_client(data)
        else:
            self.unheard += data

    def hear(self) -> None:
        data, self.unheard = self.unheard, None
        assert data is not None
        self.send_client(data)
        self.flush()


def test_what_a_client_sends_before_it_knows_the_windows() -> None:
    case = Early()
    streams = [case.ask(f"/{i}", method="POST", end=False) for i in range(2)]
    for _ in range(2):
        case.send(streams[0], bytes(16_000))
    case.hear()
    assert case.goaway is None
    assert case.client.outbound_flow_control_window > 2 * (CREDIT + MAX_STREAMS * LEAST_WINDOW) - 65_535
    assert all(0 < case.client.local_flow_control_window(stream) <= WINDOW for stream in streams)
    case.send(streams[0], b"", end=True)
    chunks = Chunks()
    chunks.feed(case.origins[0].got.partition(b"\r\n\r\n")[2], 0)
    assert (len(b"".join(chunks.content)), case.goaway) == (32_000, None)


def test_a_client_that_breaks_the_rules_is_told_so(case: Case) -> None:
    case.http2.client_data(frame(0, 0, 7, b"x"))
    assert (case.goaway, case.closed) == (h2.errors.ErrorCodes.PROTOCOL_ERROR, True)


def test_the_end_of_a_client_waits_for_what_it_has_asked(case: Case) -> None:
    stream = case.ask()
    case.ask(method="POST", end=False)
    case.http2.client_ended()
    assert not case.closed
    assert case.origins[1].over, "whose request never ends"
    case.origins[0].says(OK)
    assert (case.body[stream], case.closed) == (b"ok", True)


@pytest.mark.parametrize("over", [False, True])
def test_what_a_client_has_sent_before_its_end_is_read(case: Case, over: bool) -> None:
    """Where its turn is over, the rest would be for the next."""
    stream = case.ask("/before", method="POST", end=False)
    case.turns.turn_is_over = over
    for part in range(40):
        case.client.send_data(stream, b"y" * 150, end_stream=part == 39)
    case.http2.client_data(case.client.data_to_send())
    case.http2.client_ended()
    case.loop.run()
    chunks = Chunks()
    chunks.feed(case.origins[0].got.partition(b"\r\n\r\n")[2], 0)
    assert b"".join(chunks.content) == b"y" * 6000
    case.origins[0].says(OK)
    assert (case.body[stream], case.closed) == (b"ok", True)


def test_what_waits_for_a_lane_and_is_given_up_is_not_kept(case: Case) -> None:
    lanes = [case.ask() for _ in range(MAX_LANES)]
    waiting = [case.ask() for _ in range(5)]
    assert len(case.http2._waiting) == len(waiting)
    for stream in waiting:
        case.client.reset_stream(stream)
    case.flush()
    assert not case.http2._waiting
    assert len(case.origins) == len(lanes)


def test_the_end_of_a_client_does_not_wait_for_windows_that_stay_shut(case: Case) -> None:
    case.acknowledges = False
    case.ask()
    case.origins[0].says(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", bytes(90000))
    case.http2.client_ended()
    case.loop.run()
    assert case.closed
    assert case.origins[0].over


def test_a_client_that_leaves_is_answered(case: Case) -> None:
    stream = case.ask(method="POST", end=False)
    case.http2.client_data(frame(7, 0, 0, bytes(8)))
    case.send(stream, b"abc", end=True)
    case.origins[0].says(OK)
    assert (case.body[stream], case.closed) == (b"ok", True)


def test_it_says_what_is_under_way(case: Case) -> None:
    assert case.http2.idle
    stream = case.ask()
    assert not case.http2.idle
    assert case.http2.head is None
    case.http2.client_data(frame(1, 1, stream + 2, block()[:9]))
    assert case.http2.head is not None


def test_nothing_is_left_for_the_collector() -> None:
    def use() -> None:
        case = Case()
        streams = [case.ask(path) for path in ("/a", "/listed", "/b", "/c")]
        case.origins[0].says(OK)
        case.send(case.ask("/up", method="POST", end=False), b"abc")
        for kind in (0, 1):  # behind the end of a request, which resets its stream
            case.http2.client_data(frame(kind, 4, streams.pop(), block()))
        case.http2.closed()
        case.loop.run()
        assert all(origin.over for origin in case.origins)
        for origin in case.origins:
            origin.case = None  # type: ignore[assignment]
            origin.relay = None  # type: ignore[assignment]
        case.client._frame_dispatch_table.clear()
        case.origins.clear()

    use()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        use()
        gc.collect()
        left = [type(each).__name__ for each in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert left == []


@given(st.lists(st.lists(st.tuples(st.binary(min_size=1, max_size=3), st.binary(max_size=2)), max_size=200)))
def test_fields_are_decoded_as_the_library_does(blocks: list[list[tuple[bytes, bytes]]]) -> None:
    encoder, ours, theirs = hpack.Encoder(), Decoder(1 << 16), hpack.Decoder(1 << 16)
    for fields in blocks:
        block = encoder.encode([(b":method", b"GET"), *fields])
        assert ours.decode(block, raw=True) == theirs.decode(block, raw=True)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_any_bytes_are_fields_or_none_as_to_the_library(first: bytes, second: bytes) -> None:
    """Of what the library takes, only numbers beyond 32 bits are refused."""

    def of(decoder: hpack.Decoder) -> list[object]:
        found: list[object] = []
        for block in (first, second):
            try:
                found.append([tuple(field) for field in decoder.decode(block, raw=True)])
            except (hpack.HPACKError, IndexError):
                return [*found, None]
        return found

    assert of(Decoder(1 << 16)) == of(hpack.Decoder(1 << 16))


def test_each_byte_of_a_block_is_read_once() -> None:
    class Block(bytes):
        copied = 0

        def __getitem__(self, at: Any) -> Any:
            found = super().__getitem__(at)
            Block.copied += len(found) if isinstance(at, slice) else 1
            return found

    block = Block(b"\x00\x01a\x01b" * 1000 + b"\x82" * 1000 + b"\x40\x01a\x01b" * 1000)
    assert len(Decoder(1 << 20).decode(block, raw=True)) == 3000
    assert 0 < Block.copied <= 2 * len(block)


@each_row("block", [b"\x80", b"\xfe", b"\xff", b"\xff\x7f", b"\x82\xff\x80"])
def test_an_index_of_no_field(block: bytes) -> None:
    for decoder in (Decoder(1 << 16), hpack.Decoder(1 << 16)):
        with pytest.raises(hpack.HPACKDecodingError):
            decoder.decode(block, raw=True)


def test_sizes_of_the_table_are_bounded() -> None:
    assert Decoder(1 << 16).decode(b"\x20\x3f\xe1\x1f\x82", raw=True) == [(b":method", b"GET")]
    with pytest.raises(hpack.OversizedHeaderListError):
        Decoder(1 << 16).decode(b"\x20" * (1 << 16), raw=True)


def test_streams_that_are_closed_are_forgotten(case: Case) -> None:
    for number in range(100):
        stream = case.ask(f"/{number}")
        case.origins[0].says(OK)
        case.flush()
        assert case.body[stream] == b"ok"
    assert len(case.http2._frames.streams) <= 16
