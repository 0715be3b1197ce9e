"""Reading files of assignments into the store: as streams, and on from where reading ended the last time."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from urlward.lists.build import Progress, silent
from urlward.records.assignments.formats import FORMATS
from urlward.records.assignments.interval import AssignmentError, Source
from urlward.records.assignments.merging import Merger
from urlward.records.assignments.parsers import Parser, ReadOptions
from urlward.records.assignments.positions import position_at, position_in
from urlward.records.assignments.store import AssignmentStore, Position

_BLOCK = 4 << 20
_LONGEST_HEADER = 1 << 16


@dataclass(slots=True)
class Imported:
    """What came of reading a file.

    Attributes:
        rows: that were read.
        skipped: of them, not understood.
        resumed: the offset in bytes that reading went on from.
        offset: up to where it is read.
    """

    rows: int = 0
    skipped: int = 0
    resumed: int = 0
    offset: int = 0


class FileReader:
    """Reads one open file into the store, a block a transaction; whoever is killed goes on where it ended."""

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
        self._parser: Parser = FORMATS[source.format](options)
        self._merger = Merger(store, source.id)
        with _told(path):
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.result = Imported()
        self._position: Position | None = None
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

    def read(self, progress: Progress = silent, *, whole: bool = True) -> Imported:
        """Read what there is and is not read yet.

        Args:
            progress: told the share that is read.
            whole: whether nothing more is written to the file, so that its last line is one even without end.

        Raises:
            AssignmentError: unreadable, not of the format, or the store refuses.
        """
        with _told(self._path):
            if not self._started and not self._start(whole=whole):
                return self.result
            size = os.fstat(self.fd).st_size
            block = _BLOCK
            while data := os.pread(self.fd, block, self.result.offset):
                at_end = self.result.offset + len(data) >= size
                taken = self._take(data, last=at_end and whole)
                # A record may be longer than a block.
                block = _BLOCK if taken else block * 2
                progress(self._path.name, self.result.offset / max(size, 1))
                if not taken and at_end:
                    break
            self._wait()
        return self.result

    def _start(self, *, whole: bool) -> bool:
        """Read the header where there is one; False where there is not all of it yet."""
        header = 0
        if self._parser.has_header:
            line, end, _ = os.pread(self.fd, _LONGEST_HEADER, 0).partition(b"\n")
            if not end and not (whole and line):
                return False
            self._parser.begin(line.decode(errors="backslashreplace").rstrip("\r"))
            header = len(line) + len(end)
        self._position = position_in(self.fd, self._store.positions(self._source.id))
        self.result.resumed = self._position.offset if self._position else 0
        self.result.offset = max(self.result.resumed, header)
        self._started = True
        return True

    def _take(self, data: bytes, *, last: bool) -> int:
        """Take whole lines; returns how many bytes that were."""
        last = last and self._parser.ends_whole
        if not last:
            data = data[: data.rfind(b"\n") + 1]
        if not data:
            return 0
        lines = data.decode(errors="backslashreplace").replace("\r\n", "\n").split("\n")
        if not lines[-1]:
            lines.pop()
        parsed = self._parser.parse(lines)
        taken = len(data)
        if parsed.pending:
            ends = data.split(b"\n")[: len(lines)]
            taken -= sum(len(line) + 1 for line in ends[-parsed.pending :])
        if not taken:
            return 0
        self._merger.take(parsed.sightings)
        changes = self._merger.changes
        changes.rows += parsed.rows
        changes.skipped += parsed.skipped
        offset = self.result.offset + taken
        self._position = position_at(self.fd, str(self._path), offset, self._position)
        changes.position = self._position
        self.result.rows += changes.rows
        self.result.skipped += changes.skipped
        self.result.offset = offset
        rows = self._merger.finished()
        self._wait()
        now = int(self._clock() * 1000)
        self._writing = self._writer.submit(self._store.write, self._source, rows, now)
        return taken

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
) -> Imported:
    """Read a file that is not written any more, or what has been written to it since the last time.

    Args:
        store: where to.
        source: what it is of.
        path: of the file.
        options: how to read it.
        clock: seconds since 1970-01-01 UTC.
        progress: told the share that is read.

    Raises:
        AssignmentError: unreadable, not of the source's format, or the store refuses.
    """
    reader = FileReader(store, source, path, options, clock)
    try:
        return reader.read(progress)
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
