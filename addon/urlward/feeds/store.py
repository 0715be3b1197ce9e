"""Store of one feed in the state folder: the artifact in force, and the facts.

``feeds/NAME.ward`` is the artifact in force (``lists/NAME.ward`` of a list that is named on the command
line), ``NAME.json`` the facts, ``NAME.lock`` what a refresh holds, and in ``NAME.versions`` are the
artifacts that were in force before, of feeds alone. A list's text is never here.

Each file is written whole or not at all; the artifact is on the disk before the facts are begun. Whoever is
killed between the two leaves a store that is good: facts that do not name the artifact that is there are of
an older one, and what they know of its body does not count.
"""

import errno
import fcntl
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from urlward.engine.artifact import HEADER_SIZE, Artifact, Header, parse, read_header
from urlward.engine.errors import ArtifactError
from urlward.feeds.facts import Facts, dump_facts, parse_facts
from urlward.lists.source import SourceError, open_list, read_artifact
from urlward.regular import read_regular, regular_fd
from urlward.state.folder import (
    StateError,
    is_damage,
    leave_newest,
    locked,
    made_folder,
    set_aside,
    unusable,
    write_private,
)
from urlward.state.watch import Signature

FEEDS, LISTS = "feeds", "lists"
"""Folders of a state folder: of configured feeds, and of lists that are named on the command line."""

_SUFFIXES = (".ward", ".json", ".exchange")

VERSIONS = 5
"""Earlier artifacts of a feed that are kept."""

_LOCK_LOOK = 0.05
"""Seconds between two tries to get a lock: who waits in the kernel uses no processor, so seems to hang."""


class BusyError(StateError):
    """Another process holds the feed's lock."""


class Version(NamedTuple):
    """Earlier artifact of a feed.

    Attributes:
        serial: of it.
        created: when it was made, seconds since 1970-01-01 UTC.
        path: of the file.
    """

    serial: int
    created: int
    path: Path


class FeedStore:
    """Store of one feed's files.

    Args:
        state: the state folder.
        name: of the feed.
        folder: in the state folder.
    """

    def __init__(self, state: Path, name: str, folder: str = FEEDS) -> None:
        self.name = name
        self._state = state
        self._folder = state / folder

    @property
    def path(self) -> Path:
        """Path of the artifact in force."""
        return self._file(".ward")

    @property
    def facts_path(self) -> Path:
        """Path of the facts."""
        return self._file(".json")

    @contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the lock under which a feed is refreshed; the folders are made where they are not there.

        Args:
            wait: for its turn, where another does.

        Raises:
            BusyError: another does.
            StateError: the folders or the lock file cannot be made.
        """
        made_folder(self._state)
        made_folder(self._folder, self._state)
        try:
            fd = self._opened_lock()
        except OSError as e:
            path = self._file(".lock")
            if not is_damage(e):
                raise unusable(path, e) from e
            set_aside(self._state, path, unusable(path, e), "made anew")
            fd = self._opened_lock()
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as e:
                    if not wait:
                        raise BusyError(f"{self.name}: being refreshed already") from e
                    time.sleep(_LOCK_LOOK)
            self._clean()
            self._mend_facts()
            yield
        finally:
            os.close(fd)

    def _opened_lock(self) -> int:
        path = self._file(".lock")
        if not os.path.lexists(path):
            with locked(self._folder):
                if not os.path.lexists(path):
                    write_private(path, b"", self._state)
        return regular_fd(path, os.O_RDWR | os.O_NOFOLLOW)

    def facts(self) -> Facts:
        """Read the facts; empty where they are damaged, until the next refresh.

        Raises:
            StateError: not readable.
        """
        path = self.facts_path
        try:
            return parse_facts(read_regular(path)) or Facts()
        except FileNotFoundError:
            return Facts()
        except OSError as e:
            if is_damage(e) or (isinstance(e, NotADirectoryError) and self._state.is_dir()):
                return Facts()
            raise unusable(path, e) from e

    def _mend_facts(self) -> None:
        """Set damaged facts aside; whoever holds the lock is about to write them anew."""
        path = self.facts_path
        seen = Signature.of(path)
        try:
            if parse_facts(read_regular(path)) is not None:
                return
            reason = "damaged"
        except FileNotFoundError:
            return
        except OSError as e:
            if not is_damage(e):
                raise unusable(path, e) from e
            reason = e.strerror or str(e)
        set_aside(self._state, path, reason, "how high its serials were is no longer known", seen=seen)

    def mend_artifact(self) -> None:
        """Set a damaged artifact aside; whoever holds the lock is about to make it anew."""
        seen = Signature.of(self.path)
        if not os.path.lexists(self.path):
            return
        try:
            parse(read_artifact(self.path))
        except (SourceError, ArtifactError) as e:
            cause = e.__cause__
            if not isinstance(cause, OSError) or is_damage(cause):
                set_aside(self._state, self.path, e, "made anew", seen=seen)

    def in_force(self) -> Artifact | None:
        """Read the artifact in force; None where there is none, or none that is whole."""
        try:
            return parse(read_artifact(self.path))
        except (SourceError, ArtifactError):
            return None

    def header(self) -> Header | None:
        """Read the header of the artifact in force, by its first bytes alone; None where there is none."""
        try:
            with open_list(self.path) as file:
                return read_header(file.read(HEADER_SIZE))
        except (SourceError, ArtifactError, OSError):
            return None

    def write_artifact(self, data: bytes) -> None:
        """Put an artifact in force; a feed's that was is kept as an earlier version, as long as the disk has
        room: what is to be in force goes before what was.

        Raises:
            StateError: not writable.
        """
        if self._folder.name == FEEDS:
            self._keep_version()
        while True:
            try:
                write_private(self.path, data, self._state)
            except StateError as e:
                if not (_is_full(e) and self._drop_version()):
                    raise
            else:
                return

    def versions(self) -> list[Version]:
        """Earlier artifacts that are kept, those of the highest serial first; without the one in force."""
        in_force, found = self.header(), []
        with suppress(OSError):
            for path in self._versions.glob("*.ward"):
                with suppress(SourceError, ArtifactError, OSError), open_list(path) as file:
                    header = read_header(file.read(HEADER_SIZE))
                    if in_force is None or header.checksum != in_force.checksum:
                        found.append(Version(header.serial, header.created, path))
        return sorted(found, reverse=True)

    def put_back(self, serial: int, *, or_last: bool) -> bool:
        """Put an earlier artifact in force where none is, or none that is whole; returns whether it was kept.

        Args:
            serial: of it.
            or_last: whether the last that is kept will do, where it is not.

        Raises:
            StateError: not writable.
        """
        self.mend_artifact()
        # The one that is asked for comes first.
        for version in sorted(self.versions(), key=lambda one: one.serial != serial):
            if or_last or version.serial == serial:
                with suppress(SourceError, ArtifactError):
                    data = read_artifact(version.path)
                    parse(data)
                    self.write_artifact(bytes(data))
                    return True
        return False

    def _keep_version(self) -> None:
        """Keep the artifact in force as a version: another name of the same file, which the next one leaves.

        Where that cannot be, there is one version less, and no refresh fails for it.
        """
        header = self.header()
        if header is None:
            return
        try:
            folder = made_folder(self._versions, self._state)
            kept = folder / f"{header.serial}-{header.checksum.hex()[:16]}.ward"
            if kept.exists():  # it was rolled back to
                os.utime(kept)
            else:
                os.link(self.path, kept)
            leave_newest(folder, VERSIONS)
        except (OSError, StateError):
            return

    def _drop_version(self) -> bool:
        """Delete the oldest of the earlier artifacts; False where there is none."""
        try:
            oldest = min(self._versions.iterdir(), key=lambda path: path.stat().st_mtime_ns, default=None)
            if oldest is not None:
                oldest.unlink()
        except OSError:
            return False
        return oldest is not None

    @property
    def _versions(self) -> Path:
        return self._folder / f"{self.name}.versions"

    def write_facts(self, facts: Facts) -> None:
        """Write the facts; where the disk is full, in the room that they have already.

        Raises:
            StateError: not writable.
        """
        path, data = self.facts_path, dump_facts(facts)
        try:
            write_private(path, data, self._state)
        except StateError as e:
            if not _is_full(e) or not _overwritten(path, data):
                raise

    def _file(self, suffix: str) -> Path:
        return self._folder / f"{self.name}{suffix}"

    def _clean(self) -> None:
        """Delete the files that a killed writer has left, or an earlier release."""
        left = [f".{self.name}{suffix}.tmp" for suffix in _SUFFIXES]
        for name in (*left, f"{self.name}.change"):
            with suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)


def forget_others(state: Path, stores: Collection[FeedStore]) -> None:
    """Delete the artifacts of lists that are not named any more, or not in that way."""
    names = {store.name for store in stores}
    with suppress(OSError):
        for path in (state / LISTS).iterdir():
            if path.name.partition(".")[0] not in names and path.name.startswith("list-"):
                with suppress(OSError):
                    path.unlink()


def _is_full(error: StateError) -> bool:
    """Whether there is no room on the disk."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def _overwritten(path: Path, data: bytes) -> bool:
    """Write a file in its place, within the blocks that it has, so that a disk without room takes it too.

    That is not whole or nothing where the machine ends meanwhile: damaged facts are set aside.
    """
    try:
        fd = regular_fd(path, os.O_WRONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if len(data) > os.fstat(fd).st_blocks * 512 or os.pwrite(fd, data, 0) < len(data):
            return False
        os.ftruncate(fd, len(data))
        os.fsync(fd)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
