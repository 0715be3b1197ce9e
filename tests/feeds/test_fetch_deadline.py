import socket
import threading
import time
from pathlib import Path

import pytest

from e2e.support import RawOrigin
from feeds.fetch_support import PATH_KEY, answering, drip, head, know_no_names, refusal
from rows import each_row
from urlward.config import Config, FeedTable, GatewayTable
from urlward.engine.nat64 import Nat64
from urlward.engine.scope import Scope, scope
from urlward.feeds import fetch
from urlward.feeds.feed import Feed
from urlward.feeds.fetch import Deadline, connect, resolve
from urlward.feeds.source import FeedOrigin, FetchError, origin

SHORT = 0.25


def refused_for_time(url: str, **more: float) -> None:
    error = refusal(FeedOrigin(url, **{"timeout": SHORT, "connect_timeout": 5.0, **more}))
    assert error.reason == "timeout", error


class TestExchange:
    @each_row(
        ("start", "piece"),
        [
            (b"", b"H"),
            (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
            (b"HTTP/1.1 404 Not Found\r\n", b"X: y\r\n"),
            (b"HTTP/1.1 ", b"100 Continue\r\n\r\nHTTP/1.1 "),
            (head(Content_Length=1 << 20), b"x"),
            (head(), b"x"),
            (head(Transfer_Encoding="chunked"), b"1\r\nx\r\n"),
            (head(Transfer_Encoding="chunked") + b"1", b"0"),
            (head(Transfer_Encoding="chunked") + b"0\r\n", b"X: y\r\n"),
        ],
    )
    def test_in_drops(self, start: bytes, piece: bytes) -> None:
        with answering(start, then=drip(piece)) as url:
            refused_for_time(url)

    @pytest.mark.parametrize("start", [b"", head(Content_Length=9) + b"a.test\n"])
    def test_that_stops(self, start: bytes) -> None:
        with answering(start, then=lambda connection: connection.recv(1)) as url:
            refused_for_time(url)

    def test_of_many_redirects(self) -> None:
        def slowly(connection: socket.socket) -> None:
            time.sleep(SHORT / 3)
            connection.sendall(head("302 Found", Location="/next", Content_Length=0))

        with answering(then=slowly) as url:
            refused_for_time(url)

    def test_in_tls(self) -> None:
        def serve(connection: socket.socket) -> None:
            connection.sendall(b"\x16\x03\x03\x40\x00\x02")  # a handshake's record of 16 KiB
            drip(b"\0")(connection)

        with RawOrigin(serve) as origin:
            refused_for_time(f"https://127.0.0.1:{origin.port}/", timeout=5.0, connect_timeout=SHORT)

    def test_not_begun(self) -> None:
        """A connection that the server's system takes, and nobody answers."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            refused_for_time(f"http://127.0.0.1:{silent.getsockname()[1]}/{PATH_KEY}")


class TestConnection:
    def test_that_swallows_everything(self) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            waiting = [socket.socket() for _ in range(3)]
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            refused_for_time(f"http://127.0.0.1:{port}/", timeout=5.0, connect_timeout=SHORT)
            for one in waiting:
                one.close()

    def test_to_the_next_address(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        with RawOrigin() as origin:
            addresses = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, ("127.0.0.1", origin.port))]
            monkeypatch.setattr(fetch, "resolve", lambda *_: addresses)
            with connect("feed.test", 0, Deadline(60, "feed.test", "no connection")) as found:
                assert found.getpeername()[1] == origin.port

    def test_refused(self, port: int) -> None:
        error = refusal(FeedOrigin(f"http://127.0.0.1:{port}/{PATH_KEY}"))
        assert (error.reason, str(error)) == ("refused", f"http://127.0.0.1:{port}: Connection refused")


class TestName:
    def test_of_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        know_no_names(monkeypatch)
        error = refusal(FeedOrigin(f"http://feed.invalid/{PATH_KEY}"))
        assert error.reason == "dns"
        assert "feed.invalid" in str(error)

    @pytest.mark.parametrize("host", ["a..test", "x" * 70 + ".test"])
    def test_that_is_none(self, host: str) -> None:
        assert refusal(FeedOrigin(f"http://{host}/")).reason in ("dns", "url")

    def test_that_takes_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waiting = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [waiting.wait(10)][:0])
        refused_for_time("http://feed.test/", timeout=5.0, connect_timeout=SHORT)
        waiting.set()

    def test_of_this_machine(self) -> None:
        found = resolve("127.0.0.1", 80, Deadline(60, "feed.test", "no connection"))
        assert found == [(socket.AF_INET, ("127.0.0.1", 80))]


class TestDeadline:
    def test_within_another(self) -> None:
        outer = Deadline(0, "feed.test", "not done")
        with pytest.raises(FetchError, match=r"^feed\.test: not done within 0 s$"):
            Deadline(10, "feed.test", "no connection", within=outer).left()

    def test_is_not_longer_than_the_one_around_it(self) -> None:
        outer = Deadline(100, "feed.test", "not done")
        assert Deadline(1000, "feed.test", "no connection", within=outer).left() <= 100
        outer = Deadline(1000, "feed.test", "not done")
        assert 100 < Deadline(200, "feed.test", "no connection", within=outer).left() <= 200

    def test_of_all_ends_a_connection_too(self) -> None:
        """A handshake that is drawn out has longer by itself than the whole has."""

        def serve(connection: socket.socket) -> None:
            connection.sendall(b"\x16\x03\x03\x40\x00\x02")
            drip(b"\0")(connection)

        with RawOrigin(serve) as origin:
            refused_for_time(f"https://127.0.0.1:{origin.port}/", timeout=SHORT, connect_timeout=5.0)

    def test_leaves_no_thread(self) -> None:
        # Threads of other tests may end meanwhile.
        before = set(threading.enumerate())
        ours, theirs = socket.socketpair()
        with ours, theirs, Deadline(60, "feed.test", "not done").cutting(ours):
            assert len(set(threading.enumerate()) - before) == 1
        assert set(threading.enumerate()) <= before


@each_row(
    ("address", "expected"),
    [
        ("127.0.0.1", Scope.HOST),
        ("127.9.9.9", Scope.HOST),
        ("0.0.0.0", Scope.HOST),
        ("::1", Scope.HOST),
        ("::", Scope.HOST),
        ("::ffff:127.0.0.1", Scope.HOST),
        ("64:ff9b::7f00:1", Scope.HOST),
        ("169.254.169.254", Scope.LINK),
        ("fe80::1", Scope.LINK),
        ("fe80::1%1", Scope.LINK),
        ("2002:a9fe:a9fe::1", Scope.LINK),
        ("10.0.0.1", Scope.PRIVATE),
        ("172.16.0.1", Scope.PRIVATE),
        ("192.168.1.1", Scope.PRIVATE),
        ("100.64.0.1", Scope.PRIVATE),
        ("fd00::1", Scope.PRIVATE),
        ("192.0.2.1", Scope.PRIVATE),
        ("::ffff:10.0.0.1", Scope.PRIVATE),
        ("9.9.9.9", Scope.GLOBAL),
        ("2620:fe::fe", Scope.GLOBAL),
        ("64:ff9b::909:909", Scope.GLOBAL),
    ],
)
def test_scopes(address: str, expected: Scope) -> None:
    assert scope(address) is expected


def test_a_prefix_of_the_networks_own_leads_no_nearer() -> None:
    config = Config(gateway=GatewayTable(nat64=("2620:fe:64::/96",)))
    table = FeedTable(name="a", url="https://feed.test/a")
    asked = Feed(table, config, Path("/nonexistent")).request(wait=True, first=False, progress=False)
    nat64 = Nat64(origin(table, nat64=asked["nat64"]).nat64)
    assert scope("2620:fe:64::7f00:1", nat64) is Scope.HOST
    with pytest.raises(FetchError, match="a redirect into a private network"):
        connect("2620:fe:64::a00:1", 80, Deadline(5.0, "feed.test", "not done"), Scope.GLOBAL, nat64)
