"""Learning: URLs under which a known file was met become own entries for some days.

A worker meets the file and hands its URL on, sealed under the local key, as a file of the folder ``learn`` in
the state folder; nothing of the way waits for it. The service process makes own entries of them
(`urlward.policy.own`), as somebody would who adds them by hand: they are audited, listed, and removed as
others.

Whoever has a server can serve a known file under any number of URLs, so the number of what is learned is
bounded: of one host by each worker, in all by the service process.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from urlward.engine.digest import Key
from urlward.engine.errors import DamagedError, UrlwardError
from urlward.feeds.own import own_feed
from urlward.policy.own import Draft, Learned, draft, learn_own
from urlward.regular import read_regular
from urlward.state.folder import locked, made_folder, set_aside, write_private

if TYPE_CHECKING:
    from urlward.config import Config

logger = logging.getLogger("urlward.lists")

FOLDER = "learn"
"""In the state folder: requests, each a file."""

OF_HOST = 100
"""URLs of one host that a worker hands on in a day."""

HOSTS = 10_000
"""Hosts that are counted for that; of more in a day, nothing is handed on."""

A_DAY = 1_000
"""URLs that are learned within a day in all."""

WAITING = 1_000
"""Requests that wait in the folder, or in a worker for its disk."""

LOOK = 0.25
"""Seconds between two looks at the folder."""

CLEAN = 3_600.0
"""Seconds between two looks for entries that are over."""

FULL_AGAIN = 3_600.0
"""Seconds until it is said again that more is met than is learned."""

_DAY = 86_400
_SUFFIX = ".sealed"


class Match(NamedTuple):
    """Match of a known file, whose URL is to be learned.

    Attributes:
        url: canonical, without its scheme.
        list: name of the list that the file is on.
        entry: its id there.
        category: likewise, or empty.
        reference: of the event.
        folder: whether all in and below the URL's folder is meant, as of a stream that comes in segments.
    """

    url: str
    list: str
    entry: str
    category: str
    reference: str
    folder: bool = False


class Learner:
    """Learner: a worker's end. Its calls take microseconds, and never raise.

    Args:
        state: the state folder.
        key: its local key.
        refused: is called for each match that is not handed on, as there are too many.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        state: Path,
        key: Key,
        refused: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._folder = state / FOLDER
        self._key = key
        self._refused = refused
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "learn")
        self._waiting = 0
        self._day = 0
        self._of_hosts: dict[str, int] = {}

    def learn(self, match: Match) -> None:
        """Hand a match on."""
        if self._waiting >= WAITING or not self._counts(match.url.partition("/")[0]):
            self._refused()
            return
        self._waiting += 1
        try:
            self._thread.submit(self._write, match)
        except RuntimeError:  # no thread can be had, or it is the end
            self._waiting -= 1
            self._refused()

    def close(self) -> None:
        """Write what has been handed on."""
        self._thread.shutdown()

    def _counts(self, host: str) -> bool:
        """Count a URL of a host; whether it is one of those that are handed on."""
        if (day := int(self._clock()) // _DAY) != self._day:
            self._day, self._of_hosts = day, {}
        host = self._key.digest(f"l{host}").hex()[:16]
        count = self._of_hosts.get(host, 0)
        if count >= OF_HOST or (not count and len(self._of_hosts) >= HOSTS):
            return False
        self._of_hosts[host] = count + 1
        return True

    def _write(self, match: Match) -> None:
        try:
            with locked(made_folder(self._folder, self._state)):
                if len(os.listdir(self._folder)) >= WAITING:  # noqa: PTH208 - no object for each of many
                    self._refused()
                    return
                # The same URL is one request, however often it is met.
                name = self._key.digest(f"l{match.url}").hex() + _SUFFIX
                sealed = self._key.seal(json.dumps(match).encode())
                write_private(self._folder / name, sealed, self._state)
        except Exception as e:  # noqa: BLE001 - its text could name the URL
            text = str(e) if isinstance(e, UrlwardError) else type(e).__name__
            logger.error("known files: a URL is not learned: %s", text)
        finally:
            self._waiting -= 1


@dataclass
class Learning:
    """Learning: the service process's end.

    Args:
        config: the filter's.
        state: the state folder.
        key: its local key.
        days: that an entry is in force.
        alarm: takes an alarm's kind and text, in any thread.
        clock: seconds since 1970-01-01 UTC.
    """

    config: "Config"
    state: Path
    key: Key
    days: int
    alarm: Callable[[str, str], Any]
    clock: Callable[[], float] = time.time
    _cleaned: float = float("-inf")
    _told: float = float("-inf")
    _compiles: bool = False

    async def run(self) -> None:
        """Learn what workers hand on, until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK)

    def look(self) -> None:
        """Learn what is there, and remove what is over.

        Raises:
            UrlwardError: it cannot be learned, or not be put in force; it is tried again by the next look.
        """
        folder = self.state / FOLDER
        paths = sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else []
        now, monotonic = self.clock(), time.monotonic()
        if not paths and not self._compiles and monotonic - self._cleaned < CLEAN:
            return
        drafts = [made for made in map(self._draft, paths) if made is not None]
        learned = learn_own(self.state, self.key, drafts, A_DAY, now=now)
        self._cleaned = monotonic
        self._compiles |= learned.changed
        for path in paths:
            path.unlink(missing_ok=True)
        self._tell(learned, monotonic)
        if self._compiles:
            outcome = own_feed(self.config, self.state).refresh()
            if outcome.state == "failed":
                raise UrlwardError(f"known files: {outcome.text}; what was learned is not in force yet")
            self._compiles = False

    def _draft(self, path: Path) -> Draft | None:
        """The entry that a request asks for; None where it is none, which the log says."""
        try:
            return draft_of(Match(*json.loads(self.key.unseal(read_regular(path)))), self.days, self.clock())
        except FileNotFoundError:
            return None
        except (DamagedError, OSError, ValueError, TypeError, RecursionError):
            set_aside(self.state, path, "not a request under the local key", "its URL is not learned")
        except UrlwardError as e:
            logger.error("known files: a URL is not learned: %s", e)
        return None

    def _tell(self, learned: Learned, now: float) -> None:
        if learned.added:
            until = learned.added[-1].expires
            logger.info("known files: %d learned, in force until %s", len(learned.added), until)
        if learned.left and now - self._told >= FULL_AGAIN:
            self._told = now
            self.alarm(
                "learned-full",
                f"known files are met under more than {A_DAY} URLs a day: no more are learned; see whose "
                "they are (urlward own reveal), and list the host",
            )


def draft_of(match: Match, days: int, now: float) -> Draft:
    """The entry that is learned of a match.

    Args:
        match: it.
        days: that it is in force.
        now: seconds since 1970-01-01 UTC.

    Raises:
        UrlwardError: its URL cannot be an entry.
    """
    host, _, path = match.url.partition("/")
    # The folder of a page at the root would be the whole host.
    meant: Any = "below" if match.folder and "/" in path.partition("?")[0] else "page"
    url, expires = f"http://{host}/{path}", f"{datetime.fromtimestamp(now + days * _DAY, UTC):%Y-%m-%d}"
    note = f"list {match.list}, entry {match.entry}, reference {match.reference}"
    try:
        return draft(url, meant, category=match.category, note=note, expires=expires)
    except UrlwardError:
        # Whatever a list or a category is called, or an id has in it.
        return draft(url, meant, note=f"reference {match.reference}", expires=expires)
