"""A refresh that is killed, at every moment: the store is good, and the next refresh succeeds."""

import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from conftest import in_turns
from feeds.feed_support import Feed, Server, feed, hosts
from feeds.test_take import issue
from lists.support import SECRET
from urlward.engine.artifact import parse, read_header
from urlward.engine.delta import make_delta
from urlward.engine.digest import Key

KEY = Key(SECRET)
POINTS = 10
"""Moments between steps, each of which is tried by itself."""

TEXT_POINTS = 6


class Body:
    """A list body that alternates between two lists, with a delta to each issue from the one before."""

    def __init__(self, site: Server) -> None:
        self._site = site
        self._serial = 0
        self.last = self.now = b""
        self.next()

    def next(self) -> None:
        self._serial += 1
        numbers = range(200) if self._serial % 2 else range(2, 202)
        self.last, self.now = self.now, issue(self._serial, *numbers)
        if self.last:
            delta = make_delta(parse(self.last), parse(self.now), KEY)
            self._site.put(f"feed.{self._serial - 1}.delta", delta)
        self._site.put("feed", self.now)


def forked(action: Callable[[], object]) -> int:
    """Do something in a copy of this process, which need not end well; its process id."""
    pid = os.fork()
    if not pid:
        try:
            action()
        finally:
            os._exit(0)
    return pid


def was_killed(pid: int) -> bool:
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def killed_after(feed: Feed, seconds: float) -> bool:
    pid = forked(feed.refresh)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return was_killed(pid)


def killed_at(feed: Feed, event: int) -> bool:
    """Kill a refresh where it opens, renames, removes, locks or connects something for the so-and-so-many-th
    time (PEP 578)."""
    left = count(-event + 1)

    def hook(name: str, arguments: object) -> None:
        if name.startswith(("open", "os.", "fcntl.", "socket.")) and not next(left):
            os.kill(os.getpid(), signal.SIGKILL)

    def action() -> None:
        sys.addaudithook(hook)
        feed.refresh()

    return was_killed(forked(action))


def check(feed: Feed, *good: bytes) -> None:
    """Either of two lists is in force, whole."""
    data = feed.store.path.read_bytes()
    assert data in good
    in_force = feed.store.in_force()
    assert in_force is not None
    assert in_force.header == read_header(data)
    feed.facts  # noqa: B018 - which is read, whatever it is


def recover(feed: Feed) -> None:
    assert feed.refresh().state in ("new", "unchanged")
    left = [path.name for path in (feed.state / "feeds").iterdir() if path.name.endswith(".tmp")]
    assert left == []


@pytest.fixture
def body(site: Server) -> Body:
    return Body(site)


@pytest.fixture
def artifacts(tmp_path: Path, site: Server, body: Body) -> Feed:
    made = feed(tmp_path, url=site.url())
    assert made.refresh().state == "new"
    return made


@pytest.mark.parametrize("delta", in_turns(True, False))
def test_at_each_step(delta: bool, artifacts: Feed, body: Body) -> None:
    artifacts.table = artifacts.table.model_copy(update={"delta": delta})
    seen = set()
    for event in count(1):
        body.next()
        killed = killed_at(artifacts, event)
        check(artifacts, body.last, body.now)
        seen.add(artifacts.store.path.read_bytes() == body.now)
        recover(artifacts)
        check(artifacts, body.now)
        if not killed:
            break
    assert event > 20
    assert seen == {True, False}


def test_at_any_time(artifacts: Feed, body: Body) -> None:
    body.next()
    start = time.monotonic()
    was_killed(forked(artifacts.refresh))
    whole = time.monotonic() - start
    for point in range(POINTS):
        body.next()
        killed_after(artifacts, whole * 1.2 * point / POINTS)
        check(artifacts, body.last, body.now)
        recover(artifacts)
        check(artifacts, body.now)


def test_while_a_text_is_compiled(tmp_path: Path, site: Server) -> None:
    site.put("feed", hosts(*range(20)))
    made = feed(tmp_path, url=site.url())
    start = time.monotonic()
    assert made.refresh().state == "new"
    whole = time.monotonic() - start
    for point in range(TEXT_POINTS):
        before = made.store.path.read_bytes()
        site.put("feed", hosts(*range(20 + point % 2, 40)))
        killed_after(made, whole * point / TEXT_POINTS)
        in_force = made.store.in_force()
        assert in_force is not None
        assert in_force.header == read_header(before) or made.blocks("h39.example")
        recover(made)
        assert made.blocks("h39.example")
