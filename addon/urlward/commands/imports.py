"""``urlward import``, and the arguments by which ``urlward compile`` reads foreign formats."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from urlward.commands.arguments import DONE, Command, spare
from urlward.lists.build import written_atomically
from urlward.lists.formats import (
    AUTO,
    FORMATS,
    SNIFFED,
    WHITE,
    FormatError,
    FormatOptions,
    Found,
    Part,
    Skipped,
    checked,
    format_named,
)
from urlward.lists.formats.format import SourceStream
from urlward.lists.source import (
    BadLine,
    ErrorBudget,
    Report,
    check_budget,
    check_entries,
    found_in,
    left_out,
    note,
    open_list,
    parts_of,
    recognise,
    unreadable,
)
from urlward.options import FORMAT, given_path
from urlward.progress import Progress, progress_bar, silent

_STDIN = Path("-")
_TAB = ("\\t", "tab")
_TOLD = 1024
"""Lines between two times that the progress is told."""


def add_import_commands(command: Command) -> None:
    """Declare ``urlward import``."""
    importing = command("import", _import, "Translate sources of other formats to the list grammar.")
    importing.add_argument(
        "sources", nargs="+", type=given_path, metavar="SOURCE", help='"-" is standard input'
    )
    add_format_arguments(importing)
    importing.add_argument("--max-errors", metavar="N|N%", default="1%", help="bad lines allowed (1%%)")
    importing.add_argument(
        "-o", "--output", type=given_path, metavar="FILE", help="file to write (standard output)"
    )
    importing.add_argument("--quiet", action="store_true", help="count what was not taken, and no more")


def add_format_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for reading sources; `format_of` returns their values."""
    FORMAT.add_to(parser)
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=NAME",
        help="name or number of the column with url, host, domain, path, id, category or expires; of files, "
        "with md5, sha1, sha256, pdq or distance",
    )
    parser.add_argument("--delimiter", metavar="CHARACTER", default=",", help="between columns of CSV (,)")
    parser.add_argument(
        "--category", metavar="NAME", default="", help="of entries that the source gives none"
    )
    parser.add_argument(
        "--take",
        action="append",
        default=[],
        metavar="NAME",
        help="category of the source's own that is taken, of projectvic or threatexchange (what is certain)",
    )
    parser.add_argument(
        "--white",
        choices=WHITE,
        default="skip",
        help="what becomes of squidGuard's folders of allowed names: left out, @@ entries, or blocked (skip)",
    )


def format_of(args: argparse.Namespace) -> tuple[str, FormatOptions]:
    """The format as given, and options for reading it.

    Raises:
        FormatError: what was said makes no sense.
    """
    columns: dict[str, str] = {}
    for said in args.column:
        field, equals, name = said.partition("=")
        if not equals or field in columns:
            raise FormatError(f"column: {said!r} is not FIELD=NAME, once for each field")
        columns[field] = name
    delimiter = "\t" if args.delimiter in _TAB else args.delimiter
    options = FormatOptions(columns, delimiter, args.category, args.white, tuple(args.take))
    format_named(args.format, options)
    return args.format, options


def _import(args: argparse.Namespace) -> int:
    format_, options = format_of(args)
    try:
        budget = ErrorBudget.parse(args.max_errors)
    except ValueError as e:
        raise FormatError(f"max-errors: {args.max_errors!r} is not {e}") from e
    report = Report()
    parts = [(source, _parts(source, format_, options)) for source in args.sources]
    # Not into the lines themselves, where these go to a terminal.
    with (
        nullcontext(silent) if args.output is None and sys.stdout.isatty() else progress_bar() as progress,
        _output(args.output, [p.path for _, files in parts for p in files]) as out,
    ):
        for source, files in parts:
            before = report.so_far()
            for part in files:
                _translate(source, part, out, report, progress, quiet=args.quiet)
            check_entries(source, report, before)
        check_budget(report, budget, ", ".join(map(str, args.sources)))
    for name, recognised in report.recognised.items():
        print(f"{name}: read as format {recognised}, by its first lines", file=sys.stderr)
    print(
        f"{args.output or 'standard output'}: {report.entries} lines, for {report.lines - report.bad} of the "
        f"sources; {report.bad} bad lines" + (f", {more}" if (more := left_out(report)) else ""),
        file=sys.stderr,
    )
    return DONE


def _parts(source: Path, format_: str, options: FormatOptions) -> list[Part]:
    if source == _STDIN:
        return [Part(source, FORMATS[format_].read, options)]
    return parts_of(source, format_, options)


def _translate(
    source: Path, part: Part, out: BinaryIO, report: Report, progress: Progress, *, quiet: bool
) -> None:
    name, last = str(part.path), 0
    for each in _found(source, part, report, progress):
        if isinstance(each, Skipped):
            note(report, name, each)
            if not quiet:
                kind = "not taken: " if each.unsupported else ""
                print(BadLine(name, each.line, each.column, kind + each.reason), file=sys.stderr)
        else:
            out.write(each.text.encode() + b"\n")
            report.entries += 1
            report.lines += each.line != last
            report.partly += not each.whole and each.line != last
        last = each.line


def _found(source: Path, part: Part, report: Report, progress: Progress) -> Iterator[Found | Skipped]:
    try:
        with _opened(part.path) as file:
            stream, name = SourceStream(file), str(part.path)
            if part.read is FORMATS[AUTO].read:
                _, part = recognise(part, stream.peek(SNIFFED)[:SNIFFED], report)
            # Of a pipe nobody knows how long it is.
            size = 0 if part.path == _STDIN else part.path.stat().st_size
            for number, each in enumerate(
                checked(found_in(name, stream, part, may_be_empty=part.path != source))
            ):
                if size and not number % _TOLD:
                    progress(name, min(stream.done / size, 1))
                yield each
    except OSError as e:
        raise unreadable(part.path, e) from e


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path == _STDIN:
        yield sys.stdin.buffer
        return
    with open_list(path) as file:
        yield file


@contextmanager
def _output(path: Path | None, sources: list[Path]) -> Iterator[BinaryIO]:
    """Open the output; a list as text is for its owner's eyes alone."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    spare(path, *sources)
    with written_atomically(path, 0o600) as file:
        yield file
