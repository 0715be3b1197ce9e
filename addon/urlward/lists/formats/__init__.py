"""Formats that sources come in, and their translation to lines of the grammar.

A line says what the source's own tool would block, as near as the grammar comes to it, and never more.
What it cannot say is not taken, with the reason. All formats are read as streams: memory does not grow
with a source. What each takes is described for its users in ``lists/README.md``.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO

from urlward.engine.errors import EntryError
from urlward.engine.grammar import parse_line
from urlward.lists.formats import adblock, exports, hosts, native, squidguard, table, urls
from urlward.lists.formats.found import (
    DEFAULTS,
    FIELDS,
    Format,
    FormatError,
    FormatOptions,
    Found,
    Part,
    Skipped,
)
from urlward.lists.formats.found import format_of_files as _of_files

__all__ = [
    "DEFAULTS",
    "FIELDS",
    "FORMATS",
    "Format",
    "FormatError",
    "FormatOptions",
    "Found",
    "Part",
    "Skipped",
    "checked",
    "convert",
    "format_named",
    "reason_of",
]


def _read_rpz(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    # dnspython takes longer to import than all else here.
    from urlward.lists.formats import rpz

    return rpz.read(file, options)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "grammar": _of_files(native.read, "the list grammar"),
        "hosts": _of_files(hosts.read, "hosts file"),
        "adblock": _of_files(adblock.read, "AdBlock network rules of host and simple path form"),
        "urls": _of_files(urls.read, "URLs, one a line"),
        "urlhaus": _of_files(exports.read_urlhaus, "URLhaus export, CSV or JSON", may_be_json=True),
        "phishtank": _of_files(exports.read_phishtank, "PhishTank export, CSV or JSON", may_be_json=True),
        "csv": _of_files(table.read_csv, "CSV with columns of your naming", is_table=True),
        "json": _of_files(table.read_json, "JSON array of objects", is_table=True, may_be_json=True),
        "jsonl": _of_files(table.read_json_lines, "JSON Lines", is_table=True),
        "squidguard": Format(squidguard.read, squidguard.parts, "squidGuard or ufdbGuard folder"),
        "squidguard-domains": _of_files(squidguard.read_domains, "squidGuard file domains, of any name"),
        "squidguard-urls": _of_files(squidguard.read_urls, "squidGuard file urls, of any name"),
        "rpz": _of_files(_read_rpz, "DNS response policy zone"),
    }
)


def format_named(name: str, options: FormatOptions) -> Format:
    """A format, where the options go with it.

    Raises:
        FormatError: there is none of that name, or they do not.
    """
    found = FORMATS.get(name)
    if found is None:
        raise FormatError(f"format: {name!r} is not one of {', '.join(FORMATS)}")
    if options.columns and not found.is_table:
        raise FormatError(f"column: format {name} has no columns to name")
    if options.delimiter != "," and name != "csv":
        raise FormatError(f"delimiter: format {name} has none")
    if options.category and name == "grammar":
        raise FormatError("category: the grammar says it with each entry")
    return found


def convert(format: str, file: BinaryIO, options: FormatOptions) -> Iterator[str | Skipped]:  # noqa: A002
    """Translate a file to lines of the grammar.

    Args:
        format: one of `FORMATS`.
        file: the source, read from where it stands.
        options: how to read it.

    Returns:
        Lines, each of which is an entry or several, and what was not taken.

    Raises:
        FormatError: no such format, options that do not go with it, or something else in the file.
    """
    found = checked(format_named(format, options).read(file, options))
    return (each if isinstance(each, Skipped) else each.text for each in found)


def checked(found: Iterator[Found | Skipped]) -> Iterator[Found | Skipped]:
    """The same, with what is no line of the grammar after all told as not taken."""
    for each in found:
        if isinstance(each, Skipped):
            yield each
            continue
        try:
            entries = parse_line(each.text)
        except EntryError as e:
            yield Skipped(each.line, each.column, reason_of(e))
        else:
            if entries:
                yield each


def reason_of(error: EntryError) -> str:
    """Why a line is not of the grammar, and what to write instead."""
    return error.reason + (f" ({error.hint})" if error.hint else "")
