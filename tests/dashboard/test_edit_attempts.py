"""Feeds, and changes of the configuration, are tried one at a time: a slow one takes one thread of the
dashboard's, and not all."""

import threading
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from urlward.config import read_config
from urlward.dashboard.editing import Editor
from urlward.engine.errors import UrlwardError
from urlward.feeds.feed import Feed, Outcome


def test_one_is_tried_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "urlward.toml"
    path.write_text('[[feed]]\nname = "a"\npath = "a"\n')
    editor = Editor(read_config(path), tmp_path / "state")
    begun, go_on, found = threading.Event(), threading.Event(), list[Any]()

    def attempt(_: Feed) -> Outcome:
        begun.set()
        assert go_on.wait(60)
        return Outcome("new", "", 0.0)

    monkeypatch.setattr(Feed, "attempt", attempt)
    slow = threading.Thread(target=lambda: found.append(editor.attempt("feed.0", {})))
    slow.start()
    wait_for(begun.is_set, "the first")
    with pytest.raises(UrlwardError, match="being tried already"):
        editor.attempt("feed.0", {})
    go_on.set()
    slow.join(60)
    assert found == [{"state": "new", "text": ""}]
    assert editor.attempt("feed.0", {})["state"] == "new"


def test_one_change_is_saved_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "urlward.toml"
    path.write_text("")
    editor = Editor(read_config(path), tmp_path / "state")
    begun, go_on = threading.Event(), threading.Event()

    def try_it(*_: object) -> None:
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(Editor, "_try", try_it)
    slow = threading.Thread(target=editor.save, args=("group", "", {"name": "a"}, "Ann"))
    slow.start()
    wait_for(begun.is_set, "the first")
    with pytest.raises(UrlwardError, match="being saved"):
        editor.save("group", "", {"name": "b"}, "Ben")
    go_on.set()
    slow.join(60)
    editor.save("group", "", {"name": "b"}, "Ben")
    assert [row["values"]["name"] for row in editor.overview()["group"]] == ["a", "b"]
