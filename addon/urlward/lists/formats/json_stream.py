"""Streaming parser for JSON documents of any size (RFC 8259), one item after another."""

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import ijson

from urlward.lists.formats.format import FormatError
from urlward.lists.formats.stream import Stream

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


def array_items(stream: Stream) -> Iterator[Any]:
    """Iterate over the items of a JSON array.

    Raises:
        FormatError: not one, or not whole.
    """
    if stream.first() != b"[":
        raise FormatError("not a JSON array")
    return _whole(ijson.items(_WellFormed(stream), "item"))


def object_members(stream: Stream) -> Iterator[tuple[str, Any]]:
    """Iterate over the members of a JSON object.

    Raises:
        FormatError: not one, or not whole.
    """
    if stream.first() != b"{":
        raise FormatError("not a JSON object")
    return _whole(ijson.kvitems(_WellFormed(stream), ""))


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

    def __init__(self, stream: Stream) -> None:
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
