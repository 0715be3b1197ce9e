"""Pages with forms. What is typed there is in a request body, never in an address."""

from http import HTTPStatus
from typing import Any

from urlward.dashboard import asked
from urlward.dashboard.pages import ListsPage, Page
from urlward.dashboard.sources import NotConfiguredError
from urlward.engine.errors import UrlwardError


class Form(Page):
    """Base of the pages with forms."""

    def given(self, name: str) -> str:
        """Form field; empty where it is absent."""
        return self.get_body_argument(name, "")

    def go(self, path: str, done: str) -> None:
        """Redirect to a page that says that it is done."""
        self.redirect(f"{path}?done={done}", status=HTTPStatus.SEE_OTHER)

    def who(self) -> str:
        """The visitor's name, for the record."""
        visitor = self.current_user
        return f"{visitor.name if visitor else ''} (dashboard)"

    def wrong(self, error: UrlwardError) -> str:
        """Set a status of failure, and return the reason."""
        absent = isinstance(error, NotConfiguredError)
        self.set_status(HTTPStatus.NOT_FOUND if absent else HTTPStatus.BAD_REQUEST)
        return str(error)


class CheckPage(Form):
    """Page that checks a URL, and explains the result."""

    def get(self) -> None:
        """Show the form."""
        self._show()

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
            self._show(error=self.wrong(e))
        else:
            self._show(found=found)

    def _show(self, error: str = "", found: dict[str, Any] | None = None) -> None:
        form = {name: self.given(name) for name in ("url", "client", "at")}
        self.page("check", "Check a URL", form=form, error=error, found=found)


class AllowsPage(Form):
    """Page of temporary allows."""

    async def get(self) -> None:
        """Show those in force, and the form."""
        await self._show()

    async def post(self) -> None:
        """Make another allow."""
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
    """Handler that ends a temporary allow before its time."""

    async def post(self) -> None:
        """End the allow of that id."""
        try:
            await self.ask(self.sources.end_allow, self.given("id"), asked.why(self.given("why")), self.who())
        except UrlwardError as e:
            await self._show(self.wrong(e))
        else:
            self.go("/allows", "ended")


class FeedAction(Form, ListsPage):
    """Handler that fetches a feed now, or accepts a refused candidate."""

    async def get(self, _: str = "") -> None:
        """Redirect to the lists, for a page that was left."""
        self.redirect("/lists", status=HTTPStatus.SEE_OTHER)

    async def post(self, action: str) -> None:
        """Do it to the feed of that name."""
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
    """Page of objections to blocks."""

    async def get(self) -> None:
        """Show objections, open ones first."""
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
