"""Canary: a host that does not exist, resolved and fetched from this machine by the path of clients' traffic.

A question to port 53 of the canary's address is redirected to a worker, which steers the address and answers;
a request to it is redirected by the set and gets the block page. A chain at the hook ``output`` leads what
this machine sends there into the chains of clients' traffic; that clients' own comes in is looked at. Several
failures in a row are said with the stage that broke: to the recorder, to the kernel for ``urlward gateway
status``, and to the service manager.

Which worker takes a connection is the kernel's choice, by its ports, so workers reach each other's sockets.
Each also minds when somebody's canary has last come to it.

`Heartbeat` is for a gateway that does not steer: rules redirect only while a filter shows that it lives.
"""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Any

import dns.exception
import dns.message
import dns.rcode
from mitmproxy import ctx
from mitmproxy.proxy import mode_specs

from urlward.config import GatewayTable
from urlward.dns.judge import Faults
from urlward.engine.errors import UrlwardError, fault_text
from urlward.gateway.conntrack import Conntrack
from urlward.gateway.steer_set import SteerSet
from urlward.gateway.steerable import Address
from urlward.gateway.system import sysctl
from urlward.gateway.table import CLIENTS, ENTRY, NoTableError, interfaces_of, targets_of
from urlward.lasting import lasting
from urlward.proxy import notify
from urlward.proxy.acceptor import is_shortage
from urlward.proxy.guard import CanaryMark
from urlward.proxy.workers import worker_name

logger = logging.getLogger("urlward.gateway")

EVERY = 2.0
"""Seconds between two canaries."""

WITHIN = 2.0
"""Seconds for each stage."""

FAILURES = 3
"""In a row, from which on it is said; one lost packet is none."""

ASTRAY = 3
"""Clients' connections in a row that are closed since the kernel does not tell where they were to go."""

UNREACHED = 60.0
"""Seconds without anybody's canary at this worker, while its own comes through at others."""

SHORT_FOR = 600.0
"""Seconds in a row for which there may be no socket for a canary, before another start is to help."""

TOLD_FOR = 20
"""Seconds for which the kernel keeps what a worker says of its canary."""

_NO_ROUTE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH)

_CLOSED_ROUTE = (errno.EINVAL, errno.EACCES)
"""What the kernel says of a route of type ``blackhole`` or ``prohibit``, such as one for all documentation
addresses, where one of type ``unreachable`` is as none."""

_MOST = 16_384
"""Bytes of an answer."""

BEAT = 0.5
"""Seconds between two signs of life."""


class BrokenError(Exception):
    """The canary's query or request has failed.

    Attributes:
        stage: where it ended.
        late: whether another start would not help: it has taken too long, the kernel sends nothing, does not
            tell where a connection was to go, or holds as many steered addresses as may be.
        short: whether nothing is wrong but that clients have all the sockets that there may be.
    """

    def __init__(self, stage: str, why: str, *, late: bool = False, short: bool = False) -> None:
        self.stage = stage
        self.late = late
        self.short = short
        super().__init__(f"{stage}: {why}")


class NoRouteError(Exception):
    """This machine has no route to addresses of a family, and clients need none."""


class Canary:
    """Sender of canaries, which reports failures.

    Args:
        gateway: the configuration.
        kernel: its chains and sets.
        mark: is told by this worker's filter when a canary's request has come to it.
        worker: number of this one.
        tell: is told what fails after several failures in a row, and nothing when it comes through.
        steers: whether names are steered, so that the canary's is asked for.
        down: whether `gateway down` has taken the rules away, so that nothing is to come through.
        clock: seconds.

    Attributes:
        asked: when somebody's canary has last come to this worker's DNS.
        why: what fails, after several failures in a row.
    """

    def __init__(
        self,
        gateway: GatewayTable,
        kernel: SteerSet,
        mark: CanaryMark,
        worker: int,
        tell: Callable[[str], None],
        *,
        steers: bool,
        down: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._kernel = kernel
        self._mark = mark
        self._worker = worker
        self._tell = tell
        self._steers = steers
        self._down = down
        self._clock = clock
        self._failures = 0
        self._short_since: float | None = None
        self._passed = False
        self.why = ""
        self.asked = mark.came = clock()

    async def run(self, after: asyncio.Event) -> None:
        """Send canaries until cancelled, once the kernel knows that this worker lives."""
        await after.wait()
        while True:
            await self.send()
            await asyncio.sleep(EVERY)

    def answered(self) -> None:
        """This worker has answered a DNS query for a canary."""
        self.asked = self._clock()

    async def send(self) -> None:
        """Send a canary for each family, and report the results. Never raises."""
        if self._down():
            self._failures = self._mark.astray = 0  # the kernel may track nothing meanwhile
            self.asked = self._mark.came = self._clock()
            self._is_well("canary: none is sent, since the rules are down")
            self._tell("")
            return
        try:
            apart = self._steers and self._gateway.keep_source
            listing = await self._kernel.chains(*WAY, *(NAMES_APART if apart else ()))
            addresses = _way(listing, self._gateway, steers=self._steers)
            for address in addresses:
                with suppress(NoRouteError):
                    await self._send(address)
            self._look_at_ourselves()
        except BrokenError as e:
            self._failed(str(e), ends=e.late or (e.short and self._is_short_for() < SHORT_FOR))
        except UrlwardError as e:
            self._failed(f"rules: {e}")
        except Exception as e:  # noqa: BLE001 - a bug of ours is a failure too
            self._failed(fault_text(e))
        else:
            self._came_through()
        # The rest of what keeps the kernel from being told is said by the signs of life.
        if self.why or self._passed:
            with suppress(UrlwardError):
                await self._kernel.tell_canary(self._worker, self.why or "ok", TOLD_FOR)

    async def _send(self, address: Address) -> None:
        if self._steers:
            await self._ask(address)
        await self._fetch(address)

    async def _ask(self, address: Address) -> None:
        query = dns.message.make_query(self._gateway.canary.name, "A" if address.version == 4 else "AAAA")
        with _socket(address, socket.SOCK_DGRAM) as s:
            try:
                data = await _in_time(_exchange(s, (str(address), 53), query.to_wire()))
                answer = dns.message.from_wire(data)
            except TimeoutError as e:
                raise BrokenError("DNS", _words(e), late=True) from e
            except PermissionError as e:
                # Another start would help neither, and end what is open.
                self.asked = self._mark.came = self._clock()  # what is for this worker is dropped, too
                raise BrokenError("DNS", _full() or _words(e), late=True) from e
            except (OSError, dns.exception.DNSException) as e:
                raise BrokenError("DNS", _words(e)) from e
        if answer.rcode() != dns.rcode.NOERROR:
            # A set that is full stays so over another start, which would end what is open.
            full = await self._kernel.is_full()
            if full:
                self.asked = self._mark.came = self._clock()  # nobody's canary gets further
            raise BrokenError(
                "steered addresses", f"not taken, so DNS answers {answer.rcode().name}", late=full
            )
        if not any(
            getattr(record, "address", "") == str(address) for rrset in answer.answer for record in rrset
        ):
            raise BrokenError("DNS", "answered by somebody else")

    async def _fetch(self, address: Address) -> None:
        name, port = self._gateway.canary.name, self._gateway.ports[0]
        request = f"GET / HTTP/1.1\r\nHost: {name}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
        with _socket(address, socket.SOCK_STREAM) as s:
            loop = asyncio.get_running_loop()
            try:
                await _in_time(loop.sock_connect(s, (str(address), port)))
            except (OSError, TimeoutError) as e:
                raise BrokenError("redirect", _words(e), late=isinstance(e, TimeoutError)) from e
            try:
                await _in_time(loop.sock_sendall(s, request.encode()))
                data = await _in_time(_head(s))
            except (OSError, TimeoutError) as e:
                raise BrokenError("block page", _words(e), late=isinstance(e, TimeoutError)) from e
        line, _, rest = data.partition(b"\r\n")
        status = line.split(b" ")[1:2]
        if status not in ([b"451"], [b"403"]) or b"blocked-by" not in rest.lower():
            raise BrokenError(
                "block page", f"status {b''.join(status).decode(errors='replace') or 'none'} instead"
            )

    def _look_at_ourselves(self) -> None:
        now = self._clock()
        for what, last in (("DNS", self.asked if self._steers else now), ("listener", self._mark.came)):
            if now - last > UNREACHED:
                raise BrokenError(what, f"nothing has come to this worker for {now - last:.0f} s")
        if self._mark.astray >= ASTRAY:
            why = "the kernel does not tell where clients' connections were to go (conntrack's zones?)"
            raise BrokenError("redirect", why, late=True)

    def _came_through(self) -> None:
        self._failures = 0
        self._short_since = None
        self._passed = True
        self._is_well("canary: it comes through again")
        self._tell("")

    def _is_well(self, said: str) -> None:
        if self.why:
            logger.warning("%s", said)
            self.why = ""
            notify.withhold("")

    def _is_short_for(self) -> float:
        now = self._clock()
        self.asked = self._mark.came = now  # what comes to this worker waits, too
        if self._short_since is None:
            self._short_since = now
        return now - self._short_since

    def _failed(self, why: str, *, ends: bool = False) -> None:
        """Report a failure, if it is not the first.

        Args:
            why: the stage, and what is wrong.
            ends: whether it is to end by itself.
        """
        self._failures += 1
        if self._failures < FAILURES:
            return
        if not self.why or self._failures == FAILURES:
            logger.error("canary: %s (%d times in a row)", why, self._failures)
        self.why = why
        self._tell(why)
        # Where it has never come through, another start would not help; nor where there is too much to do.
        if self._passed:
            notify.withhold("" if ends else f"canary: {why}")


def canary_of(
    gateway: GatewayTable, kernel: SteerSet, tell: Callable[[str], None], *, steers: bool
) -> Canary | None:
    """This worker's canary; None where the configuration wants none.

    Args:
        gateway: the configuration.
        kernel: see `Canary`.
        tell: likewise, besides the metrics of this worker.
        steers: whether names are steered, and so the canary's too.
    """
    if not gateway.canary.addresses or (addon := ctx.master.addons.get("urlward")) is None:
        return None

    def down() -> bool:
        return "down" in addon.rules.wrong

    def tell_all(why: str) -> None:
        tell(why)
        addon.metrics.trouble("canary", why)
        if not why and not down():
            addon.metrics.canary = time.time()

    mark: CanaryMark = addon.canary
    mark.name = gateway.canary.name
    mark.addresses = frozenset(str(ip_address(one)) for one in gateway.canary.addresses)
    return Canary(gateway, kernel, mark, int(worker_name()), tell_all, steers=steers, down=down)


WAY = (ENTRY, CLIENTS, "output")
"""Chains by which traffic comes into the others."""

NAMES_APART = ("prerouting_names", "asked")
"""Chains by which DNS comes into the others, with `keep_source`."""


def _way(listing: Collection[Mapping[str, Any]], gateway: GatewayTable, *, steers: bool) -> list[Address]:
    """The canary's addresses that the rules know.

    Raises:
        BrokenError: clients' traffic does not come into the chains that the canary's comes into.
    """
    hooks: set[tuple[object, object]] = set()
    targets: set[tuple[object, object]] = set()
    known: set[str] = set()
    for one in listing:
        chain, rule = one.get("chain", {}), one.get("rule", {})
        hooks.add((chain.get("name"), chain.get("hook")))
        aims = targets_of(rule)
        targets.update((rule.get("chain"), aim) for aim in aims)
        for match in (part.get("match", {}) for part in rule.get("expr", ()) if "from_canary" in aims):
            if match.get("left", {}).get("payload", {}).get("field") == "daddr":
                known.add(match["right"])
    for missing in sorted(set(gateway.interfaces).difference(interfaces_of(listing))):
        raise BrokenError("rules", f"nothing leads here from {missing}")
    wanted, entries = {(CLIENTS, "filtered")}, {ENTRY}
    if steers:
        entry, last = NAMES_APART if gateway.keep_source else (ENTRY, CLIENTS)
        wanted |= {(entry, last), (last, "names")}
        entries.add(entry)
    if {(entry, "prerouting") for entry in entries} - hooks or wanted - targets:
        raise BrokenError("rules", "clients' connections do not come to the filter")
    addresses = [one for one in map(ip_address, gateway.canary.addresses) if str(one) in known]
    if not addresses:
        raise BrokenError("rules", "they do not know the canary: run `urlward gateway up`")
    return addresses


def _socket(address: Address, kind: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        s = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    except OSError as e:
        raise _no_socket(e) from e
    if address.version == 4:
        # So that no route is needed, and nothing leaves this machine. Answers to another address of its own
        # would count as come from that address's interface.
        with suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            s.bind(("127.0.0.1", 0))
    else:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((str(address), 53))
        except OSError as e:
            s.close()
            raise NoRouteError if e.errno in _CLOSED_ROUTE else _no_socket(e) from e
    return s


def _no_socket(error: OSError) -> Exception:
    if error.errno in _NO_ROUTE:
        return NoRouteError()
    return BrokenError("socket", _words(error), short=is_shortage(error))


def _full() -> str:
    """What keeps the kernel from sending anything new, if that is its table of connections."""
    count, most = (int(sysctl(f"net.netfilter.nf_conntrack_{name}") or 0) for name in ("count", "max"))
    is_full = count > most - most // 16  # entries end and come all the time
    return (
        f"the kernel tracks {count} connections and drops all new ones (nf_conntrack_max)" if is_full else ""
    )


async def _exchange(s: socket.socket, to: tuple[str, int], data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    s.connect(to)
    await loop.sock_sendall(s, data)
    while True:
        answer = await loop.sock_recv(s, _MOST)
        if answer[:2] == data[:2]:
            return answer


async def _head(s: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _MOST:
        some = await asyncio.get_running_loop().sock_recv(s, _MOST)
        if not some:
            break
        data += some
    return data


async def _in_time[Result](work: Awaitable[Result]) -> Result:
    return await asyncio.wait_for(work, WITHIN)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return (getattr(error, "strerror", None) or type(error).__name__).lower()


class Heartbeat:
    """Addon that shows the kernel that this filter lives.

    Args:
        gateway: the configuration that the rules were made from.
        steer_set: the kernel's sets; made where not given.

    Raises:
        NftError: nftables is not to be had here.
    """

    def __init__(self, gateway: GatewayTable, steer_set: SteerSet | None = None) -> None:
        self._gateway = gateway
        self._steer_set = SteerSet(gateway) if steer_set is None else steer_set
        self._faults = Faults()
        self._tasks: list[asyncio.Task[None]] = []
        self._lives = asyncio.Event()
        self._conntrack: Conntrack | None = None

    def check(self, port: int) -> None:
        """See whether the kernel's rules lead to this filter.

        Args:
            port: of the transparent proxy.

        Raises:
            UrlwardError: they do not, or there are none.
        """
        self._steer_set.check(port, 0)

    def running(self) -> None:
        """Start the heartbeat."""
        if (addon := ctx.master.addons.get("urlward")) is not None:
            self._conntrack = Conntrack()
            addon.port_of = self._conntrack.port
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(lasting("the heartbeat", self._live))]
        canary = canary_of(self._gateway, self._steer_set, lambda _: None, steers=False)
        if canary is not None:
            self._tasks.append(loop.create_task(lasting("the canary", partial(canary.run, self._lives))))

    async def done(self) -> None:
        """Stop the heartbeat; the rules for a missing filter then take effect."""
        for task in self._tasks:
            task.cancel()
        await self._steer_set.close()
        if self._conntrack is not None:
            self._conntrack.close()

    async def _live(self) -> None:
        while True:
            if _listens():
                try:
                    await self._steer_set.beat(_listens)
                    self._lives.set()
                except NoTableError as e:
                    self._faults.say(e, "nothing is filtered; run `urlward gateway up`")
                except Exception as e:  # noqa: BLE001 - the next beat may succeed
                    self._faults.say(e, "the kernel is not told that this filter lives")
            await asyncio.sleep(BEAT)


def _listens() -> bool:
    """Whether connections are still accepted: a filter that is stopping accepts none."""
    servers = ctx.master.addons.get("proxyserver").servers
    return any(server.is_running for server in servers if isinstance(server.mode, mode_specs.TransparentMode))
