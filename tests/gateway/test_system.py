import errno
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from e2e.test_modes import may_make_namespaces
from gateway.inside import own_network
from urlward.gateway import netlink, system
from urlward.gateway.netlink import Link
from urlward.gateway.system import (
    LIBERAL,
    come_in_elsewhere,
    enslaved_interfaces,
    has_ipv6,
    interface_faults,
    interfaces_to_the_world,
    is_beyond,
    missing_interfaces,
    overheard_bridges,
    own_addresses,
    sysctl,
    unmet,
    unnamed_uppers,
    unnumbered_interfaces,
    unrouted_interfaces,
    unseen_rules,
    vrf_interfaces,
    ways_out,
)

INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000001 02 40 00 80     eth0
fe80000000000000005056fffe000001 02 40 20 80     eth0
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for name, text in {
        "net/if_inet6": INET6,
        "sys/net/ipv4/ip_forward": "1\n",
        "sys/net/ipv6/conf/all/forwarding": "0\n",
        "sys/net/ipv6/conf/all/disable_ipv6": "0\n",
        "sys/net/netfilter/nf_conntrack_max": "65536\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_kernel_without_ipv6(proc: Path) -> None:
    assert has_ipv6(proc)
    (proc / "net/if_inet6").unlink()
    assert not has_ipv6(proc)


def test_what_the_kernel_is_not_set_to(proc: Path) -> None:
    assert sysctl("net.ipv4.ip_forward", proc) == "1"
    assert sysctl("net.ipv4.nothing", proc) is None
    assert list(unmet((4,), proc)) == []
    assert list(unmet((4, 6), proc)) == [
        "net.ipv6.conf.all.forwarding is 0, so no IPv6 traffic is routed: "
        "sysctl -w net.ipv6.conf.all.forwarding=1"
    ]
    (proc / "sys/net/ipv4/ip_forward").write_text("0\n")
    (proc / "sys/net/ipv6/conf/all/disable_ipv6").write_text("1\n")
    (proc / "sys/net/netfilter/nf_conntrack_max").unlink()
    lines = list(unmet((4, 6), proc))
    assert [line.split()[0] for line in lines] == [
        "net.ipv4.ip_forward",
        "net.ipv6.conf.all.forwarding",
        "IPv6",
        "this",
    ]
    assert "IPv4 alone is filtered" in lines[2]
    assert "modprobe nf_conntrack" in lines[3]
    for name in ("net/ipv4/conf/all/src_valid_mark", "net/ipv4/tcp_fwmark_accept"):
        path = proc / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    assert list(unmet((4, 6), proc)) == lines
    *same, src, accept = unmet((4, 6), proc, marks=True)
    assert same == lines
    assert src.startswith("net.ipv4.conf.all.src_valid_mark is 1, so origins' packets")
    assert accept.endswith("(keep_source): sysctl -w net.ipv4.tcp_fwmark_accept=0")
    path = proc / "sys" / LIBERAL.replace(".", "/")
    path.write_text("0\n")
    assert list(unmet((4, 6), proc)) == lines, "with no other gateway it makes no difference"
    assert [*unmet((4, 6), proc, shared=True)][-1].endswith(f"sysctl -w {LIBERAL}=1")
    path.write_text("1\n")
    assert list(unmet((4, 6), proc, shared=True)) == lines


def test_rules_that_nftables_does_not_show(tmp_path: Path) -> None:
    folder = tmp_path / "thread-self/net"
    folder.mkdir(parents=True)
    (folder / "ip_tables_names").write_text("")
    assert unseen_rules(tmp_path) == []
    (folder / "ip6_tables_names").write_text("nat\nfilter\n")
    (line,) = unseen_rules(tmp_path)
    assert line.startswith("ip6tables-legacy has rules (filter, nat): ")


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_this_thread_s_network() -> None:
    with own_network():
        subprocess.run(["ip", "addr", "add", "192.0.2.1/24", "dev", "lo"], check=True)
        subprocess.run(["ip", "addr", "add", "2001:db8::1/64", "dev", "lo", "nodad"], check=True)
        found = own_addresses()
        assert {ip_address("192.0.2.1"), ip_address("2001:db8::1"), ip_address("::1")} <= found
        assert len(found) == 4
        assert missing_interfaces(["lo", "l*", "eth9", "wg*"]) == ["eth9"]
        assert missing_interfaces(["lo", "l*", "eth9", "wg*"], whatever=True) == ["eth9", "wg*"]
        assert interface_faults(["wg*"]) == [], "nobody has dialled in"


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_own_addresses_are_not_looked_for_among_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which there may be a million: /proc/net/fib_trie takes minutes then."""
    monkeypatch.setattr(system, "_lines", lambda _: pytest.fail("a file of the kernel's"))
    with own_network():
        for line in (
            "link add ppp0 type veth peer name far0",
            "link set ppp0 up",
            "addr add 192.0.2.1/32 peer 203.0.113.9 dev ppp0",
            "addr add 2001:db8::1/128 peer 2001:db8::9 dev ppp0 nodad",
            "route add 198.51.100.0/24 dev ppp0",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        expected = {ip_address(one) for one in ("127.0.0.1", "192.0.2.1", "::1", "2001:db8::1")}
        link_local = {one for one in own_addresses() if one.is_link_local}
        assert own_addresses() - link_local == expected, "and not the other side's"


def test_own_addresses_where_no_socket_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(system, "addresses", refuse)
    assert own_addresses() == set()


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_ports_of_others() -> None:
    with own_network():
        for line in (
            "add lan0 type veth peer name lan8",
            "add lan1 type veth peer name lan9",
            "add br0 type bridge",
            "set lan1 master br0",
        ):
            subprocess.run(["ip", "link", *line.split()], check=True)
        assert enslaved_interfaces(["lan0", "lan8", "lan9", "br0", "lan7"]) == {}
        assert enslaved_interfaces(["lan*"]) == {"lan1": "br0"}
        assert enslaved_interfaces(["lan*", "br*"]) == {}, "there packets are met"
        assert interface_faults(["lan1", "eth9"]) == ["no interface eth9", "lan1 is a port of br0"]


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_an_interface_without_an_address_to_redirect_to() -> None:
    with own_network():
        for line in (
            "link add lan0 type veth peer name lan9",
            "link set lan0 up",
            "link set lan9 up",
            "addr add 203.0.113.1/24 dev lan9",
            "route add default via 203.0.113.2",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        assert unnumbered_interfaces(["lan*"]) == [], "nobody is reached there over IPv4"
        subprocess.run(["ip", "route", "add", "192.0.2.0/24", "dev", "lan0"], check=True)
        assert unnumbered_interfaces(["lan*"]) == ["lan0"]
        assert interface_faults(["lan0"]) == ["lan0 has no IPv4 address"]
        assert interface_faults(["lan0"], redirects=False) == []
        subprocess.run(["ip", "addr", "add", "198.51.100.1/32", "dev", "lan0"], check=True)
        assert unnumbered_interfaces(["lan*"]) == []


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_an_interface_that_nothing_is_routed_from() -> None:
    with own_network():
        for line in ("link add lan0.1 type veth peer name lan9", "addr add 192.0.2.1/24 dev lan0.1"):
            subprocess.run(["ip", *line.split()], check=True)
        for forwards in (0, 1):
            Path("/proc/sys/net/ipv4/ip_forward").write_text(str(forwards))
            assert interface_faults(["lan*"], redirects=False) == ["lan0.1: forwarding is 0"][forwards:]
            assert interface_faults(["lan*"], redirects=False, routes=False) == []
        Path("/proc/sys/net/ipv4/conf/lan9/forwarding").write_text("0")
        assert interface_faults(["lan*"], redirects=False) == [], "nobody is reached there over IPv4"


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_an_interface_that_is_gone_before_its_routes_are_looked_for() -> None:
    with own_network():
        for line in (
            "link add lan0 type veth peer name lan9",
            "link set lan0 up",
            "link set lan9 up",
            "route add 192.0.2.0/24 dev lan0",
            "link add lan1 type veth peer name lan8",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        seen = netlink.links()
        subprocess.run(["ip", "link", "del", "lan1"], check=True)
        assert unnumbered_interfaces(["lan*"], seen) == ["lan0"], "the others are looked at all the same"


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_where_the_rest_of_the_world_comes_in() -> None:
    with own_network():
        for n in (0, 1, 2):
            subprocess.run(f"ip link add lan{n} type veth peer name far{n}".split(), check=True)
            subprocess.run(f"ip link set lan{n} up".split(), check=True)
            subprocess.run(f"ip addr add 192.0.2.{n * 4 + 1}/30 dev lan{n}".split(), check=True)
            subprocess.run(f"ip addr add 2001:db8:{n}::1/64 dev lan{n} nodad".split(), check=True)
        assert interfaces_to_the_world(["lan*"]) == []
        assert ways_out() == {}
        subprocess.run(["ip", "route", "add", "198.51.100.0/24", "dev", "lan0"], check=True)
        subprocess.run(["ip", "route", "add", "default", "via", "192.0.2.6"], check=True)
        subprocess.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:2::2"], check=True)
        assert interfaces_to_the_world(["lan*"]) == ["lan1", "lan2"]
        assert interfaces_to_the_world(["lan0", "lan2"]) == ["lan2"]
        assert ways_out() == {4: "lan1", 6: "lan2"}
        assert is_beyond(["lan*"], ip_address("198.51.100.53"))
        assert not is_beyond(["lan1", "lan2"], ip_address("198.51.100.53"))
        assert not is_beyond(["lan*"], ip_address("203.0.113.53")), "the rest of the world"
        clients = {
            n: ip_network(n) for n in ("192.0.2.0/30", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
        }
        assert come_in_elsewhere(["lan0"], [clients["203.0.113.0/24"]])
        assert come_in_elsewhere(["lan2"], [clients["198.51.100.0/24"], clients["203.0.113.0/24"]])
        for some in (["192.0.2.0/24"], ["198.51.100.0/24"], ["203.0.113.0/24", "192.0.2.0/30"], []):
            assert not come_in_elsewhere(["lan0"], [clients[one] for one in some])
        assert not come_in_elsewhere(["lan1"], [clients["203.0.113.0/24"]]), "one interface for all"
        assert not come_in_elsewhere(["wg0"], [clients["203.0.113.0/24"]]), "which is not there yet"
        assert not come_in_elsewhere(["ppp*"], [clients["203.0.113.0/24"]])
        for n, line in enumerate(("203.0.113.128/25 via 192.0.2.2", "203.0.113.0/24 dev lan0 table 9")):
            subprocess.run(["ip", "route", "add", *line.split()], check=True)
            assert not come_in_elsewhere(["lan0"], [clients["203.0.113.0/24"]]), f"some of it does: {n}"
            subprocess.run(["ip", "route", "del", *line.split()], check=True)
        assert come_in_elsewhere(["lan0"], [ip_network("2001:db8:9::/48")])
        subprocess.run(["ip", "-6", "route", "add", "2001:db8:9:1::/64", "via", "2001:db8::2"], check=True)
        assert not come_in_elsewhere(["lan0"], [ip_network("2001:db8:9::/48")])
        subprocess.run(["ip", "route", "replace", "blackhole", "default"], check=True)
        assert ways_out() == {6: "lan2"}
        assert not come_in_elsewhere(["lan0"], [clients["203.0.113.0/24"]]), "no telling without a route"


@pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")
def test_what_the_kernel_says_of_links() -> None:
    with own_network():
        tunnel = "id 5 dev lan9 group 239.0.0.1 dstport 4789"
        for line in (
            "add lan0 type veth peer name lan9", "add br0 type bridge", "set lan0 master br0",
            f"add vx0 type vxlan {tunnel}",
        ):  # fmt: skip
            subprocess.run(["ip", "link", *line.split()], check=True)
        found = {one.name: (index, one) for index, one in netlink.links().items()}
        bridge, end = found["br0"][0], found["lan9"][0]
        assert found["lan0"][1] == Link("lan0", bridge, "veth", end)
        assert (found["br0"][1].kind, found["lo"][1]) == ("bridge", Link("lo", 0))
        assert found["vx0"][1] == Link("vx0", 0, "vxlan", end)


def test_vlans(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {
        1: Link("lan0", 0),
        2: Link("lan0.10", 0, "vlan", 1),
        3: Link("lan0.20", 4, "vlan", 1),
        4: Link("br0", 0, "bridge"),
        5: Link("veth0", 0, "veth", 1),
        6: Link("lan0.10.7", 0, "vlan", 2),
        7: Link("far", 0, "vlan", 99),
        8: Link("vrrp.51", 0, "macvlan", 5),
        9: Link("wan0", 0),
        10: Link("dslite0", 0, "ip6tnl", 9),
        11: Link("veth1", 0, "veth", 9),
    }
    monkeypatch.setattr(system, "links", lambda: links)
    assert unnamed_uppers(["wan0"]) == {"dslite0": "wan0"}
    assert unnamed_uppers(["lan0"]) == {"lan0.10": "lan0", "br0": "lan0"}
    assert unnamed_uppers(["lan0", "lan0.10"]) == {"br0": "lan0", "lan0.10.7": "lan0.10"}
    assert unnamed_uppers(["lan0*", "br0"]) == {}
    assert unnamed_uppers(["veth0"]) == {"vrrp.51": "veth0"}, "as keepalived makes with use_vmac"
    assert unnamed_uppers(["lan0.20"]) == {}, "what comes in by the trunk is not asked for"


def test_bridges_that_rules_see_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    links = {1: Link("lan0", 2), 2: Link("br0", 0, "bridge"), 3: Link("br1", 0, "bridge")}
    links |= {
        4: Link("br1.10", 0, "vlan", 3),
        5: Link("vrrp.51", 0, "macvlan", 4),
        6: Link("v0", 0, "vlan", 1),
    }
    monkeypatch.setattr(system, "links", lambda: links)
    assert overheard_bridges(["br0"], tmp_path) == {}, "a kernel without"
    setting = tmp_path / "sys/net/bridge/bridge-nf-call-ip6tables"
    setting.parent.mkdir(parents=True)
    setting.write_text("0\n")
    assert overheard_bridges(["br0"], tmp_path) == {}
    setting.write_text("1\n")
    assert overheard_bridges(["br0"], tmp_path) == {"br0": "net.bridge.bridge-nf-call-ip6tables"}
    assert overheard_bridges(["lan*"], tmp_path) == {}
    assert list(overheard_bridges(["br1.10", "v*"], tmp_path)) == ["br1.10", "vrrp.51"]
    monkeypatch.setattr(system, "addresses", lambda: [(2, ip_address("192.0.2.1"))])
    forwarding = tmp_path / "sys/net/ipv4/conf/br0/forwarding"
    forwarding.parent.mkdir(parents=True)
    forwarding.write_text("0\n")
    assert unrouted_interfaces(["br0"], proc=tmp_path) == [], (
        "what it passes on is filtered without being routed"
    )
    setting.write_text("0\n")
    assert unrouted_interfaces(["br0"], proc=tmp_path) == ["br0"]


def test_vrfs(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {1: Link("lan0", 2), 2: Link("br0", 3, "bridge"), 3: Link("red", 0, "vrf"), 4: Link("lan1", 0)}
    monkeypatch.setattr(system, "links", lambda: links)
    monkeypatch.setattr(system, "missing_interfaces", lambda _: [])
    assert vrf_interfaces(["lan*", "red"]) == {"lan0": "red", "red": "red"}
    assert vrf_interfaces(["lan1"]) == {}
    assert enslaved_interfaces(["lan0"]) == {}, "by the VRF's name nothing would be filtered either"
    assert interface_faults(["lan0", "lan1"]) == ["lan0 is in a VRF"]


def test_packets_come_in_by_the_last_master(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {
        1: Link("eth0", 3),
        2: Link("eth1", 4),
        3: Link("bond0", 4),
        4: Link("br0", 0),
        5: Link("eth2", 99),
    }
    monkeypatch.setattr(system, "links", lambda: links)
    assert enslaved_interfaces(["eth*", "bond0"]) == {"eth0": "br0", "eth1": "br0", "bond0": "br0"}
    assert enslaved_interfaces(["eth0", "br0"]) == {}
    assert enslaved_interfaces(["eth2"]) == {}, "its master is in another namespace, or gone meanwhile"
    links |= {n: Link(f"ppp{n}", 4) for n in range(10, 2010)}
    monkeypatch.setattr(system, "missing_interfaces", lambda _: [])
    monkeypatch.setattr(system, "unnumbered_interfaces", lambda *_: [])
    *first, last = interface_faults(["ppp*"])
    assert first == [f"ppp{n} is a port of br0" for n in range(10, 15)]
    assert last == "and so for 1995 interfaces more"
