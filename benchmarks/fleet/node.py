"""One node: a kernel's sets in a namespace of its own, shared by Valkey as a worker shares them.

Commands come on standard input, one JSON object a line; each is answered by one.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from urlward.config import CanaryTable, DnsTable, FleetTable, GatewayTable
from urlward.engine.digest import Key
from urlward.fleet.connection import FleetConnection
from urlward.fleet.steer_sets import SharedSteerSet
from urlward.gateway import control
from urlward.gateway.nft import Nft
from urlward.gateway.rules import RulesPlan
from urlward.gateway.steer_set import SteerSet

SEAL = Key(b"b" * 32)
SECONDS = 1_200
"""For which an address of an answer is steered, as `max_ttl` has it."""

PATIENT = 1.0
"""Seconds that an answer waits at most here, so that it is seen for how long it would have."""

FIRST = int(IPv4Address("198.18.0.0"))


def kernel(size: int) -> SteerSet:
    """Sets of a fresh namespace."""
    gateway = GatewayTable(
        interfaces=("lan0",), steer=True, max_addresses=size, dns=DnsTable(), canary=CanaryTable(addresses=())
    )
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    os.unshare(os.CLONE_NEWNET)
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        nft = Nft()
        control.up(nft, RulesPlan(gateway, 8080))
        return SteerSet(gateway, nft)
    finally:
        os.setns(before, os.CLONE_NEWNET)
        os.close(before)


def address(number: int) -> str:
    return str(IPv4Address(FIRST + number))


class Node:
    """A node, and what it is told to do."""

    def __init__(self, url: str, name: str, size: int) -> None:
        self.steer_set = kernel(size)
        self.connection = FleetConnection(FleetTable(url=(url,), node=name), SEAL, who=name)
        self.shared = SharedSteerSet(self.connection, self.steer_set, first=True, settle=PATIENT)

    async def join(self) -> dict[str, Any]:
        """Come to the others; returns the seconds until this node may be sent traffic."""
        begun = time.monotonic()
        self.running = [asyncio.ensure_future(one.run()) for one in (self.connection, self.shared)]
        await self.shared.ready.wait()
        seconds = time.monotonic() - begun
        held = len(await self.steer_set.held())
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return {"seconds": seconds, "held": held, "peak": int(status["VmHWM"].split()[0]) << 10}

    async def answer(self, first: int, count: int, rate: float, shares: bool, after: float) -> dict[str, Any]:
        """Steer the two addresses of so many answers, after some seconds; says how long each took, in ms."""
        self.steer_set.share = self.shared.share if shares else lambda *_: None
        taken: list[float] = []

        async def one(number: int) -> None:
            begun = time.perf_counter()
            await self.steer_set.steer([address(number), address(number + 1)], SECONDS)
            taken.append((time.perf_counter() - begun) * 1000)

        loop = asyncio.get_running_loop()
        start, tasks = loop.time() + after, []
        for n in range(count):
            await asyncio.sleep(max(start + n / rate - loop.time(), 0))
            tasks.append(loop.create_task(one(first + 2 * n)))
        await asyncio.gather(*tasks)
        return {"ms": [round(each, 3) for each in taken]}

    async def others(self, count: int) -> dict[str, Any]:
        """Wait until so many others are waited for."""
        while len(self.shared._awaited()) < count:
            await asyncio.sleep(0.05)
        return {}


async def main() -> None:
    url, name, size = sys.argv[1:]
    node = Node(url, name, int(size))
    print("{}", flush=True)
    does: dict[str, Callable[..., Any]] = {"join": node.join, "answer": node.answer, "others": node.others}
    while line := await asyncio.to_thread(sys.stdin.readline):
        said = json.loads(line)
        print(json.dumps(await does[said.pop("do")](**said)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
