"""Book of objections: listing and decisions, for the dashboard and the command line."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from urlward.engine.digest import Key
from urlward.objections.decisions import decline, grant
from urlward.objections.objections import Objection, message_of, read_objections
from urlward.policy.allows import rfc3339


class Granted(Protocol):
    """Allow that is granted with an objection."""

    @property
    def url(self) -> str:
        """URL as typed; empty where nothing has to be allowed."""

    @property
    def seconds(self) -> int:
        """Length in seconds."""

    @property
    def whole_host(self) -> bool:
        """Whether the URL stands for its host."""


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

    def decide(self, id_: str, why: str, who: str, *, granted: Granted | None) -> None:
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
