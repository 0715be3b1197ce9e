"""Host states: worked out once, kept for listed hosts, and nothing kept of monstrous names."""

import pytest

from engine.support import build
from urlward.engine import hosts as module
from urlward.engine.digest import Key
from urlward.engine.errors import UrlError
from urlward.engine.hosts import QUIET, Hosts
from urlward.engine.loaded import load

SECRET = bytes(range(32))
LINES = [
    "whole.test id=1",
    "http://paged.test/a id=2",
    "http://parent.test/a subdomains id=3",
    "hop.* id=4",
    "192.0.2.0/24 id=5",
    "2001:db8::/32 id=6",
]


@pytest.fixture
def hosts() -> Hosts:
    key = Key(SECRET)
    return Hosts([load(build(LINES, key), key)], 100)


def kinds(hosts: Hosts, host: str) -> list[int]:
    return [int(rule.shape.kind) for rule in hosts.state(host).rules]


def test_an_unlisted_host_is_quiet(hosts: Hosts) -> None:
    assert hosts.state("fine.example") is QUIET
    assert hosts.recent["fine.example"] is QUIET


def test_a_listed_host_has_rules_and_places(hosts: Hosts) -> None:
    assert len(hosts.state("A.Whole.test.").rules) == 1
    assert [place.host for place in hosts.state("www.paged.test").places] == ["paged.test"]
    assert [(p.host, p.subdomains) for p in hosts.state("x.parent.test").places] == [("parent.test", True)]
    assert len(hosts.state("a.hop.co.uk").rules) == 1


def test_addresses(hosts: Hosts) -> None:
    assert len(hosts.address_rules("192.0.2.77")) == 1
    assert len(hosts.address_rules("::ffff:192.0.2.77")) == 1
    assert len(hosts.address_rules("2001:db8::1%eth0")) == 1
    assert hosts.address_rules("198.51.100.1") == ()
    assert hosts.address_rules("not an address") == ()
    assert len(hosts.state("[2001:db8::1]").rules) == 1


def test_what_is_no_host_is_refused_each_time(hosts: Hosts) -> None:
    for _ in range(2):
        with pytest.raises(UrlError):
            hosts.state("a b")


def test_seen_hosts_are_bounded(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RECENT", 10)
    for n in range(100):
        hosts.state(f"h{n}.example")
        assert len(hosts.recent) <= 10
    hosts.state("a." * 200 + "whole.test")
    assert len(hosts.recent) <= 10
    assert not any(len(host) > 256 for host in hosts.recent)
