"""Places that lists are published in: a folder, or a bucket of an S3-compatible store.

Both can do the one thing that all else is built on: write an object whole if it is still the one that was
read (compare and swap). In a folder a lock makes that sure (flock(2)), in a bucket the store itself
(``If-Match`` and ``If-None-Match`` of PutObject). So a writer that was held up for an hour, and has been
replaced since, writes nothing any more.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from urlward.config.tables import BUCKET
from urlward.engine.errors import UrlwardError
from urlward.lists.build import written_atomically
from urlward.lists.source import SourceError
from urlward.regular import open_regular
from urlward.state.folder import give_to_owner_of

LOCKED = 20.0
"""Seconds to wait for a folder's lock, which is held while one object is written."""

CONTROL, VERSIONS, CANARY, STABLE = ".publish", "versions", "canary", "stable"
"""Folders of a place: what publishers alone read, every version that is kept, and what nodes follow."""

_FOLDERS = (CONTROL, VERSIONS, CANARY, STABLE)
_LOOK = 0.02


class PlaceError(UrlwardError):
    """A place that cannot be read or written; the message names it."""


class ChangedError(PlaceError):
    """Another writer was there first."""


class Found(NamedTuple):
    """Object of a place, or its beginning.

    Attributes:
        data: its bytes.
        tag: tells it from what is written over it.
    """

    data: bytes
    tag: str


NEW = ""
"""Tag of an object that is not there."""


class Place(Protocol):
    """Place with objects, named by paths such as ``stable/phishing.ward``.

    Raises:
        PlaceError: from each method, where it cannot be used.
    """

    def read(self, name: str, size: int | None = None) -> Found | None:
        """Read an object, or its first bytes; None where it is not there."""

    def write(self, name: str, data: bytes, over: str) -> str:
        """Write an object whole; returns its tag.

        Args:
            name: of it.
            data: its bytes.
            over: tag of what it takes the place of.

        Raises:
            ChangedError: something else is there.
        """

    def remove(self, name: str) -> None:
        """Delete an object, where it is there."""

    def names(self, folder: str) -> list[str]:
        """Names of the objects in a folder, without those of its folders."""

    def prepare(self) -> None:
        """Make ready for writing: see that conditions hold, and delete what killed writers have left."""


def open_place(to: str) -> Place:
    """Open a folder, or a bucket by its ``s3://`` name.

    Raises:
        PlaceError: it cannot be used.
    """
    if not to.startswith(BUCKET):
        return Folder(Path(to))
    from urlward.publish.bucket import Bucket  # brings fsspec, which a folder does not need

    return Bucket(to)


class Folder:
    """Folder of this machine, or of a network file system with locks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise self._error(e) from e

    def __str__(self) -> str:
        return str(self._path)

    def read(self, name: str, size: int | None = None) -> Found | None:
        """See `Place.read`."""
        try:
            # The tag is of the very file that is open, whatever takes its place meanwhile.
            with open_regular(self._path / name) as file:
                digest = _tag(file.fileno())
                return Found(file.read() if size is None else file.read(size), digest)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise self._error(e) from e

    def write(self, name: str, data: bytes, over: str) -> str:
        """See `Place.write`."""
        path = self._path / name
        try:
            with self._locked():
                self._make_folders(path.parent, 0o755 if _is_public(name) else 0o700)
                there = self.read(name, 0)
                if (NEW if there is None else there.tag) != over:
                    raise ChangedError(f"{path}: written by another publisher meanwhile")
                with written_atomically(path, 0o600) as file:
                    file.write(data)
                    file.flush()
                    if _is_public(name):
                        os.fchmod(file.fileno(), 0o644)  # whatever the umask is
                    give_to_owner_of(self._path, file.fileno())
                    if there is not None:
                        # What web servers call a file by is its size and the second that it is of.
                        step = 1_000_000_000 if _is_public(name) else 1
                        moment = max(time.time_ns(), path.stat().st_mtime_ns + step)
                        os.utime(file.fileno(), ns=(moment, moment))
                    return _tag(file.fileno())
        except SourceError as e:
            raise PlaceError(str(e)) from e
        except OSError as e:
            raise self._error(e) from e

    def remove(self, name: str) -> None:
        """See `Place.remove`."""
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as e:
            raise self._error(e) from e

    def names(self, folder: str) -> list[str]:
        """See `Place.names`."""
        try:
            found = (self._path / folder).iterdir()
            return sorted(path.name for path in found if path.is_file() and not path.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as e:
            raise self._error(e) from e

    def prepare(self) -> None:
        """See `Place.prepare`."""
        with self._locked(), suppress(OSError):
            for folder in _FOLDERS:
                for left in (self._path / folder).rglob(".*.tmp"):
                    left.unlink(missing_ok=True)

    def _make_folders(self, folder: Path, mode: int) -> None:
        """Make the folders of an object; root makes them for whose folder it is."""
        for each in (*reversed(folder.relative_to(self._path).parents), folder.relative_to(self._path)):
            with suppress(FileExistsError):
                made = self._path / each
                made.mkdir(mode)
                made.chmod(mode)
                give_to_owner_of(self._path, made)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            until = time.monotonic() + LOCKED
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise PlaceError(
                            f"{self._path}: locked for {LOCKED:.0f} s: a publisher that hangs? (lslocks)"
                        ) from None
                    time.sleep(_LOOK)
            yield
        finally:
            os.close(fd)

    def _error(self, error: OSError) -> PlaceError:
        return PlaceError(f"{error.filename or self._path}: {error.strerror or error}")


def _is_public(name: str) -> bool:
    """Whether an object is for nodes."""
    return name.startswith((f"{CANARY}/", f"{STABLE}/"))


def _tag(fd: int) -> str:
    status = os.fstat(fd)  # of times and sizes alone one that was written within a tick could have the same
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
