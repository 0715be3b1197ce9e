"""Workers' updates of the kernel's sets: steer, cut, list networks, show signs of life."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from time import monotonic
from typing import Any

from cachetools import LRUCache

from urlward.config import GatewayTable
from urlward.dns.resolved import MARGIN
from urlward.gateway.elements import Element, Listed, digest_of, evict, lengthen, renew
from urlward.gateway.errors import GatewayError, NoRulesError, NoTableError, SetFullError
from urlward.gateway.nft import Nft
from urlward.gateway.steerable import NAT64, Address, Steerable, plain
from urlward.gateway.table import (
    ALIVE,
    BOTH_PROTOCOLS,
    CANARY,
    CUT,
    CUT_FOR,
    CUTTING,
    FAMILY_AND_NAME,
    LISTED_DIGEST,
    NAT64_SEEN,
    SETUP,
    STEERED,
    Setup,
)

ALIVE_FOR = 2
"""Seconds that the kernel takes a worker to live after its last `SteerSet.beat`."""

_LONGER = 120
"""Seconds that an element stays beyond what was asked for; so long it needs no renewal."""

_CACHED = 131_072
"""Elements whose times a worker remembers: so that most answers need no look at the kernel."""

_EVICTS = 16
"""The part of a full set that is made room in: one of so many, that not each name has to."""

_AGAIN = 5.0
"""Seconds after which a full set is looked through again that had nothing to evict."""

_SOON = 0.5
"""The same where others had made room already, or the kernel has yet to clear away expired elements."""

_MIRRORED = 250
"""Elements in one command, where there may be many."""

_FOR_EVER = 365 * 86_400
"""Seconds for which what has no end is mirrored."""

_COMMENT = 120
"""Letters; nft takes a few more."""

_LIFE: tuple[Element, ...] = tuple((ALIVE, protocol) for protocol in BOTH_PROTOCOLS)
_CUTS: tuple[Element, ...] = tuple((CUTTING, protocol) for protocol in BOTH_PROTOCOLS)


class SteerSet:
    """Kernel's sets, as one worker updates them.

    Each method that changes them returns when the kernel has the change. Commands go to the kernel from
    threads: a slow kernel does not stop the event loop, nor a long list of networks a name that waits.

    Args:
        gateway: the configuration that the rules were made from.
        nft: the connection to use, made by the thread that makes this object otherwise.

    Attributes:
        on_full: is told when a set is full: how many addresses were evicted, 0 where none could be.
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
        self._until: LRUCache[Element, float] = LRUCache(min(2 * gateway.max_addresses, _CACHED))
        """Expiry of each element in the kernel, by the clock of `monotonic`."""
        self.on_full: Callable[[int], None] = lambda _: None
        self._no_room_until: dict[str, float] = {}
        self._nat64 = False
        self._making_room: dict[str, asyncio.Task[bool]] = {}
        self._mirroring: asyncio.Task[None] | None = None

    def check(self, listen_port: int, dns_port: int) -> None:
        """See whether the rules are there, and for this filter; needed once, before the rest.

        Args:
            listen_port: of the transparent proxy.
            dns_port: where DNS is answered, 0 where nothing is steered.

        Raises:
            GatewayError: no rules, rules for another filter, or no permission.
        """
        check_rules(self._nft, self._gateway, listen_port, dns_port)

    def steerable(self, address: str) -> bool:
        """Whether an address may be steered; see `urlward.gateway.steerable`."""
        parsed = plain(address)
        return parsed is not None and self._steerable(parsed)

    async def steer(self, addresses: Iterable[str], seconds: int) -> int:
        """Redirect connections to addresses to the filter.

        Where a set is full, addresses go that no client may go to any more: those told longest ago.

        Args:
            addresses: those that must never be steered are left out.
            seconds: for at least so long, from now.

        Returns:
            How many addresses are steered.

        Raises:
            SetFullError: `max_addresses` are in use; those that there was room for are steered.
            NftError: the kernel refused.
        """
        wanted = [address for address in self._plain(addresses) if self._steerable(address)]
        elements: list[Element] = [(_of(STEERED, one), one) for one in self._all_forms(wanted)]
        # What has less left than `MARGIN` another worker may have evicted.
        enough = monotonic() + max(seconds, MARGIN)
        missing = [one for one in elements if self._until.get(one, 0.0) < enough]
        if missing:

            def command(some: Sequence[Element]) -> dict[Element, float]:
                return lengthen(self._nft, some, seconds, _LONGER)

            done, full = await self._each(command, missing)
            self._keep(done)
            if full is not None:
                left = [one for one in missing if not any(one in stay for stay in done)]
                if await self._make_room(left):
                    done, full = await self._each(command, left)
                    self._keep(done)
            if full is not None:
                self.on_full(0)
                raise full
        return len(wanted)

    def _keep(self, done: Iterable[dict[Element, float]]) -> None:
        for stay in done:
            self._until.update(stay)

    async def _make_room(self, elements: Sequence[Element]) -> bool:
        """Evict the oldest elements of full sets; returns whether there is room in any now."""
        room = False
        for name, wanted in Counter(name for name, _ in elements).items():
            if monotonic() < self._no_room_until.get(name, 0.0):
                continue
            # The kernel takes its time to list a large set: names that wait share it.
            work = self._making_room.get(name)
            if work is None:
                work = asyncio.get_running_loop().create_task(self._evict(name, wanted))
                self._making_room[name] = work
                work.add_done_callback(partial(self._made_room, name))
            room = await asyncio.shield(work) or room
        return room

    async def _evict(self, name: str, wanted: int) -> bool:
        size = self._gateway.max_addresses
        some = partial(evict, self._list_nft, name, max(wanted, size // _EVICTS), MARGIN, size)
        evicted, room = await _in(self._list_thread, some)
        if evicted:
            self.on_full(evicted)
        else:
            self._no_room_until[name] = monotonic() + (_SOON if room else _AGAIN)
        return room

    def _made_room(self, name: str, _: "asyncio.Task[bool]") -> None:
        self._making_room.pop(name, None)

    async def cut(self, addresses: Iterable[str], seconds: int = CUT_FOR) -> None:
        """End connections that bypass the filter because they are older than the steering.

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
            elements: list[Element] = [(_of(CUT, one), one) for one in self._all_forms(wanted)]
            _, full = await self._each(
                lambda some: lengthen(self._nft, [*_CUTS, *some], seconds, 0), elements
            )
            if full is not None:
                raise full

    async def list_networks(self, networks: Iterable[str], *, cut: bool = False) -> None:
        """Redirect connections to networks and addresses, in place of those listed before.

        Args:
            networks: in any order; they may overlap. What must never be steered is left out by the rules.
            cut: whether connections to them that are open end.

        Raises:
            NftError: the kernel refused; what was listed before is in force.
        """
        await _in(self._list_thread, lambda: self._list(list(networks), cut=cut))

    async def has_listed(self, networks: Iterable[str], *, cut: bool = False) -> bool:
        """Whether the kernel has what `list_networks` would put there.

        Raises:
            NftError: the kernel refused.
        """
        return await _in(self._list_thread, lambda: self._lists(_listed(list(networks), cut=cut)))

    def _lists(self, listed: Listed) -> bool:
        chain = f"{FAMILY_AND_NAME} {LISTED_DIGEST}"
        return digest_of(self._list_nft.json(f"list chain {chain}")) == listed.digest

    def _list(self, networks: list[str], *, cut: bool) -> None:
        listed = _listed(networks, cut=cut)
        if not self._lists(listed):
            if cut and networks:
                lengthen(self._list_nft, _CUTS, CUT_FOR, 0)
            self._list_nft.run(listed.commands())

    async def beat(self) -> None:
        """Show that a worker lives, for `ALIVE_FOR` seconds.

        Raises:
            NoTableError: the rules are gone.
            NftError: the kernel refused.
        """
        try:
            seen = await _in(self._beat_thread, self._beat)
        except NoTableError:
            self.forget()
            raise
        if seen and not self._nat64:
            self._nat64 = True
            self._mirroring = asyncio.get_running_loop().create_task(self._mirror())

    def _beat(self) -> bool:
        """Renew this worker's sign of life; returns whether clients now reach IPv4 by NAT64."""
        renew(self._beat_nft, _LIFE, ALIVE_FOR)
        return not self._nat64 and any(
            self._beat_nft.left(NAT64_SEEN, bytes([protocol])) for protocol in BOTH_PROTOCOLS
        )

    async def _mirror(self) -> None:
        """Copy the steered IPv4 addresses to their NAT64 forms; from here on that is done at once."""
        try:
            for sets in (STEERED, CUT):
                for left, elements in await _in(self._list_thread, partial(self._mirrored, sets)):
                    command = partial(lengthen, self._list_nft, elements, left, 0)
                    try:
                        await _in(self._list_thread, command)
                    except SetFullError:
                        if not await self._make_room(elements):
                            self.on_full(0)
                            continue
                        with suppress(SetFullError):
                            await _in(self._list_thread, command)
        except Exception:  # noqa: BLE001 - nobody waits for this
            self._nat64 = False  # the next beat tries again

    def _mirrored(self, sets: tuple[str, str]) -> list[tuple[int, list[Element]]]:
        """NAT64 elements to add, in batches, by the seconds that they stay."""
        by_time: dict[int, list[Element]] = {}
        for left, key in self._list_nft.each(sets[0]):
            form = _nat64_form(IPv4Address(key))
            by_time.setdefault(max(int(min(left, _FOR_EVER)), 1), []).append((sets[1], form))
        return [
            (left, elements[i : i + _MIRRORED])
            for left, elements in sorted(by_time.items(), reverse=True)
            for i in range(0, len(elements), _MIRRORED)
        ]

    async def prove(self, addresses: Iterable[Address], seconds: int) -> None:
        """Steer the canary's addresses for a short time, whatever this worker believes to be steered already.

        Raises:
            NftError: as `steer`.
        """
        elements: list[Element] = [(_of(STEERED, one), one) for one in addresses]
        command = partial(renew, self._nft, elements, seconds)
        try:
            await _in(self._thread, command)
        except SetFullError:
            if not await self._make_room(elements):
                self.on_full(0)
                raise
            await _in(self._thread, command)

    def forget(self) -> None:
        """Forget what the kernel is believed to hold, so that all is checked anew."""
        self._until.clear()

    async def chains(self, *names: str) -> list[dict[str, Any]]:
        """A listing of chains (`libnftables-json(5)`).

        Raises:
            NoTableError: one is missing.
            NftError: the kernel refused.
        """
        commands = [f"list chain {FAMILY_AND_NAME} {name}" for name in names]
        return await _in(self._beat_thread, lambda: [one for c in commands for one in self._beat_nft.json(c)])

    async def tell_canary(self, worker: int, why: str, seconds: int) -> None:
        """Record the state of a worker's canary in the kernel, for ``urlward gateway status``.

        Args:
            worker: its number.
            why: what fails, or ``ok``.
            seconds: for how long.

        Raises:
            NftError: the kernel refused.
        """
        words = "".join(c for c in why if c.isprintable() and c not in '"\\')[:_COMMENT]
        name = f"{FAMILY_AND_NAME} {CANARY}"
        add = f'add element {name} {{ {worker} timeout {seconds}s comment "{words}" }}'
        command = f"{add}\ndelete element {name} {{ {worker} }}\n{add}"
        await _in(self._beat_thread, lambda: self._beat_nft.run(command))

    async def close(self) -> None:
        """Finish pending commands, and accept no more."""
        for thread, nft in (
            (self._list_thread, self._list_nft),
            (self._beat_thread, self._beat_nft),
            (self._thread, self._nft),
        ):
            await _in(thread, nft.close)
            thread.shutdown(wait=False)

    def _all_forms(self, addresses: Iterable[Address]) -> Iterator[Address]:
        """Addresses, each IPv4 one with its NAT64 form if there are clients of IPv6-only networks."""
        for address in addresses:
            yield address
            if self._nat64 and isinstance(address, IPv4Address):
                yield _nat64_form(address)

    @staticmethod
    def _plain(addresses: Iterable[str]) -> list[Address]:
        found = dict.fromkeys(map(plain, addresses))
        return [address for address in found if address is not None]

    async def _each[Result](
        self, command: Callable[[Sequence[Element]], Result], elements: Sequence[Element]
    ) -> tuple[list[Result], SetFullError | None]:
        """Run a command for all elements at once; if a set is full, for each that fits."""
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


def check_rules(nft: Nft, gateway: GatewayTable, listen_port: int, dns_port: int) -> None:
    """Check that the rules are installed, and for this filter.

    Args:
        nft: the kernel.
        gateway: as configured.
        listen_port: of the transparent proxy.
        dns_port: where DNS is answered, 0 where nothing is steered.

    Raises:
        NoRulesError: there are none.
        GatewayError: they are for another filter, or there is no permission.
    """
    try:
        setup = Setup.of(nft.json(f"list chain {FAMILY_AND_NAME} {SETUP}"))
    except NoTableError as e:
        raise NoRulesError("no rules in the kernel: run `urlward gateway up` first") from e
    if setup is None:
        raise GatewayError("the kernel's rules are another release's: run `urlward gateway up`")
    again = "run `urlward gateway up` with this configuration"
    if bool(setup.dns) != bool(dns_port):
        are, this = ("steer", "does not") if setup.dns else ("do not steer", "does")
        raise GatewayError(f"the kernel's rules {are}, this filter {this}: {again}")
    if (setup.source == "kept") != gateway.keep_source:
        are, this = ("keep", "does not") if setup.source == "kept" else ("do not keep", "does")
        raise GatewayError(
            f"the kernel's rules {are} clients' addresses (keep_source), this filter {this}: {again}"
        )
    intercept = gateway.intercept_port if dns_port and gateway.steered == "intercept" else 0
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


def _listed(networks: list[str], *, cut: bool) -> Listed:
    # Where there are none, nothing has to end, and packets need no closer look.
    return Listed(networks, cut=cut and bool(networks))


async def _in[Result](thread: ThreadPoolExecutor, function: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(thread, function)


def _of(sets: tuple[str, str], address: Address) -> str:
    return sets[address.version == 6]


def _nat64_form(address: IPv4Address) -> IPv6Address:
    return IPv6Address(int(NAT64.network_address) + int(address))
