"""Base of the dashboard's handlers: authentication, sessions, header fields and errors.

No address with what somebody has typed is ever written down: there is no access log, and a fault is told by
its type and the handler's name alone.

A visitor has a person's token (`urlward.state.people`), or a session of the last hours. ``admin.json`` in the
state folder has the secret that sessions are signed with, and which of them were ended before their time. A
session is worth nothing once its person is gone, or has another token or role.
"""

import asyncio
import hashlib
import json
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, create_signed_value, decode_signed_value

from urlward.dashboard.language import Language, language_of, languages
from urlward.dashboard.live_sources import LiveSources
from urlward.dashboard.roles import ANYBODY, Needed, RolesNeeded, for_viewers
from urlward.dashboard.sources import EventPage, NotConfiguredError
from urlward.dashboard.trail import AuditTrail, shown_detail
from urlward.engine.dates import time_text_ms
from urlward.engine.errors import UrlwardError, fault_text, is_bug
from urlward.records.event import KINDS
from urlward.records.privacy import network_of
from urlward.records.reading import Readings
from urlward.records.store import EventQuery
from urlward.regular import read_regular
from urlward.state.folder import is_damage, locked, made_folder, set_aside, write_private
from urlward.state.people import People, Person, Role, may
from urlward.units import in_words

BURST = 5
"""Wrong guesses in a row."""

EVERY = 12.0
"""Seconds after which one more is let."""

MAX_ADDRESSES = 10_000

SENDING = 4
"""Long answers, such as exports, that are sent at a time; others wait for their turn."""

UNREAD = 30.0
"""Seconds for which nothing of such an answer may be read by whoever asked for it."""

logger = logging.getLogger("urlward.records")

STATIC = Path(__file__).with_name("static")

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_FOREIGN = (
    "This form is of another session, or its cookie did not come: browsers send it over HTTPS, and to this "
    "machine itself. Load the page anew."
)
_OVER = "The session is over: log in again."
_OPERATORS = "For operators only: you are in as a viewer."

ROLLOUTS = "/rollouts"
"""Page that is only there where lists are published."""

NAVIGATION = (
    ("/", "now.title"),
    ("/history", "history.title"),
    ("/lists", "lists.title"),
    (ROLLOUTS, "rollouts.title"),
    ("/own", "own.title"),
    ("/configuration", "edit.title"),
    ("/events", "events.title"),
    ("/check", "check.title"),
    ("/alarms", "alarms.title"),
    ("/allows", "allows.title"),
    ("/objections", "objections.title"),
    ("/people", "people.title"),
    ("/audit", "audit.title"),
)
"""Path and title's key of each page."""


class WrongGuesses:
    """Counter of wrong guesses by address: a leaky bucket.

    Attributes:
        tell: is told of each address that has guessed wrong here, for other nodes to count it.
    """

    def __init__(self) -> None:
        self.tell: Callable[[str], None] = lambda _: None
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds that an address has to wait; 0 where it may guess.

        Args:
            address: whose guess.
            now: seconds of a clock that is not set.
        """
        return max(0.0, self._level(address, now) - (BURST - 1) * EVERY)

    def wrong(self, address: str, now: float) -> None:
        """Count a wrong guess at this node."""
        self.wrong_elsewhere(address, now)
        self.tell(address)

    def wrong_elsewhere(self, address: str, now: float) -> None:
        """Count a wrong guess at another node.

        Args:
            address: whose guess.
            now: when it was, by the clock of `wait`.
        """
        self._full_at[address] = now + self._level(address, now) + EVERY
        self._full_at.move_to_end(address)
        # An address that was pushed out has had ten thousand others after it.
        while len(self._full_at) > MAX_ADDRESSES:
            self._full_at.popitem(last=False)

    def _level(self, address: str, now: float) -> float:
        return max(0.0, self._full_at.get(address, 0.0) - now)


SESSION = 12 * 3_600
"""Seconds that a session lasts."""

_FILE = "admin.json"
_DAY = 86_400


class Visitor(NamedTuple):
    """Visitor: a person, and the session that they are in by.

    Attributes:
        name: of the person.
        role: what they may do.
        id: of the session; empty for a token.
        grant: by which they are in (`urlward.state.people.Person`).
    """

    name: str
    role: Role
    id: str = ""
    grant: str = ""


class Sessions:
    """Session manager: signs sessions, and knows which are in force.

    Args:
        state: the state folder.
        people: who may have one.

    Raises:
        StateError: the folder cannot be used.
    """

    def __init__(self, state: Path, people: People) -> None:
        self._path = made_folder(state) / _FILE
        self._people = people
        with locked(state):
            kept = self._read()
            self._secret, self._ended = kept or (secrets.token_hex(32), {})
            if kept is None:  # a full disk keeps nobody from the dashboard, nor `/healthz` from an answer
                self._write()
        self.name = f"urlward-{hashlib.sha256(self._secret.encode()).hexdigest()[:8]}"
        """Name of the cookie. Cookies know no ports, and a machine may have more than one filter."""

    def begin(self, person: Person, now: float) -> str:
        """Start a session; returns the cookie's value."""
        value = json.dumps([secrets.token_hex(8), int(now), person.grant])
        return create_signed_value(self._secret, self.name, value, clock=lambda: now).decode()

    def visitor(self, cookie: str | None, now: float) -> Visitor | None:
        """Visitor of a cookie's session; None where it is none, is over or was ended."""
        if not cookie:
            return None
        value = decode_signed_value(
            self._secret, self.name, cookie, max_age_days=SESSION / _DAY, clock=lambda: now
        )
        if value is None:
            return None
        id_, begun, grant = json.loads(value)
        if not begun - 60 <= now < begun + SESSION or id_ in self._ended:
            return None
        person = self._people.by_grant(grant, now)
        return None if person is None else Visitor(person.name, person.role, id_, grant)

    def end(self, visitor: Visitor, now: float | None = None) -> None:
        """End a session; it stays ended when this process begins anew.

        Raises:
            StateError: that cannot be written down; it is ended as long as this process lives.
        """
        moment = time.time() if now is None else now
        self._ended[visitor.id] = moment + SESSION
        self._ended = {id_: until for id_, until in self._ended.items() if until > moment}
        with locked(self._path.parent):
            self._write()

    def _read(self) -> tuple[str, dict[str, float]] | None:
        try:
            found = json.loads(read_regular(self._path))
            return str(found["secret"]), {str(id_): float(t) for id_, t in found["ended"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            if os.path.lexists(self._path) and not (isinstance(e, OSError) and not is_damage(e)):
                set_aside(self._path.parent, self._path, "damaged", "whoever was in has to come in anew")
            return None

    def _write(self) -> None:
        kept = {"version": 1, "secret": self._secret, "ended": self._ended}
        write_private(self._path, json.dumps(kept).encode() + b"\n")


@dataclass(frozen=True)
class HandlerContext:
    """Context that all handlers share.

    Attributes:
        sources: asked for what is shown.
        people: who may come in.
        sessions: who is in.
        access: which role each path needs.
        trail: the audit log.
        readings: of events, which it has.
        state: the state folder.
        config: the filter's configuration file.
        token_file: `urlward.state.people.ADMIN`'s.
        executor: where `sources` may take its time.
        node: name of the machine, shown on each page.
        clock: seconds since 1970-01-01 UTC.
        steady: seconds that never go back.
        attempts: to guess a token.
        bundling: held while a bundle for support is made.
        sending: held while much is sent, which is made as it is read.
        making: held while a part of an export is made: several at once keep the event loop from its turn.
    """

    sources: LiveSources
    people: People
    sessions: Sessions
    access: RolesNeeded
    trail: AuditTrail
    readings: Readings
    state: Path
    config: Path | None
    token_file: Path
    executor: Executor
    node: str
    clock: Callable[[], float]
    steady: Callable[[], float]
    attempts: WrongGuesses
    bundling: asyncio.Lock = field(default_factory=asyncio.Lock)
    sending: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SENDING))
    making: asyncio.Lock = field(default_factory=asyncio.Lock)


class Base(RequestHandler):
    """Base handler; only requests with a token or a session whose role is enough get through."""

    as_json: bool = False

    current_user: Visitor | None

    def initialize(self, context: HandlerContext, access: Mapping[str, Needed] | None = None) -> None:
        """Keep the shared context, and the role that each method needs."""
        self.context = context
        self._access = access or {}
        self._bearer: Visitor | None = None
        self._bearer_looked_at = False
        self._wait = 0.0
        self._refusal = _FOREIGN
        self._is_told = False

    @property
    def sources(self) -> LiveSources:
        """Sources, as far as the visitor may see them."""
        sources = self.context.sources
        return sources if self.role() == "operator" else for_viewers(sources)

    def filtered[T](self, parse: Callable[..., T], limit: int = 50) -> T:
        """Parse the filters of a request.

        Args:
            parse: such as `urlward.dashboard.asked.event_filter`, and may raise what that does.
            limit: of what is found, where none is given.
        """
        kinds = [kind for kind in self.get_query_arguments("kind") if kind]
        return parse(lambda name: self.get_query_argument(name, ""), kinds, limit=limit)

    def role(self) -> Role:
        """What the visitor may see."""
        visitor = self.visitor()
        return visitor.role if visitor is not None else "viewer"

    def visitor(self) -> Visitor | None:
        """Who is in; None where it does not matter, as for who logs in or asks for what is not there."""
        open_to_all = not self._access or ANYBODY in self._access.values()
        return None if open_to_all else self.current_user

    def set_default_headers(self) -> None:
        """Set header fields: nothing may be kept, framed, or fetched from elsewhere."""
        self.clear_header("Server")
        for name, value in SECURITY.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")

    def get_current_user(self) -> Visitor | None:
        """Authenticate by token, else by session."""
        cookie = self.get_cookie(self.context.sessions.name)
        return self.bearer() or self.context.sessions.visitor(cookie, self.context.clock())

    def is_in(self) -> bool:
        """Whether the visitor of a request still is in: their session has not been ended since, and they have
        been neither removed nor given another role."""
        visitor, now = self.visitor(), self.context.clock()
        if visitor is None:
            return True
        if visitor.id:
            cookie = self.get_cookie(self.context.sessions.name)
            return self.context.sessions.visitor(cookie, now) == visitor
        return self.context.people.by_grant(visitor.grant, now) is not None

    def bearer(self) -> Visitor | None:
        """Authenticate by token (RFC 6750).

        Raises:
            HTTPError: 401 or 429 for a token that is wrong.
        """
        if not self._bearer_looked_at:
            self._bearer_looked_at = True
            scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() == "bearer":
                person = self.person_of(token.strip(), "script")
                self._bearer = Visitor(person.name, person.role, grant=person.grant)
        return self._bearer

    def person_of(self, token: str, way: str) -> Person:
        """Let a token be tried; a right one is admitted however many wrong ones came before it.

        Behind a proxy or a tunnel all clients have one address, so a limit of what is compared would let any
        of them lock out the others. A token's length keeps it from being guessed; the limit keeps guesses
        cheap, and has them told in the log.

        Args:
            token: as given.
            way: that it came.

        Raises:
            HTTPError: 401 where it is wrong, 429 where too many were.
        """
        person = self.context.people.by_token(token, self.context.clock())
        if person is not None:
            return person
        attempts, address, now = (
            self.context.attempts,
            f"{way} {network_of(self.request.remote_ip or '')}",
            self.context.steady(),
        )
        self._wait = attempts.wait(address, now)
        if self._wait > 0:
            raise HTTPError(HTTPStatus.TOO_MANY_REQUESTS, reason="Too many wrong tokens")
        attempts.wrong(address, now)
        if attempts.wait(address, now) > 0:
            logger.warning("admin: too many wrong tokens: %s", address)
        raise HTTPError(HTTPStatus.UNAUTHORIZED, reason="Wrong token")

    def who(self) -> str:
        """The visitor, for the record."""
        visitor = self.current_user
        return f"{visitor.name if visitor else ''} (dashboard)"

    def may(self, path: str, method: str = "POST") -> bool:
        """Whether the visitor may use a path."""
        needed, visitor = self.context.access.needed(path, method), self.visitor()
        if needed is None or needed == ANYBODY:
            return needed is not None
        return visitor is not None and may(visitor.role, needed)

    def check_xsrf_cookie(self) -> None:
        """Check the XSRF cookie, unless the request has a token in a header field: no browser sends one by
        itself. A script without either is told that it has none (401)."""
        if self.bearer() is None and not (self.as_json and self.current_user is None):
            super().check_xsrf_cookie()

    def prepare(self) -> None:
        """Refuse requests without a token or a session, and those whose role is not enough."""
        needed = self._access.get(self.request.method or "")
        if needed is None:
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        if needed == ANYBODY:
            return
        if self.current_user is not None:
            if not may(self.current_user.role, needed):
                self._refusal = _OPERATORS
                raise HTTPError(HTTPStatus.FORBIDDEN)
            return
        if self.as_json or self.request.method != "GET":
            raise HTTPError(HTTPStatus.UNAUTHORIZED, reason=None if self.as_json else _OVER)
        self.redirect("/login", status=HTTPStatus.SEE_OTHER)

    async def ask[T](self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function that may block, in the executor."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.context.executor, lambda: function(*args, **kwargs))

    async def events(self, wanted: EventQuery, form: str) -> EventPage:
        """Find a page of events. That somebody is shown clients is in the audit log first, once a request.

        Args:
            wanted: which.
            form: how they are shown.
        """
        found = await self.ask(self.sources.events, wanted)
        if not self._is_told and any(event["client"] for event in found.events):
            await self.ask(self.context.readings.tell, self.who(), wanted, form)
            self._is_told = True
        return found

    async def ask_if_there[T](self, function: Callable[..., T], *args: Any) -> tuple[T | None, str]:
        """As `ask`, but gives the result and the reason why there is none."""
        try:
            return await self.ask(function, *args), ""
        except UrlwardError as e:
            return None, str(e)

    def write_json(self, value: Any) -> None:
        """Answer with JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value) + "\n")

    async def send(self, parts: AsyncIterator[str]) -> None:
        """Answer with what may be long, as it is read; the connection is closed where it is not, where the
        rest cannot be had, or where the visitor is out meanwhile: half of it must not look like all of it."""
        async with self.context.sending:
            try:
                async for part in parts:
                    if not self.is_in():
                        self.detach().close()
                        return
                    self.write(part)
                    await asyncio.wait_for(self.flush(), UNREAD)
            except StreamClosedError:
                return
            except TimeoutError:
                self.detach().close()
            except UrlwardError as e:
                if not self._headers_written:
                    raise
                logger.error("admin: an answer was broken off: %s", e)
                self.detach().close()

    @property
    def language(self) -> Language:
        """The language of this visitor: as chosen at a page's foot, else as the browser says."""
        chosen = self.get_cookie(self.language_cookie) or ""
        return language_of(chosen, self.request.headers.get("Accept-Language", ""))

    @property
    def language_cookie(self) -> str:
        """Name of the cookie that keeps which language was chosen."""
        return f"{self.context.sessions.name}-language"

    def page(self, template: str, title: str, **context: Any) -> None:
        """Answer with a page.

        Args:
            template: its name.
            title: its key among the texts, or the title itself.
            context: of the template.
        """
        language = self.language
        path = self.request.path
        page = (
            _environment(language.tag)
            .get_template(f"{template}.html.j2")
            .render(
                title=language(title),
                here=path,
                back=self.request.uri if self.request.method in ("GET", "HEAD") else path,
                languages=languages().values(),
                navigation=[
                    (to, name)
                    for to, name in NAVIGATION
                    if self.may(to, "GET") and (to != ROLLOUTS or self.sources.publishes)
                ],
                node=self.context.node,
                visitor=self.visitor(),
                may=self.may,
                xsrf=self.xsrf_token.decode(),
                now=self.context.clock(),
                static=self.static_url,
                kinds=KINDS,
                **context,
            )
        )
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Language", language.tag)
        self.finish(page.encode("utf-8", "replace"))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the error in one line."""
        # A token that is wrong, and that nobody has asked for yet, is no second error.
        self._bearer_looked_at = True
        error = kwargs.get("exc_info", (None, None, None))[1]
        message = str(error) if isinstance(error, UrlwardError) else self._reason
        if status_code == HTTPStatus.FORBIDDEN:
            message = self._refusal
        if status_code == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Bearer realm="urlward"')
        if status_code == HTTPStatus.TOO_MANY_REQUESTS:
            self.set_header("Retry-After", str(int(self._wait) + 1))
        if self.as_json:
            self.write_json({"error": message})
        else:
            title = self.language("error.title", status=status_code)
            self.page("error", title, message=message)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """What is not there is 404, what cannot be done is 400: neither is a fault of ours."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, UrlwardError):
            absent = isinstance(error, NotConfiguredError)
            status_code = HTTPStatus.NOT_FOUND if absent else HTTPStatus.BAD_REQUEST
        super().send_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, _: Any) -> None:
        """Log our own faults only, by type."""
        if not isinstance(value, HTTPError | UrlwardError):
            what = f"a bug in {type(self).__name__}: {typ.__name__}" if is_bug(value) else fault_text(value)
            logger.error("admin: %s", what)


class Missing(Base):
    """Handler of unknown addresses: 404."""

    def prepare(self) -> None:
        """Answer 404, to scripts as they expect it."""
        self.as_json = self.request.path.startswith("/api/")
        raise HTTPError(HTTPStatus.NOT_FOUND)


def iso(moment: float) -> str:
    """Format seconds since 1970-01-01 UTC for people, such as ``2027-01-31 08:30:00Z``."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}Z"


def _machine_time(moment: float) -> str:
    return time_text_ms(int(moment * 1000))


@cache
def _environment(tag: str) -> Environment:
    """Templates in a language, which macros know too."""
    language = languages()[tag]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,  # as the package may be away, or be another, while it is upgraded
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        iso=iso,
        machine_time=_machine_time,
        words=in_words,
        number=language.number,
        shown=shown_detail,
    )
    environment.globals["t"] = language
    return environment
