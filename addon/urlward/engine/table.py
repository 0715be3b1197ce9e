"""Flat tables of a list: the attributes of each row and of each file, in views of the artifact's bytes.

`blocking_networks` has a list's networks in plain form, which the kernel needs to recognise their traffic,
and `perceptual_list` its PDQ digests, for a process that looks at pictures.
"""

from array import array
from bisect import bisect_left
from collections.abc import Generator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from urlward.engine.artifact import Artifact, Section, networks, unpack
from urlward.engine.compiler import FilePool
from urlward.engine.digest import DIGEST_SIZE, Key, mark_of
from urlward.engine.entry import PDQ, Kind
from urlward.engine.errors import ArtifactError
from urlward.engine.perceptual import (
    PerceptualList,
    digests_and_distances,
    unseal_record,
    unseal_records,
)
from urlward.engine.record import Shape, file_text, network_text

_CHECK_SLICE = 1 << 15
"""Rows checked in a step, about 0.5 ms."""

_CHECK_BYTES = 1 << 18
_FEW = 64
"""Rows among which a digest is found faster in one piece than by halves; in a larger group, as many on each
side of where it is likely."""
_KEPT = 32
"""Rows of which the digests are kept with a host: clients can ask for any number of names below a domain."""
_OF_IDS = bytes(range(0x21, 0x7F))
_NONE = range(0)


class _Attributes:
    """Digest, shape and id of each row.

    Args:
        said: of the artifact's JSON part, what has ``shapes`` and ``shape_bytes``.
        sections: with digests, numbers of shapes, ends of ids, and ids.

    Attributes:
        shapes: what rows have in common.
        shape_numbers: for each row an index into `shapes`.
    """

    __slots__ = ("_digests", "_id_ends", "_ids", "shape_numbers", "shapes")

    def __init__(self, said: Mapping[str, Any], sections: Sequence[memoryview]) -> None:
        self.shapes = tuple(map(Shape._make, said["shapes"]))
        self._digests, numbers, id_ends, self._ids = sections
        self.shape_numbers = unpack("H" if said["shape_bytes"] == 2 else "I", numbers)
        self._id_ends = unpack("I", id_ends)

    def digest(self, row: int) -> bytes:
        """The 16-byte digest of a row's text."""
        return bytes(self._digests[row * DIGEST_SIZE : (row + 1) * DIGEST_SIZE])

    def shape(self, row: int) -> Shape:
        """Shape of a row: its kind and attributes."""
        return self.shapes[self.shape_numbers[row]]

    def id(self, row: int) -> str:
        """The list body's reference for a row, or empty."""
        ends = self._id_ends
        if not ends:
            return ""
        return str(self._ids[ends[row - 1] if row else 0 : ends[row]], "ascii")


class RowTable(_Attributes):
    """Table of rows' attributes; a row is a number below `rows`.

    Attributes:
        below: for each row a number that says which host a page, prefix or parameter row is on.
        lengths: for each row the labels of a domain or name, segments of a prefix or path sequence, bits of a
            network.
        params: digests of further parameters, of all rows.
        rows: how many.
    """

    __slots__ = ("_param_rows", "_params", "_rows_with_params", "below", "lengths", "params", "rows")

    def __init__(self, artifact: Artifact) -> None:
        sections = artifact.sections
        parts = Section.DIGESTS, Section.SHAPES, Section.ID_ENDS, Section.IDS
        super().__init__(artifact.meta, [sections[part] for part in parts])
        self.lengths = unpack("H", sections[Section.LENGTHS])
        self.below = unpack("I", sections[Section.BELOW])
        self._param_rows = unpack("I", sections[Section.PARAM_ROWS])
        self._rows_with_params = self._param_rows[::2]
        self._params = sections[Section.PARAMS]
        self.params = len(self._params) // DIGEST_SIZE
        self.rows = len(self.lengths)

    def check(self) -> Generator[None]:
        """Check that no row points outside its section, so that searching need not, and that ids are words.

        Raises:
            ArtifactError: one does.
        """
        yield from _check_words(self._ids)
        yield from _check_numbers(self.shape_numbers, len(self.shapes))
        fits = True
        for start in range(0, len(self._param_rows), _CHECK_SLICE):
            fits = fits and max(self._param_rows[start + 1 : start + _CHECK_SLICE : 2]) <= self.params
            yield
        if not fits:
            raise ArtifactError(_OUTSIDE)

    def further_params(self, row: int) -> list[bytes]:
        """Digests of the parameters that must be there besides the one that found the row."""
        rows = self._rows_with_params
        at = bisect_left(rows, row)
        if at == len(rows) or rows[at] != row:
            return []
        start = self._param_rows[2 * at - 1] if at else 0
        end = self._param_rows[2 * at + 1]
        digests = bytes(self._params[start * DIGEST_SIZE : end * DIGEST_SIZE])
        return [digests[i : i + DIGEST_SIZE] for i in range(0, len(digests), DIGEST_SIZE)]

    def digests(self, group: range) -> bytes | None:
        """The digests of a group one behind the other; None where they are too many to keep with hosts."""
        start, end = group.start, group.stop
        if end - start > _KEPT:
            return None
        return bytes(self._digests[start * DIGEST_SIZE : end * DIGEST_SIZE])

    def matching(self, group: range, digest: bytes, among: bytes | None = None) -> range:
        """The rows of a group, which are sorted by digest, that have this one; `among` is of `digests`."""
        start, end = low, high = group.start, group.stop
        if among is not None and not (at := among.find(digest)) % DIGEST_SIZE and among.rfind(digest) == at:
            return range(start + at // DIGEST_SIZE, start + at // DIGEST_SIZE + 1)
        if end - start > _FEW:
            # Keyed digests are as good as drawn by lot: it is about where it would be were they even.
            middle = start + (int.from_bytes(digest[:4]) * (end - start) >> 32)
            low, high = max(middle - _FEW, start), min(middle + _FEW, end)
        digests = bytes(self._digests[low * DIGEST_SIZE : high * DIGEST_SIZE])
        at = digests.find(digest)
        while at % DIGEST_SIZE and at > 0:
            at = digests.find(digest, at + 1)
        if (at <= 0 and low > start and digests[:DIGEST_SIZE] >= digest) or (
            at < 0 and high < end and digests[-DIGEST_SIZE:] < digest
        ):
            low, high, at = start + bisect_left(group, digest, key=self.digest), end, 0
            digests = bytes(self._digests[low * DIGEST_SIZE : min(low + 1, end) * DIGEST_SIZE])
            if digests != digest:
                return _NONE
        elif at < 0:
            return _NONE
        first = behind = low + at // DIGEST_SIZE
        while (at := at + DIGEST_SIZE) < len(digests) and digests.startswith(digest, at):
            behind += 1
        behind += 1
        if at >= len(digests):
            while behind < end and self.digest(behind) == digest:
                behind += 1
        return range(first, behind)


class FileTable(_Attributes):
    """Table of files' attributes; a row is a number below `rows`.

    Attributes:
        algorithms: for each algorithm how many entries block, and how many excuse.
        rows: how many.
    """

    __slots__ = ("_marks", "_pools", "_sealed", "_shift", "_starts", "algorithms", "rows")

    def __init__(self, artifact: Artifact) -> None:
        sections, said = artifact.sections, artifact.meta["files"]
        self.algorithms: dict[str, list[int]] = said["algorithms"]
        parts = Section.FILES, Section.FILE_SHAPES, Section.FILE_ID_ENDS, Section.FILE_IDS
        super().__init__(said, [sections[part] for part in parts])
        self._marks: memoryview[int] = unpack("Q", self._digests)[::2]
        self._sealed = sections[Section.PERCEPTUAL]
        self._pools = list(pairwise(accumulate(said["rows"], initial=0)))
        self.rows = sum(said["rows"])
        self._shift, self._starts = 64, array("I", self._pools[FilePool.EXACT])

    def check(self) -> Generator[None]:
        """Check as `RowTable.check`, and that the rows are in order, without which none would be found.

        Raises:
            ArtifactError: they are not.
        """
        yield from _check_words(self._ids)
        yield from _check_numbers(self.shape_numbers, len(self.shapes))
        for low, high in self._pools:
            for start in range(low, high, _CHECK_MARKS):
                marks = self._marks[start : min(start + _CHECK_MARKS + 1, high)].tolist()
                if marks != sorted(marks):
                    raise ArtifactError("the digests of files are not in order")
                yield
        yield from self._fill_buckets()

    def _fill_buckets(self) -> Generator[None]:
        """Note where the digests begin that have the same first bits. Keyed digests are as good as drawn by
        lot, so few have, and a search among a million begins among some."""
        (low, high), marks = self._pools[FilePool.EXACT], self._marks
        bits = (high - low >> _BUCKET_BITS).bit_length()
        shift, starts, at = 64 - bits, array("I", [low]), low
        for bucket in range(1, 1 << bits):
            first, near = bucket << shift, min(at + _NEAR, high)
            at = bisect_left(marks, first, at, near)
            if at == near:
                at = bisect_left(marks, first, at, high)
            starts.append(at)
            if not bucket % _FILLED:
                yield
        starts.append(high)
        self._shift, self._starts = shift, starts

    def exact(self, digest: bytes) -> Sequence[int]:
        """The rows of `FilePool.EXACT` that have this digest."""
        mark, marks, starts = int.from_bytes(digest[:8], "little"), self._marks, self._starts
        bucket = mark >> self._shift
        end = starts[bucket + 1]
        at = bisect_left(marks, mark, starts[bucket], end)
        if at == end or marks[at] != mark:
            return ()
        found = []
        while at < end and marks[at] == mark:
            if self.digest(at) == digest:
                found.append(at)
            at += 1
        return found

    def marked(self, pool: FilePool, mark: int) -> range:
        """The rows of a pool whose digest has this mark; one, if any, but by a chance of 1 in 2^64."""
        low, high = self._pools[pool]
        start = stop = bisect_left(self._marks, mark, low, high)
        while stop < high and self._marks[stop] == mark:
            stop += 1
        return range(start, stop)

    def excusing(self, key: Key, digest: bytes) -> Sequence[int]:
        """The rows that excuse a listed PDQ digest."""
        keyed = key.digest(file_text(PDQ, digest.hex()))
        return [row for row in self.marked(FilePool.EXCUSED, mark_of(keyed)) if self.digest(row) == keyed]

    def listed(self, key: Key, row: int) -> tuple[bytes, int]:
        """The PDQ digest of a row of `FilePool.LISTED` in plain form, and the distance up to which it blocks.

        Raises:
            ArtifactError: not sealed under this key.
        """
        return unseal_record(key, self._sealed, row - self._pools[FilePool.LISTED][0])

    def perceptual(self, key: Key, name: str, serial: int) -> PerceptualList:
        """All PDQ digests that it blocks.

        Raises:
            ArtifactError: as `listed`.
        """
        low, high = self._pools[FilePool.LISTED]
        digests, distances = digests_and_distances(unseal_records(key, self._sealed))
        return PerceptualList(name, serial, digests, distances, array("Q", self._marks[low:high]))

    def release(self) -> None:
        """Let go of the artifact's bytes, when nothing uses the table any more."""
        nothing = memoryview(b"")
        self._digests = self._marks = self._id_ends = self._ids = self._sealed = self.shape_numbers = nothing


_BUCKET_BITS = 3
"""Logarithm of the rows that a bucket has on average, among which one is found in two or three steps."""

_NEAR = 64
"""Rows of a bucket at most, but for one in very many."""

_FILLED = 1 << 10
"""Buckets filled in a step, about 1 ms."""

_CHECK_MARKS = 1 << 13
"""Rows whose order is checked in a step, about 1 ms."""

_OUTSIDE = "a row points outside its section, or an id is none"


def _check_words(ids: memoryview) -> Generator[None]:
    for start in range(0, len(ids), _CHECK_BYTES):
        # They stand in the log's lines.
        if bytes(ids[start : start + _CHECK_BYTES]).translate(None, _OF_IDS):
            raise ArtifactError(_OUTSIDE)
        yield


def _check_numbers(numbers: memoryview, behind: int) -> Generator[None]:
    for start in range(0, len(numbers), _CHECK_SLICE):
        if max(numbers[start : start + _CHECK_SLICE]) >= behind:
            raise ArtifactError(_OUTSIDE)
        yield


def file_table(artifact: Artifact) -> FileTable | None:
    """The table of an artifact's files; None where it has none."""
    return FileTable(artifact) if "files" in artifact.meta else None


def perceptual_list(artifact: Artifact, key: Key) -> PerceptualList | None:
    """The PDQ digests that an artifact blocks, in plain form; None where there are none.

    Takes 0.2 s for 1,000,000 of them.

    Args:
        artifact: the list, which need not be loaded.
        key: the list's.

    Raises:
        ArtifactError: not sealed under this key.
    """
    table = file_table(artifact)
    if table is None or not table.algorithms.get(PDQ, [0])[0]:
        return None
    return table.perceptual(key, artifact.meta["name"], artifact.header.serial)


_KINDS = (Kind.ADDRESS, Kind.NETWORK)


def blocking_networks(artifact: Artifact, key: Key, now: float) -> list[str]:
    """Networks that an entry in force blocks, in CIDR form, and addresses with pages listed; each once.

    Takes 0.1 s for 1,000,000 of them, and 1.5 s where any has ``@@`` or has expired.

    Args:
        artifact: the list; it may go out of use meanwhile.
        key: the list's.
        now: seconds since 1970-01-01 UTC.

    Raises:
        ArtifactError: not sealed under this key.
    """
    listed = networks(artifact, key)
    table = RowTable(artifact)
    shapes = {shape for shape in table.shapes if shape.kind in _KINDS}
    blocking = {shape for shape in shapes if not shape.allow and not shape.is_over(now)}
    if blocking == shapes:
        return listed
    digests = {table.digest(row) for row in range(table.rows) if table.shape(row) in blocking}
    return [n for n in listed if "/" not in n or key.digest(network_text(n)) in digests]
