"""What an operator allows for a while (`urlward.lists.allows`), as a list in force."""

import logging
from pathlib import Path

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.loaded import LoadedList, load
from urlward.lists.allows import ALLOWS_FILE, compile_allows, next_end
from urlward.lists.files import Signature

logger = logging.getLogger("urlward.lists")


class TemporaryAllows:
    """Looks after the exceptions in a state folder.

    Args:
        state: the folder.
        key: its own.

    Attributes:
        lists: the one list of those in force, if there are any.
    """

    def __init__(self, state: Path, key: Key) -> None:
        self.lists: list[LoadedList] = []
        self._state = state
        self._path = state / ALLOWS_FILE
        self._key = key
        self._seen: Signature | None = None
        self._end = float("inf")

    def look(self, now: float) -> bool:
        """Whether others are in force from now on, seconds since 1970-01-01 UTC. Never raises.

        A file that cannot be read changes nothing but that what has ended has ended.
        """
        signature = Signature.of(self._path)
        if signature == self._seen and now < self._end:
            return False
        had = bool(self.lists)
        self._seen = signature
        try:
            data = compile_allows(self._state, self._key, now)
            self._end = next_end(self._state, now)
            self.lists = [load(data, self._key)] if data is not None else []
        except UrlwardError as e:
            self.lists, self._end = [], float("inf")
            logger.error("%s; nothing is allowed for a while", e)
        return had or bool(self.lists)
