"""The bytes of a log: from a file or standard input, decompressed, cut into blocks of whole lines."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, Self

from urlward.gateway.lab.errors import LabError
from urlward.gateway.lab.replay_lines import MOST_LINES
from urlward.lists.decoders import DAMAGED, Decoder, decoder_for

BLOCK = 1 << 18
"""Bytes of a block at most, and of a line; few enough that what a block is cut into stays in a cache."""

HEAD = 1 << 16
"""Bytes that a log's kind is told by."""

_CHUNK = 1 << 18
_OTHERS = {b"BZh": "bzcat", b"\xfd7zXZ": "xzcat", b"PK\3\4": "unzip -p", b"\x04\x22\x4d\x18": "lz4cat"}


class Source:
    """A log as bytes, whatever it is compressed with.

    Args:
        path: of the file; ``-`` is standard input.

    Attributes:
        name: for messages to who named it.
        size: of the file in bytes; 0 where that is not known.
        consumed: bytes of it read so far.
        trouble: why it could not be read to its end, or empty.

    Raises:
        LabError: not readable, or compressed with something else than gzip or zstd.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard input" if str(path) == "-" else str(path)
        self.consumed = 0
        self.trouble = ""
        self._new: Callable[[], Decoder] | None = None
        self._decoder: Decoder | None = None
        try:
            self._file = _open(path)
            status = os.fstat(self._file.fileno())
        except (OSError, ValueError) as e:
            raise LabError(f"{self.name}: {getattr(e, 'strerror', None) or e}") from e
        self.may_reopen = stat.S_ISREG(status.st_mode) and str(path) != "-"
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        self._ahead = b""
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def peek(self) -> bytes:
        """The first `HEAD` bytes, or all where it has fewer; before anything is read."""
        while len(self._ahead) < HEAD and (more := self._next(HEAD)):
            self._ahead += more
        return self._ahead[:HEAD]

    def read(self, size: int = BLOCK) -> bytes:
        """So many bytes at most; empty at the end.

        Raises:
            LabError: the system does not give them.
        """
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._next(size)

    def _begin(self) -> None:
        raw = b""
        while len(raw) < 6 and (more := self._raw(_CHUNK)):
            raw += more
        for magic, program in _OTHERS.items():
            if raw.startswith(magic):
                raise LabError(
                    f"{self.name}: neither text nor gzip nor zstd; try: {program} FILE | … replay -"
                )
        self._first = raw
        self._new = decoder_for(raw)
        if self._new is None:
            self._ahead = raw
        else:
            self._decoder = self._new()

    def _next(self, size: int) -> bytes:
        if self._new is None or self._decoder is None:
            return self._raw(size)
        while not self.trouble:
            data = b""
            if self._first:
                data, self._first = self._first, b""
            elif self._decoder.eof:
                data = self._decoder.unused_data or self._raw(_CHUNK)
                if not data.strip(b"\0"):
                    break  # what tape drives and some tools fill up with
                self._decoder = self._new()
            elif self._decoder.needs_input:
                data = self._raw(_CHUNK)
            try:
                out = self._decoder.decompress(data, size)
            except DAMAGED:
                self.trouble = "damaged"
                break
            if out:
                return out
            if not data and not self._decoder.eof:
                self.trouble = "cut short"
        return b""

    def _raw(self, size: int) -> bytes:
        try:
            data = os.read(self._file.fileno(), size)
        except OSError as e:
            raise LabError(f"{self.name}: {e.strerror or e}") from e
        self.consumed += len(data)
        return data


def _open(path: Path) -> IO[bytes]:
    if str(path) == "-":
        if sys.stdin is None:
            raise ValueError("closed")
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    return path.open("rb", buffering=0)


class Block(NamedTuple):
    """Whole lines.

    Attributes:
        first: number of the first.
        lines: how many.
        data: they.
        lost: why line `first` is not there, where there is no data.
    """

    first: int
    lines: int
    data: bytes
    lost: str = ""


def blocks(source: Source, *, quotes: bool = False) -> Iterator[Block]:
    """Cut a log into blocks of whole lines.

    Args:
        source: the log.
        quotes: whether a line break between double quotes is none.
    """
    rest, first = b"", 1
    while True:
        data = _fill(source, rest)
        if len(data) < BLOCK:
            break
        cut = _cut(data, quotes)
        if not cut:
            yield Block(first, 1, b"", f"longer than {BLOCK:,} bytes")
            rest, first = _after_line(source), first + 1
            continue
        lines = data.count(b"\n", 0, cut)
        yield Block(first, lines, data[:cut])
        rest, first = data[cut:], first + lines
    # Half a line could be read as another URL.
    end = data.rfind(b"\n") + 1 if source.trouble else len(data)
    lines = data.count(b"\n", 0, end)
    lines += bool(end) and not data.endswith(b"\n", 0, end)
    if end:
        yield Block(first, lines, data[:end])
    if data[end:]:
        yield Block(first + lines, 1, b"", "cut short")


def _fill(source: Source, data: bytes) -> bytes:
    parts, have = [data], len(data)
    while have < BLOCK and (more := source.read(BLOCK - have)):
        parts.append(more)
        have += len(more)
    return b"".join(parts)


def _cut(data: bytes, quotes: bool) -> int:
    """Where the last whole line ends; 0 where there is none."""
    last = data.rfind(b"\n") + 1
    if not quotes:
        return last
    cut, odd = last, data.count(b'"', 0, last) & 1
    for _ in range(MOST_LINES):
        if not odd or not cut:
            break
        before = data.rfind(b"\n", 0, cut - 1) + 1
        odd ^= data.count(b'"', before, cut) & 1
        cut = before
    return cut if cut and not odd else last


def _after_line(source: Source) -> bytes:
    while data := source.read(BLOCK):
        end = data.find(b"\n") + 1
        if end:
            return data[end:]
    return b""
