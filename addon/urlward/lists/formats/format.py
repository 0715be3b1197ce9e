"""Readers of foreign formats: their results and options, and the names that columns may have."""

import io
from collections.abc import Buffer, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

from urlward.engine.entry import ALGORITHMS
from urlward.engine.errors import UrlError, UrlwardError
from urlward.engine.grammar import MAX_LINE
from urlward.regular import BOM

DIGESTS = tuple(ALGORITHMS)
"""What a column of a table can be that lists files: a digest of each algorithm."""

FIELDS = ("url", "host", "domain", "path", *DIGESTS, "distance", "id", "category", "expires")
"""What a column of a table can be: a page, a host alone, a host with its subdomains, a path on the
host, a file's digest, and an entry's attributes."""


WHITE = ("skip", "allow", "block")
"""What is done with a folder of allowed names: nothing, ``@@`` entries, or entries as of any other."""


class FormatError(UrlwardError):
    """A source that is not of its format, or options that make no sense with it."""


class NotTakenError(Exception):
    """A value that no line of the grammar stands for; never leaves this package.

    Attributes:
        reason: why, without the value.
        unsupported: nothing is wrong with it, but the grammar cannot say it.
    """

    def __init__(self, reason: str, *, unsupported: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unsupported = unsupported


class Found(NamedTuple):
    """Line of the grammar, and its place in the source.

    Attributes:
        text: the line, without its end.
        line: 1-based number of the source's line; of the record, in JSON.
        column: 1-based position there.
        whole: whether the lines for a source's line together say all that it means.
    """

    text: str
    line: int
    column: int = 1
    whole: bool = True


class Skipped(NamedTuple):
    """Skipped line of a source, of which no entry was made; never its text.

    Attributes:
        line: 1-based number; of the record, in JSON.
        column: 1-based position of the fault.
        reason: why.
        unsupported: nothing is wrong with the line, but the grammar cannot say what it means.
        whole_file: it stands for its file, of which nothing is taken.
        certain: it is a line of its format beyond doubt, whatever else it could be.
    """

    line: int
    column: int
    reason: str
    unsupported: bool = False
    whole_file: bool = False
    certain: bool = False


def not_taken(line: int, column: int, error: UrlError | NotTakenError) -> Skipped:
    """Skipped line for a value that is none, or that the grammar cannot say."""
    return Skipped(line, column, str(error), isinstance(error, NotTakenError) and error.unsupported)


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """Options for reading a source.

    Attributes:
        columns: one of `FIELDS` to the name of a table's column, or its 1-based number where there
            is no line of names; in JSON the name of a member, ``a.b`` for a member of a member.
        delimiter: between the columns of CSV; one character.
        category: of entries that the source gives none.
        white: what becomes of a squidGuard folder that allows: one of `WHITE`.
        take: the categories that are taken of a source that has its own
            (`urlward.lists.formats.csv_json.CATEGORIES`); empty for those that there say.

    Raises:
        FormatError: a field that is unknown, a delimiter that is not one character, or another `white`.
    """

    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    delimiter: str = ","
    category: str = ""
    white: str = "skip"
    take: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if name not in FIELDS:
                raise FormatError(f"column: {name!r} is not one of {', '.join(FIELDS)}")
            if not column:
                raise FormatError(f"column: {name}= names no column")
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0' or not self.delimiter.isascii():
            raise FormatError("delimiter: one ASCII character, and neither a quote nor a line break")
        if self.white not in WHITE:
            raise FormatError(f"white: {self.white!r} is not one of {', '.join(WHITE)}")


DEFAULTS = FormatOptions()
"""Options that leave all to the format."""


class Part(NamedTuple):
    """Part: one file of a source that may have several.

    Attributes:
        path: the file.
        read: reads it.
        options: for `read`.
        may_be_json: see `Format`.
    """

    path: Path
    read: "Read"
    options: FormatOptions
    may_be_json: bool = False


type Read = Callable[[BinaryIO, FormatOptions], Iterator[Found | Skipped]]


@dataclass(frozen=True, slots=True)
class Format:
    """Format of sources.

    Attributes:
        read: what is in one file of it. Raises FormatError where that is something else.
        parts: the files of a source at a path, and how to read each. Raises FormatError, OSError.
        what: in a few words, for people.
        is_table: whether `FormatOptions.columns` counts.
        may_be_json: one JSON value, which is whole or not whatever its last line ends in.
    """

    read: Read
    parts: Callable[[Path, FormatOptions], list[Part]]
    what: str
    is_table: bool = False
    may_be_json: bool = False


def format_of_files(read: Read, what: str, *, is_table: bool = False, may_be_json: bool = False) -> Format:
    """Make a format whose sources are single files."""
    return Format(
        read, lambda path, options: [Part(path, read, options, may_be_json)], what, is_table, may_be_json
    )


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
