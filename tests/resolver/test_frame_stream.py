"""Frame Streams, and the few fields of dnstap's messages."""

import struct
from contextlib import suppress
from itertools import pairwise

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.dnstap_support import (
    ACCEPT,
    FINISH,
    READY,
    READY_FRAME,
    START,
    START_FRAME,
    STOP,
    control,
    data_frame,
    field,
    tapped,
    varint,
)
from rows import each_row
from urlward.dns.dnstap import (
    CLIENT_RESPONSE,
    CONTENT_TYPE,
    FORWARDER_RESPONSE,
    MOST_FRAME,
    RESOLVER_RESPONSE,
    FrameStream,
    Tapped,
    read_tapped,
)
from urlward.engine.errors import UrlwardError

MESSAGE = dns.message.make_response(dns.message.make_query("a.example", "A")).to_wire()
TALK = (
    READY_FRAME
    + START_FRAME
    + data_frame(b"one")
    + data_frame(b"two" * 1000)
    + data_frame(b"3")
    + control(STOP)
)


def fed(data: bytes, *cuts: int) -> tuple[list[bytes], bytes, FrameStream]:
    """Frames and replies of a stream that comes in pieces."""
    stream, found = FrameStream(), []
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for begin, end in pairwise(ends):
        found += stream.feed(data[begin:end])
    return found, stream.reply, stream


@given(st.lists(st.integers(0, len(TALK)), max_size=30))
def test_a_stream_in_any_pieces(cuts: list[int]) -> None:
    frames, reply, stream = fed(TALK, *cuts)
    assert frames == [b"one", b"two" * 1000, b"3"]
    assert reply == control(ACCEPT, CONTENT_TYPE) + control(FINISH)
    assert stream.started
    assert stream.ended


@each_row(
    ("data", "said"),
    [
        (data_frame(b"x"), "none is expected"),
        (READY_FRAME + data_frame(b"x"), "none is expected"),
        (START_FRAME, "bidirectional"),
        (READY_FRAME + READY_FRAME, "none is expected"),
        (READY_FRAME + START_FRAME + START_FRAME, "none is expected"),
        (READY_FRAME + control(STOP), "none is expected"),
        (READY_FRAME + START_FRAME + control(STOP) + data_frame(b"x"), "none is expected"),
        (READY_FRAME + START_FRAME + control(STOP) + control(STOP), "none is expected"),
        (control(READY, b"protobuf:other"), "something else"),
        (READY_FRAME + control(START), "something else"),
        (READY_FRAME + control(START, b"protobuf:other"), "something else"),
        (READY_FRAME + START_FRAME + (MOST_FRAME + 1).to_bytes(4), "bytes"),
        (struct.pack(">II", 0, 513), "513 bytes"),
        (struct.pack(">II", 0, 3), "3 bytes"),
        (struct.pack(">IIII", 0, 8, READY, 1), "ends early"),
        (struct.pack(">IIIII", 0, 12, READY, 1, 9), "ends early"),
        (struct.pack(">IIIII", 0, 12, READY, 2, 0), "not known"),
        (control(99), "none is expected"),
        (b"GET / HTTP/1.1\r\n\r\n", "none is expected"),
    ],
)
def test_what_is_no_stream(data: bytes, said: str) -> None:
    with pytest.raises(UrlwardError, match=said):
        fed(data)


def test_several_types_or_none_are_offered() -> None:
    for ready in control(READY, b"protobuf:other", CONTENT_TYPE), control(READY):
        assert fed(ready)[1] == control(ACCEPT, CONTENT_TYPE)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_waited_for(data: bytes) -> None:
    with suppress(UrlwardError):
        list(FrameStream().feed(data))
    stream = FrameStream()
    assert not list(stream.feed(READY_FRAME + START_FRAME))
    with suppress(UrlwardError):
        list(stream.feed(data))


@each_row("kind", [CLIENT_RESPONSE, RESOLVER_RESPONSE, FORWARDER_RESPONSE])
def test_responses(kind: int) -> None:
    assert read_tapped(tapped(MESSAGE, kind)) == Tapped(kind, MESSAGE, "")
    zone = "" if kind == CLIENT_RESPONSE else "sub.example"
    assert read_tapped(tapped(MESSAGE, kind, "Sub.Example.")) == Tapped(kind, MESSAGE, zone)
    assert read_tapped(tapped(MESSAGE, kind, ".")) == Tapped(kind, MESSAGE, "")


@each_row("kind", [1, 2, 3, 5, 7, 9, 10, 13, 14, 99, 2**64 - 1])
def test_other_messages(kind: int) -> None:
    assert read_tapped(tapped(MESSAGE, kind)) is None


def test_a_query_alone() -> None:
    assert read_tapped(field(15, 1) + field(14, field(1, CLIENT_RESPONSE) + field(10, MESSAGE))) is None


def test_the_last_of_several_counts_and_others_are_passed_over() -> None:
    others = field(2, 3) + field(3, 2**64 - 1) + field(2**28, b"x" * 300) + varint(70 << 3 | 1) + bytes(8)
    inner = (
        others + field(14, b"first") + field(1, 5) + field(1, CLIENT_RESPONSE) + field(14, MESSAGE) + others
    )
    assert read_tapped(others + field(14, inner) + field(15, 1)) == Tapped(CLIENT_RESPONSE, MESSAGE, "")


@each_row(
    "frame",
    [
        field(15, 1),
        field(14, field(1, 6)),
        field(15, 2) + field(14, field(1, 6)),
        field(15, b"\1") + field(14, field(1, 6)),
        field(15, 1) + field(14, 1),
        field(15, 1) + field(14, b""),
        field(15, 1) + field(14, field(1, b"\6")),
        field(15, 1) + field(14, field(1, 6) + field(14, 5)),
        field(15, 1) + field(14, field(1, 4) + field(14, MESSAGE) + field(11, b"\3ab")),
        field(15, 1) + field(14, field(1, 4) + field(14, MESSAGE) + field(11, b"\xc0\x00")),
        field(15, 1) + field(14, field(1, 6) + field(14, MESSAGE)[:-1]),
        field(0, 1),
        varint(1 << 3 | 3),
        varint(1 << 3 | 7),
        varint(1 << 3 | 5) + b"abc",
        varint(1 << 3 | 1) + b"abcdefg",
        b"\x08" + b"\xff" * 11,
        b"\x08\xff",
        b"\x0a\x05abc",
        field(2, 1) * 100 + field(15, 1) + field(14, field(1, 6) + field(14, MESSAGE)),
        field(15, 1) + field(14, field(2, 1) * 100 + field(1, 6) + field(14, MESSAGE)),
    ],
    ids=range(21),  # a message has an id that is another in each process
)
def test_what_is_no_message(frame: bytes) -> None:
    with pytest.raises(UrlwardError):
        read_tapped(frame)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_message(data: bytes) -> None:
    with suppress(UrlwardError):
        read_tapped(data)


@given(st.data())
def test_a_damaged_message(data: st.DataObject) -> None:
    frame = bytearray(tapped(MESSAGE, RESOLVER_RESPONSE, "example."))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with suppress(UrlwardError):
        read_tapped(bytes(frame[: data.draw(st.integers(0, len(frame)))]))


def test_control_kinds_are_those_of_the_format() -> None:
    assert (ACCEPT, START, STOP, READY, FINISH) == (1, 2, 3, 4, 5)
