"""A fault of ours never lets a request pass, unless the operator has said so."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.conftest import trust
from e2e.support import Authority, Filter, Nginx, RawOrigin, client_hello, connect, receive, running, socks

FAULTS = {
    "matcher": (
        ("urlward.engine.matcher.Matcher", "check_request"),
        ("urlward.engine.matcher.Matcher", "check"),
    ),
    "connect": (("urlward.engine.matcher.Matcher", "check_host"), ("urlward.proxy.guard.Guard", "_tls")),
    "address": (("urlward.engine.hosts.Hosts", "address_rules"),),
    "names": (("urlward.proxy.names.Place", "names"),),
    "page": (("urlward.proxy.block_page.BlockPage", "render"),),
    "decide": (("urlward.proxy.session", "decide"),),
    "logging": (),
}
"""What breaks: attributes of modules and classes."""

PRELUDE = """
import logging
from pathlib import Path
from pkgutil import resolve_name
def is_broken(fault):
    return Path({file!r}).read_text() == fault
def breaks(fault, owner, name):
    real = getattr(owner, name)
    def called(*args, **kwargs):
        if is_broken(fault):
            raise RuntimeError("http://blocked.example/listed.html")
        return real(*args, **kwargs)
    setattr(owner, name, called)
for fault, places in {faults!r}.items():
    for owner, name in places:
        breaks(fault, resolve_name(owner), name)
class Broken(logging.Handler):
    def emit(self, record):
        if is_broken("logging") and "block client" in record.getMessage():
            raise RuntimeError("disk full")
logging.getLogger("urlward").addHandler(Broken())
"""


@pytest.fixture(scope="module", params=["block", "pass"])
def filtering(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[tuple[str, Path, Filter]]:
    """What `on_error` says, the file that names what is broken, and the filter."""
    folder = tmp_path_factory.mktemp("faulty")
    (file := folder / "fault").write_text("")
    before = PRELUDE.format(file=str(file), faults=FAULTS)
    with running(
        folder, "--on-error", request.param, *trust(authority), before=before, modes=("regular", "socks5")
    ) as proxy:
        yield request.param, file, proxy


def request(url: str) -> str:
    return f"GET {url} HTTP/1.1\r\nHost: {url.split('/')[2]}\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("fault", FAULTS)
def test_what_becomes_of_requests(
    filtering: tuple[str, Path, Filter], origin: Nginx, raw: RawOrigin, fault: str
) -> None:
    on_error, file, proxy = filtering
    passes = on_error == "pass"
    file.write_text(fault)
    connections, before, hits = raw.connections, len(errors_of(proxy)), proxy.log().count(" entry=E-2 ")
    listed = status(closed_or_answer(proxy, request(f"http://blocked.example:{raw.port}/")))
    reached = raw.connections - connections
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
    # What is logged comes by and by: behind all of it, another hit.
    file.write_text("")
    assert status(closed_or_answer(proxy, request("http://paged.example/listed.html"))) == 451
    wait_for(lambda: proxy.log().count(" entry=E-2 ") > hits, "the log")
    errors = errors_of(proxy)[before:]
    if fault != "logging":
        counts = [int(count) for count, _ in errors]
        assert counts == [*range(counts[0], counts[0] + len(errors))]
        assert {outcome for _, outcome in errors} == {"passed" if passes and fault != "page" else "blocked"}


def errors_of(proxy: Filter) -> list[tuple[str, str]]:
    """Number of each error in the log, and what became of its request."""
    line = r"^\S+ error client=\S+ error=RuntimeError at=\S+ count=(\d+) request=(\w+)$"
    return re.findall(line, proxy.log(), re.M)


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
