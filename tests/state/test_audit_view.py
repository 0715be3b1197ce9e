import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import urlward
from rows import each_row
from urlward.regular import MOST_LINE
from urlward.state import audit_view
from urlward.state.audit import FILE, append
from urlward.state.audit_view import TOPICS, Change, ChangeQuery, change_of, find_changes, search_changes
from urlward.state.folder import StateError

NOW = 1_795_600_000.0


def write(state: Path, count: int = 30) -> None:
    for number in range(count):
        action = ("allowed", "person-added", "accepted")[number % 3]
        more = {"feed": "hotline"} if action == "accepted" else {"name": f"p{number}"}
        append(state, ("Ann (dashboard)", "root (uid 0)")[number % 2], action, NOW + 60 * number, **more)


def lines(found: list[Change]) -> list[int]:
    return [change.line for change in found]


def test_the_newest_come_first_and_pages_follow_one_another(tmp_path: Path):
    write(tmp_path)
    pages: list[int] = []
    before = None
    while found := find_changes(tmp_path, ChangeQuery(limit=7, before=before)):
        pages += lines(found)
        before = found[-1].at
    assert pages == list(range(30, 0, -1))
    first = find_changes(tmp_path, ChangeQuery(limit=1))[0]
    assert first == Change(
        first.at, 30, "2026-11-25T10:15:40Z", "accepted", "root (uid 0)", {"feed": "hotline"}
    )
    assert first.topic == "lists"


@each_row(
    ("query", "expected"),
    [
        (ChangeQuery(topics=("people",)), range(29, 0, -3)),
        (ChangeQuery(topics=("people", "allows"), limit=3), (29, 28, 26)),
        (ChangeQuery(who="ANN"), range(29, 0, -2)),
        (ChangeQuery(who="nobody"), ()),
        (ChangeQuery(list="hotline"), range(30, 0, -3)),
        (ChangeQuery(list="hot"), ()),
        (ChangeQuery(since=NOW + 60 * 27), (30, 29, 28)),
        (ChangeQuery(until=NOW + 60 * 2), (2, 1)),
        (ChangeQuery(since=NOW + 60, until=NOW + 120), (2,)),
    ],
)
def test_lines_are_found(tmp_path: Path, query: ChangeQuery, expected: tuple[int, ...]):
    write(tmp_path)
    assert lines(find_changes(tmp_path, query)) == list(expected)


def test_a_search_looks_through_no_more_than_it_may_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path)
    size, within = (tmp_path / FILE).stat().st_size, 2_000
    monkeypatch.setattr(audit_view, "_BLOCK", 500)
    looked: list[int] = []
    monkeypatch.setattr(audit_view, "change_of", lambda *one: looked.append(1) or change_of(*one))
    assert search_changes(tmp_path, ChangeQuery(who="nobody", within=within))[0] == []
    assert len(looked) < 30 * (within + 1_000) / size
    found, before, searches = [], None, 0
    while before is not None or not searches:
        page, before = search_changes(tmp_path, ChangeQuery(topics=("people",), within=within, before=before))
        found += lines(page)
        searches += 1
    assert found == list(range(29, 0, -3))
    assert searches > 2
    # Where a page is full, what is left begins behind its last line.
    page, before = search_changes(tmp_path, ChangeQuery(limit=5, within=within))
    assert before == page[-1].at
    assert search_changes(tmp_path, ChangeQuery(limit=30)) == (find_changes(tmp_path, ChangeQuery()), None)


def test_a_page_does_not_shift_while_lines_are_added(tmp_path: Path):
    write(tmp_path)
    last = find_changes(tmp_path, ChangeQuery(limit=5))[-1]
    append(tmp_path, "Ann", "allowed", NOW)
    assert lines(find_changes(tmp_path, ChangeQuery(limit=2, before=last.at))) == [25, 24]


def test_what_was_cut_short_or_is_older_than_the_chain(tmp_path: Path):
    (tmp_path / FILE).write_bytes(
        b'{"time": "2020-01-01T00:00:00Z", "action": "allowed", "who": "x"}\n{"seq": 2, "ti\n'
    )
    found = find_changes(tmp_path, ChangeQuery())
    assert [(one.line, one.action, one.who) for one in found] == [(0, "", ""), (0, "allowed", "x")]
    assert find_changes(tmp_path, ChangeQuery(topics=("allows",))) == found[1:]


def test_no_log_is_no_line_and_one_that_cannot_be_read_is_said(tmp_path: Path):
    assert find_changes(tmp_path, ChangeQuery()) == []
    (tmp_path / FILE).mkdir()
    with pytest.raises(StateError, match=r"audit\.jsonl: Is a directory"):
        find_changes(tmp_path, ChangeQuery())


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50), st.data())
def test_lines_backwards_are_those_of_the_file(tmp_path_factory, texts, block, data):  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("lines") / FILE
    whole = b"\n".join(texts)
    path.write_bytes(whole)
    expected, at = [], 0
    for text in whole.split(b"\n"):
        expected.append((at, text))
        at += len(text) + 1
    expected = [(at, text) for at, text in reversed(expected) if text]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(audit_view, "_BLOCK", block)
        with path.open("rb") as file:
            assert list(audit_view._lines_backwards(file, None)) == expected
            if expected:
                place = data.draw(st.integers(0, len(expected) - 1))
                above = list(audit_view._lines_backwards(file, expected[place][0]))
                assert above == expected[place + 1 :]


def test_a_line_without_end_takes_no_memory(tmp_path: Path):
    with (tmp_path / FILE).open("wb") as file:
        file.write(b"x" * (5 * MOST_LINE))
    with (tmp_path / FILE).open("rb") as file:
        pieces = [piece for _, piece in audit_view._lines_backwards(file, None)]
    assert max(map(len, pieces)) <= MOST_LINE + (1 << 16)
    assert b"".join(reversed(pieces)) == b"x" * (5 * MOST_LINE)


def test_a_later_line_is_one(tmp_path: Path):
    append(tmp_path, "Ann", "something-new", NOW, list=["no", "text"], more={"a": 1})
    (found,) = find_changes(tmp_path, ChangeQuery())
    assert found.topic == ""
    assert json.dumps(found.fields) == '{"list": ["no", "text"], "more": {"a": 1}}'


def _actions() -> set[str]:
    """Actions that the source code has the log take."""
    found = set[str]()
    for path in Path(urlward.__file__).parent.rglob("*.py"):
        text = path.read_text()
        if "urlward.state.audit import" not in text and path.name != "audit.py":
            continue
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if name in ("append", "append_in_lock", "_audit", "tell_allow", "tell_own", "tell_hold"):
                found |= {
                    one.value
                    for one in call.args
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                }
                found |= {one.values[0].value for one in call.args if isinstance(one, ast.JoinedStr)}  # type: ignore[attr-defined]
    return found - {""}


def test_each_action_has_a_topic():
    known = [action for actions in TOPICS.values() for action in actions]
    assert len(known) == len({*known})
    found = _actions()
    assert {"allowed", "who", "person-added", "objection-"} <= found
    for action in found:
        assert any(one == action or (action.endswith("-") and one.startswith(action)) for one in known), (
            action
        )
