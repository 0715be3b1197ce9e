"""Roles at the dashboard: which role each route needs, and what a viewer is not shown.

Every route stands in one table (`urlward.dashboard.app.ROUTES`) with the role that each of its methods needs.
A method that it does not name is refused: what somebody adds is closed until it has a role.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from tornado.web import RequestHandler

from urlward.dashboard.live_sources import LiveSources
from urlward.dashboard.sources import EventPage, Row
from urlward.records.store import EventQuery
from urlward.state.people import Role

ANYBODY: Literal["anybody"] = "anybody"
"""In place of a role: neither token nor session is needed."""

type Needed = Role | Literal["anybody"]


@dataclass(frozen=True, slots=True)
class Route:
    """Route of the dashboard.

    Attributes:
        pattern: of the whole path, as a regular expression.
        handler: serves it.
        get: role that GET needs; None where there is no such method.
        post: likewise.
        more: further arguments of the handler.
    """

    pattern: str
    handler: type[RequestHandler]
    get: Needed | None = None
    post: Needed | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def access(self) -> dict[str, Needed]:
        """Role that each method needs."""
        return {name: role for name, role in (("GET", self.get), ("POST", self.post)) if role is not None}


class RolesNeeded:
    """Roles that paths need.

    Args:
        routes: of the dashboard.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(re.compile(route.pattern), route.access) for route in routes]

    def needed(self, path: str, method: str) -> Needed | None:
        """Role that a path needs; None where there is none, or not that method."""
        return next((access.get(method) for match, access in self._routes if match.fullmatch(path)), None)


_HIDDEN: Row = {
    "client": "", "client_port": 0, "destination": "", "destination_port": 0, "digest": "",
}  # fmt: skip
"""Fields of an event that tell who was blocked, and what they asked for."""


_URL = re.compile(r"https?://\S+?(?=: |$)")
"""An address of a canary, in what a guard says."""


class ViewerSources:
    """Sources as viewers may see them: events without addresses and digests, objections without their text.

    Args:
        sources: that operators see.
    """

    def __init__(self, sources: LiveSources) -> None:
        self._sources = sources

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sources, name)

    def events(self, wanted: EventQuery) -> EventPage:
        """Find a page of events."""
        found = self._sources.events(wanted)
        return EventPage([event | _HIDDEN for event in found.events], found.older)

    def rollouts(self) -> Row:
        """Published lists, without the names of machines and places."""
        found = self._sources.rollouts()
        return {**found, "place": "", "leader": "", "lists": [_without_nodes(row) for row in found["lists"]]}

    def objections(self) -> list[Row]:
        """Objections; people write in them who they are and what was blocked."""
        return [row | {"client": "", "message": ""} for row in self._sources.objections()]


def _without_nodes(row: Row) -> Row:
    """A published list with numbers in place of its canaries' addresses."""
    held = row["held"]
    if held and not held["who"]:
        held = {**held, "reason": _URL.sub("canary", held["reason"])}
    canaries = [{**one, "url": f"canary {n}"} for n, one in enumerate(row["canaries"], 1)]
    return {**row, "held": held, "waiting": _URL.sub("canary", row["waiting"]), "canaries": canaries}


def for_viewers(sources: LiveSources) -> LiveSources:
    """Sources as viewers may see them."""
    return cast("LiveSources", ViewerSources(sources))
