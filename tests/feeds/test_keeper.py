import asyncio
import gc
import itertools
import logging
import os
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from conftest import in_turns, until
from lists.support import HTML, OTHER_SECRET, PICTURE, SECRET, SENTINEL, artifact, blocks, descriptors
from urlward import lasting
from urlward.engine.dates import parse_time
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.engine.record import DAY
from urlward.feeds import feed as feeds_feed
from urlward.feeds import keeper, refresh, schedule, updates
from urlward.feeds.keeper import Keeper, in_slices
from urlward.feeds.store import FeedStore
from urlward.lists.build import Issue, compile_sources
from urlward.lists.run_folder import PREFIX, RunFolder
from urlward.lists.source import ErrorBudget, SourceError, unreadable
from urlward.state import path_watch, watch
from urlward.state.folder import StateError

KEPT = "; the last good one stays in force"
POLLS = 12
"""So many looks at the files are enough for one that repeats itself to be heard again."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same states in a tenth of the time, but those that a slow machine would bring by itself."""
    monkeypatch.setattr(keeper, "INTERVAL", 0.02)
    monkeypatch.setattr(updates, "LOOK_NAMED", 0.02)
    monkeypatch.setattr(watch, "SETTLE", 0.05)
    monkeypatch.setattr(path_watch, "PATIENCE", 3600.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a.example\nb.example\n")
    return path


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines logged from INFO, each of them one line and without any entry's text."""
    caplog.set_level(logging.INFO, "urlward.lists")

    def lines() -> list[str]:
        messages = [record.getMessage() for record in caplog.records if record.name == "urlward.lists"]
        assert not [message for message in messages if "\n" in message or SENTINEL in message]
        return messages

    return lines


def replace(path: Path, content: str | bytes) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    beside.replace(path)


async def some_polls() -> None:
    await asyncio.sleep(keeper.INTERVAL * POLLS)


@asynccontextmanager
async def watched(
    *paths: Path,
    secret: bytes = SECRET,
    budget: str = "1%",
    run: RunFolder | None = None,
    follows: bool = True,
) -> AsyncIterator[Keeper]:
    kept = Keeper(paths, Key(secret), ErrorBudget.parse(budget), run, follows=follows)
    kept.load()
    watch = asyncio.create_task(kept.watch())
    try:
        yield kept
        assert not watch.done()
    finally:
        watch.cancel()
        await asyncio.wait([watch])


@pytest.mark.usefixtures("compiles_here")
class TestLoad:
    def test_constructing_reads_nothing(self, tmp_path: Path) -> None:
        kept = Keeper([tmp_path / "none"], Key(SECRET))
        assert not blocks(kept.matcher, "http://a.example/")

    def test_sources_and_artifacts(self, path: Path) -> None:
        compiled = path.with_name("x.ward")
        compiled.write_bytes(artifact(["c.example"], name="feed"))
        kept = Keeper([path, compiled], Key(SECRET))
        kept.load()
        assert [li.name for li in kept.matcher.lists] == ["list", "feed"]
        for host in ("a.example", "b.example", "c.example"):
            assert blocks(kept.matcher, f"http://{host}/")
        assert not blocks(kept.matcher, "http://d.example/")

    async def test_lists_that_are_called_alike_are_named_by_their_paths(self, path: Path) -> None:
        for folder in ("adult", "games"):
            path.with_name(folder).mkdir()
            (path.parent / folder / "domains").write_text(f"{folder}.example\n")
            path.with_name(f"{folder}.ward").write_bytes(artifact([f"b.{folder}.test"], name="hosts"))
        for name in ("own-entries.txt", "games-domains.txt"):
            path.with_name(name).write_text("own.example\n")
        paths = ["adult/domains", "games/domains", "adult.ward", "games.ward", "list.txt", "own-entries.txt"]
        paths.append("games-domains.txt")
        kept = Keeper([path.parent / name for name in paths], Key(SECRET))
        kept.load()
        folder = path.parent.name
        named = [
            f"{folder}-adult-domains",
            f"{folder}-games-domains",
            "adult",
            "games",
            "list",
            f"{folder}-own-entries",
            "games-domains",
        ]
        assert kept.names == [li.name for li in kept.matcher.lists] == named
        replace(path.parent / "games" / "domains", "games.example\nc.example\n")
        await kept.reload()
        assert kept.matcher.check_url("http://c.example/", 0.0).list == f"{folder}-games-domains"
        assert kept.names == [li.name for li in kept.matcher.lists] == named

    def test_bad_lines_within_the_budget_are_told(self, path: Path, log: Callable[[], list[str]]) -> None:
        path.write_text(f"a.example\n{SENTINEL}\n")
        kept = Keeper([path], Key(SECRET), ErrorBudget.parse("50%"))
        kept.load()
        [line] = log()
        assert line.startswith(f"list {path}: 1 of 2 lines could not be read; first: {path}:2:1: ")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "empty"),
            (HTML, "web page"),
            (PICTURE, "binary"),
            (f"a.example\n{SENTINEL}\n".encode(), "1 of 2 lines could not be read"),
            (artifact(["a.example"], OTHER_SECRET), "compiled under key"),
            (artifact(["a.example"])[:-1], "bytes where the header says"),
            (artifact(["a.example"])[:100], "bytes where the header says"),
            (artifact(["a.example"])[:-1] + b"x", "checksum"),
            (artifact(["a.example"]).replace(b"\n\x01\0", b"\n\x02\0", 1), "format version 2"),
        ],
        ids=["empty", "html", "binary", "bad lines", "key", "cut", "cut short", "damaged", "newer"],
    )
    def test_a_bad_list_is_an_error_of_one_line(self, path: Path, content: bytes, reason: str) -> None:
        path.write_bytes(content)
        kept = Keeper([path], Key(SECRET))
        with pytest.raises(SourceError) as raised:
            kept.load()
        text = str(raised.value)
        assert text.startswith(f"{path}: ")
        assert text.count(f"{path}: ") == 1
        assert reason in text
        assert "\n" not in text
        assert SENTINEL not in text

    def test_a_missing_list(self, path: Path) -> None:
        path.unlink()
        with pytest.raises(SourceError, match=f"^{path}: No such file or directory$"):
            Keeper([path], Key(SECRET)).load()


@pytest.mark.usefixtures("compiles_here")
class TestChanges:
    async def test_replaced(self, path: Path, log: Callable[[], list[str]]) -> None:
        async with watched(path) as kept:
            before = kept.matcher
            replace(path, "c.example\n")
            await until(lambda: kept.reloads, "the new list")
            assert kept.matcher is not before
            assert blocks(kept.matcher, "http://c.example/")
            assert not blocks(kept.matcher, "http://a.example/")
            assert len(log()) == 1
            assert log()[0].startswith("list list: 1 entry in force, serial ")
            assert kept.failures == 0

    async def test_rewritten_in_place(self, path: Path) -> None:
        async with watched(path) as kept:
            path.write_text("c.example\n")
            await until(lambda: kept.reloads, "the new list")
            assert blocks(kept.matcher, "http://c.example/")

    async def test_an_artifact_replaced(self, path: Path) -> None:
        path.write_bytes(artifact(["a.example"]))
        async with watched(path) as kept:
            replace(path, artifact(["c.example"]))
            await until(lambda: kept.reloads, "the new list")
            assert blocks(kept.matcher, "http://c.example/")
            assert not blocks(kept.matcher, "http://a.example/")

    async def test_a_source_becomes_an_artifact_and_back(self, path: Path) -> None:
        async with watched(path) as kept:
            replace(path, artifact(["c.example"]))
            await until(lambda: kept.reloads == 1, "the artifact")
            assert blocks(kept.matcher, "http://c.example/")
            replace(path, "d.example\n")
            await until(lambda: kept.reloads == 2, "the source")
            assert blocks(kept.matcher, "http://d.example/")

    async def test_a_link_is_followed(self, path: Path) -> None:
        link, other = path.with_name("link"), path.with_name("other")
        other.write_text("c.example\n")
        link.symlink_to(path)
        async with watched(link) as kept:
            beside = path.with_name("beside")
            beside.symlink_to(other)
            beside.replace(link)
            await until(lambda: kept.reloads, "what the link points to now")
            assert blocks(kept.matcher, "http://c.example/")

    async def test_a_path_that_cannot_be_looked_at(self, path: Path, log: Callable[[], list[str]]) -> None:
        async with watched(path) as kept:
            beside = path.with_name("beside")
            beside.symlink_to("a" * 300)  # longer than a name may be
            beside.replace(path)
            await until(lambda: kept.failures, "a word on it")
            assert blocks(kept.matcher, "http://a.example/")
            assert [line for line in log() if "File name too long" in line], log()
            replace(path, "c.example\n")
            await until(lambda: kept.reloads, "what is there again")
            assert blocks(kept.matcher, "http://c.example/")

    async def test_a_slow_writer_is_waited_for(self, path: Path, log: Callable[[], list[str]]) -> None:
        async with watched(path) as kept:
            with path.open("w") as writer:
                for i in range(4):
                    writer.write(f"h{i}.example\n")
                    writer.flush()
                    await some_polls()
                    assert (kept.reloads, kept.failures) == (0, 0)
                    assert blocks(kept.matcher, "http://a.example/")
            await until(lambda: kept.reloads, "the whole list")
            assert kept.matcher.lists[0].entries == 4
            assert len(log()) == 1

    async def test_emptied_and_filled_again(self, path: Path) -> None:
        async with watched(path) as kept:
            with path.open("w"):
                await some_polls()
                assert blocks(kept.matcher, "http://a.example/")
            await until(lambda: kept.failures, "the empty list to be refused")
            path.write_text("c.example\n")
            await until(lambda: kept.reloads, "the filled list")
            assert blocks(kept.matcher, "http://c.example/")
            assert kept.failures == 1

    async def test_touched_without_a_change(self, path: Path, log: Callable[[], list[str]]) -> None:
        async with watched(path) as kept:
            before = kept.matcher
            os.utime(path, (1, 1))
            replace(path, path.read_bytes())
            await some_polls()
            await some_polls()
            assert kept.matcher is before
            assert log() == []
            replace(path, "c.example\n")
            await until(lambda: kept.reloads, "a change after it")

    async def test_many_changes_in_a_row_end_with_the_last(self, path: Path) -> None:
        async with watched(path) as kept:
            for i in range(40):
                (replace if i % 2 else Path.write_text)(path, f"h{i}.example\n")
                await asyncio.sleep(0.03 if i % 5 else 0.2)
            await until(lambda: blocks(kept.matcher, "http://h39.example/"), "the last list")
            assert kept.matcher.lists[0].entries == 1
            assert kept.failures == 0

    async def test_bad_lines_within_the_budget_are_told(
        self, path: Path, log: Callable[[], list[str]]
    ) -> None:
        async with watched(path, budget="1") as kept:
            replace(path, f"c.example\n{SENTINEL}\n")
            await until(lambda: kept.reloads, "the new list")
            assert log()[0].startswith(f"list {path}: 1 of 2 lines could not be read; first: {path}:2:1: ")

    async def test_a_list_changed_as_it_was_first_read_is_read_again(self, path: Path) -> None:
        real = feeds_feed.ask

        def ask(*args: Any, **more: Any) -> dict[str, Any]:
            result = real(*args, **more)
            if path.read_text() != "c.example\n":
                replace(path, "c.example\n")
            return result

        with patch.object(feeds_feed, "ask", ask):
            async with watched(path) as kept:
                assert blocks(kept.matcher, "http://a.example/")
                await until(lambda: kept.reloads, "the list that came meanwhile")
                assert blocks(kept.matcher, "http://c.example/")

    async def test_the_old_list_is_let_go(self, path: Path) -> None:
        async with watched(path) as kept:
            old = kept.matcher.lists[0]
            matcher = weakref.ref(kept.matcher)
            assert old.shard("x") is not None
            replace(path, "c.example\n")
            await until(lambda: old.shard("x") is None, "its automata to be freed")
            gc.collect()
            assert matcher() is None

    async def test_its_memory_is_let_go_whatever_the_collector_does(self, path: Path) -> None:
        others = memory_maps()
        async with watched(path) as kept:
            matcher = kept.matcher
            assert len(memory_maps() - others) == 1
            gc.disable()
            try:
                for number in range(3):
                    replace(path, f"c{number}.example\n")
                    await until(lambda n=number: kept.reloads == n + 1, "the new list")  # type: ignore[misc]
                    await until(lambda: len(memory_maps() - others) == 1, "the old one's to be let go")
            finally:
                gc.enable()
            assert matcher.lists  # as a cycle of garbage would keep it

    async def test_a_change_does_not_wait_until_the_one_of_before_is_freed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        freed = asyncio.Event()
        monkeypatch.setattr(keeper, "_free", lambda _: freed.wait())
        async with watched(path) as kept:
            for number in range(2):
                replace(path, f"c{number}.example\n")
                await until(lambda n=number: kept.reloads == n + 1, "the new list")  # type: ignore[misc]
            replace(path, "c2.example\n")
            await some_polls()
            assert kept.reloads == 2, "memory has two of before"
            freed.set()
            await until(lambda: blocks(kept.matcher, "http://c2.example/"), "the last")


def memory_maps() -> set[tuple[str, str]]:
    """Inodes and paths of lists' memory that this process has mapped.

    A number alone is soon another file's, where what a test before has left is collected meanwhile.
    """
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    found = [(line[4], line[5].removesuffix(" (deleted)")) for line in lines if len(line) == 6]
    return {(inode, path) for inode, path in found if PREFIX in path}


BAD = {
    "empty": (b"", "empty"),
    "blank": (b"\n\n", "empty"),
    "web page": (HTML, "web page"),
    "picture": (PICTURE, "binary"),
    "comments": (b"# a.example\n", "no entry"),
    "bad lines": (f"a.example\n{SENTINEL}\n".encode(), "1 of 2 lines could not be read, allowed are 1%"),
    "half a line": (b"c.example\nd.exam", "half-written"),
    "half an artifact": (artifact(["c.example"])[:-40], "bytes where the header says"),
    "an artifact's beginning": (artifact(["c.example"])[:20], "bytes where the header says"),
    "a damaged artifact": (artifact(["c.example"])[:-1] + b"\0", "checksum"),
    "another key's": (artifact(["c.example"], OTHER_SECRET), "compiled under key"),
    "a newer version": (artifact(["c.example"]).replace(b"\n\x01\0", b"\n\x09\0", 1), "format version 9"),
}


@pytest.mark.usefixtures("compiles_here")
@pytest.mark.parametrize(
    ("first", "content", "reason"),
    [(first, *bad) for first, bad in zip(itertools.cycle(["source", "artifact", "source"]), BAD.values())],
    ids=BAD,
)
async def test_a_bad_list_changes_nothing_but_the_log(
    path: Path, first: str, content: bytes, reason: str, log: Callable[[], list[str]]
) -> None:
    if first == "artifact":
        path.write_bytes(artifact(["a.example"]))
    async with watched(path) as kept:
        before = kept.matcher
        replace(path, content)
        await until(lambda: kept.failures, "the refusal")
        await some_polls()
        assert kept.matcher is before
        assert blocks(kept.matcher, "http://a.example/")
        [line] = log()
        assert line.startswith(f"list {path}: ")
        assert line.endswith(KEPT)
        assert line.count(str(path)) <= 2
        assert reason in line
        replace(path, "e.example\n")
        await until(lambda: kept.reloads, "a good list after it")
        assert blocks(kept.matcher, "http://e.example/")
        assert (kept.reloads, kept.failures) == (1, 1)


@pytest.mark.usefixtures("compiles_here")
class TestFailures:
    async def test_the_same_good_list_come_back_is_told(
        self, path: Path, log: Callable[[], list[str]]
    ) -> None:
        good = path.read_bytes()
        async with watched(path) as kept:
            before = kept.matcher
            replace(path, HTML)
            await until(lambda: kept.failures, "the refusal")
            replace(path, good)
            await until(lambda: len(log()) > 1, "a word of its return")
            assert log()[1] == "list list: 2 entries in force, as before"
            assert kept.matcher is before

    async def test_a_process_that_does_not_do_its_work_is_tried_again(
        self, path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, asked = feeds_feed.ask, 0

        def ask(*args: Any, **more: Any) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise OSError(0, "the process that compiles it was ended by signal 9 (out of memory?)")
            assert failed.wait(60)
            return real(*args, **more)

        failed = threading.Event()
        monkeypatch.setattr(schedule, "FIRST_RETRY", 0.0)
        async with watched(path) as kept:
            with patch.object(feeds_feed, "ask", ask):
                replace(path, "c.example\n")
                await until(lambda: kept.failures, "a word of it")
                failed.set()
                await until(lambda: kept.reloads, "the new list")
            assert blocks(kept.matcher, "http://c.example/")
            assert (kept.failures, asked) == (1, 2)
            assert (
                log()[0]
                == f"list {path}: the process that compiles it was ended by signal 9 (out of memory?){KEPT}"
            )

    @pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError(12, "no memory")])
    async def test_a_list_that_the_system_has_no_room_for_is_tried_again(
        self, path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        real, asked = Keeper._mapped, 0

        def mapped(*args: Any) -> memoryview:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise error
            return real(*args)

        monkeypatch.setattr(keeper, "AGAIN", 0.0)
        async with watched(path) as kept:
            monkeypatch.setattr(Keeper, "_mapped", mapped)
            replace(path, "c.example\n")
            await until(lambda: kept.reloads, "the new list")
            assert blocks(kept.matcher, "http://c.example/")
            assert (kept.failures, kept.refused) == (1, {})

    async def test_deleted_and_brought_back(self, path: Path, log: Callable[[], list[str]]) -> None:
        kept_aside = path.with_name("aside")
        async with watched(path) as kept:
            path.rename(kept_aside)
            await until(lambda: kept.failures, "its loss to be noticed")
            await some_polls()
            assert log() == [f"list {path}: gone{KEPT}"]
            assert blocks(kept.matcher, "http://a.example/")
            kept_aside.rename(path)
            await until(lambda: len(log()) > 1, "a word of its return")
            path.unlink()
            await until(lambda: kept.failures == 2, "its loss to be noticed again")
            path.write_text("c.example\n")
            await until(lambda: kept.reloads, "the new list")
            assert blocks(kept.matcher, "http://c.example/")

    @pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
    async def test_something_else_in_its_place(
        self, path: Path, make: Callable[[Path], None], log: Callable[[], list[str]]
    ) -> None:
        async with watched(path) as kept:
            path.unlink()
            make(path)
            await until(lambda: kept.failures, "the refusal")
            await some_polls()
            assert log() == [f"list {path}: not a regular file{KEPT}"]

    async def test_permission_lost(
        self, path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(path: Path, **_: bool) -> None:  # nothing is forbidden to root
            raise unreadable(path, PermissionError(13, "Permission denied"))

        path.write_bytes(artifact(["a.example"]))
        async with watched(path) as kept:
            monkeypatch.setattr(refresh, "whole_copy", refused)
            replace(path, artifact(["c.example"]))
            await until(lambda: kept.failures, "the refusal")
            await some_polls()
            assert log() == [f"list {path}: Permission denied{KEPT}"]
            assert blocks(kept.matcher, "http://a.example/")

    async def test_one_bad_list_does_not_hold_up_another(
        self, path: Path, log: Callable[[], list[str]]
    ) -> None:
        others = [path.with_name(f"other{i}.txt") for i in range(3)]
        for i, other in enumerate(others):
            other.write_text(f"o{i}.example\n")
        async with watched(path, *others) as kept:
            replace(path, HTML)
            for i, other in enumerate(others):
                replace(other, f"n{i}.example\n")
            await until(lambda: kept.reloads == 3, "the other lists")
            await until(lambda: kept.failures, "the refusal")
            assert blocks(kept.matcher, "http://a.example/")
            for i in range(3):
                assert blocks(kept.matcher, f"http://n{i}.example/")
                assert not blocks(kept.matcher, f"http://o{i}.example/")
            assert len([line for line in log() if KEPT in line]) == 1

    async def test_a_list_that_never_had_a_last_newline_needs_none(self, path: Path) -> None:
        path.write_text("a.example")
        async with watched(path) as kept:
            replace(path, "c.example\nd.example")
            await until(lambda: kept.reloads, "the new list")
            assert blocks(kept.matcher, "http://d.example/")

    async def test_a_writer_that_never_closes_is_spoken_of(
        self, path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(path_watch, "PATIENCE", 0.3)
        async with watched(path) as kept:
            with path.open("a") as writer:
                writer.write("c.example\n")
                writer.flush()
                await until(log, "a word")
                await some_polls()
                assert log() == [f"list {path}: changed, but its writer has not closed it; waiting"]
                assert kept.reloads == 0
            await until(lambda: kept.reloads, "the list")


@pytest.mark.usefixtures("compiles_here")
async def test_an_artifact_that_is_about_to_expire_is_an_alarm_as_a_feeds_is(
    path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "FIRST_ALARMS", 0.02)
    monkeypatch.setattr(updates, "ALARM_LOOK", 0.02)
    now = int(time.time())
    issue = Issue(valid_from=now - 100_000, valid_until=now + 3_600)
    data, _ = compile_sources([path], Key(SECRET), name="list", issue=issue)
    path.write_bytes(data)

    def alarms() -> list[str]:
        return [line for line in log() if line.startswith(f"list {path}: expiring: expires at ")]

    async with watched(path):
        await until(alarms, "the alarm")
        await some_polls()
    assert len(alarms()) == 1, "and not at each look"


@pytest.fixture
def run() -> Iterator[RunFolder]:
    """What the workers of one filter share."""
    run = RunFolder()
    yield run
    run.close()


@pytest.mark.usefixtures("compiles_here")
class TestBesideOtherWorkers:
    """A keeper that takes the place of one that died, while the other has the list."""

    @pytest.mark.parametrize("follows", [True, False], ids=["the first", "another"])
    @pytest.mark.parametrize(
        "content", [HTML, b"", b"c.example\nd.ex", None], ids=["web page", "empty", "half", "gone"]
    )
    async def test_a_list_gone_bad_is_the_others_last_good_one(
        self, path: Path, run: RunFolder, content: bytes | None, follows: bool, log: Callable[[], list[str]]
    ) -> None:
        other = Keeper([path], Key(SECRET), run=run)
        other.load()
        path.unlink() if content is None else path.write_bytes(content)
        if not follows:
            await other.reload()
            other_said = len(log())
        else:
            other_said = 0
        async with watched(path, run=run, follows=follows) as kept:
            assert list(kept.refused) == ["list"], "from the start: what others said of it goes on"
            assert blocks(kept.matcher, "http://a.example/")
            assert not blocks(kept.matcher, "http://c.example/")
            await until(lambda: kept.failures, "a word of it")
            await some_polls()
            assert len(log()) == other_said + 1
            assert log()[-1].endswith(KEPT)
            replace(path, "c.example\n")
            if not follows:
                await other.reload()
            await until(lambda: kept.reloads, "the next good one")
            assert blocks(kept.matcher, "http://c.example/")

    async def test_a_list_that_is_being_written_comes_when_that_is_done(
        self, path: Path, run: RunFolder, log: Callable[[], list[str]]
    ) -> None:
        other = Keeper([path], Key(SECRET), run=run)
        other.load()
        with path.open("w") as writer:
            writer.write("c.example\n")
            writer.flush()
            async with watched(path, run=run) as kept:
                await some_polls()
                assert blocks(kept.matcher, "http://a.example/")
                writer.close()
                await until(lambda: kept.reloads, "the whole list")
                assert blocks(kept.matcher, "http://c.example/")
        assert len(log()) == 1

    async def test_what_the_system_kept_from_being_read_at_the_start_is_tried_again(
        self, path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, asked = feeds_feed.ask, 0

        def ask(*args: Any, **more: Any) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise OSError(0, "the process that compiles it was ended by signal 9 (out of memory?)")
            return real(*args, **more)

        Keeper([path], Key(SECRET), run=run).load()
        replace(path, "c.example\n")
        monkeypatch.setattr(schedule, "FIRST_RETRY", 0.0)
        with patch.object(feeds_feed, "ask", ask):
            async with watched(path, run=run) as kept:
                assert blocks(kept.matcher, "http://a.example/")
                await until(lambda: kept.reloads, "the new list")
                assert blocks(kept.matcher, "http://c.example/")

    async def test_a_reload_is_compiled_once_and_in_one_file_for_all(
        self, path: Path, run: RunFolder
    ) -> None:
        compiled, real = 0, feeds_feed.ask

        def ask(*args: Any, **more: Any) -> dict[str, Any]:
            nonlocal compiled
            compiled += 1
            return real(*args, **more)

        others = memory_maps()
        with patch.object(feeds_feed, "ask", ask):
            async with (
                watched(path, run=run) as one,
                watched(path, run=run, follows=False) as other,
            ):
                for number in range(1, 4):
                    replace(path, f"c{number}.example\n")
                    await until(lambda n=number: (one.reloads, other.reloads) == (n, n), "both")  # type: ignore[misc]
                    assert compiled == number + 1
                    assert one.matcher.lists[0].serial == other.matcher.lists[0].serial
                    await until(lambda: len(memory_maps() - others) == 1, "the old one to be let go")
                await asyncio.gather(one.reload(), other.reload())
                # What was reloaded is what a replacement gets when the file is bad.
                replace(path, HTML)
                replacement = Keeper([path], Key(SECRET), run=run)
                replacement.load()
                assert blocks(replacement.matcher, "http://c3.example/")


class TestWorker:
    async def test_killed(
        self, path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with watched(path) as kept:
            started = spying(monkeypatch, lambda worker: worker.send_signal(signal.SIGKILL))
            replace(path, "c.example\n")
            await until(lambda: kept.failures, "its death to be noticed")
            await some_polls()
            assert len(started) == 1
            ended = "was ended by signal 9 (out of memory?)"
            assert log() == [f"list {path}: the process that compiles it {ended}{KEPT}"]
            monkeypatch.undo()
            await kept.reload()
            await until(lambda: blocks(kept.matcher, "http://c.example/"), "the list")

    async def test_that_cannot_be_started(
        self, path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(12, "Cannot allocate memory")

        async with watched(path) as kept:
            monkeypatch.setattr(subprocess, "Popen", fail)
            replace(path, "c.example\n")
            await until(lambda: kept.failures, "the failure")
            await some_polls()
            assert log() == [f"list {path}: Cannot allocate memory{KEPT}"]

    async def test_ended_with_the_watch(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with watched(path):
            started = spying(monkeypatch, lambda worker: worker.send_signal(signal.SIGSTOP))
            replace(path, "c.example\n")
            await until(lambda: started, "the worker")
        await until(lambda: started[0].returncode == -signal.SIGKILL, "its end")

    async def test_ended_with_the_watch_it_is_begun_again_with_it(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = Keeper([path], Key(SECRET))
        kept.load()
        first = asyncio.create_task(kept.watch())
        started = spying(monkeypatch, lambda worker: worker.send_signal(signal.SIGSTOP))
        replace(path, "c.example\n")
        await until(lambda: started, "the worker")
        first.cancel()
        await asyncio.wait([first])
        monkeypatch.undo()
        second = asyncio.create_task(kept.watch())
        await until(lambda: blocks(kept.matcher, "http://c.example/"), "the list")
        second.cancel()
        await asyncio.wait([second])

    async def test_is_out_of_reach_of_ctrl_c(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        groups: list[int] = []
        async with watched(path) as kept:
            spying(monkeypatch, lambda worker: groups.append(os.getpgid(worker.pid)))
            replace(path, "c.example\n")
            await until(lambda: kept.reloads, "the new list")
        assert groups
        assert groups[0] != os.getpgrp()

    async def test_no_file_descriptor_is_left(self, path: Path) -> None:
        async with watched(path) as kept:
            await kept.reload()
            known = descriptors()
            for content in ("c.example\n", HTML, "d.example\n", PICTURE, artifact(["e.example"])):
                replace(path, content)
                await kept.reload()
            await until(lambda: len(descriptors() - known) <= 1, "all but the last list's to be closed")


def spying(
    monkeypatch: pytest.MonkeyPatch, act: Callable[["subprocess.Popen[bytes]"], object]
) -> list["subprocess.Popen[bytes]"]:
    """Do something to each worker as soon as it runs, and collect them."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*args: Any, **kwargs: Any) -> "subprocess.Popen[bytes]":
        worker = real(*args, **kwargs)
        act(worker)
        started.append(worker)
        return worker

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


@pytest.mark.usefixtures("compiles_here")
class TestReload:
    async def test_reads_again_what_has_not_changed(self, path: Path, log: Callable[[], list[str]]) -> None:
        compiled = path.with_name("x.ward")
        compiled.write_bytes(artifact(["c.example"]))
        kept = Keeper([path, compiled], Key(SECRET))
        kept.load()
        before = kept.matcher
        await kept.reload()
        assert kept.matcher is not before
        assert kept.reloads == 2
        assert len(log()) == 2
        assert blocks(kept.matcher, "http://a.example/")
        assert blocks(kept.matcher, "http://c.example/")

    async def test_does_not_wait_for_a_change_to_settle(self, path: Path) -> None:
        kept = Keeper([path], Key(SECRET))
        kept.load()
        replace(path, "c.example\n")
        await kept.reload()
        assert blocks(kept.matcher, "http://c.example/")

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda path: path.unlink(), "gone"),
            (lambda path: path.write_bytes(HTML), "web page"),
            (lambda path: path.write_bytes(b"c.example\nd.ex"), "half-written"),
        ],
        ids=["gone", "web page", "half"],
    )
    async def test_a_bad_list(
        self, path: Path, spoil: Callable[[Path], object], reason: str, log: Callable[[], list[str]]
    ) -> None:
        async with watched(path) as kept:
            spoil(path)
            await kept.reload()
            await some_polls()
            lines = log()
            assert reason in lines[0]
            assert lines[0].endswith(KEPT)
            assert blocks(kept.matcher, "http://a.example/")

    async def test_half_a_list_whose_writer_is_at_work(
        self, path: Path, log: Callable[[], list[str]]
    ) -> None:
        async with watched(path) as kept:
            with path.open("w") as writer:
                writer.write("c.example\n")
                writer.flush()
                await kept.reload()
                assert log() == [f"list {path}: being written, will be read when that is done{KEPT}"]
                assert blocks(kept.matcher, "http://a.example/")
                writer.write("d.example\n")
            await until(lambda: kept.reloads, "the whole list")
            assert kept.matcher.lists[0].entries == 2

    async def test_many_at_once_are_few(self, path: Path) -> None:
        kept = Keeper([path], Key(SECRET))
        kept.load()
        await asyncio.gather(*(kept.reload() for _ in range(50)))
        await until(lambda: not kept._kept[0].busy.locked(), "the last to end")
        assert 1 <= kept.reloads <= 3
        replace(path, "c.example\n")
        await kept.reload()
        assert blocks(kept.matcher, "http://c.example/")

    async def test_at_the_same_time_as_the_watch(self, path: Path) -> None:
        async with watched(path) as kept:
            for i in range(5):
                replace(path, f"h{i}.example\n")
                await asyncio.sleep(0.07)
                await kept.reload()
            await until(lambda: blocks(kept.matcher, "http://h4.example/"), "the last list")
            assert kept.failures == 0


@pytest.mark.usefixtures("compiles_here")
class TestNetworks:
    def test_of_all_lists(self, path: Path) -> None:
        path.write_text("a.example\n192.0.2.0/24\n@@192.0.2.9\n")
        compiled = path.with_name("x.ward")
        compiled.write_bytes(artifact(["192.0.2.0/24", "2001:db8::7", "192.0.2.1 expires=2025-01-01"]))
        kept = Keeper([path, compiled], Key(SECRET))
        assert kept.networks() == []
        kept.load()
        assert sorted(kept.networks()) == ["192.0.2.0/24", "2001:db8::7/128"]

    async def test_of_a_matcher_that_has_just_gone_out_of_use(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.write_text("192.0.2.1\n")
        kept = Keeper([path], Key(SECRET))
        kept.load()
        old = kept.matcher
        await kept.reload()
        matchers = iter([old, kept.matcher])
        monkeypatch.setattr(Keeper, "matcher", property(lambda _: next(matchers)), raising=False)
        assert kept.networks() == ["192.0.2.1/32"]

    async def test_in_a_thread_while_lists_go_out_of_use(self, path: Path) -> None:
        compiled = path.with_name("x.ward")
        listed = sorted(f"192.0.2.{n}/32" for n in range(200))
        compiled.write_bytes(artifact([*(n.removesuffix("/32") for n in listed), "@@2001:db8::7"]))
        kept = Keeper([compiled], Key(SECRET))
        kept.load()
        times, over = 0, False

        def ask() -> None:
            nonlocal times
            while not over:
                assert sorted(kept.networks()) == listed
                times += 1
                time.sleep(0.0005)  # or on a busy machine the loop gets a turn each 100 ms

        asking = asyncio.create_task(asyncio.to_thread(ask))
        await until(lambda: times or asking.done(), "the thread to ask")
        for _ in range(30):
            await kept.reload()
        over = True
        await asking


class TestInSlices:
    async def test_gives_way_when_the_slice_is_used_up(self) -> None:
        ticks = iter(range(1000))
        pauses = 0

        def steps(count: int) -> "Generator[None, None, str]":
            for _ in range(count):
                yield
            return "done"

        async def pause() -> None:
            nonlocal pauses
            pauses += 1

        def clock() -> float:
            return next(ticks) * keeper.SLICE / 4

        assert await in_slices(steps(14), clock=clock, pause=pause) == "done"
        assert pauses == 3

    async def test_others_run_in_between(self) -> None:
        ran: list[int] = []

        async def other() -> None:
            for i in range(3):
                ran.append(i)
                await asyncio.sleep(0)

        def steps() -> "Generator[None, None, int]":
            for _ in range(10):
                yield
            return len(ran)

        task = asyncio.create_task(other())
        clock = iter(range(1000))
        assert await in_slices(steps(), clock=lambda: float(next(clock))) == 3
        await task

    async def test_an_error_in_a_step_is_the_callers(self) -> None:
        def steps() -> "Generator[None, None, None]":
            yield
            raise SourceError("bad")

        with pytest.raises(SourceError, match="bad"):
            await in_slices(steps())


@pytest.mark.parametrize("workers", in_turns(1, 2))
async def test_a_source_that_changes_faster_than_it_compiles_comes_into_force_whole(
    path: Path, run: RunFolder, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """A process that compiles takes hundreds of milliseconds to start; the file is another each 60 ms."""
    monkeypatch.setattr(path_watch, "UNSETTLED", 0.3)
    monkeypatch.setattr(updates, "LAG_AGAIN", 3600.0)
    last = 0

    async def rewrite() -> None:
        nonlocal last
        while True:
            last += 1
            # The two entries of one version are the same number.
            replace(path, f"v{last}.example\n" + "# .\n" * 2000 + f"w{last}.example\n")
            await asyncio.sleep(0.06)

    def lagging() -> int:
        return sum("changes faster than it is read and compiled" in line for line in log())

    kept = [Keeper([path], Key(SECRET), run=run, follows=not number) for number in range(workers)]
    for one in kept:
        one.load()
    tasks = [asyncio.create_task(one.watch()) for one in kept]
    rewriting = asyncio.create_task(rewrite())
    try:
        await until(lambda: all(one.reloads >= 4 for one in kept), "versions in force", 120)
        await until(lambda: lagging() == 1, "a line that says so", 120)
        for one in kept:
            matcher, now = one.matcher, last
            found = [n for n in range(now + 1) if blocks(matcher, f"http://v{n}.example/")]
            assert len(found) == 1, "one version"
            assert blocks(matcher, f"http://w{found[0]}.example/"), "and all of it"
        rewriting.cancel()
        await until(lambda: all(blocks(o.matcher, f"http://w{last}.example/") for o in kept), "the last", 120)
    finally:
        for task in (rewriting, *tasks):
            task.cancel()
        await asyncio.wait([rewriting, *tasks])
    assert lagging() == 1


@pytest.mark.usefixtures("compiles_here")
@pytest.mark.parametrize("bad", [HTML, "", None])
async def test_what_is_refused_is_so_until_the_file_is_in_force(path: Path, bad: str | bytes | None) -> None:
    good = path.read_text()
    async with watched(path) as kept:
        assert kept.refused == {}
        if bad is None:
            path.unlink()
        else:
            replace(path, bad)
        await until(lambda: kept.refused, "the refusal")
        assert kept.refused["list"].startswith(str(path))
        replace(path, good)
        await until(lambda: not kept.refused, "the list in force")


@pytest.mark.usefixtures("compiles_here")
async def test_an_entry_that_expires_is_a_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that connections under way, and addresses that are steered, are looked at again."""
    days = itertools.count(parse_time("2027-01-30T23:00:00Z"), DAY)
    now = [next(days)]
    monkeypatch.setattr(keeper, "time", SimpleNamespace(time=lambda: float(now[0]), monotonic=time.monotonic))
    replace(path, "a.example\n@@a.example expires=2027-01-31\n")
    async with watched(path) as kept:
        before = kept.matcher
        first, now[0] = now[0], next(days)
        await some_polls()
        assert kept.matcher is before, "its last day begins"
        now[0] = next(days)
        await until(lambda: kept.matcher is not before, "its end")
        assert kept.matcher.lists == before.lists
        over = kept.matcher
        now[0] = next(days)
        await some_polls()
        assert kept.matcher is over, "it is over once"
        now[0] = first
        await until(lambda: kept.matcher is not over, "a clock that is set back")


@pytest.mark.usefixtures("compiles_here")
async def test_an_end_is_looked_at_again_where_there_was_no_memory_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = parse_time("2027-01-31T12:00:00Z")
    monkeypatch.setattr(keeper, "time", SimpleNamespace(time=lambda: now, monotonic=time.monotonic))
    monkeypatch.setattr(lasting, "AGAIN", 0.01)
    replace(path, "a.example\n@@a.example expires=2027-01-31\n")
    kept = Keeper([path], Key(SECRET))
    kept.load()
    before, swap, failed = kept.matcher, kept._swap, []

    def without_memory() -> None:
        if not failed:
            failed.append(True)
            raise MemoryError
        swap()

    monkeypatch.setattr(kept, "_swap", without_memory)
    now += DAY
    task = asyncio.create_task(lasting.lasting("looking after the lists", kept.watch))
    await until(lambda: kept.matcher is not before, "its end")
    assert failed
    task.cancel()
    await asyncio.wait([task])


async def test_a_file_that_a_reload_met_being_written_is_looked_at_again(path: Path) -> None:
    async with watched(path) as kept:
        with path.open("r+"):
            await kept.reload()
            assert "being written" in kept.refused["list"]
        await until(lambda: not kept.refused, "the list in force")


async def test_a_list_on_a_file_system_that_hangs_keeps_nothing_from_going_on(
    path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = path.with_name("mounted") / "other.txt"
    other.parent.mkdir()
    other.write_text("o.example\n")
    look, back, waiting = path_watch._look, threading.Event(), threading.Event()

    def hanging(looked_at: Path) -> path_watch.Content:
        if looked_at == other:
            assert threading.current_thread() is not threading.main_thread()
            waiting.set()
            back.wait()
        return look(looked_at)

    monkeypatch.setattr(updates, "PATIENCE", 0.0)
    async with watched(path, other) as kept:
        monkeypatch.setattr(path_watch, "_look", hanging)
        await until(waiting.is_set, "the look that hangs")
        replace(path, "c.example\n")
        await until(lambda: blocks(kept.matcher, "http://c.example/"), "the list that can be read")
        assert f"list {other}: its file system does not answer; what is in force stays" in log()
        reload = asyncio.create_task(kept.reload())
        replace(other, "d.example\n")
        back.set()
        await reload
        await until(lambda: blocks(kept.matcher, "http://d.example/"), "the list that is there again")


def stored(state: Path) -> list[Path]:
    """The artifacts of the operator's own lists in a state folder."""
    return sorted((state / "lists").glob("*.ward"))


@pytest.mark.usefixtures("compiles_here")
class TestState:
    """Lists of the operator's own whose artifacts last."""

    def test_a_restart_takes_what_is_there_and_forgets_lists_not_named(self, path: Path) -> None:
        state, other = path.with_name("state"), path.with_name("other.txt")
        other.write_text("o.example\n")
        Keeper([path, other], Key(SECRET), state=state).load()
        assert len(stored(state)) == 2
        again = Keeper([path], Key(SECRET), state=state)
        with patch("urlward.feeds.candidate.compile_text", side_effect=AssertionError):
            again.load()
        assert blocks(again.matcher, "http://a.example/")
        assert len(stored(state)) == 1

    def test_at_a_start_a_bad_list_is_an_error_whatever_was_before(self, path: Path) -> None:
        state = path.with_name("state")
        Keeper([path], Key(SECRET), state=state).load()
        path.write_bytes(HTML)
        with pytest.raises(SourceError, match="web page"):
            Keeper([path], Key(SECRET), state=state).load()

    async def test_at_a_start_on_a_full_disk_the_last_good_one_is_in_force_until_there_is_room(
        self, path: Path, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(store: FeedStore, _: bytes) -> None:
            raise StateError(f"{store.path}: No space left on device")

        monkeypatch.setattr(schedule, "FIRST_RETRY", 0.2)
        state = path.with_name("state")
        with pytest.MonkeyPatch.context() as disk:
            disk.setattr(FeedStore, "write_artifact", full)
            with pytest.raises(SourceError, match="No space left on device"):
                Keeper([path], Key(SECRET), state=state).load()  # there is none yet
        Keeper([path], Key(SECRET), state=state).load()
        path.write_text("c.example\n")
        kept = Keeper([path], Key(SECRET), state=state)
        with pytest.MonkeyPatch.context() as disk:
            disk.setattr(FeedStore, "write_artifact", full)
            kept.load()
            assert blocks(kept.matcher, "http://a.example/")
            assert "No space left on device" in kept.refused["list"]
            watch = asyncio.create_task(kept.watch())
            await until(lambda: log()[-1:] and log()[-1].endswith(KEPT), "that it is said")
        await until(lambda: blocks(kept.matcher, "http://c.example/"), "the list in force")
        assert not kept.refused
        watch.cancel()
        await asyncio.wait([watch])

    @pytest.mark.parametrize("damage", ["noise", "gone"])
    async def test_an_artifact_that_is_damaged_is_made_anew_while_all_filters(
        self, path: Path, damage: str, log: Callable[[], list[str]]
    ) -> None:
        state = path.with_name("state")
        kept = Keeper([path], Key(SECRET), state=state)
        kept.load()
        watch = asyncio.create_task(kept.watch())
        [artifact] = stored(state)
        if damage == "gone":
            artifact.unlink()
        else:
            artifact.write_bytes(b"noise" * 10)  # in its place, under whatever maps it
            await until(lambda: [*(state / "damaged").glob("*")], "that it is set aside")
        await until(lambda: stored(state) and load(artifact.read_bytes(), Key(SECRET)), "another")
        await until(lambda: not kept.refused, "that all is well")
        assert blocks(kept.matcher, "http://a.example/")
        assert sum("set aside as damaged/" in line for line in log()) == (damage == "noise")
        replace(path, "c.example\n")
        await until(lambda: blocks(kept.matcher, "http://c.example/"), "the next")
        watch.cancel()
        await asyncio.wait([watch])
