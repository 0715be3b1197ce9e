"""The lists in force, and how a changed file takes their place.

A file that is bad, empty, half-written or gone changes nothing but the log. Whatever a reload does
happens in slices or in another process, because the event loop that it runs on carries traffic.
"""

import asyncio
import ctypes
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.loaded import LoadedList, load, loading
from urlward.engine.matcher import Matcher
from urlward.lists.build import (
    Progress,
    checksum,
    compile_sources,
    is_artifact,
    name_of,
    read_artifact,
    silent,
    told,
)
from urlward.lists.files import Signature, Watch, being_written
from urlward.lists.source import Budget, SourceError

logger = logging.getLogger("urlward.lists")

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

INTERVAL = 0.2
"""Seconds between two looks at the files."""

WORKERS = 2
"""Sources compiled at once; a million lines take a core and several hundred megabytes."""

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
    """

    def __init__(self, paths: Sequence[Path], key: Key, budget: Budget | None = None) -> None:
        self.paths = tuple(paths)
        self.key = key
        self.reloads = 0
        self.failures = 0
        self.matcher = Matcher((), key)
        """The matcher in force; read it once a request."""
        self._budget = budget or Budget()
        self._files: list[_File] = []
        self._loading = asyncio.Lock()
        self._workers = asyncio.Semaphore(WORKERS)

    def load(self, progress: Progress = silent) -> None:
        """Load all lists for the first time, at once.

        Raises:
            UrlwardError: a list is bad. There is no last good one to fall back to yet.
        """
        files = []
        for path in self.paths:
            signature = Signature.of(path)
            whole = True
            try:
                content = checksum(path)
                if is_artifact(path):
                    loaded = load(read_artifact(path), self.key)
                else:
                    data, report = compile_sources(
                        [path], self.key, name=name_of(path), budget=self._budget, progress=progress
                    )
                    whole = report.ends_with_newline
                    if report.bad:
                        logger.warning(
                            "list %s: %d of %d lines could not be read; first: %s",
                            path, report.bad, report.lines, report.bad_lines[0],
                        )  # fmt: skip
                    loaded = load(data, self.key)
            except UrlwardError as e:
                raise SourceError(told(path, e)) from e
            if Signature.of(path) != signature:
                content = b""
            files.append(_File(Watch(path, signature), loaded, whole, content))
        self._files = files
        self._swap()

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
                data, whole = await self._read(path)
                if file.ends_with_newline and not whole:
                    raise SourceError(f"{path}: its last line has no end: half-written?")
                if Signature.of(path) != signature:
                    return  # changed while it was read: the next look will see it settle
                async with self._loading:
                    loaded = await in_slices(loading(data, self.key))
            except Exception as e:  # noqa: BLE001 - a list that breaks us must not end the watch
                if Signature.of(path) == signature:
                    file.watch.seen = signature
                    known = told(path, e) if isinstance(e, UrlwardError) else None
                    self._keep(file, known or f"{path}: {type(e).__name__} in reloading")
                return
            old, file.loaded, file.ends_with_newline = file.loaded, loaded, whole
            file.watch.seen, file.checksum, file.failed = signature, content, False
            self._swap()
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

    async def _read(self, path: Path) -> tuple[bytes, bool]:
        """An artifact's bytes, and whether the file's last line is whole."""
        if is_artifact(path):
            return await asyncio.to_thread(read_artifact, path), True
        return await self._compile(path)

    async def _compile(self, path: Path) -> tuple[bytes, bool]:
        """Compile in another process (`urlward.lists.worker`)."""
        async with self._workers:
            return await self._compile_now(path)

    async def _compile_now(self, path: Path) -> tuple[bytes, bool]:
        fd = os.memfd_create("urlward", os.MFD_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "urlward.lists.worker", str(fd),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(fd,),
                process_group=0,  # Ctrl-C is for us; the worker is ended in order
            )  # fmt: skip
            request = {
                "path": str(path),
                "key": self.key.secret.hex(),
                "name": name_of(path),
                "budget": str(self._budget),
            }
            try:
                out, _ = await worker.communicate(json.dumps(request).encode())
            except asyncio.CancelledError:
                worker.kill()
                await worker.wait()
                raise
            if worker.returncode:
                raise SourceError(f"{path}: the process that compiles it ended with {worker.returncode}")
            answer: dict[str, Any] = json.loads(out)
            if "error" in answer:
                raise SourceError(answer["error"])
            if answer["bad"]:
                logger.warning(
                    "list %s: %d lines could not be read; first: %s", path, answer["bad"], answer["first"]
                )
            file.seek(0)
            return await asyncio.to_thread(file.read), bool(answer["ends_with_newline"])

    def _swap(self) -> None:
        self.matcher = Matcher([file.loaded for file in self._files], self.key)


async def _free(old: LoadedList) -> None:
    """Free a list that nothing uses any more, piece by piece, and give its memory back."""
    for _ in old.release():
        await asyncio.sleep(0)
    if _malloc_trim is not None:
        _malloc_trim(0)  # about 1 ms; glibc keeps freed memory to itself otherwise


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
    until = clock() + SLICE
    while True:
        try:
            next(steps)
        except StopIteration as e:
            result: T = e.value
            return result
        if clock() >= until:
            await pause()
            until = clock() + SLICE
