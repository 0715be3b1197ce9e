"""Tornado application of the dashboard, and its HTTP server."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, StaticFileHandler

from urlward.config.tables import split_address
from urlward.dashboard import api, edit_pages, own_pages, pages
from urlward.dashboard.handler import SECURITY, STATIC, HandlerContext, Missing, Sessions
from urlward.dashboard.live_sources import LiveSources
from urlward.dashboard.sources import AdminError
from urlward.records.bounded_server import BoundedServer
from urlward.state.token import read_token

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
        state: the state folder, where the token and the sessions' secret are.
        token_file: relative ones are from the state folder.
        node: this machine's name, shown on each page.
        clock: seconds since 1970-01-01 UTC.
        steady: seconds that never go back.
    """

    state: Path
    token_file: str = "admin.token"  # noqa: S105 - the file's name
    node: str = ""
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic


class _Static(StaticFileHandler):
    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in SECURITY.items():
            self.set_header(name, value)

    def log_exception(self, *_: Any) -> None:
        pass


def make_app(sources: LiveSources, settings: DashboardSettings) -> Application:
    """The application; the token is made where there is none.

    Raises:
        AdminError: the token cannot be used.
        StateError: the state folder cannot be used.
    """
    token = read_token(settings.state / settings.token_file)
    sessions = Sessions(settings.state, token)
    executor = ThreadPoolExecutor(THREADS, "admin")
    context = HandlerContext(sources, sessions, executor, settings.node, settings.clock, settings.steady)
    shared = {"context": context}
    shown = [
        (f"/api/{name}", api.Shown, shared | {"name": name})
        for name in ("lists", "hits", "feeds", "alarms", "objections")
    ]
    routes: list[Any] = [
        ("/", pages.NowPage, shared),
        ("/history", pages.HistoryPage, shared),
        ("/lists", pages.ListsPage, shared),
        ("/feeds/(refresh|accept)", pages.FeedAction, shared),
        ("/events", pages.EventsPage, shared),
        (r"/events\.(csv|jsonl)", pages.Export, shared),
        ("/check", pages.CheckPage, shared),
        ("/alarms", pages.AlarmsPage, shared),
        ("/allows", pages.AllowsPage, shared),
        ("/allows/end", pages.EndAllow, shared),
        ("/objections", pages.ObjectionsPage, shared),
        ("/login", pages.Login, shared),
        ("/logout", pages.Logout, shared),
        ("/language", pages.LanguageChoice, shared),
        ("/healthz", pages.HealthPage, shared),
        ("/readyz", pages.ReadyPage, shared),
        ("/metrics", pages.MetricsText, shared),
        ("/api/now", api.NowApi, shared),
        ("/api/history", api.HistoryApi, shared),
        ("/api/events", api.EventsApi, shared),
        ("/api/check", api.CheckApi, shared),
        ("/api/allows", api.AllowsApi, shared | {"name": "allows"}),
        ("/api/allows/([^/]{1,64})/end", api.EndAllowApi, shared),
        ("/api/feeds/([^/]{1,64})/(refresh|accept)", api.FeedApi, shared),
        ("/api/objections/([^/]{1,64})", api.ObjectionApi, shared),
        *shown,
        *edit_pages.routes(shared),
        *own_pages.routes(shared),
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


def serve(app: Application, listen: str) -> HTTPServer:
    """Serve it on the event loop that runs, until the server is stopped.

    Args:
        app: of `make_app`.
        listen: ``HOST:PORT``, such as ``127.0.0.1:8088`` or ``[::1]:8088``. Over HTTP, browsers send the
            cookies to this machine only; others come through a proxy with HTTPS.

    Raises:
        AdminError: no such address, or one that is in use.
    """
    host, port = parse_listen(listen)
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
        sockets = bind_sockets(port, host)
    except OSError as e:
        raise AdminError(f"admin: cannot listen on {listen}: {e.strerror or e}") from e
    server.add_sockets(sockets)
    return server


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; an IPv6 address is in brackets.

    Raises:
        AdminError: something else.
    """
    try:
        return split_address(text, lowest=0)
    except ValueError as e:
        raise AdminError(f"admin: {e}") from e
