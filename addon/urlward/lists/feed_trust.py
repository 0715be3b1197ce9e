"""Whom a feed trusts: what its operator named, and the rotation statements that have been taken since."""

from collections.abc import Iterable
from pathlib import Path

from urlward.config import FeedTable
from urlward.engine.errors import RotationError
from urlward.engine.rotation import Rotation, parse_rotation
from urlward.lists.state import locked, made_folder, write_private
from urlward.lists.trust import MAX_ROTATIONS, Trust, read_trust

_SUFFIX = ".rotation"
_MAX_STATEMENT = 4_096


def feed_trust(feed: FeedTable, state: Path) -> Trust:
    """What a feed's artifacts are checked with.

    Raises:
        KeyFileError, RotationError: what the operator named cannot be used.
    """
    trust = read_trust(feed.trust)
    if not trust.keys:
        return trust
    waiting = list(_taken(state / "trust"))
    # One may lead to the next, in any order; those of other feeds lead from no key of this one.
    while (rotation := next((r for r in waiting if _extends(trust, r)), None)) is not None:
        waiting.remove(rotation)
        trust = trust.with_rotation(rotation)
    return trust


def take_rotation(trust: Trust, statement: bytes, state: Path) -> Trust:
    """Take a statement that a feed brings, and keep it.

    Args:
        trust: that one of its keys must have signed it for.
        statement: the content of its file.
        state: the state folder.

    Raises:
        RotationError: it is none, or not signed by a trusted key, or another has been taken.
        StateError: it cannot be kept.
    """
    rotation = parse_rotation(statement)
    extended = trust.with_rotation(rotation)
    if extended is not trust:
        folder = made_folder(state / "trust")
        with locked(folder):
            write_private(folder / f"{rotation.old}{_SUFFIX}", rotation.text())
    return extended


def _extends(trust: Trust, rotation: Rotation) -> bool:
    try:
        return trust.with_rotation(rotation) is not trust
    except RotationError:
        return False


def _taken(folder: Path) -> Iterable[Rotation]:
    """The statements kept; one that is damaged counts for nothing, and can be fetched again."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX)
    except OSError:
        return
    for path in paths[:MAX_ROTATIONS]:
        try:
            with path.open("rb") as file:
                yield parse_rotation(file.read(_MAX_STATEMENT))
        except (OSError, RotationError):
            continue
