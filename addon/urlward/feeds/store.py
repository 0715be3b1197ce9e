"""Store of one feed in the state folder: the artifact in force, and the facts.

``feeds/NAME.ward`` is the artifact in force (``lists/NAME.ward`` of a list that is named on the command
line), ``NAME.json`` the facts, ``NAME.lock`` what a refresh holds, and in ``NAME.versions`` are the
artifacts that were in force before, of feeds alone. A list's text is never here.

Each file is written whole or not at all; the artifact is on the disk before the facts are begun. Whoever is
killed between the two leaves a store that is good: facts that do not name the artifact that is there are of
an older one, and what they know of its body does not count. Nothing depends on the facts for good: whoever
cannot read them, or a part of them, goes on without: the artifact says itself what is in force, and the next
refresh writes the facts anew. A checksum tells where they are not as they were written: a serial in which one
bit is another would refuse every issue from then on.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from urlward.engine.artifact import HEADER_SIZE, Artifact, Header, parse, read_header
from urlward.engine.errors import ArtifactError
from urlward.lists.source import SourceError, open_list, read_artifact
from urlward.regular import read_regular, regular_fd
from urlward.state.folder import (
    StateError,
    is_damage,
    leave_newest,
    locked,
    made_folder,
    set_aside,
    sum_of,
    unusable,
    write_private,
)
from urlward.state.watch import Signature

VERSION = 1


@dataclass(slots=True)
class Refused:
    """Refused candidate, waiting for an operator's acceptance.

    Attributes:
        reason: the guard's.
        content: tells this candidate from others; keyed.
        entries: how many it has.
        before: how many are in force.
        at: when it was first seen, seconds since 1970-01-01 UTC.
    """

    reason: str
    content: str
    entries: int
    before: int
    at: float


@dataclass(slots=True)
class Accepted:
    """Operator's acceptance, good for one refresh.

    Attributes:
        content: of the candidate that it is for; empty for whatever comes next.
        entries: of that candidate.
        at: when it was given, seconds since 1970-01-01 UTC.
    """

    content: str
    entries: int
    at: float


@dataclass(slots=True)
class Held:
    """Operator's rollback: an earlier list is in force, and stays until it is released.

    Attributes:
        serial: of the list that was put in force.
        before: serial of the one that was.
        at: when, seconds since 1970-01-01 UTC.
        who: did it.
        why: the operator's words.
    """

    serial: int
    before: int
    at: float
    who: str
    why: str


@dataclass(slots=True)
class Facts:
    """Facts of one feed; times are seconds since 1970-01-01 UTC, 0 for never.

    Attributes:
        since: when the feed was first seen.
        recipe: tells whether the feed is configured as it was (`urlward.feeds.source.recipe`).
        trusted: whom its operator trusted then.
        kind: of the body: ``text`` or ``artifact``.
        checksum: of the artifact that `content` and the validators belong to, in hexadecimal.
        compiler: tells whether the code that compiled it is this (`urlward.feeds.candidate.compiler_of`).
        content: of the body that it was made of; keyed.
        etag, last_modified, validators_of: what the server called that body
            (`urlward.feeds.source.Validators`).
        last_attempt, last_success, last_change: when it was asked, answered well, and gave a new list.
        serial, highest: of the artifact in force, and the highest that the feed has had from its body.
        entries, added, removed: in force; by the last change.
        bad, unsupported: lines of the last text that were not taken.
        whole: whether its last line had an end.
        failures: in a row.
        reason, error: of the last failure, empty where the last attempt was none.
        next_run: when it is asked next.
        not_before: until when the server wants to be left alone.
        refused, accepted, held: see there.
        used: acceptance that was good for its refresh; other nodes of a fleet may have yet to hear of it.
        alarms: what is wrong for longer, by kind.
        more: what another release has written here.
    """

    since: float = 0.0
    recipe: str = ""
    trusted: str = ""
    kind: str = ""
    checksum: str = ""
    compiler: str = ""
    content: str = ""
    etag: str = ""
    last_modified: str = ""
    validators_of: str = ""
    last_attempt: float = 0.0
    last_success: float = 0.0
    last_change: float = 0.0
    serial: int = 0
    highest: int = 0
    entries: int = 0
    added: int = 0
    removed: int = 0
    bad: int = 0
    unsupported: int = 0
    whole: bool = True
    failures: int = 0
    reason: str = ""
    error: str = ""
    next_run: float = 0.0
    not_before: float = 0.0
    refused: Refused | None = None
    accepted: Accepted | None = None
    used: Accepted | None = None
    held: Held | None = None
    alarms: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def are_of_another(self, recipe: str) -> bool:
        """Whether what is in force is of a feed that was configured otherwise than this recipe."""
        return self.recipe not in ("", recipe)


def dump_facts(facts: Facts) -> bytes:
    """Encode as a JSON object."""
    data = asdict(facts)
    more = data.pop("more")
    data = {"version": VERSION, **more, **data}
    return json.dumps(data | {"sum": sum_of(data)}, indent=1).encode() + b"\n"


def parse_facts(data: bytes) -> Facts | None:
    """Decode what can be read; the rest is as if it had never been known. None where nothing can."""
    try:
        found = json.loads(data)
        # What was written before there were checksums has none.
        if found.get("sum") not in (None, sum_of(found)):
            return None
    except (ValueError, RecursionError, AttributeError, TypeError):
        return None
    found.pop("version", None)
    found.pop("sum", None)
    readers: dict[str, Callable[[Any], Any]] = {
        "refused": lambda value: _record(Refused, value),
        "accepted": lambda value: _record(Accepted, value),
        "used": lambda value: _record(Accepted, value),
        "held": lambda value: _record(Held, value),
        "alarms": _texts,
    }
    facts = Facts()
    for part in fields(Facts):
        if part.name in found and part.name != "more":
            value = found.pop(part.name)
            default = getattr(facts, part.name)
            read = readers.get(part.name, lambda value, default=default: _like(default, value))
            if (value := read(value)) is not None:
                setattr(facts, part.name, value)
    facts.more = found
    return facts


def _like(default: Any, value: Any) -> Any:
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    fits = type(value) is type(default) and (not isinstance(value, int | float) or 0 <= value < 1 << 64)
    return value if fits else None


def _record[T](kind: type[T], value: Any) -> T | None:
    if not isinstance(value, dict):
        return None
    parts = {}
    for part in fields(kind):  # type: ignore[arg-type]
        assert part.default is MISSING
        read = _like({str: "", int: 0, float: 0.0}[part.type], value.get(part.name))  # type: ignore[index]
        if read is None:
            return None
        parts[part.name] = read
    return kind(**parts)


def _texts(value: Any) -> dict[str, str] | None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        return None
    return value


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
