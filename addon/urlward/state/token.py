"""Token of the dashboard: a file that its owner alone reads, made where there is none."""

import os
import secrets
from pathlib import Path

from urlward.engine.errors import UrlwardError
from urlward.regular import BOM, open_regular, without_bom
from urlward.state.folder import locked, made_folder, unusable, write_private

_SHORTEST = 20
_DIFFERENT = 8
_LONGEST = 4_096


def read_token(path: Path) -> str:
    """Read the token, made where there is none.

    Raises:
        UrlwardError: others can read it, or it could be guessed.
        StateError: not readable, or not writable.
    """
    folder = made_folder(path.parent)
    with locked(folder):
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32).encode() + b"\n")
    return token_of(path)


def token_of(path: Path) -> str:
    """Read the token in a file.

    Raises:
        UrlwardError: others can read it, or it could be guessed.
        StateError: not readable.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_mode & 0o027:
                raise UrlwardError(f"{path}: others can read it: chmod 600 {path}")
            token = without_bom(file.read(_LONGEST + len(BOM) + 1)).strip()
    except OSError as e:
        raise unusable(path, e) from e
    printable = all(0x21 <= byte <= 0x7E for byte in token)
    if not _SHORTEST <= len(token) <= _LONGEST or len({*token}) < _DIFFERENT or not printable:
        raise UrlwardError(
            f"{path}: needs at least {_SHORTEST} letters, digits and signs in one line, "
            f"{_DIFFERENT} of them different; remove it, and a new one is made"
        )
    return token.decode("ascii")
