"""Hosts that mitmproxy reads in a request line and in ``:authority``."""

import pytest
from mitmproxy import http
from mitmproxy.net.http import url
from mitmproxy.net.http.http1.read import read_request_head

from proxy.driver import make_context, make_matcher
from urlward.proxy.mitm import take_hosts_as_sent
from urlward.proxy.names import names_of


@pytest.fixture(autouse=True)
def patched() -> None:
    take_hosts_as_sent()
    take_hosts_as_sent()


def read(line: str) -> http.Request:
    return read_request_head([line.encode("latin-1"), b"Host: plain.example"])


@pytest.mark.parametrize(
    "host", ["xn--strae-oqa.test", "xn--1ug.test", "xn--zz.test", "printer.42", "a^b.test", "plain.test"]
)
def test_a_host_that_the_guard_can_judge(host: str) -> None:
    assert read(f"CONNECT {host}:443 HTTP/1.1").host == host
    found = read(f"GET http://{host}:81/a HTTP/1.1")
    assert (found.host, found.port, found.path) == (host, 81, "/a")
    assert url.parse_authority(host.encode(), check=True) == (host, None)


@pytest.mark.parametrize(
    "host",
    ["a b.test", "u@a.test", "a:b", "a\xff.test", "a..test", "a" * 64 + ".test", ""],
)
def test_what_is_refused_as_before(host: str) -> None:
    for line in (f"CONNECT {host}:443 HTTP/1.1", f"GET http://{host}:81/ HTTP/1.1"):
        with pytest.raises(ValueError, match="Bad HTTP request line"):
            read(line)
    with pytest.raises(ValueError):
        url.parse_authority(f"{host}:99999".encode("latin-1"), check=True)
    url.parse_authority(host.encode("latin-1"), check=False)


def test_a_name_that_mitmproxy_decodes_is_judged_as_it_was_sent() -> None:
    """An exception on it holds, which it would not for bytes beyond ASCII."""
    context, found = make_context(), make_matcher("whole.test", "@@münchen.whole.test")
    for line in ("CONNECT xn--mnchen-3ya.whole.test:443", "GET http://xn--mnchen-3ya.whole.test/"):
        request = read(f"{line} HTTP/1.1")
        assert request.host == "münchen.whole.test"
        context.server.address = (request.host, 443)
        names = names_of(request, context)
        assert names.hosts == ("plain.example", "xn--mnchen-3ya.whole.test")
        assert not any(found.check_host(host).blocked for host in names.hosts)
