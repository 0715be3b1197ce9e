"""Decoders of compressed data, piece by piece and with a bound on what one piece becomes."""

import sys
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


DAMAGED: Final = (zlib.error, zstd.ZstdError)
"""What `Decoder.decompress` raises where the data is not what it should be."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # behind a first byte of 0x50 to 0x5f (RFC 8878, section 3.1.2)
_WINDOW = 27
"""128 MiB, all that ``zstd --ultra`` uses."""

_HTTP_WINDOW = 23
"""8 MiB, all that a content coding may use (RFC 9659)."""


class _Zlib:
    """zlib's decoder in the shape of zstd's."""

    def __init__(self, bits: int) -> None:
        self._z = zlib.decompressobj(bits)

    @property
    def eof(self) -> bool:
        return self._z.eof

    @property
    def needs_input(self) -> bool:
        return not self._z.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._z.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._z.decompress(self._z.unconsumed_tail + data, max_length)


class _Forgiving(_Zlib):
    """zlib's decoder, which gives what comes before a fault and raises then: zlib itself keeps that back,
    where browsers show it, and Chromium takes a wrong checksum of gzip for none."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self._is_broken = False

    @property
    def needs_input(self) -> bool:
        return not self._is_broken and super().needs_input

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._is_broken:
            raise zlib.error("a fault, as said")
        before, data = self._z.copy(), self._z.unconsumed_tail + data
        try:
            return self._z.decompress(data, max_length)
        except zlib.error:
            self._is_broken = True
        # Halves of what is left, of which each is read once.
        found = b""
        while data:
            half = (len(data) + 1) // 2
            tried = before.copy()
            try:
                found += tried.decompress(data[:half], max_length)
            except zlib.error:
                data = data[:half] if len(data) > 1 else b""
            else:
                before, data = tried, data[half:]
        self._z = before
        return found


_FIXED: Final = 10
_SIZED, _TEXT, _SUM = 4, (8, 16), 2
"""Bits of a gzip member's flags: what follows the fixed part of its head (RFC 1952 section 2.3.1)."""


class _Gzip(_Forgiving):
    """The content coding of that name, the head as browsers read it: they pass over its checksum, and
    Chromium over flags that nobody has defined, where zlib finds a fault."""

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS | 16)
        self._head: bytes | None = b""
        """What has come of a field of it; None behind the head."""
        self._fields: list[int | None] | None = None
        """Bytes that are left of each field; None for one that ends with a zero, -1 where two bytes tell."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return super().decompress(data if self._head is None else self._behind_head(data), max_length)

    def _behind_head(self, data: bytes) -> bytes:
        """What zlib gets of data: a plain head, and what follows."""
        assert self._head is not None
        data, self._head, plain = self._head + data, b"", b""
        if self._fields is None:
            if len(data) < _FIXED:
                self._head = data
                return b""
            flags, plain, data = data[3], data[:3] + b"\0" + data[4:_FIXED], data[_FIXED:]
            texts = [None for bit in _TEXT if flags & bit]
            self._fields = [*([-1] if flags & _SIZED else []), *texts, *([2] if flags & _SUM else [])]
        fields = self._fields
        while fields and data:
            size = fields[0]
            if size == -1:
                if len(data) == 1:
                    self._head = data
                    return plain
                fields[0], data = data[0] | data[1] << 8, data[2:]
                continue
            end = (data.find(b"\0") + 1 or len(data) + 1) if size is None else size
            if end > len(data):
                fields[0] = None if size is None else size - len(data)
                return plain
            del fields[0]
            data = data[end:]
        if not fields:
            self._head = None
        return plain + data


_SNIFFED: Final = 1000
"""Bytes without content after which a zlib stream is one."""


class _Deflate(_Forgiving):
    """The content coding of that name: a zlib stream, or what is inside one, which some servers send.

    As in Chromium, it is the latter where zlib finds a fault before anything has come out of it.
    """

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS)
        self._head: bytes | None = b""
        """What has gone in, until something has come out."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._head is None:
            return super().decompress(data, max_length)
        self._head += data
        found = super().decompress(data, max_length)
        if self._is_broken and not found:
            data, self._head = self._head, None
            super().__init__(-zlib.MAX_WBITS)
            return super().decompress(data, max_length)
        if found or self.eof or len(self._head) > _SNIFFED:
            self._head = None
        return found


_SLICE: Final = 256
"""Bytes that Brotli is given at once."""


class _Brotli:
    """Brotli's decoder in the shape of zstd's; a piece may be larger than was asked for, by 64 KiB or so.

    Its own takes what stands behind the end for a fault, and keeps what it has found before a fault to
    itself, where Chromium shows it. So a second one follows, which gets the slice with the fault byte by
    byte.
    """

    def __init__(self) -> None:
        import brotli

        self._ahead: Any = brotli.Decompressor()
        self._behind: Any = brotli.Decompressor()
        self._error: type[Exception] = brotli.error
        self._input = b""
        self._at = 0
        self._slice = _SLICE
        self._full = self._is_broken = False
        """Whether there may be more of what went in, which that alone does not say once all is taken; and
        whether there is a fault."""

    @property
    def eof(self) -> bool:
        return not self._is_broken and bool(self._ahead.is_finished())

    @property
    def needs_input(self) -> bool:
        return not (self._full or self._is_broken) and self._at >= len(self._input)

    @property
    def unused_data(self) -> bytes:
        return self._input[self._at :]

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._is_broken:
            raise zlib.error("a fault, as said")
        self._input, self._at = self._input[self._at :] + data, 0
        found = bytearray()
        while len(found) < max_length and not (self.eof or self.needs_input):
            piece = b"" if self._full else self._input[self._at : self._at + self._slice]
            room = max_length - len(found)
            try:
                part = self._ahead.process(piece, output_buffer_limit=room)
            except self._error:
                if not piece or self._slice == 1:
                    self._is_broken = True
                    break
                self._ahead, self._slice = self._behind, 1
                continue
            if self._slice > 1:
                self._behind.process(piece, output_buffer_limit=room)
            self._at += len(piece)
            self._full = len(part) >= room
            found += part
        return bytes(found)


type Decoder = _Zlib | _Brotli | zstd.ZstdDecompressor
"""Decoder of one gzip member, zstd frame or the like; others may follow it."""


def gzip_decoder() -> Decoder:
    """Make a decoder of one gzip member (RFC 1952)."""
    return _Zlib(zlib.MAX_WBITS | 16)


def zstd_decoder(window: int = _WINDOW) -> Decoder:
    """Make a decoder of one zstd frame (RFC 8878) with a window of at most so many bits."""
    return zstd.ZstdDecompressor(options={int(zstd.DecompressionParameter.window_log_max): window})


def decoder_for(head: bytes) -> Callable[[], Decoder] | None:
    """Choose the decoder for data by its first four bytes, or more; None where it is neither."""
    if head.startswith(_GZIP):
        return gzip_decoder
    if head.startswith(_ZSTD) or (head[1:4] == _SKIPPABLE and head[0] >> 4 == 5):
        return zstd_decoder
    return None


def _has_large_window(first: int) -> bool:
    """Whether a stream of Brotli that begins so has a window of more than 512 KiB (RFC 7932 section 9.1).

    Nothing comes out before it is full: 30 bytes fill one of 16 MiB, in 0.1 s.
    """
    return bool(first & 1) and first >> 1 & 7 > 2


class ContentCoding(NamedTuple):
    """A content coding of HTTP.

    Attributes:
        new: makes a decoder.
        step: bytes that are put in at a time where nobody may be held up: what nobody has made to be read,
            such as tables of codes that are never used, takes up to 2 ms, and what comes out may be nothing.
        takes_long: says by the first byte of a stream whether some others hold up whoever undoes them all the
            same, so that a thread has to; None where none do.
    """

    new: Callable[[], Decoder]
    step: int
    takes_long: Callable[[int], bool] | None = None


_GZIP_CODING = ContentCoding(_Gzip, 1 << 14)
_BROTLI_CODING = ContentCoding(_Brotli, 1 << 9, _has_large_window)

CONTENT_CODINGS: Final = {
    "gzip": _GZIP_CODING,
    "x-gzip": _GZIP_CODING,
    "deflate": ContentCoding(_Deflate, 1 << 14),
    "br": _BROTLI_CODING,
    "dcb": _BROTLI_CODING,  # as Firefox has it where there is no dictionary
    "zstd": ContentCoding(lambda: zstd_decoder(_HTTP_WINDOW), 1 << 12),
}
"""Content codings of HTTP that browsers take."""
