import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from urlward.lab import clients
from urlward.lab.clients import Got, missing, send
from urlward.lab.scenario import ScenarioRequest
from urlward.lab.services import AUTHORITY


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.headers['Host']} {self.headers['User-Agent']} {self.path}".encode()
        self.send_response(451)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(clients, "inside", lambda _machine, command: list(command))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def request(url: str, **more: object) -> ScenarioRequest:
    return ScenarioRequest.model_validate({"url": url, "expect": "pass", **more})


def test_curl_tells_what_it_has_got(port: int) -> None:
    url = f"http://a.example:{port}/%6cisted/../x?y=[1]"
    got = send("curl-1-4", request(url, to="127.0.0.1", host="b.example"), "tag/1", "client", None, "")
    assert (got.status, got.body, got.error) == (451, "b.example tag/1 /%6cisted/../x?y=[1]", "")
    assert got.local.startswith("127.0.0.1:")
    assert 0 < got.seconds < 60


@pytest.mark.parametrize(
    ("url", "told"), [("http://127.0.0.1:1/", "refused"), ("http://nowhere.invalid/", "no address")]
)
def test_curl_tells_what_it_has_met(port: int, url: str, told: str) -> None:
    assert send("curl-1-4", request(url), "t", "client", None, "").error == told


def test_whose_certificate() -> None:
    assert Got(issuer=AUTHORITY).decrypted is False
    assert Got(issuer="mitmproxy").decrypted is True
    assert Got().decrypted is None


def test_what_this_machine_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "find", lambda _name: None)
    assert "Debian package chromium" in missing("chromium", ipv6=True)
    assert missing("curl-1-6", ipv6=False) == "this kernel has no IPv6"
    assert missing("curl-1-6", ipv6=True) == ""
