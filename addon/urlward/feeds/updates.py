"""Updates of the feeds: each is refreshed when it is due, asked for, changed or lost, until the end.

Whoever runs them never has a feed's text: each refresh is a process of its own
(`urlward.feeds.apart.refresh_apart`). Whatever one of them is doing when it is killed, the state folder is
good (`urlward.feeds.store`).

One line is said for each list that is new, each failure, and the first answer of several that nothing has
changed. An alarm is an error, said when it begins and once an hour while it lasts.
"""

import asyncio
import logging
import random
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from urlward.config import Config, FeedTable
from urlward.engine.errors import UrlwardError
from urlward.feeds.alarms import alarms
from urlward.feeds.apart import Outcome, refresh_apart
from urlward.feeds.schedule import Waiting, after_failure, at_start
from urlward.feeds.store import FeedStore
from urlward.feeds.watch import PathWatch
from urlward.lasting import lasting
from urlward.lists import memfd
from urlward.state.folder import StateError
from urlward.state.watch import Signature

logger = logging.getLogger("urlward.lists")

AT_ONCE = 8
"""Feeds refreshed at a time; fewer of them compute (`urlward.feeds.turns`)."""

OF_ONE_SERVER = 2
"""Feeds refreshed at a time of one server: one that stalls keeps those of others from nothing."""

WATCH = 1.0
"""Seconds between two looks at a path, and at whether another process has refreshed a feed."""

FIRST_ALARMS = 60.0
"""Seconds after the start in which there is no alarm, since what is due is yet to be refreshed."""

ALARM_LOOK = 10.0
"""Seconds between two looks for alarms."""

ALARM_AGAIN = 3_600.0
"""Seconds after which an alarm that lasts is said again."""

LOST_AGAIN = 60.0
"""Seconds at least between two refreshes because the artifact in force is gone: a filter that finds every one
of them damaged must not have a server asked without end."""

AFTER_FAULT = 60.0
"""Seconds after which a feed is looked after again whose state was not to be had."""


class Feeds:
    """Scheduler of all feeds' refreshes.

    Args:
        config: with the feeds.
        state: the state folder.
    """

    def __init__(self, config: Config, state: Path) -> None:
        self._config = config
        self._state = state
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._servers: dict[str, asyncio.Semaphore] = {}
        self._turns = memfd.new()
        self._now = {feed.name: asyncio.Event() for feed in config.feed}
        self._said: dict[tuple[str, str], float] = {}
        self._lost: dict[str, float] = {}

    def refresh_all(self) -> None:
        """Refresh every feed as soon as possible."""
        for event in self._now.values():
            event.set()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for feed in self._config.feed:
                tasks.create_task(self._look_after_always(feed))
            tasks.create_task(lasting("alarms of lists", self._watch_alarms))

    async def _look_after_always(self, feed: FeedTable) -> None:
        while True:
            try:
                await self._look_after(feed)
            except Exception as e:  # noqa: BLE001 - one feed that breaks us must not end the others
                logger.error("list %s: %s", feed.name, _said(e))
                await asyncio.sleep(AFTER_FAULT)

    async def _look_after(self, feed: FeedTable) -> None:
        store = FeedStore(self._state, feed.name)
        watch = PathWatch(Path(feed.path)) if feed.path is not None else None
        facts = store.facts()
        next_run = at_start(
            time.time(),
            feed.interval,
            random.random,
            next_run=facts.next_run,
            not_before=facts.not_before,
            has_artifact=store.header() is not None,
        )
        failures, was = 0, ""
        while True:
            await self._until_due(feed, store, next_run, watch)
            async with self._server(feed), self._slots:
                if watch is not None:
                    watch.acted()
                self._now[feed.name].clear()
                outcome = await asyncio.to_thread(self._refresh, feed, failures)
            failures = failures + 1 if outcome.state == "failed" else 0
            self._say(feed, outcome, was)
            was, next_run = outcome.state, outcome.next_run

    async def _until_due(
        self, feed: FeedTable, store: FeedStore, next_run: float, watch: PathWatch | None
    ) -> None:
        event, seen = self._now[feed.name], None
        known = store.facts().last_attempt
        waiting = Waiting(next_run, feed.interval, time.time(), time.monotonic())
        while left := waiting.left(time.time(), time.monotonic()):
            if watch is not None and watch.changed():
                return
            try:
                await asyncio.wait_for(event.wait(), min(left, WATCH))
            except TimeoutError:
                # Where all is as it was, hundreds of feeds are not to cost more than a look at their files.
                files = Signature.of(store.facts_path), Signature.of(store.path)
                if files == seen:
                    continue
                facts = store.facts()
                if not facts.last_success or store.header() is not None:
                    seen = files
                elif self._is_lost(feed):
                    return
                if facts.last_attempt != known:  # by `urlward feeds refresh`
                    known = facts.last_attempt
                    waiting = Waiting(facts.next_run, feed.interval, time.time(), time.monotonic())
            else:
                return

    def _server(self, feed: FeedTable) -> asyncio.Semaphore:
        """Limit of the refreshes that wait for one server; of all that are at paths."""
        server = urlsplit(feed.proxy or feed.url or "").netloc.rpartition("@")[2].lower()
        return self._servers.setdefault(server, asyncio.Semaphore(OF_ONE_SERVER))

    def _is_lost(self, feed: FeedTable) -> bool:
        """Whether an artifact that is gone, or has been set aside, is fetched anew now."""
        now = time.monotonic()
        if now - self._lost.get(feed.name, -LOST_AGAIN) < LOST_AGAIN:
            return False
        self._lost[feed.name] = now
        return True

    def _refresh(self, feed: FeedTable, failures: int) -> Outcome:
        try:
            return refresh_apart(feed, self._config, self._state, turns=self._turns)
        except Exception as e:  # noqa: BLE001 - a bug may be in one feed's way, and not in another's
            now = time.time()
            next_run = after_failure(now, feed.interval, feed.jitter, random.random, failures=failures + 1)
            return Outcome("failed", f"{_said(e)}; what is in force stays", next_run)

    def _say(self, feed: FeedTable, outcome: Outcome, was: str) -> None:
        if outcome.state == "failed":
            logger.error("list %s: %s", feed.name, outcome.text)
        elif outcome.state == "new" or was != outcome.state:
            logger.info("list %s: %s", feed.name, outcome.text)

    async def _watch_alarms(self) -> None:
        await asyncio.sleep(FIRST_ALARMS)
        while True:
            for feed in self._config.feed:
                store = FeedStore(self._state, feed.name)
                with suppress(StateError):  # which its refreshes say
                    self._alarm(feed, alarms(feed, store.facts(), store.header(), time.time()))
            await asyncio.sleep(ALARM_LOOK)

    def _alarm(self, feed: FeedTable, found: dict[str, str]) -> None:
        now = time.monotonic()
        for kind, text in found.items():
            if now - self._said.get((feed.name, kind), -ALARM_AGAIN) >= ALARM_AGAIN:
                self._said[feed.name, kind] = now
                logger.error("list %s: %s: %s", feed.name, kind, text)
        for name, kind in list(self._said):
            if name == feed.name and kind not in found:
                del self._said[name, kind]
                logger.info("list %s: no longer %s", name, kind)


def _said(error: Exception) -> str:
    """Text of an error for the log; that of a bug could name an entry, and is left out."""
    return str(error) if isinstance(error, UrlwardError) else f"a bug: {type(error).__name__}"
