"""dnstap of the real resolvers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message

from conftest import until
from gateway.dns_support import Upstream
from resolver.dnstap_support import Told
from resolver.hook_support import LIST, Resolver, Zone, resolving
from resolver.test_hooks import ZONE
from urlward.dns.dnstap import DnstapServer


class _Pieces(Zone):
    """Gives what it has of a name, and not of the one that it is an alias for."""

    def __call__(self, query: dns.message.Message) -> bytes | None:
        data = super().__call__(query)
        assert data is not None
        message = dns.message.from_wire(data)
        del message.answer[1:]
        return message.to_wire()


@asynccontextmanager
async def telling(
    kind: str, folder: Path, urlward: Told, zone: Zone | None = None
) -> AsyncIterator[tuple[Resolver, Upstream]]:
    upstream = await Upstream(zone or Zone(ZONE)).start()
    try:
        tap = urlward.path
        async with resolving(kind, folder, urlward.folder, upstream, hook=False, tap=tap) as resolver:
            await until(lambda: urlward.taps.connections, "the resolver's dnstap")
            yield resolver, upstream
    finally:
        upstream.close()


async def test_answers_are_steered_after_they_have_left(kind: str, tmp_path: Path) -> None:
    urlward = Told(tmp_path, LIST)
    await urlward.start()
    try:
        async with telling(kind, tmp_path, urlward) as (resolver, _):
            for name in "plain.example", "blocked.example", "host.sub.blocked.example":
                await resolver.ask(name)
            await resolver.ask("blocked.example", "AAAA")
            await resolver.ask("alias.example")
            await resolver.ask("paged.example")
            wanted = {"203.0.113.1", "2001:db8:1::1", "203.0.113.5", "203.0.113.6"}
            await until(lambda: wanted <= urlward.kernel.told, "the addresses")
            assert "192.0.2.1" not in urlward.kernel.told
            assert urlward.counts["passed"]
            assert not urlward.counts["unread"]
    finally:
        await urlward.stop()


async def test_aliases_that_powerdns_follows_itself(tmp_path: Path) -> None:
    """It tells of what it asks: of the alias, and of the other name where it does not have that yet."""
    urlward = Told(tmp_path, LIST)
    await urlward.start()
    try:
        zone = _Pieces(ZONE)
        async with telling("powerdns", tmp_path, urlward, zone) as (resolver, _):
            await resolver.ask("hosted.example")  # which nobody lists
            del zone.records["hosted.example"]
            assert "203.0.113.5" in str((await resolver.ask("paged.example")).answer), "it had that"
            await until(lambda: "203.0.113.5" in urlward.kernel.told, "the address")
    finally:
        await urlward.stop()


async def test_a_resolver_goes_on_without_urlward_and_tells_again_once_it_is_back(
    kind: str, tmp_path: Path
) -> None:
    urlward = Told(tmp_path, LIST)
    await urlward.start()
    async with telling(kind, tmp_path, urlward) as (resolver, _):
        await resolver.ask("blocked.example")
        await until(lambda: urlward.kernel.told, "the address")
        await urlward.stop()
        urlward.path.unlink()
        assert (await resolver.ask("plain.example")).answer
        await urlward.start()
        try:
            numbers, before = iter(range(10_000)), urlward.counts["passed"]

            async def told() -> bool:
                # Each name once: PowerDNS tells of what it asks, and asks for none again that it has.
                await resolver.ask(f"n{next(numbers)}.example")
                return urlward.counts["passed"] > before

            await until(told, "it to tell again")
            await resolver.ask("host.sub.blocked.example")
            await until(lambda: "203.0.113.6" in urlward.kernel.told, "another address")
        finally:
            await urlward.stop()


async def test_the_first_answer_after_a_worker_was_replaced_is_told(kind: str, tmp_path: Path) -> None:
    """PowerDNS and Knot Resolver find out that a connection has ended by telling one more."""
    urlward = Told(tmp_path, LIST)
    await urlward.start()
    another = DnstapServer(urlward.answers, urlward.aliases, urlward.faults, urlward.count)
    try:
        async with telling(kind, tmp_path, urlward) as (resolver, _):
            await resolver.ask("blocked.example")
            await until(lambda: "203.0.113.1" in urlward.kernel.told, "the address")
            listening, before = urlward.listening.dup(), urlward.taps.connections
            await urlward.taps.end()
            await another.serve(listening)
            await resolver.ask("host.sub.blocked.example")
            await until(lambda: "203.0.113.6" in urlward.kernel.told, "the first answer since")
            assert another.connections >= before
    finally:
        await another.end()
        await urlward.stop()
