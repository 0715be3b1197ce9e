"""Inspection of pictures and video elsewhere: what a worker hands over, and what it hears.

A worker decodes nothing. It offers a copy of what passes to the inspector (`urlward.files.inspector`), which
answers when it can, or not at all; nothing here blocks, and what there is no room for is passed over and
counted. A copy is in memory of its own, which the inspector is handed. A video is handed over piece by piece,
as it comes: so one that never ends is looked at as well.
"""

import asyncio
import errno
import json
import os
import resource
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from urlward.engine.entry import PDQ
from urlward.engine.loaded import LoadedList
from urlward.files.media import HEAD, MediaFormat, Splitter, format_of
from urlward.files.seen import DONE, DROPPED, FAILED, LATE
from urlward.lists import memfd

SOCKET: Final = "inspector"
"""Name of the inspector's socket in the run folder."""

LOOK: Final = 0.25
"""Seconds between two looks at whether the inspector is there, and has the lists that are in force."""

PIECE: Final = 2 << 20
"""Bytes of a video from which on it is handed over."""

SOON, LATER = 0.5, 4.0
"""Seconds after which another piece of a video is handed over, where none of it waits and where one does."""

UNENDED = 4.0
"""Seconds after which what has come of a body is looked at that is handed over at its end alone."""

MOST_AT_ONCE: Final = 32
"""Such bodies at each look."""

GRACE: Final = 5.0
"""Seconds beyond two deadlines that an answer may take."""

STEADY: Final = 30.0
"""Seconds that a connection to the inspector has to last to count as one."""

AWAY: Final = 60.0
"""Seconds without such a connection from which on that is a trouble."""

MINUTE: Final = 60.0
MINUTES, SHARE = 3, 0.1
"""In so many such spans in a row more than this share was passed over: that is a trouble."""

MOST_MESSAGE: Final = 1 << 16

CLASSIFIER: Final = "classifier"
"""What `PictureFound` has for an algorithm where a classifier says it."""

WAITS: Final = 0.2
"""Part of a picture's deadline for which the end of a body may wait for the answer."""

ROOM: Final = 2 << 20
"""Bytes of room for each picture that may wait, until it is answered: so many in all, whatever each has."""

FILES_SHARE: Final = 8
"""Part of the files that a process may have open which copies may be: connections need theirs, and a response
over HTTP/2 has none of its own."""

MOST_LACKED: Final = 64 << 10
"""Bytes of what segments of a stream lack; it is some hundred to some thousand of them."""


class PictureFound(NamedTuple):
    """Match of a picture, or of a frame, with a listed digest; or what a classifier makes of it.

    Attributes:
        list: name of the list; empty for the classifier.
        row: of the digest in it (`urlward.engine.matcher.Matcher.file_verdict`).
        distance: bits in which the digests differ.
        algorithm: ``pdq``, or ``classifier``.
        frame: seconds from the beginning of a video; 0 in a picture.
        score: the classifier's, 0 to 1.
    """

    list: str
    row: int
    distance: int
    algorithm: str = PDQ
    frame: float = 0.0
    score: float = 0.0


type Hear = Callable[[PictureFound | None], None]
"""Is told of each match, in the event loop; with None once, when no more will be said. After `BodyCopy.drop`
of nothing."""


class BodyCopy:
    """Copy of one body, on its way to the inspector. No method raises or waits.

    Args:
        inspector: where it goes.
        found: hears of what is found.
        place: keyed digest of where it is from; empty where nobody says.

    Attributes:
        waited: is called once where the answer takes so long after the end that nobody should wait for it.
        due: when what has come is looked at, where it has not ended by then.
    """

    __slots__ = (
        "_asked", "_began", "_ended", "_fd", "_found", "_handed", "_has_frames", "_head", "_inspector",
        "_kept", "_media", "_place", "_seen", "_size", "_splitter", "due", "waited",
    )  # fmt: skip

    def __init__(self, inspector: "Inspector", found: Hear, place: str) -> None:
        self.waited: Callable[[], None] = lambda: None
        self._inspector = inspector
        self._found: Hear | None = found
        self._place = place
        self._head = b""
        self._media: MediaFormat | None = None
        self._splitter: Splitter | None = None
        """Of a video that is handed over in pieces."""
        self._kept = 0
        """Bytes that it keeps, which take of the room for copies."""
        self._fd = -1
        self._size = 0
        self._seen = 0
        """Bytes that were looked at before its end."""
        self._began = time.monotonic()
        self.due = self._began + UNENDED
        self._handed: float | None = None
        """When a piece was last handed over."""
        self._has_frames = False
        """Whether the piece could have been before now."""
        self._asked = 0
        """Pieces that are to be answered."""
        self._ended = False

    def write(self, content: bytes) -> None:
        """Add the content that follows, its codings undone."""
        try:
            if self._media is None and not self._ended:
                self._head += content
                if len(self._head) < HEAD:
                    return
                content = self._tell()
            self._take(content)
        except OSError:
            self._give_up(DROPPED)

    def end(self) -> None:
        """That was all."""
        try:
            if self._media is None and not self._ended:
                self._take(self._tell())
            if self._splitter is not None:
                self._add(self._splitter.rest())
            self._end()
            if self._asked:
                self._inspector.awaited(self)
        except OSError:
            self._give_up(DROPPED)

    def look(self, now: float) -> None:
        """Have what has come of a picture, or of a video that comes in one piece, looked at: its end may
        never come, and a browser does not wait for that. The next time is after twice as long."""
        self.due = now + (now - self._began)
        if self._handed is None and self._seen < self._size and self._inspector.has_room(self._size):
            with suppress(OSError), memfd.readable(self._fd) as file:
                self._ask(file.fileno())
                self._seen = self._size

    def drop(self) -> None:
        """It is not to be looked at any more."""
        self._found = None
        self._leave()

    def hurry(self) -> bool:
        """Have nobody wait for the answer any longer; returns whether there was none yet."""
        if self._found is None or not self._asked:
            return False
        self.waited()
        return True

    def hear(self, found: PictureFound | None) -> None:
        """Take an answer; None is the last one on a piece."""
        if found is None:
            self._asked -= 1
        if self._found is not None and (found is not None or (self._ended and not self._asked)):
            self._found(found)

    def _tell(self) -> bytes:
        """Tell the format by the first bytes, and give them back."""
        head, self._head = self._head, b""
        self._media = format_of(head)
        if self._media is None:
            self._give_up(FAILED)
        elif self._media.is_video:
            self._splitter = Splitter(self._media)
        return head

    def _take(self, content: bytes) -> None:
        if self._splitter is None:
            self._add(content)
            return
        first, *others = self._splitter.take(content)
        more = self._splitter.kept - self._kept
        if more and not self._inspector.reserve(more):
            self._give_up(DROPPED)
            return
        self._kept += more
        self._add(first)
        for part in others:
            self._has_frames = self._size > 0
            if self._has_frames and self._is_due():
                self._hand_over()
            self._add(part)

    def _is_due(self) -> bool:
        """Whether the piece that has come is to be handed over: the first one at once."""
        if self._handed is None or self._size >= PIECE:
            return True
        return time.monotonic() - self._handed >= (LATER if self._asked else SOON)

    def _add(self, content: bytes) -> None:
        if self._ended or not content:
            return
        if self._fd < 0:
            self._fd = self._inspector.new_file(self)
            if self._splitter is not None and self._handed is not None:
                self._write(self._splitter.resumed(content))
        self._write(content)

    def _write(self, content: bytes) -> None:
        assert self._media is not None
        if self._ended:
            return
        if self._size + len(content) > self._inspector.max_size:
            if self._media.is_video:
                self._end()  # what has come of it
            else:
                self._give_up(FAILED)
        elif not self._inspector.reserve(len(content)):
            self._give_up(DROPPED)
        else:
            memfd.write(self._fd, content)
            self._size += len(content)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        splitter = self._splitter
        if self._place and 0 < self._size <= MOST_LACKED and splitter is not None and splitter.is_beginning:
            memfd.seal(self._fd)
            self._inspector.begins(self._place, self._fd)
        elif self._size and (splitter is None or splitter.shows or self._has_frames or self._handed is None):
            self._hand_over()
        self._leave()
        if not self._asked:
            self._over()

    def _hand_over(self) -> None:
        """Hand over the piece that there is."""
        self._handed, self._has_frames = time.monotonic(), False
        memfd.seal(self._fd)  # who decodes it, and may be taken over, is not the only one who reads it
        self._ask(self._fd)
        self._close()

    def _ask(self, fd: int) -> None:
        assert self._media is not None
        lacks = self._splitter is not None and self._splitter.lacks
        place = self._place if lacks else ""
        self._asked += self._inspector.ask(self, self._media, fd, self._size, place)

    def _give_up(self, how: str) -> None:
        if self._ended:
            return
        self._inspector.count(how)
        self._leave()
        if not self._asked:
            self._over()

    def _over(self) -> None:
        """Tell that no more will be said, to whoever is not in the middle of `write`."""
        asyncio.get_running_loop().call_soon(self._tell_end)

    def _tell_end(self) -> None:
        if self._found is not None:
            self._found(None)

    def _leave(self) -> None:
        """Take no more, and keep nothing."""
        self._ended = True
        self._close()
        self._inspector.reserve(-self._kept)
        self._kept, self._splitter = 0, None

    def _close(self) -> None:
        if self._fd >= 0:
            self._inspector.close_file(self._fd)
            self._inspector.reserve(-self._size)
            self._fd, self._size = -1, 0


class InspectionHealth:
    """Health of the inspection, as far as a worker knows: is what it hands over looked at?

    Args:
        tell: is told why not, where that has changed; of nothing where it is.
        now: on a clock that does not go back.

    Attributes:
        said: what the inspector has last said of itself.
    """

    def __init__(self, tell: Callable[[str], None], now: float) -> None:
        self.said = ""
        self._tell = tell
        self._told = ""
        self._served = self._since = now
        self._counts = {True: 0, False: 0}
        """Since then, of what was looked at, and of what was not."""
        self._bad = 0

    def count(self, how: str) -> None:
        """Count what has become of something."""
        self._counts[how not in (DROPPED, LATE)] += 1

    def look(self, now: float, connected: float | None) -> None:
        """Tell of a change.

        Args:
            now: on the same clock.
            connected: when the connection to the inspector has begun; None where there is none.
        """
        if connected is not None and now - connected >= STEADY:
            self._served = now
        if now - self._since >= MINUTE:
            missed = self._counts[False]
            self._bad = self._bad + 1 if missed > SHARE * (missed + self._counts[True]) else 0
            self._since, self._counts = now, {True: 0, False: 0}
        why = ""
        if now - self._served >= AWAY:
            why = "pictures are not looked at: no inspector serves"
        elif self.said:
            why = self.said
        elif self._bad >= MINUTES:
            why = "many pictures are passed over: more come than can be looked at in time (files.processes)"
        if why != self._told:
            self._told = why
            self._tell(why)


class _Asked(NamedTuple):
    """Question that is to be answered.

    Attributes:
        copy: whose it is.
        until: when that is too late, on a clock that does not go back.
        size: bytes of the content, which takes of the room for copies until then.
    """

    copy: BodyCopy
    until: float
    size: int


class Inspector:
    """Worker's connection to the inspector process.

    Args:
        folder: the run folder.
        lists: gives those in force.
        most: pictures that may wait for the inspector.
        max_size: bytes of a picture, or of a piece of video.
        deadline: seconds for one.
        count: is told what becomes of each, one of `urlward.records.metrics.INSPECTED`.
        trouble: is told why not all is looked at, where that has changed; of nothing where it is.

    Attributes:
        is_behind: whether an answer has taken too long to be waited for, and none has come in time since.
    """

    def __init__(
        self,
        folder: Path,
        lists: Callable[[], Sequence[LoadedList]],
        *,
        most: int,
        max_size: int,
        deadline: float,
        count: Callable[[str], None] = lambda _: None,
        trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.max_size = max_size
        self._count = count
        self._health = InspectionHealth(trouble, time.monotonic())
        self.is_behind = False
        self._path = folder / SOCKET
        self._lists = lists
        self._told: list[tuple[str, str, str]] = []
        self._patience = 2 * deadline + GRACE
        self._waits = WAITS * deadline
        self._awaited: deque[tuple[float, BodyCopy]] = deque()
        """Copies whose end has come, and until when somebody may wait for the answer."""
        self._room = most * ROOM + max_size
        self._files: dict[int, BodyCopy] = {}
        """Files that are open for copies, with whose they are."""
        self._channel: socket.socket | None = None
        self._connected: float | None = None
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self._number = 0

    def offer(self, media: str, size: int | None, found: Hear, place: str = "") -> BodyCopy | None:
        """Begin a copy.

        Args:
            media: ``image`` or ``video``, by the body's first bytes.
            size: bytes of content that it is said to have; None where nothing is said.
            found: hears of what is found, also while more is coming.
            place: keyed digest of where it is from: segments of a stream lack what others there have.

        Returns:
            None where there is no room, or the inspector is not there, which is counted.
        """
        if self._channel is None or self._room < min(size or 1, PIECE if media == "video" else self.max_size):
            self.count(DROPPED)
            return None
        return BodyCopy(self, found, place)

    async def run(self) -> None:
        """Keep the connection to the inspector, until cancelled."""
        while True:
            if self._channel is None:
                self._connect()
            if self._channel is not None:
                self._tell_lists()
            now = time.monotonic()
            while self._awaited and self._awaited[0][0] <= now:
                self.is_behind |= self._awaited.popleft()[1].hurry()
            due = (copy for copy in self._files.values() if copy.due <= now)
            for copy in [*islice(due, MOST_AT_ONCE)]:
                copy.look(now)
            while self._asked and next(iter(self._asked.values())).until <= now:
                self._answered(next(iter(self._asked)), LATE)
            self._health.look(now, self._connected)
            await asyncio.sleep(LOOK)

    def close(self) -> None:
        """End the connection to the inspector."""
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel, self._connected, self._told, self.is_behind = None, None, [], False
        for number in [*self._asked]:
            self._answered(number, DROPPED)

    def new_file(self, copy: BodyCopy) -> int:
        """Open a file for a copy.

        Raises:
            OSError: there are too many.
        """
        if FILES_SHARE * len(self._files) >= resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        fd = memfd.new()
        self._files[fd] = copy
        return fd

    def close_file(self, fd: int) -> None:
        """Close a file of `new_file`."""
        os.close(fd)
        del self._files[fd]

    def count(self, how: str) -> None:
        """Count what has become of something, one of `urlward.records.metrics.INSPECTED`."""
        self._count(how)
        self._health.count(how)

    def has_room(self, size: int) -> bool:
        """Whether there is room for so many bytes."""
        return size <= self._room

    def reserve(self, size: int) -> bool:
        """Take bytes of the room for copies, or give them back where they are below 0; False where there is
        too little."""
        if not self.has_room(size):
            return False
        self._room -= size
        return True

    def ask(self, copy: BodyCopy, media: MediaFormat, fd: int, size: int, place: str) -> bool:
        """Ask what a piece looks like; False where that cannot be, which is counted."""
        self._number += 1
        said = {"look": self._number, "format": media} | ({"place": place} if place else {})
        if not self._send(said, [fd]):
            self.count(DROPPED)
            return False
        self._asked[self._number] = _Asked(copy, time.monotonic() + self._patience, size)
        self._room -= size
        return True

    def awaited(self, copy: BodyCopy) -> None:
        """Somebody may wait for the answer on a copy whose end has come."""
        self._awaited.append((time.monotonic() + self._waits, copy))

    def begins(self, place: str, fd: int) -> None:
        """Say what segments of a place lack."""
        self._send({"begins": place}, [fd])

    def _connect(self) -> None:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.setblocking(False)
        try:
            channel.connect(str(self._path))
        except OSError:  # it is not there yet, or not any more
            channel.close()
            return
        self._channel, self._connected = channel, time.monotonic()
        asyncio.get_running_loop().add_reader(channel, self._hear)

    def _tell_lists(self) -> None:
        lists = [
            (each.name, each.artifact.header.checksum.hex(), each.key.secret.hex())
            for each in self._lists()
            if PDQ in each.artifact.meta.get("files", {}).get("algorithms", {})
        ]
        if lists != self._told and self._send_lists(lists):
            self._told = lists

    def _send_lists(self, lists: Sequence[tuple[str, str, str]]) -> bool:
        """Say which lists are in force, however many there are; False where that has to be tried again."""
        try:
            fd = memfd.new()
        except OSError:
            return False
        try:
            memfd.write(fd, json.dumps(lists).encode())
            memfd.seal(fd)
            return self._send({"lists": len(lists)}, [fd])
        except OSError:
            return False
        finally:
            os.close(fd)

    def _send(self, said: Mapping[str, object], fds: Sequence[int] = ()) -> bool:
        """Say something; False where the inspector is not there, or has no room."""
        if self._channel is None:
            return False
        try:
            socket.send_fds(self._channel, [json.dumps(said).encode()], fds)
        except OSError:
            return False
        return True

    def _hear(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(MOST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        said = json.loads(data)
        if "done" in said:
            self._answered(said["done"], said["how"])
        elif "trouble" in said:
            self._health.said = said["trouble"]
        elif "found" in said and (asked := self._asked.get(said["found"])) is not None:
            asked.copy.hear(_found_in(said))

    def _answered(self, number: int, how: str) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            self._room += asked.size
            self.count(how)
            if how in (DONE, FAILED) and time.monotonic() - (asked.until - self._patience) <= self._waits:
                self.is_behind = False
            asked.copy.hear(None)


def _found_in(said: Mapping[str, Any]) -> PictureFound:
    if "score" in said:
        return PictureFound("", 0, 0, CLASSIFIER, said["at"], said["score"])
    return PictureFound(said["list"], said["row"], said["distance"], PDQ, said["at"])
