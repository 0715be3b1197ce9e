"""People at the dashboard: the page where operators add and remove them, and the same for scripts."""

from http import HTTPStatus
from typing import Any

from urlward.dashboard import asked
from urlward.dashboard.api import Api
from urlward.dashboard.handler import Base
from urlward.dashboard.pages import Form
from urlward.engine.errors import UrlwardError
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

    async def get(self) -> None:
        """Show them, and the form."""
        await self.show()

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
        try:
            await self.remove(self.given("name"))
        except UrlwardError as e:
            await self.show(error=self.wrong(e))
        else:
            self.go("/people", "person_removed")


class GiveRole(PeoplePage):
    """Handler that gives a person another role."""

    async def post(self) -> None:
        """Give it to who has that name."""
        try:
            await self.give(self.given("name"), self.given("role"))
        except UrlwardError as e:
            await self.show(error=self.wrong(e))
        else:
            self.go("/people", "person_role")


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
