"""Public HTTP server for objections, with one page, in the block page's words and style.

Block pages come from any host, over HTTP and TLS, and send no referrer; so a form that is posted here has no
origin that could be checked, and none is. There is nothing to forge: no cookie is read and none is set, and
what is written is heard by an operator, not by a machine. What keeps the place usable are limits: on the size
of a request, on how often a client and all clients together may write, on connections, and on time.

Nobody looks whether a reference exists, so that no answer, nor the time that it takes, tells.
"""

import asyncio
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from urlward.config import ObjectionsTable, PageTable
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import Objection, add_objection, normal_message
from urlward.page.words import (
    SHARED,
    BlockPageError,
    choose_language,
    content_policy,
    encode,
    form_texts,
    load_texts,
    normal_tag,
)
from urlward.records.bounded_server import BoundedServer, Held
from urlward.records.event import parse_reference
from urlward.records.privacy import network_of, plain_address

_HOUR = 3600.0
_ADDRESS = re.compile(r"\s*(?:\[([0-9a-fA-F:.]+)\](?::\d+)?|(\d+(?:\.\d+){3}):\d+)\s*").fullmatch
"""An address in brackets or before a port, as IIS and Azure's gateways say it."""

Outcome = Literal["received", "faulty", "later"]

_HERE = Path(__file__).parent / "templates"


class RateLimit:
    """Rate limit: token buckets that hold an hour's worth and fill evenly.

    Args:
        per_hour: of each key.
        per_hour_all: in all.
        keys: that are remembered. Where there are more, the one that asked longest ago is forgotten, which
            gives it a full bucket again; the limit in all stays.
    """

    def __init__(self, per_hour: int, per_hour_all: int, keys: int = 10_000) -> None:
        self._per_hour = per_hour
        self._all_per_hour = per_hour_all
        self._all = (float(per_hour_all), 0.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._keys = keys

    def take(self, key: str, now: float) -> float:
        """Take one token, where the limit allows it.

        Args:
            key: whose.
            now: seconds on a clock that does not go back.

        Returns:
            0.0 where it may be; else the seconds until it may, and nothing is taken.
        """
        own = _filled(self._buckets.get(key, (float(self._per_hour), now)), self._per_hour, now)
        everyone = _filled(self._all, self._all_per_hour, now)
        wait = max(_until_one(own, self._per_hour), _until_one(everyone, self._all_per_hour))
        if wait:
            return wait
        self._all = (everyone - 1, now)
        self._buckets[key] = (own - 1, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._keys:
            self._buckets.popitem(last=False)
        return 0.0


def _filled(bucket: tuple[float, float], per_hour: int, now: float) -> float:
    level, since = bucket
    return min(level + max(now - since, 0.0) * per_hour / _HOUR, float(per_hour))


def _until_one(level: float, per_hour: int) -> float:
    return max(1 - level, 0.0) * _HOUR / per_hour


@dataclass(frozen=True, slots=True)
class Rendered:
    """Rendered page.

    Attributes:
        language: its tag.
        policy: of its content.
        body: HTML.
    """

    language: str
    policy: str
    body: bytes


class ObjectionPage:
    """Renderer of the objections server's pages.

    Args:
        page: the block page's texts and operator.
        max_length: characters of a message.

    Raises:
        UrlwardError: a text cannot be used; the message names its key.
    """

    def __init__(self, page: PageTable, max_length: int) -> None:
        try:
            self._texts = load_texts(page.texts)
            self._form = form_texts(self._texts)
        except BlockPageError as e:
            raise UrlwardError(f"page.{e}") from e
        self._operator = page.operator.strip()
        self._default = normal_tag(page.default_language)
        if self._default not in self._texts:
            raise UrlwardError(f"page.default_language: no texts for {page.default_language!r}")
        self._max_length = max_length
        environment = Environment(
            loader=FileSystemLoader([_HERE, SHARED]),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,  # as the package may be away, or be another, while it is upgraded
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("objection.html.j2")

    def form(self, languages: str, reference: str) -> Rendered:
        """Render the form.

        Args:
            languages: ``Accept-Language``.
            reference: filled in already; may be empty.
        """
        return self._render(languages, reference, None)

    def answer(self, languages: str, outcome: Outcome, reference: str = "") -> Rendered:
        """Render the reply to an objection."""
        return self._render(languages, reference, outcome)

    def _render(self, languages: str, reference: str, outcome: Outcome | None) -> Rendered:
        language = choose_language(languages, self._texts.keys(), self._default)
        source = self._texts[language]
        operator = self._operator or source["operator"]
        form = {key: text.format(operator=operator, list="") for key, text in self._form[language].items()}
        body = self._template.render(
            language=language,
            direction=source["direction"],
            title=form[f"{outcome}_title" if outcome else "title"],
            text=form[outcome] if outcome else "",
            form=None if outcome else form,
            reference=reference,
            reference_label=source["reference_label"],
            max_length=self._max_length,
        )
        return Rendered(language, content_policy(body, form_action="'self'", framed=False), encode(body))


logger = logging.getLogger("urlward.records")

_RETRY = 600
"""Seconds after which who is not heard may try again."""

type Conceal = Callable[[str, float], str]
"""What may be kept of a client's address, at a time in seconds since 1970-01-01 UTC."""


class Reply(NamedTuple):
    """Reply to an objection.

    Attributes:
        status: of the response.
        outcome: which page.
        reference: shown on it, or empty.
        wait: seconds after which it may be tried again, or 0.
    """

    status: HTTPStatus
    outcome: Outcome
    reference: str = ""
    wait: int = 0


FAULTY = Reply(HTTPStatus.BAD_REQUEST, "faulty")


class ObjectionDesk:
    """Desk: takes objections, within limits.

    Args:
        table: limits.
        page: the block page's texts.
        state: the state folder.
        key: its local key.
        conceal: see there.
        taken: is told of each, in the event loop.
        clock: seconds since 1970-01-01 UTC.
        timer: seconds on a clock that does not go back.

    Raises:
        UrlwardError: a text cannot be used; the message names its key.
    """

    def __init__(
        self,
        table: ObjectionsTable,
        page: PageTable,
        state: Path,
        key: Key,
        *,
        conceal: Conceal,
        taken: Callable[[Objection], None],
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.page = ObjectionPage(page, table.max_length)
        self.proxies = frozenset(map(plain_address, table.proxies))
        self._table = table
        self._state = state
        self._key = key
        self._conceal = conceal
        self._taken = taken
        self._clock = clock
        self._timer = timer
        self._limit = RateLimit(table.per_hour, table.per_hour_all)

    async def take(self, reference: str, message: str, address: str) -> Reply:
        """Take an objection.

        Args:
            reference: as typed.
            message: likewise.
            address: of the client.

        Returns:
            What to say.
        """
        try:
            reference = parse_reference(reference)
            message = normal_message(message, self._table.max_length)
        except UrlwardError:
            return FAULTY
        if wait := self._limit.take(network_of(address), self._timer()):
            return Reply(HTTPStatus.TOO_MANY_REQUESTS, "later", wait=math.ceil(wait))
        now = self._clock()
        try:
            client = self._conceal(address, now)
            objection = await asyncio.to_thread(
                add_objection, self._state, self._key, reference, message, client=client, now=now
            )
        except UrlwardError as e:
            logger.error("objections: one is lost: %s", e)
            return Reply(HTTPStatus.SERVICE_UNAVAILABLE, "later", wait=_RETRY)
        self._taken(objection)
        return Reply(HTTPStatus.OK, "received", reference)


IDLE, BODY_WITHIN = 20.0, 20.0
"""Seconds that a connection may be without a request, and that a body may take."""

_HEAD = 16 << 10
_LONGEST_CHARACTER = 12
"""Bytes of a character in a form: four of UTF-8, each as ``%XX``."""

_OTHERS = 1024
"""Bytes of a form that are not the message's."""


class ObjectionHandler(RequestHandler):
    """Handler of the one page."""

    def initialize(self, desk: ObjectionDesk) -> None:
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
        except UrlwardError:
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
                last = said.pop()
                bare = match[1] or match[2] if (match := _ADDRESS(last)) else last.strip()
                address = str(found := plain_address(bare))
        except ValueError:
            pass  # what is no address says nothing: it counts as from whom it came
        return address

    def _languages(self) -> str:
        return self.request.headers.get("Accept-Language", "")

    def _answer(self, said: Reply) -> None:
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


def serve_objections(
    desk: ObjectionDesk, table: ObjectionsTable, held: Held | None = None
) -> HTTPServer | None:
    """Take objections on the configured address, in the running event loop; None where there is none.

    The caller ends it with ``stop()`` and ``await close_all_connections()``.

    Raises:
        UrlwardError: the address cannot be listened on.
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
        server.listen_at(host, port, held or {})
    except OSError as e:
        raise UrlwardError(f"objections.listen: {table.listen}: {e.strerror or e}") from e
    return server


async def take_objections(desk: ObjectionDesk, table: ObjectionsTable, held: Held | None = None) -> None:
    """Take objections as `serve_objections`, until cancelled.

    Raises:
        UrlwardError: the address cannot be listened on.
    """
    server = serve_objections(desk, table, held)
    try:
        await asyncio.Future[None]()
    finally:
        if server is not None:
            server.stop()
            await server.close_all_connections()
