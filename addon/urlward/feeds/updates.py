"""Updates of lists: the loop in which each is refreshed when it is due, asked for, changed or lost.

It is one for configured feeds, which the service process keeps up to date, and for lists that the operator
names, which the first worker does. Whoever runs it never has a list's text: each refresh is a process of its
own (`urlward.feeds.feed`). Whatever that is doing when it is killed, the state folder is good
(`urlward.feeds.store`).

A feed with ``poll`` is looked at every few seconds: the first bytes of its artifact, whose header names the
serial and is replaced with it as a whole, are all the pointer that a list needs. A server that has nothing
new answers 304, without a body. What is new is fetched and judged by an ordinary refresh; no list's text is
ever asked for by a poll.

Of feeds one line is said for each list that is new, each failure, and the first answer of several that
nothing has changed; of a list that the operator names each filter says what it has in force. An alarm is an
error, said when it begins and once an hour while it lasts.
"""

import asyncio
import logging
import os
import random
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from urlward.config import Config
from urlward.engine.artifact import HEADER_SIZE, Header, read_header
from urlward.engine.errors import ArtifactError, UrlwardError, fault_text
from urlward.feeds.feed import NO_STATE, Feed, Outcome
from urlward.feeds.own import own_feed
from urlward.feeds.schedule import Waiting, after_failure, at_start
from urlward.feeds.source import HEAD_ONLY, NO_VALIDATORS, FetchError, Validators, origin
from urlward.feeds.status import alarms
from urlward.lasting import lasting
from urlward.lists import memfd
from urlward.lists.source import ChangingError, SourceError
from urlward.progress import Progress
from urlward.state.folder import StateError
from urlward.state.path_watch import PATIENCE, PathWatch
from urlward.state.watch import Signature

if TYPE_CHECKING:
    from urlward.config import FeedTable

logger = logging.getLogger("urlward.lists")


MOST_WAIT = 60.0
"""Seconds between two looks at most, at a server that fails or cannot be polled."""


def peek(feed: "FeedTable", validators: Validators) -> tuple[Header | None, Validators]:
    """Ask for the header of a feed's artifact; None where it has not changed.

    Args:
        feed: whose.
        validators: of the last time.

    Raises:
        FetchError: there is no answer.
        ArtifactError: there is one that is no header.
    """
    from urlward.feeds.fetch import fetch  # brings urllib3, which nothing else here needs

    source = replace(origin(feed), timeout=feed.connect_timeout, max_bytes=HEADER_SIZE)
    try:
        answer = fetch(source, validators, headers=HEAD_ONLY)
    except FetchError as e:
        if e.reason == "too-large":
            raise ArtifactError("its server gives no parts of files") from e
        raise
    if answer.fd is None:
        return None, answer.validators
    try:
        return read_header(os.pread(answer.fd, HEADER_SIZE, 0)), answer.validators
    except ArtifactError as e:
        raise ArtifactError("what its server has is no artifact") from e
    finally:
        os.close(answer.fd)


async def poll(
    feed: "FeedTable",
    in_force: Callable[[], Header | None],
    ask: Callable[[], None],
    settled: Callable[[], Awaitable[None]],
    threads: Executor | None = None,
) -> None:
    """Poll a feed until cancelled; a server that cannot be polled is tried seldom.

    What was there may have been a page of somebody else's (maintenance, a captive portal).

    Args:
        feed: with `poll`.
        in_force: gives the header of the artifact in force.
        ask: has the feed refreshed; once for a header, since what a refresh refuses is there at the next look
            too, and servers that share a name need not have validators in common.
        settled: waits for the end of a refresh that is under way, which may bring what was found.
        threads: to ask in; the event loop's own if None.
    """
    assert feed.poll is not None
    validators, wait = NO_VALIDATORS, feed.poll
    asked: Header | None = None
    said = ""
    # Nodes that start together are not to ask together.
    await asyncio.sleep(wait * random.random())
    while True:
        await asyncio.sleep(wait * (0.9 + random.random() / 5))
        try:
            loop = asyncio.get_running_loop()
            found, validators = await loop.run_in_executor(threads, peek, feed, validators)
        except ArtifactError as e:
            if said != str(e):
                logger.warning("list %s: poll: %s: it is looked at each interval alone", feed.name, e)
            said, validators, wait = str(e), NO_VALIDATORS, max(MOST_WAIT, feed.poll)
            continue
        except FetchError:
            wait = min(2 * wait, max(MOST_WAIT, feed.poll))  # its refreshes say what is wrong
            continue
        wait, said = feed.poll, ""
        if found is None or found in (asked, in_force()):
            continue
        await settled()
        if found != in_force():
            asked = found
            ask()


AT_ONCE = 8
"""Lists refreshed at a time, by one process; fewer of them compute (`urlward.feeds.schedule`)."""

OF_ONE_SERVER = 2
"""Lists refreshed at a time of one server or folder: one that stalls keeps those of others from nothing."""

POLLS = 32
"""Polls at a time, in threads of their own: servers that say nothing keep each for `connect_timeout`, and
many feeds of them would have all that records and the dashboard need."""

LOOK = 1.0
"""Seconds between two looks at a feed's path, and at whether another process has refreshed it."""

LOOK_NAMED = 0.2
"""Likewise, where the operator names the list."""

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
"""Seconds after which a list is looked after again whose state was unreadable."""

LAGS = 3
"""Times in a row that a path has changed again when it is compiled, after which it is said to lag."""

LAG_AGAIN = 600.0
"""Seconds between two such lines of one list."""


class Slots:
    """Limits on the refreshes and polls of one process."""

    def __init__(self) -> None:
        self.polls = ThreadPoolExecutor(POLLS, "poll")
        self.turns = memfd.new()
        weakref.finalize(self, os.close, self.turns)
        self._all = asyncio.Semaphore(AT_ONCE)
        self._servers: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def taken(self, feed: Feed) -> AsyncIterator[None]:
        """Wait for a slot, and have it inside the block; those of one server, or of one folder, which may be
        on a file system that hangs, have some of them alone."""
        if feed.path is not None:
            server = str(feed.path.parent.absolute())
        else:
            server = urlsplit(feed.table.proxy or feed.table.url or "").netloc.rpartition("@")[2].lower()
        async with self._servers.setdefault(server, asyncio.Semaphore(OF_ONE_SERVER)), self._all:
            yield


type Told = Callable[[Outcome, str], None]
"""Called with the outcome of a refresh, and the state of the one before; not where the path changed while it
was read, which is looked at again in a moment."""


class Updates:
    """Updates of one list.

    Args:
        feed: where it comes from.
        slots: limits on the refreshes of this process.

    Attributes:
        watch: on the feed's path, if it has one.
    """

    def __init__(self, feed: Feed, slots: Slots) -> None:
        self.feed = feed
        self.watch = None if feed.path is None else PathWatch(feed.path)
        self._began: float | None = None
        self._slots = slots
        self._asked = asyncio.Event()
        self._one = asyncio.Lock()
        self._was = ""
        self._planned = 0.0
        self._failures = 0
        self._lost = self._lag_said = -inf
        self._lags = 0
        self._alarms_said: dict[str, float] = {}

    async def run(self, told: Told) -> None:
        """Refresh the list whenever that is due, and look for alarms, until cancelled."""
        what = f"list {self.feed.name}"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lasting(what, partial(self._look_after, told), again=AFTER_FAULT))
            tasks.create_task(lasting(f"alarms of {what}", self._watch_alarms))
            if self.feed.table.poll is not None:
                tasks.create_task(lasting(f"poll of {what}", self._poll))

    def refresh_at_start(self, *, first: bool, progress: Progress) -> None:
        """Refresh a list that the operator names, before it is taken.

        Args:
            first: nothing of it is in force in this run, so that it has to be good.
            progress: told how far it is.

        Raises:
            UrlwardError: it is not; what the state folder has no room for leaves the one of before.
        """
        assert self.watch is not None
        self.watch.acted()
        try:
            outcome = self.feed.refresh(first=first, progress=progress)
        except UrlwardError:
            if first:
                raise
            self.watch.acted_too_soon()
            return
        # What the other workers have goes on being in force, and each says what is wrong.
        kept = outcome.reason == NO_STATE and self.feed.store.header() is not None
        if outcome.state == "failed" and first and not kept:
            raise SourceError(outcome.error)

    def take_began(self) -> float | None:
        """When the refresh began that made the newest artifact, monotonic; None where that has been asked."""
        began, self._began = self._began, None
        return began

    def ask(self) -> None:
        """Have it refreshed as soon as possible."""
        self._asked.set()

    async def refresh(self, told: Told) -> Outcome:
        """Refresh it now, behind one that is under way."""
        async with self._one, self._slots.taken(self.feed):
            outcome = await self._refresh(told)
            self._planned = outcome.next_run
            return outcome

    async def _look_after(self, told: Told) -> None:
        feed, facts = self.feed, self.feed.store.facts()
        self._planned = facts.next_run
        if feed.own is None:
            moved = feed.has_moved(facts)  # of another server the one before has said nothing
            self._planned = at_start(
                time.time(),
                feed.table.interval,
                random.random,
                next_run=facts.next_run,
                not_before=0.0 if moved else facts.not_before,
                has_artifact=feed.store.header() is not None and not moved,
            )
        while True:
            await self._until_due()
            await self.refresh(told)

    async def _until_due(self) -> None:
        store, look = self.feed.store, LOOK if self.feed.own is None else LOOK_NAMED
        planned = self._planned
        seen, facts, waiting = None, store.facts(), self._waiting(planned)
        while left := inf if waiting is None else waiting.left(time.time(), time.monotonic()):
            start = time.monotonic()
            if await self._has_changed():
                return
            # A look at a folder of thousands of files is not to be all that a processor does.
            pause = max(look, min(9 * (time.monotonic() - start), LOOK))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), min(left, pause))
                return
            if planned != self._planned:  # by a reload, which the facts need not have
                planned = self._planned
                waiting = self._waiting(planned)
            # Where all is as it was, hundreds of feeds are not to cost more than a look at their files.
            files = Signature.of(store.facts_path), Signature.of(store.path)
            if files == seen:
                continue
            attempt, facts = facts.last_attempt, store.facts()
            if facts.last_attempt != attempt:  # by another process, or in a reload
                waiting = self._waiting(facts.next_run)
            if (self.feed.own is None and not facts.last_success) or store.header() is not None:
                seen = files
            elif time.monotonic() - self._lost >= LOST_AGAIN:
                self._lost = time.monotonic()
                return

    def _waiting(self, next_run: float) -> Waiting | None:
        """Wait for a planned run; None where there is no plan."""
        if self.feed.own is not None and not next_run:
            return None
        return Waiting(next_run, self.feed.table.interval, time.time(), time.monotonic())

    async def _has_changed(self) -> bool:
        watch, name = self.watch, self.feed.name
        if watch is None:
            return False
        if watch.is_kept_open(time.monotonic()):
            logger.warning("list %s: changed, but its writer has not closed it; waiting", name)
        looking = watch.aside(watch.changed)
        if not (await asyncio.wait([looking], timeout=PATIENCE))[0]:
            logger.warning("list %s: its file system does not answer; what is in force stays", name)
        return await looking

    async def _refresh(self, told: Told) -> Outcome:
        feed, watch = self.feed, self.watch
        self._asked.clear()
        try:
            if watch is not None:
                await watch.aside(watch.acted)
            self._began = time.monotonic()
            outcome = await asyncio.to_thread(feed.refresh, turns=self._slots.turns)
        except asyncio.CancelledError:
            feed.give_up()
            if watch is not None:
                # Whoever looks after it next has not read it; behind a look that has not ended.
                watch.aside(watch.acted_too_soon)
            raise
        except ChangingError:
            assert watch is not None
            watch.acted_too_soon()
            self._lag()
            return Outcome("unchanged", "", 0.0)
        except Exception as e:  # noqa: BLE001 - a bug may be in one list's way, and not in another's
            table, text = feed.table, fault_text(e)
            failures = self._failures + 1 if feed.own is None else 1
            next_run = after_failure(
                time.time(), table.interval, table.jitter, random.random, failures=failures
            )
            outcome = Outcome("failed", f"{text}; what is in force stays", next_run, error=text)
        if outcome.state != "new":
            self._began = None
        self._failures = self._failures + 1 if outcome.state == "failed" else 0
        if watch is not None and not await watch.aside(watch.is_as_acted):
            self._lag()
        else:
            self._lags = 0
        told(outcome, self._was)
        self._was = outcome.state
        return outcome

    def _lag(self) -> None:
        """Log now and then that a path changes faster than it comes into force."""
        self._lags += 1
        now = time.monotonic()
        if self._lags >= LAGS and now - self._lag_said >= LAG_AGAIN:
            self._lag_said = now
            logger.warning(
                "list %s: changes faster than it is read and compiled: what is in force is behind the file",
                self.feed.name,
            )

    async def _poll(self) -> None:
        await poll(self.feed.table, self.feed.store.header, self.ask, self._settled, self._slots.polls)

    async def _settled(self) -> None:
        """Wait for the end of a refresh that is under way."""
        async with self._one:
            pass

    async def _watch_alarms(self) -> None:
        await asyncio.sleep(FIRST_ALARMS)
        store = self.feed.store
        while True:
            with suppress(StateError):  # which its refreshes say
                self._alarm(alarms(self.feed.table, store.facts(), store.header(), time.time()))
            await asyncio.sleep(ALARM_LOOK)

    def _alarm(self, found: dict[str, str]) -> None:
        name, said, now = self.feed.name, self._alarms_said, time.monotonic()
        for kind, text in found.items():
            if now - said.get(kind, -ALARM_AGAIN) >= ALARM_AGAIN:
                said[kind] = now
                logger.error("list %s: %s: %s", name, kind, text)
        for kind in said.keys() - found.keys():
            del said[kind]
            logger.info("list %s: no longer %s", name, kind)


class Feeds:
    """Updates of all configured feeds.

    Args:
        config: with the feeds.
        state: the state folder.
    """

    def __init__(self, config: Config, state: Path) -> None:
        slots = Slots()
        self.updates = [Updates(Feed(table, config, state), slots) for table in config.feed]
        self._own = Updates(own_feed(config, state), slots)

    def refresh_all(self) -> None:
        """Refresh every feed as soon as possible."""
        for each in self.updates:
            each.ask()

    def refresh(self, name: str) -> None:
        """Refresh a feed, or the list of own entries, as soon as possible."""
        for each in (*self.updates, self._own):
            if each.feed.name == name:
                each.ask()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for each in self.updates:
                tasks.create_task(each.run(partial(_say, each.feed.name)))
            tasks.create_task(lasting("list own", self._run_own))

    async def _run_own(self) -> None:
        """Keep the list of own entries as they are, once there is one."""
        feed = self._own.feed
        while not (feed.path is not None and feed.path.exists()):
            await asyncio.sleep(LOOK)
        await self._own.run(partial(_say, feed.name))


def _say(name: str, outcome: Outcome, was: str) -> None:
    if outcome.state == "failed":
        logger.error("list %s: %s", name, outcome.text)
    elif outcome.state == "new" or was != outcome.state:
        logger.info("list %s: %s", name, outcome.text)
