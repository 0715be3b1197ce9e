"""Pages of whoever operates the filter, and the same for scripts: people and their roles, the audit log and
its export, published lists and what is done about their versions, and the bundle for support.
"""

import asyncio
import json
import subprocess
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from tornado.web import HTTPError

from urlward.dashboard import asked
from urlward.dashboard.api import Api
from urlward.dashboard.handler import ROLLOUTS, Base, HandlerContext
from urlward.dashboard.pages import EXPORT_PAGE, Action, Form, Page
from urlward.dashboard.roles import Route
from urlward.dashboard.sources import NotConfiguredError, Row
from urlward.engine.errors import UrlwardError
from urlward.process import module_command
from urlward.records.event import plain_cell
from urlward.state.audit import append
from urlward.state.audit_view import TOPICS, ChangeQuery
from urlward.state.people import Person, add_person, change_role, person_row, read_people, remove_person


class _OfPeople(Base):
    """Common part of the page and the interface for scripts."""

    async def people(self) -> list[dict[str, Any]]:
        """Everybody, as rows."""
        people = await self.ask(read_people, self.context.state)
        return [person_row(one, self.context.clock()) for one in people]

    async def add(self, name: str, role: str, days: str) -> tuple[Person, str]:
        """Add a person; returns the token too."""
        good_for = asked.days(days)
        return await self.ask(
            add_person, self.context.state, name, role, self.who(), now=self.context.clock(), days=good_for
        )

    async def remove(self, name: str) -> Person:
        """Remove a person."""
        context = self.context
        return await self.ask(
            remove_person, context.state, name, self.who(), now=context.clock(), token_file=context.token_file
        )

    async def give(self, name: str, role: str) -> Person:
        """Give a person another role."""
        return await self.ask(
            change_role, self.context.state, name, role, self.who(), now=self.context.clock()
        )


class PeoplePage(Form, _OfPeople):
    """Page of the people."""

    async def post(self) -> None:
        """Add one, and show the token: no other page has it."""
        try:
            role = self.given("role") or "viewer"
            person, token = await self.add(self.given("name"), role, self.given("days"))
        except UrlwardError as e:
            await self.show(error=self.wrong(e))
        else:
            self.set_status(HTTPStatus.CREATED)
            await self.show(made=person.name, token=token)

    async def show(self, error: str = "", made: str = "", token: str = "") -> None:
        """Show the people; with a token, no form is filled in again."""
        form = {name: "" if token else self.given(name) for name in ("name", "role", "days")}
        self.page(
            "people", "people.title", people=await self.people(), form=form, error=error, made=made,
            token=token, done=self.done(), trail=await self.beneath("people"),
        )  # fmt: skip


class RemovePerson(PeoplePage):
    """Handler that removes a person."""

    async def post(self) -> None:
        """Remove who has that name."""
        async with self.then("/people", "person_removed"):
            await self.remove(self.given("name"))


class GiveRole(PeoplePage):
    """Handler that gives a person another role."""

    async def post(self) -> None:
        """Give it to who has that name."""
        async with self.then("/people", "person_role"):
            await self.give(self.given("name"), self.given("role"))


class PeopleApi(Api, _OfPeople):
    """People, for scripts."""

    async def get(self) -> None:
        """Return everybody."""
        self.write_json(await self.people())

    async def post(self) -> None:
        """Add one: ``name``, ``role``, and ``days``; the answer has the ``token``, once."""
        body = self.body("name", "role", "days")
        person, token = await self.add(body.get("name", ""), body.get("role", ""), body.get("days", ""))
        self.set_status(HTTPStatus.CREATED)
        self.write_json(person_row(person, self.context.clock()) | {"token": token})


class PersonApi(Api, _OfPeople):
    """Actions on a person, for scripts."""

    async def post(self, name: str, action: str) -> None:
        """Do ``remove``, or ``role`` with the ``role``."""
        if action == "remove":
            self.body()
            person = await self.remove(name)
        else:
            person = await self.give(name, self.body("role").get("role", ""))
        self.write_json(person_row(person, self.context.clock()))


COLUMNS = ("line", "time", "action", "who", "detail")

_FILTERS = ("kind", "who", "list", "since", "until")


class _OfAudit(Base):
    """Common part of the page, the export and the interface for scripts."""

    async def find(self, query: ChangeQuery) -> tuple[list[Row], str]:
        """Find lines as the visitor may see them, and the place before them."""
        return await self.ask(self.context.trail.find, query, self.role())


class AuditPage(Page, _OfAudit):
    """Page of who changed what."""

    async def get(self) -> None:
        """Show the lines that match the filters, and whether the chain holds."""
        rows, older, error = list[Row](), "", ""
        try:
            rows, older = await self.find(self.filtered(asked.change_query))
        except UrlwardError as e:
            self.set_status(400)
            error = str(e)
        verified, problem = await self.ask_if_there(self.context.trail.verified, self.context.steady())
        given = self.filters(_FILTERS)
        self.page(
            "audit", "audit.title", error=error, problem=problem, verified=verified, rows=rows,
            given=dict(given), chosen=self.get_query_arguments("kind"), topics=TOPICS,
            newest=urlencode(given), older=urlencode([*given, ("before", older)]) if older else "",
            paged=bool(self.get_query_argument("before", "")),
        )  # fmt: skip


class AuditExport(Page, _OfAudit):
    """Export of all matching lines, as a file."""

    async def get(self, form: str = "csv") -> None:
        """Send the file."""
        asked.heeded(self.request.query_arguments, asked.OF_AUDIT)
        wanted = replace(self.filtered(asked.change_query), limit=EXPORT_PAGE)

        async def page(before: str) -> tuple[list[Row], str]:
            return await self.find(replace(wanted, before=int(before)) if before else wanted)

        await self.send_file("audit", form, COLUMNS, page, _cells, dict)


class AuditApi(Api, _OfAudit):
    """Search in the audit log, for scripts."""

    async def get(self) -> None:
        """Return a page of lines, ``older`` being the ``before`` of the next, and whether the chain holds."""
        asked.heeded(self.request.query_arguments, asked.OF_AUDIT)
        rows, older = await self.find(self.filtered(asked.change_query, 100))
        verified = await self.ask(self.context.trail.verified, self.context.steady())
        self.write_json(
            {"changes": rows, "older": older or None, "holds": verified.holds, "said": verified.words}
        )


def _cells(row: Row) -> list[str]:
    written = {**row, "line": row["line"] or "", "detail": json.dumps(row["detail"])}
    return [plain_cell(str(written[name])) for name in COLUMNS]


_DONE = {"rollback": "list_rolled_back", "release": "list_released", "promote": "list_promoted"}


class RolloutsPage(Form):
    """Page of published lists."""

    async def show(self, error: str = "") -> None:
        """Show the page."""
        found, problem = await self.ask_if_there(self.sources.rollouts)
        self.page(
            "rollouts", "rollouts.title", error=error, problem=problem, done=self.done(), found=found,
            trail=await self.beneath("lists"),
        )  # fmt: skip


class RolloutAction(RolloutsPage):
    """Handler that rolls a published list back, releases or promotes it."""

    async def get(self, _: str = "") -> None:
        """Redirect to the lists, for a page that was left."""
        self.redirect(ROLLOUTS, status=303)

    async def post(self, action: str) -> None:
        """Do it to the list of that name."""
        async with self.then(ROLLOUTS, _DONE[action]):
            serial, why = asked.serial(self.given("serial")), asked.why(self.given("why"))
            await self.ask(self.sources.act_on_rollout, action, self.given("name"), serial, why, self.who())


class RolloutApi(Api):
    """Actions on a published list."""

    async def post(self, name: str, action: str) -> None:
        """Do ``rollback`` (to ``serial``, or the version before), ``release`` or ``promote``, with
        ``why``."""
        body = self.body("why", "serial")
        serial, why = asked.serial(body.get("serial", "")), asked.why(body.get("why", ""))
        said = await self.ask(self.sources.act_on_rollout, action, name, serial, why, self.who())
        self.write_json({"said": said})


_ACTIONS = "|".join(_DONE)

ROUTES = (
    Route(ROLLOUTS, RolloutsPage, get="viewer"),
    Route(f"{ROLLOUTS}/({_ACTIONS})", RolloutAction, get="viewer", post="operator"),
    Route(f"/api{ROLLOUTS}/([^/]{{1,64}})/({_ACTIONS})", RolloutApi, post="operator"),
)
"""Routes of what is here."""


WITHIN = 120.0
"""Seconds that a bundle may take."""


class _OfSupport(Base):
    """Common part of the button and the interface for scripts."""

    async def send_bundle(self) -> None:
        """Send a bundle; one is made at a time.

        Raises:
            HTTPError: 429 while another is made.
            UrlwardError: none could be made.
        """
        context = self.context
        if context.bundling.locked():
            self._wait = WITHIN / 4
            raise HTTPError(HTTPStatus.TOO_MANY_REQUESTS, reason="A bundle is being made already")
        async with context.bundling:
            await self.ask(append, context.state, self.who(), "support-bundle", context.clock())
            data = await made_bundle(context)
        self.set_header("Content-Type", "application/zip")
        self.set_header("Content-Disposition", 'attachment; filename="urlward-support.zip"')
        await self.finish(data)


class SupportButton(Action, _OfSupport):
    """Handler of the button."""

    async def post(self) -> None:
        """Send a bundle."""
        await self.send_bundle()


class SupportApi(Api, _OfSupport):
    """Bundle for scripts."""

    async def post(self) -> None:
        """Send a bundle."""
        self.body()
        await self.send_bundle()


async def made_bundle(context: HandlerContext) -> bytes:
    """Have a bundle made by ``urlward support``, in a process of its own: it has time for what hangs, and its
    memory goes with it.

    Raises:
        NotConfiguredError: there is no configuration file.
        UrlwardError: it could not be made, or not in time.
    """
    if context.config is None:
        raise NotConfiguredError("A bundle is of a configuration file, and there is none.")
    line = ("support", "--output", "-", "--config", str(context.config), "--state", str(context.state))
    process = await asyncio.create_subprocess_exec(
        *module_command("urlward", *line), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        data, _ = await asyncio.wait_for(process.communicate(), WITHIN)
    except TimeoutError as e:
        raise UrlwardError(f"bundle: not made within {WITHIN:.0f} s") from e
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise UrlwardError("bundle: not made; `urlward support -o FILE` says why")
    return data
