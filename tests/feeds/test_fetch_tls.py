import shlex
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.support import RawOrigin, read_to_end
from feeds.fetch_support import LIST, Server, answering, body, head, read_head, refusal
from rows import each_row
from urlward.feeds.fetch import fetch
from urlward.feeds.source import FeedOrigin, FetchError
from urlward.feeds.tls import context, proxy_context


class TestServer:
    @pytest.mark.parametrize(
        ("port", "words"), [("expired", "certificate has expired"), ("misnamed", "not valid for '127.0.0.1'")]
    )
    def test_is_not_who_it_should_be(self, feeds: Server, port: str, words: str) -> None:
        error = refusal(feeds.origin("/list.txt", getattr(feeds, port)))
        assert error.reason == "certificate"
        assert words in str(error)
        assert "`ca`" not in str(error)

    def test_of_an_unknown_authority(self, feeds: Server) -> None:
        for ca in (None, str(feeds.folder / "unknown.pem")):
            error = refusal(feeds.origin("/list.txt", ca=ca))
            assert error.reason == "certificate"
            assert "`ca`" in str(error)

    def test_by_name(self, feeds: Server) -> None:
        assert body(fetch(FeedOrigin(f"https://localhost:{feeds.https}/list.txt", ca=feeds.ca))) == LIST

    def test_does_not_speak_tls(self, feeds: Server) -> None:
        url = f"https://127.0.0.1:{feeds.http}/list.txt"
        assert refusal(FeedOrigin(url, ca=feeds.ca)).reason == "tls"

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_old_tls_alone(self, feeds: Server) -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        assert self._refused_by(feeds, old).reason == "tls"

    def test_wants_a_certificate(self, feeds: Server) -> None:
        strict = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        strict.verify_mode = ssl.CERT_REQUIRED
        strict.load_verify_locations(feeds.ca)
        assert self._refused_by(feeds, strict).reason == "tls"

    def test_ends_without_saying_so(self, feeds: Server) -> None:
        """An end that TLS does not sign could be that of anyone on the way."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(feeds.folder / "good.pem", feeds.folder / "good.key")

        def serve(connection: socket.socket) -> None:
            raw: socket.socket = connection._connection  # type: ignore[attr-defined]
            with made.wrap_socket(raw, server_side=True) as secured:
                read_head(secured)
                secured.sendall(head() + b"a.test\n")

        with RawOrigin(serve) as origin:
            url = f"https://127.0.0.1:{origin.port}/"
            assert refusal(FeedOrigin(url, ca=feeds.ca)).reason == "truncated"

    def _refused_by(self, feeds: Server, made: ssl.SSLContext) -> FetchError:
        made.load_cert_chain(feeds.folder / "good.pem", feeds.folder / "good.key")

        def serve(connection: socket.socket) -> None:
            raw: socket.socket = connection._connection  # type: ignore[attr-defined]
            with raw.dup() as same:
                with pytest.raises(ssl.SSLError):
                    made.wrap_socket(raw, server_side=True)
                read_to_end(same)  # closed before that, it would be reset, and the alert lost

        with RawOrigin(serve) as origin:
            return refusal(FeedOrigin(f"https://127.0.0.1:{origin.port}/", ca=feeds.ca))


class TestFiles:
    def test_of_authorities(self, feeds: Server, tmp_path: Path) -> None:
        assert refusal(feeds.origin("/list.txt", ca=str(tmp_path / "none.pem"))).reason == "settings"
        assert refusal(feeds.origin("/list.txt", ca="\0")).reason == "settings"
        assert refusal(feeds.origin("/list.txt", ca=str(feeds.folder / "good.key"))).reason == "settings"

    def test_replaces_the_systems(self, feeds: Server) -> None:
        assert len(context(feeds.ca).get_ca_certs()) == 1

    def test_adds_to_the_systems_for_a_proxy(self, feeds: Server) -> None:
        count = len(ssl.create_default_context().get_ca_certs())
        assert len(proxy_context(feeds.ca).get_ca_certs()) == count + 1

    @each_row(
        ("cert", "key"),
        [
            ("none.pem", "client.key"),
            ("\0", None),
            ("client.pem", "none.key"),
            ("client.pem", "good.key"),
            ("client.pem", None),
            ("client.key", "client.key"),
            ("client.pem", "locked.key"),
        ],
    )
    def test_of_a_client(self, feeds: Server, cert: str, key: str | None) -> None:
        if key == "locked.key":
            lock(feeds.folder / "client.key", feeds.folder / key)
        more = {"client_cert": str(feeds.folder / cert), "client_key": key and str(feeds.folder / key)}
        assert refusal(feeds.origin("/mutual/list.txt", **more)).reason == "secret"

    def test_asks_nobody_for_a_passphrase(self, feeds: Server) -> None:
        lock(feeds.folder / "client.key", feeds.folder / "asked.key")
        files = [str(feeds.folder / name) for name in ("client.pem", "asked.key")]
        code = f"from urlward.feeds.tls import context; context(None, *{files!r})"
        command = ["script", "-qec", shlex.join([sys.executable, "-c", code]), "/dev/null"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert "without a passphrase" in done.stdout
        assert "Enter" not in done.stdout

    def test_are_not_read_for_http(self) -> None:
        with answering(head(Content_Length=2), b"ok") as url:
            assert body(fetch(FeedOrigin(url))) == b"ok"


def lock(key: Path, locked: Path) -> None:
    """The same key under a passphrase, which OpenSSL would ask for."""
    command = ["openssl", "pkcs8", "-topk8", "-in", str(key), "-out", str(locked), "-passout", "pass:731337"]
    subprocess.run(command, check=True, capture_output=True)
