"""Key files for signing lists: the private and the public half."""

import secrets
from pathlib import Path

from urlward.encoding import without_bom
from urlward.engine.errors import KeyFileError
from urlward.engine.signing import (
    SIGNING_KEY_SIZE,
    PublicKey,
    SigningKey,
    parse_public_key,
    parse_signing_key,
)
from urlward.regular import open_given
from urlward.state.files import write_new

MAX_KEY_FILE = 4096


def public_beside(path: Path) -> Path:
    """Path of the public half of a private key file."""
    return path.parent / f"{path.name}.pub"


def new_signing_key(path: Path) -> SigningKey:
    """Make a signing key: a private file for its owner alone, and the public one beside it.

    Raises:
        KeyFileError: one of them is there already, or cannot be written. Then neither is made.
    """
    key = SigningKey(secrets.token_bytes(SIGNING_KEY_SIZE))
    public = public_beside(path)
    write_key_file(path, key.pem(), 0o600)
    try:
        write_key_file(public, key.public.pem(), 0o644)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return key


def read_signing_key(path: Path) -> SigningKey:
    """Read a private key file.

    Raises:
        KeyFileError: missing, unreadable or not a private key.
    """
    try:
        return parse_signing_key(read_key_file(path))
    except KeyFileError as e:
        raise _named(path, e) from e


def read_public_key(path: Path) -> PublicKey:
    """Read a public key file.

    Raises:
        KeyFileError: missing, unreadable or not a public key.
    """
    try:
        return parse_public_key(read_key_file(path))
    except KeyFileError as e:
        raise _named(path, e) from e


def read_key_file(path: Path) -> bytes:
    """Read the beginning of a file, no longer than a key's can be.

    Raises:
        KeyFileError: missing or unreadable.
    """
    try:
        with open_given(path) as file:
            return without_bom(file.read(MAX_KEY_FILE))
    except OSError as e:
        raise KeyFileError(e.strerror or str(e)) from e
    except ValueError as e:
        raise KeyFileError(str(e)) from e


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


def _named(path: Path, error: KeyFileError) -> KeyFileError:
    return KeyFileError(f"{path}: {error}")
