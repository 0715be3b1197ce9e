"""The place where objections are taken, as the process that records serves it."""

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from conftest import free_port
from urlward.config import ObjectionsTable, PageTable
from urlward.objections.server import ObjectionDesk, serve_objections
from urlward.state.folder import local_key

if TYPE_CHECKING:
    from urlward.objections.objections import Objection

OPERATOR = "Example Net"


class Desks:
    """The server, in a thread of its own."""

    def __init__(self, state: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.key = local_key(state)
        self.taken: list[Objection] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(state), self._loop).result(60)

    async def _serve(self, state: Path) -> None:
        table = ObjectionsTable(url=self.url, listen=f"127.0.0.1:{self.port}", per_hour=20)
        page = PageTable(operator=OPERATOR)
        desk = ObjectionDesk(table, page, state, self.key, conceal=lambda a, _: a, taken=self.taken.append)
        self._server = serve_objections(desk, table)

    async def _end(self) -> None:
        assert self._server is not None
        self._server.stop()
        await self._server.close_all_connections()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
