"""Slow resolver: forwards each query after a delay, over UDP and TCP."""

import asyncio
import sys
from typing import Any

BEHIND = ("127.0.0.1", 5300)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(data, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, address: Any) -> None:
        await asyncio.sleep(self._seconds)
        self._transport.sendto(await _ask(data), address)


async def _ask(query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*BEHIND)
    try:
        writer.write(len(query).to_bytes(2) + query)
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.close()


async def serve(seconds: float, addresses: list[str]) -> None:
    """Answer queries on port 53 of each address."""

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                await asyncio.sleep(seconds)
                answer = await _ask(query)
                writer.write(len(answer).to_bytes(2) + answer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    loop = asyncio.get_running_loop()
    for address in addresses:
        await loop.create_datagram_endpoint(lambda: _Udp(seconds), local_addr=(address, 53))
        await asyncio.start_server(tcp, address, 53)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), sys.argv[2:]))
