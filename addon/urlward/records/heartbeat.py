"""What tells the next start that the process before it ended without a word, and when it last lived.

``records.run`` in the state folder is there while events are recorded, and says when that was, once a second.
Where nothing has recorded yet, a worker that ends with events that nobody has taken leaves it.
"""

import os
from contextlib import suppress
from pathlib import Path

from urlward.lists.state import give_to_owner_of, open_private, unusable

FILE = "records.run"

BEAT = 1.0
"""Seconds between two signs of life."""

_DIGITS = 15


class Heartbeat:
    """Signs of life.

    Args:
        state: the state folder.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._fd = -1

    def begin(self, now: int) -> int | None:
        """Begin to live.

        Args:
            now: milliseconds since 1970-01-01 UTC.

        Returns:
            Where the process before ended without a word: from when on events may be missing, which is a
            second before its last sign of life.

        Raises:
            StateError: the file cannot be made.
        """
        try:
            found = self._path.exists()
            self._fd = open_private(self._path)
            give_to_owner_of(self._path.parent, self._fd)
            last = self._last() if found else None
            self.beat(now)
        except OSError as e:
            raise unusable(self._path, e) from e
        return None if last is None else last - round(BEAT * 1000)

    def beat(self, now: int) -> None:
        """Give a sign of life.

        Raises:
            OSError: the disk does not take it.
        """
        os.pwrite(self._fd, b"%0*d\n" % (_DIGITS, now), 0)

    def end(self) -> None:
        """End in order: nothing is missing."""
        os.close(self._fd)
        self._path.unlink(missing_ok=True)

    def _last(self) -> int:
        said = os.pread(self._fd, _DIGITS, 0)
        if len(said) == _DIGITS and said.isdigit():
            return int(said)
        return os.fstat(self._fd).st_mtime_ns // 1_000_000


def note_lost(state: Path, since: int) -> None:
    """Have the next start say that events may be missing, unless a process that records says so itself.

    Args:
        state: the state folder.
        since: milliseconds since 1970-01-01 UTC, from when on.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):  # it is there; or a disk that takes nothing, and the log has it
        fd = os.open(state / FILE, flags, 0o600)
        try:
            give_to_owner_of(state, fd)
            os.pwrite(fd, b"%0*d\n" % (_DIGITS, since), 0)
        finally:
            os.close(fd)
