"""Run of a replay: logs are read here one after the other, and judged in other processes, as many as there
are cores.

They are forked from this process once the lists are loaded, so that all of them use one copy: started afresh,
each would load a million entries by itself. Memory does not grow with a log.

A log is a file or standard input, decompressed, and read as blocks of whole lines. HAR files
(http://www.softwareishard.com/blog/har-12-spec/) are read as a stream: such a file is one JSON value of any
size, which cannot be cut into pieces. Its entries become lines of the format ``har``: time, status and URL
with tabs between.
"""

import gc
import multiprocessing
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import batched
from pathlib import Path
from typing import Any, NamedTuple, Self

import ijson

from urlward.compression import DAMAGED, Decoder, decoder_for
from urlward.csv_rows import MOST_LINES
from urlward.engine.errors import UrlwardError, fault_report
from urlward.engine.matcher import Matcher
from urlward.engine.url import byte_string
from urlward.process import check_parent, end_with_parent, ending
from urlward.progress import Progress, silent
from urlward.regular import without_bom
from urlward.replay.formats import NONE, LogFormat, detect
from urlward.replay.judge import Clock, LogJudge, Tally

BLOCK = 1 << 18
"""Bytes of a block at most, and of a line; few enough that what a block is cut into stays in a cache."""

HEAD = 1 << 16
"""Bytes from which a log's format is detected."""

_OTHERS = {b"BZh": "bzcat", b"\xfd7zXZ": "xzcat", b"PK\3\4": "unzip -p", b"\x04\x22\x4d\x18": "lz4cat"}

_AHEAD = 2
"""Blocks for each process: one that it judges, one that waits."""

_judge: LogJudge
"""Judge of a worker process."""


class LogSource:
    """Log file as bytes, decompressed, without a byte order mark.

    Args:
        path: of the file; ``-`` is standard input. Text is a URL, for fsspec.
        part: of the file, in bytes from one place to another: all lines that begin there, or in the members
            of a compressed one that begin there, but for the rest of one before; None for all.

    Attributes:
        name: for messages to who named it.
        head: the first `HEAD` bytes, or all where it has fewer.
        size: of the file in bytes; 0 where that is not known.
        reopens: whether opening it once more gives the same bytes.
        packed: whether it is compressed.
        consumed: bytes of the file read so far.
        trouble: why it could not be read to its end, or empty.

    Raises:
        UrlwardError: not readable, or compressed with something else than gzip or zstd.
    """

    def __init__(self, path: Path | str, part: tuple[int, int] | None = None) -> None:
        standard = str(path) == "-"
        self._path = path
        self.name = "standard input" if standard else str(path)
        self.consumed = 0
        self.trouble = ""
        self.packed = False
        self._at = 0
        with told(path):
            self._file = _opened(path)
        try:
            with told(path):
                self.size, self.reopens = _size(path, self._file)
            self._pieces = self._unpacked() if part is None else self._of_part(*part)
            self._ahead = b""
            while len(self._ahead) < HEAD and (piece := next(self._pieces, b"")):
                self._ahead += piece
        except BaseException:
            self.close()
            raise
        if part is None or not part[0]:
            self._ahead = without_bom(self._ahead)
        self.head = self._ahead[:HEAD]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, size: int = BLOCK) -> bytes:
        """Read so many bytes at most; empty at the end.

        Raises:
            UrlwardError: the system does not give them.
        """
        if size and not self._ahead:
            self._ahead = next(self._pieces, b"")
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def _unpacked(self) -> Iterator[bytes]:
        data = b""
        while len(data) < 6 and (more := self._raw()):
            data += more
        for magic, program in _OTHERS.items():
            if data.startswith(magic):
                raise UrlwardError(
                    f"{self.name}: neither text nor gzip nor zstd; try: {program} FILE | … replay -"
                )
        self.packed = decoder_for(data) is not None
        if not self.packed:
            while data:
                yield data
                data = self._raw()
            return
        for piece in self._members(data):
            if piece:
                yield piece

    def _members(self, data: bytes) -> Iterator[bytes]:
        """Content of compressed members, one after the other; nothing where another begins, at `_at`.

        Args:
            data: the first bytes of the first.
        """
        new = decoder_for(data)
        assert new is not None
        decoder = new()
        while True:
            if decoder.eof:
                data = decoder.unused_data or self._raw()
                if not data.strip(b"\0"):
                    return  # the padding of tape drives and some tools
                decoder = new()
                self._at = self.consumed - len(data)
                yield b""
            elif not data and decoder.needs_input:
                data = self._raw()
                if not data:
                    self.trouble = "cut short"
                    return
            try:
                piece = decoder.decompress(data, BLOCK)
            except DAMAGED:
                self.trouble = "damaged"
                return
            data = b""
            if piece:
                yield piece

    def _of_part(self, begin: int, end: int) -> Iterator[bytes]:
        """Lines of a part."""
        head = self._at_place(0, BLOCK)
        new = decoder_for(head)
        self.packed = new is not None
        if new is None:
            yield from self._of_plain_part(begin, end)
            return
        first = self._first_member(new, begin, end) if begin else 0
        if first is None:
            return
        self._seek(first)
        inside, over = begin == 0, False
        for piece in self._members(self._raw()):
            data = piece
            if not data:
                over = over or self._at >= end
                continue
            if not inside:
                line, found, data = data.partition(b"\n")
                if not found:
                    continue
                inside = True
                if over:
                    return
            if over:
                line, found, _ = data.partition(b"\n")
                yield line + found
                if found:
                    return
            elif data:
                yield data

    def _of_plain_part(self, begin: int, end: int) -> Iterator[bytes]:
        at = max(begin - 1, 0)
        self._seek(at)
        inside = begin == 0
        while data := self._raw():
            after = at + len(data)
            if not inside:
                line, found, rest = data.partition(b"\n")
                if not found:
                    at = after
                    continue
                inside = True
                at, data = at + len(line) + 1, rest
            if at >= end:
                return
            if after >= end:
                # Up to the end of the line that has the part's last byte.
                last = data.find(b"\n", max(end - 1 - at, 0)) + 1
                if last:
                    yield data[:last]
                    return
                yield data
                yield from self._line_end()
                return
            if data:
                yield data
            at = after

    def _line_end(self) -> Iterator[bytes]:
        while data := self._raw():
            last = data.find(b"\n") + 1
            yield data[:last] if last else data
            if last:
                return

    def _first_member(self, new: Callable[[], Decoder], begin: int, end: int) -> int | None:
        """Where the first member begins in a part; None where none does."""
        data = self._at_place(begin, end - begin + _SURE)
        for magic in MEMBERS:
            at = data.find(magic, 0, end - begin + len(magic) - 1)
            while at >= 0:
                if _is_member(new, data[at : at + _SURE]):
                    return begin + at
                at = data.find(magic, at + 1, end - begin + len(magic) - 1)
        return None

    def _at_place(self, at: int, size: int) -> bytes:
        self._seek(at)
        parts = []
        while size > 0 and (data := self._raw(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _seek(self, at: int) -> None:
        with told(self._path):
            self._file.seek(at)
        self.consumed = at

    def _raw(self, size: int = BLOCK) -> bytes:
        with told(self._path):
            data: bytes = self._file.read(size) or b""
        self.consumed += len(data)
        return data


MEMBERS = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")
"""What a member of gzip, and a frame of zstd, begins with."""

_SURE = 1 << 16
"""Bytes that have to be of a member, where it has so many, for it to be one."""


def _is_member(new: Callable[[], Decoder], data: bytes) -> bool:
    decoder = new()
    try:
        while data or not decoder.needs_input:
            decoder.decompress(data, BLOCK)
            data = b""
            if decoder.eof:
                return True
    except DAMAGED:
        return False
    return True


@contextmanager
def told(path: Path | str) -> Iterator[None]:
    """Say in a line why a log cannot be read: each library that opens URLs has errors of its own.

    Raises:
        UrlwardError: it cannot.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        yield
    except OSError as e:
        text = e.strerror or str(e)
        # As fsspec says it of a URL, whatever the reason is.
        raise UrlwardError(f"{name}: {'no such file, or nobody answers' if text == name else text}") from e
    except Exception as e:
        if isinstance(path, Path) or isinstance(e, UrlwardError):
            raise
        raise UrlwardError(f"{name}: {str(e) or type(e).__name__}") from e


def _opened(path: Path | str) -> Any:
    """Open a file."""
    if isinstance(path, Path):
        standard = str(path) == "-"
        return open(0 if standard else path, "rb", buffering=0, closefd=not standard)
    from fsspec import open as open_url  # an extra

    return open_url(path, "rb").open()


def _size(path: Path | str, file: Any) -> tuple[int, bool]:
    """Size of an open file, 0 where that is not known, and whether it can be opened once more."""
    if not isinstance(path, Path):
        size = int(file.seek(0, os.SEEK_END))
        file.seek(0)
        return size, True
    status = os.fstat(file.fileno())
    is_file = stat.S_ISREG(status.st_mode)
    return status.st_size if is_file else 0, is_file and str(path) != "-"


class LineBlock(NamedTuple):
    """Block of whole lines.

    Attributes:
        first: number of the first.
        lines: how many.
        data: their bytes.
        lost: why line `first` is not there, where there is no data.
    """

    first: int
    lines: int
    data: bytes
    lost: str = ""


def blocks(source: LogSource, *, quotes: bool = False) -> Iterator[LineBlock]:
    """Cut a log into blocks of whole lines.

    Args:
        source: the log.
        quotes: whether a line break between double quotes is none.
    """
    rest, first = b"", 1
    while data := _filled(source, rest):
        # Of a log that is cut short, half a line could be read as another URL.
        is_last = len(data) < BLOCK and not source.trouble
        end = len(data) if is_last else _end_of_lines(data, quotes)
        if end:
            lines = data.count(b"\n", 0, end) + (not data.endswith(b"\n", 0, end))
            yield LineBlock(first, lines, data[:end])
            rest, first = data[end:], first + lines
        else:
            yield LineBlock(
                first, 1, b"", "cut short" if len(data) < BLOCK else f"longer than {BLOCK:,} bytes"
            )
            rest, first = _after_line(source), first + 1


def _filled(source: LogSource, data: bytes) -> bytes:
    parts, have = [data], len(data)
    while have < BLOCK and (more := source.read(BLOCK - have)):
        parts.append(more)
        have += len(more)
    return b"".join(parts)


def _end_of_lines(data: bytes, quotes: bool) -> int:
    """Offset behind the last whole line; 0 where there is none."""
    last = end = data.rfind(b"\n") + 1
    odd = data.count(b'"', 0, end) & 1 if quotes else 0
    for _ in range(MOST_LINES):
        if not odd or not end:
            break
        before = data.rfind(b"\n", 0, end - 1) + 1
        odd ^= data.count(b'"', before, end) & 1
        end = before
    return last if odd else end or last


def _after_line(source: LogSource) -> bytes:
    while data := source.read(BLOCK):
        end = data.find(b"\n") + 1
        if end:
            return data[end:]
    return b""


_LINES = 4096
_BREAKS = {9: None, 10: None, 13: None}
_ENTRY = "log.entries.item"


def har_blocks(source: LogSource) -> Iterator[LineBlock]:
    """Blocks of lines of the format ``har``; the number of a line is that of its entry.

    Raises:
        UrlwardError: not a HAR file.
    """
    first = 1
    for lines in batched(_lines(source), _LINES):
        yield LineBlock(first, len(lines), b"".join(lines))
        first += len(lines)


def _lines(source: LogSource) -> Iterator[bytes]:
    wanted = {f"{_ENTRY}.startedDateTime", f"{_ENTRY}.response.status", f"{_ENTRY}.request.url"}
    found: dict[str, Any] = {}
    has_entries = False
    try:
        for prefix, event, value in ijson.parse(source):
            if prefix in wanted:
                found[prefix.rpartition(".")[2]] = value
            elif prefix == _ENTRY and event == "end_map":
                yield _line(found)
                found.clear()
            elif prefix == "log.entries":
                has_entries = True
    except ijson.JSONError:
        source.trouble = source.trouble or "not whole, or not JSON from some place on"
    if not has_entries:
        raise UrlwardError(f"{source.name}: not a HAR file: it has no entries")


def _line(entry: dict[str, Any]) -> bytes:
    url, status = entry.get("url"), entry.get("status")
    text = url.translate(_BREAKS) if isinstance(url, str) else ""
    code = int(status) if isinstance(status, int | Decimal) and 100 <= status <= 999 else ""
    return f"{_time(entry)}\t{code}\t{text or NONE}\n".encode("utf-8", "surrogatepass")


def _time(entry: dict[str, Any]) -> str:
    """Whole minutes as seconds since 1970-01-01 UTC, which makes few different keys."""
    try:
        moment = datetime.fromisoformat(entry["startedDateTime"])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return str(max(int(moment.timestamp()) // 60 * 60, 0))
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""


class JudgePool:
    """Pool of processes that judge blocks; a context, at whose end no process is left.

    Args:
        judge: what each of them begins with a copy of.
        workers: how many.
    """

    def __init__(self, judge: LogJudge, workers: int) -> None:
        self._most = _AHEAD * workers
        self._tally = Tally()
        self._executor = ProcessPoolExecutor(
            workers, multiprocessing.get_context("fork"), _begin, (judge, os.getpid())
        )
        before = set(multiprocessing.active_children())
        # Ctrl-C goes to all processes of a terminal; these are ended in order. Whatever is there now
        # stays as it is, so the collector need not look at it, which would copy it.
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            # The first call forks all.
            self._pending: set[Future[Tally]] = {self._executor.submit(Tally)}
        except OSError as e:
            for process in set(multiprocessing.active_children()) - before:
                process.kill()
                process.join()
                process.close()
            self._executor.shutdown()
            raise UrlwardError(f"no process to judge lines in: {e.strerror or e}") from e
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            gc.unfreeze()
        self._processes = set(multiprocessing.active_children()) - before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def judge(self, log_format: LogFormat, data: bytes, log: int, first: int) -> None:
        """Have a block judged; waits until a process has room for it.

        Args:
            log_format: its format.
            data: its lines.
            log: its number.
            first: number of its first line.

        Raises:
            UrlwardError: a process has died.
        """
        while len(self._pending) >= self._most:
            self._receive()
        try:
            self._pending.add(self._executor.submit(_judged, log_format, data, log, first))
        except BrokenProcessPool as e:
            raise self._died() from e

    def finish(self) -> Tally:
        """Wait for all blocks; what they come to.

        Raises:
            UrlwardError: a process has died.
        """
        while self._pending:
            self._receive()
        return self._tally

    def _receive(self) -> None:
        done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in done:
            try:
                self._tally.merge(future.result())
            except BrokenProcessPool as e:
                raise self._died() from e

    def _died(self) -> UrlwardError:
        self._executor.shutdown()
        # The executor ends the others with SIGTERM.
        codes = {process.exitcode or 0 for process in self._processes} - {0}
        code = min(codes - {-signal.SIGTERM} or codes, default=0)
        return UrlwardError(f"a process that judges lines {ending(code)}")


def _begin(judge: LogJudge, parent: int) -> None:
    """Start a worker process."""
    global _judge
    _judge = judge
    end_with_parent(signal.SIGKILL)
    check_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which the executor ends all where one has died
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    gc.disable()  # nothing here makes cycles


def _judged(log_format: LogFormat, data: bytes, log: int, first: int) -> Tally:
    try:
        return _judge.judge(log_format, str(data, "latin-1"), log, first)
    except Exception as e:  # noqa: BLE001 - its text could be a line of the log
        raise UrlwardError(fault_report(e)) from None


@dataclass(slots=True)
class Log:
    """Log to replay.

    Attributes:
        path: of the file; ``-`` is standard input. Text is a URL.
        format: of its lines.
        size: bytes of the file; 0 where that is not known.
        packed: whether it is compressed.
        source: its bytes, where it cannot be opened again.
        lines: that were read.
        trouble: why it could not be read to its end, or empty.
    """

    path: Path | str
    format: LogFormat
    size: int
    packed: bool = False
    source: LogSource | None = None
    lines: int = 0
    trouble: str = ""


@dataclass(slots=True)
class Replay:
    """Outcome of a replay.

    Attributes:
        tally: the counts.
        logs: as given, with what is known of them now.
        clock: what entries that expire were judged at.
        now: when it began, in seconds since 1970-01-01 UTC.
        seconds: it took.
    """

    tally: Tally
    logs: Sequence[Log]
    clock: Clock
    now: float
    seconds: float


def open_logs(
    paths: Sequence[Path | str],
    *,
    kind: str = "",
    column: str = "",
    site: str = "",
    clock: Clock | None = None,
) -> list[Log]:
    """Detect the formats of all logs, before anything is judged.

    Args:
        paths: of files; ``-`` is standard input. Text is a URL.
        kind, column, site: as `detect` takes them.
        clock: ``log`` where each must have the time in it.

    Raises:
        UrlwardError: one is not there, or not known.
    """
    logs = []
    for path in paths:
        source = LogSource(path)
        try:
            found = detect(source.head, source.name, kind=kind, column=column, site=byte_string(site))
            if clock == "log" and not found.second:
                raise UrlwardError(f"{source.name}: no times in such a log; leave out --time log")
        except BaseException:
            source.close()
            raise
        if source.reopens:
            source.close()
        logs.append(Log(path, found, source.size, source.packed, None if source.reopens else source))
    return logs


def replay(
    logs: Sequence[Log],
    matcher: Matcher,
    *,
    clock: Clock = "log",
    workers: int = 1,
    progress: Progress = silent,
) -> Replay:
    """Judge all lines of all logs.

    Args:
        logs: from `open_logs`.
        matcher: the lists.
        clock: whether entries that expire are judged at the time in the log, where it has one, or now.
        workers: processes that judge.
        progress: called often.

    Raises:
        UrlwardError: a log cannot be read, or a process has died.
    """
    now, start = time.time(), time.monotonic()
    total = sum(log.size for log in logs) if all(log.size for log in logs) else 0
    done = lines = 0
    lost = Tally()
    with JudgePool(LogJudge(matcher, now, clock), workers) as pool:
        for number, log in enumerate(logs, 1):
            with log.source or LogSource(log.path) as source:
                for block in line_blocks(source, log.format):
                    log.lines += block.lines
                    lines += block.lines
                    if block.lost:
                        lost.lines += 1
                        lost.bad.add(block.lost, 1, [(number, block.first)])
                        continue
                    pool.judge(log.format, block.data, number, block.first)
                    rate = lines / max(time.monotonic() - start, 0.001)
                    progress(
                        f"reading logs (log {number} of {len(logs)}, {lines:,} lines, {rate:,.0f} lines/s)",
                        (done + source.consumed) / total if total else 0.0,
                    )
                done += source.consumed
                log.trouble = source.trouble
        tally = pool.finish()
    tally.merge(lost)
    if not any(log.format.second for log in logs):
        clock = "now"
    return Replay(tally, logs, clock, now, time.monotonic() - start)


def line_blocks(source: LogSource, log_format: LogFormat, *, first: bool = True) -> Iterator[LineBlock]:
    """Blocks of a log.

    Args:
        source: the log, or a part of it.
        log_format: its format.
        first: whether it is from the beginning.
    """
    if log_format.kind == "har":
        yield from har_blocks(source)
        return
    for block in blocks(source, quotes=bool(log_format.delimiter)):
        if first and block.first == 1 and log_format.heading:
            # The line stays, so that the numbers of the others do.
            yield block._replace(data=re.sub(rb"\A[^\n]*", b"", block.data))
        else:
            yield block
