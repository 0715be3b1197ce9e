"""Pages and API by which the configuration is edited, and feeds are paused and rolled back."""

from http import HTTPStatus
from typing import Any

from urlward.dashboard import asked
from urlward.dashboard.api import Api
from urlward.dashboard.editing import is_table
from urlward.dashboard.forms import FIELDS, shown, values_of
from urlward.dashboard.handler import Base
from urlward.dashboard.pages import Form, Page
from urlward.dashboard.roles import Route
from urlward.dashboard.sources import AdminError, Row
from urlward.engine.errors import UrlwardError

CONFIGURATION = "/configuration"


class ConfigurationPage(Page):
    """Page of all that is edited, with whether it is in force."""

    async def get(self) -> None:
        """Show it."""
        found, problem = await self.ask_if_there(self.sources.editor.overview)
        self.page(
            "configuration",
            "edit.title",
            done=self.done(),
            found=found,
            problem=problem,
            trail=await self.beneath("configuration"),
        )


class TablePage(Form):
    """Page of one table: a form by which it is added or changed."""

    async def get(self, kind: str) -> None:
        """Show the table, or the form for a new one."""
        at = self.get_query_argument("at", "")
        row = await self.ask(self.sources.editor.table, kind, at) if is_table(kind, at) else None
        seen = row["seen"] if row else await self.ask(self.sources.editor.seen, at)
        self._show(kind, at, row, shown(kind, row["values"] if row else {}), seen=seen)

    async def post(self, kind: str) -> None:
        """Save the table, remove it, or try what a feed would fetch."""
        at, seen, do, editor = self.given("at"), self.given("seen"), self.given("do"), self.sources.editor
        form = {field.name: self.given(field.name) for field in FIELDS[kind]}
        row = None
        try:
            row = await self.ask(editor.table, kind, at) if is_table(kind, at) else None
            if do == "remove":
                await self.ask(editor.remove, kind, at, self.who(), seen=seen)
                self.go(CONFIGURATION, "removed")
                return
            values = values_of(kind, form, row and row["values"], row["others"] if row else ())
            if do == "try":
                tried = await self.ask(editor.attempt, at, values)
                self._show(kind, at, row, form, tried=tried)
                return
            await self.ask(editor.save, kind, at, values, self.who(), seen=seen)
        except UrlwardError as e:
            self._show(kind, at, row, form, error=self.wrong(e))
        else:
            self.go(CONFIGURATION, "saved")

    def _show(
        self,
        kind: str,
        at: str,
        row: Row | None,
        form: dict[str, str],
        *,
        seen: str = "",
        error: str = "",
        tried: Row | None = None,
    ) -> None:
        # What was typed into a form counts against the file as it was when that was loaded.
        seen = self.given("seen") if self.request.method == "POST" else seen
        others = row["others"] if row else []
        self.page(
            "edit_table", f"edit.{kind}" if row else f"edit.new_{kind}", kind=kind, at=at, row=row, form=form,
            fields=FIELDS[kind], seen=seen, others=others, error=error, tried=tried,
        )  # fmt: skip


class FeedEdit(Form):
    """Handler that pauses, resumes, rolls back or releases a feed."""

    async def post(self, action: str) -> None:
        """Do it to the feed of that name."""
        name = self.given("name")
        try:
            await do_to_feed(self, action, name, self.given("why"), self.given("serial"), self.who())
        except UrlwardError as e:
            await show_versions(self, name, self.wrong(e))
        else:
            self.go(CONFIGURATION if action in ("pause", "resume") else "/lists", _DONE[action])


class VersionsPage(Page):
    """Page of the earlier lists of a feed."""

    async def get(self) -> None:
        """Show them, with the form to roll back to one."""
        await show_versions(self, self.get_query_argument("name", ""))


_DONE = {"pause": "paused", "resume": "resumed", "rollback": "rolled_back", "release": "released"}


async def show_versions(page: Page, name: str, error: str = "") -> None:
    """Answer with the page of a feed's earlier lists."""
    found, problem = await page.ask_if_there(page.sources.versions, name)
    page.page(
        "versions", "versions.title", name=name, found=found, problem=problem, error=error,
        trail=await page.beneath("lists"),
    )  # fmt: skip


async def do_to_feed(handler: Base, action: str, name: str, why: str, serial: str, who: str) -> Any:
    """Pause, resume, roll back or release a feed.

    Raises:
        UrlwardError: that cannot be.
    """
    sources = handler.sources
    if action in ("pause", "resume"):
        row = await handler.ask(sources.editor.feed, name)
        values = {"paused": True if action == "pause" else None}
        return await handler.ask(sources.editor.save, "feed", row["at"], values, who, seen=row["seen"])
    if action == "release":
        return await handler.ask(sources.release_feed, name, asked.why(why), who)
    return await handler.ask(sources.roll_back_feed, name, asked.serial(serial), asked.why(why), who)


class ConfigurationApi(Api):
    """All that is edited."""

    async def get(self) -> None:
        """Return it."""
        self.write_json(await self.ask(self.sources.editor.overview))


class TableApi(Api):
    """Tables of the configuration."""

    async def post(self, kind: str) -> None:
        """``do``: ``save`` (a new table where ``at`` is none), ``remove``, or ``try`` for a feed; ``at`` and
        ``seen`` as `ConfigurationApi` has them, and the fields of the form."""
        body = self.body("do", "at", "seen", *(field.name for field in FIELDS[kind]))
        do, at, seen, who = body.get("do", "save"), body.get("at", ""), body.get("seen", ""), self.who()
        editor = self.sources.editor
        row = await self.ask(editor.table, kind, at) if is_table(kind, at) else None
        values = values_of(kind, body, row and row["values"], row["others"] if row else ())
        if do == "remove":
            await self.ask(editor.remove, kind, at, who, seen=seen)
            self.write_json({"removed": at})
        elif do == "try" and kind == "feed":
            self.write_json(await self.ask(editor.attempt, at, values))
        elif do == "save":
            made = await self.ask(editor.save, kind, at, values, who, seen=seen)
            self.set_status(HTTPStatus.OK if row else HTTPStatus.CREATED)
            self.write_json({"saved": made["at"]})
        else:
            raise AdminError("do: save, remove, or try for a feed")


class FeedEditApi(Api):
    """Further actions on a feed."""

    async def get(self, name: str, action: str) -> None:
        """Return its ``versions``."""
        if action != "versions":
            raise AdminError("There is nothing to read there.")
        self.write_json(await self.ask(self.sources.versions, name))

    async def post(self, name: str, action: str) -> None:
        """Do ``pause``, ``resume``, ``rollback`` (``why``, and ``serial`` or the one before) or ``release``
        (``why``)."""
        if action == "versions":
            raise AdminError("There is nothing to do there.")
        body = self.body("why", "serial")
        await do_to_feed(self, action, name, body.get("why", ""), body.get("serial", ""), self.who())
        self.write_json({_DONE[action]: name})


_KINDS, _ACTIONS = "|".join(FIELDS), "|".join(_DONE)

ROUTES = (
    # What is configured names networks, hosts and files, which are for operators.
    Route(CONFIGURATION, ConfigurationPage, get="operator"),
    Route(f"{CONFIGURATION}/({_KINDS})", TablePage, get="operator", post="operator"),
    Route(f"/feeds/({_ACTIONS})", FeedEdit, post="operator"),
    Route("/lists/versions", VersionsPage, get="viewer"),
    Route("/api/configuration", ConfigurationApi, get="operator"),
    Route(f"/api/configuration/({_KINDS})", TableApi, post="operator"),
    Route(f"/api/feeds/([^/]{{1,64}})/({_ACTIONS}|versions)", FeedEditApi, get="viewer", post="operator"),
)
"""Routes of what is here."""
