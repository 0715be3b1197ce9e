"""Objections to blocks: what people have written, and the decisions, for the dashboard and the command line.

``objections.json`` in the state folder has them. A message may well name the page that it is about, so it is
sealed under the local key, and no log has any of it.

An objection knows the reference of its block and no more: neither it nor the event of that block tells which
page it was. To grant one is therefore two things: to mark it, and, where a page or host is to pass, to name
that page or host. Who decides has it from the message, or asks whoever wrote it. The event's digest shows
whether a URL is the one that was blocked.

The audit log has a line for each decision.
"""

import logging
import secrets
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from urlward.engine.dates import time_text
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, UrlwardError
from urlward.policy.allows import Allow, add_allow, allowed_by, end_allow
from urlward.policy.reasons import reason_of
from urlward.records.holds import held_references
from urlward.state.audit import append_in_lock
from urlward.state.folder import (
    KeptFile,
    check_times,
    locked,
    made_folder,
)

logger = logging.getLogger("urlward.records")

FILE = "objections.json"

MAX_KEPT = 1000
"""Objections; of more the oldest that are closed, and of no reference that is held, go first."""

State = Literal["open", "granted", "declined"]


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
        UrlwardError: nothing is left of it, or it is longer than `longest` characters.
    """
    lines = (
        "".join(char for char in line.replace("\t", " ") if char.isprintable()).rstrip()
        for line in text.splitlines()
    )
    message = "\n".join(lines).strip()
    if not message:
        raise UrlwardError("message: needed")
    if len(message) > longest:
        raise UrlwardError(f"message: at most {longest} characters")
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
        UrlwardError: `MAX_KEPT` are open or held, it is not known what is held, or the record of them is
            damaged.
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
                raise UrlwardError(f"{MAX_KEPT} objections are open or held: decide some")
            kept.remove(closed)
        KEPT.write(state, [*kept, made])
    return made


def message_of(objection: Objection, key: Key) -> str:
    """Open an objection's message; a sentence that says so where the key does not fit."""
    try:
        return key.unseal(objection.sealed).decode(errors="replace")
    except ArtifactError:
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
        UrlwardError: the record of them is damaged.
        StateError: the folder cannot be used.
    """
    oldest = now - days * 86_400

    def stays(one: Objection) -> bool:
        return one.time >= oldest or one.reference in held

    if all(map(stays, read_objections(state))):
        return 0
    with locked(state):
        before, held_now = read_objections(state), held_references(state, now)  # some since it was asked
        kept = [one for one in before if stays(one) or one.reference in held_now]
        KEPT.write(state, kept)
        return len(before) - len(kept)


def _checked(one: Objection) -> Objection:
    check_times(one.time, one.decided)
    if one.state not in get_args(State):
        raise ValueError("not a state")
    return one


KEPT = KeptFile(FILE, "objections", Objection, _checked, "begun anew", sealed_as="message")
"""All objections, the oldest first."""


def read_objections(state: Path) -> list[Objection]:
    """Read all objections, the oldest first; raises as `KeptFile.read`."""
    return KEPT.read(state)


class Grant(NamedTuple):
    """Allow that is granted with an objection.

    Attributes:
        url: as typed; empty where nothing has to be, since the list was corrected, say.
        seconds: how long.
        whole_host: whether the URL stands for its host.
    """

    url: str = ""
    seconds: int = 0
    whole_host: bool = False


def decline(state: Path, id_: str, why: str, who: str, *, now: float) -> Objection:
    """Decline an objection: the block stays.

    Raises:
        UrlwardError: none of that id is open, or `why` is not one line of words.
        StateError: the folder cannot be used.
    """
    return _decide(state, id_, "declined", why, who, now=now)


def grant(
    state: Path,
    key: Key,
    id_: str,
    why: str,
    who: str,
    *,
    now: float,
    url: str = "",
    seconds: int = 0,
    whole_host: bool = False,
) -> tuple[Objection, Allow | None]:
    """Grant an objection, and allow a page or host for a while where one is named.

    Args:
        state: the state folder.
        key: its local key.
        id_: of the objection.
        why: one line of words; kept as they are, so they may not name the host.
        who: decides.
        now: seconds since 1970-01-01 UTC.
        url: what is to pass, as `add_allow` takes it. Empty where it passes already, since the list was
            corrected, say; then nothing is allowed.
        seconds: how long it is to.
        whole_host: whether a URL stands for its host.

    Raises:
        UrlwardError: none of that id is open, or `why` is not one line of words.
        UrlwardError: there is no such allow.
        StateError: the folder cannot be used.
    """
    why = reason_of(why)
    if not url:
        return _decide(state, id_, "granted", why, who, now=now), None
    if allowed_by(url, whole_host=whole_host).is_named_in(why):
        raise UrlwardError("why: names the host, and is kept as it is: say it without")
    _open_one(read_objections(state), id_)
    allow = add_allow(state, key, url, seconds, why, who, whole_host=whole_host, now=now)
    try:
        return _decide(state, id_, "granted", why, who, now=now, allow=allow.id), allow
    except UrlwardError:
        # Somebody else has decided meanwhile: what they said holds.
        end_allow(state, allow.id, "the objection was decided otherwise meanwhile", who, now=now)
        raise


def _decide(
    state: Path, id_: str, outcome: State, why: str, who: str, *, now: float, allow: str = ""
) -> Objection:
    why = reason_of(why)
    with locked(state):
        kept = read_objections(state)
        found = _open_one(kept, id_)
        decided = replace(found, state=outcome, decided=int(now), why=why, who=who, allow=allow)
        # Told first: whatever fails between the two, nothing is decided that the record does not have.
        tell_decision(state, decided)
        KEPT.write(state, [decided if one is found else one for one in kept])
    return decided


def _open_one(kept: Iterable[Objection], id_: str) -> Objection:
    found = next((one for one in kept if one.id == id_), None)
    if found is None:
        raise UrlwardError(f"no objection {id_!r}")
    if found.state != "open":
        raise UrlwardError(f"objection {id_} was {found.state} already, by {found.who}")
    return found


def tell_decision(state: Path, decided: Objection, **more: str) -> None:
    """Add a line on a decision to the audit log; the folder is locked.

    Raises:
        StateError: not writable.
    """
    append_in_lock(
        state, decided.who, f"objection-{decided.state}", decided.decided,
        id=decided.id, reference=decided.reference, why=decided.why, allow=decided.allow, **more,
    )  # fmt: skip


def objection_of(content: Mapping[str, Any], key: Key) -> Objection:
    """This node's objection of what another's says (`KeptFile.opened`).

    Raises:
        ValueError, KeyError, TypeError: it says something else.
    """
    fields = dict(content)
    sealed = key.seal(fields.pop("message").encode())
    return _checked(Objection(**fields, sealed=sealed))


class ObjectionBook:
    """Objections of a state folder, as the dashboard and the command line show and decide them.

    Args:
        state: the folder.
        key: its local key.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(self, state: Path, key: Key, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._key = key
        self._clock = clock

    def listed(self) -> list[dict[str, Any]]:
        """List objections: open ones first, the newest of each kind before older ones, as `row` has them.

        Raises:
            UrlwardError: the record of them is damaged.
            StateError: it cannot be read.
        """
        newest = sorted(read_objections(self._state), key=lambda one: one.time, reverse=True)
        return [row(one, self._key) for one in sorted(newest, key=lambda one: one.state != "open")]

    def decide(self, id_: str, why: str, who: str, *, granted: Grant | None) -> None:
        """Decide an objection: grant it, or decline it (None).

        Raises:
            UrlwardError: none of that id is open, or `why` is not one line of words.
            UrlwardError: what is granted cannot be allowed.
            StateError: the folder cannot be used.
        """
        now = self._clock()
        if granted is None:
            decline(self._state, id_, why, who, now=now)
            return
        grant(
            self._state, self._key, id_, why, who,
            now=now, url=granted.url, seconds=granted.seconds, whole_host=granted.whole_host,
        )  # fmt: skip


def row(one: Objection, key: Key) -> dict[str, Any]:
    """Format an objection with its message as JSON; times are RFC 3339, ``decided`` is empty while it is
    open."""
    return {
        "id": one.id,
        "time": time_text(one.time),
        "reference": one.reference,
        "client": one.client,
        "message": message_of(one, key),
        "state": one.state,
        "decided": time_text(one.decided) if one.decided else "",
        "who": one.who,
        "why": one.why,
        "allow": one.allow,
    }
