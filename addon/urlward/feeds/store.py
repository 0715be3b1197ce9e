"""Store of one feed in the state folder: the artifact in force, and the facts.

``feeds/NAME.ward`` is the artifact in force (``lists/NAME.ward`` of a list that is named on the command
line), ``NAME.change`` how the one before it becomes this one
(`urlward.engine.delta`), ``NAME.json`` the facts, ``NAME.lock`` what a refresh holds. A list's text is
never here.

Each file is written whole or not at all and is on the disk before the next one is begun, in this order:

1. the change, so that a filter that has the old artifact loaded can put the new one in force at once; where
   there is none, the one of before goes;
2. the artifact;
3. the facts.

Whoever is killed between two of them leaves a store that is good: a change without its artifact leads
from the one that is there to one that the next refresh brings again; facts that do not name the artifact
that is there are of an older one, and what they know of its body does not count.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from urlward.engine.artifact import HEADER_SIZE, Header, parse, read_header
from urlward.engine.errors import ArtifactError
from urlward.feeds.facts import Facts, dump_facts, parse_facts
from urlward.lists.source import SourceError, open_list, read_artifact
from urlward.regular import read_regular, regular_fd
from urlward.state.folder import (
    StateError,
    is_damage,
    locked,
    made_folder,
    set_aside,
    unusable,
    write_private,
)
from urlward.state.watch import Signature

FEEDS, LISTS = "feeds", "lists"
"""Folders of a state folder: of configured feeds, and of lists that are named on the command line."""

_SUFFIXES = (".ward", ".change", ".json")

_LOCK_LOOK = 0.05
"""Seconds between two tries to get a lock: who waits in the kernel uses no processor, so seems to hang."""


class BusyError(StateError):
    """Another process holds the feed's lock."""


class InForce(NamedTuple):
    """Artifact that a feed has in force.

    Attributes:
        data: its bytes.
        header: of it.
        entries: how many it has.
    """

    data: bytes
    header: Header
    entries: int


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

    @property
    def change_path(self) -> Path:
        """Path of the change from the artifact before to this one, for running filters."""
        return self._file(".change")

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

    def in_force(self) -> InForce | None:
        """Read the artifact in force; None where there is none, or none that is whole."""
        try:
            data = read_artifact(self.path)
            artifact = parse(data)
        except (SourceError, ArtifactError):
            return None
        return InForce(data, artifact.header, artifact.meta["entries"])

    def header(self) -> Header | None:
        """Read the header of the artifact in force, by its first bytes alone; None where there is none."""
        try:
            with open_list(self.path) as file:
                return read_header(file.read(HEADER_SIZE))
        except (SourceError, ArtifactError, OSError):
            return None

    def write_change(self, change: bytes) -> None:
        """Publish a change, from which a running filter has the next artifact before it is written.

        Raises:
            StateError: not writable.
        """
        write_private(self.change_path, change, self._state)

    def write_artifact(self, data: bytes, *, by_change: bool) -> None:
        """Put an artifact in force.

        Args:
            data: its bytes.
            by_change: whether `write_change` has said the same; otherwise what it last said is of no use.

        Raises:
            StateError: not writable.
        """
        if not by_change:
            path = self.change_path
            try:
                path.unlink(missing_ok=True)
            except OSError as e:
                if not is_damage(e):
                    raise unusable(path, e) from e
                set_aside(self._state, path, unusable(path, e), "of no use any more")
        write_private(self.path, data, self._state)

    def write_facts(self, facts: Facts) -> None:
        """Write the facts; where the disk is full, in the room that they have already.

        Raises:
            StateError: not writable.
        """
        path, data = self.facts_path, dump_facts(facts)
        try:
            write_private(path, data, self._state)
        except StateError as e:
            cause = e.__cause__
            full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full or not _overwritten(path, data):
                raise

    def _file(self, suffix: str) -> Path:
        return self._folder / f"{self.name}{suffix}"

    def _clean(self) -> None:
        """Delete the files that a killed writer has left."""
        for suffix in _SUFFIXES:
            with suppress(OSError):
                self._file(suffix).with_name(f".{self.name}{suffix}.tmp").unlink(missing_ok=True)


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
