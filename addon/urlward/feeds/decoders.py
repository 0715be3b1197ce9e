"""Decoders of gzip and zstd with one interface, chosen by a body's first bytes."""

import sys
import zlib
from collections.abc import Callable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DAMAGED = (zlib.error, zstd.ZstdError)
"""What `Decoder.decompress` raises where the data is not what it should be."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # behind a first byte of 0x50 to 0x5f (RFC 8878, section 3.1.2)
_WINDOW = {int(zstd.DecompressionParameter.window_log_max): 27}
"""128 MiB, all that ``zstd --ultra`` uses."""


class _Gzip:
    """zlib's decoder in the shape of zstd's."""

    def __init__(self) -> None:
        self._z = zlib.decompressobj(31)

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


type Decoder = _Gzip | zstd.ZstdDecompressor
"""Decoder of one gzip member or zstd frame; others may follow it."""


def gzip_decoder() -> Decoder:
    """Make a decoder of one gzip member (RFC 1952)."""
    return _Gzip()


def zstd_decoder() -> Decoder:
    """Make a decoder of one zstd frame (RFC 8878)."""
    return zstd.ZstdDecompressor(options=_WINDOW)


def decoder_for(head: bytes) -> Callable[[], Decoder] | None:
    """Choose the decoder for data by its first four bytes, or more; None where it is neither."""
    if head.startswith(_GZIP):
        return gzip_decoder
    if head.startswith(_ZSTD) or (head[1:4] == _SKIPPABLE and head[0] >> 4 == 5):
        return zstd_decoder
    return None
