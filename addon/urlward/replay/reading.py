"""Log reader: a file or standard input, decompressed, as blocks of whole lines.

HAR files (http://www.softwareishard.com/blog/har-12-spec/) are read as a stream: such a file is one JSON
value of any size, which cannot be cut into pieces. Its entries become lines of the format ``har``: time,
status and URL with tabs between.
"""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import batched
from pathlib import Path
from typing import Any, NamedTuple, Self

import ijson

from urlward.csv_rows import MOST_LINES
from urlward.encoding import without_bom
from urlward.feeds.body import DAMAGED, decoder_for
from urlward.replay.errors import ReplayError
from urlward.replay.formats import NONE

BLOCK = 1 << 18
"""Bytes of a block at most, and of a line; few enough that what a block is cut into stays in a cache."""

HEAD = 1 << 16
"""Bytes from which a log's format is detected."""

_OTHERS = {b"BZh": "bzcat", b"\xfd7zXZ": "xzcat", b"PK\3\4": "unzip -p", b"\x04\x22\x4d\x18": "lz4cat"}


class LogSource:
    """Log file as bytes, decompressed, without a byte order mark.

    Args:
        path: of the file; ``-`` is standard input.

    Attributes:
        name: for messages to who named it.
        head: the first `HEAD` bytes, or all where it has fewer.
        size: of the file in bytes; 0 where that is not known.
        reopens: whether opening it once more gives the same bytes.
        consumed: bytes of the file read so far.
        trouble: why it could not be read to its end, or empty.

    Raises:
        ReplayError: not readable, or compressed with something else than gzip or zstd.
    """

    def __init__(self, path: Path) -> None:
        standard = str(path) == "-"
        self.name = "standard input" if standard else str(path)
        self.consumed = 0
        self.trouble = ""
        try:
            self._file = open(0 if standard else path, "rb", buffering=0, closefd=not standard)  # noqa: SIM115
        except OSError as e:
            raise ReplayError(f"{self.name}: {e.strerror or e}") from e
        try:
            status = os.fstat(self._file.fileno())
            self.size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            self.reopens = stat.S_ISREG(status.st_mode) and not standard
            self._pieces = self._unpacked()
            self._ahead = b""
            while len(self._ahead) < HEAD and (piece := next(self._pieces, b"")):
                self._ahead += piece
        except BaseException:
            self.close()
            raise
        self._ahead = without_bom(self._ahead)
        self.head = self._ahead[:HEAD]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, size: int = BLOCK) -> bytes:
        """Read so many bytes at most; empty at the end.

        Raises:
            ReplayError: the system does not give them.
        """
        if size and not self._ahead:
            self._ahead = next(self._pieces, b"")
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def _unpacked(self) -> Iterator[bytes]:
        data = b""
        while len(data) < 6 and (more := self._raw()):
            data += more
        for magic, program in _OTHERS.items():
            if data.startswith(magic):
                raise ReplayError(
                    f"{self.name}: neither text nor gzip nor zstd; try: {program} FILE | … replay -"
                )
        new = decoder_for(data)
        if new is None:
            while data:
                yield data
                data = self._raw()
            return
        decoder = new()
        while True:
            if decoder.eof:
                data = decoder.unused_data or self._raw()
                if not data.strip(b"\0"):
                    return  # the padding of tape drives and some tools
                decoder = new()
            elif not data and decoder.needs_input:
                data = self._raw()
                if not data:
                    self.trouble = "cut short"
                    return
            try:
                piece = decoder.decompress(data, BLOCK)
            except DAMAGED:
                self.trouble = "damaged"
                return
            data = b""
            if piece:
                yield piece

    def _raw(self) -> bytes:
        try:
            data = os.read(self._file.fileno(), BLOCK)
        except OSError as e:
            raise ReplayError(f"{self.name}: {e.strerror or e}") from e
        self.consumed += len(data)
        return data


class LineBlock(NamedTuple):
    """Block of whole lines.

    Attributes:
        first: number of the first.
        lines: how many.
        data: their bytes.
        lost: why line `first` is not there, where there is no data.
    """

    first: int
    lines: int
    data: bytes
    lost: str = ""


def blocks(source: LogSource, *, quotes: bool = False) -> Iterator[LineBlock]:
    """Cut a log into blocks of whole lines.

    Args:
        source: the log.
        quotes: whether a line break between double quotes is none.
    """
    rest, first = b"", 1
    while data := _filled(source, rest):
        # Of a log that is cut short, half a line could be read as another URL.
        is_last = len(data) < BLOCK and not source.trouble
        end = len(data) if is_last else _end_of_lines(data, quotes)
        if end:
            lines = data.count(b"\n", 0, end) + (not data.endswith(b"\n", 0, end))
            yield LineBlock(first, lines, data[:end])
            rest, first = data[end:], first + lines
        else:
            yield LineBlock(
                first, 1, b"", "cut short" if len(data) < BLOCK else f"longer than {BLOCK:,} bytes"
            )
            rest, first = _after_line(source), first + 1


def _filled(source: LogSource, data: bytes) -> bytes:
    parts, have = [data], len(data)
    while have < BLOCK and (more := source.read(BLOCK - have)):
        parts.append(more)
        have += len(more)
    return b"".join(parts)


def _end_of_lines(data: bytes, quotes: bool) -> int:
    """Offset behind the last whole line; 0 where there is none."""
    last = end = data.rfind(b"\n") + 1
    odd = data.count(b'"', 0, end) & 1 if quotes else 0
    for _ in range(MOST_LINES):
        if not odd or not end:
            break
        before = data.rfind(b"\n", 0, end - 1) + 1
        odd ^= data.count(b'"', before, end) & 1
        end = before
    return last if odd else end or last


def _after_line(source: LogSource) -> bytes:
    while data := source.read(BLOCK):
        end = data.find(b"\n") + 1
        if end:
            return data[end:]
    return b""


_LINES = 4096
_BREAKS = {9: None, 10: None, 13: None}
_ENTRY = "log.entries.item"


def har_blocks(source: LogSource) -> Iterator[LineBlock]:
    """Blocks of lines of the format ``har``; the number of a line is that of its entry.

    Raises:
        ReplayError: not a HAR file.
    """
    first = 1
    for lines in batched(_lines(source), _LINES):
        yield LineBlock(first, len(lines), b"".join(lines))
        first += len(lines)


def _lines(source: LogSource) -> Iterator[bytes]:
    wanted = {f"{_ENTRY}.startedDateTime", f"{_ENTRY}.response.status", f"{_ENTRY}.request.url"}
    found: dict[str, Any] = {}
    has_entries = False
    try:
        for prefix, event, value in ijson.parse(source):
            if prefix in wanted:
                found[prefix.rpartition(".")[2]] = value
            elif prefix == _ENTRY and event == "end_map":
                yield _line(found)
                found.clear()
            elif prefix == "log.entries":
                has_entries = True
    except ijson.JSONError:
        source.trouble = source.trouble or "not whole, or not JSON from some place on"
    if not has_entries:
        raise ReplayError(f"{source.name}: not a HAR file: it has no entries")


def _line(entry: dict[str, Any]) -> bytes:
    url, status = entry.get("url"), entry.get("status")
    text = url.translate(_BREAKS) if isinstance(url, str) else ""
    code = int(status) if isinstance(status, int | Decimal) and 100 <= status <= 999 else ""
    return f"{_time(entry)}\t{code}\t{text or NONE}\n".encode("utf-8", "surrogatepass")


def _time(entry: dict[str, Any]) -> str:
    """Whole minutes as seconds since 1970-01-01 UTC, which makes few different keys."""
    try:
        moment = datetime.fromisoformat(entry["startedDateTime"])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return str(max(int(moment.timestamp()) // 60 * 60, 0))
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""
