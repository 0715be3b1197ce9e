"""Reading a list as text: guards, line by line, with an error budget.

A list that is not what it should be (a login page, a picture, nothing at all) is refused before its
first line is read as an entry, since a hostile or broken feed must not become a blocklist.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from urlward.engine.compiler import Compiler
from urlward.engine.errors import EntryError, UrlwardError
from urlward.engine.grammar import MAX_LINE, parse_line

KEPT_ERRORS = 100
"""Bad lines that are kept for the report; the rest are only counted."""

_SNIFFED = 4096
_MAX_LINE_BYTES = 4 * MAX_LINE
_BOM = b"\xef\xbb\xbf"


class SourceError(UrlwardError):
    """A source that is refused whole.

    Attributes:
        bad_lines: the first of the lines that were too many, where that is why.
    """

    def __init__(self, message: str, bad_lines: "Sequence[BadLine]" = ()) -> None:
        super().__init__(message)
        self.bad_lines = tuple(bad_lines)


@dataclass(frozen=True, slots=True)
class BadLine:
    """One line that could not be read; never its text.

    Attributes:
        file: path of the source.
        line: 1-based number.
        column: 1-based position of the fault.
        reason: what is wrong, and what to write instead.
    """

    file: str
    line: int
    column: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.reason}"


@dataclass(slots=True)
class Report:
    """What reading one or more sources found.

    Attributes:
        lines: lines that are neither blank nor comment.
        entries: entries taken.
        bad: number of lines that could not be read.
        bad_lines: the first of them.
        ends_with_newline: whether the last source's last line is whole.
    """

    lines: int = 0
    entries: int = 0
    bad: int = 0
    bad_lines: list[BadLine] = field(default_factory=list)
    ends_with_newline: bool = True


@dataclass(frozen=True, slots=True)
class Budget:
    """How many bad lines a source may have: a count, or a share of its lines."""

    count: int | None = None
    share: float | None = 0.01

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read ``25`` or ``2.5%``.

        Raises:
            ValueError: neither.
        """
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if not 0 <= share <= 1:
                    raise ValueError
                return cls(None, share)
            count = int(text)
            if count < 0:
                raise ValueError
        except ValueError:
            raise ValueError("a count such as 25, or a share such as 1%") from None
        return cls(count, None)

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else f"{100 * (self.share or 0):g}%"

    def exceeded(self, bad: int, lines: int) -> bool:
        """Whether so many bad lines are too many."""
        # Rounded, because 29 % of 100 lines is a little less than 29 in binary fractions.
        return bad > (self.count if self.count is not None else round((self.share or 0) * lines, 6))


def open_list(path: Path) -> BufferedReader:
    """Open a list for reading.

    Only regular files are lists: opening a pipe could wait for ever, on an event loop that carries
    traffic, and a device need not end.

    Raises:
        SourceError: not readable, or not a regular file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as e:
        raise unreadable(path, e) from e
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceError(f"{path}: not a regular file")
    return os.fdopen(fd, "rb")


def unreadable(path: Path, error: OSError | ValueError) -> SourceError:
    """What to raise for a file that the system does not give."""
    return SourceError(f"{path}: {getattr(error, 'strerror', None) or error}")


def read_source(
    path: Path,
    compiler: Compiler,
    report: Report,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Read one source into a compiler.

    Args:
        path: the file.
        compiler: takes the entries.
        report: is added to.
        progress: called with the bytes read so far, now and then.

    Raises:
        SourceError: not a list, or not readable.
    """
    entries, bad, kept = report.entries, report.bad, len(report.bad_lines)
    with open_list(path) as file:
        try:
            _guard(path, file.read(_SNIFFED))
            file.seek(0)
            _read_lines(path, file, compiler, report, progress)
        except OSError as e:
            raise unreadable(path, e) from e
    if report.entries == entries:
        bad_lines = report.bad_lines[kept:]
        count = f", {report.bad - bad} lines could not be read" if report.bad > bad else ""
        first = f"; first: {bad_lines[0]}" if bad_lines else ""
        raise SourceError(f"{path}: no entry in it{count}{first}", bad_lines)


def check_budget(report: Report, budget: Budget, what: str) -> None:
    """Refuse sources with too many bad lines.

    Raises:
        SourceError: too many.
    """
    if budget.exceeded(report.bad, report.lines):
        raise SourceError(
            f"{what}: {report.bad} of {report.lines} lines could not be read, allowed are {budget}; "
            f"first: {report.bad_lines[0]}",
            report.bad_lines,
        )


def _read_lines(
    path: Path, file: BinaryIO, compiler: Compiler, report: Report, progress: Callable[[int], None]
) -> None:
    name = str(path)
    done = lines = entries = 0
    raw = b"\n"
    add = compiler.add
    for number, raw in enumerate(_lines(file), 1):
        done += len(raw)
        if not number & 0xFFF:
            progress(done)
        if number == 1:
            raw = raw.removeprefix(_BOM)
        try:
            if len(raw) >= _MAX_LINE_BYTES:
                raise EntryError(MAX_LINE, f"line is longer than {MAX_LINE} characters")
            found = parse_line(raw.decode())
        except UnicodeDecodeError as e:
            lines += 1
            _bad(report, BadLine(name, number, len(raw[: e.start].decode()) + 1, "not UTF-8"))
            continue
        except EntryError as e:
            lines += 1
            reason = e.reason + (f" ({e.hint})" if e.hint else "")
            _bad(report, BadLine(name, number, e.column, reason))
            continue
        if found:
            lines += 1
            entries += len(found)
            for entry in found:
                add(entry)
    report.lines += lines
    report.entries += entries
    report.ends_with_newline = raw.endswith(b"\n")
    progress(done)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, each cut soon after `MAX_LINE`, so that a file without any stays small in memory."""
    while raw := file.readline(_MAX_LINE_BYTES):
        if len(raw) == _MAX_LINE_BYTES and not raw.endswith(b"\n"):
            rest = raw
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(_MAX_LINE_BYTES)
            raw += rest[-1:]
        yield raw


def _bad(report: Report, bad: BadLine) -> None:
    report.bad += 1
    if len(report.bad_lines) < KEPT_ERRORS:
        report.bad_lines.append(bad)


def _guard(path: Path, head: bytes) -> None:
    text = head.removeprefix(_BOM).lstrip()
    if not text and len(head) < _SNIFFED:
        raise SourceError(f"{path}: empty")
    # No entry and no comment begins like this, every page and every XML document does.
    if text.startswith(b"<"):
        raise SourceError(f"{path}: a web page or XML, not a list (a login page?)")
    if b"\0" in head or sum(b < 9 or 13 < b < 32 for b in head) > len(head) // 50:
        raise SourceError(f"{path}: binary data, not a list")
