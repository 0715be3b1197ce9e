import fcntl
import json
from dataclasses import replace
from ipaddress import ip_address
from threading import Event, Thread
from typing import Any

import pytest

from e2e.test_modes import may_make_namespaces
from urlward import cli
from urlward.config import GatewayTable
from urlward.config.problem import SettingError
from urlward.engine.errors import UrlwardError
from urlward.gateway import control, system
from urlward.gateway.nft import Nft
from urlward.gateway.rules import RulesPlan, setup_of
from urlward.gateway.system import NamespaceLock
from urlward.gateway.table import NftError, NoTableError

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")

PLAN = RulesPlan(GatewayTable(interfaces=("lan0",), steer=True), 8080)


def test_up_and_down(nft: Nft) -> None:
    assert control.status(nft).setup is None
    assert control.up(nft, PLAN) is False
    assert control.up(nft, PLAN) is True
    found = control.status(nft)
    assert (found.setup, found.alive) == (setup_of(PLAN), False)
    nft.run("add table inet urlward { flags dormant; }")
    assert control.status(nft).setup is None, "no packet comes there"
    control.up(nft, PLAN)
    assert control.status(nft) == found
    control.down(nft)
    control.down(nft)
    assert nft.json("list ruleset") == []


def test_one_changes_the_rules_at_a_time(nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    """From what it reads of them to the last of its changes; who looks, and workers' words, wait for none."""
    other, locked = NamespaceLock(), list[bool]()
    run, listing = nft.run, control._listing

    def is_locked() -> None:
        locked.append(not other._try())
        if not locked[-1]:
            fcntl.flock(other._file, fcntl.LOCK_UN)

    def running(commands: str) -> None:
        is_locked()
        run(commands)

    def listed(one: Nft) -> list[dict[str, Any]]:
        is_locked()
        return listing(one)

    monkeypatch.setattr(nft, "run", running)
    monkeypatch.setattr(control, "_listing", listed)
    control.up(nft, PLAN)
    control.down(nft)
    assert locked == [True] * 5
    with pytest.raises(SettingError, match="say where clients come in"):
        control.up(nft, replace(PLAN, gateway=GatewayTable()))
    assert other._try(), "one that fails leaves its turn to the next"
    with other.taken():
        assert control.status(nft).setup is None
        nft.run("add table inet other; delete table inet other")
    other.close()


def test_status_says_what_nftables_does_not_show(
    nft: Nft, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    control.up(nft, PLAN)
    monkeypatch.setattr(system, "unseen_rules", lambda: ["iptables-legacy has rules"])
    with pytest.raises(SystemExit):
        cli.main(["gateway", "status", "--json"])
    assert json.loads(capsys.readouterr().out)["firewalls"] == ["iptables-legacy has rules"]


def test_status_counts(nft: Nft) -> None:
    control.up(nft, PLAN)
    nft.run("add element inet urlward steer4 { 192.0.2.1 timeout 60s, 192.0.2.2 timeout 60s }")
    nft.run("add element inet urlward listed6 { 2001:db8::/32 }")
    nft.run("add element inet urlward cut6 { 2001:db8::1 timeout 60s }")
    nft.run("add element inet urlward alive { 6 timeout 60s, 17 timeout 60s }")
    found = control.status(nft).as_json()
    assert (found["up"], found["alive"], found["setup"]["listen"]) == (True, True, 8080)
    assert found["steered"] == {"ipv4": 2, "ipv6": 0}
    assert found["listed"] == {"ipv4": 0, "ipv6": 1}
    assert found["cut"] == {"ipv4": 0, "ipv6": 1}


def test_many_addresses_while_workers_go_on(nft: Nft) -> None:
    """With each change libnftables begins to list a set anew."""
    control.up(nft, PLAN)
    keys = [str(ip_address("198.18.0.0") + n) for n in range(20_000)]
    timed = ", ".join(f"{key} timeout 600s" for key in keys)
    nft.run(f"add element inet urlward steer4 {{ {timed} }}")
    nft.run("add element inet urlward steer4 { 192.0.2.1 timeout 60s, 192.0.2.2 }")
    others, done = Nft(), Event()

    def go_on() -> None:
        while not done.is_set():
            # At once: the set may be made anew between both.
            others.run(
                "add element inet urlward cut4 { 192.0.2.1 timeout 600s }\n"
                "delete element inet urlward cut4 { 192.0.2.1 }"
            )

    worker = Thread(target=go_on)
    worker.start()
    try:
        assert control.status(nft).counts["steered"] == (20_002, 0)
        control.up(nft, replace(PLAN, gateway=PLAN.gateway.model_copy(update={"max_addresses": 30_000})))
    finally:
        done.set()
        worker.join()
        others.close()
    found = {ip_address(key): left for left, key in nft.each("steer4")}
    assert len(found) == 20_002
    assert found[ip_address("192.0.2.1")] <= 60 < found[ip_address(keys[0])] <= 600
    assert found[ip_address("192.0.2.2")] == float("inf")


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAN, listen=9090),
        replace(PLAN, gateway=PLAN.gateway.model_copy(update={"steer": False})),
        replace(PLAN, gateway=PLAN.gateway.model_copy(update={"steered": "intercept"})),
        replace(PLAN, gateway=PLAN.gateway.model_copy(update={"keep_source": True})),
    ],
)
def test_a_filter_that_lives_keeps_its_rules(nft: Nft, other: RulesPlan) -> None:
    control.up(nft, PLAN)
    nft.run("add element inet urlward alive { 6 timeout 60s, 17 timeout 60s }")
    with pytest.raises(UrlwardError, match=r"for a filter on port 8080, which lives: .* --replace"):
        control.up(nft, other)
    assert control.status(nft).setup == setup_of(PLAN)
    # Its own, changed, are no conflict.
    control.up(nft, replace(PLAN, gateway=PLAN.gateway.model_copy(update={"fail": "closed"})))
    control.up(nft, other, replace=True)
    assert control.status(nft).setup == setup_of(other)


def test_one_that_has_died_does_not(nft: Nft) -> None:
    control.up(nft, PLAN)
    control.up(nft, replace(PLAN, listen=9090))
    found = control.status(nft).setup
    assert found is not None
    assert found.listen == 9090


def test_nothing_changes_where_a_check_fails(nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def refuse(error: NftError) -> None:
        raise error

    monkeypatch.setattr(nft, "run", ran.append)
    monkeypatch.setattr(nft, "check", lambda _: refuse(NoTableError("no such")))
    with pytest.raises(UrlwardError, match="this kernel lacks something of nf_tables"):
        control.up(nft, PLAN)
    monkeypatch.setattr(nft, "check", lambda _: refuse(NftError("other")))
    with pytest.raises(NftError, match="other"):
        control.up(nft, PLAN)
    assert ran == []
