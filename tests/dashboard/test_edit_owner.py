"""A file of somebody else, in a folder that this process may write: it is left, and told in time."""

import os
from pathlib import Path

import pytest

from urlward.config import read_config
from urlward.dashboard.editing import Editor
from urlward.engine.errors import UrlwardError

TEXT = '[[feed]]\nname = "a"\npath = "a"\n'


def test_a_file_of_somebody_elses_is_told_before_anything_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "urlward.toml"
    path.write_text(TEXT)
    monkeypatch.setattr(Editor, "_try", lambda *_: None)  # a process of its own, which is not what matters
    editor = Editor(read_config(path), tmp_path / "state")
    somebody = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody)
    assert "belongs to somebody else" in editor.overview()["files"][0]["problem"]
    with pytest.raises(UrlwardError, match="belongs to somebody else"):
        editor.save("feed", "feed.0", {"category": "x"}, "ann")
    assert path.read_text() == TEXT
    assert not (tmp_path / "state").exists()
