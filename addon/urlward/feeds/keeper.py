"""The lists in force, and how a changed one takes their place.

Each list is an artifact in the store of a feed, which the service process keeps up to date where it is
configured, and the first worker where the operator names it (`urlward.feeds.updates`). All look at the store,
and map what has come (`urlward.lists.run_folder`). A file that is bad, empty, half-written or gone changes
nothing but the log. Whatever a reload does happens in slices, in a thread or in another process, because the
event loop that it runs on carries traffic.
"""

import asyncio
import ctypes
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from urlward.config.feeds import TAKEN
from urlward.engine.artifact import Header, check_key, fit_name, parse, read_header
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, KeyFileError, UrlwardError
from urlward.engine.hosts import is_too_wide
from urlward.engine.loaded import LoadedList, loading
from urlward.engine.matcher import Matcher
from urlward.engine.nat64 import NO_NAT64, Nat64
from urlward.engine.record import DAY
from urlward.engine.steps import Steps, exhaust
from urlward.engine.table import blocking_networks
from urlward.feeds.feed import Feed, Outcome
from urlward.feeds.store import forget_others
from urlward.feeds.updates import Slots, Updates
from urlward.lists.build import told
from urlward.lists.formats import AUTO
from urlward.lists.run_folder import RunFolder, RunFolderError, inherited
from urlward.lists.source import ErrorBudget, SourceError
from urlward.progress import Progress, silent
from urlward.state.folder import StateError, is_damage, set_aside
from urlward.state.keys import read_key
from urlward.state.watch import Signature, Watch, being_written
from urlward.units import counted

if TYPE_CHECKING:
    from urlward.lists.allows import TemporaryAllows

logger = logging.getLogger("urlward.lists")

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

INTERVAL = 0.1
"""Seconds between two looks at the stores."""

AGAIN = 60.0
"""Seconds until an artifact is tried again that the system had no room for."""

SLICE = 0.002
"""Seconds that loading works before traffic has its turn."""

PAUSE = 0.03
"""Seconds between two steps of freeing a list. Mimalloc gives back what has been free for some 10 ms, once
more becomes free beside it: without a pause it would keep a third of the list."""


@dataclass(frozen=True, slots=True)
class ListFile:
    """File of a list that is to be kept in force.

    Attributes:
        path: a source or an artifact that the operator names, or
        keys: that an artifact may be under, besides that of all lists.
        name: of the list, in place of the artifact's or the file's.
        stored: a configured feed's artifact in the store (`urlward.feeds.store`): it may not be there
            yet.
        guarded: whether it cannot block protected hosts at host level.
        trust: public keys and rotation statements of who may sign an artifact, and so which issue of it is
            taken; empty where all are.
        key_files: of `keys`, read again where an artifact is under a key that none of those is.
        optional: whether it need not be there, so that its absence is nothing to say.
        state: the state folder in which a stored artifact that is no good is set aside, so that it is fetched
            anew; None where it stays, since who reads it is not the filter.
        silent: whether its file system does not answer, so that it is not looked at for the start.
    """

    path: Path
    keys: tuple[Key, ...] = ()
    name: str = ""
    stored: bool = False
    guarded: bool = False
    trust: tuple[str, ...] = ()
    key_files: tuple[Path, ...] = ()
    optional: bool = False
    state: Path | None = None
    silent: bool = False

    def key(self, named: bytes) -> Key | None:
        """Find the key of an id; None where it is not there."""
        for key in self.keys:
            if key.id == named:
                return key
        for path in self.key_files:
            with suppress(KeyFileError):
                if (key := read_key(path)).id == named:
                    return key
        return None


@dataclass(slots=True)
class Kept:
    """State of a list and its artifact in the store.

    Attributes:
        spec: what it is.
        watch: of the artifact.
        named: updates of it where the operator names the list.
        facts_watch: of what is remembered of its refreshes.
        loaded: what the artifact holds; None where there is none yet.
        again: when what the file has is tried again, monotonic; None where that would be no use.
        refused: why what the file has now is not in force, as the log said; empty where it is.
    """

    spec: ListFile
    watch: Watch
    named: Updates | None = None
    loaded: LoadedList | None = None
    again: float | None = None
    refused: str = ""
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    unused: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """Taken by what is loaded until what it has replaced is freed, which for a large list takes a second or
    two: the next change does not wait for that, and the one after it has no more of them in memory."""
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    reloads_wanted: int = 0
    reloads_begun: int = 0
    facts_watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.facts_watch = Watch(self.watch.path.with_suffix(".json"))

    @property
    def header(self) -> Header | None:
        """Header of the artifact in force."""
        return None if self.loaded is None else self.loaded.artifact.header

    @property
    def stays(self) -> str:
        """What is in force in place of what is refused, for the log."""
        return "nothing on it is blocked" if self.loaded is None else "the last good one stays in force"

    @property
    def name(self) -> str:
        """The list's name."""
        return self.spec.name or (self.loaded.name if self.loaded is not None else "")

    @property
    def entries(self) -> int:
        """Number of entries, with those that have expired."""
        return 0 if self.loaded is None else self.loaded.entries

    def call(self, name: str) -> None:
        """Give the list another name."""
        self.spec = replace(self.spec, name=name)
        if self.loaded is not None:
            self.loaded.name = name

    def take(self, loaded: LoadedList, signature: Signature | None) -> LoadedList | None:
        """Put an artifact in force; returns what has gone out of use."""
        old, self.loaded = self.loaded, loaded
        self.watch.seen, self.refused, self.again = signature, "", None
        return old


def entries_text(loaded: LoadedList | None) -> str:
    """Format the number of a list's entries in force now, for the log."""
    expired, entries = (0, 0) if loaded is None else (loaded.expired(time.time()), loaded.entries)
    told = f"{counted(entries - expired, 'entry')} in force"
    return told + (f" ({expired} more expired)" if expired else "")


class InForce(NamedTuple):
    """Summary of a list in force.

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
    """Result of a reload.

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


class Keeper:
    """Loads lists, keeps them up to date, and gives the matcher in force.

    Args:
        files: sources and artifacts.
        key: for those that have none of their own.
        budget: of bad lines in a source.
        run: the filter's run folder; the one inherited, or one of its own, where not given.
        protected: lists of hosts that guarded lists cannot block whole.
        exceptions: what else is excused for a while, if anything can be.
        format: of sources, one of `urlward.lists.formats.FORMATS`.
        state: the state folder in which artifacts of lists that the operator names last; where not given they
            end with the run.
        follows: whether those lists are kept up to date here; of workers that share a run folder one does so.
        nat64: as of `Matcher`.
    """

    def __init__(
        self,
        files: Sequence[Path | ListFile],
        key: Key,
        budget: ErrorBudget | None = None,
        run: RunFolder | None = None,
        *,
        protected: Sequence[LoadedList] = (),
        exceptions: "TemporaryAllows | None" = None,
        format: str = AUTO,  # noqa: A002 - the word
        state: Path | None = None,
        follows: bool = True,
        nat64: Nat64 = NO_NAT64,
    ) -> None:
        self._nat64 = nat64
        self.files = tuple(file if isinstance(file, ListFile) else ListFile(file) for file in files)
        self.key = key
        self.reloads = 0
        self.failures = 0
        self.matcher = Matcher(())
        """The matcher in force; read it once a request."""
        self.on_taken: Callable[[Keeper, Taken], None] | None = None
        """Told of lists that change while they are watched."""
        self.on_unused: Callable[[], None] = lambda: None
        """Called before a list that has gone out of use is freed; where others than the event loop ask the
        matcher it waits until none of them does."""
        self._protected = tuple(protected)
        self._exceptions = exceptions
        shared = run or inherited()
        self._run = shared or RunFolder()
        self._budget = budget or ErrorBudget()
        self._format = format
        self._state = state
        self._follows = follows or shared is None
        self._kept: list[Kept] = []
        self._loading = asyncio.Lock()
        self._slots = Slots()
        self._day = int(time.time() // DAY)

    def load(self, progress: Progress = silent) -> None:
        """Load all lists for the first time, at once.

        Raises:
            UrlwardError: a list is bad. There is no last good one to fall back to yet.
        """
        first = not self._run.has_any
        self._kept = [self._first(file, progress) for file in self.files]
        if first and self._state is not None:
            forget_others(self._state, [kept.named.feed.store for kept in self._kept if kept.named])
        self._tell_apart()
        if self._exceptions is not None:
            self._exceptions.look(time.time())
        self._swap()
        _give_back()

    def _tell_apart(self) -> None:
        """Name lists that are called alike, such as ``domains`` in a folder a category, or as one of the
        filter's own, by their paths: rules, figures and events know a list by its name."""
        count = Counter([*TAKEN, *(kept.name for kept in self._kept if kept.named is not None)])
        for called in (name for name, number in count.items() if number > 1):
            alike = [kept for kept in self._kept if kept.named is not None and kept.name == called]
            paths = [kept.spec.path.absolute().with_suffix("").parts for kept in alike]
            taken = {*self.names} - {called} | {*TAKEN}
            for depth in range(1, max(map(len, paths))):
                names = [fit_name("-".join(parts[-depth:])) for parts in paths]
                if len(taken.union(names)) == len(taken) + len(names):
                    for kept, name in zip(alike, names, strict=True):
                        kept.call(name)
                    break

    @property
    def names(self) -> list[str]:
        """Names of the lists, also of feeds that have nothing in force yet."""
        return [kept.name for kept in self._kept]

    @property
    def facts(self) -> list[InForce]:
        """Summaries of the lists in force."""
        return [
            InForce(kept.name, kept.header.serial, kept.entries, kept.header.created)
            for kept in self._kept
            if kept.header is not None
        ]

    @property
    def refused(self) -> dict[str, str]:
        """Reasons, by list, why its current file is not in force; without those whose file is."""
        return {kept.name: kept.refused for kept in self._kept if kept.refused}

    async def watch(self) -> None:
        """Look after the lists until cancelled."""
        recording: asyncio.Task[None] | None = None
        # Each by itself, though few are refreshed at a time (`Slots`).
        async with asyncio.TaskGroup() as tasks:
            for kept in self._kept if self._follows else ():
                if kept.named is not None:
                    tasks.create_task(kept.named.run(partial(self._told, kept)))
            while True:
                await asyncio.sleep(INTERVAL)
                for kept in self._kept:
                    if not kept.busy.locked():
                        self._look(kept, tasks)
                allows = self._exceptions
                others = allows is not None and await asyncio.to_thread(allows.look, time.time())
                day = int(time.time() // DAY)
                if self._entries_end(day) or others:
                    self._swap()
                self._day = day
                if allows is not None and allows.ended and (recording is None or recording.done()):
                    # Others may hold the folder of the audit log for as long as they like.
                    recording = tasks.create_task(asyncio.to_thread(allows.record, time.time()))

    async def reload(self) -> None:
        """Reload every list that the operator names now, changed or not."""
        await asyncio.gather(
            *(self._reload(kept, kept.named) for kept in self._kept if kept.named is not None)
        )

    def networks(self) -> list[str]:
        """Addresses and networks that the lists in force block, whole or in part; each once, in no order.

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
        return loading(data, self._key(file, read_header(data).key_id), file.name, guarded=file.guarded)

    def _key(self, file: ListFile, named: bytes) -> Key:
        """Key of an id; where there is none, the one that should have been it, for what is said."""
        found = file.key(named)
        return found or (self.key if self.key.id == named else next(iter(file.keys), self.key))

    def _first(self, file: ListFile, progress: Progress) -> Kept:
        if file.stored:
            return self._first_stored(file)
        state = self._state or self._run.path
        feed = Feed.named(file.path, self.key, self._budget, self._format, file.trust, state)
        named = Updates(feed, self._slots)
        kept = Kept(file, Watch(feed.store.path), named)
        first = self._run.last(feed.store.path) is None
        try:
            if first and file.silent:
                raise SourceError(f"{file.path}: its file system does not answer")
            if (first or self._follows) and not file.silent:
                named.refresh_at_start(first=first, progress=progress)
            self._take(kept)
        except UrlwardError as e:
            if not self._take_last_good(kept, None):
                raise SourceError(told(file.path, e)) from e
        facts = feed.store.facts()
        kept.refused = facts.error
        if not facts.error:
            kept.facts_watch.seen = Signature.of(feed.store.facts_path)
        return kept

    def _take(self, kept: Kept) -> None:
        """Put the store's artifact in force.

        Raises:
            UrlwardError: that is nothing, or no good.
        """
        signature = Signature.of(kept.watch.path)
        kept.take(exhaust(self._load(kept.spec, self._mapped(kept))), signature)

    def _mapped(self, kept: Kept) -> memoryview:
        def check(data: memoryview) -> None:
            header = parse(data).header
            check_key(header, self._key(kept.spec, header.key_id))

        return self._run.map(kept.watch.path, check)

    def _first_stored(self, file: ListFile) -> Kept:
        """Load a feed's stored artifact at the start: there may be none, and a bad one will be replaced."""
        kept = Kept(file, Watch(file.path))
        signature = Signature.of(file.path)
        if signature is None:
            if not self._take_last_good(kept, None) and not file.optional:
                logger.warning("list %s: not there yet, nothing on it is blocked", file.name)
            return kept
        kept.watch.seen = signature
        try:
            self._take(kept)
        except UrlwardError as e:
            mended = f"until that is mended (tried each {AGAIN:.0f} s)"
            until = mended if _may_pass(e) else "until it comes anew"
            then = f"nothing on it is blocked {until}"
            if self._take_last_good(kept, signature):
                then = f"what the other workers have is in force {until}"
            kept.refused = told(file.path, e)
            _try_again(kept, e)
            if not self._set_aside(kept, signature, e, then):
                logger.error("list %s: %s", told(file.path, e), then)
        return kept

    def _take_last_good(self, kept: Kept, signature: Signature | None) -> bool:
        """Put in force the last good artifact of the other workers, where they have one."""
        last = self._run.last(kept.watch.path)
        if last is None:
            return False
        try:
            loaded = exhaust(self._load(kept.spec, last))
        except UrlwardError:
            return False  # under another key than ours
        kept.take(loaded, signature)
        return True

    def _set_aside(self, kept: Kept, signature: Signature, error: UrlwardError, then: str) -> bool:
        """Set a bad stored artifact aside, where that is needed to have it fetched anew."""
        path, state = kept.watch.path, kept.spec.state
        if kept.named is not None:
            state = self._state or self._run.path
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

    def _look(self, kept: Kept, tasks: asyncio.TaskGroup) -> None:
        watch = kept.watch
        if kept.again is not None and time.monotonic() >= kept.again:
            watch.seen, kept.again = None, None
        if kept.loaded is not None and watch.vanished(time.monotonic()):
            self._keep(kept, f"{watch.path}: gone")
        if (signature := watch.changed()) is not None:
            tasks.create_task(self._refresh(kept, signature))
        elif kept.named is not None:
            self._look_at_facts(kept, kept.named.feed)

    def _look_at_facts(self, kept: Kept, feed: Feed) -> None:
        """Log the result of the last refresh, where that is not another artifact."""
        signature = kept.facts_watch.changed()
        if signature is None:
            return
        kept.facts_watch.seen = signature
        try:
            error = feed.store.facts().error
        except StateError as e:
            error = str(e)
        if error:
            self._keep(kept, error)
        elif kept.refused and kept.again is None:  # what came of it may not be in force yet
            _tell_as_before(kept)

    def _told(self, kept: Kept, outcome: Outcome, _: str) -> None:
        """Log a failure that the facts do not have."""
        if outcome.state == "failed" and not outcome.reason:
            path = kept.spec.path
            self._keep(kept, f"{path}: {outcome.error.removeprefix(f'{path}: ')}")

    async def _reload(self, kept: Kept, named: Updates) -> None:
        kept.reloads_wanted += 1
        mine = kept.reloads_wanted
        async with kept.reloading:
            if kept.reloads_begun >= mine:
                return  # one that began after this was asked for has read the file
            kept.reloads_begun = kept.reloads_wanted
            if self._follows:
                assert named.watch is not None
                if await named.watch.aside(partial(being_written, kept.spec.path)):
                    named.watch.acted_too_soon()
                    self._keep(kept, f"{kept.spec.path}: being written, will be read when that is done")
                    return
                await named.refresh(partial(self._told, kept))
                if named.feed.store.facts().error:
                    self._look_at_facts(kept, named.feed)
                    return
            signature = Signature.of(kept.watch.path)
            if signature is not None:
                await self._refresh(kept, signature, unchanged_too=True)

    async def _refresh(self, kept: Kept, signature: Signature, *, unchanged_too: bool = False) -> None:
        """Put the store's latest artifact in force, and free what has gone out of use."""
        async with AsyncExitStack() as unused:
            async with kept.busy:
                await unused.enter_async_context(kept.unused)
                old = await self._replace(kept, signature, unchanged_too=unchanged_too)
            if old is not None:
                self.on_unused()
                await _free(old)

    async def _replace(self, kept: Kept, signature: Signature, *, unchanged_too: bool) -> LoadedList | None:
        """Put the store's latest artifact in force; returns what has gone out of use."""
        began = kept.named.take_began() if kept.named is not None else None
        start, before = began or time.monotonic(), kept.entries
        try:
            data = await asyncio.to_thread(self._mapped, kept)
            same = kept.header is not None and kept.header.checksum == read_header(data).checksum
            if same and not unchanged_too:
                self._unchanged(kept, signature)
                return None
            async with self._loading:
                loaded = await in_slices(self._load(kept.spec, data))
        except Exception as e:  # noqa: BLE001 - a list that breaks us must not end the watch
            if Signature.of(kept.watch.path) == signature:
                kept.watch.seen = signature
                self._refused(kept, signature, e)
            return None
        old = kept.take(loaded, signature)
        self._swap()
        self._say(kept, start, before)
        return old

    def _say(self, kept: Kept, start: float, before: int) -> None:
        self.reloads += 1
        assert kept.header is not None
        seconds = time.monotonic() - start
        taken = Taken(kept.name, kept.header.serial, kept.entries, before, seconds)
        logger.info(
            "list %s: %s, serial %d, after %.1f s",
            taken.name, entries_text(kept.loaded), taken.serial, seconds,
        )  # fmt: skip
        if self.on_taken is not None:
            self.on_taken(self, taken)

    def _refused(self, kept: Kept, signature: Signature, error: Exception) -> None:
        path = kept.watch.path
        _try_again(kept, error)
        if not isinstance(error, UrlwardError):
            self._keep(kept, f"{path}: {type(error).__name__} in reloading")
        elif self._set_aside(kept, signature, error, kept.stays):
            self._count_failure(kept, told(path, error))
        else:
            self._keep(kept, told(path, error))

    def _keep(self, kept: Kept, why: str) -> None:
        logger.error("list %s; %s", why, kept.stays)
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
            _tell_as_before(kept)

    def _entries_end(self, day: int) -> bool:
        """Whether entries have expired since the last look, or the clock was set so that they have not.

        What is asked anew is judged by the time; what goes by the matcher in force, such as connections under
        way and steered addresses, is to be looked at again.
        """
        first, last = sorted((self._day, day))
        return first != last and any(
            first <= shape.expires < last for loaded in self.matcher.lists for shape in loaded.table.shapes
        )

    def _swap(self) -> None:
        lists = [kept.loaded for kept in self._kept if kept.loaded is not None]
        if self._exceptions is not None:
            lists += self._exceptions.lists
        self.matcher = Matcher(lists, protected=self._protected, nat64=self._nat64)


def _is_damaged(kept: Kept, error: UrlwardError) -> bool:
    """Whether a stored artifact is damaged, so that fetching it anew would help."""
    if isinstance(error, ArtifactError) and error.reason == "newer-version":
        # An older filter that runs on beside newer processes: they would bring the same again.
        return kept.loaded is None
    return not _may_pass(error)


def _may_pass(error: Exception) -> bool:
    """Whether an error is none of the artifact, such as a full disk, so that the same may do in a while.
    Where there is no thread, that is a `RuntimeError`."""
    if isinstance(error, RunFolderError | MemoryError | OSError | RuntimeError):
        return True
    return isinstance(error.__cause__, OSError) and not is_damage(error.__cause__)


def _try_again(kept: Kept, error: Exception) -> None:
    if _may_pass(error):
        kept.again = time.monotonic() + AGAIN


def _tell_as_before(kept: Kept) -> None:
    """Log that a file that was refused has what is in force."""
    kept.refused = ""
    logger.info("list %s: %s, as before", kept.name, entries_text(kept.loaded))


async def _free(old: LoadedList) -> None:
    """Free an unused list, piece by piece, and give its memory back."""
    for number, _ in enumerate(old.release()):
        await asyncio.sleep(PAUSE if number else 0)
    _give_back()


def _give_back() -> None:
    """Give freed memory back to the system, which glibc would keep to itself; takes about 1 ms."""
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
