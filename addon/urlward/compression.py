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


class _Deflate(_Zlib):
    """The content coding of that name: a zlib stream, or what is inside one, which some servers send."""

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS)
        self._head: bytes | None = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._head is not None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return b""
            self._head = None
            if data[0] & 0xF != zlib.DEFLATED or (data[0] << 8 | data[1]) % 31:  # RFC 1950 section 2.2
                self._z = zlib.decompressobj(-zlib.MAX_WBITS)
        return super().decompress(data, max_length)


class _Brotli:
    """Brotli's decoder in the shape of zstd's; a piece may be larger than was asked for, by 64 KiB or so."""

    unused_data = b""

    def __init__(self) -> None:
        import brotli

        self._brotli: Any = brotli.Decompressor()
        self._error: type[Exception] = brotli.error
        self._full = False
        """Whether there may be more of what went in: that alone does not say so once all is taken."""

    @property
    def eof(self) -> bool:
        return bool(self._brotli.is_finished())

    @property
    def needs_input(self) -> bool:
        return not self._full and bool(self._brotli.can_accept_more_data())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            found = bytes(self._brotli.process(data, output_buffer_limit=max_length))
        except self._error as e:
            raise zlib.error from e
        self._full = len(found) >= max_length
        return found


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


_GZIP_CODING = ContentCoding(gzip_decoder, 1 << 14)

CONTENT_CODINGS: Final = {
    "gzip": _GZIP_CODING,
    "x-gzip": _GZIP_CODING,
    "deflate": ContentCoding(_Deflate, 1 << 14),
    "br": ContentCoding(_Brotli, 1 << 10, _has_large_window),
    "zstd": ContentCoding(lambda: zstd_decoder(_HTTP_WINDOW), 1 << 12),
}
"""Content codings of HTTP that browsers take."""
