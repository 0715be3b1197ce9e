"""Page and API of published lists: which version is offered to whom, and what an operator does about it."""

from urlward.dashboard import asked
from urlward.dashboard.api import Api
from urlward.dashboard.handler import ROLLOUTS
from urlward.dashboard.pages import Form
from urlward.dashboard.roles import Route
from urlward.engine.errors import UrlwardError

_DONE = {"rollback": "list_rolled_back", "release": "list_released", "promote": "list_promoted"}


class RolloutsPage(Form):
    """Page of published lists."""

    async def get(self) -> None:
        """Show them, with what can be done."""
        await self.show()

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
        try:
            serial, why = asked.serial(self.given("serial")), asked.why(self.given("why"))
            await self.ask(self.sources.act_on_rollout, action, self.given("name"), serial, why, self.who())
        except UrlwardError as e:
            await self.show(self.wrong(e))
        else:
            self.go(ROLLOUTS, _DONE[action])


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
