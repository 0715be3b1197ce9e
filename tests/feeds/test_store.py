import errno
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lists.support import artifact, names_in
from obstacles import permissions_hold
from urlward.engine.artifact import read_header
from urlward.feeds import store as feed_store
from urlward.feeds.store import BusyError, Facts, FeedStore
from urlward.state.folder import StateError

DATA = artifact(["a.example", "b.example"])


@pytest.fixture
def store(tmp_path: Path) -> FeedStore:
    made = FeedStore(tmp_path / "state", "one")
    with made.locked():
        pass
    return made


def test_nothing_there(tmp_path: Path) -> None:
    store = FeedStore(tmp_path / "state", "one")
    assert store.in_force() is None
    assert store.header() is None
    assert store.facts() == Facts()
    assert names_in(tmp_path) == []


def test_what_is_written_is_read(store: FeedStore) -> None:
    store.write_artifact(DATA)
    store.write_facts(Facts(serial=7))
    in_force = store.in_force()
    assert in_force is not None
    assert in_force.meta["entries"] == 2
    assert store.header() == in_force.header
    assert store.facts().serial == 7


@pytest.mark.parametrize("data", [b"", DATA[:100], DATA[:-1], DATA[:-1] + b"?", b"x" * 500])
def test_a_damaged_artifact_is_none(store: FeedStore, data: bytes) -> None:
    store.path.write_bytes(data)
    assert store.in_force() is None


def test_what_a_killed_writer_or_an_earlier_release_left_goes(store: FeedStore, tmp_path: Path) -> None:
    folder = tmp_path / "state/feeds"
    for name in (".one.ward.tmp", "one.change", ".one.json.tmp", ".two.ward.tmp"):
        (folder / name).write_bytes(b"half")
    with store.locked():
        assert names_in(folder) == [".two.ward.tmp", "one.lock"]


def test_one_at_a_time(store: FeedStore, tmp_path: Path) -> None:
    with store.locked():
        with pytest.raises(BusyError, match=r"^one: being refreshed already$"), store.locked(wait=False):
            pass
        with FeedStore(tmp_path / "state", "two").locked(wait=False):
            pass
    with store.locked(wait=False):
        pass


def _add(state: Path) -> None:
    store = FeedStore(state, "one")
    for _ in range(20):
        with store.locked():
            store.write_facts(Facts(serial=store.facts().serial + 1))


def test_those_who_wait_lose_nothing(store: FeedStore, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_add, args=(tmp_path / "state",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert store.facts().serial == 60


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    store = FeedStore(tmp_path / "state", "one")
    with pytest.raises(StateError, match="Not a directory"), store.locked():
        pass


def test_a_link_in_the_place_of_the_lock(store: FeedStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    (tmp_path / "state/feeds/one.lock").unlink()
    (tmp_path / "state/feeds/one.lock").symlink_to(victim)
    with store.locked():
        assert (tmp_path / "state/feeds/one.lock").stat().st_size == 0
    assert not (tmp_path / "state/feeds/one.lock").is_symlink()
    assert (tmp_path / "state/damaged").is_dir()


def test_facts_are_written_on_a_full_disk_too(store: FeedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object) -> None:
        raise StateError(f"{path}: No space left on device") from OSError(errno.ENOSPC, "")

    store.write_facts(Facts(serial=7))
    monkeypatch.setattr(feed_store, "write_private", full)
    store.write_facts(Facts(serial=7, reason="state", error="x" * 500))
    store.write_facts(Facts(serial=7, reason="state"))
    assert store.facts() == Facts(serial=7, reason="state")
    with pytest.raises(StateError, match="No space"):
        store.write_facts(Facts(error="x" * 100_000))


def test_earlier_artifacts_make_room_for_what_is_to_be_in_force(
    store: FeedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in (2, 3, 4, 5):
        store.write_artifact(artifact([f"h{n}.example" for n in range(count)]))
    assert len(store.versions()) == 3
    write = feed_store.write_private

    def without_room(path: Path, *more: Any) -> None:
        if len(store.versions()) > 1:
            raise StateError(f"{path}: No space left on device") from OSError(errno.ENOSPC, "")
        write(path, *more)

    monkeypatch.setattr(feed_store, "write_private", without_room)
    store.write_artifact(DATA)
    assert store.header() == read_header(DATA)

    def full(path: Path, *_: Any) -> None:
        raise StateError(f"{path}: No space left on device") from OSError(errno.ENOSPC, "")

    monkeypatch.setattr(feed_store, "write_private", full)
    with pytest.raises(StateError, match="No space"):
        store.write_artifact(DATA)
    assert store.versions() == []
    assert store.header() == read_header(DATA)


@pytest.mark.parametrize("name", ["one.json", "one.lock", "one.ward", ""])
@pytest.mark.parametrize("damage", ["folder", "pipe", "noise", "unreadable"])
def test_whatever_is_damaged_is_made_anew(store: FeedStore, tmp_path: Path, name: str, damage: str) -> None:
    store.write_facts(Facts(serial=7))
    store.write_artifact(DATA)
    path = tmp_path / "state/feeds" / name
    if damage == "folder" and name:
        path.unlink()
        path.mkdir()
    elif damage == "pipe" and name:
        path.unlink()
        os.mkfifo(path)
    elif damage == "noise":
        if not name:
            shutil.rmtree(path)
        path.write_bytes(b"\xff\x00" * 50)
    else:
        path.chmod(0)
    with permissions_hold():
        store.facts()
        with store.locked():
            store.write_artifact(DATA)
            store.write_facts(Facts(serial=8))
        in_force = store.in_force()
    assert in_force is not None
    assert in_force.header == read_header(DATA)
    assert store.facts() == Facts(serial=8)
