"""Which kind of access log it is, by its first lines."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from urlward.encoding import other_encoding, without_bom
from urlward.gateway.lab.errors import LabError
from urlward.gateway.lab.replay_har import Har
from urlward.gateway.lab.replay_lines import BadLineError, Combined, Csv, LineFormat, Request, Squid, Urls

KINDS = ("squid", "combined", "vhost_combined", "har", "csv", "urls")

SAMPLE = 200
"""Lines that are looked at."""

_SITE = "unknown.invalid"
_DELIMITERS = "\t,;|"
_URL_NAMES = ("url", "uri", "request_url", "request url", "requested url", "link", "address")
_HOST_OR_URL = re.compile(r"[^\s,;|\"/]+\.[^\s,;|\"/]+(?:/\S*)?\Z", re.ASCII)


class Spec(NamedTuple):
    """A kind of log, and what there is to know of it.

    Attributes:
        kind: one of `KINDS`.
        site: for ``combined``, the host (and port) that paths are on, or empty.
        delimiter, column: for ``csv``, the latter from 0.
        heading: whether the first line is one.
    """

    kind: str
    site: str = ""
    delimiter: str = ","
    column: int = 0
    heading: bool = False


@cache
def line_format(spec: Spec) -> LineFormat:
    """What reads lines of this kind."""
    match spec.kind:
        case "squid":
            return Squid()
        case "combined":
            return Combined(spec.site)
        case "vhost_combined":
            return Combined(sites=True)
        case "csv":
            return Csv(spec.delimiter, spec.column)
        case "har":
            return Har()
        case _:
            return Urls()


def detect(head: bytes, name: str, *, kind: str = "", column: str = "", site: str = "") -> Spec:
    """Find out what a log is.

    Args:
        head: its first bytes.
        name: of it, for messages.
        kind: one of `KINDS` where that is known, or empty.
        column: of CSV, that has the URL: its name, or its number from 1; or empty.
        site: host (and port) of a log whose lines name none, or empty.

    Raises:
        LabError: it is none that is known here, or it does not say enough.
    """
    if other := other_encoding(head):
        raise LabError(f"{name}: {other}")
    if b"\0" in head:
        raise LabError(f"{name}: binary data, not a log")
    text = without_bom(head).decode("latin-1")
    if kind == "har" or (not kind and text.lstrip().startswith("{") and '"log"' in text):
        return Spec("har")
    lines = _sample(text)
    if not lines:
        return Spec(kind or "urls", site)
    if column and kind in ("", "csv"):
        return _csv_by_column(lines, name, column)
    found = Spec(kind, site) if kind and kind != "csv" else None
    found = found or (_log(lines, site) if not kind else None) or _csv(lines, name)
    found = found or (_urls(lines) if not kind else None)
    if found is None:
        if kind:
            raise LabError(
                f"{name}: no column with URLs found; say which has them with --column NAME or NUMBER"
            )
        raise LabError(
            f"{name}: not a log that is known here ({', '.join(KINDS)}); if it is, say which with --format"
        )
    if found.kind == "combined" and not site and _names_no_host(lines):
        raise LabError(f"{name}: its lines name no host; say which it is with --host NAME")
    return found


def _sample(text: str) -> list[str]:
    lines = text.split("\n")
    if len(lines) > 1:
        lines.pop()  # cut off, or empty
    lines = [line.strip("\r") for line in lines[:SAMPLE]]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _log(lines: Sequence[str], site: str) -> Spec | None:
    for spec in (Spec("squid"), Spec("vhost_combined"), Spec("combined", site or _SITE)):
        if 2 * len(_read(line_format(spec), lines)) > len(lines):
            return spec._replace(site=site)
    return None


def _read(lines: LineFormat, sample: Sequence[str]) -> list[Request | None]:
    requests = []
    for line in sample:
        try:
            requests.append(lines.read(line))
        except BadLineError:
            continue
    return requests


def _names_no_host(lines: Sequence[str]) -> bool:
    requests = [request for request in _read(Combined(_SITE), lines) if request]
    return 2 * sum(request.url.startswith(f"{_SITE}/") for request in requests) > len(requests)


def _csv(lines: Sequence[str], name: str) -> Spec | None:
    """By the name of a column, or by what is in them."""
    for delimiter, rows in _tables(lines):
        if len(rows[0]) > 1:
            names = [cell.strip().lower() for cell in rows[0]]
            column = _url_column(names)
            if column is not None and not _is_url(rows[0][column]):
                return Spec("csv", delimiter=delimiter, column=column, heading=True)
    for delimiter, rows in _tables(lines):
        sizes = Counter(map(len, rows))
        size, count = sizes.most_common(1)[0]
        if size < 2 or 10 * count < 9 * len(rows):
            continue
        for column in range(size):
            cells = [row[column] for row in rows if len(row) > column]
            if 2 * sum("://" in cell for cell in cells) > len(rows):
                if column == 0 and delimiter != "\t" and not lines[-1].startswith('"'):
                    raise LabError(
                        f"{name}: URLs with {delimiter!r} in them, or columns? --format urls or --column 1"
                    )
                return Spec("csv", delimiter=delimiter, column=column, heading="://" not in cells[0])
    return None


def _csv_by_column(lines: Sequence[str], name: str, column: str) -> Spec:
    number = int(column) if column.isascii() and column.isdecimal() else 0
    best, found = (0, 0), None
    for delimiter, rows in _tables(lines):
        if number:
            at, heading = number - 1, len(rows) > 1 and not _is_url(_cell(rows[0], number - 1))
        else:
            names = [cell.strip().lower() for cell in rows[0]]
            if column.strip().lower() not in names:
                continue
            at, heading = names.index(column.strip().lower()), True
        urls = sum(_is_url(_cell(row, at)) for row in rows[heading:])
        # Of delimiters that find as many URLs, the one that makes more columns.
        if urls and (urls, len(rows[0])) > best:
            best = urls, len(rows[0])
            found = Spec("csv", delimiter=delimiter, column=at, heading=heading)
    if found is None:
        raise LabError(f"{name}: no column {column!r} with URLs in it")
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


def _urls(lines: Sequence[str]) -> Spec | None:
    heading = lines[0].strip().lower() in _URL_NAMES
    urls = sum(" " not in line.strip() and _is_url(line) for line in lines)
    return Spec("urls", heading=heading) if 2 * urls > len(lines) - heading else None
