"""What happens to feeds and allows, told from the state folder, where others have written it."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from urlward.config import FeedTable
from urlward.engine.errors import UrlwardError
from urlward.lists.allows import current_allows
from urlward.lists.feed_alarms import alarms
from urlward.lists.feed_store import FeedStore
from urlward.records.event import Kind

logger = logging.getLogger("urlward.records")

LOOK = 2.0
"""Seconds between two looks."""

type Tell = Callable[..., None]
"""Records an event of a kind with a detail, and a ``list`` where it is of one."""


class Watches:
    """Looks at the state folder, and has an event recorded of what has changed.

    Args:
        feeds: the configuration's.
        state: the state folder.
        tell: records.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        feeds: Sequence[FeedTable],
        state: Path,
        tell: Tell,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._feeds = [(feed, FeedStore(state, feed.name)) for feed in feeds]
        self._state = state
        self._tell = tell
        self._clock = clock
        self._seen: dict[str, tuple[float, frozenset[str]]] = {}
        self._allows: frozenset[str] | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK)

    def look(self) -> None:
        """One look. The first says nothing of what was there before it."""
        for feed, store in self._feeds:
            try:
                self._look_at(feed, store)
            except UrlwardError as e:
                logger.error("records: %s", e)
        try:
            self._look_at_allows()
        except UrlwardError as e:
            logger.error("records: %s", e)

    def _look_at(self, feed: FeedTable, store: FeedStore) -> None:
        facts, now = store.facts(), self._clock()
        lasting = alarms(feed, facts, store.header(), now)
        before = self._seen.get(feed.name)
        self._seen[feed.name] = facts.last_attempt, frozenset(lasting)
        if before is None:
            return
        attempted, known = before
        if facts.last_attempt > attempted and (facts.reason or facts.last_change >= attempted):
            failed = {"reason": facts.reason} if facts.reason else {}
            counts = {"entries": facts.entries, "added": facts.added, "removed": facts.removed}
            self._say("feed", counts | failed, feed.name, facts.serial)
        for kind in lasting.keys() - known:
            self._say("alarm", {"alarm": kind, "text": lasting[kind]}, feed.name, facts.serial)

    def _look_at_allows(self) -> None:
        allows = {allow.id: allow for allow in current_allows(self._state, self._clock())}
        known, self._allows = self._allows, frozenset(allows)
        if known is None:
            return
        for id_ in sorted(allows.keys() - known):
            self._say("allow", {"id": id_, "action": "allowed", "until": allows[id_].until})
        for id_ in sorted(known - allows.keys()):
            self._say("allow", {"id": id_, "action": "ended"})

    def _say(self, kind: Kind, detail: dict[str, Any], name: str = "", serial: int = 0) -> None:
        self._tell(kind, detail, list=name, serial=serial)
