"""Rules that another hand takes away come back, with what the sets had."""

import re
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from rows import each_row
from urlward.config import GatewayTable
from urlward.engine.nat64 import WELL_KNOWN, Nat64
from urlward.gateway import control, rules_watch
from urlward.gateway.netlink import Message, MessageKind, Netlink, rules_changed
from urlward.gateway.nft import Nft
from urlward.gateway.routing import Routing
from urlward.gateway.rules import RulesPlan, rules
from urlward.gateway.rules_watch import MOST, RulesWatch
from urlward.gateway.steer_set import Listed
from urlward.gateway.table import NftError
from urlward.gateway.table_copy import NEVER, TableCopy

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")

RESOLVERS = ((ip_address("203.0.113.53"), 53), (ip_address("2001:db8:f::53"), 53))
BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
NAT64 = Nat64([WELL_KNOWN])
NETWORKS = ("192.0.2.0/28", "192.0.2.128/25", "2001:db8:5::/48", "192.0.2.16")


def plan(**values: Any) -> RulesPlan:
    table = GatewayTable.model_validate({"interfaces": ("lan1",), "steer": True, **values})
    return RulesPlan(table, 8080, RESOLVERS if table.steer else ())


def other_hand(commands: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=commands, text=True, check=True, capture_output=True)


def ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True, capture_output=True)


def shown() -> str:
    """The table as nft shows it, without times that run out."""
    text = subprocess.run(["nft", "list", "table", "inet", "urlward"], capture_output=True, text=True).stdout
    return re.sub(r" (expires|timeout) [\dsmhd]+", "", text)


class Rig:
    """A table with content, and the watch over it."""

    def __init__(self) -> None:
        self.nft = Nft()
        self.said: list[str] = []
        self.watch = RulesWatch(("lo",), self.said.append)

    def up(self, **values: Any) -> None:
        control.up(self.nft, plan(**values), replace=True)

    def fill(self) -> None:
        self.nft.run(
            "add element inet urlward steer4 { 192.0.2.7 timeout 900s, 192.0.2.8 timeout 900s }\n"
            "add element inet urlward steer6 { 2001:db8::7 timeout 900s }\n"
            "add element inet urlward alive { 6 timeout 900s, 17 timeout 900s }"
        )
        self.nft.run(Listed(NETWORKS, NAT64, cut=True).commands())

    def restored(self, times: int) -> None:
        wait_for(lambda: self.watch.facts.restored >= times, f"restoration {times}")


@pytest.fixture
def rig() -> Iterator[Rig]:
    with own_network():
        made = Rig()
        made.up(exempt=("192.0.2.9",), clients=("192.0.2.0/25", "2001:db8::/32"))
        made.fill()
        made.watch.start()
        yield made
        made.watch.close()
        made.nft.close()


def test_others_elements_are_passed_over() -> None:
    """A firewall's reload may bring hundreds of thousands before the word that it took our rules away."""
    with own_network():
        told, nft = Netlink(notified=True), Nft()
        nft.run("add table inet other; add set inet other many { type inet_service; }")
        nft.run(f"add element inet other many {{ {', '.join(map(str, range(1, 1000)))} }}")
        nft.run("add table inet urlward")
        kinds = [message.kind for message in told.notifications()]
        nft.close()
        told.close()
    generation = MessageKind.NEWGEN
    assert kinds == [generation, generation, MessageKind.NEWTABLE, generation]


class Busy(Netlink):
    """Where somebody changes a table of their own whenever a set's elements are read."""

    nft: Nft

    def ask(self, kind: MessageKind, *arguments: Any, **named: Any) -> list[Message]:
        found = super().ask(kind, *arguments, **named)
        if kind == MessageKind.GETSETELEM:
            self.nft.run("add table inet other; delete table inet other")
        return found


def test_others_who_change_something_all_the_time(rig: Rig) -> None:
    busy, quiet = Busy(), Netlink()
    busy.nft = rig.nft
    copy, generation = TableCopy.read(busy)
    exact, later = TableCopy.read(quiet)
    assert generation < later
    assert copy.same_as(exact)
    assert not copy.lacks(exact)
    assert not exact.lacks(copy)
    busy.close()
    quiet.close()


@each_row(
    "values",
    [
        {"steer": False},
        {"steer": False, "fail": "closed", "clients": ("192.0.2.0/24",), "never": ("203.0.113.0/24",)},
        {},
        {
            "fail": "closed",
            "exempt": ("192.0.2.9", "2001:db8::9"),
            "interfaces": ("lan0", "ppp*"),
            "mss": 1200,
        },
        {"steered": "intercept", "dns": {"page_addresses": ("192.0.2.1", "2001:db8::1")}},
        {"keep_source": True, "exempt": ("192.0.2.9",), "mss": 1200},
        {"keep_source": True, "steer": False},
    ],
)
def test_a_copy_makes_the_same_table(values: dict[str, Any]) -> None:
    with own_network():
        nft, netlink = Nft(), Netlink()
        nft.run(rules(plan(**values)))
        if plan(**values).gateway.steer:
            nft.run(Listed([*NETWORKS, "ff00::/8", "255.0.0.0/8", "0.0.0.0/8"], NAT64, cut=True).commands())
            nft.run("add element inet urlward steer4 { 192.0.2.7 timeout 900s }")
        before = shown()
        copy, generation = TableCopy.read(netlink)
        assert netlink.commit(copy.messages(), generation)
        assert shown() == before, "in place of the same"
        assert not netlink.commit(copy.messages(), generation), "the rules are others"
        other_hand("flush ruleset")
        netlink.commit(copy.messages(), netlink.generation())
        assert shown() == before, "where there was none"
        found, _ = TableCopy.read(netlink)
        assert found.same_as(copy)
        assert not found.lacks(copy)
        nft.close()
        netlink.close()


@pytest.mark.parametrize(
    "commands",
    [
        "flush ruleset",
        "flush ruleset\ntable inet filter {\n chain input {\n type filter hook input priority 0;\n }\n}\n",
        "delete table inet urlward",
        "flush table inet urlward",
        "flush chain inet urlward prerouting",
        "flush set inet urlward steer4",
        "delete element inet urlward steer6 { 2001:db8::7 }",
        "flush set inet urlward alive",
        "flush set inet urlward clients4",
        "add element inet urlward exempt4 { 192.0.2.10 }",
        "flush set inet urlward listed4",
        "insert rule inet urlward from_clients return",
        "add chain inet urlward more",
        "add counter inet urlward more",
    ],
)
def test_what_another_hand_takes_away_comes_back(rig: Rig, commands: str) -> None:
    before = shown()
    assert "192.0.2.7" in before
    other_hand(commands)
    rig.restored(1)
    assert shown() == before
    assert rig.watch.facts.hand.startswith("nft (process ")
    assert rig.watch.facts.wrong == ()
    assert "took rules away; they are back after" in rig.said[0]
    # And again: the table that was put back is watched as the first.
    rig.nft.run("add element inet urlward steer4 { 192.0.2.99 timeout 900s }")
    before = shown()
    other_hand(commands)
    rig.restored(2)
    assert shown() == before
    assert "192.0.2.99" in before


def test_one_rule_deleted(rig: Rig) -> None:
    before = shown()
    listing = rig.nft.json("list chain inet urlward filtered")
    handle = next(one["rule"]["handle"] for one in listing if "rule" in one)
    other_hand(f"delete rule inet urlward filtered handle {handle}")
    rig.restored(1)
    assert shown() == before


def test_what_is_added_to_what_is_steered_stays(rig: Rig) -> None:
    other_hand("add element inet urlward steer4 { 192.0.2.77 timeout 900s }")
    other_hand("delete table inet urlward")
    rig.restored(1)
    assert "192.0.2.77" in shown()


def test_down_and_up_are_the_operators_will(rig: Rig) -> None:
    control.down(rig.nft)
    wait_for(lambda: rig.watch.facts.wrong == ("down",), "the operator's will to be seen")
    other_hand("add table inet other; flush ruleset")
    rig.up(fail="closed")
    wait_for(lambda: rig.watch.facts.wrong == (), "rules")
    before = shown()
    assert "fail=closed" in before
    assert "192.0.2.7" not in before
    other_hand("flush ruleset")
    rig.restored(1)
    assert shown() == before, "the newer rules, not those from before"


def test_up_over_rules_that_are_there_keeps_the_sets(rig: Rig) -> None:
    rig.up(fail="closed", ports=(80, 443, 8443), max_addresses=1000)
    before = shown()
    assert "192.0.2.7" in before
    other_hand("flush ruleset")
    rig.restored(1)
    assert shown() == before
    assert rig.watch.facts.restored == 1, "up itself is no damage"


@pytest.mark.parametrize("flush", ["", "flush ruleset\n"])
def test_printed_rules_in_one_transaction_get_the_sets_back(rig: Rig, flush: str) -> None:
    other_hand(flush + rules(plan(fail="closed")))
    rig.restored(1)
    wait_for(lambda: rig.watch.facts.wrong == () and "192.0.2.7" in shown(), "the content")
    text = shown()
    assert "fail=closed" in text
    assert "2001:db8:5::/48" in text
    assert "set exempt4" in text
    assert "192.0.2.9" not in text, "what the configuration fills is as it was loaded"
    other_hand("flush ruleset")
    rig.restored(2)
    assert shown() == text


def test_a_restart_of_the_watch_takes_what_is_there_but_sleep(rig: Rig) -> None:
    before = shown()
    rig.watch.close()
    other_hand("add table inet urlward { flags dormant; }")
    rig.watch = RulesWatch(("lo",), rig.said.append)
    rig.watch.start()
    rig.restored(1)
    assert shown() == before
    other_hand("flush ruleset")
    rig.restored(2)
    assert shown() == before


def test_when_all_are_asked_to_end_none_counts_as_alive(rig: Rig) -> None:
    def dead() -> bool:
        return not control.status(rig.nft).alive

    assert not dead()
    rig.watch.end()
    wait_for(dead, "the end")
    rig.nft.run("add element inet urlward alive { 6 timeout 900s, 17 timeout 900s }")  # one was not asked yet
    wait_for(dead, "its end")
    assert rig.watch.facts.restored == 0


def test_a_hand_that_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shown()
    for n in range(MOST + 2):
        other_hand("flush ruleset")
        rig.restored(n + 1)
    wait_for(lambda: rig.watch.facts.wrong == (f"removed more than {MOST} times in a minute",), "the word")
    found = control.status(rig.nft)
    assert found.setup is not None
    assert found.contested
    assert re.sub(r"\n\t\telements = { tcp }", "", shown()) == before
    monkeypatch.setattr(rules_watch, "WINDOW", 0.0)
    wait_for(lambda: rig.watch.facts.wrong == (), "the end of it")


def test_interfaces(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_watch, "LOOK", 0.05)
    rig.watch._interfaces = ("lo", "lan0")
    other_hand("add table inet x")
    wait_for(lambda: rig.watch.facts.wrong == ("no interface lan0",), "the word")
    subprocess.run(["ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan9"], check=True)
    wait_for(lambda: rig.watch.facts.wrong == (), "the interface")


def test_a_port_of_a_bridge(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_watch, "LOOK", 0.05)
    rig.watch._interfaces = ("lan0",)
    ip("link add lan0 type veth peer name lan9")
    other_hand("add table inet x")
    wait_for(lambda: rig.watch.facts.wrong == (), "the interface")
    ip("link add br0 type bridge")
    ip("link set lan0 master br0")
    wait_for(lambda: rig.watch.facts.wrong == ("lan0 is a port of br0",), "the word")
    ip("link set lan0 nomaster")
    wait_for(lambda: rig.watch.facts.wrong == (), "the interface")
    if BRIDGED.exists():
        rig.watch._interfaces = ("br0",)
        BRIDGED.write_text("1")
        rig.up(keep_source=True)
        why = "br0: net.bridge.bridge-nf-call-iptables is 1"
        wait_for(lambda: rig.watch.facts.wrong == (why,), "the word")
        rig.up()
        wait_for(lambda: rig.watch.facts.wrong == (), "what is redirected comes all the same")


def test_routing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before ours goes behind; who goes on is reported, and what cannot be put right too."""
    rig.up(keep_source=True)
    ip("-6 rule add lookup 100")
    rig.restored(1)
    assert rig.watch.facts.hand == "somebody's routing rule 89 came before ours"
    assert rig.said[-1] == "gateway: somebody's routing rule 89 came before ours; it is put right"
    assert rig.watch.facts.wrong == ()
    ip("rule del lookup 21365")
    rig.restored(2)
    assert rig.watch.facts.hand == "somebody took policy routing away"
    ip("rule add pref 0 lookup 100")
    why = "routing: another's rule 0 takes filtered traffic: move it behind 90 (ip rule)"
    wait_for(lambda: rig.watch.facts.wrong == (why,), "the word")
    assert rig.said.count(f"gateway: {why}") == 1
    assert control.status(rig.nft).routes == why
    ip("rule del pref 0 lookup 100")
    wait_for(lambda: rig.watch.facts.wrong == (), "the end of it")
    monkeypatch.setattr(rules_watch, "ONE_ACT", 600.0)
    for n in range(MOST):
        ip("-6 rule add lookup 100")
        rig.restored(n + 3)
    assert rig.watch.facts.wrong == (), "one hand, in one go"
    monkeypatch.setattr(rules_watch, "ONE_ACT", 0.0)
    for n in range(MOST):
        ip("-6 rule add lookup 100")
        rig.restored(n + MOST + 3)
    again = f"removed more than {MOST} times in a minute"
    wait_for(lambda: rig.watch.facts.wrong == (again,), "the word")
    wait_for(lambda: control.status(rig.nft).contested, "the kernel's word")
    ip("-6 rule add lookup 100")
    rig.restored(2 * MOST + 3)
    monkeypatch.setattr(rules_watch, "WINDOW", 0.0)
    wait_for(lambda: rig.watch.facts.wrong == (), "the end of it")


def test_another_who_always_wants_to_be_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would hear of the other at once, for good; it is put right at the next look then."""
    rig.up(keep_source=True)
    rig.watch.close()
    monkeypatch.setattr(rules_watch, "_MOST_MOVES", 3)
    monkeypatch.setattr(rules_watch, "_SAID_AGAIN", 600.0)
    monkeypatch.setattr(rules_watch, "ONE_ACT", 600.0)
    said: list[str] = []
    watch = rig.watch = RulesWatch(("lo",), said.append)
    watch._news, watch._netlink = Netlink(notified=True), Netlink()
    watch._routing_news, watch._routing = rules_changed(), Routing()
    watch._read()
    for _ in range(10):
        ip("-6 rule add lookup 100")
        if watch._routing_changed():
            watch._restore_routing()
    assert watch._restored == 3
    watch._restore_routing()
    assert watch._restored == 4
    assert watch._routing.fault() is None
    assert len(said) == 3
    monkeypatch.setattr(rules_watch, "ONE_ACT", 0.0)
    ip("-6 rule add lookup 100")
    assert watch._routing_changed(), "another act"


def test_notifications_that_were_lost(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second line: a look at the generation finds what no notification has told."""
    before = shown()
    notifications = Netlink.notifications
    monkeypatch.setattr(Netlink, "notifications", lambda self: iter([*notifications(self)][:0]))
    other_hand("flush ruleset")
    rig.restored(1)
    assert shown() == before


def test_the_watch_outlives_whoever_is_told(rig: Rig) -> None:
    def fails(_: object) -> None:
        raise OSError("no room for a log")

    rig.watch._say = rig.watch.on_facts = fails
    for n in range(2):
        other_hand("flush ruleset")
        rig.restored(n + 1)
    assert rig.watch._thread is not None
    assert rig.watch._thread.is_alive()


def test_a_comparison_that_fails_is_made_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_watch, "LOOK", 0.05)
    before = shown()
    read, notifications = TableCopy.read, Netlink.notifications
    failing, lost = True, False

    def fails(netlink: Netlink) -> tuple[TableCopy, int]:
        if failing:
            raise NftError("nftables: the rules change faster than they can be read")
        return read(netlink)

    def loses(self: Netlink) -> Iterator[Message]:
        nonlocal lost
        some = [*notifications(self)]
        if some and not lost:
            lost = True
            raise NftError("nftables: notifications were lost")
        return iter(some)

    monkeypatch.setattr(TableCopy, "read", fails)
    monkeypatch.setattr(Netlink, "notifications", loses)
    # Nobody's generation is looked at, so that only what was owed comes to light.
    monkeypatch.setattr(rig.watch, "_look", lambda: None)
    other_hand("flush ruleset")
    wait_for(lambda: rig.watch.facts.wrong == ("not watched",), "the word")
    failing = False
    rig.restored(1)
    wait_for(lambda: rig.watch.facts.wrong == (), "the end of it")
    assert shown() == before


def test_a_generation_is_given_time_to_be_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.watch.close()
    watch = rig.watch = RulesWatch(("lo",), rig.said.append)
    watch._news, watch._netlink = Netlink(notified=True), Netlink()
    watch._read()
    resynced: list[int] = []
    monkeypatch.setattr(watch, "_resync", lambda: resynced.append(1))
    began = watch._generation
    # As the kernel counts, and as it has told meanwhile.
    for counted, told, expected in (
        (1, 0, 0),
        (2, 1, 0),
        (2, 2, 0),
        (3, 2, 0),
        (3, 2, 1),
        (4, 2, 1),
        (5, 2, 2),
    ):
        monkeypatch.setattr(watch._netlink, "generation", lambda now=began + counted: now)
        watch._generation = began + told
        watch._look()
        assert len(resynced) == expected


def test_elements_whose_time_is_up_are_not_kept() -> None:
    copy = TableCopy()
    copy._sets = {"steer4": (b"", 0x10), "exempt4": (b"", 0)}
    copy.elements = {"steer4": {b"old": 1.0, b"new": NEVER}, "exempt4": {b"one": NEVER}}
    copy._more = {"steer4": {b"old": b"x", b"new": b"y"}}
    copy.drop_old()
    assert copy.elements == {"steer4": {b"new": NEVER}, "exempt4": {b"one": NEVER}}
    assert copy._more == {"steer4": {b"new": b"y"}}
