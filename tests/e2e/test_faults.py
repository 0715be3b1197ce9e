"""A fault of ours never lets a request pass, unless the operator has said so."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import trust
from e2e.support import Authority, Filter, Nginx, RawOrigin, client_hello, connect, receive, running, socks

FAULTS = {
    "matcher": "urlward.engine.matcher.Matcher.check_request = urlward.engine.matcher.Matcher.check = fault",
    "connect": "urlward.engine.matcher.Matcher.check_host = urlward.proxy.guard.Guard._tls = fault",
    "address": "urlward.engine.hosts.Hosts.address_rules = fault",
    "names": "urlward.proxy.names.Place.names = fault",
    "page": "urlward.proxy.block_page.BlockPage.render = fault",
    "decide": "urlward.proxy.session.decide = fault",
    "logging": "logging.getLogger('urlward').addHandler(Broken())",
}
PRELUDE = """
import logging
import urlward.engine.matcher, urlward.proxy.names, urlward.proxy.block_page, urlward.proxy.session
def fault(*args, **kwargs):
    raise RuntimeError("http://blocked.example/listed.html")
class Broken(logging.Handler):
    def emit(self, record):
        if "block client" in record.getMessage():
            raise RuntimeError("disk full")
{}
"""


@pytest.fixture(params=[(f, o) for f in FAULTS for o in ("block", "pass")], ids="-".join)
def faulty(
    request: pytest.FixtureRequest, tmp_path: Path, authority: Authority
) -> Iterator[tuple[str, str, Filter]]:
    fault, on_error = request.param
    before = PRELUDE.format(FAULTS[fault])
    with running(
        tmp_path, "--on-error", on_error, *trust(authority), before=before, modes=("regular", "socks5")
    ) as proxy:
        yield fault, on_error, proxy


def request(url: str) -> str:
    return f"GET {url} HTTP/1.1\r\nHost: {url.split('/')[2]}\r\nConnection: close\r\n\r\n"


def test_what_becomes_of_requests(faulty: tuple[str, str, Filter], origin: Nginx, raw: RawOrigin) -> None:
    fault, on_error, proxy = faulty
    passes = on_error == "pass"
    listed = status(closed_or_answer(proxy, request(f"http://blocked.example:{raw.port}/")))
    reached = raw.connections
    answer_to_plain = status(closed_or_answer(proxy, request(f"http://plain.example:{origin.http}/")))
    with_tunnel = closed_or_answer(proxy, f"CONNECT blocked.example:{raw.port} HTTP/1.1\r\n\r\n")
    tls = relayed(proxy)
    if fault in ("page", "logging"):
        # The decision does not depend on these.
        assert (listed, reached, answer_to_plain, status(with_tunnel)) == (451, 0, 200, 200)
        assert tls
    elif fault == "decide":
        assert (listed, reached) == ((451, 0) if passes else (0, 0))
        assert answer_to_plain == (200 if passes else 0)
    elif fault == "matcher":
        assert (listed, reached, answer_to_plain) == ((200, 1, 200) if passes else (503, 0, 503))
        assert status(with_tunnel) == 200  # in which the block page is shown
    elif fault == "names":
        assert (listed, reached, answer_to_plain) == ((200, 1, 200) if passes else (503, 0, 503))
    elif fault == "connect":
        assert (listed, reached, answer_to_plain) == (451, 0, 200)
        assert status(with_tunnel) == (200 if passes else 503)
        assert tls == passes
    elif fault == "address":
        assert (listed, reached) == (451, 0)
        assert answer_to_plain == (200 if passes else 503)
        assert tls == passes
    errors = re.findall(
        r"^\S+ error client=\S+ error=RuntimeError at=\S+ count=(\d+) request=(\w+)$", proxy.log(), re.M
    )
    if fault != "logging":
        assert [int(count) for count, _ in errors] == list(range(1, len(errors) + 1)) != []
        assert {outcome for _, outcome in errors} == {"passed" if passes and fault != "page" else "blocked"}


def closed_or_answer(proxy: Filter, head: str) -> bytes:
    with connect(proxy.port) as s:
        s.sendall(head.encode())
        try:
            return s.recv(65536)
        except (TimeoutError, ConnectionError):
            return b""


def relayed(proxy: Filter) -> bool:
    """Whether TLS to an unlisted host reaches its origin."""
    with (
        RawOrigin(lambda s: s.sendall(s.recv(65536))) as origin,
        socks(proxy.ports[1], "127.0.0.1", origin.port) as s,
    ):
        s.sendall(client_hello("plain.example"))
        try:
            return receive(s, 6)[5:6] == b"\x01"  # our own ClientHello: an alert has another type
        except ConnectionError:
            return False


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0
