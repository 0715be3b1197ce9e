"""Temporary allows (`urlward.policy.allows`) as a list in force."""

import logging
from pathlib import Path

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.loaded import LoadedList, load
from urlward.policy.allows import FILE, compile_allows, current_allows, expire_allows, next_end
from urlward.state.watch import Signature

logger = logging.getLogger("urlward.lists")

_NEVER = float("inf")


class TemporaryAllows:
    """Temporary allows of a state folder, kept up to date.

    Args:
        state: the folder.
        key: its own.

    Attributes:
        lists: the one list of those in force, if there are any.
    """

    def __init__(self, state: Path, key: Key) -> None:
        self.lists: list[LoadedList] = []
        self._state = state
        self._path = state / FILE
        self._key = key
        self._seen: Signature | None = None
        self._end = _NEVER

    def look(self, now: float) -> bool:
        """Update the allows; whether others are in force at a time, seconds since 1970-01-01 UTC. Never
        raises."""
        signature = Signature.of(self._path)
        ended = now >= self._end
        if signature == self._seen and not ended:
            return False
        had = bool(self.lists)
        self._seen = signature
        try:
            allows = current_allows(self._state, now)
            data = compile_allows(allows, self._key, now)
            self.lists = [load(data, self._key)] if data is not None else []
            self._end = next_end(allows, now) or _NEVER
        except UrlwardError as e:
            self.lists, self._end = [], _NEVER
            logger.error("%s; nothing is excused for a while", e)
        if ended:
            self._record(now)
        if had or self.lists:
            logger.info("allows: %d in force", sum(loaded.entries for loaded in self.lists))
        return had or bool(self.lists)

    def _record(self, now: float) -> None:
        """Write the ends of allows to the audit log; where that fails, the next process to change the file
        does it."""
        try:
            expire_allows(self._state, now)
        except UrlwardError as e:
            logger.error("%s; the end of an allow is not in the audit yet", e)
