"""Event store of JSON Lines files, which are rotated when they are full.

``records.jsonl`` is written; ``records.jsonl.1`` is the one before it, and so on. Each line is an event as
`urlward.records.event.as_json` has it. What is written is on the disk before it counts as such. One line torn
by the end of the process or the machine is of events that were never acknowledged, and is cut off.
"""

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from urlward.config.records import StoreTable
from urlward.engine.errors import UrlwardError
from urlward.records.event import HITS, VERSIONS, Event, as_json, from_json, time_of
from urlward.records.holds import held_references
from urlward.records.store import AbsentError, Age, Inode, ReplacedError, StoreError, identity
from urlward.regular import lines_of, open_regular, read_regular, regular_fd
from urlward.state.folder import StateError, locked, made_folder, write_private
from urlward.units import DAY_MS

REMEMBERED = 100_000
"""Ids that are known again; what is sent twice is sent within far fewer."""

TAIL = 32 << 20
"""Bytes of each of the last two files from which ids are learned at the start."""

_NUMBER = re.compile(r"[1-9][0-9]{0,6}").fullmatch
_REFERENCE = re.compile(rb'"reference":\s*"([ -~]*?)"').search
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW


class JsonlStore:
    """JSON Lines store: the current file, and rotated ones.

    Args:
        path: of the one that is written.
        max_size: bytes at which the next is begun.
        keep: files before it.
        holds: references whose evidence stays when the oldest file goes.

    Attributes:
        name: for messages.

    Raises:
        StoreError: they cannot be used.
    """

    def __init__(
        self, path: Path, max_size: int, keep: int, holds: Callable[[], Collection[str]] = tuple
    ) -> None:
        self.name = str(path)
        self._path = path
        self._max_size = max_size
        self._keep = keep
        self._holds = holds
        self._known: OrderedDict[str, None] = OrderedDict()
        self._mark = path.with_name(f".{path.name}.purged")
        with self._told():
            made_folder(path.parent)
            with locked(path.parent):
                for file in (self._old(1), path):
                    for _, line in _lines_at_end(file):
                        self._remember(line["id"])
                # Whatever is torn at its end will be cut off.
                self._seen = identity(path)[0], 0

    def write(self, events: Sequence[Event]) -> None:
        """As `Store.write`. A batch is written to one file, which may exceed its size by it."""
        new = {event.id: event for event in events if event.id not in self._known}
        if not new:
            return
        data = "".join(f"{json.dumps(as_json(event), separators=(',', ':'))}\n" for event in new.values())
        with self._told():
            made_folder(self._path.parent)
            with locked(self._path.parent):
                self._check()
                if self._path.exists() and self._path.stat().st_size >= self._max_size:
                    self._rotate()
                if not self._path.exists():
                    write_private(self._path, b"")
                self._seen = identity(self._path)[0], 0
                _append(self._path, data.encode())
                # What has gone to a file that was removed meanwhile is nowhere.
                self._check()
        for id_ in new:
            self._remember(id_)

    def check(self) -> None:
        """As `Store.check`."""
        with self._told(), locked(self._path.parent):
            self._check()

    def _check(self) -> None:
        """As `check`, while the folder is locked."""
        seen, self._seen = self._seen, self._look()
        # An inode's number may be given to the next file, which is shorter then.
        if seen[0] is None or (seen[0] == self._seen[0] and seen[1] <= self._seen[1]):
            return
        # Who has only looked since leaves the mark to whoever writes.
        by_purge = self._purged()
        with suppress(OSError):
            self._mark.unlink()
        if seen[0] not in by_purge[:-1] or by_purge[-1] != self._seen[0]:
            self._known.clear()
            raise ReplacedError(f"{self._path}: was deleted, moved, cut or replaced by another program")

    def _look(self) -> tuple[Inode, int]:
        """Identity and size of the file that is written."""
        return identity(self._path)[0], self._path.stat().st_size if self._path.exists() else 0

    def _purged(self) -> list[Inode]:
        """Identities of the file, in turn, as purges that were not taken note of yet rewrote it."""
        try:
            found = json.loads(read_regular(self._mark))
            return [None if one is None else (one[0], one[1]) for one in found]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, LookupError):
            return [None]

    def close(self) -> None:
        """As `Store.close`; nothing is open between two writes."""

    def ages(self, holds: Collection[str] = ()) -> dict[str, Age]:
        """As `KeepingStore.ages`."""
        found: dict[str, Age] = {}
        with self._told():
            is_held = self._held_by(holds)
            for file in self._files():
                for _, line in _lines(file):
                    if not is_held(line):
                        time = time_of(line)
                        age = found.get(line["kind"], Age(0, time))
                        found[line["kind"]] = Age(age.count + 1, min(age.oldest, time))
        return found

    def evidence(self, references: Collection[str]) -> list[Event]:
        """As `KeepingStore.evidence`."""
        with self._told():
            is_held = self._held_by(references)
            found = (line for file in self._files() for _, line in _lines(file) if is_held(line))
            return [*map(from_json, found)]

    def _held_by(self, references: Collection[str]) -> Callable[[Mapping[str, Any]], bool]:
        """Predicate of a line: whether it is evidence of a reference."""
        if not references:
            return lambda _: False
        hits = (line for file in self._files() for _, line in _lines(file, having=references))
        versions = {_version(line) for line in hits if line["kind"] in HITS and line.get("serial")}

        def is_held(line: Mapping[str, Any]) -> bool:
            if line["kind"] in VERSIONS and _version(line) in versions:
                return True
            return line.get("reference") in references

        return is_held

    def _files(self) -> list[Path]:
        return [self._path, *map(self._old, self._numbers())]

    def purge(
        self,
        kind_days: Mapping[str, int],
        now_ms: int,
        holds: Collection[str] = (),
        node: str = "",  # noqa: ARG002 - nobody else writes to these files
    ) -> int:
        """As `KeepingStore.purge`: files with expired events are rewritten without them, or deleted."""
        limits = {kind: now_ms - days * DAY_MS for kind, days in kind_days.items()}

        def stays(line: Mapping[str, Any]) -> bool:
            limit = limits.get(line["kind"])
            return limit is None or time_of(line) >= limit or is_held(line)

        deleted = 0
        with self._told():
            before = frozenset(self._holds())
            is_held = self._held_by(holds)
            with locked(self._path.parent):
                self._sweep()
            number: int | None = 0
            while number is not None:
                # Writers wait for one file alone, and may rotate them between two. That gives them higher
                # numbers, so that upwards none is missed.
                with locked(self._path.parent):
                    if new := frozenset(self._holds()) - before:  # held since this began
                        is_held = self._held_by({*holds, *new})
                    deleted += self._keep_only(number or 0, stays)
                number = next((n for n in self._numbers() if n > (number or 0)), None)
        return deleted

    def _keep_only(self, number: int, stays: Callable[[Mapping[str, Any]], bool]) -> int:
        """Rewrite a file as the function of this name; the mark tells whoever writes to the first."""
        if number:
            return _keep_only(self._old(number), stays)
        before = identity(self._path)[0]
        deleted = _keep_only(self._path, stays)
        after = identity(self._path)[0]
        if after != before:
            marked = self._purged()
            if not marked or marked[-1] != before:
                marked = [before]
            with suppress(StateError):  # then the purge is told as if it were another program's
                write_private(self._mark, json.dumps([*marked, after]).encode())
        return deleted

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _numbers(self) -> list[int]:
        """Numbers of the rotated files, the newest first; also those from a time when more were kept."""
        return list(numbered(self._path))

    def _rotate(self) -> None:
        # A gap that a purge has left stops it, so that no more move than must.
        last = next((n for n in range(1, self._keep) if not self._old(n).exists()), self._keep)
        try:
            self._drop([n for n in self._numbers() if n > self._keep or n == last == self._keep])
        except UrlwardError:
            # Nothing is dropped while it is not known what is held.
            last = next(n for n in count(1) if not self._old(n).exists())
        for number in range(last, 1, -1):
            self._old(number - 1).replace(self._old(number))
        self._path.replace(self._old(1))

    def _drop(self, numbers: Sequence[int]) -> None:
        """Delete old files, except held events in them, which go to one file beyond those that are kept."""
        holds = self._holds() if numbers else ()
        is_held = self._held_by(holds)
        oldest_first = map(self._old, reversed(numbers)) if holds else ()
        # Whoever was killed between the two has some lines twice.
        kept = dict.fromkeys(raw for file in oldest_first for raw, line in _lines(file) if is_held(line))
        if kept:
            write_private(self._old(self._keep + 1), b"".join(kept))
        for number in numbers:
            if number != self._keep + 1 or not kept:
                self._old(number).unlink()

    def _sweep(self) -> None:
        """Delete temporary files of processes that were killed while they rewrote a file."""
        for file in self._path.parent.iterdir():
            if file.name.startswith(f".{self._path.name}") and file.name.endswith(".tmp"):
                file.unlink()

    def _remember(self, id_: str) -> None:
        self._known[id_] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except ReplacedError:
            raise
        except OSError as e:
            raise StoreError(f"{e.filename or self.name}: {e.strerror or e}") from e
        except UrlwardError as e:
            raise StoreError(str(e)) from e


def open_jsonl(table: StoreTable, state: Path, *, make: bool = True) -> JsonlStore:
    """Open the JSON Lines store of a configuration's table.

    Args:
        table: of kind ``jsonl``.
        state: the state folder.
        make: whether the folder is made where it is not there.

    Raises:
        AbsentError: it is not there, and is not to be made.
        StoreError: they cannot be used.
    """
    path = state / table.file
    if not make and not path.parent.exists():
        raise AbsentError(f"{path}: not there: nothing has been recorded yet")
    # Also those that are over: by a clock that is wrong for a while no hold ends. Purging goes by the time.
    return JsonlStore(path, table.max_size, table.keep, lambda: held_references(state, 0))


def numbered(path: Path) -> dict[int, Path]:
    """Files before the one that is written, by their numbers, the newest first.

    Raises:
        OSError: the folder cannot be read.
    """
    prefix = f"{path.name}."
    found = {
        int(number): file
        for file in path.parent.iterdir()
        if file.name.startswith(prefix) and _NUMBER(number := file.name.removeprefix(prefix))
    }
    return dict(sorted(found.items()))


def _append(path: Path, data: bytes) -> None:
    """Append whole lines, or nothing."""
    fd = regular_fd(path, _APPEND)
    try:
        size = _end_of_lines(fd)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        except BaseException:
            os.ftruncate(fd, size)
            raise
    finally:
        os.close(fd)


def _end_of_lines(fd: int) -> int:
    """Offset where the last whole line ends; what is torn after it is cut off."""
    size = end = os.fstat(fd).st_size
    while end and not (found := os.pread(fd, min(end, 1 << 16), max(end - (1 << 16), 0))).endswith(b"\n"):
        end = max(end - (1 << 16), 0) + found.rfind(b"\n") + 1
    if end < size:
        os.ftruncate(fd, end)
    return end


def _keep_only(file: Path, stays: Callable[[Mapping[str, Any]], bool]) -> int:
    """Rewrite a file without the lines that are not kept; returns how many those are."""
    before, kept = 0, []
    for raw, line in _lines(file):
        before += 1
        if stays(line):
            kept.append(raw)
    if before and not kept:
        file.unlink()
    elif len(kept) < before:
        write_private(file, b"".join(kept))
    return before - len(kept)


def _version(line: Mapping[str, Any]) -> tuple[str, int]:
    """List and serial that an event is of."""
    return line.get("list", ""), line.get("serial", 0)


def _lines(
    file: Path, start: int = 0, having: Collection[str] | None = None
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The events in a file from a position on, those with a reference of some where these are given; what is
    none is left out."""
    try:
        opened = open_regular(file)
    except FileNotFoundError:
        return
    with opened:
        opened.seek(start)
        for line in lines_of(opened):
            if not line.endswith(b"\n"):
                continue  # torn, or a piece of what is no line of ours
            if having is not None and ((said := _REFERENCE(line)) is None or said[1].decode() not in having):
                continue  # far sooner than by reading it
            try:
                found = json.loads(line)
                if isinstance(found["id"], str) and isinstance(found["kind"], str):
                    time_of(found)
                    yield line, found
            except (ValueError, TypeError, KeyError, RecursionError):
                continue


def _lines_at_end(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return
    yield from _lines(file, max(size - TAIL, 0))
