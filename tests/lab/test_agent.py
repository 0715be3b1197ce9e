import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from urlward.lab.agent import Agent
from urlward.lab.services import AUTHORITY, make_certificates


class Server(ThreadingHTTPServer):
    asked: list[tuple[str, str, str]]
    go_on: threading.Event


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.headers["Host"], self.path, self.headers["User-Agent"]))
        slow = self.path.startswith("/slow/")
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"01234" if slow else b"0123456789")
        if slow:
            self.server.go_on.wait(60)
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.asked, made.go_on = [], threading.Event()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.go_on.set()
    made.shutdown()
    made.server_close()


def url(server: Server, path: str = "/a?b=1") -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_a_request(server: Server) -> None:
    answer = Agent().do_ask(url(server), 4, "tag/1", host="other.example")
    assert (answer["status"], answer["body"]) == (200, "0123456789")
    assert answer["local"][0] == "127.0.0.1"
    assert server.asked == [("other.example", "/a?b=1", "tag/1")]


def test_over_tls_it_says_whose_certificate_it_is(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = make_certificates(tmp_path, ["a.example"], ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.origin, certificates.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    address = url(server).replace("http:", "https:")
    assert Agent().do_ask(address, 4, "t")["issuer"] == AUTHORITY
    named = Agent().do_ask(f"https://a.example:{server.server_port}/", 4, "t", to="127.0.0.1")
    assert named["status"] == 200
    wrong = Agent().do_ask(f"https://b.example:{server.server_port}/", 4, "t", to="127.0.0.1")
    assert wrong["error"].startswith("tls: ")


def test_a_connection_is_kept(server: Server) -> None:
    agent = Agent()
    first = agent.do_ask(url(server), 4, "t/1", keep="k")
    second = agent.do_ask(url(server, "/c"), 4, "t/2", keep="k")
    assert first["local"] == second["local"]
    assert [path for _, path, _ in server.asked] == ["/a?b=1", "/c"]


def test_a_download_is_watched(server: Server) -> None:
    agent = Agent()
    assert agent.do_ask(url(server, "/slow/x"), 4, "t", keep="k", stream=True)["status"] == 200
    wait_for(lambda: agent.do_stream("k")["bytes"], "bytes to come")
    wait_for(lambda: agent.do_stream("k", seconds=0.1)["more"] == 0, "head and beginning to be read")
    assert agent.do_stream("k")["ended"] == ""
    server.go_on.set()
    wait_for(lambda: agent.do_stream("k")["ended"] == "closed", "the end")
    assert "error" in agent.do_stream("other")


def test_bytes_of_its_own(server: Server) -> None:
    answer = Agent().do_ask(
        url(server), 4, "tag/9", raw="GET /raw HTTP/1.1\r\nHost: x\r\nUser-Agent: {tag}\r\n\r\n"
    )
    assert answer["status"] == 200
    assert server.asked == [("x", "/raw", "tag/9")]


@pytest.mark.parametrize("fresh", [True, False])
def test_samples(server: Server, fresh: bool) -> None:
    samples = Agent().do_sample(url(server), 4, 60, fresh=fresh, count=20)["samples"]
    assert len(samples) == 20
    assert all(status == 200 and milliseconds > 0 for _, milliseconds, status in samples)


def test_what_goes_wrong_is_an_answer() -> None:
    agent = Agent()
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))  # where nobody listens, nor can
        address = f"http://127.0.0.1:{one.getsockname()[1]}/"
        assert agent.answer({"do": "ask", "url": address, "family": 4, "tag": "t"}) == {"error": "refused"}
    assert agent.answer({"do": "ask", "url": "http://nowhere.invalid/", "family": 4, "tag": "t"}) == {
        "error": "no address"
    }
