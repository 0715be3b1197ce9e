import logging
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from conftest import wait_for
from lists.policy_support import config as read
from records.support import own_messages
from urlward.dashboard.live_sources import Refreshes
from urlward.engine.errors import UrlwardError
from urlward.feeds.store import FeedStore

CONFIG = """
[[feed]]
name = "hotline"
path = "hotline.txt"
format = "hosts"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "hotline.txt").write_text("127.0.0.1 n1.example\n")
    return tmp_path / "state"


def test_impatience_does_not_add_up(tmp_path: Path, state: Path):
    config = read(tmp_path, CONFIG)
    refreshes, store = Refreshes(config, state), FeedStore(state, "hotline")
    (feed,) = config.feed
    with store.locked():  # as another process that fetches it
        said = [refreshes.begin(feed) for _ in range(5)]
        assert said == ["hotline: being fetched"] * 2 + ["hotline: about to be fetched already"] * 3
    wait_for(lambda: refreshes.begin(feed) == "hotline: being fetched", "its turn")
    wait_for(lambda: store.in_force() is not None and not +refreshes._begun, "the feed")


def test_one_for_which_no_thread_can_be_had_is_none_that_is_under_way(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
):
    config = read(tmp_path, CONFIG)
    refreshes, (feed,) = Refreshes(config, state), config.feed

    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        for _ in range(3):
            with pytest.raises(UrlwardError, match="hotline: not fetched: can't start new thread"):
                refreshes.begin(feed)
    assert refreshes.begin(feed) == "hotline: being fetched"
    wait_for(lambda: FeedStore(state, "hotline").in_force() is not None and not +refreshes._begun, "the feed")


def test_two_that_end_at_one_moment_are_both_over(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
):
    """Else nobody could have the feed fetched any more."""

    class Slow(Counter[str]):
        def __getitem__(self, name: str) -> int:
            found = super().__getitem__(name)
            time.sleep(0.05)
            return found

    together = threading.Barrier(2, timeout=60)
    monkeypatch.setattr("urlward.feeds.feed.Feed.refresh", lambda *_, **__: together.wait())
    config = read(tmp_path, CONFIG)
    refreshes = Refreshes(config, state)
    refreshes._begun = Slow()
    before = set(threading.enumerate())
    for _ in range(2):
        refreshes.begin(config.feed[0])
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert not +refreshes._begun


def test_a_fault_is_told_without_what_it_says(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: object, **__: object) -> None:
        raise ValueError("secret.example")

    monkeypatch.setattr("urlward.feeds.feed.Feed.refresh", broken)
    caplog.set_level(logging.ERROR)
    config = read(tmp_path, CONFIG)
    refreshes = Refreshes(config, state)
    refreshes.begin(config.feed[0])
    wait_for(lambda: own_messages(caplog) and not +refreshes._begun, "the fault")
    assert own_messages(caplog) == ["list hotline: a bug: ValueError"]
