"""Pictures and streams that look like listed ones, through a whole filter."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import wait_for
from e2e.support import Filter, RawOrigin, children_of, command_of, connect, has_ended, running
from files.pictures import picture, video, written
from urlward.engine.errors import UrlwardError
from urlward.files.pdq import digests_of
from urlward.files.seen import DIGEST
from urlward.records.asking import ask

SMALL = (320, 240)


def _listed() -> str:
    digest = digests_of(np.asarray(picture(5, SMALL)))[0][:DIGEST].hex()
    return f"pdq:{digest}  id=known-5  category=pictures\n"


class Origin:
    """An origin that serves files, and streams that have no end."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.streams: dict[str, bytes] = {}
        self.ended = threading.Event()
        """That a stream's connection has been closed by the filter."""

    def serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while line := stream.readline():
            path = line.split()[1].decode()
            while stream.readline().strip():
                pass
            if path in self.streams:
                self._stream(connection, self.streams[path])
                return
            body = self.files.get(path, b"")
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )

    def _stream(self, connection: socket.socket, begins: bytes) -> None:
        """Send a video, and then go on with what says nothing, until nobody listens."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
        nothing = (b"\x47\x1f\xff\x10" + bytes(184)) * 100
        try:
            connection.sendall(begins)
            while not self.ended.wait(0.02):
                connection.sendall(nothing)
        except OSError:
            self.ended.set()


@pytest.fixture
def origin() -> Iterator[tuple[Origin, RawOrigin]]:
    made = Origin()
    with RawOrigin(made.serve) as raw:
        yield made, raw
        made.ended.set()


def _configured(folder: Path, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "urlward.toml"
    file.write_text(
        f'state = "{folder}/state"\n[records]\n[records.days]\nblocks = 1\noperations = 1\n'
        f'[files]\npictures = "cut"\ndeadline = "60s"\n{more}'
    )
    return file


def inspectors(proxy: Filter) -> list[int]:
    children = children_of(proxy.process.pid)
    return [each for each in children if "urlward.files.inspector" in command_of(each)]


def connected(inspector: int) -> int:
    """How many workers are connected to an inspector: what comes to another is not looked at."""
    held = {os.path.realpath(fd).rpartition("/")[2] for fd in Path(f"/proc/{inspector}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    # What is accepted has the address of the socket that listens, and state 3 (unix(7), SS_CONNECTED).
    return sum(len(row) > 7 and row[5] == "03" and f"socket:[{row[6]}]" in held for row in rows)


def is_served(inspector: int) -> bool:
    """Whether its sandbox waits for something to look at: until then what comes waits, not for ever."""
    sandboxes = children_of(inspector)
    try:
        calls = [Path(f"/proc/{each}/syscall").read_text().split()[0] for each in sandboxes]
    except PermissionError:
        return True  # where nobody may look, the deadline has to do
    except OSError:
        return False
    # `recvmsg`, on x86-64 and on ARM: it is called for a job alone (proc(5)).
    return bool(calls) and all(each in ("47", "212") for each in calls)


def _asks(proxy: Filter, raw: RawOrigin) -> Callable[[str], bytes]:
    def ask(path: str) -> bytes:
        """All that comes of a response, until it is whole or cut."""
        with connect(proxy.port) as connection:
            connection.sendall(
                f"GET http://pictures.example:{raw.port}{path} HTTP/1.1\r\n"
                f"Host: pictures.example:{raw.port}\r\nConnection: close\r\n\r\n".encode()
            )
            found = b""
            try:
                while data := connection.recv(1 << 16):
                    found += data
            except ConnectionResetError:
                pass
            return found

    return ask


def test_a_picture_that_looks_like_a_listed_one_does_not_arrive(
    tmp_path: Path, origin: tuple[Origin, RawOrigin]
) -> None:
    made, raw = origin
    known, other = written(picture(5, (800, 600)), quality=70), written(picture(6, (800, 600)))
    made.files = {"/known.jpg": known, "/other.jpg": other}
    file = _configured(tmp_path)
    with running(tmp_path, "--config", str(file), "--workers", "2", text=_listed()) as proxy:
        wait_for(lambda: "pictures are compared with 1 digest" in proxy.log(), "the inspector")
        wait_for(lambda: connected(*inspectors(proxy)) == 2, "both workers to reach it")
        wait_for(lambda: is_served(*inspectors(proxy)), "its sandbox")
        ask = _asks(proxy, raw)
        assert ask("/other.jpg").endswith(other)
        assert known not in ask("/known.jpg")
        assert ask("/other.jpg").endswith(other)
        # Its URL is learned, so that the next request gets the block page.
        wait_for(lambda: ask("/known.jpg").startswith(b"HTTP/1.1 451"), "the URL to be blocked")
        assert ask("/other.jpg").endswith(other)


def test_a_stream_that_has_no_end_is_cut_where_it_shows_a_listed_picture(
    tmp_path: Path, origin: tuple[Origin, RawOrigin]
) -> None:
    made, raw = origin
    shown = [picture(n, SMALL) for n in range(3, 9)]
    made.streams = {"/live": video(shown, "mpegts", "mpeg2video")}
    file = str(_configured(tmp_path))
    with running(tmp_path, "--config", file, "--workers", "1", text=_listed()) as proxy:
        wait_for(lambda: "pictures are compared with 1 digest" in proxy.log(), "the inspector")
        wait_for(lambda: is_served(*inspectors(proxy)), "its sandbox")
        _asks(proxy, raw)("/live")
        # Its end has come by the filter: the client has waited for more.
        wait_for(made.ended.is_set, "the end of the origin's stream")
        wait_for(lambda: "known files: 1 learned" in proxy.log(), "its URL to be learned")


def test_pictures_that_cannot_be_looked_at_are_an_alarm_until_they_can(tmp_path: Path) -> None:
    file = _configured(tmp_path, 'classifier = "json:score"\n')

    def status() -> dict[str, Any]:
        try:
            return ask(tmp_path / "state", "status")
        except UrlwardError:
            return {"alarms": {"pictures": "nobody says yet"}}

    with running(tmp_path, "--config", str(file), text=_listed()) as proxy:
        wait_for(lambda: "json:score" in status()["alarms"].get("pictures", ""), "the alarm")
        assert status()["ready"]["ok"], "all else filters"
        _configured(tmp_path)
        proxy.process.send_signal(signal.SIGUSR2)
        # Who has told of it is replaced as well, before or after it hears of the end.
        wait_for(lambda: "reload: done" in proxy.log(), "the reload")
        wait_for(
            lambda: "pictures are compared with 1 digest" in proxy.log(), "an inspector that looks at them"
        )
        wait_for(lambda: "pictures" not in status()["alarms"], "its end")


def test_a_reload_replaces_the_inspector_and_an_end_leaves_nothing(
    tmp_path: Path, origin: tuple[Origin, RawOrigin]
) -> None:
    made, raw = origin
    made.files = {"/known.jpg": written(picture(5, (800, 600)))}
    file = str(_configured(tmp_path))
    with running(tmp_path, "--config", file, "--workers", "1", text=_listed()) as proxy:
        wait_for(lambda: proxy.log().count("pictures are compared with 1 digest") == 1, "the inspector")
        [before] = inspectors(proxy)
        wait_for(lambda: len(children_of(before)) == 1, "its sandbox")
        sandboxes = children_of(before)
        proxy.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: "reload: done" in proxy.log(), "the reload")
        wait_for(lambda: proxy.log().count("pictures are compared with 1 digest") >= 2, "another inspector")
        wait_for(lambda: all(map(has_ended, (before, *sandboxes))), "the end of the one before")
        [after] = inspectors(proxy)
        assert after != before
        wait_for(lambda: is_served(after), "its sandbox")
        assert made.files["/known.jpg"] not in _asks(proxy, raw)("/known.jpg")
        proxy.stop()
        wait_for(lambda: has_ended(after), "the inspector's end")
