"""Copies of list files in memory, for as long as a process checks them."""

import os
from pathlib import Path

from urlward.lists.memfd import new, write
from urlward.lists.source import SourceError, open_list, unreadable
from urlward.state.watch import Signature, being_written

_CHUNK = 1 << 20
TRIES = 3
"""Times that a file is read which changes meanwhile."""


class ChangingError(SourceError):
    """A file that changes each time while it is read."""


def whole_copy(path: Path, *, as_is: bool = False) -> int:
    """A descriptor of memory with a list file's bytes in it as they were at one time. A file that another
    took the place of meanwhile is whole too.

    Args:
        path: of the file.
        as_is: whether one that changes each time is taken all the same, since there is no other yet.

    Raises:
        ChangingError: somebody writes it, or changes it each time it is read.
        SourceError: the file is not readable.
    """
    for left in reversed(range(TRIES)):
        fd = new()
        try:
            with open_list(path) as file:
                before = Signature.of_status(os.fstat(file.fileno()))
                while chunk := _read(path, file.fileno()):
                    write(fd, chunk)
                written = being_written(Path(f"/proc/self/fd/{file.fileno()}"))
                whole = not written and Signature.of_status(os.fstat(file.fileno())) == before
        except BaseException:
            os.close(fd)
            raise
        if whole or (as_is and not left):
            return fd
        os.close(fd)
    raise ChangingError(f"{path}: changed each time while it was read")


def _read(path: Path, fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError as e:
        raise unreadable(path, e) from e
