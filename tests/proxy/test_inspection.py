"""Responses under inspection, in a relay without connections: none that is known arrives whole."""

import gzip
import re
from collections.abc import Mapping
from itertools import cycle
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import test_forward as forward
from proxy.test_relay import ENDED, PIECES, WEBSOCKET, Case, get, ok
from rows import each_row
from urlward.config import FilesTable
from urlward.files.body import BodySeen, Inspection, facts_of
from urlward.files.inspection import Hear, PictureFound
from urlward.proxy.block_page import BlockResponse, plain
from urlward.proxy.framing import Chunked
from urlward.proxy.head import ResponseHead
from urlward.proxy.relay import TAIL, Inspected, Pending

KNOWN = b"known " * 50_000
OTHER = b"other " * 50_000
PAGE = plain(451, "known", head=False)
SHOWN = b"Page"
"""Stands for the block page, which has the time in it."""
FOUND = PictureFound("list", 1, 5)


class Copy:
    def __init__(self, hear: Hear) -> None:
        self.hear = hear
        self.content = b""

    def write(self, content: bytes) -> None:
        self.content += content

    def end(self) -> None:
        """All has come."""

    drop = end


class Looking(Case):
    """A relay whose responses are inspected, and broken off where they are as long as what is known.

    Args:
        pictures: as in the configuration.
        known: bytes of another body that is.
    """

    def __init__(self, pictures: str = "off", known: int = 0) -> None:
        super().__init__()
        self.look(pictures, known)

    is_behind = False

    def look(self, pictures: str, known: int = 0) -> None:
        """Inspect what comes from now on."""
        self.known = {len(KNOWN), 5, known}
        self.table = FilesTable.model_validate({"types": ("*",), "pictures": pictures})
        self.responses: list[ResponseHead] = []
        self.copies: list[Copy] = []
        self.relay.inspect = self._inspect
        steps = cycle([*[False] * 31, True])  # as many in a turn as make a MiB
        self.ends.turn_is_over = lambda: next(steps)

    def _inspect(self, pending: Pending, head: ResponseHead) -> Inspected | None:
        assert pending.head is not None
        self.responses.append(head)
        facts = facts_of(head.status, head.fields, head.length)
        inspector = self if self.table.pictures != "off" else None
        return Inspection(facts, self.table, ("sha256",), self, inspector)

    def exact(self, digests: Mapping[str, bytes], seen: BodySeen) -> BlockResponse | None:
        return PAGE if seen.size in self.known else None

    so_far = exact

    def alike(self, found: PictureFound, seen: BodySeen) -> BlockResponse | None:
        return PAGE

    def offer(self, media: str, size: int | None, found: Hear, place: str) -> Copy:
        self.copies.append(Copy(found))
        return self.copies[-1]

    def close(self) -> None:
        """Nothing is open."""

    @property
    def got(self) -> bytes:
        """What the client has been sent, with `SHOWN` for the block page."""
        return _PAGE.sub(SHOWN, self.ends.client)

    def later(self) -> Self:
        """Turns come until nobody asks for one."""
        while "inspect later" in self.ends.asked:
            self.ends.asked.remove("inspect later")
            self.relay.inspect_on()
        return self

    def rested(self) -> Self:
        """Some time passes."""
        for _ in range(2):
            if self.ends.passes:
                self.ends.passes = False
                self.relay.pass_tail()
        return self


_PAGE = re.compile(rb"HTTP/1\.1 451 [^\0]*\r\n\r\nknown\n")


def response(content: bytes, framing: str = "counted", more: str = "", size: int = 1 << 13) -> bytes:
    head = f"HTTP/1.1 200 OK\r\n{more}"
    if framing == "counted":
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    if framing == "unbounded":
        return f"{head}\r\n".encode() + content
    chunks = [content[at : at + size] for at in range(0, len(content), size)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body + b"0\r\n\r\n"


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@each_row("framing", ["counted", "chunked", "unbounded"])
@each_row("size", [1000, 1 << 14, 1 << 16])
def test_what_is_known_is_broken_off_before_its_end(framing: str, size: int) -> None:
    data = response(KNOWN, framing)
    case = Looking().client(get()).server(*pieces(data, size))
    if framing == "unbounded":
        case.relay.server_ended()
    assert data.startswith(case.got)
    assert 0 < len(case.got) <= len(data) - TAIL
    assert case.ends.asked == ["connect", "break off", "close"]
    case.server(b"more")
    case.relay.server_ended()
    assert data.startswith(case.got)


@each_row("framing", ["counted", "chunked", "unbounded"])
@each_row("size", [1, 7, 1 << 14, 1 << 20])
def test_what_is_not_known_passes_as_it_came(framing: str, size: int) -> None:
    data = response(OTHER[:9999] if size < 1 << 10 else OTHER + b"!", framing)
    case = Looking().client(get()).server(*pieces(data, size))
    if framing == "unbounded":
        assert len(case.got) <= max(len(data) - TAIL, 0)
        case.relay.server_ended()
    assert case.got == data
    assert case.ends.asked == ["connect", *(ENDED if framing == "unbounded" else [])]


def test_only_the_last_bytes_wait() -> None:
    data = response(OTHER + b"!")
    case = Looking().client(get())
    sent = 0
    for piece in pieces(data[:-1], 1000):
        case.server(piece)
        sent += len(piece)
        assert len(case.got) > sent - TAIL - 1000
        assert len(case.got) <= max(sent - TAIL, 0)


def test_chunks_of_a_byte() -> None:
    data = response(b"12345", "chunked", size=1)
    assert Looking().client(get()).server(data).got == SHOWN


@pytest.mark.parametrize("size", [1, 1 << 13])
def test_nothing_is_kept_of_chunks_that_nobody_looks_at_any_more(size: int) -> None:
    """A response may go on for days, or for as many bytes as there is memory."""
    case = Looking()
    case.table = FilesTable.model_validate({"types": ("image/*",)})
    data = response(OTHER[:50_000], "chunked", size=size)
    case.client(get()).server(*pieces(data[:-5], 5000))
    assert case.got == data[:-5]
    body = case.relay._response
    assert isinstance(body, Chunked)
    assert not body.content
    assert case.server(data[-5:]).got == data


@each_row("framing", ["counted", "chunked", "unbounded"])
def test_the_block_page_where_nothing_has_left_yet(framing: str) -> None:
    case = Looking().client(get()).server(response(b"12345", framing))
    if framing == "unbounded":
        case.relay.server_ended()
    assert case.got == SHOWN
    assert case.ends.asked == ["connect", *ENDED]


def test_responses_before_one_that_is_known_arrive() -> None:
    case = Looking().client(get("/a") + get("/b") + get("/c")).server(ok() + response(b"12345") + ok())
    assert case.got == ok() + SHOWN
    assert case.ends.asked == ["connect", *ENDED]
    case = Looking().client(get("/a") + get("/b")).server(ok() + response(KNOWN))
    assert case.got == ok() + SHOWN


def test_responses_after_one_that_passes_follow() -> None:
    case = Looking().client(get("/a") + get("/b")).server(response(OTHER + b"!") + ok())
    assert case.got == response(OTHER + b"!") + ok()
    assert len(case.responses) == 2
    assert case.ends.asked == ["connect"]


def test_what_precedes_a_response_arrives_as_it_came() -> None:
    early = b"HTTP/1.1 103 Early\r\nLink: <x>\r\n\r\n"
    case = Looking().client(get()).server(early + response(b"12345"))
    assert case.got == early + SHOWN
    case = Looking().client(get()).server(early + b"\r\n" + ok())
    assert case.got == early + b"\r\n" + ok()


@each_row(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_what_has_no_body_is_not_inspected(method: str, answer: bytes) -> None:
    case = Looking().client(get(method=method)).server(answer)
    assert case.got == answer
    assert not case.responses
    case.client(get()).server(response(b"12345"))
    assert case.got == answer + SHOWN


@pytest.mark.parametrize("framing", ["counted", "chunked"])
def test_an_origin_that_ends_too_early(framing: str) -> None:
    """What of a file has come is judged as a file: a longer length than it has hides nothing."""
    data = response(b"12345" + b"!", framing)[: -1 if framing == "counted" else -8]
    case = Looking().client(get()).server(data)
    assert case.got == b""
    case.relay.server_ended()
    assert case.got == SHOWN
    data = response(OTHER + b"!", framing)[:-10]
    case = Looking().client(get()).server(data)
    case.relay.server_ended()
    assert case.got == data
    assert case.ends.asked == ["connect", *ENDED]


@pytest.mark.parametrize("as_tls", [True, False])
def test_an_origin_that_breaks_off_a_response_without_a_length(as_tls: bool) -> None:
    data = response(OTHER + b"!", "unbounded")
    case = Looking().client(get()).server(data)
    case.relay.server_broke(as_tls=as_tls)
    assert case.got == data
    assert case.ends.asked[-2] == ("reset as TLS" if as_tls else "reset")
    case = Looking().client(get()).server(response(b"12345", "unbounded"))
    case.relay.server_broke(as_tls=as_tls)
    assert case.got == SHOWN


def test_what_comes_before_chunks_that_are_none_is_judged() -> None:
    """Nobody knows when a client takes such a response for whole: its tail does not wait for the end."""
    data = response(OTHER + b"!", "chunked")[:-5] + b"no size\r\n"
    case = Looking().client(get()).server(*pieces(data, 5000))
    assert case.got == data
    assert case.server(OTHER).got == data + OTHER
    data = response(KNOWN, "chunked")[:-5] + b"no size\r\n"
    case = Looking().client(get()).server(*pieces(data, 5000))
    assert case.ends.asked[-1:] == ["close"]
    assert len(case.got) <= len(data) - TAIL


HEADS = [
    b"ICY 200 OK\r\n",
    b"HTTP/3.7 200 OK\r\n",
    b"HTTP/1.1 0200 OK\r\n",
    b"HTTP 200 OK\r\n",
    b"..\r\nHTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n",
]


@each_row("head", [*HEADS, b""])
@each_row("size", [700, 1 << 20])
@each_row("more", [b"", b"X\n\r\n" + b"y" * 20])
def test_behind_a_head_that_is_none_is_a_body(head: bytes, size: int, more: bytes) -> None:
    """As browsers see it, HTTP/0.9 included."""
    for content, is_known in ((KNOWN, True), (OTHER[:-1], False)):
        head, content = (head, content) if head else (b"", more + content[len(more) :])
        data = head + b"Content-Type: image/jpeg\r\n" * bool(head) + b"\r\n" * bool(head) + content
        case = Looking().client(get()).server(*pieces(data, size))
        case.relay.server_ended()
        if is_known:
            assert len(case.got) <= len(data) - TAIL
        else:
            assert case.got == data
        assert ("break off" in case.ends.asked or SHOWN in case.got) is is_known


@each_row("head", HEADS)
def test_what_such_a_head_says_of_its_body_counts(head: bytes) -> None:
    content = gzip.compress(KNOWN)
    head += b"Content-Encoding: gzip\r\n"
    for data in (
        head + b"\r\n" + content,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + response(content, "chunked").partition(b"\r\n\r\n")[2],
    ):
        case = Looking().client(get()).server(data)
        case.relay.server_ended()
        assert case.got == SHOWN


def test_a_client_that_asks_on_behind_such_a_head_has_got_it_all() -> None:
    for content, got in ((b"other", b"ICY 200 OK\r\n\r\nother"), (b"known"[:5], SHOWN)):
        case = Looking()
        if content == b"other":
            case.known = set()
        case.client(get()).server(b"ICY 200 OK\r\n\r\n" + content)
        assert case.got == b""
        case.client(get())
        assert case.got == got


CHUNKS = {
    "bare LF behind data": (b"%x\r\n", b"\n"),
    "two CRs": (b"%x\r\n", b"\r\r\n"),
    "bare LF behind size": (b"%x\n", b"\r\n"),
    "words": (b"%x zz\r\n", b"\r\n"),
    "16 KiB": (b"%x;" + b"a" * 16_000 + b"\r\n", b"\r\n"),
}


@each_row("how", CHUNKS)
@each_row("size", [5, 5_000])
def test_chunks_as_clients_bear_them(how: str, size: int) -> None:
    before, behind = CHUNKS[how]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for content, known in ((KNOWN, True), (OTHER[:-1], False)):
        sent = pieces(head, size)
        for each in pieces(content, 60_000):
            # What is far from a border comes as a whole: what else comes in small pieces is tried below.
            sent += pieces(before % len(each) + each[:50], size)
            sent += [each[50:-50], *pieces(each[-50:] + behind, size)]
        sent += pieces(b"0\r\n\r\n", size)
        case = Looking().client(get()).server(*sent)
        assert (case.got == b"".join(sent)) is not known
        assert ("break off" in case.ends.asked) is known


@pytest.mark.parametrize("size", [700, 1 << 20])
def test_chunks_that_are_none_from_the_beginning(size: int) -> None:
    """To Chromium there are none behind HTTP/1.0."""
    for content, known in ((KNOWN, True), (OTHER[:-1], False)):
        data = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + content
        case = Looking().client(get()).server(*pieces(data, size))
        case.relay.server_ended()
        assert (case.got == data) is not known
        assert ("break off" in case.ends.asked or SHOWN in case.got) is known


def test_a_body_that_takes_time_is_looked_at_in_turns() -> None:
    content = b"\0" * (6 << 20)
    data = response(gzip.compress(content), more="Content-Encoding: gzip\r\n")
    case = Looking(known=len(content)).client(get("/a") + get("/b")).server(data + ok())
    assert case.ends.asked == ["connect", "hold server", "inspect later"]
    case.relay.server_ended()
    assert case.got == b""
    assert case.later().got == SHOWN
    case = Looking().client(get("/a") + get("/b")).server(data + ok())
    assert case.later().got == data + ok()
    assert case.ends.asked[-1] == "go on with server"
    case.relay.server_ended()
    assert case.ends.asked[-3:] == ENDED


def test_what_comes_while_a_response_is_looked_at_waits() -> None:
    content = b"\0" * (6 << 20)
    data = response(gzip.compress(content), more="Content-Encoding: gzip\r\n")
    case = Looking().client(get("/a") + get("/b")).server(data[:-4], data[-4:], ok()[:5], ok()[5:])
    assert case.got == b""
    case.relay.server_ended()
    assert case.later().got == data + ok()
    assert case.ends.asked[-3:] == ENDED


def test_an_origin_is_read_on_when_the_end_of_a_body_comes_before_its_turn() -> None:
    data = response(gzip.compress(b"\0" * (3 << 19)), more="Content-Encoding: gzip\r\n")
    case = Looking().client(get("/a") + get("/b")).server(data[:-1])
    assert case.ends.asked == ["connect", "hold server", "inspect later"]
    case.server(data[-1:])
    assert case.got == data
    assert case.ends.asked[-1] == "go on with server"
    assert case.later().server(ok()).got == data + ok()


@pytest.mark.parametrize("size", [1_100_000, 3 << 19])
def test_the_origin_is_read_on_where_all_has_been_looked_at_before_its_turn(size: int) -> None:
    """The last look, at the end of the body, does what the first has left for a turn."""
    data = response(gzip.compress(bytes(size)), more="Content-Encoding: gzip\r\n")
    case = Looking().client(get("/a") + get("/b")).server(data)
    assert case.got == data
    assert case.ends.asked == ["connect", "hold server", "inspect later", "go on with server"]
    assert case.later().server(ok()).got == data + ok()


@pytest.mark.parametrize("framing", ["chunked", "unbounded"])
def test_what_an_origin_says_now_and_then_arrives(framing: str) -> None:
    more = "Content-Type: application/octet-stream\r\n"
    head = f"HTTP/1.1 200 OK\r\n{more}".encode()
    head += b"Transfer-Encoding: chunked\r\n\r\n" if framing == "chunked" else b"\r\n"
    said = b"5\r\nfirst\r\n", b"6\r\nsecond\r\n"
    case = Looking().client(get()).server(head + said[0])
    assert case.got == b""
    assert case.rested().got == head + said[0]
    assert case.server(said[1]).got == head + said[0]
    assert case.rested().got == head + b"".join(said)
    assert not case.ends.passes


def test_what_rests_is_broken_off_all_the_same() -> None:
    data = response(KNOWN, "chunked")
    case = Looking().client(get()).server(data[:1000]).rested()
    assert case.got == data[:1000]
    case.server(data[1000:])
    assert case.ends.asked == ["connect", "break off", "close"]
    assert len(case.got) <= len(data) - TAIL


@pytest.mark.parametrize("framing", ["chunked", "unbounded"])
def test_an_origin_that_rests_before_it_says_that_this_was_all(framing: str) -> None:
    data = response(KNOWN, framing)
    case = Looking().client(get()).server(*pieces(data.removesuffix(b"0\r\n\r\n"), 1 << 14))
    begun = case.got
    assert case.rested().got == begun
    assert len(begun) <= len(data) - TAIL
    assert case.ends.asked == ["connect", "break off", "close"]
    assert not case.ends.passes


def test_what_goes_on_does_not_rest() -> None:
    case = Looking().client(get()).server(response(OTHER, "chunked")[:1000])
    case.ends.passes = False
    case.server(b"x")
    case.relay.pass_tail()
    assert (case.got, case.ends.passes) == (b"", True)
    case.relay.pass_tail()
    assert case.got


def test_the_last_bytes_wait_however_long_they_take() -> None:
    data = response(KNOWN)
    case = Looking().client(get())
    case.server(data[:-TAIL])
    for _ in range(3):
        case.relay.pass_tail()
    assert len(case.got) <= len(data) - TAIL * 2
    case = Looking().client(get()).server(data[: -TAIL - 1]).rested()
    assert case.got == data[: -TAIL - 1], "these are not the last"


def test_a_client_that_is_slow_does_not_get_the_end() -> None:
    case = Looking().client(get()).server(response(OTHER + b"!", "chunked")[:-5])
    begun = case.got
    case.ends.behind = True
    for _ in range(3):
        case.relay.pass_tail()
    assert case.got == begun
    case.ends.behind = False
    assert case.rested().got == response(OTHER + b"!", "chunked")[:-5]


@each_row("size", [1, 5, 80, 300])
def test_what_comes_in_small_pieces_goes_on(size: int) -> None:
    """Such as live sound, which never rests: the last bytes wait, and no more."""
    case, data = Looking().client(get()), response(OTHER, "unbounded")[: 4 * TAIL]
    for at, piece in enumerate(pieces(data, size)):
        case.server(piece)
        assert (at + 1) * size - len(case.got) < TAIL + 100 * size
    assert data.startswith(case.got)


def test_what_waits_byte_by_byte_is_no_more_than_the_tail() -> None:
    case = Looking().client(get()).server(*pieces(response(OTHER)[:20_000], 1))
    assert len(case.relay._tail) == TAIL
    assert case.rested().got == response(OTHER)[:20_000]


PICTURE = b"\xff\xd8\xff" + b"p" * (1 << 16)


@each_row("known", [True, False])
@each_row("framing", ["counted", "chunked", "unbounded"])
def test_a_picture_waits_for_what_is_found(framing: str, known: bool) -> None:
    data = response(PICTURE, framing)
    case = Looking("cut").client(get("/a") + get("/b"))
    case.server(*pieces(data + (ok() if framing != "unbounded" else b""), 1 << 14))
    if framing == "unbounded":
        case.relay.server_ended()
    begun = case.got
    assert data.startswith(begun)
    assert 0 < len(begun) <= len(data) - TAIL
    assert case.copies[0].content == PICTURE
    assert case.ends.asked[-1] == "hold server"
    case.copies[0].hear(FOUND if known else None)
    assert case.got == begun, "not in whatever turn the answer comes in"
    case.later()
    if known:
        assert case.got == begun
        assert case.ends.asked[-2:] == ["break off", "close"]
    else:
        assert case.got == data + (ok() if framing != "unbounded" else b"")
        assert case.ends.asked[-4 if framing == "unbounded" else -1] == "go on with server"


def test_a_live_picture_is_cut_at_once() -> None:
    case = Looking("cut").client(get())
    head = b"HTTP/1.1 200 OK\r\n\r\n\x1a\x45\xdf\xa3"
    case.server(head + b"v" * (1 << 16), b"v" * (1 << 16))
    begun = case.got
    assert begun
    case.copies[0].hear(FOUND)
    case.later().server(b"v" * (1 << 16))
    assert case.got == begun
    assert case.ends.asked == ["connect", "break off", "close"]


def test_what_is_only_told_holds_nothing_up() -> None:
    case = Looking("alert").client(get()).server(response(PICTURE))
    assert case.got == response(PICTURE)
    case.copies[0].hear(FOUND)
    assert case.ends.asked == ["connect"]
    case.client(get("/b")).server(ok())
    assert case.got == response(PICTURE) + ok()


class Forwarding(forward.Case, Looking):
    """The same of an explicit proxy."""

    def __init__(self, pictures: str) -> None:
        forward.Case.__init__(self)
        self.look(pictures)


@pytest.mark.parametrize("ends", [True, False])
def test_a_connection_that_has_ended_meanwhile_is_not_kept(ends: bool) -> None:
    case = Forwarding("cut").client(forward.get("http://a.test/"))
    case.server(response(PICTURE))
    if ends:
        case.relay.server_ended()
    case.client(forward.get("http://b.test/"))
    assert [each.host for each in case.ends.opened] == ["a.test"]
    case.copies[0].hear(None)
    case.later()
    assert case.ends.client == forward.via(response(PICTURE))
    assert [each.host for each in case.ends.opened] == ["a.test", "b.test"]
    assert [each.host for each in case.ends.kept] == ([] if ends else ["a.test"])
    assert case.server(ok()).ends.client == forward.via(response(PICTURE)) + forward.via(ok())


def test_a_client_that_leaves_waits_for_nothing() -> None:
    case = Looking("cut").client(get()).server(response(PICTURE))
    case.relay.closed()
    case.server(b"more")
    case.copies[0].hear(FOUND)
    case.later()
    assert case.got == b""
    assert "break off" not in case.ends.asked


def test_what_is_inspected_is_let_go_of() -> None:
    """Neither holds the other, so that both are freed at once."""
    case = Looking("cut").client(get()).server(response(PICTURE))
    inspection: Any = case.relay._inspection
    case.copies[0].hear(None)
    case.later()
    assert case.relay._inspection is None
    assert not hasattr(inspection.changed, "__self__")


# -- the invariant

PARTS = st.sampled_from(
    [
        ok(),
        ok("x" * 400),
        ok("x" * 40_000),
        response(OTHER, "chunked")[:30_000],
        response(b"12345678" * 100, "chunked", size=3),
        response(gzip.compress(bytes(3 << 20)), more="Content-Encoding: gzip\r\n"),
        response(b"not gzip" * 100, more="Content-Encoding: gzip\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-5/9\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"x" * 40,
        b"x" * 20_000,
        b"\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"",
    ]
)


ASKED = PIECES.filter(lambda piece: piece != WEBSOCKET)
"""What is behind a refused upgrade is read while its response comes, and answered by whether that has."""


def played(case: Case, steps: list[tuple[str, bytes]]) -> tuple[bytes, bytes, list[str], list[str]]:
    """What comes of what is sent: to the client, to the origin, and asked of the connections."""
    for side, piece in steps:
        if side == "client":
            case.client(piece)
        elif piece:
            case.server(piece)
        else:
            case.relay.server_ended()
        if isinstance(case, Looking):
            case.later()
            if len(piece) % 2:
                case.rested()
    case.relay.server_ended()
    asked = [each for each in case.ends.asked if each not in ("hold server", "go on with server")]
    return re.sub(rb"Date: [^\r]*", b"", case.ends.client), case.ends.server, asked, case.ends.refusals


FORWARDED = st.sampled_from(
    [
        forward.get("http://a.test/1"),
        forward.get("http://b.test:8080/2"),
        forward.get("http://a.test/listed"),
        forward.get("http://a.test/3", "Content-Length: 5\r\n", "POST"),
        forward.get("http://a.test/4", minor=0),
        forward.get("http://a.test/5", "Connection: close\r\n"),
        forward.get("http://a.test/6", method="HEAD"),
        b"hello",
        b"GET ",
        b"\r\n",
    ]
)


def is_the_same(unseen: tuple[bytes, bytes, list[str], list[str]], seen: tuple[Any, ...]) -> bool:
    """Whether what came is; of what is broken off for another reason, the tail is lost."""
    tail = unseen[0][len(seen[0]) :] if unseen[3] else b""
    return (seen[0] + tail, *seen[1:]) == unseen and len(tail) <= TAIL + 40_000


@given(
    st.lists(st.one_of(ASKED.map(lambda p: ("client", p)), PARTS.map(lambda p: ("server", p))), max_size=14)
)
def test_whoever_looks_changes_nothing_of_what_is_not_known(steps: list[tuple[str, bytes]]) -> None:
    looking = Looking()
    looking.known = {-1}
    assert is_the_same(played(Case(), steps), played(looking, steps))


@given(
    st.lists(
        st.one_of(FORWARDED.map(lambda p: ("client", p)), PARTS.map(lambda p: ("server", p))), max_size=14
    )
)
def test_nor_of_what_an_explicit_proxy_sends_on(steps: list[tuple[str, bytes]]) -> None:
    looking, plain = Forwarding("off"), forward.Case()
    looking.known = {-1}
    assert is_the_same(played(plain, steps), played(looking, steps))
    assert looking.sent == plain.sent
    assert (looking.ends.opened, looking.ends.kept) == (plain.ends.opened, plain.ends.kept)
