"""Memory files, for the bytes of a list while a process checks them.

A memfd (memfd_create(2)) has no name in any folder: nothing is left of it when the last process that uses it
has ended, however that came about.
"""

import fcntl
import os
from pathlib import Path

from urlward.lists.source import SourceError, open_list, unreadable
from urlward.state.watch import Signature, being_written

_CHUNK = 1 << 20
_STDERR = 2

TRIES = 3
"""Times that a file is read which changes meanwhile."""


def new() -> int:
    """Make a memory file; its descriptor is never one that stands for a standard stream."""
    fd = os.memfd_create("urlward", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if fd > _STDERR:
        return fd
    # Where standard streams are closed; a process that it is passed on to has some again.
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    finally:
        os.close(fd)


def writable(size: int) -> int:
    """A descriptor of memory of this size, all zeros, for several processes to write to; nobody can make it
    larger or smaller, so a mapping of it cannot fault."""
    fd = new()
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd


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


def write(fd: int, data: bytes) -> None:
    """Write all bytes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
