"""Files: opened and read where they are regular ones, watched, and whether somebody writes them."""

import errno
import fcntl
import os
import signal
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

SETTLE = 0.25
"""Seconds that a file must stay away before it counts as gone."""

MOST_KEPT = 1 << 26
"""Bytes, many times what a file has that is kept and read as a whole (an artifact is not read so)."""


MOST_LINE = 1 << 20
"""Bytes, many times what a line has of what is kept line by line."""


class Signature(NamedTuple):
    """What changes when a file does."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> "Signature | None":
        """The file's signature, None where there is no file."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls.of_status(stat)

    @classmethod
    def of_status(cls, stat: os.stat_result) -> "Signature":
        """The signature of a file by its status."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@dataclass(slots=True)
class Watch:
    """Watches a file of a store, which is only ever replaced as a whole, by looking at it now and then.

    Attributes:
        path: the file.
        seen: the signature that was last acted on.
    """

    path: Path
    seen: Signature | None = None
    _missing_since: float | None = None
    _told_missing: bool = False

    def vanished(self, now: float) -> bool:
        """True once when the file is gone, and not only while another takes its place.

        Args:
            now: a monotonic clock's seconds.
        """
        if Signature.of(self.path) is not None:
            self._missing_since, self._told_missing = None, False
            return False
        if self._missing_since is None:
            self._missing_since = now
        if self._told_missing or now - self._missing_since < SETTLE:
            return False
        self._told_missing = True
        # Whatever comes back is worth a look, and a word in the log.
        self.seen = None
        return True

    def taken_away(self) -> None:
        """Say that the file has been moved away: that it is gone is known, and another is worth a look."""
        self.seen, self._told_missing = None, True

    def changed(self) -> Signature | None:
        """The file's signature where that is another than was acted on; None where there is no file, too."""
        signature = Signature.of(self.path)
        return None if signature == self.seen else signature


def regular_fd(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file that is to be a regular one.

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


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading as `regular_fd`."""
    return os.fdopen(regular_fd(path), "rb")


def read_regular(path: Path, most: int = MOST_KEPT) -> bytes:
    """What is in a file; as `regular_fd`, and EFBIG where that is more than so many bytes.

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


def being_written(path: Path) -> bool:
    """Whether a process has the file open for writing, as far as the kernel tells.

    A read lease (fcntl(2), F_SETLEASE) is refused with EAGAIN while somebody has the file open for
    writing. Where leases are not to be had (other owner, network file system) the answer is False.
    """
    if not _leases_are_safe():
        return False
    try:
        fd = regular_fd(path)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as e:
        return e.errno == errno.EAGAIN
    finally:
        os.close(fd)
    return False


def _leases_are_safe() -> bool:
    """A writer that comes while we hold the lease has SIGIO sent to us, whose default is death."""
    if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
        if threading.current_thread() is not threading.main_thread():
            return False
        signal.signal(signal.SIGIO, signal.SIG_IGN)
    return True
