import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from e2e.support import RawOrigin
from feeds.fetch_support import LIST, Server, answering, body, drip, head, know_no_names, read_head, refusal
from rows import each_row
from urlward.feeds.fetch import fetch, parse, peer, place
from urlward.feeds.source import FeedOrigin, FetchError

BASIC = b64encode(b"someone:s:731337").decode()


class Proxy:
    """Tunnels, and forwards plain HTTP; with credentials or without.

    Attributes:
        heads: of requests to the proxy itself.
    """

    def __init__(self, wanted: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self._wanted = wanted
        self._tls = tls

    def serve(self, connection: socket.socket) -> None:
        raw: socket.socket = connection._connection  # type: ignore[attr-defined]
        client = self._tls.wrap_socket(raw, server_side=True) if self._tls else raw
        with client:
            asked = read_head(client)
            if not asked:
                return
            self.heads.append(asked)
            if self._wanted and f"\r\nProxy-Authorization: Basic {self._wanted}\r\n" not in asked.decode():
                client.sendall(head("407 Proxy Authentication Required 731337", Content_Length=0))
                return
            method, target, _ = asked.split(b"\r\n")[0].decode().split()
            name, _, port = (target if method == "CONNECT" else target.split("/")[2]).rpartition(":")
            try:
                server = socket.create_connection((name, int(port)))
            except OSError:
                client.sendall(head("502 Bad Gateway", Content_Length=0))
                return
            with server:
                if method == "CONNECT":
                    client.sendall(head("200 Connected"))
                else:
                    server.sendall(asked)
                _relay(client, server)


def _relay(client: socket.socket, server: socket.socket) -> None:
    def one_way(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=one_way, args=(client, server), daemon=True)
    back.start()
    one_way(server, client)


@contextmanager
def proxy(
    wanted: str = "", tls: ssl.SSLContext | None = None
) -> Iterator[tuple[Proxy, Callable[[str], str]]]:
    """A proxy, and what makes its URL of user information."""
    made = Proxy(wanted, tls)
    with RawOrigin(made.serve) as origin:
        scheme = "https" if tls else "http"
        yield made, lambda user="": f"{scheme}://{user}127.0.0.1:{origin.port}"


@pytest.fixture
def secured(feeds: Server) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(feeds.folder / "good.pem", feeds.folder / "good.key")
    return made


class TestProxy:
    def test_tunnels_tls(self, feeds: Server) -> None:
        with proxy() as (made, url):
            assert body(fetch(feeds.origin("/bearer/list.txt", token="token-731337", proxy=url()))) == LIST
        assert made.heads[0].startswith(f"CONNECT 127.0.0.1:{feeds.https} HTTP/1.1\r\n".encode())
        assert b"uthorization" not in made.heads[0]

    def test_forwards_http(self, feeds: Server) -> None:
        with proxy() as (made, url):
            assert body(fetch(feeds.origin("/list.txt?a=b", feeds.http, proxy=url()))) == LIST
        assert made.heads[0].startswith(
            f"GET http://127.0.0.1:{feeds.http}/list.txt?a=b HTTP/1.1\r\n".encode()
        )
        assert f"\r\nHost: 127.0.0.1:{feeds.http}\r\n".encode() in made.heads[0]

    @pytest.mark.parametrize("port", ["http", "https"])
    def test_over_tls(self, feeds: Server, secured: ssl.SSLContext, port: str) -> None:
        with proxy(tls=secured) as (made, url):
            assert body(fetch(feeds.origin("/list.txt", getattr(feeds, port), proxy=url()))) == LIST
        assert len(made.heads) == 1

    @pytest.mark.parametrize("port", ["http", "https"])
    def test_credentials(self, feeds: Server, port: str) -> None:
        with proxy(BASIC) as (made, url):
            origin = feeds.origin("/list.txt", getattr(feeds, port), proxy=url("someone:s%3A731337@"))
            assert body(fetch(origin)) == LIST
            for user in ("", "someone:731337@"):
                error = refusal(feeds.origin("/list.txt", getattr(feeds, port), proxy=url(user)))
                assert error.reason == "proxy"
                assert "407" in str(error)
        assert len(made.heads) == 3

    def test_credentials_do_not_reach_the_server(self, feeds: Server) -> None:
        with proxy(BASIC) as (made, url):
            body(fetch(feeds.origin("/list.txt?proxied", proxy=url("someone:s%3A731337@"))))
        assert made.heads[0].count(b"Proxy-Authorization") == 1
        assert feeds.seen("/list.txt")["authorization"] == ""

    def test_cannot_reach_the_server(self, feeds: Server, port: int) -> None:
        with proxy() as (_, url):
            error = refusal(FeedOrigin(f"https://127.0.0.1:{port}/", proxy=url()))
        assert error.reason == "proxy"
        assert "refuses the tunnel with status 502" in str(error)

    def test_servers_certificate_counts(self, feeds: Server, secured: ssl.SSLContext) -> None:
        for tls in (None, secured):
            with proxy(tls=tls) as (_, url):
                error = refusal(feeds.origin("/list.txt", feeds.misnamed, proxy=url()))
            assert error.reason == "certificate"

    def test_its_own_certificate_counts(self, feeds: Server, secured: ssl.SSLContext) -> None:
        for port in (feeds.http, feeds.https):
            with proxy(tls=secured) as (_, url):
                error = refusal(feeds.origin("/list.txt", port, proxy=url(), ca=None))
            assert error.reason == "proxy"
            assert "certificate" in str(error)

    def test_is_not_there(self, feeds: Server, port: int) -> None:
        for where in (feeds.http, feeds.https):
            error = refusal(feeds.origin("/list.txt", where, proxy=f"http://u:731337@127.0.0.1:{port}"))
            assert (error.reason, str(error)) == (
                "proxy",
                f"proxy http://127.0.0.1:{port}: Connection refused",
            )

    def test_has_no_address(self, feeds: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        know_no_names(monkeypatch)
        error = refusal(feeds.origin("/list.txt", proxy="http://proxy.invalid:3128"))
        assert error.reason == "proxy"
        assert "proxy.invalid" in str(error)

    @pytest.mark.parametrize("answer", [b"nonsense 731337\r\n\r\n", b""])
    def test_is_none(self, feeds: Server, answer: bytes) -> None:
        with answering(answer) as url:
            error = refusal(feeds.origin("/list.txt", proxy=url.rpartition("/")[0]))
        assert error.reason == "proxy"

    def test_in_drops(self, feeds: Server) -> None:
        with answering(b"HTTP/1.1 200 OK\r\n", then=drip(b"X: y\r\n")) as url:
            error = refusal(feeds.origin("/list.txt", proxy=url.rpartition("/")[0], connect_timeout=0.4))
        assert error.reason == "timeout"

    @each_row("url", ["socks5://127.0.0.1:1", "127.0.0.1:3128", "http://", "http://[", ""])
    def test_of_another_kind(self, feeds: Server, url: str) -> None:
        assert refusal(feeds.origin("/list.txt", proxy=url)).reason == "settings"

    @each_row("sign", "/?#\\")
    def test_password_that_is_not_escaped(self, feeds: Server, sign: str) -> None:
        for password in (f"731337{sign}x", f"x{sign}731337"):
            proxy = f"http://someone:{password}@proxy.invalid:3128"
            error = refusal(feeds.origin("/list.txt", proxy=proxy))
            assert error.reason == "settings"
            assert "someone" not in str(error)


class TestUrl:
    @each_row(
        "url",
        [
            "",
            "feed.test",
            "//feed.test/",
            "file:///etc/passwd",
            "ftp://feed.test/",
            "data:,a.test",
            "https:///list",
            "https://[::1",
            "https://feed.test:99999/",
            "https://someone:731337@feed.test/",
            "http://a b/",
            "https://a\udcff.test/",
        ],
    )
    def test_of_another_kind(self, url: str) -> None:
        error = refusal(FeedOrigin(url))
        assert (error.reason, error.status) == ("url", None)

    @each_row(
        ("url", "where", "name"),
        [
            ("https://Feed.test/a?b", ("https", "feed.test", 443), "https://feed.test"),
            ("http://feed.test:80", ("http", "feed.test", 80), "http://feed.test"),
            ("https://[2001:db8::1]:8443/", ("https", "2001:db8::1", 8443), "https://[2001:db8::1]:8443"),
        ],
    )
    def test_names_an_origin(self, url: str, where: tuple[str, str, int], name: str) -> None:
        parsed = parse(url, "the URL")
        assert place(parsed) == where
        assert peer(parsed) == name

    def test_of_ipv6(self) -> None:
        def serve(connection: socket.socket) -> None:
            assert b"Host: [::1]:" in read_head(connection)
            connection.sendall(head(Content_Length=2) + b"ok")

        with RawOrigin(serve, host="::1") as origin:
            assert body(fetch(FeedOrigin(f"http://[::1]:{origin.port}/"))) == b"ok"


class TestAnswer:
    @each_row(
        ("answer", "reason"),
        [
            (b"", "refused"),
            (b"731337\r\n\r\n", "protocol"),
            (b"HTTP/1.1 99999 731337\r\n\r\n", "protocol"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70000 + b"\r\n\r\n", "protocol"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "protocol"),
            (head(Content_Length="731337x"), "protocol"),
            (head(Content_Length="-1"), "protocol"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456", "protocol"),
            (head(Transfer_Encoding="gzip, chunked") + b"2\r\nok\r\n0\r\n\r\n", "protocol"),
            (head(Transfer_Encoding="identity", Content_Length=2) + b"ok", "protocol"),
            (b"HTTP/1.1 200 OK\r\n", "truncated"),
            (head(Content_Length=10) + b"a.test\n", "truncated"),
            (head(Content_Length=10), "truncated"),
            (head(Transfer_Encoding="chunked"), "truncated"),
            (head(Transfer_Encoding="chunked") + b"5\r\na.t", "truncated"),
            (head(Transfer_Encoding="chunked") + b"5\r\na.tes\r\n", "truncated"),
            (head(Transfer_Encoding="chunked") + b"731337x\r\na.tes\r\n", "truncated"),
            (head(Content_Length=1 << 40), "too-large"),
            (head(Content_Encoding="br", Content_Length=2) + b"ok", "unsupported"),
            (head(Content_Encoding="gzip, gzip", Content_Length=2) + b"ok", "unsupported"),
            (head(Content_Encoding="gzip", Content_Length=2) + b"ok", "corrupt"),
            (head(Content_Encoding="gzip", Content_Length=0), "truncated"),
        ],
    )
    def test_that_is_none(self, answer: bytes, reason: str) -> None:
        with answering(answer) as url:
            assert refusal(FeedOrigin(url, timeout=60)).reason == reason

    def test_reset_in_the_middle(self) -> None:
        def reset(connection: socket.socket) -> None:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()

        with answering(head(Content_Length=10), b"a.test\n", then=reset) as url:
            assert refusal(FeedOrigin(url)).reason in ("truncated", "refused")

    def test_longer_than_it_says(self) -> None:
        with answering(head(Content_Length=2), b"okandmore") as url:
            assert body(fetch(FeedOrigin(url))) == b"ok"

    def test_without_end(self) -> None:
        def go_on(connection: socket.socket) -> None:
            while True:
                connection.sendall(b"x" * 65536)

        with answering(head(), then=go_on) as url:
            assert refusal(FeedOrigin(url, max_bytes=1 << 20)).reason == "too-large"

    def test_is_an_error_of_the_engine(self) -> None:
        assert FetchError("feed.test: gone", "status").retry_after is None
