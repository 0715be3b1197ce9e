"""Own entries: what an operator types, what it stands for, and what is kept of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from obstacles import audit_on_a_full_disk
from rows import each_row
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.grammar import parse_line
from urlward.policy import own
from urlward.policy.own import (
    LEARNED,
    Learned,
    Meant,
    add_own,
    draft,
    learn_own,
    line_of,
    own_entries,
    own_row,
    remove_own,
    reveal_own,
    warnings_of,
)
from urlward.state.folder import StateError, local_key

NOW = 1_800_000_000.0
URL = "https://www.listed.example/a/b%20c.html?x=1#top"


def add(state: Path, text: str = "listed.example", **more: Any) -> str:
    return add_own(state, local_key(state), draft(text, **more), "ann", now=NOW).id


@each_row(
    ("text", "meant", "line"),
    [
        ("listed.example", "entry", "listed.example"),
        ("  @@http://listed.example/x nocase ", "entry", "@@http://listed.example/x nocase"),
        (URL, "page", "http://listed.example/a/b%20c.html?x=1"),
        (URL, "below", "http://listed.example/a/*"),
        ("listed.example", "below", "http://listed.example/*"),
        (URL, "host", "www.listed.example"),
        ("listed.example", "page", "listed.example"),
        ("http://listed.example/a*b/", "below", "http://listed.example/a%2Ab/*"),
        ("http://listed.example:8080/a/b", "below", "http://listed.example/a/* port=8080"),
    ],
)
def test_what_it_stands_for(text: str, meant: Meant, line: str) -> None:
    made = draft(text, meant)
    assert parse_line(made.line) == parse_line(line)
    allowed = draft(text, meant, allow=True).entry
    assert allowed == made.entry._replace(allow=True)


@each_row(
    ("given", "told"),
    [
        ({"text": ""}, "not one entry"),
        ({"text": "# x"}, "not one entry"),
        ({"text": "0.0.0.0 a.example b.example"}, "not one entry"),
        ({"text": "http://"}, "not an entry: "),
        ({"text": "http://", "meant": "page"}, "not a URL or host"),
        ({"text": "http://", "meant": "below"}, "not a URL or host"),
        ({"text": "10.0.0.0/8", "meant": "below"}, "a network"),
        ({"text": "a.example id=1"}, "they have fields of their own"),
        ({"text": "a.example category=x"}, "they have fields of their own"),
        ({"text": "a.example expires=2030-01-01"}, "they have fields of their own"),
        ({"text": "a.example", "category": "a b"}, "category: "),
        ({"text": "a.example", "expires": "soon"}, "expires: "),
        ({"text": "a.example", "note": "as of a.example"}, "note: names the host"),
        ({"text": "http://a.example/x", "note": "see http://b.example/"}, "has a URL in it"),
        ({"text": "a.example", "note": "two\nlines"}, "one line"),
        ({"text": f"md5:{'0123456789abcdef' * 2}", "note": "of 0123456789AB"}, "note: has a digest in it"),
        ({"text": f"md5:{'0123456789abcdef' * 2}", "meant": "page"}, "not a URL"),
        ({"text": "http://a.example/a/b/.", "meant": "page", "allow": True}, "for more than one page"),
        ({"text": "http://a.example/#/b/5"}, "behind #"),
        ({"text": "http://a.example/b#!5", "meant": "page"}, "behind #"),
        ({"text": f"@@pdq:{'0f' * 32} distance=3"}, "distance goes with no exception"),
    ],
)
def test_what_does_not_fit(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UrlwardError) as refused:
        draft(**given)
    assert told in str(refused.value)
    assert "a.example" not in str(refused.value)


@each_row(
    ("text", "warned"),
    [
        ("listed.example", ""),
        ("http://bank.example/x", ""),
        ("192.0.2.7", ""),
        ("192.0.2.0/24", ""),
        ("10.0.0.0/8", "16777216 addresses"),
        ("example.*", "every public suffix"),
        ("*/gallery/one-two/*", "every host"),
        ("co.uk", "public suffix"),
        ("bank.example", "protected"),
        ("http://bank.example/*", "all pages"),
        ("http://bank.example/", ""),
        ("127.0.0.1", "protected"),
        ("127.0.0.0/25", "protected"),
        ("::1", "protected"),
        ("192.0.2.1", ""),
        ("@@bank.example", ""),
        ("@@10.0.0.0/8", ""),
    ],
)
def test_what_is_wide_or_protected_is_told(text: str, warned: str) -> None:
    found = warnings_of(draft(text), {"bank.example", "127.0.0.0", "127.0.0.1", "[::1]"}.__contains__)
    assert bool(found) == bool(warned)
    assert warned in "; ".join(found)
    assert "bank" not in "; ".join(found)


def test_nothing_that_is_kept_names_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    id_ = add(
        state, "http://listed.example/secret-page", category="games", note="case 7", expires="2030-01-31"
    )
    for path in state.rglob("*"):
        assert path.is_dir() or b"listed" not in path.read_bytes()
        assert path.is_dir() or b"secret-page" not in path.read_bytes()
    (kept,) = own_entries(state)
    assert own_row(kept) == {
        "id": id_, "action": "block", "kind": "page", "category": "games", "note": "case 7",
        "expires": "2030-01-31", "created": "2027-01-15T08:00:00Z", "who": "ann",
    }  # fmt: skip
    line = f"http://listed.example/secret-page id={id_} category=games expires=2030-01-31"
    assert line_of(kept, local_key(state)) == line
    assert reveal_own(state, local_key(state), id_, "ben", now=NOW) == line
    remove_own(state, id_, "over", "ben", now=NOW)
    assert own_entries(state) == []
    told = [json.loads(text) for text in (state / "audit.jsonl").read_text().splitlines()]
    assert [(one["action"], one["who"], one["id"]) for one in told] == [
        ("own-added", "ann", id_), ("own-revealed", "ben", id_), ("own-removed", "ben", id_),
    ]  # fmt: skip
    assert "listed" not in json.dumps(told)


def test_the_same_is_added_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    id_ = add(state, "http://listed.example/a?x=1&y=2")
    with pytest.raises(UrlwardError, match=f"it is there already: {id_}"):
        add(state, "https://www.listed.example/a?y=2&x=1")
    add(state, "@@http://listed.example/a?x=1&y=2")
    with pytest.raises(UrlwardError, match="no own entry"):
        remove_own(state, "o-1", "over", "ann", now=NOW)


@pytest.mark.parametrize(
    ("line", "digest"),
    [
        ("listed.example", "a3a6bbf621e3eb6c69c65f9ce3d4637c"),
        (
            "@@http://listed.example/a?x=1&y=2 nocase port=81 subdomains",
            "b1d53285bf218a26973a18b382893682",
        ),
    ],
)
def test_what_is_kept_is_known_again_whatever_entries_come_to_have(line: str, digest: str) -> None:
    assert own._digest(parse_line(line)[0], Key(bytes(range(32)))) == digest, "those in own.json are such"


def test_a_file_is_an_own_entry_as_any(tmp_path: Path) -> None:
    state = tmp_path / "state"
    id_ = add(state, f"pdq:{'0f' * 32} distance=10", note="case 7")
    with pytest.raises(UrlwardError, match=f"it is there already: {id_}"):
        add(state, f"pdq:{'0F' * 32}")
    add(state, f"@@pdq:{'0f' * 32}")
    add(state, f"md5:{'0123456789abcdef' * 2}", category="csam", expires="2030-01-31")
    assert [(one.action, one.kind) for one in own_entries(state)] == [
        ("block", "file"), ("allow", "file"), ("block", "file"),
    ]  # fmt: skip
    assert all(b"0f0f0f" not in path.read_bytes() for path in state.rglob("*") if path.is_file())
    line = f"pdq:{'0f' * 32} distance=10 id={id_}"
    assert reveal_own(state, local_key(state), id_, "ben", now=NOW) == line


def test_a_comment_hides_no_attribute(tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="a comment"):
        add(tmp_path / "state", "listed.example # x")


def test_the_record_comes_first(tmp_path: Path) -> None:
    state = tmp_path / "state"
    id_ = add(state)
    with audit_on_a_full_disk(), pytest.raises(StateError):
        add(state, "other.example")
    with audit_on_a_full_disk(), pytest.raises(StateError):
        reveal_own(state, local_key(state), id_, "ben", now=NOW)
    with audit_on_a_full_disk(), pytest.raises(StateError):
        remove_own(state, id_, "over", "ben", now=NOW)
    assert [one.id for one in own_entries(state)] == [id_]


def learn(state: Path, *urls: str, most: int = 10, expires: str = "2027-01-20", now: float = NOW) -> Learned:
    drafts = [draft(url, "page", note="list x, entry 1", expires=expires) for url in urls]
    return learn_own(state, local_key(state), drafts, most, now=now)


def test_what_is_learned_is_an_entry_as_any(tmp_path: Path) -> None:
    state = tmp_path / "state"
    operators = add(state, "http://listed.example/c")
    found = learn(state, "http://listed.example/a", "http://listed.example/b?x=1", "http://listed.example/c")
    assert [(one.who, one.kind, one.note, one.expires) for one in found.added] == [
        (LEARNED, "page", "list x, entry 1", "2027-01-20"),
        (LEARNED, "params", "list x, entry 1", "2027-01-20"),
    ]  # fmt: skip
    assert found[1:] == (True, 0)
    assert [one.id for one in own_entries(state)] == [operators, *(one.id for one in found.added)]
    assert reveal_own(state, local_key(state), found.added[0].id, "ben", now=NOW).startswith(
        "http://listed.example/a id="
    )
    remove_own(state, found.added[0].id, "a false match", "ben", now=NOW)
    told = [json.loads(text) for text in (state / "audit.jsonl").read_text().splitlines()]
    assert [(one["action"], one["who"]) for one in told] == [
        ("own-added", "ann"), ("own-added", LEARNED), ("own-added", LEARNED), ("own-revealed", "ben"),
        ("own-removed", "ben"),
    ]  # fmt: skip


def test_the_same_is_learned_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = learn(state, "http://listed.example/a", "https://www.listed.example/a", "http://listed.example/a")
    assert len(first.added) == 1
    before = (state / "own.json").stat().st_mtime_ns
    assert learn(state, "http://listed.example/a") == ([], False, 0)
    assert (state / "own.json").stat().st_mtime_ns == before
    assert own_entries(state) == first.added


def test_only_so_many_are_learned_in_a_day(tmp_path: Path) -> None:
    state = tmp_path / "state"
    add(state, "operator.example")
    urls = [f"http://listed.example/{n}" for n in range(5)]
    assert (len((found := learn(state, *urls[:3], most=2)).added), found.left) == (2, 1)
    assert learn(state, urls[3], most=2, now=NOW + 86_000)[1:] == (False, 1)
    assert len(learn(state, urls[4], most=2, now=NOW + 86_400).added) == 1


def test_nor_beyond_what_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "MOST", 2)
    state = tmp_path / "state"
    add(state, "operator.example")
    found = learn(state, "http://listed.example/a", "http://listed.example/b")
    assert (len(found.added), found.left) == (1, 1)


def test_what_was_learned_goes_with_its_last_day(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (old,) = learn(state, "http://listed.example/a", expires="2027-01-15").added
    mine = add(state, "http://listed.example/b", expires="2027-01-15")
    end = NOW + 16 * 3_600  # of that day
    assert learn(state, now=end - 1) == ([], False, 0)
    again = learn(state, "http://listed.example/a", now=end)
    assert again.changed
    assert [one.id for one in own_entries(state)] == [mine, again.added[0].id]
    told = [json.loads(text) for text in (state / "audit.jsonl").read_text().splitlines()]
    assert [(one["action"], one["id"], one.get("why")) for one in told[2:]] == [
        ("own-removed", old.id, "its last day is over"), ("own-added", again.added[0].id, None),
    ]  # fmt: skip


def test_the_record_of_what_is_learned_comes_first(tmp_path: Path) -> None:
    state = tmp_path / "state"
    add(state)
    with audit_on_a_full_disk(), pytest.raises(StateError):
        learn(state, "http://listed.example/a")
    assert len(own_entries(state)) == 1
