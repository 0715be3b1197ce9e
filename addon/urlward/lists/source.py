"""Reader of lists as text: guards, line by line, with an error budget, and a report.

A list that is not what it should be (a login page, a picture, nothing at all) is refused before its
first line is read as an entry, since a hostile or broken feed must not become a blocklist.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from urlward.engine.artifact import HEADER_SIZE, MAGIC, read_header, wrong_length
from urlward.engine.compiler import Compiler
from urlward.engine.entry import Entry, Kind
from urlward.engine.errors import ArtifactError, EntryError, UrlwardError
from urlward.engine.grammar import MAX_LINE, names_in_fragment, parse_line, with_attribute
from urlward.engine.hosts import is_suffix, too_much
from urlward.lists.formats import (
    AUTO,
    DEFAULTS,
    SNIFFED,
    FormatError,
    FormatOptions,
    Found,
    Part,
    Skipped,
    format_named,
    likely,
    reason_of,
    recognised_part,
)
from urlward.lists.formats.format import MAX_LINE_BYTES, NOT_UTF8, TOO_LONG, SourceStream, cut_lines
from urlward.lists.formats.write import category_of
from urlward.lists.memfd import new, write
from urlward.regular import open_regular, other_encoding, without_bom
from urlward.state.watch import Signature, being_written
from urlward.units import whole

KEPT_ERRORS = 100
"""Bad lines that are kept for the report; the rest are only counted."""


NO_FOLDER = "not a regular file: only compile, import and feeds take a folder"
"""Why a folder is no list."""


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
    """Line that could not be read; never its text.

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
    """Report of reading one or more sources.

    Attributes:
        lines: lines that are neither blank nor comment.
        entries: entries taken.
        bad: number of lines that could not be read.
        bad_lines: the first of them.
        unsupported: number of lines whose meaning the grammar cannot say; not among `lines`.
        unsupported_lines: the first of them.
        left_out: for each file of which nothing was taken on purpose, why; among `unsupported`.
        partly: number of lines of which the entries say less than the line; they are among `lines`.
        today: days since 1970-01-01, by which entries are over.
        over: entries whose last day was before it.
        roots: entries of the grammar that block the root page of a host, and nothing else there.
        wide: the first of the lines that block what no feed can (`urlward.engine.hosts.too_much`), or more
            than they name (`urlward.engine.grammar.names_in_fragment`).
        recognised: sources that nobody said a format of, to the one that they were recognised to be of, where
            that is not the grammar.
        likely: the format that the last source with bad lines may be of; empty for none.
        ends_with_newline: whether the last source's last line is whole.
    """

    lines: int = 0
    entries: int = 0
    bad: int = 0
    bad_lines: list[BadLine] = field(default_factory=list)
    unsupported: int = 0
    unsupported_lines: list[BadLine] = field(default_factory=list)
    left_out: list[BadLine] = field(default_factory=list)
    partly: int = 0
    today: int = 0
    over: int = 0
    roots: int = 0
    wide: list[BadLine] = field(default_factory=list)
    recognised: dict[str, str] = field(default_factory=dict)
    likely: str = ""
    ends_with_newline: bool = True

    def so_far(self) -> "Report":
        """Copy the report, to find out what one more source adds."""
        return replace(self, bad_lines=self.bad_lines[:], unsupported_lines=self.unsupported_lines[:])

    @property
    def roots_alone(self) -> str:
        """Words where most entries block a root page alone, by which whole hosts may be meant; or empty."""
        if self.roots * 2 <= self.entries:
            return ""
        return f"{self.roots} of {self.entries} entries are root pages alone: to block a host, write its name"

    def look(self, entry: Entry, name: str, number: int, line: str) -> None:
        """Keep a source's line by its number where its entry blocks too much, or more than it names."""
        reason = too_much(entry)
        if not reason and "#" in line and names_in_fragment(line):
            reason = "no request has what is behind #: it blocks the page in front"
        if reason and len(self.wide) < KEPT_ERRORS:
            self.wide.append(BadLine(name, number, 1, reason))


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """Error budget of a source: a count of bad lines, or a share of its lines."""

    count: int | None = None
    share: float | None = 0.01

    @classmethod
    def parse(cls, text: str) -> "ErrorBudget":
        """Parse a budget such as ``25`` or ``2.5%``.

        Raises:
            ValueError: neither.
        """
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100  # which also takes 1_0, +5, blanks and all scripts
                if not (0 <= share <= 1 and set(text[:-1]) <= set("0123456789.e-")):
                    raise ValueError
                return cls(None, share)
            count = whole(text)
        except ValueError:
            raise ValueError("a count such as 25, or a share such as 1%") from None
        return cls(count, None)

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else f"{100 * (self.share or 0):g}%"

    def exceeded(self, bad: int, lines: int) -> bool:
        """Whether there are too many bad lines."""
        # Rounded, because 29 % of 100 lines is a little less than 29 in binary fractions.
        return bad > (self.count if self.count is not None else round((self.share or 0) * lines, 6))


def read_budget(text: str, where: str) -> ErrorBudget:
    """Read a budget from a setting.

    Args:
        text: as for `ErrorBudget.parse`.
        where: the flag or key.

    Raises:
        SourceError: not one.
    """
    try:
        return ErrorBudget.parse(text)
    except ValueError as e:
        raise SourceError(f"{where}: {text!r} is not {e}") from e


def check_entries(path: object, report: Report, before: Report) -> None:
    """Refuse a source that gave no entry.

    Args:
        path: of the source.
        report: with what it gave.
        before: without.

    Raises:
        SourceError: none.
    """
    if report.entries > before.entries:
        return
    bad, unsupported = report.bad - before.bad, report.unsupported - before.unsupported
    bad_lines = report.bad_lines[len(before.bad_lines) :]
    first = [*bad_lines, *report.unsupported_lines[len(before.unsupported_lines) :]]
    raise SourceError(
        f"{path}: no entry in it"
        + (f", {bad} lines could not be read" if bad else "")
        + (f", {unsupported} lines are of a kind that cannot be taken" if unsupported else "")
        + (f"; first: {first[0]}" if first else "")
        + (_looks_like(report) or "; of another tool? see urlward help formats" * bool(bad)),
        bad_lines,
    )


def left_out(report: Report) -> str:
    """Describe the valid lines that were not taken, for people; empty for none."""
    parts = [f"{report.unsupported} of a kind that cannot be taken"] if report.unsupported else []
    if report.partly:
        parts.append(f"{report.partly} taken in part")
    return ", ".join(parts)


def check_budget(report: Report, budget: ErrorBudget, what: str) -> None:
    """Refuse sources with too many bad lines.

    Raises:
        SourceError: too many.
    """
    if budget.exceeded(report.bad, report.lines):
        raise SourceError(
            f"{what}: {report.bad} of {report.lines} lines could not be read, allowed are {budget}; "
            f"first: {report.bad_lines[0]}" + _looks_like(report),
            report.bad_lines,
        )


def _looks_like(report: Report) -> str:
    return f"; it looks like format {report.likely}" if report.likely else ""


def note(report: Report, name: str, skipped: Skipped) -> None:
    """Add a line that was not taken."""
    line = BadLine(name, skipped.line, skipped.column, skipped.reason)
    if skipped.unsupported:
        report.unsupported += 1
        if skipped.whole_file:
            report.left_out.append(line)
        if len(report.unsupported_lines) < KEPT_ERRORS:
            report.unsupported_lines.append(line)
    else:
        report.lines += 1
        add_bad(report, line)


def add_bad(report: Report, bad: BadLine) -> None:
    """Add a line that could not be read."""
    report.bad += 1
    if len(report.bad_lines) < KEPT_ERRORS:
        report.bad_lines.append(bad)


__all__ = [
    "KEPT_ERRORS",
    "BadLine",
    "ErrorBudget",
    "Report",
    "SourceError",
    "check_budget",
    "found_in",
    "guard",
    "open_list",
    "parts_of",
    "read_artifact",
    "read_source",
    "recognise",
    "unreadable",
]


def open_list(path: Path) -> BufferedReader:
    """Open a list for reading.

    Only regular files are lists (`urlward.regular.regular_fd`). An artifact that is longer than its
    header says is damaged, and is not read to an end that may be far away.

    Raises:
        SourceError: not readable, not a regular file, or an artifact that is too long.
    """
    try:
        file = open_regular(path)
        try:
            _check_length(path, file.fileno())
        except BaseException:
            file.close()
            raise
        return file
    except IsADirectoryError as e:
        raise SourceError(f"{path}: not a regular file") from e
    except (OSError, ValueError) as e:
        raise unreadable(path, e) from e


def read_artifact(path: Path) -> bytes:
    """An artifact's bytes.

    Raises:
        SourceError: not readable.
    """
    with open_list(path) as file:
        try:
            return file.read()
        except OSError as e:
            raise unreadable(path, e) from e


def _check_length(path: Path, fd: int) -> None:
    # Not a byte more of what is no artifact: this may be a process that must not hold an entry.
    if os.pread(fd, len(MAGIC), 0) != MAGIC:
        return
    with suppress(ArtifactError):  # whoever reads it says so
        header = read_header(os.pread(fd, HEADER_SIZE, 0))
        size = os.fstat(fd).st_size
        if size > header.size:
            raise SourceError(f"{path}: {wrong_length(size, header.size)}")


def unreadable(path: Path, error: OSError | ValueError) -> SourceError:
    """Error for a file that the system cannot read."""
    return SourceError(f"{path}: {getattr(error, 'strerror', None) or error}")


def read_source(
    path: Path,
    compiler: Compiler,
    report: Report,
    progress: Callable[[int], None] = lambda _: None,
    format: str = AUTO,  # noqa: A002 - the word
    options: FormatOptions = DEFAULTS,
) -> None:
    """Read one source into a compiler.

    Args:
        path: the file; of some formats, or a folder.
        compiler: takes the entries.
        report: is added to.
        progress: called with the bytes read so far, now and then.
        format: one of `urlward.lists.formats.FORMATS`.
        options: how to read it.

    Raises:
        SourceError: not a list, not one of that format, or not readable.
    """
    before = report.so_far()
    parts = parts_of(path, format, options)
    done = 0
    for part in parts:
        with open_list(part.path) as file:
            try:
                head = file.read(SNIFFED)
                file.seek(0)
                name = format
                if format == AUTO:
                    name, part = recognise(part, head, report)
                bad = report.bad
                if name == "grammar":
                    guard(path, head)
                    _read_lines(path, file, part.options.category, compiler, report, progress)
                else:
                    done = _read_part(part, file, done, len(parts) > 1, compiler, report, progress)
                if report.bad > bad or report.entries == before.entries:
                    report.likely = likely(head, name)
            except OSError as e:
                raise unreadable(part.path, e) from e
    check_entries(path, report, before)


def parts_of(path: Path, format: str, options: FormatOptions) -> list[Part]:  # noqa: A002
    """The files of a source.

    Raises:
        SourceError: not readable, or nothing of that format.
    """
    try:
        return format_named(format, options).parts(path, options)
    except FormatError as e:
        raise SourceError(f"{path}: {e}") from e
    except OSError as e:
        raise unreadable(Path(e.filename or path), e) from e


def recognise(part: Part, head: bytes, report: Report) -> tuple[str, Part]:
    """Recognise a file's format by its first bytes, and choose how to read it; the report names it.

    Raises:
        SourceError: the options do not go with it.
    """
    try:
        name, found = recognised_part(part, head)
    except FormatError as e:
        raise SourceError(f"{part.path}: {e}") from e
    if name != "grammar":
        report.recognised[str(part.path)] = name
    return name, found


def found_in(
    name: str, stream: SourceStream, part: Part, *, may_be_empty: bool = False
) -> Iterator[Found | Skipped]:
    """Read one file of a source that is not the grammar.

    Args:
        name: of the file, for messages.
        stream: its bytes.
        part: how to read it.
        may_be_empty: it is one of several.

    Raises:
        SourceError: not a list, or not of that format.
    """
    head = stream.peek(SNIFFED)[:SNIFFED]
    if may_be_empty and not head:
        return
    guard(name, head)
    try:
        yield from part.read(stream, part.options)
    except FormatError as e:
        raise SourceError(f"{name}: {e}") from e


def _read_lines(
    path: Path,
    file: BinaryIO,
    category: str,
    compiler: Compiler,
    report: Report,
    progress: Callable[[int], None],
) -> None:
    name, category = str(path), category_of(category)
    done = lines = entries = roots = 0
    today = report.today
    raw = b"\n"
    add = compiler.add
    for number, raw in enumerate(cut_lines(file), 1):
        done += len(raw)
        if not number & 0xFFF:
            progress(done)
        if number == 1:
            raw = without_bom(raw)
        try:
            if len(raw) >= MAX_LINE_BYTES:
                raise EntryError(MAX_LINE, TOO_LONG)
            text = raw.decode()
            found = parse_line(with_attribute(text, "category", category) if category else text)
        except UnicodeDecodeError as e:
            lines += 1
            add_bad(report, BadLine(name, number, len(raw[: e.start].decode()) + 1, NOT_UTF8))
            continue
        except EntryError as e:
            lines += 1
            add_bad(report, BadLine(name, number, e.column, reason_of(e)))
            continue
        if found:
            lines += 1
            entries += len(found)
            for entry in found:
                add(entry)
                if entry.expires and entry.expires < today:
                    report.over += 1
                kind = entry.kind
                if kind is Kind.PAGE and entry.path == "/" and not entry.allow:
                    roots += 1
                if (
                    kind is Kind.NETWORK
                    or "#" in text
                    or ((kind is Kind.DOMAIN or entry.subdomains) and is_suffix(entry.host))
                ):
                    report.look(entry, name, number, text)
    report.lines += lines
    report.entries += entries
    report.roots += roots
    report.ends_with_newline = raw.endswith(b"\n")
    progress(done)


def _read_part(
    part: Part,
    file: BinaryIO,
    before: int,
    may_be_empty: bool,
    compiler: Compiler,
    report: Report,
    progress: Callable[[int], None],
) -> int:
    """Read a file that is not the grammar; returns the bytes read so far."""
    name, stream, last = str(part.path), SourceStream(file), 0
    is_json = part.may_be_json and stream.first() in (b"[", b"{")
    for count, each in enumerate(found_in(name, stream, part, may_be_empty=may_be_empty), 1):
        if not count & 0xFFF:
            progress(before + stream.done)
        if isinstance(each, Skipped):
            note(report, name, each)
        else:
            try:
                entries = parse_line(each.text)
            except EntryError as e:
                note(report, name, Skipped(each.line, each.column, reason_of(e)))
            else:
                report.lines += bool(entries) and each.line != last
                report.partly += not each.whole and each.line != last
                report.entries += len(entries)
                for entry in entries:
                    compiler.add(entry)
                    report.over += 0 < entry.expires < report.today
                    report.look(entry, name, each.line, each.text)
        last = each.line
    report.ends_with_newline = is_json or stream.ends_with_newline
    progress(before + stream.done)
    return before + stream.done


def guard(path: object, head: bytes) -> None:
    """Refuse a file that cannot be a list, whatever its format.

    Args:
        path: of the source.
        head: its first bytes.

    Raises:
        SourceError: it is something else.
    """
    if fault := head_fault(head):
        raise SourceError(f"{path}: {fault[1]}")


def head_fault(head: bytes) -> tuple[str, str] | None:
    """Reason why what begins so cannot be a list, whatever its format: in a word, ``empty``, ``html`` or
    ``binary``, and in a sentence. None for what can.

    Args:
        head: its first `SNIFFED` bytes, or all of it.
    """
    if other := other_encoding(head):
        return "binary", other
    if head.startswith(_COMPRESSED):
        return "binary", "compressed: unpack it first"
    text = without_bom(head).lstrip()
    if not text and len(head) < SNIFFED:
        return "empty", "empty"
    # No list in any format begins like this, every page and every XML document does.
    if text.startswith(b"<"):
        return "html", "a web page or XML, not a list (a login page?)"
    if b"\0" in head or sum(b < 9 or 13 < b < 32 for b in head) > len(head) // 50:
        return "binary", "binary data, not a list"
    return None


_COMPRESSED = b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh9"
"""What gzip, zip, zstd, xz and bzip2 begin with."""

_CHUNK = 1 << 20
TRIES = 3
"""Times that a file is read which changes meanwhile."""


class ChangingError(SourceError):
    """A file that changes each time while it is read."""


def whole_copy(path: Path, *, as_is: bool = False) -> int:
    """A descriptor of memory with a list file's bytes in it as they were at one time. A file that another
    took the place of meanwhile is whole too.

    Args:
        path: of the file.
        as_is: whether one that changes each time is taken all the same, since there is no other yet.

    Raises:
        ChangingError: somebody writes it, or changes it each time it is read.
        SourceError: the file is not readable.
    """
    for left in reversed(range(TRIES)):
        fd = new()
        try:
            with open_list(path) as file:
                before = Signature.of_status(os.fstat(file.fileno()))
                while chunk := _read(path, file.fileno()):
                    write(fd, chunk)
                written = being_written(Path(f"/proc/self/fd/{file.fileno()}"))
                whole = not written and Signature.of_status(os.fstat(file.fileno())) == before
        except BaseException:
            os.close(fd)
            raise
        if whole or (as_is and not left):
            return fd
        os.close(fd)
    raise ChangingError(f"{path}: changed each time while it was read")


def _read(path: Path, fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError as e:
        raise unreadable(path, e) from e
