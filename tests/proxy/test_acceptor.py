import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from conftest import until
from urlward.proxy import acceptor as module
from urlward.proxy.acceptor import Acceptor


@pytest.mark.parametrize("fails", ["add_reader", "call_later"])
async def test_a_shortage_of_memory_ends_no_accepting(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCEPT_AGAIN", 0.01)
    loop, taken = asyncio.get_running_loop(), list[socket.socket]()
    works, tried = getattr(loop, fails), 0

    def fail_once(*arguments: Any) -> Any:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise MemoryError
        return works(*arguments)

    one = socket.create_server(("127.0.0.1", 0))
    one.setblocking(False)
    acceptor = Acceptor(lambda sock, _: taken.append(sock), one, lambda _: 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(loop, fails, fail_once)
        try:
            acceptor._pause(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        except MemoryError:
            assert fails == "call_later"
        with socket.create_connection(one.getsockname()):
            await until(lambda: taken)
    assert tried >= 1
    acceptor.close()
    taken[0].close()
