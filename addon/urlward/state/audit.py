"""Audit log: who did or requested what, when and why, in a file that is only ever added to.

``audit.jsonl`` in the state folder has one JSON object a line. ``seq`` is the line's number in the file,
``prev`` the SHA-256 of the line before it with its end, ``hash`` that of the line itself without its last two
members, and ``sign`` an HMAC of that hash under a key derived from the state folder's own.

The chain is bound outside the file: ``audit.head`` beside it has the number and the SHA-256 of the last line,
and a counter of all heads that were signed, with an HMAC under the same key. Who may write the log but has
not the key can neither change, cut, empty, remove nor replace it without `verify` saying so. Who has the key
can make both anew, or put older ones in their place: that is told by copies of the heads that are kept
elsewhere (`urlward.commands.records`), or by a hash that somebody has noted.

A line goes to the disk before its head. What a crash leaves between the two is one signed line that follows
the head's, and no alarm: the next who writes signs it. Likewise a line that was cut short: the log's last
line, without an end, that begins as the line after the head's has to and is not whole. It was never written
as far as anybody was told, so the next who writes takes it off and says so. Anything else at the end is
damage.

A log of an urlward without heads is taken over once, with a line that says so. A log that is damaged is set
aside for good (`urlward.state.folder.set_aside`), and a new one is begun with a line that says so; so is a
damaged head. Either does not hold until who verifies it names a hash from then on that they know: whoever
changes a log could otherwise have that forgotten.
"""

import hashlib
import hmac
import json
import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

from urlward.engine.dates import time_text
from urlward.engine.digest import Key
from urlward.engine.errors import KeyFileError, UrlwardError
from urlward.progress import Progress, silent
from urlward.regular import MOST_LINE, open_regular, regular_fd
from urlward.state.folder import (
    StateError,
    append_private,
    is_damage,
    kept_key,
    local_key_in_lock,
    locked,
    made_folder,
    read_kept,
    set_aside,
    unusable,
    write_kept,
)

logger = logging.getLogger("urlward.lists")

FILE = "audit.jsonl"

HEAD = "audit.head"

ANEW = "begun-anew"
"""Action of the first line of a log whose predecessor is damaged."""

HEAD_ANEW = "head-anew"
"""Action of the line that follows those for which a head was lost."""

TAKEN_OVER = "taken-over"
"""Action of the line that follows those of an urlward that signed none."""

_MARKS = frozenset({ANEW, HEAD_ANEW, TAKEN_OVER})
"""Actions of lines that tell why those before them need no signature of this node's key."""

_VERSION = 1
_OWN = frozenset({"seq", "time", "prev", "hash", "sign"})
_HASH, _SIGN = b', "hash": "', b'", "sign": "'
_HASH_SIZE = len(_HASH) + 64 + len(b'"}')
_SIGNED_SIZE = len(_HASH) + 64 + len(_SIGN) + 64 + len(b'"}')
_BLOCK = 1 << 16
_EMPTY = hashlib.sha256(b"").hexdigest()
_TOKENS = re.compile(
    r"""
    (?: [ {}\[\]:,] | "(?:[ !\#-\[\]-~]|\\.)*+" | -?[0-9][0-9.eE+-]*+ | true | false | null )*+
    (?: "(?:[ !\#-\[\]-~]|\\.)*+\\?+ | - | tru | tr | t | fals | fal | fa | f | nul | nu | n )?+""",
    re.VERBOSE,
).fullmatch
"""Matches the tokens of a line of ours, which is ASCII, as far as it goes."""


class _DamagedError(StateError):
    """A damaged log; the argument says how."""


@dataclass(frozen=True, slots=True)
class Head:
    """Signed head of a node's log: its end.

    Attributes:
        seq: number of the last line; 0 of a log without one.
        end: what the next line has in ``prev``.
        hash: the last line's ``hash``; empty where it has none.
        time: the last line's, as it has it.
        counter: heads that were signed, this one included.
        owed: action and fields of the line that has to come next; empty where any may.
    """

    seq: int
    end: str
    hash: str = ""
    time: str = ""
    counter: int = 0
    owed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy of a head that was kept elsewhere; the attributes are those of `Head`."""

    seq: int
    hash: str
    time: str
    place: str


@dataclass(frozen=True, slots=True)
class Broken:
    """Break in the chain.

    Attributes:
        line: its number in the file, from 1; 0 where it is the file.
        reason: in words.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Report of `verify`.

    Attributes:
        lines: how many there are, or were looked at until the chain broke.
        unchained: how many of them are older than the chain.
        torn: numbers of those that were cut short as they were written.
        broken: the first that is not as it was written, None where the chain holds.
        head: the last line's ``hash``; empty where no line has one.
        has_known: whether the hash that was asked for is one of a line; True where none was asked for.
        anew: why a log or head was begun anew, after the name of what was set aside; empty where none was, or
            the hash that was asked for is one of a line from then on.
        taken: number of the line by which a log without signatures was taken over; 0 where it was not.
        unsigned: why nothing vouches for the log's end; empty where its head does.
        differs: what a copy that was kept elsewhere has, and the log has not; empty for nothing.
        copies: how many were compared.
    """

    lines: int
    unchained: int
    torn: tuple[int, ...]
    broken: Broken | None
    head: str
    has_known: bool
    anew: str = ""
    taken: int = 0
    unsigned: str = ""
    differs: str = ""
    copies: int = 0

    @property
    def holds(self) -> bool:
        """Whether the log is intact."""
        return (
            self.broken is None
            and self.has_known
            and not self.anew
            and not self.unsigned
            and not self.differs
        )


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
    """Append as `append`, for callers that hold the folder's lock (`locked`)."""
    if taken := _OWN & fields.keys():
        raise ValueError(f"{min(taken)}: is the log's own")
    return _Log(state, now).append(who, action, fields)


def mend_audit(state: Path, now: float) -> None:
    """Set a log aside that does not hold, and begin a new one; take over one that has no head; for processes
    that start. Never raises: what cannot be mended is said.

    Args:
        state: the state folder.
        now: seconds since 1970-01-01 UTC.
    """
    try:
        with locked(made_folder(state)):
            if os.path.lexists(state / FILE) or os.path.lexists(state / HEAD):
                _Log(state, now, whole=True)
    except UrlwardError as e:
        logger.error("audit: %s", e)
    except Exception as e:  # noqa: BLE001 - it would end the process
        # Whoever starts has more to do than this; what it met is in the log for good, and at each start.
        logger.error("audit: %s: not mended: %s: %s", state / FILE, type(e).__name__, e)


def signed_head(state: Path) -> Head | None:
    """Head of a log as it is now; None where none is signed; changes nothing."""
    key = kept_key(state)
    try:
        return _read_head(state, key, stays=True) if key is not None else None
    except StateError:
        return None


class _Log:
    """Log for writers that hold the folder's lock, mended where it was not as its head says.

    Args:
        state: the state folder.
        now: seconds since 1970-01-01 UTC.
        whole: whether every line is looked at, and not the last alone.

    Raises:
        StateError: it cannot be written.
    """

    def __init__(self, state: Path, now: float, *, whole: bool = False) -> None:
        self._state = state
        self._path = state / FILE
        self._now = now
        try:
            key = local_key_in_lock(state)
        except KeyFileError as e:
            raise StateError(str(e)) from e
        self._key = _signing(key)
        self._head = Head(0, _EMPTY)
        had = os.path.lexists(state / HEAD)
        try:
            if (head := _read_head(state, key)) is None:
                self._without_head(lost=had)
            else:
                self._head = head
                self._agree()
            if whole and (broken := _seen(_lines(self._path), self._key, self._head).broken):
                raise _DamagedError(_told(broken))
        except _DamagedError as e:
            self._begin_anew(str(e).removeprefix(f"{self._path}: "))

    def append(self, who: str, action: str, fields: Mapping[str, Any]) -> int:
        """Add a line; returns its number."""
        head = self._head
        time = time_text(self._now)
        line = {"seq": head.seq + 1, "time": time, "action": action, "who": who, **fields, "prev": head.end}
        body = json.dumps(line).encode()
        hash_ = _sha256(body)
        sign = _signature(self._key, hash_)
        whole = body[:-1] + _HASH + hash_.encode() + _SIGN + sign.encode() + b'"}'
        append_private(self._path, whole)
        self._sign(Head(head.seq + 1, _sha256(whole + b"\n"), hash_, time, head.counter))
        return head.seq + 1

    def _sign(self, head: Head) -> None:
        """Sign a head, and count it."""
        self._head = replace(head, counter=head.counter + 1)
        stored = asdict(self._head)
        write_kept(
            self._state / HEAD, _VERSION, "head", [stored | {"sign": _signature(self._key, _text(stored))}]
        )

    def _agree(self) -> None:
        """Reconcile the log's end with its head, after a crash between the two writes.

        Raises:
            _DamagedError: it was no crash that has.
        """
        head = self._head
        last, torn = _last_pieces(self._path)
        number = head.seq + 1
        if _sha256(last) != head.end and not (head.owed and _seen(_lines(self._path)).end == head.end):
            parsed = parsed_line(last) or {}
            if fault := _why_not_next(last or torn, parsed, head, self._key):
                raise _DamagedError(fault)
            self._sign(_after(head, last, parsed))
            number += 1
        self._cut(torn, number)
        if fields := dict(self._head.owed):
            self.append("", fields.pop("action"), fields)

    def _without_head(self, *, lost: bool) -> None:
        """Sign a log for the first time, or after its head was lost.

        Raises:
            _DamagedError: it is not one chain.
        """
        if not os.path.lexists(self._path):
            if lost:
                raise _DamagedError(f"gone, and {HEAD} damaged")
            self._sign(Head(0, _EMPTY))
            return
        seen = _seen(_lines(self._path))
        if seen.broken is not None:
            raise _DamagedError(_told(seen.broken))
        if not seen.lines and not seen.tail:
            raise _DamagedError("empty")
        self._cut(seen.tail, seen.lines + 1, chained=bool(seen.chained))
        owed: dict[str, Any] = {"action": TAKEN_OVER, "lines": seen.lines}
        if lost or seen.signed:
            why = f"{HEAD} was {'damaged' if lost else 'gone'}: lines may be missing before this one"
            owed = {"action": HEAD_ANEW, "why": why}
            logger.error("%s: %s", self._path, why)
        else:
            logger.warning(
                "%s: %d lines of an urlward that signed none are taken over", self._path, seen.lines
            )
        # The head goes first: a crash before the line that is owed leaves one that tells of it.
        self._sign(Head(seen.lines, seen.end, owed=owed))
        self._agree()

    def _begin_anew(self, reason: str) -> None:
        aside = None
        if os.path.lexists(self._path):
            aside = set_aside(self._state, self._path, reason, "a new log is begun")
        else:
            logger.error("%s: %s; a new log is begun", self._path, reason)
        owed = {"action": ANEW, "why": reason, "before": aside.name if aside else ""}
        self._sign(Head(0, _EMPTY, counter=self._head.counter, owed=owed))
        self._agree()

    def _cut(self, torn: bytes, number: int, *, chained: bool = True) -> None:
        """Truncate a line that a crash or a full disk cut short.

        Raises:
            _DamagedError: it is none.
            StateError: that cannot be.
        """
        if not torn:
            return
        if not _is_beginning(torn, number, chained=chained):
            raise _DamagedError(f"line {number} is not a line of this log")
        try:
            fd = regular_fd(self._path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                os.ftruncate(fd, os.fstat(fd).st_size - len(torn))
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as e:
            raise unusable(self._path, e) from e
        logger.warning(
            "%s: line %d was cut short as it was written: its %d bytes are taken off", self._path, number,
            len(torn),
        )  # fmt: skip


def _read_head(state: Path, key: Key, *, stays: bool = False) -> Head | None:
    """Read the signed head; None where there is none, or a damaged one that was set aside.

    Raises:
        StateError: it cannot be read, is of another version, or is damaged and stays.
    """
    signing = _signing(key)

    def made(stored: dict[str, Any]) -> Head:
        sign = stored.pop("sign")
        if sign != _signature(signing, _text(stored)):
            raise ValueError("not signed by this node")
        return Head(**stored)

    then = f"the log's end is signed anew, and {FILE} says so"
    found = read_kept(state / HEAD, _VERSION, "head", made, StateError, then, stays=stays)
    return found[0] if found else None


def _after(head: Head, line: bytes, parsed: Mapping[str, Any]) -> Head:
    """Head of a log with one more line."""
    return Head(head.seq + 1, _sha256(line), parsed["hash"], str(parsed["time"]), head.counter)


def _why_not_next(line: bytes, parsed: Mapping[str, Any], head: Head, key: bytes) -> str:
    """Reason why a log's last line is neither the head's nor the one after it; empty where it is the
    latter."""
    if not line:
        return f"its {head.seq} lines are gone"
    if not parsed or "prev" not in parsed:
        return "its last line is not a line of this log"
    if parsed.get("hash") != _own_hash(line):
        return "its last line was changed"
    if not _is_signed(parsed, key):
        return "its last line was not signed by this node"
    if (parsed.get("seq"), parsed["prev"]) != (head.seq + 1, head.end) or (
        head.owed and parsed.get("action") != head.owed["action"]
    ):
        return f"it ends with line {parsed.get('seq')}, and not with line {head.seq} that was signed last"
    return ""


def read_audit(state: Path) -> Iterator[dict[str, Any] | None]:
    """Read the lines in order; None for one that was cut short.

    Raises:
        StateError: unreadable.
    """
    for line in _lines(state / FILE):
        yield parsed_line(line)


def verify(
    state: Path, known: str = "", copies: Sequence[Copy] = (), progress: Progress = silent
) -> AuditReport:
    """Verify the whole log as it is when this is called; changes nothing, and nobody waits for it: what a
    worker or an operator has to write meanwhile is written behind.

    Args:
        state: the state folder.
        known: a ``hash`` that a line of the log is known to have, in hexadecimal.
        copies: of its heads, that were kept elsewhere.
        progress: told how far it is.

    Raises:
        StateError: unreadable, or no such folder.
    """
    with ExitStack() as stack:
        with locked(state):
            key = kept_key(state)
            head, unsigned = None, ""
            lines = _lines_now(stack, state / FILE, progress)
            if os.path.lexists(state / HEAD):
                try:
                    head = _read_head(state, key, stays=True) if key is not None else None
                    unsigned = "" if head is not None else "there is no key to check it with"
                except StateError:
                    unsigned = f"{HEAD} is damaged"
        seen = _seen(
            lines,
            _signing(key) if key is not None and head is not None else None,
            head,
            known.lower(),
            {copy.seq for copy in copies},
        )
    if head is None and not unsigned and (seen.lines or seen.tail):
        unsigned = f"{HEAD} is gone" if seen.signed else "it is of an urlward that signed nothing"
    # Others of before a line that somebody knows are of lines that it binds, or of a log that they know of.
    known_from = (seen.known_time, seen.known_at or 0)
    missing = [
        copy
        for copy in copies
        if (copy.time, copy.seq) > known_from and seen.hashes.get(copy.seq) != copy.hash
    ]
    return AuditReport(
        lines=seen.lines,
        unchained=seen.lines if not seen.chained else seen.chained - 1,
        torn=(*seen.torn, seen.lines + 1) if seen.tail and not seen.broken else tuple(seen.torn),
        broken=seen.broken,
        head=seen.head,
        has_known=seen.known_at is not None,
        anew="" if known and seen.known_at is not None and seen.known_at >= seen.anew_at else seen.anew,
        taken=seen.taken,
        unsigned=unsigned,
        differs=_differs(missing),
        copies=len(missing) + sum(seen.hashes.get(copy.seq) == copy.hash for copy in copies),
    )


def _differs(missing: Sequence[Copy]) -> str:
    """Describe the copies of heads that the log does not match."""
    if not missing:
        return ""
    last = max(missing, key=lambda copy: (copy.time, copy.seq))
    return (
        f"{last.place} has line {last.seq} of {last.time} with the hash {last.hash}, which this log has not: "
        "it was cut, or made anew"
    )


@dataclass(slots=True)
class _Seen:
    """State of a scan through a log, as far as it is intact.

    Attributes:
        lines: how many, without what is left of one at the end.
        end: what the next line has in ``prev``.
        tail: what is left at the end of a line that was cut short.
        torn: numbers of other lines that were.
        broken: where the chain does not hold.
        head: the last ``hash``.
        chained: number of the chain's first line; 0 for none.
        signed: whether a line has a signature.
        taken: number of the last `TAKEN_OVER`; 0 for none.
        anew: why a log or a head was begun anew the last time, `anew_at` in which line.
        known_at: number of the line that has the hash that is known, 0 where none is, None where none has.
        known_time: its time.
        hashes: of the lines that were asked for.
    """

    lines: int = 0
    end: str = _EMPTY
    tail: bytes = b""
    torn: list[int] = field(default_factory=list)
    broken: Broken | None = None
    head: str = ""
    chained: int = 0
    signed: bool = False
    taken: int = 0
    anew: str = ""
    anew_at: int = 0
    known_at: int | None = 0
    known_time: str = ""
    hashes: dict[int, str] = field(default_factory=dict)


def _seen(
    lines: Iterable[bytes],
    key: bytes | None = None,
    head: Head | None = None,
    known: str = "",
    wanted: Collection[int] = (),
) -> _Seen:
    """Scan a log.

    Args:
        lines: of it, as `_lines` has them.
        key: that lines are signed with; None where signatures are not looked at.
        head: that it has to end with, or one line before.
        known: see `verify`.
        wanted: numbers of lines whose hashes are asked for.

    Raises:
        _DamagedError: it cannot be read, and another could.
        StateError: it cannot be read.
    """
    seen = _Seen(known_at=None if known else 0)
    before, last = hashlib.sha256(), b""
    loose = 0
    for number, piece in enumerate(lines, 1):
        parsed = parsed_line(piece)
        line = _whole(piece)
        if parsed is None:
            if not _is_beginning(piece.removesuffix(b"\n"), number, chained=bool(seen.chained)):
                seen.broken = Broken(number, "is not a line of this log")
            elif piece is line:
                seen.torn.append(number)
            else:
                seen.tail = piece
                break
        elif "prev" in parsed or seen.chained:
            seen.broken = _fault(number, line, parsed, before.hexdigest())
        if seen.broken:
            seen.lines = number
            return seen
        good = parsed is not None and key is not None and "prev" in parsed and _is_signed(parsed, key)
        loose = loose or (0 if good else number)
        if parsed is not None and "prev" in parsed:
            seen.chained = seen.chained or number
            seen.head = parsed["hash"]
            seen.signed = seen.signed or "sign" in parsed
            if known and seen.head == known:
                seen.known_at, seen.known_time = number, str(parsed.get("time"))
            if number in wanted:
                seen.hashes[number] = seen.head
            if (action := str(parsed.get("action"))) in _MARKS and (good or key is None):
                loose = 0
                if action == TAKEN_OVER:
                    seen.taken = number
                else:
                    seen.anew_at = number
                    aside, why = str(parsed.get("before") or ""), str(parsed.get("why"))
                    seen.anew = ": ".join(filter(None, (aside, why)))
        if seen.chained:
            before = hashlib.sha256()
        before.update(line)
        seen.lines, seen.end, last = number, before.hexdigest(), line
    if head is not None and key is not None and not (head.owed and seen.end == head.end):
        if loose:
            seen.broken = Broken(loose, "was not signed by this node")
        elif seen.end != head.end and (fault := _why_not_next(last, parsed_line(last) or {}, head, key)):
            seen.broken = Broken(0, fault)
    return seen


def _told(broken: Broken) -> str:
    return f"line {broken.line} {broken.reason}" if broken.line else broken.reason


def _fault(number: int, line: bytes, parsed: dict[str, Any], before: str) -> Broken | None:
    if "prev" not in parsed or "hash" not in parsed:
        return Broken(number, "is not chained, and comes after lines that are")
    if parsed["hash"] != _own_hash(line):
        return Broken(number, "was changed")
    if parsed.get("seq") != number:
        return Broken(number, f"was written as line {parsed.get('seq')}: lines are missing, or were put in")
    if parsed["prev"] != before:
        return Broken(number, "was written after another line than the one that is before it")
    return None


def _last_pieces(path: Path) -> tuple[bytes, bytes]:
    """A log's last line with its end, and what comes after it of one that was cut short.

    Raises:
        _DamagedError: it is there and cannot be read, and another could.
        StateError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            size = at = file.seek(0, os.SEEK_END)
            tail = b""
            while at and size - at < 2 * MOST_LINE and tail.count(b"\n", 0, -1) < 2:
                at = max(0, at - _BLOCK)
                file.seek(at)
                tail = file.read(size - at)
    except FileNotFoundError:
        return b"", b""
    except OSError as e:
        raise _unreadable(path, e) from e
    pieces, torn = [*BytesIO(tail)], b""
    if pieces and not pieces[-1].endswith(b"\n") and parsed_line(pieces[-1]) is None:
        torn = pieces.pop()
    return (_whole(pieces[-1]) if pieces else b""), torn


def _lines(path: Path) -> Iterator[bytes]:
    with ExitStack() as stack:
        yield from _lines_now(stack, path)


def _lines_now(stack: ExitStack, path: Path, progress: Progress = silent) -> Iterator[bytes]:
    """A log's lines as of this call, whatever is appended or put in its place before they are read.

    Args:
        stack: closes the file.
        path: of it.
        progress: told how much of it is read.
    """
    try:
        file = stack.enter_context(open_regular(path))
        size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return iter(())
    except OSError as e:
        raise _unreadable(path, e) from e
    return _first_lines(path, file, size, progress)


def _first_lines(path: Path, file: BufferedReader, size: int, progress: Progress) -> Iterator[bytes]:
    left = size
    try:
        while left and (line := file.readline(min(MOST_LINE, left))):
            left -= len(line)
            yield line
            progress("verifying", 1 - left / size)
    except OSError as e:
        raise _unreadable(path, e) from e


def _unreadable(path: Path, error: OSError) -> StateError:
    return _DamagedError(str(unusable(path, error))) if is_damage(error) else unusable(path, error)


def _own_hash(line: bytes) -> str:
    """Hash that a line has to have in ``hash``."""
    bare = line.removesuffix(b"\n")
    size = _SIGNED_SIZE if bare[-_SIGNED_SIZE:].startswith(_HASH) else _HASH_SIZE
    return _sha256(bare[:-size] + b"}")


def _is_beginning(piece: bytes, number: int, *, chained: bool = True) -> bool:
    """Whether what is no line is the beginning of one, of that number: it begins as one, or as one of before
    the chain, and goes on with tokens of JSON, of which the last may be cut, but not to a whole object.

    Args:
        piece: without an end.
        number: of the line.
        chained: whether it comes after lines that are chained.
    """
    starts = [b'{"seq": %d, "time": "' % number, *([] if chained else [b'{"time": "'])]
    if not 0 < len(piece) < MOST_LINE or not any(piece.startswith(start[: len(piece)]) for start in starts):
        return False
    text = piece.decode("latin-1")
    if not _TOKENS(text):
        return False
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return True
    return False


def _whole(line: bytes) -> bytes:
    """Line to append, put on a line of its own where the log's last line has no end."""
    return line if line.endswith(b"\n") else line + b"\n"


def parsed_line(line: bytes) -> dict[str, Any] | None:
    """Parse a line; None for what is none, such as one that was cut short."""
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _is_signed(parsed: Mapping[str, Any], key: bytes) -> bool:
    """Whether a line, whose ``hash`` is its own, is signed."""
    return parsed.get("sign") == _signature(key, parsed["hash"])


def _signing(key: Key) -> bytes:
    """Key that a log is signed with."""
    return hashlib.blake2b(key=key.secret, digest_size=32, person=b"urlward audit").digest()


def _signature(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()


def _text(stored: Mapping[str, Any]) -> str:
    return json.dumps(stored, sort_keys=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
