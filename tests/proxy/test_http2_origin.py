"""HTTP/2 on both sides without sockets: what a client's streams become at an origin, and what comes back."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from proxy.test_http2 import Case as Client
from proxy.test_http2 import Loop, frame
from proxy.test_http2 import Origin as Exchange
from urlward.proxy.connection import BEHIND, HELD, HIGH, Connection
from urlward.proxy.head import read_request_head, with_plain_framing
from urlward.proxy.http2 import WINDOW as CLIENT_WINDOW
from urlward.proxy.http2 import Lane
from urlward.proxy.http2_frames import MAX_STREAMS, MAX_WAITING
from urlward.proxy.http2_messages import MalformedError, read_request, read_response, request_fields
from urlward.proxy.http2_origin import CREDIT, LEAST_WINDOW, MAX_LANES, WINDOW, OriginLane

Fields = list[tuple[str, str]]


class Server(Connection):
    """A connection to an origin, and that, of the library's; it says nothing unless it is told to."""

    def __init__(self, loop: Loop, settings: dict[int, int]) -> None:
        self.begin(None, "192.0.2.1")
        self._loop = loop
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings = Settings(client=False, initial_values=settings)
        self.heads: dict[int, Fields] = {}
        self.bodies: dict[int, bytes] = {}
        self.trailers: dict[int, Fields] = {}
        self.over: dict[int, str] = {}
        self.goaway: int | None = None
        self.closed = False
        self.takes = True
        self.slow = False
        self.resets = 0

    def belong(self, owner: Any) -> None:
        self._owner = owner
        self.h2.initiate_connection()

    def probe(self) -> None:
        """No kernel is here."""

    @property
    def turn_is_over(self) -> bool:
        return self.slow

    def later(self, task: Callable[[], None]) -> None:
        self._loop.call_soon(task)

    waiting = 0

    def _watch(self) -> None:
        """There is no socket."""

    def write(self, data: bytes) -> None:
        self.resets += data.count(b"\0\0\4\3")  # the head of such a frame
        for event in self.h2.receive_data(data):
            stream: int = getattr(event, "stream_id", 0) or 0
            match event:
                case h2.events.RequestReceived():
                    self.heads[stream] = list(event.headers)  # type: ignore[arg-type]
                    self.bodies[stream] = b""
                case h2.events.DataReceived():
                    self.bodies[stream] += event.data or b""
                    if self.takes:
                        self.h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                case h2.events.TrailersReceived():
                    self.trailers[stream] = list(event.headers)  # type: ignore[arg-type]
                case h2.events.StreamEnded():
                    self.over[stream] = "ended"
                case h2.events.StreamReset():
                    self.over[stream] = f"reset {int(event.error_code or 0)}"
                case h2.events.ConnectionTerminated():
                    self.goaway = int(event.error_code or 0)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            owner, self._owner = self._owner, None
            self._loop.call_soon(owner.lost, self)  # type: ignore[union-attr]

    abort = close

    # what the origin does

    def flush(self) -> None:
        while not self.closed and (data := self.h2.data_to_send()):
            self._owner.active = 1.0  # type: ignore[union-attr]
            self.receive(data)
        self._loop.run()  # type: ignore[attr-defined]

    def answer(self, stream: int, *more: tuple[str, str], status: int = 200, end: bool = True) -> None:
        self.h2.send_headers(stream, [(":status", str(status)), *more], end_stream=end)
        self.flush()

    def say(self, stream: int, data: bytes, *, end: bool = True) -> None:
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def serve(self) -> None:
        """Answer all that is asked in full."""
        for stream in [each for each, how in self.over.items() if how == "ended"]:
            del self.over[stream]
            path = dict(self.heads[stream])[":path"].encode()
            self.answer(stream, *[("content-length", str(len(path)))] * (stream % 4 == 1), end=False)
            self.say(stream, path)

    def reset(self, stream: int, why: ErrorCodes) -> None:
        self.h2.reset_stream(stream, why)
        self.flush()

    def says(self, frame: Any) -> None:
        self.receive(frame.serialize())
        self._loop.run()  # type: ignore[attr-defined]

    def hangs_up(self) -> None:
        self.ended()
        self._loop.run()  # type: ignore[attr-defined]


class Session(Exchange):
    """A lane's session, as `urlward.proxy.session.Session`."""

    case: "Case"
    server: Connection | None = None

    def connect(self) -> None:
        shared = self.case.http2.origin
        lane = shared.lane(self, surely=not self.lane.repeatable)
        if lane is None and not shared.waits(self):
            self.case.asking.append(self)
        elif lane is not None:
            self.reached(lane)

    def reached(self, lane: OriginLane) -> None:
        self.server = lane
        lane.receive, lane.ended = self.relay.server_data, self.relay.server_ended
        lane.attach(self.lane)
        lane.start()
        self.relay.connected()

    def send_server(self, data: bytes) -> None:
        assert self.server is not None
        self.server.write(data)

    def rest(self) -> None:
        if self.server is not None:
            self.relay.leave_server()

    def leave_server(self) -> None:
        server, self.server = self.server, None
        assert server is not None
        server.forget()
        server.close()

    def close_server(self) -> None:
        super().close_server()
        self.case.http2.origin.leave(self)
        if self.server is not None:
            self.server.close()

    def close(self) -> None:
        super().close()
        self.close_server()

    def cut(self) -> None:
        super().cut()
        self.close_server()

    def lost(self, connection: Any) -> None:
        if connection is self.lane:
            super().lost(connection)
        else:
            connection.forget()
            self.server = None if connection is self.server else self.server


class Case(Client):
    """A client, the filter, and an origin that takes HTTP/2."""

    def __init__(self, **settings: int) -> None:
        self.settings = {SettingCodes[name.upper()]: value for name, value in settings.items()}
        self.servers: list[Server] = []
        self.asking: list[Session] = []
        super().__init__()

    def exchange(self, lane: Lane) -> None:
        self.origins.append(Session(lane, self))

    def find(self, *, http2: bool = True) -> Server:
        """Have the session that asks find out what is spoken."""
        session = self.asking.pop(0)
        if not http2:
            self.http2.origin.leave(session)
            self.loop.run()
            session.relay.not_connected()
            return None  # type: ignore[return-value]
        server = Server(self.loop, self.settings)
        self.servers.append(server)
        session.reached(self.http2.origin.adopt(server, session))
        server.flush()
        return server


@pytest.fixture(autouse=True)
def _no_time_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urlward.proxy.http2_frames.perf_counter", lambda: 1.0)


@pytest.fixture
def case() -> Iterator[Case]:
    made = Case()
    yield made
    assert not made.faults


def test_a_request_is_the_same_at_the_origin(case: Case) -> None:
    fields = [
        ("accept", "x"),
        ("te", "trailers"),
        ("cookie", "a=1"),
        ("content-length", "3"),
        ("expect", "y"),
    ]
    stream = case.ask("/p?q", *fields, method="PUT", end=False)
    case.send(stream, b"abc", end=True)
    server = case.find()
    pseudo = [(":method", "PUT"), (":scheme", "https"), (":authority", "a.test"), (":path", "/p?q")]
    assert server.heads[1][:4] == pseudo
    assert sorted(server.heads[1][4:]) == sorted(fields)
    assert (server.bodies[1], server.over[1]) == (b"abc", "ended")
    assert server.h2.remote_settings.enable_push == 0
    server.answer(
        1, ("x", "y"), ("alt-svc", "h3"), ("connection", "keep-alive"), ("content-length", "2"), end=False
    )
    server.say(1, b"ok")
    assert case.fields[stream] == {":status": "200", "x": "y", "content-length": "2"}
    assert (case.body[stream], case.ended[stream]) == (b"ok", "ended")


def test_all_streams_share_a_connection_and_listed_ones_reach_nobody(case: Case) -> None:
    streams = [case.ask(f"/{i}") for i in range(MAX_STREAMS - 1)]
    blocked = case.ask("/listed")
    assert len(case.asking) == 1, "one finds out what is spoken"
    assert len(case.origins) == MAX_LANES
    server = case.find()
    assert case.asking == []
    for _ in range(MAX_STREAMS):
        server.serve()
    assert [case.body[stream] for stream in streams] == [b"/%d" % i for i in range(MAX_STREAMS - 1)]
    assert server.resets == 0
    assert case.status[blocked] == [451]
    assert all(dict(head)[":path"] != "/listed" for head in server.heads.values())


def test_streams_after_each_other_have_one_session(case: Case) -> None:
    """Each has a stream of its own at the origin, also behind a block page and what has a body."""
    streams = [case.ask("/0")]
    server = case.find()
    server.serve()
    for i, end in enumerate((True, False, True), 1):
        streams.append(case.ask(f"/{i}", method="GET" if end else "POST", end=end))
        if not end:
            case.send(streams[-1], b"abc", end=True)
        server.serve()
        case.ask("/listed")
    assert [case.body[stream] for stream in streams] == [b"/0", b"/1", b"/2", b"/3"]
    assert (len(case.origins), len(case.http2._lanes)) == (1, 1)
    assert server.resets == 0
    assert case.http2.origin.http2 is not None
    assert not case.http2.origin.http2._lanes


@pytest.mark.parametrize("trailers", [False, True])
def test_what_a_body_lacks_is_not_taken_from_the_next_request(case: Case, trailers: bool) -> None:
    """An origin may answer at once: what the body lacks would be the head of the next request, and what is
    quoted in a field of that would be judged in its place."""
    case.ask("/0")
    server = case.find()
    server.serve()
    smuggled = len("GET /listed HTTP/1.1\r\nhost: a.test\r\nx: ")
    length = ("content-length", str(smuggled + 3 * trailers))
    lacking = case.ask("/lacking", length, method="POST" if trailers else "GET", end=not trailers)
    if trailers:
        case.send(lacking, b"a\r\n")
        case.client.send_headers(lacking, [("x", "y")], end_stream=True)
        case.flush()
    assert case.ended[lacking] == "reset 1"
    listed = case.ask("/listed", ("x", "GET /0 HTTP/1.1"))
    assert case.status[listed] == [451]
    whole = case.ask("/1", ("content-length", "3"), method="POST", end=False)
    case.send(whole, b"abc")
    case.client.send_headers(whole, [("x", "y")], end_stream=True)
    after = case.ask("/2", ("content-length", "0"))
    server.serve()
    assert (case.body[whole], case.body[after]) == (b"/1", b"/2"), "what is whole is as ever"
    reached = [dict(head)[":path"] for head in server.heads.values()]
    assert reached == ["/0", *["/lacking"] * trailers, "/1", "/2"]


def test_few_sessions_rest(case: Case) -> None:
    for i in range(MAX_STREAMS):
        case.ask(f"/{i}")
    server = case.find()
    for _ in range(MAX_STREAMS):
        server.serve()
    assert len(case.body) == MAX_STREAMS
    assert len(case.http2._lanes) == len(case.http2._resting) == MAX_LANES


def test_what_speaks_http_1_1_is_asked_by_each_for_itself(case: Case) -> None:
    for i in range(5):
        case.ask(f"/{i}")
    assert len(case.asking) == 1
    case.find(http2=False)
    assert len(case.asking) == 4
    assert case.http2.origin.room == MAX_LANES


def test_one_who_gives_up_lets_the_next_find_out(case: Case) -> None:
    stream, other = case.ask(), case.ask("/other")
    case.client.reset_stream(stream)
    case.flush()
    case.asking.pop(0)
    case.find().serve()
    assert case.body == {other: b"/other"}


def test_no_more_streams_than_the_origin_takes() -> None:
    case = Case(max_concurrent_streams=2)
    streams = [case.ask(f"/{i}") for i in range(5)]
    server = case.find()
    # Before it was known how many there may be, more were on their way; those are asked again.
    for number in sorted(server.heads)[2:]:
        server.over.pop(number)
        server.reset(number, ErrorCodes.REFUSED_STREAM)
    while server.over:
        assert list(server.over.values()).count("ended") <= 2
        server.serve()
    assert [case.body[stream] for stream in streams] == [b"/%d" % i for i in range(5)]


@pytest.mark.parametrize("rises", [True, False])
def test_a_connection_that_takes_no_streams(rises: bool) -> None:
    """It may be meant for a moment (RFC 9113 section 5.1.2), and another connection be better off."""
    case = Case()
    stream = case.ask("/a")
    server = case.find()
    server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 0})
    server.flush()
    del server.over[1]
    server.reset(1, ErrorCodes.REFUSED_STREAM)
    other = case.ask("/b")
    for now in (0.0, 4.0):
        case.http2.origin.touch(now)
    assert (list(server.heads), server.closed, case.asking) == ([1], False, [])
    if rises:
        server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
        server.flush()
        case.http2.origin.touch(5.0)
    else:
        case.http2.origin.touch(5.0)
        case.loop.run()
        assert server.closed
        server = case.find()
    server.serve()
    assert (case.body[stream], case.body[other], len(case.servers)) == (b"/a", b"/b", 1 + (not rises))


def test_a_status_in_trailers_or_in_a_head_alone(case: Case) -> None:
    first, second = case.ask("/a", method="POST", end=False), case.ask("/b")
    server = case.find()
    case.client.send_headers(first, [("x-sum", "1")], end_stream=True)
    case.flush()
    assert server.trailers == {1: [("x-sum", "1")]}
    server.answer(1, ("content-type", "application/grpc+proto"), ("content-length", "2"), end=False)
    server.say(1, b"ok", end=False)
    server.h2.send_headers(1, [("grpc-status", "0"), ("host", "b.test")], end_stream=True)
    server.flush()
    assert (case.body[first], case.trailers[first]) == (b"ok", [("grpc-status", "0")])
    server.answer(3, ("grpc-status", "5"))
    assert case.fields[second]["grpc-status"] == "5"
    assert (second in case.body, case.ended[second]) == (False, "ended")
    assert second not in case.trailers


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        ("HEAD", 200, [("content-length", "100")]),
        ("HEAD", 200, []),
        ("GET", 304, [("content-length", "100")]),
        ("GET", 204, []),
        ("GET", 200, []),
        ("GET", 200, [("content-length", "0")]),
    ],
)
def test_responses_without_a_body(case: Case, method: str, status: int, fields: Fields) -> None:
    stream = case.ask(method=method)
    case.find().answer(1, *fields, status=status)
    assert (case.status[stream], case.ended[stream], stream in case.body) == ([status], "ended", False)
    assert set(fields) <= set(case.fields[stream].items())
    assert case.ended[stream] == "ended"


def test_interim_responses(case: Case) -> None:
    stream = case.ask(method="POST", end=False)
    server = case.find()
    server.answer(1, status=100, end=False)
    server.answer(1, ("link", "</x>"), status=103, end=False)
    case.send(stream, b"abc", end=True)
    server.serve()
    assert case.status[stream] == [100, 103, 200]


def test_a_response_before_the_end_of_its_request(case: Case) -> None:
    stream, other = case.ask(method="POST", end=False), case.ask("/other")
    server = case.find()
    server.answer(1, ("content-length", "2"), end=False)
    server.say(1, b"no")
    assert (case.body[stream], case.ended[stream]) == (b"no", "ended")
    assert server.over[1] == f"reset {ErrorCodes.CANCEL}"
    server.serve()
    assert case.body[other] == b"/other"


@pytest.mark.parametrize("how", ["reset", "refused", "goaway", "lost"])
def test_a_whole_response_arrives_whatever_becomes_of_the_request(case: Case, how: str) -> None:
    """Also where its client has no room for it yet (RFC 9113 section 8.1)."""
    case.acknowledges = False
    stream = case.ask(method="POST", end=False)
    server = case.find()
    server.takes = False
    case.send(stream, bytes(1000))
    size = 65535 + 2000
    server.answer(1, ("content-length", str(size)), end=False)
    for part in (bytes(16000),) * 4:
        server.say(1, part, end=False)
    server.say(1, bytes(size - 64000))
    match how:
        case "reset":
            server.reset(1, ErrorCodes.NO_ERROR)
        case "refused":
            server.reset(1, ErrorCodes.CANCEL)
        case "goaway":
            server.says(GoAwayFrame(last_stream_id=0))
        case "lost":
            server.hangs_up()
    assert stream not in case.ended
    # What of the request still comes is dropped, and keeps nobody from reading on.
    sent = 0
    while sent < 1 << 20 and (step := min(case.client.local_flow_control_window(stream), 16000)):
        case.send(stream, bytes(step))
        sent += step
    assert sent >= 1 << 20
    case.client.increment_flow_control_window(1 << 20)
    case.client.increment_flow_control_window(1 << 20, stream)
    case.flush()
    assert (len(case.body[stream]), case.ended[stream]) == (size, "ended")
    assert case.http2.origin.credit.left == CREDIT


def test_what_has_come_arrives_before_an_end_that_says_nothing_is_wrong(case: Case) -> None:
    """As Node ends what has had to wait."""
    case.acknowledges = False
    stream = case.ask()
    server = case.find()
    size = 65535 + 2000
    server.answer(1, end=False)
    for part in (bytes(16000),) * 4:
        server.say(1, part, end=False)
    server.say(1, bytes(size - 64000), end=False)
    server.reset(1, ErrorCodes.NO_ERROR)
    assert stream not in case.ended
    case.client.increment_flow_control_window(1 << 20)
    case.client.increment_flow_control_window(1 << 20, stream)
    case.flush()
    assert (len(case.body[stream]), case.ended[stream]) == (size, f"reset {ErrorCodes.NO_ERROR}")
    assert (case.http2._waits, case.http2.idle) == (0, True)


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_client_gives_up_is_cancelled(case: Case, begun: bool) -> None:
    stream, other = case.ask(), case.ask("/other")
    server = case.find()
    if begun:
        server.answer(1, end=False)
        server.say(1, bytes(1000), end=False)
    case.client.reset_stream(stream)
    case.flush()
    assert server.over.pop(1) == f"reset {ErrorCodes.CANCEL}"
    server.serve()
    assert case.body[other] == b"/other"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("why", [ErrorCodes.CANCEL, ErrorCodes.INTERNAL_ERROR, ErrorCodes.HTTP_1_1_REQUIRED])
def test_a_client_is_told_why_the_origin_gives_up(case: Case, begun: bool, why: ErrorCodes) -> None:
    stream, other = case.ask(), case.ask("/other")
    server = case.find()
    if begun:
        server.answer(1, end=False)
        server.say(1, b"begun", end=False)
    server.reset(1, why)
    assert case.ended[stream] == f"reset {int(why)}"
    del server.over[1]
    server.serve()
    assert case.body[other] == b"/other"
    assert case.asking == []


@pytest.mark.parametrize("how", ["refused", "goaway"])
def test_what_the_origin_has_not_begun_on_is_asked_again_once(case: Case, how: str) -> None:
    """A body may be gone, so that its client has to ask again (RFC 9113 section 8.7)."""
    body = case.ask("/body", method="POST", end=False)
    streams = [case.ask(f"/{i}", method=method) for i, method in enumerate(("GET", "POST", "DELETE"))]
    server = case.find()
    case.send(body, b"abc")
    for turn in range(2):
        for number in [each for each in server.heads if server.over.get(each) == "ended" or not turn]:
            server.over.pop(number, None)
            if how == "refused":
                server.reset(number, ErrorCodes.REFUSED_STREAM)
        if how == "goaway":
            server.says(GoAwayFrame(last_stream_id=0))
            assert server.closed
            server = case.find() if case.asking else server
        if not turn:
            assert case.ended == {body: f"reset {ErrorCodes.REFUSED_STREAM}"}
            assert sorted(dict(head)[":path"] for head in list(server.heads.values())[-3:]) == [
                "/0",
                "/1",
                "/2",
            ]
    assert {case.ended[stream] for stream in streams} == {f"reset {ErrorCodes.REFUSED_STREAM}"}


def test_what_is_under_way_goes_on_behind_goaway(case: Case) -> None:
    before, beyond = case.ask("/before", method="POST", end=False), case.ask("/beyond")
    server = case.find()
    server.says(GoAwayFrame(last_stream_id=2**31 - 1))
    after = case.ask("/after")
    server.says(GoAwayFrame(last_stream_id=1))
    assert not server.closed
    case.find().serve()
    assert case.body == {beyond: b"/beyond", after: b"/after"}
    case.send(before, b"abc", end=True)
    del server.over[3]
    server.serve()
    assert (server.bodies[1], case.body[before]) == (b"abc", b"/before")
    assert server.closed, "when the last is answered"


def test_a_connection_that_is_lost(case: Case) -> None:
    """What has no effect is asked again once; the rest is answered for the origin, or ended."""
    get, post, begun = case.ask("/get"), case.ask("/post", method="POST"), case.ask("/begun")
    server = case.find()
    server.answer(5, end=False)
    server.say(5, b"begun", end=False)
    server.hangs_up()
    assert server.closed
    assert (case.status[post], case.ended[begun]) == ([502], f"reset {ErrorCodes.INTERNAL_ERROR}")
    second = case.find()
    assert [dict(head)[":path"] for head in second.heads.values()] == ["/get"]
    second.hangs_up()
    assert case.status[get] == [502]
    assert case.asking == []


@pytest.mark.parametrize("slow", [False, True])
def test_what_has_come_before_the_end_of_a_connection_is_read(case: Case, slow: bool) -> None:
    """Also what was put off, since a turn was over."""
    stream = case.ask()
    server = case.find()
    server.slow = slow
    server.h2.send_headers(1, [(":status", "200"), ("content-length", "6000")])
    for part in range(40):
        server.h2.send_data(1, b"x" * 150, end_stream=part == 39)
    server.receive(server.h2.data_to_send() + GoAwayFrame(last_stream_id=1).serialize())
    server.hangs_up()
    assert (case.body[stream], case.ended[stream]) == (b"x" * 6000, "ended")
    assert server.closed


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "20")],
        [(":status", "101")],
        [],
        [(":status", "200"), (":status", "200")],
        [(":status", "200"), (":path", "/")],
        [("a", "b"), (":status", "200")],
        [(":status", "200"), ("A", "b")],
        [(":status", "200"), ("a b", "c")],
        [(":status", "200"), ("a", "b\r\nc: d")],
        [(":status", "200"), ("content-length", "x")],
        [(":status", "200"), ("content-length", "1"), ("content-length", "2")],
    ],
)
@pytest.mark.parametrize("end", [False, True])
def test_a_response_that_is_none(case: Case, fields: Fields, end: bool) -> None:
    stream, other = case.ask(), case.ask("/other")
    server = case.find()
    block = server.h2.encoder.encode(fields)
    kind = 5 if end else 4
    server.receive(len(block).to_bytes(3) + bytes([1, kind]) + (1).to_bytes(4) + block)
    case.loop.run()
    assert stream not in case.status
    if server.closed:
        case.find().serve()  # the library cannot go on behind it
        assert case.body[stream] == b"/"
    else:
        assert case.ended[stream] == f"reset {ErrorCodes.PROTOCOL_ERROR}"
        server.over.pop(1)
        server.serve()
        assert case.body[other] == b"/other"


@pytest.mark.parametrize("said", [b"o", b"okay"])
def test_a_body_of_another_length(case: Case, said: bytes) -> None:
    stream, other = case.ask(), case.ask("/other")
    server = case.find()
    server.answer(1, ("content-length", "2"), end=False)
    server.say(1, said)
    assert case.ended[stream].startswith("reset")
    del server.over[1]
    server.serve()
    assert case.body[other] == b"/other"


@pytest.mark.parametrize("kind", ["trailers", "pseudo", "window"])
def test_what_is_wrong_with_one_stream_ends_that(case: Case, kind: str) -> None:
    stream, other = case.ask(), case.ask("/other")
    server = case.find()
    server.answer(1, end=False)
    server.say(1, b"ok", end=False)
    match kind:
        case "trailers":
            server.h2.send_headers(1, [("a b", "c")], end_stream=True)
        case "pseudo":
            server.h2.send_headers(1, [(":status", "200")], end_stream=True)
        case "window":
            server.says(WindowUpdateFrame(1, 0))
    server.flush()
    assert case.ended[stream] == f"reset {ErrorCodes.PROTOCOL_ERROR}"
    server.over.pop(1, None)
    server.serve()
    assert case.body[other] == b"/other"


def test_a_response_head_that_is_too_large_is_one_streams_matter(case: Case) -> None:
    stream, other = case.ask(), case.ask("/other")
    server = case.find()
    server.answer(1, *((f"x{i}", "x" * 3000) for i in range(40)))
    assert (case.status[stream], case.ended[stream]) == ([502], "ended")
    del server.over[1]
    server.answer(3, ("x39", "x" * 3000), end=False)
    server.say(3, b"ok")
    assert (case.body[other], len(case.fields[other]["x39"])) == (b"ok", 3000)


def test_interim_responses_without_end_are_one_streams_matter(case: Case) -> None:
    stream, other = case.ask(), case.ask("/other")
    server = case.find()
    for _ in range(600):
        if 1 in server.over and server.over[1].startswith("reset"):
            break
        server.answer(1, status=103, end=False)
    assert (case.status[stream][-1], case.ended[stream]) == (502, "ended")
    assert len(case.status[stream]) > 500
    server.over.pop(1)
    server.serve()
    assert case.body[other] == b"/other"


def test_an_origin_that_breaks_the_rules_or_floods(case: Case) -> None:
    for frames, why in (
        (b"\0\0\1\0\0\0\0\0\0x", ErrorCodes.PROTOCOL_ERROR),
        (frame(1, 4, 2, b"\x88"), ErrorCodes.PROTOCOL_ERROR),  # any number of which might stay open
        (PingFrame(opaque_data=b"12345678").serialize() * 3000, ErrorCodes.ENHANCE_YOUR_CALM),
        (SettingsFrame().serialize() * 3000, ErrorCodes.ENHANCE_YOUR_CALM),
    ):
        stream = case.ask(method="POST")
        server = case.find()
        server.receive(frames)
        case.loop.run()
        assert (server.goaway, server.closed) == (why, True)
        assert case.status[stream] == [502]


def test_a_head_that_is_late_for_a_stream_given_up_is_that_streams_matter(case: Case) -> None:
    stream = case.ask()
    server = case.find()
    case.client.reset_stream(stream)
    case.flush()
    others = [case.ask("/other") for _ in range(20)]  # by now it is forgotten
    server.receive(frame(1, 5, 1, b"\x88"))
    case.loop.run()
    assert (server.resets, server.goaway) == (2, None)
    server.serve()
    assert all(case.body[other] == b"/other" for other in others)


def test_a_window_that_is_opened_for_each_small_message_is_no_flood(case: Case) -> None:
    """As clients of gRPC do, also where messages went on together; what comes beside costs as ever."""
    case.acknowledges = False
    stream = case.ask()
    server = case.find()
    server.answer(1, end=False)
    opened = frame(8, 0, stream, b"\0\0\0\5")
    for _ in range(100):
        for _ in range(20):
            server.h2.send_data(1, b"abcde")
        server.flush()
        case.http2.client_data(opened * 20)
    assert (case.body[stream], case.goaway) == (b"abcde" * 2000, None)
    case.http2.client_data(opened * 2000)
    assert case.goaway == ErrorCodes.ENHANCE_YOUR_CALM
    case.loop.run()


def test_a_client_that_does_not_read_holds_the_origin_up(case: Case) -> None:
    case.acknowledges = False
    big, other = case.ask("/big"), case.ask("/other")
    server = case.find()
    server.answer(1, end=False)
    sent = 0
    while step := min(server.h2.local_flow_control_window(1), 16384):
        server.say(1, bytes(step), end=False)
        sent += step
    assert sent <= 65535 + HIGH + WINDOW + 3 * LEAST_WINDOW
    case.acknowledges = True
    case.client.increment_flow_control_window(sent)
    case.flush()
    del server.over[1]
    server.serve()
    assert case.body[other] == b"/other"
    case.client.increment_flow_control_window(2 * sent, big)
    case.flush()
    server.flush()
    assert server.h2.local_flow_control_window(1) >= LEAST_WINDOW
    server.say(1, b"end")
    assert len(case.body[big]) == sent + 3


def test_what_waits_for_a_client_that_does_not_read_is_bounded(case: Case) -> None:
    case.acknowledges = False
    streams = [case.ask(f"/{i}") for i in range(MAX_STREAMS)]
    server = case.find()
    numbers = sorted(server.heads)
    assert len(numbers) == len(streams)
    for number in numbers:
        server.answer(number, end=False)
    sent, going = 0, True
    while going:
        going = False
        for number in numbers:
            if step := min(server.h2.local_flow_control_window(number), 16384):
                server.say(number, bytes(step), end=False)
                sent += step
                going = True
    assert all(sent_of for sent_of in case.status.values())
    most = MAX_WAITING + CREDIT + MAX_STREAMS * LEAST_WINDOW
    assert CREDIT < sent - 65535 <= most + 2 * HIGH
    # Each goes on as its client takes it, the last ones first.
    case.acknowledges = True
    case.client.increment_flow_control_window(1 << 24)
    for stream in reversed(streams):
        case.client.increment_flow_control_window(1 << 24, stream)
    case.flush()
    server.flush()
    for number in reversed(numbers):
        assert server.h2.local_flow_control_window(number) >= LEAST_WINDOW // 2
        server.say(number, b"end")
    assert sum(map(len, case.body.values())) == sent + 3 * len(streams)
    assert set(case.ended.values()) == {"ended"}
    assert (case.http2._waits, case.http2.origin.credit.left) == (0, CREDIT)


def test_uploads_that_wait_leave_the_others_their_window() -> None:
    """An origin takes two at a time, which get all of the way."""
    case = Case(max_concurrent_streams=2)
    left = {case.ask(f"/{i}", method="PUT", end=False): 300_000 for i in range(40)}
    server = case.find()
    assert len(server.heads) == 2, "it has said so before the others went"
    total = sum(left.values())
    while left:
        before = sum(left.values()), len(server.heads)
        for stream in list(left):
            while step := min(case.client.local_flow_control_window(stream), 16384, left[stream]):
                case.send(stream, bytes(step), end=step == left[stream])
                left[stream] -= step
            if not left[stream]:
                del left[stream]
        server.flush()
        server.serve()
        assert (sum(left.values()), len(server.heads)) != before, "nothing goes on"
    while server.over:
        server.serve()
    assert sum(map(len, server.bodies.values())) == total
    assert set(case.ended.values()) == {"ended"}
    assert case.http2._windows.credit.left == case.http2._windows.credit.size


@pytest.mark.parametrize("answers", [True, False])
def test_a_connection_that_has_been_silent(
    case: Case, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """What has no effect is asked at once; the rest when the origin has said that it is there."""
    now = 1.0
    monkeypatch.setattr("urlward.proxy.http2_origin.perf_counter", lambda: now)
    case.ask("/first")
    server = case.find()
    server.serve()
    now += 4
    soon = case.ask("/soon", method="POST")
    assert [dict(head)[":path"] for head in server.heads.values()] == ["/first", "/soon"]
    server.serve()
    now += 20
    get, post = case.ask("/get"), case.ask("/post", method="POST")
    assert [dict(head)[":path"] for head in server.heads.values()][2:] == ["/get"]
    case.http2.origin.touch(now)
    if answers:
        server.flush()  # what the library has made of the question
        server.serve()
        assert len(case.servers) == 1
    else:
        server.h2.data_to_send()
        now += 6
        case.http2.origin.touch(now)
        case.loop.run()
        server = case.find()
        server.serve()
    assert [case.body[stream] for stream in (soon, get, post)] == [b"/soon", b"/get", b"/post"]


def test_an_origin_that_does_not_read_holds_the_client_up(case: Case) -> None:
    stream = case.ask("/up", method="PUT", end=False)
    server = case.find()
    server.takes = False
    sent = 0
    while step := min(case.client.local_flow_control_window(stream), 16384):
        case.send(stream, bytes(step))
        sent += step
    assert len(server.bodies[1]) == 65535
    assert sent <= 65535 + CLIENT_WINDOW + 2 * HIGH
    assert sent > 65535 + HIGH
    server.takes = True
    server.h2.increment_flow_control_window(2 * sent)
    server.h2.increment_flow_control_window(2 * sent, 1)
    server.flush()
    case.send(stream, b"", end=True)
    assert (len(server.bodies[1]), server.over[1]) == (sent, "ended")


def test_an_origin_that_takes_nothing_is_asked_nothing(case: Case) -> None:
    """Heads have no windows: of each that a client gives up another would wait."""
    case.ask("/a")
    server = case.find()
    server.waiting = 2 * MAX_WAITING + 1
    server.fill(full=True)
    given_up, kept = case.ask("/b"), case.ask("/c")
    case.client.reset_stream(given_up)
    case.flush()
    assert len(server.heads) == 1
    server.waiting = 0
    server.fill(full=False)
    case.loop.run()
    assert [dict(fields)[":path"] for fields in server.heads.values()] == ["/a", "/c"]
    server.serve()
    assert case.body[kept] == b"/c"


@pytest.mark.parametrize("most", [0, 2 * MAX_WAITING])
def test_an_upload_that_is_faster_than_the_origin_keeps_nothing_waiting(case: Case, most: int) -> None:
    """There is always some of it that has to wait, also where all that was sent has just been taken."""
    upload = case.ask("/up", method="PUT", end=False)
    server = case.find()
    server.h2.increment_flow_control_window(1 << 24)
    server.h2.increment_flow_control_window(1 << 24, 1)
    server.flush()
    write = server.write

    def take(data: bytes) -> None:
        write(data)
        server.waiting += len(data)
        if server.waiting > HIGH:
            server.fill(full=True)

    server.write = take  # type: ignore[method-assign]
    for turn in range(4):
        while step := min(case.client.local_flow_control_window(upload), 16384):
            case.send(upload, bytes(step))
        if turn == 1:
            server.waiting += most
            case.ask("/get")
        server.waiting = 0
        server.fill(full=False)
        case.loop.run()
        assert server.full
    assert [dict(fields)[":path"] for fields in server.heads.values()] == ["/up", "/get"]


@pytest.mark.parametrize("leaves", [False, True])
def test_a_client_that_takes_nothing_has_the_origin_wait(case: Case, leaves: bool) -> None:
    """Nor have heads of responses; also where the origin takes no more streams meanwhile."""
    streams = [case.ask(f"/{i}") for i in range(MAX_STREAMS)]
    server = case.find()
    server.flush()
    case.http2.pause(BEHIND)
    assert server._paused & HELD
    if leaves:
        server.says(GoAwayFrame(0, last_stream_id=max(server.heads)))  # with what was read last
    for number in sorted(server.heads):
        server.h2.send_headers(number, [(":status", "200")], end_stream=True)
    server.flush()  # as if it had come already
    assert len(case.status) < MAX_STREAMS // 2
    case.http2.resume(BEHIND)
    case.loop.run()
    assert not server._paused & HELD
    assert len(case.status) == len(streams)


def test_no_more_is_read_for_a_client_that_falls_behind_while_there_is_more(case: Case) -> None:
    """But what had its turn to come already."""
    for number in range(MAX_STREAMS):
        case.ask(f"/{number}")
    server = case.find()
    server.flush()
    server.slow = True
    for number in sorted(server.heads):
        server.h2.send_headers(number, [(":status", "200")], end_stream=True)
    server.receive(server.h2.data_to_send())
    at_once = len(case.status)
    case.http2.pause(BEHIND)
    case.loop.run()
    assert at_once < len(case.status) <= 2 * at_once < MAX_STREAMS
    case.http2.resume(BEHIND)
    case.loop.run()
    assert len(case.status) == MAX_STREAMS


def test_a_connection_at_rest_is_kept_for_a_while_and_goes_with_the_client(case: Case) -> None:
    case.ask("/a")
    server = case.find()
    case.http2.origin.touch(0.0)
    server.serve()
    case.http2.origin.touch(59.0)
    case.http2.origin.touch(118.0)
    case.ask("/b")
    server.serve()
    for now in (120.0, 180.0):
        assert not server.closed
        case.http2.origin.touch(now)
    assert (server.goaway, server.closed) == (0, True)
    case.loop.run()
    case.ask("/c")
    server = case.find()
    case.http2.closed()
    assert server.closed


def test_a_filter_that_ends_takes_nothing_more(case: Case) -> None:
    stream = case.ask("/a")
    server = case.find()
    said: list[GoAwayFrame] = []
    # The library would hear nothing more.
    case.client._frame_dispatch_table[GoAwayFrame] = lambda frame: (said.append(frame), ([], []))[1]
    case.http2.leave()
    assert [(frame.error_code, frame.last_stream_id) for frame in said] == [(0, 2**31 - 1)]
    assert not case.http2.idle
    on_its_way = case.ask("/on-its-way")
    case.http2.leave()
    assert [(frame.error_code, frame.last_stream_id) for frame in said[1:]] == [(0, on_its_way)]
    late = case.ask("/late")
    assert case.ended == {late: f"reset {ErrorCodes.REFUSED_STREAM}"}
    assert not case.closed
    server.serve()
    assert (case.body, case.closed) == ({stream: b"/a", on_its_way: b"/on-its-way"}, True)


def test_a_filter_that_ends_tells_a_client_at_rest_before_it_closes(case: Case) -> None:
    case.http2.leave()
    assert not case.closed
    assert not case.http2.idle
    case.http2.leave()
    assert case.closed
    assert case.http2.idle


def test_what_a_request_says_is_what_is_sent() -> None:
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a?b"), (b":authority", b"a.test:1")]
    more = [(b"x", b"a: b"), (b"y", b""), (b"te", b"trailers")]
    request = read_request([*fields, *more], ended=False)
    fields[1] = (b":scheme", b"https")
    got, length = request_fields(request.head)
    assert (sorted(got), length) == (sorted(fields + more), None)
    assert request_fields(read_request([*fields, (b"content-length", b"7")], ended=False).head)[1] == 7
    assert request_fields(read_request(fields, ended=True).head)[1] == 0


@pytest.mark.parametrize("length", [b"7", b"007"])
def test_a_length_in_any_spelling_is_one_at_an_origin(length: bytes) -> None:
    """A name with a capital is malformed in HTTP/2, and without a length the body is cut off."""
    fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"a.test")]
    raw = read_request([*fields, (b"content-length", length)], ended=False).head
    sent, size = request_fields(with_plain_framing(read_request_head(raw).fields, raw))
    assert (sent[-1], size) == ((b"content-length", b"7"), 7)


def test_interim_responses_do_not_end() -> None:
    with pytest.raises(MalformedError):
        read_response([(b":status", b"103")], to_head=False, ended=True)


def test_nothing_is_left_for_the_collector() -> None:
    def use() -> None:
        case = Case()
        case.ask("/a")
        case.ask("/b", method="POST", end=False)
        case.ask("/c")
        server = case.find()
        server.answer(1, end=False)
        server.reset(5, ErrorCodes.CANCEL)
        case.http2.closed()
        case.loop.run()
        assert server.closed
        for origin in case.origins:
            origin.case = origin.relay = None  # type: ignore[assignment]
        server.h2._frame_dispatch_table.clear()
        case.client._frame_dispatch_table.clear()
        case.origins.clear()

    use()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        use()
        gc.collect()
        left = sorted({type(each).__module__ + "." + type(each).__name__ for each in gc.garbage})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert left == []
