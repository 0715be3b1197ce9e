"""List changes carried into the kernel: names resolved before, and networks.

Of what a list comes to name, the addresses are steered at once, and connections that are open end, so
that they come back through the filter. What is no longer listed leaves the kernel with its time.
"""

import asyncio
import logging
from collections.abc import Iterator

from urlward.dns.faults import Faults
from urlward.dns.judge import Judge
from urlward.dns.resolved import Newly, Resolved
from urlward.feeds.keeper import Keeper, in_slices
from urlward.gateway.steer_set import SteerSet

logger = logging.getLogger("urlward.gateway")

_AT_ONCE = 250
"""Addresses in one command."""


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
