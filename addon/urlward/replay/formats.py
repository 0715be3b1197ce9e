"""Formats of access logs: one regular expression each, which cuts a block of lines into columns.

A block is read at once, since a match for each line by itself would cost more than the check of its URL. URLs
that begin with ``http://`` or ``https://`` in small letters and have nothing odd in front of their path come
cut in two; any other is in `Columns.others` as written.

Text here is a *byte string*: a ``str`` whose characters are bytes (Latin-1), as in the engine.
"""

import re
from calendar import timegm
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from urlward.csv_rows import csv_rows
from urlward.replay.errors import BadLineError

NONE = "-"
"""In place of a URL, or of a client, that there is not."""

_BLANKS = " \t\r\v\f"
_NO_CELL = "\0"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ESCAPE = re.compile(r'\\(?:x([0-9A-Fa-f]{2})|(["\\bnrtv]))')
_LETTERS = {'"': '"', "\\": "\\", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_VERSION = re.compile(r" +HTTP/[0-9.]+\Z")

_ORIGIN = r"(?P<origin>https?://[!$-.0->@-\[\]-\xff]+)"
_URL = rf"{_ORIGIN}(?P<target>[/?][!-\xff]*)?"
_TARGET = r"(?P<target>/[!#-\[\]-\xff]*)"


class Columns(NamedTuple):
    """A block's lines, one item a line in each column, empty where a line has no such part.

    Attributes:
        origins: beginnings of URLs, ``http://host:port``, or host and port alone.
        targets: rests of URLs, from their slash or question mark on.
        tunnels: host and port of CONNECT.
        others: URLs that are written otherwise, or what has them.
        odd: whole lines that are not of the format.
        times: items for `LogFormat.second`.
        clients, statuses: as written.
    """

    origins: Sequence[str]
    targets: Sequence[str]
    tunnels: Sequence[str]
    others: Sequence[str]
    odd: Sequence[str]
    times: Sequence[str]
    clients: Sequence[str]
    statuses: Sequence[str]


_GROUPS = ("origin", "target", "tunnel", "other", "odd", "time", "client", "status")


@dataclass(frozen=True)
class LogFormat:
    """Log format with one request a line.

    Attributes:
        kind: its name for users.
        pattern: of a line, with groups for `Columns`.
        read: takes an item of `Columns.others`; a URL, a path alone, or nothing where it is no request.
        second: takes an item of `Columns.times`; seconds since 1970-01-01 UTC, which may be rounded down by
            less than two minutes, never over midnight. None where lines do not say when.
        unlike: what to say of a line that does not match.
        paths: whether requests are for a path, on the host in front or on `site`.
        site: host and port, or empty.
        heading: whether the first line is one.
        delimiter: between the fields of CSV (RFC 4180), or empty.
        column: of CSV, which field is the URL, from 0.
    """

    kind: str
    pattern: re.Pattern[str]
    read: Callable[[str], str]
    second: Callable[[str], int] | None = None
    unlike: str = ""
    paths: bool = False
    site: str = ""
    heading: bool = False
    delimiter: str = ""
    column: int = 0

    def columns(self, text: str) -> Columns:
        """Read whole lines."""
        if self.delimiter:
            text = "".join([f"{url}\n" for url in _cells(text, self.delimiter, self.column)])
        rows = self.pattern.findall(text.removesuffix("\n"))
        found, groups = list(zip(*rows, strict=True)), self.pattern.groupindex
        none = ("",) * len(rows)
        return Columns(*(found[groups[name] - 1] if name in groups else none for name in _GROUPS))

    def url(self, columns: Columns, row: int) -> str:
        """The URL of a line that is not for CONNECT; empty where it is for no request.

        Raises:
            BadLineError: it cannot be read.
        """
        if _stripped(columns.odd[row]):
            raise BadLineError(self.unlike)
        origin, target = columns.origins[row], columns.targets[row] or self.read(columns.others[row])
        if not self.paths:
            return origin + target
        if not target.startswith("/"):
            return target
        site = origin or self.site
        if not site:
            raise BadLineError("no host (say which with --host)")
        return site + target


def _stripped(text: str) -> str:
    return text.strip(_BLANKS)  # of other characters that Python strips, these bytes may be part


def _read_squid(other: str) -> str:
    if other == NONE or other.startswith("error:"):
        raise BadLineError("no URL")
    return other


def _read_request(other: str) -> str:
    """The target of a request line in quotes."""
    method, _, target = _unescape(other[1:-1]).partition(" ")
    target = _VERSION.sub("", target).strip(" ")
    is_method = method.isascii() and method.replace("-", "").isalnum()
    if other and (not target or not is_method or method == "CONNECT"):
        raise BadLineError("no request (the client sent none, or not HTTP)")
    return "" if target == "*" else target


def _read_line(other: str) -> str:
    return "" if other.startswith("#") else _stripped(other)


def _read_cell(other: str) -> str:
    if other == _NO_CELL:
        raise BadLineError("no URL in its column")
    return _stripped(other)


def _squid_second(time: str) -> int:
    return int(time) * 100


def _combined_second(time: str) -> int:
    if len(time) != len("25/Nov/2026:09:14:00 +0000"):
        raise ValueError(time)
    hour, minute, second = int(time[12:14]), int(time[15:17]), int(time[18:20])
    east = 3600 * int(time[22:24]) + 60 * int(time[24:26])
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(time)
    local = _midnight(time[:11]) + 3600 * hour + 60 * minute + second
    return local + east if time[21] == "-" else local - east


def _line(pattern: str) -> re.Pattern[str]:
    """One line; a line of another form is in the group ``odd``."""
    return re.compile(rf"^(?:{pattern})$|^(?P<odd>[^\n]*)$", re.MULTILINE | re.ASCII)


def _combined(front: str, url: str) -> re.Pattern[str]:
    return _line(
        rf"{front}(?P<client>(?!- )\S++) [^\n\[]*+(?:\[[^\n\[]*+)*?\[(?P<time>[^\[\]\n]*+)\] "
        rf'(?:"(?:CONNECT (?P<tunnel>[!#-.0-\[\]-\xff]++)|[A-Z]++ {url}) HTTP/[0-9.]++"'
        r'|(?P<other>"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+")) (?:(?P<status>\d{3})|-)(?: [^\n]*+)?+'
    )


SQUID = LogFormat(
    "squid",
    _line(
        r" *+(?P<time>\d{6,10})\d\d(?:\.\d*+)?+ ++-?\d++ ++(?P<client>\S++) ++[^ /\n]++/(?P<status>\d++) ++"
        rf"-?\d++ ++(?:CONNECT ++(?P<tunnel>[^\s/]++)|\S++ ++(?:{_URL}|(?P<other>\S++)))(?: [^\n]*+)?+"
    ),
    _read_squid,
    _squid_second,
    "not a line of Squid's",
)
"""Squid's native access.log (https://wiki.squid-cache.org/Features/LogFormat)."""

COMBINED = LogFormat(
    "combined",
    _combined("", f"{_ORIGIN}?{_TARGET}"),
    _read_request,
    _combined_second,
    "not a line of the combined or common format",
    paths=True,
)
"""The combined and common formats of Apache (mod_log_config) and nginx (ngx_http_log_module)."""

VHOST_COMBINED = replace(
    COMBINED, kind="vhost_combined", pattern=_combined(r'"?(?P<origin>[^\s"]+)"? ', _TARGET)
)
"""Combined format with the request's host in front."""

HAR = LogFormat(
    "har",
    _line(rf"(?P<time>\d*)\t(?P<status>\d*)\t(?:{_URL}|(?P<other>[^\n]*))"),
    _read_squid,
    int,
)
"""Lines of `urlward.replay.har`."""

URLS = LogFormat("urls", re.compile(rf"^(?:{_URL}\r?|(?P<other>[^\n]*))$", re.MULTILINE), _read_line)
"""A URL a line; a line that begins with ``#`` is a remark."""

CSV = replace(URLS, kind="csv", read=_read_cell, delimiter=",")
"""Lines with several fields, quoted where they need it."""

FORMATS = {one.kind: one for one in (SQUID, COMBINED, VHOST_COMBINED, HAR, CSV, URLS)}
"""Formats by the names that users know."""


def _cells(text: str, delimiter: str, column: int) -> list[str]:
    """The URL of each line, so that line numbers stay: of a row over several, they follow the last."""
    urls: list[str] = []
    for number, row in csv_rows(text.removesuffix("\n").split("\n"), delimiter):
        urls.extend([""] * (number - 1 - len(urls)))
        if row is None:
            urls.append(_NO_CELL)
        elif not row or row[0].startswith("#"):
            urls.append("")
        elif len(row) > column and (url := row[column]):
            # A break inside is no part of a URL (WHATWG URL standard, section 4.4).
            urls.append(url if url.isprintable() else url.replace("\n", "").replace("\r", ""))
        else:
            urls.append(_NO_CELL)
    return urls


@lru_cache(64)
def _midnight(date: str) -> int:
    """Seconds since 1970-01-01 at the beginning of a day, such as 25/Nov/2026.

    Raises:
        ValueError: there is no such day.
    """
    day, month, year = date.split("/")
    return timegm(datetime(int(year), _MONTHS.index(month) + 1, int(day), tzinfo=UTC).timetuple())


def _unescape(text: str) -> str:
    r"""Undo what servers write for bytes that would spoil a line: ``\x22``, and Apache's ``\"``."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _LETTERS[m[2]], text)
