"""Formats of sources, and their translation to lines of the grammar.

A line says what the source's own tool would block, as near as the grammar comes to it, and never more.
What it cannot say is not taken, with the reason. All formats are read as streams: memory does not grow
with a source. What each takes is described for its users in ``docs/formats.md``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from urlward.engine.errors import EntryError
from urlward.engine.grammar import parse_line
from urlward.lists.formats import adblock, csv_json, plain, squidguard
from urlward.lists.formats.format import (
    DEFAULTS,
    FIELDS,
    WHITE,
    Format,
    FormatError,
    FormatOptions,
    Found,
    Part,
    Skipped,
    stream_of,
)
from urlward.lists.formats.format import format_of_files as _of_files
from urlward.lists.formats.recognise import SNIFFED, likely, recognised, refuse_table, watched

__all__ = [
    "AUTO",
    "DEFAULTS",
    "FIELDS",
    "FORMATS",
    "SNIFFED",
    "WHITE",
    "Format",
    "FormatError",
    "FormatOptions",
    "Found",
    "Part",
    "Skipped",
    "checked",
    "convert",
    "format_named",
    "likely",
    "reason_of",
    "recognised_part",
]


def _read_rpz(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    # dnspython takes longer to import than all else here.
    from urlward.lists.formats import rpz

    return rpz.read(file, options)


def _read_recognised(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    stream = stream_of(file)
    part = Part(Path(), _read_recognised, options)
    _, part = recognised_part(part, stream.peek(SNIFFED)[:SNIFFED])
    return part.read(stream, options)


def _parts_to_recognise(path: Path, options: FormatOptions) -> list[Part]:
    if path.is_dir():
        raise FormatError("a folder: its format must be said, such as squidguard")
    return [Part(path, _read_recognised, options)]


AUTO = "auto"
"""Stands for whatever format a source is recognised to be of."""

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        AUTO: Format(_read_recognised, _parts_to_recognise, "told by its first bytes"),
        "grammar": _of_files(plain.read_native, "the list grammar"),
        "hosts": _of_files(plain.read_hosts, "hosts file"),
        "adblock": _of_files(adblock.read, "AdBlock network rules of host and simple path form"),
        "urls": _of_files(plain.read_urls, "URLs, one a line"),
        "urlhaus": _of_files(csv_json.read_urlhaus, "URLhaus export, CSV or JSON", may_be_json=True),
        "phishtank": _of_files(csv_json.read_phishtank, "PhishTank export, CSV or JSON", may_be_json=True),
        "csv": _of_files(csv_json.read_csv, "CSV with columns of your naming", is_table=True),
        "json": _of_files(csv_json.read_json, "JSON array of objects", is_table=True, may_be_json=True),
        "jsonl": _of_files(csv_json.read_json_lines, "JSON Lines", is_table=True),
        "projectvic": _of_files(
            csv_json.read_projectvic, "Project VIC or CAID export, JSON", may_be_json=True
        ),
        "threatexchange": _of_files(
            csv_json.read_threatexchange, "digests as ThreatExchange's tools write CSV"
        ),
        "squidguard": Format(squidguard.read, squidguard.parts, "squidGuard or ufdbGuard folder"),
        "squidguard-domains": _of_files(squidguard.read_domains, "squidGuard file domains, of any name"),
        "squidguard-urls": _of_files(squidguard.read_urls, "squidGuard file urls, of any name"),
        "rpz": _of_files(_read_rpz, "DNS response policy zone"),
    }
)


def format_named(name: str, options: FormatOptions) -> Format:
    """Find a format by its name, and check the options for it.

    Raises:
        FormatError: there is none of that name, or they do not.
    """
    found = FORMATS.get(name)
    if found is None:
        raise FormatError(f"format: {name!r} is not one of {', '.join(FORMATS)}")
    if name == AUTO and (options.columns or options.delimiter != ","):
        what = "column" if options.columns else "delimiter"
        raise FormatError(f"{what}: needs a format to be said, such as csv")
    if name == AUTO and options.take:
        raise FormatError("take: needs a format to be said, such as projectvic")
    if options.columns and not found.is_table:
        raise FormatError(f"column: format {name} has no columns to name")
    if options.delimiter != "," and name != "csv":
        raise FormatError(f"delimiter: format {name} has none")
    if options.white != "skip" and name != "squidguard":
        raise FormatError(f"white: format {name} has no folders that allow")
    if options.take and name not in csv_json.CATEGORIES:
        raise FormatError(f"take: format {name} has no categories of its own to choose from")
    return found


def recognised_part(part: Part, head: bytes) -> tuple[str, Part]:
    """Recognise a file's format by its first bytes; also returns options for reading it.

    Args:
        part: the file, and options for it.
        head: its first `SNIFFED` bytes.

    Raises:
        FormatError: the options do not go with the format, or it looks like a table without our names.
    """
    name = recognised(head)
    if name == "grammar" and part.options.category:
        # Where lines say no category themselves, most are another format's, which the grammar reads too.
        name = likely(head, name) or name
    if name == "grammar":
        refuse_table(head)
    found = format_named(name, part.options)
    read = found.read if name == "grammar" else watched(name, found.read)
    return name, Part(part.path, read, part.options, found.may_be_json)


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
    """Translate as `convert`; lines that the grammar refuses after all are reported as not taken."""
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
    """Reason why a line is not of the grammar, and what to write instead."""
    return error.reason + (f" ({error.hint})" if error.hint else "")
