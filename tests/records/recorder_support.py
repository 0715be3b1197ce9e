"""A recorder's socket that answers questions, as the recorder does."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from urlward.records.asking import SOCKET


@contextmanager
def answering(state: Path, answer: Callable[[str], bytes]) -> Iterator[None]:
    """Answer on a folder's socket in a thread, until the block ends."""
    ready, ended = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(json.loads(await reader.readline())["ask"]))
        writer.close()

    async def run() -> None:
        server = await asyncio.start_unix_server(serve, state / SOCKET)
        async with server:
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
