"""PDQ digests of a list: sealed in an artifact block by block, and plain for whoever compares pictures.

Pictures that look alike have digests that differ in few bits, so these are compared in plain form, by their
distance, and no keyed digest will do. Only the process that looks at pictures opens them all. Whoever is told
by it which entry a picture is like opens one block, to see whether an exception has the same digest.
"""

from collections.abc import Iterator
from itertools import batched
from typing import TYPE_CHECKING, NamedTuple

from urlward.engine.digest import SEALED, Key
from urlward.engine.entry import ALGORITHMS, PDQ
from urlward.engine.errors import ArtifactError

if TYPE_CHECKING:
    from array import array

SIZE = ALGORITHMS[PDQ]
"""Bytes of a digest."""

_RECORD = SIZE + 1
_BLOCK = 1024
"""Records sealed together; opening so many takes 50 µs."""

_SEALED_BLOCK = _RECORD * _BLOCK + SEALED


class PerceptualList(NamedTuple):
    """PDQ digests that one list blocks, in plain form: for short-lived use, or a process without a network.

    Attributes:
        name: of the list.
        serial: of the artifact.
        digests: 32 bytes each, one behind another.
        distances: a byte each: bits by which a picture's digest may differ.
        rows: for each a number that names it to `Matcher.file_verdict`, in this issue of the list and others.
    """

    name: str
    serial: int
    digests: bytes
    distances: bytes
    rows: "array[int]"

    def near(self, digest: bytes) -> Iterator[tuple[int, int]]:
        """The rows whose digest a picture's is as near to as they say, each with the distance.

        It compares one by one, 0.1 s for 1,000,000: a filter has an index (`urlward.files`).
        """
        wanted = int.from_bytes(digest, "big")
        listed = (int.from_bytes(each, "big") for each in map(bytes, batched(self.digests, SIZE)))
        for row, other, most in zip(self.rows, listed, self.distances, strict=True):
            distance = (wanted ^ other).bit_count()
            if distance <= most:
                yield row, distance


def record(digest: bytes, distance: int) -> bytes:
    """What is kept of an entry."""
    return digest + bytes([distance])


def seal_records(key: Key, records: bytes) -> bytes:
    """Seal records block by block; the same records give the same bytes."""
    step = _RECORD * _BLOCK
    return b"".join(key.seal(records[at : at + step]) for at in range(0, len(records), step))


def sealed_size(count: int) -> int:
    """Bytes of so many records once they are sealed."""
    return _RECORD * count + SEALED * -(-count // _BLOCK)


def unseal_records(key: Key, sealed: memoryview) -> bytes:
    """Undo `seal_records`.

    Raises:
        ArtifactError: not sealed under this key, or changed since.
    """
    blocks = range(0, len(sealed), _SEALED_BLOCK)
    return b"".join(key.unseal(bytes(sealed[at : at + _SEALED_BLOCK])) for at in blocks)


def unseal_record(key: Key, sealed: memoryview, number: int) -> tuple[bytes, int]:
    """The digest and the distance of one record.

    Raises:
        ArtifactError: as `unseal_records`.
    """
    block, at = divmod(number, _BLOCK)
    records = key.unseal(bytes(sealed[block * _SEALED_BLOCK : (block + 1) * _SEALED_BLOCK]))
    found = records[at * _RECORD : (at + 1) * _RECORD]
    if len(found) != _RECORD:
        raise ArtifactError("a sealed section does not have the size it says")
    return found[:SIZE], found[SIZE]


def digests_and_distances(records: bytes) -> tuple[bytes, bytes]:
    """The two columns of records.

    Raises:
        ArtifactError: they are none.
    """
    if len(records) % _RECORD:
        raise ArtifactError("a sealed section does not have the size it says")
    digests = bytearray(len(records) // _RECORD * SIZE)
    for at in range(SIZE):
        digests[at::SIZE] = records[at::_RECORD]
    return bytes(digests), records[SIZE::_RECORD]
