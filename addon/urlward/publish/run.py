"""Publisher: keeps a place's lists as the feeds of a configuration are, while it holds the lease.

Feeds are refreshed as a filter's service process does it (`urlward.feeds.updates`), each in a process of its
own; what they bring to the state folder is what is published. Who does not lead fetches nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from urlward.config import Config, FeedTable
from urlward.engine.dates import time_text
from urlward.engine.errors import UrlwardError
from urlward.feeds.feed import Feed
from urlward.feeds.store import FeedStore
from urlward.feeds.updates import Feeds
from urlward.lasting import fault_text
from urlward.lists.source import read_artifact
from urlward.publish.canaries import Sample, ask
from urlward.publish.lease import Lease, LeaseLostError
from urlward.publish.place import ListPlace, PlaceError
from urlward.publish.rollout import Lists, MissingError, Rollout, read_rollouts
from urlward.state.watch import Signature

logger = logging.getLogger("urlward.lists")

LOOK = 1.0
"""Seconds between two looks at what the feeds have brought, and at the lease where another has it."""

LOOK_CANARIES = 10.0
"""Seconds between two looks at canaries, and at what operators have changed."""

AGAIN = 60.0
"""Seconds until a fault that lasts is tried again, at most."""

SAID_AGAIN = 3_600.0
"""Seconds after which a fault or a held list is said again."""


class _Said:
    """Lines that are said when they come up, and then now and then."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, float]] = {}

    def error(self, about: str, text: str) -> None:
        """Log an error about something."""
        now = time.monotonic()
        known, at = self._said.get(about, ("", 0.0))
        if known != text or now - at >= SAID_AGAIN:
            self._said[about] = text, now
            logger.error("publish: %s", text)

    def over(self, about: str) -> None:
        """Log that nothing is wrong any more."""
        if self._said.pop(about, None) is not None:
            logger.info("publish: %s: well again", about)


class Publisher:
    """Publisher of a configuration's feeds.

    Args:
        config: has ``[publish]`` and the feeds.
        state: the state folder.
        place: where to publish.

    Attributes:
        lease: on the place.
    """

    def __init__(self, config: Config, state: Path, place: ListPlace) -> None:
        assert config.publish is not None
        self._config = config
        self._table = config.publish
        self._state = state
        self._place = place
        self.lease = Lease(place, config.publish.lease)
        self._lists = Lists(place, config, self.lease)
        self._said = _Said()
        self._is_prepared = False
        self._feeds: Feeds | None = None
        self._published: dict[str, Signature | None] = {}

    async def run(self) -> None:
        """Publish until cancelled, whenever this one leads."""
        try:
            while True:
                await self._lead()
                logger.info("publish: leads %s, with token %d", self._place, self.lease.token)
                self._feeds = Feeds(self._config, self._state)
                feeding = asyncio.ensure_future(self._feeds.run())
                try:
                    await self._follow(feeding)
                except LeaseLostError as e:
                    self._said.error(str(self._place), str(e))
                finally:
                    feeding.cancel()
                    with suppress(asyncio.CancelledError):
                        await feeding
        finally:
            await asyncio.to_thread(self.lease.release)

    def refresh_all(self) -> None:
        """Refresh every feed as soon as possible, where this one leads."""
        if self._feeds is not None:
            self._feeds.refresh_all()

    async def once(self, told: Callable[[str], None]) -> bool:
        """Refresh and publish each feed once; returns whether all went well.

        Args:
            told: takes a line for each.

        Raises:
            PlaceError: the place cannot be used.
            LeaseLostError: another publisher leads.
            UrlwardError: there are canaries.
        """
        if self._table.canary:
            raise UrlwardError("canaries are watched by a publisher that goes on: leave --once out")
        until = time.monotonic() + self._table.lease + 2 * LOOK
        while not await asyncio.to_thread(self._try_to_lead):
            if time.monotonic() > until:
                raise LeaseLostError(f"{self._place}: {self.lease.other} leads, and publishes what is new")
            await asyncio.sleep(LOOK)
        try:
            return await asyncio.to_thread(self._once, told)
        finally:
            await asyncio.to_thread(self.lease.release)

    def _once(self, told: Callable[[str], None]) -> bool:
        well = True
        for table in self._config.feed:
            outcome = Feed(table, self._config, self._state).refresh()
            told(f"{table.name}: {outcome.text}")
            well &= outcome.state != "failed"
            try:
                told(f"{table.name}: {self._publish(table)}")
                self._look_at(table, 0.0)
            except LeaseLostError:
                raise
            except UrlwardError as e:
                told(f"{table.name}: not published: {e}")
                well = False
            well &= self._lists.rollout(table.name).held is None
        return well

    async def _lead(self) -> None:
        """Wait for the lease, and put in order what who led before has left."""
        place = str(self._place)
        while True:
            try:
                if await asyncio.to_thread(self._try_to_lead):
                    self._said.over(place)
                    return
                self._said.error(place, f"{place}: {self.lease.other} leads: this one waits for it to end")
            except (PlaceError, LeaseLostError) as e:
                self._said.error(place, str(e))
            await asyncio.sleep(LOOK)

    def _try_to_lead(self) -> bool:
        if not self._is_prepared:
            self._place.prepare()
            self._is_prepared = True
        least = max((rollout.token for rollout in read_rollouts(self._place)), default=0)
        if not self.lease.take(least):
            return False
        self.lease.keep()
        try:
            self._put_in_order()
        except BaseException:
            self.lease.release()
            raise
        return True

    def _put_in_order(self) -> None:
        self._published.clear()
        for table in self._config.feed:
            self._lists.claim(table.name)
            with suppress(MissingError):  # which publishing makes good
                self._lists.offer(table.name)

    async def _follow(self, feeding: "asyncio.Future[None]") -> None:
        wait, looked, due = LOOK, time.monotonic(), 0.0
        while not feeding.done():
            now, well = time.monotonic(), True
            looks = now >= due
            elapsed = min(now - looked, 2 * LOOK_CANARIES)
            if looks:
                looked, due = now, now + LOOK_CANARIES
            for table in self._config.feed:
                well &= await asyncio.to_thread(self._tend, table, elapsed if looks else None)
            wait = LOOK if well else min(2 * wait, AGAIN)
            await asyncio.sleep(wait)
        await feeding

    def _tend(self, table: FeedTable, elapsed: float | None) -> bool:
        """Publish what is new of a feed, and look at its rollout; returns whether nothing stood in the way.

        Raises:
            LeaseLostError: another publisher leads.
        """
        self.lease.check()
        try:
            signature = Signature.of(FeedStore(self._state, table.name).path)
            if signature is not None and signature != self._published.get(table.name):
                logger.info("publish: list %s: %s", table.name, self._publish(table))
                self._published[table.name] = signature
            if elapsed is not None:
                self._look_at(table, elapsed)
        except LeaseLostError:
            raise
        except Exception as e:  # noqa: BLE001 - what is wrong with one list is in no other's way
            self._said.error(table.name, f"list {table.name}: {fault_text(e)}")
            return False
        return True

    def _publish(self, table: FeedTable) -> str:
        path = FeedStore(self._state, table.name).path
        if not path.exists():
            return "nothing to publish yet"
        is_new = self._lists.publish(table.name, read_artifact(path))
        self._lists.offer(table.name)
        rollout = self._lists.rollout(table.name)
        if not is_new:
            return f"as published: {told(rollout)}"
        return f"published: {told(rollout)}"

    def _look_at(self, table: FeedTable, elapsed: float) -> None:
        name = table.name
        self._lists.renew(name)
        self._lists.offer(name)
        rollout = self._lists.rollout(name)
        if rollout.is_tried:
            if text := self._lists.look(name, self._samples(name), elapsed):
                logger.info("publish: list %s: %s", name, text)
                self._published.pop(name, None)  # what has come meanwhile
            rollout = self._lists.rollout(name)
        elif rollout.source == "":
            self._published.pop(name, None)  # released, or never published
        if rollout.held is not None:
            self._said.error(name, f"list {name}: {told(rollout)}")
        else:
            self._said.over(name)

    def _samples(self, name: str) -> dict[str, Sample | str]:
        found: dict[str, Sample | str] = {}
        for node in self._table.canary:
            try:
                found[node.url] = ask(node, name)
            except UrlwardError as e:
                found[node.url] = str(e).removeprefix(f"{node.url}: ")
        return found


def told(rollout: Rollout) -> str:
    """Format what is offered of a list, in a line."""
    if rollout.held is not None:
        held = rollout.held
        since = (f" since {time_text(held.at)}" if held.at else "") + (f" by {held.who}" if held.who else "")
        at = f" at serial {rollout.stable}" if rollout.stable else ""
        return f"held{at}{since}: {held.reason}; urlward rollout release {rollout.name}"
    if rollout.is_tried:
        return f"serial {rollout.canary} for canaries, {rollout.stable} for all"
    return f"serial {rollout.stable} for all"
