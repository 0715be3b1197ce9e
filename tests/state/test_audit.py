import fcntl
import itertools
import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import wait_for
from obstacles import permissions_hold
from rows import each_row
from urlward.state import audit
from urlward.state.audit import (
    FILE,
    HEAD,
    Copy,
    append,
    append_in_lock,
    mend_audit,
    read_audit,
    signed_head,
    verify,
)
from urlward.state.folder import StateError, append_private, locked

NOW = 1_764_064_000.9
OLD = b'{"time": "2026-11-25T09:46:40Z", "action": "allowed", "id": "a-1"}\n'


def written(state: Path, count: int) -> Path:
    for n in range(count):
        append(state, "anna (uid 0)", "asked", NOW + n, why=f"case {n}")
    return state / FILE


def test_lines_are_numbered_and_chained(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert [append(state, "anna", "asked", NOW, why="a case"), append(state, "", "expired", NOW)] == [1, 2]
    first, second = read_audit(state)
    assert first is not None
    assert second is not None
    assert list(first) == ["seq", "time", "action", "who", "why", "prev", "hash", "sign"]
    assert (first["seq"], first["time"], first["who"]) == (1, "2025-11-25T09:46:40Z", "anna")
    report = verify(state)
    assert report.holds
    assert (report.lines, report.unchained, report.torn, report.head) == (2, 0, (), second["hash"])
    assert verify(state, first["hash"].upper()).holds
    assert not verify(state, "0" * 64).holds
    assert stat.S_IMODE((state / FILE).stat().st_mode) == 0o600


def test_nothing_yet(tmp_path: Path) -> None:
    report = verify(tmp_path)
    assert (report.holds, report.lines, report.head) == (True, 0, "")
    assert list(read_audit(tmp_path)) == []
    assert not verify(tmp_path, "0" * 64).holds


def _swap(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def _replace(line: int, old: bytes, new: bytes) -> Callable[[list[bytes]], None]:
    def change(lines: list[bytes]) -> None:
        assert old in lines[line]
        lines[line] = lines[line].replace(old, new)

    return change


def _insert(line: int, new: bytes) -> Callable[[list[bytes]], None]:
    return lambda lines: lines.insert(line, new)


@each_row(
    ("change", "line", "reason"),
    [
        (_replace(1, b"case 1", b"case 9"), 2, "was changed"),
        (_replace(4, b"case 4", b"case 9"), 5, "was changed"),
        (_replace(2, b"}\n", b"\n"), 4, "after another line"),
        (_replace(2, b'"sign": "', b'"sign": "0'), 3, "was changed"),
        (_insert(5, b'{"junk"\n'), 6, "is not a line of this log"),
        (_insert(5, b'{"seq": 6, "time": "\n'), 6, "was not signed by this node"),
        (_replace(2, b'"seq": 3', b'"seq":  3'), 3, "was changed"),
        (lambda lines: lines.pop(0), 1, "written as line 2"),
        (lambda lines: lines.pop(2), 3, "written as line 4"),
        (_swap, 2, "written as line 3"),
        (_insert(2, OLD), 3, "is not chained"),
        (_insert(2, b"\n"), 3, "is not a line of this log"),
        (_insert(0, OLD), 2, "written as line 1"),
    ],
)
def test_what_was_changed_is_found(
    tmp_path: Path, change: Callable[[list[bytes]], None], line: int, reason: str
) -> None:
    path = written(tmp_path, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))
    report = verify(tmp_path)
    assert not report.holds
    assert report.broken is not None
    assert report.broken.line == line
    assert reason in report.broken.reason


def chained(path: Path, *lines: bytes) -> None:
    """Write lines as an urlward without heads did."""
    data = path.read_bytes() if path.exists() else b""
    for line in lines:
        seq = data.count(b"\n") + 1
        last = data[data.rfind(b"\n", 0, -1) + 1 :] if b'"prev"' in data else data
        fields = {"seq": seq, "time": "2025-11-25T09:46:40Z", "action": line.decode(), "who": ""}
        body = json.dumps(fields | {"prev": sha256(last).hexdigest()}).encode()
        data += body[:-1] + b', "hash": "' + sha256(body).hexdigest().encode() + b'"}\n'
    path.write_bytes(data)


@each_row("old", [b"", OLD * 2])
@each_row("by", ["append", "start"])
def test_a_log_of_an_urlward_without_heads_is_taken_over_once(
    tmp_path: Path, old: bytes, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / FILE
    path.write_bytes(old)
    chained(path, b"asked", b"asked")
    number = path.read_bytes().count(b"\n")
    before = verify(tmp_path)
    assert (before.broken, before.unsigned) == (None, "it is of an urlward that signed nothing")
    assert not before.holds
    if by == "start":
        mend_audit(tmp_path, NOW)
        mend_audit(tmp_path, NOW)
    assert append(tmp_path, "anna", "asked", NOW) == number + 2
    assert append(tmp_path, "anna", "asked", NOW) == number + 3
    assert caplog.messages == [f"{path}: {number} lines of an urlward that signed none are taken over"]
    report = verify(tmp_path)
    assert report.holds
    assert (report.lines, report.unchained, report.taken) == (number + 3, number - 2, number + 1)
    # They are bound by the line that took them over.
    path.write_bytes(path.read_bytes().replace(b"asked", b"ASKED", 1))
    assert not verify(tmp_path).holds


def test_lines_of_before_the_chain_are_bound_by_its_first(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(OLD * 2)
    assert append(tmp_path, "anna", "asked", NOW) == 4
    report = verify(tmp_path)
    assert (report.holds, report.lines, report.unchained, report.taken) == (True, 4, 2, 3)
    path.write_bytes(path.read_bytes().replace(b"a-1", b"a-2", 1))
    report = verify(tmp_path)
    assert report.broken is not None
    assert report.broken.line == 3


@each_row("cut", [1, 2, 70, 150])
def test_a_line_of_before_heads_that_was_cut_short(tmp_path: Path, cut: int) -> None:
    path = tmp_path / FILE
    chained(path, b"asked", b"asked")
    path.write_bytes(path.read_bytes()[:-cut] + b"\n" * (cut > 1))
    torn = () if cut == 1 else (2,)
    assert append(tmp_path, "anna", "asked", NOW) == 4
    report = verify(tmp_path)
    assert (report.holds, report.torn, report.lines) == (True, torn, 4)


def test_every_beginning_of_a_line_is_torn_and_is_taken_off_by_the_next_writer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, 2)
    kept, head = path.read_bytes(), (tmp_path / HEAD).read_bytes()
    append(tmp_path, "anna \u20ac", "asked", NOW, count=-1.5e-7, yes=True, no=[None, {"a": '\\"'}])
    line = path.read_bytes()[len(kept) :]
    caplog.clear()
    for size in [*range(1, 170), *range(170, len(line) - 2, 9), len(line) - 2]:
        path.write_bytes(kept + line[:size])
        (tmp_path / HEAD).write_bytes(head)
        report = verify(tmp_path)
        assert (report.holds, report.torn, report.lines) == (True, (3,), 2), line[:size]
        assert [row is None for row in read_audit(tmp_path)] == [False, False, True]
    assert caplog.messages == []
    assert append(tmp_path, "anna", "asked", NOW) == 3
    assert caplog.messages == [
        f"{path}: line 3 was cut short as it was written: its {len(line) - 2} bytes are taken off"
    ]
    report = verify(tmp_path)
    assert (report.holds, report.torn, report.lines) == (True, (), 3)


@each_row(
    "junk",
    [
        b"{", b'{"seq": 3', b'{"seq": 4, "time": "', b'{"seq": 3, "time": "\x80', b'{"time": "', b"x",
        b" ", b"{junk", b'{"seq": 3, "time": "x" junk', b'{"seq": 3, "time": "x"} {',
        b'{"seq": 3, "time": "x"}',
    ],
)  # fmt: skip
@each_row("end", [b"", b"\n"])
def test_junk_after_the_last_line_is_junk(tmp_path: Path, junk: bytes, end: bytes) -> None:
    path = written(tmp_path, 2)
    path.write_bytes(path.read_bytes() + junk + end)
    report = verify(tmp_path)
    begins = junk in (b"{", b'{"seq": 3') and not end
    assert report.holds == begins
    written(tmp_path, 1)
    assert bool(verify(tmp_path).anew) != begins


def test_no_byte_of_the_last_line_can_change(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    data = path.read_bytes()
    for at in range(data.index(b'{"seq": 3'), len(data) - 1):
        path.write_bytes(_flip(data, at, (1, 0x20, 0x80)[at % 3]))
        assert not verify(tmp_path).holds, at
    for size in range(0, len(data) - 1, 7):
        path.write_bytes(data[:size])
        assert not verify(tmp_path).holds, size


def rewritten(data: bytes, *, chain: bool) -> bytes:
    """As who may write the log, but has no key, writes it anew, with another name in it."""
    lines, last = list[bytes](), b""
    for line in data.splitlines():
        fields = json.loads(line.replace(b"anna", b"bert"))
        for name in ("hash", "sign", *(() if chain else ("prev", "seq"))):
            del fields[name]
        if not chain:
            last = json.dumps(fields).encode() + b"\n"
        else:
            body = json.dumps(fields | {"prev": sha256(last).hexdigest()}).encode()
            last = body[:-1] + b', "hash": "' + sha256(body).hexdigest().encode() + b'"}\n'
        lines.append(last)
    return b"".join(lines)


CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "rewritten": lambda data: rewritten(data, chain=True),
    "unchained": lambda data: rewritten(data, chain=False),
    "emptied": lambda _: b"",
    "deleted": lambda _: None,
    "shortened": lambda data: b"".join(data.splitlines(keepends=True)[:-1]),
    "lengthened": lambda data: data + rewritten(data, chain=True).splitlines(keepends=True)[-1],
    "begun anew": lambda data: data.splitlines(keepends=True)[0],
}


@each_row("change", CHANGES)
@each_row("then", ["verify", "append", "start"])
def test_who_has_no_key_can_change_nothing_unseen(tmp_path: Path, change: str, then: str) -> None:
    path = written(tmp_path, 4)
    counter = counted(tmp_path)
    if (data := CHANGES[change](path.read_bytes())) is None:
        path.unlink()
    else:
        path.write_bytes(data)
    report = verify(tmp_path)
    assert (report.holds, report.broken is not None) == (False, True)
    if then == "verify":
        return
    mend_audit(tmp_path, NOW) if then == "start" else append(tmp_path, "anna", "asked", NOW)
    append(tmp_path, "anna", "asked", NOW)
    report = verify(tmp_path)
    assert (report.holds, report.broken) == (False, None)
    assert report.anew
    assert counted(tmp_path) > counter, "it goes on over logs"
    assert verify(tmp_path, report.head).holds


def counted(state: Path) -> int:
    head = signed_head(state)
    assert head is not None
    return head.counter


HEADS: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "empty": lambda _: b"",
    "flipped": lambda data: data.replace(b'"counter": 4', b'"counter": 5'),
    "not signed": lambda data: data.replace(b'"sign": "', b'"sign": "0'),
    "noise": lambda _: b"\xff\x01" * 50,
}


@each_row("damage", HEADS)
@each_row("then", ["append", "start"])
def test_a_damaged_head_is_said_and_made_anew(
    tmp_path: Path, damage: str, then: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, 3)
    if (data := HEADS[damage]((tmp_path / HEAD).read_bytes())) is None:
        (tmp_path / HEAD).unlink()
    else:
        (tmp_path / HEAD).write_bytes(data)
    first = next(read_audit(tmp_path))
    assert first is not None
    report = verify(tmp_path)
    assert (report.holds, report.broken) == (False, None)
    assert report.unsigned == ("audit.head is gone" if data is None else "audit.head is damaged")
    assert not (tmp_path / "damaged").exists(), "who verifies changes nothing"
    mend_audit(tmp_path, NOW) if then == "start" else append(tmp_path, "anna", "asked", NOW)
    assert caplog.messages[-1].startswith(f"{path}: audit.head was ")
    assert (tmp_path / "damaged").exists() == (data is not None)
    written(tmp_path, 1)
    report = verify(tmp_path)
    assert (report.holds, report.broken, report.unsigned) == (False, None, "")
    assert report.anew.startswith("audit.head was ")
    assert not verify(tmp_path, first["hash"]).holds, "what came after it may be missing"
    assert verify(tmp_path, report.head).holds


def test_another_key_has_signed_nothing(tmp_path: Path) -> None:
    written(tmp_path, 3)
    for name in ("key", "key.copy"):
        (tmp_path / name).unlink()
    assert verify(tmp_path).unsigned == "there is no key to check it with"
    written(tmp_path, 1)
    report = verify(tmp_path)
    assert (report.broken, report.holds, report.lines) == (None, False, 5)
    assert verify(tmp_path, report.head).holds


@each_row("before", ["none", "old", "new", "emptied", "lost head"])
def test_a_crash_between_any_two_writes_is_no_alarm(tmp_path: Path, before: str) -> None:
    """A process that ends after each of its writes in turn: nothing but what was there before is told."""
    for stop in range(1, 9):
        state = tmp_path / str(stop)
        state.mkdir()
        if before == "old":
            chained(state / FILE, b"asked", b"asked")
        elif before != "none":
            written(state, 2)
        if before == "emptied":
            (state / FILE).write_bytes(b"")
        elif before == "lost head":
            (state / HEAD).unlink()
        ended = get_context("fork").Process(target=ends_after, args=(state, stop))
        ended.start()
        ended.join()
        if before not in ("emptied", "lost head"):
            report = verify(state)
            unsigned = "it is of an urlward that signed nothing" if before == "old" else ""
            assert (report.broken, report.anew, report.differs) == (None, "", ""), stop
            assert report.unsigned in ("", unsigned), stop
            assert report.holds or report.unsigned
        append(state, "anna", "asked", NOW)
        report = verify(state)
        assert report.broken is None
        assert bool(report.anew) == (before in ("emptied", "lost head")), stop
        assert verify(state, report.head).holds
        if ended.exitcode == 0:
            return
    pytest.fail("it never came to its end")


def ends_after(state: Path, stop: int) -> None:
    """Append a line, and end without another word after so many writes, or before that."""
    count = itertools.count(1)

    def counting(write: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*args: Any) -> None:
            write(*args)
            if next(count) == stop:
                os._exit(9)

        return wrapped

    audit.append_private = counting(audit.append_private)  # type: ignore[attr-defined]
    audit.write_kept = counting(audit.write_kept)  # type: ignore[attr-defined]
    append(state, "anna", "asked", NOW)


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """Killed at moments that nobody chose, it leaves a log that holds."""
    context = get_context("fork")
    for n in range(12):
        process = context.Process(target=written, args=(tmp_path, 100_000))
        process.start()
        more = verify(tmp_path).lines + n
        wait_for(lambda more=more: verify(tmp_path).lines > more, "lines")  # type: ignore[misc]
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        report = verify(tmp_path)
        assert (report.holds, report.broken) == (True, None)
    written(tmp_path, 1)
    report = verify(tmp_path)
    assert (report.holds, report.torn) == (True, ())


def test_a_copy_that_was_kept_elsewhere(tmp_path: Path) -> None:
    """Who has the key, or puts an older log with its head in place, is found out by a copy."""
    path = written(tmp_path, 2)
    old = [(file, file.read_bytes()) for file in (path, tmp_path / HEAD)]
    written(tmp_path, 2)
    head = signed_head(tmp_path)
    assert head is not None
    assert (head.seq, head.time) == (4, "2025-11-25T09:46:41Z")
    copies = [Copy(head.seq, head.hash, head.time, "elsewhere")]
    assert (verify(tmp_path, copies=copies).holds, verify(tmp_path, copies=copies).copies) == (True, 1)
    for file, data in old:
        file.write_bytes(data)
    assert verify(tmp_path).holds
    report = verify(tmp_path, copies=copies)
    assert not report.holds
    assert report.differs.startswith(f"elsewhere has line 4 of {head.time} with the hash {head.hash}")
    # What somebody knows of a line before it takes nothing of that away, of one after it all.
    assert not verify(tmp_path, report.head, copies).holds
    append(tmp_path, "anna", "asked", NOW + 60)
    report = verify(tmp_path, copies=copies)
    assert not report.holds
    known = verify(tmp_path, report.head, copies)
    assert (known.holds, known.copies) == (True, 0)


def test_long_lines(tmp_path: Path) -> None:
    for size in (1, 70_000, 200_000, 65_536):
        append(tmp_path, "anna", "asked", NOW, why="x" * size)
    assert (verify(tmp_path).broken, verify(tmp_path).lines) == (None, 4)


@given(fields=st.dictionaries(st.text(min_size=1).map(lambda name: f"x{name}"), st.text()), who=st.text())
def test_any_text(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, str], who: str) -> None:
    state = tmp_path_factory.mktemp("state")
    with locked(state):
        append_in_lock(state, who, "asked", NOW, **fields)
    written(state, 1)
    assert verify(state).holds
    line = next(iter(read_audit(state)))
    assert line is not None
    assert {name: line[name] for name in fields} == fields


def test_its_own_members_cannot_be_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^hash: "):
        append(tmp_path, "anna", "asked", NOW, hash="0")
    assert not (tmp_path / FILE).exists()


def test_where_it_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(StateError, match=r"audit\.jsonl: Is a directory"):
        verify(tmp_path)


def test_what_is_no_object_is_no_line_of_ours(tmp_path: Path) -> None:
    append_private(tmp_path / FILE, json.dumps([1]).encode())
    report = verify(tmp_path)
    assert report.broken is not None
    assert report.broken.line == 1


def _flip(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flipped at the end": (lambda data: _flip(data, len(data) - 100), "its last line was changed"),
    "flipped in the middle": (lambda data: _flip(data, data.index(b"case 1")), "line 2 was changed"),
    "empty": (lambda _: b"", "its 3 lines are gone"),
    "noise": (lambda _: b"\xff\x01" * 500, "its last line is not a line of this log"),
    "noise in the middle": (lambda data: b"\x80\n" + data, "line 1 is not a line of this log"),
}


@each_row("damage", DAMAGES)
@each_row("how", ["start", "append"])
def test_after_a_damaged_log_a_new_one_is_begun_that_says_so(
    tmp_path: Path, damage: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, 3)
    change, reason = DAMAGES[damage]
    damaged = change(path.read_bytes())
    path.write_bytes(damaged)
    if how == "start":
        mend_audit(tmp_path, NOW)
        mend_audit(tmp_path, NOW)
    elif "middle" in damage:
        return  # found at the next start, or by `verify`
    assert append(tmp_path, "anna", "asked", NOW) == 2
    (aside,) = (tmp_path / "damaged").iterdir()
    assert aside.read_bytes() == damaged
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{path}: {reason}; set aside as damaged/audit.jsonl.")
    first, last = read_audit(tmp_path)
    assert first is not None
    assert last is not None
    assert (first["seq"], first["action"]) == (1, "begun-anew")
    assert (first["before"], first["why"]) == (aside.name, reason)
    report = verify(tmp_path)
    assert (report.broken, report.lines, report.anew) == (None, 2, f"{aside.name}: {reason}")
    assert not report.holds, "whoever changed the old one would have that forgotten"
    assert verify(tmp_path, last["hash"]).holds


@each_row("damage", ["folder", "pipe", "unreadable"])
def test_one_that_cannot_be_read_is_set_aside(tmp_path: Path, damage: str) -> None:
    path = written(tmp_path, 1)
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.chmod(0)
    with permissions_hold():
        assert append(tmp_path, "anna", "asked", NOW) == 2
        assert not verify(tmp_path).holds


def test_a_log_that_holds_stays(tmp_path: Path) -> None:
    mend_audit(tmp_path / "none", NOW)
    path = written(tmp_path, 3)
    data = path.read_bytes()
    path.write_bytes(data + b'{"seq": 4, "ti')  # cut short
    mend_audit(tmp_path, NOW)
    assert path.read_bytes() == data


@each_row("action", [["asked"], {"asked": 1}, audit.ANEW])
def test_values_of_any_kind_keep_nobody_from_starting(
    tmp_path: Path, action: Any, caplog: pytest.LogCaptureFixture
) -> None:
    append(tmp_path, "anna", action, NOW, before=["a"], why={"b": 1})
    data = (tmp_path / FILE).read_bytes()
    mend_audit(tmp_path, NOW)
    assert caplog.messages == []
    assert (tmp_path / FILE).read_bytes() == data
    assert verify(tmp_path).broken is None


def test_what_was_not_thought_of_keeps_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, 1)

    def fails(*_: Any) -> None:
        raise TypeError("of no kind that is known")

    monkeypatch.setattr(audit, "_seen", fails)
    mend_audit(tmp_path, NOW)
    assert caplog.messages == [f"audit: {path}: not mended: TypeError: of no kind that is known"]


def test_one_of_before_the_chain_that_was_cut_short_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(OLD * 2 + OLD[:20])
    mend_audit(tmp_path, NOW)
    assert not (tmp_path / "damaged").exists()
    assert path.read_bytes().startswith(OLD * 2 + b'{"seq": 3, ')
    assert verify(tmp_path).holds


def test_whoever_verifies_waits_for_who_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's length and its head are of one time; it is read when others may write again."""
    written(tmp_path, 2)
    looked = audit._lines_now

    def look_locked(*args: Any) -> Iterator[bytes]:
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(folder)
        return looked(*args)

    monkeypatch.setattr(audit, "_lines_now", look_locked)
    assert verify(tmp_path).holds


def test_two_who_write_at_once(tmp_path: Path) -> None:
    context = get_context("fork")
    processes = [context.Process(target=written, args=(tmp_path, 20)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (verify(tmp_path).broken, verify(tmp_path).lines) == (None, 60)


def test_a_beginning_without_an_end_in_sight_is_junk(tmp_path: Path) -> None:
    path = written(tmp_path, 2)
    path.write_bytes(path.read_bytes() + b'{"seq": 3, "time": "' + b"x" * (3 << 20))
    assert not verify(tmp_path).holds
    written(tmp_path, 1)
    assert verify(tmp_path).anew


def test_nobody_waits_for_a_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker writes the end of an allow with traffic waiting."""
    written(tmp_path, 3)
    seen = audit._seen

    def meanwhile(lines: Iterator[bytes], *more: Any) -> Any:
        folder = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or whoever appends would wait
        os.close(folder)
        append(tmp_path, "ann", "meanwhile", NOW)
        return seen(lines, *more)

    monkeypatch.setattr(audit, "_seen", meanwhile)
    report = verify(tmp_path)
    monkeypatch.undo()
    assert report.holds
    assert report.lines == 3
    assert verify(tmp_path).lines == 4
