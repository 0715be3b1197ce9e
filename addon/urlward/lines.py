"""Log lines on the standard streams of a process that carries traffic, written without waiting.

A pipe whose reader has stopped, a terminal on which somebody has pressed Ctrl-S and the socket of a stalled
journal take nothing after some kilobytes, and whoever writes to them waits. So a thread writes to these, and
what it cannot get rid of is lost, and counted. Files are written to at once.
"""

import atexit
import json
import os
import select
import stat
import sys
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from threading import Condition, Thread
from typing import TextIO

MOST = 1000
"""Lines that wait to be written."""

END_WITHIN = 1.0
"""Seconds that they have for it when the process ends."""


class Lines:
    """Writer of lines to streams."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._lost = 0
        self._thread: Thread | None = None

    def write(self, line: str, stream: TextIO | None) -> None:
        """Write a line, at once or in a thread. Neither waits nor raises.

        Args:
            line: without its end.
            stream: where to; None, as Python has it for a closed one, for nowhere.
        """
        if stream is None:
            return
        try:
            fd = _that_may_wait(stream)
            if fd is None:
                # In one piece: several workers write to the same place.
                stream.write(f"{line}\n")
                stream.flush()
                return
            data = f"{line}\n".encode(stream.encoding, "backslashreplace")
        except (OSError, ValueError):
            return  # nobody reads any more; traffic is more important than the log
        with self._changed:
            if len(self._waiting) >= MOST:
                self._lost += 1
                return
            self._waiting.append((fd, data))
            self._changed.notify_all()
            if self._thread is None:
                thread = Thread(target=self._run, name="lines", daemon=True)
                with suppress(RuntimeError):  # none can be had now; the next line asks again
                    thread.start()
                    self._thread = thread

    def finish(self, within: float = END_WITHIN) -> None:
        """Wait until all is written, so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, within)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                fd, data = self._waiting[0]
            _write(fd, data)
            with self._changed:
                self._waiting.popleft()
                if self._lost and not self._waiting:
                    lost, self._lost = self._lost, 0
                    self._waiting.append((fd, f"log: {lost} lines are lost: nobody read them\n".encode()))
                self._changed.notify_all()


def _that_may_wait(stream: TextIO) -> int | None:
    """Descriptor of a stream that may make its writer wait; None for a file."""
    try:
        fd = stream.fileno()
    except OSError:  # of io.UnsupportedOperation
        return None
    return None if stat.S_ISREG(os.fstat(fd).st_mode) else fd


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:  # somebody who shares the stream has made it so
                select.select((), (fd,), ())
    except (OSError, ValueError):
        return


_lines = Lines()
atexit.register(_lines.finish)


def say(line: str, *, warning: bool = False) -> None:
    """Write a line to standard output, a warning to standard error; to the journal as such (sd-daemon(3)).
    Neither waits nor raises."""
    stream = sys.stderr if warning else sys.stdout
    level = "<4>" if warning and _is_journal(stream) else ""
    _lines.write("\n".join(f"{level}{plain(text)}" for text in line.split("\n")), stream)


def _is_journal(stream: TextIO | None) -> bool:
    """Whether a stream leads to systemd's journal, which a process that it began is told of."""
    try:
        there = os.fstat(stream.fileno()) if stream is not None else None
    except (OSError, ValueError):
        return False
    return there is not None and os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def plain(text: str) -> str:
    """Text as one line that a terminal shows and does not obey: what is not printable as an escape.

    Args:
        text: such as a URL out of somebody's log, or a file's name.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """A value as JSON that people read: letters of all languages as they are, and what is not printable as
    `plain` has it."""
    return plain(json.dumps(value, ensure_ascii=False))


def columns(rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> list[str]:
    """Lines of a table, its columns two spaces apart; those that have one of some names are flush right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(rows[0], row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def finish() -> None:
    """Wait until all lines are written, for a moment at most; for who ends the process without atexit."""
    _lines.finish()
