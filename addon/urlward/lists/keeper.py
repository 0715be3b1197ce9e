"""The lists in force, and how a changed file takes their place.

A file that is bad, empty, half-written or gone changes nothing but the log. Whatever a reload does
happens in slices or in another process, because the event loop that it runs on carries traffic.
"""

import asyncio
import ctypes
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.loaded import LoadedList, load, loading
from urlward.engine.matcher import Matcher
from urlward.engine.networks import blocking_networks
from urlward.engine.steps import Steps
from urlward.lists.build import Progress, checksum, silent, told
from urlward.lists.files import Signature, Watch, being_written
from urlward.lists.reader import Reader, SupersededError
from urlward.lists.shared import Shared, inherited
from urlward.lists.source import Budget, SourceError

logger = logging.getLogger("urlward.lists")

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

INTERVAL = 0.2
"""Seconds between two looks at the files."""

SLICE = 0.002
"""Seconds that loading works before traffic has its turn."""


@dataclass(slots=True)
class _File:
    watch: Watch
    loaded: LoadedList
    ends_with_newline: bool
    checksum: bytes
    """Of what is loaded; empty where that is not certain."""
    failed: bool = False
    """Whether the last word in the log was that this file is no good."""
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    reloads_wanted: int = 0
    reloads_begun: int = 0


class Keeper:
    """Loads lists, keeps them up to date, and gives the matcher in force.

    Args:
        paths: sources and artifacts.
        key: for both.
        budget: of bad lines in a source.
        shared: what this process shares with other workers; what it inherited where not given.
    """

    def __init__(
        self, paths: Sequence[Path], key: Key, budget: Budget | None = None, shared: Shared | None = None
    ) -> None:
        self.paths = tuple(paths)
        self.key = key
        self.reloads = 0
        self.failures = 0
        self.matcher = Matcher(())
        """The matcher in force; read it once a request."""
        self._reader = Reader(key, budget or Budget(), inherited() if shared is None else shared)
        self._files: list[_File] = []
        self._loading = asyncio.Lock()

    def load(self, progress: Progress = silent) -> None:
        """Load all lists for the first time, at once.

        Raises:
            UrlwardError: a list is bad. There is no last good one to fall back to yet.
        """
        self._files = [self._first(path, progress) for path in self.paths]
        self._swap()
        _give_back()

    async def watch(self) -> None:
        """Look after the files until cancelled."""
        # Each file by itself, so that a large or stubborn one does not hold up the others.
        async with asyncio.TaskGroup() as refreshing:
            while True:
                await asyncio.sleep(INTERVAL)
                for file in self._files:
                    if not file.busy.locked():
                        signature = self._look(file)
                        if signature is not None:
                            refreshing.create_task(self._refresh(file, signature))

    async def reload(self) -> None:
        """Read every file again now, changed or not."""
        await asyncio.gather(*map(self._reload, self._files))

    def networks(self) -> list[str]:
        """The addresses and networks that the lists in force block, or some pages of; each once, in no order.

        May be called in another thread, since it takes as long as `blocking_networks` says.
        """
        while True:
            # What is in force has its sections. One that goes out of use from here on keeps them for us.
            artifacts = [loaded.artifact for loaded in self.matcher.lists]
            if all(artifact.sections for artifact in artifacts):
                break
        now = time.time()
        return list(dict.fromkeys(n for a in artifacts for n in blocking_networks(a, self.key, now)))

    def _first(self, path: Path, progress: Progress) -> _File:
        signature = Signature.of(path)
        try:
            read = self._reader.read_now(path, progress)
            loaded = load(read.data, self.key)
        except UrlwardError as e:
            last = self._reader.last_good(path)
            if last is None:
                raise SourceError(told(path, e)) from e
            # What the other workers have. As if nothing had been seen: the watch will say what is wrong.
            return _File(Watch(path), load(last.data, self.key), last.whole, b"")
        if Signature.of(path) != signature:
            return _File(Watch(path, signature), loaded, read.whole, b"")
        self._reader.keep(path, read.content)
        return _File(Watch(path, signature), loaded, read.whole, read.content)

    def _look(self, file: _File) -> Signature | None:
        now = time.monotonic()
        watch = file.watch
        if watch.vanished(now):
            self._keep(file, f"{watch.path}: gone")
        signature = watch.ready(now)
        if signature is None and watch.kept_open(now):
            logger.warning("list %s: changed, but its writer has not closed it; waiting", watch.path)
        return signature

    async def _reload(self, file: _File) -> None:
        path = file.watch.path
        file.reloads_wanted += 1
        mine = file.reloads_wanted
        async with file.busy:
            if file.reloads_begun >= mine:
                return  # one that began after this was asked for reads the file
            file.reloads_begun = file.reloads_wanted
        signature = Signature.of(path)
        if signature is None:
            self._keep(file, f"{path}: gone")
        elif being_written(path):
            self._keep(file, f"{path}: being written, will be read when that is done")
        else:
            await self._refresh(file, signature, unchanged_too=True)

    async def _refresh(self, file: _File, signature: Signature, *, unchanged_too: bool = False) -> None:
        async with file.busy:
            path = file.watch.path
            start = time.monotonic()
            try:
                content = await asyncio.to_thread(checksum, path)
                if content == file.checksum and not unchanged_too:
                    self._unchanged(file, signature)
                    return
                read = await self._reader.read(path, content, signature, was_whole=file.ends_with_newline)
                async with self._loading:
                    loaded = await in_slices(loading(read.data, self.key))
            except SupersededError:
                return
            except Exception as e:  # noqa: BLE001 - a list that breaks us must not end the watch
                if Signature.of(path) == signature:
                    file.watch.seen = signature
                    known = told(path, e) if isinstance(e, UrlwardError) else None
                    self._keep(file, known or f"{path}: {type(e).__name__} in reloading")
                return
            old, file.loaded, file.ends_with_newline = file.loaded, loaded, read.whole
            file.watch.seen, file.checksum, file.failed = signature, content, False
            self._swap()
            self._reader.keep(path, content)
            self.reloads += 1
            logger.info(
                "list %s: %d entries in force, serial %d, after %.1f s",
                loaded.name, loaded.entries, loaded.serial, time.monotonic() - start,
            )  # fmt: skip
            await _free(old)

    def _keep(self, file: _File, why: str) -> None:
        self.failures += 1
        file.failed = True
        logger.error("list %s; the last good one stays in force", why)

    def _unchanged(self, file: _File, signature: Signature) -> None:
        if Signature.of(file.watch.path) != signature:
            return
        file.watch.seen = signature
        if file.failed:
            file.failed = False
            logger.info("list %s: %d entries in force, as before", file.loaded.name, file.loaded.entries)

    def _swap(self) -> None:
        self.matcher = Matcher([file.loaded for file in self._files])


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
