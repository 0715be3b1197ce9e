"""Key files: the secret keys of lists' digests, and how files with keys of any kind are read and written."""

import secrets
from collections.abc import Callable
from pathlib import Path

from urlward.engine.digest import KEY_SIZE, Key, format_key, parse_key
from urlward.engine.errors import KeyFileError, RotationError
from urlward.regular import open_given, open_regular, without_bom, write_new

MAX_KEY_FILE = 4096
"""Bytes of a key file, or of a statement on keys, that are read."""


def read_key(path: Path, *, regular: bool = False) -> Key:
    """Read a key file; arguments and errors as of `read_key_file`."""
    return read_key_file(path, parse_key, regular=regular)


def read_key_file[T](path: Path, parse: Callable[[bytes], T], *, regular: bool = False) -> T:
    """Read a file with a key of any kind.

    Args:
        path: of the file.
        parse: raises KeyFileError or RotationError, which do not name the file.
        regular: whether it has to be a regular file; a shell gives a command's output as a pipe.

    Raises:
        KeyFileError: missing or unreadable; and what `parse` raises.
    """
    try:
        with (open_regular if regular else open_given)(path) as file:
            return parse(without_bom(file.read(MAX_KEY_FILE)))
    except (KeyFileError, RotationError) as e:
        raise type(e)(f"{path}: {e}") from e
    except (OSError, ValueError) as e:
        raise KeyFileError(f"{path}: {getattr(e, 'strerror', None) or e}") from e


def write_key_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet.

    Raises:
        KeyFileError: it is there, or cannot be written.
    """
    try:
        write_new(path, data, mode)
    except FileExistsError as e:
        raise KeyFileError(f"{path}: there already, and is never overwritten") from e
    except (OSError, ValueError) as e:
        raise KeyFileError(f"{path}: {getattr(e, 'strerror', None) or e}") from e


def key_beside(artifact: Path) -> Path:
    """Default path of the key that `compile` makes."""
    return artifact.parent / f"{artifact.name}.key"


def new_key_file(path: Path) -> Key:
    """Make a key file that its owner alone can read.

    Raises:
        KeyFileError: it is there already, or cannot be written.
    """
    secret = secrets.token_bytes(KEY_SIZE)
    write_key_file(path, format_key(secret), 0o600)
    return Key(secret)
