"""What is allowed for a while is in force as soon as it is written, and no longer than it lasts."""

import asyncio
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import until
from lists.support import OTHER_SECRET, SECRET, artifact, blocks
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.feeds import keeper
from urlward.feeds.keeper import Keeper
from urlward.lists import allows as lists_allows
from urlward.lists import worker
from urlward.lists.allows import AGAIN, TemporaryAllows
from urlward.policy.allows import KEPT, add_allow, end_allow
from urlward.state.folder import StateError, locked, made_folder

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _compiled_here(monkeypatch: pytest.MonkeyPatch, compiles_here: None) -> None:
    """Each process takes a fifth of a second to start."""
    monkeypatch.setattr(lists_allows, "ask", lambda _, request, *__, **___: lists_allows.answer(**request))


def allow(state: Path, url: str, seconds: int, secret: bytes = SECRET) -> str:
    return add_allow(state, Key(secret), url, seconds, "x", "me", whole_host=False, now=NOW).id


def test_from_when_it_is_written_to_its_end(tmp_path: Path) -> None:
    allows = TemporaryAllows(tmp_path, Key(SECRET))
    assert not allows.look(NOW)
    allow(tmp_path, "http://a.example/page", 60)
    assert allows.look(NOW)
    assert not allows.look(NOW + 1), "nothing has changed"
    listed = load(artifact(["a.example"]), Key(SECRET))
    matcher = Matcher([listed, *allows.lists])
    assert not blocks(matcher, "http://a.example/page")
    assert blocks(matcher, "http://a.example/other")
    assert allows.look(NOW + 60)
    assert allows.lists == []
    allows.record(NOW + 60)
    assert "expired" in (tmp_path / "audit.jsonl").read_text()
    assert not allows.look(NOW + 61)


def test_one_ends_and_the_other_goes_on(tmp_path: Path) -> None:
    allows = TemporaryAllows(tmp_path, Key(SECRET))
    allow(tmp_path, "a.example", 60)
    allow(tmp_path, "b.example", 600)
    assert allows.look(NOW)
    assert allows.lists[0].entries == 2
    assert allows.look(NOW + 60)
    assert allows.lists[0].entries == 1
    assert allows.look(NOW + 600)
    assert allows.lists == []


def test_others_go_on_where_the_end_of_one_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise StateError("audit.jsonl: No space left on device")

    allows = TemporaryAllows(tmp_path, Key(SECRET))
    allow(tmp_path, "a.example", 60)
    allow(tmp_path, "b.example", 600)
    allows.look(NOW)
    monkeypatch.setattr(lists_allows, "expire_allows", full)
    assert allows.look(NOW + 60)
    assert allows.lists[0].entries == 1
    allows.record(NOW + 60)
    assert "No space left on device; the end of an allow" in caplog.text
    assert allows.look(NOW + 600)
    assert allows.lists == []


def test_ended_by_hand(tmp_path: Path) -> None:
    allows = TemporaryAllows(tmp_path, Key(SECRET))
    id_ = allow(tmp_path, "a.example", 60)
    allows.look(NOW)
    end_allow(tmp_path, id_, "done", "me", now=NOW)
    assert allows.look(NOW)
    assert allows.lists == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", json.dumps({"version": 99}).encode()])
def test_a_damaged_record_excuses_nothing(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    allows = TemporaryAllows(tmp_path, Key(SECRET))
    allow(tmp_path, "a.example", 60)
    allows.look(NOW)
    (tmp_path / "allows.json").write_bytes(damage)
    assert allows.look(NOW)
    assert allows.lists == []
    assert "nothing is excused for a while" in caplog.text
    assert not allows.look(NOW), "it is said once"


def test_one_under_another_key_excuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lists_allows, "ask", worker.ask)
    other = allow(tmp_path, "a.example", 60, OTHER_SECRET)
    allows = TemporaryAllows(tmp_path, Key(SECRET))
    allows.look(NOW)
    assert allows.lists == []
    allow(tmp_path, "b.example", 60)
    assert allows.look(NOW)
    assert allows.lists[0].entries == 1
    assert f"allow {other} does not open" in caplog.text


def test_they_are_compiled_again_where_there_was_no_room_for_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    allow(tmp_path, "a.example", 600)
    allows = TemporaryAllows(tmp_path, Key(SECRET))
    with monkeypatch.context() as full:
        full.setattr(lists_allows, "ask", no_room)
        assert not allows.look(NOW)
    assert "Resource temporarily unavailable; nothing is excused for 60 s" in caplog.text
    assert not allows.look(NOW + 1)
    assert allows.look(NOW + AGAIN)
    assert allows.lists[0].entries == 1


def test_what_nobody_foresaw_has_them_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    id_ = allow(tmp_path, "a.example", 600)
    allow(tmp_path, "b.example", 600)
    allows = TemporaryAllows(tmp_path, Key(SECRET))
    allows.look(NOW)
    end_allow(tmp_path, id_, "done", "me", now=NOW)
    with monkeypatch.context() as full:
        full.setattr(lists_allows, "ask", no_memory)
        with pytest.raises(MemoryError):
            allows.look(NOW + 1)
    assert allows.look(NOW + 2)
    assert allows.lists[0].entries == 1


def test_the_keeper_has_them_beside_its_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.example\n")
    add_allow(tmp_path, Key(OTHER_SECRET), "a.example", 60, "x", "me", whole_host=False, now=4e9)
    kept = Keeper([path], Key(SECRET), exceptions=TemporaryAllows(tmp_path, Key(OTHER_SECRET)))
    kept.load()
    assert not blocks(kept.matcher, "http://a.example/")


async def test_whoever_holds_the_folder_when_an_allow_ends_holds_up_no_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.example\n")
    state, key = made_folder(tmp_path / "state"), Key(OTHER_SECRET)
    add_allow(state, key, "a.example", 3_600, "x", "me", whole_host=False, now=time.time())
    allows, held, go_on = TemporaryAllows(state, key), threading.Event(), threading.Event()
    kept = Keeper([path], Key(SECRET), exceptions=allows)
    kept.load()
    assert allows.lists

    def hold() -> bool:
        with locked(state):
            held.set()
            return go_on.wait(60)

    holding = asyncio.ensure_future(asyncio.to_thread(hold))
    await asyncio.to_thread(held.wait, 60)
    watching = asyncio.ensure_future(kept.watch())
    later = {**vars(time), "time": lambda: time.time() + 7_200}
    monkeypatch.setattr(keeper, "time", SimpleNamespace(**later))
    await until(lambda: blocks(kept.matcher, "http://a.example/"))
    assert KEPT.read(state)
    go_on.set()
    assert await holding
    await until(lambda: not KEPT.read(state))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
