"""``urlward import``, and the arguments by which ``urlward compile`` reads foreign formats."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from urlward.lists.arguments import DONE, Command
from urlward.lists.build import written_atomically
from urlward.lists.formats import (
    FORMATS,
    FormatError,
    FormatOptions,
    Found,
    Part,
    Skipped,
    checked,
    format_named,
)
from urlward.lists.formats.stream import Stream
from urlward.lists.report import BadLine, Budget, Report, SourceError, check_budget, check_entries, note
from urlward.lists.source import found_in, open_list, parts_of, unreadable

_STDIN = Path("-")
_TAB = ("\\t", "tab")


def add_import_commands(command: Command) -> None:
    """Declare them."""
    importing = command("import", _import, "Translate sources of other formats to the list grammar.")
    importing.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help='"-" is standard input')
    add_format_arguments(importing, required=True)
    importing.add_argument("--max-errors", metavar="N|N%", default="1%", help="bad lines allowed (1%%)")
    importing.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="file to write (standard output)"
    )
    importing.add_argument("--quiet", action="store_true", help="count what was not taken, and no more")


def add_format_arguments(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Declare how sources are to be read; `format_of` gives what was said."""
    names = ", ".join(FORMATS)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="grammar",
        required=required,
        metavar="FORMAT",
        help=f"of the sources: {names}" + ("" if required else " (grammar)"),
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=NAME",
        help="name or number of the column with url, host, domain, path, id, category or expires",
    )
    parser.add_argument("--delimiter", metavar="CHARACTER", default=",", help="between columns of CSV (,)")
    parser.add_argument(
        "--category", metavar="NAME", default="", help="of entries that the source gives none"
    )


def format_of(args: argparse.Namespace) -> tuple[str, FormatOptions]:
    """The format that was said, and how to read it.

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
    options = FormatOptions(columns, delimiter, args.category)
    format_named(args.format, options)
    return args.format, options


def _import(args: argparse.Namespace) -> int:
    format_, options = format_of(args)
    try:
        budget = Budget.parse(args.max_errors)
    except ValueError as e:
        raise FormatError(f"max-errors: {args.max_errors!r} is not {e}") from e
    report = Report()
    parts = [(source, _parts(source, format_, options)) for source in args.sources]
    with _output(args.output, [part.path for _, files in parts for part in files]) as out:
        for source, files in parts:
            before = report.so_far()
            for part in files:
                _translate(source, part, out, report, quiet=args.quiet)
            check_entries(source, report, before)
        check_budget(report, budget, ", ".join(map(str, args.sources)))
    print(
        f"{args.output or 'standard output'}: {report.entries} lines, for {report.lines - report.bad} of the "
        f"sources; {report.bad} bad lines, {report.unsupported} of a kind that cannot be taken",
        file=sys.stderr,
    )
    return DONE


def _parts(source: Path, format_: str, options: FormatOptions) -> list[Part]:
    if source == _STDIN:
        return [Part(source, FORMATS[format_].read, options)]
    return parts_of(source, format_, options)


def _translate(source: Path, part: Part, out: BinaryIO, report: Report, *, quiet: bool) -> None:
    name, last = str(part.path), 0
    for each in _found(source, part):
        if isinstance(each, Skipped):
            note(report, name, each)
            if not quiet:
                kind = "not taken: " if each.unsupported else ""
                print(BadLine(name, each.line, each.column, kind + each.reason), file=sys.stderr)
        else:
            out.write(each.text.encode() + b"\n")
            report.entries += 1
            report.lines += each.line != last
        last = each.line


def _found(source: Path, part: Part) -> Iterator[Found | Skipped]:
    try:
        with _opened(part.path) as file:
            yield from checked(found_in(str(part.path), Stream(file), part, may_be_empty=part.path != source))
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
    """Where the lines go; a list as text is for its owner's eyes alone."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    for source in sources:
        if source.absolute() == path.absolute() or (
            path.exists() and source.exists() and path.samefile(source)
        ):
            raise SourceError(f"{path}: is read from, and would be overwritten")
    with written_atomically(path, 0o600) as file:
        yield file
