import json
import stat
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urlward.lists.audit import FILE, append, append_in_lock, read_audit, verify
from urlward.lists.state import StateError, append_private, locked

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
    assert list(first) == ["seq", "time", "action", "who", "why", "prev", "hash"]
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


@pytest.mark.parametrize(
    ("change", "line", "reason"),
    [
        (_replace(1, b"case 1", b"case 9"), 2, "was changed"),
        (_replace(4, b"case 4", b"case 9"), 5, "was changed"),
        (_replace(2, b"}\n", b"\n"), 4, "after another line"),
        (_replace(2, b'"seq": 3', b'"seq":  3'), 3, "was changed"),
        (lambda lines: lines.pop(0), 1, "written as line 2"),
        (lambda lines: lines.pop(2), 3, "written as line 4"),
        (_swap, 2, "written as line 3"),
        (_insert(2, OLD), 3, "is not chained"),
        (_insert(2, b"\n"), 4, "written as line 3"),
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


def test_lines_of_before_the_chain_are_bound_by_its_first(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(OLD * 2)
    assert (verify(tmp_path).holds, verify(tmp_path).unchained) == (True, 2)
    assert append(tmp_path, "anna", "asked", NOW) == 3
    assert append(tmp_path, "anna", "asked", NOW) == 4
    report = verify(tmp_path)
    assert (report.holds, report.lines, report.unchained) == (True, 4, 2)
    path.write_bytes(path.read_bytes().replace(b"a-1", b"a-2", 1))
    report = verify(tmp_path)
    assert report.broken is not None
    assert report.broken.line == 3


@pytest.mark.parametrize("cut", [1, 2, 70, 150])
@pytest.mark.parametrize("before", [b"", OLD])
def test_a_line_that_was_cut_short(tmp_path: Path, cut: int, before: bytes) -> None:
    path = tmp_path / FILE
    path.write_bytes(before)
    written(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:-cut])
    lines = 3 + bool(before)
    torn = () if cut == 1 else (lines,)
    assert (verify(tmp_path).holds, verify(tmp_path).torn) == (True, torn)
    written(tmp_path, 2)
    report = verify(tmp_path)
    assert (report.broken, report.torn, report.lines) == (None, torn, lines + 2)
    assert [line is None for line in read_audit(tmp_path)].count(True) == len(torn)


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


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(StateError, match=r"audit\.jsonl: Is a directory"):
        append(tmp_path, "anna", "asked", NOW)
    with pytest.raises(StateError):
        verify(tmp_path)


def test_what_is_no_object_is_no_line_of_ours(tmp_path: Path) -> None:
    append_private(tmp_path / FILE, json.dumps([1]).encode())
    written(tmp_path, 1)
    report = verify(tmp_path)
    assert (report.holds, report.torn, report.unchained) == (True, (1,), 1)


def test_two_who_write_at_once(tmp_path: Path) -> None:
    context = get_context("fork")
    processes = [context.Process(target=written, args=(tmp_path, 20)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (verify(tmp_path).broken, verify(tmp_path).lines) == (None, 60)
