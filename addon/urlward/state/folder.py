"""State folder: a filter's persistent files, and the key that they are kept under.

The local key is made on first use and never leaves the folder. Text feeds are compiled under it, and
what an operator allows for a while is sealed with it, so that no plaintext entry lies on the disk.

Nothing that urlward keeps for itself may keep it from filtering. A file that cannot be used is moved to the
folder ``damaged`` (`set_aside`), one line says so, and what it held is made anew where that can be.
"""

import errno
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from pwd import getpwuid
from typing import Any, NamedTuple

from urlward.engine.digest import KEY_SIZE, Key, format_key, parse_key
from urlward.engine.errors import KeyFileError, UrlwardError
from urlward.process import SERVICE
from urlward.regular import read_regular, regular_fd
from urlward.state.keys import read_key
from urlward.state.watch import Signature

logger = logging.getLogger("urlward.lists")

KEY_FILE = "key"

KEY_COPY = "key.copy"
"""Copy of the key with a checksum: without the key nothing opens that was sealed under it."""

_FLIPPED = 8
"""Bits in which a key may differ from its copy and is damaged; another key differs in about 128."""

DAMAGED = "damaged"
"""In the state folder: files that could not be used, for who wants to look at them."""

MOST_DAMAGED = 30
"""Files kept there; the oldest go first."""

DAMAGED_DAYS = 30.0
"""Days after which they go at the latest, since records of persons may be among them."""

DAMAGE_IS_NEW = 86_400.0
"""Seconds for which a file that was set aside is an alarm."""

_SET_ASIDE = re.compile(r".+\.\d{8}T\d{6}Z(-\d+)?").fullmatch
"""Names that `set_aside` gives: where a store is elsewhere, that folder may have been there before."""

_KEPT_FOR_EVER = "audit.jsonl."
"""Begins the names of those that never go."""

_DAMAGE = frozenset(
    {
        errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EIO, errno.EUCLEAN,
        errno.EBADMSG, errno.EFBIG,
    }
)  # fmt: skip
"""What the system says of a file that another in its place would not have: not of a lack of memory,
descriptors or room."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


NAMES = frozenset(
    (
        "admin.json", "admin.token", "alarms.json", "allows.json", "assignments.db", "audit.head",
        "audit.jsonl", "dashboard.toml", DAMAGED, "decisions.json", "feeds", "history.db", "holds.json",
        KEY_FILE, KEY_COPY, "learn", "lists", "node.json", "objections.json", "outbox", "outbox.level",
        "own.json", "people.json", "records.lock", "records.run", "records.sock", "retention.json", "spool",
        "trust", "versions",
    )
)  # fmt: skip
"""Files and folders of a state folder in whose place nothing else may be; beside what the stores are called
where the configuration does not say."""


class StateError(UrlwardError):
    """A state folder, or a file in it, that cannot be used; the message names it."""


def state_folder(configured: str | Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Find the state folder: as configured, else the service's (systemd.exec(5), StateDirectory), which
    root's commands use too, else the user's (XDG Base Directory Specification).

    Raises:
        StateError: none of these, and no home folder.
    """
    if configured:
        return Path(configured)
    # systemd separates several with colons.
    if service := environment.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(service)
    if (user := environment.get("XDG_STATE_HOME", "")).startswith("/"):
        return Path(user, "urlward")
    if os.geteuid() == 0:
        return SERVICE
    try:
        return Path.home() / ".local/state/urlward"
    except RuntimeError as e:
        raise StateError("no home folder to keep state in: set `state` in the configuration") from e


def found_folder(state: Path) -> Path:
    """A state folder that is there and can be looked into: whoever shows what one has must not take another
    for one that has nothing.

    Raises:
        StateError: it is none, or not for this user.
    """
    try:
        os.stat(f"{state}/.")  # noqa: PTH116 - a path drops the dot, for which the system looks into it
    except OSError as e:
        raise unusable(state, e) from e
    return state


def made_folder(folder: Path, state: Path | None = None) -> Path:
    """Make a folder for its owner alone, where it is not there yet.

    Args:
        folder: to make.
        state: the state folder, where this is one inside it; then what is in its place is set aside.

    Raises:
        StateError: it cannot be made, or is a file.
    """
    try:
        return _made_folder(folder)
    except OSError as e:
        if state is None or not (is_damage(e) or e.errno in (errno.ENOTDIR, errno.EEXIST)):
            raise unusable(Path(e.filename or folder), e) from e
        set_aside(state, folder, unusable(folder, e))
    try:
        return _made_folder(folder)
    except OSError as e:
        raise unusable(Path(e.filename or folder), e) from e


def leave_newest(folder: Path, count: int) -> None:
    """Delete the files of a folder but the newest ones; one that cannot be deleted stays."""
    with suppress(OSError):
        for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)[:-count]:
            with suppress(OSError):
                old.unlink()


def _made_folder(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(0o700)
        give_to_owner_of(folder.parent, folder)
    os.close(os.open(folder, _FOLDER))
    return folder


def local_key(state: Path) -> Key:
    """The state folder's own key, made where it has none; so is the folder.

    A key that is damaged is set aside, and comes back from its copy, or another is made.

    Raises:
        StateError: the folder or the key cannot be made.
        KeyFileError: the system does not give the key.
    """
    if (key := _sound_key(made_folder(state))) is not None:
        return key
    with locked(state):
        return local_key_in_lock(state)


def local_key_in_lock(state: Path) -> Key:
    """Read or make the key as `local_key`, for callers that hold the folder's lock."""
    if (key := _sound_key(state)) is not None:
        return key
    path, copy = state / KEY_FILE, state / KEY_COPY
    key = _mended_key(state, path, copy)
    spare = _copied_key(copy)
    if spare is None or spare.secret != key.secret:
        with suppress(StateError):  # where it cannot be written now, it is the next time
            _keep_copy(state, copy, key)
    return key


def kept_key(state: Path) -> Key | None:
    """Read the key of `local_key` without making one; changes nothing."""
    key, spare = _keys(state)
    if key is None or spare is None:
        return key or spare
    return spare if _is_flipped(key, spare) else key


def _sound_key(state: Path) -> Key | None:
    """Read the key, where its copy is the same."""
    key, spare = _keys(state)
    return key if key is not None and spare is not None and spare.secret == key.secret else None


def _keys(state: Path) -> tuple[Key | None, Key | None]:
    """Read the key and its copy; None for what cannot be read."""
    spare = _copied_key(state / KEY_COPY)
    try:
        return read_key(state / KEY_FILE, regular=True), spare
    except KeyFileError:
        return None, spare


def _mended_key(state: Path, path: Path, copy: Path) -> Key:
    """Read or mend the key as `local_key`, for callers that hold the folder's lock."""
    spare, seen = _copied_key(copy), Signature.of(path)
    try:
        key = read_key(path, regular=True)
        if spare is None or not _is_flipped(key, spare):
            return key
        reason: object = "not the key that it was"
    except KeyFileError as e:
        cause, reason = e.__cause__, e
        if isinstance(cause, FileNotFoundError):
            spare = None  # the operator wants another one
        elif isinstance(cause, OSError) and not is_damage(cause):
            raise
    if os.path.lexists(path):
        then = (
            "its copy takes its place"
            if spare is not None
            else "a new one is made: feeds are fetched anew, and allows and objections do not open"
        )
        set_aside(state, path, reason, then, seen=seen)
    made = spare or Key(secrets.token_bytes(KEY_SIZE))
    write_private(path, format_key(made.secret), state)
    return made


def _is_flipped(key: Key, spare: Key) -> bool:
    """Whether a key is damaged although it reads as one: keys that were made differ in most of their bits."""
    return 0 < (int.from_bytes(key.secret) ^ int.from_bytes(spare.secret)).bit_count() <= _FLIPPED


def _keep_copy(state: Path, copy: Path, key: Key) -> None:
    if os.path.lexists(copy) and _copied_key(copy) is None:
        set_aside(state, copy, "not a copy of the key", "written anew from the key")
    text = format_key(key.secret).strip()
    write_private(copy, text + b" " + _checksum(text) + b"\n", state)


def _copied_key(copy: Path) -> Key | None:
    try:
        text, _, checksum = read_regular(copy).strip().partition(b" ")
        return parse_key(text) if checksum == _checksum(text) else None
    except (OSError, KeyFileError):
        return None


def _checksum(text: bytes) -> bytes:
    return blake2b(text, digest_size=8, person=b"urlward key copy").hexdigest().encode()


def is_damage(error: OSError) -> bool:
    """Whether a system error is damage of the file, so that another file in its place would do."""
    return error.errno in _DAMAGE


def set_aside(
    state: Path,
    path: Path,
    why: object,
    then: str = "",
    *,
    seen: Signature | None = None,
    beside: Sequence[Path] = (),
) -> Path | None:
    """Move a file that cannot be used to the folder `DAMAGED`, and say so in one line.

    Of several processes that find the same file damaged, one moves it and says so.

    Args:
        state: the state folder.
        path: of the file, or of a folder that is in a file's place.
        why: it cannot be used.
        then: what becomes of what was in it.
        seen: its signature when that was found; another one since is not touched.
        beside: files that are nothing without it, and go with it.

    Returns:
        Where it is now; None where it is gone, or another.

    Raises:
        StateError: it cannot be moved.
    """
    folder = state / DAMAGED
    try:
        if folder.exists() and not folder.is_dir():
            folder.replace(state / f"{DAMAGED}.{secrets.token_hex(4)}")
        with locked(made_folder(folder)):
            if seen is not None and Signature.of(path) != seen:
                return None
            when = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            name, number = f"{path.name}.{when}", 1
            while os.path.lexists(folder / name):
                number += 1
                name = f"{path.name}.{when}-{number}"
            for each in beside:  # before it, so that none is left for the file that takes its place
                with suppress(FileNotFoundError):
                    _move(each, folder / f"{each.name}{name.removeprefix(path.name)}")
            _move(path, folder / name)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise unusable(path, e) from e
    reason = str(why).removeprefix(f"{path}: ")
    logger.error("%s: %s; set aside as %s/%s%s", path, reason, DAMAGED, name, f"; {then}" if then else "")
    forget_damaged(state, time.time())
    return folder / name


def _move(path: Path, to: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        with suppress(OSError):
            path.chmod(0o700)  # one that its owner may not write cannot be moved
    path.rename(to)


def forget_damaged(state: Path, now: float, days: float = DAMAGED_DAYS) -> int:
    """Delete what was set aside longer ago than that, and what is more than `MOST_DAMAGED`; returns how many.

    Audit logs stay: nothing but an operator deletes those.
    """
    found = [path for path in _damaged(state) if not path.name.startswith(_KEPT_FOR_EVER)]
    deleted = 0
    for number, path in enumerate(found):
        if number >= MOST_DAMAGED or _moved(path) < now - days * 86_400:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                deleted += 1
    return deleted


_UNFINISHED = re.compile(r"\..*(?<!\.[0-9a-f]{8})\.tmp").fullmatch
"""Names that `write_private` gives; such as have a number were given by others, who hold no lock
(`urlward.lists.build`)."""


def forget_unfinished(folder: Path) -> int:
    """Delete what processes left that were killed while they wrote a file (`write_private`), or the machine
    that lost its power: it may be a copy of what is deleted by and by. Returns how many.

    Raises:
        StateError: the folder cannot be used.
    """
    deleted = 0
    with locked(folder):  # as whoever writes so does: what is there now nobody finishes
        try:
            found = [path for path in folder.iterdir() if _UNFINISHED(path.name)]
        except OSError as e:
            raise unusable(folder, e) from e
        for path in found:
            with suppress(OSError):
                path.unlink()
                deleted += 1
    return deleted


def damaged_lately(state: Path, now: float, within: float = DAMAGE_IS_NEW) -> list[str]:
    """Names of files that were set aside within so many seconds, and are still there."""
    return sorted(path.name for path in _damaged(state) if _moved(path) > now - within)


def _damaged(state: Path) -> list[Path]:
    """Files that were set aside, the last first."""
    try:
        found = (path for path in (state / DAMAGED).iterdir() if _SET_ASIDE(path.name))
        return sorted(found, key=_moved, reverse=True)
    except OSError:
        return []


def _moved(path: Path) -> float:
    """Time when a file was set aside: moving it is what its status changed by last."""
    try:
        return path.lstat().st_ctime
    except OSError:
        return 0.0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder for changes to it (flock(2) of the folder itself); waits its turn.

    Raises:
        StateError: the folder cannot be opened or locked.
    """
    try:
        fd = os.open(folder, _FOLDER)
    except OSError as e:
        raise unusable(folder, e) from e
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as e:
            raise unusable(folder, e) from e
        yield
    finally:
        os.close(fd)


def write_private(path: Path, data: bytes, state: Path | None = None) -> None:
    """Write a file for its owner alone, whole or not at all, which is the owner of its folder even where root
    writes it for a service. Call it while the folder is `locked`.

    Args:
        path: of the file; a folder in its place is set aside.
        data: its bytes.
        state: the state folder; the file's own where not given.

    Raises:
        StateError: not writable.
    """
    # One name, so that whoever is killed while writing leaves no more than one file behind.
    temporary = path.with_name(f".{path.name}.tmp")
    for each in (path, temporary):
        if each.is_dir() and not each.is_symlink():
            set_aside(state or path.parent, each, "a folder, in the place of a file", "written anew")
    try:
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            give_to_owner_of(path.parent, fd)
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.replace(path)
        _synchronise(path.parent)
    except OSError as e:
        with suppress(OSError):  # a disk that is full needs the room
            temporary.unlink()
        raise unusable(path, e) from e


def append_private(path: Path, line: bytes) -> None:
    """Append one line to a file for its owner alone, on the disk when this returns. Call it while the folder
    is `locked`.

    Raises:
        StateError: not writable.
    """
    try:
        new = not path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        fd = regular_fd(path, flags)
        with os.fdopen(fd, "rb", buffering=0):
            if new:
                give_to_owner_of(path.parent, fd)
            size = os.fstat(fd).st_size
            # What a full disk or a power cut left half-written must not swallow this line too.
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            rest = memoryview(b"\n" * torn + line + b"\n")
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        if new:
            _synchronise(path.parent)
    except OSError as e:
        raise unusable(path, e) from e


def open_private(path: Path) -> int:
    """Open a file of the state folder for its owner alone, whose content does not matter: made where it is
    not there, or is something else.

    Raises:
        OSError: the system does not give it.
        StateError: what is in its place cannot be set aside.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        return regular_fd(path, flags)
    except OSError as e:
        if not is_damage(e):
            raise
        set_aside(path.parent, path, unusable(path, e), "made anew")
        return regular_fd(path, flags)


def unusable(path: Path, error: OSError) -> StateError:
    """Error for a file or folder that the system does not give."""
    return StateError(f"{path}: {error.strerror or error}")


def give_to_owner_of(folder: Path, file: int | Path) -> None:
    """Give a file that root makes, and a service is to use, to the owner of its folder.

    That one may have put a link in its place since, whose target stays whose it is.

    Raises:
        OSError: that cannot be.
    """
    if os.geteuid() == 0:
        owner = folder.stat()
        if isinstance(file, int):
            os.fchown(file, owner.st_uid, owner.st_gid)
        else:
            os.lchown(file, owner.st_uid, owner.st_gid)


class FolderOwner(NamedTuple):
    """Owner of a folder, as a process of theirs is started (`subprocess.Popen`).

    Attributes:
        user, group: their numbers.
        extra_groups: numbers of all groups that they are in.
    """

    user: int
    group: int
    extra_groups: list[int]

    @property
    def name(self) -> str:
        """Their name; their number where there is none."""
        try:
            return getpwuid(self.user).pw_name
        except KeyError:
            return str(self.user)


def other_owner(folder: Path) -> FolderOwner | None:
    """Owner of a folder whom root is to act as: it is somebody else's, such as a service's; else None."""
    try:
        status = folder.stat()
    except OSError:
        return None  # whoever uses it says so
    if os.geteuid() != 0 or status.st_uid == 0:
        return None
    try:
        known = getpwuid(status.st_uid)
    except KeyError:
        return FolderOwner(status.st_uid, status.st_gid, [])
    return FolderOwner(known.pw_uid, known.pw_gid, os.getgrouplist(known.pw_name, known.pw_gid))


def _synchronise(folder: Path) -> None:
    fd = os.open(folder, _FOLDER)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_kept[T](
    path: Path,
    version: int,
    name: str,
    make: Callable[[dict[str, Any]], T],
    error: type[UrlwardError],
    damaged: str,
    *,
    stays: bool = False,
) -> list[T]:
    """Read what `write_kept` has written; nothing where there is none. A damaged file is set aside.

    Args:
        path: of the file.
        version: that it has to be of.
        name: of the list in it.
        make: makes one of what is stored; what it raises of the kinds below means that the file is damaged.
        error: to raise.
        damaged: what follows from a damaged file.
        stays: whether a damaged file stays where it is.

    Raises:
        error: it is of another version, or it is damaged and stays.
        StateError: it cannot be read, or not be set aside.
    """
    seen = Signature.of(path)
    try:
        data = json.loads(read_regular(path))
        # What was written before there were checksums has none.
        if data.get("sum") not in (None, sum_of(data)):
            raise ValueError("not as it was written")
        if data["version"] != version:
            raise error(f"{path}: of another version of urlward")
        return [make(one) for one in data[name]]
    except FileNotFoundError:
        return []
    except OSError as e:
        if stays or not is_damage(e):
            raise unusable(path, e) from e
        reason = e.strerror or str(e)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        if stays:
            raise error(f"{path}: damaged; {damaged}") from e
        reason = "damaged"
    set_aside(path.parent, path, reason, damaged, seen=seen)
    return []


def write_kept(path: Path, version: int, name: str, kept: Sequence[dict[str, Any]]) -> None:
    """Write what `read_kept` reads: ``{"version": …, NAME: [{…}, …], "sum": …}``. Call it while the
    folder is `locked`.

    Raises:
        StateError: not writable.
    """
    data = {"version": version, name: kept}
    write_private(path, json.dumps(data | {"sum": sum_of(data)}, indent=1).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class KeptFile[T]:
    """File of the state folder with all records of one kind, dataclasses, which is written whole.

    Attributes:
        file: its name.
        name: of the list in it.
        make: makes a record of its fields.
        check: returns it as it is to be; what it raises of the kinds that `read_kept` expects means that the
            file is damaged.
        damaged: what follows from a damaged file, which is set aside.
        stays: whether that stays where it is.
        sealed_as: name under which the bytes of a record's ``sealed`` are stored as text; empty where it has
            none.
        encoding: of the text that is sealed.
    """

    file: str
    name: str
    make: Callable[..., T]
    check: Callable[[T], T]
    damaged: str
    stays: bool = False
    sealed_as: str = ""
    encoding: str = "utf-8"

    def read(self, state: Path) -> list[T]:
        """All that are kept, in the order of adding; changes nothing.

        Raises:
            UrlwardError: they are of another version, or they are damaged and stay.
            StateError: they cannot be read, or not be set aside.
        """
        return read_kept(
            state / self.file, 1, self.name, self._made, UrlwardError, self.damaged, stays=self.stays
        )

    def _made(self, stored: Mapping[str, Any]) -> T:
        fields = dict(stored)
        if self.sealed_as:
            fields["sealed"] = b64decode(fields.pop(self.sealed_as), validate=True)
        return self.check(self.make(**fields))

    def write(self, state: Path, records: Iterable[T]) -> None:
        """Replace all that are kept; the folder is locked.

        Raises:
            StateError: not writable.
        """
        kept = [asdict(one) for one in records]  # type: ignore[call-overload]
        if self.sealed_as:
            kept = [one | {self.sealed_as: b64encode(one.pop("sealed")).decode()} for one in kept]
        write_kept(state / self.file, 1, self.name, kept)

    def opened(self, record: T, key: Key) -> dict[str, Any]:
        """Fields of a record for another node to make its own of: what is ``sealed`` in plain text, and
        nothing that is under this node's key.

        Args:
            record: of this node.
            key: its local key.

        Raises:
            ArtifactError: it does not open under the key.
        """
        fields: dict[str, Any] = asdict(record)  # type: ignore[call-overload]
        if self.sealed_as:
            fields[self.sealed_as] = key.unseal(fields.pop("sealed")).decode(self.encoding)
            fields.pop("digest", None)
        return fields


def check_times(*times: object) -> None:
    """Check times of one that `read_kept` reads, seconds since 1970-01-01 UTC.

    Raises:
        ValueError: one is none, or far from any that is meant.
    """
    if not all(isinstance(time, int) and 0 <= time < _LAST for time in times):
        raise ValueError("not times")


_LAST = 1 << 36


def sum_of(data: Mapping[str, Any]) -> str:
    """Checksum that tells whether an object was read as it was written; without its member ``sum``."""
    rest = {name: value for name, value in data.items() if name != "sum"}
    return blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=16).hexdigest()
