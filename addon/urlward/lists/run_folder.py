"""Run folder: the artifacts that one filter's workers have in force, in files that all of them map.

What lies in a state folder may be overwritten in its place, by a backup that is played back or by hand, and
the kernel ends whoever maps a file that is cut short. So an artifact is checked and copied here once
(`RunFolder.map`), where nobody else has any business. The copy outlives damage to what it was made from: a
worker that takes another's place has what the others have (`RunFolder.last`). Without a state folder, lists
named on the command line have their store here too.

No plaintext is in it. What is more secret, such as the key that those lists are compiled under, is in memory
without a name that workers inherit (`RunFolder.memory`). The folder ends with the filter; the next start
clears one that was killed.
"""

import fcntl
import json
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from urlward.engine.errors import UrlwardError
from urlward.lists import memfd

FOLDER = "URLWARD_RUN"
"""In a worker's environment: the path of its filter's run folder."""

MEMORY = "URLWARD_MEMORY"
"""In a worker's environment: file descriptors of memory that all share, by name, as a JSON object."""

_CHUNK = 1 << 20
_KEY, _KEY_SIZE = "key", 32
_HEADER_SIZE = 256
"""Bytes of an artifact's header (`urlward.engine.artifact.HEADER_SIZE`)."""
_SUM = 16
"""Bytes of a checksum, and of a length behind it."""

PREFIX = "urlward-run-"
"""Begins the names of run folders. Its owner holds each locked (flock(2)) while it lives: so the next start
knows one that is left, and systemd-tmpfiles(8) lets it be."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RunFolderError(UrlwardError):
    """The run folder cannot be made, or an artifact be copied there: there is no room, or no memory."""


class RunFolder:
    """Run folder of one filter: a temporary folder, which ends with this object or process.

    Args:
        sizes: of memory that workers share, in bytes, by name.

    Attributes:
        path: of the folder.

    Raises:
        RunFolderError: it cannot be made.
    """

    path: Path

    def __init__(self, sizes: Mapping[str, int] = MappingProxyType({})) -> None:
        self._memories: dict[str, int] = {}
        self._end: Callable[[], object] = lambda: None
        try:
            base = Path(tempfile.gettempdir())
            _clear(base)
            self.path, owner = _made(base)
            self._end = weakref.finalize(self, _remove, self.path, owner, self._memories, os.getpid())
            for name, size in {_KEY: _KEY_SIZE, **sizes}.items():
                self._memories[name] = memfd.writable(size)
            os.pwrite(self._memories[_KEY], os.urandom(_KEY_SIZE), 0)
        except OSError as e:
            text = f"temporary files: {e.strerror or e}; TMPDIR may name a folder for them"
            raise RunFolderError(text) from e

    @classmethod
    def joined(cls, path: Path, memories: Mapping[str, int]) -> "RunFolder":
        """Join another process's run folder, which ends with that process.

        Args:
            path: of the folder.
            memories: descriptors by name.
        """
        run = cls.__new__(cls)
        run.path, run._memories, run._end = path, dict(memories), lambda: None
        return run

    @property
    def secret(self) -> bytes:
        """Secret key of lists that have none of their own."""
        return os.pread(self._memories[_KEY], _KEY_SIZE, 0)

    def close(self) -> None:
        """Delete the folder; what is mapped stays so."""
        self._end()

    def pass_on(self) -> tuple[dict[str, str], list[int]]:
        """Environment variables and descriptors that a worker needs to share it (`inherited`)."""
        return {FOLDER: str(self.path), MEMORY: json.dumps(self._memories)}, list(self._memories.values())

    def memory(self, name: str) -> int:
        """Descriptor of memory that all may write to, the receiver's to close."""
        return os.dup(self._memories[name])

    def keep(self, name: str, data: bytes) -> None:
        """Store bytes in such memory in place of the last ones; what is too large is not stored."""
        fd, size = self._memories[name], len(data)
        with self._locked():
            if 2 * _SUM + size <= os.fstat(fd).st_size:
                os.pwrite(fd, _sum_of(data) + size.to_bytes(_SUM) + data, 0)

    def kept(self, name: str) -> bytes | None:
        """Read the bytes that were stored last; None where there are none."""
        fd = self._memories[name]
        with self._locked():
            size = int.from_bytes(os.pread(fd, _SUM, _SUM))
            data = os.pread(fd, size, 2 * _SUM) if size <= os.fstat(fd).st_size else b""
            # Of who was killed at it there may be half.
            return data if os.pread(fd, _SUM, 0) == _sum_of(data) else None

    def map(self, path: Path, check: Callable[[memoryview], object]) -> memoryview:
        """Map a copy of an artifact: another worker's copy where that has the same content.

        Args:
            path: of the artifact.
            check: raises where its bytes are no good; then what was here before stays.

        Raises:
            SourceError: not readable.
            RunFolderError: it cannot be copied.
        """
        ours = self._copy_of(path)
        try:
            with self._locked():
                beside = ours.with_suffix(".tmp")
                try:
                    self._copy(path, beside)
                    data = mapped(beside)
                    check(data)
                    if _begins(ours, bytes(data[:_HEADER_SIZE])):
                        return mapped(ours)
                    beside.replace(ours)
                    return data
                finally:
                    beside.unlink(missing_ok=True)
        except OSError as e:
            raise RunFolderError(f"{path}: no copy in {self.path}: {e.strerror or e}") from e

    @property
    def has_any(self) -> bool:
        """Whether anything has been in force in this run."""
        return any(self.path.glob("*.ward"))

    def last(self, path: Path) -> memoryview | None:
        """Copy of an artifact that was mapped last, whatever has become of the artifact; None where there
        is none."""
        try:
            return mapped(self._copy_of(path))
        except OSError:
            return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock; waits its turn."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _copy_of(self, path: Path) -> Path:
        return self.path / f"{blake2b(os.fsencode(path.absolute()), digest_size=16).hexdigest()}.ward"

    def _copy(self, path: Path, beside: Path) -> None:
        from urlward.lists.source import open_list  # which the supervisor has no use for

        beside.unlink(missing_ok=True)
        with open_list(path) as file:
            if path.is_relative_to(self.path):
                os.link(path, beside)  # of a store in here, whose files are only ever replaced
                return
            with os.fdopen(_new(beside), "wb") as copy:
                while chunk := _chunk(path, file):
                    copy.write(chunk)


@cache
def inherited() -> RunFolder | None:
    """Join the run folder that this process inherits; None where it is no worker, or shall share nothing."""
    path, memories = os.environ.pop(FOLDER, ""), os.environ.pop(MEMORY, "")
    if not path:
        return None
    found: dict[str, int] = json.loads(memories)
    for fd in found.values():
        os.set_inheritable(fd, False)
    return RunFolder.joined(Path(path), found)


def _begins(path: Path, header: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER_SIZE) == header
    except OSError:
        return False


def _new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _chunk(path: Path, file: BinaryIO) -> bytes:
    try:
        return file.read(_CHUNK)
    except OSError as e:
        from urlward.lists.source import unreadable

        raise unreadable(path, e) from e


def mapped(path: Path) -> memoryview:
    """Map a file of a run folder, to be read only; it is replaced, and never changed."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")  # which cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ))


def _sum_of(data: bytes) -> bytes:
    return blake2b(data, digest_size=_SUM).digest()


def _remove(path: Path, owner: int, memories: Mapping[str, int], process: int) -> None:
    if process == os.getpid():  # and not a copy of that process
        shutil.rmtree(path, ignore_errors=True)
        for fd in (owner, *memories.values()):
            os.close(fd)


def _made(base: Path) -> tuple[Path, int]:
    """Make a folder, and lock it; gives its path and the descriptor that holds the lock.

    Its name is its own from the beginning: where everybody may make files, as in ``/tmp``, any other that it
    is to get somebody may have taken.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        with suppress(FileNotFoundError):  # another start has cleared it
            owner = os.open(path, _FOLDER)
            fcntl.flock(owner, fcntl.LOCK_EX)
            found = os.fstat(owner)
            with suppress(FileNotFoundError):
                if os.path.samestat(found, path.lstat()) and found.st_uid == os.geteuid():
                    return path, owner
            os.close(owner)


def _clear(base: Path) -> None:
    """Delete the folders of this user's filters that were killed."""
    for path in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if path.lstat().st_uid != os.geteuid():
                continue
            owner = os.open(path, _FOLDER)
            try:
                # Locked to the end: who has just made it, and waits for the lock, finds it gone.
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(owner)
