"""SIGTERM: what is under way ends first."""

import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.support import (
    ENDS_WITHIN,
    Authority,
    Filter,
    RawOrigin,
    connect,
    read_response,
    read_to_end,
    running,
    socks,
)
from e2e.test_http2 import encrypted, http2
from urlward.proxy.runner import DRAIN_WITHIN

REQUEST = b"GET /slow HTTP/1.1\r\nHost: plain.example\r\n\r\n"


def wait_for_workers(proxy: Filter) -> None:
    """Until all serve: one that is told to end as it starts takes its time over that."""
    wait_for(lambda: proxy.log().count("listening on") == 2, "both workers")


def wait_for_end(proxy: Filter) -> None:
    """Until it has ended by itself, before it would have with what is under way."""
    wait_for(lambda: proxy.process.poll() is not None, "the end", DRAIN_WITHIN - 2)
    assert proxy.process.poll() == 0


def test_a_response_under_way_arrives_whole(tmp_path: Path) -> None:
    go_on = threading.Event()

    def answer(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
            if request.startswith(b"GET /slow "):
                go_on.wait(60)
            connection.sendall(b"origin")

    with (
        RawOrigin(answer) as raw,
        running(tmp_path, "--workers", "2", modes=[f"reverse:http://127.0.0.1:{raw.port}"]) as proxy,
        connect(proxy.port) as busy,
        connect(proxy.port) as at_rest,
    ):
        wait_for_workers(proxy)
        at_rest.sendall(REQUEST.replace(b"slow", b"quick"))
        assert read_response(at_rest).body == b"origin"
        busy.sendall(REQUEST)
        assert busy.recv(12) == b"HTTP/1.1 200"
        proxy.process.send_signal(signal.SIGTERM)
        assert read_to_end(at_rest) == b"", "at rest, and so closed at once"
        wait_for(lambda: refused(proxy.port), "the listening socket to close")
        wait_for(lambda: "ending with the 1 connections" in proxy.log(), "the word on the other")
        go_on.set()
        assert read_to_end(busy).endswith(b"\r\n\r\norigin")
        assert proxy.process.wait(ENDS_WITHIN) == 0
        assert "Warning" not in proxy.log()


def refused(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    def endless(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6000000\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    with (
        RawOrigin(endless) as raw,
        running(tmp_path, "--workers", "2", modes=["socks5"]) as proxy,
        socks(proxy.port, "127.0.0.1", raw.port) as s,
    ):
        wait_for_workers(proxy)
        s.sendall(REQUEST)
        assert s.recv(12) == b"HTTP/1.1 200"
        proxy.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            proxy.process.wait(1)
        proxy.process.send_signal(signal.SIGTERM)
        wait_for_end(proxy)


LOOKS_LATER = "from urlward.proxy import runner; runner.DRAIN_LOOK *= 2"


def test_a_tunnel_that_is_used_goes_on(tmp_path: Path) -> None:
    def talkative(connection: socket.socket) -> None:
        connection.recv(65536)
        for _ in range(25):
            connection.sendall(b"x" * 1000)
            time.sleep(0.1)

    with (
        RawOrigin(talkative) as raw,
        # The origin's thread may have to wait for its turn, and silence tells the end.
        running(tmp_path, "--other", "relay", modes=["socks5"], before=LOOKS_LATER) as proxy,
        socks(proxy.port, "127.0.0.1", raw.port) as s,
    ):
        s.sendall(b"SSH-2.0-x\r\n")
        assert s.recv(1) == b"x"
        proxy.process.send_signal(signal.SIGTERM)
        assert len(read_to_end(s)) == 24_999


def test_a_client_that_reads_slowly_gets_all(tmp_path: Path) -> None:
    size = 20_000_000

    def quick(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    with (
        RawOrigin(quick) as raw,
        running(tmp_path, modes=["socks5"]) as proxy,
        socks(proxy.port, "127.0.0.1", raw.port) as s,
    ):
        s.sendall(REQUEST)
        assert s.recv(1) == b"H"
        proxy.process.send_signal(signal.SIGTERM)
        time.sleep(2)
        assert read_to_end(s).count(b"x") == size


def test_a_silent_tunnel_is_not_waited_for(tmp_path: Path) -> None:
    def silent(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with (
        RawOrigin(silent) as raw,
        running(tmp_path, "--other", "relay", modes=["socks5"]) as proxy,
        socks(proxy.port, "127.0.0.1", raw.port) as s,
    ):
        s.sendall(b"SSH-2.0-x\r\n")
        wait_for(lambda: bytes(raw.received), "the tunnel")
        proxy.process.send_signal(signal.SIGTERM)
        wait_for_end(proxy)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR2])
def test_streams_end_in_order_behind_goaway(
    tmp_path: Path, authority: Authority, how: signal.Signals
) -> None:
    """Of the filter, and of workers that others replace."""
    trust = f"ssl_verify_upstream_trusted_ca={authority.certificate}"
    go_on = threading.Event()

    def answer(s: ssl.SSLSocket) -> None:
        s.recv(65536)
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        go_on.wait(60)
        s.sendall(b"origin")

    with (
        RawOrigin(encrypted(authority, answer)) as raw,
        running(tmp_path, "--set", trust, "--workers", "2") as proxy,
        http2(proxy, authority, raw.port) as client,
        http2(proxy, authority, raw.port) as at_rest,
    ):
        at_rest.until_ended(at_rest.start("paged.example", "/listed.html"))
        stream = client.start("paged.example", "/slow")
        while stream not in client.status:
            client.receive()
        for each in (client, at_rest):
            each.socket.settimeout(60)  # other workers are started first
        proxy.process.send_signal(how)
        while at_rest.goaway is None:
            at_rest.receive()
        while len(client.lasts) < 2:
            client.receive()
        assert client.lasts == [2**31 - 1, stream], "first that it ends, then what it takes"
        late = client.start("paged.example", "/late")
        client.until_ended(late)
        assert (client.ended[late], stream in client.body) == ("reset", False)
        go_on.set()
        client.until_ended(stream)
        assert (client.goaway, client.body[stream]) == (0, b"origin")
        client.until_closed()
        if how == signal.SIGTERM:
            assert proxy.process.wait(ENDS_WITHIN) == 0
        else:
            with http2(proxy, authority, raw.port) as other:
                other.until_ended(other.start("paged.example", "/listed.html"))
                assert list(other.status.values()) == [451]
