"""Kinds of access logs, and how a block of lines becomes columns.

A block is read by one regular expression at once, since a match for each line by itself would cost more
than the check of its URL. What the expression takes is only what needs no second thought: printable
bytes, a URL that begins with ``http://`` or ``https://`` in small letters, no escapes. Every other line
lands whole in the column `Columns.odd` and is read with care, one by one.

Text here is a *byte string*: a ``str`` whose characters are bytes (Latin-1), as in the engine.
"""

import csv
import re
from calendar import timegm
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from urlward.engine.errors import UrlwardError

ORIGIN = r'https?://[!"$-.0->@-\[\]-\xff]+'
NO_URL = "no URL"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ESCAPE = re.compile(r'\\(?:x([0-9A-Fa-f]{2})|(["\\bnrtv]))')
_LETTERS = {'"': '"', "\\": "\\", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_VERSION = re.compile(r" +HTTP/[0-9.]+\Z")


class BadLineError(UrlwardError):
    """A line of a log that cannot be read; the message says why, without its text."""


class Request(NamedTuple):
    """One line read with care.

    Attributes:
        url: with its host; of CONNECT, host and port.
        tunnel: whether it is CONNECT.
        time: as in `Columns.times`, or empty.
        client, status: or empty.
    """

    url: str
    tunnel: bool = False
    time: str = ""
    client: str = ""
    status: str = ""


class Columns(NamedTuple):
    """A block's lines, one item a line in each column; a column that this kind of log lacks is empty.

    Attributes:
        rows: how many lines.
        origins: beginnings of URLs, ``http://host:port``, or host and port alone; or "".
        targets: rests of URLs, from their slash or question mark on; or "".
        tunnels: host and port of CONNECT; or "".
        odd: whole lines, where the other columns are "".
        times: keys for `LineFormat.second`.
        clients, statuses: as written.
    """

    rows: int
    origins: Sequence[str]
    targets: Sequence[str]
    tunnels: Sequence[str]
    odd: Sequence[str]
    times: Sequence[str]
    clients: Sequence[str]
    statuses: Sequence[str]


class LineFormat:
    """A log of lines of which each is one request.

    Attributes:
        pattern: of a line; its groups have the names of `Columns`' fields, without the last letter s.
        has_time: whether lines say when.
        site: host and port of URLs that have neither, or empty.
    """

    site = ""

    has_time = False
    pattern = re.compile("")

    def columns(self, text: str) -> Columns:
        """Read whole lines."""
        rows = self.pattern.findall(text.removesuffix("\n"))
        found = list(zip(*rows, strict=True))
        groups = self.pattern.groupindex

        def column(name: str) -> Sequence[str]:
            return found[groups[name] - 1] if name in groups else ()

        return Columns(
            len(rows), column("origin"), column("target"), column("tunnel"), column("odd"), column("time"),
            column("client"), column("status"),
        )  # fmt: skip

    def read(self, line: str) -> Request | None:
        """Read one line with care; None where it is not for a request.

        Raises:
            BadLineError: it cannot be read.
        """
        raise NotImplementedError

    def second(self, time: str) -> int:
        """Seconds since 1970-01-01 UTC; may be rounded down by less than two minutes, never over midnight.

        Raises:
            ValueError: no time that there is.
        """
        raise NotImplementedError


class Squid(LineFormat):
    """Squid's native access.log (https://wiki.squid-cache.org/Features/LogFormat)."""

    has_time = True
    pattern = re.compile(
        r"^(?P<time>\d{8})\d\d\.\d+ +-?\d+ (?P<client>[!-\xff]+) [A-Z_]+/(?P<status>\d{3}) -?\d+ "
        r"(?:CONNECT (?P<tunnel>[!-.0-\xff]+)"
        rf"|[A-Z_-]+ (?P<origin>{ORIGIN})(?P<target>[/?][!-\xff]*)?) [^\n]*$"
        r"|^(?P<odd>[^\n]*)$",
        re.MULTILINE,
    )
    _line = re.compile(
        r" *(?P<time>\d{8,12})(?:\.\d*)? +-?\d+ +(?P<client>\S+) +[^ /]+/(?P<status>\d+) +-?\d+ "
        r"+(?P<method>\S+) +(?P<url>\S+)(?: |\Z)",
        re.ASCII,
    )

    def read(self, line: str) -> Request | None:
        """See `LineFormat.read`."""
        found = self._line.match(line)
        if found is None:
            raise BadLineError("not a line of Squid's")
        url, method = found["url"], found["method"]
        if url.startswith("error:") or url == "-":
            raise BadLineError(NO_URL)
        return Request(url, method == "CONNECT", found["time"][:-2], found["client"], found["status"])

    def second(self, time: str) -> int:
        """See `LineFormat.second`."""
        return int(time) * 100


class Combined(LineFormat):
    """The combined and common formats of Apache (mod_log_config) and nginx (ngx_http_log_module).

    Args:
        site: the host that paths are on, or empty.
        sites: whether each line begins with the host that it is on.
    """

    has_time = True

    def __init__(self, site: str = "", *, sites: bool = False) -> None:
        self.site = site
        self._sites = sites
        origin = "" if sites else rf"(?P<origin>{ORIGIN})?"
        front = r'"?(?P<origin>[^\x00-\x20"/?#\\]+)"? ' if sites else ""
        self.pattern = re.compile(
            rf"^{front}(?P<client>(?!- )[!-\xff]+) [^\n\[]*\[(?P<time>[!-~]{{20}} [!-~]{{5}})\] "
            r'"(?:CONNECT (?P<tunnel>[!#-.0-\[\]-\xff]+)'
            rf'|[A-Z]+ {origin}(?P<target>/[!#-\[\]-\xff]*)) HTTP/[0-9.]+" '
            r"(?P<status>\d{3}) [^\n]*$|^(?P<odd>[^\n]*)$",
            re.MULTILINE,
        )
        self._line = re.compile(
            (r'"?(?P<site>[^\s"]+)"? ' if sites else "")
            + r'(?P<client>(?!- )\S+) .*?\[(?P<time>[^\]]*)\] "(?P<request>(?:[^"\\]|\\.)*)" '
            r"(?P<status>\d{3}|-)(?: |\Z)",
            re.ASCII,
        )

    def read(self, line: str) -> Request | None:
        """See `LineFormat.read`."""
        found = self._line.match(line)
        if found is None:
            raise BadLineError("not a line of the combined or common format")
        method, _, target = _unescape(found["request"]).partition(" ")
        target = _VERSION.sub("", target).strip(" ")
        if not target or not method.isascii() or not method.replace("-", "").isalnum():
            raise BadLineError("no request (the client sent none, or not HTTP)")
        tunnel = method == "CONNECT"
        if target.startswith("/") and not tunnel:
            target = f"{self._site_of(found)}{target}"
        elif target == "*":
            return None
        return Request(target, tunnel, found["time"], found["client"], found["status"].strip("-"))

    def _site_of(self, found: re.Match[str]) -> str:
        site = found["site"] if self._sites else self.site
        if not site or site == "-":
            raise BadLineError("no host (say which with --host)")
        return site

    def second(self, time: str) -> int:
        """See `LineFormat.second`."""
        if len(time) != _TIME:
            raise ValueError(time)
        hour, minute, second = int(time[12:14]), int(time[15:17]), int(time[18:20])
        east = 60 * int(time[22:24]) + int(time[24:26])
        if hour > 23 or minute > 59 or second > 60:
            raise ValueError(time)
        local = _midnight(time[:11]) + 3600 * hour + 60 * minute + second
        return local + 60 * east if time[21] == "-" else local - 60 * east


_TIME = len("25/Nov/2026:09:14:00 +0000")


@lru_cache(64)
def _midnight(date: str) -> int:
    """Seconds since 1970-01-01 at the beginning of a day, such as 25/Nov/2026.

    Raises:
        ValueError: there is no such day.
    """
    day, month, year = date.split("/")
    return timegm(datetime(int(year), _MONTHS.index(month) + 1, int(day), tzinfo=UTC).timetuple())


class Urls(LineFormat):
    """A URL a line; a line that begins with ``#`` is a remark."""

    pattern = re.compile(
        rf"^(?P<origin>{ORIGIN})(?P<target>[/?][!-\xff]*)?\r?$|^(?P<odd>[^\n]*)$", re.MULTILINE
    )

    def read(self, line: str) -> Request | None:
        """See `LineFormat.read`."""
        return None if line.startswith("#") else Request(line)


class Csv(Urls):
    """Lines with several fields, quoted where they need it (RFC 4180).

    Args:
        delimiter: between fields.
        column: which field is the URL, from 0.
    """

    def __init__(self, delimiter: str, column: int) -> None:
        self._delimiter = delimiter
        self._column = column

    def columns(self, text: str) -> Columns:
        """See `LineFormat.columns`."""
        return super().columns("".join([f"{url}\n" for url in self._urls(text)]))

    def read(self, line: str) -> Request | None:
        """See `LineFormat.read`."""
        if line == _NO_CELL:
            raise BadLineError("no URL in its column")
        return Request(line)

    def _urls(self, text: str) -> list[str]:
        """The URL of each line, so that line numbers stay: of a row over several, they follow the last."""
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        urls: list[str] = []
        while len(urls) < len(lines):
            reader = csv.reader(islice(lines, len(urls), None), delimiter=self._delimiter, strict=True)
            try:
                self._read_rows(reader, urls)
            except csv.Error:
                # Resume behind the line that it began with.
                urls.append(_NO_CELL)
        return urls

    def _read_rows(self, reader: Any, urls: list[str]) -> None:
        column, before = self._column, len(urls)
        for row in reader:
            lines = before + reader.line_num - len(urls)
            if lines != 1:
                if lines > MOST_LINES:
                    raise csv.Error  # a quote that does not end
                urls.extend([""] * (lines - 1))
            if len(row) > column and (url := row[column]) and not row[0].startswith("#"):
                # A break inside is no part of a URL (WHATWG URL standard, section 4.4).
                urls.append(url.replace("\n", "").replace("\r", "") if not url.isprintable() else url)
            else:
                urls.append(_NO_CELL if row and not row[0].startswith("#") else "")


MOST_LINES = 20
"""Lines that one row of CSV may have; with more, a quote does not end."""

_NO_CELL = "\0"


def _unescape(text: str) -> str:
    r"""Undo what servers write for bytes that would spoil a line: ``\x22``, and Apache's ``\"``."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _LETTERS[m[2]], text)
