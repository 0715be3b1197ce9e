"""Replay on a Dask cluster that exists (https://distributed.dask.org/): its workers read and judge pieces of
logs, and counts come back.

A piece is a whole log, or a part of one in bytes; whoever judges it opens the log by itself, so all workers
have to reach it. What a piece comes to depends on the piece alone: should a worker die, another judges its
pieces again, and the counts are the same. Counts are joined by the workers, eight at a time.

The lists go to each worker once, as artifacts with their keys, which stay in its memory and the scheduler's
while this runs.
"""

import logging
import secrets
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.loaded import LoadedList, load
from urlward.engine.matcher import Matcher
from urlward.progress import Progress, silent
from urlward.replay.formats import LogFormat
from urlward.replay.judge import Clock, LogJudge, Tally
from urlward.replay.run import Log, LogSource, Replay, line_blocks, told

if TYPE_CHECKING:
    from distributed import Client, Future

PIECE = 64 << 20
"""Bytes of a piece of a log that is not compressed."""

PACKED_PIECE = 16 << 20
"""Likewise of one that is, which comes to some times as much."""

TOGETHER = 8
"""Counts that are joined at a time."""

CONNECT_WITHIN = 10.0
"""Seconds until a scheduler has to answer."""

_INDEX = 40
"""Bits of a line's number; above them is the piece's."""

_loaded: dict[str, Matcher] = {}
"""In a worker: what the lists of the replay were loaded to, by its threads together."""

_loading = threading.Lock()


class SentList(NamedTuple):
    """List as a worker is given it.

    Attributes:
        name: of it.
        data: the artifact.
        secret: of the key that it is under.
        guarded: as of `LoadedList`.
    """

    name: str
    data: bytes
    secret: bytes
    guarded: bool


class Task(NamedTuple):
    """Task: the same for all pieces.

    Attributes:
        id: of the replay.
        lists: of it.
        now: seconds since 1970-01-01 UTC.
        clock: as of `LogJudge`.
        hashes: likewise.
    """

    id: str
    lists: tuple[SentList, ...]
    now: float
    clock: Clock
    hashes: bytes


class Piece(NamedTuple):
    """Piece of a log.

    Attributes:
        url: of the log.
        log: its number, from 1.
        number: of the piece, from 0.
        part: of the log, as of `LogSource`.
        format: of its lines.
        size: bytes.
    """

    url: Path | str
    log: int
    number: int
    part: tuple[int, int] | None
    format: LogFormat
    size: int


@dataclass
class PieceCounts:
    """Counts of one piece or several.

    Attributes:
        tally: the counts; numbers of lines are those in a piece, with its index above them.
        lines: of each log and piece.
        troubles: of logs that could not be read to their end.
    """

    tally: Tally = field(default_factory=Tally)
    lines: dict[tuple[int, int], int] = field(default_factory=dict)
    troubles: dict[int, str] = field(default_factory=dict)


def expanded(names: Sequence[Path | str]) -> list[Path | str]:
    """Files that names stand for, patterns too; text is a URL.

    Raises:
        UrlwardError: one stands for none, or nothing here opens such a URL.
    """
    try:
        import fsspec
    except ImportError as e:
        raise UrlwardError(f"URLs need the extra `cluster`: urlward help install ({e.name})") from e
    found: list[Path | str] = []
    for name in names:
        if str(name) == "-":
            raise UrlwardError("-: standard input is not read with a URL or a cluster")
        with told(str(name)):
            files = fsspec.open_files(str(name) if isinstance(name, str) else str(name.absolute()), "rb")
        if not files:
            raise UrlwardError(f"{name}: no such file")
        found += [
            file.full_name if isinstance(name, str) else Path(file.path) for file in sorted(files, key=str)
        ]
    return found


def pieces_of(log: Log, number: int) -> list[Piece]:
    """Cut a log into pieces.

    Args:
        log: from `open_logs`.
        number: of it, from 1.
    """
    most = PACKED_PIECE if log.packed else PIECE
    # A quote may hold a line's end, and a HAR file is one value.
    whole = log.format.kind == "har" or bool(log.format.delimiter) or log.size <= most
    if whole:
        return [Piece(log.path, number, 0, None, log.format, log.size)]
    begins = range(0, log.size, most)
    return [
        Piece(log.path, number, i, (at, min(at + most, log.size)), log.format, min(most, log.size - at))
        for i, at in enumerate(begins)
    ]


def judge_piece(piece: Piece, task: Task) -> PieceCounts:
    """Judge a piece of a log, in a worker.

    Raises:
        UrlwardError: it cannot be read.
    """
    judge = LogJudge(_matcher(task), task.now, task.clock, task.hashes)
    counts = PieceCounts()
    lines, base = 0, piece.number << _INDEX
    with LogSource(piece.url, piece.part) as source:
        for block in line_blocks(source, piece.format, first=not piece.number):
            lines += block.lines
            if block.lost:
                counts.tally.lines += 1
                counts.tally.bad.add(block.lost, 1, [(piece.log, base + block.first)])
                continue
            text = str(block.data, "latin-1")
            counts.tally.merge(judge.judge(piece.format, text, piece.log, base + block.first))
        if source.trouble:
            counts.troubles[piece.log] = source.trouble
    counts.lines[piece.log, piece.number] = lines
    return counts


def given(task: Task) -> Task:
    """Task, in a worker.

    What a cluster computes it computes again where the worker that has it dies. Data that are sent to it
    (`Client.scatter`) are gone then, and all pieces with them: Dask leaves those on one worker soon.
    """
    return task


def _matcher(task: Task) -> Matcher:
    with _loading:
        if task.id not in _loaded:
            _loaded.clear()
            _loaded[task.id] = Matcher(
                [load(one.data, Key(one.secret), one.name, guarded=one.guarded) for one in task.lists]
            )
        return _loaded[task.id]


def forget(id_: str) -> None:
    """Forget the lists of a replay, in a worker."""
    _loaded.pop(id_, None)


def joined(some: Sequence[PieceCounts]) -> PieceCounts:
    """Counts of several, in a worker."""
    found = PieceCounts()
    for one in some:
        found.tally.merge(one.tally)
        found.lines |= one.lines
        found.troubles |= one.troubles
    return found


def installed() -> str:
    """Version of urlward, in a worker."""
    from urlward import __version__

    return __version__


@contextmanager
def connected(address: str) -> Iterator["Client"]:
    """Client of a cluster; TLS is as Dask's own configuration says.

    Raises:
        UrlwardError: there is none, it has no worker, or one without this urlward.
    """
    try:
        from distributed import Client
        from distributed.security import Security
    except ImportError as e:
        raise UrlwardError(f"--cluster needs the extra `cluster`: urlward help install ({e.name})") from e
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what is wrong is said once, by us
    try:
        client = Client(address, timeout=CONNECT_WITHIN, security=Security(), set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as e:
        raise UrlwardError(f"{address}: no scheduler of Dask answers there") from e
    try:
        try:
            versions: Mapping[str, str] = client.run(installed, on_error="return")
        except (OSError, ValueError, TypeError, ImportError) as e:
            raise UrlwardError(f"{address}: its workers do not answer: {type(e).__name__}") from e
        if not versions:
            raise UrlwardError(f"{address}: the cluster has no worker")
        for worker, version in versions.items():
            if version != installed():
                has = f"urlward {version}" if isinstance(version, str) else "no urlward that works"
                raise UrlwardError(f"{worker}: has {has}; {installed()} is needed on all workers")
        yield client
    finally:
        client.close(timeout=CONNECT_WITHIN)


def replay_on(
    client: "Client",
    logs: Sequence[Log],
    lists: Sequence[LoadedList],
    *,
    clock: Clock = "log",
    progress: Progress = silent,
) -> Replay:
    """Judge all lines of all logs on a cluster.

    Args:
        client: of it.
        logs: from `urlward.replay.run.open_logs`.
        lists: that are in force.
        clock: as of `LogJudge`.
        progress: called often.

    Raises:
        UrlwardError: a log cannot be read, or workers die of a piece again and again.
    """
    now, start = time.time(), time.monotonic()
    task = Task(secrets.token_hex(8), tuple(map(_sent, lists)), now, clock, secrets.token_bytes(32))
    pieces = [piece for number, log in enumerate(logs, 1) for piece in pieces_of(log, number)]
    try:
        with warnings.catch_warnings():  # of a task above 10 MB: lists are
            warnings.filterwarnings("ignore", "Sending large graph")
            sent = client.submit(given, task, pure=False)
        counts = _gathered(client, pieces, sent, progress)
    finally:
        client.run(forget, task.id, on_error="ignore")
    begins: dict[tuple[int, int], int] = {}
    for number, log in enumerate(logs, 1):
        log.lines = 0
        for index in sorted(index for one, index in counts.lines if one == number):
            begins[number, index] = log.lines
            log.lines += counts.lines[number, index]
        log.trouble = counts.troubles.get(number, "")
    for reason, (count, first) in counts.tally.bad.items():
        mask = (1 << _INDEX) - 1
        lines = [(log, begins[log, line >> _INDEX] + (line & mask)) for log, line in first]
        counts.tally.bad[reason] = count, lines
    if not any(log.format.second for log in logs):
        clock = "now"
    return Replay(counts.tally, logs, clock, now, time.monotonic() - start)


def _sent(one: LoadedList) -> SentList:
    data = bytes(one.artifact.sections[0].obj)
    return SentList(one.name, data, one.key.secret, one.guarded)


def _gathered(
    client: "Client", pieces: Sequence[Piece], task: "Future[Any]", progress: Progress
) -> PieceCounts:
    from distributed import as_completed

    futures: dict[Any, int] = {
        client.submit(judge_piece, piece, task, pure=False): piece.size for piece in pieces
    }
    level = list(futures)
    while len(level) > 1:
        level = [
            client.submit(joined, level[i : i + TOGETHER], pure=False) for i in range(0, len(level), TOGETHER)
        ]
    done, total = 0, max(sum(futures.values()), 1)
    try:
        for number, future in enumerate(as_completed(futures, loop=client.loop), 1):
            if future.status in ("error", "cancelled"):  # what is lost with its worker is judged again
                _fail(future)
            done += futures[future]
            progress(f"cluster: piece {number} of {len(pieces)}", done / total)
        (last,) = level
        try:
            counts: PieceCounts = last.result()
        except Exception:  # noqa: BLE001 - said below
            _fail(last)
        return counts
    finally:
        client.cancel([*futures, *level])


def _fail(future: "Future[Any]") -> None:
    """Raise what has become of a piece.

    Raises:
        UrlwardError: always.
    """
    error = future.exception()
    if isinstance(error, UrlwardError):
        raise error
    name = type(error).__name__
    if name == "KilledWorker":
        raise UrlwardError("workers of the cluster die of a piece again and again (out of memory?)")
    raise UrlwardError(f"a piece was not judged: {name}")
