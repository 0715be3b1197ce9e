"""Learning: URLs under which a known file was met become own entries for some days.

A worker meets the file and hands its URL on, sealed under the local key, as a file of the folder ``learn`` in
the state folder; nothing of the way waits for it. The service process makes own entries of them
(`urlward.policy.own`), as somebody would who adds them by hand: they are audited, listed, and removed as
others.

Whoever has a server can serve a known file under any number of URLs, so the number of what is learned is
bounded: of one host by each worker, in all by the service process. A client that chooses address and Host
field could have a page of anybody's host learned, from a server of its own: so a name counts only where it
leads to that address, and no host is learned of that feeds may not block whole.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, UrlwardError
from urlward.engine.url import is_address
from urlward.feeds.own import own_feed
from urlward.feeds.setup import protecting
from urlward.policy.allows import allowed_by
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

A_DAY = 1_000
"""URLs that are learned within a day in all."""

OF_WORKER = 2 * A_DAY
"""URLs that a worker hands on in a day."""

AGAIN = 600.0
"""Seconds until a worker hands the same on again: it may not have been learned, or have been removed."""

WAITING = 1_000
"""Requests that wait in the folder, or in a worker for its disk."""

TOGETHER = 64
"""Requests that are taken at once."""

LOOKUPS = 16
"""Names that are looked up at a time."""

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
        address: that was connected to, where the client named it; empty where the filter looked the host up.
        port: that the entry is for, so that no TLS is decrypted because of it; 0 for all.
        folder: whether all in and below the URL's folder is meant, as of a stream that comes in segments.
    """

    url: str
    list: str
    entry: str
    category: str
    reference: str
    address: str = ""
    port: int = 0
    folder: bool = False

    @property
    def host(self) -> str:
        """Host of the URL."""
        return self.url.partition("/")[0]


_READ = msgspec.json.Decoder(Match)


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
        self._room = BoundedSemaphore(WAITING)
        self._day = 0
        self._of_hosts: dict[bytes, int] = {}
        self._urls: set[bytes] = set()
        self._handed: dict[bytes, float] = {}

    def learn(self, match: Match) -> None:
        """Hand a match on, unless it was a moment ago."""
        now = self._clock()
        if (day := int(now) // _DAY) != self._day:
            self._day, self._of_hosts, self._urls, self._handed = day, {}, set(), {}
        url, host = self._key.digest(f"l{match.url}"), self._key.digest(f"l{match.host}")
        # One that is not learned, or for less, must not stand in the way of another.
        way = self._key.digest(f"l{match.url}\n{match.address}\n{match.port}\n{match.folder}")
        before, count = self._handed.get(way), self._of_hosts.get(host, 0)
        if before is not None and now - before < AGAIN:
            return
        is_new = url not in self._urls
        if (is_new and count >= OF_HOST) or (before is None and len(self._handed) >= OF_WORKER):
            self._refused()
            return
        if not self._room.acquire(blocking=False):
            self._refused()
            return
        self._urls.add(url)
        self._handed[way], self._of_hosts[host] = now, count + is_new
        try:
            self._thread.submit(self._write, match, way.hex())
        except RuntimeError:  # no thread can be had, or it is the end
            self._room.release()
            self._refused()

    def close(self) -> None:
        """Write what has been handed on."""
        self._thread.shutdown()

    def _write(self, match: Match, name: str) -> None:
        # The same match is one request, however often and by whichever worker it is met.
        try:
            with locked(made_folder(self._folder, self._state)):
                if len(os.listdir(self._folder)) >= WAITING:  # noqa: PTH208 - no object for each of many
                    self._refused()
                    return
                sealed = self._key.seal(msgspec.json.encode(match))
                write_private(self._folder / f"{name}{_SUFFIX}", sealed, self._state)
        except Exception as e:  # noqa: BLE001 - its text could name the URL
            text = str(e) if isinstance(e, UrlwardError) else type(e).__name__
            logger.error("known files: a URL is not learned: %s", text)
        finally:
            self._room.release()


@dataclass
class Learning:
    """Learning: the service process's end.

    Args:
        config: the filter's.
        state: the state folder.
        key: its local key.
        days: that an entry is in force; 0 where nothing is learned any more: what was goes when it is over.
        alarm: takes an alarm's kind and text, in any thread.
        leads_to: whether a host has an address, by the machine's resolver.
        clock: seconds since 1970-01-01 UTC.
        over: the same for what is over, which nothing brings back; None where that is by `clock`.
    """

    config: "Config"
    state: Path
    key: Key
    days: int
    alarm: Callable[[str, str], Any]
    leads_to: Callable[[str, str], bool] = field(default_factory=lambda: leads_to)
    clock: Callable[[], float] = time.time
    over: Callable[[], float] | None = None
    _protects: Callable[[str], bool] | None = None
    _cleaned: float = float("-inf")
    _told: float = float("-inf")
    _compiles: bool = False

    async def run(self) -> None:
        """Learn what workers hand on, until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK if self.days else CLEAN)

    def look(self) -> None:
        """Learn what is there, and remove what is over.

        Raises:
            UrlwardError: it cannot be learned, or not be put in force; it is tried again by the next look.
        """
        folder = self.state / FOLDER
        most = TOGETHER if self.days else None
        paths = sorted(folder.glob(f"*{_SUFFIX}"))[:most] if folder.is_dir() else []
        monotonic = time.monotonic()
        if not paths and not self._compiles and monotonic - self._cleaned < CLEAN:
            return
        now = self.clock()
        matches = [match for match in map(self._read, paths) if match is not None] if self.days else []
        asked = (self._draft(match, now) for match in self._genuine(matches))
        drafts = [made for made in asked if made is not None]
        over = now if self.over is None else self.over()
        learned = learn_own(self.state, self.key, drafts, A_DAY, now=now, over=over)
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

    def _read(self, path: Path) -> Match | None:
        """A request; None where it is none, which the log says."""
        try:
            return _READ.decode(self.key.unseal(read_regular(path)))
        except FileNotFoundError:
            return None
        except (ArtifactError, OSError, msgspec.MsgspecError, UnicodeDecodeError):
            set_aside(self.state, path, "not a request under the local key", "its URL is not learned")
            return None

    def _genuine(self, matches: Sequence[Match]) -> list[Match]:
        """Those whose host is the one that served the file, and may be blocked without anybody's word."""
        if self._protects is None and matches:
            self._protects = protecting(self.config)
        asked = {(match.host, match.address) for match in matches if match.address}
        with ThreadPoolExecutor(LOOKUPS, "learn") as threads:
            leads = dict(zip(asked, threads.map(lambda one: self.leads_to(*one), asked), strict=True))
        foreign = [match for match in matches if not leads.get((match.host, match.address), True)]
        others = [match for match in matches if match not in foreign]
        genuine = [match for match in others if self._protects is None or not self._protects(match.host)]
        for count, why in (
            (len(foreign), "the host is not where the file came from"),
            (len(others) - len(genuine), "the host is protected (urlward own add)"),
        ):
            if count:
                logger.warning("known files: %d not learned: %s", count, why)
        return genuine

    def _draft(self, match: Match, now: float) -> Draft | None:
        """The entry that a match asks for; None where there is none, which the log says."""
        try:
            return draft_of(match, self.days, now)
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
    path = match.url.partition("/")[2]
    # The folder of a page at the root would be the whole host.
    is_folder = match.folder and "/" in path.partition("?")[0]
    line = allowed_by(f"http://{match.host}/{path}", folder=is_folder).line.removeprefix("@@")
    line += f" port={match.port}" * bool(match.port)
    expires = f"{datetime.fromtimestamp(now + days * _DAY, UTC):%Y-%m-%d}"
    note = f"list {match.list}, entry {match.entry}, reference {match.reference}"
    try:
        return draft(line, category=match.category, note=note, expires=expires)
    except UrlwardError:
        # Whatever a list or a category is called, or an id has in it.
        return draft(line, note=f"reference {match.reference}", expires=expires)


def leads_to(host: str, address: str) -> bool:
    """Whether a host has an address, by the machine's resolver."""
    try:
        if is_address(host):
            return ip_address(host.strip("[]")) == ip_address(address)
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return ip_address(address) in {ip_address(str(each[4][0])) for each in found}
    except (OSError, ValueError):
        return False
