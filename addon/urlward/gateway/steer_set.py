"""What workers do to the kernel's sets: steer, cut, list networks, show that they live."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv6Address
from time import monotonic

from cachetools import LRUCache

from urlward.config import GatewayTable
from urlward.gateway.elements import Element, lengthen, renew
from urlward.gateway.errors import GatewayError, NoTableError, SetFullError
from urlward.gateway.listed import Listed, digest_of
from urlward.gateway.nft import Nft
from urlward.gateway.steerable import NAT64, Address, Steerable, plain
from urlward.gateway.table import (
    ALIVE,
    BOTH_PROTOCOLS,
    CUT,
    CUT_FOR,
    CUTTING,
    FAMILY_AND_NAME,
    LISTED_DIGEST,
    SETUP,
    STEERED,
    Setup,
)

ALIVE_FOR = 2
"""Seconds that the kernel takes a worker to live after its last `SteerSet.beat`."""

_LONGER = 120
"""Seconds that an element stays beyond what was asked for; so long it needs no renewal."""

_LIFE: tuple[Element, ...] = tuple((ALIVE, protocol) for protocol in BOTH_PROTOCOLS)
_CUTS: tuple[Element, ...] = tuple((CUTTING, protocol) for protocol in BOTH_PROTOCOLS)


class SteerSet:
    """The kernel's sets, for one worker.

    Each method that changes them returns when the kernel has the change. Commands go to the kernel from
    threads: a slow kernel does not stop the event loop, nor a long list of networks a name that waits.

    Args:
        gateway: the configuration that the rules were made from.
        nft: the connection to use, made by the thread that makes this object otherwise.
    """

    def __init__(self, gateway: GatewayTable, nft: Nft | None = None) -> None:
        self._gateway = gateway
        self._nft = nft or Nft()
        self._list_nft = nft or Nft()
        self._beat_nft = nft or Nft()
        self._steerable = Steerable(gateway)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nft")
        self._list_thread = ThreadPoolExecutor(1, thread_name_prefix="nft-lists")
        # However many names wait, the kernel is to know that this worker lives.
        self._beat_thread = ThreadPoolExecutor(1, thread_name_prefix="nft-beat")
        self._until: LRUCache[Element, float] = LRUCache(2 * gateway.max_addresses)
        """By the clock of `monotonic`, until when the kernel keeps an element."""

    def check(self, listen_port: int, dns_port: int) -> None:
        """See whether the rules are there, and for this filter; needed once, before the rest.

        Args:
            listen_port: of the transparent proxy.
            dns_port: where DNS is answered, 0 where nothing is steered.

        Raises:
            GatewayError: no rules, rules for another filter, or no permission.
        """
        try:
            setup = Setup.of(self._nft.json(f"list chain {FAMILY_AND_NAME} {SETUP}"))
        except NoTableError as e:
            raise GatewayError("no rules in the kernel: run `urlward gateway up` first") from e
        if setup is None:
            raise GatewayError("the kernel's rules are another release's: run `urlward gateway up`")
        again = "run `urlward gateway up` with this configuration"
        if bool(setup.dns) != bool(dns_port):
            are, this = ("steer", "does not") if setup.dns else ("do not steer", "does")
            raise GatewayError(f"the kernel's rules {are}, this filter {this}: {again}")
        intercept = self._gateway.intercept_port if dns_port and self._gateway.steered == "intercept" else 0
        for what, rules, ours in (
            ("port", setup.listen, listen_port),
            ("DNS port", setup.dns, dns_port),
            ("intercept_port", setup.intercept, intercept),
        ):
            if rules != ours:
                raise GatewayError(
                    f"the kernel's rules are for {what} {rules or 'none'}, this filter has {ours or 'none'}: "
                    f"{again}"
                )

    def steerable(self, address: str) -> bool:
        """Whether an address may be steered; see `urlward.gateway.steerable`."""
        parsed = plain(address)
        return parsed is not None and self._steerable(parsed)

    async def steer(self, addresses: Iterable[str], seconds: int) -> int:
        """Have connections to addresses come to the filter.

        Args:
            addresses: those that must never be steered are left out.
            seconds: for at least so long, from now.

        Returns:
            How many addresses are steered.

        Raises:
            SetFullError: `max_addresses` are steered already; those that there was room for are steered.
            NftError: the kernel refused.
        """
        wanted = [address for address in self._plain(addresses) if self._steerable(address)]
        elements: list[Element] = [(_of(STEERED, one), one) for one in _all_forms(wanted)]
        enough = monotonic() + seconds
        missing = [one for one in elements if self._until.get(one, 0.0) < enough]
        if missing:
            done, full = await self._each(lambda some: lengthen(self._nft, some, seconds, _LONGER), missing)
            for stay in done:
                self._until.update(stay)
            if full is not None:
                raise full
        return len(wanted)

    async def cut(self, addresses: Iterable[str], seconds: int = CUT_FOR) -> None:
        """End connections that pass the filter by because they are older than what was steered.

        Holds for what is steered or listed at the same time, and while a worker lives. A connection
        ends with its next packet; only one that sends none for all of the time escapes.

        Args:
            addresses: whose.
            seconds: for how long the kernel looks out for their packets.

        Raises:
            SetFullError: as `steer`.
            NftError: the kernel refused.
        """
        wanted = [address for address in self._plain(addresses) if self._steerable(address)]
        if wanted:
            elements: list[Element] = [(_of(CUT, one), one) for one in _all_forms(wanted)]
            _, full = await self._each(
                lambda some: lengthen(self._nft, [*_CUTS, *some], seconds, 0), elements
            )
            if full is not None:
                raise full

    async def list_networks(self, networks: Iterable[str], *, cut: bool = False) -> None:
        """Have connections to networks and addresses come to the filter, in place of those named before.

        Args:
            networks: in any order; they may overlap. What must never be steered is left out by the rules.
            cut: whether connections to them that are open end.

        Raises:
            NftError: the kernel refused; what was listed before is in force.
        """
        await _in(self._list_thread, lambda: self._list(list(networks), cut=cut))

    def _list(self, networks: list[str], *, cut: bool) -> None:
        # Where there are none, nothing has to end, and packets need no closer look.
        cut = cut and bool(networks)
        listed = Listed(networks, cut=cut)
        chain = f"{FAMILY_AND_NAME} {LISTED_DIGEST}"
        if digest_of(self._list_nft.json(f"list chain {chain}")) != listed.digest:
            if cut:
                lengthen(self._list_nft, _CUTS, CUT_FOR, 0)
            self._list_nft.run(listed.commands())

    async def beat(self) -> None:
        """Show that a worker lives, for `ALIVE_FOR` seconds.

        Raises:
            NoTableError: the rules are gone.
            NftError: the kernel refused.
        """
        try:
            await _in(self._beat_thread, lambda: renew(self._beat_nft, _LIFE, ALIVE_FOR))
        except NoTableError:
            # Once they are back, they hold nothing of what was steered.
            self._until.clear()
            raise

    async def close(self) -> None:
        """Do what has been asked for, and no more."""
        for thread, nft in (
            (self._list_thread, self._list_nft),
            (self._beat_thread, self._beat_nft),
            (self._thread, self._nft),
        ):
            await _in(thread, nft.close)
            thread.shutdown(wait=False)

    @staticmethod
    def _plain(addresses: Iterable[str]) -> list[Address]:
        found = dict.fromkeys(map(plain, addresses))
        return [address for address in found if address is not None]

    async def _each[Result](
        self, command: Callable[[Sequence[Element]], Result], elements: Sequence[Element]
    ) -> tuple[list[Result], SetFullError | None]:
        """Do it to all at once; where there is no room for all, to each that there is room for."""
        try:
            return [await _in(self._thread, partial(command, elements))], None
        except SetFullError as e:
            full = e
        done = []
        for element in elements if len(elements) > 1 else ():
            try:
                done.append(await _in(self._thread, partial(command, [element])))
            except SetFullError as e:
                full = e
        return done, full


async def _in[Result](thread: ThreadPoolExecutor, function: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(thread, function)


def _of(sets: tuple[str, str], address: Address) -> str:
    return sets[address.version == 6]


def _all_forms(addresses: Iterable[Address]) -> Iterator[Address]:
    """Each, and for IPv4 the form under which clients of an IPv6-only network reach it."""
    for address in addresses:
        yield address
        if address.version == 4:
            yield IPv6Address(int(NAT64.network_address) + int(address))
