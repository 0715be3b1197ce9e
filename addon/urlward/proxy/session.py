"""Session: a client's connection, from its first byte on, and those to its origins.

One path for every mode: what a connection is, is decided by its first bytes (`urlward.proxy.first_bytes`),
again inside a tunnel and inside TLS that ends here. From then on a relay has the bytes, and this class the
sockets.
"""

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from math import inf
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from mitmproxy.proxy import mode_specs

from urlward.engine.scope import Scope, scope
from urlward.engine.url import is_address
from urlward.proxy.acceptor import is_shortage
from urlward.proxy.addon import Urlward
from urlward.proxy.block_page import ACCESS_DENIED, BlockResponse, plain, unreachable
from urlward.proxy.connection import BEHIND, CONNECTING, HELD, INSPECTED, LATER, SLOWED, Connection, is_local
from urlward.proxy.first_bytes import HTTP, Decision, decide
from urlward.proxy.forward import ForwardRelay
from urlward.proxy.head import RequestHead
from urlward.proxy.http2 import Http2, Lane
from urlward.proxy.http2_origin import OriginLane, SharedOrigin
from urlward.proxy.live import HEAD_TIMEOUT, Member
from urlward.proxy.names import NO_NAMES, Names, Place
from urlward.proxy.poller import WRITE, Delay, Share, Task, running_loop
from urlward.proxy.raw_relay import RawRelay
from urlward.proxy.relay import LINGER, NO_ENDS, NOWHERE, REST, Ends, HttpEnds, HttpRelay, Origin, Pending
from urlward.proxy.socks import SocksError, SocksHandshake
from urlward.proxy.threads import Waiter
from urlward.proxy.tls import Tls, nothing, reason_of
from urlward.proxy.upstream import Address, Opening, literal_address

if TYPE_CHECKING:
    from urlward.proxy.guard import Guard

CONNECT_WITHIN: Final = 60.0
"""Seconds that an origin has to be looked up, connected to, and agreed with on TLS."""

UNANSWERED_FOR: Final = 1.0
"""Seconds that an address has which a client has dialled, until others of its name are tried beside it."""

ENDED_FOR: Final = 60.0
"""Seconds of silence that a client gets for an answer which sends no more."""

GONE_AFTER: Final = 10.0
"""The same where nothing of the answer to a GET or HEAD has come: most such clients have closed (nginx and
Squid take all for that, at once), and an origin that hangs would have a connection held for each of them; and
where the address that leads to the origin is this machine's no more."""

HEAD_START: Final = 1 << 16
"""Bytes that count as a connection's when it begins, so that a new one is not taken for a slow one."""

NOT_SHOWN = BlockResponse(451, "", (), b"")
"""For a relay that nobody reads, and that so shows nothing."""

_NUMBERS = count(1)

_TOLD: Final = SimpleNamespace(told=True)
"""Marker around a tunnel that would be blocked, which has been logged."""


class Mode:
    """State of a mode, shared by its sessions.

    Attributes:
        transparent: whether clients know nothing of the filter.
        addon: decides.
        loop: the event loop.
        poller: of the sockets of all modes: a client has one share of the processor for all of them.
        lingering: closes connections that may still be sending behind an answer.
        resting: has what waits of a response go on, where its origin rests.
        seeking: has the others looked for where a dialled address is silent.
    """

    def __init__(self, spec: mode_specs.ProxyMode, addon: Urlward) -> None:
        self.transparent = isinstance(spec, mode_specs.TransparentMode)
        self.addon = addon
        self.loop = running_loop()
        self.poller = self.loop.poller
        self.lingering = Delay(LINGER)
        self.resting = Delay(REST)
        self.seeking = Delay(UNANSWERED_FOR)

    @property
    def keeps_source(self) -> bool:
        """Whether origins see clients' addresses."""
        return self.transparent and self.addon.keep_source


@dataclass(eq=False, slots=True)
class SessionClient:
    """Client side of a session, as `urlward.proxy.names.Client`."""

    peername: tuple[Any, ...]
    proxy_mode: mode_specs.ProxyMode
    sockname: tuple[Any, ...] = ()
    tls: bool = False
    sni: str | None = None
    alpn: bytes | None = None
    id: str = field(default_factory=lambda: str(next(_NUMBERS)))


@dataclass(eq=False, slots=True)
class Server:
    """Origin side of a session, as `urlward.proxy.names.Context` has it; the host as sent."""

    address: tuple[str, int] | None
    as_sent: ClassVar[bool] = True


class SessionContext:
    """Context of a session, as `urlward.proxy.names.Context`."""

    __slots__ = ("client", "layers", "server")

    def __init__(self, client: SessionClient, address: tuple[str, int] | None, *, told: bool = False) -> None:
        self.client = client
        self.server = Server(address)
        self.layers: list[Any] = [_TOLD] if told else []


class _Rest:
    """Null relay, for a session that has not begun, or has ended."""

    live: Final = ()
    endless: Final = False
    unanswered: Final = False
    unbounded: Final = False
    head: Final = None
    pending: Final = ()
    ends: Ends = NO_ENDS

    def server_ended(self) -> None:
        """Do nothing."""

    def read_on(self) -> None:
        """Do nothing."""


_REST = _Rest()


class Session(HttpEnds, Member):
    """Session of a client's connection, with those to its origins.

    Args:
        mode: by which it has come.
        sock: the client's; or a lane, of a connection over which HTTP/2 is spoken.
        client: whose.
        address: where it is led to, host and port; None where the client has yet to say that.
        share: that of the client's network.
        tls: whether the origin is spoken to in TLS whatever the client speaks.
        shared: the origin over HTTP/2, where the client speaks that.

    Attributes:
        client: whose.
        active: when something came last, by `time.perf_counter`; 0 where nothing has since the last look.
        share: that of the client's network.
    """

    __slots__ = (
        "_astray", "_begun", "_client", "_context", "_data", "_guard", "_inner", "_leaves", "_lingers",
        "_looking", "_mode", "_origin", "_over", "_passes", "_place", "_probed", "_reaching", "_relay",
        "_seeks", "_server", "_shaking", "_shared", "_since", "_socks", "_sought", "_to_proxy",
        "_upstream_tls", "client", "send_client", "send_server", "share",
    )  # fmt: skip

    client: SessionClient

    def __init__(
        self,
        mode: Mode,
        sock: socket.socket | Lane,
        client: SessionClient,
        address: tuple[str, int] | None,
        share: Share,
        *,
        tls: bool = False,
        shared: SharedOrigin | None = None,
    ) -> None:
        self._mode = mode
        assert mode.addon.guard is not None
        self._guard: Guard = mode.addon.guard
        self.client = client
        self.active = self._begun = perf_counter()
        self.share = share
        self._context = SessionContext(client, address)
        self._data = b""
        self._relay: Any = _REST
        self._place: Place | None = None
        self._socks: SocksHandshake | None = None
        self._to_proxy = address is None
        """Whether what comes is spoken to the proxy, not to an origin."""
        self._upstream_tls = tls
        self._shared = shared
        self._inner = False
        """Whether what comes is inside TLS that was meant for an origin."""
        self._shaking = False
        self._over = False
        """Whether the client's connection is closed, and nothing comes of what it is asked."""
        self._since = time.monotonic()
        self._leaves: Pending | None = None
        """Request of whose answer nothing had come at the last look, where the client had ended."""
        self._probed = False
        """Whether the kernel asks both ends whether they are there."""
        self._astray = 0
        """Looks in a row at which its address was not this machine's."""
        self._lingers: list[Task] | None = None
        self._passes: list[Task] | None = None
        self._looking = 0.0
        """Since when an origin is being reached, 0 where none is."""
        self._reaching: Waiter | Opening | None = None
        """How."""
        self._seeks: list[Task] | None = None
        """What looks for another address if the client's does not answer, until it does."""
        self._sought: Waiter | None = None
        self._origin = NOWHERE
        self._server: Connection | None = None
        self._client: Connection = (
            sock.owned(self) if isinstance(sock, Lane) else Connection(mode.poller, sock, self)
        )
        # The connections' own methods, for one call less in sending.
        self.send_client: Callable[[bytes], None] = self._client.write  # type: ignore[assignment]
        self.send_server: Callable[[bytes], None] = nothing  # type: ignore[assignment]
        self._client.receive = self._first
        self._client.ended = self.close

    def begin(self) -> None:
        """Start reading."""
        if self._to_proxy and isinstance(self.client.proxy_mode, mode_specs.Socks5Mode):
            access = self._mode.addon.access
            self._socks = SocksHandshake(access.takes_tunnel, authenticates=access.passwords is not None)
            self._to_proxy = False
            self._client.receive = self._socks_data
        self._mode.addon.live.add(self)
        self._client.start()

    # -- before it is known what it is

    def _socks_data(self, data: bytes) -> None:
        socks, passwords = self._socks, self._mode.addon.access.passwords
        assert socks is not None
        try:
            self.send_client(socks.feed(data))
            if socks.token and passwords is not None:
                admitted = passwords.admits(socks.token, str(self.client.peername[0]), self._may_go_on)
                if admitted is None:
                    self._client.pause(HELD)
                    return
                self.send_client(socks.admit(admitted=admitted))
                self.send_client(socks.feed(b""))
        except SocksError as e:
            self._guard.refused("peek")
            self.send_client(e.reply)
            self.close()
            return
        if socks.destination is not None:
            self._context.server.address = socks.destination
            rest, self._socks = socks.rest, None
            self._client.receive = self._first
            if rest:
                self._first(rest)

    def _first(self, data: bytes) -> None:
        self._data += data
        try:
            others = self._mode.addon.relays_other
            decision = decide(
                self._context, self._data, self._guard, relays_other=others, for_origin=not self._to_proxy
            )
        except Exception as e:  # noqa: BLE001 - no fault of ours may let bytes pass unjudged
            if not self._guard.failed(e, self.client):
                self.cut()
                return
            unread = self._data[:1] == b"\x16" and not self._to_proxy
            decision = Decision("relay", NO_NAMES) if unread else HTTP
        self._become(decision)

    def _become(self, decision: Decision) -> None:
        match decision.what:
            case "relay":
                self._relay_unread(decision.names)
            case "http":
                self._take_requests()
            case "refuse":
                self.send_client(ACCESS_DENIED)
                self.close()
            case "close":
                self.close()
            case "tls" if self._inner:
                # TLS once more, whose names nobody has judged.
                self._guard.refused("peek")
                self.close()
            case "tls":
                self._end_tls(decision.sni)

    def _relay_unread(self, names: Names) -> None:
        data, self._data = self._data, b""
        if names.tls or not self._inner:
            self._upstream_tls = False
        relay = RawRelay(self, names, data)
        self._begin_relay(relay)
        self.connect()

    def _take_requests(self) -> None:
        self._place = Place(self._context)
        relay = ForwardRelay(self, self._admit) if self._to_proxy else HttpRelay(self, self._judge)
        files = self._mode.addon.files
        if files is not None:
            relay.inspect = partial(files.inspection, self._guard, self.client)
        self._begin_relay(relay)
        data, self._data = self._data, b""
        relay.client_data(data)

    def _begin_relay(self, relay: Any) -> None:
        self._relay = relay
        self._client.receive, self._client.ended = relay.client_data, relay.client_ended

    def _judge(self, head: RequestHead) -> Names | BlockResponse:
        assert self._place is not None
        if self._shared is not None and self._server is None:
            # To where other streams go now, wherever the one before has gone.
            self._place.reached(self._shared.address)
        return self._guard.answer_head(head, self._place, self.client, arrived=self.active)

    def _admit(self, head: RequestHead) -> Names | BlockResponse | None:
        """Check access for a request to the proxy."""
        access, asked = self._mode.addon.access, self._relay.asked
        found: BlockResponse | Literal["wait"] | None
        if asked is NOWHERE:
            found = access.own(head)
        else:
            found = access.refusal(head, asked.port, self.client, self._may_go_on)
            if found is None:
                return self._judge(head)
            if found == "wait":
                return None
        if found.status != 200:
            self._guard.refused("match")
        return found

    def _may_go_on(self) -> None:
        """A password check that was waited for has finished."""
        if self._over:
            return
        self._client.resume(HELD)
        if self._socks is not None:
            self._attempt(self._socks_data, b"")
        else:
            self._attempt(self._relay.go_on)

    def _attempt(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do what a connection waits for: no fault of ours may leave it hanging."""
        try:
            act(*arguments)
        except Exception as e:  # noqa: BLE001 - see there
            self.broken(e)

    # -- TLS with the client

    def _end_tls(self, sni: bytes | None) -> None:
        data, self._data = self._data, b""
        client, connection = self.client, self._client
        names = [sni.decode("latin-1")] if sni else []
        address = self._context.server.address
        names.append(address[0] if address is not None else connection.own_address)
        # To the proxy itself, HTTP/1.1 is spoken.
        http2 = self._mode.addon.http2 and not self._to_proxy
        try:
            context = self._mode.addon.tls_with_clients().context(*names, http2=http2)
        except ValueError:
            # A name that no certificate can have; no fault of ours, whatever `on_error` says of those.
            self._guard.refused("peek")
            self.send_client(ACCESS_DENIED)
            self.close()
            return
        if not self._to_proxy:  # what is spoken to the proxy itself names no origin
            client.tls = True
            client.sni = None if sni is None else sni.decode("latin-1")
        tls = Tls(context, client_side=False)
        tls.established, tls.failed = self._tls_established, self._tls_failed
        self._shaking = True
        connection.receive = self._first
        connection.start_tls(tls)
        connection.take(data)

    def _tls_established(self) -> None:
        self._shaking = False
        self._inner = self._upstream_tls = not self._to_proxy
        if isinstance(self.client.proxy_mode, mode_specs.ReverseMode):
            self._upstream_tls = self.client.proxy_mode.scheme == "https"
        connection = self._client
        assert connection.tls is not None
        alpn = connection.tls.session.selected_alpn_protocol()
        if alpn is not None:
            self.client.alpn = alpn.encode()
        if alpn == "h2":
            relay = Http2(self, self._mode.loop)
            self._begin_relay(relay)
            connection.peer = relay
            relay.peer = connection
            relay.start()

    def exchange(self, lane: Lane) -> None:
        """Relay what comes over a lane, to where this connection leads."""
        one = Session(
            self._mode,
            lane,
            self.client,
            self._context.server.address,
            self.share,
            tls=self._upstream_tls,
            shared=self._relay.origin if self._upstream_tls else None,
        )
        one._context = self._context
        one._to_proxy, one._inner = False, True
        self._mode.addon.live.add(one)
        one._take_requests()
        lane.start()

    def _tls_failed(self, error: Exception) -> None:  # noqa: ARG002 - the client's own decision
        self._shaking = False
        self.close()

    # -- what the relay asks of its connections (`urlward.proxy.relay.Ends`)

    def connect(self) -> None:
        """Open the connection to the origin; nothing is read of the client meanwhile."""
        relay = self._relay
        if isinstance(relay, ForwardRelay):
            self._origin = relay.origin
            # What cannot be sent again needs one that is not about to be closed (RFC 9110 section 9.2.2).
            kept = self._mode.addon.pool.take(relay.origin) if relay.repeatable else None
            if kept is not None:
                relay.reused = True
                kept.belong(self)
                self._take_server(kept)
                self._reached()
                return
        else:
            assert self._context.server.address is not None
            host, port = self._context.server.address
            self._origin = Origin(host, port, self._upstream_tls)
        self._client.pause(CONNECTING)
        self._looking = time.monotonic()
        if self._may_share():
            assert self._shared is not None
            assert isinstance(self._client, Lane)
            lane = self._shared.lane(self, surely=not self._client.repeatable)
            if lane is not None:
                self._take_server(lane)
                self._reached()
                return
            if self._shared.waits(self):
                return
        host, port = self._origin.host, self._origin.port
        literal = literal_address(host, port)
        if literal is not None:
            self._seeks = self._mode.seeking.call(self._look_elsewhere)
            self._found((literal,))
        else:
            self._reaching = self._look_up(host, self._found)

    def _look_up(self, name: str, found: Callable[[Sequence[Address]], None]) -> Waiter:
        client, found = str(self.client.peername[0]), partial(self._attempt, found)
        return self._mode.addon.resolver.look_up(name, self._origin.port, client, found)

    def _may_share(self) -> bool:
        """Whether the origin may be asked over HTTP/2; for WebSockets few speak it (RFC 8441)."""
        if self._shared is None:
            return False
        pending = self._relay.pending
        return bool(pending) and not pending[0].websocket

    def _found(self, addresses: Sequence[Address]) -> None:
        self._reaching = None
        addon = self._mode.addon
        allowed = self._within_reach(addresses)
        if not allowed:
            self._not_connected(self._out_of_reach() if addresses else self._nameless())
            return
        passed = self._passed(allowed)
        if not passed:
            self._not_connected(self._listed(str(allowed[0][0])))
            return
        source, opened = self._source(), partial(self._attempt, self._opened)
        local = source or addon.connect_from
        opening = self._reaching = Opening(
            self._mode.poller, self.share, passed, opened, addon.short, local, bool(source)
        )
        opening.start()

    def _within_reach(self, addresses: Sequence[Address]) -> list[Address]:
        """Those that the client may be led to."""
        host, port = self._origin.host, self._origin.port
        may_reach = self._mode.addon.may_reach
        return [
            each for each in addresses if may_reach(self.client, str(each[0]), port, named=each[0] != host)
        ]

    def _passed(self, addresses: Sequence[Address]) -> list[Address]:
        """Those that are not listed: a page of one that is may be excused, but no connection to it."""
        port, lists = self._origin.port, self._guard.lists_address
        return [each for each in addresses if not lists(str(each[0]), port, self.client)]

    def _opened(self, sock: socket.socket | None, error: OSError | None) -> None:
        self._reaching = None
        if sock is None:
            if error is not None and is_shortage(error):
                self._not_connected(plain(503, "The filter has no room for another connection."))
            else:
                self._look_elsewhere()
                if self._sought is None:
                    self._not_connected(None)
            return
        self._seek_no_more()
        try:
            address = str(sock.getpeername()[0])
        except OSError:
            address = ""  # reset already
        self._take_server(Connection(self._mode.poller, sock, self, address, events=WRITE))
        if not address:
            self._not_connected(None)
        elif self._origin.tls:
            self._begin_tls()
        else:
            self._reached()

    def _look_elsewhere(self) -> None:
        """Look up the name whose address the client has dialled, and which does not answer: by itself the
        client would go on to the next of that name, and here it has been told that this one answers."""
        if self._seeks is None:
            return
        self._seek_no_more()
        names = [name for names in self._relay.live[:1] for name in names.hosts if not is_address(name)]
        if len(names) == 1 and not isinstance(self.client.proxy_mode, mode_specs.ReverseMode):
            self._sought = self._look_up(names[0], self._found_elsewhere)

    def _found_elsewhere(self, addresses: Sequence[Address]) -> None:
        self._sought = None
        others = self._as_far(addresses)
        if isinstance(self._reaching, Opening):
            self._reaching.add(self._passed(self._within_reach(others)))
        else:
            self._found(others)

    def _as_far(self, addresses: Sequence[Address]) -> list[Address]:
        """Those of a name that may stand for the one dialled. Whoever runs the name, such as the client, must
        not lead the filter to where clients do not get: to this machine, or from the internet into a network
        behind it."""
        dialled = self._origin.host
        if all(each[0] != dialled for each in addresses):
            return []  # the client has it from elsewhere, and may mean that one alone
        least = scope(dialled)

        def is_near(address: str) -> bool:
            # All of this machine's are as good as loopback.
            return scope(address) < least or (least > Scope.HOST and is_local(address))

        return [each for each in addresses if each[0] != dialled and not is_near(str(each[0]))]

    def _seek_no_more(self) -> None:
        if self._seeks is not None:
            self._seeks.clear()
            self._seeks = None
        if self._sought is not None:
            self._sought.cancel()
            self._sought = None

    def _begin_tls(self) -> None:
        server = self._server
        assert server is not None
        origin = self._origin
        name = self._server_name()
        protocols = ["http/1.1"] if self.client.alpn or self._inner else []
        if self._may_share():
            protocols.insert(0, "h2")
        try:
            tls = self._mode.addon.origins.begin((origin.host, origin.port, self._source()), name, *protocols)
        except (ValueError, OSError):
            # A name that OpenSSL does not take, or a file of the operator's that it cannot read.
            self._tls_refused()
            return
        tls.established, tls.failed = self._reached, self._origin_tls_failed
        server.ended = self._tls_refused  # where it hangs up
        server.start()
        server.start_tls(tls)

    def _source(self) -> str:
        """The client's address where origins are to see that, else empty."""
        return str(self.client.peername[0]) if self._mode.keeps_source else ""

    def _server_name(self) -> bytes:
        """The TLS server name for an origin: the client's, or the origin's own."""
        name = self.client.sni if self._inner and self.client.sni else self._origin.host
        return name.encode("latin-1", "replace")

    def _origin_tls_failed(self, error: Exception) -> None:
        reason = reason_of(error)
        if reason:
            self._guard.untrusted(reason, self.client)
        self._tls_refused(reason)

    def _tls_refused(self, reason: str = "") -> None:
        """The TLS handshake with the origin failed, because of its certificate perhaps."""
        self._not_connected(unreachable(reason, tls=True))

    def _reached(self) -> None:
        """The connection to the origin is open: check its address, and go on."""
        self._looking = 0.0
        if self._over or self._server is None:
            return
        tls = self._server.tls
        if self._shared is not None and not isinstance(self._server, OriginLane):
            if tls is not None and tls.session.selected_alpn_protocol() == "h2":
                connection = self._server
                connection.detach()
                self._take_server(self._shared.adopt(connection, self))
            else:
                self._shared.leave(self)
        address = self._server.address
        # Under the address that it has led to before, the request has been judged.
        if address not in (self._origin.host, self._place.address if self._place is not None else None):
            if self._place is not None and not isinstance(self._relay, ForwardRelay):
                self._place.reached(address)
            answer = self._listed(address)
            if not self._mode.addon.may_reach(self.client, address, self._origin.port, named=True):
                answer = answer or self._out_of_reach()
            if answer is not None:
                self._not_connected(answer)
                return
        self._server.ended = self._relay.server_ended
        self._server.start()
        # Before what has come so far is sent on: if that is more than the origin takes, it stops again.
        self._client.resume(CONNECTING)
        self._relay.connected(address if address != self._origin.host else "")

    def _not_connected(self, answer: BlockResponse | None) -> None:
        self._looking = 0.0
        self.close_server()
        self._client.resume(CONNECTING)
        self._relay.not_connected(answer)

    def _out_of_reach(self) -> BlockResponse:
        self._guard.refused("match")
        return plain(403, "The filter does not connect to this address.")

    def _nameless(self) -> BlockResponse | None:
        """The response where a name has no address; None where one was dialled, and has no other."""
        return None if is_address(self._origin.host) else plain(502, "No address was found for this name.")

    def _listed(self, address: str) -> BlockResponse | None:
        """The response where a name has this address; None where that is not listed."""
        if isinstance(self._relay, HttpRelay):
            # Of those that came at once none has been judged by one in the place of that which was dialled.
            # What has ended meanwhile has no head.
            answers = (
                self._guard.answer_connected(head, each.names, self.client, address, self._origin.port)
                for each in self._relay.pending
                if (head := each.head) is not None
            )
            return next((answer for answer in answers if answer is not None), None)
        (names,) = self._relay.live
        return None if self._guard.address_allowed(self._context, names, address) else NOT_SHOWN

    def asks(self, *, connected: bool) -> None:
        """A request is about to be judged; the origin's address is known where that is connected to."""
        assert self._place is not None
        self._place.reached(self._server.address if connected and self._server is not None else "")

    def tunnel(self, origin: Origin, rest: bytes, *, told: bool) -> None:
        """Go on as if the client had connected to an origin itself."""
        self._relay.ends = NO_ENDS
        self._relay = _REST
        self._place = None
        self.client.tls, self.client.sni = False, None
        self._context = SessionContext(self.client, (origin.host, origin.port), told=told)
        self._to_proxy = False
        self._since = time.monotonic()
        self._client.receive, self._client.ended = self._first, self.close
        if rest:
            self._first(rest)

    def switch(self, names: Names, early: bytes, *, ended: bool) -> None:
        """Relay unread what comes from here on."""
        assert self._server is not None
        self._relay.ends = NO_ENDS
        relay = RawRelay(self, names, early)
        self._begin_relay(relay)
        self._take_server(self._server)
        relay.connected()
        if self._server.at_end:  # behind a response that has been under inspection
            relay.server_ended()
        if ended:
            relay.client_ended()

    def hold_client(self, *, held: bool) -> None:
        """Stop reading from the client, or go on."""
        (self._client.pause if held else self._client.resume)(HELD)

    def hold_server(self, *, held: bool) -> None:
        """Stop reading from the origin, or go on."""
        if self._server is not None:
            (self._server.pause if held else self._server.resume)(INSPECTED)

    def inspect_later(self) -> None:
        """Have the relay look at more of a response in the client's next turn."""
        self._mode.poller.later(self.share, partial(self._have, HttpRelay.inspect_on))

    def pass_later(self) -> None:
        """Have the relay send what waits of a response in a while."""
        self._passes = self._mode.resting.call(partial(self._have, HttpRelay.pass_tail))

    def _have(self, act: Callable[[HttpRelay], None]) -> None:
        """Have the relay of requests do something, if it still is one."""
        relay = self._relay
        if isinstance(relay, HttpRelay):
            self._attempt(act, relay)

    def break_off(self) -> None:
        """Close both connections, so that the client cannot take it for the end of a response."""
        self.reset_client(as_tls=False)
        self.leave_server()

    def reset_client(self, *, as_tls: bool) -> None:
        """Close the client's connection so that it cannot take it for the end of a response."""
        self._client.reset(as_tls=as_tls)

    def keep_server(self, origin: Origin) -> None:
        """Return an idle connection to an origin to the pool, for a later request."""
        server, self._server, self.send_server = self._server, None, nothing
        if server is not None:
            server.detach()
            self._mode.addon.pool.keep(origin, server)

    def has_way(self) -> bool:
        """Whether what is sent to the origin, whose connection has been at rest, may still get there."""
        server = self._server
        return server is None or self._mode.keeps_source or server.has_address

    def _take_server(self, server: Connection) -> None:
        self._server = server
        server.receive, server.ended = self._relay.server_data, self._relay.server_ended
        self.send_server = server.write
        server.attach(self._client)

    def client_is_behind(self) -> bool:
        """Whether the client has yet to take what it has been sent."""
        return self._client.waiting > 0

    def turn_is_over(self) -> bool:
        """Whether the client has had its turn."""
        return self._mode.poller.turn_is_over

    def go_on_later(self) -> None:
        """Have the relay go on in the client's next turn."""
        self._client.pause(LATER)
        self._mode.poller.later(self.share, self._go_on)

    def _go_on(self) -> None:
        if not self._over:
            self._client.resume(LATER)
            self._attempt(self._relay.read_on)

    def end_client(self) -> None:
        """Send the client no more."""
        self._client.end()

    def end_server(self) -> None:
        """Send the origin no more."""
        if self._server is not None:
            self._server.end()

    def close_server(self) -> None:
        """Close the connection to the origin, or give it up."""
        if isinstance(self._relay, ForwardRelay):
            self.leave_server()
            return
        self._give_up()
        if self._server is not None:
            self._keep_ticket(self._server)
            self._server.close()

    def leave_server(self) -> None:
        """Close the connection to the origin, or give it up; it is heard of no more, another may follow."""
        self._give_up()
        server, self._server, self.send_server = self._server, None, nothing
        if server is not None:
            self._keep_ticket(server)
            server.forget()
            server.abandon()

    def _keep_ticket(self, server: Connection) -> None:
        """Remember a TLS session with an origin, to resume it."""
        if server.tls is not None and server.tls.ready:
            origin = self._origin
            key = (origin.host, origin.port, self._source())
            self._mode.addon.origins.keep(key, self._server_name(), server.tls)

    def _give_up(self) -> None:
        """Stop waiting for an origin."""
        self._looking = 0.0
        self._seek_no_more()
        if self._reaching is not None:
            self._reaching.cancel()
            self._reaching = None
        if self._shared is not None:
            self._shared.leave(self)

    def close(self) -> None:
        """Close both connections."""
        self._client.close()
        self.close_server()

    def rest(self) -> None:
        """A response is sent; a stream of the origin, which has brought it, brings no other."""
        if isinstance(self._server, OriginLane):
            self._relay.leave_server()

    def takes_more(self, *, surely: bool) -> bool:
        """Whether another request may follow, as `urlward.proxy.http2_frames.Exchange`."""
        if not self._relay.takes_more:
            return False
        return self._server is None or not surely or self._server.silent

    def refused(self, stage: str) -> None:
        """Count what could not be read."""
        self._guard.refused(stage)

    def linger(self) -> None:
        """Close both connections in a while."""
        self._client.resume(BEHIND | CONNECTING | HELD)
        if self._lingers is None:
            self._lingers = self._mode.lingering.call(self.close)

    # -- what the connections say (`urlward.proxy.connection.Owner`)

    def broken(self, error: Exception) -> None:
        """Handle an error of the filter's own."""
        self.cut()
        self._guard.broken(error, self.client)

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        connection.forget()
        if connection is self._client:
            self._over = True
            self._attempt(self.close_server)
        elif connection is self._server:
            self._server = None
            self.send_server = nothing
            self._attempt(self._server_lost, connection)
        if self._over:
            if isinstance(self._relay, Http2 | HttpRelay):
                self._attempt(self._relay.closed)
            if self._server is None:
                # Not before: what the origin still has to take has its time limits.
                self._mode.addon.live.discard(self)
                self._forget()

    def _server_lost(self, connection: Connection) -> None:
        if self._over:
            return
        if self._looking:
            self._not_connected(unreachable(tls=self._origin.tls))
        elif connection.broken and self._relay.unbounded:
            self._relay.server_broke(as_tls=connection.cut_off)
        else:
            self._relay.server_ended()
            if self._relay.endless:
                self._client.close()

    def _forget(self) -> None:
        """Drop references once all is over, so that memory is freed without the garbage collector."""
        self._relay.ends = NO_ENDS
        self._relay = _REST
        self._place = None
        self.send_client = self.send_server = nothing
        for waits in (self._lingers, self._passes):
            if waits is not None:
                waits.clear()

    # -- as a member of `Live`

    def live(self) -> Iterable[Names]:
        """The names that the exchanges under way passed under."""
        return self._relay.live  # type: ignore[no-any-return]

    def head(self) -> int | None:
        """The request head that has begun and not ended, if any; a handshake or unknown bytes, too."""
        if self._relay is _REST:
            return 0 if self._data or self._shaking else None
        return self._relay.head  # type: ignore[no-any-return]

    def idle(self) -> bool:
        """Whether nothing is under way, or nothing has come since the last look where that is not known."""
        if self._client.waiting or (self._server is not None and self._server.waiting):
            return False
        if self._relay is _REST:
            return not (self._data or self._shaking or (self._socks is not None and self._socks.begun))
        if self._lingers is not None:
            return False  # an answer may be on its way to a client that is still sending
        return self._relay.idle or (self._relay.endless and not self.active)

    def progress(self) -> float:
        """Bytes a second that have gone either way since it began; more than there can be of a stream, whose
        end frees little."""
        if isinstance(self._client, Lane):
            return inf
        return 0.0 if self._over else (self._client.taken + HEAD_START) / (perf_counter() - self._begun + 1)

    def slow(self, *, held: bool) -> None:
        """Stop reading from a slowed client, or go on."""
        (self._client.pause if held else self._client.resume)(SLOWED)

    def touch(self, now: float) -> None:
        """Check time limits."""
        if self._looking and now - self._looking >= CONNECT_WITHIN:
            self._not_connected(None)
        if isinstance(self._relay, Http2):
            self._relay.origin.touch(now)
        # Nothing will come any more, nor an error; but for a moment a link may be down, and what has come
        # goes on to the client.
        has_way = self.active or self._client.waiting or self.has_way()
        astray = self._astray = 0 if has_way else self._astray + 1
        left, relay = self._leaves, self._relay
        # An origin may send the head of an answer for days.
        leaves = self._leaves = relay.pending[0] if self._client.at_end and relay.unanswered else None
        if self._relay is _REST and now - self._since >= min(self._mode.addon.tcp_timeout, HEAD_TIMEOUT):
            self.cut()
        elif self.active and (leaves is None or leaves is not left):
            self.active = 0.0
            self._since = now
        elif now - self._since >= self._patience or (astray > 1 and now - self._since >= GONE_AFTER):
            self.cut()
        elif (
            self._server is not None
            and not self._probed
            and now - self._since >= self._mode.addon.tcp_timeout
        ):
            self._probed = True
            for connection in (self._client, self._server):
                connection.probe(seldom=True)

    def leave(self) -> None:
        """Accept nothing more, where the protocol can say so, and end with what is under way."""
        if isinstance(self._relay, Http2):
            self._relay.leave()

    @property
    def _patience(self) -> float:
        """Seconds of silence that are allowed."""
        limit = self._mode.addon.tcp_timeout
        if isinstance(self._client, Lane) and self._server is None and self.idle():
            return 0.0  # there is nothing to keep for the next stream that would not soon be made anew
        if not self._client.at_end or self._over:
            server = self._server
            rests = self._relay.endless and server is not None and not server.at_end and self.idle()
            return self._mode.addon.quiet_timeout if rests and not isinstance(self._client, Lane) else limit
        # A client that has closed its connection cannot be told from one that only sends no more.
        return min(limit, GONE_AFTER if self._relay.unanswered else ENDED_FOR)

    def cut(self) -> None:
        """Close all connections at once."""
        self._give_up()
        whole = self._relay.unanswered and not self._client.waiting
        if self._lingers is None and not (whole or self.idle()):
            # Nor is what the system has yet to send, of megabytes perhaps, to go on, unless that is our
            # answer or whole responses.
            self._client.reset()
        for connection in (self._client, self._server):
            if connection is not None:
                connection.abort()
