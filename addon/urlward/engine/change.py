"""The ``.change`` file: how a filter that has the old artifact loaded puts the new one in force at once.

It does not load the million rows that both have. It loads the few that were added, as one list more, and
takes no notice of those that were removed. The two lists together then find what the new artifact would.

The frame is that of a delta (`urlward.engine.delta_format`). The columns are the new artifact's header; the
numbers of the rows of the old one that were removed, each less the one before; and the artifact of the added
rows.
"""

from collections.abc import Buffer
from itertools import accumulate
from typing import NamedTuple

from urlward.engine.artifact import HEADER_SIZE, Artifact, Header, parse, read_header
from urlward.engine.delta_format import (
    CHANGE_MAGIC,
    DamagedDeltaError,
    gaps,
    pack_numbers,
    read_columns,
    read_frame,
    unpack_numbers,
    write_frame,
)
from urlward.engine.delta_script import Script
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError
from urlward.engine.subset import subset

MOST_ROWS = 50_000
"""Rows added or removed, beyond which a list is better loaded whole."""

_COLUMNS = 3


class Change(NamedTuple):
    """Parsed change file: the differences between two artifacts, for whoever has the old one loaded.

    Attributes:
        old_checksum: of the old one.
        new_checksum: of the new one.
        removed: rows of the old one that are not in the new one.
        added: an artifact of the rows of the new one that are not in the old one; empty where there are none.
            Its sieve is the new artifact's own, which also covers the rows that stay; its networks are
            those added. It may repeat rows that mark domains with ``subdomains``.
        header: of the new one.
    """

    old_checksum: bytes
    new_checksum: bytes
    removed: frozenset[int]
    added: bytes
    header: Header


def make_change(before: Artifact, after: Artifact, rows: Script, networks: bytes, key: Key) -> bytes:
    """Make a change file; empty where so much has changed that the list is better loaded whole.

    Args:
        before: the old artifact.
        after: the new one.
        rows: how the old rows become the new ones.
        networks: those added, in JSON without the brackets.
        key: of both.

    Raises:
        IndexError, ValueError: the new artifact contradicts itself.
    """
    removed = sum(map(len, rows.left_out()))
    if removed > MOST_ROWS or rows.inserted > MOST_ROWS:
        return b""
    added = b""
    if rows.inserted:
        inserted = [row for span in rows.put_in() for row in span]
        added = subset(after, inserted, b"[" + networks + b"]", key)
    gone = pack_numbers(gaps(row for span in rows.left_out() for row in span))
    return write_frame(
        CHANGE_MAGIC, before.header, after.header, [after.header.raw, gone, added], key, deflate=False
    )


def read_change(data: Buffer, key: Key) -> Change:
    """Open a change file.

    Args:
        data: what `make_change` made.
        key: of both artifacts.

    Raises:
        DeltaError: what is wrong.
    """
    frame = read_frame(CHANGE_MAGIC, data)
    head, removed, added = read_columns(CHANGE_MAGIC, frame, key, _COLUMNS)
    try:
        header = read_header(head)
        if added:
            parse(added)
    except ArtifactError as e:
        raise DamagedDeltaError("what it holds is no artifact: load the list whole") from e
    if len(head) != HEADER_SIZE or header.checksum != frame.new_checksum:
        raise DamagedDeltaError("it is for another artifact than it says: load the list whole")
    gone = frozenset(accumulate(unpack_numbers(removed, MOST_ROWS)))
    return Change(frame.old_checksum, frame.new_checksum, gone, added, header)
