"""Byte stream of a source: without byte order mark, in lines of bounded length."""

import io
from collections.abc import Buffer, Iterator
from typing import BinaryIO

from urlward.encoding import BOM
from urlward.engine.grammar import MAX_LINE
from urlward.lists.formats.format import Skipped

MAX_LINE_BYTES = 4 * MAX_LINE
"""A line's bytes are cut here; nothing that is read as an entry is as long."""

TOO_LONG = f"line is longer than {MAX_LINE} characters"
NOT_UTF8 = "not UTF-8"

_BUFFER = 1 << 16


class SourceStream(io.BufferedReader):
    """Stream of a source file, with a look ahead; closing it leaves the file open.

    Args:
        file: what to read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._counted = _Counted(file)
        super().__init__(self._counted, _BUFFER)
        if self.peek(len(BOM)).startswith(BOM):
            self.read(len(BOM))

    @property
    def done(self) -> int:
        """Number of bytes read of the file."""
        return self._counted.done

    @property
    def ends_with_newline(self) -> bool:
        """Whether the bytes read so far end a line."""
        return self._counted.last == b"\n"

    def first(self) -> bytes:
        """First byte that is no white space, of those in the buffer."""
        return self.peek(1).lstrip()[:1]


class _Counted(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.done = 0
        self.last = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        data = self._file.read(len(view))
        if data:
            view[: len(data)] = data
            self.done += len(data)
            self.last = data[-1:]
        return len(data)


def stream_of(file: BinaryIO) -> SourceStream:
    """Wrap a file as a `SourceStream`, which it may be already."""
    return file if isinstance(file, SourceStream) else SourceStream(file)


def cut_lines(file: BinaryIO) -> Iterator[bytes]:
    """Iterate over lines, each cut at `MAX_LINE_BYTES`, so that a file without any stays small in memory."""
    while raw := file.readline(MAX_LINE_BYTES):
        if len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
            rest = raw
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE_BYTES)
            raw += rest[-1:]
        yield raw


def text_lines(file: BinaryIO, comments: tuple[bytes, ...]) -> Iterator[tuple[int, str] | Skipped]:
    """Iterate over numbered lines without white space behind, but for those that are blank or comments.

    Args:
        file: a source.
        comments: what a comment begins with; its encoding does not matter.
    """
    for number, raw in enumerate(cut_lines(stream_of(file)), 1):
        if raw.startswith(comments) or raw.isspace():
            continue
        if len(raw) >= MAX_LINE_BYTES:
            yield Skipped(number, MAX_LINE, TOO_LONG)
            continue
        try:
            text = raw.decode().rstrip()
        except UnicodeDecodeError as e:
            yield Skipped(number, len(raw[: e.start].decode()) + 1, NOT_UTF8)
            continue
        if text and not text.lstrip().encode().startswith(comments):
            yield number, text
