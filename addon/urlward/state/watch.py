"""Watches on files: whether one has changed, and whether a process writes it.

Polling costs one ``stat`` and sees what notifications do not: network file systems, a file replaced by a
link, a directory mounted anew.
"""

import errno
import fcntl
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from urlward.regular import regular_fd

SETTLE = 0.25
"""Seconds that a file must stay away before it counts as gone."""


class Signature(NamedTuple):
    """Signature of a file: changes whenever the file does."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> "Signature | None":
        """Signature of a file; None where there is no file."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls.of_status(stat)

    @classmethod
    def of_status(cls, stat: os.stat_result) -> "Signature":
        """Signature of a file by its status."""
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@dataclass(slots=True)
class Watch:
    """Watch on a file of a store, which is only ever replaced as a whole, by looking at it now and then.

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
        """Note that the file has been moved away: its absence is known, and another is worth a look."""
        self.seen, self._told_missing = None, True

    def changed(self) -> Signature | None:
        """Signature of the file, if it is another than the one acted on; None where there is no file, too."""
        signature = Signature.of(self.path)
        return None if signature == self.seen else signature


def being_written(path: Path) -> bool:
    """Whether a process has the file open for writing, as far as the kernel tells.

    A read lease (fcntl(2), F_SETLEASE) is refused with EAGAIN while somebody has the file open for
    writing. Where leases are not to be had (other owner, network file system) the answer is False.
    """
    if not leases_are_safe():
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


def leases_are_safe() -> bool:
    """Whether leases are safe to take: a writer that comes while we hold one has SIGIO sent to us, whose
    default is death."""
    if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
        if threading.current_thread() is not threading.main_thread():
            return False
        signal.signal(signal.SIGIO, signal.SIG_IGN)
    return True
