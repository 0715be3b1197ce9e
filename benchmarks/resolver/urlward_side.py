"""Urlward's side of a hook and of dnstap, as a process: lists, the sockets, and a kernel that takes all at
once."""

import asyncio
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from urlward.config import GatewayTable
from urlward.dns import hook_filter
from urlward.dns.dnstap import DnstapServer
from urlward.dns.handling import Answers
from urlward.dns.hook import HookServer
from urlward.dns.judge import Faults, Judge
from urlward.dns.policy import DnsPolicy
from urlward.dns.resolved import Aliases, Resolved
from urlward.engine.digest import Key
from urlward.engine.steps import exhaust
from urlward.feeds.keeper import Keeper
from urlward.plan import Address
from urlward.proxy.listeners import open_sockets


class _Kernel:
    async def steer(self, addresses: Iterable[str], seconds: int) -> int:  # noqa: ARG002
        return len(list(addresses))

    async def follow(self, addresses: Iterable[str], seconds: int) -> None:
        pass

    async def prove(self, addresses: Iterable[IPv4Address | IPv6Address], seconds: int) -> None:
        pass


async def main(folder: Path) -> None:
    keeper = Keeper([folder / "list.txt"], Key(bytes(32)))
    keeper.load()
    faults, gateway = Faults(), GatewayTable()
    judge = Judge(lambda: keeper.matcher, faults)
    policy = DnsPolicy(gateway, _Kernel(), judge, lambda: keeper.matcher)
    hook = folder / "hook"
    hook.mkdir(exist_ok=True)
    settle = gateway.hook.seconds
    data = exhaust(hook_filter.content(keeper.matcher, policy.own_names, settle, closed=False))
    hook_filter.write(hook, data)
    late = 0

    def count() -> None:
        nonlocal late
        late += 1

    answers = Answers(judge, policy, Resolved(100_000), faults)
    aliases = Aliases(100_000, lambda host: bool(judge.find((host,))))
    for name, server in (
        ("socket", HookServer(answers, faults, settle, count)),
        ("dnstap", DnstapServer(answers, aliases, faults)),
    ):
        for one in open_sockets(Address(str(hook / name), 0, "unix")):
            await server.serve(one)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(late, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
