"""Guard: decides on requests and connections, answers them and logs hits.

Everything that the addon asks goes through here, so that one place holds the rule that an exception
of ours never lets a request pass, one place writes the log, and one place knows that nothing is blocked
where the filter only monitors.

Where events are recorded, their stores are what says who met what, under the privacy and for the days that
the operator has chosen; a log knows neither, so hits are not in it too unless that is asked for. Other lines
name a client by no more than that privacy leaves of it, and none a URL, host or path.
"""

import logging
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Literal
from urllib.parse import unquote

from mitmproxy import http
from mitmproxy.proxy import mode_specs

from urlward.engine.dates import time_text_ms
from urlward.engine.errors import UrlError, place_of
from urlward.engine.matcher import Matcher
from urlward.engine.url import host_readings
from urlward.engine.verdict import PASS, Decide, Verdict, decide
from urlward.feeds.learn import Learner, Match
from urlward.policy.policy import Policy, View
from urlward.proxy.block_page import BlockNotice, BlockPage, BlockResponse, new_reference, plain
from urlward.proxy.head import RequestHead
from urlward.proxy.names import (
    NO_NAMES,
    Client,
    Context,
    FlowPlace,
    Names,
    Place,
    as_address,
    as_forwarded,
    head_of,
    names_of_tls,
)
from urlward.proxy.probing import Probing
from urlward.records.metrics import Metrics
from urlward.records.privacy import name_in_log
from urlward.records.worker import Hit, KnownFile, Recording, canonical_url

TlsDecision = Literal["relay", "intercept", "refuse"]
Review = Literal["passes", "cut", "told"]

logger = logging.getLogger("urlward")

_SAID_AGAIN = 60.0
"""Seconds before one reason to refuse certificates is said again."""

_LONGEST = 10.0
"""Seconds that mitmproxy may have had a request before it is judged; more is a clock that was set."""

_DOT_SEGMENT = re.compile(r"(?:^|[/\\])\.\.?(?:[/\\;?#]|\Z)").search


@dataclass(eq=False, slots=True)
class DecisionLog:
    """Log writer of decisions and faults.

    Args:
        metrics: count faults.
        clock: seconds since 1970-01-01 UTC.
        recording: takes what is to be kept; None where nothing is.
    """

    metrics: Metrics
    clock: Callable[[], float]
    recording: Recording | None = None
    _untrusted: dict[str, float] = field(default_factory=dict)

    def hit(self, hit: Hit) -> None:
        """Log a hit: what is blocked or cut, or would be, or a response that was a known file."""
        if self.recording is not None:
            self.recording.hit(hit)
            if not self.recording.logs:
                return
        verdict, file = hit.verdict, hit.file
        word, more = f"{'would-' * hit.would}{'cut' if hit.cut else 'block'}", ""
        if file is not None:
            word, more = "file", f" algorithm={file.algorithm} action={file.action}"
        _log(
            logging.INFO,
            f"%s {word} client=%s list=%s entry=%s category=%s reference=%s%s%s",
            timestamp(self.clock()), self._peer(hit.client, hit.client_port), verdict.list or "-",
            verdict.entry or "-", verdict.category or "-", hit.reference,
            f" group={hit.group}" * bool(hit.group), f"{more}{' purpose=prefetch' * hit.prefetched}",
        )  # fmt: skip

    def _peer(self, address: str, port: int) -> str:
        named = self.recording.named if self.recording is not None else name_in_log
        return named(address, port)

    def failure(self, error: Exception, client: Client, outcome: str) -> None:
        """Log an error of the filter, and where it happened.

        Args:
            error: raised by something of ours; its own text, which may quote the request, is not told.
            client: whose request or connection it is.
            outcome: what becomes of that.
        """
        count = self.metrics.error("decision")
        _log(
            logging.ERROR,
            "%s error client=%s error=%s at=%s count=%d request=%s",
            timestamp(time.time()), self._peer(*client.peername[:2]), error.__class__.__name__,
            place_of(error), count, outcome,
        )  # fmt: skip

    def untrusted(self, reason: str, client: Client) -> None:
        """Log that an origin's certificate was refused; each reason now and then, and never which origin.

        What is decrypted has an entry, so that its host's name must not stand in a log.

        Args:
            reason: OpenSSL's, of a fixed set of texts.
            client: who asked for the origin.
        """
        now = time.monotonic()
        if now < self._untrusted.get(reason, float("-inf")) + _SAID_AGAIN:
            return
        self._untrusted[reason] = now
        _log(
            logging.WARNING,
            "%s untrusted client=%s reason=%s (an origin's certificate; `--set "
            "ssl_verify_upstream_trusted_ca=FILE` names other authorities)",
            timestamp(self.clock()), self._peer(*client.peername[:2]), reason.replace(" ", "-"),
        )  # fmt: skip


def timestamp(now: float) -> str:
    """UTC to the millisecond, RFC 3339."""
    return time_text_ms(int(now * 1000))


type PortOf = Callable[[int, tuple[Any, ...], tuple[Any, ...]], int]
"""Port that a client has sent from, by transport, where it came to, and where it seems to come from."""


def seen_port(transport: int, ours: tuple[Any, ...], peer: tuple[Any, ...]) -> int:  # noqa: ARG001
    """The port as it is seen here, where no rule of the kernel that is known of has changed it."""
    return int(peer[1])


def _log(level: int, message: str, *values: object) -> None:
    """Write a log line, ignoring errors: a full disk or a broken handler must not decide what passes."""
    with suppress(Exception):
        logger.log(level, message, *values)


@dataclass(slots=True)
class CanaryMark:
    """The gateway's canary, by which it knows that what it sends comes here.

    Attributes:
        name: of the host, which gets the block page and is neither recorded nor counted; empty for none.
        came: when a request for it last did, by the clock of `time.monotonic`.
        addresses: of the host.
        astray: clients' connections in a row of which the kernel has not told where they were to go.
    """

    name: str = ""
    came: float = 0.0
    addresses: frozenset[str] = frozenset()
    astray: int = 0


EVERYONE = View("", "", (), (), {})
"""View of every client where there is no policy."""


@dataclass(eq=False)
class Guard:
    """Decision maker for requests and connections; answers and logs.

    Args:
        matcher: gives the matcher in force.
        page: renders block pages.
        on_error: what a request gets when deciding on it fails: ``block`` or ``pass``.
        intercept: which TLS connections are decrypted: ``listed``, ``all`` or ``none``.
        tls_block: what a listed host gets over TLS: ``page`` or ``alert``.
        monitor: whether nothing is blocked, and what would be is logged and counted, once a request or
            connection. Only what is listed passes: what cannot be read is refused all the same, since it
            cannot be monitored either. A TLS connection that would be decrypted for the block page alone
            is relayed; one whose host has pages listed is decrypted, so that they are seen, unless
            `intercept` is ``none``, with which only names and addresses are looked at.
        policy: what holds for which client; None where the same does for all.
        pages: block pages of groups, by name.
        probing: is told what clients ask for and are shown; None where nobody is watched.
        intercept_port: of a mode of its own, whose TLS connections are decrypted whatever host they name,
            unless `intercept` is ``none``; 0 for none.
        metrics: count what cannot be judged, and where anything is recorded what is.
        canary: a host that is always blocked.
        port_of: gives the port that a client is recorded with: of a transport, where it came to, and from.
        recording: takes what is to be kept; None where nothing is.
        learner: has URLs of known files learned; None where none are.
        clock: seconds since 1970-01-01 UTC.
    """

    matcher: Callable[[], Matcher]
    page: BlockPage
    _: KW_ONLY
    on_error: str = "block"
    intercept: str = "listed"
    tls_block: str = "page"
    monitor: bool = False
    intercept_port: int = 0
    policy: Policy | None = None
    pages: Mapping[str, BlockPage] = field(default_factory=dict)
    probing: Probing | None = None
    metrics: Metrics = field(default_factory=lambda: Metrics(time.time()))
    canary: CanaryMark = field(default_factory=CanaryMark)
    port_of: PortOf = seen_port
    recording: Recording | None = None
    learner: Learner | None = None
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._log = DecisionLog(self.metrics, self.clock, self.recording)
        self._shows_page = self.tls_block == "page" and self.intercept != "none"

    def answer(self, request: http.Request, context: Context) -> BlockResponse | Names:
        """Decide on a request of mitmproxy's: the response it gets from the filter, or the names it passes
        under.

        Never raises.
        """
        try:
            head, place = head_of(request), FlowPlace(request, context)
            # By the only clock that mitmproxy has; one that was set meanwhile tells nothing.
            waited = time.time() - request.timestamp_start
            arrived = perf_counter() - (waited if 0 < waited < _LONGEST else 0.0)
        except Exception as e:  # noqa: BLE001 - no fault of ours may let a request pass
            return NO_NAMES if self.failed(e, context.client) else _undecided(None)
        return self.answer_head(head, place, context.client, arrived=arrived)

    def answer_head(
        self, head: RequestHead, place: Place | FlowPlace, client: Client, *, arrived: float = 0.0
    ) -> BlockResponse | Names:
        """Decide on a request head that the HTTP layer has read; otherwise as `answer`.

        Args:
            head: it.
            place: what is known of its connection.
            client: whose it is.
            arrived: when its last bytes came, by `time.perf_counter`; 0 where that is not known.
        """
        start = perf_counter()
        self._asked(client)
        try:
            names = place.names(head)
            hosts, ports, _, target, _, _, _ = names
            matcher = self.matcher()
            if hosts and hosts[0] == self.canary.name:
                return self._canary_page(names, client)
            if target and place.is_quiet(names, matcher):
                verdict = matcher.check(hosts[0], target, ports, self.clock())
                if verdict is not PASS and self.policy is not None:
                    verdict = self._verdict(names, client)
            else:
                verdict = self._verdict(names, client)
            asked = names
            if head.fields.forwarded and target and not verdict.blocked:
                names = names._replace(forwarded=b"\n".join(map(b":".join, head.fields.forwarded)))
                asked, verdict = self._as_forwarded(names, verdict, client)
            listed = verdict is not PASS and verdict.listed
            if listed and head.method == b"CONNECT" and self._shows_page and place.ours and len(hosts) == 1:
                return names  # the block page is shown inside the tunnel, where browsers take it
            if self.recording is not None:
                self._measure("match", verdict, start, arrived)
            if not listed:
                return names
            answer = self._listed(verdict, asked, head, client)
            return names._replace(told=answer.told) if isinstance(answer, Names) else answer
        except UrlError as e:
            return self._refusal(e, head)
        except Exception as e:  # noqa: BLE001 - as above
            return NO_NAMES if self.failed(e, client) else _undecided(head)

    def _canary_page(self, names: Names, client: Client) -> BlockResponse:
        """The response to the canary: the block page, unless deciding fails, as it would for others."""
        self._verdict(names, client)
        self.canary.came = time.monotonic()
        return self.page.render(
            BlockNotice(new_reference(), "canary", None), accept="text/plain", accept_language="", head=False
        )

    def review(self, names: Names, client: Client, *, told: bool = False) -> Review:
        """Whether what is under way may go on, under the lists that are in force now. Never raises.

        Args:
            names: that it passed under.
            client: whose it is.
            told: whether this has said before that it is listed.

        Returns:
            ``told`` where it goes on although it is listed, since nothing is blocked.
        """
        if self.monitor and (told or names.told):
            return "told"
        try:
            verdict = self._verdict(names, client)
            if not verdict.blocked and names.tls:
                # Relayed unread, which it may not be where a page of its host is listed.
                below = self._below(names, client)
                verdict = below if below.listed else verdict
            if names.forwarded and not verdict.blocked:
                names, verdict = self._as_forwarded(names, verdict, client)
            if not verdict.listed:
                return "passes"
            would = self._only_told(verdict)
            if not would or not (told or names.told):
                self._log.hit(self._hit(verdict, names, client, self._view(client), cut=True, would=would))
            return "told" if would else "cut"
        except UrlError:
            # Its host was not listed, so that nobody had to look at its target.
            return "passes" if self.monitor else "cut"
        except Exception as e:  # noqa: BLE001 - as above
            return "passes" if self.failed(e, client) else "cut"

    def _as_forwarded(self, names: Names, verdict: Verdict, client: Client) -> tuple[Names, Verdict]:
        """The gravest decision on a request that is not blocked by its own names, and the names it is on."""
        for other in as_forwarded(names):
            said = self._verdict(other, client)
            if said.blocked:
                return other, said
            if said.listed and not verdict.listed:
                names, verdict = other, said
        return names, verdict

    def _verdict(self, names: Names, client: Client) -> Verdict:
        """The decision on all names of a request; on hosts alone where it has no target."""
        matcher, now, judge = self.matcher(), self.clock(), self.rule_for(client)
        if names.target:
            verdict = matcher.check_request(names.hosts, names.target, names.ports, now, judge)
        else:
            verdict = _gravest([matcher.check_host(h, names.ports, now, judge) for h in names.hosts])
        if names.address and not verdict.blocked:
            of_address = matcher.check_address(names.address, names.ports, now, judge, names.target)
            verdict = verdict if of_address is PASS else _gravest([of_address, verdict])
        return verdict

    def _measure(self, stage: str, verdict: Verdict, start: float, arrived: float = 0.0) -> None:
        """Count what was decided, and how long it took."""
        metrics = self.metrics
        now = perf_counter()
        metrics.requests(stage, verdict.action)
        metrics.check(now - start)
        if arrived:
            metrics.added(now - arrived)

    def refused(self, stage: str) -> None:
        """Count what could not be read, and so does not pass.

        Args:
            stage: ``peek`` for what is relayed unread or decrypted, ``match`` for requests.
        """
        self.metrics.requests(stage, "refuse")

    def _refusal(self, error: UrlError, head: RequestHead) -> BlockResponse:
        """The response to a request that cannot be judged."""
        self.refused("match")
        return plain(400, str(error), head=head.method == b"HEAD")

    def _view(self, client: Client) -> View:
        """The policy that applies to a client now."""
        return EVERYONE if self.policy is None else self.policy.view(client.peername[0], self.clock())

    def rule_for(self, client: Client) -> Decide:
        """The decision rule that applies to a client, from matching entries to a verdict."""
        return decide if self.policy is None else lambda found: self._view(client).decide(found)

    def _check_address(self, address: str, port: int, client: Client, target: str = "") -> Verdict:
        return self.matcher().check_address(address, (port,), self.clock(), self.rule_for(client), target)

    def _only_told(self, verdict: Verdict) -> bool:
        """Whether a listed destination passes all the same, and is only logged."""
        return self.monitor or not verdict.blocked

    def answer_connected(
        self, head: RequestHead, names: Names, client: Client, address: str, port: int
    ) -> BlockResponse | None:
        """Decide again when a host's address is known: the response where that is listed, or the page there,
        or None.

        Never raises.

        Args:
            head: of the request.
            names: that it passed under.
            client: whose it is.
            address: of the connection to the origin.
            port: likewise.
        """
        try:
            asked = (names, *as_forwarded(names))
            verdict = _gravest([self._check_address(address, port, client, each.target) for each in asked])
            answer = self._listed(verdict, names, head, client) if verdict.listed else None
            return answer if isinstance(answer, BlockResponse) else None
        except UrlError as e:
            # Nothing was on its host, so that nobody had to look at its target.
            return self._refusal(e, head)
        except Exception as e:  # noqa: BLE001 - as above
            return None if self.failed(e, client) else _undecided(head)

    def lists_address(self, address: str, port: int, client: Client) -> bool:
        """Whether a name must not be connected to because of the address that it has. Never raises."""
        if self.monitor:
            return False  # told once it is connected to
        try:
            return self._check_address(address, port, client).blocked
        except Exception as e:  # noqa: BLE001 - as above
            return not self.failed(e, client)

    def lists_any_address(self) -> bool:
        """Whether any address is listed at all. Never raises."""
        try:
            return any(li.prefixes4 or li.prefixes6 for li in self.matcher().lists)
        except Exception:  # noqa: BLE001 - the question after this one fails in the same way, and says so
            return True

    def tls(self, context: Context, sni: bytes | None) -> tuple[TlsDecision, Names]:
        """Decide on a TLS connection by its SNI and destination, and give its names. Never raises."""
        names = NO_NAMES
        self._asked(context.client)
        try:
            names = names_of_tls(context, sni)
            return self._tls(names, context.client)
        except UrlError:
            self.refused("peek")
            return "refuse", names
        except Exception as e:  # noqa: BLE001 - as above
            return "relay" if self.failed(e, context.client) else "refuse", names

    def address_allowed(self, context: Context, names: Names, address: str) -> bool:
        """Whether a connection that is relayed unread may go to this address. Never raises."""
        try:
            port = context.server.address[1] if context.server.address else 0
            verdict = self._check_address(address, port, context.client)
            return not verdict.listed or self._relayed(verdict, names, context.client) is not None
        except Exception as e:  # noqa: BLE001 - as above
            return self.failed(e, context.client)

    def relayed(self, names: Names, client: Client) -> Names | None:
        """The names under which what is neither HTTP nor TLS is relayed, None where it may not be.

        Never raises.
        """
        self._asked(client)
        try:
            verdict = self._verdict(names, client)
            return self._relayed(verdict, names, client) if verdict.listed else names
        except UrlError:
            self.refused("peek")
            return None
        except Exception as e:  # noqa: BLE001 - as above
            return names if self.failed(e, client) else None

    def broken(self, error: Exception, client: Client) -> None:
        """Log an error of the filter for which a connection is cut, whatever `on_error` says of requests."""
        self._log.failure(error, client, "cut")

    def untrusted(self, reason: str, client: Client) -> None:
        """Log that an origin's certificate was refused, for OpenSSL's reason."""
        self._log.untrusted(reason, client)

    def known_file(
        self,
        verdict: Verdict,
        found: KnownFile,
        names: Names,
        client: Client,
        head: RequestHead | None = None,
    ) -> BlockResponse | None:
        """Log a response that is a known file, and have its URL learned where its action says so. Never
        raises.

        Args:
            verdict: of `Matcher.check_file` or `Matcher.file_verdict`; or of a classifier, which blocks
                nothing (``monitor``, without a list).
            found: the file, with the action that is configured.
            names: that the request passed under.
            client: whose it is.
            head: of the request whose response it is; None where it is not at hand.

        Returns:
            The response in its place, where nothing of it has been sent; where something has, the connection
            is to be cut. None where it goes on.
        """
        action = "alert" if self._only_told(verdict) else found.action
        is_cut, reference = action == "cut", ""
        try:
            view = self._view(client)
            said = verdict if is_cut else verdict._replace(action="monitor")  # what passes is not blocked
            hit = self._hit(said, names, client, view, head, cut=True, would=not is_cut)
            hit, reference = hit._replace(stage="body", file=found._replace(action=action)), hit.reference
            self._log.hit(hit)
            is_learned = action != "alert" and _stands_for_itself(head, names) and _is_plain(names, client)
            if self.learner is not None and is_learned and (url := hit.url()) is not None:
                self.learner.learn(
                    Match(
                        url,
                        verdict.list,
                        verdict.entry,
                        verdict.category,
                        reference,
                        # Where the client has chosen it, its Host field may name another's host.
                        "" if isinstance(client.proxy_mode, mode_specs.ReverseMode) else names.address,
                        # That a file came without TLS is no reason to decrypt its host.
                        0 if client.tls else hit.destination_port,
                        found.folder,
                    )
                )
            return self._page(hit, view, head, client) if is_cut else None
        except Exception as e:  # noqa: BLE001 - the decision stands, whatever becomes of its record
            self._log.failure(e, client, action)
            return plain(451, f"Blocked. Reference: {reference}", head=False) if is_cut else None

    def failed(self, error: Exception, client: Client) -> bool:
        """Log an error of the filter, here or in the layers around; True if `on_error` lets pass."""
        passed = self.on_error == "pass"
        self.metrics.requests("match", "error")
        self._log.failure(error, client, "passed" if passed else "blocked")
        return passed

    def _tls(self, names: Names, client: Client) -> tuple[TlsDecision, Names]:
        shows_page = self._shows_page
        whatever = self.intercept == "all" or self._is_strict(client)
        if whatever and shows_page:
            return "intercept", names
        start = perf_counter()
        quiet = self.matcher().is_quiet(names.hosts, names.address)
        verdict = PASS if quiet else self._verdict(names, client)
        if self.recording is not None:
            self._measure("peek", verdict, start)
        looked_into = whatever or (not quiet and bool(self._lists_below(names, client)))
        if verdict.listed and not (shows_page and (looked_into or not self._only_told(verdict))):
            relayed = self._relayed(verdict, names, client)
            return ("relay", relayed) if relayed is not None else ("refuse", names)
        return "intercept" if verdict.listed or looked_into else "relay", names

    def _is_strict(self, client: Client) -> bool:
        """Whether a connection arrived where none is relayed unread."""
        return (
            bool(self.intercept_port)
            and client.proxy_mode.custom_listen_port == self.intercept_port
            and self.intercept != "none"
        )

    def _lists_below(self, names: Names, client: Client) -> list[str]:
        """The lists because of which a connection to these hosts is not relayed unread."""
        if self.intercept == "none":
            return []
        lists_below, now = self.matcher().lists_below, self.clock()
        # In reverse mode the port is the operator's; which one clients mean is inside.
        ports = () if isinstance(client.proxy_mode, mode_specs.ReverseMode) else names.ports
        found = [name for host in names.hosts for name in lists_below(host, ports, now)]
        return list(filter(self._view(client).watches, found)) if found else found

    def _below(self, names: Names, client: Client) -> Verdict:
        """Verdict that pages on these hosts may get, of whatever category, since any may be requested."""
        found, view = self._lists_below(names, client), self._view(client)
        blocking = next(filter(view.uses, found), "")
        if blocking:
            return Verdict("block", entry="-", list=blocking)
        return Verdict("monitor", entry="-", list=found[0]) if found else PASS

    def _relayed(self, verdict: Verdict, names: Names, client: Client) -> Names | None:
        """The names under which what is listed is relayed unread, or None, as it may not be."""
        if self._only_told(verdict):
            return self._tell(verdict, names, client)
        self._log.hit(self._hit(verdict, names, client, self._view(client)))
        self._drew(client, verdict)
        return None

    def _tell(self, verdict: Verdict, names: Names, client: Client, head: RequestHead | None = None) -> Names:
        """Log that something listed passes, since it is only monitored or relayed."""
        if not names.told:
            self._log.hit(self._hit(verdict, names, client, self._view(client), head, would=True))
        return names._replace(told=True)

    def _hit(
        self,
        verdict: Verdict,
        names: Names,
        client: Client,
        view: View,
        head: RequestHead | None = None,
        *,
        cut: bool = False,
        would: bool = False,
    ) -> Hit:
        """Record of a hit, under a new reference."""
        return Hit(
            verdict,
            client.peername[0],
            self.port_of(socket.IPPROTO_TCP, client.sockname, client.peername),
            "http" if names.target else "tls" if names.tls else "tcp",
            "match" if names.target else "peek",
            new_reference(),
            partial(_url, names),
            names.address,
            names.ports[-1] if names.ports else 0,
            would,
            cut,
            view.group,
            prefetched=head is not None and head.prefetches,
        )

    def _listed(
        self, verdict: Verdict, names: Names, head: RequestHead, client: Client
    ) -> BlockResponse | Names:
        """The response to a listed request."""
        if self._only_told(verdict):
            return self._tell(verdict, names, client, head)
        view = self._view(client)
        hit = self._hit(verdict, names, client, view, head)
        self._log.hit(hit)
        self._drew(client, verdict)
        return self._page(hit, view, head, client)

    def _page(self, hit: Hit, view: View, asked: RequestHead | None, client: Client) -> BlockResponse:
        """The block page for a hit, as the client wants it where that is known."""
        verdict, reference, page = hit.verdict, hit.reference, self.pages.get(view.page, self.page)
        head, accept, language = False, "", ""
        if asked is not None:
            head = asked.method == b"HEAD"
            accept, language = (asked.get(name).decode("latin-1") for name in (b"accept", b"accept-language"))
        try:
            return page.render(
                BlockNotice(reference, verdict.list, verdict.category or None),
                accept=accept,
                accept_language=language,
                head=head,
            )
        except Exception as e:  # noqa: BLE001 - the decision stands, whatever becomes of the page
            self._log.failure(e, client, "blocked")
            return plain(451, f"Blocked. Reference: {reference}", head=head)

    def _asked(self, client: Client) -> None:
        if self.probing is not None and self.probing.slowing:
            try:
                self.probing.asked(client)
            except Exception as e:  # noqa: BLE001 - the decision is another matter
                self._log.failure(e, client, "not slowed")

    def _drew(self, client: Client, verdict: Verdict) -> None:
        if self.probing is not None:
            try:
                self.probing.drew(client, verdict)
            except Exception as e:  # noqa: BLE001 - as above
                self._log.failure(e, client, "blocked")


def _undecided(head: RequestHead | None) -> BlockResponse:
    to_head = head is not None and head.method == b"HEAD"
    return plain(503, "The filter could not decide on this request.", head=to_head)


def _url(names: Names) -> str | None:
    """The canonical URL of a request, or of the root of a connection's host."""
    try:
        readings = host_readings(names.hosts[0]) if names.hosts else ()
    except UrlError:
        return None
    return canonical_url(f"http://{readings[0]}{names.target or '/'}") if readings else None


def _stands_for_itself(head: RequestHead | None, names: Names) -> bool:
    """Whether the response would be anybody's who asks for the URL: other methods, or a body, have servers
    give back what they are sent, under a URL that is everybody's, and fields have them give another page."""
    if head is None:
        return True
    return head.method == b"GET" and head.fields.length == 0 and not as_forwarded(names)


def _is_plain(names: Names, client: Client) -> bool:
    """Whether a request names one host and one page, which is the one that has answered. Of several hosts a
    client may have chosen all but that one, and dot segments lead past it where an origin takes none out."""
    if _DOT_SEGMENT(unquote(unquote(names.target.partition("?")[0], "latin-1"), "latin-1")):
        return False
    hosts = list(names.hosts)
    if isinstance(client.proxy_mode, mode_specs.ReverseMode):
        del hosts[-1:]  # the origin, as the operator has named it
    named = {host_readings(host) for host in hosts if (as_address(host) or host) != names.address}
    return len(named) <= 1


def _gravest(verdicts: list[Verdict]) -> Verdict:
    """The first verdict that blocks, else the first that is to be logged."""
    listed = [verdict for verdict in verdicts if verdict.listed]
    return next((verdict for verdict in listed if verdict.blocked), listed[0]) if listed else PASS
