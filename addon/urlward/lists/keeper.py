"""The lists in force, and how a changed file takes their place.

A file that is bad, empty, half-written or gone changes nothing but the log. Whatever a reload does
happens in slices or in another process, because the event loop that it runs on carries traffic.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.engine.loaded import LoadedList, load, loading
from urlward.engine.matcher import Matcher
from urlward.lists.build import (
    Progress,
    compile_sources,
    is_artifact,
    name_of,
    read_artifact,
    silent,
    told,
)
from urlward.lists.files import Signature, Watch
from urlward.lists.source import Budget, SourceError

logger = logging.getLogger("urlward.lists")

INTERVAL = 0.25
"""Seconds between two looks at the files."""

SLICE = 0.004
"""Seconds that loading works before traffic has its turn."""


@dataclass(slots=True)
class _File:
    watch: Watch
    loaded: LoadedList
    ends_with_newline: bool


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
        self._busy = asyncio.Lock()

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
            files.append(_File(Watch(path, signature), loaded, whole))
        self._files = files
        self._swap()

    async def watch(self) -> None:
        """Look after the files until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            for file in self._files:
                if file.watch.vanished():
                    self.failures += 1
                    logger.error("list %s: gone; the last good one stays in force", file.watch.path)
                signature = file.watch.ready(time.monotonic())
                if signature is not None:
                    await self._refresh(file, signature)

    async def reload(self) -> None:
        """Read every file again now, changed or not."""
        for file in self._files:
            signature = Signature.of(file.watch.path)
            if signature is None:
                self.failures += 1
                logger.error("list %s: gone; the last good one stays in force", file.watch.path)
            else:
                await self._refresh(file, signature)

    async def _refresh(self, file: _File, signature: Signature) -> None:
        async with self._busy:
            path = file.watch.path
            start = time.monotonic()
            try:
                loaded, whole = await self._read(path)
                if file.ends_with_newline and not whole:
                    raise SourceError(f"{path}: its last line has no end: half-written?")
                if Signature.of(path) != signature:
                    return  # changed while it was read: the next look will see it settle
            except UrlwardError as e:
                file.watch.seen = signature
                self.failures += 1
                logger.error("list %s; the last good one stays in force", told(path, e))
                return
            except Exception as e:  # noqa: BLE001 - a list that breaks us must not end the watch
                file.watch.seen = signature
                self.failures += 1
                logger.error(
                    "list %s: %s in reloading; the last good one stays in force", path, e.__class__.__name__
                )
                return
            old, file.loaded, file.ends_with_newline = file.loaded, loaded, whole
            file.watch.seen = signature
            self._swap()
            self.reloads += 1
            logger.info(
                "list %s: %d entries in force, serial %d, after %.1f s",
                loaded.name, loaded.entries, loaded.serial, time.monotonic() - start,
            )  # fmt: skip
            for _ in old.release():
                await asyncio.sleep(0)

    async def _read(self, path: Path) -> tuple[LoadedList, bool]:
        if is_artifact(path):
            data, whole = await asyncio.to_thread(read_artifact, path), True
        else:
            data, whole = await self._compile(path)
        return await in_slices(loading(data, self.key)), whole

    async def _compile(self, path: Path) -> tuple[bytes, bool]:
        """Compile in another process (`urlward.lists.worker`)."""
        fd = os.memfd_create("urlward", os.MFD_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "urlward.lists.worker", str(fd),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(fd,),
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
