"""Tables: CSV (RFC 4180), JSON Lines, and JSON arrays of objects, with named columns.

JSON of any size (RFC 8259) is parsed as a stream, one item after another.

Exports that are read as such tables stand here too: of URLhaus and PhishTank (https://urlhaus.abuse.ch/api/,
https://phishtank.org/developer_info.php), whose own number is the entry's id, and the subject its category;
and digest lists of Project VIC or CAID, and of Meta's ThreatExchange tools
(https://github.com/VICSDATAMODEL/ProjectVic, https://github.com/facebook/ThreatExchange). Those say of each
digest of what category its file is; what is taken where nobody chooses is what is certain.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, BinaryIO

import ijson

from urlward.csv_rows import csv_rows
from urlward.engine.entry import PDQ
from urlward.engine.errors import UrlError
from urlward.engine.grammar import MAX_LINE
from urlward.lists.formats.format import (
    DIGESTS,
    FIELDS,
    MAX_LINE_BYTES,
    TOO_LONG,
    FormatError,
    FormatOptions,
    Found,
    NotTakenError,
    Skipped,
    SourceStream,
    cut_lines,
    not_taken,
    stream_of,
    text_lines,
)
from urlward.lists.formats.write import address, attributes, domain, file_digest, host_alone, page

_CHUNK = 1 << 16
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_WHOLE_ESCAPES = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}"
    rb"(?:\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?=[^\\]|\\[^u]|\\u(?![dD][c-fC-F])[0-9a-fA-F]{4})))*+",
    re.DOTALL,
).match
_ANY_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STEPS = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}
_NO_BRACKETS = bytes(set(range(256)) - _STEPS.keys())

DEEPEST = 100
"""Arrays and objects within each other. `ijson` keeps a path as long as they are deep for each, so that a
hundred thousand, in as many bytes, would take all memory."""

MOST_DIGITS = 1000
"""Digits of a number at most; `ijson` ends the process where Python makes no number of so many (4300)."""

_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MOST_DIGITS + 1))

_LONGEST = 12
"""Bytes of an escape at most, for a pair of surrogates."""


def array_items(stream: SourceStream) -> Iterator[Any]:
    """Iterate over the items of a JSON array.

    Raises:
        FormatError: not one, or not whole.
    """
    if stream.first() != b"[":
        raise FormatError("not a JSON array")
    return _whole(ijson.items(_WellFormed(stream), "item"))


def object_members(stream: SourceStream) -> Iterator[tuple[str, Any]]:
    """Iterate over the members of a JSON object.

    Raises:
        FormatError: not one, or not whole.
    """
    if stream.first() != b"{":
        raise FormatError("not a JSON object")
    return _whole(ijson.kvitems(_WellFormed(stream), ""))


def member_items(stream: SourceStream, where: str) -> Iterator[Any]:
    """Iterate over the items of an array in a JSON object.

    Args:
        stream: of the object.
        where: the array's items as `ijson` names them, such as ``value.item``.

    Raises:
        FormatError: not whole, or not JSON.
    """
    return _whole(ijson.items(_WellFormed(stream), where))


def _whole[T](items: Iterator[T]) -> Iterator[T]:
    """Refuse a document that is cut short: who publishes it means all of it."""
    number = 0
    try:
        for item in items:
            number += 1
            yield item
    except (ijson.JSONError, UnicodeError) as e:
        raise FormatError(f"not whole, or not JSON, after record {number}") from e


class _WellFormed:
    """Filter in front of `ijson`, in which half a surrogate pair is U+FFFD, as it is in a browser's URL.

    yajl makes a question mark of it, which would make another page of the URL.
    """

    def __init__(self, stream: SourceStream) -> None:
        self._stream = stream
        self._rest = b""
        self._depth = 0
        self._in_string = 0
        self._in_escape = False
        self._digits = b""

    def read(self, size: int = -1) -> bytes:
        """Read some bytes; none at the end."""
        if not size:
            return b""
        while True:
            chunk = self._stream.read(_CHUNK)
            data, self._rest = self._rest + chunk, b""
            if chunk and b"\\" in data[-_LONGEST:]:
                # An escape that the next chunk goes on with is seen whole, with it.
                end = _WHOLE_ESCAPES(data).end()  # type: ignore[union-attr]
                if len(data) - end < _LONGEST:  # or it is no escape
                    data, self._rest = data[:end], data[end:]
            if b"\\ud" in data or b"\\uD" in data:
                data = _ESCAPE.sub(lambda m: b"\\ufffd" if m[1] else m[0], data)
            if data or not chunk:
                self._measure(data)
                return data

    def _measure(self, data: bytes) -> None:
        """Check how deep it is nested, and how long its numbers are.

        Raises:
            FormatError: what a parser cannot take.
        """
        if self._in_escape:
            data = data[1:]
        if b"\\" in data:
            data = _ANY_ESCAPE.sub(b"", data)
        self._in_escape = data.endswith(b"\\")
        parts = data.split(b'"')
        outside = b"".join(parts[self._in_string :: 2])
        brackets = outside.translate(None, _NO_BRACKETS)
        self._in_string ^= (len(parts) - 1) & 1
        depths = list(accumulate((_STEPS[bracket] for bracket in brackets), initial=self._depth))
        if max(depths) > DEEPEST:
            raise FormatError(f"JSON nested more than {DEEPEST} deep")
        self._depth = depths[-1]
        outside = self._digits + outside
        if _LONG_NUMBER.search(outside):
            raise FormatError(f"JSON with a number of more than {MOST_DIGITS} digits")
        self._digits = outside[len(outside.rstrip(b"0123456789")) :]


NAMES = ("url", "host", "domain")
"""The fields of which one says what address to block; `DIGESTS` are what else can be said."""

type Get = Callable[[str], str]
"""A field of `FIELDS` to its value in a record, empty where it has none."""


def found(get: Get, number: int, category: str) -> Iterator[Found | Skipped]:
    """Convert a record to lines of the grammar: one for what it says of an address, and one for each digest.

    Args:
        get: gives its fields.
        number: of its line.
        category: where it has none of its own.
    """
    try:
        more = attributes(get("id"), get("category") or category, get("expires"))
    except NotTakenError as e:
        yield not_taken(number, 1, e)
        return
    digests = [algorithm for algorithm in DIGESTS if get(algorithm).lower() not in _NO_DIGEST]
    if not digests or any(map(get, NAMES)):
        try:
            yield Found(_entry(get) + more, number)
        except (UrlError, NotTakenError) as e:
            yield not_taken(number, 1, e)
    for algorithm in digests:
        try:
            yield Found(file_digest(algorithm, get(algorithm)) + _distance(get, algorithm) + more, number)
        except NotTakenError as e:
            yield not_taken(number, 1, e)


_NO_DIGEST = frozenset({"", "-", "null", "none", "n/a"})
"""Values of a column that say that a file has no such digest."""


def _distance(get: Get, algorithm: str) -> str:
    distance = get("distance") if algorithm == PDQ else ""
    if distance and not (distance.isascii() and distance.isdecimal()):
        raise NotTakenError("distance is a number", unsupported=False)
    return f" distance={distance}" if distance else ""


def _entry(get: Get) -> str:
    url, host = get("url"), get("host")
    if url:
        return address(url)
    if host:
        path = get("path")
        if not path:
            return host_alone(host)
        host_alone(host)  # or a host with a slash in it would be another
        return page(f"http://{host}{path if path.startswith('/') else f'/{path}'}")
    name = get("domain")
    if name:
        return domain(name)
    raise NotTakenError("no url, host, domain or digest in it", unsupported=False)


def read_csv(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    columns: dict[str, int] | None = None
    if options.columns and all(column.isdecimal() for column in options.columns.values()):
        columns = {name: int(column) - 1 for name, column in options.columns.items()}
        _check_columns(columns)
    for row in rows(file, options.delimiter):
        if isinstance(row, Skipped):
            yield row
        elif columns is None:
            columns = columns_of(row[1], options.columns)
        else:
            yield from found(getter(row[1], columns), row[0], options.category)


_DECISIONS = frozenset({"action", "decision", "verdict"})
"""Columns by which a table, such as a firewall's policy, may have rows that allow."""


def columns_of(header: Sequence[str], wanted: Mapping[str, str]) -> dict[str, int]:
    """Map fields to the index of their column.

    Args:
        header: the names of a table's columns.
        wanted: fields to such names; those that are fields themselves where it is empty.

    Raises:
        FormatError: a name is not there, or none says what to block.
    """
    names = [name.strip().lower() for name in header]
    columns = {}
    if not wanted:
        if says := next((name for name in names if name in _DECISIONS), ""):
            raise FormatError(
                f"a column {says!r}: --column url=NAME says that all rows block, whatever it has "
                f"({_of_a_feed('url')})"
            )
        names = [digest_named(name) or name for name in names]
        # A table of addresses that has digests too is of what was found there: it lists the addresses.
        addresses = any(name in NAMES for name in names)
        wanted = {name: name for name in FIELDS if name in names and not (addresses and name in DIGESTS)}
    for field, name in wanted.items():
        if name.strip().lower() not in names:
            # What stands in the first line may be an entry.
            raise FormatError(
                f"line 1 names no column {name!r}: --column {field}=NAME, or its number ({_of_a_feed(field)})"
            )
        columns[field] = names.index(name.strip().lower())
    _check_columns(columns)
    return columns


_SEPARATORS = str.maketrans("", "", " -_")


def digest_named(name: str) -> str:
    """The algorithm whose digests a column of this name has, in lower case, such as sha-256; or empty."""
    plain = name.translate(_SEPARATORS)
    return plain if plain in DIGESTS else ""


def _of_a_feed(field: str) -> str:
    """How a feed's table says what a command's ``--column`` does."""
    return f'of a feed: columns = {{ {field} = "NAME" }}'


def _check_columns(columns: Mapping[str, object]) -> None:
    if not any(name in columns for name in (*NAMES, *DIGESTS)):
        raise FormatError(
            "no column that says what to block: --column url=NAME (or host=, domain=, sha256=; "
            f"{_of_a_feed('url')})"
        )


def getter(row: Sequence[str], columns: Mapping[str, int]) -> Get:
    """Make a function that gets the fields of a row."""

    def get(field: str) -> str:
        index = columns.get(field, -1)
        return row[index].strip() if 0 <= index < len(row) else ""

    return get


def rows(file: BinaryIO, delimiter: str = ",") -> Iterator[tuple[int, list[str]] | Skipped]:
    """Iterate over records of CSV that are not blank, each with the number of its last line."""
    lines = _Lines(file)
    for number, row in csv_rows(lines, delimiter):
        while lines.long and lines.long[0] <= number:
            yield Skipped(lines.long.pop(0), MAX_LINE, TOO_LONG)
        if row is None:
            yield Skipped(number, 1, "not CSV: a quote or a line break out of place")
        elif any(map(str.strip, row)):
            yield number, row
    for number in lines.long:
        yield Skipped(number, MAX_LINE, TOO_LONG)


class _Lines:
    """Line reader for `csv_rows`; lines that are too long are left out, and noted."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = cut_lines(stream_of(file))
        self.number = 0
        self.long: list[int] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = next(self._lines)
        self.number += 1
        if len(raw) >= MAX_LINE_BYTES:
            self.long.append(self.number)
            return "\n"
        # Only what is used must be text; another column may have any bytes.
        return raw.decode(errors="surrogateescape")


def read_json_lines(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    columns = _members(options)
    for line in text_lines(file, ()):
        if isinstance(line, Skipped):
            yield line
            continue
        number, text = line
        try:
            record = json.loads(text)
        except json.JSONDecodeError as e:
            yield Skipped(number, e.colno, "not JSON")
        except (RecursionError, ValueError):
            yield Skipped(number, 1, "not JSON that can be read")
        else:
            yield from found_in(_of_one_kind(record, options), columns, number, options.category)


def read_json(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    columns = _members(options)
    for number, record in enumerate(array_items(stream_of(file)), 1):
        yield from found_in(_of_one_kind(record, options), columns, number, options.category)


def _members(options: FormatOptions) -> Mapping[str, str]:
    columns = options.columns or {field: field for field in FIELDS}
    _check_columns(columns)
    return columns


def _of_one_kind(record: object, options: FormatOptions) -> object:
    """A record without its digests, where it has an address and nobody has said that both count."""
    if options.columns or not isinstance(record, dict) or not any(record.get(name) for name in NAMES):
        return record
    return {name: value for name, value in record.items() if name not in DIGESTS}


def found_in(
    record: object, columns: Mapping[str, str], number: int, category: str
) -> Iterator[Found | Skipped]:
    """Convert a JSON object to lines of the grammar.

    Args:
        record: the object, if it is one.
        columns: fields to members.
        number: of the record.
        category: where it has none of its own.
    """
    if not isinstance(record, dict):
        return iter((Skipped(number, 1, "not a JSON object"),))
    return found(lambda field: _member(record, columns.get(field, "")), number, category)


def _member(record: object, path: str) -> str:
    for name in path.split("."):
        record = record.get(name) if isinstance(record, dict) else None
    if isinstance(record, str):
        return record.strip()
    return str(record) if isinstance(record, int) and not isinstance(record, bool) else ""


CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "projectvic": ("1",),
    "threatexchange": ("POSITIVE_CLASS", "TRUE_POSITIVE", ""),
}
"""Of each format that has categories of its own, those that are taken where nobody chooses."""

_NOT_CHOSEN = "of a category that is not taken (--take)"
_VIC = {"md5": "MD5", "sha1": "SHA1", "sha256": "SHA256", "id": "MediaID"}
_MEMBERS = b'"Media"'
_SIGNALS = {
    "pdq": PDQ,
    "md5": "md5",
    "photo_md5": "md5",
    "video_md5": "md5",
    "sha1": "sha1",
    "sha256": "sha256",
}
"""Names of ThreatExchange's signals to algorithms."""


def read_projectvic(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`. A case's media are below it; a hash set has none."""
    stream = stream_of(file)
    if stream.first() != b"{":
        raise FormatError("not an export of Project VIC: not a JSON object")
    taken = options.take or CATEGORIES["projectvic"]
    below = "value.item.Media.item" if _MEMBERS in stream.peek(1) else "value.item"
    for number, record in enumerate(member_items(stream, below), 1):
        if isinstance(record, dict) and str(record.get("Category", "")) not in taken:
            yield Skipped(number, 1, _NOT_CHOSEN, unsupported=True)
        else:
            yield from found_in(record, _VIC, number, options.category or "csam")


def read_threatexchange(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`: CSV as ``threatexchange dataset --csv`` writes it, or a kind and a signal a line, as
    its exchange of local files reads them."""
    columns: dict[str, int] = {}
    taken = options.take or CATEGORIES["threatexchange"]
    for row in rows(file):
        if isinstance(row, Skipped):
            yield row
            continue
        number, values = row
        if not columns and len(values) == 1 and " " in values[0].strip():
            kind, _, signal = values[0].strip().partition(" ")
            yield _found(kind, signal.strip(), number, options.category)
            continue
        if not columns:
            columns = {value.strip().lower(): at for at, value in enumerate(values)}
            if not {"signal_type", "signal_str"} <= columns.keys():
                raise FormatError("not an export of ThreatExchange: no columns signal_type and signal_str")
            continue
        get = getter(values, columns)
        if get("category") not in taken:
            yield Skipped(number, 1, _NOT_CHOSEN, unsupported=True)
            continue
        yield _found(get("signal_type"), get("signal_str"), number, options.category)


def _found(kind: str, signal: str, number: int, category: str) -> Found | Skipped:
    try:
        return Found(_signal(kind, signal) + attributes("", category), number)
    except (UrlError, NotTakenError) as e:
        return not_taken(number, 1, e)


def _signal(kind: str, text: str) -> str:
    if kind == "url":
        return address(text)
    if kind not in _SIGNALS:
        raise NotTakenError("a kind of signal that no entry stands for")
    return file_digest(_SIGNALS[kind], text)


_URLHAUS = {"id": "id", "url": "url"}
_URLHAUS_PLACES = {"id": 0, "url": 2}
_PHISHTANK = {"id": "phish_id", "url": "url"}
_NOT_VERIFIED = "a phish that nobody has verified"


def read_urlhaus(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    stream = stream_of(file)
    category = options.category or "malware"
    return (_urlhaus_json if stream.first() == b"{" else _urlhaus_csv)(stream, category)


def _urlhaus_csv(stream: SourceStream, category: str) -> Iterator[Found | Skipped]:
    """Read CSV. The columns' names stand in a comment; feeds of a country or network have fewer."""
    columns = _URLHAUS_PLACES
    for row in rows(stream):
        if isinstance(row, Skipped):
            yield row
            continue
        number, values = row
        is_comment = values[0].startswith("#")
        names = [value.strip("# ").lower() for value in values]
        if "url" in names:
            columns = columns_of(names, {key: name for key, name in _URLHAUS.items() if name in names})
        elif not is_comment:
            yield from found(getter(values, columns), number, category)


def _urlhaus_json(stream: SourceStream, category: str) -> Iterator[Found | Skipped]:
    """Read JSON: an object of ids, each with an array of one object."""
    for number, (id_, value) in enumerate(object_members(stream), 1):
        records = value if isinstance(value, list) else [value]
        for record in records:
            named = {"id": id_, **record} if isinstance(record, dict) else record
            yield from found_in(named, _URLHAUS, number, category)


def read_phishtank(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    stream = stream_of(file)
    category = options.category or "phishing"
    return (_phishtank_json if stream.first() == b"[" else _phishtank_csv)(stream, category)


def _phishtank_csv(stream: SourceStream, category: str) -> Iterator[Found | Skipped]:
    columns: dict[str, int] = {}
    verified = -1
    for row in rows(stream):
        if isinstance(row, Skipped):
            yield row
            continue
        number, values = row
        if not columns:
            try:
                columns = columns_of(values, _PHISHTANK)
            except FormatError:
                raise FormatError("not an export of PhishTank: no columns phish_id and url") from None
            verified = values.index("verified") if "verified" in values else -1
        elif 0 <= verified < len(values) and values[verified] == "no":
            yield Skipped(number, 1, _NOT_VERIFIED, unsupported=True)
        else:
            yield from found(getter(values, columns), number, category)


def _phishtank_json(stream: SourceStream, category: str) -> Iterator[Found | Skipped]:
    for number, record in enumerate(array_items(stream), 1):
        if isinstance(record, dict) and record.get("verified") == "no":
            yield Skipped(number, 1, _NOT_VERIFIED, unsupported=True)
        else:
            yield from found_in(record, _PHISHTANK, number, category)
