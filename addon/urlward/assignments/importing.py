"""Import of files of assignments into the store: as streams, resumed where reading ended the last time; and
following a file that is being written, as ``tail -F`` does.

Reading positions of files are recognised by content, since logs are renamed, copied and cut.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from urlward.assignments.formats import FORMATS
from urlward.assignments.interval import FOREVER, AssignmentError, Sighting, SightingKind, Source
from urlward.assignments.merging import Merger
from urlward.assignments.parsers import Parsed, Parser, ReadOptions
from urlward.assignments.store import AssignmentStore, ReadingPosition
from urlward.encoding import BOM, other_encoding, without_bom
from urlward.progress import Progress, silent
from urlward.regular import regular_fd

_BEGIN, _BEFORE = 4096, 1024
_WHOLE = 1 << 20
"""Up to so many bytes all of it is looked at, as exports are changed anywhere, and logs at their ends."""


def position_in(fd: int, known: Iterable[ReadingPosition]) -> ReadingPosition | None:
    """Find the position to resume from; None for a file that is new, or is not what it was.

    Args:
        fd: the file.
        known: positions in files of its source.

    Raises:
        OSError: unreadable.
    """
    size = os.fstat(fd).st_size
    for position in known:
        if (
            position.offset <= size
            and position.begin == _digest(os.pread(fd, position.begin_size, 0))
            # What was noted by an earlier urlward is of the last bytes alone.
            and position.before in (_before(fd, position.offset), _last(fd, position.offset))
        ):
            return position
    return None


def position_at(fd: int, path: str, offset: int, previous: ReadingPosition | None) -> ReadingPosition:
    """The position to store for a file that is read up to an offset."""
    begin_size = previous.begin_size if previous else min(_BEGIN, offset)
    begin = previous.begin if previous else _digest(os.pread(fd, begin_size, 0))
    return ReadingPosition(path, begin, begin_size, offset, _before(fd, offset), os.fstat(fd).st_size)


def _before(fd: int, offset: int) -> str:
    return _digest(os.pread(fd, offset, 0)) if offset <= _WHOLE else _last(fd, offset)


def _last(fd: int, offset: int) -> str:
    start = max(0, offset - _BEFORE)
    return _digest(os.pread(fd, offset - start, start))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


_BLOCK = 4 << 20
_LONGEST_HEADER = 1 << 16
RENEW_AFTER = 3_600_000
"""Milliseconds after which it is noted anew that a source still has what has no end."""
FAR = 10 * 366 * 86_400_000
"""Milliseconds from now on after which an end is none: exports write 2099-12-31 for that, and a server may
give leases for a century."""
KEPT_FAULTS = 5
"""Rows that were not understood, and lines of something else, of which it is said where they are."""


def without_far_ends(sightings: Iterable[Sighting], now: int) -> Iterator[Sighting]:
    """Sightings, those whose end is far (`FAR`) as without one: else they would be kept until then and
    longer, whether their source still has them or not.

    Args:
        sightings: in order.
        now: in ms.
    """
    limit = now + FAR
    for sighting in sightings:
        if not limit < sighting[5] < FOREVER or sighting[9] not in (SightingKind.HELD, SightingKind.WHOLE):
            yield sighting
            continue
        place, network, first, last, start, _, seen, subscriber, session, _ = sighting
        held = (place, network, first, last, start, FOREVER, max(seen, start), subscriber, session)
        yield (*held, int(SightingKind.HELD))


@dataclass(slots=True)
class Imported:
    """Result of reading a file.

    Attributes:
        rows: that were read.
        skipped: of them, not understood, or an end whose beginning is not known.
        faulty: of those, not understood.
        faults: the first of them, each with the number of its line from 1 and why.
        other: lines of no row, and of nothing else that the format has.
        others: numbers of the first of them.
        pending: bytes at the end, of a record that is not all there.
        resumed: the offset in bytes that reading went on from.
        offset: up to where it is read.
        refused: why nothing of it was taken; empty where it was.
    """

    rows: int = 0
    skipped: int = 0
    faulty: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    other: int = 0
    others: list[int] = field(default_factory=list)
    pending: int = 0
    resumed: int = 0
    offset: int = 0
    refused: str = ""


type Judge = Callable[[Imported], str]
"""Why what was read is not to be taken, or nothing."""


class FileReader:
    """Import of one open file into the store, a block a transaction; if killed, it is resumed where it
    ended."""

    def __init__(
        self,
        store: AssignmentStore,
        source: Source,
        path: Path,
        options: ReadOptions,
        clock: Callable[[], float],
    ) -> None:
        """Open the file, and find out how far it was read.

        Args:
            store: where to.
            source: what the file is of.
            path: of the file.
            options: how to read it.
            clock: seconds since 1970-01-01 UTC.

        Raises:
            AssignmentError: unreadable, or not of the source's format.
        """
        self._store, self._source, self._path, self._clock = store, source, path, clock
        self._renewed = 0
        self._parser: Parser = FORMATS[source.format](options)
        self._merger = Merger(store, source.id)
        with _told(path):
            self.fd = regular_fd(path)
        self.result = Imported()
        self._position: ReadingPosition | None = None
        self._started = False
        # While a block is written, the next is read.
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def close(self) -> None:
        """Close the file."""
        self._writer.shutdown()
        os.close(self.fd)

    @property
    def is_cut(self) -> bool:
        """Whether the file has become shorter than what was read of it."""
        return os.fstat(self.fd).st_size < self.result.offset

    @property
    def is_replaced(self) -> bool:
        """Whether another file has the path by now."""
        try:
            now, mine = self._path.stat(), os.fstat(self.fd)
        except FileNotFoundError:
            return False
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino)

    def read(self, progress: Progress = silent) -> Imported:
        """Read what there is and is not read yet, but a last line without its end: half a name may be
        another's, and half a range of ports another range.

        Args:
            progress: told the share that is read.

        Raises:
            AssignmentError: unreadable, not of the format, or the store refuses.
        """
        with _told(self._path):
            if self._start():
                for parsed in self._parsed(self.result, progress):
                    self._take(parsed)
                self._wait()
                self._renew()
        return self.result

    def look(self) -> Imported:
        """Parse what `read` would read, without storing it.

        Raises:
            AssignmentError: unreadable, or not of the format.
        """
        with _told(self._path):
            if not self._start():
                return self.result
            looked = replace(self.result, faults=[], others=[])
            for parsed in self._parsed(looked, silent):
                looked.rows += parsed.rows
                looked.skipped += parsed.skipped
        return looked

    def _parsed(self, result: Imported, progress: Progress) -> Iterator[Parsed]:
        """Parse from the offset of a result on, a block at a time.

        The result's offset goes on, and what was not understood is added to it.
        """
        size = os.fstat(self.fd).st_size
        block = _BLOCK
        while data := os.pread(self.fd, block, result.offset):
            at_end = result.offset + len(data) >= size
            parsed, taken = self._lines_in(data)
            # A record may be longer than a block.
            block = _BLOCK if taken else block * 2
            if taken:
                self._note(result, parsed)
                result.offset += taken
                yield parsed
            progress(self._path.name, result.offset / max(size, 1))
            if not taken and at_end:
                break
        result.pending = max(size - result.offset, 0)

    def _start(self) -> bool:
        """Read the header where there is one; False where there is not all of it yet."""
        if self._started:
            return True
        begins = os.pread(self.fd, len(BOM), 0)
        if other := other_encoding(begins):
            raise AssignmentError(other)
        header = len(begins) - len(without_bom(begins))
        if self._parser.has_header:
            line, end, _ = os.pread(self.fd, _LONGEST_HEADER, 0).partition(b"\n")
            if not end and b"\r" not in line[:-1]:  # else it has ends of another kind, which are no CSV's
                self.result.pending = len(line)
                return False
            self._parser.begin(without_bom(line).decode(errors="backslashreplace").rstrip("\r"))
            header = len(line) + len(end)
        self._position = position_in(self.fd, self._store.positions(self._source.id))
        self._renewed = self._position.read if self._position else 0
        self.result.resumed = self._position.offset if self._position else 0
        self.result.offset = max(self.result.resumed, header)
        self._started = True
        return True

    def _lines_in(self, data: bytes) -> tuple[Parsed, int]:
        """Parse whole lines; returns the result and the number of bytes."""
        data = data[: data.rfind(b"\n") + 1]
        lines = data.decode(errors="backslashreplace").replace("\r\n", "\n").split("\n")
        if not lines[-1]:
            lines.pop()
        parsed = self._parser.parse(lines)
        taken = len(data)
        if parsed.pending:
            ends = data.split(b"\n")[: len(lines)]
            taken -= sum(len(line) + 1 for line in ends[-parsed.pending :])
        return parsed, taken

    def _take(self, parsed: Parsed) -> None:
        """Store a block's sightings, and how far the file is read with it."""
        if not (parsed.rows or self.result.rows or self.result.resumed):
            # Nothing of the format yet: whoever reads the file again is to be told so again.
            return
        self._merger.take([*without_far_ends(parsed.sightings, int(self._clock() * 1000))])
        changes = self._merger.changes
        changes.rows += parsed.rows
        changes.skipped += parsed.skipped
        anew = self._position is None
        self._position = position_at(self.fd, self._source.path, self.result.offset, self._position)
        changes.position, changes.anew = self._position, anew
        self.result.rows += changes.rows
        self.result.skipped += changes.skipped
        rows = self._merger.finished()
        self._wait()
        self._renewed = int(self._clock() * 1000)
        self._writing = self._writer.submit(self._store.write, self._source, rows, self._renewed)

    def _renew(self) -> None:
        """Renew the file's assignments without an end: they count from now."""
        now = int(self._clock() * 1000)
        # A clock that was set back does not put it off.
        if self._position is not None and not 0 <= now - self._renewed < RENEW_AFTER:
            self._store.renew(self._source, self._position, now)
            self._renewed = now

    def _note(self, result: Imported, parsed: Parsed) -> None:
        """Record the faults and the other lines."""
        faults = parsed.faults[: KEPT_FAULTS - len(result.faults)]
        others = parsed.other[: KEPT_FAULTS - len(result.others)]
        before = self._lines_before(result.offset) + 1 if faults or others else 0
        result.faults += [(before + fault.line, fault.reason) for fault in faults]
        result.others += [before + line for line in others]
        result.faulty += parsed.skipped
        result.other += len(parsed.other)

    def _lines_before(self, end: int) -> int:
        """Lines of the file before an offset."""
        return sum(os.pread(self.fd, min(_BLOCK, end - at), at).count(b"\n") for at in range(0, end, _BLOCK))

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def import_file(
    store: AssignmentStore,
    source: Source,
    path: Path,
    options: ReadOptions,
    clock: Callable[[], float],
    progress: Progress = silent,
    judge: Judge = lambda _: "",
) -> Imported:
    """Read a file that is not written any more, or what has been written to it since the last time.

    Args:
        store: where to.
        source: what it is of.
        path: of the file.
        options: how to read it.
        clock: seconds since 1970-01-01 UTC.
        progress: told the share that is read.
        judge: of all of it, before any of it is taken.

    Raises:
        AssignmentError: unreadable, not of the source's format, or the store refuses.
    """
    reader = FileReader(store, source, path, options, clock)
    try:
        looked = reader.look()
        looked.refused = judge(looked)
        return looked if looked.refused else reader.read(progress)
    finally:
        reader.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise AssignmentError(f"{path}: {e.strerror or e}") from e
    except AssignmentError as e:
        raise AssignmentError(f"{path}: {e}") from e


logger = logging.getLogger("urlward.records")


def follow(
    store: AssignmentStore,
    source: Source,
    path: Path,
    options: ReadOptions,
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[], bool],
) -> Iterator[Imported]:
    """Read what is written to a file, also when it is renamed and begun anew, cut, or not there for a while.

    Args:
        store: where to.
        source: what the file is of.
        path: of the file.
        options: how to read it.
        clock: seconds since 1970-01-01 UTC.
        pause: waits for a while; False to end.

    Yields:
        What has been read of the file that has the path, after each look at it.

    Raises:
        AssignmentError: not of the source's format, or the store refuses.
    """
    reader: FileReader | None = None
    try:
        while True:
            if reader is None and path.exists():
                reader = FileReader(store, source, path, options, clock)
            if reader is not None:
                # Asked before reading: what was written to the old file till then is read too.
                replaced = reader.is_replaced
                yield reader.read()
                if replaced or reader.is_cut:
                    logger.info(
                        "%s: %s, read from its beginning", path, "another file" if replaced else "cut"
                    )
                    reader.close()
                    reader = None
                    continue
            if not pause():
                return
    finally:
        if reader is not None:
            reader.close()
