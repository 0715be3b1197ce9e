"""Telling when a feed that is a path has changed."""

import os
from pathlib import Path

from urlward.lists.files import Signature, being_written

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

    def changed(self) -> bool:
        """Whether there is something new, that was the same at the last look, and that nobody is writing."""
        found = _look(self._path)
        settled = found == self._pending
        self._pending = found
        return settled and found != self._acted and not any(being_written(Path(name)) for name, _ in found)

    def acted(self) -> None:
        """Say that what is there is about to be read."""
        self._acted = _look(self._path)


def _look(path: Path) -> Content:
    if not path.is_dir():
        signature = Signature.of(path)
        return ((str(path), signature),) if signature is not None else ()
    names = (Path(folder, name) for folder, _, files in os.walk(path) for name in files)
    found = ((str(name), Signature.of(name)) for name, _ in zip(names, range(_MAX_FILES), strict=False))
    return tuple(sorted((name, signature) for name, signature in found if signature is not None))
