"""The explicit proxy without connections: requests in, requests out, and never one that nobody judged."""

import re

import pytest

from proxy import test_relay as relay
from proxy.test_relay import Ends, ok
from rows import each_row
from urlward.proxy.block_page import BlockResponse, plain
from urlward.proxy.forward import ESTABLISHED, NOWHERE, ForwardRelay, Origin
from urlward.proxy.head import MAX_HEAD, RequestHead
from urlward.proxy.names import Names
from urlward.proxy.relay import FRESH, MAX_HELD

A, B = Origin("a.test", 80, False), Origin("b.test", 8080, False)
ENDED = ["close server", "end client", "linger"]


class ForwardEnds(Ends):
    """Remembers what goes where."""

    def __init__(self) -> None:
        super().__init__()
        self.relay: ForwardRelay
        self.reached = True
        self.held = False
        self.way = True
        self.sent: list[tuple[Origin, bytes]] = []
        self.kept: list[Origin] = []
        self.opened: list[Origin] = []
        self.judged_for: list[tuple[Origin, bool]] = []
        self.tunnels: list[tuple[Origin, bytes, bool]] = []

    def connect(self) -> None:
        origin = self.relay.origin
        if origin in self.kept:
            self.kept.remove(origin)
            self.relay.reused = True
            self.relay.connected()
            return
        self.opened.append(origin)
        if self.reached:
            self.relay.connected()

    def send_server(self, data: bytes) -> None:
        assert data
        self.sent.append((self.relay.origin, data))

    def hold_client(self, *, held: bool) -> None:
        self.held = held

    def keep_server(self, origin: Origin) -> None:
        self.kept.append(origin)

    def has_way(self) -> bool:
        return self.way

    def asks(self, *, connected: bool) -> None:
        self.judged_for.append((self.relay.asked, connected))

    def tunnel(self, origin: Origin, rest: bytes, *, told: bool) -> None:
        self.tunnels.append((origin, rest, told))


class Case(relay.Case):
    """A relay whose origins are reached at once."""

    ends: ForwardEnds
    relay: ForwardRelay

    def __init__(self, *, reached: bool = True) -> None:
        self.ends = ForwardEnds()
        self.ends.reached = reached
        self.judged = []
        self.relay = self.ends.relay = ForwardRelay(self.ends, self._admit)
        self.ends.switch = self._switch  # type: ignore[method-assign]
        self.known = True

    def _admit(self, head: RequestHead) -> Names | BlockResponse | None:
        if self.relay.asked is NOWHERE:
            return plain(400, "for the proxy itself")
        return self._judge(head) if self.known else None

    @property
    def sent(self) -> bytes:
        """What origins were sent."""
        return b"".join(data for _, data in self.ends.sent)

    @property
    def heads(self) -> list[bytes]:
        return [data.partition(b"\r\n")[0] for _, data in self.ends.sent if b" HTTP/1." in data]

    @property
    def answers(self) -> list[bytes]:
        return re.findall(rb"HTTP/1\.[01] \d\d\d [^\r\n]*", self.ends.client)


def get(url: str = "http://a.test/", more: str = "", method: str = "GET", minor: int = 1) -> bytes:
    host = url.partition("//")[2].partition("/")[0]
    return f"{method} {url} HTTP/1.{minor}\r\nHost: {host}\r\n{more}\r\n".encode("latin-1")


def via(response: bytes) -> bytes:
    """A response as the client gets it."""
    return response.replace(b"\r\n\r\n", b"\r\nVia: 1.1 urlward\r\n\r\n", 1)


# -- what a request becomes


def test_fields_that_are_the_same_go_out_under_each_authority() -> None:
    case = Case()
    for url in ("http://a.test/1", "http://b.test:8080/2", "http://a.test/3", "http://a.test/4"):
        case.client(b"GET %b HTTP/1.1\r\nHost: a.test\r\nX: y\r\n\r\n" % url.encode()).server(ok())
    assert [origin for origin, _ in case.ends.sent] == [A, B, A, A]
    sent = re.findall(rb"GET (\S+) HTTP/1\.1\r\nHost: (\S+)\r\nX: y\r\nVia: 1\.1 urlward\r\n\r\n", case.sent)
    assert sent == [(b"/1", b"a.test"), (b"/2", b"b.test:8080"), (b"/3", b"a.test"), (b"/4", b"a.test")]


@each_row(
    ("url", "host", "path"),
    [
        ("http://a.test/y@z", "a.test", "/y@z"),
        ("http://a.test?q", "a.test", "/?q"),
        ("http://a.test", "a.test", "/"),
        ("http://u:p@a.test/w", "a.test", "/w"),
        ("http://a.testy/", "a.testy", "/"),
        ("HTTP://a.test/v", "a.test", "/v"),
        ("https://a.test/u", "a.test", "/u"),
    ],
)
def test_a_target_that_begins_as_the_one_before_is_read_like_any_other(
    url: str, host: str, path: str
) -> None:
    case = Case().client(get("http://a.test/x")).server(ok())
    judge, absolute = case.relay.judge, []

    def noted(head: RequestHead) -> Names | BlockResponse | None:
        absolute.append(head.absolute)
        return judge(head)

    case.relay.judge = noted
    case.client(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).server(ok())
    origin, second = case.ends.sent[-1]
    assert second.startswith(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n".encode())
    tls = url.startswith("https")
    assert origin == Origin(host, 443 if tls else 80, tls)
    assert absolute == [(url.partition(":")[0].lower(), host, path)]


def test_a_tunnel_to_what_begins_as_the_target_before_is_none() -> None:
    case = Case().client(get("http://a.test/x")).server(ok())
    case.client(b"CONNECT http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert case.answers[-1].startswith(b"HTTP/1.1 400 ")
    assert case.ends.tunnels == []


def test_the_address_of_an_origin_is_told_of_once_for_each_connection() -> None:
    case = Case()
    for _ in range(3):
        case.client(get("http://a.test/")).server(ok())
    assert case.ends.judged_for == [(A, False), (A, True)]
    case.relay.server_ended()
    for _ in range(3):
        case.client(get("http://a.test/")).server(ok())
    assert case.ends.judged_for[2:] == [(A, False), (A, True)]
    case.client(get("http://a.test/"))
    case.relay.server_ended()  # on the way, so that it is sent again over another
    case.server(ok()).client(get("http://a.test/")).server(ok())
    assert case.ends.judged_for[4:] == [(A, True)]
    assert case.ends.opened == [A, A, A]


def test_a_response_that_is_the_same_is_sent_on_as_its_request_needs() -> None:
    """What is remembered of a response's head is for clients that keep their connection alone."""
    for more, minor in (("", 1), ("Connection: close\r\n", 1), ("", 1), ("Connection: keep-alive\r\n", 0)):
        case = Case().client(get("http://a.test/", more, minor=minor)).server(ok())
        added = b"Via: 1.1 urlward\r\n"
        added += b"Connection: close\r\n" * ("close" in more) + b"Connection: keep-alive\r\n" * (not minor)
        assert case.ends.client == ok().replace(b"\r\n\r\n", b"\r\n" + added + b"\r\n", 1)


def test_a_head_is_kept_for_the_origin_that_is_yet_to_be_reached() -> None:
    """By it the answer is chosen where the second origin turns out to have a listed address."""
    case = Case().client(get("http://a.test/")).server(ok())
    case.ends.reached = False
    case.client(get("http://b.test:8080/"))
    assert case.ends.opened == [A, B]
    assert case.relay.pending[0].head is not None


@each_row("user", ["u:p", "u%40x:p%2F", "", "listed.test:80"])
def test_user_information_is_nobodys(user: str) -> None:
    head = get(f"http://{user}@a.test/x@y").replace(b"Host: " + user.encode() + b"@", b"Host: ")
    case = Case().client(head)
    assert case.heads == [b"GET /x@y HTTP/1.1"]
    assert (case.ends.opened, case.judged) == ([A], [b"http://a.test/x@y"])
    # In front of which two readers may see two ends, and so refused by whoever judges.
    assert Case().client(get("http://u@v@a.test/")).judged == [b"http://v@a.test/"]


def test_a_request_and_its_response() -> None:
    case = Case().client(get("http://a.test/x?y=z", "X: 1\r\n"))
    assert case.sent == b"GET /x?y=z HTTP/1.1\r\nHost: a.test\r\nX: 1\r\nVia: 1.1 urlward\r\n\r\n"
    assert case.ends.opened == [A]
    case.server(ok())
    assert case.ends.client == via(ok())
    assert case.ends.asked == []
    assert case.relay.idle


@each_row(
    ("url", "path", "origin"),
    [
        ("http://a.test", b"/", A),
        ("http://a.test?x", b"/?x", A),
        ("HTTP://b.test:8080/p", b"/p", B),
        ("https://a.test/", b"/", Origin("a.test", 443, True)),
        ("http://[2001:db8::7]:81/", b"/", Origin("2001:db8::7", 81, False)),
        ("http://192.0.2.7/", b"/", Origin("192.0.2.7", 80, False)),
    ],
)
def test_where_it_goes(url: str, path: bytes, origin: Origin) -> None:
    case = Case().client(get(url))
    assert case.ends.opened == [origin]
    assert case.heads == [b"GET " + path + b" HTTP/1.1"]
    assert case.ends.judged_for == [(origin, False)]


def test_the_host_field_is_that_of_the_url() -> None:
    case = Case().client(b"GET http://a.test:81/ HTTP/1.1\r\nX: 1\r\nhOSt:  b.test\r\n\r\n")
    assert case.sent.startswith(b"GET / HTTP/1.1\r\nHost: a.test:81\r\nX: 1\r\n")
    assert b"b.test" not in case.sent
    case = Case().client(b"GET http://a.test/ HTTP/1.0\r\n\r\n")
    assert case.sent == b"GET / HTTP/1.0\r\nHost: a.test\r\nVia: 1.0 urlward\r\n\r\n"


def test_fields_of_this_hop_alone() -> None:
    more = (
        "Connection: keep-alive, X-Hop ,te\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\n"
        "X-Hop: 1\r\nx-hop: 2\r\nX-Hop-Not: 4\r\nProxy-Authorization: Basic eDp5\r\n"
        "TE: trailers\r\nAccept: */*\r\n"
    )
    case = Case().client(get(more=more))
    assert case.sent == (
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Hop-Not: 4\r\nAccept: */*\r\nVia: 1.1 urlward\r\n\r\n"
    )
    case.server(
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n"
        b"Proxy-Connection: keep-alive\r\nContent-Length: 0\r\nX-Hop-Not: 2\r\n\r\n"
    )
    assert case.ends.client == via(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Hop-Not: 2\r\n\r\n")


@each_row("name", ["Content-Length", "Transfer-Encoding", "Host", "Cookie", "Authorization"])
def test_a_connection_field_takes_nothing_of_weight(name: str) -> None:
    value = {"Content-Length": "3", "Transfer-Encoding": "chunked"}.get(name, "x")
    more = f"Connection: {name}\r\n" + (f"{name}: {value}\r\n" if name != "Host" else "")
    case = Case().client(get(more=more, method="POST"))
    assert f"{name}: ".encode() in case.sent
    case = Case().client(get()).server(ok(more=f"Connection: {name}, close\r\nContent-Length: 2\r\n"))
    assert b"\r\nContent-Length: 2\r\n" in case.ends.client


def test_an_upgrade_is_passed_on_for_websockets_alone() -> None:
    case = Case().client(get(more="Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"))
    assert b"h2c" not in case.sent
    assert b"HTTP2" not in case.sent
    more = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n"
    case = Case().client(get(more=more))
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" in case.sent
    switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    case.client(b"early").server(switched + b"hi")
    assert case.ends.client == switched + b"hi"
    case.client(b"GET http://a.test/listed HTTP/1.1\r\n\r\n")
    assert case.sent.endswith(b"early" + b"GET http://a.test/listed HTTP/1.1\r\n\r\n")
    case.relay.server_ended()
    case.relay.client_ended()
    assert case.ends.asked == ["end client", "close"]


def test_an_upgrade_that_is_refused() -> None:
    more = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    case = Case().client(get(more=more), get("http://b.test:8080/2")).server(ok())
    assert case.answers == [b"HTTP/1.1 200 OK"]
    assert case.ends.opened == [A, B]
    assert case.judged == [b"http://a.test/", b"http://b.test:8080/2"]


# -- requests that are refused


@each_row(
    "line",
    [
        b"GET / HTTP/1.1",
        b"GET a.test HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET http:///x HTTP/1.1",
        b"GET ftp://a.test/ HTTP/1.1",
        b"GET http://a.test:x/ HTTP/1.1",
        b"GET http://a.test:99999/ HTTP/1.1",
        b"CONNECT a.test HTTP/1.1",
        b"CONNECT http://a.test/ HTTP/1.1",
        b"CONNECT a.test:0x50 HTTP/1.1",
        b"GET  http://a.test/ HTTP/1.1",
    ],
)
def test_what_is_not_asked_of_a_proxy(line: bytes) -> None:
    case = Case().client(line + b"\r\nHost: a.test\r\n\r\n" + get())
    assert case.answers == [b"HTTP/1.1 400 Bad Request"]
    assert case.ends.asked == ENDED
    assert (case.ends.opened, case.ends.tunnels) == ([], [])


def test_a_head_without_end() -> None:
    case = Case().client(b"GET http://a.test/ HTTP/1.1\r\nX: " + b"a" * MAX_HEAD)
    assert case.answers == [b"HTTP/1.1 431 Request Header Fields Too Large"]


def test_blocked_requests_in_between() -> None:
    case = Case().client(get(), get("http://a.test/listed"), get("http://a.test/2"))
    assert case.heads == [b"GET / HTTP/1.1"]
    case.server(ok())
    assert case.answers == [b"HTTP/1.1 200 OK", b"HTTP/1.1 451 Unavailable For Legal Reasons"]
    assert case.heads == [b"GET / HTTP/1.1", b"GET /2 HTTP/1.1"]
    case.server(ok())
    assert case.answers[2:] == [b"HTTP/1.1 200 OK"]
    assert case.ends.opened == [A], "on one connection"
    assert b"listed" not in case.sent


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refused_connect_leaves_the_next_request_its_origin(scheme: str) -> None:
    case = Case().client(get()).server(ok())
    case.client(b"CONNECT listed.test:80 HTTP/1.1\r\n\r\n")
    assert case.answers[1:] == [b"HTTP/1.1 451 Unavailable For Legal Reasons"]
    case.client(get(f"{scheme}://a.test/2"))
    assert {origin.host for origin, _ in case.ends.sent} == {"a.test"}
    assert [origin.host for origin, _ in case.ends.judged_for] == ["a.test", "listed.test", "a.test"]


def test_another_scheme_is_another_origin() -> None:
    case = Case().client(get()).server(ok()).client(get("https://a.test/")).server(ok()).client(get())
    assert case.ends.opened == [A, Origin("a.test", 443, True)]
    assert [origin for origin, _ in case.ends.sent] == [A, Origin("a.test", 443, True), A]


# -- in turn


def test_framing_goes_out_in_one_spelling() -> None:
    case = Case().client(get("http://a.test/", "Content-Length:  007\r\n", "POST"))
    assert b"\r\nContent-Length: 7\r\n" in case.sent
    assert case.sent.count(b"007") == 0


def test_pipelined_requests_go_out_in_turn() -> None:
    case = Case().client(get("http://a.test/1") + get("http://b.test:8080/2") + get("http://a.test/3"))
    assert case.heads == [b"GET /1 HTTP/1.1"]
    case.server(ok("1"))
    assert case.ends.kept == [A]
    assert case.heads == [b"GET /1 HTTP/1.1", b"GET /2 HTTP/1.1"]
    case.server(ok("2"))
    assert case.ends.kept == [B]
    case.server(ok("3"))
    assert case.ends.client == via(ok("1")) + via(ok("2")) + via(ok("3"))
    assert case.ends.opened == [A, B]
    assert case.ends.judged_for == [(A, False), (B, False), (A, False)]


def test_a_client_that_sends_too_much_is_held() -> None:
    case = Case().client(get())
    case.client(get("http://a.test/2", f"X: {'x' * (MAX_HELD // 2)}\r\n"))
    assert not case.ends.held
    case.client(get("http://a.test/3", f"X: {'x' * (MAX_HELD // 2)}\r\n"))
    assert case.ends.held
    case.server(ok())
    assert not case.ends.held
    assert case.heads[1:] == [b"GET /2 HTTP/1.1"]


@each_row("size", [1, 7, 100])
def test_pieces_make_no_difference(size: int) -> None:
    chunked = get("http://b.test:8080/2", "Transfer-Encoding: chunked\r\n", "POST")
    sent = get("http://a.test/1") + chunked + b"3\r\nabc\r\n0\r\n\r\n" + get("http://a.test/listed") + get()
    got = [b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok("1"), ok("2"), ok("3")]
    case = Case().client(*(sent[i : i + size] for i in range(0, len(sent), size)))
    for response in got:
        case.server(*(response[i : i + size] for i in range(0, len(response), size)))
    assert case.heads == [b"GET /1 HTTP/1.1", b"POST /2 HTTP/1.1", b"GET / HTTP/1.1"]
    assert b"3\r\nabc\r\n0\r\n\r\n" in case.sent
    assert [line.split()[1] for line in case.answers] == [b"103", b"200", b"200", b"451", b"200"]


@pytest.mark.parametrize("more", ["", "Connection: keep-alive\r\n"])
def test_a_client_of_http_1_0(more: str) -> None:
    case = Case().client(get(more=more, minor=0))
    assert case.heads == [b"GET / HTTP/1.0"]
    assert b"\r\nVia: 1.0 urlward\r\n" in case.sent
    case.server(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + ok())
    assert case.answers == [b"HTTP/1.1 200 OK"], "it knows no interim responses"
    if more:
        assert b"\r\nConnection: keep-alive\r\n" in case.ends.client
        assert case.ends.asked == []
    else:
        assert b"\r\nConnection: close\r\n" in case.ends.client
        assert case.ends.asked == ENDED


# -- origins that close, and that do not answer


def test_a_connection_is_used_again_until_the_origin_closes_it() -> None:
    case = Case().client(get()).server(ok()).client(get()).server(ok())
    assert case.ends.opened == [A]
    assert case.ends.judged_for == [(A, False), (A, True)]
    case.relay.server_ended()
    assert case.ends.asked == ["close server"]
    case.client(get()).server(ok())
    assert case.ends.opened == [A, A]


@each_row(
    "response",
    [
        ok(more="Connection: close\r\n"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ok() + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nodd",
    ],
)
def test_a_connection_that_is_not_used_again(response: bytes) -> None:
    case = Case().client(get()).server(response)
    assert case.ends.asked == ["close server"]
    assert b"odd" not in case.ends.client
    assert b"Connection: close" not in case.ends.client, "that is between the proxy and the origin"
    case.client(get())
    assert case.ends.opened == [A, A]
    assert case.ends.kept == []


@each_row("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
def test_a_request_is_sent_again_where_that_is_safe(method: str) -> None:
    case = Case().client(get()).server(ok()).client(get("http://a.test/2", method=method))
    case.relay.server_ended()
    safe = method in ("GET", "HEAD", "OPTIONS")
    assert len(case.ends.opened) == 1 + safe
    assert case.heads[1:] == [f"{method} /2 HTTP/1.1".encode()] * (1 + safe)
    if not safe:
        assert case.answers[1:] == [b"HTTP/1.1 502 Bad Gateway"]


def test_it_is_sent_again_once() -> None:
    case = Case().client(get()).server(ok()).client(get())
    case.relay.server_ended()
    case.relay.server_ended()
    assert case.ends.opened == [A, A]
    assert case.answers == [b"HTTP/1.1 200 OK", b"HTTP/1.1 502 Bad Gateway"]
    assert case.ends.asked[-3:] == ENDED


def test_it_is_sent_again_from_a_kept_connection() -> None:
    case = Case().client(get()).server(ok()).client(get("http://b.test:8080/")).server(ok()).client(get())
    assert case.ends.opened == [A, B]
    case.relay.server_ended()
    assert case.ends.opened == [A, B, A]
    case.server(ok())
    assert len(case.answers) == 3


def test_a_request_whose_response_has_begun_is_not() -> None:
    for begun in (b"HTTP/1.1 1", b"HTTP/1.1 103 Early Hints\r\n\r\n", ok()[:-1]):
        case = Case().client(get()).server(ok()).client(get()).server(begun)
        case.relay.server_ended()
        assert case.ends.opened == [A]
        assert case.ends.asked == ENDED


def test_a_first_request_without_a_response() -> None:
    case = Case().client(get())
    case.relay.server_ended()
    assert case.answers == [b"HTTP/1.1 502 Bad Gateway"]
    assert case.ends.asked == ENDED


@pytest.mark.parametrize("answer", [None, plain(451, "listed")])
def test_an_origin_that_is_not_reached(answer: BlockResponse | None) -> None:
    case = Case(reached=False).client(get(method="HEAD") if answer is None else get())
    case.relay.not_connected(answer)
    assert [line.split()[1] for line in case.answers] == [b"451" if answer else b"502"]
    assert case.sent == b""
    assert case.ends.asked == ENDED
    assert answer or case.ends.client.endswith(b"\r\n\r\n")


# -- responses


@each_row(
    "response",
    [
        b"HTTP/1.1 200 OK\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nbody",
        b"ICY 200 OK\r\nicy-name: x\r\n\r\nbody",
        b"bad\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nbody",
    ],
)
def test_a_response_whose_end_only_the_connection_tells(response: bytes) -> None:
    case = Case().client(get(), get("http://a.test/2")).server(response)
    assert case.ends.client.endswith(b"body")
    assert case.relay.unbounded
    case.server(b"more")
    case.relay.server_ended()
    assert case.ends.client.endswith(b"bodymore")
    assert case.ends.asked == ENDED
    assert case.heads == [b"GET / HTTP/1.1"], "what followed was not answered"
    assert case.ends.kept == []
    if response.startswith(b"HTTP/1.1 200 OK\r\n\r\n"):
        assert b"\r\nConnection: close\r\n" in case.ends.client


def test_a_switch_that_nobody_asked_for() -> None:
    case = Case().client(get()).server(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nbytes")
    case.client(get("http://a.test/listed"))
    assert b"listed" not in case.sent
    assert case.ends.asked == ENDED


def test_nothing_follows_a_body_that_was_answered_early_on_its_connection() -> None:
    case = Case().client(get(more="Content-Length: 6\r\n", method="POST"), b"abc").server(ok())
    assert case.answers == [b"HTTP/1.1 200 OK"]
    assert case.ends.asked == []
    case.server(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nodd")
    assert b"odd" not in case.ends.client
    case.client(b"def" + get("http://a.test/2"))
    assert b"abcdef" in case.sent
    assert case.heads[-1] == b"GET /2 HTTP/1.1"
    assert case.ends.opened == [A, A]
    case.server(ok("2"))
    assert len(case.answers) == 2
    # Nor is one opened for the rest of a body whose origin has gone.
    case = Case().client(get(more="Content-Length: 6\r\n", method="POST"), b"abc").server(ok())
    case.relay.server_ended()
    case.client(b"d", b"ef")
    assert case.ends.opened == [A]
    case.client(get("http://a.test/2"))
    assert case.ends.opened == [A, A]
    assert b"ef" not in case.sent.partition(b"abc")[2].partition(b"GET")[0]


def test_a_response_before_the_body_that_waits_for_leave() -> None:
    expects = get(more="Content-Length: 3\r\nExpect: 100-continue\r\n", method="POST")
    case = Case().client(expects).server(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
    case.client(b"abc" + get("http://a.test/listed"))
    assert b"listed" not in case.sent
    assert case.ends.asked == ENDED


def test_a_connection_that_got_a_body_it_had_not_asked_for_serves_nobody_else() -> None:
    """Netty, which has refused the request, takes the body for the next, in any client's name."""
    expects = get(more="Content-Length: 3\r\nExpect: 100-continue\r\n", method="POST") + b"abc"
    refused = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"
    case = Case().client(expects).server(refused + ok("listed"))
    assert case.ends.client == via(refused)
    case.client(get("http://b.test:8080/2"))
    assert (case.ends.kept, case.ends.opened) == ([], [A, B])
    case = Case().client(expects).server(refused).client(get("http://a.test/2")).server(ok("2"))
    assert (case.ends.kept, case.ends.opened) == ([], [A, A])
    assert case.ends.client == via(refused) + via(ok("2"))
    # One that it has asked for is as good as any.
    case = Case().client(expects).server(b"HTTP/1.1 100 Continue\r\n\r\n", ok())
    case.client(get("http://a.test/2"))
    assert case.ends.opened == [A]


def test_no_response_leads_past_the_filter() -> None:
    case = Case().client(get()).server(ok(more='Alt-Svc: h3=":443"\r\n'))
    assert b"Alt-Svc" not in case.ends.client


def test_lines_that_end_in_a_line_feed_alone() -> None:
    case = Case().client(get()).server(b"HTTP/1.1 200 OK\nConnection: X\nX: 1\nContent-Length: 2\n\nok")
    assert case.ends.client.endswith(b"ok")
    assert b"X: 1" not in case.ends.client
    assert b"Via: 1.1 urlward\r\n" in case.ends.client
    assert not case.relay.unbounded


# -- the client's end


def test_a_client_that_only_ends_its_sending() -> None:
    case = Case().client(get(), get("http://b.test:8080/2"))
    case.relay.client_ended()
    case.server(ok("1"))
    assert case.ends.opened == [A, B]
    assert case.ends.asked == []
    case.server(ok("2"))
    assert case.ends.client == via(ok("1")) + via(ok("2"))
    assert case.ends.asked == ["close"]


@pytest.mark.parametrize("rest", [b"GET http://a", get("http://a.test/listed")])
def test_a_client_that_ends_with_something_held(rest: bytes) -> None:
    case = Case().client(get(), rest)
    case.relay.client_ended()
    case.server(ok())
    assert case.ends.asked == ["close"]
    assert len(case.answers) == 1 + rest.endswith(b"\r\n\r\n")


def test_a_client_that_ends_at_rest_or_in_the_middle() -> None:
    post = get(more="Content-Length: 9\r\n", method="POST")
    for pieces in ((), (get(),), (b"GET http://a",), (post, b"abc")):
        case = Case().client(*pieces)
        if pieces == (get(),):
            case.server(ok())
        case.relay.client_ended()
        assert case.ends.asked == ["close"], pieces


# -- tunnels


@pytest.mark.parametrize("rest", [b"", b"\x16\x03\x01rest"])
def test_a_tunnel(rest: bytes) -> None:
    case = Case().client(b"CONNECT told.test:443 HTTP/1.1\r\nHost: x\r\n\r\n" + rest)
    assert case.ends.client == ESTABLISHED
    assert case.ends.tunnels == [(Origin("told.test", 443, False), rest, True)]
    assert (case.sent, case.ends.opened) == (b"", [])
    case.client(get())
    assert case.sent == b"", "what comes is not this relay's any more"


def test_a_tunnel_behind_requests() -> None:
    connect = b"CONNECT [2001:db8::7]:443 HTTP/1.1\r\n\r\n"
    case = Case().client(get() + connect + b"rest")
    assert case.ends.tunnels == []
    case.server(ok())
    assert case.ends.client == via(ok()) + ESTABLISHED
    assert case.ends.tunnels == [(Origin("2001:db8::7", 443, False), b"rest", False)]
    assert case.ends.asked == ["close server"]


def test_a_tunnel_that_is_blocked() -> None:
    case = Case().client(b"CONNECT listed.test:443 HTTP/1.1\r\n\r\n")
    assert case.answers == [b"HTTP/1.1 451 Unavailable For Legal Reasons"]
    assert case.ends.tunnels == []
    case = Case().client(b"CONNECT a.test:443 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
    assert case.answers == [b"HTTP/1.1 400 Bad Request"]
    assert case.ends.tunnels == []


def test_a_tunnel_for_a_client_that_has_ended() -> None:
    case = Case().client(get(), b"CONNECT a.test:443 HTTP/1.1\r\n\r\n")
    case.relay.client_ended()
    case.server(ok())
    assert case.ends.tunnels == []
    assert case.ends.asked[-1] == "close"


# -- requests that wait for a password


def test_a_request_that_waits_for_its_judge() -> None:
    case = Case()
    case.known = False
    case.client(get("http://a.test/1") + get("http://a.test/2")[:20], get("http://a.test/2")[20:])
    assert (case.judged, case.sent, case.relay.head) == ([], b"", None)
    assert not case.relay.idle
    case.known = True
    case.relay.go_on()
    assert case.heads == [b"GET /1 HTTP/1.1"]
    case.server(ok("1")).server(ok("2"))
    assert case.heads == [b"GET /1 HTTP/1.1", b"GET /2 HTTP/1.1"]
    assert case.relay.idle


def test_what_comes_behind_a_request_that_waits_is_bounded() -> None:
    case = Case()
    case.known = False
    case.client(get(more="Content-Length: 999999\r\n", method="POST"), b"x" * (MAX_HELD + 1))
    assert case.ends.held
    assert case.ends.asked == []
    case.known = True
    case.relay.go_on()
    assert not case.ends.held
    assert case.sent.endswith(b"x" * (MAX_HELD + 1))


@pytest.mark.parametrize("listed", [True, False])
def test_a_client_that_ends_while_its_request_waits(listed: bool) -> None:
    case = Case()
    case.known = False
    case.client(get(f"http://a.test/{'listed' * listed}"))
    case.relay.client_ended()
    assert case.ends.asked == []
    case.known = True
    case.relay.go_on()
    if not listed:
        case.server(ok())
    assert len(case.answers) == 1
    assert case.ends.asked[-1] == "close"


def test_a_client_that_ends_while_one_request_waits_behind_another() -> None:
    case = Case()
    case.known = False
    case.client(get("http://a.test/1") + get("http://a.test/2"))
    case.relay.client_ended()
    case.relay.go_on()
    assert case.ends.asked == [], "it is still not known"
    case.known = True
    case.relay.go_on()
    case.server(ok("1")).server(ok("2"))
    assert len(case.answers) == 2
    assert case.ends.asked[-1] == "close"


def test_a_connection_to_an_origin_that_ends_meanwhile() -> None:
    case = Case().client(get()).server(ok())
    case.known = False
    case.client(get("http://a.test/2"))
    case.relay.server_ended()
    case.known = True
    case.relay.go_on()
    assert case.ends.opened == [A, A]
    case.server(ok("2"))
    assert len(case.answers) == 2


def test_a_connection_that_rests_meanwhile_takes_nothing_that_is_not_sent_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("urlward.proxy.forward.perf_counter", lambda: now)
    case = Case().client(get()).server(ok())
    case.known = False
    now += FRESH + 1
    case.client(get(method="POST"))
    case.known = True
    case.relay.go_on()
    assert case.ends.judged_for[-1] == (A, False)


# -- Max-Forwards


@each_row(
    ("method", "value", "sent"),
    [
        ("TRACE", "1", "0"),
        ("OPTIONS", "0010", "9"),
        ("OPTIONS", "9" * 5000, str(10**9)),
        ("OPTIONS", "x", "x"),
        ("GET", "0", "0"),
    ],
)
def test_a_request_is_forwarded_so_often(method: str, value: str, sent: str) -> None:
    case = Case().client(get(more=f"max-forwards:  {value}\r\nX: 1\r\n", method=method))
    assert re.findall(rb"(?i)\r\nmax-forwards: *([^\r]*)\r\n", case.sent) == [sent.encode()]
    assert b"\r\nX: 1\r\n" in case.sent


@pytest.mark.parametrize("value", ["0", "000"])
def test_a_request_that_is_forwarded_no_further(value: str) -> None:
    secret = "Authorization: Basic eDp5\r\ncookie: a=b\r\nProxy-Authorization: Basic eDp5\r\n"
    case = Case().client(get("http://a.test/x", f"Max-Forwards: {value}\r\n{secret}X: 1\r\n", "TRACE"))
    head, _, body = case.ends.client.partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: message/http\r\n" in head
    assert body == get("http://a.test/x", f"Max-Forwards: {value}\r\nX: 1\r\n", "TRACE")
    case = Case().client(
        get(more=f"Max-Forwards: {value}\r\nContent-Length: 3\r\n", method="OPTIONS"), b"abc"
    )
    assert case.answers == [b"HTTP/1.1 200 OK"]
    assert (case.sent, case.ends.opened) == (b"", [])
    case = Case().client(get("http://a.test/listed", f"Max-Forwards: {value}\r\n", "TRACE"))
    assert case.answers == [b"HTTP/1.1 451 Unavailable For Legal Reasons"]


def test_requests_that_come_together_are_answered_by_turns() -> None:
    """Each takes time in which nobody else is served."""
    case = Case()
    case.ends.over = True
    case.client(get("http://a.test/listed") * 5)
    case.relay.client_ended()
    for done in range(1, 5):
        assert (len(case.answers), case.ends.asked) == (done, ["go on later"] * done)
        case.relay.read_on()
    assert (len(case.answers), case.ends.asked[-1]) == (5, "close")


def test_requests_by_turns_that_origins_answer() -> None:
    """A turn ends at an answer of ours, and a request behind it waits for its origin."""
    case = Case()
    case.ends.over = True
    case.client(get("http://a.test/listed") + get() + get("http://a.test/listed") + get())
    case.relay.client_ended()
    case.relay.read_on()
    case.server(ok())
    assert len(case.answers) == 3
    assert case.relay.head is None
    case.relay.read_on()
    assert "close" not in case.ends.asked
    case.server(ok())
    assert len(case.answers) == 4
    assert case.ends.asked[-1] == "close"
