"""Detection of a log's format by its first lines."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from urlward.encoding import other_encoding
from urlward.replay.errors import BadLineError, ReplayError
from urlward.replay.formats import COMBINED, CSV, FORMATS, HAR, SQUID, URLS, VHOST_COMBINED, LogFormat

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
        ReplayError: it is none that is known here, or it does not say enough.
    """
    if other := other_encoding(head):
        raise ReplayError(f"{name}: {other}")
    if b"\0" in head:
        raise ReplayError(f"{name}: binary data, not a log")
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
        raise ReplayError(
            f"{name}: no column with URLs found; say which has them with --column NAME or NUMBER"
        )
    if found is None:
        raise ReplayError(
            f"{name}: not a log that is known here ({', '.join(FORMATS)}); if it is, say which with --format"
        )
    if found.kind == "combined" and not site and _names_no_host(lines):
        raise ReplayError(f"{name}: its lines name no host; say which it is with --host NAME")
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
        except BadLineError:
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
                    raise ReplayError(
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
        raise ReplayError(f"{name}: no column {column!r} with URLs in it")
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
