"""HAR files (http://www.softwareishard.com/blog/har-12-spec/), read as a stream.

Such a file is one JSON value of any size, which cannot be cut into pieces. Its entries become lines of the
format ``har``: time, status and URL with tabs between.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import batched
from typing import Any

import ijson

from urlward.replay.errors import ReplayError
from urlward.replay.formats import NONE
from urlward.replay.reading import Block, Source

_LINES = 4096
_BREAKS = {9: None, 10: None, 13: None}
_ENTRY = "log.entries.item"


def har_blocks(source: Source) -> Iterator[Block]:
    """Blocks of lines of the format ``har``; the number of a line is that of its entry.

    Raises:
        ReplayError: not a HAR file.
    """
    first = 1
    for lines in batched(_lines(source), _LINES):
        yield Block(first, len(lines), b"".join(lines))
        first += len(lines)


def _lines(source: Source) -> Iterator[bytes]:
    wanted = {f"{_ENTRY}.startedDateTime", f"{_ENTRY}.response.status", f"{_ENTRY}.request.url"}
    found: dict[str, Any] = {}
    has_entries = False
    try:
        for prefix, event, value in ijson.parse(source):
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
        raise ReplayError(f"{source.name}: not a HAR file: it has no entries")


def _line(entry: dict[str, Any]) -> bytes:
    url, status = entry.get("url"), entry.get("status")
    text = url.translate(_BREAKS) if isinstance(url, str) else ""
    code = int(status) if isinstance(status, int | Decimal) and 100 <= status <= 999 else ""
    return f"{_time(entry)}\t{code}\t{text or NONE}\n".encode("utf-8", "surrogatepass")


def _time(entry: dict[str, Any]) -> str:
    """Whole minutes as seconds since 1970-01-01 UTC, which makes few different keys."""
    try:
        moment = datetime.fromisoformat(entry["startedDateTime"])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return str(max(int(moment.timestamp()) // 60 * 60, 0))
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""
