"""Import of files of assignments into the store: as streams, resumed where reading ended the last time; and
following a file that is being written, as ``tail -F`` does. What they tell is merged by
`urlward.assignments.merging`.

Reading positions of files are recognised by content, since logs are renamed, copied and cut.

A log that was rotated before it was read to its end leaves a gap (`Gap`) as the next one is read. Rows are as
what was read says, and `urlward.assignments.who` goes by the gaps that are open.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from urlward.assignments.formats import FORMATS, LEASES, LOGS, Fault, Parsed, Parser, ReadOptions
from urlward.assignments.interval import (
    FOREVER,
    SECOND,
    AssignmentError,
    Ending,
    Sighting,
    SightingKind,
    SightingSource,
)
from urlward.assignments.merging import LATE, Merger
from urlward.assignments.store import (
    ANEW,
    NOT_YET,
    AssignmentStore,
    Changes,
    Gap,
    ReadingPosition,
    SourceChanged,
)
from urlward.progress import Progress, silent
from urlward.regular import BOM, other_encoding, regular_fd, without_bom
from urlward.units import DAY_MS

_BEGIN, _BEFORE = 4096, 1024
_WHOLE = 1 << 20
"""Up to so many bytes all of a log is looked at; of others always, as they are changed anywhere."""


def position_in(fd: int, known: Iterable[ReadingPosition], format_: str) -> ReadingPosition | None:
    """Find the position to resume from; None for a file that is new, or is not what it was.

    Args:
        fd: the file.
        known: positions in files of its source.
        format_: of the source.

    Raises:
        OSError: unreadable.
    """
    size = os.fstat(fd).st_size
    for position in known:
        if (
            position.offset <= size
            and position.begin == _digest(os.pread(fd, position.begin_size, 0))
            and position.before in _befores(fd, position.offset, format_)
        ):
            return position
    return None


def position_at(
    fd: int, path: str, offset: int, previous: ReadingPosition | None, before: str
) -> ReadingPosition:
    """The position to store for a file that is read up to an offset, with the digest of what is before."""
    begin_size = previous.begin_size if previous else min(_BEGIN, offset)
    begin = previous.begin if previous else _digest(os.pread(fd, begin_size, 0))
    now = ReadingPosition(path, begin, begin_size, offset, before, os.fstat(fd).st_size)
    return replace(now, id=previous.id) if previous else now


def _befores(fd: int, offset: int, format_: str) -> Iterator[str]:
    """Digests that tell that a file is what it was up to an offset."""
    yield _Before(fd, format_).at(offset)
    if format_ != "csv":  # what was noted by an earlier urlward
        yield _last(fd, offset)


class _Before:
    """Digest of a file up to where it is read: all of it, but of long logs, which are only added to."""

    def __init__(self, fd: int, format_: str) -> None:
        self._fd, self._is_log = fd, format_ in LOGS
        self._whole, self._size = blake2b(digest_size=16), 0

    def at(self, offset: int) -> str:
        """The digest at an offset, which is none before the last."""
        if self._is_log and offset > _WHOLE:
            return _last(self._fd, offset)
        for at in range(self._size, offset, _BLOCK):
            self._whole.update(os.pread(self._fd, min(_BLOCK, offset - at), at))
        self._size = offset
        return self._whole.hexdigest()


def _last(fd: int, offset: int) -> str:
    start = max(0, offset - _BEFORE)
    return _digest(os.pread(fd, offset - start, start))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


_BLOCK = 4 << 20
_LONGEST_HEADER = 1 << 16
_COMPRESSED = (b"\x1f\x8b", b"\xfd7z", b"\x28\xb5\x2f")
_LONGEST = 1 << 24
"""Bytes that no record has: of more without an end nothing is one, such as of the hole that is left where a
log is cut while its writer goes on behind it."""
_NUMBERED = re.compile(r".+\.\d{1,4}", re.DOTALL)
"""Name of a log that others have followed."""
_PACKED = (".gz", ".xz", ".zst", ".bz2", ".Z")
_ADDED = re.compile(
    rf"(.+?)(\.\d{{1,4}}|\.completed|{'|'.join(map(re.escape, _PACKED))}"
    r"|[.\-_](\d{6,}|\d{4}-\d\d)[\d.\-_T:Z]*)",
    re.DOTALL,
)
"""Name of a log, and what is added to that as it is rotated, or each day."""
KEA = "kea"
_LEFT = (".2", ".1", ".completed")
"""What Kea's cleanup adds to the name of a file of leases, in the order in which they tell: what was cleaned
before, what is being cleaned, and what comes of both (Administrator Reference Manual, section 4.1)."""
_CLEANED = (".2", ".completed")
"""Those of them that are written once."""
_TURN = 0.15
"""Seconds in which others have their turn: who waits for SQLite looks each tenth of one."""
_RENEW_AFTER = 60_000
"""Milliseconds after which it is noted anew that a source still has what has no end."""
FAR = 10 * 366 * DAY_MS
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
            if sighting[9] != SightingKind.PERHAPS or sighting[5] <= limit:
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
        last: of `radacct` the greatest number of a row that was read, else 0.
        refused: why nothing of it was taken; empty where it was.
        left: when the log before this one was read last, in ms, where some of it, or of one between, may not
            be; else 0.
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
    last: int = 0
    refused: str = ""
    left: int = 0


def _copied(result: Imported) -> Imported:
    return replace(result, faults=[*result.faults], others=[*result.others])


type Judge = Callable[[Imported], str]
"""Why what was read is not to be taken, or nothing."""


class FileReader:
    """Import of one open file into the store, a block a transaction; if killed, it is resumed where it
    ended."""

    def __init__(
        self,
        store: AssignmentStore,
        source: SightingSource,
        path: Path,
        options: ReadOptions,
        clock: Callable[[], float],
        *,
        follows: bool = False,
        begins: bool = True,
        begun: float | None = None,
    ) -> None:
        """Open the file, and find out how far it was read.

        Args:
            store: where to.
            source: what the file is of.
            path: of the file.
            options: how to read it.
            clock: seconds since 1970-01-01 UTC.
            follows: whether what is written to it is read at once.
            begins: whether nobody has read the one before to its end; who follows has, but another may have
                been rotated away between both.
            begun: when the import began that this is part of, as the clock says; now where it is not given.

        Raises:
            AssignmentError: unreadable, or not of the source's format.
        """
        self._store, self._source, self._path, self._clock = store, source, path, clock
        self._options, self._follows, self._begins = options, follows, begins
        with _told(path):
            self.fd = regular_fd(path)
        self._opened = int(clock() * 1000)
        self.begun = clock() if begun is None else begun
        # While a block is written, the next is read.
        self._writer = ThreadPoolExecutor(1)
        self._writing: tuple[Future[None], Imported] | None = None
        self.begin_again()

    def begin_again(self, written: Imported | None = None) -> None:
        """Forget what was read, so that the next `read` goes on from where the store has it.

        Args:
            written: result so far, which is not forgotten.
        """
        with suppress(AssignmentError, SourceChanged):  # said before
            self._wait()
        self._parser: Parser = FORMATS[self._source.format](self._options)
        self._merger = Merger(self._store, self._source.id, self._source.format)
        self._written = written or Imported()
        self.result = _copied(self._written)
        self._position: ReadingPosition | None = None
        self._known: list[ReadingPosition] = []
        self._is_alone = True
        """Whether no two of them have one name in two folders, as logs of several servers have."""
        self._span = 0, 0
        """From when to when what is read of it tells, in ms, or 0."""
        self._has_begun = False
        self._gaps: list[Gap] = []
        """Those of the source that are open."""
        self._followed_at = 0
        """When the same log went on by what was read before, in ms, where nothing of this was; else 0."""
        self._asked = self._renewed = self._kept_from = 0
        self._started = False
        self._before = _Before(self.fd, self._source.format)
        self._end = ""
        """Digest of the last bytes before the position."""
        self._written_at = 0

    def close(self) -> None:
        """Close the file."""
        self._writer.shutdown()
        os.close(self.fd)

    @property
    def is_cut(self) -> bool:
        """Whether the file has become shorter than what was read of it, or has not that any more."""
        now, position = os.fstat(self.fd), self._position
        if now.st_size < self.result.offset:
            return True
        if position is None or now.st_mtime_ns == self._written_at:
            return False
        self._written_at = now.st_mtime_ns
        if self._source.format == "csv":
            return position.before != _Before(self.fd, "csv").at(position.offset)
        # What is only added to is not looked at anew as a whole with each row.
        return self._end != _last(self.fd, position.offset)

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
            while True:
                with suppress(SourceChanged):
                    if self._start():
                        for parsed in self._parsed(self.result, progress):
                            self._take(parsed)
                        self._wait()
                        self._renew()
                        self._note_behind()
                        self._close_gaps()
                    return self.result
                # Another reader of the source has ended, or taken over, what this one took for held, and may
                # write again each second.
                self.begin_again(self._written)
                while self._take_alone(progress):
                    time.sleep(_TURN)

    def _take_alone(self, progress: Progress) -> bool:
        """Store a block while nobody else writes to the source; False where there is none."""
        with self._store.alone(self._source.id):
            if self._has_changed():
                self.begin_again(self._written)
            if not self._start():
                return False
            for parsed in self._parsed(self.result, progress):
                self._take(parsed)
                self._wait()
                return True
            return False

    def _has_changed(self) -> bool:
        """Whether another reader has written to the source."""
        return self._store.rows(self._source.id)[0] != self._merger.rows

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

    def sightings(self) -> Iterator[Sighting]:
        """Iterate over what `look` parses.

        Raises:
            AssignmentError: unreadable, or not of the format.
        """
        with _told(self._path):
            if self._start():
                for parsed in self._parsed(self.result, silent):
                    yield from parsed.sightings

    def _parsed(self, result: Imported, progress: Progress) -> Iterator[Parsed]:
        """Parse from the offset of a result on, a block at a time.

        The result's offset goes on, and what was not understood is added to it.
        """
        size = os.fstat(self.fd).st_size
        block = _BLOCK
        while True:
            # What is written from now on need not be among what is read.
            self._asked = int(self._clock() * 1000)
            if not (data := os.pread(self.fd, block, result.offset)):
                break
            at_end = result.offset + len(data) >= size
            parsed, taken = self._lines_in(data)
            if not taken and not at_end and block >= _LONGEST:
                parsed = Parsed(rows=1, faults=[Fault(0, "longer than any row is")])
                taken = data.rfind(b"\n") + 1 or self._line_end(result.offset + len(data)) - result.offset
            # A record may be longer than a block.
            block *= 2
            if taken:
                block = _BLOCK
                self._note(result, parsed)
                result.offset += taken
                yield parsed
            progress(self._path.name, result.offset / max(size, 1))
            if not taken and at_end:
                break
        result.pending = max(size - result.offset, 0)

    def _line_end(self, at: int) -> int:
        """Offset behind the end of the line that goes on at one, or of the file."""
        while data := os.pread(self.fd, _BLOCK, at):
            if end := data.find(b"\n") + 1:
                return at + end
            at += len(data)
        return at

    def _start(self) -> bool:
        """Read the header where there is one; False where there is not all of it yet."""
        if self._started:
            return True
        begins = os.pread(self.fd, len(BOM), 0)
        if begins.startswith(_COMPRESSED):
            raise AssignmentError("compressed: decompress it first, such as with gunzip, unxz or unzstd")
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
        self._merger.begin()
        self._kept_from = self._store.kept_from(self._source.id, self._opened)
        known = self._known = self._store.positions(self._source.id)
        root, names = _root(self._path.name), dict[str, set[str]]()
        for folder, name in map(os.path.split, (str(self._path), *(one.path for one in known))):
            if _root(name) == root:
                names.setdefault(name, set()).add(folder)
        self._is_alone = all(len(folders) < 2 for folders in names.values())
        is_kea = self._source.format == KEA
        some = _of_kind(self._path, self.fd, known) if is_kea else known
        self._position = position_in(self.fd, some, self._source.format)
        self._end = _last(self.fd, self._position.offset) if self._position else ""
        if self._source.format in LEASES:
            self._merger.anew = self._store.gaps(self._source.id)
        if self._source.format in LOGS:
            self._gaps = self._store.gaps(self._source.id)
            if self._position is not None:
                self._span = self._position.first, self._position.last
                self._merger.lane = self._position.lane
                if any(one.lane == self._position.lane and one.last > self._span[1] for one in known):
                    # What followed it was read in its lane: what it tells by now is late there.
                    self._merger.lane = max(one.lane for one in known) + 1
            self._merger.told, self._merger.is_in_order = self._span[1], True
        # Of the file that had the path before, it may be known to be read to its end, and of the source not.
        self._renewed = min(self._position.read, self._source.read) if self._position else 0
        offset = self._position.offset if self._position else 0
        if not self.result.rows:
            self.result.resumed = offset
        self.result.offset = max(offset, header)
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
        sightings = [*without_far_ends(parsed.sightings, self._asked)]
        if sightings and self._source.format in LOGS:
            self._note_span(sightings)
        anew = self._position is None
        lost = self._lost() if anew and self._source.format in LEASES else []
        self._merger.anew += lost
        for gap in lost:
            self._store.doubt(gap)
        self._merger.take(sightings)
        changes = self._merger.changes
        # Days on which something began long ago would be kept for nothing, in PostgreSQL in a partition each.
        changes.ended = [row for row in changes.ended if row[8] != Ending.DOUBT or row[7] >= self._kept_from]
        changes.rows += parsed.rows
        changes.skipped += parsed.skipped
        changes.gaps += lost
        offset = self.result.offset
        position = position_at(self.fd, self._source.path, offset, self._position, self._before.at(offset))
        first, last = self._span
        self._position = replace(position, first=first, last=last, lane=self._merger.lane)
        self._end = _last(self.fd, offset)
        changes.position, changes.anew = self._position, anew
        self.result.rows += changes.rows
        self.result.skipped += changes.skipped
        rows = self._merger.finished()
        self._wait()
        self._renewed = self._asked
        rows.until = self._until(self._renewed)
        writing = self._writer.submit(self._store.write, self._source, rows, self._renewed)
        self._writing = writing, _copied(self.result)

    def _renew(self) -> None:
        """Renew the file's assignments without an end: they count from now."""
        now, position = self._asked, self._position
        # A clock that was set back does not put it off. By a new name it is known to be read to its end.
        if 0 <= now - self._renewed < _RENEW_AFTER and (not position or position.path == self._source.path):
            return
        if position is not None:
            self._position = replace(position, path=self._source.path)
            self._store.renew(self._source, self._position, now, self._until(now))
        elif (
            not self._lost()
            if self._source.format in LEASES
            else self._follows and not (self._source.format in LOGS and self._gaps_before(now))
        ):
            # As after a rotation, or a cleanup.
            self._store.looked(self._source, now, self._until(now))
        self._renewed = now

    def _note_span(self, sightings: Sequence[Sighting]) -> None:
        """Note from when to when the log tells, and what is not read of those before it."""
        first, last = self._span
        if self._position is None:
            first = first or min(_said(sightings[0]), self._asked)
        self._span = first, max(last, min(max(map(_said, sightings)), self._asked))
        if self._has_begun:
            return
        self._has_begun = True
        if self._position is not None:
            return
        is_new = any(gap.since < first for gap in self._gaps if self._is_in(gap, first))
        if not is_new:
            made = self._gaps_before(first)
            self._merger.changes.gaps += made
            self._gaps = [*self._gaps, *made]
            is_new = bool(made)
        self._merger.lane, self._merger.told = self._lane(first, is_new=is_new)
        self._followed_at = self._following(first)

    def _lane(self, first: int, *, is_new: bool) -> tuple[int, int]:
        """The lane of a log of which nothing was read, and which begins at a time: that of the one before it
        where that was read to its end, else a new one; and up to when it tells, in ms."""
        ends: dict[int, tuple[int, bool]] = {}
        for one in self._known:
            last, is_mine = ends.get(one.lane, (0, True))
            ends[one.lane] = max(last, one.last), is_mine and self._is_of(one.path)
        before = [(last, lane) for lane, (last, is_mine) in ends.items() if is_mine and last <= first + LATE]
        if before and not is_new:
            last, lane = max(before)
            return lane, last
        return max(ends, default=-1) + 1, 0

    def _lost(self) -> list[Gap]:
        """The span of time of which only the last of each address is in a file of leases, since that was
        written anew after it was read last."""
        since = max((one.read for one in self._known if self._is_of(one.path)), default=0)
        # Of several that are imported together the first is read after all that.
        if not self._begins or not 0 < since < int(self.begun * 1000):
            return []
        if self._source.read > NOT_YET:  # reading may have ended before what had the path then was read
            since = min(since, self._source.read)
        if self._source.format == KEA and any(_is_known(one, self._known) for one in _kea_files(self._path)):
            return []
        self.result.left = since
        return [Gap(self._source.id, self._source.path, since, self._opened, ANEW)]

    def _following(self, first: int) -> int:
        """When the same log went on after this had ended, in ms, of what was read already: what has no end
        here may have one there. 0 for none."""
        begun = [one.first for one in self._known if self._is_of(one.path)]
        return min((one for one in begun if one > first), default=0)

    def _gaps_before(self, first: int) -> list[Gap]:
        """What is not read of logs that were before this one, which begins at a time; and of others between
        them, if there can be any."""
        earlier = [
            replace(one, last=min(one.last or one.read, one.read))
            for one in self._known
            if one.first < first and (one.path == self._source.path or (one.last and self._is_of(one.path)))
        ]
        if not earlier:
            return []
        before = max(earlier, key=lambda one: (one.last, one.id))
        gaps = []
        for one in earlier:
            since = one.last - one.last % SECOND
            gap = Gap(self._source.id, self._source.path, since, first)
            # Two nodes may have logs at one path.
            is_mine = one is before or one.path == self._source.path
            if self._begins and is_mine and self._may_go_on(one):
                # The first that is told may be late.
                gaps.append(replace(gap, file=one.id, until=max(first, since + SECOND)))
            elif one is before and self._has_unread(gap):
                gaps.append(gap)
        self.result.left = before.read if gaps else 0
        return gaps

    def _may_go_on(self, before: ReadingPosition) -> bool:
        """Whether something may have been written to a log since it was read, before this one began."""
        its, mine = Path(before.path), self._path
        if before.ended:
            return False
        for path in self._beside():
            with suppress(AssignmentError, OSError):
                fd = regular_fd(path)
                try:
                    if position_in(fd, (before,), self._source.format) is not None:
                        goes_on = os.fstat(fd).st_size > before.offset
                        if not goes_on and self._has_begun:  # this is written to, and that deleted in time
                            self._store.end_file(self._source, before)
                        return goes_on
                finally:
                    os.close(fd)
        # It is somewhere else by now, or compressed: by its name it was written to when it was read, or not.
        return _NUMBERED.fullmatch(its.name) is None and (its == mine or _root(mine.name) == its.name)

    def _is_rest(self, gap: Gap) -> bool:
        return self._position is not None and gap.file == self._position.id > 0

    def _is_in(self, gap: Gap, first: int) -> bool:
        """Whether this is another log of a gap, which begins in it."""
        return 0 < first < gap.until and self._is_of(gap.path)

    def _is_of(self, path: str) -> bool:
        """Whether a file's name says that this is of the same log, before or after it was rotated."""
        folder, name = os.path.split(path)
        if _root(name) != _root(self._path.name):
            return False
        return folder == os.path.split(self._path)[0] or self._is_alone

    def _beside(self) -> list[Path]:
        """Other files of the same log in the folder, by their names."""
        with suppress(OSError):
            root = _root(self._path.name)
            there = self._path.parent.iterdir()
            return [one for one in there if one != self._path and _root(one.name) == root]
        return []

    def _has_unread(self, gap: Gap) -> bool:
        """Whether a log beside this one begins in a gap, and nothing of it is read."""
        for path in self._beside():
            # What cannot be read as such a log is none.
            with suppress(AssignmentError, OSError):
                written = path.stat().st_mtime * 1000
                if path.suffix in _PACKED:
                    # Not read here, and what is packed keeps its time: what was read has one before it was.
                    if max(self._read_before(gap), gap.since + LATE) < written <= gap.until + LATE:
                        return True
                elif written > gap.since and gap.since <= self._first_of(path) < gap.until:
                    return True
        return False

    def _read_before(self, gap: Gap) -> int:
        """When the logs before a gap were read last, in ms."""
        if self._span[1] <= gap.since + SECOND:
            return self._asked
        mine = (one for one in self._known if self._is_of(one.path) and one.last <= gap.since + SECOND)
        return max((one.read for one in mine), default=0)

    def _first_of(self, path: Path) -> int:
        """When a log of which nothing is read begins, in ms; 0 for another."""
        other = FileReader(self._store, self._source, path, self._options, self._clock)
        try:
            first = next(other.sightings(), None)
            return 0 if first is None or other._position is not None else _said(first)
        finally:
            other.close()

    def _note_behind(self) -> None:
        """Note what is not read of a log between this, as this is read to its end, and what followed."""
        followed_at, self._followed_at = self._followed_at, 0
        last = self._span[1]
        if followed_at <= last or self._position is None or self.result.pending:
            return
        gap = Gap(self._source.id, self._source.path, last - last % SECOND, followed_at)
        if self._has_unread(gap):
            changes = Changes(gaps=[gap], position=self._position, until=self._until(self._asked))
            self._store.write(self._source, changes, self._asked)
            self._gaps = [*self._gaps, gap]

    def _close_gaps(self) -> None:
        """Note what is not missing any more, as this is read to its end."""
        if not self._gaps:
            return
        self._gaps = self._store.gaps(self._source.id)
        position, (first, last) = self._position, self._span
        if position is None or self.result.pending:
            return
        closed: list[Gap] = []
        left: list[Gap] = []
        for gap in self._gaps:
            if self._is_rest(gap):
                found = [replace(gap, since=max(gap.since, last), file=0)]
            elif self._is_in(gap, first) and gap.since < last:
                found = [replace(gap, until=first), replace(gap, since=last, file=0)]
            else:
                continue
            closed.append(gap)
            left += [one for one in found if one.since < one.until and (one.file or self._has_unread(one))]
        if closed:
            changes = Changes(position=position, until=self._until(self._asked), gaps=left)
            changes.closed, changes.after = [gap.id for gap in closed], self._merger.rows
            self._store.write(self._source, changes, self._asked)
            self._gaps = self._store.gaps(self._source.id)

    def end(self) -> None:
        """Note that nothing is written to the file any more, and all of it is read."""
        if self._position is not None and not self.result.pending:
            self._store.end_file(self._source, self._position)

    def _until(self, now: int) -> int:
        """Up to when the source has told all, in ms: a rotated log says nothing of what came then."""
        is_left = self._path.suffix in _LEFT and _kea_files(self._path)[-1].exists()
        if self._source.format in LEASES and (is_left or self.is_replaced):
            return max(self._source.read, NOT_YET)  # what is there now is read behind this
        if self._source.format not in LOGS or (self._follows and not (self.is_replaced or self._has_next())):
            return now
        return max(min(int(os.fstat(self.fd).st_mtime * 1000), now, self._span[1]), NOT_YET)

    def _has_next(self) -> bool:
        """Whether another log of the kind, such as the next day's, is written to behind this one, unread."""
        known, mine = {one.path for one in self._known}, os.fstat(self.fd).st_mtime
        with suppress(OSError):  # one may go meanwhile
            return any(str(one) not in known and one.stat().st_mtime > mine for one in self._beside())
        return False

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
            writing[0].result()
            self._written = writing[1]


def _root(name: str) -> str:
    """Name of a log without what was added to it as it was rotated."""
    while (found := _ADDED.fullmatch(name)) is not None:
        name = found[1]
    return name


def _kea_files(path: Path) -> list[Path]:
    """All files of a Kea server's leases, in the order in which they tell."""
    file = path.with_suffix("") if path.suffix in _LEFT else path
    return [*(Path(f"{file}{added}") for added in _LEFT), file]


def _is_known(path: Path, known: Sequence[ReadingPosition]) -> bool:
    """Whether something of a file was read before."""
    with suppress(AssignmentError, OSError):
        fd = regular_fd(path)
        try:
            return position_in(fd, _of_kind(path, fd, known), KEA) is not None
        finally:
            os.close(fd)
    return False


def _of_kind(path: Path, fd: int, known: Sequence[ReadingPosition]) -> list[ReadingPosition]:
    """Those that may be of one of Kea's files: what was cleaned may begin as another did that is read, with
    an address that has the same lease still, and is not that."""
    is_cleaned, size = path.suffix in _CLEANED, os.fstat(fd).st_size
    return [
        one
        for one in known
        if (Path(one.path).suffix in _CLEANED) == is_cleaned and (not is_cleaned or one.offset == size)
    ]


def earlier_files(store: AssignmentStore, source: SightingSource, path: Path) -> Iterator[Path]:
    """Files to read before one of Kea's leases: what is unchanged since a cleanup is in those alone that it
    has left beside it.

    None is read that is older than what was read before of a later one: a lease that is over by that would
    begin anew. Where a cleanup goes on meanwhile, there are others to read.

    Args:
        store: where to.
        source: what they are of.
        path: of the file that Kea writes to.
    """
    if source.format != KEA or path.suffix in _LEFT:
        return
    read = None
    while (there := _identities(_kea_files(path))) != read:
        read, known = there, store.positions(source.id)
        was_read = [number for number, one in enumerate(there) if _is_known(one, known)]
        for one in [*there][max(was_read, default=0) :]:
            if one != path and one.exists():
                yield one


@contextmanager
def gone_meanwhile(path: Path) -> Iterator[None]:
    """Context in which it is no error that a cleanup has taken away a file of `earlier_files`: there is
    another to read then."""
    try:
        yield
    except AssignmentError:
        if path.exists():
            raise


def _identities(paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Device and inode of those that are there."""
    found = {}
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            found[path] = status.st_dev, status.st_ino
    return found


def _said(sighting: Sighting) -> int:
    """When something was said, in ms: of what is known as a whole, as it was over."""
    return sighting[6] or (sighting[4] if sighting[5] == FOREVER else sighting[5])


def import_file(
    store: AssignmentStore,
    source: SightingSource,
    path: Path,
    options: ReadOptions,
    clock: Callable[[], float],
    progress: Progress = silent,
    judge: Judge = lambda _: "",
    begun: float | None = None,
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
        begun: when the import began of which this is a file, as the clock says; now where it is not given.

    Raises:
        AssignmentError: unreadable, not of the source's format, or the store refuses.
    """
    reader = FileReader(store, source, path, options, clock, begun=begun)
    try:
        looked = reader.look()
        looked.refused = judge(looked)
        return looked if looked.refused else reader.read(progress)
    finally:
        reader.close()


def in_order(store: AssignmentStore, format_: str, paths: Sequence[Path], options: ReadOptions) -> list[Path]:
    """Files in the order of what each begins with, as they have to be read: an end that is read before its
    beginning is lost. Exports (``csv``) may begin with any row: in that of the newest that each has. Those
    that cannot be read are the last; those that are read with another (`earlier_files`) are left out.

    Args:
        store: where they are imported to.
        format_: of the files.
        paths: of them.
        options: how to read them.
    """

    def place(path: Path) -> int:
        with suppress(AssignmentError):
            reader = FileReader(store, SightingSource(0, "", format_, ""), path, options, time.time)
            try:
                times = (said for one in reader.sightings() if (said := one[6] or one[4]))
                return max(times, default=FOREVER) if format_ == "csv" else next(times, FOREVER)
            finally:
                reader.close()
        return FOREVER

    kea = [path for path in paths if format_ == KEA and path.suffix not in _LEFT]
    with_others = {one for path in kea for one in _kea_files(path)[:-1]}
    return sorted((path for path in paths if path not in with_others), key=place)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise AssignmentError(f"{path}: {e.strerror or e}") from e
    except AssignmentError as e:
        raise AssignmentError(f"{path}: {e}") from e


logger = logging.getLogger("urlward.records")


EVERY = 1.0
"""Seconds between two looks at a file that is followed."""

AGAIN = 30.0
"""Seconds until what has failed is tried again."""


def repeated[T](
    what: str, look: Callable[[], tuple[T | None, bool]], every: float, wait: Callable[[float], bool]
) -> Iterator[T]:
    """Look again and again.

    Args:
        what: is looked at, for the log.
        look: gives what there is, None for nothing, and whether there is more at once.
        every: seconds between two looks.
        wait: waits that many seconds; False to end.

    Yields:
        What each look has given.

    Raises:
        AssignmentError: the first look fails. Later, what fails is logged and tried again.
    """
    has_begun = has_failed = False
    while True:
        try:
            found, is_more = look()
        except AssignmentError as e:
            if not has_begun:
                raise
            if not has_failed:
                logger.error("%s; tried again each half a minute", e)
            has_failed = True
            if not wait(AGAIN):
                return
            continue
        if found is not None:
            if has_failed:
                logger.info("%s: read on", what)
            has_begun, has_failed = True, False
            yield found
        if not is_more and not wait(every):
            return


def follow(
    store: AssignmentStore,
    source: SightingSource,
    path: Path,
    options: ReadOptions,
    *,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], bool],
) -> Iterator[Imported]:
    """Read what is written to a file, also when it is renamed and begun anew, cut, or not there for a while.

    Args:
        store: where to.
        source: what the file is of.
        path: of the file.
        options: how to read it.
        clock: seconds since 1970-01-01 UTC.
        wait: as of `repeated`.

    Yields:
        What has been read of the file that has the path, after each look at it.

    Raises:
        AssignmentError: as of `repeated`: the file is not of the source's format, or the store refuses.
    """
    reader: FileReader | None = None
    begins = True
    earlier: Iterator[Path] = iter(())
    if not os.path.exists(path):  # noqa: PTH110 - `Path.exists` raises what is told with each look
        logger.warning("%s: not there yet; nothing is read until it is", path)

    def anew(why: str) -> None:
        nonlocal reader
        assert reader is not None
        reader.end()
        logger.info("%s: %s, read from its beginning", path, why)
        reader.close()
        reader = None

    def look() -> tuple[Imported | None, bool]:
        nonlocal reader, begins, earlier
        try:
            if reader is not None and reader.is_cut:
                anew("cut")
            if reader is None and path.exists():
                reader = FileReader(store, source, path, options, clock, follows=True, begins=begins)
                if begins:
                    earlier = earlier_files(store, source, path)
                begins = False
            if reader is None:
                return None, False
            for one in earlier:
                its = replace(source, path=str(one))
                try:
                    with gone_meanwhile(one):
                        return import_file(store, its, one, options, clock, begun=reader.begun), True
                except AssignmentError:
                    earlier = earlier_files(store, source, path)  # that one again, not the next
                    raise
            # Asked before reading: what was written to the old file till then is read too.
            replaced = reader.is_replaced
            done = reader.read()
        except (AssignmentError, OSError) as e:
            if reader is not None:
                # Not closed: it may have been renamed, and this may be the only way to its end.
                reader.begin_again()
            if isinstance(e, AssignmentError):
                raise
            raise AssignmentError(f"{path}: {e.strerror or e}") from e
        if replaced:
            anew("another file")
        return done, replaced

    try:
        yield from repeated(str(path), look, EVERY, wait)
    finally:
        if reader is not None:
            reader.close()
