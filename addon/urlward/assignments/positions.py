"""Reading positions of files, recognised by content, since logs are renamed, copied and cut."""

import os
from collections.abc import Iterable
from hashlib import blake2b

from urlward.assignments.store import Position

_BEGIN, _BEFORE = 4096, 1024
_WHOLE = 1 << 20
"""Up to so many bytes all of it is looked at, as exports are changed anywhere, and logs at their ends."""


def position_in(fd: int, known: Iterable[Position]) -> Position | None:
    """Find the position to resume from; None for a file that is new, or is not what it was.

    Args:
        fd: the file.
        known: positions in files of its source.

    Raises:
        OSError: unreadable.
    """
    size = os.fstat(fd).st_size
    for position in known:
        if (
            position.offset <= size
            and position.begin == _digest(os.pread(fd, position.begin_size, 0))
            # What was noted by an earlier urlward is of the last bytes alone.
            and position.before in (_before(fd, position.offset), _last(fd, position.offset))
        ):
            return position
    return None


def position_at(fd: int, path: str, offset: int, previous: Position | None) -> Position:
    """The position to store for a file that is read up to an offset."""
    begin_size = previous.begin_size if previous else min(_BEGIN, offset)
    begin = previous.begin if previous else _digest(os.pread(fd, begin_size, 0))
    return Position(path, begin, begin_size, offset, _before(fd, offset), os.fstat(fd).st_size)


def _before(fd: int, offset: int) -> str:
    return _digest(os.pread(fd, offset, 0)) if offset <= _WHOLE else _last(fd, offset)


def _last(fd: int, offset: int) -> str:
    start = max(0, offset - _BEFORE)
    return _digest(os.pread(fd, offset - start, start))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
