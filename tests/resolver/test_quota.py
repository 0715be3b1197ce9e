import pytest

from urlward.dns.policy import MOST, Quota


def several(count: int, first: int = 0) -> list[str]:
    return [f"2001:db8::{i:x}" for i in range(first, first + count)]


def test_a_domain_has_so_many_addresses_whatever_its_names(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    quota = Quota(lambda: now)
    assert quota.take("a.listed.example", several(MOST - 1), 100) == several(MOST - 1)
    assert quota.take("b.c.listed.example", several(10, MOST), 100) == several(1, MOST)
    assert quota.take("listed.example", several(10, 2 * MOST), 100) == []
    assert quota.take("listed.example", several(3), 100) == several(3), "those that it has"
    assert len(caplog.messages) == 1
    assert "listed.example" not in caplog.text
    assert quota.take("other.example", several(10), 100) == several(10)
    assert quota.take("xlisted.example", several(10), 100) == several(10)
    now = 101.0
    assert quota.take("listed.example", several(10, 2 * MOST), 100) == several(10, 2 * MOST)


def test_hosts_without_a_registrable_domain() -> None:
    quota = Quota()
    for host in ("example", "co.uk", "_", "a._"):
        assert quota.take(host, several(3), 100) == several(3)
