"""The explicit proxy as `[proxy]` sets it up: users, proxy auto-configuration, ports; with real clients."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from browsing import CHROMIUM, FLAGS, NEEDS_CHROMIUM
from conftest import free_port, wait_for
from e2e.support import Authority, Filter, Nginx, RawOrigin, ask, children_of, get, running, urlward
from rows import each_row

PASSWORD = "correct-horse"
BROWSER_WITHIN = 120_000.0
"""Milliseconds that a browser may take to start, or to load a page."""


def users(folder: Path, user: str, password: str = PASSWORD) -> Path:
    path = folder / "users.htpasswd"
    path.write_bytes(user.encode() + b":" + bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)) + b"\n")
    return path


@contextmanager
def proxy(folder: Path, table: str, *flags: str, modes: Sequence[str] = ("regular",)) -> Iterator[Filter]:
    """A filter whose configuration has this in ``[proxy]``."""
    config = folder / "urlward.toml"
    config.write_text(f"[proxy]\n{table}")
    with running(folder, "--config", str(config), *flags, modes=modes) as found:
        yield found


def curl(*arguments: str) -> tuple[int, str]:
    """Exit code, and the code of the response to what was asked, or to CONNECT."""
    asked = ["curl", "-sk", "-o", "/dev/null", "-m", "60", "-w", "%{http_code} %{http_connect}", *arguments]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, done.stdout


def basic(user: str, password: str = PASSWORD) -> str:
    return f"Proxy-Authorization: Basic {b64encode(f'{user}:{password}'.encode()).decode()}\r\n"


def status_for(port: int, url: str, more: str) -> int:
    return ask(port, f"GET {url} HTTP/1.1\r\nHost: x\r\n{more}\r\n").status


def test_users(tmp_path: Path, origin: Nginx) -> None:
    path = users(tmp_path, "someone")
    plain = f"http://plain.example:{origin.http}/"
    secure = f"https://plain.example:{origin.https}/"
    with proxy(tmp_path, f'users = "{path.name}"', modes=("regular", "socks5")) as own:
        http, socks = (
            f"{scheme}://%s127.0.0.1:{port}"
            for scheme, port in zip(("http", "socks5h"), own.ports, strict=True)
        )
        right, wrong = f"someone:{PASSWORD}@", "someone:other@"
        assert curl("-x", http % right, plain) == (0, "200 000")
        assert curl("-x", http % wrong, plain) == (0, "407 000")
        assert curl("-x", http % "", plain) == (0, "407 000")
        assert curl("-x", http % right, secure) == (0, "200 200")
        assert curl("-x", http % wrong, secure) == (56, "000 407")
        assert curl("-x", socks % right, plain, secure)[0] == 0
        assert curl("-x", socks % wrong, plain)[0] == 97
        assert curl("-x", socks % "", plain)[0] == 97
        assert len(origin.requests(4)) == 4
        # Another file is in force without a restart, one that is none is not, and who was let in stays so.
        users(tmp_path, "another")
        wait_for(lambda: status_for(own.port, plain, basic("another")) == 200, "the other file")
        assert status_for(own.port, plain, basic("someone")) == 407
        path.write_text("another:secret\n")
        wait_for(lambda: "those read before stay" in own.log(), "a word on a broken file")
        assert status_for(own.port, plain, basic("another")) == 200
        assert status_for(own.port, plain, basic("another", "secret")) == 407
        for secret in (
            PASSWORD,
            "someone",
            "another",
            "secret",
            b64encode(f"someone:{PASSWORD}".encode()).decode(),
        ):
            assert secret not in own.log().replace(str(tmp_path), "")


def test_a_worker_that_is_replaced_while_the_file_is_broken(tmp_path: Path, origin: Nginx) -> None:
    path = users(tmp_path, "someone")
    url = f"http://fine.test:{origin.http}/"
    with proxy(tmp_path, f'users = "{path.name}"', "--workers", "2") as own:
        wait_for(lambda: own.log().count("listening on") == 2, "both workers")
        assert status_for(own.port, url, basic("someone")) == 200
        path.write_text("someone:secret\n")
        wait_for(lambda: own.log().count("those read before stay") == 2, "the word on it")
        for worker in children_of(own.process.pid):
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: own.log().count("listening on") == 4, "the new ones")
        assert {status_for(own.port, url, basic("someone")) for _ in range(9)} == {200}
        assert status_for(own.port, url, basic("someone", "secret")) == 407
        assert get(own.port, "http://blocked.example/").status == 407
        users(tmp_path, "another")
        wait_for(lambda: own.log().count("1 read from") == 2, "the file to be in force")
        assert status_for(own.port, url, basic("someone")) == 407


def test_a_file_that_htpasswd_has_made(tmp_path: Path, origin: Nginx) -> None:
    if shutil.which("htpasswd") is None:
        pytest.skip("needs the Debian package apache2-utils")
    path = tmp_path / "users.htpasswd"
    for user, create in (("first", ["-c"]), ("second", [])):
        subprocess.run(["htpasswd", "-bB", *create, path, user, PASSWORD], check=True, capture_output=True)
    url = f"http://plain.example:{origin.http}/"
    with proxy(tmp_path, f'users = "{path.name}"') as own:
        assert [status_for(own.port, url, basic(user)) for user in ("first", "second", "third")] == [
            200,
            200,
            407,
        ]


@pytest.mark.parametrize("flows", [[], ["--set", "body_size_limit=1g"]])
def test_the_same_through_mitmproxys_flows(tmp_path: Path, origin: Nginx, flows: list[str]) -> None:
    """Where an option has mitmproxy carry connections, nobody comes in that way."""
    url = f"http://plain.example:{origin.http}/"
    table = f'users = "{users(tmp_path, "someone").name}"\nconnect_ports = [443]'
    with proxy(tmp_path, table, *flows, modes=("regular", "socks5")) as own:
        assert [status_for(own.port, url, basic(user)) for user in ("someone", "another")] == [200, 407]
        assert get(own.port, "http://blocked.example/").status == (451 if flows else 407)
        assert status_for(own.port, "http://plain.example:25/", basic("someone")) == 403
        connect = f"CONNECT plain.example:{origin.https} HTTP/1.1\r\n"
        assert ask(own.port, f"{connect}\r\n").status == 407
        assert ask(own.port, f"{connect}{basic('someone')}\r\n").status == 403
        socks = f"socks5h://%s@127.0.0.1:{own.ports[1]}"
        assert curl("-x", socks % "someone:other", url)[0] == 97
        # The data path has ports for tunnels and for SOCKS.
        assert (curl("-x", socks % f"someone:{PASSWORD}", url)[0] == 0) is bool(flows)


def test_the_mode_upstream_asks_too(tmp_path: Path, raw: RawOrigin) -> None:
    table = f'users = "{users(tmp_path, "someone").name}"'
    with proxy(tmp_path, table, modes=[f"upstream:http://127.0.0.1:{raw.port}"]) as own:
        url = "http://plain.example/"
        assert [status_for(own.port, url, basic(user)) for user in ("another", "someone")] == [407, 200]
        connect = "CONNECT plain.example:80 HTTP/1.1\r\n"
        assert ask(own.port, f"{connect}{basic('another')}\r\n").status == 407
        with socket.create_connection(("127.0.0.1", own.port), 30) as s:
            s.sendall(f"{connect}{basic('someone')}\r\n".encode())
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert raw.received.count(b"GET ") == 1
    assert b"authorization" not in raw.received.lower()


@each_row(
    ("table", "flags", "said"),
    [
        ('users = "none"', [], "urlward.toml:2: proxy.users: none: No such file"),
        ('users = "list.txt"', [], "urlward.toml:2: proxy.users: list.txt:2: not a hash"),
        ("ports = [0]", [], "urlward.toml:2: proxy.ports: 0 is neither a port nor a range"),
        ('connect_ports = ["443-80"]', [], "2: proxy.connect_ports: '443-80' is neither a port nor"),
        ("ports = []", [], "urlward.toml:2: proxy.ports: input should not be empty"),
        ("[proxy.pac]", [], "urlward.toml:2: proxy.pac.proxies: this key is needed"),
        ('[proxy.pac]\nproxies = ["proxy"]', [], "3: proxy.pac.proxies.0: 'proxy' is not HOST:PORT"),
        (
            '[proxy.pac]\nproxies = ["a:1"]\ndirect = ["a\\""]',
            [],
            "4: proxy.pac.direct: 'a\"' is neither a host",
        ),
        (
            'users = "users.htpasswd"',
            ["--set", "proxyauth=a:b"],
            "--set: proxyauth: the key proxy.users says who",
        ),
        ("", ["--set", "proxyauth=secret"], "--set: proxyauth: USER:PASSWORD, @FILE, any or ldap"),
        (
            "",
            ["--set", "proxyauth=a:b", "--mode", "transparent"],
            "asked for a password in the mode transparent",
        ),
        (
            'users = "users.htpasswd"',
            ["--mode", "reverse:http://origin.example"],
            "urlward.toml:2: proxy.users: nobody is asked for a password in the mode reverse:http://origin.example",
        ),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, table: str, flags: list[str], said: str) -> None:
    users(tmp_path, "someone")
    (tmp_path / "list.txt").write_text("# none\nblocked.example\n")
    (tmp_path / "urlward.toml").write_text(f"[proxy]\n{table}\n")
    arguments = [
        "run",
        "--config",
        tmp_path / "urlward.toml",
        "--list",
        tmp_path / "list.txt",
        "--check",
        *flags,
    ]
    done = urlward(*arguments, "--confdir", tmp_path)
    assert done.returncode == 2
    assert said in done.stderr.replace(f"{tmp_path}/", "")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


# -- a browser


@contextmanager
def browser(*flags: str) -> Iterator[Any]:
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=[*FLAGS, *flags], timeout=BROWSER_WITHIN
        )
        try:
            yield found
        finally:
            found.close()


@NEEDS_CHROMIUM
def test_a_browser_with_proxy_auto_configuration(tmp_path: Path, raw: RawOrigin) -> None:
    port = free_port()
    table = f'[proxy.pac]\nproxies = ["127.0.0.1:{port}"]\ndirect = ["direct.example", "192.0.2.0/24"]'
    with proxy(tmp_path, table, modes=[f"regular@127.0.0.1:{port}"]) as own:
        served = ask(own.port, "GET /wpad.dat HTTP/1.1\r\nHost: wpad.example\r\n\r\n")
        assert served.headers["content-type"] == "application/x-ns-proxy-autoconfig"
        direct = "MAP *.direct.example 127.0.0.1, MAP 192.0.2.7 127.0.0.1"
        flags = f"--proxy-pac-url=http://127.0.0.1:{port}/proxy.pac", f"--host-resolver-rules={direct}"
        with browser(*flags) as found:
            page = found.new_page()
            page.set_default_timeout(BROWSER_WITHIN)
            for number, host in enumerate(("plain.example", "www.direct.example", "192.0.2.7")):
                assert page.goto(f"http://{host}:{raw.port}/{number}").text() == "origin\n"
            assert page.goto("http://blocked.example/").status == 451
    heads = {head.split(b" ")[1]: head for head in bytes(raw.received).split(b"\r\n\r\n") if head}
    assert [b"\r\nVia: 1.1 urlward" in heads[path] for path in (b"/0", b"/1", b"/2")] == [True, False, False]


@NEEDS_CHROMIUM
def test_a_browser_with_a_password(tmp_path: Path, origin: Nginx) -> None:
    with proxy(tmp_path, f'users = "{users(tmp_path, "someone").name}"') as own, browser() as found:
        server = {"server": f"http://127.0.0.1:{own.port}", "username": "someone", "password": PASSWORD}
        page = found.new_context(proxy=server, ignore_https_errors=True).new_page()
        page.set_default_timeout(BROWSER_WITHIN)
        for url in (f"http://plain.example:{origin.http}/", f"https://plain.example:{origin.https}/"):
            assert page.goto(url).text() == "origin\n"
        assert page.goto("https://blocked.example/").status == 451
    origin.requests(2)


# -- the end of TLS


@pytest.mark.parametrize("polite", [True, False])
def test_an_end_without_close_notify(tmp_path: Path, authority: Authority, polite: bool) -> None:
    """Inside TLS a client of HTTP/1.1 sees what it would see without the filter; of HTTP/2, an end."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.folder / "origin.pem", authority.folder / "origin.key")

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection._connection, server_side=True) as s:  # type: ignore[attr-defined]
            s.recv(65536)
            s.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            if polite:
                with suppress(OSError):
                    s.unwrap()

    trust = ("--set", f"ssl_verify_upstream_trusted_ca={authority.certificate}")
    with RawOrigin(serve) as raw, running(tmp_path, *trust) as own:
        for version, code in (("--http1.1", 0 if polite else 56), ("--http2", 0)):
            url = f"https://paged.example:{raw.port}/"
            assert curl(version, "-x", f"http://127.0.0.1:{own.port}", url) == (code, "200 200"), version
        with socket.create_connection(("127.0.0.1", own.port), 30) as s:
            s.sendall(f"GET https://paged.example:{raw.port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            with nullcontext() if polite else pytest.raises(ConnectionResetError):
                while s.recv(65536):
                    pass
