"""DNS policy: responses for listed names, and for names by which clients bypass the network's DNS."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from cachetools import LRUCache, TTLCache

from urlward.config import GatewayTable
from urlward.dns.answers import REFUSED_TTL, absent, changed, denied, error, page, text_of
from urlward.dns.judge import WHOLE, Judge
from urlward.dns.resolved import MARGIN, MOST_TTL
from urlward.dns.wire import AAAA, SERVFAIL, A, Question, Scan, WireError, records_in, weight
from urlward.engine.hosts import labels_before_suffix
from urlward.engine.matcher import Matcher
from urlward.proxy.block_page import new_reference
from urlward.proxy.guard import PortOf, seen_port, timestamp

if TYPE_CHECKING:
    from urlward.engine.verdict import Verdict

logger = logging.getLogger("urlward")

CANARY_FOR = 10
"""Seconds for which the canary's address is steered, so that a set that takes no more is noticed."""

MOST_ADDRESSES = 64
"""Addresses of each family that are steered, and returned, for one response."""

_MOST_IN_ALL = 4 * MOST_ADDRESSES

MOST_RECORDS = 256
"""Records of a response for a name that is steered. Of more few would be told, and to rewrite thousands,
which whoever runs a listed name may send, would keep all traffic waiting."""

MOST_BYTES = 8_192
"""Of such a response, for the same reason."""

MOST_WEIGHT = 100_000
"""Of the names in it (`urlward.dns.wire.weight`), for the same reason."""

MOST = 512
"""Addresses of one registrable domain that are steered at a time."""

_DOMAINS = 10_000

_LATELY = 8
"""Addresses that a host had before, and is told in place of those for which there is no room."""

OFF_SWITCHES = frozenset(
    (
        # https://support.mozilla.org/kb/canary-domain-use-application-dnsnet
        "use-application-dns.net",
        # https://developer.apple.com/support/prepare-your-network-for-icloud-private-relay
        "mask.icloud.com",
        "mask-h2.icloud.com",
        # https://developer.chrome.com/docs/privacy-security/private-prefetch-proxy-for-network-admins
        # By the first Chrome asks for a page's host before it shows what came through the second, but takes
        # any answer.
        "dns-tunnel-check.googlezip.net",
        "tunnel.googlezip.net",
    )
)
"""Names that are not there where clients shall use the network's own DNS, and fetch pages by no other way."""

DISCOVERY = "resolver.arpa"
"""Name by which clients discover a resolver's encrypted DNS (RFC 9462); it has none that is filtered."""


class Asker(NamedTuple):
    """Client that has asked.

    Attributes:
        host: its address; empty where a resolver does not tell.
        port: that it seems to ask from; 0 where a resolver tells of it.
        transport: such as ``socket.IPPROTO_UDP``; 0 likewise.
        ours: address and port of this machine that it came to; empty likewise.
    """

    host: str
    port: int = 0
    transport: int = 0
    ours: tuple[str, int] = ("", 0)


type Reason = Literal["listed", "off", "discovery", "canary"]


class Quota:
    """Quota of addresses that one listed site may have steered.

    Whoever runs a listed name answers with whatever addresses they like, and by dnstap with whatever times.
    Without a bound, a few answers would fill the kernel's set, so that no other name could be steered, and
    lead any number of other people's services here. So an address counts for as long as it is steered.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: LRUCache[str, dict[str, tuple[float, str]]] = LRUCache(_DOMAINS)
        """Until when each address counts, and of which host, by domain."""
        self._said: TTLCache[str, bool] = TTLCache(_DOMAINS, MARGIN, clock)

    def take(self, host: str, addresses: Sequence[str], seconds: float) -> list[str]:
        """Reserve addresses for a host; returns those that it may steer.

        Args:
            host: that is listed, in canonical form.
            addresses: as an answer gives them.
            seconds: for which they are steered.
        """
        domain, now = _domain(host), self._clock()
        taken = self._taken.get(domain, {})
        if len(taken) + len(addresses) > MOST:
            taken = {address: one for address, one in taken.items() if one[0] > now}
        self._taken[domain] = taken
        allowed: list[str] = []
        for address in addresses:
            if address in taken or len(taken) < MOST:
                taken[address] = max(taken.get(address, (0.0, ""))[0], now + seconds), host
                allowed.append(address)
            elif domain not in self._said:
                self._said[domain] = True
                logging.getLogger("urlward.gateway").warning(
                    "a listed site has %d addresses: no more are steered for a while, nor told where urlward "
                    "has a say in that",
                    MOST,
                )
        return allowed

    def lately(self, host: str, version: int, seconds: float) -> list[str]:
        """Addresses of a host that it may still steer, those told last, where it has others by now.

        Stores of objects have more than `MOST` in turn, of which each goes on answering.

        Args:
            host: as `take` had it.
            version: of IP.
            seconds: for which they are steered from now on.
        """
        now = self._clock()
        its = [
            (until, address)
            for address, (until, of) in self._taken.get(_domain(host), {}).items()
            if of == host and until > now and (":" in address) == (version == 6)
        ]
        return self.take(host, [address for _, address in sorted(its, reverse=True)[:_LATELY]], seconds)


def _domain(host: str) -> str:
    """The registrable domain of a host; a public suffix that is listed itself stands for itself."""
    before = labels_before_suffix(host)
    return ".".join(host.split(".")[max(len(before) - 1, 0) :])


class Steers(Protocol):
    """Part of `urlward.gateway.steer_set.SteerSet` that the policy needs."""

    async def steer(self, addresses: Iterable[str], seconds: int) -> int:
        """Redirect connections to addresses to the filter."""

    async def follow(self, addresses: Iterable[str], seconds: int) -> None:
        """Redirect connections to addresses that clients know already, and end what they have opened."""

    async def prove(self, addresses: Iterable[IPv4Address | IPv6Address], seconds: int) -> None:
        """Steer the canary's addresses."""


class DnsPolicy:
    """Responses to queries for listed names.

    Args:
        gateway: the configuration.
        steer_set: the kernel's.
        judge: knows what is listed.
        matcher: gives the matcher in force, to name an entry in the log.

    Attributes:
        monitor: whether nothing is refused.
        on_error: what an answer gets, of a host with an entry, when handling it fails: ``block`` or ``pass``.
        record: is told what is refused: the verdict, the host, the client's address and port, the reference.
        logs: whether that stands in the log.
        named: gives a client's address as a line of the log may name it.
        port_of: gives the port that a client is recorded with: of a transport, where it came to, and from.
        on_canary: called when a canary's question has been answered.
    """

    def __init__(
        self, gateway: GatewayTable, steer_set: Steers, judge: Judge, matcher: Callable[[], Matcher]
    ) -> None:
        self.monitor = False
        self.on_error = "block"
        self.record: Callable[[Verdict, str, str, int, str], None] = _keep_nothing
        self.logs = True
        self.named: Callable[[str], str] = str
        self.port_of: PortOf = seen_port
        self._steer_set = steer_set
        self._judge = judge
        self._matcher = matcher
        self._ports = frozenset(gateway.ports)
        self._listed_hosts = gateway.dns.listed_hosts
        self._canary = gateway.dns.canary
        self._max_ttl = gateway.dns.max_ttl
        self._quota = Quota()
        self._refused_ttl = min(gateway.dns.max_ttl, REFUSED_TTL)
        self._pages = tuple(map(ip_address, gateway.dns.page_addresses))
        self._canary_addresses = tuple(map(ip_address, gateway.canary.addresses))
        self._canary_name = gateway.canary.name if self._canary_addresses else ""
        self.on_canary: Callable[[], None] = lambda: None

    @property
    def blocks_on_error(self) -> bool:
        """Whether a host with an entry is refused where a fault keeps it from being steered."""
        return self.on_error == "block" and not self.monitor

    @property
    def refuses(self) -> bool:
        """Whether hosts listed whole get no address, or the block page's, and are not steered."""
        return self._listed_hosts != "steer" and not self.monitor

    @property
    def own_names(self) -> tuple[str, ...]:
        """The names that the filter answers itself whatever a list says, with all that is below them."""
        switches = (*sorted(OFF_SWITCHES), DISCOVERY) if self._canary else ()
        return (*switches, *filter(None, (self._canary_name,)))

    def reason(self, question: Question) -> Reason | None:
        """Reason why the filter itself answers a query, and no resolver is asked."""
        host = question.host
        if self._canary_name and host == self._canary_name:
            return "canary"
        if self._canary:
            if host in OFF_SWITCHES:
                return "off"
            if host.endswith(DISCOVERY) and host[: -len(DISCOVERY)][-1:] in ("", "."):
                return "discovery"
        if self.refuses and self._judge.find((host,)) & WHOLE:
            return "listed"
        return None

    async def own_answer(
        self, query: bytes, question: Question, reason: Reason, askers: Sequence[Asker]
    ) -> bytes:
        """The response to a query that the filter itself answers.

        Args:
            query: as sent.
            question: of it.
            reason: as `reason` gave it.
            askers: clients that have asked, for the log.

        Raises:
            NftError: the block page's addresses could not be steered.
        """
        if reason == "listed":
            return await self.refuse(query, question, (question.host,), askers)
        if reason == "canary":
            await self._steer_set.prove(self._canary_addresses, CANARY_FOR)
            self.on_canary()
            return page(query, question, self._canary_addresses, 0)
        return absent(query, question, self._refused_ttl, nxdomain=reason == "off")

    async def refuse(
        self, query: bytes, question: Question, hosts: tuple[str, ...], askers: Sequence[Asker]
    ) -> bytes:
        """The response for a host listed whole.

        Args:
            query: as sent.
            question: of it.
            hosts: of which one is.
            askers: clients that have asked, for the log.

        Raises:
            NftError: the block page's addresses could not be steered.
        """
        if self._listed_hosts == "page":
            if self._pages:
                await self._steer_set.steer(map(str, self._pages), self._refused_ttl + MARGIN)
            return page(query, question, self._pages, self._refused_ttl)
        if question.type in (A, AAAA):
            self._log(hosts, askers)
        return denied(query, question, self._refused_ttl)

    async def answer(self, query: bytes, question: Question, data: bytes, read: Scan, size: int) -> bytes:
        """The response to a query, once the addresses in it are steered.

        Args:
            query: as sent.
            question: of it.
            data: as a resolver answered.
            read: what that says, of hosts some of which are listed.
            size: most bytes that the client takes.

        Raises:
            NftError: the addresses could not be steered.
            dns.exception.DNSException: dnspython does not read the answer.
        """
        if not (read.four or read.six or read.beside or read.service or len(read.chain) > 1):
            return data
        if _is_too_much(data, question):
            return error(query, SERVFAIL, question)
        # The longest that any client is told, so that one answer after another renews nothing.
        seconds = self._max_ttl + MARGIN
        told, steered = self._addresses(read, seconds)
        lately = () if told else self._lately(read, question, seconds)
        if steered or lately:
            await self._steer_set.steer(steered or lately, seconds)
        if lately:
            ttl = min(read.ttl, self._max_ttl)
            return page(query, question, tuple(map(ip_address, lately)), ttl, blocked=False)
        try:
            return changed(
                data,
                max_ttl=self._max_ttl,
                ports=self._ports,
                keep=told,
                size=size,
                has_entry=self._has_entry,
            )
        except Exception:
            if read.service:
                # What could not be read might lead past the filter. Without it, addresses are asked for.
                return absent(query, question, 0)
            raise

    async def follow(self, read: Scan) -> None:
        """Steer the addresses of an answer that a client has already, as it is, and end what is open to them.

        Args:
            read: what it says, of hosts some of which are listed.

        Raises:
            NftError: the addresses could not be steered.
        """
        seconds = min(read.ttl, MOST_TTL) + MARGIN
        _, steered = self._addresses(read, seconds, MOST)
        if steered:
            act = self._steer_set.steer if self.monitor else self._steer_set.follow
            await act(steered, seconds)

    def _lately(self, read: Scan, question: Question, seconds: int) -> list[str]:
        """Addresses for a response all of whose own are too many."""
        version = {A: 4, AAAA: 6}.get(question.type)
        listed = next((host for host in read.hosts if self._judge.find((host,))), None)
        if listed is None or version is None or not (read.four or read.six):
            return []
        return self._quota.lately(listed, version, seconds)

    def _has_entry(self, host: str) -> bool:
        return bool(self._judge.find((host,)))

    def _addresses(self, read: Scan, seconds: int, most: int = MOST_ADDRESSES) -> tuple[set[str], list[str]]:
        """The addresses that a response may contain, and those of them that are steered.

        Args:
            read: what it says.
            seconds: for which they are.
            most: addresses of each family.
        """
        four, six = _texts(read.four, 4), _texts(read.six, 16)
        told, steered = {*four, *six}, []
        listed = next((host for host in read.hosts if self._judge.find((host,))), None)
        if listed is not None:
            steered = self._quota.take(listed, four[:most] + six[:most], seconds)
            told = set(steered)
        for host, address in read.beside:
            text = text_of(address)
            if not text:
                continue  # a service record: without an address it takes nobody's place
            if not self._judge.find((host,)):
                told.add(text)
            elif len(steered) < _MOST_IN_ALL and self._quota.take(host, (text,), seconds):
                told.add(text)
                steered.append(text)
        return told, list(dict.fromkeys(filter(None, steered)))

    def _log(self, hosts: tuple[str, ...], askers: Sequence[Asker]) -> None:
        """Log a refused name as each client's request would be, since there will be none."""
        now = time.time()
        matcher = self._matcher()
        for host in hosts:
            if not self._judge.find((host,)) & WHOLE:
                continue
            verdict = matcher.check_host(host, (), now)
            # Several, where a client has asked several servers from one port.
            for client, port in dict.fromkeys(
                (one.host, self.port_of(one.transport, one.ours, (one.host, one.port))) for one in askers
            ):
                reference = new_reference()
                if self.logs:
                    logger.info(
                        "%s block client=%s list=%s entry=%s category=%s reference=%s by=dns",
                        timestamp(now), self.named(client), verdict.list or "-", verdict.entry or "-",
                        verdict.category or "-", reference,
                    )  # fmt: skip
                self.record(verdict, host, client, port, reference)
            return


def _is_too_much(data: bytes, question: Question) -> bool:
    """Whether a response to a name that is steered would take long to rewrite, or has names that cannot be
    read: whoever runs that name makes them so."""
    try:
        return (
            records_in(data) > MOST_RECORDS or len(data) > MOST_BYTES or weight(data, question) > MOST_WEIGHT
        )
    except WireError:
        return True


def _keep_nothing(*_: object) -> None:
    """Record nothing: recording is off."""


def _texts(addresses: bytes, size: int) -> list[str]:
    return [text_of(addresses[i : i + size]) for i in range(0, len(addresses), size)]
