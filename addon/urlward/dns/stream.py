"""Messages on a stream: two bytes of length before each (RFC 1035 section 4.2.2, RFC 7766)."""

from collections.abc import Iterator

MOST = 0xFFFF
"""Bytes of a message."""


def framed(message: bytes) -> bytes:
    """A message with its length prefix, for a stream."""
    return len(message).to_bytes(2) + message


class Messages:
    """Splitter of a stream into messages."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = b""

    @property
    def begun(self) -> bool:
        """Whether part of a message has arrived."""
        return bool(self._data)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that these bytes complete."""
        if self._data:
            data = self._data + data
        at = 0
        while len(data) >= at + 2:
            end = at + 2 + (data[at] << 8 | data[at + 1])
            if len(data) < end:
                break
            yield data[at + 2 : end]
            at = end
        self._data = data[at:]
