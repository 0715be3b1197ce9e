"""Desk of whoever looks after published lists: how each rollout is, and what an operator does with one.

It needs no lease: whoever leads goes by the records, and finds there what was done.
"""

import threading
import time
from pathlib import Path
from typing import Any, Literal

from urlward.config import Config
from urlward.engine.dates import time_or_none
from urlward.engine.errors import UrlwardError
from urlward.publish.lease import leader_of
from urlward.publish.place import ListPlace, open_place
from urlward.publish.rollout import Lists, Rollout, read_rollouts
from urlward.state.audit import append
from urlward.state.folder import made_folder

Act = Literal["rollback", "release", "promote"]

_WRITTEN: dict[Act, str] = {"rollback": "rolled-back", "release": "released", "promote": "promoted"}
"""In the audit log."""


class RolloutDesk:
    """Desk over a place. Thread-safe; its methods may take their time.

    Args:
        config: has ``[publish]`` with a place.
        state: the state folder, where the audit log is.
        place: where lists are published; opened when it is needed where not given.
    """

    def __init__(self, config: Config, state: Path, place: ListPlace | None = None) -> None:
        assert config.publish is not None
        self._config = config
        self._table = config.publish
        self._state = state
        self._place = place
        self._opening = threading.Lock()

    def place(self) -> ListPlace:
        """The place.

        Raises:
            PlaceError: it cannot be used.
        """
        with self._opening:
            if self._place is None:
                assert self._table.to is not None
                self._place = open_place(self._table.to)
            return self._place

    def rows(self) -> dict[str, Any]:
        """How all lists are: ``place``, ``leader`` (a process and its machine; empty where nobody leads) and
        ``lists``; times as RFC 3339 has them, None where nobody knows.

        Each list has ``name``, ``state`` (``offered``, ``tried``, ``held``), ``stable`` and ``canary`` (the
        serials that are offered, 0 for none), ``entries`` (of the one for all), ``versions``, ``held``, and
        while canaries try one: ``watched`` of ``observe`` seconds, ``waiting`` (why they are not counted),
        ``max_rise``, and ``canaries``: each with ``url``, ``requests`` since it has the version, and of
        ``blocks``, ``faults`` and ``objections`` how many since then (``now``) and per request before.

        Raises:
            UrlwardError: the place cannot be used.
        """
        place = self.place()
        return {
            "place": str(place),
            "leader": leader_of(place),
            "lists": [self._row(rollout) for rollout in read_rollouts(place)],
        }

    def _row(self, rollout: Rollout) -> dict[str, Any]:
        held = rollout.held
        return {
            "name": rollout.name,
            "state": rollout.state,
            "stable": rollout.stable,
            "canary": rollout.canary,
            "entries": rollout.entries,
            "held": held and {"reason": held.reason, "who": held.who, "at": time_or_none(held.at)},
            "can_promote": rollout.waits_for_all is not None,
            "watched": round(rollout.watched),
            "observe": round(self._table.observe),
            "waiting": rollout.waiting if rollout.is_tried else "",
            "max_rise": self._table.max_rise,
            "canaries": [_canary(node.url, rollout) for node in self._table.canary if rollout.is_tried],
            "versions": [
                {
                    "serial": version.serial,
                    "entries": version.entries,
                    "at": time_or_none(version.at),
                    "released": version.released,
                    "protected": version.protected,
                }
                for version in reversed(rollout.versions)
            ],
        }

    def act(self, what: Act, name: str, *, why: str, who: str, serial: int | None = None) -> str:
        """Roll a list back, release or promote it. Returns what to say of it.

        The audit log has it before, and not where it is refused.

        Args:
            what: to do.
            name: of the list.
            why, who: for the record.
            serial: of the version to go back to; the one before where not given.

        Raises:
            UrlwardError: it cannot be done.
        """
        place = self.place()
        if name not in {rollout.name for rollout in read_rollouts(place)}:
            raise UrlwardError(f"{name}: no list of that name is published")
        lists = Lists(place, self._config)
        known = {"feed": name, "why": why, "published": str(place)} | ({"serial": serial} if serial else {})

        def tell() -> None:
            append(made_folder(self._state), who, _WRITTEN[what], time.time(), **known)

        if what == "rollback":
            version = lists.roll_back(name, why=why, who=who, serial=serial, tell=tell)
            return f"{name}: serial {version.serial} for all, held until it is released"
        if what == "promote":
            return f"{name}: serial {lists.promote(name, tell).serial} for all"
        lists.release(name, tell)
        return f"{name}: no longer held; whoever publishes offers the feed's list again"


def _canary(url: str, rollout: Rollout) -> dict[str, Any]:
    now = rollout.counted(url)
    before = rollout.before.get(url, now)
    return {
        "url": url,
        "has": url in rollout.before,
        "requests": round(now.requests - before.requests),
        **{
            name: {
                "now": round(getattr(now, name) - getattr(before, name)),
                "usual": getattr(before, name) / before.requests if before.requests else 0.0,
            }
            for name in ("blocks", "faults", "objections")
        },
    }
