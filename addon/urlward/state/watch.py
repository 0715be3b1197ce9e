"""Watches on files: whether one has changed, and whether a process writes it.

Polling costs one ``stat`` and sees what notifications do not: network file systems, a file replaced by a
link, a directory mounted anew.
"""

import errno
import fcntl
import os
import signal
import threading
import time
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
    """Whether leases are safe to take: a writer that comes while we hold one has SIGIO sent to us, whose
    default is death."""
    if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
        if threading.current_thread() is not threading.main_thread():
            return False
        signal.signal(signal.SIGIO, signal.SIG_IGN)
    return True


UNSETTLED = 30.0
"""Seconds after which a file that never stays as it is is read all the same: whoever reads it sees to it that
what they read is whole (`urlward.lists.source.whole_copy`)."""

PATIENCE = 10.0
"""Seconds after which a writer that does not close its file is spoken of."""

_MAX_FILES = 10_000

type Content = tuple[tuple[str, Signature], ...]


class PathWatch:
    """Watch on a file, or on a folder with all that is in it.

    Args:
        path: of it.
        seen: signature of a file that has been read already.
    """

    def __init__(self, path: Path, seen: Signature | None = None) -> None:
        self._path = path
        self._acted: Content | None = None if seen is None else ((str(path), seen),)
        self._pending: Content | None = None
        self._changing_since: float | None = None
        self._written_since: float | None = None
        self._told = False

    def changed(self, now: float | None = None) -> bool:
        """Whether there is a change to read: it was the same at the last look, or never is for `UNSETTLED`
        seconds, and nobody is writing.

        Args:
            now: a monotonic clock's seconds; the clock where not given.
        """
        now = time.monotonic() if now is None else now
        found = _look(self._path)
        if found == self._acted:
            self._changing_since = self._written_since = None
            self._told = False
        elif self._changing_since is None:
            self._changing_since = now
        unsettled = self._changing_since is not None and now - self._changing_since >= UNSETTLED
        settled = found == self._pending or unsettled
        self._pending = found
        if not settled or found == self._acted:
            return False
        if not any(being_written(Path(name)) for name, _ in found):
            return True
        if self._written_since is None:
            self._written_since = now
        return False

    def is_kept_open(self, now: float) -> bool:
        """True once when a changed path has long been still, but its writer has not closed it."""
        since = self._written_since
        if since is None or now - since <= PATIENCE or self._told:
            return False
        self._told = True
        return True

    def acted(self) -> None:
        """Note that the current state is about to be read."""
        self._acted, self._changing_since, self._written_since = _look(self._path), None, None

    def acted_too_soon(self) -> None:
        """Note that the current state is worth another look, since it could not be read."""
        self._acted = None

    @property
    def is_as_acted(self) -> bool:
        """Whether it is as it was when it was last read."""
        return _look(self._path) == self._acted


def _look(path: Path) -> Content:
    if not os.path.isdir(path):  # noqa: PTH112 - never raises, as where a file system fails
        signature = Signature.of(path)
        return ((str(path), signature),) if signature is not None else ()
    names = (Path(folder, name) for folder, _, files in os.walk(path) for name in files)
    found = ((str(name), Signature.of(name)) for name, _ in zip(names, range(_MAX_FILES), strict=False))
    return tuple(sorted((name, signature) for name, signature in found if signature is not None))
