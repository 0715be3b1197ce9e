"""The state folder: what a filter remembers by itself, and the key that it is kept under.

The local key is made on first use and never leaves the folder. Text feeds are compiled under it, and
what an operator allows for a while is sealed with it, so that no plaintext entry lies on the disk.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from urlward.engine.digest import KEY_SIZE, Key, format_key
from urlward.engine.errors import UrlwardError
from urlward.lists.build import read_key

KEY_FILE = "key"

SERVICE = Path("/var/lib/urlward")
"""The service's folder, and root's (Filesystem Hierarchy Standard 3.0, section 5.8)."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class StateError(UrlwardError):
    """A state folder, or a file in it, that cannot be used; the message names it."""


def state_folder(configured: str | Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the state is: as configured, else the service's folder (systemd.exec(5), StateDirectory), which
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


def made_folder(folder: Path) -> Path:
    """Make a folder for its owner alone, where it is not there yet.

    Raises:
        StateError: it cannot be made, or is a file.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(0o700)
            give_to_owner_of(folder.parent, folder)
        os.close(os.open(folder, _FOLDER))
    except OSError as e:
        raise unusable(Path(e.filename or folder), e) from e
    return folder


def local_key(state: Path) -> Key:
    """The state folder's own key, made where it has none; so is the folder.

    Raises:
        StateError: the folder or the key cannot be made.
        KeyFileError: the key is unreadable, or none.
    """
    path = made_folder(state) / KEY_FILE
    if not path.exists():
        with locked(state):
            if not path.exists():
                write_private(path, format_key(secrets.token_bytes(KEY_SIZE)))
    return read_key(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one that changes what is in a folder (flock(2) of the folder itself); waits its turn.

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


def write_private(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, whole or not at all, which is the owner of its folder even where root
    writes it for a service. Call it while the folder is `locked`.

    Raises:
        StateError: not writable.
    """
    # One name, so that whoever is killed while writing leaves no more than one file behind.
    temporary = path.with_name(f".{path.name}.tmp")
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
        raise unusable(path, e) from e


def append_private(path: Path, line: bytes) -> None:
    """Append one line to a file for its owner alone, on the disk when this returns. Call it while the folder
    is `locked`.

    Raises:
        StateError: not writable.
    """
    try:
        new = not path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        with os.fdopen(fd, "rb", buffering=0) as file:
            if new:
                give_to_owner_of(path.parent, fd)
            size = os.fstat(fd).st_size
            # What a full disk or a power cut left half-written must not swallow this line too.
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            rest = memoryview(b"\n" * torn + line + b"\n")
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
            os.fsync(fd)
        if new:
            _synchronise(path.parent)
    except OSError as e:
        raise unusable(path, e) from e


def unusable(path: Path, error: OSError) -> StateError:
    """What to raise for a file or folder that the system does not give."""
    return StateError(f"{path}: {error.strerror or error}")


def give_to_owner_of(folder: Path, file: int | Path) -> None:
    """Give a file that root makes, and a service is to use, to the owner of its folder.

    Raises:
        OSError: that cannot be.
    """
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(file, owner.st_uid, owner.st_gid)


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
) -> list[T]:
    """What a file of the state folder keeps: ``{"version": …, NAME: [{…}, …]}``; nothing where there is none.

    Args:
        path: of the file.
        version: that it has to be of.
        name: of the list in it.
        make: makes one of what is stored; what it raises of the kinds below means that the file is damaged.
        error: to raise.
        damaged: what to do about a damaged file.

    Raises:
        error: it is damaged, or of another version.
        StateError: it cannot be read.
    """
    try:
        data = json.loads(path.read_bytes())
        if data["version"] != version:
            raise error(f"{path}: of another version of urlward")
        return [make(one) for one in data[name]]
    except FileNotFoundError:
        return []
    except OSError as e:
        raise unusable(path, e) from e
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise error(f"{path}: damaged; {damaged}") from e
