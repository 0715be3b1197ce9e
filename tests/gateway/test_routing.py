"""Policy routing for `keep_source`: put there, looked at, taken away."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from urlward.gateway.errors import GatewayError
from urlward.gateway.routing import PREFERENCE, TABLE, Routing, commands

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")


@pytest.fixture
def routing() -> Iterator[Routing]:
    with own_network():
        made = Routing()
        yield made
        made.close()


def ip(line: str) -> str:
    return subprocess.run(line.split(), check=True, capture_output=True, text=True).stdout


def all_of_it() -> list[str]:
    return [
        ip(f"{version} {what}") for version in ("ip", "ip -6") for what in ("rule", "route show table all")
    ]


def urlward(*arguments: object) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "urlward", *map(str, arguments)]
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)


def test_up_and_down(routing: Routing) -> None:
    before = all_of_it()
    routing.down()
    assert not routing.delivers()
    assert routing.up()
    assert not routing.up(), "all of it is there"
    assert routing.delivers()
    made = all_of_it()
    assert sum(f"{PREFERENCE}:" in one for one in made) == sum(f"table {TABLE}" in one for one in made) == 2
    routing.down()
    assert all_of_it() == before


def test_as_the_commands_that_are_shown(routing: Routing) -> None:
    before = all_of_it()
    for line in commands():
        ip(line)
    assert routing.delivers()
    made = all_of_it()
    assert not routing.up()
    assert all_of_it() == made
    routing.down()
    assert all_of_it() == before


@pytest.mark.parametrize(
    "wrong",
    [
        f"ip rule del pref {PREFERENCE}",
        f"ip -6 rule del pref {PREFERENCE}",
        f"ip route flush table {TABLE}",
        f"ip -6 route flush table {TABLE}",
    ],
)
def test_what_is_missing_is_put_back(routing: Routing, wrong: str) -> None:
    routing.up()
    made = all_of_it()
    ip(wrong)
    assert not routing.delivers()
    assert routing.up()
    assert all_of_it() == made


def test_a_rule_of_others_that_comes_first_is_said(routing: Routing) -> None:
    ip(f"ip rule add pref {PREFERENCE - 1} lookup 100")
    ip("ip route add unreachable default table 100")
    with pytest.raises(GatewayError, match="others' rules before 90 take what has the mark 0x1000000"):
        routing.up()


def test_without_a_way_into_this_machine(routing: Routing) -> None:
    ip("ip link set lo down")
    with pytest.raises(GatewayError, match="routing: lo is down"):
        routing.up()


def test_without_ipv6(routing: Routing) -> None:
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    assert routing.up()
    assert routing.delivers()
    routing.down()
    assert not routing.delivers()


def test_the_commands_leave_nothing_behind(tmp_path: Path) -> None:
    config = tmp_path / "net.toml"

    def up(keeps: str) -> "subprocess.CompletedProcess[str]":
        config.write_text(f'[gateway]\ninterfaces = ["lan0"]\nkeep_source = {keeps}\n')
        return urlward("gateway", "up", "--config", config)

    with own_network():
        before = all_of_it()
        assert "source kept" in up("true").stdout
        made = all_of_it()
        assert made != before
        assert up("true").returncode == 0
        assert all_of_it() == made, "again"
        shown = urlward("gateway", "print", "--config", config).stdout
        assert all(line in shown for line in commands())
        status = urlward("gateway", "status")
        assert "routes              yes" in status.stdout
        assert "source kept" in status.stdout
        ip(f"ip rule del pref {PREFERENCE}")
        status = urlward("gateway", "status")
        assert "routes              no" in status.stdout
        assert urlward("gateway", "down").returncode == 0
        assert (all_of_it(), ip("nft list ruleset")) == (before, "")
        up("true")
        assert up("false").returncode == 0
        assert all_of_it() == before, "rules that mark nothing need none"
        assert "routes              -" in urlward("gateway", "status").stdout
