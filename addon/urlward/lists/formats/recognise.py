"""Recognition of a source's format by its first bytes, and refusal where that guess drops an entry.

A format is recognised where the list grammar would read the first lines worse, or not at all. All else is the
grammar. The first lines say nothing about the others, so a recognised format is read with `watched`: a line
that the format does not take, and that is an entry of the grammar, was perhaps meant to be blocked, and the
source is refused until somebody names its format. The line is not taken as an entry instead, because a rule
of another tool can look like one: ``banner.gif`` in an AdBlock list is any URL with these letters in it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import BinaryIO

from urlward.engine.entry import Entry
from urlward.engine.errors import EntryError
from urlward.engine.grammar import parse_line
from urlward.lists.formats.csv_json import NAMES, digest_named
from urlward.lists.formats.format import (
    DIGESTS,
    FormatError,
    FormatOptions,
    Found,
    Read,
    Skipped,
    SourceStream,
)
from urlward.regular import without_bom

SNIFFED = 4096
"""Bytes that are looked at."""

GRAMMAR = "grammar"

_JSON_ARRAY = re.compile(r"\[\s*\{").match
_URLHAUS_JSON = re.compile(r'\{\s*"\d+"\s*:\s*\[\s*\{').match
_PROJECT_VIC = re.compile(
    r'\{\s*"@?odata\.(?:context|metadata)"\s*:\s*"[^"]*(?:VICSDATAMODEL|ProjectVic)', re.IGNORECASE
).match
_SIGNAL = re.compile(r"(?:pdq|(?:photo_|video_)?md5|sha1|sha256) [0-9A-Fa-f]{32,64}").fullmatch
_MEMBER = re.compile(r'"([^"\\]+)"\s*:')
_ADBLOCK_HEADER = re.compile(r"\[(?:adblock|ublock|adguard)\b[^\]]*\]\s*", re.IGNORECASE).fullmatch
_ADBLOCK_ONLY = re.compile(
    r".*#@?(?:\$\??|\?|%)?#.*|(?:@@)?\|https?://\S*|(?:@@)?\|\|[^\s/^|]+[/^|*]\S+"
    # A value ends before another dollar sign, or from each one the rest would be read.
    r"|\S*\$(?:~?[a-z0-9\-]++(?:=[^,\s$]*+)?)(?:,~?[a-z0-9\-]++(?:=[^,\s$]*+)?)*+"
).fullmatch
_HOST_RULE = re.compile(r"(?:@@)?\|\|[^\s/^|]+\^").fullmatch
_ZONE = re.compile(r"\$(?:TTL|ORIGIN)\s|\S*\s+(?:\d+[smhdw]?\s+|IN\s+)*SOA\s", re.IGNORECASE).match
_POLICY = re.compile(r"\sCNAME\s+(?:\*?\.|rpz-\S+)\s*(?:;.*)?$|\.rpz-(?:client-)?ip\s", re.IGNORECASE).search
_URLHAUS_CSV = re.compile(r'#\s*"?id"?\s*,\s*"?dateadded"?\s*,\s*"?url"?', re.IGNORECASE).match
_URL_FIELD = re.compile(r"https?://[^\s/]+\.[^\s/]+(?:/\S*)?", re.IGNORECASE).fullmatch
_DIGEST_FIELD = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}", re.IGNORECASE).fullmatch
_OF_DIGITS = {32: "md5", 40: "sha1", 64: "sha256"}
"""Algorithms by the digits of their digests; PDQ has as many as SHA-256."""
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_DELIMITED = {",": "", ";": " --delimiter ';'", "\t": " --delimiter TAB", "|": " --delimiter '|'"}
_ROWS = 3
"""Rows at least, before lines that the grammar reads are taken for a table."""
_COLUMN = re.compile(r"[a-z][a-z0-9_ .\-]*").fullmatch


def recognised(head: bytes) -> str:
    """Recognise a source's format: one of `urlward.lists.formats.FORMATS`, the grammar where that is not
    certain.

    Args:
        head: its first bytes; `SNIFFED` of them, or all there are.
    """
    text, lines = _lines(head)
    if found := _as_json(text, lines):
        return found
    content = [line for line in lines if line[:1] not in "#!;"]
    entries = [_entries(line) for line in content]
    if None not in entries:
        return GRAMMAR
    if found := _by_marks(lines, content, has_entries=any(entries)):
        return found
    if all(map(_is_hosts_line, content)):
        return "hosts"
    # What both know alike is no entry that would be left out.
    if any(map(_ADBLOCK_ONLY, content)) and not any(
        found and not _HOST_RULE(line) for line, found in zip(content, entries, strict=True)
    ):
        return "adblock"
    return GRAMMAR


def refuse_table(head: bytes) -> None:
    """Refuse a table of URLs or of digests whose columns have other names than ours, or none; and digests
    without their algorithm.

    The grammar reads rows of URLs as pages that nobody asks for, ``/page,phishing``, and would say of each
    row of digests what is wrong with it as a host.

    Raises:
        FormatError: the first lines are one.
    """
    content = [line for line in _lines(head)[1] if line[:1] not in "#!;"]
    for separator, said in _SEPARATORS.items():
        rows = [
            [field.strip().strip('"') for field in line.split(separator)]
            for line in content
            if separator in line
        ]
        if _most([row for row in rows if any(map(_URL_FIELD, row))], content):
            raise FormatError(
                f"it looks like a table with {said} between its fields: say what its columns are, such as "
                f"--format csv --column url=COLUMN{_DELIMITED[separator]}, or --format {GRAMMAR}"
            )
        if _most(found := [row for row in rows if any(map(_DIGEST_FIELD, row))], content):
            raise FormatError(
                f"it looks like a table of digests with {said} between its fields: say which column has "
                f"them, by its name, or its number where there is no header: --format csv "
                f"--column {_column_for(found)}{_DELIMITED[separator]}"
            )
    # As sha256sum writes it, the file's name is behind.
    firsts = [line.split()[0] for line in content]
    if _most(found := [[first] for first in firsts if _DIGEST_FIELD(first)], content):
        by_blank = " --delimiter ' '" if firsts != content else ""
        raise FormatError(
            "it looks like a list of digests without their algorithm: say it before each (md5:, sha256:, "
            f"pdq:), or by --format csv --column {_column_for(found)}{by_blank} (the name of its header, "
            "or 1)"
        )


def _most(rows: Sequence[Sequence[str]], content: Sequence[str]) -> bool:
    """Whether rows are nine of ten lines, and as long as each other."""
    return len(rows) >= _ROWS and len(rows) * 10 >= len(content) * 9 and len({len(row) for row in rows}) == 1


def _column_for(rows: Sequence[Sequence[str]]) -> str:
    digits = len(next(filter(_DIGEST_FIELD, rows[0])))
    return f"{_OF_DIGITS[digits]}=COLUMN" + " (or pdq=COLUMN)" * (digits == 64)


def watched(format: str, read: Read) -> Read:  # noqa: A002 - the word
    """Wrap a format's reader so that it raises FormatError where it leaves out an entry of the grammar.

    Args:
        format: that was recognised.
        read: reads it.
    """

    def watching(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
        lines = _Watched(file, format)
        for each in read(lines, options):
            lines.tell_of(each)
            yield each
        lines.settle()

    return watching


class _Watched(SourceStream):
    """Source wrapper: lines that the format takes nothing of are tried with the grammar.

    Args:
        file: the source.
        format: that was recognised.
    """

    def __init__(self, file: BinaryIO, format: str) -> None:  # noqa: A002 - the word
        super().__init__(file)
        self._format = format
        self._number = 0
        self._line = b"\n"
        self._is_taken = True

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line, or `size` bytes of it."""
        line = super().readline(size)
        if line and not self._line.endswith(b"\n"):
            self._is_taken = True  # it goes on, and is too long for an entry
        else:
            self.settle()
            self._number += 1
            self._is_taken = False
        self._line = line
        return line

    def tell_of(self, each: Found | Skipped) -> None:
        """Note the format's result for the line that was read last.

        Raises:
            FormatError: it does not take it, and the line is an entry of the grammar.
        """
        if each.line != self._number:
            return
        if isinstance(each, Found):
            # A line without a comma is no row of a table, whatever its first column is.
            self._is_taken = self._format != "csv" or b"," in self._line
        else:
            self._is_taken = each.certain
            self.settle()

    def settle(self) -> None:
        """Finish the line that was read last.

        Raises:
            FormatError: nothing of it was taken, and it is an entry of the grammar.
        """
        if not self._is_taken and _entries(self._line.decode(errors="replace")):
            raise FormatError(
                f"line {self._number} is an entry of the list grammar that format {self._format}, told by "
                f"the first lines, leaves out: say which it is, --format {GRAMMAR} or --format {self._format}"
            )


def likely(head: bytes, format: str) -> str:  # noqa: A002 - the word
    """Guess the format of a source that could not be read well in another; empty for none.

    Args:
        head: as of `recognised`.
        format: in which it has been read.
    """
    found = recognised(head)
    content = [line for line in _lines(head)[1] if line[:1] not in "#!;"]
    if found == GRAMMAR:
        shares = {
            "adblock": sum(bool(_ADBLOCK_ONLY(line) or _HOST_RULE(line)) for line in content),
            "hosts": sum(map(_is_hosts_line, content)),
            "rpz": len(content) if any(map(_ZONE, content)) else 0,
        }
        best = max(shares, key=lambda name: shares[name])
        found = best if shares[best] * 2 > len(content) else ""
    return found if found != format else ""


def _lines(head: bytes) -> tuple[str, list[str]]:
    """Decode text into its whole lines that are not blank, without white space around."""
    text = without_bom(head).decode(errors="replace").lstrip()
    whole = text if len(head) < SNIFFED else text.rpartition("\n")[0]
    return text, [line.strip() for line in whole.splitlines() if line.strip()]


def _as_json(text: str, lines: Sequence[str]) -> str:
    names = _MEMBER.findall(text)
    if _JSON_ARRAY(text):
        if "phish_id" in names:
            return "phishtank"
        return "json" if _lists(names, text) else ""
    if _URLHAUS_JSON(text):
        return "urlhaus" if "url" in names else ""
    if _PROJECT_VIC(text):
        return "projectvic"
    if text.startswith("{") and lines:
        try:
            first = json.loads(lines[0])
        except (ValueError, RecursionError):
            return ""
        return "jsonl" if _lists(first, text) else ""
    return ""


def _lists(names: Iterable[str], text: str) -> bool:
    """Whether members of these names say what is listed. Digests beside a URL are of what is found there:
    which of the two a source lists must be said."""
    return any(name in NAMES for name in names) or (
        any(name in DIGESTS for name in names) and "://" not in text
    )


def _by_marks(lines: Sequence[str], content: Sequence[str], *, has_entries: bool) -> str:
    """Recognise a format by a first line or a comment that names it."""
    if _ADBLOCK_HEADER(lines[0]):
        return "adblock"
    # It stands in a comment, which may tell of a list as well as begin one.
    if not has_entries and any(map(_URLHAUS_CSV, lines)):
        return "urlhaus"
    columns = [column.strip().strip('"').lower() for column in content[0].split(",")]
    if "phish_id" in columns and "url" in columns:
        return "phishtank"
    if "signal_type" in columns and "signal_str" in columns:
        return "threatexchange"
    if all(map(_SIGNAL, content)):
        return "threatexchange"
    of_files = any(map(digest_named, columns)) and not any(
        _URL_FIELD(field.strip().strip('"')) for row in content for field in row.split(",")
    )
    is_header = (of_files or any(column in NAMES for column in columns)) and all(map(_COLUMN, columns))
    if is_header and all("," in row for row in content):
        return "csv"
    if any(map(_ZONE, content)) and any(map(_POLICY, content)):
        return "rpz"
    return ""


def _entries(line: str) -> tuple[Entry, ...] | None:
    """Parse a line in the grammar; None where it is none of its lines."""
    try:
        return parse_line(line)
    except EntryError:
        return None


def _is_hosts_line(line: str) -> bool:
    """Whether a line is an address and names, without an attribute of ours."""
    address, *names = line.partition("#")[0].split() or [""]
    if not names or any("=" in name or name in ("nocase", "subdomains") for name in names):
        return False
    try:
        ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return True
