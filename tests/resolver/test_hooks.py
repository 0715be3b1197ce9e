"""Hooks in the real resolvers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from conftest import until
from gateway.dns_support import Upstream, keep
from resolver.hook_support import LIST, Resolver, Urlward, Zone, resolving
from rows import each_row
from urlward.dns.hook import HookServer

ZONE = {
    "plain.example": ["3600 A 192.0.2.1"],
    "short.blocked.example": ["1 A 203.0.113.8"],
    "other.example": ["3600 A 192.0.2.2"],
    "later.example": ["3600 A 203.0.113.9"],
    "blocked.example": ["3600 A 203.0.113.1", "3600 AAAA 2001:db8:1::1"],
    "www.paged.example": [
        "3600 A 203.0.113.2",
        '3600 HTTPS 1 . alpn="h2,h3" ipv4hint=203.0.113.3 ech=AAT+DQAA',
    ],
    "wild.co.uk": ["3600 A 203.0.113.4"],
    "alias.example": ["3600 CNAME blocked.example."],
    "paged.example": ["3600 CNAME hosted.example."],
    "hosted.example": ["3600 A 203.0.113.5"],
    "host.sub.blocked.example": ["3600 A 203.0.113.6"],
}
LONG = 30.0
"""Seconds to wait for urlward where it is to be waited for."""


@asynccontextmanager
async def running(
    kind: str,
    folder: Path,
    settle: float = LONG,
    fail: str = "open",
    text: str = LIST,
    zone: Zone | None = None,
    options: dict[str, Any] | None = None,
    **dns_values: Any,
) -> AsyncIterator[tuple[Resolver, Urlward, Upstream]]:
    upstream = await Upstream(zone or Zone(ZONE)).start()
    urlward = Urlward(folder, text, settle, fail, **dns_values)
    await urlward.start()
    try:
        async with resolving(kind, folder, urlward.folder, upstream, **(options or {})) as resolver:
            yield resolver, urlward, upstream
    finally:
        await urlward.stop()
        upstream.close()


def told(answer: dns.message.Message) -> dict[str, list[str]]:
    """Names and what they have, with the longest time, of an answer."""
    return {
        f"{rrset.name.to_text(omit_final_dot=True)} {dns.rdatatype.to_text(rrset.rdtype)}": sorted(
            map(str, rrset)
        )
        for rrset in answer.answer
    }


def longest(answer: dns.message.Message) -> int:
    return max(rrset.ttl for rrset in answer.answer)


async def test_an_answer_leaves_when_its_addresses_are_steered(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as (resolver, urlward, _):
        assert told(await resolver.ask("plain.example")) == {"plain.example A": ["192.0.2.1"]}
        assert urlward.asked == [], "nobody lists it"
        for times in 1, 2, 3:
            # Also when it comes from a cache.
            urlward.kernel.gate = gate = asyncio.Event()
            asking = asyncio.create_task(resolver.ask("BLOCKED.example"))
            await until(lambda times=times: urlward.kernel.waiting == times, "the answer at urlward")  # type: ignore[misc]
            assert not asking.done()
            gate.set()
            answer = await asking
            assert told(answer) == {"blocked.example A": ["203.0.113.1"]} or told(answer) == {
                "BLOCKED.example A": ["203.0.113.1"]
            }
            assert longest(answer) <= 300
            assert urlward.kernel.steered[-1][0] == ["203.0.113.1"]
        assert len(urlward.kernel.steered) == 3

        assert told(await resolver.ask("blocked.example", "AAAA")) == {
            "blocked.example AAAA": ["2001:db8:1::1"]
        }
        assert urlward.kernel.steered[-1][0] == ["2001:db8:1::1"]

        await resolver.ask("wild.co.uk")
        assert urlward.kernel.steered[-1][0] == ["203.0.113.4"]
        await resolver.ask("host.sub.blocked.example")
        assert urlward.kernel.steered[-1][0] == ["203.0.113.6"]

        # What is an alias for a listed name, twice, and what is behind a listed alias.
        for _ in 1, 2:
            urlward.kernel.steered.clear()
            answer = await resolver.ask("alias.example")
            assert "203.0.113.1" in str(told(answer))
            assert urlward.kernel.steered[-1][0] == ["203.0.113.1"]
        for _ in 1, 2:
            urlward.kernel.steered.clear()
            assert told(await resolver.ask("paged.example")) == {"paged.example A": ["203.0.113.5"]}
            assert urlward.kernel.steered[-1][0] == ["203.0.113.5"]

        for _ in 1, 2:
            answer = await resolver.ask("www.paged.example", "HTTPS")
            assert told(answer) == {"www.paged.example HTTPS": ['1 . alpn="h2" ipv4hint="203.0.113.3"']}
            assert urlward.kernel.steered[-1][0] == ["203.0.113.3"]
        assert urlward.late == 0


async def test_signs_of_zone_files_in_names(kind: str, tmp_path: Path) -> None:
    """The servers of a listed name have it lead to what they like."""
    alias = 'a\\(b\\;c\\"d.plain.example'
    zone = Zone({"odd.blocked.example": [f"60 CNAME {alias}."], alias: ["60 A 203.0.113.77"]})
    async with running(kind, tmp_path, zone=zone) as (resolver, urlward, _):
        for _ in 1, 2:
            urlward.kernel.steered.clear()
            answer = await resolver.ask("odd.blocked.example")
            assert "203.0.113.77" in str(told(answer))
            assert urlward.kernel.steered[-1][0] == ["203.0.113.77"]


class _Large(Zone):
    """Gives so many addresses that none but TCP takes them."""

    def __init__(self, count: int) -> None:
        super().__init__({})
        self._count, self._asked = count, set[str]()

    def __call__(self, query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query, recursion_available=True)
        name = query.question[0].name
        if query.question[0].rdtype == dns.rdatatype.A:
            if name.to_text().lower() not in self._asked:
                self._asked.add(name.to_text().lower())
                response.flags |= dns.flags.TC
                return response.to_wire()
            texts = [f"198.18.{n >> 8}.{n & 255}" for n in range(self._count)]
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *texts))
        return response.to_wire(max_size=65535)


async def test_an_answer_too_large_to_be_handed_over_does_not_go(kind: str, tmp_path: Path) -> None:
    """The server of a listed name had all its addresses told, none steered, by giving two thousand."""
    async with running(kind, tmp_path, zone=_Large(1900)) as (resolver, urlward, _):
        for _ in 1, 2:
            answer = await resolver.ask("a-name-that-is-not-short.blocked.example", tcp=True)
            assert (answer.rcode(), told(answer)) == (dns.rcode.SERVFAIL, {})
        assert urlward.kernel.steered == []
        assert len((await resolver.ask("many.plain.example", tcp=True)).answer[0]) == 1900


@pytest.mark.parametrize("kind", ["knot"], indirect=True)
async def test_what_does_not_fit_over_udp_is_asked_for_over_tcp(kind: str, tmp_path: Path) -> None:
    """Nothing in it is compressed, so a host with a listed page could not be had by clients without EDNS."""
    async with running(kind, tmp_path, zone=_Large(20)) as (resolver, urlward, _):
        await resolver.ask("www.paged.example", tcp=True)
        answer = await resolver.ask("www.paged.example", use_edns=False)
        assert (answer.rcode(), bool(answer.flags & dns.flags.TC), told(answer)) == (0, True, {})
        assert len((await resolver.ask("www.paged.example", use_edns=False, tcp=True)).answer[0]) == 20
        assert len(urlward.kernel.steered[-1][0]) == 20


async def test_what_is_refused(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path, listed_hosts="nxdomain") as (resolver, urlward, _):
        clients: list[str] = []
        urlward.policy.record = lambda _verdict, _host, client, _port, _reference: clients.append(client)
        for _ in 1, 2, 3:
            for name in "blocked.example", "alias.example":
                answer = await resolver.ask(name)
                assert (answer.rcode(), told(answer)) == (dns.rcode.NXDOMAIN, {}), name
        assert urlward.kernel.steered == []
        assert clients == ["127.0.0.1"] * 6, "what comes from the cache has a client, too"
        hosts = [f"127.0.0.{n}" for n in range(1, 5)]
        await asyncio.gather(*(resolver.ask("www.blocked.example", source=host) for host in hosts))
        assert set(clients) == set(hosts), "each that asks at a time"
        assert told(await resolver.ask("www.paged.example")) == {"www.paged.example A": ["203.0.113.2"]}


async def test_the_block_page(kind: str, tmp_path: Path) -> None:
    pages = ("198.51.100.1",)
    async with running(kind, tmp_path, listed_hosts="page", page_addresses=pages) as (resolver, urlward, _):
        for _ in 1, 2:
            assert told(await resolver.ask("blocked.example")) == {"blocked.example A": ["198.51.100.1"]}
            assert not (await resolver.ask("blocked.example", "AAAA")).answer
        assert urlward.kernel.addresses == {"198.51.100.1"}


@each_row("fail", ["open", "closed"])
async def test_without_urlward(kind: str, fail: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path, settle=0.02, fail=fail) as (resolver, urlward, _):

        async def ask(name: str = "blocked.example") -> bool:
            """Whether there is an answer, which nothing has been waited for."""
            answer = await resolver.ask(name)
            assert answer.rcode() == (dns.rcode.NOERROR if answer.answer else dns.rcode.SERVFAIL)
            return bool(answer.answer)

        await until(ask)
        # It hangs.
        urlward.kernel.gate = asyncio.Event()
        for name in ["blocked.example", "www.paged.example"] * 3:
            assert await ask(name) == (fail == "open"), name
        assert await ask("plain.example")
        await until(lambda: urlward.kernel.waiting, "the answer at urlward")
        urlward.kernel.gate.set()
        urlward.kernel.gate = None
        await until(lambda: urlward.late, "a late reply")
        await until(ask)
        # It is gone, and comes back.
        await urlward.stop()
        for name in ["blocked.example", "www.paged.example"] * 3:
            assert await ask(name) == (fail == "open"), name
        assert await ask("plain.example")
        (urlward.folder / "socket").unlink()
        await urlward.start()
        urlward.asked.clear()

        async def again() -> bool:
            return await ask() and "blocked.example" in urlward.asked

        await until(again)


async def test_another_filter(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path) as (resolver, urlward, _):
        for _ in 1, 2:
            await resolver.ask("later.example")
        assert urlward.asked == []

        async def handed_over(name: str) -> bool:
            urlward.asked.clear()
            await resolver.ask(name)
            return name in urlward.asked

        # Damaged, which leaves the one before in force.
        path = urlward.folder / "filter"
        good = path.read_bytes()
        path.write_bytes(good[:20] + bytes([good[20] ^ 1]) + good[21:])

        async def noticed() -> bool:
            assert await handed_over("blocked.example")
            assert not await handed_over("plain.example")
            return "the one before holds" in resolver.log.read_text()

        await until(noticed)
        urlward.keeper = keep(tmp_path, LIST + "later.example\n")
        urlward.write()

        async def taken() -> bool:
            return await handed_over("later.example")

        await until(taken)
        assert "203.0.113.9" in urlward.kernel.addresses
        # It is the hook's own from here on, and what is not listed any more is not handed over.
        urlward.keeper = keep(tmp_path, "other.example\n")
        urlward.write()

        async def gone() -> bool:
            return not await handed_over("blocked.example") and await handed_over("other.example")

        await until(gone)


async def test_no_filter(kind: str, tmp_path: Path) -> None:
    upstream = await Upstream(Zone(ZONE)).start()
    urlward = Urlward(tmp_path, LIST, LONG, "open")
    (urlward.folder / "filter").unlink()
    await urlward.start()
    try:
        async with resolving(kind, tmp_path, urlward.folder, upstream) as resolver:
            # Slow, and nothing passes that is listed.
            for name in "plain.example", "blocked.example":
                await resolver.ask(name)
            assert {"plain.example", "blocked.example"} <= set(urlward.asked)
            assert urlward.kernel.addresses == {"203.0.113.1"}
    finally:
        await urlward.stop()
        upstream.close()


DNS64 = {
    "unbound": {"modules": "python dns64 iterator", "more": "    dns64-prefix: 64:ff9b::/96"},
    "powerdns": {"more": "  dns64_prefix: 64:ff9b::/96"},
    "knot": {"more": "modules.load('dns64')\ndns64.config('64:ff9b::')"},
}


async def test_dns64(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path, options=DNS64[kind]) as (resolver, urlward, _):
        for _ in 1, 2:
            urlward.kernel.steered.clear()
            answer = await resolver.ask("wild.co.uk", "AAAA")
            assert told(answer) == {"wild.co.uk AAAA": ["64:ff9b::cb00:7104"]}
            assert "64:ff9b::cb00:7104" in urlward.kernel.addresses
        assert (await resolver.ask("plain.example", "AAAA")).answer


@each_row(
    ("wait", "fails"),
    [(0, False), (20, False), (1_800, True)],
    ids=["at once", "after a while", "for a failure"],
)
async def test_expired_answers_of_unbound(wait: int, fails: bool, tmp_path: Path) -> None:
    more = f"    serve-expired: yes\n    serve-expired-client-timeout: {wait}\n    prefetch: yes"
    name, zone, options = "short.blocked.example", Zone(ZONE), {"more": more}
    async with running("unbound", tmp_path, zone=zone, options=options) as (resolver, urlward, upstream):
        assert told(await resolver.ask(name))
        zone.silent, zone.fails = not fails, fails

        async def expired() -> bool:
            urlward.kernel.steered.clear()
            assert told(await resolver.ask(name)) == {f"{name} A": ["203.0.113.8"]}
            assert urlward.kernel.addresses == {"203.0.113.8"}
            return upstream.asked.count(name) > 1

        await until(expired)
        await expired()
        # And one that must not leave does not.
        urlward.policy._listed_hosts = "nxdomain"
        assert not (await resolver.ask(name)).answer


async def test_what_unbound_fetches_ahead(tmp_path: Path) -> None:
    """It is in the cache as clients may have it, too."""
    more = "    serve-expired: yes\n    serve-expired-client-timeout: 0\n    prefetch: yes"
    name, zone, options = "short.blocked.example", Zone(ZONE), {"more": more}
    async with running("unbound", tmp_path, zone=zone, options=options) as (resolver, _, _):
        await resolver.ask(name)
        zone.records[name] = ["3600 A 203.0.113.9"]

        async def ahead() -> bool:
            return "203.0.113.9" in str(told(await resolver.ask(name)))

        await until(ahead)
        zone.silent = True  # so that it is had from the cache, however often it was asked for before
        answer = await resolver.ask(name)
        assert told(answer) == {f"{name} A": ["203.0.113.9"]}
        assert longest(answer) <= 300


async def test_a_name_that_is_listed_since_unbound_has_it(tmp_path: Path) -> None:
    async with running("unbound", tmp_path) as (resolver, urlward, _):
        assert longest(await resolver.ask("later.example")) > 300
        urlward.keeper = keep(tmp_path, LIST + "later.example\n")
        urlward.write()

        async def handed_over() -> bool:
            await resolver.ask("later.example")
            return "later.example" in urlward.asked

        await until(handed_over)
        assert "203.0.113.9" in urlward.kernel.addresses
        assert longest(await resolver.ask("later.example")) <= 300


async def test_unbound_with_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has one connection, and hands an answer over once."""
    opened: list[object] = []
    monkeypatch.setattr(HookServer, "opened", lambda _, hook: opened.append(hook))
    async with running("unbound", tmp_path, options={"more": "    num-threads: 4"}) as (resolver, urlward, _):
        names = [f"{n}.blocked.example" for n in range(40)]
        for name in names:
            await resolver.ask(name)
        assert urlward.asked == names
        assert 1 <= len(opened) <= 4


async def test_an_answer_too_long_to_be_handed_over_does_not_go(kind: str, tmp_path: Path) -> None:
    """Whoever runs a listed name can have it so long."""
    zone = Zone(
        {"large.blocked.example": [f"60 AAAA 2001:db8:ffff:ffff:ffff:ffff:ffff:{n:x}" for n in range(1_400)]}
    )
    options = {"more": "    tcp-upstream: yes"} if kind == "unbound" else {}
    async with running(kind, tmp_path, zone=zone, options=options) as (resolver, _, upstream):
        for _ in 1, 2:
            answer = await resolver.ask("large.blocked.example", "AAAA", tcp=True)
            assert (answer.rcode(), told(answer)) == (dns.rcode.SERVFAIL, {})
        assert upstream.connections, "it was there whole"
