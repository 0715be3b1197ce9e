"""Policy routing for `keep_source`: put there, looked at, taken away."""

import io
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from urlward import cli
from urlward.engine.errors import UrlwardError
from urlward.gateway.netlink import rules_changed
from urlward.gateway.routing import PREFERENCE, TABLE, Routing, commands
from urlward.gateway.table import MARK

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
    """Run a command line in this process, and so in its network."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as raised:
        cli.main([*map(str, arguments)])
    return subprocess.CompletedProcess(arguments, int(raised.value.code or 0), out.getvalue(), err.getvalue())


def test_up_and_down(routing: Routing) -> None:
    before = all_of_it()
    routing.down()
    assert routing.fault() is not None
    assert routing.up()
    assert not routing.up(), "all of it is there"
    assert routing.fault() is None
    made = all_of_it()
    assert sum(f"{PREFERENCE}:" in one for one in made) == sum(f"table {TABLE}" in one for one in made) == 2
    routing.down()
    assert all_of_it() == before


def test_as_the_commands_that_are_shown(routing: Routing) -> None:
    before = all_of_it()
    for line in commands():
        ip(line)
    assert routing.fault() is None
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
    assert routing.fault() is not None
    assert routing.up()
    assert all_of_it() == made


BEFORE_OURS = (
    "not fwmark 0xca6c lookup 51820",  # as wg-quick adds it
    "table main suppress_prefixlength 0",
    "from all lookup 100",
    "iif lan0 lookup 100",
    "from FROM lookup 100",
    "to TO prohibit",
    "ipproto tcp blackhole",
    "fwmark 0x1/0xff lookup 100",
    "fwmark 0x1000000/0x1000000 iif lan0 lookup 100",
    "not fwmark 0x1000000/0x1000000 iif lan0 lookup 100",
    "from all lookup 100 pref 50",
    "from all lookup 100 pref 1",
)
HARMLESS = (
    "fwmark 0x2000000/0x3000000 lookup 100",
    "not fwmark 0x1000000/0x1000000 lookup 100",
    "from all lookup local pref 5",
    "from all nop pref 5",
    f"iif lan0 lookup {TABLE} pref 5",
    f"from all lookup 100 pref {PREFERENCE}",  # after ours
    f"from all lookup 100 pref {PREFERENCE + 1}",
)


def in_family(version: str, rule: str) -> str:
    """A rule with addresses of a family."""
    addresses = (
        ("2001:db8:1::/64", "2001:db8::/32") if version.endswith("6") else ("192.0.2.0/26", "198.51.100.0/24")
    )
    return rule.replace("FROM", addresses[0]).replace("TO", addresses[1])


def places(version: str) -> list[int]:
    """Preferences of our rules."""
    return [
        int(line.split(":")[0])
        for line in ip(f"{version} rule").splitlines()
        if f"lookup {TABLE} proto" in line
    ]


@pytest.mark.parametrize("rule", BEFORE_OURS)
@pytest.mark.parametrize("version", ["ip", "ip -6"])
def test_a_rule_of_others_does_not_come_before_ours(routing: Routing, version: str, rule: str) -> None:
    routing.up()
    made = all_of_it()
    rule = in_family(version, rule)
    ip(f"{version} rule add {rule}")
    assert "takes filtered traffic: move it behind 90" in (routing.fault() or "")
    assert routing.up().startswith("somebody's routing rule ")
    assert routing.fault() is None
    (place,) = places(version)
    before = [line for line in ip(f"{version} rule").splitlines() if int(line.split(":")[0]) <= place]
    assert len(before) == 2, "that of the table local, and ours"
    assert not routing.up()
    ip(f"{version} rule del {rule}")
    assert not routing.up()
    assert all_of_it() == made, "where it was"


@pytest.mark.parametrize("rule", HARMLESS)
def test_what_cannot_take_marked_packets_is_left_before_ours(routing: Routing, rule: str) -> None:
    routing.up()
    for version in ("ip", "ip -6"):
        ip(f"{version} rule add {rule}")
    made = all_of_it()
    assert routing.fault() is None
    assert not routing.up()
    assert all_of_it() == made


def test_one_after_the_other(routing: Routing) -> None:
    """As two tunnels are begun, whose rules rely on their own order."""
    routing.up()
    for _ in range(2):
        ip("ip rule add not fwmark 0xca6c lookup 51820")
        routing.up()
        ip("ip rule add table main suppress_prefixlength 0")
        routing.up()
    assert places("ip") == [PREFERENCE - 8]
    assert [line.split("\t")[1] for line in ip("ip rule").splitlines()[2:6]] == [
        "from all lookup main suppress_prefixlength 0",
        "not from all fwmark 0xca6c lookup 51820",
    ] * 2
    routing.down()
    assert places("ip") == places("ip -6") == []


def test_one_that_is_there_already(routing: Routing) -> None:
    ip(f"ip rule add pref {PREFERENCE} lookup 100")
    routing.up()
    assert (routing.fault(), places("ip"), places("ip -6")) == (None, [PREFERENCE - 1], [PREFERENCE])
    ip("ip rule add pref 1 lookup 100")
    routing.up()
    ip("ip rule add pref 0 lookup 100")
    assert not routing.up()
    ip("ip rule del pref 1")
    assert not routing.up()
    assert (routing.fault(), places("ip")) == (None, [0]), "still before what is at the same place"


@pytest.mark.parametrize("version", ["ip", "ip -6"])
def test_a_change_of_rules_is_heard(routing: Routing, version: str) -> None:
    with rules_changed() as news:
        with pytest.raises(BlockingIOError):
            news.recv(1)
        for how in ("add", "del"):
            ip(f"{version} rule {how} pref 40000 lookup 100")
            assert news.recv(1 << 16)


def test_what_was_left_half_way(routing: Routing) -> None:
    routing.up()
    made = all_of_it()
    for place in (40, 60):
        ip(f"ip rule add pref {place} fwmark {MARK:#x}/{MARK:#x} lookup {TABLE} proto 213")
    assert not routing.up()
    assert all_of_it() == made


@pytest.mark.parametrize("before", [True, False])
def test_a_rule_that_nothing_can_come_before_is_said(routing: Routing, before: bool) -> None:
    if not before:
        routing.up()
    ip("ip -6 rule add pref 0 lookup 100")
    with pytest.raises(UrlwardError, match="another's rule 0 takes filtered traffic: move it behind 90"):
        routing.up()
    assert places("ip -6") == [0]
    ip("ip -6 rule del pref 0 lookup 100")
    routing.up()
    assert places("ip -6") == [PREFERENCE]


def test_without_a_way_into_this_machine(routing: Routing) -> None:
    ip("ip link set lo down")
    with pytest.raises(UrlwardError, match="routing: lo is down"):
        routing.up()


def test_without_ipv6(routing: Routing) -> None:
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    assert routing.up()
    assert routing.fault() is None
    routing.down()
    assert routing.fault() is not None


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
        ip("ip rule add pref 0 lookup 100")
        status = urlward("gateway", "status")
        assert "routes fault        routing: another's rule 0 takes filtered traffic" in status.stdout
        assert urlward("gateway", "up", "--config", config).stderr.startswith(
            "urlward: routing: another's rule 0"
        )
        ip("ip rule del pref 0 lookup 100")
        assert urlward("gateway", "down").returncode == 0
        assert (all_of_it(), ip("nft list ruleset")) == (before, "")
        up("true")
        assert up("false").returncode == 0
        assert all_of_it() == before, "rules that mark nothing need none"
        assert urlward("gateway", "down").returncode == 0
        ip("ip rule add pref 0 lookup 100")
        before = all_of_it()
        assert up("true").returncode == 2
        assert (all_of_it(), ip("nft list ruleset")) == (before, ""), "what is refused leaves nothing"
        ip("ip rule del pref 0 lookup 100")
        up("false")
        assert "routes              -" in urlward("gateway", "status").stdout
