"""The mitmproxy addon: options, hooks and the reload, around the guard and its layers.

mitmproxy logs an exception in a hook and carries on, so every hook here that decides something
catches its own.
"""

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitmproxy import addonmanager, command, ctx, exceptions, http
from mitmproxy.connection import Client
from mitmproxy.proxy import mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import ClientHelloData, TlsData

from urlward.config import Config, FilesTable, FleetTable, Problem, read_config
from urlward.config.tables import split_address
from urlward.engine.digest import derived
from urlward.engine.errors import UrlwardError
from urlward.engine.matcher import Matcher
from urlward.feeds.keeper import Keeper, entries_text
from urlward.feeds.learn import Learner
from urlward.feeds.setup import (
    listed_objections,
    make_keeper,
    make_neighbours,
    make_policy,
    tell_of_rules,
)
from urlward.lasting import lasting
from urlward.lists.run_folder import inherited
from urlward.lists.source import ErrorBudget
from urlward.options import OF_ADDON
from urlward.page.words import BlockPageError
from urlward.plan import Service
from urlward.process import keep_private
from urlward.proxy.acceptor import ACCEPT_AGAIN
from urlward.proxy.access import Access, is_inside
from urlward.proxy.authority import validity_trouble
from urlward.proxy.block_page import BlockPage, BlockResponse
from urlward.proxy.child import BACKOFF, END_WITHIN, LOOK, Attention, Child, start_service
from urlward.proxy.client_hello import ClientHelloError, parse_client_hello
from urlward.proxy.connection import is_local
from urlward.proxy.first_bytes import decide, is_for_origin
from urlward.proxy.guard import CanaryMark, Guard, PortOf, seen_port
from urlward.proxy.layers import (
    CloseLayer,
    Handshake,
    ListedAddress,
    Pacer,
    RefuseTlsLayer,
    RelayLayer,
    Undecided,
    WardHttpLayer,
    answer_now,
)
from urlward.proxy.live import Live
from urlward.proxy.mitm import (
    ConnectionHandler,
    HttpLayer,
    HTTPMode,
    TCPLayer,
    authority_of,
    cut_off,
    fail_handshakes_at_once,
    is_at_rest,
    is_left_alone,
    layer,
    length_of_body,
    take_hosts_as_sent,
)
from urlward.proxy.names import Client as AnyClient
from urlward.proxy.names import as_address, take_sni
from urlward.proxy.passwords import Passwords
from urlward.proxy.probing import MAX_WAIT, Probe, Probing
from urlward.proxy.settings import service_of
from urlward.proxy.tls import Certificates, Origins
from urlward.proxy.turns import Turns, measure, read_much, take_turns
from urlward.proxy.upstream import Pool, Resolver
from urlward.proxy.workers import is_first, is_worker, worker_name
from urlward.records.metrics import UNLEARNED, Metrics, RulesFacts
from urlward.records.worker import Recording
from urlward.state.folder import local_key, state_folder
from urlward.units import in_words

if TYPE_CHECKING:
    from urlward.files.inspection import Inspector
    from urlward.fleet.connection import FleetConnection
    from urlward.fleet.throttles import SharedProbing
    from urlward.policy.neighbours import Neighbours
    from urlward.policy.policy import Policy
    from urlward.proxy.known_files import KnownFiles

logger = logging.getLogger("urlward")

RECHECK = 0.25
"""Seconds between two looks at whether lists have changed under what is under way."""

AUTHORITY_LOOK = 600.0
"""Seconds between two looks at when the authority's certificate ends."""

ROOM = 16
"""Connections at rest that are closed at a time where there is no room for new ones."""

ROOM_WITHIN = 0.01
"""Seconds until there is room for them."""

SHORT_AGAIN = 30.0
"""Seconds between two log lines on that."""

_NO_PORT = (
    "no free port for a connection to an origin: those to one address and port have all of "
    "net.ipv4.ip_local_port_range; clients get 502: widen it, or have origins see clients' addresses "
    "(gateway.keep_source)"
)

_OTHERS = (
    # Options that only mitmproxy's flows heed,
    "urlward_flows", "upstream_auth", "body_size_limit", "stream_large_bodies",
    # by which mitmproxy decides on connections,
    "ignore_hosts", "allow_hosts", "tcp_hosts", "block_private", "block_global",
    # and of TLS, what mitmproxy alone speaks.
    "certs", "request_client_cert", "add_upstream_certs_to_client_chain", "tls_ecdh_curve_client",
    "tls_ecdh_curve_server",
)  # fmt: skip
_OUT_OF_REACH = "the filter does not connect to this address"
_TCP_TIMEOUT = 600.0
_QUIET_TIMEOUT = 7440.0
"""What a connection may rest for at least on the way (RFC 5382 section 5, REQ-5)."""
_MAX_PORT = 0xFFFF
_QUIC_PORTS = frozenset({80, 443, 8443})
_QUIC_INITIAL = 1200
_QUIC_CIPHERS = ["AES_256_GCM_SHA384", "AES_128_GCM_SHA256", "CHACHA20_POLY1305_SHA256"]


class Urlward:
    """mitmproxy addon that filters its traffic.

    Attributes:
        keeper: the lists in force, None before they are loaded.
        guard: decides; None before the options are read.
        policy: what holds for which client; None where the same does for all.
        neighbours: tells MAC addresses, where the policy asks for them.
        service: the service process, where this is no worker, whose supervisor looks after that.
        recording: what is recorded; None where nothing is.
        metrics: what is counted, whether or not anybody hears of it.
        learner: has URLs of known files learned; None where none are, or nothing is recorded.
        inspector: looks at pictures in them, in a process of its own; None where nobody does.
        files: inspects responses; None where no known files are looked for.
        rules: how a gateway's rules are, as it was told last.
        live: the exchanges under way.
        turns: of clients, where mitmproxy carries their connections.
        probing: notices who reads the lists out; None before the options are read.
        tcp_timeout: seconds without a byte after which a connection is closed.
        quiet_timeout: the same where it is relayed and no end of it can be known, as of a tunnel's; from
            `tcp_timeout` on both sides are asked whether they are there.
        relays_other: whether what is neither HTTP nor TLS is relayed.
        canary: the gateway's, where there is one.
        pool: connections to origins at rest.
        ports: that are listened on.
        resolver: looks origins up.
        origins: TLS settings and sessions for connections to them.
        access: what an explicit proxy takes.
        http2: whether clients may speak HTTP/2, inside TLS that ends here.
        connect_from: address of this machine from which origins are connected to, or empty.
        keep_source: whether they are connected to from the client's address instead, in transparent mode.
        fleet: connection of this process to the Valkey of several nodes; None where this one is alone.
        page_addresses: of this machine, where hosts listed whole are said to be; no connection is made there.
        port_of: gives the port that a client has sent from, where rules of the kernel may have changed it.
    """

    def __init__(self) -> None:
        self.keeper: Keeper | None = None
        self.guard: Guard | None = None
        self.policy: Policy | None = None
        self.neighbours: Neighbours | None = None
        self.service: Child | None = None
        self._service: Service | None = None
        self.recording: Recording | None = None
        self.metrics = Metrics(time.time())
        self.learner: Learner | None = None
        self.files: KnownFiles | None = None
        self.inspector: Inspector | None = None
        self.rules = RulesFacts()
        self.live = Live()
        self.turns = Turns()
        self.pool = Pool()
        self.ports: set[int] = set()
        self.probing: Probing | None = None
        self.fleet: FleetConnection | None = None
        self._shared_probing: SharedProbing | None = None
        self._joined = False
        self.page_addresses: frozenset[str] = frozenset()
        self.canary = CanaryMark()
        self.port_of: PortOf = seen_port
        self._others = True
        self.http2 = True
        self.connect_from = ""
        self.keep_source = False
        self.resolver = Resolver()
        self.access = Access(Config().proxy)
        self._admin_port = 0
        self._certificates: Certificates | None = None
        self.origins: Origins
        self._keeps_host = True
        self.tcp_timeout, self.quiet_timeout = _TCP_TIMEOUT, _QUIET_TIMEOUT
        self.relays_other = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._watches: list[asyncio.Task[None]] = []
        self._running = False
        self._judged: object = None
        """Lists and rules that what is under way has been judged by."""
        self._short_said: dict[str, float] = {}
        """When each kind of shortage was said last."""
        self._after: list[asyncio.Task[None]] = []

    def load(self, loader: addonmanager.Loader) -> None:
        """Declare the options (their names begin with ``urlward_``; `block_*` is mitmproxy's own)."""
        take_hosts_as_sent()
        fail_handshakes_at_once()
        keep_private()  # where mitmproxy's own tools load this addon, too
        for each in OF_ADDON:
            kind: Any = Sequence[str] if each.is_many else str if each.kind is Path else each.kind
            initial = list(each.initial) if each.is_many else each.initial
            choices = list(each.known) if kind is str else []
            loader.add_option(
                each.option, kind, "" if initial is None else initial, each.help, choices or None
            )

    def configure(self, updated: set[str]) -> None:
        """Take changed options into use, or refuse them with what is wrong."""
        # Kept, because mitmproxy copies an option's value each time it is read.
        self._keeps_host = _set("keep_host_header", True)
        others = next(filter(_set, _OTHERS), "")
        self._others = bool(others)
        self.http2 = bool(_set("urlward_http2", True))
        self.connect_from = str(_set("connect_addr") or "")
        self.keep_source = bool(_set("urlward_keep_source"))
        others = others or ("connect_addr" if self.connect_from else "")
        if self.keep_source and others:
            raise exceptions.OptionsError(
                f"with {others} origins would not see the client's address (keep_source)"
            )
        self._certificates, self.origins = None, Origins(ctx.options)
        self.tcp_timeout = float(ctx.options.tcp_timeout) if "tcp_timeout" in ctx.options else _TCP_TIMEOUT
        self.quiet_timeout = _QUIET_TIMEOUT if self.tcp_timeout == _TCP_TIMEOUT else self.tcp_timeout
        self.relays_other = ctx.options.urlward_other == "relay"
        if not any(each.option in updated for each in OF_ADDON):
            return
        options = ctx.options
        for each in OF_ADDON:
            # mitmproxy itself only offers the choices, and takes anything.
            chosen = each.kind is str and each.key and each.known
            if chosen and getattr(options, each.option) not in each.known:
                raise exceptions.OptionsError(f"{each.option} is one of {', '.join(each.known)}")
        of_lists = any(each.option in updated for each in OF_ADDON if each.of_lists)
        if not 0 <= options.urlward_intercept_port <= _MAX_PORT:
            text = f"urlward_intercept_port is a port up to {_MAX_PORT}, or 0 for none"
            raise exceptions.OptionsError(text)
        try:
            config = read_config(Path(options.urlward_config)) if options.urlward_config else Config()
            admin = options.urlward_admin or (config.admin.listen if config.admin is not None else "")
            self._admin_port = split_address(admin, lowest=0, any_host=True)[1] if admin else 0
            self.access = Access(config.proxy, self.access.passwords)
            pages, problems = block_pages(config, options.urlward_status)
            if problems:
                raise config.refused(*problems)
            if of_lists and (options.urlward_list or config.feed):
                self._take_lists(config)
            self.neighbours = make_neighbours(config)
            self.policy = make_policy(config, self.keeper, self.neighbours)
            if self.keeper is not None and (blocked := listed_objections(config, self.keeper, self.policy)):
                raise config.refused(blocked)
            if self.keeper is not None and of_lists:
                tell_of_rules(config, self.keeper)
            self._take_records(config)
            if config.fleet is not None and self.fleet is None:
                self._share(config.fleet, config)
        except (UrlwardError, ValueError) as e:
            raise exceptions.OptionsError(f"urlward: {e}") from None  # mitmproxy prints all that led to it
        if self.recording is not None and self.keeper is not None:
            self.recording.take_lists(self.keeper)
        if of_lists:
            path = Path(options.urlward_config) if options.urlward_config and not is_worker() else None
            self._service = service_of(
                config, path, {each.name: getattr(options, each.option) for each in OF_ADDON}
            )
        pacer = Pacer(self.live, self.handler)
        self.probing = Probing(
            config.probing, self._tell_of_probe, pacer.hold, shared=self._shared_probing
        )  # fmt: skip
        if self._shared_probing is not None:
            self._shared_probing.throttle = self.probing
        self.guard = Guard(
            self.matcher,
            pages.pop(""),
            on_error=options.urlward_on_error,
            intercept=options.urlward_intercept,
            tls_block=options.urlward_tls_block,
            monitor=options.urlward_monitor,
            intercept_port=options.urlward_intercept_port,
            policy=self.policy,
            pages=pages,
            probing=self.probing,
            metrics=self.metrics,
            canary=self.canary,
            port_of=lambda *of: self.port_of(*of),
            recording=self.recording,
            learner=self.learner,
        )
        self.files = None
        if config.files is not None:
            from urlward.proxy.known_files import KnownFiles

            self.files = KnownFiles(config.files, *self._inspected(config.files))
        if self._running:
            self._start_watch()

    def _inspected(self, files: FilesTable) -> "tuple[Inspector, bytes] | tuple[()]":
        """The inspector, and what it knows places by; nothing where there is none."""
        run = inherited() if is_worker() else None
        if run is None or not files.inspects:
            return ()
        from urlward.files.inspection import Inspector

        compares = files.pictures != "off"
        if self.inspector is None:
            self.inspector = Inspector(
                run.path,
                lambda: self.matcher().lists if compares and self.keeper is not None else (),
                most=files.queue,
                max_size=files.max_picture,
                deadline=files.deadline,
                count=lambda what: self.metrics.files(what),
                trouble=partial(self.trouble, "pictures"),
            )
        return self.inspector, derived(run.secret, b"urlward place")

    def running(self) -> None:
        """Start looking after the lists. Not a coroutine: that would break a script's live reload."""
        self._running = True
        if self.keeper is None:
            logger.error("no list is loaded (option urlward_list): every request is refused")
        if ctx.options.urlward_monitor:
            logger.warning("monitor: nothing is blocked, what would be is logged")
        if self.files is not None and self.recording is None and is_first():
            logger.warning(
                "files: without [records] a known file is a line in the log: no alarm, nothing learned"
            )
        if self.files is not None and is_first():
            modes = map(mode_specs.ProxyMode.parse, ctx.options.mode)
            if left := [mode.full_spec for mode in modes if not (speaks(mode) and self.is_alone(mode))]:
                logger.warning(
                    "files: what mitmproxy's flows carry is not compared with known files: mode %s",
                    ", ".join(left),
                )
        for name, safe in (("connection_strategy", "lazy"), ("rawtcp", False)):
            if getattr(ctx.options, name) != safe:
                value = str(safe).lower()
                logger.warning(
                    "set %s=%s: otherwise a listed host is contacted or a trick is let by", name, value
                )
        self._start_watch()
        if self.recording is not None:
            self._after.append(self._begin(self.recording.run(self._count_open)))
        self.join_fleet()
        self._judged = self._in_force()
        self._start("looking after connections", partial(self.live.look_after, self.pool.expire))
        self._start("cutting what is listed", self._cut_listed)
        if self.inspector is not None:
            self._start("talking to the inspector", self.inspector.run)
        self._start("the authority's certificate", self._watch_authority)
        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        except (NotImplementedError, RuntimeError, ValueError):
            logger.debug("SIGHUP is not to be had in this thread or system")

    def done(self) -> None:
        """Stop."""
        self._running = False
        if self.inspector is not None:
            self.inspector.close()
        for task in self._tasks:
            task.cancel()
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)

    def take_passwords(self, passwords: Passwords | None) -> None:
        """Use these passwords from now on, where clients name their destinations."""
        before = self.access.passwords
        if before is not None:
            before.close()
        self.access = Access(self.access.table, passwords)
        if passwords is not None:
            passwords.on_trouble = self.trouble
        if self._running:
            self._start_watch()

    def trouble(self, kind: str, why: str) -> None:
        """Raise an alarm of a kind, or clear it where the text is empty (`Metrics.trouble`)."""
        self.metrics.trouble(kind, why)

    def take_rules(self, rules: RulesFacts) -> None:
        """Record the state of a gateway's rules."""
        self.rules = rules
        self.metrics.rules(rules)

    def _share(self, fleet: FleetTable, config: Config) -> None:
        """Count what clients draw with other nodes.

        Raises:
            UrlwardError: nothing can be sealed for them, or the extra is missing.
        """
        try:
            from urlward.fleet.connection import FleetConnection, seal_of  # an extra, which few have
            from urlward.fleet.throttles import SharedProbing

            seal = seal_of(fleet, config.key)
        except ImportError as e:
            raise UrlwardError("fleet: needs the extra `fleet`: urlward help install") from e
        name, tell = f"{fleet.node}-{worker_name()}", partial(self.trouble, "fleet")
        self.fleet = FleetConnection(fleet, seal, who=name, tell=tell)
        self._shared_probing = SharedProbing(self.fleet, config.probing)

    def join_fleet(self) -> None:
        """Connect to the other nodes' Valkey; whoever shares something has said so before."""
        if self._joined or self.fleet is None or self._shared_probing is None:
            return
        self._joined = True
        # Until the very end: DNS is answered for a while after `done`.
        self._after.append(self._begin(lasting("fleet", self.fleet.run)))
        self._start("shared throttles", self._shared_probing.run)

    def _tell_of_probe(self, probe: Probe) -> None:
        what = f"block pages of more than {probe.entries - 1} entries within {in_words(probe.window)}"
        slowed = ", slowed" * probe.slowed
        client = self.recording.named(probe.client) if self.recording is not None else probe.client
        where = f", noticed by node {probe.node}" * bool(probe.node)
        logger.warning("probing client=%s: %s%s%s", client, what, slowed, where)
        if self.recording is not None and not probe.node:
            # Alarms are kept for longer than what is of a person.
            self.recording.alarm(
                "probing", f"a client draws {what}{slowed}; the log says which, as privacy lets it"
            )

    async def close(self) -> None:
        """Flush what is still to be recorded, and stop recording; after `done`."""
        if self.recording is not None:
            await self.recording.close()
        if self.learner is not None:
            await asyncio.to_thread(self.learner.close)
        for task in self._after:
            task.cancel()
        if self._after:
            await asyncio.wait(self._after)

    def _count_open(self) -> int:
        server = ctx.master.addons.get("proxyserver")
        return len(self.live.clients() | (set(server.connections) if server is not None else set()))

    @command.command("urlward.reload")  # type: ignore[untyped-decorator]
    def reload(self) -> None:
        """Read all lists again."""
        if self.keeper is not None:
            self._tasks.add(self._begin(self.keeper.reload()))
        if self.service is not None:
            self.service.signal(signal.SIGHUP)

    def _start(self, what: str, work: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        """Start a task that runs until `done`."""
        task = self._begin(lasting(what, work))
        self._tasks.add(task)
        return task

    def _begin(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task has ended: %s", type(task.exception()).__name__)

    async def _cut_listed(self) -> None:
        """Judge what is under way again whenever other lists, or other rules, come into force."""
        while True:
            await asyncio.sleep(RECHECK)
            in_force = self._in_force()
            if in_force != self._judged and self.guard is not None:
                await self.live.recheck(self.guard, partial(self._is_in_force, in_force))
                self._judged = in_force

    async def _watch_authority(self) -> None:
        """Warn before the certificate of interception's authority expires, and where it is not valid yet."""
        said, tls = "", ctx.master.addons.get("tlsconfig")
        while is_first() and ctx.options.urlward_intercept != "none":
            store = getattr(tls, "certstore", None)
            if store is None:
                return  # mitmproxy decrypts nothing here
            authority = store.default_ca
            until = authority.notafter.timestamp()
            why = validity_trouble(authority.notbefore.timestamp(), until, time.time())
            if why != said:
                logger.error("%s", why or "the authority's certificate is good for long")
            said = why
            self.trouble("authority", why)
            self.metrics.authority = until
            await asyncio.sleep(AUTHORITY_LOOK)

    def _in_force(self) -> tuple[object, ...]:
        """Identity of the lists and rules in force, to notice a change, and the day: entries end with one."""
        now = time.time()
        matcher = self.keeper.matcher.identity if self.keeper is not None else None
        until = self.policy.until(now) if self.policy is not None else 0.0
        macs = self.neighbours.changes if self.neighbours is not None else 0
        return matcher, self.policy, until, macs, now // 86400

    def _is_in_force(self, known: tuple[object, ...]) -> bool:
        return self._in_force() == known

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Put our layers where mitmproxy would put its own."""
        if nextlayer.layer is None:
            self._decide(nextlayer)
        if nextlayer.layer is None:
            # Left as it is, mitmproxy's own addon would decide now, on too few bytes.
            nextlayer.layer = Undecided(nextlayer.context, self._decide)

    def _decide(self, nextlayer: layer.NextLayer) -> None:
        context = nextlayer.context
        if self.guard is None:
            nextlayer.layer = CloseLayer(context)
            return
        before = len(context.layers)
        try:
            self._next_layer(nextlayer, self.guard)
        except Exception as e:  # noqa: BLE001 - an exception here would leave mitmproxy's own layer, unfiltered
            del context.layers[before:]
            nextlayer.layer = None
            if self.guard.failed(e, context.client):
                ctx.master.addons.get("nextlayer").next_layer(nextlayer)
            else:
                nextlayer.layer = CloseLayer(context)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Decide, if the request did not come through our layer; no body waits where nobody looks at it."""
        state = flow.metadata.get("urlward")
        if flow.response:
            return
        if self.guard is None:
            flow.kill()
            return
        if state is None or flow.is_replay == "request":
            context = Context(flow.client_conn, ctx.options)
            context.server = flow.server_conn
            answer = self.guard.answer(flow.request, context)
            if isinstance(answer, BlockResponse):
                answer_now(flow, answer)
                return
        if flow.request.headers.get("upgrade", "").lower() != "websocket":
            # Else an origin could switch to a protocol in which further requests pass unread. mitmproxy's
            # own addon against h2c comes too late for a body that is streamed.
            flow.request.headers.pop("upgrade", None)
            flow.request.headers.pop("http2-settings", None)
        if not ctx.options.urlward_flows:
            flow.request.stream = True
        read_much(self.handler(flow.client_conn), client=length_of_body(flow), servers=0)

    async def client_connected(self, client: Client) -> None:
        """Give a connection that mitmproxy carries its turns, and delay a slowed client's."""
        self.metrics.opened += 1  # as the front counts one that it does not
        if (handler := self.handler(client)) is not None:
            measure(handler, self.turns)
            take_turns(handler, client, self.turns)
            await self.turns.wait(client)
        if self.probing is None or not self.probing.slowing:
            return
        wait = self.probing.connecting(client)
        if wait > MAX_WAIT:
            client.error = "too many connections of a client that is slowed"
        elif wait:
            await asyncio.sleep(wait)

    def short(self, error: OSError) -> float:
        """Make room where no file descriptor or memory is left for another connection. Where no port is, for
        one to an origin, none is to be made: it is reported alone.

        Returns:
            Seconds until the next should be accepted.
        """
        if error.errno == errno.EADDRNOTAVAIL:
            self._report_short("ports", _NO_PORT)
            return ACCEPT_AGAIN
        closed = self.pool.clear(2 * ROOM) or self.live.make_room(ROOM) + self._close_carried(ROOM)
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        text = f"{(error.strerror or 'no room').lower()}: the limit is {limit} files"
        if error.errno != errno.EMFILE:
            text = f"{(error.strerror or 'no room').lower()}: the system's limits are reached"
        text += "; who has most has some closed, new ones may wait: raise LimitNOFILE (ulimit -n)"
        self._report_short("descriptors", text)
        return ROOM_WITHIN if closed else ACCEPT_AGAIN

    def _report_short(self, kind: str, text: str) -> None:
        """Count a shortage, and say it now and then."""
        self.metrics.error(kind)
        now = time.monotonic()
        if now - self._short_said.get(kind, float("-inf")) >= SHORT_AGAIN:
            self._short_said[kind] = now
            logger.error("%s", text)
            if self.recording is not None:
                self.recording.alarm(kind, text)

    def _close_carried(self, connections: int) -> int:
        """Close the oldest idle connections that mitmproxy carries; returns how many."""
        server, live = ctx.master.addons.get("proxyserver"), self.live.clients()
        carried = list(server.connections.values()) if server is not None else []
        resting = [each for each in carried if each.client.id not in live and is_at_rest(each)]
        for handler in resting[:connections]:
            cut_off(handler)
        return len(resting[:connections])

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        """See whether a connection that mitmproxy makes failed for want of file descriptors or memory."""
        if os.strerror(errno.EMFILE) in (data.server.error or ""):
            self.short(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))

    def client_disconnected(self, client: Client) -> None:
        """Forget a closed client connection."""
        self.live.forget(client)

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        """Look a name up before it is connected to: its address may be listed."""
        server, guard = data.server, self.guard
        mode = data.client.proxy_mode
        if (
            server.transport_protocol == "udp"
            and isinstance(mode, mode_specs.ReverseMode)
            and mode.scheme != "dtls"
        ):
            # mitmproxy finds no OpenSSL words, as `ciphers_server` has them, in QUIC.
            server.cipher_list = _QUIC_CIPHERS
        if server.address is None or guard is None:
            return
        host, port = server.address[:2]
        if server.transport_protocol != "tcp":
            if (literal := as_address(host)) and is_inside(literal) and not self.access.is_free(data.client):
                server.error = _OUT_OF_REACH
            return
        refuses = isinstance(mode, mode_specs.Socks5Mode) and not self.access.takes_tunnel(port)
        if refuses or "\\" in host:  # by which the system's resolver escapes letters, as in `SocksHandshake`
            server.error = _OUT_OF_REACH
            return
        if literal := as_address(host):
            if not self.may_reach(data.client, literal, port, named=False):
                server.error = _OUT_OF_REACH
            return
        if not self._listens_on(port) and not guard.lists_any_address() and self.access.is_free(data.client):
            return
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            return  # nor will the connection come about
        # The first is what is connected to. Should that differ, the connection itself is checked too.
        addresses = [str(each[4][0]) for each in found]
        if not all(self.may_reach(data.client, each, port, named=True) for each in addresses):
            server.error = _OUT_OF_REACH
        elif guard.lists_address(addresses[0], port, data.client):
            server.error = ListedAddress(addresses[0])

    def server_connected(self, data: ServerConnectionHookData) -> None:
        """See where a name has led to by now: mitmproxy has looked it up once more."""
        server, handler = data.server, self.handler(data.client)
        if handler is not None:
            take_turns(handler, server, self.turns)
        if server.transport_protocol != "tcp" or not (server.address and server.peername):
            return
        address, port = str(server.peername[0]), server.address[1]
        if handler is None or self.may_reach(data.client, address, port, named=True):
            return
        io = handler.transports.get(server)
        if io is not None and isinstance(io.writer, asyncio.StreamWriter):
            io.writer.transport.abort()  # before anything is sent
        cut_off(handler)

    def may_reach(self, client: AnyClient, address: str, port: int, *, named: bool) -> bool:
        """Whether a client may be led to an address: not to the filter itself, its dashboard, or where only
        block pages are, nor to what only this machine reaches (`Access.is_free`).

        Args:
            client: whose connection it is.
            address: an IP address.
            port: of the destination.
            named: whether it was found by a name, which the resolver beside this gives to block pages.
        """
        if not named and address in self.page_addresses:
            return False
        if is_inside(address) and not self.access.is_free(client):
            return False
        return not self.is_here(address, port)

    def tls_with_clients(self) -> Certificates:
        """Server certificates for clients, signed by mitmproxy's authority."""
        if self._certificates is None:
            self._certificates = Certificates(ctx.options, *authority_of(ctx.master.addons.get("tlsconfig")))
        return self._certificates

    def is_here(self, address: str, port: int) -> bool:
        """Whether this filter itself listens at an address."""
        return self._listens_on(port) and is_local(address)

    def _listens_on(self, port: int) -> bool:
        return port == self._admin_port or port in self.ports

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Lead nobody past the filter (`without_alternatives`); no body waits where nobody looks at it."""
        if flow.response is not None and flow.metadata.get("urlward") != "answered":
            if not ctx.options.urlward_flows:
                flow.response.stream = True
            flow.response.headers.pop("alt-svc", None)
            read_much(self.handler(flow.client_conn), servers=length_of_body(flow))

    async def response(self, flow: http.HTTPFlow) -> None:
        """Send answers of the filter's own in turn, also those to requests that were read at once."""
        if flow.metadata.get("urlward") == "answered":
            await self.turns.wait(flow.client_conn)

    def matcher(self) -> Matcher:
        """The matcher in force; raises RuntimeError where there is none, so that nothing passes."""
        if self.keeper is None:
            raise RuntimeError("no list is loaded, so nothing can be decided")
        return self.keeper.matcher

    def _take_lists(self, config: Config) -> None:
        options = ctx.options
        keeper = make_keeper(
            [_path(path) for path in options.urlward_list],
            config,
            key_file=_path(options.urlward_key) if options.urlward_key else None,
            trust=options.urlward_trust,
            budget=_budget(options.urlward_max_errors),
            format=options.urlward_format,
            filters=True,
            follows=is_first(),
        )
        keeper.load()
        self.keeper = keeper
        for loaded in keeper.matcher.lists:
            logger.info("list %s: %s, serial %d", loaded.name, entries_text(loaded), loaded.serial)

    async def _keep(self, service: Service) -> None:
        """Look after the service process until cancelled."""
        attention = Attention()
        try:
            while True:
                attention.look()
                if self.service is None:
                    try:
                        self.service = start_service(service)
                    except OSError as e:
                        logger.error("service: no process for it: %s; tried again", e.strerror or e)
                        await asyncio.sleep(BACKOFF[-1])
                        continue
                while self.service.hear():
                    pass
                self.service.end_if_hung(attention.since)
                self.service = self.service.replaced()
                await asyncio.sleep(LOOK)
        finally:
            if (child := self.service) is not None:
                self.service = None
                await _end(child)

    def _take_records(self, config: Config) -> None:
        """Start recording, once; what is recorded and where does not change while the filter runs."""
        if config.records is None or self.recording is not None:
            return
        state = state_folder(config.state)
        key = local_key(state)
        self.recording = Recording(config.records, state, key.secret, worker_name())
        self.metrics = self.recording.metrics
        self.metrics.looks_at_files = config.files is not None
        if config.files is not None and config.files.learn_days:
            self.learner = Learner(state, key, partial(self.metrics.files, UNLEARNED))

    def _start_watch(self) -> None:
        """Watch the lists that were configured last, and stop watching the ones before."""
        for task in self._watches:
            task.cancel()
        self._watches = []
        if self.keeper is not None:
            self._watches.append(self._start("looking after lists", self.keeper.watch))
        if self.neighbours is not None:
            self._watches.append(self._start("looking after neighbours", self.neighbours.watch))
        if self.access.passwords is not None:
            self._watches.append(self._start("looking after passwords", self.access.passwords.watch))
        if self._service is not None:
            task = self._begin(self._keep(self._service))
            self._watches.append(task)
            self._after.append(task)

    def _next_layer(self, nextlayer: layer.NextLayer, guard: Guard) -> None:
        context = nextlayer.context
        builtin = ctx.master.addons.get("nextlayer")
        leaves_alone = any(_set(name) for name in ("ignore_hosts", "allow_hosts", "tcp_hosts"))
        if leaves_alone and is_left_alone(builtin, nextlayer):
            builtin.next_layer(nextlayer)
            return
        if context.client.transport_protocol == "tcp":
            for_origin = is_for_origin(context)
            decision = decide(
                context,
                nextlayer.data_client(),
                guard,
                relays_other=self.relays_other,
                for_origin=for_origin,
            )
            match decision.what:
                case "tls":
                    self.live.add(Handshake(context.client, self.handler))
                case "relay":
                    nextlayer.layer = RelayLayer(context, guard, self.live, self.handler, decision.names)
                case "refuse":
                    nextlayer.layer = RefuseTlsLayer(context)
                case "close":
                    nextlayer.layer = CloseLayer(context)
            if decision.what not in ("tls", "http"):
                return
        elif _may_carry_http3(context, nextlayer.data_client()):
            # Unfiltered, or decrypted whatever the host: browsers go on over TCP.
            nextlayer.layer = CloseLayer(context)
            return
        builtin.next_layer(nextlayer)
        if nextlayer.layer is not None:
            nextlayer.layer = self._adopt(nextlayer.layer, context, guard)

    def tls_clienthello(self, data: ClientHelloData) -> None:
        """Take the server name as the client has sent it, also where mitmproxy would find none."""
        # Over TCP an error has been refused, or is spoken to the proxy itself; of DTLS there are no bytes.
        with suppress(ClientHelloError, NotImplementedError):
            body = data.client_hello.raw_bytes(wrap_in_record=False)
            take_sni(data.context, parse_client_hello(body).sni)

    def tls_established_client(self, data: TlsData) -> None:
        """Remove a completed TLS handshake from the exchanges under way."""
        for member in self.live.of(data.context.client):
            if isinstance(member, Handshake):
                self.live.discard(member)

    def _adopt(self, top: layer.Layer, context: Context, guard: Guard) -> layer.Layer:
        """Replace mitmproxy's HTTP layer in a stack of new layers, or its guess that there is no HTTP."""
        mode = context.client.proxy_mode
        chosen = isinstance(mode, mode_specs.ReverseMode) and mode.scheme in ("tcp", "tls")
        parent: layer.Layer | None = None
        current: layer.Layer | None = top
        while current is not None:
            # Not HTTP at first sight, a TCP layer: if the bytes are HTTP after all they are judged.
            if isinstance(current, HttpLayer) or (
                isinstance(current, TCPLayer) and current.flow is not None and not chosen
            ):
                context.layers.remove(current)
                http_mode = current.mode if isinstance(current, HttpLayer) else HTTPMode.transparent
                ours = WardHttpLayer(context, http_mode, guard, self.live, self.handler)
                if parent is None:
                    return ours
                parent.child_layer = ours  # type: ignore[attr-defined]
                return top
            parent, current = current, getattr(current, "child_layer", None)
        return top

    def is_alone(self, mode: mode_specs.ProxyMode) -> bool:
        """Whether no other addon, nor mitmproxy itself, has a say in a mode's connections and requests."""
        changes_host = not self._keeps_host and isinstance(mode, mode_specs.ReverseMode)
        return not (self._others or changes_host)

    def handler(self, client: AnyClient) -> ConnectionHandler | None:
        """Mitmproxy's handler of a client's connection, if it has one."""
        server = ctx.master.addons.get("proxyserver")
        return server.connections.get(client.id) if server is not None else None


def speaks(mode: mode_specs.ProxyMode) -> bool:
    """Whether the data path speaks what comes in by a mode, or mitmproxy's flows alone."""
    if isinstance(mode, mode_specs.ReverseMode):
        return mode.scheme in ("http", "https")
    return isinstance(mode, mode_specs.RegularMode | mode_specs.Socks5Mode | mode_specs.TransparentMode)


def _may_carry_http3(context: Context, data: bytes) -> bool:
    """Whether datagrams for an origin of the client's choice may be QUIC (RFC 9000 sections 14.1, 17.2)."""
    if isinstance(context.client.proxy_mode, mode_specs.ReverseMode) or context.server.address is None:
        return False
    is_initial = len(data) >= _QUIC_INITIAL and data[0] & 0xC0 == 0xC0
    return is_initial or context.server.address[1] in _QUIC_PORTS


def _set(name: str, absent: Any = None) -> Any:
    """An option's value, also where no addon has declared it."""
    return getattr(ctx.options, name) if name in ctx.options else absent


def _budget(text: str) -> ErrorBudget:
    try:
        return ErrorBudget.parse(text)
    except ValueError as e:
        raise ValueError(f"urlward_max_errors: {text!r} is not {e}") from e


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as e:
        raise ValueError(f"{text}: no such user") from e


def block_pages(config: Config, status: int) -> tuple[dict[str, BlockPage], list[Problem]]:
    """The block page by the empty name, its variants by theirs; and why some of them cannot be made."""
    pages, problems = {}, []
    for name, table in {"": config.page, **config.pages}.items():
        try:
            pages[name] = BlockPage(table, status=status, objections=config.objections)
        except BlockPageError as e:
            place = f"pages.{name}" if name else "page"
            key = {"status": "status", "objection_form": "objections.url"}.get(e.key, f"{place}.{e.key}")
            problems.append(Problem(key, e.message, in_file=e.key != "status"))
    return pages, problems


async def _end(child: Child) -> None:
    """Have a child end in order: what it is at is lost where that takes too long, and nothing else."""
    child.signal(signal.SIGTERM)
    end = time.monotonic() + END_WITHIN
    try:
        while child.lives and time.monotonic() < end:
            await asyncio.sleep(LOOK)
    finally:
        child.signal(signal.SIGKILL)
        child.process.wait()
        child.close()
