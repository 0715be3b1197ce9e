import io

from rows import each_row
from urlward.engine.grammar import MAX_LINE
from urlward.lists.formats.format import MAX_LINE_BYTES, Skipped, SourceStream, stream_of, text_lines


def test_the_mark_is_taken_off_and_the_file_stays_open() -> None:
    file = io.BytesIO(b"\xef\xbb\xbf \n[1]")
    stream = SourceStream(file)
    assert stream.first() == b"["
    assert stream.read() == b" \n[1]"
    assert stream_of(stream) is stream
    stream.close()
    assert not file.closed


@each_row("data", [b"", b"a", b"a\n", b"a\nb", b"\n" * 200_000])
def test_what_was_read(data: bytes) -> None:
    stream = SourceStream(io.BytesIO(data))
    stream.read()
    assert stream.done == len(data)
    assert stream.ends_with_newline is data.endswith(b"\n")


def test_a_mark_alone_is_an_empty_file() -> None:
    assert SourceStream(io.BytesIO(b"\xef\xbb\xbf")).peek(1) == b""


def test_text_lines_are_numbered_without_comments_and_ends() -> None:
    data = b"# caf\xe9\n\n  a \r\n  # b\nc # d\n\x85"
    assert list(text_lines(io.BytesIO(data), (b"#",))) == [
        (3, "  a"), (5, "c # d"), Skipped(6, 1, "not UTF-8"),
    ]  # fmt: skip


def test_white_space_that_is_no_ascii_is_blank() -> None:
    assert list(text_lines(io.BytesIO("\u00a0\u2003\n".encode()), (b"#",))) == []


@each_row("size", [MAX_LINE_BYTES - 1, MAX_LINE_BYTES, 3 * MAX_LINE_BYTES])
def test_a_line_that_is_too_long_is_one(size: int) -> None:
    first, second = text_lines(io.BytesIO(b"a" * size + b"\nb\n"), (b"#",))
    assert isinstance(first, Skipped)
    assert (first.line, first.column) == (1, MAX_LINE)
    assert second == (2, "b")
