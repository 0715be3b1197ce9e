"""Digest lists: exports of Project VIC or CAID, and of Meta's ThreatExchange tools.

https://github.com/VICSDATAMODEL/ProjectVic and https://github.com/facebook/ThreatExchange. Both say of
each digest of what category its file is; what is taken where nobody chooses is what is certain.
"""

from collections.abc import Iterator, Mapping
from typing import BinaryIO

from urlward.engine.entry import PDQ
from urlward.engine.errors import UrlError
from urlward.lists.formats.csv_json import found_in, getter, member_items, rows
from urlward.lists.formats.format import (
    FormatError,
    FormatOptions,
    Found,
    NotTakenError,
    Skipped,
    not_taken,
)
from urlward.lists.formats.stream import stream_of
from urlward.lists.formats.write import attributes, file_digest, page

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
        return page(text)
    if kind not in _SIGNALS:
        raise NotTakenError("a kind of signal that no entry stands for")
    return file_digest(_SIGNALS[kind], text)
