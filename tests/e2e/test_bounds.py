"""What a client may make the filter hold: not more than a head's worth."""

import socket
import time
from pathlib import Path

import pytest

from e2e.support import RawOrigin, connect, get, running

ENDLESS = {
    "trailers": (b"0\r\n", b"X: " + b"a" * 1000 + b"\r\n"),
    "a chunk extension": (b"1;", b"a" * 1000),
    "a chunk size": (b"", b"0" * 1000),
}


def flood(s: socket.socket, data: bytes) -> None:
    """Send until the connection is closed on us."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        s.sendall(data)


@pytest.mark.parametrize("name", ENDLESS)
def test_an_upload_cannot_grow_without_end(tmp_path: Path, raw: RawOrigin, name: str) -> None:
    first, more = ENDLESS[name]
    with running(tmp_path, modes=[f"reverse:http://127.0.0.1:{raw.port}"]) as proxy:
        before = proxy.memory()
        with connect(proxy.port) as s:
            s.sendall(b"PUT /up HTTP/1.1\r\nHost: fine.example\r\nTransfer-Encoding: chunked\r\n\r\n" + first)
            with pytest.raises(OSError):
                flood(s, more)
        assert proxy.memory() - before < 16 << 20
        assert get(proxy.port, "http://blocked.example/").status == 451
