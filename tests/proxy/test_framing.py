import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.proxy.framing import Body, Chunked, Counted, FramingError, Unbounded


def ends(body: Body, data: bytes, size: int) -> int:
    """Where a body ends in what comes in pieces of a size, or -1."""
    position = 0
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        position = body.feed(piece, 0)
        if body.done:
            return start + position
        assert position == len(piece)
    return -1


@given(st.integers(1, 40), st.integers(1, 10), st.integers(0, 10))
def test_counted(length: int, size: int, more: int) -> None:
    assert ends(Counted(length), b"x" * (length + more), size) == length
    assert ends(Counted(length), b"x" * (length - 1), size) == -1


def test_those_without_an_end_or_a_beginning() -> None:
    assert (Unbounded().feed(b"abc", 1), Unbounded().done) == (3, False)
    assert (Counted(0).feed(b"abc", 1), Counted(0).done) == (1, True)


CHUNKS = st.lists(st.binary(min_size=1, max_size=20), max_size=5)
EXTENSIONS = st.sampled_from([b"", b";a", b" ; a=b", b';a="b c";d = e'])
TRAILERS = st.sampled_from([b"", b"X: y\r\n", b"X:\r\nY: z\r\n"])


@given(CHUNKS, EXTENSIONS, TRAILERS, st.integers(1, 30), st.binary(max_size=9))
def test_chunked(chunks: list[bytes], extension: bytes, trailers: bytes, size: int, more: bytes) -> None:
    data = b"".join(b"%X%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    data += b"000" + extension + b"\r\n" + trailers + b"\r\n"
    for lenient in (False, True):
        body = Chunked(lenient=lenient)
        body.content = []
        assert ends(body, data + more, size) == len(data)
        assert b"".join(body.content) == b"".join(chunks)
        assert ends(Chunked(lenient=lenient), data + more, size) == len(data)
        assert ends(Chunked(lenient=lenient), data[:-1], size) == -1


BAD = [
    b"\r\n",
    b"x\r\n",
    b"-1\r\n",
    b"0x1\r\n",
    b"1\n",
    b"1\r\r\n",
    b" 1\r\n",
    b"1 \r\n",
    b"1_0\r\n",
    b"\xef\xbc\x91\r\n",
    b"1;a\x00\r\n",
    b"1;a\rb\r\n",
    b"1" * 16 + b"\r\n",
    b"80000000\r\n",
    b"100000001\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\nx: y\r\nhost: a.test\r\n\r\n",
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"0\r\nContent_Length: 5\r\n\r\n",
    b"0\r\nX: /listed HTTP/1.1\r\n\r\n",
    b"0\r\nx: y\r\nX-Forwarded-Host: a.test\r\n\r\n",
    b"0\r\nx_original_url: /listed\r\n\r\n",
    b"1\r\nab\r\n",
    b"1\r\na\n",
    b"1\r\na\rb",
    b"1;\r\na\r\n0\r\n\r\n",
    b"3c; /listed HTTP/1.1\r\n",
    b"3c;a=/listed HTTP/1.1\r\n",
    b'3c;a="b" /listed HTTP/1.1\r\n',
    b"0\r\nbad trailer\r\n\r\n",
    b"0\r\n folded: x\r\n\r\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\n\n",
    b"1;" + b"a" * 10_000,
    b"0" * 10_000,
    b"0\r\n" + b"X: y\r\n" * 20_000,
]


@each_row("data", BAD, ids=range(len(BAD)))
def test_what_two_readers_could_end_elsewhere(data: bytes) -> None:
    for size in (1, 5, 1 << 20):
        with pytest.raises(FramingError):
            assert ends(Chunked(), data, size) == -1


@pytest.mark.parametrize("data", [b"80000000\r\n", b"0\r\nContent-Length: 5\r\n\r\n"])
def test_what_frames_nothing_is_borne_in_responses(data: bytes) -> None:
    assert ends(Chunked(lenient=True), data, 5) == (len(data) if data.startswith(b"0") else -1)


def test_what_is_borne_in_responses() -> None:
    for data in (
        b" 1\r\na\r\n0\r\n\r\n",
        b"1  \r\na\r\n0 \r\n\r\n",
        b"1\na\n0\n\n",
        b"1 x\r\na\r\r\n0\r\nX: y\n\r\n",
        b"1;" + b"a" * 16_000 + b"\r\na\r\n0\r\n\r\n",
        b"\r\n\n\r\n1\r\na\r\n\r\n\r\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1\r\na\r0x0\r\n\r\n",
        b"\x0b+0X01\r\na\r\n+0\r\n\r\n",
    ):
        for size in (1, 3, len(data)):
            body = Chunked(lenient=True)
            body.content = []
            assert ends(body, data, size) == len(data)
            assert b"".join(body.content) == b"a"
