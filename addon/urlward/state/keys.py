"""Key files: the secret keys of lists' digests."""

import secrets
from pathlib import Path

from urlward.engine.digest import KEY_SIZE, Key, format_key, parse_key
from urlward.engine.errors import KeyFileError
from urlward.regular import open_given, open_regular, without_bom, write_new

_MAX_KEY_FILE = 4096


def read_key(path: Path, *, regular: bool = False) -> Key:
    """Read a key file.

    Args:
        path: of the file.
        regular: whether it has to be a regular file; a shell gives a command's output as a pipe.

    Raises:
        KeyFileError: missing, unreadable or not a key.
    """
    try:
        with (open_regular if regular else open_given)(path) as file:
            data = without_bom(file.read(_MAX_KEY_FILE))
    except OSError as e:
        raise KeyFileError(f"{path}: {e.strerror or e}") from e
    except ValueError as e:
        raise KeyFileError(f"{path}: {e}") from e
    try:
        return parse_key(data)
    except KeyFileError as e:
        raise KeyFileError(f"{path}: {e}") from e


def key_beside(artifact: Path) -> Path:
    """Default path of the key that `compile` makes."""
    return artifact.parent / f"{artifact.name}.key"


def new_key_file(path: Path) -> Key:
    """Make a key file that its owner alone can read.

    Raises:
        KeyFileError: it is there already, or cannot be written.
    """
    secret = secrets.token_bytes(KEY_SIZE)
    try:
        write_new(path, format_key(secret), 0o600)
    except FileExistsError as e:
        raise KeyFileError(f"{path}: there already; a key is never overwritten") from e
    except OSError as e:
        raise KeyFileError(f"{path}: {e.strerror or e}") from e
    return Key(secret)
