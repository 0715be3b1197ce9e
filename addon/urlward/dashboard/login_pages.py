"""Login and logout, and the endpoints for supervisors and Prometheus."""

from http import HTTPStatus

from tornado.web import HTTPError

from urlward.dashboard.handler import Base
from urlward.dashboard.sessions import MAX_NAME, SESSION, Visitor


class Login(Base):
    """Login page: takes the token for a session."""

    needs_token = False

    def get(self) -> None:
        """Show the form."""
        self.page("login", "Log in", error="", name="")

    def post(self) -> None:
        """Begin a session; `name` is who stands in the record for what is done in it."""
        name = " ".join(self.get_body_argument("name", "").split())
        if not name or not name.isprintable() or len(name) > MAX_NAME:
            self._again(HTTPStatus.BAD_REQUEST, f"A name is needed, of at most {MAX_NAME} characters.", "")
            return
        try:
            self.check_token(self.get_body_argument("token", ""), "login")
        except HTTPError as e:
            self._again(e.status_code, f"{e.reason}.", name)
            return
        sessions = self.context.sessions
        self.set_cookie(
            sessions.name,
            sessions.begin(name, self.context.clock()),
            httponly=True,
            secure=True,
            samesite="Strict",
            max_age=SESSION,
        )
        self.redirect("/", status=HTTPStatus.SEE_OTHER)

    def _again(self, status: int, error: str, name: str) -> None:
        self.set_status(status)
        self.page("login", "Log in", error=error, name=name)


class Logout(Base):
    """Logout: ends the session."""

    async def post(self) -> None:
        """End the session for good: its cookie is worth nothing from here on."""
        visitor = self.current_user
        if isinstance(visitor, Visitor) and visitor.id:
            await self.ask(self.context.sessions.end, visitor, self.context.clock())
        self.clear_cookie(self.context.sessions.name, secure=True, httponly=True, samesite="Strict")
        self.redirect("/login", status=HTTPStatus.SEE_OTHER)


class HealthPage(Base):
    """``/healthz``: whether this process works; needs no token."""

    needs_token = False
    as_json = True

    def get(self) -> None:
        """Answer 200 where it works, else 503."""
        well = self.sources.health()
        self.set_status(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)
        self.write_json({"status": "ok" if well else "failing"})


class ReadyPage(Base):
    """``/readyz``: whether the filter has what it needs; needs no token."""

    needs_token = False
    as_json = True

    def get(self) -> None:
        """Answer 200 where it is ready, else 503."""
        checks = dict(self.sources.ready())
        well = all(checks.values())
        self.set_status(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)
        self.write_json({"status": "ok" if well else "failing", "checks": checks})


class MetricsText(Base):
    """``/metrics``: the exposition for Prometheus."""

    as_json = True

    def get(self) -> None:
        """Answer in Prometheus' text format."""
        text = self.sources.metrics_text()
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(text)
