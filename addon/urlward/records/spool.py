"""What a store could not take yet, on the disk until it can.

A folder a store, of segments that are written once, read in order, and deleted when the store has taken all
of it. A segment begins with a line that says what it is; then come frames: four bytes of length, four with
the number of events, eight of checksum (BLAKE2b), and the events as a JSON array. A segment is a few hundred
events: whoever is killed between writing them to the store and deleting the segment writes them again, which
no store keeps twice.

A frame that was cut short at the end of a segment has never been acknowledged. One that is damaged otherwise
ends its segment, and is counted.
"""

import os
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import msgspec

from urlward.engine.errors import UrlwardError
from urlward.lists.state import StateError, give_to_owner_of, made_folder
from urlward.records.event import VERSION, Event, EventError, events_of

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
        damaged: bytes that are no events any more.
    """

    path: Path
    events: list[Event]
    damaged: int


class Spool:
    """One store's. Not for several threads at once.

    Args:
        folder: of its own, made when needed.
        limit: bytes in all.

    Attributes:
        size: bytes in all, now.
        events: likewise.

    Raises:
        SpoolError: the folder cannot be read.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._fd = -1
        self._written = 0
        try:
            found = sorted(_segments(folder))
        except OSError as e:
            raise _refused(folder, e) from e
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
        data = msgspec.json.encode(events)
        frame = _FRAME.pack(len(data), len(events), _checksum(data)) + data
        if len(data) > MAX_FRAME or self.size + len(_HEAD) + len(frame) > self._limit:
            return False
        try:
            if self._fd < 0 or self._written >= SEGMENT:
                self._begin()
            self._write(frame)
        except StateError as e:
            raise SpoolError(str(e)) from e
        except OSError as e:
            raise _refused(self._folder, e) from e
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
        try:
            events, damaged = _read(path.read_bytes())
        except OSError as e:
            raise _refused(path, e) from e
        return Segment(path, events, damaged)

    def remove_oldest(self) -> None:
        """Delete the oldest segment, now that its events are elsewhere.

        Raises:
            SpoolError: it stays.
        """
        number = next(iter(self._sizes))
        try:
            self._path(number).unlink(missing_ok=True)
        except OSError as e:
            raise _refused(self._path(number), e) from e
        self._forget(number)

    def close(self) -> None:
        """End the segment that is written to."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}.spool"

    def _begin(self) -> None:
        self.close()
        made_folder(self._folder.parent)
        made_folder(self._folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        number = self._next
        self._fd = os.open(self._path(number), flags, 0o600)
        self._next, self._written = number + 1, 0
        self._sizes[number] = self._counts[number] = 0
        try:
            give_to_owner_of(self._folder, self._fd)
            self._write(_HEAD)
            _synchronise(self._folder)
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
        except OSError:
            try:
                os.ftruncate(self._fd, self._written)
            except OSError:
                self.close()
            raise
        self._written += len(data)
        self._sizes[self._next - 1] = self._written
        self.size += len(data)


def _segments(folder: Path) -> list[tuple[int, int, int]]:
    """Number, bytes and events of each."""
    if not folder.exists():
        return []
    found = ((_NAME(path.name), path) for path in folder.iterdir())
    return [(int(name[1]), path.stat().st_size, _count(path)) for name, path in found if name]


def _count(path: Path) -> int:
    """Events of a segment, by what its frames say."""
    count = 0
    with path.open("rb") as file:
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
        return [], len(data) if len(data) >= len(_HEAD) else 0
    events: list[Event] = []
    at = len(_HEAD)
    while (start := at + _FRAME.size) <= len(data):
        size, _, checksum = _FRAME.unpack_from(data, at)
        if size > MAX_FRAME:
            return events, len(data) - at
        if start + size > len(data):
            break
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


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()


def _synchronise(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _refused(path: Path, error: OSError) -> SpoolError:
    return SpoolError(f"{path}: {error.strerror or error}")
