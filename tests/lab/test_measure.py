import socket
import threading
from contextlib import suppress

import pytest

from urlward.lab import measure
from urlward.lab.isolation import WRK, find

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Slow:
    """A server that leaves the first request without an answer, as a busy machine does for a while."""

    def __init__(self, listening: socket.socket) -> None:
        self.requests = 0
        self._counting = threading.Lock()
        self._listening = listening
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        with one, suppress(OSError):
            while one.recv(1 << 16):
                with self._counting:
                    self.requests += 1
                    first = self.requests == 1
                if not first:
                    one.sendall(ANSWER)


@pytest.mark.skipif(find(WRK.name) is None, reason="needs wrk")
def test_a_time_without_an_answer_is_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "inside", lambda _, command: command)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Slow(listening)
        rate, failed = measure._wrk("anywhere", f"http://127.0.0.1:{listening.getsockname()[1]}/", 0.5, 1)
    assert rate > 0
    assert failed == 0
    assert server.requests > 1
