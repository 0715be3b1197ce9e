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
from urlward.engine.verdict import PASS, Verdict
from urlward.proxy.answers import plain
from urlward.proxy.block_page import BlockNotice, BlockPage, BlockResponse, new_reference
from urlward.proxy.head import RequestHead
from urlward.proxy.names import NO_NAMES, Names, Place, names_of, names_of_tls

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
        tls_block: what a listed host gets over TLS: ``page`` or ``alert``.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        matcher: Callable[[], Matcher],
        page: BlockPage,
        *,
        on_error: str = "block",
        intercept: str = "listed",
        tls_block: str = "page",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = Counts()
        self._matcher = matcher
        self._page = page
        self._on_error = on_error
        self._intercept = intercept
        self._tls_block = tls_block
        self._clock = clock

    def answer(self, request: http.Request, context: Context) -> BlockResponse | Names:
        """What a request gets instead of what it asks for, or the names that it passes under.

        Never raises.
        """
        self.counts.requests += 1
        head = request.data.method == b"HEAD"
        try:
            names = names_of(request, context)
            verdict = self._verdict(names)
            return self._blocked(verdict, request, context.client) if verdict.blocked else names
        except UrlError as e:
            self.counts.refused += 1
            return plain(400, str(e), head=head)
        except Exception as e:  # noqa: BLE001 - no fault of ours may let a request pass
            return self._failed(e, context.client, head) or NO_NAMES

    def answer_head(self, head: RequestHead, place: Place, client: Client) -> BlockResponse | Names:
        """Likewise for a head that the HTTP layer has read."""
        self.counts.requests += 1
        try:
            names = place.names(head)
            matcher = self._matcher()
            if place.is_quiet(names, matcher):
                verdict = matcher.check(names.hosts[0], names.target, names.ports, self._clock())
            else:
                verdict = self._verdict(names)
            return self._blocked(verdict, head, client) if verdict.blocked else names
        except UrlError as e:
            self.counts.refused += 1
            return plain(400, str(e), head=head.method == b"HEAD")
        except Exception as e:  # noqa: BLE001 - as above
            return self._failed(e, client, head.method == b"HEAD") or NO_NAMES

    def still_passes(self, names: Names, client: Client) -> bool:
        """Whether what is under way may go on, under the lists that are in force now. Never raises."""
        try:
            verdict = self._verdict(names)
            if not verdict.blocked and names.tls:
                # Relayed unread, which it may not be where a page of its host is listed.
                found = self._list_below(names)
                verdict = Verdict("block", entry="-", list=found) if found else verdict
            if verdict.blocked:
                self._log_block(verdict, client, new_reference(), cut=True)
            return not verdict.blocked
        except Exception as e:  # noqa: BLE001 - as above
            return self._failed(e, client) is None

    def _verdict(self, names: Names) -> Verdict:
        """The decision on all names of a request; on hosts alone where it has no target."""
        matcher, now = self._matcher(), self._clock()
        if names.target:
            verdict = matcher.check_request(names.hosts, names.target, names.ports, now)
        else:
            verdict = _first_block([matcher.check_host(h, names.ports, now) for h in names.hosts])
        if not verdict.blocked and names.address:
            verdict = matcher.check_address(names.address, names.ports, now)
        return verdict

    def answer_connected(
        self, request: http.Request | RequestHead, client: Client, address: str, port: int
    ) -> BlockResponse | None:
        """What a request gets where the address that its host turned out to have is listed, or None.

        Never raises.
        """
        try:
            verdict = self._matcher().check_address(address, (port,), self._clock())
            return self._blocked(verdict, request, client) if verdict.blocked else None
        except Exception as e:  # noqa: BLE001 - as above
            method = request.method if isinstance(request, RequestHead) else request.data.method
            return self._failed(e, client, method == b"HEAD")

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

    def tls(self, context: Context, sni: str | None) -> tuple[TlsDecision, Names]:
        """What becomes of a TLS connection, by its SNI and destination, and by which names. Never raises."""
        names = NO_NAMES
        try:
            names = names_of_tls(context, sni)
            return self._tls(names, context.client), names
        except UrlError:
            self.counts.refused += 1
            return "refuse", names
        except Exception as e:  # noqa: BLE001 - as above
            return "refuse" if self._failed(e, context.client) is not None else "relay", names

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

    def passes(self, names: Names, client: Client) -> bool:
        """Whether what is neither HTTP nor TLS may be relayed. Never raises."""
        try:
            verdict = self._verdict(names)
            if verdict.blocked:
                self._log_block(verdict, client, new_reference())
            return not verdict.blocked
        except UrlError:
            self.counts.refused += 1
            return False
        except Exception as e:  # noqa: BLE001 - as above
            return self._failed(e, client) is None

    def broken(self, error: Exception, client: Client) -> None:
        """Log a fault of ours for which a connection is cut, whatever the operator says of requests."""
        self._log_failure(error, client, "cut")

    def failed(self, error: Exception, client: Client) -> bool:
        """Log a fault of ours in the layers around; True where the operator says to let pass."""
        return self._failed(error, client) is None

    def _tls(self, names: Names, client: Client) -> TlsDecision:
        shows_page = self._tls_block == "page" and self._intercept != "none"
        if self._intercept == "all" and shows_page:
            return "intercept"
        verdict = self._verdict(names)
        if verdict.blocked and not shows_page:
            self._log_block(verdict, client, new_reference())
            return "refuse"
        if self._intercept == "all":
            return "intercept"
        if verdict.blocked or self._list_below(names):
            return "intercept"
        return "relay"

    def _list_below(self, names: Names) -> str:
        """The list because of which a connection to these hosts is not relayed unread, or empty."""
        if self._intercept == "none":
            return ""
        return next(filter(None, map(self._matcher().list_below, names.hosts)), "")

    def _blocked(
        self, verdict: Verdict, request: http.Request | RequestHead, client: Client
    ) -> BlockResponse:
        reference = new_reference()
        self._log_block(verdict, client, reference)
        if isinstance(request, RequestHead):
            head = request.method == b"HEAD"
            accept, language = (
                request.get(name).decode("latin-1") for name in (b"accept", b"accept-language")
            )
        else:
            head = request.data.method == b"HEAD"
            accept, language = (request.headers.get(name, "") for name in ("accept", "accept-language"))
        try:
            return self._page.render(
                BlockNotice(reference, verdict.list, verdict.category or None),
                accept=accept,
                accept_language=language,
                head=head,
            )
        except Exception as e:  # noqa: BLE001 - the decision stands, whatever becomes of the page
            self._log_failure(e, client, "blocked")
            return plain(451, f"Blocked. Reference: {reference}", head=head)

    def _log_block(self, verdict: Verdict, client: Client, reference: str, *, cut: bool = False) -> None:
        self.counts.blocked += 1
        _log(
            logging.INFO,
            f"%s {'cut' if cut else 'block'} client=%s list=%s entry=%s category=%s reference=%s",
            timestamp(self._clock()), _peer(client), verdict.list, verdict.entry, verdict.category or "-",
            reference,
        )  # fmt: skip

    def _failed(self, error: Exception, client: Client, head: bool = False) -> BlockResponse | None:
        passed = self._on_error == "pass"
        self._log_failure(error, client, "passed" if passed else "blocked")
        if passed:
            return None
        return plain(503, "The filter could not decide on this request.", head=head)

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
