"""The audit log: who did or asked what, when and why, in a file that is only ever added to.

``audit.jsonl`` in the state folder has one JSON object a line. ``seq`` is the line's number in the file,
``prev`` the SHA-256 of the line before it with its end, and ``hash`` that of the line itself without this
member. The first line of a chain has in ``prev`` the SHA-256 of all that the file had before, so that lines
of before the chain are bound too. A line that was changed, removed or put in is found by `verify`. Whoever
may write the file can also make all of it anew: only a hash that was kept elsewhere tells that.

A line that a crash or a full disk cut short stays as it is, and the next one is chained to it.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.lists.state import append_private, locked, made_folder, unusable

FILE = "audit.jsonl"

_OWN = frozenset({"seq", "time", "prev", "hash"})
_HASH = b', "hash": "'
_HASH_SIZE = len(_HASH) + 64 + len(b'"}')
_BLOCK = 1 << 16


class AuditError(UrlwardError):
    """An audit log that cannot be used as was asked."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Where the chain does not hold.

    Attributes:
        line: its number in the file, from 1.
        reason: in words.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found.

    Attributes:
        lines: how many there are, or were looked at until the chain broke.
        unchained: how many of them are older than the chain.
        torn: numbers of those that were cut short as they were written.
        broken: the first that is not as it was written, None where the chain holds.
        head: the last line's ``hash``; empty where no line has one.
        has_known: whether the hash that was asked for is one of a line; True where none was asked for.
    """

    lines: int
    unchained: int
    torn: tuple[int, ...]
    broken: Broken | None
    head: str
    has_known: bool

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the log."""
        return self.broken is None and self.has_known


def append(state: Path, who: str, action: str, now: float, **fields: Any) -> int:
    """Add a line, on the disk when this returns; makes the folder where there is none.

    Args:
        state: the state folder.
        who: did it; empty for urlward by itself.
        action: what, in one word.
        now: seconds since 1970-01-01 UTC.
        fields: what else is to be known, as JSON has it.

    Returns:
        The line's number.

    Raises:
        StateError: it cannot be written; then what it tells of must not be done.
    """
    with locked(made_folder(state)):
        return append_in_lock(state, who, action, now, **fields)


def append_in_lock(state: Path, who: str, action: str, now: float, **fields: Any) -> int:
    """As `append`, for who holds the folder's lock (`locked`)."""
    if taken := _OWN & fields.keys():
        raise ValueError(f"{min(taken)}: is the log's own")
    path = state / FILE
    seq, prev = _end(path)
    line = {"seq": seq + 1, "time": time_text(int(now)), "action": action, "who": who, **fields, "prev": prev}
    body = json.dumps(line).encode()
    append_private(path, body[:-1] + _HASH + _sha256(body).encode() + b'"}')
    return seq + 1


def read_audit(state: Path) -> Iterator[dict[str, Any] | None]:
    """The lines in order; None for one that was cut short.

    Raises:
        StateError: unreadable.
    """
    for line in _lines(state / FILE):
        yield _parsed(line)


def verify(state: Path, known: str = "") -> Report:
    """Go through the whole log.

    Args:
        state: the state folder.
        known: a ``hash`` that a line of the log is known to have, in hexadecimal.

    Raises:
        StateError: unreadable, or no such folder.
    """
    with locked(state):
        return _verified(_lines(state / FILE), known.lower())


def _verified(lines: Iterator[bytes], known: str) -> Report:
    before, head, chained = hashlib.sha256(), "", 0
    number, torn, has_known = 0, list[int](), not known
    broken: Broken | None = None
    for number, line in enumerate(lines, 1):
        parsed = _parsed(line)
        if parsed is None:
            torn.append(number)
        elif "prev" not in parsed and not chained:
            pass
        elif broken := _fault(number, line, parsed, before.hexdigest()):
            break
        else:
            chained = chained or number
            head = parsed["hash"]
            has_known = has_known or head == known
        if chained:
            before = hashlib.sha256()
        before.update(line)
    return Report(number, chained - 1 if chained else number, tuple(torn), broken, head, has_known)


def _fault(number: int, line: bytes, parsed: dict[str, Any], before: str) -> Broken | None:
    if "prev" not in parsed or "hash" not in parsed:
        return Broken(number, "is not chained, and comes after lines that are")
    if parsed["hash"] != _sha256(line.rstrip(b"\n")[:-_HASH_SIZE] + b"}"):
        return Broken(number, "was changed")
    if parsed.get("seq") != number:
        return Broken(number, f"was written as line {parsed.get('seq')}: lines are missing, or were put in")
    if parsed["prev"] != before:
        return Broken(number, "was written after another line than the one that is before it")
    return None


def _end(path: Path) -> tuple[int, str]:
    """The number of lines, and the hash that the next one has in ``prev``."""
    try:
        with path.open("rb") as file:
            line = _last_line(file)
            parsed = _parsed(line) if line.endswith(b"\n") else None
            if parsed is not None and "prev" in parsed and isinstance(parsed.get("seq"), int):
                return parsed["seq"], _sha256(line)
            file.seek(0)
            return _counted(file)
    except FileNotFoundError:
        return 0, _sha256(b"")
    except OSError as e:
        raise unusable(path, e) from e


def _counted(file: BinaryIO) -> tuple[int, str]:
    """As `_end`, by all lines: after those that are not chained, and one that was cut short."""
    before, number, chained = hashlib.sha256(), 0, False
    for number, line in enumerate(file, 1):  # noqa: B007
        parsed = _parsed(line)
        chained = chained or (parsed is not None and "prev" in parsed)
        if chained:
            before = hashlib.sha256()
        before.update(_whole(line))
    return number, before.hexdigest()


def _last_line(file: BinaryIO) -> bytes:
    size = at = file.seek(0, os.SEEK_END)
    tail = b""
    while at and b"\n" not in tail[:-1]:
        at = max(0, at - _BLOCK)
        file.seek(at)
        tail = file.read(size - at)
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            for line in file:
                yield _whole(line)
    except FileNotFoundError:
        return
    except OSError as e:
        raise unusable(path, e) from e


def _whole(line: bytes) -> bytes:
    """The next line begins on a line of its own, so that one without an end gets one."""
    return line if line.endswith(b"\n") else line + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
