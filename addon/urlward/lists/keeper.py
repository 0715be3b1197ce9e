"""The lists in force, and how a changed file takes their place.

A file that is bad, empty, half-written or gone changes nothing but the log. Whatever a reload does
happens in slices or in another process, because the event loop that it runs on carries traffic.
"""

import asyncio
import ctypes
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from urlward.engine.artifact import Header, read_header
from urlward.engine.delta import read_change
from urlward.engine.delta_format import DamagedDeltaError
from urlward.engine.digest import Key
from urlward.engine.errors import NewerVersionError, UrlwardError
from urlward.engine.hosts import is_too_wide
from urlward.engine.loaded import LoadedList, loading
from urlward.engine.matcher import Matcher
from urlward.engine.networks import blocking_networks
from urlward.engine.steps import Steps, exhaust
from urlward.lists.build import Progress, is_artifact, silent, told
from urlward.lists.files import Signature, Watch, being_written
from urlward.lists.formats import AUTO
from urlward.lists.kept import Kept, ListFile, entries_text
from urlward.lists.reader import Read, Reader, SupersededError
from urlward.lists.shared import Shared, inherited
from urlward.lists.source import Budget, SourceError
from urlward.lists.state import StateError, is_damage, set_aside
from urlward.lists.trust import GRACE, TrustError, check_dates
from urlward.lists.worker import NoCompilerError, content_of
from urlward.regular import read_regular

logger = logging.getLogger("urlward.lists")

_MOST_CHANGE = 1 << 30
"""Bytes of a change to a list: what it adds, as an artifact."""

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

INTERVAL = 0.2
"""Seconds between two looks at the files."""

LAGS = 3
"""Times in a row that a file has changed again when it comes into force, after which it is said to lag."""

LAG_AGAIN = 600.0
"""Seconds between two such lines of one list."""

AGAIN = 60.0
"""Seconds after which a source is tried again whose process has not done its work."""

SLICE = 0.002
"""Seconds that loading works before traffic has its turn."""


class InForce(NamedTuple):
    """A list in force.

    Attributes:
        name: of it.
        serial: of the artifact.
        entries: how many it has.
        created: when the artifact was made, seconds since 1970-01-01 UTC.
    """

    name: str
    serial: int
    entries: int
    created: int


class Taken(NamedTuple):
    """What became of a list that has changed.

    Attributes:
        name: of it.
        serial: in force now.
        entries: likewise.
        before: entries that were in force before.
        seconds: that it took.
        failed: whether the last good one stays in force, because what has come is no good.
    """

    name: str
    serial: int
    entries: int
    before: int
    seconds: float
    failed: bool = False


class Exceptions(Protocol):
    """What is excused for a while, besides what the lists say.

    Attributes:
        lists: the exceptions in force.
    """

    lists: list[LoadedList]

    def look(self, now: float) -> bool:
        """Whether others are in force from now on, seconds since 1970-01-01 UTC. Never raises."""


class Keeper:
    """Loads lists, keeps them up to date, and gives the matcher in force.

    Args:
        files: sources and artifacts.
        key: for those that have none of their own.
        budget: of bad lines in a source.
        shared: what this process shares with other workers; what it inherited where not given.
        protected: lists of hosts that guarded lists cannot block whole.
        exceptions: what else is excused for a while, if anything can be.
    """

    def __init__(
        self,
        files: Sequence[Path | ListFile],
        key: Key,
        budget: Budget | None = None,
        shared: Shared | None = None,
        *,
        protected: Sequence[LoadedList] = (),
        exceptions: "Exceptions | None" = None,
        format: str = AUTO,  # noqa: A002 - the word
    ) -> None:
        self.files = tuple(file if isinstance(file, ListFile) else ListFile(file) for file in files)
        self.key = key
        self.reloads = 0
        self.failures = 0
        self.matcher = Matcher(())
        """The matcher in force; read it once a request."""
        self.on_taken: Callable[[Keeper, Taken], None] | None = None
        """Told of lists that change while they are watched."""
        self._protected = tuple(protected)
        self._exceptions = exceptions
        self._reader = Reader(key, budget or Budget(), inherited() if shared is None else shared, format)
        self._kept: list[Kept] = []
        self._loading = asyncio.Lock()

    def load(self, progress: Progress = silent) -> None:
        """Load all lists for the first time, at once.

        Raises:
            UrlwardError: a list is bad. There is no last good one to fall back to yet.
        """
        self._kept = [self._first(file, progress) for file in self.files]
        if self._exceptions is not None:
            self._exceptions.look(time.time())
        self._swap()
        _give_back()

    @property
    def names(self) -> list[str]:
        """The lists' names, of feeds also before they are there."""
        return [kept.name for kept in self._kept]

    @property
    def facts(self) -> list[InForce]:
        """The lists in force."""
        return [
            InForce(kept.name, kept.header.serial, kept.entries, kept.header.created)
            for kept in self._kept
            if kept.header is not None
        ]

    @property
    def refused(self) -> dict[str, str]:
        """By list, why what its file has now is not in force; without those whose file is."""
        return {kept.name: kept.refused for kept in self._kept if kept.refused}

    async def watch(self) -> None:
        """Look after the files until cancelled."""
        # Each file by itself, so that a large or stubborn one does not hold up the others.
        async with asyncio.TaskGroup() as refreshing:
            while True:
                await asyncio.sleep(INTERVAL)
                for kept in self._kept:
                    if not kept.busy.locked():
                        self._look(kept, refreshing)
                if self._exceptions is not None and self._exceptions.look(time.time()):
                    self._swap()

    async def reload(self) -> None:
        """Read every file again now, changed or not."""
        await asyncio.gather(*(self._reload(kept) for kept in self._kept if not kept.spec.stored))

    def networks(self) -> list[str]:
        """The addresses and networks that the lists in force block, or some pages of; each once, in no order.

        May be called in another thread, since it takes as long as `blocking_networks` says.
        """
        while True:
            # What is in force has its sections. One that goes out of use from here on keeps them for us.
            lists = [(loaded.artifact, loaded.key, loaded.guarded) for loaded in self.matcher.lists]
            if all(artifact.sections for artifact, _, _ in lists):
                break
        now = time.time()
        found = dict.fromkeys(
            n
            for artifact, key, guarded in lists
            for n in blocking_networks(artifact, key, now)
            if not (guarded and is_too_wide(n))
        )
        return list(found)

    def _load(self, file: ListFile, data: memoryview) -> Generator[None, None, LoadedList]:
        """Load an artifact under the key that it names.

        Raises:
            ArtifactError: it is no good.
        """
        key = file.key(read_header(data).key_id) or self.key
        return loading(data, key, file.name, guarded=file.guarded)

    def _first(self, file: ListFile, progress: Progress) -> Kept:
        path = file.path
        signature = Signature.of(path)
        if file.stored:
            return self._first_stored(file, signature)
        try:
            read = self._reader.read_now(path, progress)
            _check_trust(file, read)
            loaded = exhaust(self._load(file, read.data))
        except UrlwardError as e:
            last = self._reader.last_good(path)
            if last is None:
                raise SourceError(told(path, e)) from e
            # What the other workers have. As if nothing had been seen: the watch will say what is wrong.
            kept = Kept(file, Watch(path), exhaust(self._load(file, last.data)), last.whole)
            kept.refused = told(path, e)
            return kept
        if Signature.of(path) != signature:
            return Kept(file, Watch(path, signature), loaded, read.whole)
        self._reader.keep(path, read.content)
        return Kept(file, Watch(path, signature), loaded, read.whole, read.content)

    def _first_stored(self, file: ListFile, signature: Signature | None) -> Kept:
        """A feed's artifact: it may not be there yet, and one that is no good will be replaced."""
        kept = Kept(file, Watch(file.path, whole=True))
        if signature is None:
            if not self._take_last_good(kept, None):
                logger.warning("list %s: not there yet, nothing on it is blocked", file.name)
            return kept
        kept.watch.seen = signature
        try:
            _check_stored(file)
            read = self._reader.read_now(file.path)
            kept.take(exhaust(self._load(file, read.data)), signature, read.content, whole=True)
            self._reader.keep(file.path, read.content)
        except UrlwardError as e:
            then = "nothing on it is blocked until it comes anew"
            if self._take_last_good(kept, signature):
                then = "what the other workers have is in force until it comes anew"
            kept.refused = told(file.path, e)
            if not self._set_aside(kept, signature, e, then):
                logger.error("list %s: %s", told(file.path, e), then)
        try:
            exhaust(self._take_change(kept))
        except Exception as e:  # noqa: BLE001 - the whole is in force, or follows
            _tell_change(kept, e)
        return kept

    def _take_last_good(self, kept: Kept, signature: Signature | None) -> bool:
        """Put what the other workers have in force, where they have something."""
        last = self._reader.last_good(kept.spec.path)
        if last is None:
            return False
        try:
            loaded = exhaust(self._load(kept.spec, last.data))
        except UrlwardError:
            return False  # under another key than ours
        kept.take(loaded, signature, b"", whole=True)
        return True

    def _set_aside(self, kept: Kept, signature: Signature, error: UrlwardError, then: str) -> bool:
        """Have a stored artifact that is no good fetched anew, where that is what it takes."""
        path, state = kept.spec.path, kept.spec.state
        if state is None or being_written(path) or not _is_damaged(kept, error):
            return False
        try:
            aside = set_aside(state, path, error, f"list {kept.name}: {then}", seen=signature)
        except StateError:
            return False
        kept.watch.taken_away()
        if aside is None:  # by another process, which has said so
            logger.info("list %s: %s", kept.name, then)
        return True

    def _look(self, kept: Kept, refreshing: asyncio.TaskGroup) -> None:
        now = time.monotonic()
        watch = kept.watch
        if kept.spec.stored and kept.change_watch.ready(now) is not None:
            refreshing.create_task(self._change(kept))
            return
        if (kept.loaded is not None or not kept.spec.stored) and watch.vanished(now):
            self._keep(kept, f"{watch.path}: gone")
        signature = watch.ready(now)
        if signature is None and watch.kept_open(now):
            logger.warning("list %s: changed, but its writer has not closed it; waiting", watch.path)
        if signature is not None:
            refreshing.create_task(self._refresh(kept, signature))

    async def _change(self, kept: Kept) -> None:
        """Put a small change in force, before the whole comes."""
        async with kept.busy:
            start, before = time.monotonic(), kept.entries
            try:
                if not await in_slices(self._take_change(kept)):
                    return
            except Exception as e:  # noqa: BLE001 - the whole follows
                _tell_change(kept, e)
                return
            self._swap()
            self._say(kept, start, before)

    def _take_change(self, kept: Kept) -> Generator[None, None, bool]:
        """Take what the store says has changed, if it is about what is loaded.

        Raises:
            UrlwardError: it is no good.
        """
        kept.change_watch.seen = Signature.of(kept.spec.change)
        try:
            data = read_regular(kept.spec.change, _MOST_CHANGE)
        except FileNotFoundError:
            return False
        if kept.loaded is None:
            return False
        change = read_change(data, kept.loaded.key)
        if change.old_checksum != kept.loaded.artifact.header.checksum:
            return False
        if max(change.removed, default=0) >= kept.loaded.table.rows:
            raise DamagedDeltaError("it removes rows that there are none of")
        yield
        added = (yield from self._load(kept.spec, memoryview(change.added))) if change.added else None
        kept.take_change(change.removed, added, change.header)
        return True

    async def _reload(self, kept: Kept) -> None:
        path = kept.watch.path
        kept.reloads_wanted += 1
        mine = kept.reloads_wanted
        async with kept.busy:
            if kept.reloads_begun >= mine:
                return  # one that began after this was asked for reads the file
            kept.reloads_begun = kept.reloads_wanted
        signature = Signature.of(path)
        if signature is None:
            kept.watch.seen = None  # should it come back as it was, that is worth a look
            self._keep(kept, f"{path}: gone")
        elif being_written(path):
            kept.watch.seen = None  # likewise where its writer leaves it as it is
            self._keep(kept, f"{path}: being written, will be read when that is done")
        else:
            await self._refresh(kept, signature, unchanged_too=True)

    async def _refresh(self, kept: Kept, signature: Signature, *, unchanged_too: bool = False) -> None:
        async with kept.busy:
            path = kept.watch.path
            start, before = time.monotonic(), kept.entries
            try:
                _check_stored(kept.spec)
                content = await asyncio.to_thread(content_of, path)
                if content == kept.checksum and not unchanged_too:
                    self._unchanged(kept, signature)
                    return
                read = await self._reader.read(path, content, signature, was_whole=kept.ends_with_newline)
                _check_trust(kept.spec, read, kept.header)
                async with self._loading:
                    loaded = await in_slices(self._load(kept.spec, read.data))
            except SupersededError:
                self._lag(kept)
                return
            except Exception as e:  # noqa: BLE001 - a list that breaks us must not end the watch
                if Signature.of(path) == signature:
                    kept.watch.seen = signature
                    self._refused(kept, signature, e)
                    if isinstance(e, NoCompilerError):
                        kept.watch.look_again(time.monotonic() + AGAIN)
                return
            refused = kept.refused
            in_force = kept.header is not None and kept.header.checksum == loaded.artifact.header.checksum
            old = kept.take(loaded, read.signature or signature, read.content, whole=read.whole)
            self._swap()
            self._reader.keep(path, read.content)
            if Signature.of(path) == kept.watch.seen:
                kept.lags = 0
            else:
                self._lag(kept)
            if unchanged_too or not in_force:
                self._say(kept, start, before)
            elif refused:
                logger.info("list %s: %s, as before", kept.name, entries_text(kept.in_force))
            for each in old:
                await _free(each)

    def _say(self, kept: Kept, start: float, before: int) -> None:
        self.reloads += 1
        assert kept.header is not None
        seconds = time.monotonic() - start
        taken = Taken(kept.name, kept.header.serial, kept.entries, before, seconds)
        logger.info(
            "list %s: %s, serial %d, after %.1f s",
            taken.name, entries_text(kept.in_force), taken.serial, seconds,
        )  # fmt: skip
        if self.on_taken is not None:
            self.on_taken(self, taken)

    def _lag(self, kept: Kept) -> None:
        """Say now and then of a file that changes faster than it comes into force that it does."""
        kept.lags += 1
        now = time.monotonic()
        if kept.lags >= LAGS and now - kept.lag_said >= LAG_AGAIN:
            kept.lag_said = now
            logger.warning(
                "list %s: changes faster than it is read and compiled: what is in force is behind the file",
                kept.watch.path,
            )

    def _refused(self, kept: Kept, signature: Signature, error: Exception) -> None:
        then = "the last good one stays in force"
        path = kept.watch.path
        if not isinstance(error, UrlwardError):
            self._keep(kept, f"{path}: {type(error).__name__} in reloading")
        elif self._set_aside(kept, signature, error, then):
            self._count_failure(kept, told(path, error))
        else:
            self._keep(kept, told(path, error))

    def _keep(self, kept: Kept, why: str) -> None:
        logger.error("list %s; the last good one stays in force", why)
        self._count_failure(kept, why)

    def _count_failure(self, kept: Kept, why: str) -> None:
        self.failures += 1
        kept.refused = why
        if self.on_taken is not None:
            serial = kept.header.serial if kept.header is not None else 0
            self.on_taken(self, Taken(kept.name, serial, kept.entries, kept.entries, 0.0, failed=True))

    def _unchanged(self, kept: Kept, signature: Signature) -> None:
        if Signature.of(kept.watch.path) != signature:
            return
        kept.watch.seen = signature
        if kept.refused:
            kept.refused = ""
            logger.info("list %s: %s, as before", kept.name, entries_text(kept.in_force))

    def _swap(self) -> None:
        lists = [loaded for kept in self._kept for loaded in kept.in_force]
        if self._exceptions is not None:
            lists += self._exceptions.lists
        self.matcher = Matcher(lists, protected=self._protected)


def _check_stored(file: ListFile) -> None:
    """Refuse what is in the place of a stored artifact and is none: a text there is nobody's list.

    Raises:
        SourceError: it is none, or not readable.
    """
    if file.stored and not is_artifact(file.path):
        raise SourceError(f"{file.path}: not an artifact")


def _is_damaged(kept: Kept, error: UrlwardError) -> bool:
    """Whether a stored artifact would be good if it were fetched anew."""
    if isinstance(error, NewerVersionError):
        # An older filter that runs on beside newer processes: they would bring the same again.
        return kept.loaded is None
    cause = error.__cause__
    return not isinstance(cause, OSError) or is_damage(cause)


def _tell_change(kept: Kept, error: Exception) -> None:
    logger.warning("list %s: %s in a change to it; waiting for the whole", kept.name, type(error).__name__)


def _check_trust(file: ListFile, read: Read, before: Header | None = None) -> None:
    """Refuse an artifact that is not to be taken after what is in force, and say what its dates have to say.

    A text is the operator's own, unless it is where a signed artifact was. Without a trust nobody vouches for
    an artifact's dates, so that they are told and no more. A feed's dates were looked at as it came.

    Raises:
        TrustError: why not.
    """
    if read.text and not (file.trust is not None and before is not None and any(before.signer)):
        return
    header, now = read_header(read.data), time.time()
    if file.trust is not None:
        serial, checksum = (before.serial, before.checksum) if before is not None else (0, b"")
        dates = file.trust.check(header, last_serial=serial, last_checksum=checksum, now=now).message
    elif not file.stored:
        try:
            dates = check_dates(header, now=now, grace=GRACE).message
        except TrustError as e:
            dates = f"{e}; taken, since no trust is set"
    else:
        return
    if dates:
        logger.warning("list %s: %s", file.path, dates)


async def _free(old: LoadedList) -> None:
    """Free a list that nothing uses any more, piece by piece, and give its memory back."""
    for _ in old.release():
        await asyncio.sleep(0)
    _give_back()


def _give_back() -> None:
    """Give freed memory back, which glibc would keep to itself; takes about 1 ms."""
    if _malloc_trim is not None:
        _malloc_trim(0)


async def in_slices[T](
    steps: Generator[None, None, T],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
) -> T:
    """Run steps on the event loop, giving way every `SLICE` seconds.

    Args:
        steps: a generator whose steps are short.
        clock: seconds.
        pause: how to give way.
    """
    run = Steps(steps)
    until = clock() + SLICE
    for _ in run:
        if clock() >= until:
            await pause()
            until = clock() + SLICE
    return run.result
