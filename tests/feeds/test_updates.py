import asyncio
import logging
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from companion import Companion
from conftest import free_port, until, wait_for
from feeds.feed_support import Server, hosts
from lists.support import HTML
from urlward.config import Config, FeedTable
from urlward.feeds import updates
from urlward.feeds.feed import Feed
from urlward.feeds.refresh import refresh
from urlward.feeds.store import FeedStore
from urlward.feeds.updates import Feeds, Slots, Updates
from urlward.policy.own import NAME as OWN
from urlward.policy.own import add_own, draft
from urlward.state import path_watch
from urlward.state.folder import local_key, made_folder


class Running(Companion):
    def __init__(self, folder: Path, text: str, **asked: Any) -> None:
        super().__init__("urlward.service.process", folder, text, **asked)

    def lines(self) -> list[str]:
        return self.log().splitlines()

    def wait_for(self, text: str) -> None:
        wait_for(lambda: any(text in line for line in self.lines()) or self.process.poll() is not None, text)
        assert any(text in line for line in self.lines()), self.lines()


def table(name: str, url: str, more: str = "") -> str:
    return f'[[feed]]\nname = "{name}"\nurl = "{url}"\n{more}\n'


def test_feeds_are_fetched_and_fetched_again(tmp_path: Path, site: Server) -> None:
    site.put("feed", hosts(*range(20)))
    site.put("feed2", HTML)
    path = tmp_path / "list.txt"
    path.write_text(hosts(*range(5)))
    config = table("one", site.url()) + table("two", site.url("feed2"))
    config += '[[feed]]\nname = "three"\npath = "list.txt"\n'
    with Running(tmp_path, config) as process:
        process.wait_for("list one: 20 entries fetched, serial ")
        assert resource.prlimit(process.process.pid, resource.RLIMIT_CORE) == (0, 0)
        process.wait_for(
            "list two: html: a web page or XML, not a list (a login page?); there is no list yet"
        )
        process.wait_for("list three: 5 entries fetched, serial ")
        path.write_text(hosts(*range(6)))
        process.wait_for("list three: 6 entries fetched, ")
        site.put("feed", hosts(*range(21)))
        process.process.send_signal(signal.SIGHUP)
        process.wait_for("list one: 21 entries fetched, ")
        assert process.end() == 0
        assert all(line.startswith("list ") for line in process.lines())
    site.seen()
    # Another one goes on where this one was.
    with Running(tmp_path, config) as process:
        process.wait_for("list three: 6 entries, as before")
        assert process.end() == 0
    assert "200 /feed" not in site.seen()


@pytest.mark.parametrize("change", ["url", "category"])
def test_a_feed_that_is_configured_otherwise_is_fetched_at_once(
    tmp_path: Path, site: Server, change: str
) -> None:
    site.put("feed", hosts(1))
    with Running(tmp_path, table("one", site.url())) as process:
        process.wait_for("list one: 1 entry fetched, ")
        assert process.end() == 0
    site.put("other", hosts(2, 3))
    other = {"url": table("one", site.url("other")), "category": table("one", site.url(), 'category = "x"')}
    with Running(tmp_path, other[change]) as process:
        process.wait_for(
            "list one: 2 entries fetched, " if change == "url" else "list one: 1 entry fetched, "
        )
        assert process.end() == 0


def test_a_server_that_stalls_keeps_no_other_feed_from_being_fetched(tmp_path: Path, site: Server) -> None:
    site.put("feed", hosts(1))
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        config = "".join(table(f"silent{n}", url) for n in range(4)) + table("good", site.url())
        with Running(tmp_path, config) as process:
            process.wait_for("list good: 1 entry fetched")


async def test_lists_in_a_folder_that_hangs_keep_those_of_others_from_nothing(tmp_path: Path) -> None:
    def at(path: str) -> Feed:
        return Feed(FeedTable(name="feed", path=str(tmp_path / path)), Config(), tmp_path / "state")

    slots = Slots()
    async with slots.taken(at("hangs/a.txt")), slots.taken(at("hangs/b.txt")), asyncio.timeout(60):
        third = asyncio.create_task(slots.taken(at("hangs/c.txt")).__aenter__())
        async with slots.taken(at("other/a.txt")):
            assert not third.done()
        third.cancel()


async def test_a_look_that_ends_after_its_refresh_was_given_up_takes_nothing_for_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list.txt"
    path.write_text(hosts(1))
    made = Updates(Feed(FeedTable(name="feed", path=str(path)), Config(), tmp_path / "state"), Slots())
    assert made.watch is not None
    look, begun, back = path_watch._look, threading.Event(), threading.Event()

    def hanging(looked_at: Path) -> path_watch.Content:
        begun.set()
        back.wait()
        return look(looked_at)

    monkeypatch.setattr(path_watch, "_look", hanging)
    refresh = asyncio.create_task(made.refresh(lambda *_: pytest.fail("told")))
    await until(begun.is_set, "the look that hangs")
    refresh.cancel()
    await asyncio.wait([refresh])
    back.set()
    assert not await made.watch.aside(made.watch.is_as_acted)


def test_that_nothing_changes_is_said_once(tmp_path: Path, site: Server) -> None:
    site.put("feed", hosts(1))
    seen: list[str] = []
    with Running(tmp_path, table("one", site.url(), 'interval = "1s"\njitter = 0')) as process:
        wait_for(lambda: seen.extend(site.seen()) or len(seen) >= 4, "four requests")  # type: ignore[func-returns-value]
        assert process.end() == 0
        assert [line.split(",")[0] for line in process.lines()] == [
            "list one: 1 entry fetched",
            "list one: 1 entry",
        ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("feed = 1", "service: {}/urlward.toml:1: feed: input should be tables, each under [[feed]]"),
        (None, "service: "),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, config: str | None, message: str) -> None:
    asked = {} if config else {"config": str(tmp_path / "none.toml")}
    with Running(tmp_path, config or "", **asked) as process:
        assert process.process.wait(60) == 2
        (line,) = process.lines()
        assert line.startswith(message.format(tmp_path))


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    with Running(tmp_path, "", parent=1) as process:
        assert process.process.wait(60) == 1
        assert process.lines() == []


def test_it_ends_when_its_parent_does(tmp_path: Path) -> None:
    parent = (
        "import json, os, subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-P', '-m', 'urlward.service.process'], stdin=-1)\n"
        "p.stdin.write(json.dumps({'config': sys.argv[1], 'state': sys.argv[2], 'parent': os.getpid()})"
        ".encode())\n"
        "p.stdin.close()\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    config = tmp_path / "urlward.toml"
    config.write_text(table("one", f"http://127.0.0.1:{free_port()}/"))
    process = subprocess.Popen(
        [sys.executable, "-c", parent, config, tmp_path / "state"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    wait_for((tmp_path / "state/feeds/one.json").exists, "the first attempt")
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive(child), "its end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_refresh_ends_with_it(tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with Running(tmp_path, table("one", url)) as process:
            silent.settimeout(60)
            asking, _ = silent.accept()
            children = Path(f"/proc/{process.process.pid}/task").glob("*/children")
            (child,) = (int(word) for path in children for word in path.read_text().split())
            process.process.send_signal(number)
            process.process.wait(60)
            wait_for(lambda: not is_alive(child), "the end of the refresh")
            asking.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@contextmanager
def in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *tables: FeedTable) -> Iterator[Feeds]:
    monkeypatch.setattr(updates, "FIRST_ALARMS", 0.05)
    monkeypatch.setattr(updates, "ALARM_LOOK", 0.05)
    monkeypatch.setattr(updates, "LOOK", 0.05)
    yield Feeds(Config(feed=tables), tmp_path / "state")


async def run_until(feeds: Feeds, condition: Any) -> None:
    # A refresh that is under way goes on in its thread, which is waited for here: what it finds must not be
    # what the test does next.
    with ThreadPoolExecutor() as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        task = asyncio.ensure_future(feeds.run())
        while not condition():
            assert not task.done(), task
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def lines(caplog: pytest.LogCaptureFixture, word: str) -> list[tuple[str, str]]:
    return [(r.levelname, r.getMessage()) for r in caplog.records if word in r.getMessage()]


async def test_a_stale_feed_is_an_alarm_until_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = tmp_path / "list.txt"
    feed = FeedTable(name="one", path=str(source), stale_after=0.2, interval=1.0)
    with in_this_process(tmp_path, monkeypatch, feed) as feeds:
        await run_until(feeds, lambda: lines(caplog, "one: stale"))
        ((level, text),) = lines(caplog, "one: stale")
        assert level == "ERROR"
        assert text.startswith("list one: stale: no successful refresh yet, for ")
        source.write_text(hosts(1))
        feed = feed.model_copy(update={"stale_after": 3600.0})
        feeds.updates[0].feed.table = feed
        await run_until(
            feeds, lambda: lines(caplog, "one: no longer stale") and lines(caplog, "1 entry fetched")
        )
    assert len(lines(caplog, "one: stale")) == 1


async def test_own_entries_are_compiled_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refreshed: list[str] = []

    def counted(feed: Feed, **_: Any) -> Any:
        refreshed.append(feed.name)
        return refresh(feed.table, Config(), tmp_path / "state")

    monkeypatch.setattr(Feed, "refresh", counted)
    with in_this_process(tmp_path, monkeypatch) as feeds:
        monkeypatch.setattr(updates, "LOOK", 3_600.0)
        state = made_folder(tmp_path / "state")
        add_own(state, local_key(state), draft("http://own.example/p"), "Ann", now=time.time())

        def compiled_again() -> bool:
            if len(refreshed) == 1:
                feeds.refresh(OWN)
            return len(refreshed) > 1

        async with asyncio.timeout(20):
            await run_until(feeds, compiled_again)
    assert set(refreshed) == {OWN}


async def test_a_path_is_read_when_it_changes_and_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshed: list[str] = []

    def counted(feed: Feed, **_: Any) -> Any:
        refreshed.append(feed.name)
        return refresh(feed.table, Config(), tmp_path / "state")

    monkeypatch.setattr(Feed, "refresh", counted)
    for name in ("still", "often"):
        (tmp_path / name).write_text(hosts(1))
    tables = (
        FeedTable(name="still", path=str(tmp_path / "still")),
        FeedTable(name="often", path=str(tmp_path / "often")).model_copy(update={"interval": 0.2}),
    )
    with in_this_process(tmp_path, monkeypatch, *tables) as feeds:
        counts: list[int] = []
        begun = 0

        def later() -> bool:
            """Some rounds after it has been read, and as many more once all have been asked for."""
            nonlocal begun
            if refreshed.count("still") <= len(counts):
                begun = refreshed.count("often")
            if refreshed.count("often") < begun + 3:
                return False
            counts.append(refreshed.count("still"))
            begun = refreshed.count("often")
            feeds.refresh_all()
            return len(counts) == 2

        await run_until(feeds, later)
    assert counts == [1, 2]


async def test_a_state_folder_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(updates, "AFTER_FAULT", 0.05)
    (tmp_path / "state").touch()
    (tmp_path / "good").write_text(hosts(1))
    feed = FeedTable(name="good", path=str(tmp_path / "good"))
    with in_this_process(tmp_path, monkeypatch, feed) as feeds:
        await run_until(feeds, lambda: lines(caplog, "list good: "))
        assert lines(caplog, "list good: ")[0][1].endswith("Not a directory; begun again in 0 s")
        (tmp_path / "state").unlink()
        await run_until(feeds, FeedStore(tmp_path / "state", "good").in_force)


async def test_a_bug_in_one_feed_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "good").write_text(hosts(1))

    def refresh_or_break(feed: Feed, **_: Any) -> Any:
        if feed.name == "bad":
            raise RuntimeError("secret.example")
        return refresh(feed.table, Config(), tmp_path / "state")

    monkeypatch.setattr(Feed, "refresh", refresh_or_break)
    tables = [FeedTable(name=name, path=str(tmp_path / name), interval=1.0) for name in ("bad", "good")]
    with in_this_process(tmp_path, monkeypatch, *tables) as feeds:
        await run_until(feeds, lambda: lines(caplog, "list bad") and lines(caplog, "list good"))
    assert lines(caplog, "list bad")[0] == ("ERROR", "list bad: a bug: RuntimeError; what is in force stays")
    assert "secret.example" not in caplog.text
    store = FeedStore(tmp_path / "state", "good")
    assert store.in_force() is not None


async def test_an_artifact_that_is_gone_is_fetched_anew_at_once_but_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good").write_text(hosts(1))
    feed = FeedTable(name="good", path=str(tmp_path / "good"), interval=86_400.0)
    store = FeedStore(tmp_path / "state", "good")
    with in_this_process(tmp_path, monkeypatch, feed) as feeds:
        running = asyncio.ensure_future(feeds.run())
        for _ in range(2):
            await until(lambda: store.header() is not None)
            await until(lambda: store.facts().last_success > 0)
            await asyncio.sleep(0.2)  # it has seen it
            store.path.unlink()
        lost = feeds.updates[0]._lost
        monkeypatch.setattr(updates, "LOST_AGAIN", time.monotonic() - lost + 0.5)
        await until(lambda: store.header() is not None)
        assert time.monotonic() - lost > 0.5
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
