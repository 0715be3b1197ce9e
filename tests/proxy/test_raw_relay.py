from hashlib import sha256

import pytest

from e2e.support import client_hello
from proxy.test_relay import Ends
from rows import each_row
from urlward.proxy.names import Names
from urlward.proxy.raw_relay import RawRelay


def test_a_raw_relay() -> None:
    ends = Ends()
    relay = RawRelay(ends, Names(("a.test",), (443,), "", ""))
    relay.client_data(b"a")
    relay.server_data(b"b")
    assert (ends.server, ends.client) == (b"a", b"b")
    relay.server_ended()
    relay.client_data(b"c")
    relay.client_ended()
    assert (ends.server, ends.asked) == (b"ac", ["end client", "close"])


def test_what_came_before_the_connection() -> None:
    ends = Ends()
    relay = RawRelay(ends, Names(("a.test",), (443,), "", ""), b"early")
    relay.connected()
    relay.connected()
    assert (ends.server, relay.endless, relay.idle, relay.head) == (b"early", True, False, None)
    relay.not_connected()
    assert ends.asked == ["close"]


HELLO, OTHER = client_hello("plain.example"), client_hello("other.example")
SPEC, EARLY = b"\x14\3\3\0\1\1", b"\x17\3\3\0\5early"
RETRY = b"\x16\3\3\0\x58\2\0\0\x54\3\3" + sha256(b"HelloRetryRequest").digest() + bytes(52)
ANSWER = b"\x16\3\3\0\x58\2\0\0\x54\3\3" + bytes(range(32)) + bytes(52)
EXCHANGE = b"\x16\3\3\0\6\x10\0\0\2ab"


def tls(*pieces: bytes | str) -> Ends:
    """What becomes of a relayed TLS connection; what the origin says stands in text."""
    ends = Ends()
    relay = RawRelay(ends, Names(("plain.example",), (443,), "", "", tls=True), HELLO)
    relay.connected()
    assert ends.server == HELLO
    for piece in pieces:
        if "close" in ends.asked:
            break
        if isinstance(piece, str):
            relay.server_data(piece.encode("latin-1"))
        else:
            relay.client_data(piece)
    return ends


def said(data: bytes) -> str:
    return data.decode("latin-1")


@each_row(
    "pieces",
    [
        (said(RETRY), OTHER),
        (said(RETRY), SPEC, EARLY, OTHER),
        (SPEC + EARLY + OTHER, said(RETRY)),
        (OTHER,),
        *((said(RETRY), *(OTHER[i : i + size] for i in range(0, len(OTHER), size))) for size in (1, 7, 100)),
        (said(RETRY), OTHER[:5], OTHER[5:]),
        (said(RETRY[:20]), said(RETRY[20:]), SPEC + OTHER),
        (said(RETRY), b"\x16\3\3\0\0" + OTHER),
        (said(RETRY), HELLO[:3] + (len(HELLO + OTHER) - 10).to_bytes(2) + HELLO[5:] + OTHER[5:]),
    ],
)
def test_a_second_hello_for_another_server_does_not_pass(pieces: tuple[bytes | str, ...]) -> None:
    ends = tls(*pieces)
    assert (ends.asked, ends.refusals) == (["close"], ["peek"])
    assert b"other.example" not in ends.server


@each_row("answer", [b"HTTP/1.0 200 OK\r\n\r\nlisted", b"listed", b"\x17\3\3\0\1a", b"H", b"\0"])
@each_row("more", [(), (HELLO,)])
def test_an_answer_that_is_none_of_tls_does_not_pass(answer: bytes, more: tuple[bytes, ...]) -> None:
    ends = tls(*more, said(answer), said(b"\x16 more"))
    assert (ends.client, ends.asked, ends.refusals) == (b"", ["close"], ["peek"])


@pytest.mark.parametrize(
    "pieces", [(b"\xff", b"GET /listed HTTP/1.1\r\n"), (b"\xffG", b"ET ", b"/listed\r\n")]
)
def test_a_request_behind_other_bytes_does_not_pass(pieces: tuple[bytes, ...]) -> None:
    ends = Ends()
    relay = RawRelay(ends, Names(("a.test",), (80,), "", ""), pieces[0])
    relay.connected()
    for piece in pieces[1:]:
        relay.client_data(piece)
    assert (ends.asked, ends.refusals) == (["close"], ["peek"])
    assert b"/listed" not in ends.server


@each_row(
    "pieces",
    [
        (said(RETRY), SPEC, HELLO, EARLY),
        (SPEC + EARLY, said(RETRY), HELLO + EARLY),
        (said(ANSWER), SPEC, EARLY * 3),
        (said(ANSWER), EXCHANGE, SPEC, EARLY),
        (EARLY * 5, said(ANSWER), OTHER),
        (EXCHANGE[:2], said(b"\x15\3\3\0\2\2\x28"), EXCHANGE[2:]),
        (b"whatever", said(b"\x16whatever"), b"\x16 more"),
    ],
)
def test_whatever_else_comes_passes_as_it_came(pieces: tuple[bytes | str, ...]) -> None:
    for size in (1, 3, 1 << 20):
        cut = [piece[i : i + size] for piece in pieces for i in range(0, len(piece), size)]
        ends = tls(*cut)
        assert ends.asked == []
        assert ends.server == HELLO + b"".join(piece for piece in pieces if isinstance(piece, bytes))
        assert ends.client == "".join(piece for piece in pieces if isinstance(piece, str)).encode("latin-1")
