"""Answer of a sandbox on a picture or a piece of video: its outcome, and a record for each frame.

Whoever reads it takes it for forged: a file may have taken over the process that wrote it.
"""

import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

TURNS, DIGEST = 8, 32
"""PDQ digests of a picture, as it is, turned and mirrored; and the bytes of one."""

DONE, DROPPED, LATE, FAILED = "done", "dropped", "late", "failed"
"""What became of it: it was looked at; there was no room for it; its deadline came; nothing can be decoded,
it has too many pixels, or its process was ended by the kernel for what it tried or took."""

PDQ, SCORE, FAULT = b"d", b"s", b"f"
"""Kinds of records: digests, the score of a classifier, and that it failed."""

MOST_FRAMES = 16
"""Pictures or frames that are looked at at most, each of which has digests and perhaps a score."""

MOST_RECORDS = 1 << 16
"""Bytes of records."""

_RECORD = struct.Struct(f"<cdd{TURNS * DIGEST}s")
_LAST, _HIGHEST = 1e9, 100


class FrameSeen(NamedTuple):
    """Record of a frame: its digests, or a score.

    Attributes:
        kind: `PDQ`, `SCORE` or `FAULT`.
        at: seconds from the beginning of a video.
        value: the quality of the digests, 0 to 100; or the classifier's score.
        digests: of PDQ, `TURNS` of them in a row; zeros where there are none.
    """

    kind: bytes
    at: float
    value: float = 0.0
    digests: bytes = b""

    def written(self) -> bytes:
        """As `seen_in` reads it."""
        return _RECORD.pack(*self)


def seen_in(records: bytes) -> Iterator[FrameSeen]:
    """Read records; half of one at the end, what makes no sense, and more than there can be is left out."""
    whole = len(records) // _RECORD.size * _RECORD.size
    for record in islice(_RECORD.iter_unpack(records[:whole]), 2 * MOST_FRAMES):
        seen = FrameSeen(*record)
        # Comparisons with what is no number are false.
        if 0 <= seen.at < _LAST and 0 <= seen.value <= _HIGHEST:
            yield seen
