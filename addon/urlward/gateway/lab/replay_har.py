"""HAR files (http://www.softwareishard.com/blog/har-12-spec/), read as a stream.

Such a file is one JSON value of any size, which cannot be cut into pieces. It is read here and passed on
as lines of a form of its own: time, status and URL with tabs between.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import ijson

from urlward.encoding import without_bom
from urlward.gateway.lab.errors import LabError
from urlward.gateway.lab.replay_lines import NO_URL, ORIGIN, BadLineError, LineFormat, Request
from urlward.gateway.lab.replay_read import BLOCK, Block, Source

_LINES = 4096
_BREAKS = {9: None, 10: None, 13: None}
_ENTRY = "log.entries.item"


class Har(LineFormat):
    """What `har_blocks` passes on."""

    has_time = True
    pattern = re.compile(
        rf"^(?P<time>\d*)\t(?P<status>\d*)\t(?P<origin>{ORIGIN})(?P<target>[/?][!-\xff]*)?$|^(?P<odd>[^\n]*)$",
        re.MULTILINE,
    )

    def read(self, line: str) -> Request | None:
        """See `LineFormat.read`."""
        time, status, url = line.split("\t")
        if not url:
            raise BadLineError(NO_URL)
        return Request(url, time=time, status=status)

    def second(self, time: str) -> int:
        """See `LineFormat.second`."""
        return int(time)


def har_blocks(source: Source) -> Iterator[Block]:
    """Blocks of lines for `Har`; the number of a line is that of its entry.

    Raises:
        LabError: not a HAR file.
    """
    lines: list[bytes] = []
    count = 0
    for line in _entries(source):
        lines.append(line)
        count += 1
        if len(lines) == _LINES:
            yield Block(count - len(lines) + 1, len(lines), b"".join(lines))
            lines = []
    if lines:
        yield Block(count - len(lines) + 1, len(lines), b"".join(lines))


def _entries(source: Source) -> Iterator[bytes]:
    wanted = {f"{_ENTRY}.startedDateTime", f"{_ENTRY}.response.status", f"{_ENTRY}.request.url"}
    found: dict[str, Any] = {}
    has_entries = False
    try:
        for prefix, event, value in ijson.parse(_WithoutMark(source)):
            if prefix in wanted:
                found[prefix.rpartition(".")[2]] = value
            elif prefix == _ENTRY and event == "end_map":
                yield _line(found)
                found.clear()
            elif prefix == "log.entries":
                has_entries = True
    except ijson.JSONError:
        source.trouble = source.trouble or "not whole, or not JSON from some place on"
    if not has_entries:
        raise LabError(f"{source.name}: not a HAR file: it has no entries")


def _line(entry: dict[str, Any]) -> bytes:
    url = entry.get("url")
    text = url.translate(_BREAKS) if isinstance(url, str) else ""
    return f"{_time(entry)}\t{_status(entry)}\t{text}\n".encode("utf-8", "surrogatepass")


def _status(entry: dict[str, Any]) -> str:
    status = entry.get("status")
    return str(int(status)) if isinstance(status, int | Decimal) and 100 <= status <= 999 else ""


def _time(entry: dict[str, Any]) -> str:
    """Whole minutes as seconds since 1970-01-01 UTC, which makes few different keys."""
    try:
        moment = datetime.fromisoformat(entry["startedDateTime"])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return str(max(int(moment.timestamp()) // 60 * 60, 0))
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""


class _WithoutMark:
    """A file for `ijson`, without the byte order mark that some programs write."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._first = True

    def read(self, size: int = -1) -> bytes:
        """Some bytes; none at the end."""
        data = self._source.read(BLOCK if size < 0 else size)
        if self._first and size:
            self._first = False
            data = without_bom(data)
        return data
