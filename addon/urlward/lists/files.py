"""Telling when a list file has been changed, and whether its writer is done."""

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
"""Seconds a file must stay as it is before it is read, or stay away before it counts as gone."""

UNSETTLED = 30.0
"""Seconds after which a file that never stays as it is is read all the same: whoever reads it sees to it that
what they read is whole (`urlward.lists.memory.whole_copy`)."""

PATIENCE = 10.0
"""Seconds after which a writer that does not close its file is spoken of."""


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
    """Watches one file by looking at it now and then.

    Polling costs one ``stat`` and sees what notifications do not: network file systems, a file
    replaced by a link, a directory mounted anew.

    Attributes:
        path: the file.
        seen: the signature that was last acted on.
        whole: whether it is only ever replaced as a whole, so that it can be read at once.
    """

    path: Path
    seen: Signature | None = None
    whole: bool = False
    _pending: Signature | None = None
    _since: float = 0.0
    _changing_since: float = 0.0
    _again: float | None = None
    _missing_since: float | None = None
    _told_missing: bool = False
    _told_open: bool = False

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

    def look_again(self, at: float) -> None:
        """Say that what was acted on is worth another look at a time of that clock."""
        self._again = at

    def kept_open(self, now: float) -> bool:
        """True once when a changed file has long been still, but its writer has not closed it."""
        waiting = self._pending is not None and now - self._since > PATIENCE
        told, self._told_open = self._told_open, waiting
        return waiting and not told

    def ready(self, now: float) -> Signature | None:
        """The new signature of a file that has changed, has stayed so, and is not being written; or that has
        not stayed so for long.

        Args:
            now: a monotonic clock's seconds.
        """
        signature = Signature.of(self.path)
        if self._again is not None and now >= self._again:
            self.seen = self._again = None
        if signature is None or signature == self.seen:
            self._pending = None
            return None
        if self.whole:
            return signature
        if self._pending is None:
            self._changing_since = now
        if signature != self._pending:
            self._pending, self._since = signature, now
        unsettled = now - self._changing_since >= UNSETTLED
        if (now - self._since < SETTLE and not unsettled) or being_written(self.path):
            return None
        if unsettled:
            self._pending = None
        return signature


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
