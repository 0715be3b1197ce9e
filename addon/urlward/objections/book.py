"""Book of objections: listing and decisions, for the dashboard and the command line.

An objection knows the reference of its block and no more: neither it nor the event of that block tells which
page it was. To grant one is therefore two things: to mark it, and, where a page or host is to pass, to name
that page or host. Who decides has it from the message, or asks whoever wrote it. The event's digest shows
whether a URL is the one that was blocked.

The audit log has a line for each decision.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import (
    Objection,
    ObjectionError,
    State,
    message_of,
    read_objections,
    write_objections,
)
from urlward.policy.allows import Allow, AllowError, add_allow, allowed_by, end_allow, rfc3339
from urlward.policy.reasons import reason_of
from urlward.state.audit import append_in_lock
from urlward.state.folder import locked


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
        ObjectionError: none of that id is open, or `why` is not one line of words.
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
        ObjectionError: none of that id is open, or `why` is not one line of words.
        AllowError: there is no such allow.
        StateError: the folder cannot be used.
    """
    why = reason_of(why, ObjectionError)
    if not url:
        return _decide(state, id_, "granted", why, who, now=now), None
    if allowed_by(url, whole_host=whole_host).is_named_in(why):
        raise AllowError("why: names the host, and is kept as it is: say it without")
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
    why = reason_of(why, ObjectionError)
    with locked(state):
        kept = read_objections(state)
        found = _open_one(kept, id_)
        decided = replace(found, state=outcome, decided=int(now), why=why, who=who, allow=allow)
        # Told first: whatever fails between the two, nothing is decided that the record does not have.
        _audit(state, decided)
        write_objections(state, [decided if one is found else one for one in kept])
    return decided


def _open_one(kept: Iterable[Objection], id_: str) -> Objection:
    found = next((one for one in kept if one.id == id_), None)
    if found is None:
        raise ObjectionError(f"no objection {id_!r}")
    if found.state != "open":
        raise ObjectionError(f"objection {id_} was {found.state} already, by {found.who}")
    return found


def _audit(state: Path, decided: Objection) -> None:
    append_in_lock(
        state, decided.who, f"objection-{decided.state}", decided.decided,
        id=decided.id, reference=decided.reference, why=decided.why, allow=decided.allow,
    )  # fmt: skip


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
            ObjectionError: the record of them is damaged.
            StateError: it cannot be read.
        """
        newest = sorted(read_objections(self._state), key=lambda one: one.time, reverse=True)
        return [row(one, self._key) for one in sorted(newest, key=lambda one: one.state != "open")]

    def decide(self, id_: str, why: str, who: str, *, granted: Grant | None) -> None:
        """Decide an objection: grant it, or decline it (None).

        Raises:
            ObjectionError: none of that id is open, or `why` is not one line of words.
            AllowError: what is granted cannot be allowed.
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
        "time": rfc3339(one.time),
        "reference": one.reference,
        "client": one.client,
        "message": message_of(one, key),
        "state": one.state,
        "decided": rfc3339(one.decided) if one.decided else "",
        "who": one.who,
        "why": one.why,
        "allow": one.allow,
    }
