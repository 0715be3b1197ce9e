import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from urlward.engine.artifact import parse
from urlward.engine.digest import Key
from urlward.engine.entry import Entry, Kind
from urlward.engine.grammar import parse_line
from urlward.engine.hosts import labels_before_suffix
from urlward.lists.build import compile_sources
from urlward.lists.source import ErrorBudget
from urlward.samples import PROTECTED, SAMPLE

RESERVED_NAMES = re.compile(r"(?:.+\.)?(?:test|example|invalid|localhost|example\.(?:com|net|org))")
# RFC 5737, RFC 3849.
RESERVED_NETWORKS = [
    ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def entries(path: Path = SAMPLE) -> list[Entry]:
    return [entry for line in path.read_text().splitlines() for entry in parse_line(line)]


@pytest.mark.parametrize("path", [SAMPLE, PROTECTED], ids=lambda path: path.stem)
def test_it_is_one_clean_list(path: Path) -> None:
    data, report = compile_sources([path], Key(bytes(32)), name=path.stem, budget=ErrorBudget.parse("0"))
    assert report.bad == 0
    assert parse(data).meta["entries"] == report.entries == len(entries(path))


def test_what_is_protected_is_whole_hosts_each_of_a_kind() -> None:
    for entry in entries(PROTECTED):
        assert entry.kind in (Kind.DOMAIN, Kind.ADDRESS, Kind.NETWORK)
        assert entry == Entry(entry.kind, entry.host, category=entry.category)
        assert entry.category in {"local", "dns", "certificates", "updates", "connectivity", "time"}


def test_nothing_protected_is_a_suffix_that_anybody_can_have_a_name_under() -> None:
    for entry in entries(PROTECTED):
        # Those of this machine and of DNS itself are whole top-level domains.
        if entry.kind == Kind.DOMAIN and entry.host not in ("localhost", "local", "internal", "arpa"):
            assert labels_before_suffix(entry.host), entry.host


def test_it_has_an_entry_of_each_kind_that_a_url_matches_and_an_allowed_one() -> None:
    assert {entry.kind for entry in entries()} == set(Kind) - {Kind.FILE}
    assert any(entry.allow for entry in entries())
    assert len({entry.id for entry in entries()}) == len(entries())


def test_it_names_nothing_that_exists() -> None:
    for entry in entries():
        if entry.kind in (Kind.ADDRESS, Kind.NETWORK):
            address = ip_address(entry.host.partition("/")[0])
            assert any(address in network for network in RESERVED_NETWORKS), entry.id
        elif entry.kind not in (Kind.NAME, Kind.PATH):
            assert RESERVED_NAMES.fullmatch(entry.host), entry.id
