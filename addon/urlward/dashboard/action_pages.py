"""The pages on which something is asked or done. What is typed there is in a body, never in an address."""

from http import HTTPStatus
from typing import Any

from urlward.dashboard import asked
from urlward.dashboard.pages import ListsPage, Page
from urlward.dashboard.sources import AbsentError
from urlward.engine.errors import UrlwardError


class Form(Page):
    """What the forms have in common."""

    def given(self, name: str) -> str:
        """A field, empty where it is not there."""
        return self.get_body_argument(name, "")

    def go(self, path: str, done: str) -> None:
        """Show a page anew, which says that it is done."""
        self.redirect(f"{path}?done={done}", status=HTTPStatus.SEE_OTHER)

    def who(self) -> str:
        """Whose doing it is, for the record."""
        visitor = self.current_user
        return f"{visitor.name if visitor else ''} (dashboard)"

    def wrong(self, error: UrlwardError) -> str:
        """Say that it was not done, and why."""
        absent = isinstance(error, AbsentError)
        self.set_status(HTTPStatus.NOT_FOUND if absent else HTTPStatus.BAD_REQUEST)
        return str(error)


class CheckPage(Form):
    """What a URL gets, and why."""

    def get(self) -> None:
        """The form."""
        self._show()

    async def post(self) -> None:
        """The answer."""
        try:
            found = await self.ask(
                self.sources.check,
                asked.url(self.given("url")),
                asked.client(self.given("client")),
                asked.moment("at", self.given("at")),
            )
        except UrlwardError as e:
            self._show(error=self.wrong(e))
        else:
            self._show(found=found)

    def _show(self, error: str = "", found: dict[str, Any] | None = None) -> None:
        form = {name: self.given(name) for name in ("url", "client", "at")}
        self.page("check", "Check a URL", form=form, error=error, found=found)


class AllowsPage(Form):
    """What is excused for a while."""

    async def get(self) -> None:
        """Those in force, and the form."""
        await self._show()

    async def post(self) -> None:
        """Another one."""
        try:
            await self.ask(
                self.sources.allow,
                asked.url(self.given("url")),
                asked.seconds(self.given("for")),
                asked.why(self.given("why")),
                self.who(),
                whole_host=self.given("host") == "yes",
            )
        except UrlwardError as e:
            await self._show(self.wrong(e))
        else:
            self.go("/allows", "allowed")

    async def _show(self, error: str = "") -> None:
        allows, problem = await self.ask_if_there(self.sources.allows)
        form = {name: self.given(name) for name in ("url", "for", "why", "host")}
        self.page(
            "allows", "Allows", form=form, error=error, problem=problem, allows=allows or [], done=self.done()
        )


class EndAllow(AllowsPage):
    """Ends one before its time."""

    async def post(self) -> None:
        """By its id."""
        try:
            await self.ask(self.sources.end_allow, self.given("id"), asked.why(self.given("why")), self.who())
        except UrlwardError as e:
            await self._show(self.wrong(e))
        else:
            self.go("/allows", "ended")


class FeedAction(Form, ListsPage):
    """Fetches a feed now, or lets through what was refused."""

    async def get(self, _: str = "") -> None:
        """A page that was left; back to the lists."""
        self.redirect("/lists", status=HTTPStatus.SEE_OTHER)

    async def post(self, action: str) -> None:
        """By the feed's name."""
        name = self.given("name")
        try:
            if action == "refresh":
                await self.ask(self.sources.refresh_feed, name)
            else:
                await self.ask(self.sources.accept_feed, name, asked.why(self.given("why")), self.who())
        except UrlwardError as e:
            await self.show(self.wrong(e))
        else:
            self.go("/lists", "refreshing" if action == "refresh" else "accepted")


class ObjectionsPage(Form):
    """Objections to blocks."""

    async def get(self) -> None:
        """Open ones first."""
        await self._show()

    async def post(self) -> None:
        """Decide one. Granted with a URL, that is allowed for a while."""
        try:
            granted, reason = asked.grant(self.given), asked.why(self.given("why"))
            decide = self.sources.decide_objection
            await self.ask(decide, self.given("id"), reason, self.who(), granted=granted)
        except UrlwardError as e:
            await self._show(self.wrong(e))
        else:
            self.go("/objections", "decided")

    async def _show(self, error: str = "") -> None:
        found, problem = await self.ask_if_there(self.sources.objections)
        form = {name: self.given(name) for name in ("id", "why", "url", "for", "host")}
        self.page(
            "objections", "Objections", form=form, objections=found or [], error=error, problem=problem,
            done=self.done(),
        )  # fmt: skip
