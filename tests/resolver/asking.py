"""What asks resolvers by ways of one kind, as the server does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from conftest import until
from gateway.dns_support import PATIENT
from resolver.test_forward import NOTHING, Query
from urlward.dns.resolver_addresses import parse_resolver
from urlward.dns.upstream import Forwarder, OutageLog, TcpWay, UdpWay

type Make = Callable[..., "Asker"]


class Asker:
    """A forwarder over some ways."""

    def __init__(self, ways: Sequence[Any], timeout: float) -> None:
        self.ways = ways
        self.forwarder = Forwarder(ways, timeout, OutageLog([way.text for way in ways]))

    async def ask(self, name: str = "plain.example") -> bytes | None:
        query = Query(name)
        assert self.forwarder.ask(query)
        await until(lambda: query.got is not NOTHING, "an answer")
        assert query.got is None or isinstance(query.got, bytes)
        return query.got

    async def ask_many(self, count: int) -> int:
        """How many are answered."""
        answers = await asyncio.gather(*(self.ask(f"n{i}.example") for i in range(count)))
        return sum(answer is not None for answer in answers)


def making(way: type[TcpWay | UdpWay]) -> Any:
    """A fixture that makes askers of the resolvers at some ports of this machine, by such ways."""

    @pytest.fixture
    async def make() -> AsyncIterator[Make]:
        made: list[Asker] = []

        def ask(*ports: int, timeout: float = PATIENT) -> Asker:
            made.append(Asker([way(parse_resolver(f"127.0.0.1:{port}")) for port in ports], timeout))
            return made[-1]

        yield ask
        for asker in made:
            asker.forwarder.close()

    return make
