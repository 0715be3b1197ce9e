"""Public HTTP server for objections, with one page.

Block pages come from any host, over HTTP and TLS, and send no referrer; so a form that is posted here has no
origin that could be checked, and none is. There is nothing to forge: no cookie is read and none is set, and
what is written is heard by an operator, not by a machine. What keeps the place usable are limits: on the
size of a request, on how often a client and all clients together may write, on connections, and on time.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from urlward.config import Config, ObjectionsTable
from urlward.engine.digest import Key
from urlward.objections.desk import FAULTY, Conceal, Desk, Said
from urlward.objections.objections import Objection, ObjectionError
from urlward.objections.page import Rendered
from urlward.records.bounded_server import BoundedServer
from urlward.records.event import ReferenceTextError, parse_reference
from urlward.records.network import plain_address

logger = logging.getLogger("urlward.records")

IDLE, BODY_WITHIN = 20.0, 20.0
"""Seconds that a connection may be without a request, and that a body may take."""

_HEAD = 16 << 10
_LONGEST_CHARACTER = 12
"""Bytes of a character in a form: four of UTF-8, each as ``%XX``."""

_OTHERS = 1024
"""Bytes of a form that are not the message's."""


class ObjectionHandler(RequestHandler):
    """Handler of the one page."""

    def initialize(self, desk: Desk) -> None:
        """Called by Tornado."""
        self._desk = desk

    def set_default_headers(self) -> None:
        """Called by Tornado, before errors too."""
        self.clear_header("Server")
        for name, value in (
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.set_header(name, value)

    def get(self) -> None:
        """Show the form, with the reference that the URL has."""
        try:
            reference = parse_reference(self.get_query_argument("reference", ""))
        except ReferenceTextError:
            reference = ""
        self._send(self._desk.page.form(self._languages(), reference))

    async def post(self) -> None:
        """Take an objection; the reply does not tell whether there is such a reference."""
        request = self.request
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        # Browsers say so where a script asks and not a person who has sent a form.
        by_script = request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate"
        if kind != "application/x-www-form-urlencoded" or by_script:
            self._answer(FAULTY)
            return
        reference, message = (self.get_body_argument(name, "") for name in ("reference", "message"))
        self._answer(await self._desk.take(reference, message, self._client()))

    def log_exception(self, *error: Any) -> None:
        """Called by Tornado with uncaught exceptions; request addresses have references in them."""
        if not isinstance(error[1], HTTPError):
            logger.error("objections: %s", type(error[1]).__name__)

    def write_error(self, status_code: int, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Tornado for errors that have no response yet."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {self._reason}\n")

    def _client(self) -> str:
        """Client of a request: the last address in ``X-Forwarded-For`` that is no proxy of ours, said by
        one."""
        said = self.request.headers.get("X-Forwarded-For", "").split(",")
        address = self.request.remote_ip or ""
        try:
            found = plain_address(address)
            while found in self._desk.proxies and said:
                address = str(found := plain_address(said.pop().strip()))
        except ValueError:
            pass  # what is no address says nothing: it counts as from whom it came
        return address

    def _languages(self) -> str:
        return self.request.headers.get("Accept-Language", "")

    def _answer(self, said: Said) -> None:
        self.set_status(said.status)
        if said.wait:
            self.set_header("Retry-After", str(said.wait))
        self._send(self._desk.page.answer(self._languages(), said.outcome, said.reference))

    def _send(self, page: Rendered) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Language", page.language)
        self.set_header("Content-Security-Policy", page.policy)
        self.set_header("Vary", "Accept-Language")
        self.finish(page.body)


def serve_objections(desk: Desk, table: ObjectionsTable) -> HTTPServer | None:
    """Take objections on the configured address, in the running event loop; None where there is none.

    The caller ends it with ``stop()`` and ``await close_all_connections()``.

    Raises:
        ObjectionError: the address cannot be listened on.
    """
    if table.address is None:
        return None
    application = Application(
        [(r".*", ObjectionHandler, {"desk": desk})],
        # What is asked for has references in it.
        log_function=lambda _: None,
    )
    size = table.max_length * _LONGEST_CHARACTER + _OTHERS
    server = BoundedServer(
        application,
        max_header_size=_HEAD,
        max_body_size=size,
        max_buffer_size=_HEAD + size,
        chunk_size=_HEAD,
        idle_connection_timeout=IDLE,
        body_timeout=BODY_WITHIN,
    )
    host, port = table.address
    try:
        server.listen(port, host)
    except OSError as e:
        raise ObjectionError(f"objections.listen: {table.listen}: {e.strerror or e}") from e
    return server


def start_objections(
    config: Config, state: Path, key: Key, *, conceal: Conceal, taken: Callable[[Objection], None]
) -> HTTPServer | None:
    """As `serve_objections`, for a whole configuration; None where it says nothing of objections here.

    Raises:
        ObjectionError: a text or the address cannot be used.
    """
    table = config.objections
    if table is None or table.address is None:
        return None
    return serve_objections(Desk(table, config.page, state, key, conceal=conceal, taken=taken), table)


async def take_objections(
    config: Config,
    state: Path,
    key: Key,
    *,
    conceal: Conceal,
    taken: Callable[[Objection], None],
) -> None:
    """Take objections until cancelled.

    Args:
        config: of the filter.
        state: the state folder.
        key: its local key.
        conceal: see there.
        taken: is told of each.

    Raises:
        ObjectionError: a text or the address cannot be used.
    """
    server = start_objections(config, state, key, conceal=conceal, taken=taken)
    try:
        await asyncio.Future[None]()
    finally:
        if server is not None:
            server.stop()
            await server.close_all_connections()
