"""Places that lists are published in: a folder, or a bucket of an S3-compatible store.

Both can do the one thing that all else is built on: write an object whole if it is still the one that was
read (compare and swap). In a folder a lock makes that sure (flock(2)), in a bucket the store itself
(``If-Match`` and ``If-None-Match`` of PutObject). So a writer that was held up for an hour, and has been
replaced since, writes nothing any more.

Credentials, region and endpoint of a bucket are where every tool of S3 looks for them: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, the files in ``~/.aws``, or the machine's role. The store has
to know conditional writes.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

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


class OvertakenError(PlaceError):
    """Another writer was there first."""


class PlacedObject(NamedTuple):
    """Object of a place, or its beginning.

    Attributes:
        data: its bytes.
        tag: tells it from what is written over it.
    """

    data: bytes
    tag: str


NEW = ""
"""Tag of an object that is not there."""


class ListPlace(Protocol):
    """Place with objects, named by paths such as ``stable/phishing.ward``.

    Raises:
        PlaceError: from each method, where it cannot be used.
    """

    def read(self, name: str, size: int | None = None) -> PlacedObject | None:
        """Read an object, or its first bytes; None where it is not there."""

    def write(self, name: str, data: bytes, over: str) -> str:
        """Write an object whole; returns its tag.

        Args:
            name: of it.
            data: its bytes.
            over: tag of what it takes the place of.

        Raises:
            OvertakenError: something else is there.
        """

    def remove(self, name: str) -> None:
        """Delete an object, where it is there."""

    def names(self, folder: str) -> list[str]:
        """Names of the objects in a folder, without those of its folders."""

    def prepare(self) -> None:
        """Make ready for writing: see that conditions hold, and delete what killed writers have left."""


def open_place(to: str) -> ListPlace:
    """Open a folder, or a bucket by its ``s3://`` name.

    Raises:
        PlaceError: it cannot be used.
    """
    if not to.startswith(BUCKET):
        return Folder(Path(to))
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

    def read(self, name: str, size: int | None = None) -> PlacedObject | None:
        """See `ListPlace.read`."""
        try:
            # The tag is of the very file that is open, whatever takes its place meanwhile.
            with open_regular(self._path / name) as file:
                digest = _tag(file.fileno())
                return PlacedObject(file.read() if size is None else file.read(size), digest)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise self._error(e) from e

    def write(self, name: str, data: bytes, over: str) -> str:
        """See `ListPlace.write`."""
        path = self._path / name
        try:
            with self._locked():
                self._make_folders(path.parent, 0o755 if _is_public(name) else 0o700)
                there = self.read(name, 0)
                if (NEW if there is None else there.tag) != over:
                    raise OvertakenError(f"{path}: written by another publisher meanwhile")
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
        """See `ListPlace.remove`."""
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as e:
            raise self._error(e) from e

    def names(self, folder: str) -> list[str]:
        """See `ListPlace.names`."""
        try:
            found = (self._path / folder).iterdir()
            return sorted(path.name for path in found if path.is_file() and not path.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as e:
            raise self._error(e) from e

    def prepare(self) -> None:
        """See `ListPlace.prepare`."""
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
                # By what is open: whose folder it is may put a link in its place.
                fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.fchmod(fd, mode)
                    give_to_owner_of(self._path, fd)
                finally:
                    os.close(fd)

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


_TIMES = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
_PROBE, _NO_TAG = f"{CONTROL}/conditions", '"0"'

_LOST = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
"""Codes by which a store says that a condition does not hold, or that two are at it."""


class Bucket:
    """Bucket, and a prefix in it.

    Args:
        to: ``s3://BUCKET/PREFIX``.

    Raises:
        PlaceError: the extra ``publish`` is not installed.
    """

    def __init__(self, to: str) -> None:
        try:
            import fsspec
            from botocore.exceptions import BotoCoreError
        except ImportError as e:
            raise PlaceError(f"{to}: needs the extra `publish`: urlward help install") from e
        self._to = to
        self._bucket, _, prefix = to.removeprefix(BUCKET).partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._files: Any = fsspec.filesystem(
            "s3", skip_instance_cache=True, use_listings_cache=False, config_kwargs=_TIMES
        )
        self._files.retries = 1  # who publishes tries again by itself
        self._failures = (OSError, BotoCoreError)

    def __str__(self) -> str:
        return self._to

    def read(self, name: str, size: int | None = None) -> PlacedObject | None:
        """See `ListPlace.read`."""
        part = {} if size is None else {"Range": f"bytes=0-{max(size, 1) - 1}"}
        with self._told():
            try:
                answer = self._files.call_s3("get_object", **self._object(name), **part)
                return PlacedObject(self._body(answer), answer["ETag"])
            except FileNotFoundError as e:
                if _code(e) == "NoSuchBucket":
                    raise
                return None

    def write(self, name: str, data: bytes, over: str) -> str:
        """See `ListPlace.write`."""
        condition = {"IfNoneMatch": "*"} if over == NEW else {"IfMatch": over}
        with self._told():
            try:
                answer = self._files.call_s3("put_object", **self._object(name), Body=data, **condition)
                return str(answer["ETag"])
            except OSError as e:
                gone = over != NEW and _code(e) == "NoSuchKey"
                if gone or _code(e) in _LOST or isinstance(e, FileExistsError):
                    raise OvertakenError(f"{self._to}/{name}: written by another publisher meanwhile") from e
                raise

    def remove(self, name: str) -> None:
        """See `ListPlace.remove`."""
        with self._told():
            self._files.call_s3("delete_object", **self._object(name))

    def names(self, folder: str) -> list[str]:
        """See `ListPlace.names`."""
        with self._told():
            found = self._files.find(f"{self._bucket}/{self._prefix}{folder}", maxdepth=1)
        if not found:
            self.read(_PROBE)  # a bucket that is not there has no names either, and that is an error
        return sorted(path.rpartition("/")[2] for path in found)

    def prepare(self) -> None:
        """See `ListPlace.prepare`: a store that does not know conditions ignores them, and
        writes over whatever is there."""
        with suppress(OvertakenError):
            if self.read(_PROBE) is None:
                self.write(_PROBE, b"", NEW)
        for over in (NEW, _NO_TAG):
            with suppress(OvertakenError):
                self.write(_PROBE, b"", over)
                raise PlaceError(f"{self._to}: the store ignores If-Match or If-None-Match: not published to")

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name}"}

    def _body(self, answer: Any) -> bytes:
        from fsspec.asyn import sync

        async def read() -> bytes:
            async with answer["Body"] as body:
                data: bytes = await body.read()
                return data

        whole: bytes = sync(self._files.loop, read)
        return whole

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._failures as e:
            # What a store answers could quote what it was sent; botocore's own words name its address.
            words = _code(e) or getattr(e, "strerror", None) or type(e).__name__
            raise PlaceError(f"{self._to}: {words}") from e


def _code(error: BaseException) -> str:
    """Code of the store's answer; empty where it has given none."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
