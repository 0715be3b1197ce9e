"""``urlward run --steer`` behind the kernel's rules, in namespaces: how it begins and ends."""

import signal
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import pytest

from conftest import wait_for
from e2e.steer_support import (
    address,
    alive,
    ask,
    command,
    configure,
    elements,
    get,
    resolving,
    steering,
    while_alive,
)
from e2e.support import ENDS_WITHIN
from e2e.test_modes import may_make_namespaces
from gateway.network import IPV4, IPV6, Network

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with resolving(tmp_path_factory.mktemp("steer"), "ends") as made:
        yield made


def test_without_rules(net: Network, tmp_path: Path) -> None:
    found = command(net, "run", "--config", str(configure(tmp_path)))
    assert (found.returncode, found.stderr) == (
        2,
        "urlward: no rules in the kernel: run `urlward gateway up` first\n",
    )


def refused(net: Network, where: str) -> bool:
    try:
        get(net, where, "blocked.example")
    except ConnectionRefusedError:
        return True
    return False


def test_closed_from_the_start_of_the_rules_and_over_a_restart(net: Network, tmp_path: Path) -> None:
    """As `systemctl restart` has it, with a client that does not ask again; the rules stay by default."""
    config = str(configure(tmp_path, more := 'fail = "closed"'))
    assert command(net, "gateway", "up", "--config", config).returncode == 0
    for f in (IPV4, IPV6):
        assert refused(net, f.origin), "before there is a worker"
    with pytest.raises(dns.exception.Timeout):
        ask(net, "blocked.example", timeout=0.5)
    told = (IPV4.origin, IPV6.origin)

    def statuses() -> list[int]:
        return [get(net, where, "blocked.example") for where in told]

    with steering(net, tmp_path, workers=1, more=more) as proxy:
        assert address(ask(net, "blocked.example")) == told[0]
        assert address(ask(net, "blocked.example", "AAAA")) == told[1]
        assert while_alive(net, statuses) == [451, 451]
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.process.wait(ENDS_WITHIN) == 0
        assert command(net, "gateway", "down", "--if-stopped", "--config", config).stdout == "rules kept\n"
        wait_for(lambda: not alive(net), "the kernel to notice")
        assert all(refused(net, where) for where in (*told, IPV4.other))
        for name in ("blocked.example", "paged.example"):
            with pytest.raises(dns.exception.Timeout):
                ask(net, name, timeout=0.5)
        with steering(net, tmp_path, workers=1, more=more):
            assert while_alive(net, statuses) == [451, 451]


def test_the_end_harms_nobody(net: Network, tmp_path: Path) -> None:
    """Neither a query nor an unlisted connection fails while the filter ends, and after."""
    dns_more = f'listed_hosts = "page"\npage_addresses = ["{IPV4.lan}"]'
    with steering(net, tmp_path, workers=1, more='steered = "intercept"', dns_more=dns_more) as proxy:
        where = address(ask(net, "blocked.example"))
        assert where == IPV4.lan
        assert while_alive(net, lambda: get(net, where, "blocked.example")) == 451
        # The gateway's own services are not shown.
        assert while_alive(net, lambda: get(net, where, "plain.example")) == 403
        assert "(transparent@8090)" in proxy.log()
        assert address(ask(net, "paged.example")) in elements(net, "steer4")
        proxy.process.send_signal(signal.SIGTERM)
        ended = False
        while not ended:
            ended = proxy.process.poll() is not None
            assert address(ask(net, "plain.example")) == IPV4.other
            assert net.says(IPV4.other, 80).startswith("origin ")
        assert not alive(net)
        assert proxy.process.returncode == 0
