import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import wait_for
from feeds.feed_support import Server, hosts
from urlward.config import Config, FeedTable
from urlward.feeds.feed import Feed
from urlward.feeds.schedule import AT_ONCE
from urlward.feeds.store import FeedStore
from urlward.lists import memfd

HOLD = """
import sys
from urlward.feeds.schedule import Turn
turn = Turn(int(sys.argv[1]))
with turn.taken():
    print("taken", flush=True)
    sys.stdin.readline()
    with turn.left():
        print("left", flush=True)
        sys.stdin.readline()
    print("taken", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """A process that takes a turn, leaves it and takes it again, each when it is told to go on."""

    def __init__(self, fd: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[fd],
        )

    def hears(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def hold() -> Iterator[Callable[[int], Holder]]:
    made: list[Holder] = []

    def new(fd: int) -> Holder:
        made.append(Holder(fd))
        return made[-1]

    yield new
    for holder in made:
        holder.end()


@contextmanager
def memory() -> Iterator[int]:
    fd = memfd.new()
    try:
        yield fd
    finally:
        os.close(fd)


def test_so_many_have_a_turn_and_one_that_is_killed_has_none(hold: Callable[[int], Holder]) -> None:
    with memory() as fd, ThreadPoolExecutor(1) as threads:
        first = [hold(fd) for _ in range(AT_ONCE)]
        assert [one.hears() for one in first] == ["taken"] * AT_ONCE
        more = hold(fd)
        heard = threads.submit(more.hears)
        first[0].go_on()
        assert first[0].hears() == "left"
        assert heard.result(60) == "taken"
        heard = threads.submit(first[0].hears)
        first[0].go_on()
        more.end()
        assert heard.result(60) == "taken"


def test_a_refresh_fetches_without_a_turn_and_compiles_with_one(
    tmp_path: Path, site: Server, hold: Callable[[int], Holder]
) -> None:
    site.put("feed", hosts(1))
    feed, store = FeedTable(name="one", url=site.url()), FeedStore(tmp_path, "one")
    with memory() as fd, ThreadPoolExecutor(1) as threads:
        others = [hold(fd) for _ in range(AT_ONCE)]
        assert [one.hears() for one in others] == ["taken"] * AT_ONCE
        outcome = threads.submit(Feed(feed, Config(), tmp_path).refresh, turns=fd)
        wait_for(site.seen, "the request")
        assert store.header() is None
        others[0].end()
        assert outcome.result(60).state == "new"
        assert store.header() is not None
