"""Reverse, upstream and transparent mode."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.conftest import trust
from e2e.support import (
    ENDS_WITHIN,
    Authority,
    Filter,
    Nginx,
    RawOrigin,
    ask,
    client_hello,
    connect,
    get,
    issuer,
    read_response,
    read_to_end,
    running,
    tunnel,
)
from e2e.test_tls import OURS, fetch, https


def request(host: str, path: str = "/") -> str:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


def test_reverse_http(tmp_path: Path, origin: Nginx) -> None:
    with running(tmp_path, modes=[f"reverse:http://127.0.0.1:{origin.http}"]) as proxy:
        assert ask(proxy.port, request("plain.example")).body == b"origin\n"
        assert ask(proxy.port, request("blocked.example")).status == 451
        assert ask(proxy.port, request("paged.example", "/listed.html")).status == 451
        assert ask(proxy.port, request("paged.example", "http://blocked.example/")).status == 451
        # The operator has named the origin: a request without a Host is for that one.
        assert ask(proxy.port, "GET / HTTP/1.0\r\n\r\n").status == 200
    hosts = [seen["host"] for seen in origin.requests(2)]
    assert hosts == ["plain.example", ""], "the origin is asked for the host that the client has asked for"


@pytest.mark.parametrize("port", ["https", "h2"])
def test_reverse_https(tmp_path: Path, authority: Authority, origin: Nginx, port: str) -> None:
    target = getattr(origin, port)
    modes = [f"reverse:https://127.0.0.1:{target}"]
    with running(tmp_path, *trust(authority), "--set", "ssl_insecure=true", modes=modes) as proxy:
        assert ask(proxy.port, request("plain.example")).body == b"origin\n"
        assert ask(proxy.port, request("blocked.example")).status == 451
        context = authority.client_context(proxy.ca)
        with context.wrap_socket(connect(proxy.port), server_hostname="paged.example") as s:
            assert issuer(s) == OURS
            assert fetch(s, "paged.example", "/listed.html").status == 451
        with context.wrap_socket(connect(proxy.port), server_hostname="paged.example") as s:
            assert fetch(s, "paged.example", "/other").body == b"origin\n"
        with context.wrap_socket(connect(proxy.port), server_hostname="plain.example") as s:
            assert fetch(s, "plain.example").body == b"origin\n"
    assert [seen["uri"] for seen in origin.requests(3)] == ["/", "/other", "/"]


def test_upstream(tmp_path: Path, proxy: Filter, authority: Authority, origin: Nginx, raw: RawOrigin) -> None:
    """Behind another proxy: here, another filter, with nothing listed."""
    empty = running(tmp_path / "parent", text="other.invalid\n")
    with empty as parent:
        modes = [f"upstream:http://127.0.0.1:{parent.port}"]
        with running(tmp_path / "child", *trust(authority), modes=modes) as child:
            assert get(child.port, f"http://plain.example:{origin.http}/").body == b"origin\n"
            whose, response = https(child, authority, "plain.example", origin.https)
            assert (whose != OURS, response.body) == (True, b"origin\n")
            whose, response = https(child, authority, "paged.example", origin.https, "/other")
            assert (whose, response.body) == (OURS, b"origin\n")
            whose, response = https(child, authority, "paged.example", origin.https, "/listed.html")
            assert (whose, response.status) == (OURS, 451)
            assert get(child.port, f"http://blocked.example:{raw.port}/").status == 451
            assert ask(child.port, f"CONNECT blocked.example:{raw.port} HTTP/1.1\r\n\r\n").status == 451
            with tunnel(child.port, f"plain.example:{raw.port}") as s:
                s.sendall(b"SSH-2.0-x\r\n\r\n")
                read_to_end(s)
    assert len(origin.requests(3)) == 3
    assert bytes(raw.received) == b""


def test_authentication(tmp_path: Path, origin: Nginx) -> None:
    """mitmproxy's option, whose addon is only there where it is set."""
    with running(tmp_path, "--set", "proxyauth=someone:secret") as proxy:
        url = f"http://plain.example:{origin.http}/"
        assert get(proxy.port, url).status == 407
        credentials = b64encode(b"someone:secret").decode()
        head = f"Host: plain.example:{origin.http}\r\nProxy-Authorization: Basic {credentials}\r\n\r\n"
        assert ask(proxy.port, f"GET {url} HTTP/1.1\r\n{head}").body == b"origin\n"
        listed = "GET http://blocked.example/ HTTP/1.1\r\nHost: blocked.example\r\n"
        assert ask(proxy.port, f"{listed}Proxy-Authorization: Basic {credentials}\r\n\r\n").status == 451
    assert len(origin.requests(1)) == 1


# -- transparent


CLIENT, GATEWAY = f"uw-c-{os.getpid()}", f"uw-g-{os.getpid()}"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def namespaces() -> Iterator[None]:
    """A client and a gateway, whose loopback is the origin's site 203.0.113.10 (and .66, listed)."""
    made: list[str] = []
    try:
        for name in (CLIENT, GATEWAY):
            ip("netns", "add", name)
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", CLIENT, "link", "add", "c0", "type", "veth", "peer", "name", "g0", "netns", GATEWAY)
        for name, link, address in ((CLIENT, "c0", "192.0.2.1/24"), (GATEWAY, "g0", "192.0.2.254/24")):
            ip("-n", name, "addr", "add", address, "dev", link)
            ip("-n", name, "link", "set", link, "up")
        ip("-n", CLIENT, "route", "add", "default", "via", "192.0.2.254")
        for address in ("203.0.113.10/32", "203.0.113.66/32"):
            ip("-n", GATEWAY, "addr", "add", address, "dev", "lo")
        rules = (
            "table ip uw { chain pre { type nat hook prerouting priority dstnat;"
            " iifname g0 tcp dport { 80, 443 } redirect to :8080; }; }"
        )
        nft = ["ip", "netns", "exec", GATEWAY, "nft", rules]
        subprocess.run(nft, check=True, capture_output=True)
        yield
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def may_make_namespaces() -> bool:
    if os.geteuid() or not all(shutil.which(tool) for tool in ("ip", "nft", "unshare")):
        return False
    probe = "ip link add name uw0 type veth peer name uw1 && nft add table ip probe"
    return (
        subprocess.run(["unshare", "-n", "sh", "-c", probe], capture_output=True, check=False).returncode == 0
    )


TRANSPARENT_LIST = """\
blocked.example id=T-1
http://paged.example/listed.html id=T-2
203.0.113.66 id=T-3
"""

ORIGIN = """\
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + "/origin.pem", sys.argv[1] + "/origin.key")
def answer(s, tls):
    s.settimeout(60)
    print("connection", flush=True)
    try:
        if tls:
            s = context.wrap_socket(s, server_side=True)
        while data := s.recv(65536):
            s.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 7\\r\\n\\r\\norigin\\n")
    except OSError:
        pass
def listen(listener, tls):
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0], tls), daemon=True).start()
for address in sys.argv[2:]:
    for port in (80, 443):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, port), family=family)
        threading.Thread(target=listen, args=(listener, port == 443)).start()
print("ready", flush=True)
"""

CLIENT_PROGRAM = """\
import socket, ssl, sys
ca, ours = sys.argv[1:3]
def http(address, host, path="/"):
    with socket.create_connection((address, 80), 30) as s:
        head = f"GET {path} HTTP/1.1\\r\\nConnection: close\\r\\n" + (f"Host: {host}\\r\\n" if host else "")
        for byte in (head + "\\r\\n").encode():
            s.sendall(bytes([byte]))
        return s.recv(65536).split(b" ", 2)[1].decode()
def https(address, name, host, path="/"):
    context = ssl.create_default_context(cafile=ca)
    context.load_verify_locations(cafile=ours)
    context.check_hostname = name is not None
    with socket.create_connection((address, 443), 30) as s, context.wrap_socket(s, server_hostname=name) as t:
        whose = "ours" if "mitmproxy" in str(t.getpeercert()["issuer"]) else "origin"
        t.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
        return whose + " " + t.recv(65536).split(b" ", 2)[1].decode()
A, L = "203.0.113.10", "203.0.113.66"
print(http(A, "plain.example"))
print(http(A, "blocked.example"))
print(http(A, "paged.example", "/listed.html"))
print(http(A, "plain.example", "http://blocked.example/"))
print(http(L, "plain.example"))
print(http(A, ""))
print(https(A, "plain.example", "plain.example"))
print(https(A, "blocked.example", "blocked.example"))
print(https(A, "paged.example", "paged.example"))
print(https(A, "paged.example", "paged.example", "/listed.html"))
print(https(A, None, "plain.example"))
print(https(L, "plain.example", "plain.example"))
"""

EXPECTED = """\
200
451
451
451
451
400
origin 200
ours 451
ours 200
ours 451
origin 200
ours 451
"""


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_transparent(tmp_path: Path, authority: Authority) -> None:
    inside = ["ip", "netns", "exec"]
    with namespaces(), (tmp_path / "origin.log").open("wb") as log:
        server = subprocess.Popen(
            [*inside, GATEWAY, sys.executable, "-c", ORIGIN, str(authority.folder), "0.0.0.0"],
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(lambda: "ready" in (tmp_path / "origin.log").read_text(), "the origin")
            with running(
                tmp_path,
                *trust(authority),
                text=TRANSPARENT_LIST,
                modes=["transparent@0.0.0.0:8080"],
                namespace=GATEWAY,
            ) as proxy:
                program = [sys.executable, "-c", CLIENT_PROGRAM, str(authority.certificate), str(proxy.ca)]
                result = subprocess.run(
                    [*inside, CLIENT, *program], capture_output=True, text=True, timeout=180, check=False
                )
                assert (result.stdout, result.stderr) == (EXPECTED, "")
                assert [block["entry"] for block in proxy.blocks()] == [
                    "T-1", "T-2", "T-1", "T-3", "T-1", "T-2", "T-3",
                ]  # fmt: skip
                assert all(block["client"].startswith("192.0.2.1:") for block in proxy.blocks())
        finally:
            server.terminate()
            server.wait(ENDS_WITHIN)
    assert (tmp_path / "origin.log").read_text().split() == ["ready", *["connection"] * 4]


def test_ssl_of_the_proxy_itself(proxy: Filter, authority: Authority, origin: Nginx) -> None:
    """A client may speak TLS to the proxy; what it asks for in there is judged."""
    context = ssl.create_default_context(cafile=str(proxy.ca))
    context.check_hostname = False
    with context.wrap_socket(connect(proxy.port), server_hostname="proxy.invalid") as s:
        s.sendall(
            f"GET http://blocked.example:{origin.http}/ HTTP/1.1\r\nHost: blocked.example\r\n\r\n".encode()
        )
        assert read_response(s).status == 451
        s.sendall(f"GET http://plain.example:{origin.http}/ HTTP/1.1\r\nHost: plain.example\r\n\r\n".encode())
        assert read_response(s).status == 200
    assert len(origin.requests(1)) == 1
    # A tunnel inside, and TLS inside that: one that is decrypted, and one that is relayed.
    options = ["--proxy-insecure", "-x", f"https://127.0.0.1:{proxy.port}", "--silent", "--insecure"]
    for url, status in (("paged.example:{}/listed.html", "451"), ("plain.example:{}/", "200")):
        line = [
            "curl",
            *options,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            f"https://{url.format(origin.https)}",
        ]
        assert subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout == status
    assert len(origin.requests(1)) == 1


def test_a_hello_that_is_cut_off(proxy: Filter, raw: RawOrigin) -> None:
    with tunnel(proxy.port, f"plain.example:{raw.port}") as s:
        s.sendall(client_hello("plain.example")[:40])
        s.shutdown(socket.SHUT_WR)
        assert read_to_end(s) == b""
    assert raw.connections == 0
