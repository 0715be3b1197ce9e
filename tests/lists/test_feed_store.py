import multiprocessing
from pathlib import Path

import pytest

from lists.support import artifact, names_in
from urlward.lists.feed_facts import Facts
from urlward.lists.feed_store import BusyError, FeedStore
from urlward.lists.state import StateError

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
    store.write_artifact(DATA, by_change=False)
    store.write_facts(Facts(serial=7))
    in_force = store.in_force()
    assert in_force is not None
    assert (in_force.data, in_force.entries) == (DATA, 2)
    assert store.header() == in_force.header
    assert store.facts().serial == 7


@pytest.mark.parametrize("data", [b"", DATA[:100], DATA[:-1], DATA[:-1] + b"?", b"x" * 500])
def test_a_damaged_artifact_is_none(store: FeedStore, data: bytes) -> None:
    store.path.write_bytes(data)
    assert store.in_force() is None


def test_a_change_stays_as_long_as_it_leads_to_what_is_there(store: FeedStore) -> None:
    store.write_change(b"change")
    store.write_artifact(DATA, by_change=True)
    assert store.change_path.read_bytes() == b"change"
    store.write_artifact(DATA, by_change=False)
    assert not store.change_path.exists()


def test_what_a_killed_writer_left_goes(store: FeedStore, tmp_path: Path) -> None:
    folder = tmp_path / "state/feeds"
    for name in (".one.ward.tmp", ".one.change.tmp", ".one.json.tmp", ".two.ward.tmp"):
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
    with pytest.raises(StateError, match="Not a directory"):
        store.facts()


def test_a_link_in_the_place_of_the_lock(store: FeedStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    (tmp_path / "state/feeds/one.lock").unlink()
    (tmp_path / "state/feeds/one.lock").symlink_to(victim)
    with pytest.raises(StateError), store.locked():
        pass
