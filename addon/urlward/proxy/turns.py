"""Turns between client networks, where mitmproxy carries their connections.

mitmproxy handles what is read of a connection as it comes, in a millisecond or so, and so what is read of a
thousand before what comes behind that. Here each network has one thing handled in a round of the event loop:
a connection begun, something read, or an answer of the filter's own sent. What else there is waits, and no
more is read of its connections than their buffers hold.
"""

import asyncio
from collections import deque
from typing import Any

from urlward.proxy.mitm import ConnectionHandler
from urlward.proxy.names import Client
from urlward.records.privacy import network_of

_ALONE = 16
"""Turns in a round of a network that is the only one: a round in itself costs a tenth of a request."""


class Turns:
    """Gives client networks turns: one of each in a round, several of one that is alone."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By networks that have had their turn in this round."""

    async def wait(self, client: Client) -> None:
        """Wait for a turn of a client's network: for none where it has not had one in this round."""
        loop, network = asyncio.get_running_loop(), network_of(client.peername[0])
        waiting = self._waiting.get(network)
        if waiting is not None:
            turn = loop.create_future()
            waiting.append(turn)
            await turn
            return
        if not self._waiting:
            loop.call_soon(self._next_round)
        self._waiting[network] = deque()

    def _next_round(self) -> None:
        turns = _ALONE if len(self._waiting) == 1 else 1
        for network, waiting in list(self._waiting.items()):
            given = 0
            while waiting and given < turns:
                turn = waiting.popleft()
                if not turn.done():  # else its connection has been closed meanwhile
                    turn.set_result(None)
                    given += 1
            if not given:
                del self._waiting[network]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next_round)


class InTurn:
    """Reader of a connection, each of whose reads waits for a turn.

    Args:
        reader: mitmproxy's.
        turns: gives them.
        client: whose turns they are.
    """

    def __init__(self, reader: Any, turns: Turns, client: Client) -> None:
        self._reader = reader
        self._turns = turns
        self._client = client

    async def read(self, size: int) -> bytes:
        """Read, and wait for a turn; the end comes in one as well."""
        data: bytes = await self._reader.read(size)
        await self._turns.wait(self._client)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def take_turns(handler: ConnectionHandler, connection: Any, turns: Turns) -> None:
    """Have what is read of a connection, a client's or an origin's, wait for the client's turns."""
    io = handler.transports.get(connection)
    if io is not None and io.reader is not None:
        io.reader = InTurn(io.reader, turns, handler.client)  # type: ignore[assignment]
