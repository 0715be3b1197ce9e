"""Polling of artifacts by their first bytes, and lists that a body issues anew."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import wait_for
from feeds.feed_support import Server, feed, hosts
from feeds.test_take import SIGNER, THIEF, asked, issue
from feeds.test_updates import Running, table
from lists.support import key_file
from urlward.config import Config
from urlward.engine.artifact import Header, parse
from urlward.engine.errors import ArtifactError
from urlward.engine.signing import sign_artifact
from urlward.feeds import updates
from urlward.feeds.feed import Feed
from urlward.feeds.source import NO_VALIDATORS, Validators
from urlward.feeds.updates import Slots, Updates, peek

LARGE, SMALL = issue(1, *range(200), signer=SIGNER), issue(2, *range(20), signer=SIGNER)


def again(data: bytes, serial: int) -> bytes:
    return sign_artifact(data, SIGNER, serial=serial)


def test_what_is_new_is_seen_long_before_the_interval_is_over(tmp_path: Path, site: Server) -> None:
    key_file(tmp_path / "lists.key")
    site.put("feed", issue(1, *range(20)))
    config = table("one", site.url(), 'poll = "1s"\nkey = "lists.key"')
    with Running(tmp_path, config) as process:
        process.wait_for("list one: 20 entries fetched, serial 1")
        site.put("feed", issue(2, *range(21)))
        process.wait_for("list one: 21 entries fetched, serial 2")
        site.seen()
        # It goes on looking, and what is as it was costs a word each time.
        seen: list[str] = []
        wait_for(lambda: seen.extend(asked(site)) or len(seen) >= 2, "two looks")  # type: ignore[func-returns-value]
        assert set(seen) == {"304 /feed"}
        site.put("feed", issue(3, *range(22)))
        process.wait_for("list one: 22 entries fetched, serial 3")
        assert process.end() == 0


class Over(Exception):
    """What a test ends polling with."""


async def at_rest() -> None:
    """That no refresh is under way."""


async def test_a_page_in_between_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A page of a minute left nodes without polling, and so without a rollback, until their restart."""
    page = ArtifactError("what its server has is no artifact")
    seen = iter([page, page, parse(SMALL).header, page, Over()])
    asked_for: list[bool] = []

    def look(*_: object) -> tuple[Header, Validators]:
        found = next(seen)
        if isinstance(found, Exception):
            raise found
        return found, NO_VALIDATORS

    monkeypatch.setattr(updates, "peek", look)
    monkeypatch.setattr(updates, "MOST_WAIT", 0.001)
    table = feed(tmp_path, url="http://192.0.2.1/").table.model_copy(update={"poll": 0.001})
    with pytest.raises(Over):
        await updates.poll(table, lambda: parse(LARGE).header, lambda: asked_for.append(True), at_rest)
    assert asked_for == [True]
    assert caplog.text.count("is no artifact: it is looked at each interval alone") == 2, "once each time"


async def test_what_is_not_taken_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each look, where two servers of one name have validators of their own: a list that a thousand
    nodes refuse would be fetched by each every two seconds."""
    first, second = parse(LARGE).header, parse(SMALL).header
    seen = iter([second, second, second, first, second, second])
    asked_for: list[Header] = []
    looks: list[Header] = []

    def look(*_: object) -> tuple[Header, Validators]:
        try:
            looks.append(next(seen))
        except StopIteration:
            raise Over from None
        return looks[-1], NO_VALIDATORS

    monkeypatch.setattr(updates, "peek", look)
    made = feed(tmp_path, url="http://192.0.2.1/")
    table = made.table.model_copy(update={"poll": 0.001})
    in_force = first
    with pytest.raises(Over):
        await updates.poll(table, lambda: in_force, lambda: asked_for.append(looks[-1]), at_rest)
    assert (len(looks), asked_for) == (6, [second])
    # Another one is asked for, and so is the first where it is no longer in force.
    looks.clear()
    asked_for.clear()
    seen, in_force = iter([second, first, second]), parse(again(LARGE, 3)).header
    with pytest.raises(Over):
        await updates.poll(table, lambda: in_force, lambda: asked_for.append(looks[-1]), at_rest)
    assert asked_for == [second, first, second]


async def test_what_a_refresh_brings_that_is_under_way_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow machine a first fetch was followed by a second one at once."""
    first, second = parse(LARGE).header, parse(SMALL).header
    seen, in_force = iter([first, second]), None
    asked_for: list[bool] = []

    def look(*_: object) -> tuple[Header, Validators]:
        try:
            return next(seen), NO_VALIDATORS
        except StopIteration:
            raise Over from None

    async def settled() -> None:
        nonlocal in_force
        in_force = first

    monkeypatch.setattr(updates, "peek", look)
    table = feed(tmp_path, url="http://192.0.2.1/").table.model_copy(update={"poll": 0.001})
    with pytest.raises(Over):
        await updates.poll(table, lambda: in_force, lambda: asked_for.append(True), settled)
    assert asked_for == [True], "the second one alone"


async def test_a_refresh_that_is_under_way_is_waited_for(tmp_path: Path) -> None:
    table = feed(tmp_path, url="http://192.0.2.1/").table
    made = Updates(Feed(table, Config(feed=(table,)), tmp_path), Slots())
    async with made._one:
        waiting = asyncio.ensure_future(made._settled())
        await asyncio.sleep(0.01)
        assert not waiting.done()
    await waiting


@pytest.mark.parametrize("content", [hosts(*range(100)), hosts(1)])
def test_a_text_is_not_polled(content: str, tmp_path: Path, site: Server) -> None:
    site.put("feed", content)
    with Running(tmp_path, table("one", site.url(), 'poll = "1s"')) as process:
        process.wait_for("list one: poll: what its server has is no artifact: it is looked at each interval")
        assert not any("h1.example" in line for line in process.lines())
        assert process.end() == 0


def test_a_server_that_gives_no_parts_is_not_polled(
    tmp_path: Path, site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("feed", LARGE)
    made = feed(tmp_path, url=site.url())
    header, _ = peek(made.table, NO_VALIDATORS)
    assert header == parse(LARGE).header
    monkeypatch.setattr(updates, "HEAD_ONLY", {})
    with pytest.raises(ArtifactError, match="no parts of files"):
        peek(made.table, NO_VALIDATORS)


def test_a_list_that_is_issued_anew_is_taken_from_those_kept(tmp_path: Path, site: Server) -> None:
    site.put("feed", LARGE)
    made = feed(tmp_path, url=site.url(), trust=[str(SIGNER.public)])
    made.refresh()
    site.put("feed", SMALL)
    assert made.refresh().reason == "shrunk"
    made.refresh(max_shrink=1.0)
    assert made.facts.serial == 2
    site.put("feed", again(LARGE, 3))
    site.seen()
    # Grown tenfold: past the feed's bounds, which do not hold up whoever is trusted to take a list back.
    outcome = made.refresh(max_grow=0.1)
    assert outcome.text == "200 entries fetched, serial 3, +180 -0, as it was kept"
    assert asked(site) == ["404 /feed.2.delta", "206 /feed"]
    assert made.store.path.read_bytes() == again(LARGE, 3)
    # A header alone makes no list: it has to be whole, and signed.
    altered = bytearray(again(SMALL, 4))
    altered[48] += 1
    for wrong, reason in ((sign_artifact(SMALL, THIEF, serial=4), "unknown-signer"), (altered, "damaged")):
        site.put("feed", bytes(wrong))
        assert made.refresh(max_shrink=1.0).reason == reason
        assert made.facts.serial == 3
    site.put("feed", again(SMALL, 1))
    assert made.refresh().reason == "older-serial"


def test_where_nobody_is_trusted_the_bounds_hold(tmp_path: Path, site: Server) -> None:
    site.put("feed", issue(1, *range(20)))
    made = feed(tmp_path, url=site.url(), max_grow=100.0)
    made.refresh()
    site.put("feed", issue(2, *range(200)))
    assert made.refresh().state == "new"
    site.put("feed", issue(3, *range(20)))
    assert made.refresh().reason == "shrunk"


async def test_a_server_that_says_nothing_keeps_no_thread_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 40 feeds of one, records and dashboard did not begin, as each poll kept one for ten seconds."""
    begun, over = threading.Event(), threading.Event()

    def look(*_: object) -> tuple[None, Validators]:
        begun.set()
        over.wait()
        return None, NO_VALIDATORS

    monkeypatch.setattr(updates, "peek", look)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    table = feed(tmp_path, url="http://192.0.2.1/").table.model_copy(update={"poll": 0.001})
    made = Updates(Feed(table, Config(feed=(table,)), tmp_path), Slots())
    polling = asyncio.ensure_future(made._poll())
    while not begun.is_set():
        await asyncio.sleep(0.001)
    free = asyncio.ensure_future(asyncio.to_thread(lambda: None))
    done, _ = await asyncio.wait([free], timeout=10)
    over.set()
    polling.cancel()
    await asyncio.wait([free, polling])
    assert done, "a thread is free"
