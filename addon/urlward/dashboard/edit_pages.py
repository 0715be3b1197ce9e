"""Pages and API by which the configuration is edited, feeds are paused and rolled back, and own entries are
added, removed, and revealed one by one.
"""

from http import HTTPStatus
from typing import Any, cast, get_args

from urlward.dashboard import asked
from urlward.dashboard.api import Api, Shown
from urlward.dashboard.editing import FIELDS, is_table, shown, values_of
from urlward.dashboard.handler import Base
from urlward.dashboard.pages import Action, Form, Page, shown_of
from urlward.dashboard.roles import Route
from urlward.dashboard.sources import Row
from urlward.engine.errors import UrlwardError
from urlward.feeds.own import UnsureError
from urlward.policy.own import Draft, Meant, draft

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


class TablePage(Action):
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


class FeedEdit(Action):
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
            raise UrlwardError("do: save, remove, or try for a feed")


class FeedEditApi(Api):
    """Further actions on a feed."""

    async def get(self, name: str, action: str) -> None:
        """Return its ``versions``."""
        if action != "versions":
            raise UrlwardError("There is nothing to read there.")
        self.write_json(await self.ask(self.sources.versions, name))

    async def post(self, name: str, action: str) -> None:
        """Do ``pause``, ``resume``, ``rollback`` (``why``, and ``serial`` or the one before) or ``release``
        (``why``)."""
        if action == "versions":
            raise UrlwardError("There is nothing to do there.")
        body = self.body("why", "serial")
        await do_to_feed(self, action, name, body.get("why", ""), body.get("serial", ""), self.who())
        self.write_json({_DONE[action]: name})


_KINDS, _ACTIONS = "|".join(FIELDS), "|".join(_DONE)


OWN = "/own"

_FIELDS = ("entry", "as", "allow", "category", "note", "expires", "sure")
_MEANT = get_args(Meant)


def asked_draft(given: dict[str, str]) -> Draft:
    """The entry that a form or a script has given.

    Raises:
        UrlwardError: it is none.
    """
    meant = given.get("as") or "entry"
    if meant not in _MEANT:
        raise UrlwardError(f"as: one of {', '.join(_MEANT)}")
    text = given.get("entry", "").strip()
    if not text or len(text) > asked.MAX_URL or "\n" in text:
        raise UrlwardError("entry: one line is needed")
    return draft(
        text, cast("Meant", meant), allow=given.get("allow") == "yes", category=given.get("category", ""),
        note=given.get("note", ""), expires=given.get("expires", ""),
    )  # fmt: skip


class OwnPage(Form):
    """Page of own entries."""

    async def post(self) -> None:
        """Add an entry."""
        given = {name: self.given(name) for name in _FIELDS}
        try:
            await self.ask(self.sources.add_own, asked_draft(given), self.who(), sure=given["sure"] == "yes")
        except UnsureError as e:
            self.set_status(HTTPStatus.BAD_REQUEST)
            await self.show(given=given, warnings=e.warnings)
        except UrlwardError as e:
            await self.show(self.wrong(e), given=given)
        else:
            self.go(OWN, "own_added")

    async def show(
        self,
        error: str = "",
        *,
        given: dict[str, str] | None = None,
        warnings: list[str] | None = None,
        revealed: dict[str, str] | None = None,
    ) -> None:
        """Show the page."""
        entries, problem = await self.ask_if_there(self.sources.own)
        rows, older = shown_of(entries or [], self.get_query_argument("before", ""), revealed or {})
        self.page(
            "own", "own.title", error=error, problem=problem, entries=rows, older=older, done=self.done(),
            paged=bool(self.get_query_argument("before", "")) or bool(revealed),
            form=dict.fromkeys(_FIELDS, "") | (given or {}), warnings=warnings or [], meant=_MEANT,
            revealed=revealed or {}, trail=await self.beneath("own"),
        )  # fmt: skip


class OwnAction(OwnPage):
    """Handler that removes or reveals an entry."""

    async def get(self, _: str = "") -> None:
        """Redirect to the entries, for a page that was left."""
        self.redirect(OWN, status=HTTPStatus.SEE_OTHER)

    async def post(self, action: str) -> None:  # type: ignore[override]
        """Do it to the entry of that id."""
        id_ = self.given("id")
        try:
            if action == "remove":
                await self.ask(self.sources.remove_own, id_, asked.why(self.given("why")), self.who())
                self.go(OWN, "own_removed")
                return
            line = await self.ask(self.sources.reveal_own, id_, self.who())
        except UrlwardError as e:
            await self.show(self.wrong(e))
        else:
            await self.show(revealed={id_: line})


class OwnApi(Shown):
    """Own entries."""

    async def post(self) -> None:
        """Add one: ``entry``, ``as`` (``entry``, or of a URL ``page``, ``below``, ``host``), ``allow``:
        ``yes``, ``category``, ``note``, ``expires``, and ``sure``: ``yes`` where it is wide or protected."""
        body = self.body(*_FIELDS)
        made = asked_draft(body)
        row = await self.ask(self.sources.add_own, made, self.who(), sure=body.get("sure") == "yes")
        self.set_status(HTTPStatus.CREATED)
        self.write_json(row)


class OwnActionApi(Api):
    """Actions on an own entry."""

    async def post(self, id_: str, action: str) -> None:
        """Do ``remove`` with ``why``, or ``reveal``."""
        body = self.body("why")
        if action == "remove":
            why = asked.why(body.get("why", ""))
            self.write_json(await self.ask(self.sources.remove_own, id_, why, self.who()))
        else:
            line = await self.ask(self.sources.reveal_own, id_, self.who())
            self.write_json({"id": id_, "entry": line})


ROUTES = (
    # What is configured names networks, hosts and files, which are for operators.
    Route(CONFIGURATION, ConfigurationPage, get="operator"),
    Route(f"{CONFIGURATION}/({_KINDS})", TablePage, get="operator", post="operator"),
    Route(f"/feeds/({_ACTIONS})", FeedEdit, post="operator"),
    Route("/lists/versions", VersionsPage, get="viewer"),
    Route("/api/configuration", ConfigurationApi, get="operator"),
    Route(f"/api/configuration/({_KINDS})", TableApi, post="operator"),
    Route(f"/api/feeds/([^/]{{1,64}})/({_ACTIONS}|versions)", FeedEditApi, get="viewer", post="operator"),
    Route(OWN, OwnPage, get="viewer", post="operator"),
    Route(f"{OWN}/(remove|reveal)", OwnAction, get="viewer", post="operator"),
    Route("/api/own", OwnApi, get="viewer", post="operator", more={"name": "own"}),
    Route("/api/own/([^/]{1,64})/(remove|reveal)", OwnActionApi, post="operator"),
)
"""Routes of what is here."""
