"""The rules as text; what they do is in test_rules.py."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from rows import each_row
from urlward.config import GatewayTable
from urlward.config.problem import SettingError
from urlward.engine.errors import UrlwardError
from urlward.gateway import rules as rules_of_gateway
from urlward.gateway.rules import RulesPlan, outdated, rules, setup_of

DATA = Path(__file__).parent / "data"
RESOLVERS = ((ip_address("203.0.113.53"), 53), (ip_address("2001:db8::53"), 5300))

CONFIGURATIONS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "all": ({}, (4, 6)),
    "steer": ({"steer": True, "clients": ("192.0.2.0/26", "2001:db8:1::/64")}, (4, 6)),
    "strict": (
        {
            "steer": True,
            "interfaces": ("lan0", "wg*"),
            "exempt": ("192.0.2.9",),
            "never": ("198.51.100.0/24", "198.51.100.7"),
            "steered": "intercept",
            "fail": "closed",
            "ports": (443, 80, 8443),
            "mss": 1200,
            "dns": {"page_addresses": ("192.0.2.62",)},
        },
        (4,),
    ),
    "kept": (
        {
            "steer": True,
            "keep_source": True,
            "exempt": ("192.0.2.9",),
            "never": ("198.51.100.0/24",),
            "nat64": ("2001:db8:64::/96", "fd64::/48"),
            "mss": 1200,
            "dns": {"page_addresses": ("192.0.2.62",)},
        },
        (4, 6),
    ),
}


def plan(
    values: dict[str, Any], families: tuple[int, ...] = (4, 6), listen: int = 8080, shared: bool = False
) -> RulesPlan:
    table = GatewayTable.model_validate({"interfaces": ("lan0",), **values})
    return RulesPlan(table, listen, RESOLVERS, families, shared)


@each_row("name", CONFIGURATIONS)
def test_as_reviewed(name: str) -> None:
    path = DATA / f"rules-{name}.nft"
    text = rules(plan(*CONFIGURATIONS[name], shared=name == "strict"))
    if not path.exists():
        path.write_text(text)
        pytest.fail(f"{path.name} was not there and is written now")
    assert text == path.read_text(), f"read the difference, then delete {path.name} and run this test again"


@each_row(
    ("values", "message"),
    [
        ({"interfaces": ()}, "gateway.interfaces: say where clients come in"),
        ({"interfaces": ("lo",)}, "'lo' is not the name"),
        ({"interfaces": ("a" * 16,)}, "is not the name"),
        ({"interfaces": ('x" accept; iifname "y',)}, "is not the name"),
        ({"interfaces": ("*",)}, "is not the name"),
        ({"interfaces": ("a*b",)}, "is not the name"),
        ({"steer": True, "dns": {"port": 8080}}, "port 8080 twice"),
        ({"steer": True, "steered": "intercept", "intercept_port": 5353}, "port 5353 twice"),
    ],
)
def test_what_makes_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises((UrlwardError, SettingError), match=message.replace("*", r"\*")):
        rules(plan(values))


def test_what_is_not_used_does_not_conflict() -> None:
    assert rules(plan({"steered": "intercept", "intercept_port": 8080, "dns": {"port": 8080}}))


def test_setup_tells_configurations_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    one = setup_of(plan({}))
    assert one == setup_of(plan({}))
    assert (one.listen, one.dns, one.intercept, one.fail) == (8080, 0, 0, "open")
    strict = setup_of(plan({"steer": True, "steered": "intercept", "fail": "closed"}))
    assert (strict.dns, strict.intercept, strict.fail) == (5353, 8090, "closed")
    changed = ({"exempt": ("192.0.2.1",)}, {"ports": (443,)}, {"max_addresses": 5}, {"interfaces": ("lan1",)})
    assert len({one.config, *(setup_of(plan(values)).config for values in changed)}) == 5
    assert setup_of(plan({}, (4,))).config != one.config
    assert setup_of(plan({}, shared=True)).config != one.config
    template = rules_of_gateway._template()
    monkeypatch.setattr(rules_of_gateway, "_template", lambda: template._replace(source="another release's"))
    assert setup_of(plan({})).config != one.config, "so that status says what an upgrade has left there"


def test_outdated_sets() -> None:
    def found(name: str, kind: str, **more: Any) -> dict[str, Any]:
        return {"set": {"name": name, "type": kind, **more}}

    listing = [
        {"table": {}},
        found("steer4", "ipv4_addr", flags=["timeout"], size=65536),
        found("steer6", "ipv6_addr", flags=["timeout"], size=10),
        found("listed4", "ipv4_addr"),
        found("listed4", "ipv4_addr"),
        found("clients4", "ipv4_addr", flags=["interval"]),
        found("told4", ["ipv4_addr", "inet_service"], flags=["dynamic", "timeout"], size=65536, timeout=60),
        found("another", "mark"),
    ]
    assert outdated(plan({}), listing) == ["steer6", "listed4"]
    text = rules(plan({}), listing)
    assert text.count("delete set") == 2
