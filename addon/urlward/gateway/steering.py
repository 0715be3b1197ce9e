"""Stage 1: the addon that answers the network's DNS, and steers connections to names with an entry.

Changes of lists are carried into the kernel, for names resolved before and for networks. Of what a list comes
to name, the addresses are steered at once, and connections that are open end, so that they come back through
the filter. What is no longer listed leaves the kernel with its time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mitmproxy import ctx

from urlward.config import FleetTable, GatewayTable
from urlward.config.problem import SettingError
from urlward.dns import hook_filter
from urlward.dns.dnstap import DnstapServer
from urlward.dns.handling import Answers
from urlward.dns.hook import HookServer, ResolverSocket
from urlward.dns.judge import Faults, Judge
from urlward.dns.policy import DnsPolicy
from urlward.dns.resolved import Aliases, Newly, Resolved
from urlward.dns.resolver_addresses import SYSTEM, resolvers
from urlward.dns.server import DnsServer, lead_to, make_service
from urlward.engine.matcher import Matcher
from urlward.feeds.keeper import Keeper, in_slices
from urlward.gateway.canary import BEAT, canary_of
from urlward.gateway.conntrack import Conntrack
from urlward.gateway.rules import check_modes
from urlward.gateway.steer_set import SteerSet
from urlward.gateway.system import own_addresses
from urlward.gateway.table import ALIVE_FOR, NftError, NoTableError
from urlward.lasting import lasting
from urlward.plan import Address
from urlward.proxy.settings import hook_address
from urlward.proxy.workers import Worker, is_first
from urlward.records.metrics import Metrics
from urlward.state.watch import Signature

if TYPE_CHECKING:
    from urlward.dns.upstream import Forwarder
    from urlward.fleet.connection import FleetConnection
    from urlward.fleet.steer_sets import SharedSteerSet

logger = logging.getLogger("urlward.gateway")

_AT_ONCE = 250
"""Addresses in one command."""

RECHECK = 0.2
"""Seconds between two looks at whether lists have changed."""

SWEEP = 60.0
"""Seconds between two looks for names to forget."""

FULL_FOR = 60.0
"""Seconds after which a set that was full, and has not been so again, is no trouble any more."""

SYSTEM_LOOK = 5.0
"""Seconds between two looks at whether the system has other resolvers."""

_LINGERS = ALIVE_FOR + 0.2
_LOOK = 0.1
"""Seconds between two looks at whether the kernel leads queries here."""


class Listing:
    """Carrier of list changes into the kernel.

    Args:
        kernel: its sets.
        resolved: names resolved lately.
        judge: knows what is listed.
        max_change: addresses that one change may steer.
        faults: are told what goes wrong.

    Attributes:
        monitor: whether connections are left alone.
    """

    def __init__(
        self, kernel: SteerSet, resolved: Resolved, judge: Judge, max_change: int, faults: Faults
    ) -> None:
        self.monitor = False
        self._kernel = kernel
        self._resolved = resolved
        self._judge = judge
        self._max_change = max_change
        self._faults = faults
        self._networks: frozenset[str] | None = None

    async def names(self) -> bool:
        """Steer names that are listed now and were not, and end connections to them. Never raises.

        Returns:
            Whether it is done.
        """
        try:
            newly = await in_slices(self._resolved.changes(self._judge.find))
            if newly:
                await self._take(newly)
        except Exception as e:  # noqa: BLE001 - the next change, and the next answer, are to be acted on
            self._faults.say(e, "names listed now, and resolved before, are not all steered")
            return False
        return True

    def lost(self) -> None:
        """Forget what was steered: the kernel has lost its sets."""
        self._networks = None

    async def again(self) -> bool:
        """Steer all names that are listed, once the kernel can take them again. Never raises.

        Returns:
            Whether it is done.
        """
        try:
            for some in _pieces(await in_slices(self._resolved.listed())):
                await self._steer(some)
        except Exception as e:  # noqa: BLE001 - as above
            self._faults.say(e, "names resolved before the rules came back are not all steered")
            return False
        return True

    async def networks(self, keeper: Keeper) -> bool:
        """Steer the networks and addresses that are listed themselves. Never raises.

        Returns:
            Whether the kernel has them.
        """
        try:
            networks = frozenset(await asyncio.to_thread(keeper.networks))
            if networks != self._networks:
                await self._kernel.list_networks(networks, cut=not self.monitor)
                self._networks = networks
        except Exception as e:  # noqa: BLE001 - as above
            self._faults.say(e, "listed networks are not steered")
            return False
        return True

    async def has_networks(self, keeper: Keeper) -> bool:
        """Whether the kernel has the networks that are listed, of whichever worker. Never raises."""
        try:
            networks = await asyncio.to_thread(keeper.networks)
            return await self._kernel.has_listed(networks, cut=not self.monitor)
        except Exception as e:  # noqa: BLE001 - as above
            self._faults.say(e, "whether listed networks are steered is not known")
            return False

    async def _take(self, newly: list[Newly]) -> None:
        taken: list[Newly] = []
        addresses: set[str] = set()
        left: set[str] = set()
        for one in newly:
            its = {address for address, _ in one.addresses}
            if len(addresses | its) <= self._max_change:
                addresses |= its
                taken.append(one)
            else:
                left |= its
        cut = dict.fromkeys(address for one in taken for address, _ in one.addresses)
        for some in _pieces(taken):
            await self._steer(some)
        if not self.monitor:
            for i in range(0, len(cut), _AT_ONCE):
                await self._kernel.cut(tuple(cut)[i : i + _AT_ONCE])
        for one in taken:
            self._resolved.settle(one.key, one.found)
        logger.info(
            "%d names resolved before are listed now: %d addresses steered, %s",
            _names(taken), len(addresses),
            f"{len(cut)} would be cut off" if self.monitor else f"connections to {len(cut)} cut",
        )  # fmt: skip
        if left - addresses:
            logger.warning(
                "%d names more are listed now, but %d addresses are left until they are asked for again: "
                "gateway.max_change is %d",
                _names(newly) - _names(taken), len(left - addresses), self._max_change,
            )  # fmt: skip

    async def _steer(self, names: list[Newly]) -> None:
        some = [pair for one in names for pair in one.addresses]
        if some:
            await self._kernel.steer([address for address, _ in some], max(left for _, left in some))


def _names(some: list[Newly]) -> int:
    """Count of names, each with addresses of one family or both."""
    return len({one.key[2:] for one in some})


def _pieces(names: list[Newly]) -> Iterator[list[Newly]]:
    """Names in batches, each with as many addresses as go into one command."""
    some: list[Newly] = []
    count = 0
    for one in names:
        some.append(one)
        count += len(one.addresses)
        if count >= _AT_ONCE:
            yield some
            some, count = [], 0
    if some:
        yield some


class Steering:
    """mitmproxy addon that answers DNS and maintains the steer set.

    Args:
        gateway: the configuration.
        steer_set: the kernel's sets; made where not given.
        fleet: by which other nodes steer the same; None where there are none.

    Raises:
        NftError: nftables is not to be had here.
        SettingError: there is no resolver to ask.
    """

    def __init__(
        self,
        gateway: GatewayTable,
        steer_set: SteerSet | None = None,
        fleet: FleetTable | None = None,
    ) -> None:
        port = gateway.dns.port
        self._gateway = gateway
        self._system = Signature.of(SYSTEM)
        self._resolvers = resolvers(gateway.dns.resolvers, own_addresses(), port, SYSTEM)
        self._steer_set = SteerSet(gateway) if steer_set is None else steer_set
        self._faults = Faults()
        self._resolved = Resolved(gateway.dns.remember)
        self._judge = Judge(self._matcher, self._faults)
        self._policy = DnsPolicy(gateway, self._steer_set, self._judge, self._matcher)
        self._answers = Answers(self._judge, self._policy, self._resolved, self._faults)
        self._listing = Listing(
            self._steer_set, self._resolved, self._judge, gateway.max_change, self._faults
        )
        self._forwarders: list[tuple[Forwarder, Forwarder]] = []
        self._servers: list[DnsServer] = []
        self._hooks: ResolverSocket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._joining: asyncio.Task[None] | None = None
        self._conntrack: Conntrack | None = None
        self._stopping = False
        self._steer_set.on_full = self._full
        self._said_full = ""
        self._full_timer: asyncio.TimerHandle | None = None
        self._lives = asyncio.Event()
        """Set once the kernel has been told that this worker lives."""
        self._listed = asyncio.Event()
        """Set once the kernel has the networks that are listed."""
        self._fleet = fleet
        self._shared: SharedSteerSet | None = None
        self._rules_gone = False
        self._rules_restored = 0
        """How many times they have been put back under this filter."""
        self._rules_back = 0
        """How many times they have come back."""
        self._restored = 0

    def _share(self, connection: "FleetConnection", settle: int) -> None:
        """Have other nodes steer what this one does."""
        from urlward.fleet.steer_sets import SharedSteerSet

        self._shared = SharedSteerSet(
            connection,
            self._steer_set,
            first=is_first(),
            settle=settle / 1000,
            count=self._count,
            settled=self._settled,
        )
        self._steer_set.share, self._steer_set.share_cut = self._shared.share, self._shared.cut

    def check(self, modes: Sequence[str], port: int) -> None:
        """See whether the kernel's rules lead to this filter.

        Args:
            modes: mitmproxy mode specifications.
            port: where those listen that say nothing else.

        Raises:
            UrlwardError: they do not; there are none; this process may not change them.
        """
        takes = check_modes(self._gateway, modes, port, steer=True)
        self._steer_set.check(takes, self._gateway.dns.port)

    def configure(self, updated: set[str]) -> None:
        """Take changed options into use."""
        if "urlward_monitor" in updated:
            monitor = ctx.options.urlward_monitor
            self._policy.monitor = self._listing.monitor = self._steer_set.monitor = monitor
        if "urlward_on_error" in updated:
            self._policy.on_error = ctx.options.urlward_on_error
        addon = ctx.master.addons.get("urlward")
        if self._fleet is not None and self._shared is None and addon is not None and addon.fleet is not None:
            self._share(addon.fleet, self._fleet.settle)

    async def listen(self, worker: Worker, host: str, port: int) -> DnsServer:
        """Answer DNS here, in place of mitmproxy's server of mode ``dns``.

        Args:
            worker: has the sockets.
            host: of the address.
            port: likewise.

        Raises:
            OSError: that is not possible.
        """
        service, forwarders = make_service(
            self._resolvers,
            self._gateway.dns.timeout,
            self._answers,
            self._faults,
            partial(self._tell, "resolvers"),
        )
        await self._join()
        hook = hook_address(self._gateway)
        if hook is not None and self._hooks is None and self._serves_resolvers:
            self._hooks = self._resolver_socket()
            await worker.serve(hook, self._hooks.serve)
        server = DnsServer(service, _LINGERS, self._stop)
        for kind in ("udp", "tcp"):
            server.take(await worker.serve(Address(host, port, kind), server.serve))
        self._forwarders.append(forwarders)
        self._servers.append(server)
        return server

    @property
    def _serves_resolvers(self) -> bool:
        """Whether resolvers can connect to this worker; what they tell by dnstap has to meet in one place."""
        hook = self._gateway.hook
        return hook.folder is not None and (is_first() or not hook.dnstap)

    def _resolver_socket(self) -> ResolverSocket:
        """Server for the resolvers of this machine."""
        hook = self._gateway.hook
        if not hook.dnstap:
            return HookServer(self._answers, self._faults, hook.seconds, self._late, self._hooked)
        aliases = Aliases(self._gateway.dns.remember, lambda host: bool(self._judge.find((host,))))
        return DnstapServer(self._answers, aliases, self._faults, self._hooked)

    def _connections(self) -> int:
        """Count of those that resolvers have."""
        return 0 if self._hooks is None else self._hooks.connections

    async def _join(self) -> None:
        """Wait until this node steers what others do."""
        if self._shared is None:
            return
        if self._joining is None:
            ctx.master.addons.get("urlward").join_fleet()
            work = lasting("shared steer sets", self._shared.run)
            self._joining = asyncio.get_running_loop().create_task(work)
        await self._shared.ready.wait()

    def running(self) -> None:
        """Start signs of life, and carry changed lists into the kernel."""
        addon = ctx.master.addons.get("urlward")
        if addon is not None:
            addon.page_addresses = frozenset(
                str(ip_address(page)) for page in self._gateway.dns.page_addresses
            )
            self._conntrack = Conntrack()
            addon.port_of = self._policy.port_of = self._conntrack.port
            addon.metrics.shares = self._shared is not None
            addon.metrics.resolvers = self._connections if self._serves_resolvers else None
            if addon.recording is not None:
                self._policy.record = addon.recording.hit_by_dns
                self._policy.logs = addon.recording.logs
                self._policy.named = addon.recording.named
        canary = canary_of(self._gateway, self._steer_set, self._take_canary, steers=True)
        if canary is not None:
            self._policy.on_canary = canary.answered
        work: list[Callable[[], Awaitable[None]]] = [
            self._live, partial(self._follow, self._names), self._forget
        ]  # fmt: skip
        if not self._gateway.dns.resolvers:
            work.append(self._follow_system)
        if is_first():
            work.append(partial(self._follow, self._networks))
            if self._gateway.hook.folder is not None and not self._gateway.hook.dnstap:
                work.append(partial(self._follow, self._filter))
        elif self._gateway.fail != "open":
            work.append(self._await_networks)
        if self._gateway.fail == "open":
            self._listed.set()  # until this filter lives all would pass
        if canary is not None:
            work.append(partial(canary.run, self._lives))
        self._tasks = [asyncio.get_running_loop().create_task(lasting("steering", one)) for one in work]

    async def done(self) -> None:
        """Stop gracefully: queries are still answered until the kernel has noticed."""
        self._stop()
        if self._full_timer is not None:
            self._full_timer.cancel()
        for task in self._tasks:
            task.cancel()
        await self._linger()
        if self._joining is not None:
            self._joining.cancel()
        for server in self._servers:
            server.end()
        if self._hooks is not None:
            await self._hooks.end()
        for udp, tcp in self._forwarders:
            udp.close()
            tcp.close()
        await self._steer_set.close()
        if self._conntrack is not None:
            self._conntrack.close()

    async def _linger(self) -> None:
        """Answer queries until the kernel leads none here, as it is told where all end, and none is under
        way; where others live, for as long as it may take this worker to live, and what is under way then."""
        told = False
        while left := max((server.lingering for server in self._servers), default=0.0):
            if told and not self._is_asked:
                return
            with suppress(NftError):
                told = not await self._steer_set.leads_here()
            await asyncio.sleep(min(left, _LOOK))
        while not told and self._is_asked:
            await asyncio.sleep(_LOOK)

    @property
    def _is_asked(self) -> bool:
        """Whether a query is under way, or its answer."""
        return any(server.owes for server in self._servers)

    def _stop(self) -> None:
        self._stopping = True

    def _full(self, evicted: int) -> None:
        """Report a full set."""
        most = self._gateway.max_addresses
        if evicted:
            self._trouble(f"full ({most} addresses): those told longest ago make room")
        else:
            blocks = self._policy.blocks_on_error
            outcome = "get no answer" if blocks else "pass unfiltered"
            self._trouble(f"full ({most} addresses): further names with an entry {outcome}")

    def _trouble(self, why: str) -> None:
        if self._full_timer is not None:
            self._full_timer.cancel()
        self._full_timer = None
        if why:
            why = f"the set of steered addresses is {why}; raise gateway.max_addresses"
            self._full_timer = asyncio.get_running_loop().call_later(FULL_FOR, self._trouble, "")
            if self._said_full != why:
                logger.error("%s", why)
        elif self._said_full:
            logger.info("the set of steered addresses has room again")
        self._said_full = why
        self._tell("steer-set", why)

    @staticmethod
    def _metrics() -> Metrics | None:
        addon = ctx.master.addons.get("urlward")
        return addon.metrics if addon is not None else None

    def _late(self) -> None:
        """Count a reply that a hook has not waited for."""
        if (metrics := self._metrics()) is not None:
            metrics.error("late")

    def _hooked(self, outcome: str) -> None:
        """Count an answer that a resolver handed over or told of."""
        if (metrics := self._metrics()) is not None:
            metrics.hooked(outcome)

    def _tell(self, kind: str, why: str) -> None:
        """Tell of a trouble (`urlward.records.metrics.TROUBLES`), or where there is no reason of its end."""
        if (metrics := self._metrics()) is not None:
            metrics.trouble(kind, why)

    def _count(self, what: str, number: int) -> None:
        if (metrics := self._metrics()) is not None:
            metrics.fleet(what, number)

    def _settled(self, seconds: float) -> None:
        if (metrics := self._metrics()) is not None:
            metrics.settle(seconds)

    def _take_canary(self, why: str) -> None:
        if why:
            self._steer_set.forget()  # perhaps the kernel has lost what it is believed to have

    @staticmethod
    def _keeper() -> Keeper | None:
        addon = ctx.master.addons.get("urlward")
        return addon.keeper if addon is not None else None

    def _matcher(self) -> Matcher:
        matcher: Matcher = ctx.master.addons.get("urlward").matcher()
        return matcher

    async def _live(self) -> None:
        """Send signs of life while the filter has lists and answers; a loop that is stuck sends none."""
        await self._listed.wait()
        while not self._stopping:
            noted = self._note_restored()
            if self._servers and self._keeper() is not None:
                try:
                    anew = await self._steer_set.beat(lambda: not self._stopping)
                    self._lives.set()
                    if self._rules_gone:
                        self._rules_gone = False
                        self._rules_are_back()
                        logger.warning("the rules are back")
                    elif anew and not noted:  # taken away, and put there again, between two beats
                        self._listing.lost()
                        self._rules_are_back()
                except NoTableError as e:
                    self._rules_gone = True
                    self._listing.lost()
                    self._faults.say(e, "nothing is filtered; run `urlward gateway up`")
                except Exception as e:  # noqa: BLE001 - the next beat may succeed
                    self._faults.say(e, "the kernel is not told that this filter lives")
            await asyncio.sleep(BEAT)

    def _note_restored(self) -> bool:
        """Have everything steered again after the watch has restored the rules; returns whether it has."""
        addon = ctx.master.addons.get("urlward")
        if addon is None or addon.rules.restored == self._rules_restored:
            return False
        self._rules_restored = addon.rules.restored
        self._steer_set.forget()
        self._listing.lost()
        self._rules_are_back()
        return True

    def _rules_are_back(self) -> None:
        self._rules_back += 1
        if self._shared is not None:
            self._shared.again()

    async def _follow(self, act: Callable[[Keeper], Awaitable[bool]]) -> None:
        """Apply the lists whenever others come into force, and when the rules have been restored."""
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

    async def _follow_system(self) -> None:
        """Ask the resolvers that the system has now: a lease brings others."""
        while True:
            await asyncio.sleep(SYSTEM_LOOK)
            seen = Signature.of(SYSTEM)
            if seen == self._system:
                continue
            try:
                found = await asyncio.to_thread(
                    lambda: resolvers((), own_addresses(), self._gateway.dns.port, SYSTEM)
                )
            except SettingError:
                continue  # as while there is no lease; those before may be there again
            self._system = seen
            if found != self._resolvers:
                self._resolvers = found
                if is_first():
                    named = ", ".join(map(str, found))
                    logger.warning("DNS resolvers: %s, as %s says now", named, SYSTEM)
                for udp, tcp in self._forwarders:
                    lead_to(found, udp, tcp)

    async def _names(self, _: Keeper) -> bool:
        back = self._rules_back
        if self._restored != back and await self._listing.again():
            self._restored = back
        return await self._listing.names() and self._restored == back

    async def _networks(self, keeper: Keeper) -> bool:
        done = await self._listing.networks(keeper)
        if done:
            self._listed.set()
        return done

    async def _filter(self, keeper: Keeper) -> bool:
        """Write what a hook holds of the lists."""
        hook = self._gateway.hook
        assert hook.folder is not None
        closed = self._gateway.fail == "closed"
        try:
            data = await in_slices(
                hook_filter.content(keeper.matcher, self._policy.own_names, hook.seconds, closed=closed)
            )
            await asyncio.to_thread(hook_filter.write, Path(hook.folder), data)
        except Exception as e:  # noqa: BLE001 - the hook goes on with the filter before
            self._faults.say(e, "the hook in the resolver knows nothing of the lists in force")
            return False
        return True

    async def _await_networks(self) -> None:
        """Wait for the first worker to list networks."""
        while (keeper := self._keeper()) is None or not await self._listing.has_networks(keeper):
            await asyncio.sleep(BEAT)
        self._listed.set()

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            try:
                await in_slices(self._resolved.sweep())
            except Exception as e:  # noqa: BLE001 - nothing depends on it but memory
                self._faults.say(e, "names are kept for longer than needed")
