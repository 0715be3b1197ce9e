"""Host states: worked out once, kept for listed hosts, and nothing kept of monstrous names."""

import pytest

from engine.support import build
from urlward.engine import hosts as module
from urlward.engine import sieve
from urlward.engine.digest import Key
from urlward.engine.entry import Kind
from urlward.engine.errors import UrlError
from urlward.engine.hosts import ALL_QUIET, QUIET, Hosts, HostState
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


def state(hosts: Hosts, host: str) -> HostState:
    (only,) = hosts.states(host)
    return only


def kinds(hosts: Hosts, host: str) -> list[int]:
    return [int(rule.shape.kind) for state in hosts.states(host) for rule in state.rules]


def test_an_unlisted_host_is_quiet(hosts: Hosts) -> None:
    assert hosts.states("fine.example") is ALL_QUIET
    assert hosts.recent["fine.example"] is ALL_QUIET


def test_a_listed_host_has_rules_and_places(hosts: Hosts) -> None:
    assert len(state(hosts, "A.Whole.test.").rules) == 1
    assert [place.host for place in state(hosts, "www.paged.test").places] == ["paged.test"]
    assert [(p.host, p.subdomains) for p in state(hosts, "x.parent.test").places] == [("parent.test", True)]
    assert len(state(hosts, "a.hop.co.uk").rules) == 1


def test_addresses(hosts: Hosts) -> None:
    assert len(hosts.address_rules("192.0.2.77")) == 1
    assert len(hosts.address_rules("::ffff:192.0.2.77")) == 1
    assert len(hosts.address_rules("2001:db8::1%eth0")) == 1
    assert hosts.address_rules("198.51.100.1") == ()
    assert hosts.address_rules("not an address") == ()
    assert len(state(hosts, "[2001:db8::1]").rules) == 1


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("whole.test:443", [Kind.DOMAIN]),
        ("whole.test:", [Kind.DOMAIN]),
        ("WHOLE.test:x", [Kind.DOMAIN]),
        ("[whole.test", [Kind.DOMAIN]),
        ("a^b.whole.test", [Kind.DOMAIN]),
        ("x\xff.whole.test", [Kind.DOMAIN] * 2),
        ("xn--zz.whole.test", [Kind.DOMAIN]),
        ("a^b.hop.co.uk", [Kind.NAME]),
        ("hop.42", [Kind.NAME]),
        ("a^b.fine.test", []),
        ("printer.42", []),
        ("999.1.1.1", []),
        ("192.0.2.999", []),
        ("..", []),
    ],
)
def test_a_name_that_no_client_could_look_up(hosts: Hosts, name: str, found: list[Kind]) -> None:
    for _ in range(2):
        assert kinds(hosts, name) == found
        assert (hosts.states(name) is ALL_QUIET) == (not found)


def test_a_strange_label_below_a_host_with_pages_for_subdomains(hosts: Hosts) -> None:
    (found,) = (state for state in hosts.states("a^b.parent.test") if state is not QUIET)
    assert [(p.host, p.subdomains) for p in found.places] == [("parent.test", True)]


def test_what_is_below_a_domain_has_its_pages_in_common(hosts: Hosts) -> None:
    (one,), (other,) = state(hosts, "x.parent.test").places, state(hosts, "y.parent.test").places
    assert one.groups
    assert one.groups is other.groups


def test_what_cannot_be_judged_in_bounded_time_is_refused(hosts: Hosts) -> None:
    for _ in range(2):
        with pytest.raises(UrlError):
            hosts.states("a b" * 1000)


def test_seen_hosts_are_bounded(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (module, sieve):
        monkeypatch.setattr(each, "MOST_RECENT", 10)
    for n in range(100):
        hosts.states(f"h{n}.example")
        assert len(hosts.recent) <= 10
    hosts.states("a." * 200 + "whole.test")
    assert len(hosts.recent) <= 10
    assert not any(len(host) > 256 for host in hosts.recent)
