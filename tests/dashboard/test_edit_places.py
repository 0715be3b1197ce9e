"""Edits by places, also of those that have moved since, as another file has a table less: no other is hit."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from urlward.config import read_config
from urlward.dashboard.editing import Editor
from urlward.engine.errors import UrlwardError

MAIN = """include = ["more.toml"]
[[feed]]
name = "a"
path = "a"
[[feed]]
name = "b"
path = "b"
[[group]]
name = "first"
networks = ["192.0.2.0/24"]
"""
MORE = """[[feed]]
name = "c"
path = "c"
[[feed]]
name = "d"
path = "d"
[[group]]
name = "second"
networks = ["198.51.100.0/24"]
[[group]]
name = "third"
networks = ["203.0.113.0/24"]
"""


checked = Editor._try
"""By which a change is tried: a process of its own, unless it does not even fit."""


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Editor:
    (tmp_path / "main.toml").write_text(MAIN)
    (tmp_path / "more.toml").write_text(MORE)
    monkeypatch.setattr(Editor, "_try", lambda *_: None)  # which is not what matters
    return Editor(read_config(tmp_path / "main.toml"), tmp_path / "state")


def one_less(tmp_path: Path) -> None:
    """Remove the first feed and the first group, which are in another file."""
    (tmp_path / "main.toml").write_text('include = ["more.toml"]\n[[feed]]\nname = "b"\npath = "b"\n')


def test_a_file_is_not_gone_through_again_for_each_of_its_tables(
    editor: Editor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[bytes] = []

    def watched(data: bytes) -> Any:
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr("urlward.dashboard.editing.sha256", watched)
    with (tmp_path / "more.toml").open("a") as file:
        file.write("#" * 10_000)
    found = editor.overview()
    assert len(hashed) == len(found["feed"]) + len(found["group"])
    assert max(map(len, hashed)) < 100


def test_no_other_table_is_changed_or_removed(editor: Editor, tmp_path: Path) -> None:
    row = editor.table("feed", "feed.2")
    assert row["values"]["name"] == "c"
    one_less(tmp_path)
    assert editor.table("feed", "feed.2")["values"]["name"] == "d"
    with pytest.raises(UrlwardError, match="changed meanwhile"):
        editor.save("feed", "feed.2", {"category": "x"}, "ann", seen=row["seen"])
    with pytest.raises(UrlwardError, match="changed meanwhile"):
        editor.remove("feed", "feed.2", "ann", seen=row["seen"])
    assert (tmp_path / "more.toml").read_text() == MORE


def test_a_rule_goes_to_no_other_group(editor: Editor, tmp_path: Path) -> None:
    seen = editor.seen("group.1")
    one_less(tmp_path)
    with pytest.raises(UrlwardError, match="changed meanwhile"):
        editor.save("rule", "group.1", {"action": "allow"}, "ann", seen=seen)
    assert (tmp_path / "more.toml").read_text() == MORE
    editor.save("rule", "group.1", {"action": "allow"}, "ann", seen=editor.seen("group.1"))
    assert editor.table("rule", "group.1.rule.0")["values"]["group"] == "third"


def test_a_place_that_is_none_is_told(editor: Editor) -> None:
    of_others = "group", "feed", "feed.0", "include", "group.0.networks", "group.0.networks.0", "group.0.name"
    for at in (f"group.{'9' * 5_000}", "group.-1", "group.²", *of_others):
        with pytest.raises(UrlwardError):
            editor.save("rule", at, {"action": "allow"}, "ann")
    with pytest.raises(UrlwardError, match="no such table"):
        editor.save("feed", "feed.7", {"category": "x"}, "ann")


def test_rules_and_a_schedule_go_where_the_last_file_is(editor: Editor, tmp_path: Path) -> None:
    more = tmp_path / "more.toml"
    editor.save("schedule", "", {"name": "never now", "zone": "UTC", "days": ["mon", "tue"]}, "ann")
    editor.save("rule", "group.2", {"action": "allow", "lists": ["a"]}, "ann")
    editor.save("rule", "", {"action": "block", "schedule": "never now"}, "ann")
    assert [row["at"] for row in editor.overview()["rule"]] == ["rule.0", "group.2.rule.0"]
    with pytest.MonkeyPatch.context() as real:
        real.setattr(Editor, "_try", checked)
        with pytest.raises(UrlwardError, match=r"there is no \[schedule\.never now\]"):
            editor.remove("schedule", "schedule.never now", "ann")
    for kind, at in (("rule", "rule.0"), ("schedule", "schedule.never now"), ("rule", "group.2.rule.0")):
        editor.remove(kind, at, "ann")
    assert more.read_text().strip() == MORE.strip()
    editor.save("feed", "feed.2", {"category": "games"}, "ann")
    assert 'category = "games"' in more.read_text()
    assert (tmp_path / "main.toml").read_text() == MAIN
    told = [json.loads(line) for line in (tmp_path / "state/audit.jsonl").read_text().splitlines()]
    assert [line["table"] for line in told[-2:]] == ["removed rule group.2.rule.0", "changed feed feed.2"]
