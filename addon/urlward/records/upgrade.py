"""Import of spools from the versions before the outbox: events that waited for a store, once.

``spool/STORE/*.spool``: a line that says what it is, then frames: four bytes of length, four with the number
of events, eight of checksum (BLAKE2b), and the events as a JSON array.
"""

import logging
import re
import shutil
import struct
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from urlward.records.outbox import Batch, Outbox
from urlward.regular import read_regular
from urlward.state.folder import set_aside

logger = logging.getLogger("urlward.records")

SPOOL = "spool"
"""In the state folder: that of all stores."""

RUN = "records.run"
"""In the state folder: the last sign of life."""

_HEAD = b"urlward spool 1\n"
_FRAME = struct.Struct(">II8s")
_NAME = re.compile(r"[0-9]{12}\.spool").fullmatch


def take_in_spools(state: Path, places: Mapping[str, str]) -> None:
    """Move the events of spools to the outbox, each for its store alone, and delete the spools.

    Args:
        state: the state folder.
        places: of the stores that are configured, by their names.

    Raises:
        OutboxError: it does not take it; the rest stays where it is.
        OSError: likewise.
        StateError: a damaged segment cannot be set aside.
    """
    folder = state / SPOOL
    if not folder.is_dir():
        return
    outbox = Outbox(state)
    for spool in sorted(folder.iterdir()):
        segments = sorted(path for path in spool.glob("*.spool") if _NAME(path.name))
        if spool.name not in places:
            if segments:
                logger.warning("records: %s: waits for a store that is not configured: deleted", spool)
            continue
        for path in segments:
            try:
                data = read_regular(path)
            except OSError as e:
                set_aside(state, path, e.strerror or e, "events in it are lost")
                continue
            frames, is_whole = _read(data)
            if frames:
                outbox.append(frames, places[spool.name])
            if is_whole:
                path.unlink()
            else:
                set_aside(state, path, "damaged", "what can be read of it is kept")
    outbox.close()
    shutil.rmtree(folder.resolve())
    folder.unlink(missing_ok=True)  # was a link


def sign_of_life(state: Path) -> int | None:
    """Time of the last sign of life of such a version's recorder that ended unexpectedly; deletes it.

    Returns:
        ms since 1970-01-01 UTC; None where there was none.

    Raises:
        OSError: it cannot be looked at.
    """
    path = state / RUN
    try:
        said = read_regular(path)
    except FileNotFoundError:
        return None
    path.unlink()
    return int(said) if said.strip().isdigit() else None


def _read(data: bytes) -> tuple[list[Batch], bool]:
    """Read the events of a segment, and whether those are all that was in it."""
    found: list[Batch] = []
    at = len(_HEAD)
    while data.startswith(_HEAD) and at + _FRAME.size <= len(data):
        size, count, checksum = _FRAME.unpack_from(data, at)
        start = at + _FRAME.size
        frame = data[start : start + size]
        if len(frame) < size or blake2b(frame, digest_size=8).digest() != checksum:
            break
        found.append(Batch(count, "{}", frame))
        at = start + size
    return found, at == len(data)
