"""Heartbeat without steering: the rules redirect only while a filter shows that it lives."""

import asyncio
from functools import partial

from mitmproxy import ctx
from mitmproxy.proxy import mode_specs

from urlward.config import GatewayTable
from urlward.dns.faults import Faults
from urlward.gateway.canary import canary_of
from urlward.gateway.errors import NoTableError
from urlward.gateway.steer_set import SteerSet
from urlward.lasting import lasting

BEAT = 0.5
"""Seconds between two signs of life."""


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

    def check(self, port: int) -> None:
        """See whether the kernel's rules lead to this filter.

        Args:
            port: of the transparent proxy.

        Raises:
            GatewayError: they do not, or there are none.
        """
        self._steer_set.check(port, 0)

    def running(self) -> None:
        """Start the heartbeat."""
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

    async def _live(self) -> None:
        while True:
            if _listens():
                try:
                    await self._steer_set.beat()
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
