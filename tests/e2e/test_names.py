"""Names that no client can look up or that IDNA 2003 refuses: judged by what an origin serves under them."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from conftest import free_port
from e2e.conftest import trust
from e2e.support import (
    NGINX_HEAD,
    Authority,
    Filter,
    RawOrigin,
    Response,
    client_hello,
    connect,
    make_authority,
    read_response,
    running,
    socks,
    tunnel,
)
from e2e.test_cut import ends, put
from e2e.test_http2 import Http2
from nginx_log import AccessLog, nginx_in
from rows import each_row

ESZETT, SIGMA, JOINER = "xn--strae-oqa.test", "xn--kxaef0b5ab.test", "xn--11b2ezcw70k.test"
NAMES = (ESZETT, SIGMA, JOINER, "*.whole.test", "whole.test", "*.parent.test", "free.test", "*.free.test")
LIST = """\
http://straße.test/page              id=N-1
http://σίγμας.test/dir/*             id=N-2
क्\u200dष.test                          id=N-3
whole.test                           id=N-4
http://parent.test/page subdomains   id=N-5
@@http://free.whole.test/*           id=N-6
"""
NGINX = (
    NGINX_HEAD
    + """\
    default_type text/plain;
    client_header_timeout 10m;  # who waits for this origin to hang up waits for too long
    lingering_close off;  # a request is logged when that is over
    ssl_certificate {folder}/origin.pem;
    ssl_certificate_key {folder}/origin.key;
    server {{
        listen 127.0.0.1:{http} default_server;
        listen 127.0.0.1:{lax} ssl default_server;
        location / {{ return 200 "default\\n"; }}
    }}
    server {{
        listen 127.0.0.1:{strict} ssl default_server;
        http2 on;
        ssl_reject_handshake on;
    }}
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{lax} ssl;
        listen 127.0.0.1:{strict} ssl;
        http2 on;
        server_name {eszett} {sigma} {joiner} .whole.test .parent.test .free.test;
        location / {{ return 200 "$server_name $host\\n"; }}
    }}
}}
"""
)


class Origin:
    """nginx: a port for HTTP, one for TLS, and one for TLS that refuses names that it does not know."""

    def __init__(self, folder: Path) -> None:
        self.http, self.lax, self.strict = free_port(), free_port(), free_port()
        self.log = AccessLog(folder / "access.log", self.http)

    def served(self) -> int:
        """How many requests since this was last asked."""
        return len(self.log.new())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@pytest.fixture(scope="module")
def names_authority(folder: Path) -> Authority:
    return make_authority(folder, NAMES)


@pytest.fixture(scope="module")
def vhosts(folder: Path, names_authority: Authority) -> Iterator[Origin]:
    origin = Origin(folder)
    ports = {"http": origin.http, "lax": origin.lax, "strict": origin.strict}
    text = NGINX.format(folder=folder, eszett=ESZETT, sigma=SIGMA, joiner=JOINER, **ports)
    (folder / "nginx.conf").write_text(text)
    with nginx_in(folder, ports.values()):
        yield origin


@pytest.fixture(scope="module")
def names_filter(names_authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    arguments = trust(names_authority)
    with running(
        tmp_path_factory.mktemp("filter"), *arguments, text=LIST, modes=("regular", "socks5")
    ) as proxy:
        yield proxy


class Tls:
    """A client that asks for a name in any bytes, and takes any certificate."""

    def __init__(self, s: socket.socket, name: bytes) -> None:
        s.settimeout(None)
        self.connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), s)
        self.connection.set_tlsext_host_name(name)
        self.connection.set_connect_state()
        self.connection.do_handshake()
        certificate = self.connection.get_peer_certificate()
        assert certificate is not None
        self.decrypted = certificate.get_issuer().CN == "mitmproxy"

    def get(self, host: bytes, path: str = "/") -> Response:
        request = b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path.encode(), host)
        self.connection.sendall(request)
        return read_response(self.connection)  # type: ignore[arg-type]


def over_tls(
    proxy: Filter, port: int, name: bytes, path: str = "/", host: bytes = b""
) -> tuple[bool, int, bytes]:
    """Whether it was decrypted, status and body."""
    with socks(proxy.ports[1], "127.0.0.1", port) as s:
        tls = Tls(s, name)
        response = tls.get(host or name, path)
        return tls.decrypted, response.status, response.body


@each_row(
    ("name", "listed", "other"),
    [(ESZETT, "/page", "/other"), (ESZETT, "/page?x", "/"), (SIGMA, "/dir/x", "/dir"), (JOINER, "/any", "")],
)
def test_a_listed_host_that_idna_2003_refuses(
    names_filter: Filter, vhosts: Origin, name: str, listed: str, other: str
) -> None:
    vhosts.log.new()
    assert over_tls(names_filter, vhosts.strict, name.encode(), listed)[:2] == (True, 451)
    with connect(names_filter.port) as s:
        s.sendall(f"GET http://{name}:{vhosts.http}{listed} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        assert read_response(s).status == 451
    assert vhosts.served() == 0
    if other:
        found = over_tls(names_filter, vhosts.strict, name.encode(), other)
        assert found[:2] == (True, 200)
        assert name.encode() in found[2]
        assert vhosts.served() == 1


@each_row(
    "name",
    [
        *[b"whole.test:443", b"whole.test:", b"whole.test:x", b"WHOLE.TEST:9", b"free.whole.test:whole.test"],
        *[b"foo$bar.whole.test", b"a|b.whole.test", b"a,b.whole.test", b"(x).whole.test", b"a@b.whole.test"],
        *[b"xn--strae-oqa.whole.test", b"xn--1ug.whole.test", b"xn--zz.whole.test", b"x\xff.whole.test"],
        *[b"fre%65.whole.test", b"a b.whole.test"],
    ],
)
def test_a_name_that_an_origin_serves_as_a_listed_one(
    names_filter: Filter, vhosts: Origin, name: bytes
) -> None:
    """Without the filter each of them gets nginx's server of the listed host, whatever Host says."""
    vhosts.log.new()
    with socks(names_filter.ports[1], "127.0.0.1", vhosts.lax) as s:
        try:
            tls = Tls(s, name)
            assert tls.decrypted
            assert tls.get(b"free.test").status == 451
        except (SSL.Error, ConnectionError):
            pass  # mitmproxy makes no certificate for it
    assert vhosts.served() == 0


@each_row("name", [b"a^b.parent.test", b"xn--zz.parent.test", b"parent.test:x"])
def test_a_page_with_subdomains(names_filter: Filter, vhosts: Origin, name: bytes) -> None:
    vhosts.log.new()
    assert over_tls(names_filter, vhosts.lax, name, "/page", b"parent.test")[:2] == (True, 451)
    assert vhosts.served() == 0
    # OpenSSL takes no certificate for a name with other characters than these.
    status = 200 if name == b"xn--zz.parent.test" else 502
    assert over_tls(names_filter, vhosts.lax, name, "/other", b"parent.test")[:2] == (True, status)


@each_row(
    "name",
    [
        *[b"printer.42", b"foo.1", b"999.1.1.1", b"xn--strae-oqa.free.test", b"xn--zz.free.test"],
        *[b"a^b.free.test", b"x\xff.free.test", b"free.test:443", b"(x).free.test", b"free.whole.test"],
    ],
)
def test_an_unlisted_name_is_relayed(names_filter: Filter, vhosts: Origin, name: bytes) -> None:
    decrypted, status, _ = over_tls(names_filter, vhosts.lax, name, "/", b"free.test")
    assert (decrypted, status) == (name == b"free.whole.test", 200)


@each_row(
    ("host", "path", "status"),
    [
        ("xn--zz.free.test", "/", 200),
        ("printer.42", "/", 200),
        ("a^b.test", "/", 200),
        ("999.1.1.1", "/", 200),
        ("xn--strae-oqa.test", "/other", 200),
        ("a^b.free.test:80", "/", 200),
        ("xn--strae-oqa.test", "/page", 451),
        ("XN--STRAE-OQA.TEST:80", "/page", 451),
        ("straße.test", "/page", 451),
        ("a^b.whole.test", "/", 451),
        ("xn--zz.whole.test", "/", 451),
        ("a^b.parent.test", "/page", 451),
        ("whole.test:x", "/", 400),
        ("whole.test:1:2", "/", 400),
        ("[whole.test]", "/", 400),
        ("whole.test/", "/", 400),
        ("whole.test@free.test", "/", 400),
    ],
)
def test_a_host_field(names_filter: Filter, vhosts: Origin, host: str, path: str, status: int) -> None:
    vhosts.log.new()
    with socks(names_filter.ports[1], "127.0.0.1", vhosts.http) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert read_response(s).status == status
    assert vhosts.served() == (status == 200)


@each_row("host", [ESZETT, "xn--mnchen-3ya.free.test", "xn--zz.free.test", "a^b.free.test"])
def test_an_explicit_proxy(names_filter: Filter, vhosts: Origin, host: str) -> None:
    with connect(names_filter.port) as s:
        s.sendall(f"GET http://{host}:{vhosts.http}/ok HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        # In front of a target, what is in no name is a part of the path to some.
        assert read_response(s).status == (400 if "^" in host else 200)
    with tunnel(names_filter.port, f"{host}:{vhosts.strict}") as s:
        tls = Tls(s, host.encode())
        assert tls.decrypted == (host == ESZETT)
        assert tls.get(host.encode(), "/ok").status == 200


def test_http2_to_a_host_that_idna_2003_refuses(
    names_filter: Filter, names_authority: Authority, vhosts: Origin
) -> None:
    context = names_authority.client_context(names_filter.ca, alpn=("h2",))
    with (
        socks(names_filter.ports[1], "127.0.0.1", vhosts.strict) as plain,
        context.wrap_socket(plain, server_hostname=ESZETT) as s,
    ):
        client = Http2(s)
        streams = {client.start(ESZETT, "/page"): 451, client.start(ESZETT, "/other"): 200}
        while streams.keys() - client.ended.keys():
            client.receive()
        assert client.status == streams


UNLISTED = "plain.example\n"


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    """A filter whose list the next test changes again and again."""
    with running(tmp_path_factory.mktemp("changed"), text=UNLISTED, modes=("socks5",)) as proxy:
        yield proxy


@each_row(
    ("name", "line", "cut"),
    [
        (ESZETT, "http://straße.test/x id=C-1", True),
        (ESZETT, "straße.test id=C-1", True),
        (ESZETT, "strasse.test id=C-1", False),
        ("a$b|c.example", "late.example id=C-1", False),
        ("a$b|c.late.example", "late.example id=C-1", True),
        ("late.example:443", "late.example id=C-1", True),
    ],
)
def test_what_is_relayed_is_cut_once_it_is_listed(changed: Filter, name: str, line: str, cut: bool) -> None:
    proxy = changed
    if proxy.list_file.read_text() != UNLISTED:
        put(proxy, UNLISTED)
    stop = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"\x16begun")
        stop.wait(120)

    with (
        RawOrigin(serve) as raw,
        socks(proxy.port, "127.0.0.1", raw.port) as s,
    ):
        s.sendall(client_hello(name))
        assert s.recv(6) == b"\x16begun"
        put(proxy, f"{UNLISTED}{line}\n")
        assert ends(s, soon=cut) is cut
        stop.set()
