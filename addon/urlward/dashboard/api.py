"""JSON API of the dashboard, for scripts: ``Authorization: Bearer TOKEN``."""

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from urlward.dashboard import asked
from urlward.dashboard.handler import Base
from urlward.dashboard.sources import Now
from urlward.engine.errors import UrlwardError
from urlward.records.event import Event, as_json

ROWS = 1_000
"""Rows that are written at a time."""

_SERIES = ("seconds", "requests", "blocks", "latency", "stall")


class Api(Base):
    """Base of the API's handlers."""

    as_json = True

    def body(self, *names: str) -> dict[str, str]:
        """Parse the body: a JSON object with members of these names.

        Raises:
            UrlwardError: not a JSON object of texts, or one has another name.
        """
        try:
            given = dict(asked.texts(json.loads(self.request.body or b"{}")))
        except (ValueError, RecursionError) as e:
            raise UrlwardError("body: not JSON") from e
        if "who" in given:
            raise UrlwardError("who: whoever's token it is, which the record has by itself")
        asked.only(given, names)
        return given


class NowApi(Api):
    """Current traffic."""

    def get(self) -> None:
        """Return all that is known, or with ``since`` the seconds after that one."""
        since = self.get_query_argument("since", "0")
        now = self.sources.now()
        after = int(since) if since.isascii() and since.isdecimal() and len(since) < 12 else 0
        self.write_json(_after(now, after))


class HistoryApi(Api):
    """Traffic of hours or days."""

    async def get(self) -> None:
        """Return that of ``span``, by the steps of its plot."""
        asked.only(self.request.query_arguments, ("span",))
        self.write_json(await self.ask(self.sources.history, asked.span(self.get_query_argument("span", ""))))


class Shown(Api):
    """A source's data, unchanged."""

    def initialize(self, context: Any, access: Any = None, name: str = "") -> None:
        """Name the method of `LiveSources` to call."""
        super().initialize(context, access)
        self._name = name

    async def get(self) -> None:
        """Return all of its data; of many rows some at a time, since they are written on the event loop."""
        found = await self.ask(getattr(self.sources, self._name))
        if not isinstance(found, list) or len(found) <= ROWS:
            self.write_json(found)
            return

        async def parts() -> AsyncIterator[str]:
            for start in range(0, len(found), ROWS):
                text = json.dumps(found[start : start + ROWS])[1:-1]
                yield f", {text}" if start else f"[{text}"
            yield "]\n"

        self.set_header("Content-Type", "application/json")
        await self.send(parts())


class EventsApi(Api):
    """Search in the events."""

    async def get(self) -> None:
        """Return a page of events; ``older`` is the ``before`` of the next."""
        # A filter that nobody heeds gives everybody's events to who asked for one client's.
        asked.heeded(self.request.query_arguments, asked.OF_EVENTS)
        found = await self.events(self.filtered(asked.event_filter, 100), "api")
        events = [as_json(Event(**event)) for event in found.events]
        self.write_json({"events": events, "older": found.older or None})


class CheckApi(Api):
    """Check of a URL."""

    async def post(self) -> None:
        """Check ``url``, for ``client``, ``at`` a time."""
        body = self.body("url", "client", "at")
        url, client = asked.url(body.get("url", "")), asked.client(body.get("client", ""))
        at = asked.moment("at", body.get("at", ""))
        self.write_json(await self.ask(self.sources.check, url, client, at))


class AllowsApi(Shown):
    """Temporary allows."""

    async def post(self) -> None:
        """Make one: ``url``, ``for``, ``why``, and ``host``: ``yes`` for its whole host."""
        body = self.body("url", "for", "why", "host")
        url, seconds = asked.url(body.get("url", "")), asked.seconds(body.get("for", ""))
        why, whole_host = asked.why(body.get("why", "")), body.get("host") == "yes"
        made = await self.ask(self.sources.allow, url, seconds, why, self.who(), whole_host=whole_host)
        self.set_status(HTTPStatus.CREATED)
        self.write_json(made)


class EndAllowApi(Api):
    """Early end of a temporary allow."""

    async def post(self, id_: str) -> None:
        """End it, with ``why``."""
        body = self.body("why")
        why = asked.why(body.get("why", ""))
        self.write_json(await self.ask(self.sources.end_allow, id_, why, self.who()))


class FeedApi(Api):
    """Actions on a feed."""

    async def post(self, name: str, action: str) -> None:
        """Do ``refresh``, or ``accept`` with ``why``."""
        body = self.body("why")
        if action == "refresh":
            said = await self.ask(self.sources.refresh_feed, name)
        else:
            why = asked.why(body.get("why", ""))
            said = await self.ask(self.sources.accept_feed, name, why, self.who())
        self.write_json({"said": said})


class ObjectionApi(Api):
    """Decision on an objection."""

    async def post(self, id_: str) -> None:
        """Decide with ``answer`` (``grant`` or ``decline``) and ``why``; for an allow, the fields of
        `AllowsApi`."""
        body = self.body("answer", "why", "url", "for", "host")
        granted, why = asked.grant(lambda name: body.get(name, "")), asked.why(body.get("why", ""))
        await self.ask(self.sources.decide_objection, id_, why, self.who(), granted=granted)
        self.write_json({"decided": id_})


def _after(now: Now, since: int) -> dict[str, Any]:
    if since > now["time"]:
        since = 0  # the clock was set back
    first = next((n for n, second in enumerate(now["seconds"]) if second > since), len(now["seconds"]))
    return {**now, **{name: now[name][first:] for name in _SERIES}}  # type: ignore[literal-required]
