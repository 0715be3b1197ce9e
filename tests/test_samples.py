import re
from ipaddress import ip_address, ip_network

from urlward.engine.artifact import parse
from urlward.engine.digest import Key
from urlward.engine.entry import Entry, Kind
from urlward.engine.grammar import parse_line
from urlward.lists.build import compile_sources
from urlward.lists.source import Budget
from urlward.samples import SAMPLE

RESERVED_NAMES = re.compile(r"(?:.+\.)?(?:test|example|invalid|localhost|example\.(?:com|net|org))")
# RFC 5737, RFC 3849.
RESERVED_NETWORKS = [
    ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def entries() -> list[Entry]:
    return [entry for line in SAMPLE.read_text().splitlines() for entry in parse_line(line)]


def test_the_sample_is_one_clean_list() -> None:
    data, report = compile_sources([SAMPLE], Key(bytes(32)), name="sample", budget=Budget.parse("0"))
    assert report.bad == 0
    assert parse(data).meta["entries"] == report.entries == len(entries())


def test_it_has_an_entry_of_each_kind_and_an_allowed_one() -> None:
    assert {entry.kind for entry in entries()} == set(Kind)
    assert any(entry.allow for entry in entries())
    assert len({entry.id for entry in entries()}) == len(entries())


def test_it_names_nothing_that_exists() -> None:
    for entry in entries():
        if entry.kind in (Kind.ADDRESS, Kind.NETWORK):
            address = ip_address(entry.host.partition("/")[0])
            assert any(address in network for network in RESERVED_NETWORKS), entry.id
        elif entry.kind not in (Kind.NAME, Kind.PATH):
            assert RESERVED_NAMES.fullmatch(entry.host), entry.id
