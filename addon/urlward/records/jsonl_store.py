"""Events as JSON Lines, in files that are begun anew when they are full.

``records.jsonl`` is written; ``records.jsonl.1`` is the one before it, and so on. Each line is an event as
`urlward.records.event.as_json` has it. What is written is on the disk before it counts as such. One line torn
by the end of the process or the machine is of events that were never acknowledged, and is cut off.
"""

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from urlward.config.records import StoreTable
from urlward.engine.errors import UrlwardError
from urlward.lists.state import locked, made_folder, write_private
from urlward.records.event import Event, as_json
from urlward.records.store import AbsentError, Age, StoreError

REMEMBERED = 100_000
"""Ids that are known again; what is sent twice is sent within far fewer."""

TAIL = 32 << 20
"""Bytes of each of the last two files from which ids are learned at the start."""

_NUMBER = re.compile(r"[1-9][0-9]{0,6}").fullmatch
_DAY_MS = 86_400_000
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class JsonlStore:
    """The files.

    Args:
        path: of the one that is written.
        max_size: bytes at which the next is begun.
        keep: files before it.

    Attributes:
        name: for messages.

    Raises:
        StoreError: they cannot be used.
    """

    def __init__(self, path: Path, max_size: int, keep: int) -> None:
        self.name = str(path)
        self._path = path
        self._max_size = max_size
        self._keep = keep
        self._known: OrderedDict[str, None] = OrderedDict()
        with self._told():
            made_folder(path.parent)
            with locked(path.parent):
                for file in (self._old(1), path):
                    for _, line in _lines_at_end(file):
                        self._remember(line["id"])

    def write(self, events: Sequence[Event]) -> None:
        """As `Store.write`. All are in one file, which may become larger by them than it is to be."""
        new = {event.id: event for event in events if event.id not in self._known}
        if not new:
            return
        data = "".join(f"{json.dumps(as_json(event), separators=(',', ':'))}\n" for event in new.values())
        with self._told(), locked(self._path.parent):
            if self._path.exists() and self._path.stat().st_size >= self._max_size:
                self._rotate()
            if not self._path.exists():
                write_private(self._path, b"")
            _append(self._path, data.encode())
        for id_ in new:
            self._remember(id_)

    def close(self) -> None:
        """Nothing is held between two writes."""

    def ages(self, holds: Collection[str] = ()) -> dict[str, Age]:
        """As `KeepingStore.ages`."""
        found: dict[str, Age] = {}
        with self._told():
            for file in (self._path, *map(self._old, self._numbers())):
                for _, line in _lines(file):
                    if line.get("reference") not in holds:
                        time = _time(line)
                        age = found.get(line["kind"], Age(0, time))
                        found[line["kind"]] = Age(age.count + 1, min(age.oldest, time))
        return found

    def purge(self, kind_days: Mapping[str, int], now_ms: int, holds: Collection[str] = ()) -> int:
        """As `KeepingStore.purge`: files that hold what is over are written anew without it, or go whole."""
        limits = {kind: now_ms - days * _DAY_MS for kind, days in kind_days.items()}

        def stays(line: Mapping[str, Any]) -> bool:
            limit = limits.get(line["kind"])
            return limit is None or line.get("reference") in holds or _time(line) >= limit

        deleted = 0
        with self._told():
            with locked(self._path.parent):
                self._sweep()
            number: int | None = 0
            while number is not None:
                # Writers wait for one file alone, and may rotate them between two. That gives them higher
                # numbers, so that upwards none is missed.
                with locked(self._path.parent):
                    deleted += _keep_only(self._old(number) if number else self._path, stays)
                number = next((n for n in self._numbers() if n > (number or 0)), None)
        return deleted

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _numbers(self) -> list[int]:
        """Of the files before the one that is written, the newest first; also those of a time when more were
        kept."""
        prefix = f"{self._path.name}."
        return sorted(
            int(number)
            for file in self._path.parent.iterdir()
            if file.name.startswith(prefix) and _NUMBER(number := file.name.removeprefix(prefix))
        )

    def _rotate(self) -> None:
        # A gap that a purge has left stops it, so that no more move than must.
        last = next((n for n in range(1, self._keep) if not self._old(n).exists()), self._keep)
        for number in range(last, 1, -1):
            self._old(number - 1).replace(self._old(number))
        self._path.replace(self._old(1))
        for number in self._numbers():
            if number > self._keep:
                self._old(number).unlink()

    def _sweep(self) -> None:
        """Remove what whoever was killed while it wrote a file anew has left."""
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
        except OSError as e:
            raise StoreError(f"{e.filename or self.name}: {e.strerror or e}") from e
        except UrlwardError as e:
            raise StoreError(str(e)) from e


def open_jsonl(table: StoreTable, state: Path, *, make: bool = True) -> JsonlStore:
    """The files of a configuration's table.

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
    return JsonlStore(path, table.max_size, table.keep)


def _append(path: Path, data: bytes) -> None:
    """Append whole lines or nothing."""
    fd = os.open(path, _APPEND, 0o600)
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
    """Where the last whole line ends; what is torn after it is cut off."""
    size = end = os.fstat(fd).st_size
    while end and not (found := os.pread(fd, min(end, 1 << 16), max(end - (1 << 16), 0))).endswith(b"\n"):
        end = max(end - (1 << 16), 0) + found.rfind(b"\n") + 1
    if end < size:
        os.ftruncate(fd, end)
    return end


def _keep_only(file: Path, stays: Callable[[Mapping[str, Any]], bool]) -> int:
    """Write a file anew without the lines that do not stay; returns how many those are."""
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


def _lines(file: Path, start: int = 0) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The events in a file from a position on; what is none is left out."""
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        return
    with opened:
        opened.seek(start)
        for line in opened:
            if not line.endswith(b"\n"):
                return  # torn
            try:
                found = json.loads(line)
                if isinstance(found["id"], str) and isinstance(found["kind"], str):
                    _time(found)
                    yield line, found
            except (ValueError, TypeError, KeyError, RecursionError):
                continue


def _lines_at_end(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return
    yield from _lines(file, max(size - TAIL, 0))


def _time(line: Mapping[str, Any]) -> int:
    return round(datetime.fromisoformat(line["time"]).timestamp() * 1000)
