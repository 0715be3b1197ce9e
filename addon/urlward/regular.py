"""Regular files, read and written whole: a pipe, a socket or a device is refused, not waited for.

Byte order marks are taken from what was read: UTF-8's is removed, UTF-16's is reported.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, BinaryIO

MOST_KEPT = 1 << 26
"""Bytes, many times what a file has that is kept and read as a whole (an artifact is not read so)."""

MOST_LINE = 1 << 20
"""Bytes, many times what a line has of what is kept line by line."""

_GIVEN = re.compile(r"/dev/stdin|/(?:dev|proc/self)/fd/([0-9]{1,9})", re.ASCII).fullmatch


def regular_fd(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file that has to be a regular one; returns its descriptor.

    Opening a pipe could wait for ever, on an event loop that carries traffic, and a device need not end.

    Args:
        path: of the file; made for its owner alone where the flags say so.
        flags: of open(2), beside those that are needed for that.

    Raises:
        OSError: the system does not give it; ENXIO, as of a socket, where it is no regular file.
    """
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    except OSError as e:
        if e.errno == errno.ENXIO:
            raise _not_regular(path) from e
        raise
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _not_regular(path)


def _not_regular(path: Path) -> OSError:
    return OSError(errno.ENXIO, "not a regular file", str(path))


class _NeverWaits(FileIO):
    """Raw file that nobody waits for: some of the kernel's, as ``/proc/kmsg``, are regular by their mode,
    and have no more for a while."""

    def readinto(self, buffer: Any) -> int:
        """Read some bytes."""
        found: int | None = super().readinto(buffer)
        return self._or_refuse(found)

    def readall(self) -> bytes:
        """Read all bytes."""
        return self._or_refuse(super().readall())

    def _or_refuse[Found](self, found: Found | None) -> Found:
        if found is None:
            raise _not_regular(Path(str(self.name)))
        return found


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading as `regular_fd`."""
    fd = regular_fd(path)
    return BufferedReader(_NeverWaits(str(path), opener=lambda *_: fd))


def read_regular(path: Path, most: int = MOST_KEPT) -> bytes:
    """Read a file; as `regular_fd`, and EFBIG where it has more than so many bytes.

    A file system that is damaged may give a file any size, and who reads that has no memory left.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, "too large to be what it should be", str(path))
        return file.read()


def lines_of(file: BufferedReader) -> Iterator[bytes]:
    """The lines of a file as iterating over it has them, but one longer than `MOST_LINE` in pieces: what is
    damaged may be one line of any length."""
    return iter(lambda: file.readline(MOST_LINE), b"")


def given_fd(path: Path) -> int | None:
    """The number of the descriptor that a name stands for which this process was started with, None where it
    stands for none: ``/dev/stdin``, and what a shell makes of ``<(command)``."""
    match = _GIVEN(str(path))
    return None if match is None else int(match[1] or 0)


def open_given(path: Path) -> BufferedReader:
    """Open a file for reading as `regular_fd`, or what the shell gave in its place (`given_fd`), which ends.

    Raises:
        OSError: see there.
    """
    number = given_fd(path)
    return open_regular(path) if number is None else os.fdopen(os.dup(number), "rb")


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Open a file that does not exist yet; it is written whole or not at all."""
    with os.fdopen(os.open(path, _NEW, mode), "wb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that does not exist yet, whole or not at all.

    Raises:
        OSError: it is there, or cannot be written.
    """
    with new_file(path, mode) as file:
        file.write(data)


BOM = b"\xef\xbb\xbf"
"""The byte order mark that editors on Windows put before a text in UTF-8."""

_MARKS = (b"\xff\xfe", b"\xfe\xff")


def other_encoding(head: bytes) -> str:
    """Message for a file whose first bytes are UTF-16's byte order mark, as editors on Windows write it.

    Args:
        head: at least its first two bytes, if it has so many.

    Returns:
        Nothing where they are not.
    """
    return "UTF-16: save it as UTF-8, or use: iconv -f UTF-16 -t UTF-8" if head.startswith(_MARKS) else ""


def without_bom(text: bytes) -> bytes:
    """Remove the byte order mark before a text."""
    return text.removeprefix(BOM)
