"""Tornado application of the dashboard, and its HTTP server."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, StaticFileHandler

from urlward.config.tables import named_address
from urlward.dashboard import api, edit_pages, operator_pages, pages
from urlward.dashboard.handler import SECURITY, STATIC, HandlerContext, Missing, Sessions, WrongGuesses
from urlward.dashboard.live_sources import LiveSources
from urlward.dashboard.roles import ANYBODY, RolesNeeded, Route
from urlward.dashboard.trail import AuditTrail
from urlward.engine.errors import UrlwardError
from urlward.records.bounded_server import BoundedServer, Held
from urlward.records.reading import Readings
from urlward.state.people import People, admit

MAX_BODY = 64 << 10
MAX_HEAD = 16 << 10
MAX_IDLE = 75.0
"""Seconds that a connection may be quiet, and a body may take."""

THREADS = 16
"""Requests at a time that wait for a store or a file; a few may wait long."""


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """Dashboard settings.

    Attributes:
        state: the state folder, where the people and the sessions' secret are.
        token_file: of the first person; relative ones are from the state folder.
        node: this machine's name, shown on each page.
        config: the filter's configuration file.
        clock: seconds since 1970-01-01 UTC.
        steady: seconds that never go back.
        attempts: to guess a token.
    """

    state: Path
    token_file: str = "admin.token"  # noqa: S105 - the file's name
    node: str = ""
    config: Path | None = None
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    attempts: WrongGuesses = field(default_factory=WrongGuesses)


class _Static(StaticFileHandler):
    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in SECURITY.items():
            self.set_header(name, value)

    def log_exception(self, *_: Any) -> None:
        pass

    def parse_url_path(self, url_path: str) -> str:
        if "\0" in url_path:  # which no path can have
            raise HTTPError(404)
        return super().parse_url_path(url_path)


ROUTES = (
    Route("/", pages.NowPage, get="viewer"),
    Route("/history", pages.HistoryPage, get="viewer"),
    Route("/lists", pages.ListsPage, get="viewer"),
    Route("/feeds/(refresh|accept)", pages.FeedAction, get="viewer", post="operator"),
    Route("/events", pages.EventsPage, get="viewer"),
    Route(r"/events\.(csv|jsonl)", pages.Export, get="viewer"),
    Route("/check", pages.CheckPage, get="viewer", post="viewer"),
    Route("/alarms", pages.AlarmsPage, get="viewer"),
    Route("/allows", pages.AllowsPage, get="viewer", post="operator"),
    Route("/allows/end", pages.EndAllow, get="viewer", post="operator"),
    Route("/objections", pages.ObjectionsPage, get="viewer", post="operator"),
    Route("/people", operator_pages.PeoplePage, get="operator", post="operator"),
    Route("/people/remove", operator_pages.RemovePerson, get="operator", post="operator"),
    Route("/people/role", operator_pages.GiveRole, get="operator", post="operator"),
    Route("/audit", operator_pages.AuditPage, get="viewer"),
    Route(r"/audit\.(csv|jsonl)", operator_pages.AuditExport, get="viewer"),
    Route("/support", operator_pages.SupportButton, post="operator"),
    Route("/login", pages.Login, get=ANYBODY, post=ANYBODY),
    Route("/logout", pages.Logout, post="viewer"),
    Route("/language", pages.LanguageChoice, get=ANYBODY, post=ANYBODY),
    Route("/healthz", pages.HealthPage, get=ANYBODY),
    Route("/readyz", pages.ReadyPage, get=ANYBODY),
    Route("/metrics", pages.MetricsText, get="viewer"),
    Route("/api/now", api.NowApi, get="viewer"),
    Route("/api/history", api.HistoryApi, get="viewer"),
    Route("/api/events", api.EventsApi, get="viewer"),
    Route("/api/check", api.CheckApi, post="viewer"),
    Route("/api/allows", api.AllowsApi, get="viewer", post="operator", more={"name": "allows"}),
    Route("/api/allows/([^/]{1,64})/end", api.EndAllowApi, post="operator"),
    Route("/api/feeds/([^/]{1,64})/(refresh|accept)", api.FeedApi, post="operator"),
    Route("/api/objections/([^/]{1,64})", api.ObjectionApi, post="operator"),
    Route("/api/audit", operator_pages.AuditApi, get="viewer"),
    Route("/api/support", operator_pages.SupportApi, post="operator"),
    Route("/api/people", operator_pages.PeopleApi, get="operator", post="operator"),
    Route("/api/people/([^/]{1,200})/(remove|role)", operator_pages.PersonApi, post="operator"),
    *(
        Route(f"/api/{name}", api.Shown, get="viewer", more={"name": name})
        for name in ("lists", "hits", "feeds", "alarms", "objections", "nodes", "rollouts")
    ),
    *edit_pages.ROUTES,
    *operator_pages.ROUTES,
)
"""All that the dashboard serves, and who may use it."""


def make_app(sources: LiveSources, settings: DashboardSettings) -> Application:
    """The application; the first person's token is made where there is none.

    Raises:
        UrlwardError: the token cannot be used.
        StateError: the state folder cannot be used.
    """
    state, token_file = settings.state, settings.state / settings.token_file
    admit(state, token_file, settings.clock())
    known = People(state)
    sessions = Sessions(state, known)
    executor = ThreadPoolExecutor(THREADS, "admin")
    context = HandlerContext(
        sources, known, sessions, RolesNeeded(ROUTES), AuditTrail(state),
        Readings(state, settings.clock), state, settings.config, token_file, executor, settings.node,
        settings.clock, settings.steady, settings.attempts,
    )  # fmt: skip
    shared = {"context": context}
    routes: list[Any] = [
        (one.pattern, one.handler, {**shared, "access": one.access, **one.more}) for one in ROUTES
    ]
    return Application(
        routes,
        default_handler_class=Missing,
        default_handler_args=shared,
        static_path=str(STATIC),
        static_handler_class=_Static,
        xsrf_cookies=True,
        # Other programs of this machine that use Tornado have theirs, and cookies know no ports.
        xsrf_cookie_name=f"{sessions.name}-form",
        xsrf_cookie_kwargs={"secure": True, "httponly": True, "samesite": "Strict"},
        # An address in an access log would have in it what somebody searches for.
        log_function=lambda _: None,
    )


def serve(app: Application, listen: str, held: Held | None = None) -> HTTPServer:
    """Serve it on the event loop that runs, until the server is stopped.

    Args:
        app: of `make_app`.
        listen: ``HOST:PORT``, such as ``127.0.0.1:8088`` or ``[::1]:8088``. Over HTTP, browsers send the
            cookies to this machine only; others come through a proxy with HTTPS.
        held: sockets that are there.

    Raises:
        UrlwardError: no such address, or one that is in use.
    """
    host, port = named_address("admin", listen, lowest=0)
    # Its warnings would have in them what a client has sent.
    logging.getLogger("tornado.general").setLevel(logging.CRITICAL)
    server = BoundedServer(
        app,
        max_body_size=MAX_BODY,
        max_header_size=MAX_HEAD,
        idle_connection_timeout=MAX_IDLE,
        body_timeout=MAX_IDLE,
    )
    try:
        server.listen_at(host, port, held or {})
    except OSError as e:
        raise UrlwardError(f"admin: cannot listen on {listen}: {e.strerror or e}") from e
    return server
