"""An artifact's bytes in memory that processes can share, and that nobody can change any more.

A memfd has no name in any folder: nothing is left of it when the last process that uses it has ended,
however that came about, and no limit of /dev/shm applies. Sealed (memfd_create(2), F_ADD_SEALS), it can
neither be written nor cut short by anyone, so that a mapping of it cannot fault, which one of the
operator's own file could.
"""

import errno
import fcntl
import hashlib
import mmap
import os
from collections.abc import Buffer
from pathlib import Path

from urlward.lists.files import Signature, being_written
from urlward.lists.source import SourceError, open_list, unreadable

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_CHUNK = 1 << 20
_STDERR = 2

TRIES = 3
"""Times that a file is read which changes meanwhile."""


def new() -> int:
    """A file descriptor to write an artifact to; never one that stands for a standard stream."""
    fd = os.memfd_create("urlward", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if fd > _STDERR:
        return fd
    # Where standard streams are closed; a process that it is passed on to has some again.
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    finally:
        os.close(fd)


def seal(fd: int) -> None:
    """Let nobody change what is in it from now on.

    Raises:
        OSError: not memory of `new`, or mapped for writing.
    """
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


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


def view(fd: int) -> memoryview:
    """Map sealed memory, to be read only; the descriptor may be closed.

    Raises:
        OSError: not sealed, so it may still be half-written.
    """
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise OSError(errno.EPERM, "not sealed")
    if not os.fstat(fd).st_size:
        return memoryview(b"")  # which cannot be mapped
    # Private or shared is one where nobody can write, but Linux before 6.7 refuses the latter.
    return memoryview(mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))


def sealed(data: Buffer) -> int:
    """A descriptor of sealed memory with these bytes in it."""
    fd = new()
    try:
        _write(fd, data)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def sealed_copy(path: Path) -> tuple[int, bytes]:
    """A descriptor of sealed memory with a list file's bytes in it, and their checksum (`build.checksum`).

    Raises:
        SourceError: the file is not readable.
    """
    h = hashlib.blake2b()
    fd = new()
    try:
        with open_list(path) as file:
            while chunk := _read(path, file.fileno()):
                h.update(chunk)
                _write(fd, chunk)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd, h.digest()


class ChangingError(SourceError):
    """A file that changes each time while it is read."""


def whole_copy(path: Path, *, as_is: bool = False) -> tuple[int, bytes, Signature]:
    """A descriptor of memory with a list file's bytes in it as they were at one time, their checksum, and the
    signature of the file then. A file that another took the place of meanwhile is whole too.

    Args:
        path: of the file.
        as_is: whether one that changes each time is taken all the same, since there is no other yet.

    Raises:
        ChangingError: somebody writes it, or changes it each time it is read.
        SourceError: the file is not readable.
    """
    for left in reversed(range(TRIES)):
        h = hashlib.blake2b()
        fd = new()
        try:
            with open_list(path) as file:
                before = Signature.of_status(os.fstat(file.fileno()))
                while chunk := _read(path, file.fileno()):
                    h.update(chunk)
                    _write(fd, chunk)
                written = being_written(Path(f"/proc/self/fd/{file.fileno()}"))
                whole = not written and Signature.of_status(os.fstat(file.fileno())) == before
        except BaseException:
            os.close(fd)
            raise
        if whole or (as_is and not left):
            return fd, h.digest(), before
        os.close(fd)
    raise ChangingError(f"{path}: changed each time while it was read")


def _read(path: Path, fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError as e:
        raise unreadable(path, e) from e


def _write(fd: int, data: Buffer) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
