"""Temporary allows in force: one more list, compiled in memory as soon as there are others.

As any list's text, their entries are in plain text in a process alone that ends with its task.
"""

import json
import logging
import sys
from base64 import b64decode, b64encode
from pathlib import Path

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.loaded import LoadedList, load
from urlward.lists.worker import ask, read_request, say_log
from urlward.policy.allows import KEPT, compile_allows, current_allows, expire_allows, next_end
from urlward.state.watch import Signature

logger = logging.getLogger("urlward.lists")

MODULE = "urlward.lists.allows"
"""What the process that compiles them runs."""

AGAIN = 60.0
"""Seconds until they are compiled again that the system had no room for."""

_NEVER = float("inf")


class TemporaryAllows:
    """Temporary allows of a state folder, kept up to date.

    Args:
        state: the folder.
        key: its own.

    Attributes:
        lists: the one list of those in force, if there are any.
        ended: whether one has ended, which is to be recorded.
    """

    def __init__(self, state: Path, key: Key) -> None:
        self.lists: list[LoadedList] = []
        self.ended = False
        self._state = state
        self._path = state / KEPT.file
        self._key = key
        self._seen: Signature | None = None
        self._end = _NEVER

    def look(self, now: float) -> bool:
        """Update the allows; whether others are in force at a time, seconds since 1970-01-01 UTC. What keeps
        it from that is logged."""
        signature = Signature.of(self._path)
        ended = now >= self._end
        if signature == self._seen and not ended:
            return False
        had = bool(self.lists)
        try:
            allows = current_allows(self._state, now)
            self.lists = self._compiled(now) if allows else []
            self._end = next_end(allows, now) or _NEVER
        except UrlwardError as e:
            self.lists, self._end = [], _NEVER
            logger.error("%s; nothing is excused for a while", e)
        except OSError as e:
            self.lists, self._end = [], now + AGAIN
            logger.error("allows: %s; nothing is excused for %.0f s", e.strerror or type(e).__name__, AGAIN)
        self._seen = signature
        self.ended = self.ended or ended
        if had or self.lists:
            logger.info("allows: %d in force", sum(loaded.entries for loaded in self.lists))
        return had or bool(self.lists)

    def _compiled(self, now: float) -> list[LoadedList]:
        """Have them compiled.

        Raises:
            UrlwardError: the record of them is damaged.
            OSError: the process could not be started, or ended without an answer.
        """
        request = {"state": str(self._state), "key": self._key.secret.hex(), "now": now, "at_once": True}
        answer = ask(MODULE, request, logger.log, computes=True)
        if "fault" in answer:
            raise UrlwardError(answer["fault"])
        data = b64decode(answer["artifact"])
        return [load(data, self._key)] if data else []

    def record(self, now: float) -> None:
        """Write the ends of allows to the audit log, once nobody else holds its folder; where that fails, the
        next process to change the file does it."""
        self.ended = False
        try:
            expire_allows(self._state, now)
        except UrlwardError as e:
            logger.error("%s; the end of an allow is not in the audit yet", e)


def main() -> None:
    """Run as the process that `TemporaryAllows` starts."""
    asked = read_request()
    say_log()
    json.dump(answer(**asked), sys.stdout)


def answer(state: str, key: str, now: float, **_: object) -> dict[str, str]:
    """Compile the allows of a state folder, in this process, which has them in memory from then on."""
    try:
        secret = Key(bytes.fromhex(key))
        compiled = compile_allows(current_allows(Path(state), now), secret, now)
    except UrlwardError as e:
        return {"fault": str(e)}
    return {"artifact": b64encode(compiled or b"").decode()}


if __name__ == "__main__":
    main()
