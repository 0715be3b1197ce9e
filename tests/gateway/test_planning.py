from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from urlward.config import Config
from urlward.config.problem import SettingError
from urlward.engine.errors import UrlwardError
from urlward.gateway import rules
from urlward.gateway.rules import Planned, planned

RESOLVED = {"dns": {"resolvers": ["203.0.113.53", "[2001:db8::53]:5300"]}}
V4, V6 = (ip_address("203.0.113.53"), 53), (ip_address("2001:db8::53"), 5300)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rules, "own_addresses", lambda: frozenset({ip_address("192.0.2.254")}))
    monkeypatch.setattr(rules, "has_ipv6", lambda: True)
    monkeypatch.setattr(rules, "missing_interfaces", lambda names, **_: [n for n in names if n != "lan0"])
    monkeypatch.setattr(rules, "enslaved_interfaces", lambda names: {n: "br0" for n in names if n == "lan1"})
    monkeypatch.setattr(rules, "come_in_elsewhere", lambda *_: False)
    monkeypatch.setattr(rules, "sysctl", lambda _: "1")
    monkeypatch.setattr(rules, "_STUB_OF", tmp_path / "stub")


def plan(system: Path = Path("/nowhere"), **values: Any) -> Planned:
    gateway = {"interfaces": ["lan0"], **values.pop("gateway", {})}
    return planned(Config.model_validate({"gateway": gateway, **values}), system=system)


def test_as_configured() -> None:
    made = plan(gateway={"steer": True, "dns": {"resolvers": ["203.0.113.53", "[2001:db8::53]:5300"]}})
    assert made.notes == ()
    assert (made.plan.listen, made.plan.resolvers, made.plan.families) == (8080, (V4, V6), (4, 6))


@pytest.mark.parametrize(
    ("values", "port"),
    [
        ({"listen": ":9090"}, 9090),
        ({"listen": ":9090", "mode": ["regular@3128", "transparent"]}, 9090),
        ({"listen": ":9090", "mode": ["transparent@8443"]}, 8443),
        ({"mode": ["transparent@8090", "transparent@8081"]}, 8081),
    ],
)
def test_where_connections_arrive(values: dict[str, Any], port: int) -> None:
    assert plan(**values).plan.listen == port


def test_the_flag_goes_before_the_file() -> None:
    config = Config.model_validate({"listen": ":9090", "gateway": {"interfaces": ["lan0"]}})
    assert planned(config).plan.listen == 9090
    assert planned(config, ":7070").plan.listen == 7070
    with pytest.raises(UrlwardError, match=r"^listen: ':99999999999' is not HOST:PORT"):
        planned(config, ":99999999999")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"listen": ":0"}, "is not HOST:PORT"),
        ({"listen": "127.0.0.1:8080"}, "do not arrive at 127.0.0.1; listen on all addresses"),
        # What the rules lead there over IPv4 would find nobody, DNS among it.
        ({"listen": "[::]:8080"}, "[::] is IPv6 alone"),
        ({"mode": ["transparent@:::8080"]}, "[::] is IPv6 alone"),
        ({"mode": ["transparent@192.0.2.1:8080"]}, "do not arrive at 192.0.2.1"),
        ({"mode": ["nonsense"]}, "mode.0: 'nonsense'"),
        ({"mode": ["regular"]}, "mode: the rules lead to a transparent proxy, and none is here"),
        (
            {"mode": ["regular"], "gateway": {"steer": True, "dns": {"resolvers": ["192.0.2.53"]}}},
            "mode: steering needs transparent, dns@5353; that is the default: leave mode out",
        ),
        (
            {"mode": ["transparent"], "gateway": {"steer": True, "dns": {"resolvers": ["192.0.2.53"]}}},
            "mode: steering needs transparent, dns@5353; that is the default: leave mode out",
        ),
        ({"gateway": {"steer": True, "dns": {"resolvers": ["x"]}}}, "gateway.dns.resolvers: 'x'"),
        ({"gateway": {"steer": True}}, "gateway.dns.resolvers: needed, since"),
    ],
)
def test_what_makes_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises((UrlwardError, SettingError)) as caught:
        plan(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    (note,) = plan(gateway={"interfaces": ["lan0", "wg7"]}).notes
    assert note == "gateway.interfaces: there is no wg7 on this machine, or not yet"
    monkeypatch.setattr(rules, "vrf_interfaces", lambda _: {"lan0": "red", "red": "red"})
    monkeypatch.setattr(rules, "unnamed_uppers", lambda _: {"lan0.10": "lan0"})
    assert plan().notes == (
        "gateway.interfaces: lan0 is in the VRF red, which is not supported",
        "gateway.interfaces: red is a VRF, which is not supported",
        "gateway.interfaces: what comes in by lan0.10, made of lan0, is not filtered: name lan0.10 too "
        "where clients are in it",
    )
    monkeypatch.setattr(rules, "unnumbered_interfaces", lambda _: ["lan0"])
    assert "lan0 has no IPv4 address" in plan().notes[-1]
    assert (
        "lan0 has no IPv4 address" in plan(gateway={"steer": True, "keep_source": True, **RESOLVED}).notes[-1]
    )
    assert len(plan(gateway={"keep_source": True}).notes) == 3, "nothing is redirected"
    monkeypatch.setattr(rules, "interfaces_to_the_world", lambda _: ["lan0"])
    assert "all that come in there are clients: say who is one" in plan().notes[-2]
    assert "and are answered DNS" in plan(gateway={"steer": True, **RESOLVED}).notes[-2]
    assert len(plan(gateway={"clients": ["192.0.2.0/24", "2001:db8::/64"]}).notes) == 4
    monkeypatch.setattr(rules, "interfaces_to_the_world", lambda _: [])
    monkeypatch.setattr(rules, "unnumbered_interfaces", lambda _: [])
    monkeypatch.setattr(rules, "overheard_bridges", lambda _: {"br0": "net.bridge.x"})
    assert "net.bridge.x is 1, so what br0 passes from port to port" in plan().notes[-1]
    assert "comes in by br0 for the filter gets lost" in plan(gateway={"keep_source": True}).notes[-1]
    for name in ("vrf_interfaces", "unnamed_uppers", "overheard_bridges"):
        monkeypatch.setattr(rules, name, lambda _: {})
    _, note = plan(gateway={"interfaces": ["lan0", "lan1"]}).notes
    assert note == ("gateway.interfaces: lan1 is a port of br0, as which packets come in: name br0")
    (note,) = plan(gateway={"clients": ["192.0.2.0/24"]}).notes
    assert "no IPv6 network" in note
    clients = {"clients": ["192.0.2.0/24", "2001:db8::/64"]}
    assert plan(gateway=clients).notes == ()
    monkeypatch.setattr(rules, "come_in_elsewhere", lambda *_: True)
    (note,) = plan(gateway=clients).notes
    assert "none of these networks comes in by gateway.interfaces" in note
    made = plan(listen="0.0.0.0:8080")
    assert (made.plan.families, len(made.notes)) == ((4,), 1)
    monkeypatch.setattr(rules, "has_ipv6", lambda: False)
    made = plan()
    assert (made.plan.families, made.notes) == ((4,), ("this kernel has no IPv6: IPv4 alone is filtered",))


@pytest.mark.parametrize(
    ("resolvers", "chosen", "notes"),
    [
        (["127.0.0.1", "203.0.113.53", "203.0.113.54"], (V4,), 0),
        (["127.0.0.53:5300"], (), 2),
        (["[2001:db8::53]:5300", "fe80::1%lo"], (V6,), 1),
    ],
)
def test_resolvers_for_the_time_when_no_worker_lives(
    resolvers: list[str], chosen: tuple[object, ...], notes: int
) -> None:
    made = plan(gateway={"steer": True, "dns": {"resolvers": resolvers}})
    assert made.plan.resolvers == chosen
    assert len(made.notes) == notes
    assert all("while no worker lives" in note for note in made.notes)


def test_a_resolver_whose_own_questions_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[str, Any] = {"steer": True, **RESOLVED}
    monkeypatch.setattr(rules, "is_beyond", lambda _, address: address == V4[0])
    (note,) = plan(gateway=table).notes
    assert note.startswith("gateway.dns.resolvers: 203.0.113.53 is a client, whose own questions")
    assert plan(gateway={**table, "exempt": ["203.0.113.0/24"]}).notes == ()
    assert plan(gateway={**table, "clients": ["192.0.2.0/24", "2001:db8:1::/64"]}).notes == ()
    (note,) = plan(gateway={**table, "clients": ["192.0.2.0/24", "2001:db8::/64"]}).notes
    assert note.startswith("gateway.dns.resolvers: 2001:db8::53 is a client")


def test_the_systems_resolvers(tmp_path: Path) -> None:
    system = tmp_path / "resolv.conf"
    system.write_text("nameserver 203.0.113.53\n")
    assert plan(system=system, gateway={"steer": True}).plan.resolvers == (V4,)
    # A stub of systemd-resolved answers this machine alone; those behind it answer others too.
    system.write_text("nameserver 127.0.0.53\n")
    assert plan(system=system, gateway={"steer": True}).plan.resolvers == ()
    (tmp_path / "stub").write_text("nameserver 203.0.113.53\n")
    assert plan(system=system, gateway={"steer": True}).plan.resolvers == (V4,)
