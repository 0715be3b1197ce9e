"""Pages of the dashboard: those that only show, those with forms, login and logout; and the endpoints for
supervisors and Prometheus.

What is typed in a form is in a request body, never in an address.
"""

import csv
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tornado.web import HTTPError

from urlward.dashboard import asked
from urlward.dashboard.asked import event_filter
from urlward.dashboard.handler import SESSION, Base, Visitor, iso
from urlward.dashboard.history import SPANS, by_minute, newest
from urlward.dashboard.language import languages
from urlward.dashboard.sources import EventPage, NotConfiguredError, Now, Past, Row
from urlward.engine.errors import UrlwardError
from urlward.records.event import FIELDS, Event, as_json, csv_cells
from urlward.records.metrics import NONE, OTHER

LINES = 6
"""Lines of a chart: as many as can be told apart by their colours and dashes."""

SHOWN = 100
"""Own entries, or objections, on a page, which is made on the event loop: there may be a hundred thousand."""

_IN_STEP = "history.in_step"
_KNOWN = {NONE: "lists.no_name", OTHER: "history.others"}
"""Keys of the names that metrics have for none, and for what is beyond their bounds."""

type Value = float | None


class ChartLine(NamedTuple):
    """Line of a chart.

    Attributes:
        name: of a list, a category or a feed; a key of the texts where there is one.
        values: one a step.
    """

    name: str
    values: Sequence[Value]


class Chart(NamedTuple):
    """Chart.

    Attributes:
        name: ``history.NAME`` is the key of its title.
        unit: key of its unit, whose text may have the ``step`` in it.
        lines: at least one.
    """

    name: str
    unit: str
    lines: Sequence[ChartLine]


def charts_of(past: Past, *, whole: bool = False) -> list[Chart]:
    """Charts of a span; one of which nothing is counted here, such as DNS, is left out.

    Args:
        past: the span.
        whole: whether what is counted in the step that is under way is left out: it would look like a fall.
    """
    in_step, a_second = _IN_STEP, "now.a_second"
    found = [
        Chart("requests", a_second, [ChartLine("now.requests", past["requests"])]),
        Chart(
            "latency",
            "history.ms",
            [ChartLine("history.p50", past["p50"]), ChartLine("history.p99", past["p99"])],
        ),
        Chart("lists", in_step, _chart_lines(past["lists"])),
        Chart("categories", in_step, _chart_lines(past["categories"])),
        Chart("dns", a_second, _chart_lines(past["dns"], "term.")),
        Chart("errors", in_step, [ChartLine("history.errors", past["errors"])]),
        Chart("stall", "history.ms", [ChartLine("now.stall", past["stall"])]),
        Chart("connections", "history.most", [ChartLine("now.connections", past["connections"])]),
        Chart("feeds", "history.hours", _chart_lines({n: _hours(ages) for n, ages in past["feeds"].items()})),
    ]
    under_way = whole and past["counted"][-1] < 1
    return [_without_last(one) if under_way and one.unit == _IN_STEP else one for one in found if one.lines]


def _without_last(chart: Chart) -> Chart:
    return chart._replace(lines=[line._replace(values=[*line.values[:-1], None]) for line in chart.lines])


def _chart_lines(values: Mapping[str, Sequence[Value]], prefix: str = "") -> list[ChartLine]:
    values = {_KNOWN.get(name, prefix + name): of_name for name, of_name in values.items()}
    names = list(values)
    if len(names) <= LINES:
        return [ChartLine(name, values[name]) for name in names]
    first, others = names[: LINES - 1], names[LINES - 1 :]
    together = [
        None if all(value is None for value in step) else round(sum(value or 0 for value in step), 3)
        for step in zip(*(values[name] for name in others), strict=True)
    ]
    return [*(ChartLine(name, values[name]) for name in first), ChartLine("history.others", together)]


def _hours(ages: Sequence[Value]) -> list[Value]:
    return [None if age is None else round(age / 3_600, 2) for age in ages]


EXPORT_PAGE = 1_000
IN_TABLES = ("lists", "categories", "dns", "feeds")
"""Charts of the history that have a table of their own; the others are in one together."""
_FILTERS = ("kind", "reference", "list", "category", "entry", "since", "until")
_YEAR = 365 * 86_400
_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]*").fullmatch


class Page(Base):
    """Page that may say what was done just before."""

    def done(self) -> str:
        """Text that says what was just done; empty for nothing."""
        key = f"done.{self.get_query_argument('done', '')}"
        return self.language(key) if self.language.has(key) else ""

    def filters(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """Names and values of the filters that are given, for the addresses of other pages."""
        return [(name, value) for name in names for value in self.get_query_arguments(name) if value]

    async def beneath(self, topic: str) -> Row:
        """The last lines of the audit log about a topic, for the foot of the page where it is acted upon."""
        latest, now = self.context.trail.latest, self.context.steady()
        rows, problem = await self.ask_if_there(latest, topic, self.role(), now)
        return {"topic": topic, "rows": rows or [], "problem": problem}

    async def send_file(
        self,
        name: str,
        form: str,
        columns: Sequence[str],
        page: Callable[[str], Awaitable[tuple[list[Row], str]]],
        cells: Callable[[Row], Sequence[str]],
        said: Callable[[Row], Row],
    ) -> None:
        """Stream a file as it is read, so that its size does not matter.

        Args:
            name: of the file, after ``urlward-``.
            form: ``csv`` or ``jsonl``.
            columns: of CSV.
            page: gives the rows before a place (the empty one is the end), and the place before that.
            cells: a row as CSV has it.
            said: a row as JSON has it.
        """
        kind = "text/csv; charset=utf-8; header=present" if form == "csv" else "application/x-ndjson"

        def text_of(rows: list[Row]) -> str:
            if form != "csv":
                return "".join(json.dumps(said(row)) + "\n" for row in rows)
            text = io.StringIO()
            csv.writer(text).writerows(map(cells, rows))
            return text.getvalue()

        async def made(before: str) -> tuple[str, str]:
            async with self.context.making:
                rows, older = await page(before)
                return text_of(rows), older

        async def parts() -> AsyncIterator[str]:
            text, older = await made("")
            self.set_header("Content-Type", kind)
            self.set_header("Content-Disposition", f'attachment; filename="urlward-{name}.{form}"')
            yield (",".join(columns) + "\r\n" if form == "csv" else "") + text
            while older:
                text, older = await made(older)
                yield text

        await self.send(parts())


class NowPage(Page):
    """Page of traffic, blocks, latency and stall of the last ten minutes."""

    async def get(self) -> None:
        """Show it, as tables too for browsers without scripts."""
        now, problem = await _try(self.sources.now)
        alarms, _ = await self.ask_if_there(self.sources.alarms)
        current = [alarm for alarm in alarms or [] if alarm["current"]]
        latest, minutes = (newest(now), by_minute(now)) if now is not None else (None, [])
        nodes, nodes_problem = await self.ask_if_there(self.sources.nodes)
        self.page(
            "now", "now.title", data=now, latest=latest, minutes=minutes, problem=problem, alarms=current,
            fleet=self.sources.shares, nodes=nodes, nodes_problem=nodes_problem,
        )  # fmt: skip


class HistoryPage(Page):
    """Page of traffic over hours and days."""

    async def get(self) -> None:
        """Show it as plots, and as tables for browsers without scripts and for those who see no plot."""
        span, problem = next(iter(SPANS)), ""
        points = rows = None
        try:
            span = asked.span(self.get_query_argument("span", ""))
            points = await self.ask(self.sources.history, span)
            rows = await self.ask(self.sources.history, span, rows=True)
        except UrlwardError as e:
            problem = str(e)
        charts = charts_of(points, whole=True) if points is not None else []
        plotted = {chart.name: [line.values for line in chart.lines] for chart in charts}
        tables = [chart for chart in charts_of(rows) if chart.name in IN_TABLES] if rows is not None else []
        self.page(
            "history", "history.title", spans=SPANS, span=span, problem=problem, points=points, rows=rows,
            charts=charts, plotted=plotted, tables=tables,
        )  # fmt: skip


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
            "lists", "lists.title", error=error, done=self.done(), lists=lists, feeds=feeds, hits=hits,
            lists_problem=lists_problem, feeds_problem=feeds_problem, hits_problem=hits_problem,
            trail=await self.beneath("lists"),
        )  # fmt: skip


class EventsPage(Page):
    """Page of events."""

    async def get(self) -> None:
        """Show the events that match the filters."""
        found, problem, error = EventPage([], ""), "", ""
        try:
            wanted = self.filtered(event_filter)
        except UrlwardError as e:
            self.set_status(400)
            error = str(e)
        else:
            try:
                found = await self.events(wanted, "page")
            except UrlwardError as e:
                problem = str(e)
        given = self.filters(_FILTERS)
        older = urlencode([*given, ("before", found.older)]) if found.older else ""
        self.page(
            "events", "events.title", error=error, problem=problem, found=found, given=dict(given),
            chosen=self.get_query_arguments("kind"), newest=urlencode(given), older=older,
            paged=bool(self.get_query_argument("before", "")),
            events=[event | {"shown": detail_words(event)} for event in found.events],
        )  # fmt: skip


class Export(EventsPage):
    """Export of all matching events, as a file."""

    async def get(self, form: str = "csv") -> None:
        """Send the file."""
        asked.heeded(self.request.query_arguments, asked.OF_EVENTS)
        wanted = replace(self.filtered(event_filter), limit=EXPORT_PAGE)

        async def page(before: str) -> tuple[list[Row], str]:
            found = await self.events(replace(wanted, before=before or wanted.before), form)
            return found.events, found.older

        await self.send_file(
            "events", form, FIELDS, page, lambda event: csv_cells(Event(**event)),
            lambda event: as_json(Event(**event)),
        )  # fmt: skip


class AlarmsPage(Page):
    """Alarms that last, and past ones."""

    async def get(self) -> None:
        """Show alarms, current ones first."""
        alarms, problem = await self.ask_if_there(self.sources.alarms)
        self.page("alarms", "alarms.title", alarms=alarms or [], problem=problem)


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


class Action(Page):
    """Base of what does as a form says."""

    def given(self, name: str) -> str:
        """Form field; empty where it is absent."""
        return self.get_body_argument(name, "")

    def go(self, path: str, done: str) -> None:
        """Redirect to a page that says that it is done."""
        self.redirect(f"{path}?done={done}", status=HTTPStatus.SEE_OTHER)

    def wrong(self, error: UrlwardError) -> str:
        """Set a status of failure, and return the reason."""
        absent = isinstance(error, NotConfiguredError)
        self.set_status(HTTPStatus.NOT_FOUND if absent else HTTPStatus.BAD_REQUEST)
        return str(error)


class Form(Action):
    """Base of the pages with forms."""

    async def get(self) -> None:
        """Show the page."""
        await self.show()

    async def show(self, error: str = "") -> None:
        """Show the page, with what is wrong."""
        raise NotImplementedError

    @asynccontextmanager
    async def then(self, path: str, done: str) -> AsyncIterator[None]:
        """Do what was asked for, and redirect to a page that says so; where it fails, show this one."""
        try:
            yield
        except UrlwardError as e:
            await self.show(self.wrong(e))
        else:
            self.go(path, done)


class CheckPage(Form):
    """Page that checks a URL, and explains the result."""

    async def post(self) -> None:
        """Check the URL and show the result."""
        try:
            found = await self.ask(
                self.sources.check,
                asked.url(self.given("url")),
                asked.client(self.given("client")),
                asked.moment("at", self.given("at")),
            )
        except UrlwardError as e:
            await self.show(self.wrong(e))
        else:
            await self.show(found=found)

    async def show(self, error: str = "", found: dict[str, Any] | None = None) -> None:
        """Show the form, and the result."""
        form = {name: self.given(name) for name in ("url", "client", "at")}
        self.page("check", "check.title", form=form, error=error, found=found)


class AllowsPage(Form):
    """Page of temporary allows."""

    async def post(self) -> None:
        """Make another allow."""
        async with self.then("/allows", "allowed"):
            await self.ask(
                self.sources.allow,
                asked.url(self.given("url")),
                asked.seconds(self.given("for")),
                asked.why(self.given("why")),
                self.who(),
                whole_host=self.given("host") == "yes",
            )

    async def show(self, error: str = "") -> None:
        """Show the page."""
        allows, problem = await self.ask_if_there(self.sources.allows)
        form = {name: self.given(name) for name in ("url", "for", "why", "host")}
        self.page(
            "allows",
            "allows.title",
            form=form,
            error=error,
            problem=problem,
            allows=allows or [],
            done=self.done(),
            trail=await self.beneath("allows"),
        )


class EndAllow(AllowsPage):
    """Handler that ends a temporary allow before its time."""

    async def post(self) -> None:
        """End the allow of that id."""
        async with self.then("/allows", "ended"):
            await self.ask(self.sources.end_allow, self.given("id"), asked.why(self.given("why")), self.who())


class FeedAction(ListsPage, Form):
    """Handler that fetches a feed now, or accepts a refused candidate."""

    async def get(self, _: str = "") -> None:
        """Redirect to the lists, for a page that was left."""
        self.redirect("/lists", status=HTTPStatus.SEE_OTHER)

    async def post(self, action: str) -> None:
        """Do it to the feed of that name."""
        name = self.given("name")
        async with self.then("/lists", "refreshing" if action == "refresh" else "accepted"):
            if action == "refresh":
                await self.ask(self.sources.refresh_feed, name)
            else:
                await self.ask(self.sources.accept_feed, name, asked.why(self.given("why")), self.who())


def shown_of(
    entries: Sequence[Row], before: str, revealed: Collection[str] = ()
) -> tuple[Sequence[Row], str]:
    """Those that a page shows, the last first, and the ``before`` of the next; empty where there is none.

    Args:
        entries: the first of them is shown last.
        before: id of one: those that are shown after it. One that is gone is as none.
        revealed: ids of those that are shown alone.
    """
    if revealed:
        return [row for row in entries if row["id"] in revealed], ""
    end = next((n for n, row in enumerate(entries) if row["id"] == before), len(entries))
    rows = entries[max(end - SHOWN, 0) : end][::-1]
    return rows, rows[-1]["id"] if end > SHOWN else ""


class ObjectionsPage(Form):
    """Page of objections to blocks."""

    async def post(self) -> None:
        """Decide one. Granted with a URL, that is allowed for a while."""
        async with self.then("/objections", "decided"):
            granted, reason = asked.grant(self.given), asked.why(self.given("why"))
            decide = self.sources.decide_objection
            await self.ask(decide, self.given("id"), reason, self.who(), granted=granted)

    async def show(self, error: str = "") -> None:
        """Show the page."""
        found, problem = await self.ask_if_there(self.sources.objections)
        before = self.get_query_argument("before", "")
        rows, older = shown_of((found or [])[::-1], before)
        form = {name: self.given(name) for name in ("id", "why", "url", "for", "host")}
        self.page(
            "objections", "objections.title", form=form, objections=rows, error=error, problem=problem,
            before=before, older=older, done=self.done(), trail=await self.beneath("objections"),
        )  # fmt: skip


class Login(Base):
    """Login page: takes a person's token for a session."""

    def get(self) -> None:
        """Show the form."""
        self.page("login", "login.title", error="")

    def post(self) -> None:
        """Begin a session."""
        now = self.context.clock()
        try:
            person = self.person_of(self.get_body_argument("token", ""), "login")
        except HTTPError as e:
            self.set_status(e.status_code)
            self.page("login", "login.title", error=str(e.reason))
            return
        sessions = self.context.sessions
        self.set_cookie(
            sessions.name,
            sessions.begin(person, now),
            httponly=True,
            secure=True,
            samesite="Strict",
            max_age=SESSION,
        )
        self.redirect("/", status=HTTPStatus.SEE_OTHER)


class Logout(Base):
    """Logout: ends the session."""

    async def post(self) -> None:
        """End the session for good: its cookie is worth nothing from here on."""
        visitor = self.current_user
        if isinstance(visitor, Visitor) and visitor.id:
            await self.ask(self.context.sessions.end, visitor, self.context.clock())
        self.clear_cookie(self.context.sessions.name, secure=True, httponly=True, samesite="Strict")
        self.redirect("/login", status=HTTPStatus.SEE_OTHER)


class LanguageChoice(Base):
    """Choice of a language, which a cookie keeps for a year."""

    def get(self) -> None:
        """Redirect to the first page, for an error's page that was left."""
        self.redirect("/", status=HTTPStatus.SEE_OTHER)

    def post(self) -> None:
        """Keep ``language``, and go ``back``."""
        chosen = self.get_body_argument("language", "")
        if chosen not in languages():
            raise HTTPError(HTTPStatus.BAD_REQUEST)
        back = self.get_body_argument("back", "/")
        self.set_cookie(
            self.language_cookie, chosen, httponly=True, secure=True, samesite="Strict", max_age=_YEAR
        )
        # Not to another site: a second slash, or a backslash that browsers read as one, begins a host.
        self.redirect(back if _LOCAL(back) else "/", status=HTTPStatus.SEE_OTHER)


class HealthPage(Base):
    """``/healthz``: whether this process works; needs no token."""

    as_json = True

    def get(self) -> None:
        """Answer 200 where it works, else 503."""
        self.answer(self.sources.health())

    def answer(self, well: bool, **more: Any) -> None:
        """Answer by how it is."""
        self.set_status(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)
        self.write_json({"status": "ok" if well else "failing", **more})


class ReadyPage(HealthPage):
    """``/readyz``: whether the filter has what it needs; needs no token."""

    def get(self) -> None:
        """Answer 200 where it is ready, else 503."""
        checks = dict(self.sources.ready())
        self.answer(all(checks.values()), checks=checks)


class MetricsText(Base):
    """``/metrics``: the exposition for Prometheus."""

    as_json = True

    def get(self) -> None:
        """Answer in Prometheus' text format."""
        text = self.sources.metrics_text()
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(text)
