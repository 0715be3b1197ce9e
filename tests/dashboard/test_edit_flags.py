"""What is to be saved is tried with the flags that the filter was started with."""

from pathlib import Path

import pytest

from lists.support import OTHER_SECRET, artifact, key_file
from urlward.config import read_config
from urlward.dashboard.editing import Editor
from urlward.engine.errors import UrlwardError

TEXT = """state = "state"
[[feed]]
name = "a"
path = "a.txt"
"""


def test_a_list_and_its_key_are_of_flags(tmp_path: Path) -> None:
    (tmp_path / "urlward.toml").write_text(TEXT)
    (tmp_path / "a.txt").write_text("a.example\n")
    (tmp_path / "listed.ward").write_bytes(artifact(["b.example"]))
    config = read_config(tmp_path / "urlward.toml")
    flags = {"list": (str(tmp_path / "listed.ward"),), "key": str(key_file(tmp_path / "lists.key"))}
    state, other = tmp_path / "state", key_file(tmp_path / "other.key", OTHER_SECRET)
    Editor(config.model_copy(update=flags), state).save("feed", "feed.0", {"category": "x"}, "ann")
    with pytest.raises(UrlwardError, match="key"):
        Editor(config.model_copy(update=flags | {"key": str(other)}), state).save(
            "feed", "feed.0", {"category": "y"}, "ann"
        )
    assert 'category = "x"' in (tmp_path / "urlward.toml").read_text()
