"""Exports of URLhaus and PhishTank: CSV and JSON, recognised by their first character.

https://urlhaus.abuse.ch/api/ and https://phishtank.org/developer_info.php. The feed's own number is the
entry's id, and its subject the category.
"""

from collections.abc import Iterator
from typing import BinaryIO

from urlward.lists.formats.csv_json import (
    array_items,
    columns_of,
    found,
    found_in,
    getter,
    object_members,
    rows,
)
from urlward.lists.formats.format import FormatError, FormatOptions, Found, Skipped
from urlward.lists.formats.stream import SourceStream, stream_of

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
