from hypothesis import given
from hypothesis import strategies as st

from urlward.dns.wire import StreamMessages, framed


@given(st.lists(st.binary(max_size=400), max_size=8), st.lists(st.integers(1, 50), max_size=40))
def test_messages_come_out_as_they_went_in(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(framed, messages))
    reader, got, at = StreamMessages(), [], 0
    for size in (*cuts, len(stream) + 1):
        got += reader.feed(stream[at : at + size])
        at += size
    assert got == messages
    assert not reader.begun


def test_what_has_begun() -> None:
    reader = StreamMessages()
    assert list(reader.feed(b"\0\2x")) == []
    assert reader.begun
    assert list(reader.feed(b"y\0")) == [b"xy"]
    assert reader.begun


def test_messages_are_made_when_they_are_asked_for() -> None:
    reader = StreamMessages()
    reader.add(framed(b"x") * 100_000)
    assert reader.take() == b"x"
    reader.add(b"\0")
    assert reader.whole
    assert len(list(reader.feed(b"\1y"))) == 100_000
    assert not reader.whole
    assert not reader.begun
