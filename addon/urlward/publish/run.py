"""Publisher: keeps a place's lists as the feeds of a configuration are, while it holds the lease.

Feeds are refreshed as a filter's service process does it (`urlward.feeds.updates`), each in a process of its
own; what they bring to the state folder is what is published. Who does not lead fetches nothing.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from urlward.config import Config, FeedTable
from urlward.engine.dates import time_text
from urlward.engine.errors import ArtifactError, UrlwardError, fault_text
from urlward.feeds.feed import Feed
from urlward.feeds.store import FeedStore
from urlward.feeds.updates import Feeds
from urlward.lists.source import read_artifact
from urlward.publish.canaries import Sample, ask
from urlward.publish.lease import Lease, LeaseLostError
from urlward.publish.place import ListPlace, PlaceError
from urlward.publish.rollout import Lists, Rollout, read_rollouts
from urlward.state.watch import Signature
from urlward.units import in_words

logger = logging.getLogger("urlward.lists")

LOOK = 1.0
"""Seconds between two looks at what the feeds have brought, and at the lease where another has it."""

LOOK_CANARIES = 10.0
"""Seconds between two looks at canaries, and at what operators have changed."""

AGAIN = 60.0
"""Seconds until a fault that lasts is tried again, at most."""

SAID_AGAIN = 3_600.0
"""Seconds after which a fault or a held list is said again."""

FAILED, HELD, LOST, WAITS = "publish", "rollout-held", "lease-lost", "waits"
"""Kinds of what is wrong: alarms (`urlward.records.metrics.PUBLISHING`), but that another leads, or that a
canary says nothing."""

LOST_FOR = 3_600.0
"""Seconds for which the loss of the lease is told."""

HUNG = 900.0
"""Seconds that one step may take, such as the deltas of a large list on a slow store; whoever takes longer
keeps the lease, and publishes nothing."""


class _Trouble(NamedTuple):
    text: str
    since: float
    said: float


class _Troubles:
    """Present troubles: logged when it comes up, and then now and then. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Trouble] = {}

    def say(self, kind: str, about: str, text: str) -> None:
        """Log an error about something."""
        now = time.monotonic()
        known = self._known.get((kind, about))
        if known is None or known.text != text or now - known.said >= SAID_AGAIN:
            self._known[kind, about] = _Trouble(text, known.since if known else now, now)
            logger.error("publish: %s", text)

    def over(self, kind: str, about: str) -> None:
        """Log that nothing of that kind is wrong any more."""
        if self._known.pop((kind, about), None) is not None:
            logger.info("publish: %s: well again", about)

    def forget(self, kinds: Collection[str]) -> None:
        """Forget what another publisher looks after from here on."""
        for kind, about in list(self._known):
            if kind in kinds:
                self._known.pop((kind, about), None)

    def lasting(self) -> dict[tuple[str, str], str]:
        """Texts of what is wrong now, by kind and what it is about."""
        now = time.monotonic()
        return {
            key: trouble.text
            for key, trouble in list(self._known.items())
            if key[0] != LOST or now - trouble.since < LOST_FOR
        }


class Publisher:
    """Publisher of a configuration's feeds.

    Args:
        config: has ``[publish]`` and the feeds.
        state: the state folder.
        place: where to publish.

    Attributes:
        lease: on the place.
        leads: whether it publishes, and no other.
        rollouts: records of the lists that it looks after, as they were when it looked last.
        last_success: when nothing stood in the way of each list last, seconds since 1970-01-01 UTC.
        failures: how often something did.
    """

    def __init__(self, config: Config, state: Path, place: ListPlace) -> None:
        assert config.publish is not None
        self._config = config
        self._table = config.publish
        self._state = state
        self._place = place
        self.lease = Lease(place, config.publish.lease)
        self._lists = Lists(place, config, self.lease)
        self.leads = False
        self.rollouts: dict[str, Rollout] = {}
        self.last_success: dict[str, float] = {}
        self.failures: Counter[str] = Counter()
        self._troubles = _Troubles()
        self._stepped = time.monotonic()
        self._is_prepared = False
        self._feeds: Feeds | None = None
        self._published: dict[str, Signature | None] = {}

    async def run(self) -> None:
        """Publish until cancelled, whenever this one leads."""
        try:
            while True:
                await self._lead()
                self.leads = True
                logger.info("publish: leads %s, with token %d", self._place, self.lease.token)
                self._feeds = Feeds(self._config, self._state)
                feeding = asyncio.ensure_future(self._feeds.run())
                try:
                    await self._follow(feeding)
                except LeaseLostError as e:
                    self._troubles.forget((LOST,))
                    self._troubles.say(LOST, str(self._place), str(e))
                finally:
                    self.leads = False
                    self._troubles.forget((FAILED, HELD, WAITS))
                    feeding.cancel()
                    with suppress(asyncio.CancelledError):
                        await feeding
        finally:
            await asyncio.to_thread(self.lease.release)

    def refresh_all(self) -> None:
        """Refresh every feed as soon as possible, where this one leads."""
        if self._feeds is not None:
            self._feeds.refresh_all()

    def refresh(self, name: str) -> None:
        """Refresh a feed as soon as possible, likewise."""
        if self._feeds is not None:
            self._feeds.refresh(name)

    def troubles(self) -> Mapping[tuple[str, str], str]:
        """What is wrong now, by the kind of its alarm and what it is about; whoever holds a list knows it."""

        def is_wrong(kind: str, about: str) -> bool:
            held = self.rollouts[about].held if kind == HELD else None
            return kind != WAITS and (held is None or not held.who)

        return {key: text for key, text in self._troubles.lasting().items() if is_wrong(*key)}

    @property
    def words(self) -> str:
        """What it does, in a line."""
        if self.leads:
            return f"leads {self._place}"
        return next(reversed(self._troubles.lasting().values()), "starts")

    @property
    def hangs(self) -> str:
        """Why it is of no use, such as a store that never answers; empty where it is."""
        took = time.monotonic() - self._stepped
        return f"{self._place}: nothing has come of a step for {in_words(took)}" if took > HUNG else ""

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
                leads = await asyncio.to_thread(self._try_to_lead)
                self._troubles.over(FAILED, place)
                if leads:
                    self._troubles.over(WAITS, place)
                    return
                self._troubles.say(
                    WAITS, place, f"{place}: {self.lease.other} leads: this one waits for it to end"
                )
            except LeaseLostError as e:
                self._troubles.say(WAITS, place, str(e))
            except PlaceError as e:
                self._troubles.say(FAILED, place, str(e))
            self._stepped = time.monotonic()
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
            # Publishing makes good what is missing; what is damaged is in no other list's way, and said then.
            with suppress(ArtifactError):
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
                self._stepped = time.monotonic()
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
            self.failures[table.name] += 1
            self._troubles.say(FAILED, table.name, f"list {table.name}: {fault_text(e)}")
            return False
        self._troubles.over(FAILED, table.name)
        self.last_success[table.name] = time.time()
        return True

    def _publish(self, table: FeedTable) -> str:
        path = FeedStore(self._state, table.name).path
        if not path.exists():
            return "nothing to publish yet"
        is_new = self._lists.publish(table.name, read_artifact(path))
        self._lists.offer(table.name)
        rollout = self.rollouts[table.name] = self._lists.rollout(table.name)
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
        if rollout.versions or rollout.held is not None:
            self.rollouts[name] = rollout
        if rollout.held is not None:
            self._troubles.say(HELD, name, f"list {name}: {told(rollout)}")
        else:
            self._troubles.over(HELD, name)

    def _samples(self, name: str) -> dict[str, Sample | str]:
        found: dict[str, Sample | str] = {}
        for node in self._table.canary:
            canary = f"canary {node.url}"
            try:
                found[node.url] = ask(node, name)
            except UrlwardError as e:
                found[node.url] = text = str(e).removeprefix(f"{node.url}: ")
                self._troubles.say(WAITS, canary, f"{canary}: {text}")
            else:
                self._troubles.over(WAITS, canary)
        return found


def told(rollout: Rollout) -> str:
    """Format what is offered of a list, in a line."""
    if rollout.held is not None:
        held = rollout.held
        since = (f" since {time_text(held.at)}" if held.at else "") + (f" by {held.who}" if held.who else "")
        at = f" at serial {rollout.stable}" if rollout.stable else ""
        return f"held{at}{since}: {held.reason}; urlward rollout release {rollout.name} --why TEXT"
    if rollout.is_tried:
        return f"serial {rollout.canary} for canaries, {rollout.stable} for all"
    return f"serial {rollout.stable} for all"
