"""Pages that only show: traffic, lists, events and alarms."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from tornado.iostream import StreamClosedError

from urlward.dashboard.asked import event_filter, of_events
from urlward.dashboard.handler import Base, iso, logger
from urlward.dashboard.history import by_minute, newest
from urlward.dashboard.sources import EventPage, Now, Row
from urlward.engine.errors import UrlwardError
from urlward.records.event import FIELDS, Event, as_json, csv_cells
from urlward.records.store import EventQuery

EXPORT_PAGE = 1_000
DONE = {
    "refreshing": "The feed is being fetched.",
    "accepted": "The list is let through once. The feed is being fetched.",
    "allowed": "The allow is in force.",
    "ended": "The allow has ended.",
    "decided": "The objection is decided.",
}
"""What a page says after something was done."""


class Page(Base):
    """Page that may say what was done just before."""

    def done(self) -> str:
        """Text that says what was just done; empty for nothing."""
        return DONE.get(self.get_query_argument("done", ""), "")


class NowPage(Page):
    """Page of traffic, blocks, latency and stall of the last ten minutes."""

    async def get(self) -> None:
        """Show it, as tables too for browsers without scripts."""
        now, problem = await _try(self.sources.now)
        alarms, _ = await self.ask_if_there(self.sources.alarms)
        current = [alarm for alarm in alarms or [] if alarm["current"]]
        latest, minutes = (newest(now), by_minute(now)) if now is not None else (None, [])
        self.page("now", "Now", data=now, latest=latest, minutes=minutes, problem=problem, alarms=current)


class ListsPage(Page):
    """Page of lists and feeds."""

    async def get(self) -> None:
        """Show them, with what each has blocked."""
        await self.show()

    async def show(self, error: str = "") -> None:
        """Show their current state, and errors."""
        lists, lists_problem = await self.ask_if_there(self.sources.lists)
        feeds, feeds_problem = await self.ask_if_there(self.sources.feeds)
        hits, hits_problem = await self.ask_if_there(self.sources.hits)
        self.page(
            "lists", "Lists and feeds", error=error, done=self.done(), lists=lists, feeds=feeds, hits=hits,
            lists_problem=lists_problem, feeds_problem=feeds_problem, hits_problem=hits_problem,
        )  # fmt: skip


class EventsPage(Page):
    """Page of events."""

    async def get(self) -> None:
        """Show the events that match the filters."""
        found, problem, error = EventPage([], ""), "", ""
        try:
            wanted = self.wanted()
        except UrlwardError as e:
            self.set_status(400)
            error = str(e)
        else:
            answer, problem = await self.ask_if_there(self.sources.events, wanted)
            found = answer or found
        given = self._given()
        older = urlencode([*given, ("before", found.older)]) if found.older else ""
        self.page(
            "events", "Events", error=error, problem=problem, found=found, given=dict(given),
            chosen=self.get_query_arguments("kind"), newest=urlencode(given), older=older,
            paged=bool(self.get_query_argument("before", "")),
            events=[event | {"shown": detail_words(event)} for event in found.events],
        )  # fmt: skip

    def wanted(self, limit: int = 50) -> EventQuery:
        """Parse the filters.

        Raises:
            AdminError: one does not fit.
        """
        kinds = [kind for kind in self.get_query_arguments("kind") if kind]
        return event_filter(lambda name: self.get_query_argument(name, ""), kinds, limit=limit)

    def _given(self) -> list[tuple[str, str]]:
        names = ("kind", "reference", "list", "category", "entry", "since", "until")
        pairs = [(name, value) for name in names for value in self.get_query_arguments(name)]
        return [(name, value) for name, value in pairs if value]


class Export(EventsPage):
    """Export of all matching events, as a file."""

    async def get(self, form: str = "csv") -> None:
        """Stream the file as it is read, so that its size does not matter."""
        of_events(self.request.query_arguments)
        wanted = replace(self.wanted(), limit=EXPORT_PAGE)
        page = await self.ask(self.sources.events, wanted)
        kind = "text/csv; charset=utf-8; header=present" if form == "csv" else "application/x-ndjson"
        self.set_header("Content-Type", kind)
        self.set_header("Content-Disposition", f'attachment; filename="urlward-events.{form}"')
        if form == "csv":
            self.write(",".join(FIELDS) + "\r\n")
        write = _csv if form == "csv" else _lines
        try:
            while True:
                self.write(write(page.events))
                await self.flush()
                if not page.older:
                    return
                page = await self.ask(self.sources.events, replace(wanted, before=page.older))
        except StreamClosedError:
            return
        except UrlwardError as e:
            # Half a file must not look like a whole one.
            logger.error("admin: an export was broken off: %s", e)
            self.detach().close()


class AlarmsPage(Page):
    """Alarms that last, and past ones."""

    async def get(self) -> None:
        """Show alarms, current ones first."""
        alarms, problem = await self.ask_if_there(self.sources.alarms)
        self.page("alarms", "Alarms", alarms=alarms or [], problem=problem)


async def _try(function: Any) -> tuple[Now | None, str]:
    try:
        return function(), ""
    except UrlwardError as e:
        return None, str(e)


def detail_words(event: Mapping[str, Any]) -> str:
    """Text of an event's detail, for people."""
    detail = event.get("detail", "")
    try:
        found = json.loads(detail) if detail else {}
    except ValueError:
        return str(detail)
    if not isinstance(found, dict):
        return str(detail)
    if isinstance(until := found.get("until"), int | float):
        found["until"] = iso(until)  # as events of before have it
    return "; ".join(f"{name}: {value}" for name, value in found.items())


def _csv(events: list[Row]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(csv_cells(Event(**event)) for event in events)
    return text.getvalue()


def _lines(events: list[Row]) -> str:
    return "".join(json.dumps(as_json(Event(**event))) + "\n" for event in events)
