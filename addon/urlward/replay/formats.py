"""Formats of access logs: one regular expression each, which cuts a block of lines into columns; and which of
them a log is of, by its first lines.

A block is read at once, since a match for each line by itself would cost more than the check of its URL. URLs
that begin with ``http://`` or ``https://`` in small letters and have nothing odd in front of their path come
cut in two; any other is in `Columns.others` as written.

Text here is a *byte string*: a ``str`` whose characters are bytes (Latin-1), as in the engine.
"""

import csv
import re
from calendar import timegm
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from urlward.csv_rows import csv_rows
from urlward.engine.errors import UrlwardError
from urlward.regular import other_encoding

NONE = "-"
"""In place of a URL, or of a client, that there is not."""

_BLANKS = " \t\r\v\f"
_NO_CELL = "\0"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ESCAPE = re.compile(r'\\(?:x([0-9A-Fa-f]{2})|(["\\bnrtv]))')
_LETTERS = {'"': '"', "\\": "\\", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_VERSION = re.compile(r"(?<! ) +HTTP/[0-9.]+\Z")

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
            UrlwardError: it cannot be read.
        """
        if _stripped(columns.odd[row]):
            raise UrlwardError(self.unlike)
        origin, target = columns.origins[row], columns.targets[row] or self.read(columns.others[row])
        if not self.paths:
            return origin + target
        if not target.startswith("/"):
            return target
        site = origin or self.site
        if not site:
            raise UrlwardError("no host (say which with --host)")
        return site + target


def _stripped(text: str) -> str:
    return text.strip(_BLANKS)  # of other characters that Python strips, these bytes may be part


def _read_squid(other: str) -> str:
    if other == NONE or other.startswith("error:"):
        raise UrlwardError("no URL")
    return other


def _read_request(other: str) -> str:
    """The target of a request line in quotes."""
    method, _, target = _unescape(other[1:-1]).partition(" ")
    target = _VERSION.sub("", target).strip(" ")
    is_method = method.isascii() and method.replace("-", "").isalnum()
    if other and (not target or not is_method or method == "CONNECT"):
        raise UrlwardError("no request (the client sent none, or not HTTP)")
    return "" if target == "*" else target


def _read_line(other: str) -> str:
    return "" if other.startswith("#") else _stripped(other)


def _read_cell(other: str) -> str:
    if other == _NO_CELL:
        raise UrlwardError("no URL in its column")
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
"""Lines of `urlward.replay.run`."""


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


SAMPLE = 200
"""Lines that are looked at."""

_SITE = "unknown.invalid"
_DELIMITERS = "\t,;|"
_URL_NAMES = ("url", "uri", "request_url", "request url", "requested url", "link", "address")
_HOST_OR_URL = re.compile(r"[^\s,;|\"/]+\.[^\s,;|\"/]+(?:/\S*)?\Z", re.ASCII)


def detect(head: bytes, name: str, *, kind: str = "", column: str = "", site: str = "") -> LogFormat:
    """Find out what a log is.

    Args:
        head: its first bytes.
        name: of it, for messages.
        kind: a key of `FORMATS` where that is known, or empty.
        column: of CSV, that has the URL: its name, or its number from 1; or empty.
        site: host (and port) of a log whose lines name none, or empty.

    Raises:
        UrlwardError: it is none that is known here, or it does not say enough.
    """
    if other := other_encoding(head):
        raise UrlwardError(f"{name}: {other}")
    if b"\0" in head:
        raise UrlwardError(f"{name}: binary data, not a log")
    text = head.decode("latin-1")
    if kind == "har" or (not kind and text.lstrip().startswith("{") and '"log"' in text):
        return HAR
    lines = _sample(text)
    if not lines:
        return replace(FORMATS[kind or "urls"], site=site)
    if column and kind in ("", "csv"):
        return _csv_by_column(lines, name, column)
    if kind and kind != "csv":
        found: LogFormat | None = replace(FORMATS[kind], site=site)
    else:
        found = (None if kind else _log(lines, site)) or _csv(lines, name) or (None if kind else _urls(lines))
    if found is None and kind:
        raise UrlwardError(
            f"{name}: no column with URLs found; say which has them with --column NAME or NUMBER"
        )
    if found is None:
        raise UrlwardError(
            f"{name}: not a log that is known here ({', '.join(FORMATS)}); if it is, say which with --format"
        )
    if found.kind == "combined" and not site and _names_no_host(lines):
        raise UrlwardError(f"{name}: its lines name no host; say which it is with --host NAME")
    return found


def _sample(text: str) -> list[str]:
    lines = text.split("\n")
    if len(lines) > 1:
        lines.pop()  # cut off, or empty
    lines = [line.strip("\r") for line in lines[:SAMPLE]]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _log(lines: Sequence[str], site: str) -> LogFormat | None:
    for one in (SQUID, VHOST_COMBINED, replace(COMBINED, site=site or _SITE)):
        if 2 * len(_urls_of(one, lines)) > len(lines):
            return replace(one, site=site)
    return None


def _urls_of(log_format: LogFormat, lines: Sequence[str]) -> list[str]:
    """The URLs of lines that can be read, or hosts of CONNECT; empty where a line is for no request."""
    columns = log_format.columns("\n".join(lines))
    urls = []
    for row in range(len(lines)):
        try:
            urls.append(columns.tunnels[row] or log_format.url(columns, row))
        except UrlwardError:
            continue
    return urls


def _names_no_host(lines: Sequence[str]) -> bool:
    urls = [url for url in _urls_of(replace(COMBINED, site=_SITE), lines) if url]
    return 2 * sum(url.startswith(f"{_SITE}/") for url in urls) > len(urls)


def _csv(lines: Sequence[str], name: str) -> LogFormat | None:
    """By the name of a column, or by what is in them."""
    tables = _tables(lines)
    for delimiter, rows in tables:
        names = [cell.strip().lower() for cell in rows[0]]
        column = _url_column(names) if len(names) > 1 else None
        if column is not None and not _is_url(rows[0][column]):
            return replace(CSV, heading=True, delimiter=delimiter, column=column)
    for delimiter, rows in tables:
        size, count = Counter(map(len, rows)).most_common(1)[0]
        if size < 2 or 10 * count < 9 * len(rows):
            continue
        for column in range(size):
            cells = [row[column] for row in rows if len(row) > column]
            if 2 * sum("://" in cell for cell in cells) > len(rows):
                if column == 0 and delimiter != "\t" and not lines[-1].startswith('"'):
                    raise UrlwardError(
                        f"{name}: URLs with {delimiter!r} in them, or columns? --format urls or --column 1"
                    )
                return replace(CSV, heading="://" not in cells[0], delimiter=delimiter, column=column)
    return None


def _csv_by_column(lines: Sequence[str], name: str, column: str) -> LogFormat:
    number = int(column) if column.isascii() and column.isdecimal() else 0
    wanted = column.strip().lower()
    best, found = (0, 0), None
    for delimiter, rows in _tables(lines):
        names = [cell.strip().lower() for cell in rows[0]]
        if number:
            at, heading = number - 1, len(rows) > 1 and not _is_url(_cell(rows[0], number - 1))
        elif wanted in names:
            at, heading = names.index(wanted), True
        else:
            continue
        urls = sum(_is_url(_cell(row, at)) for row in rows[heading:])
        # Of delimiters that find as many URLs, the one that makes more columns.
        if urls and (urls, len(names)) > best:
            best = urls, len(names)
            found = replace(CSV, heading=heading, delimiter=delimiter, column=at)
    if found is None:
        raise UrlwardError(f"{name}: no column {column!r} with URLs in it")
    return found


def _tables(lines: Sequence[str]) -> list[tuple[str, list[list[str]]]]:
    tables = []
    for delimiter in _DELIMITERS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        if rows:
            tables.append((delimiter, rows))
    return tables


def _url_column(names: Sequence[str]) -> int | None:
    for wanted in _URL_NAMES:
        if wanted in names:
            return names.index(wanted)
    return next((at for at, name in enumerate(names) if name.endswith("url") and "ref" not in name), None)


def _cell(row: Sequence[str], at: int) -> str:
    return row[at] if at < len(row) else ""


def _is_url(text: str) -> bool:
    return "://" in text or _HOST_OR_URL.match(text.strip()) is not None


def _urls(lines: Sequence[str]) -> LogFormat | None:
    heading = lines[0].strip().lower() in _URL_NAMES
    urls = sum(" " not in line.strip() and _is_url(line) for line in lines)
    return replace(URLS, heading=heading) if 2 * urls > len(lines) - heading else None
