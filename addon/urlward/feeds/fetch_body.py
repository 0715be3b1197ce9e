"""Response body as the list's text: decompressed, within bounds.

What a body is compressed with is told by Content-Encoding and then by its own first bytes, never by a
file name or media type, which are often wrong. One layer of each kind is taken off at most. An archive
within an archive is left as it is, for the reader of lists to refuse.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from urlward.feeds.decoders import DAMAGED, Decoder, decoder_for, gzip_decoder, zstd_decoder
from urlward.feeds.fetch_errors import FetchError, Reason
from urlward.feeds.fetch_zip import ZIP, ZipError, only_member

ACCEPTED = "gzip, zstd"
"""The value of Accept-Encoding (RFC 9110, section 12.5.3)."""

RATIO = 200
"""Times its size on the wire that a body may have, once it is `SMALL`."""

SMALL = 10_000_000
"""Bytes."""

_PIECE = 1 << 16

_ENCODINGS = {"gzip": gzip_decoder, "x-gzip": gzip_decoder, "zstd": zstd_decoder}


class Guard:
    """Limits on a body: counts its bytes, on the wire and decompressed, and stops it.

    Args:
        peer: scheme, host and port, for messages.
        max_bytes: that a body may have, decompressed and on the wire.
        check: called now and then; raises where time is up.
    """

    def __init__(self, peer: str, max_bytes: int, check: Callable[[], object]) -> None:
        self._peer = peer
        self._max = max_bytes
        self._check = check
        self._wire = 0

    def error(self, message: str, reason: Reason) -> FetchError:
        """Error about this body."""
        return FetchError(f"{self._peer}: {message}", reason)

    def announced(self, size: int) -> None:
        """Check the size that a body is said to have on the wire."""
        if size > self._max:
            raise self.error(f"more than {self._max} bytes", "too-large")

    def wire(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Count chunks as they come from the wire."""
        for chunk in chunks:
            self._check()
            self._wire += len(chunk)
            self.announced(self._wire)
            yield chunk
        self._check()  # an end could be the deadline's doing

    def unpacked(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Count chunks as they come out of one layer of compression."""
        size = 0
        for chunk in chunks:
            self._check()
            size += len(chunk)
            if size > SMALL and size > RATIO * self._wire:
                raise self.error(f"decompresses to more than {RATIO} times its size", "bomb")
            if size > self._max:
                raise self.error(f"more than {self._max} bytes when decompressed", "too-large")
            if chunk:
                yield chunk


def content(chunks: Iterable[bytes], encoding: str, guard: Guard) -> Iterator[bytes]:
    """Decode a body's content, in chunks of some 64 KiB.

    Args:
        chunks: of the body as it comes, lazily.
        encoding: value of Content-Encoding, or empty.
        guard: of this body.

    Raises:
        FetchError: "truncated", "corrupt", "unsupported", "too-large", "bomb".
    """
    data = guard.wire(chunks)
    names = [name for part in encoding.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    if len(names) > 1 or not set(names) <= set(_ENCODINGS):
        raise guard.error("an encoding that was not asked for", "unsupported")
    for name in names:
        data = guard.unpacked(_decompressed(data, _ENCODINGS[name], guard))
    return _unpacked(data, guard)


def _unpacked(data: Iterator[bytes], guard: Guard) -> Iterator[bytes]:
    head = b""
    for chunk in data:
        head += chunk
        if len(head) >= 4:
            break
    data = chain((head,), data)
    new = decoder_for(head)
    if new is not None:
        return guard.unpacked(_decompressed(data, new, guard))
    if head.startswith(ZIP):
        return guard.unpacked(_unzipped(data, guard))
    return data


def _decompressed(data: Iterator[bytes], new: Callable[[], Decoder], guard: Guard) -> Iterator[bytes]:
    """Decompress one or more members or frames, one behind the other."""
    decoder = new()
    rest = next(data, b"")
    while True:
        try:
            piece = decoder.decompress(rest, _PIECE)
        except DAMAGED:
            raise guard.error("the compressed data is damaged", "corrupt") from None
        yield piece  # an empty one too: what has no content can take time without end
        rest = b""
        if decoder.eof:
            rest = decoder.unused_data or next(data, b"")
            if not rest.strip(b"\0"):
                return  # what tape drives and some tools fill up with
            decoder = new()
        elif decoder.needs_input:
            rest = next(data, b"")
            if not rest:
                raise guard.error("the compressed data ends too early", "truncated")


def _unzipped(data: Iterator[bytes], guard: Guard) -> Iterator[bytes]:
    try:
        yield from only_member(data, _PIECE)
    except ZipError as e:
        raise guard.error(str(e), e.reason) from None
