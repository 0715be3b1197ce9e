"""Flat table of a list: the attributes of each row, in views of the artifact's bytes.

`blocking_networks` has a list's networks in plain form, which the kernel needs to recognise their traffic.
"""

from bisect import bisect_left
from collections.abc import Generator

from urlward.engine.artifact import Artifact, Section, networks, unpack
from urlward.engine.digest import DIGEST_SIZE, Key
from urlward.engine.entry import Kind
from urlward.engine.errors import DamagedError
from urlward.engine.record import Shape, network_text

_CHECK_SLICE = 1 << 15
"""Rows checked in a step, about 0.5 ms."""

_CHECK_BYTES = 1 << 18
_FEW = 64
"""Rows among which a digest is found faster in one piece than by halves."""
_OF_IDS = bytes(range(0x21, 0x7F))


class RowTable:
    """Table of rows' attributes; a row is a number below `rows`.

    Attributes:
        below: for each row a number that says which host a page, prefix or parameter row is on.
        lengths: for each row the labels of a domain or name, segments of a prefix or path sequence, bits of a
            network.
        params: digests of further parameters, of all rows.
        rows: how many.
        shapes: what rows have in common.
        shape_numbers: for each row an index into `shapes`.
    """

    __slots__ = (
        "_digests",
        "_id_ends",
        "_ids",
        "_param_rows",
        "_params",
        "_rows_with_params",
        "below",
        "lengths",
        "params",
        "rows",
        "shape_numbers",
        "shapes",
    )

    def __init__(self, artifact: Artifact) -> None:
        sections = artifact.sections
        self.shapes = tuple(map(Shape._make, artifact.meta["shapes"]))
        self._digests = sections[Section.DIGESTS]
        self.shape_numbers = unpack(
            "H" if artifact.meta["shape_bytes"] == 2 else "I", sections[Section.SHAPES]
        )
        self.lengths = unpack("H", sections[Section.LENGTHS])
        self.below = unpack("I", sections[Section.BELOW])
        self._id_ends = unpack("I", sections[Section.ID_ENDS])
        self._ids = sections[Section.IDS]
        self._param_rows = unpack("I", sections[Section.PARAM_ROWS])
        self._rows_with_params = self._param_rows[::2]
        self._params = sections[Section.PARAMS]
        self.params = len(self._params) // DIGEST_SIZE
        self.rows = len(self.lengths)

    def check(self) -> Generator[None]:
        """Check that no row points outside its section, so that searching need not, and that ids are words.

        Raises:
            DamagedError: one does.
        """
        fits = True
        for start in range(0, len(self._ids), _CHECK_BYTES):
            # They stand in the log's lines.
            fits = fits and not bytes(self._ids[start : start + _CHECK_BYTES]).translate(None, _OF_IDS)
            yield
        for start in range(0, self.rows, _CHECK_SLICE):
            fits = fits and max(self.shape_numbers[start : start + _CHECK_SLICE]) < len(self.shapes)
            yield
        for start in range(0, len(self._param_rows), _CHECK_SLICE):
            fits = fits and max(self._param_rows[start + 1 : start + _CHECK_SLICE : 2]) <= self.params
            yield
        if not fits:
            raise DamagedError("a row points outside its section, or an id is none")

    def digest(self, row: int) -> bytes:
        """The 16-byte digest of a row's text."""
        return bytes(self._digests[row * DIGEST_SIZE : (row + 1) * DIGEST_SIZE])

    def shape(self, row: int) -> Shape:
        """Shape of a row: its kind and attributes."""
        return self.shapes[self.shape_numbers[row]]

    def id(self, row: int) -> str:
        """The list body's reference for a row, or empty."""
        if not self._id_ends:
            return ""
        start = self._id_ends[row - 1] if row else 0
        return str(self._ids[start : self._id_ends[row]], "ascii")

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

    def matching(self, group: range, digest: bytes) -> range:
        """The rows of a group, which are sorted by digest, that have this one."""
        start, end = group.start, group.stop
        if end - start > _FEW:
            start += bisect_left(group, digest, key=self.digest)
        elif end - start > 1:
            digests = bytes(self._digests[start * DIGEST_SIZE : end * DIGEST_SIZE])
            at = digests.find(digest)
            while at % DIGEST_SIZE and at > 0:
                at = digests.find(digest, at + 1)
            start = start + at // DIGEST_SIZE if at >= 0 else end
        behind = start
        while behind < end and self.digest(behind) == digest:
            behind += 1
        return range(start, behind)


_KINDS = (Kind.ADDRESS, Kind.NETWORK)


def blocking_networks(artifact: Artifact, key: Key, now: float) -> list[str]:
    """Networks that an entry in force blocks, in CIDR form, and addresses with pages listed; each once.

    Takes 0.1 s for 1,000,000 of them, and 1.5 s where any has ``@@`` or has expired.

    Args:
        artifact: the list; it may go out of use meanwhile.
        key: the list's.
        now: seconds since 1970-01-01 UTC.

    Raises:
        DamagedError: not sealed under this key.
    """
    listed = networks(artifact, key)
    table = RowTable(artifact)
    shapes = {shape for shape in table.shapes if shape.kind in _KINDS}
    blocking = {shape for shape in shapes if not shape.allow and not shape.is_over(now)}
    if blocking == shapes:
        return listed
    digests = {table.digest(row) for row in range(table.rows) if table.shape(row) in blocking}
    return [n for n in listed if "/" not in n or key.digest(network_text(n)) in digests]
