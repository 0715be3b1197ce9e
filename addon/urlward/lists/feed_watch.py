"""Telling when a feed that is a path has changed."""

import os
import time
from pathlib import Path

from urlward.lists.files import UNSETTLED, Signature, being_written

_MAX_FILES = 10_000

type Content = tuple[tuple[str, Signature], ...]


class PathWatch:
    """Watches a file, or a folder with all that is in it.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._acted: Content | None = None
        self._pending: Content | None = None
        self._changing_since: float | None = None

    def changed(self, now: float | None = None) -> bool:
        """Whether there is something new, that was the same at the last look, or never is for `UNSETTLED`
        seconds, and that nobody is writing.

        Args:
            now: a monotonic clock's seconds; the clock where not given.
        """
        now = time.monotonic() if now is None else now
        found = _look(self._path)
        if found == self._acted:
            self._changing_since = None
        elif self._changing_since is None:
            self._changing_since = now
        unsettled = self._changing_since is not None and now - self._changing_since >= UNSETTLED
        settled = found == self._pending or unsettled
        self._pending = found
        return settled and found != self._acted and not any(being_written(Path(name)) for name, _ in found)

    def acted(self) -> None:
        """Say that what is there is about to be read."""
        self._acted, self._changing_since = _look(self._path), None


def _look(path: Path) -> Content:
    if not path.is_dir():
        signature = Signature.of(path)
        return ((str(path), signature),) if signature is not None else ()
    names = (Path(folder, name) for folder, _, files in os.walk(path) for name in files)
    found = ((str(name), Signature.of(name)) for name, _ in zip(names, range(_MAX_FILES), strict=False))
    return tuple(sorted((name, signature) for name, signature in found if signature is not None))
