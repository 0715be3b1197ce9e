"""Workers' updates of the kernel's sets: steer, cut, list networks, show signs of life.

Elements are single ones with timeouts, and all listed networks and addresses. Tens of thousands of listed
ones take the kernel a third of a second, in which nothing else of its rules can change. So that workers do
not all do it, and a reload that leaves them alone does nothing, the table says which ones it holds: by a
digest, in the comment of a rule that no packet meets.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from ipaddress import IPv4Address, ip_address, ip_network
from math import inf
from socket import AF_INET, AF_INET6, SO_MARK, SOCK_DGRAM, SOL_SOCKET, inet_ntop, socket
from time import monotonic
from typing import Any

from cachetools import LRUCache

from urlward.config import GatewayTable
from urlward.dns.resolved import MARGIN
from urlward.engine.errors import UrlwardError
from urlward.engine.nat64 import Nat64
from urlward.gateway.nft import Nft
from urlward.gateway.steerable import Address, Steerable, plain, with_forms
from urlward.gateway.table import (
    ALIVE,
    ALIVE_FOR,
    BOTH_PROTOCOLS,
    CANARY,
    CUT,
    CUT_FOR,
    CUT_LISTED,
    CUTTING,
    FAMILY_AND_NAME,
    LISTED,
    LISTED_DIGEST,
    NAT64_SEEN,
    SETUP,
    SIGN,
    STEERED,
    NftError,
    NoTableError,
    SetFullError,
    Setup,
)

logger = logging.getLogger("urlward.gateway")

type Range = tuple[int, int]
"""First and last address."""

_LISTED_A_COMMAND = 2_000

_SIGNS = 0.5
"""Seconds between two signs of life while no transaction is taken."""

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

_A_COMMAND = 250
"""Elements in one command, where there may be many."""

_PROVEN_FOR = 0.5
"""Seconds for which the canary's addresses count as just taken: clients may ask for its name, thousands of
times in different letter case, and each time would be a transaction that others' names wait for."""

_FOR_EVER = 365 * 86_400
"""Seconds for which what has no end is mirrored."""

_COMMENT = 120
"""Letters; nft takes a few more."""

_STEP = 60
"""Seconds by which the ends of many elements may differ, so that they go into few commands."""


class Listed:
    """Intended content of the sets of listed networks.

    Args:
        networks: in any order; they may overlap.
        nat64: prefixes under which clients in IPv6-only networks reach those of IPv4.
        cut: whether open connections to them end.
    """

    def __init__(self, networks: Iterable[str], nat64: Nat64, *, cut: bool) -> None:
        ranges: dict[int, list[Range]] = {4: [], 6: []}
        for network in with_forms((ip_network(text, strict=False) for text in networks), nat64):
            first = int(network.network_address)
            ranges[network.version].append((first, first + network.num_addresses - 1))
        four, six = ranges.values()
        self._keys = (
            [_text(AF_INET, 4, one) for one in merged(four)],
            [_text(AF_INET6, 16, one) for one in merged(six)],
        )
        self._cut = cut
        content = "\n".join([str(cut), *self._keys[0], *self._keys[1]])
        self.digest = blake2b(content.encode(), digest_size=16).hexdigest()

    def commands(self) -> str:
        """One transaction that replaces the sets' content."""
        commands = [f"flush set {FAMILY_AND_NAME} {name}" for name in (*LISTED, CUT_LISTED)]
        for name, keys in zip(LISTED, self._keys, strict=True):
            starts = range(0, len(keys), _LISTED_A_COMMAND)
            commands += [_add(name, keys[i : i + _LISTED_A_COMMAND]) for i in starts]
        if self._cut:
            both = (f"{protocol} timeout {CUT_FOR}s" for protocol in BOTH_PROTOCOLS)
            commands.append(_add(CUT_LISTED, both))
        chain = f"{FAMILY_AND_NAME} {LISTED_DIGEST}"
        commands += (f"flush chain {chain}", f'add rule {chain} return comment "{self.digest}"')
        return "\n".join(commands)


def digest_of(listing: list[dict[str, Any]]) -> str:
    """The digest in a listing of the chain `LISTED_DIGEST`, or an empty string."""
    return next((one["rule"].get("comment", "") for one in listing if "rule" in one), "")


def merged(ranges: list[Range]) -> Iterator[Range]:
    """The same addresses in the fewest ranges, in order."""
    ranges.sort()
    pending: Range | None = None
    for first, last in ranges:
        if pending is None:
            pending = first, last
        elif first <= pending[1] + 1:
            pending = pending[0], max(pending[1], last)
        else:
            yield pending
            pending = first, last
    if pending is not None:
        yield pending


def _text(family: int, size: int, one: Range) -> str:
    first, last = (inet_ntop(family, end.to_bytes(size)) for end in one)
    return first if first == last else f"{first}-{last}"


def _add(name: str, keys: Iterable[str]) -> str:
    return f"add element {FAMILY_AND_NAME} {name} {{ {', '.join(keys)} }}"


type Element = tuple[str, Address | int]
"""A set's name, and a key in it."""


def renew(nft: Nft, elements: Iterable[Element], seconds: int) -> None:
    """Add elements, with a timeout that starts now.

    Adding an element again does not renew it, except on the newest kernels; and what is deleted must be
    there. All three in one transaction: packets see either the old or the new one.

    Raises:
        NftError: the kernel refused; nothing has changed.
    """
    by_set = _by_set(elements)
    add = [f"add element {_named(name)} {{ {_timed(keys, seconds)} }}" for name, keys in by_set.items()]
    delete = [f"delete element {_named(name)} {{ {', '.join(keys)} }}" for name, keys in by_set.items()]
    commands = "\n".join((*add, *delete, *add))
    try:
        nft.run(commands)
    except NoTableError:
        # An element whose time is up between its addition and its deletion, on older kernels.
        nft.run(commands)


def lengthen(nft: Nft, elements: Sequence[Element], seconds: int, more: int) -> dict[Element, float]:
    """Add elements or lengthen their timeout, but never shorten it: another process may have promised more.

    Args:
        nft: the kernel.
        elements: of any sets.
        seconds: for which each must stay.
        more: that each gets beyond, where it is added or needs more.

    Returns:
        Until when each stays, by the clock of `monotonic`.

    Raises:
        NftError: as `renew`.
    """
    with nft.turn():
        asked = monotonic()
        left = {(name, key): nft.left(name, _packed(key)) for name, key in elements}
        short = [element for element, remaining in left.items() if remaining < seconds]
        if short:
            renew(nft, short, seconds + more)
            left |= dict.fromkeys(short, seconds + more)
    return {element: asked + remaining for element, remaining in left.items()}


def fill(nft: Nft, elements: Sequence[Element], seconds: int) -> dict[Element, float]:
    """As `lengthen`, at a quarter of its cost where none of the elements is there.

    Raises:
        NftError: as `renew`.
    """
    asked = monotonic()
    by_set = _by_set(elements)
    try:
        # Not added: that would shorten, on the newest kernels, what another process has promised.
        nft.run(
            "\n".join(
                f"create element {_named(name)} {{ {_timed(keys, seconds)} }}"
                for name, keys in by_set.items()
            )
        )
    except (SetFullError, NoTableError):
        raise
    except NftError:
        return lengthen(nft, elements, seconds, 0)
    return dict.fromkeys(elements, asked + seconds)


def evict(nft: Nft, name: str, count: int, most: int, size: int) -> tuple[int, bool]:
    """Make room in a set: the elements that would stay for the shortest time are removed.

    Args:
        nft: the kernel.
        name: of the set.
        count: for how many there is to be room.
        most: seconds; what stays for longer is left.
        size: how many the set may hold.

    Returns:
        How many have gone, and whether there is room now: others may have made it meanwhile.

    Raises:
        NftError: as `renew`.
    """
    held = sorted(nft.each(name))
    needed = max(len(held) + count - size, 0)
    old = [key for until, key in held[:needed] if until <= most]
    stayed = 0
    for i in range(0, len(old), _A_COMMAND):
        with nft.turn():
            # Another process may have promised more meanwhile.
            left = {key: nft.left(name, key) for key in old[i : i + _A_COMMAND]}
            stayed += sum(one > most for one in left.values())
            keys = [str(ip_address(key)) for key, one in left.items() if 0 < one <= most]
            try:
                if keys:
                    nft.run(f"delete element {_named(name)} {{ {', '.join(keys)} }}")
            except NoTableError:
                for key in keys:
                    with suppress(NoTableError):  # its time was up meanwhile
                        nft.run(f"delete element {_named(name)} {{ {key} }}")
    gone = len(old) - stayed
    return gone, len(held) - gone < size


def _timed(keys: Iterable[str], seconds: int) -> str:
    return ", ".join(f"{key} timeout {seconds}s" for key in keys)


def _by_set(elements: Iterable[Element]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, key in elements:
        found.setdefault(name, []).append(str(key))
    return found


def _packed(key: Address | int) -> bytes:
    return bytes([key]) if isinstance(key, int) else key.packed


def _named(name: str) -> str:
    return f"{FAMILY_AND_NAME} {name}"


_ALIVE = ALIVE, bytes(BOTH_PROTOCOLS[:1])
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
        share: is told what is steered, as 4 or 16 bytes each, and for how many seconds, where other nodes are
            to steer it as well; gives what there is to wait for.
        share_cut: is told likewise to what connections are to end.
        monitor: whether connections are left alone that other nodes have end.
    """

    def __init__(self, gateway: GatewayTable, nft: Nft | None = None) -> None:
        self._gateway = gateway
        self._nft = nft or Nft()
        self._list_nft = nft or Nft()
        self._beat_nft = nft or Nft()
        self._steerable = Steerable(gateway)
        self._nat64 = Nat64(gateway.nat64)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nft")
        self._list_thread = ThreadPoolExecutor(1, thread_name_prefix="nft-lists")
        # However many names wait, the kernel is to know that this worker lives.
        self._beat_thread = ThreadPoolExecutor(1, thread_name_prefix="nft-beat")
        self._until: LRUCache[Element, float] = LRUCache(min(2 * gateway.max_addresses, _CACHED))
        """Expiry of each element in the kernel, by the clock of `monotonic`."""
        self._followed: LRUCache[str, float] = LRUCache(_CACHED)
        """Until when what was cut has stayed steered since, by the same clock."""
        self.on_full: Callable[[int], None] = lambda _: None
        self.share: Callable[[list[bytes], int], Awaitable[None] | None] = lambda *_: None
        self.share_cut: Callable[[list[bytes], int], None] = lambda *_: None
        self.monitor = False
        self._no_room_until: dict[str, float] = {}
        self._nat64_seen = False
        self._table: bytes | None = None
        """The kernel's number of the table at the last beat."""
        self._beaten = inf
        """When the last sign of life was taken, by the clock of `monotonic`."""
        self._proving = asyncio.Lock()
        self._proven = -inf
        """When the canary's addresses were taken last, by the same clock."""
        self._making_room: dict[str, asyncio.Task[bool]] = {}
        self._mirroring: asyncio.Task[None] | None = None

    def check(self, listen_port: int, dns_port: int) -> None:
        """See whether the rules are there, and for this filter; needed once, before the rest.

        Args:
            listen_port: of the transparent proxy.
            dns_port: where DNS is answered, 0 where nothing is steered.

        Raises:
            UrlwardError: no rules, rules for another filter, or no permission.
        """
        check_rules(self._nft, self._gateway, listen_port, dns_port)

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
        shared = self.share([one.packed for one in wanted], seconds)
        # What has less left than `MARGIN` another worker may have evicted.
        enough = monotonic() + max(seconds, MARGIN)
        missing = [one for one in elements if self._until.get(one, 0.0) < enough]
        if missing:
            await self._lengthen(missing, seconds, _LONGER)
        if shared is not None:
            await shared
        return len(wanted)

    async def follow(self, addresses: Iterable[str], seconds: int) -> None:
        """Steer addresses that clients know already, and end what they have opened to them meanwhile.

        Connections to what has been steered since are filtered, so this ends them once.

        Args:
            addresses: as `steer` takes them.
            seconds: likewise.

        Raises:
            SetFullError: as `steer`, `cut`.
            NftError: likewise.
        """
        addresses = tuple(addresses)
        # What has less left than `MARGIN` may have been evicted.
        steady = monotonic() + MARGIN
        ends = [one for one in addresses if self._followed.get(one, 0.0) < steady]
        try:
            if ends:
                await self.cut(ends)  # in force with the steering, so that nothing is opened in between
        finally:
            await self.steer(addresses, seconds)
        for one in addresses:
            address = plain(one)
            if address is not None:
                self._followed[one] = self._until.get((_of(STEERED, address), address), 0.0)

    async def _lengthen(
        self, elements: Sequence[Element], seconds: int, more: int, *, many: bool = False
    ) -> None:
        thread, nft = (self._list_thread, self._list_nft) if many else (self._thread, self._nft)

        def command(some: Sequence[Element]) -> dict[Element, float]:
            return fill(nft, some, seconds) if many else lengthen(nft, some, seconds, more)

        done, full = await self._each(command, elements, thread)
        if full is not None:
            left = [one for one in elements if not any(one in stay for stay in done)]
            if await self._make_room(left):
                more_done, full = await self._each(command, left, thread)
                done += more_done
        if not many:
            self._keep(done)
        if full is not None:
            self.on_full(0)
            raise full

    async def adopt(self, seconds: Mapping[bytes, int], *, many: bool = False) -> None:
        """Steer what another node steers, as `steer`; nobody else is told.

        Args:
            seconds: for which each address stays at least, by its 4 or 16 bytes.
            many: whether these are so many that answers to names are not to wait behind them; some stay a
                little longer then.

        Raises:
            SetFullError: as `steer`.
            NftError: likewise.
        """
        by_time: dict[int, list[Element]] = {}
        for packed, left in seconds.items():
            address = ip_address(packed)
            if self._steerable(address):
                stays = -(-left // _STEP) * _STEP if many else left
                forms = ((_of(STEERED, one), one) for one in self._all_forms((address,)))
                by_time.setdefault(stays, []).extend(forms)
        for left, elements in sorted(by_time.items(), reverse=True):
            for i in range(0, len(elements), _A_COMMAND):
                await self._lengthen(elements[i : i + _A_COMMAND], left, 0, many=many)

    async def adopt_cuts(self, addresses: Iterable[bytes], seconds: int) -> None:
        """End connections as `cut`, for another node; nobody else is told.

        Raises:
            SetFullError: as `steer`.
            NftError: likewise.
        """
        if not self.monitor:
            await self._cut([one for one in map(ip_address, addresses) if self._steerable(one)], seconds)

    async def held(self) -> dict[bytes, float]:
        """Addresses that are steered, by their 4 or 16 bytes, with the seconds that each stays; without the
        canary's, and the NAT64 forms of those.

        Raises:
            NftError: the kernel does not say.
        """
        canary = {ip_address(one).packed for one in self._gateway.canary.addresses}

        def look() -> dict[bytes, float]:
            four, six = ({key: left for left, key in self._list_nft.each(name)} for name in STEERED)
            forms = {one.packed for key in four for one in self._nat64.addresses(IPv4Address(key))}
            return {key: left for key, left in (four | six).items() if key not in canary and key not in forms}

        return await _in(self._list_thread, look)

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
            self.share_cut([one.packed for one in wanted], seconds)
            await self._cut(wanted, seconds)

    async def _cut(self, wanted: Sequence[Address], seconds: int) -> None:
        elements: list[Element] = [(_of(CUT, one), one) for one in self._all_forms(wanted)]
        if elements:
            _, full = await self._each(
                lambda some: lengthen(self._nft, [*_CUTS, *some], seconds, 0), elements, self._thread
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
        return await _in(
            self._list_thread, lambda: self._lists(_listed(list(networks), self._nat64, cut=cut))
        )

    def _lists(self, listed: Listed) -> bool:
        chain = f"{FAMILY_AND_NAME} {LISTED_DIGEST}"
        return digest_of(self._list_nft.json(f"list chain {chain}")) == listed.digest

    def _list(self, networks: list[str], *, cut: bool) -> None:
        listed = _listed(networks, self._nat64, cut=cut)
        if not self._lists(listed):
            if cut and networks:
                lengthen(self._list_nft, _CUTS, CUT_FOR, 0)
            self._list_nft.run(listed.commands())

    async def beat(self, serves: Callable[[], bool] = lambda: True) -> bool:
        """Show that a worker lives, for `ALIVE_FOR` seconds.

        Args:
            serves: whether it still takes connections: it may be asked to end while the kernel waits.

        Returns:
            Whether the table is another one than at the last beat, without what was in it.

        Raises:
            NoTableError: the rules are gone.
            NftError: the kernel refused.
        """
        before = self._table
        work = asyncio.get_running_loop().run_in_executor(self._beat_thread, self._beat)
        try:
            while not (await asyncio.wait((work,), timeout=_SIGNS))[0]:
                if serves():
                    self._sign()
            seen = work.result()
        except NoTableError:
            self.forget()
            self._beaten = inf
            raise
        finally:
            work.cancel()
        self._lives()
        anew = before not in (None, self._table)
        if anew:
            self.forget()
        if seen and not self._nat64_seen:
            self._nat64_seen = True
            self._mirroring = asyncio.get_running_loop().create_task(self._mirror())
        return anew

    async def leads_here(self) -> bool:
        """Whether the kernel takes any worker to live.

        Raises:
            NftError: it does not say.
        """
        return bool(await _in(self._beat_thread, lambda: self._beat_nft.left(*_ALIVE)))

    def _sign(self) -> None:
        """Show that this worker lives by a datagram, which the rules take and drop: as long as another's
        transaction goes on, with hundreds of thousands of elements, no other is begun."""
        with suppress(OSError), socket(AF_INET, SOCK_DGRAM) as one:
            one.setsockopt(SOL_SOCKET, SO_MARK, SIGN)
            try:
                one.sendto(b"", ("127.0.0.1", SIGN))
            except PermissionError:  # so a packet is dropped that its sender is told of
                self._lives()

    def _lives(self) -> None:
        silent, self._beaten = monotonic() - self._beaten, monotonic()
        if silent > ALIVE_FOR:
            logger.warning(
                "the kernel has had no sign of life of this worker for %.1f s: the machine was busy", silent
            )

    def _beat(self) -> bool:
        """Renew this worker's sign of life; returns whether clients now reach IPv4 by NAT64."""
        table = self._beat_nft.table()
        renew(self._beat_nft, _LIFE, ALIVE_FOR)
        self._table = table
        return not self._nat64_seen and any(
            self._beat_nft.left(NAT64_SEEN, bytes([protocol])) for protocol in BOTH_PROTOCOLS
        )

    async def _mirror(self) -> None:
        """Copy the steered IPv4 addresses to their NAT64 forms; from here on that is done at once."""
        try:
            for sets in (STEERED, CUT):
                for left, elements in await _in(self._list_thread, partial(self._mirrored, sets)):
                    command = partial(lengthen, self._list_nft, elements, left, 0)
                    with suppress(SetFullError):
                        await self._with_room(command, elements, self._list_thread)
        except Exception:  # noqa: BLE001 - nobody waits for this
            self._nat64_seen = False  # the next beat tries again

    def _mirrored(self, sets: tuple[str, str]) -> list[tuple[int, list[Element]]]:
        """NAT64 elements to add, in batches, by the seconds that they stay."""
        by_time: dict[int, list[Element]] = {}
        for left, key in self._list_nft.each(sets[0]):
            its = by_time.setdefault(max(int(min(left, _FOR_EVER)), 1), [])
            its += ((sets[1], form) for form in self._nat64.addresses(IPv4Address(key)))
        return [
            (left, elements[i : i + _A_COMMAND])
            for left, elements in sorted(by_time.items(), reverse=True)
            for i in range(0, len(elements), _A_COMMAND)
        ]

    async def prove(self, addresses: Iterable[Address], seconds: int) -> None:
        """Steer the canary's addresses for a short time, whatever this worker believes to be steered already.

        Raises:
            NftError: as `steer`.
        """
        async with self._proving:
            if monotonic() < self._proven + _PROVEN_FOR:
                return
            elements: list[Element] = [(_of(STEERED, one), one) for one in addresses]
            await self._with_room(partial(renew, self._nft, elements, seconds), elements, self._thread)
            self._proven = monotonic()

    async def is_full(self) -> bool:
        """Whether the kernel holds as many addresses of a family as may be, so that `prove` may be refused.

        Raises:
            NftError: it does not say.
        """
        held = await _in(self._list_thread, lambda: max(map(self._list_nft.count, STEERED)))
        return held >= self._gateway.max_addresses

    def forget(self) -> None:
        """Forget what the kernel is believed to hold, so that all is checked anew."""
        self._until.clear()
        self._followed.clear()
        self._proven = -inf

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
        """Addresses, each IPv4 one with its NAT64 forms if there are clients of IPv6-only networks."""
        for address in addresses:
            yield address
            if self._nat64_seen and isinstance(address, IPv4Address):
                yield from self._nat64.addresses(address)

    @staticmethod
    def _plain(addresses: Iterable[str]) -> list[Address]:
        found = dict.fromkeys(map(plain, addresses))
        return [address for address in found if address is not None]

    async def _with_room(
        self, command: Callable[[], object], elements: Sequence[Element], thread: ThreadPoolExecutor
    ) -> None:
        """Run a command for elements, for which room is made if a set is full.

        Raises:
            SetFullError: there is none.
        """
        try:
            await _in(thread, command)
        except SetFullError:
            if not await self._make_room(elements):
                self.on_full(0)
                raise
            await _in(thread, command)

    async def _each[Result](
        self,
        command: Callable[[Sequence[Element]], Result],
        elements: Sequence[Element],
        thread: ThreadPoolExecutor,
    ) -> tuple[list[Result], SetFullError | None]:
        """Run a command for all elements at once; if a set is full, for each that fits."""
        try:
            return [await _in(thread, partial(command, elements))], None
        except SetFullError as e:
            full = e
        done = []
        for element in elements if len(elements) > 1 else ():
            try:
                done.append(await _in(thread, partial(command, [element])))
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
        NoTableError: there are none.
        UrlwardError: they are for another filter, or there is no permission.
    """
    try:
        setup = Setup.of(nft.json(f"list chain {FAMILY_AND_NAME} {SETUP}"))
    except NoTableError as e:
        raise NoTableError("no rules in the kernel: run `urlward gateway up` first") from e
    if setup is None:
        raise UrlwardError("the kernel's rules are another release's: run `urlward gateway up`")
    again = "run `urlward gateway up` with this configuration"
    if bool(setup.dns) != bool(dns_port):
        are, this = ("steer", "does not") if setup.dns else ("do not steer", "does")
        raise UrlwardError(f"the kernel's rules {are}, this filter {this}: {again}")
    if (setup.source == "kept") != gateway.keep_source:
        are, this = ("keep", "does not") if setup.source == "kept" else ("do not keep", "does")
        raise UrlwardError(
            f"the kernel's rules {are} clients' addresses (keep_source), this filter {this}: {again}"
        )
    intercept = gateway.intercept_port if dns_port and gateway.steered == "intercept" else 0
    for what, rules, ours in (
        ("port", setup.listen, listen_port),
        ("DNS port", setup.dns, dns_port),
        ("intercept_port", setup.intercept, intercept),
    ):
        if rules != ours:
            raise UrlwardError(
                f"the kernel's rules are for {what} {rules or 'none'}, this filter has {ours or 'none'}: "
                f"{again}"
            )


def _listed(networks: list[str], nat64: Nat64, *, cut: bool) -> Listed:
    # Where there are none, nothing has to end, and packets need no closer look.
    return Listed(networks, nat64, cut=cut and bool(networks))


async def _in[Result](thread: ThreadPoolExecutor, function: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(thread, function)


def _of(sets: tuple[str, str], address: Address) -> str:
    return sets[address.version == 6]
