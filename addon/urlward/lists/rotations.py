"""Store of rotation statements that feeds have served: a restart trusts whom the process before did.

A folder with one file for each key that has handed over, named after it: the first statement by a key that is
taken stays, also where several processes take one at the same moment.
"""

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

from urlward.engine.errors import KeyFileError, RotationError
from urlward.engine.rotation import Rotation, parse_rotation
from urlward.lists.signing_keys import MAX_KEY_FILE
from urlward.lists.source import SourceError
from urlward.lists.trust import Trust
from urlward.regular import read_regular
from urlward.state.files import write_new
from urlward.state.folder import StateError, is_damage, set_aside
from urlward.state.watch import Signature

SUFFIX = ".rotation"

logger = logging.getLogger("urlward.lists")


def take_rotation(trust: Trust, data: bytes, folder: Path) -> Trust:
    """Extend a trust by a served statement, which is stored; the same trust where it was known.

    Args:
        trust: what is trusted so far.
        data: the statement.
        folder: where statements are kept; made where it is missing.

    Raises:
        RotationError: not a statement, not from a trusted key, or contradicting one taken before.
        SourceError: it cannot be kept, and has not been taken.
    """
    if len(data) > MAX_KEY_FILE:
        raise RotationError(f"not a rotation statement: {len(data)} bytes")
    rotation = parse_rotation(data)
    made = trust.with_rotation(rotation)
    if made is not trust:
        _keep(rotation, folder)
    return made


def restore_rotations(trust: Trust, folder: Path, state: Path | None = None) -> Trust:
    """Extend a trust by the stored statements; one that is invalid, or fits no more, is logged.

    Args:
        trust: what the operator gives.
        folder: where statements are kept; none where it is missing.
        state: the state folder, in which a statement that is none is set aside, so that it is taken anew from
            where it came; it stays where not given.
    """
    waiting = _kept(folder, state)
    reasons: dict[Path, RotationError] = {}
    before = None
    while before != len(waiting):
        # A statement may come in front of the one that its key is trusted by.
        before = len(waiting)
        for path, rotation in list(waiting.items()):
            try:
                trust = trust.with_rotation(rotation)
            except RotationError as e:
                reasons[path] = e
            else:
                del waiting[path]
    for path in waiting:
        logger.warning("trust %s: not counted: %s", path, reasons[path])
    return trust


def _kept(folder: Path, state: Path | None) -> dict[Path, Rotation]:
    found: dict[Path, Rotation] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        seen = Signature.of(path)
        try:
            found[path] = parse_rotation(read_regular(path))
        except (RotationError, KeyFileError, OSError) as e:
            if state is not None and (not isinstance(e, OSError) or is_damage(e)):
                with suppress(StateError):
                    set_aside(state, path, e, "taken anew beside the list", seen=seen)
                    continue
            logger.warning("trust %s: not counted: %s", path, e)
    return found


def _keep(rotation: Rotation, folder: Path) -> None:
    path = folder / f"{rotation.old}{SUFFIX}"
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_new(temporary, rotation.text(), 0o644)
        try:
            os.link(temporary, path)  # which, unlike a rename, never replaces
        except FileExistsError as e:
            if read_regular(path) != rotation.text():
                known = f"another rotation from {rotation.old.short} has been taken"
                raise RotationError(f"{path}: {known}") from e
        finally:
            temporary.unlink()
    except OSError as e:
        raise SourceError(f"{path}: {e.strerror or e}") from e
