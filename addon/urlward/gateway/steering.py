"""Stage 1: the addon that answers the network's DNS, and steers what leads to names with an entry."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Any

from mitmproxy import addonmanager, ctx
from mitmproxy.proxy import mode_servers, mode_specs

from urlward.config import GatewayTable
from urlward.engine.matcher import Matcher
from urlward.gateway.dns_forward import Forwarder
from urlward.gateway.dns_server import DnsServer, make_service
from urlward.gateway.errors import GatewayError, NoTableError
from urlward.gateway.faults import Faults
from urlward.gateway.heartbeat import BEAT, transparent_port
from urlward.gateway.judge import Judge
from urlward.gateway.listing import Listing
from urlward.gateway.policy import Policy
from urlward.gateway.resolved import Resolved
from urlward.gateway.resolvers import resolvers
from urlward.gateway.steer_set import ALIVE_FOR, SteerSet
from urlward.gateway.system import own_addresses
from urlward.lists.keeper import Keeper, in_slices
from urlward.proxy.workers import WORKER, is_worker

logger = logging.getLogger("urlward.gateway")

RECHECK = 0.2
"""Seconds between two looks at whether lists have changed."""

SWEEP = 60.0
"""Seconds between two looks for names to forget."""

_LINGERS = ALIVE_FOR + 0.2


class NoListError(Exception):
    """No list is loaded, so nothing can be told of a name."""


def steering_modes(gateway: GatewayTable) -> tuple[str, ...]:
    """mitmproxy modes for a filter that steers."""
    intercept = (f"transparent@{gateway.intercept_port}",) if gateway.steered == "intercept" else ()
    return ("transparent", *intercept, f"dns@{gateway.dns.port}")


class Steering:
    """Steers.

    Args:
        gateway: the configuration.
        steer_set: the kernel's sets; made where not given.

    Raises:
        NftError: nftables is not to be had here.
        ResolverError: there is no resolver to ask.
    """

    def __init__(self, gateway: GatewayTable, steer_set: SteerSet | None = None) -> None:
        port = gateway.dns.port
        self._gateway = gateway
        self._resolvers = resolvers(gateway.dns.resolvers, own_addresses(), port)
        self._steer_set = SteerSet(gateway) if steer_set is None else steer_set
        self._faults = Faults()
        self._resolved = Resolved(gateway.dns.remember)
        self._judge = Judge(self._matcher, self._faults)
        self._policy = Policy(gateway, self._steer_set, self._judge, self._matcher)
        self._listing = Listing(
            self._steer_set, self._resolved, self._judge, gateway.max_change, self._faults
        )
        self._forwarders: tuple[Forwarder, ...] = ()
        self._servers: list[DnsServer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._rules_gone = False
        self._rules_back = 0
        """How many times they have come back."""
        self._restored = 0

    def check(self, modes: Sequence[str], port: int) -> None:
        """See whether the kernel's rules lead to this filter.

        Args:
            modes: mitmproxy mode specifications.
            port: where those listen that say nothing else.

        Raises:
            GatewayError: they do not; there are none; this process may not change them.
        """
        takes, dns_port = transparent_port(modes, port), self._gateway.dns.port
        if takes is None or not any(_answers(spec, dns_port) for spec in modes):
            wanted = ", ".join(steering_modes(self._gateway))
            raise GatewayError(f"mode: steering needs {wanted}; that is the default: leave mode out")
        self._steer_set.check(takes, dns_port)

    def load(self, loader: addonmanager.Loader) -> None:  # noqa: ARG002
        """Take the place of mitmproxy's servers of mode ``dns``."""
        original = mode_servers.AsyncioServerInstance.listen

        async def listen(instance: Any, host: str, port: int) -> list[Any]:
            if isinstance(instance.mode, mode_specs.DnsMode):
                return [await self.listen(host, port)]
            return await original(instance, host, port)

        mode_servers.AsyncioServerInstance.listen = listen  # type: ignore[method-assign,assignment]

    def configure(self, updated: set[str]) -> None:
        """Take changed options into use."""
        if "urlward_monitor" in updated:
            self._policy.monitor = self._listing.monitor = ctx.options.urlward_monitor
        if "urlward_on_error" in updated:
            self._policy.on_error = ctx.options.urlward_on_error

    async def listen(self, host: str, port: int) -> DnsServer:
        """Answer DNS here.

        Raises:
            OSError: that is not possible.
        """
        service, forwarders = make_service(
            self._resolvers,
            self._gateway.dns.timeout,
            self._judge,
            self._policy,
            self._resolved,
            self._faults,
        )
        server = DnsServer(service, _LINGERS, self._stop)
        await server.listen(host, port, reuse_port=is_worker())
        self._forwarders += forwarders
        self._servers.append(server)
        return server

    def running(self) -> None:
        """Begin to show that this filter lives, and to carry changed lists into the kernel."""
        addon = ctx.master.addons.get("urlward")
        if addon is not None:
            addon.page_addresses = frozenset(
                str(ip_address(page)) for page in self._gateway.dns.page_addresses
            )
            if addon.recording is not None:
                self._policy.record = addon.recording.hit_by_dns
                self._policy.logs = addon.recording.logs
        work: list[Coroutine[None, None, None]] = [self._live(), self._follow(self._names), self._forget()]
        if os.environ.get(WORKER, "0") == "0":
            work.append(self._follow(self._networks))
        self._tasks = [asyncio.get_running_loop().create_task(one) for one in work]

    async def done(self) -> None:
        """End, when the kernel knows of it."""
        self._stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.sleep(max((server.lingering for server in self._servers), default=0.0))
        for server in self._servers:
            server.end()
        for forwarder in self._forwarders:
            forwarder.close()
        await self._steer_set.close()

    def _stop(self) -> None:
        self._stopping = True

    @staticmethod
    def _keeper() -> Keeper | None:
        addon = ctx.master.addons.get("urlward")
        return addon.keeper if addon is not None else None

    def _matcher(self) -> Matcher:
        keeper = self._keeper()
        if keeper is None:
            raise NoListError
        return keeper.matcher

    async def _live(self) -> None:
        """Show that this filter lives while it has lists and answers; a loop that is stuck shows nothing."""
        while not self._stopping:
            if self._servers and self._keeper() is not None:
                try:
                    await self._steer_set.beat()
                    if self._rules_gone:
                        self._rules_gone = False
                        self._rules_back += 1
                        logger.warning("the rules are back")
                except NoTableError as e:
                    self._rules_gone = True
                    self._listing.lost()
                    self._faults.say(e, "nothing is filtered; run `urlward gateway up`")
                except Exception as e:  # noqa: BLE001 - the next beat may succeed
                    self._faults.say(e, "the kernel is not told that this filter lives")
            await asyncio.sleep(BEAT)

    async def _follow(self, act: Callable[[Keeper], Awaitable[bool]]) -> None:
        """Act on the lists whenever others come into force, and when the rules have come back."""
        done: object = None
        while True:
            keeper = self._keeper()
            if keeper is not None:
                state = (keeper.matcher.identity, self._rules_back)
                if state != done:
                    if await act(keeper):
                        done = state
                    else:
                        await asyncio.sleep(BEAT)
            await asyncio.sleep(RECHECK)

    async def _names(self, _: Keeper) -> bool:
        back = self._rules_back
        if self._restored != back and await self._listing.again():
            self._restored = back
        return await self._listing.names() and self._restored == back

    async def _networks(self, keeper: Keeper) -> bool:
        return await self._listing.networks(keeper)

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            try:
                await in_slices(self._resolved.sweep())
            except Exception as e:  # noqa: BLE001 - nothing depends on it but memory
                self._faults.say(e, "names are kept for longer than needed")


def _answers(spec: str, port: int) -> bool:
    """Whether a mode answers DNS at a port."""
    try:
        mode = mode_specs.ProxyMode.parse(spec)
    except ValueError:
        return False
    return isinstance(mode, mode_specs.DnsMode) and mode.custom_listen_port == port
