"""A feed's server, with each fault that a real one can have, and lesser ones for what it cannot."""

import hashlib
import json
import os
import shutil
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import free_port
from e2e.support import RawOrigin
from feeds.certificates import make_certificates
from lists.support import descriptors
from nginx_log import AccessLog, nginx_in
from urlward.feeds.fetch import Answer, fetch
from urlward.feeds.source import FeedOrigin, FetchError, Validators

LIST = b"# A feed.\n" + b"".join(b"host-%d.test\n" % number for number in range(3000))

USER, PASSWORD, TOKEN = "subscriber", "pass:wörd-731337", "token-731337"
PATH_KEY, QUERY_KEY = "path-key-731337", "query-key-731337"
SECRETS = ("731337", "pass%3Aw", USER)
"""With a number that no port has, as tests' servers get whichever is free."""
"""What no message, `repr` or log may contain."""


@dataclass
class Server:
    """An nginx: its folder, and its ports."""

    folder: Path
    http: int
    https: int
    other: int
    expired: int
    misnamed: int
    mutual: int

    def url(self, path: str, port: int | None = None) -> str:
        port = port or self.https
        scheme = "http" if port == self.http else "https"
        return f"{scheme}://127.0.0.1:{port}{path}"

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    def origin(self, path: str, port: int | None = None, **more: Any) -> FeedOrigin:
        more.setdefault("ca", self.ca)
        more.setdefault("timeout", 60.0)
        return FeedOrigin(self.url(path, port), **more)

    def requests(self) -> list[dict[str, str]]:
        """What it was asked, in order."""
        return [json.loads(line) for line in AccessLog(self.folder / "access.log", self.http).lines()]

    def seen(self, path: str) -> dict[str, str]:
        """The last request for a path."""
        return [r for r in self.requests() if r["uri"].partition("?")[0] == path][-1]


_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ }}
http {{
    log_format seen escape=json '{{"port":"$server_port","uri":"$request_uri","status":"$status",'
        '"authorization":"$http_authorization","encodings":"$http_accept_encoding","agent":"$http_user_agent",'
        '"etag":"$http_if_none_match","since":"$http_if_modified_since","client":"$ssl_client_s_dn",'
        '"more":"$http_x_more","host":"$http_host"}}';
    access_log {folder}/access.log seen;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    types {{ text/html html; text/plain txt; }}
    default_type application/octet-stream;
    absolute_redirect off;
    ssl_certificate {folder}/good.pem;
    ssl_certificate_key {folder}/good.key;
    root {folder}/www;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        listen 127.0.0.1:{other} ssl;
        listen 127.0.0.1:{mutual} ssl;
        ssl_client_certificate {folder}/ca.pem;
        ssl_verify_client optional;
        location /basic/ {{ auth_basic feeds; auth_basic_user_file {folder}/users; alias {folder}/www/; }}
        location /bearer/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            alias {folder}/www/;
        }}
        location /mutual/ {{
            if ($ssl_client_verify != SUCCESS) {{ return 403; }}
            alias {folder}/www/;
        }}
        location /gzip/ {{ gzip on; gzip_min_length 1; gzip_types text/plain; alias {folder}/www/; }}
        location /labelled/ {{ add_header Content-Encoding gzip; alias {folder}/www/; }}
        location /fresh/ {{
            add_header Cache-Control "public, max-age=600";
            add_header Age 100;
            alias {folder}/www/;
        }}
        location /expires/ {{ expires 10m; alias {folder}/www/; }}
        location = /401 {{ return 401; }}
        location = /403 {{ return 403; }}
        location = /404 {{ return 404; }}
        location = /410 {{ return 410; }}
        location = /418 {{ return 418; }}
        location = /204 {{ return 204; }}
        location = /429 {{ add_header Retry-After 120 always; return 429; }}
        location = /500 {{ return 500; }}
        location = /503 {{ add_header Retry-After "Fri, 01 Jan 2100 00:00:00 GMT" always; return 503; }}
        location = /login {{ return 302 /login.html; }}
        location = /away {{ return 302 https://127.0.0.1:{other}/list.txt; }}
        location = /back {{ return 302 https://127.0.0.1:{other}/home; }}
        location = /home {{ return 302 https://127.0.0.1:{https}/list.txt?home; }}
        location = /plain {{ return 301 http://127.0.0.1:{http}/list.txt; }}
        location = /loop {{ return 302 /loop; }}
        location = /file {{ return 302 file:///etc/passwd; }}
        location = /userinfo {{ return 302 https://someone:731337@127.0.0.1:{other}/list.txt; }}
        location = /nowhere {{ return 302 ""; }}
        location = /five {{ return 302 /four; }}
        location = /four {{ return 303 /three; }}
        location = /three {{ return 307 two; }}
        location = /two {{ return 308 //127.0.0.1:{other}/one; }}
        location = /one {{ return 301 /list.txt; }}
    }}
    server {{
        listen 127.0.0.1:{expired} ssl;
        ssl_certificate {folder}/expired.pem;
        ssl_certificate_key {folder}/expired.key;
    }}
    server {{
        listen 127.0.0.1:{misnamed} ssl;
        ssl_certificate {folder}/misnamed.pem;
        ssl_certificate_key {folder}/misnamed.key;
    }}
}}
"""


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """An nginx over a folder of feeds."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    make_certificates(folder)
    (folder / "www").mkdir()
    (folder / "www/list.txt").write_bytes(LIST)
    (folder / "www/login.html").write_text("<!DOCTYPE html><title>Log in</title>")
    digest = b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    (folder / "users").write_text(f"{USER}:{{SHA}}{digest}\n")
    names = ("http", "https", "other", "expired", "misnamed", "mutual")
    ports = {name: free_port() for name in names}
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, token=TOKEN, **ports))
    with nginx_in(folder, ports.values()):
        yield Server(folder, **ports)


def body(answer: Answer) -> bytes:
    """The body of an answer, whose memory is closed."""
    assert answer.kind == "new"
    assert answer.fd is not None
    with os.fdopen(answer.fd, "rb") as file:
        data = file.read()
    assert len(data) == answer.size
    return data


def refusal(origin: FeedOrigin, validators: Validators | None = None) -> FetchError:
    """The error of a fetch that must fail, whose words are fit for a log."""
    before = memory_descriptors()
    with pytest.raises(FetchError) as caught:
        fetch(origin, validators or Validators())
    text = f"{caught.value} {caught.value!r} {origin!r}"
    for secret in (*SECRETS, "Basic ", "Bearer "):
        assert secret not in text, f"{secret} in: {text}"
    assert "\n" not in str(caught.value)
    assert memory_descriptors() <= before
    return caught.value


def memory_descriptors() -> set[tuple[int, int, int]]:
    """The pieces of memory that this process has open."""
    return descriptors("/memfd:urlward")


def read_head(connection: socket.socket) -> bytes:
    """A request up to its empty line."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


@contextmanager
def answering(
    *pieces: bytes, then: Callable[[socket.socket], None] | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """The URL of a server that sends these bytes to each request, and does something then."""

    def serve(connection: socket.socket) -> None:
        read_head(connection)
        for piece in pieces:
            connection.sendall(piece)
        if then is not None:
            then(connection)

    with RawOrigin(serve, host) as origin:
        yield f"http://{host}:{origin.port}/{PATH_KEY}?key={QUERY_KEY}"


def head(status: str = "200 OK", **fields: str | int) -> bytes:
    """The head of an answer; underscores in names are hyphens."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def drip(piece: bytes) -> Callable[[socket.socket], None]:
    """Go on sending so many bytes, each soon enough for any timeout of a socket, for ten seconds."""

    def go_on(connection: socket.socket) -> None:
        for _ in range(200):
            connection.sendall(piece)
            time.sleep(0.05)

    return go_on


def set_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies in the environment, that nothing listens on."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")


def know_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that knows addresses alone, and says so at once: the machine's may have to ask others."""
    monkeypatch.setattr(socket, "getaddrinfo", partial(socket.getaddrinfo, flags=socket.AI_NUMERICHOST))
