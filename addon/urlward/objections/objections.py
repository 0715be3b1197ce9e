"""Store of objections to blocks: what people have written, and the decisions.

``objections.json`` in the state folder has them. A message may well name the page that it is about, so it is
sealed under the local key, and no log has any of it. What is decided: `urlward.objections.book`.
"""

import logging
import secrets
from base64 import b64decode, b64encode
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from urlward.engine.digest import Key
from urlward.engine.errors import DamagedError, UrlwardError
from urlward.records.holds import held_references
from urlward.state.folder import locked, made_folder, read_kept, write_kept

logger = logging.getLogger("urlward.records")

FILE = "objections.json"

MAX_KEPT = 1000
"""Objections; of more the oldest that are closed, and of no reference that is held, go first."""

State = Literal["open", "granted", "declined"]

_VERSION = 1
_LAST = 1 << 36
"""A time far from any that is meant."""


class ObjectionError(UrlwardError):
    """An objection that cannot be taken or decided, or a damaged record of objections."""


class FullError(ObjectionError):
    """Too many objections are open or held."""


@dataclass(frozen=True, slots=True)
class Objection:
    """Objection to a block.

    Attributes:
        id: given when it came in.
        time: seconds since 1970-01-01 UTC, as is `decided`.
        reference: of the block, as it was typed; nobody has looked whether there is such a block.
        client: address, as the privacy level leaves it, or empty.
        state: what became of it.
        decided: when; 0 while it is open.
        why: the operator's words.
        who: decided.
        allow: id of the temporary allow that was made with it, or empty.
        sealed: the message, under the local key.
    """

    id: str
    time: int
    reference: str
    client: str = ""
    state: State = "open"
    decided: int = 0
    why: str = ""
    who: str = ""
    allow: str = ""
    sealed: bytes = field(default=b"", repr=False)


def normal_message(text: str, longest: int) -> str:
    """Normalise a message: lines of printable characters.

    Raises:
        ObjectionError: nothing is left of it, or it is longer than `longest` characters.
    """
    lines = (
        "".join(char for char in line.replace("\t", " ") if char.isprintable()).rstrip()
        for line in text.splitlines()
    )
    message = "\n".join(lines).strip()
    if not message:
        raise ObjectionError("message: needed")
    if len(message) > longest:
        raise ObjectionError(f"message: at most {longest} characters")
    return message


def add_objection(
    state: Path, key: Key, reference: str, message: str, *, client: str, now: float
) -> Objection:
    """Store an objection.

    Args:
        state: the state folder.
        key: its local key.
        reference: as `urlward.records.event.parse_reference` gives it.
        message: as `normal_message` gives it.
        client: as the privacy level leaves the address.
        now: seconds since 1970-01-01 UTC.

    Raises:
        FullError: `MAX_KEPT` are open or held.
        HoldError: it is not known what is held.
        ObjectionError: the record of them is damaged.
        StateError: the folder cannot be used.
    """
    made = Objection(
        f"o-{secrets.token_hex(4)}", int(now), reference, client, sealed=key.seal(message.encode())
    )
    with locked(made_folder(state)):
        kept = read_objections(state)
        held = held_references(state, 0) if len(kept) >= MAX_KEPT else ()
        while len(kept) >= MAX_KEPT:
            closed = next((one for one in kept if one.state != "open" and one.reference not in held), None)
            if closed is None:
                raise FullError(f"{MAX_KEPT} objections are open or held: decide some")
            kept.remove(closed)
        write_objections(state, [*kept, made])
    return made


def message_of(objection: Objection, key: Key) -> str:
    """Open an objection's message; a sentence that says so where the key does not fit."""
    try:
        return key.unseal(objection.sealed).decode(errors="replace")
    except DamagedError:
        logger.error("objection %s does not open under the local key", objection.id)
        return "(sealed under another key)"


def purge_objections(state: Path, days: float, now: float, held: Container[str] = ()) -> int:
    """Delete objections older than a number of days, decided or not; returns how many.

    Args:
        state: the state folder.
        days: that they are kept.
        now: seconds since 1970-01-01 UTC.
        held: references of those that stay all the same.

    Raises:
        ObjectionError: the record of them is damaged.
        StateError: the folder cannot be used.
    """
    oldest = now - days * 86_400

    def stays(one: Objection) -> bool:
        return one.time >= oldest or one.reference in held

    if all(map(stays, read_objections(state))):
        return 0
    with locked(state):
        before = read_objections(state)
        kept = [one for one in before if stays(one)]
        write_objections(state, kept)
        return len(before) - len(kept)


def read_objections(state: Path) -> list[Objection]:
    """Read all objections, the oldest first.

    Raises:
        ObjectionError: the record of them is damaged.
        StateError: it cannot be read.
    """
    return read_kept(state / FILE, _VERSION, "objections", _objection, ObjectionError, "begun anew")


def _objection(stored: dict[str, Any]) -> Objection:
    sealed = b64decode(stored.pop("message"), validate=True)
    one = Objection(**stored, sealed=sealed)
    if not all(isinstance(t, int) and 0 <= t < _LAST for t in (one.time, one.decided)):
        raise ValueError("not times")
    if one.state not in get_args(State):
        raise ValueError("not a state")
    return one


def write_objections(state: Path, kept: Iterable[Objection]) -> None:
    """Replace all stored objections; the folder is locked.

    Raises:
        StateError: not writable.
    """
    stored = []
    for one in kept:
        fields = asdict(one)
        fields["message"] = b64encode(fields.pop("sealed")).decode()
        stored.append(fields)
    write_kept(state / FILE, _VERSION, "objections", stored)
