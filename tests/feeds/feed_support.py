"""What the feeds' tests share: a real nginx that can be made to fail, and feeds of it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import free_port
from e2e.support import make_authority
from lists.support import SECRET, key_file
from nginx_log import AccessLog, nginx_in
from urlward.config import Config, FeedTable
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.feeds.feed import Outcome
from urlward.feeds.refresh import refresh
from urlward.feeds.store import Facts, FeedStore
from urlward.state.folder import local_key

NGINX = """
daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    log_format seen '$status $request_uri "$http_authorization" "$http_if_none_match" "$http_range"';
    access_log {folder}/access.log seen;
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    ssl_certificate {folder}/origin.pem;
    ssl_certificate_key {folder}/origin.key;
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        root {folder}/www;
        set $retry "";
        add_header Retry-After $retry always;
        location = /login.html {{ }}
        location / {{
            if (-f {folder}/fault/302) {{ return 302 /login.html; }}
            if (-f {folder}/fault/401) {{ return 401; }}
            if (-f {folder}/fault/403) {{ return 403; }}
            if (-f {folder}/fault/429) {{ set $retry 7200; return 429; }}
            if (-f {folder}/fault/500) {{ return 500; }}
            if (-f {folder}/fault/slow) {{ set $limit_rate 10; }}
        }}
        location /fresh/ {{ add_header Cache-Control "max-age=30000"; }}
        location /private/ {{ auth_basic "lists"; auth_basic_user_file {folder}/users; }}
    }}
}}
"""


@dataclass
class Server:
    """An nginx over a folder of files."""

    folder: Path
    http: int
    https: int
    _puts: int = 0
    _running: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.log = AccessLog(self.folder / "access.log", self.http)

    def put(self, name: str, content: bytes | str) -> None:
        """Replace a file, as a list body would: at once, and with another validator."""
        path = self.folder / "www" / name
        path.parent.mkdir(exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        self._puts += 1
        # What nginx calls a content by is its size and the second that it is of.
        os.utime(new, (self._puts, 1_700_000_000 + self._puts))
        new.replace(path)

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        path = self.folder / "fault" / name
        path.touch()
        try:
            yield
        finally:
            path.unlink()

    def seen(self) -> list[str]:
        """Status and target of each request since this was last asked."""
        return self.log.new()

    def url(self, name: str = "feed", *, tls: bool = False) -> str:
        scheme, port = ("https", self.https) if tls else ("http", self.http)
        return f"{scheme}://127.0.0.1:{port}/{name}"

    def start(self) -> None:
        self._running.enter_context(nginx_in(self.folder, (self.http, self.https)))

    def stop(self) -> None:
        self._running.close()


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    (folder / "www").mkdir(parents=True)
    (folder / "fault").mkdir()
    (folder / "users").write_text("reader:{PLAIN}open sesame\n")
    make_authority(folder, ["lists.example"])
    made = Server(folder, free_port(), free_port())
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, http=made.http, https=made.https))
    made.put("login.html", "<!DOCTYPE html><title>Log in</title>\n")
    made.start()
    try:
        yield made
    finally:
        made.stop()


@dataclass
class Feed:
    """A feed with its store and a clock of its own."""

    table: FeedTable
    state: Path
    config: Config
    now: float = 1_800_000_000.0

    @property
    def store(self) -> FeedStore:
        return FeedStore(self.state, self.table.name)

    @property
    def facts(self) -> Facts:
        return self.store.facts()

    def refresh(self, **changes: Any) -> Outcome:
        """Refresh, a minute later."""
        self.now += 60
        table = self.table.model_copy(update=changes)
        return refresh(table, self.config, self.state, now=self.now, random=lambda: 0.5)

    def blocks(self, host: str) -> bool:
        """Whether the stored list blocks a host."""
        data = self.store.path.read_bytes()
        for key in (local_key(self.state), Key(SECRET)):
            try:
                loaded = load(data, key)
            except Exception:
                continue
            return Matcher([loaded]).check_url(f"http://{host}/").blocked
        raise AssertionError("under no key")


def feed(tmp_path: Path, **keys: Any) -> Feed:
    table = FeedTable(**{"name": "phish", "timeout": 60.0, "connect_timeout": 30.0} | keys)
    key = key_file(tmp_path / "lists.key")
    return Feed(table, tmp_path / "state", Config(key=str(key), feed=(table,)))


def hosts(*numbers: int) -> str:
    """A list of so many hosts."""
    return "".join(f"h{n}.example\n" for n in numbers)
