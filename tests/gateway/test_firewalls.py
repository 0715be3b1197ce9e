"""What others' rules at `input` do to the filter, told from rulesets as the kernel lists them."""

import shutil
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from rows import each_row
from urlward.gateway import control
from urlward.gateway.firewalls import clamps, closed
from urlward.gateway.nft import Nft
from urlward.gateway.table import Setup

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")

OWN = Setup(listen=8080, dns=5353, intercept=0, fail="open", source="own", config="")
KEPT = Setup(listen=8080, dns=5353, intercept=0, fail="open", source="kept", config="")
TYPICAL = """
ct state vmap { invalid : drop, established : accept, related : accept }
iifname "lo" accept
meta l4proto { icmp, ipv6-icmp } accept
ip saddr 192.0.2.9 accept
tcp dport 22 accept
"""


def said(
    setup: Setup,
    *programs: tuple[str, ...],
    rules: str = "",
    interfaces: tuple[str, ...] = ("lan0",),
    out: str = "",
) -> list[str]:
    """What is said of rules that nft or other programs load."""
    with own_network():
        nft = Nft()
        try:
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
            for program in programs:
                subprocess.run(program, check=True)
            ways_out = {4: out} if out else {}
            return closed(control.all_rules(nft), setup, interfaces, (80, 443), (4, 6), ways_out)
        finally:
            nft.close()


def chain(rules: str, policy: str = "drop", family: str = "inet", more: str = "") -> str:
    head = f"type filter hook input priority filter; policy {policy};"
    return f"table {family} fw {{\n{more}\nchain in {{ {head}\n{rules}\n}}\n}}"


@each_row(
    "rules",
    [
        TYPICAL + 'iifname "lan0" accept',
        TYPICAL
        + 'iifname "lan*" tcp dport { 53, 8000-8100 } accept\nmeta l4proto udp accept\ntcp dport 5353 accept',
        TYPICAL + "th dport { 8080, 5353 } accept",
        TYPICAL + "ct status dnat accept",
        TYPICAL + "meta mark and 0x20 != 0 accept",
        TYPICAL + "meta mark != 7 accept\nct state new accept",
        TYPICAL + "ip saddr 192.0.2.0/24 accept\nmeta nfproto ipv6 accept",
        TYPICAL + "ip saddr @lan accept\nip6 saddr @lan6 accept",
        TYPICAL + "iifname vmap { lan0 : jump inside }",
        TYPICAL + "jump inside",
        TYPICAL + "limit rate over 10/second drop\nmeta pkttype { broadcast, multicast } drop\naccept",
        "tcp dport != { 22, 8080, 5353 } drop\naccept",
    ],
)
def test_a_firewall_that_lets_clients_in(rules: str) -> None:
    more = (
        "set lan { type ipv4_addr; }\nset lan6 { type ipv6_addr; }\n"
        "chain inside { tcp dport 22 drop; udp dport 53 return; accept; }"
    )
    assert said(OWN, rules=chain(rules, more=more)) == []


@each_row("policy", ["drop", "accept"])
@each_row(
    "rules",
    [
        TYPICAL,
        TYPICAL + 'iifname "lan1" accept\niifname "eth*" accept',
        TYPICAL + 'iifname { "lan0", "lan1" } jump inside',
        TYPICAL + 'iifname vmap { "lan0" : jump inside, "lan1" : accept }',
        TYPICAL + "udp dport != 5353 accept\nicmp type != redirect accept",
    ],
)
def test_a_firewall_that_does_not(rules: str, policy: str) -> None:
    more = "chain inside { tcp dport { 22, 80, 443 } accept; udp dport { 53, 67 } accept; }"
    end = "" if policy == "drop" else "\ncounter reject with icmpx admin-prohibited"
    (line,) = said(OWN, rules=chain(rules + end, policy, more=more))
    assert line == (
        "table inet fw, chain in: drops tcp 5353, 8080 and udp 5353, so clients hang: "
        "nft insert rule inet fw in iifname lan0 tcp dport { 5353, 8080 } accept; "
        "nft insert rule inet fw in iifname lan0 udp dport { 5353 } accept"
    )
    commands = [tuple(one.split()) for one in line.partition("hang: ")[2].split("; ")]
    assert said(OWN, *commands, rules=chain(rules + end, policy, more=more)) == [], "with what was lacking"


def test_a_firewall_that_drops_what_is_redirected_before_it_is_routed() -> None:
    late = chain(TYPICAL + "tcp dport { 80, 443 } accept\nudp dport 53 accept").replace("input", "prerouting")
    (line,) = said(OWN, rules=late)
    assert line.startswith("table inet fw, chain in: drops tcp 5353, 8080 and udp 5353, so clients hang: ")
    commands = [tuple(one.split()) for one in line.partition("hang: ")[2].split("; ")]
    assert said(OWN, *commands, rules=late) == []
    assert said(OWN, rules=late.replace("priority filter", "priority mangle")) == [], (
        "before it is redirected"
    )
    assert (
        said(
            OWN,
            rules=chain("drop").replace(
                "filter hook input priority filter", "nat hook prerouting priority 0"
            ),
        )
        == []
    )


def test_of_one_family_and_one_transport() -> None:
    rules = chain(TYPICAL + "tcp dport { 5353, 8080 } accept", family="ip6")
    assert said(OWN, rules=rules.replace("ip saddr", "ip6 saddr").replace("192.0.2.9", "2001:db8::9")) == [
        "table ip6 fw, chain in: drops udp 5353, so clients hang: "
        "nft insert rule ip6 fw in iifname lan0 udp dport { 5353 } accept"
    ]


def test_where_the_source_is_kept() -> None:
    rules = chain(TYPICAL + "udp dport 5353 accept\ntcp dport { 5353, 8080 } accept")
    (line,) = said(KEPT, rules=rules)
    assert line.endswith("nft insert rule inet fw in meta mark and 0x1000000 != 0 accept")
    command = tuple(line.partition("hang: ")[2].split())
    assert said(KEPT, command, rules=rules) == []
    assert (
        said(KEPT, rules=chain(TYPICAL + "udp dport 5353 accept\ntcp dport { 80, 443, 5353 } accept")) == []
    )


FIREWALLD = """
table inet firewalld {
    chain filter_PREROUTING {
        type filter hook prerouting priority filter + 10; policy accept;
        icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump zones
        reject with icmpx admin-prohibited
    }
    chain zones { goto public; }
    chain public { tcp dport { ssh } ct state new,untracked accept; }
}
"""
"""As firewalld 2.3 writes it, in short; the kernel takes changes of it from firewalld alone."""


def test_firewalld() -> None:
    assert said(OWN, rules=FIREWALLD) == [], "what is redirected passes"
    by_mark, closes = said(KEPT, rules=FIREWALLD)
    dropped = "drops what has the filter's mark, so clients hang: "
    assert by_mark == (
        f"table inet firewalld, chain filter_PREROUTING: {dropped}IPv6_rpfilter=strict-forward in "
        "firewalld.conf, and systemctl restart firewalld"
    )
    assert closes == (
        f"table inet firewalld, chain filter_INPUT: {dropped}firewall-cmd --permanent --add-port=80/tcp "
        "--add-port=443/tcp (with --zone=, where lan0 is not in the default one), and firewall-cmd --reload"
    )
    opened = FIREWALLD.replace("{ ssh }", "{ ssh, 80, 443 }").replace(" . mark . iif", " . iif")
    assert said(KEPT, rules=opened) == []


def test_firewalld_that_forwards_ports_of_its_own_alone() -> None:
    strict = "chain filter_INPUT_dnat { reject with icmpx admin-prohibited; }\n    chain filter_INPUT {"
    rules = FIREWALLD.replace("dnat accept", "dnat jump filter_INPUT_dnat").replace(
        "chain filter_INPUT {", strict
    )
    lets_in = "StrictForwardPorts=no in firewalld.conf, and systemctl restart firewalld"
    (line,) = said(OWN, rules=rules)
    assert line.endswith(f"drops tcp 5353, 8080 and udp 5353, so clients hang: {lets_in}")
    assert (
        f"{lets_in}; firewall-cmd --permanent --add-port=80/tcp --add-port=443/tcp ("
        in said(KEPT, rules=rules)[1]
    )


@pytest.mark.parametrize("hook", ["prerouting", "input"])
@pytest.mark.parametrize(
    ("rule", "drops"),
    [
        ("fib saddr . mark . iif oif missing drop", True),
        ("fib saddr . mark . iif oif exists accept\ndrop", True),
        ("fib saddr . mark . iif oif missing ct state established drop", False),
        ("meta mark and 0x1000000 != 0 accept\nfib saddr . mark . iif oif missing drop", False),
        ("fib saddr . iif oif missing drop", False),
        ("fib saddr . mark type local accept\naccept", False),
    ],
)
def test_a_lookup_of_the_way_back_by_the_mark(rule: str, hook: str, *, drops: bool) -> None:
    """It finds this machine, whoever sent the packet."""
    rules = chain(rule, policy="accept").replace("hook input", f"hook {hook}")
    assert said(OWN, rules=rules) == [] or hook == "input"
    assert bool(said(KEPT, rules=rules)) == drops
    before = rules.replace("priority filter", "priority raw")
    assert hook == "input" or said(KEPT, rules=before) == [], "it has no mark yet"


def test_several_interfaces() -> None:
    (line,) = said(OWN, rules=chain(TYPICAL + "iifname lan0 accept"), interfaces=("lan0", "ppp*"))
    assert "iifname ppp* tcp dport { 5353, 8080 } accept" in line
    assert "lan0" not in line


def test_our_own_table_and_other_hooks_are_none() -> None:
    rules = "".join(
        f"table {table} {{\nchain in {{ type filter hook {hook} priority 0; policy drop; }}\n}}\n"
        for table, hook in (("inet urlward", "input"), ("inet fw", "forward"), ("bridge fw", "input"))
    )
    assert said(OWN, rules=rules) == []


@pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="no iptables here")
def test_iptables() -> None:
    accept = ("-j", "ACCEPT")
    made = [
        (f"{program}-nft", *arguments)
        for program in ("iptables", "ip6tables")
        for arguments in (
            ("-A", "INPUT", "-i", "lo", *accept),
            ("-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", *accept),
            (
                "-A",
                "INPUT",
                "-p",
                "tcp",
                "-m",
                "conntrack",
                "--ctstate",
                "NEW",
                "-m",
                "tcp",
                "--dport",
                "22",
                *accept,
            ),
            ("-P", "INPUT", "DROP"),
        )
    ]
    lines = said(OWN, *made)
    assert [line.partition(", so clients hang: ")[0] for line in lines] == [
        f"table {family} filter, chain INPUT: drops tcp 5353, 8080 and udp 5353" for family in ("ip", "ip6")
    ]
    lacking = [tuple(one.split()) for line in lines for one in line.partition("hang: ")[2].split("; ")]
    lacking = [(f"{program}-nft", *arguments) for program, *arguments in lacking]
    assert said(OWN, *made, *lacking) == []
    named = [
        (
            "-A",
            "INPUT",
            "-p",
            kind,
            "-m",
            "conntrack",
            "--ctstate",
            "NEW",
            "-m",
            kind,
            "--dport",
            port,
            *accept,
        )
        for kind, port in (("tcp", "8080"), ("tcp", "5353"), ("udp", "5353"))
    ]
    lacking = [(f"{program}-nft", *rule) for program in ("iptables", "ip6tables") for rule in named]
    assert said(OWN, *made, *lacking) == []


@pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="no iptables here")
@each_row("more", ["", " -m conntrack --ctstate NEW"])
@each_row(
    ("multiport", "drops"),
    [
        ("tcp --dports 22,80,443", "tcp 5353, 8080"),
        ("tcp --dports 22,5300:5400", "tcp 8080"),
        ("udp ! --dports 53,5353", "tcp 5353, 8080"),
        ("tcp --dports 8080,5353", ""),
        ("tcp ! --dports 22,53", ""),
    ],
)
def test_several_ports_of_iptables(multiport: str, more: str, drops: str) -> None:
    transport, condition = multiport.split(" ", 1)
    rules = (
        "-P INPUT DROP",
        "-A INPUT -p udp -j ACCEPT",
        f"-A INPUT -p {transport} -m multiport {condition}{more} -j ACCEPT",
    )
    lines = said(OWN, *(("iptables-nft", *rule.split()) for rule in rules))
    assert [line.partition("drops ")[2].partition(", so")[0] for line in lines] == ([drops] if drops else [])


UFW = """\
-P INPUT DROP
-N not-local
-N user
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -j not-local
-A INPUT -p udp -d 224.0.0.251 --dport 5353 -j ACCEPT
-A INPUT -j user
-A not-local -m addrtype --dst-type LOCAL -j RETURN
-A not-local -m addrtype --dst-type MULTICAST -j RETURN
-A not-local -m limit --limit 3/min --limit-burst 10 -j LOG
-A not-local -j DROP
"""
"""What comes to `input` by the rules of ufw, in short."""


@pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="no iptables here")
def test_ufw() -> None:
    made = [("iptables-nft", *line.split()) for line in UFW.splitlines()]
    (line,) = said(OWN, *made)
    assert line.startswith(
        "table ip filter, chain INPUT: drops tcp 5353, 8080 and udp 5353, so clients hang: "
    )
    ports = (("tcp", "8080"), ("tcp", "5353"), ("udp", "5353"))
    user = [("iptables-nft", "-A", "user", "-p", kind, "--dport", n, "-j", "ACCEPT") for kind, n in ports]
    assert said(OWN, *made, *user) == []
    assert said(OWN, *made, *user[:2])[0].startswith("table ip filter, chain INPUT: drops udp 5353, so")
    # With clients' and origins' addresses it is dropped as not for this machine, whatever ports are let in.
    more = (
        "iptables-nft",
        "-A",
        "user",
        "-p",
        "tcp",
        "-m",
        "multiport",
        "--dports",
        "80,443",
        "-j",
        "ACCEPT",
    )
    (line,) = said(KEPT, *made, *user, more)
    assert "drops what has the filter's mark, so clients hang: iptables -I INPUT -m mark --mark " in line
    first, *rest = line.partition("hang: ")[2].split()
    assert said(KEPT, *made, *user, more, (f"{first}-nft", *rest)) == []


def test_a_table_that_sleeps_drops_nothing() -> None:
    rules = chain("").replace("{", "{ flags dormant;", 1)
    assert said(OWN, rules=rules) == []


def test_statements_that_have_no_json_are_passed_over() -> None:
    size = {"key": {"tcp option": {"name": "maxseg", "field": "size"}}, "value": 1360}
    odd: tuple[Any, ...] = (
        {"mangle": "x"},
        {"mangle": {"key": "x"}},
        {"mangle": {"key": {"tcp option": "x"}}},
    )
    base = {"family": "ip", "table": "x", "name": "in", "hook": "input", "policy": "drop"}
    expr = ["a statement", {"xt": None}, {"match": "x"}, *odd, {"mangle": size}]
    listing: list[dict[str, Any]] = [
        {"chain": base},
        {"rule": {"family": "ip", "table": "x", "chain": "in", "expr": expr}},
    ]
    assert clamps(listing, str) == {1360}
    assert len(closed(listing, OWN, ("lan0",), (80,), (4, 6), {})) == 1


@pytest.mark.parametrize(
    ("rule", "setup", "named"),
    [
        ("iifname lan0 ct zone set 5", OWN, True),
        ("ct zone set jhash ip saddr mod 7", OWN, True),
        ("iifname lan0 ct original zone set 5", OWN, False),
        ("iifname wan0 ct zone set 5", OWN, False),
        ("iifname lan0 udp dport 500 ct zone set 5", OWN, False),
        ("iifname lan0 ct zone set 5", KEPT, False),
        ("iifname lan0 tcp dport 80 tproxy ip to :3129 meta mark set 1 accept", OWN, True),
        ("iifname lan0 tcp dport 80 tproxy ip to :3129 meta mark set 1 accept", KEPT, False),
        ("iifname lan0 udp dport 443 tproxy ip to :3129 accept", OWN, False),
        ("iifname lan0 tcp dport { 80, 443 } counter notrack", OWN, True),
        ("notrack", KEPT, True),
        ("iifname != lan0 tcp dport 80 notrack", OWN, False),
        ("tcp dport 80 fib daddr type local notrack", OWN, False),
        ("udp dport 53 notrack", OWN, False),
        ("iifname lan0 accept; notrack", OWN, False),
        ("iifname dmz0 jump other", OWN, False),
        ("iifname wan0 accept; ip saddr 192.0.2.9 return; tcp dport 80 notrack", OWN, True),
    ],
)
def test_connections_that_are_tracked_otherwise_or_not_at_all(
    rule: str, setup: Setup, *, named: bool
) -> None:
    ways = "chain in { type filter hook prerouting priority raw; %s; }"
    back = "chain out { type filter hook output priority raw; oifname lan0 ct zone set 5; notrack; }"
    late = "chain late { type filter hook prerouting priority mangle; notrack; }"
    lines = said(
        setup, rules=f"table inet fw {{ chain other {{ notrack; }}; {ways % rule}; {back}; {late}; }}"
    )
    assert [line.partition(":")[0] for line in lines] == ["table inet fw, chain in"] * named


@pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="no iptables here")
def test_another_socket_of_iptables() -> None:
    rule = "-t mangle -A PREROUTING -i lan0 -p tcp --dport 80 -j TPROXY --on-port 3129"
    (line,) = said(OWN, ("iptables-nft", *rule.split()))
    assert line.startswith(
        "table ip mangle, chain PREROUTING: leads clients' connections to another's socket"
    )


@pytest.mark.skipif(shutil.which("ip6tables-nft") is None, reason="needs iptables")
def test_segments_that_iptables_clamps() -> None:
    clamp = "-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss"
    with own_network():
        nft = Nft()
        for program, size in (("iptables-nft", "1300"), ("ip6tables-nft", "1280")):
            subprocess.run((program, *clamp.split(), size), check=True)
        assert min(clamps(control.all_rules(nft), nft.shown)) == 1280
        nft.close()


DOCKER = """\
-P FORWARD DROP
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DROP
-A DOCKER-USER -j RETURN
"""
"""What comes to `forward` by the rules of Docker 26, in short."""


@pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="no iptables here")
def test_docker_closes_what_is_not_filtered() -> None:
    made = [("iptables-nft", *line.split()) for line in DOCKER.splitlines()]
    (line,) = said(OWN, *made, out="wan0")
    assert line == (
        "table ip filter, chain FORWARD: drops what goes from lan0 to wan0, tcp 80, 443, so what is not "
        "filtered hangs: iptables -I DOCKER-USER -i lan0 -j ACCEPT; "
        "iptables -I DOCKER-USER -o lan0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    )
    lacking = [tuple(one.split()) for one in line.partition("hangs: ")[2].split("; ")]
    assert said(OWN, *made, *((f"{program}-nft", *rule) for program, *rule in lacking), out="wan0") == []
    tracked = "-I DOCKER-USER -i lan0 -m conntrack --ctstate NEW,RELATED,ESTABLISHED -j ACCEPT"
    assert said(OWN, *made, ("iptables-nft", *tracked.split()), out="wan0") == []
    assert said(OWN, *made) == [], "a family that is not routed"
    assert said(replace(OWN, dns=0), *made, out="wan0") == [], "without steering all comes to the filter"


FORWARDS = """
table inet fw {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state { established, related } accept
        ip daddr 192.0.2.9 tcp dport 443 accept
        iifname "lan0" jump from_lan
        reject
    }
    chain from_lan {
        ct status dnat accept
        LAN
    }
}
"""


@pytest.mark.parametrize(
    ("rule", "drops"),
    [
        ('oifname "wan0" accept', False),
        ('oifname { "wan0", "wan1" } tcp dport { 80, 443 } accept', False),
        ("ip saddr 192.0.2.0/24 accept", False),
        ("ct direction original accept", False),
        ('oifname "lan0" accept', True),
        ('oifname vmap { "vpn0" : accept, "wan0" : drop }', True),
        ("tcp dport 22 accept", True),
    ],
)
def test_a_firewall_at_forward(rule: str, *, drops: bool) -> None:
    rules = FORWARDS.replace("LAN", rule)
    lines = said(OWN, rules=rules, out="wan0")
    assert len(lines) == drops
    for line in lines:
        commands = [tuple(one.split()) for one in line.partition("hangs: ")[2].split("; ")]
        assert said(OWN, *commands, rules=rules, out="wan0") == []
    (line,) = said(OWN, rules=FORWARDS.replace("inet fw", "inet firewalld").replace("LAN", ""), out="wan0")
    assert line.endswith("to that of wan0 with the target ACCEPT (firewall-cmd --permanent --new-policy)")


def test_each_chain_is_walked_once() -> None:
    """However many rules jump there, and from there on."""
    base = {"family": "ip", "table": "x", "name": "c0", "hook": "input", "policy": "drop"}
    jumps = [
        {
            "rule": {
                "family": "ip",
                "table": "x",
                "chain": f"c{n}",
                "expr": [{"jump": {"target": f"c{n + 1}"}}],
            }
        }
        for n in range(15)
        for _ in range(20)
    ]
    assert len(closed([{"chain": base}, *jumps], OWN, ("lan0",), (80,), (4, 6), {})) == 1
