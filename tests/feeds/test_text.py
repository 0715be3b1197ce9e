import os
from pathlib import Path

import pytest

from lists.support import SECRET, SENTINEL, artifact
from rows import each_row
from urlward.config import FeedTable
from urlward.engine.artifact import parse
from urlward.engine.digest import Key
from urlward.feeds.candidate import CompiledText, compile_text
from urlward.feeds.guards import RefusedError
from urlward.lists import memfd

KEY = Key(SECRET)


def compiled(
    text: str, old: Path = Path("/nonexistent"), budget: str = "50%", serial: int = 7, **keys: str
) -> CompiledText:
    fd = memfd.new()
    try:
        memfd.write(fd, text.encode())
        feed = FeedTable(**{"name": "mine", "path": "x"} | keys)
        return compile_text(feed, fd, key=KEY, budget=budget, serial=serial, old=old)
    finally:
        os.close(fd)


def test_a_system_without_proc_is_said() -> None:
    no_fd = 1 << 20  # as all are where nothing is mounted there
    with pytest.raises(RefusedError, match=r"^/proc is not mounted"):
        compile_text(
            FeedTable(name="mine", path="x"), no_fd, key=KEY, budget="0", serial=7, old=Path("/nonexistent")
        )


def test_an_artifact_comes_of_it(tmp_path: Path) -> None:
    made = compiled(f"a.example\n{SENTINEL}\nb.example\n")
    parsed = parse(made.data)
    assert (parsed.header.serial, parsed.header.key_id) == (7, KEY.id)
    assert (parsed.meta["name"], parsed.meta["entries"]) == ("mine", 2)
    assert (made.equal, made.added, made.removed, made.bad) == (False, 2, 0, 1)
    assert made.first.startswith("mine:2:1: ")
    assert SENTINEL not in made.first
    old = tmp_path / "old.ward"
    old.write_bytes(made.data)
    again = compiled("# a word\nb.example\na.example\n", old, serial=8)
    assert (again.equal, again.added, again.removed) == (True, 0, 0)
    changed = compiled("a.example\nc.example\nd.example\n", old, serial=8)
    assert (changed.equal, changed.added, changed.removed) == (False, 2, 1)
    # Under another key no digest is like another.
    old.write_bytes(artifact(["a.example"], bytes(32)))
    assert compiled("a.example\n", old)[1:4] == (False, 1, 1)
    old.write_bytes(b"damaged")
    assert compiled("a.example\n", old)[1:4] == (False, 1, 0)


@each_row(
    ("text", "keys", "reason"),
    [
        (f"a.example\n{SENTINEL}\n", {"budget": "0"}, "bad-lines"),
        ("# nothing\n", {}, "empty"),
        ("a.example\n", {"format": "scroll"}, "format"),
        ("a.example\n", {"budget": "some"}, "settings"),
        ("".join(f"{SENTINEL}.example port={n}\n" for n in range(1, 1002)), {}, "bad-lines"),
    ],
)
def test_what_no_list_comes_of(text: str, keys: dict[str, str], reason: str) -> None:
    with pytest.raises(RefusedError) as raised:
        compiled(text, **keys)
    assert raised.value.reason == reason
    assert SENTINEL not in str(raised.value)
    assert "/proc" not in str(raised.value)
