"""Lists that the operator names: what becomes of their path in a store."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lists.support import HTML, OTHER_SECRET, SECRET, SENTINEL, artifact, blocks
from urlward.engine.digest import Key
from urlward.engine.loaded import LoadedList, load
from urlward.engine.matcher import Matcher
from urlward.engine.signing import sign_artifact
from urlward.feeds import candidate, feed
from urlward.feeds.feed import Feed
from urlward.feeds.store import FeedStore, forget_others
from urlward.lists.formats import AUTO
from urlward.lists.source import ChangingError, ErrorBudget
from urlward.lists.trust import new_signing_key

HERE = pytest.mark.usefixtures("compiles_here")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a.example\n")
    return path


def made(
    path: Path, budget: str = "50%", kind: str = AUTO, secret: bytes = SECRET, trust: Sequence[str] = ()
) -> Feed:
    return Feed.named(path, Key(secret), ErrorBudget.parse(budget), kind, trust, path.parent / "state")


def stored(one: Feed) -> LoadedList:
    return load(one.store.path.read_bytes(), Key(SECRET))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "urlward.lists"]


@pytest.mark.parametrize("apart", [True, False], ids=["in a process", "here"])
def test_a_text(
    path: Path, apart: bool, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    if not apart:
        request.getfixturevalue("compiles_here")
    path.write_text(f"a.example\n{SENTINEL}\nb.example")
    one = made(path)
    with caplog.at_level(logging.INFO):
        assert one.refresh(first=True).state == "new"
    [line] = lines(caplog)
    assert line.startswith(f"list {path}: 1 of 3 lines could not be read; first: {path}:2:1: ")
    assert SENTINEL not in line
    assert stored(one).name == "list"
    assert blocks(Matcher([stored(one)]), "http://b.example/")
    assert one.refresh().state == "unchanged"


@pytest.mark.parametrize("apart", [True, False], ids=["in a process", "here"])
def test_what_it_is_read_as_is_said(
    path: Path, apart: bool, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    if not apart:
        request.getfixturevalue("compiles_here")
    path.write_text("! rules\n||a.example/b\nc##d\n||co.uk^\n@@||com^\n")
    with caplog.at_level(logging.INFO):
        made(path).refresh(first=True)
    assert lines(caplog) == [
        f"list {path}: read as format adblock, by its first lines",
        f"list {path}: blocks more than is usually meant; "
        f"first: {path}:4:1: it blocks a public suffix, with all names under it",
        f"list {path}: 1 lines are of a kind that cannot be taken; "
        f"first: {path}:3:1: a cosmetic rule: it changes pages",
        f"list {path}: 1 lines are taken in part: they mean more than entries can say",
    ]


@pytest.mark.usefixtures("compiles_here")
def test_hosts_that_are_written_as_root_pages_are_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("https://a.example\nhttp://b.example/\nc.example\n")
    made(path).refresh(first=True)
    told = "2 of 3 entries are root pages alone: to block a host, write its name"
    assert lines(caplog) == [f"list {path}: {told}"]


def test_it_says_how_far_it_is(path: Path) -> None:
    path.write_text("".join(f"h{n}.example\n" for n in range(10_000)))
    said: list[tuple[str, float]] = []
    made(path).refresh(first=True, progress=lambda *each: said.append(each))
    assert said[-1] == ("compiling", 1)
    assert {what for what, _ in said} == {"reading", "compiling"}


def test_a_file_name_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"l\xffst.txt")
    path.write_text("a.example\n")
    one = made(path)
    assert one.refresh(first=True).state == "new"
    assert stored(one).entries == 1


@HERE
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HTML, "web page"),
        (b"", "empty"),
        (b"a.example\n?\n?\n", "2 of 3 lines"),
        (None, "No such file or directory"),
        (artifact(["a.example"], OTHER_SECRET), "compiled under key"),
        (artifact(["a.example"])[:-1], "bytes where the header says"),
    ],
    ids=["html", "empty", "bad", "missing", "key", "cut"],
)
def test_a_refusal_names_the_path(path: Path, content: bytes | None, reason: str) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    one = made(path)
    outcome = one.refresh(first=True)
    assert outcome.state == "failed"
    assert outcome.error.startswith(f"{path}: ")
    assert outcome.error.count(f"{path}: ") == 1
    assert reason in outcome.error
    assert not one.store.path.exists()


@HERE
def test_what_it_is_made_with_tells_stores_apart(path: Path) -> None:
    ones = [
        made(path),
        made(path, "3"),
        made(path, kind="urls"),
        made(path, secret=OTHER_SECRET),
        made(path.with_name("other")),
    ]
    assert len({one.store.name for one in ones}) == len(ones)
    assert made(path).store.name == ones[0].store.name


def test_the_file_of_who_is_trusted_may_have_any_name(tmp_path: Path) -> None:
    key, other = (new_signing_key(tmp_path / name) for name in ("one", "other"))
    trusted = (tmp_path / "one.pub").rename(tmp_path / os.fsdecode(b"k\xffy.pub"))
    path = tmp_path / "list.ward"
    one = made(path, trust=(str(trusted),))
    path.write_bytes(sign_artifact(artifact(["a.example"]), other))
    assert one.refresh(first=True).reason == "unknown-signer"
    path.write_bytes(sign_artifact(artifact(["a.example"]), key))
    assert one.refresh(first=True).state == "new"


@HERE
def test_what_is_kept_from_an_earlier_run_is_taken_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path).refresh(first=True)
    before = made(path).store.path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("urlward.feeds.candidate.compile_text", fail)
    again = made(path)
    assert again.refresh(first=True).state == "unchanged"
    assert again.store.path.read_bytes() == before


@HERE
def test_half_a_list_is_refused_where_it_was_whole(path: Path) -> None:
    one = made(path)
    one.refresh(first=True)
    path.write_text("a.example\nb.ex")
    outcome = one.refresh()
    assert outcome.error == f"{path}: its last line has no end: half-written?"
    assert one.refresh(first=True).state == "new", "of an earlier run nothing counts"
    path.write_text("a.example\nc.ex")
    assert one.refresh().state == "new"


@HERE
def test_one_that_is_being_written_is_not_read(path: Path) -> None:
    one = made(path)
    one.refresh(first=True)
    facts = one.store.facts()
    with path.open("a") as file:
        file.write("b.exam")
        file.flush()
        with pytest.raises(ChangingError):
            one.refresh()
        assert one.store.facts() == facts, "that is no failure"
        assert one.refresh(first=True).state == "new", "where there is nothing else"


@HERE
def test_a_source_that_changes_while_it_is_compiled_is_compiled_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = candidate.compile_sources

    def compile_sources(*args: Any, **more: Any) -> Any:
        path.write_text("b.example\n")
        return real(*args, **more)

    monkeypatch.setattr(candidate, "compile_sources", compile_sources)
    one = made(path)
    one.refresh(first=True)
    assert blocks(Matcher([stored(one)]), "http://a.example/")


@HERE
@pytest.mark.parametrize("damage", [b"", b"noise" * 100, None], ids=["empty", "noise", "folder"])
def test_a_damaged_artifact_is_set_aside_and_made_anew(
    path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    one = made(path)
    one.refresh(first=True)
    good = one.store.path.read_bytes()
    if damage is None:
        one.store.path.unlink()
        one.store.path.mkdir()
    else:
        one.store.path.write_bytes(damage)
    one.refresh()
    assert stored(one).entries == load(good, Key(SECRET)).entries
    [line] = lines(caplog)
    assert line.startswith(f"{one.store.path}: ")
    assert "; set aside as damaged/" in line


@HERE
def test_one_that_is_given_up_is_no_failure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(path)
    one.refresh(first=True)
    facts = one.store.facts()

    def ask(*_: object, **__: object) -> None:
        one.give_up()
        raise OSError(0, "the process that compiles it ended with -9")

    monkeypatch.setattr(feed, "ask", ask)
    assert one.refresh().state == "failed"
    assert one.store.facts() == facts


@HERE
def test_stores_of_lists_that_are_not_named_any_more_go(path: Path) -> None:
    one, other = made(path), made(path, "3")
    one.refresh(first=True)
    other.refresh(first=True)
    forget_others(path.parent / "state", [one.store])
    assert one.store.path.exists()
    assert not other.store.path.exists()
    assert {file.name.partition(".")[0] for file in (path.parent / "state/lists").iterdir()} == {
        one.store.name
    }
    forget_others(path.parent / "none", [])
    assert isinstance(one.store, FeedStore)
