"""The decision on a request or connection, and what is said of it.

Everything that the addon asks goes through here, so that one place holds the rule that an exception
of ours never lets a request pass, and one place writes the log.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.proxy.context import Context

from urlward.engine.errors import UrlError
from urlward.engine.matcher import Matcher
from urlward.engine.url import target_readings
from urlward.engine.verdict import PASS, Verdict
from urlward.proxy.block_page import BlockNotice, BlockPage, BlockResponse, new_reference
from urlward.proxy.names import as_address, names_of

logger = logging.getLogger("urlward")

TlsDecision = Literal["relay", "intercept", "refuse"]


@dataclass(slots=True)
class Counts:
    """What has happened since the start."""

    requests: int = 0
    blocked: int = 0
    refused: int = 0
    errors: int = 0


class Guard:
    """Decides, answers and logs.

    Args:
        matcher: gives the matcher in force.
        page: renders block pages.
        on_error: what a request gets when deciding on it fails: ``block`` or ``pass``.
        intercept: which TLS connections are decrypted: ``listed``, ``all`` or ``none``.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        matcher: Callable[[], Matcher],
        page: BlockPage,
        *,
        on_error: str = "block",
        intercept: str = "listed",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = Counts()
        self._matcher = matcher
        self._page = page
        self._on_error = on_error
        self._intercept = intercept
        self._clock = clock

    def answer(self, request: http.Request, context: Context) -> BlockResponse | None:
        """What a request gets instead of what it asks for; None where it may go on. Never raises."""
        self.counts.requests += 1
        head = request.data.method == b"HEAD"
        try:
            names = names_of(request, context)
            matcher, now = self._matcher(), self._clock()
            if request.data.method == b"CONNECT":
                verdict = _first_block([matcher.check_host(h, names.ports, now) for h in names.hosts])
            else:
                verdict = matcher.check_request(names.hosts, names.target, names.ports, now)
                for reading in target_readings(names.target):
                    if not verdict.blocked:
                        verdict = matcher.check_request(names.hosts, reading, names.ports, now)
            if not verdict.blocked and names.address:
                verdict = matcher.check_address(names.address, names.ports, now)
            return self._blocked(verdict, request, context) if verdict.blocked else None
        except UrlError as e:
            self.counts.refused += 1
            return _plain(400, "Bad Request", f"{e}\n", head)
        except Exception as e:  # noqa: BLE001 - no fault of ours may let a request pass
            return self._failed(e, context.client, head)

    def answer_connected(self, request: http.Request, context: Context, address: str) -> BlockResponse | None:
        """Likewise for the address that a name turned out to have, before anything is sent to it."""
        try:
            verdict = self._matcher().check_address(address, (request.port,), self._clock())
            return self._blocked(verdict, request, context) if verdict.blocked else None
        except Exception as e:  # noqa: BLE001 - as above
            return self._failed(e, context.client, request.data.method == b"HEAD")

    def lists_address(self, address: str, port: int, client: Client) -> bool:
        """Whether a name must not be connected to because of the address that it has. Never raises."""
        try:
            return self._matcher().check_address(address, (port,), self._clock()).blocked
        except Exception as e:  # noqa: BLE001 - as above
            return self._failed(e, client) is not None

    def lists_any_address(self) -> bool:
        """Whether addresses matter at all. Never raises."""
        try:
            return any(li.prefixes4 or li.prefixes6 for li in self._matcher().lists)
        except Exception:  # noqa: BLE001 - the question after this one fails in the same way, and says so
            return True

    def tls(self, context: Context, sni: str | None) -> TlsDecision:
        """What becomes of a TLS connection, by its SNI and destination. Never raises."""
        try:
            return self._tls(context, sni)
        except UrlError:
            self.counts.refused += 1
            return "refuse"
        except Exception as e:  # noqa: BLE001 - as above
            return "refuse" if self._failed(e, context.client) is not None else "relay"

    def address_allowed(self, context: Context, address: str) -> bool:
        """Whether a connection that is relayed unread may go to this address. Never raises."""
        try:
            port = context.server.address[1] if context.server.address else 0
            verdict = self._matcher().check_address(address, (port,), self._clock())
            if verdict.blocked:
                self._log_block(verdict, context.client, new_reference())
            return not verdict.blocked
        except Exception as e:  # noqa: BLE001 - as above
            return self._failed(e, context.client) is None

    def failed(self, error: Exception, client: Client) -> bool:
        """Log a fault of ours in the layers around; True where the operator says to let pass."""
        return self._failed(error, client) is None

    def _tls(self, context: Context, sni: str | None) -> TlsDecision:
        if self._intercept == "all":
            return "intercept"
        matcher, now = self._matcher(), self._clock()
        hosts: list[str] = [sni] if sni else []
        ports: tuple[int, ...] = ()
        verdict = PASS
        if context.server.address is not None:
            host, port = context.server.address[:2]
            ports = (port,)
            address = as_address(host)
            hosts.append(f"[{address}]" if ":" in address else host)
            if address:
                verdict = matcher.check_address(address, ports, now)
        if not verdict.blocked:
            verdict = _first_block([matcher.check_host(h, ports, now) for h in hosts])
        if self._intercept == "none":
            if verdict.blocked:
                self._log_block(verdict, context.client, new_reference())
                return "refuse"
            return "relay"
        if verdict.blocked or any(matcher.lists_below(h) for h in hosts):
            return "intercept"
        return "relay"

    def _blocked(self, verdict: Verdict, request: http.Request, context: Context) -> BlockResponse:
        reference = new_reference()
        self._log_block(verdict, context.client, reference)
        head = request.data.method == b"HEAD"
        try:
            return self._page.render(
                BlockNotice(reference, verdict.list, verdict.category or None),
                accept=request.headers.get("accept", ""),
                accept_language=request.headers.get("accept-language", ""),
                head=head,
            )
        except Exception as e:  # noqa: BLE001 - the decision stands, whatever becomes of the page
            self._log_failure(e, context.client, "blocked")
            return _plain(451, "Unavailable For Legal Reasons", f"Blocked. Reference: {reference}\n", head)

    def _log_block(self, verdict: Verdict, client: Client, reference: str) -> None:
        self.counts.blocked += 1
        _log(
            logging.INFO,
            "%s block client=%s list=%s entry=%s category=%s reference=%s",
            timestamp(self._clock()), _peer(client), verdict.list, verdict.entry, verdict.category or "-",
            reference,
        )  # fmt: skip

    def _failed(self, error: Exception, client: Client, head: bool = False) -> BlockResponse | None:
        passed = self._on_error == "pass"
        self._log_failure(error, client, "passed" if passed else "blocked")
        if passed:
            return None
        return _plain(503, "Service Unavailable", "The filter could not decide on this request.\n", head)

    def _log_failure(self, error: Exception, client: Client, outcome: str) -> None:
        self.counts.errors += 1
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_qualname}:{where.tb_lineno}" if where is not None else "?"
        # The exception's own text may quote the request.
        _log(
            logging.ERROR,
            "%s error client=%s error=%s at=%s count=%d request=%s",
            timestamp(time.time()), _peer(client), error.__class__.__name__, place,
            self.counts.errors, outcome,
        )  # fmt: skip


def _log(level: int, message: str, *values: object) -> None:
    """Log, whatever becomes of it: a full disk or a broken handler must not decide what passes."""
    with suppress(Exception):
        logger.log(level, message, *values)


def timestamp(now: float) -> str:
    """UTC to the millisecond, RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


def _peer(client: Client) -> str:
    host, port = client.peername[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _first_block(verdicts: list[Verdict]) -> Verdict:
    return next((v for v in verdicts if v.blocked), PASS)


def _plain(status: int, reason: str, text: str, head: bool = False) -> BlockResponse:
    body = text.encode("ascii", "replace")
    return BlockResponse(
        status,
        reason,
        (
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", b"%d" % len(body)),
            (b"Cache-Control", b"no-store"),
        ),
        b"" if head else body,
    )
