"""What a store could not take yet, on the disk until it can.

A folder a store, of segments that are written once, read in order, and deleted when the store has taken all
of it. A segment begins with a line that says what it is; then come frames: four bytes of length, four with
the number of events, eight of checksum (BLAKE2b), and the events as a JSON array. A segment is a few hundred
events: whoever is killed between writing them to the store and deleting the segment writes them again, which
no store keeps twice.

A frame that is damaged ends its segment, and so does one that was cut short, which is either one that was
never acknowledged or the end of a file that was cut. What is so lost is counted, and the segment set aside.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import msgspec

from urlward.engine.errors import UrlwardError
from urlward.lists.state import (
    StateError,
    give_to_owner_of,
    is_damage,
    made_folder,
    set_aside,
    unusable,
    write_private,
)
from urlward.records.event import VERSION, Event, EventError, events_of
from urlward.regular import open_regular, read_regular

SPOOL = "spool"
"""In the state folder: that of all stores."""

LOCK = "records.lock"
"""In the state folder, held by the process that records there, which alone writes to spools."""

SEGMENT = 1 << 18
"""Bytes from which on a segment is not added to."""

MAX_FRAME = 1 << 24

_HEAD = b"urlward spool %d\n" % VERSION
_FRAME = struct.Struct(">II8s")
_NAME = re.compile(r"([0-9]{12})\.spool").fullmatch


class SpoolError(UrlwardError):
    """The disk does not take it; the message names the folder."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The oldest segment.

    Attributes:
        path: its file.
        events: in the order in which they came.
        damaged: bytes that are no events any more, at least one where it is empty.
    """

    path: Path
    events: list[Event]
    damaged: int


class Spool:
    """One store's. Not for several threads at once.

    Args:
        folder: of its own, made when needed.
        limit: bytes in all.
        state: the state folder, for what is damaged; the folder's own where not given.

    Attributes:
        folder: see there.
        size: bytes in all, now.
        events: likewise.

    Raises:
        SpoolError: the folder cannot be read.
    """

    def __init__(self, folder: Path, limit: int, state: Path | None = None) -> None:
        self.folder = folder
        self._limit = limit
        self._state = state or folder
        self._fd = -1
        self._written = 0
        try:
            found = sorted(self._segments())
        except OSError as e:
            raise _refused(folder, e) from e
        except StateError as e:
            raise SpoolError(str(e)) from e
        self._sizes = {number: size for number, size, _ in found}
        self._counts = {number: count for number, _, count in found}
        self.size = sum(self._sizes.values())
        self.events = sum(self._counts.values())
        # Never added to: its end may be torn.
        self._next = max(self._sizes, default=0) + 1

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def append(self, events: Sequence[Event]) -> bool:
        """Add events; they are on the disk when this returns.

        Returns:
            False, with nothing added, where there is no room left for them.

        Raises:
            SpoolError: the disk is full, or fails; nothing has been added.
        """
        frame = _frame(events)
        if len(frame) > MAX_FRAME or self.size + len(_HEAD) + len(frame) > self._limit:
            return False
        try:
            if self._fd < 0 or self._written >= SEGMENT:
                self._begin()
            self._write(frame)
        except StateError as e:
            raise SpoolError(str(e)) from e
        except OSError as e:
            raise _refused(self.folder, e) from e
        self._counts[self._next - 1] += len(events)
        self.events += len(events)
        return True

    def oldest(self) -> Segment | None:
        """The oldest segment, None where there is none. It is not added to any more.

        Raises:
            SpoolError: the disk does not give it.
        """
        if not self._sizes:
            return None
        number = next(iter(self._sizes))
        if number == self._next - 1:
            self.close()
        path = self._path(number)
        if not path.exists():  # somebody has deleted it
            return Segment(path, [], self._sizes[number])
        try:
            events, damaged = _read(read_regular(path))
        except OSError as e:
            if not is_damage(e):
                raise _refused(path, e) from e
            events, damaged = [], max(self._sizes[number], 1)
        return Segment(path, events, damaged)

    def remove_oldest(self, *, damaged: bool = False) -> None:
        """Delete the oldest segment, now that its events are elsewhere.

        Args:
            damaged: it is set aside instead.

        Raises:
            SpoolError: it stays.
        """
        number = next(iter(self._sizes))
        path = self._path(number)
        try:
            if damaged:
                set_aside(self._state, path, "damaged", "what can be read of it is kept")
            else:
                path.unlink(missing_ok=True)
        except OSError as e:
            raise _refused(path, e) from e
        except StateError as e:
            raise SpoolError(str(e)) from e
        self._forget(number)

    def purge(self, over: Callable[[Event], bool]) -> int:
        """Delete events where they wait; returns how many.

        A segment stays, with what is left of it, since who reads the oldest removes it then. What is damaged
        stays as it is until it is read.

        Args:
            over: whether one is to go.

        Raises:
            SpoolError: the disk does not give it, or take it.
        """
        self.close()
        deleted = 0
        for number in [*self._sizes]:
            path = self._path(number)
            try:
                events, damaged = _read(read_regular(path))
                kept = [event for event in events if not over(event)]
                if damaged or len(kept) == len(events):
                    continue
                data = _HEAD + (_frame(kept) if kept else b"")
                write_private(path, data, self._state)
            except FileNotFoundError:
                continue
            except OSError as e:
                if is_damage(e):
                    continue
                raise _refused(path, e) from e
            except StateError as e:
                raise SpoolError(str(e)) from e
            deleted += len(events) - len(kept)
            self.size += len(data) - self._sizes[number]
            self.events += len(kept) - self._counts[number]
            self._sizes[number], self._counts[number] = len(data), len(kept)
        return deleted

    def close(self) -> None:
        """End the segment that is written to."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _segments(self) -> Iterator[tuple[int, int, int]]:
        """Number, bytes and events of each; what is none, and in the place of one, is set aside."""
        folder = self.folder
        for each in (folder.parent, folder):
            if os.path.lexists(each):
                made_folder(each, self._state)
        if not folder.exists():
            return
        for path in [*folder.iterdir()]:
            if name := _NAME(path.name):
                try:
                    yield int(name[1]), path.stat().st_size, _count(path)
                except OSError as e:
                    if not is_damage(e):
                        raise
                    set_aside(self._state, path, unusable(path, e), "events in it are lost")

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}.spool"

    def _begin(self) -> None:
        self.close()
        made_folder(self.folder.parent, self._state)
        made_folder(self.folder, self._state)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        number = self._next
        self._fd = os.open(self._path(number), flags, 0o600)
        self._next, self._written = number + 1, 0
        self._sizes[number] = self._counts[number] = 0
        try:
            give_to_owner_of(self.folder, self._fd)
            self._write(_HEAD)
            _synchronise(self.folder)
        except OSError:
            self.close()
            self._forget(number)
            with suppress(OSError):
                self._path(number).unlink()
            raise

    def _forget(self, number: int) -> None:
        self.size -= self._sizes.pop(number)
        self.events -= self._counts.pop(number)

    def _write(self, data: bytes) -> None:
        """Write all of it, or have nothing of it there."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
            if not os.fstat(self._fd).st_nlink:
                self.close()
                raise FileNotFoundError(None, "a segment was deleted while it was written")
        except OSError:
            try:
                os.ftruncate(self._fd, self._written)
            except OSError:
                self.close()
            raise
        self._written += len(data)
        self._sizes[self._next - 1] = self._written
        self.size += len(data)


def _count(path: Path) -> int:
    """Events of a segment, by what its frames say."""
    count = 0
    with open_regular(path) as file:
        file.seek(len(_HEAD))
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            size, events, _ = _FRAME.unpack(head)
            if size > MAX_FRAME or events > size:
                break
            count += events
            file.seek(size, os.SEEK_CUR)
    return count


def _read(data: bytes) -> tuple[list[Event], int]:
    """The events of a segment, and how many bytes are damaged."""
    if not data.startswith(_HEAD):
        return [], max(len(data), 1)
    events: list[Event] = []
    at = len(_HEAD)
    while at < len(data):
        start = at + _FRAME.size
        if start > len(data):
            return events, len(data) - at
        size, _, checksum = _FRAME.unpack_from(data, at)
        if size > MAX_FRAME or start + size > len(data):
            return events, len(data) - at
        frame = data[start : start + size]
        if _checksum(frame) != checksum:
            return events, len(data) - at
        try:
            read, refused = events_of(frame)
        except EventError:
            return events, len(data) - at
        if refused:
            return events, len(data) - at
        events += read
        at = start + size
    return events, 0


def _frame(events: Sequence[Event]) -> bytes:
    data = msgspec.json.encode(events)
    return _FRAME.pack(len(data), len(events), _checksum(data)) + data


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()


def waiting(spools: Path) -> Iterator[Event]:
    """What waits in all spools in a folder, for whoever is not the one that writes them."""
    for path in sorted(spools.glob("*/*.spool")):
        with suppress(OSError):  # it has just gone to its store, or cannot be read, which is said elsewhere
            yield from _read(read_regular(path))[0]


def _synchronise(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _refused(path: Path, error: OSError) -> SpoolError:
    return SpoolError(f"{path}: {error.strerror or error}")
