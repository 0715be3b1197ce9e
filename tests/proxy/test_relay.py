"""The relay, without connections: bytes in, bytes out, and never a request that nobody judged."""

import re
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.proxy.block_page import BlockResponse, plain
from urlward.proxy.head import MAX_HEAD, RequestHead
from urlward.proxy.names import Names
from urlward.proxy.raw_relay import RawRelay
from urlward.proxy.relay import COST_OF_INTERIM, MAX_BLANK, MAX_HELD, MAX_PENDING, MAX_UNDER_WAY, HttpRelay

pytestmark = pytest.mark.usefixtures("compiles_here")


class Ends:
    """Remembers what a relay asks for."""

    def __init__(self) -> None:
        self.client = self.server = b""
        self.asked: list[str] = []
        self.refusals: list[str] = []
        self.behind = self.over = False
        """Whether the client has yet to take something; whether it has had its turn."""
        self.passes = False
        """Whether what waits of a response is to be looked at later."""

    def send_client(self, data: bytes) -> None:
        assert data
        assert not {"end client", "close"} & set(self.asked), "sent behind the end"
        self.client += data

    def send_server(self, data: bytes) -> None:
        assert data
        assert not {"end server", "close server", "close"} & set(self.asked), "sent behind the end"
        self.server += data

    def connect(self) -> None:
        self.asked.append("connect")

    def end_client(self) -> None:
        self.asked.append("end client")

    def end_server(self) -> None:
        self.asked.append("end server")

    def close_server(self) -> None:
        self.asked.append("close server")

    def close(self) -> None:
        self.asked.append("close")

    def linger(self) -> None:
        self.asked.append("linger")

    def client_is_behind(self) -> bool:
        return self.behind

    def turn_is_over(self) -> bool:
        return self.over

    def go_on_later(self) -> None:
        self.asked.append("go on later")

    def leave_server(self) -> None:
        self.asked.append("leave server")

    def hold_client(self, *, held: bool) -> None:
        self.asked.append("hold" if held else "go on")

    def hold_server(self, *, held: bool) -> None:
        self.asked.append("hold server" if held else "go on with server")

    def inspect_later(self) -> None:
        self.asked.append("inspect later")

    def pass_later(self) -> None:
        self.passes = True

    def break_off(self) -> None:
        self.asked += ["break off", "close"]

    def reset_client(self, *, as_tls: bool) -> None:
        self.asked += ["reset as TLS" if as_tls else "reset", "close"]

    def switch(self, names: Names, early: bytes, *, ended: bool) -> None:
        raise AssertionError("who has this relays on")

    def refused(self, stage: str) -> None:
        self.refusals.append(stage)


class Case:
    """A relay whose origin is reached at once."""

    def __init__(self, *, reached: bool = True) -> None:
        self.ends = Ends()
        self.judged: list[bytes] = []
        self.relay: Any = HttpRelay(self.ends, self._judge)
        self.ends.switch = self._switch  # type: ignore[method-assign]
        if reached:
            self.ends.connect = self._connected  # type: ignore[method-assign]

    def _connected(self) -> None:
        self.ends.asked.append("connect")
        self.relay.connected()

    def _switch(self, names: Names, early: bytes, *, ended: bool) -> None:
        self.relay = RawRelay(self.ends, names, early)
        self.relay.connected()
        if ended:
            self.relay.client_ended()

    def _judge(self, head: RequestHead) -> Names | BlockResponse:
        self.judged.append(head.target)
        if b"listed" in head.target:
            return plain(451, "blocked", head=head.method == b"HEAD")
        told = b"told" in head.target
        return Names(("a.test",), (80,), "192.0.2.7", head.target.decode("latin-1"), told=told)

    def client(self, *pieces: bytes) -> Self:
        for piece in pieces:
            self.relay.client_data(piece)
        return self

    def server(self, *pieces: bytes) -> Self:
        for piece in pieces:
            self.relay.server_data(piece)
        return self

    @property
    def blocked(self) -> bool:
        return b"HTTP/1.1 451 " in self.ends.client


def get(path: str = "/", more: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: a.test\r\n{more}\r\n".encode("latin-1")


def ok(body: str = "ok", more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n{body}".encode()


CHUNKED = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDED = ["close server", "end client", "linger"]


def test_a_client_that_asks_nothing_more_is_not_waited_for() -> None:
    case = Case().client(get("/1"), get("/2", "Connection: close\r\n"))
    assert case.server(ok("1")).ends.asked == ["connect"]
    assert case.server(ok("2")).ends.asked == ["connect", "close"]
    assert case.ends.client == ok("1") + ok("2")


def test_who_has_begun_a_head_is_not_at_rest() -> None:
    case = Case().client(get()).server(ok())
    assert (case.relay.idle, case.relay.head) == (True, None)
    case.client(get()[:9])
    assert (case.relay.idle, case.relay.head) == (False, 1)


def test_line_breaks_before_a_response_hide_no_end_of_its_head() -> None:
    response = b"\r\n\r\n" + ok()
    for cut in range(1, len(response)):
        case = Case().client(get()).server(response[:cut], response[cut:])
        assert (case.ends.client, case.relay.idle) == (response, True), cut


def test_line_breaks_are_not_held() -> None:
    """They were looked through again with each byte behind them; and unasked without end, as long as they
    came."""
    case = Case().client(get()).server(b"\r\n" * 512 + b"HTTP")
    assert case.ends.client == b"\r\n" * 512
    case.server(ok()[4:])
    assert (case.ends.client, case.relay.idle) == (b"\r\n" * 512 + ok(), True)
    case.server(b"\r\n" * 8)
    assert "close server" not in case.ends.asked
    case.server(b"\r\n" * 8)
    assert case.ends.asked[1:] == ["close server", "end client", "linger"]


def test_who_may_send_a_line_break_behind_its_body_is_waited_for() -> None:
    post = get(method="POST", more="Connection: close\r\nContent-Length: 4\r\n") + b"body"
    case = Case().client(post).server(ok())
    assert case.ends.asked == ["connect"]
    case.client(b"\r\n").relay.server_ended()
    assert case.ends.asked == ["connect", *ENDED]
    assert case.ends.client == ok()


@each_row(
    ("more", "response"),
    [
        (b"GET /half", ok()),
        (b"", ok(more="Transfer-Encoding: identity\r\n")),
        (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX Y: folded\r\n z\r\n\r\nok"),
    ],
    ids=["it sends on", "two framings", "malformed fields"],
)
def test_a_client_that_may_be_sending_is_waited_for(more: bytes, response: bytes) -> None:
    case = Case().client(get(more="Connection: close\r\n"), *([more] if more else [])).server(response)
    assert case.ends.asked == ["connect"]
    case.relay.server_ended()
    assert case.ends.asked == ["connect", *ENDED]


def test_who_was_held_is_heard_where_what_it_asks_is_answered_no_more() -> None:
    case = Case().client(get(), get(method="POST", more="Content-Length: 99999\r\n"), b"x" * 70_000)
    assert case.ends.asked == ["connect", "hold"]
    case.server(b"HTTP/1.0 200 OK\r\n\r\n", b"without an end")
    assert case.ends.asked == ["connect", "hold", "go on"]
    assert case.ends.server == get()


def test_bytes_pass_as_they_came() -> None:
    odd = b"GET /a?b#c HTTP/1.0\r\nhOsT:  a.test\t\r\nX-Y:\r\nX-Y: \xe9\r\n\r\n"
    case = Case().client(odd).server(ok())
    assert (case.ends.server, case.ends.client) == (odd, ok())
    assert case.ends.asked == ["connect"]


@each_row("size", [1, 2, 3, 7])
def test_pieces_make_no_difference(size: int) -> None:
    sent = (
        get("/1")
        + CHUNKED
        + b"3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n"
        + get("/2", "Content-Length: 3\r\n", "PUT")
        + b"xyz"
    )
    got = (
        ok()
        + b"HTTP/1.1 100 Continue\r\n\r\n"
        + ok("")
        + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    got += b"2\r\nhi\r\n0\r\n\r\n"
    case = Case()
    case.client(*(sent[i : i + size] for i in range(0, len(sent), size)))
    case.server(*(got[i : i + size] for i in range(0, len(got), size)))
    assert (case.ends.server, case.ends.client) == (sent, got)
    assert case.judged == [b"/1", b"/", b"/2"]
    assert case.relay.idle


@each_row("size", [1, 7, 500])
def test_no_response_leads_past_the_filter(size: int) -> None:
    got = (
        ok("\nAlt-Svc: x", 'Alt-Svc: h3=":443"\r\nalt-svc : h2="b.test:443"\r\nX-Alt-Svc: 1\r\n')
        + b'HTTP/1.1 103 Early Hints\r\nALT-SVC: h3=":1"\r\n\r\n'
        # Browsers end a line at a bare CR too.
        + ok("", 'A: b\rAlt-Svc: h3=":443"\r\nA: b\n\ralt-svc : h2="b.test:443"\r\n')
    )
    case = Case().client(get(), get())
    case.server(*(got[i : i + size] for i in range(0, len(got), size)))
    head, body, rest = got.partition(b"\r\n\r\n\nAlt-Svc: x")
    head, rest = (re.sub(rb"(?<=[\r\n])[Aa](?=(?i:lt-svc))", b"X", text) for text in (head, rest))
    assert case.ends.client == head + body + rest


@pytest.mark.parametrize("size", [1 << 11, 1 << 18])
def test_interim_responses_without_end(size: int) -> None:
    got = (b"HTTP/1.1 103 Early Hints\r\n" + b"Alt-Svc: x\r\n" * 10 + b"\r\n") * 5000
    case = Case().client(get())
    case.server(*(got[i : i + size] for i in range(0, len(got), size)))
    interim, _, ours = case.ends.client.partition(b"HTTP/1.1 502 ")
    assert 0 < len(interim) - MAX_HEAD < 200
    assert interim == got.replace(b"\r\nAlt-Svc", b"\r\nXlt-Svc")[: len(interim)]
    assert ours
    assert case.ends.refusals == ["match"]
    assert case.ends.asked[-1] == "linger"


def test_interim_responses_of_a_few_bytes() -> None:
    case = Case().client(get()).server(b"HTTP/1.1 103\r\n\r\n" * 20_000)
    interim, _, ours = case.ends.client.partition(b"HTTP/1.1 502 ")
    assert ours
    assert interim.count(b"103") == MAX_HEAD // COST_OF_INTERIM + 1


def test_interim_responses_of_each_request() -> None:
    got = (b"HTTP/1.1 102 Processing\r\n\r\n" * 500 + ok()) * 5
    case = Case().client(*[get()] * 5).server(got)
    assert case.ends.client == got
    assert case.relay.idle


def test_of_requests_under_way_no_head_is_kept() -> None:
    case = Case(reached=False).client(get("/1") + get("/2"))
    assert all(pending.head is not None for pending in case.relay.pending)
    case.relay.connected()
    case.client(get("/3"))
    assert [pending.head for pending in case.relay.pending] == [None] * 3


def test_a_block_closes_nothing_where_nothing_is_open() -> None:
    case = Case().client(get("/listed"))
    assert case.blocked
    assert case.ends.asked == []
    case.client(get("/other"))
    assert case.ends.server == get("/other")


def test_a_block_comes_in_its_turn() -> None:
    case = Case().client(get("/1") + get("/2") + get("/listed") + get("/3"))
    assert case.ends.server == get("/1") + get("/2")
    assert case.ends.client == b""
    case.server(ok("one"))
    assert not case.blocked
    case.server(ok("two") + b"junk")
    assert case.ends.client.startswith(ok("one") + ok("two") + b"HTTP/1.1 451 ")
    assert b"junk" not in case.ends.client
    assert case.judged == [b"/1", b"/2", b"/listed"]
    assert case.ends.asked == ["connect", *ENDED]
    case.client(get("/4"))
    assert case.judged[-1] == b"/listed"


@pytest.mark.parametrize("body", ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_block_does_not_wait_for_a_body(body: str) -> None:
    case = Case().client(get("/listed", body, "POST"))
    assert case.blocked
    assert b"\r\nConnection: close\r\n" in case.ends.client
    assert case.ends.server == b""
    case.client(b"5\r\nabcde\r\n0\r\n\r\n" + get("/listed"))
    assert case.judged == [b"/listed"]


def test_head_responses_have_no_body() -> None:
    case = Case().client(get("/1", method="HEAD") + get("/2"))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    case.server(head + ok())
    assert case.ends.client == head + ok()
    assert case.relay.idle


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body(status: str) -> None:
    response = f"HTTP/1.1 {status}\r\nContent-Length: 7\r\n\r\n".encode()
    case = Case().client(get("/1") + get("/listed")).server(response)
    assert case.ends.client.startswith(response + b"HTTP/1.1 451 ")


@pytest.mark.parametrize("answer", [None, plain(503, "No room.")])
def test_no_answer_to_head_has_a_body(answer: BlockResponse | None) -> None:
    case = Case(reached=False).client(get(method="HEAD"))
    case.relay.not_connected(answer)
    assert case.ends.client.startswith(b"HTTP/1.1 50")
    assert case.ends.client.endswith(b"\r\n\r\n")


def test_an_origin_that_is_not_reached() -> None:
    case = Case(reached=False).client(get("/1"))
    case.relay.not_connected()
    assert case.ends.client.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert case.ends.asked == ["connect", *ENDED]


def test_what_comes_while_connecting_waits() -> None:
    case = Case(reached=False).client(CHUNKED, b"1\r\na\r\n0\r\n\r\n")
    assert case.ends.server == b""
    case.relay.connected()
    assert case.ends.server == CHUNKED + b"1\r\na\r\n0\r\n\r\n"


def test_an_origin_that_ends_before_it_answers() -> None:
    case = Case().client(get("/1"))
    case.relay.server_ended()
    assert case.ends.client.startswith(b"HTTP/1.1 502 ")
    # On a connection that has served before, a client tries again where it may.
    case = Case().client(get("/1")).server(ok()).client(get("/2"))
    case.relay.server_ended()
    assert case.ends.client == ok()
    assert case.ends.asked == ["connect", *ENDED]


def test_a_response_that_ends_with_the_connection() -> None:
    case = Case().client(get("/1") + get("/2"))
    case.server(b"HTTP/1.0 200 OK\r\n\r\nabc", b"def")
    assert case.ends.client.endswith(b"abcdef")
    case.client(get("/3"))
    assert case.judged == [b"/1", b"/2"], "nobody would answer"
    case.relay.server_ended()
    assert case.ends.asked == ["connect", *ENDED]


def test_no_head_that_makes_no_sense_leads_past_the_filter() -> None:
    for line in (b"ICY 200 OK", b"HTTP/1.1 200 OK\r\nContent-Length: x"):
        case = Case().client(get("/1")).server(line + b'\r\nAlt-Svc: h3=":443"\r\n\r\n\nAlt-Svc: x')
        assert case.ends.client == line + b'\r\nXlt-Svc: h3=":443"\r\n\r\n\nAlt-Svc: x'


@each_row(
    "response",
    [
        b"ICY 200 OK\r\n\r\nmusic",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
        b"\x00" * (MAX_HEAD + 1),
    ],
)
def test_a_response_that_makes_no_sense_is_the_clients_to_read(response: bytes) -> None:
    case = Case().client(get("/1")).server(response, b"more")
    assert case.ends.client == response + b"more"
    # Who asks on has understood it, and asks again on a new connection.
    case.client(get("/listed")).server(b"more")
    assert case.ends.client == response + b"more"
    assert case.judged == [b"/1"], "no request is read behind it"
    assert case.ends.asked == ["connect", *ENDED]


@each_row(
    "response",
    [
        b"ICY 200 OK\r\n\r\nmusic",
        b"HTTP/2 200 OK\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"half a he",
    ],
)
def test_nothing_of_ours_follows_a_response_that_makes_no_sense(response: bytes) -> None:
    case = Case().client(get("/1")).server(response)
    case.relay.server_ended()
    assert case.ends.client == response
    assert case.ends.asked == ["connect", *ENDED]


@each_row(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/2 103 \r\n\r\n",
        b"xHTTP/1.1 103 E\r\n\r\n",
        b"\xff\xfe..http/1.10\t103 \r\n\r\n",
        b"HTTP 0103x\r\n\r\n",
        b"icy 100\r\n\r\n",
    ],
)
@each_row("after", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_no_head_that_only_the_client_could_read_reaches_it(head: bytes, after: bytes) -> None:
    """Chromium reads on behind it, and heeds an Alt-Svc there."""
    follows = b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":443"\r\n\r\n'
    case = Case().client(get("/1")).server(after + head + follows)
    assert case.ends.client.startswith(after + b"HTTP/1.1 502 ")
    assert b"Alt-Svc" not in case.ends.client
    assert case.ends.asked[-1:] == ENDED[-1:]


def test_a_head_that_is_longer_than_ours_may_be_does_not_reach_a_client_that_takes_it() -> None:
    case = Case().client(get("/1")).server(b"HTTP/1.1 200 OK\r\nA: " + b"a" * MAX_HEAD)
    assert case.ends.client.startswith(b"HTTP/1.1 502 ")


@each_row(
    "response",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
    ],
)
def test_a_response_that_clients_bear_keeps_its_place(response: bytes) -> None:
    for pieces in ([response], [response[i : i + 1] for i in range(len(response))]):
        case = Case().client(get("/1")).server(*pieces).client(get("/2")).server(ok())
        assert case.ends.client == response + ok()
        assert case.judged == [b"/1", b"/2"]


def test_what_an_origin_sent_before_it_broke_off() -> None:
    case = Case().client(get("/1")).server(b"HTTP/1.1 200 OK\r\nContent-")
    case.relay.server_ended()
    assert case.ends.client == b"HTTP/1.1 200 OK\r\nContent-"
    assert case.ends.asked == ["connect", *ENDED]


def test_no_request_is_taken_where_a_body_is_to_come() -> None:
    """Whatever its origin has answered."""
    case = Case()
    relay = case.relay
    assert relay.takes_more
    case.client(get(more="Content-Length: 3\r\n", method="POST") + b"ab")
    assert not relay.takes_more
    case.client(b"c")
    case.server(ok())
    assert relay.takes_more


def test_a_client_that_takes_no_pages_gets_no_more() -> None:
    case = Case().client(get("/listed"))
    assert b"\r\nConnection: keep-alive\r\n" in case.ends.client
    case.ends.behind = True
    case.client(get("/listed"))
    assert case.ends.client.count(b"\r\nConnection: close\r\n") == 1
    assert case.ends.asked == ENDED


def test_what_the_client_has_yet_to_take_is_under_way() -> None:
    def under_way(case: Case) -> list[str]:
        return [names.target for names in case.relay.live]

    case = Case().client(get("/1")).server(ok())
    assert under_way(case) == []
    case.ends.behind = True
    assert under_way(case) == ["/1"]
    case.client(get("/2")).server(ok()[:-1])
    assert under_way(case) == ["/2"], "the one before need not be what it has yet to take"
    case = Case().client(get("/3", "Content-Length: 5\r\n", "POST") + b"ab").server(ok())
    assert under_way(case) == ["/3"], "answered before all of it was sent"
    assert under_way(case.client(b"cde")) == []


def test_blanks_around_a_chunk_size_are_borne() -> None:
    case = Case().client(get("/1") + get("/listed"))
    case.server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n")
    assert case.blocked


def test_what_an_origin_says_unasked() -> None:
    case = Case().client(get("/1")).server(ok(), b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert case.ends.client.endswith(b"408 Request Timeout\r\n\r\n")
    case.relay.server_ended()
    assert case.ends.asked[-1] == "linger"


@each_row("unasked", [ok(), b"\r\n" + ok(), b"\0", b"HTTP/1.1 500 No\r\n\r\n"])
def test_an_answer_to_nobodys_request_does_not_pass(unasked: bytes) -> None:
    for pieces in (
        [ok() + unasked],
        [ok(), unasked],
        [ok(), *(unasked[i : i + 1] for i in range(len(unasked)))],
    ):
        case = Case().client(get("/1")).server(*pieces)
        assert case.ends.client in (ok(), ok() + b"\r\n")
        assert case.ends.refusals == ["match"]
        assert case.ends.asked == ["connect", *ENDED]


@each_row("method", ["GET", "HEAD", "DELETE"])
@each_row("size", [1, 50, 1 << 20])
def test_content_that_an_origin_may_take_for_a_request_is_judged_as_one(method: str, size: int) -> None:
    inner = get("/listed")
    for more, content in (
        (f"Content-Length: {len(inner)}\r\n", inner),
        ("Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)),
    ):
        sent = get("/1", more, method) + content + get("/2")
        case = Case().client(*(sent[i : i + size] for i in range(0, len(sent), size)))
        assert case.judged == [b"/1"]
        assert b"/listed HTTP/1.1\r" not in case.ends.server
        assert case.ends.client.startswith(b"HTTP/1.1 400 ")
        assert [asked for asked in case.ends.asked if asked != "connect"] == ENDED
        assert case.ends.refusals == ["match"]


def test_other_content_of_a_get_passes_as_ever() -> None:
    sent = get("/1", "Content-Length: 15\r\n") + b'{"query": "a/"}' + get("/2")
    case = Case().client(sent).server(ok(), ok())
    assert case.judged == [b"/1", b"/2"]
    assert (case.ends.server, case.ends.client) == (sent, ok() + ok())
    assert case.ends.asked == ["connect", "go on"]


@each_row(
    ("request_", "status"),
    [
        (b"GET /\r\n", 400),
        (b"get\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a.test\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\nGET /listed HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n", 405),
        (b"\r\n" * MAX_BLANK + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /" + b"a" * MAX_HEAD, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\n", 400),
    ],
)
def test_refused(request_: bytes, status: int) -> None:
    for pieces in ([request_], [request_[i : i + 1000] for i in range(0, len(request_), 1000)]):
        case = Case().client(*pieces)
        assert case.ends.client.startswith(b"HTTP/1.1 %d " % status)
        assert (case.ends.server, case.judged) == (b"", [])
        assert case.ends.asked == ENDED


def test_a_few_empty_lines_are_dropped() -> None:
    case = Case().client(b"\r\n", b"\n" + get("/1") + b"\r\n" + get("/2"), b"\r\n", get("/3"))
    assert case.ends.server == get("/1") + get("/2") + get("/3")


def test_a_body_that_two_readers_could_end_elsewhere() -> None:
    case = Case().client(CHUNKED, b"1\r\naGET /listed HTTP/1.1\r\n\r\n")
    assert case.ends.server == CHUNKED
    assert case.ends.client.startswith(b"HTTP/1.1 400 ")
    assert case.ends.asked == ["connect", *ENDED]


def test_more_requests_than_anyone_sends() -> None:
    case = Case().client(get() * (MAX_PENDING + 1))
    assert len(case.relay.pending) == MAX_PENDING
    case.server(ok() * MAX_PENDING)
    assert case.ends.client.count(b"HTTP/1.1 200 ") == MAX_PENDING
    assert case.ends.client.count(b"HTTP/1.1 429 ") == 1


# -- Expect


EXPECT = get("/", "Content-Length: 40\r\nExpect: 100-continue\r\n", "POST")


def test_a_body_that_is_asked_for() -> None:
    case = Case().client(EXPECT).server(b"HTTP/1.1 100 Continue\r\n\r\n").client(b"a" * 40).server(ok())
    assert case.ends.client == b"HTTP/1.1 100 Continue\r\n\r\n" + ok()
    case.client(get("/2"))
    assert case.judged == [b"/", b"/2"]
    assert case.ends.asked == ["connect"]


def test_a_body_that_comes_although_it_was_answered_before() -> None:
    # The origin may read it, or be done with this request and take the body for the next.
    case = Case().client(EXPECT).server(ok())
    assert case.ends.asked == ["connect"]
    body = (b"--\n" + get("/listed") + b"x" * 40)[:40]
    case.client(body).server(b"HTTP/1.1 200 OK\r\n\r\nlisted")
    assert case.ends.server == EXPECT + body
    assert case.ends.client == ok(), "nothing that it makes of the body comes back"
    assert case.ends.asked == ["connect", *ENDED]


@each_row("refusal", ["417 Expectation Failed", "413 Content Too Large", "200 OK"])
@each_row("interim", [b"", b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_what_follows_a_body_that_was_not_asked_for_has_another_connection(
    refusal: str, interim: bytes
) -> None:
    """Netty is done with such a request, and takes its body for the next, which goes on in what follows."""
    refused = f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n".encode()
    body = b"XGET /listed foo/1.1\r\nHost: a.test\r\nX: ".ljust(40)
    case = Case().client(EXPECT + body + get("/2"))
    assert case.ends.server == EXPECT + body
    case.server(interim + refused + b"HTTP/1.1 200 OK\r\n\r\nlisted")
    assert case.ends.asked == ["connect", "go on", "leave server", "connect"]
    assert case.ends.server == EXPECT + body + get("/2")
    case.server(ok("2")).client(get("/3")).server(ok("3"))
    assert case.ends.client == interim + refused + ok("2") + ok("3")
    assert case.ends.asked == ["connect", "go on", "leave server", "connect"]


@each_row(
    "request_head",
    [
        get("/", "Content-Length: 40\r\n", "POST") + b"a" * 40,
        get("/", "Expect: 100-continue\r\n"),
        get("/", "Expect: 100-continue\r\nContent-Length: 0\r\n", "POST"),
    ],
)
def test_what_follows_a_body_that_need_not_be_asked_for_has_the_same_connection(request_head: bytes) -> None:
    case = Case().client(request_head).server(ok()).client(get("/2")).server(ok("2"))
    assert case.ends.client == ok() + ok("2")
    assert case.ends.asked == ["connect"]


def test_a_body_that_comes_into_an_answer_under_way() -> None:
    case = Case().client(EXPECT).server(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nso")
    case.client(b"a" * 40, get("/listed")).server(b" far", b"HTTP/1.1 200 OK\r\n\r\nlisted")
    assert case.ends.server == EXPECT + b"a" * 40
    assert case.ends.client.endswith(b"\r\n\r\nso far")
    assert case.ends.asked == ["connect", *ENDED]
    case = Case().client(EXPECT).server(b"HTTP/1.0 200 OK\r\n\r\nso").client(b"a" * 40).server(b" far")
    assert case.ends.server == EXPECT + b"a" * 40
    assert case.ends.client.endswith(b"so far")


def test_an_early_answer_to_a_body_under_way() -> None:
    """What the origin makes of the rest is no answer to the next request, which has another connection."""
    request = get("/", "Content-Length: 4\r\n", "POST")
    case = Case().client(request, b"ab").server(ok() + b"HTTP/1.1 200 OK\r\n\r\n").client(b"c")
    case.server(ok("asked by nobody")).client(b"d" + get("/2"))
    assert case.ends.server == request + b"abcd" + get("/2")
    assert case.ends.asked == ["connect", "leave server", "connect"]
    case.server(ok("2")).client(get("/3")).server(ok("3"))
    assert case.ends.client == ok() + ok("2") + ok("3")
    assert case.ends.asked == ["connect", "leave server", "connect"]


def test_an_early_answer_without_a_length_does_not_stop_the_upload() -> None:
    request = get("/", "Content-Length: 10\r\n", "POST")
    case = (
        Case().client(request, b"hello").server(b"HTTP/1.0 200 OK\r\n\r\nso far").client(b"world" + get("/2"))
    )
    assert case.ends.server == request + b"helloworld"
    case.client(get("/3"))
    assert case.judged == [b"/"]
    case.relay.server_ended()
    assert case.ends.client.endswith(b"so far")


def test_no_answer_of_ours_gets_into_a_response() -> None:
    case = Case().client(CHUNKED).server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    case.client(b"not a size\r\n")
    assert case.ends.client.endswith(b"half")
    assert case.ends.asked == ["connect", *ENDED]


# -- upgrades


WEBSOCKET = get("/chat", "Upgrade: websocket\r\nConnection: Upgrade\r\n")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def test_a_websocket_is_not_read() -> None:
    case = Case().client(WEBSOCKET + b"early").server(SWITCH + b"hello").client(b"GET /listed\r\n\r\n")
    assert case.ends.server == WEBSOCKET + b"earlyGET /listed\r\n\r\n"
    case.server(b"HTTP/1.1 200\r\n\r\n")
    assert case.ends.client == SWITCH + b"helloHTTP/1.1 200\r\n\r\n"
    assert [names.target for names in case.relay.live] == ["/chat"]
    assert case.relay.endless
    case.relay.client_ended()
    assert case.ends.asked == ["connect", "end server"]
    case.relay.server_ended()
    assert case.ends.asked == ["connect", "end server", "close"]


@each_row("field", ["", "Upgrade: h2c\r\n", "Upgrade: websocket, h2c\r\n", "X-Upgrade: websocket\r\n"])
def test_a_status_alone_is_no_websocket(field: str) -> None:
    """A program that answers with whatever status it is asked for reads on as before."""
    case = Case().client(WEBSOCKET + get("/listed"))
    case.server(f"HTTP/1.1 101 Switching Protocols\r\n{field}\r\n".encode())
    assert case.ends.server == WEBSOCKET
    assert case.ends.client.startswith(b"HTTP/1.1 502 ")


def test_what_comes_behind_a_refused_websocket_is_judged() -> None:
    case = Case().client(WEBSOCKET, get("/listed"))
    assert case.ends.server == WEBSOCKET
    case.server(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    assert case.blocked
    assert case.ends.server == WEBSOCKET


def test_what_is_kept_behind_an_upgrade_has_a_bound() -> None:
    case = Case().client(WEBSOCKET, b"x" * MAX_HELD, b"x")
    assert case.ends.asked == ["connect", *ENDED]


@each_row("upgrade", ["h2c", "websocket, h2c", "TLS/1.0", ""])
def test_other_upgrades_are_not_offered(upgrade: str) -> None:
    case = Case().client(get("/", f"Upgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\nX: y\r\n"))
    assert case.ends.server == get("/", "X: y\r\n")


# -- ends


def test_a_client_that_only_ends_its_sending_gets_its_response() -> None:
    case = Case().client(get("/1"))
    case.relay.client_ended()
    assert case.ends.asked == ["connect"]
    case.server(ok())
    assert case.ends.client == ok()
    assert case.ends.asked == ["connect", "close"]


@each_row("sent", [b"", b"GET / HT", get("/", "Content-Length: 5\r\n", "POST") + b"ab"])
def test_a_client_that_leaves(sent: bytes) -> None:
    case = Case()
    if sent:
        case.client(sent)
    case.relay.client_ended()
    assert case.ends.asked[-1] == "close"


def test_a_client_that_ends_behind_an_answer() -> None:
    case = Case().client(get("/listed", "Content-Length: 5\r\n", "POST"))
    case.relay.client_ended()
    assert case.ends.asked == [*ENDED, "close"]


# -- the invariant


PIECES = st.sampled_from(
    [
        get("/1"),
        get("/listed"),
        get("/2", "Content-Length: 5\r\n", "POST"),
        b"hello",
        CHUNKED,
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"\r\n",
        b"\n",
        b"GET /listed HTTP/1.1\r\n",
        b"Host: a.test\r\n",
        EXPECT,
        WEBSOCKET,
        b"x" * 40,
        b"junk",
        b"\x00",
    ]
)
ANSWERS = st.sampled_from(
    [ok(), b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"]
)


@given(
    st.lists(
        st.one_of(PIECES.map(lambda p: ("client", p)), ANSWERS.map(lambda p: ("server", p))), max_size=12
    )
)
def test_no_order_of_pieces_brings_a_listed_request_to_an_origin(steps: list[tuple[str, bytes]]) -> None:
    case = Case()
    for side, piece in steps:
        if side == "client":
            case.client(piece)
        else:
            case.server(piece)
    # An origin that frames as RFC 9112 says finds exactly the requests that were judged and passed.
    found = requests_in(case.ends.server)
    passed = [target for target in case.judged if b"listed" not in target]
    assert found == passed[: len(found)]


def requests_in(data: bytes) -> list[bytes]:
    """The targets that a strict origin reads."""
    targets = []
    while b"\r\n\r\n" in data:
        head, _, data = data.partition(b"\r\n\r\n")
        targets.append(head.split(b" ")[1])
        if b"Content-Length: " in head:
            data = data[int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]) :]
        elif b"chunked" in head:
            while data:
                line, _, rest = data.partition(b"\r\n")
                try:
                    size = int(line.split(b";")[0], 16)
                except ValueError:
                    return targets  # the beginning of a chunk's head
                data = rest[size + 2 :] if size else rest.partition(b"\r\n")[2]
                if not size:
                    break
    return targets


def test_requests_that_come_together_are_judged_by_turns() -> None:
    """Each takes time in which nobody else is served."""
    case = Case()
    case.ends.over = True
    case.client(b"GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n", b"GET /2 HTTP/1.1\r\nHost: a.test\r\n\r\n" * 3)
    for done in range(2, 4):
        assert len(case.judged) == case.ends.server.count(b"GET") == done
        assert case.relay.head is None
        assert not case.relay.idle
        case.relay.client_ended()
        assert case.ends.asked == ["connect", *["go on later"] * (done - 1)]
        case.relay.read_on()
    assert len(case.judged) == 4
    case.server(ok() * 4)
    assert case.ends.asked[-1] == "close", "at the end of what it has asked"


def test_what_waits_for_its_turn_ends_with_the_connection() -> None:
    case = Case()
    case.ends.over = True
    case.client(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n" * 3)
    case.relay.server_ended()
    case.relay.read_on()
    assert len(case.judged) == 1


@each_row(
    ("second", "body"),
    [
        (get("/b", "Content-Length: 3\r\n", "POST"), b"abc"),
        (get("/b", "Content-Length: 3\r\n"), b"abc"),
        (get("/b", "Transfer-Encoding: chunked\r\n", "PUT"), b"3\r\nabc\r\n0\r\n\r\n"),
        (get("/b", method="OPTIONS"), b""),
        (get("/b", method="get"), b""),
    ],
)
@each_row("reached", [True, False])
def test_only_what_has_no_body_goes_out_before_what_is_before_it_is_answered(
    second: bytes, body: bytes, reached: bool
) -> None:
    """Starman drops the beginning of what has come beside anything else, and reads on in its middle."""
    case = Case(reached=reached)
    case.client(get("/a") + get("/a2") + second + body + get("/c", method="HEAD"))
    if not reached:
        case.relay.connected()
    assert case.ends.server == get("/a") + get("/a2")
    case.server(ok("1"))
    assert case.ends.server == get("/a") + get("/a2")
    case.server(ok("2"))
    assert case.ends.server == get("/a") + get("/a2") + second + body
    case.server(ok("3"))
    assert case.ends.server == get("/a") + get("/a2") + second + body + get("/c", method="HEAD")
    case.server(b"HTTP/1.1 200 OK\r\n\r\n")
    assert case.ends.client == ok("1") + ok("2") + ok("3") + b"HTTP/1.1 200 OK\r\n\r\n"
    assert case.judged == [b"/a", b"/a2", b"/b", b"/c"]
    assert case.relay.idle


def test_what_waits_for_an_answer_is_bounded_and_may_be_the_last() -> None:
    case = Case().client(get("/a"), get("/b", "Content-Length: 200000\r\n", "POST"))
    case.client(b"x" * 60_000)
    assert "hold" not in case.ends.asked
    case.client(b"x" * 10_000)
    assert case.ends.asked[-1] == "hold"
    case.server(ok())
    assert case.ends.asked[-1] == "go on"
    case.client(b"x" * 130_000).server(ok())
    assert case.ends.client == ok() * 2
    case.client(get("/a"), get("/b", method="DELETE"))
    case.relay.client_ended()
    assert "close" not in case.ends.asked
    case.server(ok())
    assert case.ends.server.endswith(get("/b", method="DELETE"))
    case.server(ok())
    assert case.ends.client == ok() * 4
    assert case.ends.asked[-1] == "close"


@pytest.mark.parametrize("pieces", [1, 7])
def test_heads_under_way_are_bounded(pieces: int) -> None:
    """A client's own origin may read them all, and answer none."""
    asked = get("/" + "x" * 60_000) * 7
    size = len(asked) // pieces
    case = Case(reached=False).client(*[asked[at : at + size] for at in range(0, len(asked), size)])
    assert sum(len(pending.raw or b"") for pending in case.relay.pending) <= MAX_UNDER_WAY
    case.relay.connected()
    assert len(case.relay.pending) == 4
    assert case.ends.asked[-1] == "hold"
    case.server(ok() * 4)
    assert len(case.relay.pending) == 3
    assert case.ends.asked[-1] == "go on"
    case.server(ok() * 3)
    assert case.ends.client == ok() * 7
    assert case.ends.server == asked


def test_what_waits_for_an_answer_is_judged_then() -> None:
    case = Case().client(get("/a") + get("/listed", method="DELETE"))
    assert case.judged == [b"/a"]
    case.server(ok())
    assert case.ends.client.startswith(ok())
    assert case.blocked


def test_framing_goes_out_in_one_spelling() -> None:
    case = Case().client(get("/", "Transfer-Encoding: Chunked \r\n", "POST"))
    assert case.ends.server == get("/", "Transfer-Encoding: chunked\r\n", "POST")
