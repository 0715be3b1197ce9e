"""Watches on paths of the operator's: a file, or a folder with all that is in it."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any
from weakref import WeakValueDictionary, finalize

from urlward.state.watch import Signature, being_written, leases_are_safe

UNSETTLED = 30.0
"""Seconds after which a file that never stays as it is is read all the same: whoever reads it sees to it that
what they read is whole (`urlward.lists.source.whole_copy`)."""

PATIENCE = 10.0
"""Seconds after which a writer that does not close its file is spoken of."""

_MAX_FILES = 10_000

type Content = tuple[tuple[str, Signature], ...]

type _Asked = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class _Looks:
    """Looks in a thread, one after the other. Unlike an executor's, no process waits for it at its end."""

    def __init__(self) -> None:
        self._asked: _Asked = SimpleQueue()
        self._begun = False
        finalize(self, self._asked.put, None)

    def ask[T](self, look: Callable[[], T]) -> Future[T]:
        """Look when those before have ended.

        Raises:
            RuntimeError: there is no thread to be had.
        """
        future = Future[T]()
        if not self._begun:
            Thread(target=_look_for, args=[self._asked], daemon=True).start()
            self._begun = True
        self._asked.put((future, look))
        return future


def _look_for(asked: _Asked) -> None:
    while (one := asked.get()) is not None:
        future, look = one
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(look())
            except Exception as e:  # noqa: BLE001 - whoever asked is told
                future.set_exception(e)
        del one, future, look  # what was looked at may be gone before another look is asked for


_threads: WeakValueDictionary[str, _Looks] = WeakValueDictionary()
"""By the folders of the paths that are watched, for the looks of `PathWatch.aside`."""


class PathWatch:
    """Watch on a file, or on a folder with all that is in it.

    Args:
        path: of it.
        seen: signature of a file that has been read already.
    """

    def __init__(self, path: Path, seen: Signature | None = None) -> None:
        self._path = path
        self._acted: Content | None = None if seen is None else ((str(path), seen),)
        self._pending: Content | None = None
        self._changing_since: float | None = None
        self._written_since: float | None = None
        self._told = False
        folder = str(path.parent.absolute())
        self._thread = _threads.setdefault(folder, _Looks())
        leases_are_safe()  # in the main thread, which has to see to that

    def aside[T](self, look: Callable[[], T]) -> asyncio.Future[T]:
        """Look at the path in a thread, whose result is to be awaited: a file system on the network may hang,
        and a folder have 10,000 files. What is in one folder has one thread, which hangs by itself."""
        return asyncio.wrap_future(self._thread.ask(look))

    def changed(self, now: float | None = None) -> bool:
        """Whether there is a change to read: it was the same at the last look, or never is for `UNSETTLED`
        seconds, and nobody is writing.

        Args:
            now: a monotonic clock's seconds; the clock where not given.
        """
        now = time.monotonic() if now is None else now
        found = _look(self._path)
        if found == self._acted:
            self._changing_since = self._written_since = None
            self._told = False
        elif self._changing_since is None:
            self._changing_since = now
        unsettled = self._changing_since is not None and now - self._changing_since >= UNSETTLED
        settled = found == self._pending or unsettled
        self._pending = found
        if not settled or found == self._acted:
            return False
        if not any(being_written(Path(name)) for name, _ in found):
            return True
        if self._written_since is None:
            self._written_since = now
        return False

    def is_kept_open(self, now: float) -> bool:
        """True once when a changed path has long been still, but its writer has not closed it."""
        since = self._written_since
        if since is None or now - since <= PATIENCE or self._told:
            return False
        self._told = True
        return True

    def acted(self) -> None:
        """Note that the current state is about to be read."""
        self._acted, self._changing_since, self._written_since = _look(self._path), None, None

    def acted_too_soon(self) -> None:
        """Note that the current state is worth another look, since it could not be read."""
        self._acted = None

    def is_as_acted(self) -> bool:
        """Whether it is as it was when it was last read."""
        return _look(self._path) == self._acted


def silent(paths: Iterable[Path], within: float) -> set[Path]:
    """Those of some paths whose file systems do not answer within so many seconds."""
    watches = {path: PathWatch(path) for path in paths}
    looks = {watch._thread.ask(partial(_look, path)): path for path, watch in watches.items()}
    return {looks[look] for look in wait(looks, within).not_done}


def _look(path: Path) -> Content:
    if not os.path.isdir(path):  # noqa: PTH112 - never raises, as where a file system fails
        signature = Signature.of(path)
        return ((str(path), signature),) if signature is not None else ()
    names = (Path(folder, name) for folder, _, files in os.walk(path) for name in files)
    found = ((str(name), Signature.of(name)) for name, _ in zip(names, range(_MAX_FILES), strict=False))
    return tuple(sorted((name, signature) for name, signature in found if signature is not None))
