"""``keep_source`` in namespaces: origins see the client, and what is listed is blocked."""

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.conftest import trust
from e2e.steer_support import address, ask, command, get, resolving, steering, while_alive
from e2e.support import Authority, Filter, issuer, make_authority, read_response
from e2e.test_modes import may_make_namespaces
from gateway.network import IPV4, IPV6, Family, Network, canaries
from urlward.gateway.nft import Nft

pytestmark = pytest.mark.skipif(
    not may_make_namespaces() or shutil.which("nginx") is None, reason="needs root, ip, nft and nginx"
)

families = pytest.mark.parametrize("f", [IPV4, IPV6], ids=["ipv4", "ipv6"])

NGINX = """\
user root;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ }}
http {{
    log_format seen '$remote_addr $host $request_uri $ssl_session_reused';
    access_log {folder}/access.log seen;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_certificate {authority}/origin.pem;
    ssl_certificate_key {authority}/origin.key;
    ssl_session_cache shared:seen:1m;
    server {{
        listen 80;
        listen 443 ssl;
        listen [::]:80 ipv6only=on;
        listen [::]:443 ssl ipv6only=on;
        location / {{ return 200 "origin"; }}
    }}
}}
"""
PAGED = {4: "203.0.113.30", 6: "2001:db8:f::30"}


class Seen:
    """What the origin's log says, a line a request: the client's address, host, target, TLS session."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def next(self) -> list[str]:
        """The words of the next line."""
        wait_for(lambda: len(self._lines()) > self._read, "a line of the origin's log")
        self._read += 1
        return self._lines()[self._read - 1].split()

    def none(self) -> bool:
        """Whether there is none that was not asked for."""
        return len(self._lines()) == self._read

    def begin(self) -> None:
        """Ask for none that is there by now."""
        self._read = len(self._lines())

    def _lines(self) -> list[str]:
        text = self._path.read_text()
        return text[: text.rfind("\n") + 1].splitlines()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with resolving(tmp_path_factory.mktemp("steer"), "source") as made:
        made.speakers.pop("origin").close()
        # Strict, as distributions have it.
        made.gateway.sysctl("net.ipv4.conf.all.rp_filter", "1")
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), ("paged.example", "shared.example"))


@pytest.fixture(scope="module")
def seen(net: Network, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """nginx at all origins' addresses."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, authority=authority.folder))
    line = [*net.world.prefix, "nginx", "-p", str(folder), "-e", str(folder / "error.log")]
    with subprocess.Popen([*line, "-c", str(folder / "nginx.conf")]) as server:
        try:
            wait_for((folder / "nginx.pid").exists, "nginx")
            yield Seen(folder / "access.log")
        finally:
            server.terminate()


@pytest.fixture(scope="module", params=[True, False], ids=["kept", "own"])
def keeps(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def proxy(
    keeps: bool, net: Network, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filter]:
    """Two workers, with clients' addresses or with the gateway's own."""
    with filtering(net, authority, tmp_path_factory.mktemp("filter"), keeps) as proxy:
        yield proxy


def resolve(net: Network, f: Family, name: str = "paged.example") -> str:
    """Ask as a client does, so that the address is steered."""
    return address(ask(net, name, "A" if f.version == 4 else "AAAA", f))


@contextmanager
def filtering(net: Network, authority: Authority, folder: Path, keeps: bool) -> Iterator[Filter]:
    more = f"keep_source = {json.dumps(keeps)}"
    with steering(net, folder, *trust(authority), more=more) as proxy:
        wait_for(lambda: canaries(net) == {"ok"}, "the canaries to come through")
        yield proxy


def over_tls(
    net: Network, context: ssl.SSLContext, where: str, host: str, path: str, source: str = ""
) -> str:
    """Whose certificate a client sees, and the status that it gets."""
    with (
        net.client.connect(where, 443, source) as plain,
        context.wrap_socket(plain, server_hostname=host) as s,
    ):
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return f"{issuer(s)} {read_response(s).status}"


@families
def test_whom_the_origin_sees(
    net: Network, seen: Seen, authority: Authority, proxy: Filter, keeps: bool, f: Family
) -> None:
    context = authority.client_context(proxy.folder / "confdir/mitmproxy-ca-cert.pem")
    who = f.client if keeps else f.wan

    where = resolve(net, f)
    assert where == PAGED[f.version]

    def plain(host: str, path: str, answer: int, *line: str) -> None:
        def attempt() -> None:
            assert get(net, f.other if host == "plain.example" else where, host, path) == answer
            assert not line or seen.next()[:3] == [*line, host, path]

        while_alive(net, attempt, seen.begin)

    def secure(host: str, path: str, answer: str, *line: str) -> None:
        def attempt() -> None:
            assert over_tls(net, context, where, host, path) == answer
            assert not line or seen.next()[:3] == [*line, host, path]

        while_alive(net, attempt, seen.begin)

    plain("paged.example", "/listed.html", 451)
    secure("paged.example", "/listed.html", "mitmproxy 451")
    plain("paged.example", "/plain", 200, who)
    secure("paged.example", "/intercepted", "mitmproxy 200", who)
    # Nobody lists a page of the neighbour's, whose connection is relayed as it is.
    secure("shared.example", "/unread", "Test origin CA 200", who)
    plain("plain.example", "/routed", 200, f.client)
    assert seen.none()
    # The filter's own port is no way to the filter itself, or to anywhere.
    with net.client.connect(f.lan, 8080) as s:
        assert s.recv(1) == b""


@families
def test_large_bodies_in_both_directions(net: Network, seen: Seen, proxy: Filter, f: Family) -> None:
    """And more requests over one connection, from the same port."""
    where = resolve(net, f)
    with net.client.connect(where, 80) as s:
        for _ in range(3):
            body = bytes(300_000)
            head = f"POST / HTTP/1.1\r\nHost: shared.example\r\nContent-Length: {len(body)}\r\n\r\n"
            s.sendall(head.encode() + body)
            assert read_response(s).status == 200
            seen.next()


# What follows is of kept addresses alone.
kept = pytest.mark.parametrize("keeps", [True], indirect=True, ids=["kept"])


@kept
@families
def test_a_client_is_known_to_origins_as_itself(
    net: Network, seen: Seen, authority: Authority, proxy: Filter, f: Family
) -> None:
    """What an origin has given for a session's resumption does not come back from another address."""
    context = authority.client_context(proxy.folder / "confdir/mitmproxy-ca-cert.pem")
    where = resolve(net, f)

    def asked_from(source: str) -> str:
        assert over_tls(net, context, where, "paged.example", "/", source) == "mitmproxy 200"
        client, *_, again = seen.next()
        assert client == source
        return again

    sources = (f.client,) * 6 + (f.exempt,)
    reused = [while_alive(net, partial(asked_from, source), seen.begin) for source in sources]
    assert "r" in reused[:-1]
    assert reused[-1] == "."


@kept
@families
def test_ports_that_clients_have_too(net: Network, seen: Seen, proxy: Filter, f: Family) -> None:
    """From each of these there is a connection of the client's and one of the filter's, to one origin."""
    where = resolve(net, f)
    ports = range(40_000, 40_010)
    net.gateway.sysctl("net.ipv4.ip_local_port_range", f"{ports[0]} {ports[-1]}")
    open_ones: list[socket.socket] = []
    try:
        for port in ports:
            s = net.client.make(f.family, socket.SOCK_STREAM)
            open_ones.append(s)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((f.client, port))
            s.connect((where, 80))
            answers(s, seen, f)
        for s in open_ones:
            answers(s, seen, f)
    finally:
        net.gateway.sysctl("net.ipv4.ip_local_port_range", "32768 60999")
        for s in open_ones:
            s.close()


def answers(s: socket.socket, seen: Seen, f: Family) -> None:
    s.sendall(b"GET / HTTP/1.1\r\nHost: shared.example\r\n\r\n")
    assert read_response(s).status == 200
    assert seen.next()[0] == f.client


@kept
@families
def test_under_a_flood_of_connections(net: Network, seen: Seen, proxy: Filter, f: Family) -> None:
    """With SYN cookies the listener has not heard of a connection before the packet that completes it."""
    where = resolve(net, f)
    net.gateway.sysctl("net.ipv4.tcp_syncookies", "2")
    try:
        assert get(net, where, "shared.example") == 200
    finally:
        net.gateway.sysctl("net.ipv4.tcp_syncookies", "1")
    assert seen.next()[0] == f.client


@kept
@families
def test_icmp_reaches_the_filter(net: Network, proxy: Filter, f: Family) -> None:
    """It is sent to the client's address; without it, the size of packets would not be found out."""
    where = resolve(net, f)
    rule = (
        f"{'ip' if f.version == 4 else 'ip6'} daddr {where} tcp dport 80 reject with icmpx admin-prohibited"
    )
    chain = "add table inet r; add chain inet r in { type filter hook input priority 0; }"
    net.world.do(nft_run, f"{chain}\nadd rule inet r in {rule}")
    try:
        assert while_alive(net, lambda: get(net, where, "shared.example")) == 502
    finally:
        net.world.do(nft_run, "delete table inet r")


def nft_run(commands: str) -> None:
    nft = Nft()
    nft.run(commands)
    nft.close()


def ip(net: Network, *arguments: str) -> str:
    done = subprocess.run(
        ["ip", "-n", net.gateway.name, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


def routing(net: Network) -> list[str]:
    """All rules and routes of the gateway."""
    return [
        ip(net, version, *what)
        for version in ("-4", "-6")
        for what in (["rule"], ["route", "show", "table", "all"])
    ]


@kept
def test_policy_routing_comes_back(net: Network, seen: Seen, proxy: Filter) -> None:
    def blocked(f: Family) -> None:
        assert get(net, resolve(net, f), "paged.example", "/listed.html") == 451

    before = routing(net)
    status = command(net, "gateway", "status", "--json", "--config", str(proxy.folder / "urlward.toml"))
    assert (status.returncode, json.loads(status.stdout)["routes"]) == (0, True)
    for wrong in (
        ["-4", "rule", "del", "pref", "90"],
        ["-6", "rule", "flush"],
        ["-6", "route", "flush", "table", "21365"],
    ):
        ip(net, *wrong)
        if "flush" in wrong and "rule" in wrong:
            ip(net, "-6", "rule", "add", "pref", "32766", "lookup", "main")
        wait_for(lambda: routing(net) == before, f"what {' '.join(wrong)} has taken away")
    wait_for(lambda: "somebody took policy routing away; it is put right" in proxy.log(), "the word on it")
    # What another adds before ours takes nothing of it.
    for version in ("-4", "-6"):
        ip(net, version, "route", "add", "unreachable", "default", "table", "100")
        ip(net, version, "rule", "add", "iif", "lan0", "lookup", "100")
    wait_for(lambda: ip(net, "rule").count("88:") and ip(net, "-6", "rule").count("88:"), "ours before it")
    for f in (IPV4, IPV6):
        while_alive(net, partial(blocked, f))
    for version in ("-4", "-6"):
        ip(net, version, "rule", "del", "iif", "lan0", "lookup", "100")
        ip(net, version, "route", "flush", "table", "100")
    wait_for(lambda: routing(net) == before, "ours where it was")
    said = "somebody's routing rule 89 came before ours; it is put right"
    wait_for(lambda: said in proxy.log(), "the word on it")
    # Together with the rules, too.
    ip(net, "-4", "rule", "del", "pref", "90")
    subprocess.run([*net.gateway.prefix, "nft", "flush", "ruleset"], check=True)
    wait_for(lambda: proxy.log().count("they are back") == 1, "the rules")
    wait_for(lambda: routing(net) == before, "policy routing")
    for f in (IPV4, IPV6):
        while_alive(net, partial(blocked, f))
