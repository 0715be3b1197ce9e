"""The frame of ``.delta`` and ``.change`` files: what stands outside, and the sealed columns inside.

Layout, all numbers little-endian:

======  =====  =========================================================================
offset  bytes  content
======  =====  =========================================================================
0       8      magic: ``URLWDLT\\n`` or ``URLWCHG\\n``
8       2      format version (1)
10      2      size of this header (72)
12      4      zeros
16      8      size of the whole file
24      8      key id
32      16     checksum of the old artifact
48      16     checksum of the new artifact
64      8      size of the new artifact
72      ...    the columns, sealed under the key
======  =====  =========================================================================

Opened, the columns are the magic once more, which tells them from anything else that is sealed under the
key; the sizes of each column, stored and whole, 4 bytes each; and the columns, deflated (RFC 1950)
where the two sizes differ. They are sealed because some of them hold CRC-32 values, which are not keyed.

A column of numbers has all their lowest bytes, then all their second ones, and so on to the fourth: most
numbers are small, and zeros that stand together deflate to nothing.
"""

import struct
import zlib
from array import array
from collections.abc import Buffer, Iterable, Sequence
from typing import NamedTuple

from urlward.engine.artifact import Header, pack, unpack
from urlward.engine.digest import Key
from urlward.engine.errors import DamagedError, UrlwardError

DELTA_MAGIC = b"URLWDLT\n"
CHANGE_MAGIC = b"URLWCHG\n"
VERSION = 1

MOST = 1 << 32
"""Bytes that an artifact may have to be made by a delta, and that columns may have opened."""

_HEADER = struct.Struct("<8sHH4sQ8s16s16sQ")
_SIZES = struct.Struct("<II")


class DeltaError(UrlwardError):
    """Base of the errors of a delta or change file; the full artifact is the remedy for all."""


class NotADeltaError(DeltaError):
    """The bytes do not begin with the magic of such a file."""


class NewerDeltaError(DeltaError):
    """The file was written in a format version that this release cannot read."""


class DamagedDeltaError(DeltaError):
    """The file is not whole, or contradicts itself."""


class WrongBaseError(DeltaError):
    """The file is for another artifact than the one it was to be applied to."""


class DeltaKeyError(DeltaError):
    """The file was made under another key."""


class MismatchError(DeltaError):
    """The result of applying it is not the new artifact."""


class NoDeltaError(DeltaError):
    """There is no delta between two artifacts, or none that is worth it."""


class Frame(NamedTuple):
    """Frame of a delta or change file: the header fields, and the sealed columns.

    Attributes:
        key_id: of the key that both artifacts were compiled under.
        old_checksum: of the artifact that was.
        new_checksum: of the one that comes.
        new_size: in bytes.
        sealed: the columns.
    """

    key_id: bytes
    old_checksum: bytes
    new_checksum: bytes
    new_size: int
    sealed: bytes


def write_frame(
    magic: bytes, old: Header, new: Header, columns: Sequence[bytes], key: Key, *, deflate: bool
) -> bytes:
    """Seal columns and put the header in front; the same input gives the same bytes.

    Args:
        magic: of the file.
        old: header of the artifact that was.
        new: likewise of the one that comes.
        columns: in order.
        key: to seal them under.
        deflate: whether to make them smaller, where that can be done.
    """
    stored = [min(column, zlib.compress(column, 9), key=len) if deflate else column for column in columns]
    sizes = [_SIZES.pack(len(s), len(c)) for s, c in zip(stored, columns, strict=True)]
    sealed = key.seal(b"".join([magic, *sizes, *stored]))
    header = _HEADER.pack(
        magic,
        VERSION,
        _HEADER.size,
        b"",
        _HEADER.size + len(sealed),
        key.id,
        old.checksum,
        new.checksum,
        new.size,
    )
    return header + sealed


def read_frame(magic: bytes, data: Buffer) -> Frame:
    """Parse the frame outside the seal.

    Raises:
        NotADeltaError, NewerDeltaError, DamagedDeltaError: what is wrong.
    """
    view = memoryview(data)
    if view[: len(magic)] != magic:
        raise NotADeltaError("it does not begin with the magic of its kind: fetch the full artifact")
    if len(view) < _HEADER.size:
        raise DamagedDeltaError(f"{len(view)} bytes are not even its header: fetch it again")
    _, version, header_size, _, size, key_id, old, new, new_size = _HEADER.unpack_from(view)
    if version > VERSION:
        raise NewerDeltaError(f"format version {version}, this release reads up to {VERSION}: update urlward")
    if not version or header_size != _HEADER.size or size != len(view):
        raise DamagedDeltaError(f"{len(view)} bytes where its header says {size}: fetch it again")
    if new_size > MOST:
        raise DamagedDeltaError(f"an artifact of {new_size} bytes is larger than any may be")
    return Frame(key_id, old, new, new_size, bytes(view[_HEADER.size :]))


def read_columns(magic: bytes, frame: Frame, key: Key, count: int, most: int = MOST) -> list[bytes]:
    """Decrypt and parse the columns.

    Args:
        magic: of the file.
        frame: from `read_frame`.
        key: that it was made under.
        count: of columns.
        most: bytes that they may have together.

    Raises:
        DeltaKeyError: another key.
        DamagedDeltaError: it was changed since, or says what cannot be.
    """
    if frame.key_id != key.id:
        raise DeltaKeyError(f"made under key {frame.key_id.hex()}, the key given is {key.id.hex()}")
    try:
        opened = memoryview(key.unseal(frame.sealed))
    except DamagedError as e:
        raise DamagedDeltaError("it does not open under its key: fetch it again") from e
    start = len(magic) + count * _SIZES.size
    if opened[: len(magic)] != magic or len(opened) < start:
        raise DamagedDeltaError("what it seals is something else")
    sizes = list(_SIZES.iter_unpack(opened[len(magic) : start]))
    if sum(stored for stored, _ in sizes) != len(opened) - start or sum(whole for _, whole in sizes) > most:
        raise DamagedDeltaError("its columns do not have the sizes it says")
    columns = []
    for stored, whole in sizes:
        columns.append(_inflated(opened[start : start + stored], whole))
        start += stored
    return columns


def pack_numbers(values: Iterable[int]) -> bytes:
    """Encode a column of numbers below 2^32."""
    data = pack(array("I", values))
    return b"".join([data[byte::4] for byte in range(4)])


def unpack_numbers(column: bytes, most: int) -> "array[int]":
    """Decode what `pack_numbers` has written.

    Raises:
        DamagedDeltaError: not whole numbers, or more than `most` of them.
    """
    count, odd = divmod(len(column), 4)
    if odd or count > most:
        raise DamagedDeltaError("a column of numbers does not have the size it can have")
    data = bytearray(len(column))
    for byte in range(4):
        data[byte::4] = column[byte * count : (byte + 1) * count]
    return array("I", unpack("I", data))


def gaps(ascending: Iterable[int]) -> Iterable[int]:
    """Differences of consecutive numbers."""
    last = 0
    for number in ascending:
        yield number - last
        last = number


def _inflated(stored: memoryview, whole: int) -> bytes:
    if len(stored) == whole:
        return bytes(stored)
    inflate = zlib.decompressobj()
    try:
        column = inflate.decompress(stored, whole + 1)
    except zlib.error as e:
        raise DamagedDeltaError("a column does not inflate") from e
    if len(column) != whole or not inflate.eof or inflate.unused_data:
        raise DamagedDeltaError("a column does not have the size it says")
    return column
