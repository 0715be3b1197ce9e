"""Applying deltas: an old artifact and what changed, to the new one bit by bit.

A delta that was made to do harm can do no more than fail. A script goes through the old artifact once and
never back, so what it makes is no larger than the old artifact and the delta's columns together; and
whatever it makes must have the new artifact's checksum.
"""

from collections.abc import Buffer, Sequence
from typing import NamedTuple

from urlward.engine.artifact import HEADER_SIZE, Artifact, Section, check_key, parse, section_table
from urlward.engine.change import make_change
from urlward.engine.delta_columns import CONTRADICTIONS, Column, is_plain
from urlward.engine.delta_format import (
    DELTA_MAGIC,
    DamagedDeltaError,
    Frame,
    MismatchError,
    WrongBaseError,
    read_columns,
    read_frame,
)
from urlward.engine.delta_script import Script, read_script
from urlward.engine.delta_sections import new_sections
from urlward.engine.digest import DIGEST_SIZE, Key
from urlward.engine.errors import ArtifactError

DEFLATED = 100
"""Times as many bytes that a delta may have opened: digests hardly deflate, and most of it is digests."""


class Applied(NamedTuple):
    """Result of applying a delta.

    Attributes:
        artifact: the new one, as it was when the delta was made.
        change: what `urlward.engine.change.read_change` reads; empty where so much has changed that loading
            the artifact is as good.
    """

    artifact: bytes
    change: bytes


def apply_delta(old: Buffer, delta: Buffer, key: Key) -> Applied:
    """Make the new artifact of the old one, and see that it is the one the delta was made for.

    Args:
        old: the artifact that the delta is for, as it was.
        delta: what `urlward.engine.delta_make.make_delta` made.
        key: that both were made under.

    Raises:
        ArtifactError: `old` is damaged, or compiled under another key.
        DeltaError: the delta is damaged, or for another artifact, or made under another key. The full
            artifact helps with all of them.
    """
    frame, before, columns, rows = _opened(old, delta, key)
    try:
        sections = new_sections(before, columns, rows, key)
    except CONTRADICTIONS as e:
        raise DamagedDeltaError("its columns contradict the artifact: fetch the full artifact") from e
    sizes = [sum(map(_size, pieces)) for pieces in sections]
    table = section_table(sizes)
    if HEADER_SIZE + len(table) + sum(sizes) != frame.new_size:
        raise MismatchError("what it makes has another size than it says: fetch the full artifact")
    data = b"".join([columns[Column.HEADER], table, *(piece for pieces in sections for piece in pieces)])
    try:
        after = parse(data)
    except ArtifactError as e:
        raise MismatchError("what it makes is not the new artifact: fetch the full artifact") from e
    if after.header.checksum != frame.new_checksum:
        raise MismatchError("what it makes is another artifact than it says: fetch the full artifact")
    try:
        change = make_change(before, after, rows, columns[Column.NETWORK_ITEMS], key)
    except CONTRADICTIONS as e:
        raise DamagedDeltaError("the new artifact contradicts itself") from e
    return Applied(data, change)


def extent(old: Buffer, delta: Buffer, key: Key) -> tuple[int, int]:
    """How many rows a delta adds, and how many it removes; one whose attributes change is both.

    Raises:
        ArtifactError, DeltaError: as `apply_delta`.
    """
    _, _, _, rows = _opened(old, delta, key)
    return rows.inserted, sum(map(len, rows.left_out()))


def _opened(old: Buffer, delta: Buffer, key: Key) -> tuple[Frame, Artifact, Sequence[bytes], Script]:
    frame = read_frame(DELTA_MAGIC, delta)
    before = parse(old)
    if before.header.checksum != frame.old_checksum:
        raise WrongBaseError(
            f"it is for the artifact with checksum {frame.old_checksum.hex()}, this one has "
            f"{before.header.checksum.hex()}: fetch the full artifact"
        )
    check_key(before.header, key)
    most = min(2 * (before.header.size + frame.new_size), DEFLATED * len(frame.sealed)) + (1 << 16)
    columns = read_columns(DELTA_MAGIC, frame, key, len(Column), most)
    if not is_plain(before) or len(columns[Column.HEADER]) != HEADER_SIZE:
        raise DamagedDeltaError("it does not fit the artifact's sections: fetch the full artifact")
    rows = read_rows(before, columns)
    return frame, before, columns, rows


def read_rows(before: Artifact, columns: Sequence[bytes]) -> Script:
    """How the old rows become the new ones.

    Raises:
        DamagedDeltaError: the script is about other rows.
    """
    inserted = len(columns[Column.DIGESTS]) // DIGEST_SIZE
    return read_script(columns[Column.ROWS], len(before.sections[Section.LENGTHS]) // 2, inserted)


def _size(piece: Buffer) -> int:
    return memoryview(piece).nbytes
