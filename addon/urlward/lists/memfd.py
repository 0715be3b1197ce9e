"""Memory files: bytes without a name in any folder.

Nothing is left of a memfd (memfd_create(2)) when the last process that uses it has ended, however that came
about.
"""

import fcntl
import os
from io import FileIO

_STDERR = 2


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


def write(fd: int, data: bytes | bytearray) -> None:
    """Write all bytes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def readable(fd: int) -> FileIO:
    """The same memory to read alone, for somebody who is to have no way to write to it; closed by whoever
    asks.

    Raises:
        OSError: there is no way to it (proc(5)), or no descriptor is left.
    """
    return FileIO(f"/proc/self/fd/{fd}")


def seal(fd: int) -> None:
    """Have nobody write to it any more, whoever is given it, nor change its size."""
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
