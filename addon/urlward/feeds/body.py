"""Response body as the list's text: decompressed, within bounds.

What a body is compressed with is told by Content-Encoding and then by its own first bytes, never by a
file name or media type, which are often wrong. One layer of each kind is taken off at most. An archive
within an archive is left as it is, for the reader of lists to refuse.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from itertools import chain

from urlward.compression import DAMAGED, Decoder, decoder_for, gzip_decoder, zstd_decoder
from urlward.feeds.source import FetchError, Reason
from urlward.lists import memfd

ACCEPTED = "gzip, zstd"
"""The value of Accept-Encoding (RFC 9110, section 12.5.3)."""

RATIO = 200
"""Times its size on the wire that a body may have, once it is `SMALL`."""

SMALL = 10_000_000
"""Bytes."""

_PIECE = 1 << 16

_ENCODINGS = {"gzip": gzip_decoder, "x-gzip": gzip_decoder, "zstd": zstd_decoder}

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""What a ZIP archive begins with; the second one is empty."""

_MOST_AT_ONCE = 1 << 20
"""Bytes. zipfile reads a directory as a whole, and makes some hundred bytes of each of its entries."""

_READ_HERE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


class BodyLimits:
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


def content(chunks: Iterable[bytes], encoding: str, guard: BodyLimits) -> Iterator[bytes]:
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


def _unpacked(data: Iterator[bytes], guard: BodyLimits) -> Iterator[bytes]:
    head = b""
    for chunk in data:
        head += chunk
        if len(head) >= 4:
            break
    data = chain((head,), data)
    new = decoder_for(head)
    if new is not None:
        return guard.unpacked(_decompressed(data, new, guard))
    if head.startswith(_ZIP):
        return guard.unpacked(unzipped(data, guard))
    return data


def _decompressed(data: Iterator[bytes], new: Callable[[], Decoder], guard: BodyLimits) -> Iterator[bytes]:
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


class _File(FileIO):
    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > _MOST_AT_ONCE:
            raise zipfile.BadZipFile
        return super().read(wanted) or b""


def unzipped(data: Iterable[bytes], guard: BodyLimits) -> Iterator[bytes]:
    """Read a ZIP archive's one file, folders apart. Its directory is at its end, so the archive is kept in
    memory first, as it came.

    Raises:
        FetchError: no archive, cut short or damaged, more files than one, or one that is encrypted or
            compressed with something else than deflate ("truncated", "corrupt", "unsupported").
    """
    with _File(memfd.new(), "rb+") as file:
        for chunk in data:
            while chunk:
                chunk = chunk[file.write(chunk) :]
        try:
            if not zipfile.is_zipfile(file):
                text = "the ZIP archive ends too early: its directory is not there"
                raise guard.error(text, "truncated")
            with zipfile.ZipFile(file) as archive, archive.open(_only_member(archive, guard)) as content:
                while chunk := content.read(_PIECE):
                    yield chunk
        except EOFError:
            raise guard.error("the ZIP archive ends too early", "truncated") from None
        except NotImplementedError:
            raise guard.error("a ZIP archive of a kind that is not read here", "unsupported") from None
        except (zipfile.BadZipFile, zlib.error, UnicodeError, ValueError, OSError):
            raise guard.error("the ZIP archive is damaged", "corrupt") from None


def _only_member(archive: zipfile.ZipFile, guard: BodyLimits) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        raise guard.error(f"a ZIP archive of {len(members)} files, where one is expected", "unsupported")
    member = members[0]
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _READ_HERE:
        raise guard.error("a ZIP archive that is encrypted, or not compressed with deflate", "unsupported")
    return member
