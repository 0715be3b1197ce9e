"""Page and API of own entries: added, removed, and revealed one by one."""

from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import cast, get_args

from urlward.dashboard import asked
from urlward.dashboard.api import Api, Shown
from urlward.dashboard.pages import Form
from urlward.dashboard.roles import Route
from urlward.dashboard.sources import AdminError, Row
from urlward.engine.errors import UrlwardError
from urlward.feeds.own import UnsureError
from urlward.policy.own import Draft, Meant, draft

PAGE = "/own"
SHOWN = 100
"""Entries on a page, which is made on the event loop: there may be a hundred thousand."""

_FIELDS = ("entry", "as", "allow", "category", "note", "expires", "sure")
_MEANT = get_args(Meant)


def asked_draft(given: dict[str, str]) -> Draft:
    """The entry that a form or a script has given.

    Raises:
        UrlwardError: it is none.
    """
    meant = given.get("as") or "entry"
    if meant not in _MEANT:
        raise AdminError(f"as: one of {', '.join(_MEANT)}")
    text = given.get("entry", "").strip()
    if not text or len(text) > asked.MAX_URL or "\n" in text:
        raise AdminError("entry: one line is needed")
    return draft(
        text, cast("Meant", meant), allow=given.get("allow") == "yes", category=given.get("category", ""),
        note=given.get("note", ""), expires=given.get("expires", ""),
    )  # fmt: skip


class OwnPage(Form):
    """Page of own entries."""

    async def get(self) -> None:
        """Show them, and the form."""
        await self.show()

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
            self.go(PAGE, "own_added")

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


def shown_of(
    entries: Sequence[Row], before: str, revealed: Collection[str] = ()
) -> tuple[Sequence[Row], str]:
    """Those that a page shows, the newest first, and the ``before`` of the next; empty where there is none.

    Args:
        entries: in the order of adding.
        before: id of an entry: those that are older. One that is gone is as none.
        revealed: ids of those that are shown alone.
    """
    if revealed:
        return [row for row in entries if row["id"] in revealed], ""
    end = next((n for n, row in enumerate(entries) if row["id"] == before), len(entries))
    rows = entries[max(end - SHOWN, 0) : end][::-1]
    return rows, rows[-1]["id"] if end > SHOWN else ""


class OwnAction(OwnPage):
    """Handler that removes or reveals an entry."""

    async def get(self, _: str = "") -> None:
        """Redirect to the entries, for a page that was left."""
        self.redirect(PAGE, status=HTTPStatus.SEE_OTHER)

    async def post(self, action: str) -> None:  # type: ignore[override]
        """Do it to the entry of that id."""
        id_ = self.given("id")
        try:
            if action == "remove":
                await self.ask(self.sources.remove_own, id_, asked.why(self.given("why")), self.who())
                self.go(PAGE, "own_removed")
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
    Route(PAGE, OwnPage, get="viewer", post="operator"),
    Route(f"{PAGE}/(remove|reveal)", OwnAction, get="viewer", post="operator"),
    Route("/api/own", OwnApi, get="viewer", post="operator", more={"name": "own"}),
    Route("/api/own/([^/]{1,64})/(remove|reveal)", OwnActionApi, post="operator"),
)
"""Routes of what is here."""
