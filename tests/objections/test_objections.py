import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.objections import objections as module
from urlward.objections.objections import (
    FILE,
    add_objection,
    decline,
    message_of,
    normal_message,
    purge_objections,
    read_objections,
)
from urlward.records.holds import hold
from urlward.state.folder import local_key

NOW = 1_800_000_000.0
DAY = 86_400
REFERENCE = "7Q4M-2XKD-93FH"


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return local_key(tmp_path)


def test_a_message_keeps_its_lines_and_loses_what_cannot_be_seen() -> None:
    assert normal_message(" First\tline\r\n\0\x1b[31m\n\u202eThird \n", 100) == "First line\n[31m\nThird"


@each_row("typed", ["", " \r\n\t ", "\0\0", "a" * 11, "\u200b"])
def test_what_is_no_message(typed: str) -> None:
    with pytest.raises(UrlwardError, match=r"^message: "):
        normal_message(typed, 10)


@given(st.text())
def test_any_message_is_refused_or_printable(typed: str) -> None:
    try:
        message = normal_message(typed, 50)
    except UrlwardError:
        return
    assert 0 < len(message) <= 50
    assert all(line.isprintable() for line in message.split("\n"))
    assert normal_message(message, 50) == message


def test_what_is_kept(tmp_path: Path, key: Key) -> None:
    made = add_objection(tmp_path, key, REFERENCE, "It is our school's page", client="192.0.2.7", now=NOW)
    (kept,) = read_objections(tmp_path)
    assert kept == made
    assert (kept.reference, kept.client, kept.state, kept.time) == (REFERENCE, "192.0.2.7", "open", int(NOW))
    assert message_of(kept, key) == "It is our school's page"


def test_the_message_is_on_the_disk_under_the_key_alone(tmp_path: Path, key: Key) -> None:
    add_objection(tmp_path, key, REFERENCE, "about http://blocked.example/page", client="", now=NOW)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    for path in tmp_path.iterdir():
        assert b"blocked" not in path.read_bytes()
    assert "blocked" not in repr(read_objections(tmp_path))


def test_a_message_under_another_key_is_said_to_be(tmp_path: Path, key: Key) -> None:
    made = add_objection(tmp_path, key, REFERENCE, "hello", client="", now=NOW)
    assert message_of(made, Key(bytes(32))) == "(sealed under another key)"


def test_the_oldest_closed_goes_first_and_open_ones_are_never_dropped(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    first, second, third = (
        add_objection(tmp_path, key, REFERENCE, f"{n}", client="", now=NOW + n) for n in range(3)
    )
    with pytest.raises(UrlwardError):
        add_objection(tmp_path, key, REFERENCE, "more", client="", now=NOW)
    for one in (third, second):
        decline(tmp_path, one.id, "no", "op", now=NOW)
    fourth = add_objection(tmp_path, key, REFERENCE, "more", client="", now=NOW)
    assert [one.id for one in read_objections(tmp_path)] == [first.id, third.id, fourth.id]


def test_one_of_a_reference_that_is_held_is_never_dropped(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    first = add_objection(tmp_path, key, REFERENCE, "held", client="", now=NOW)
    second = add_objection(tmp_path, key, "7Q4M-2XKD-93FJ", "not held", client="", now=NOW)
    for one in (first, second):
        decline(tmp_path, one.id, "no", "op", now=NOW)
    hold(tmp_path, REFERENCE, int(NOW) + DAY, "asked for", "op", now=NOW)
    third = add_objection(tmp_path, key, REFERENCE, "more", client="", now=NOW)
    assert [one.id for one in read_objections(tmp_path)] == [first.id, third.id]
    with pytest.raises(UrlwardError, match="open or held"):
        add_objection(tmp_path, key, REFERENCE, "more", client="", now=NOW)


def test_they_are_forgotten_after_their_days(tmp_path: Path, key: Key) -> None:
    add_objection(tmp_path, key, REFERENCE, "old", client="", now=NOW)
    young = add_objection(tmp_path, key, REFERENCE, "young", client="", now=NOW + 10 * DAY)
    assert purge_objections(tmp_path, 30, NOW + 30 * DAY) == 0
    assert purge_objections(tmp_path, 30, NOW + 30 * DAY + 1) == 1
    assert read_objections(tmp_path) == [young]


def test_what_is_held_stays(tmp_path: Path, key: Key) -> None:
    held = add_objection(tmp_path, key, REFERENCE, "held", client="", now=NOW)
    add_objection(tmp_path, key, "0000-0000-0000", "not", client="", now=NOW)
    assert purge_objections(tmp_path, 1, NOW + 2 * DAY, {REFERENCE}) == 1
    assert read_objections(tmp_path) == [held]
    # Nor is one deleted whose hold whoever deletes has not heard of yet.
    hold(tmp_path, REFERENCE, int(NOW + 3 * DAY), "asked for", "ann", now=NOW)
    assert purge_objections(tmp_path, 1, NOW + 2 * DAY) == 0


def test_nothing_is_made_where_nothing_is_kept(tmp_path: Path) -> None:
    assert read_objections(tmp_path) == []
    assert purge_objections(tmp_path, 1, NOW) == 0
    assert list(tmp_path.iterdir()) == []


@each_row(
    "stored",
    [
        "",
        "[]",
        "{}",
        '{"version": 1, "objections": [{}]}',
        '{"version": 1, "objections": [{"id": "o", "time": -1, "reference": "", "message": ""}]}',
        '{"version": 1, "objections": [{"id": "o", "time": 1, "reference": "", "message": "", "state": ""}]}',
    ],
)
def test_a_damaged_record_is_set_aside(tmp_path: Path, stored: str) -> None:
    (tmp_path / FILE).write_text(stored)
    assert read_objections(tmp_path) == []
    (aside,) = (tmp_path / "damaged").iterdir()
    assert aside.read_text() == stored


def test_another_version_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"version": 2}))
    with pytest.raises(UrlwardError, match="another version"):
        read_objections(tmp_path)
