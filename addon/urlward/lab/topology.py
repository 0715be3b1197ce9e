"""Topology of the lab: a namespace for each machine, joined by the gateway, which routes.

It is made inside namespaces that end with the lab (`urlward.lab.isolation`), so nothing here
undoes anything.
"""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from urlward.lab.addresses import GATEWAY, NETWORKS, ORIGIN, ORIGINS4, ORIGINS6, Network
from urlward.lab.errors import LabError


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """Command line that runs a command in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def run(command: Sequence[str], text: str | None = None) -> str:
    """Run a program to its end.

    Raises:
        LabError: it fails; with its last words.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the lab's own commands
            list(command), input=text, capture_output=True, text=True, check=False
        )
    except OSError as e:
        raise LabError(f"lab: {command[0]}: {e.strerror}") from e
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"ended with {done.returncode}"]
        ours = [line.removeprefix("urlward: ") for line in lines if line.startswith("urlward: ")]
        raise LabError(f"lab: {ours[0]}" if ours else f"lab: {' '.join(command[:6])}: {lines[0]}")
    return done.stdout


def make_network(ipv6: bool) -> None:
    """Make all namespaces and links, and let the gateway forward.

    Raises:
        LabError: the kernel refuses.
    """
    for name in (GATEWAY, *(network.name for network in NETWORKS)):
        run(["ip", "netns", "add", name])
    for network in NETWORKS:
        _ip(network.name, _machine(network, ipv6))
    _ip(GATEWAY, _gateway(ipv6))
    forward = ["net.ipv4.ip_forward"] + (["net.ipv6.conf.all.forwarding"] if ipv6 else [])
    for setting in forward:
        set_sysctl(GATEWAY, setting, "1")


def add_origins(addresses: Iterable[str]) -> None:
    """Give the origins' machine these addresses."""
    _ip(ORIGIN.name, (f"addr replace {a}/{128 if ':' in a else 32} dev lo" for a in addresses))


def set_sysctl(namespace: str, name: str, value: str) -> None:
    """Set a kernel setting of a namespace, such as ``net.ipv4.ip_forward``."""
    path = Path("/proc/sys") / name.replace(".", "/")
    run(inside(namespace, ["tee", str(path)]), value)


def _ip(namespace: str, lines: Iterable[str]) -> None:
    run(["ip", "-n", namespace, "-batch", "-"], "".join(f"{line}\n" for line in lines))


def _machine(network: Network, ipv6: bool) -> Iterable[str]:
    yield "link set lo up"
    yield f"link add eth0 type veth peer name {network.link} netns {GATEWAY}"
    if network.host4:
        yield f"addr add {network.host4}/{network.prefix4} dev eth0"
    if ipv6:
        yield f"addr add {network.host6}/64 dev eth0 nodad"
    for address in network.more:
        if ":" not in address:
            yield f"addr add {address}/{network.prefix4} dev eth0"
        elif ipv6:
            yield f"addr add {address}/64 dev eth0 nodad preferred_lft 0"
    yield "link set eth0 up"
    if network.host4:
        yield f"route add default via {network.gateway4}"
    if ipv6:
        yield f"route add default via {network.gateway6} dev eth0"


def _gateway(ipv6: bool) -> Iterable[str]:
    yield "link set lo up"
    for network in NETWORKS:
        if network.host4:
            yield f"addr add {network.gateway4}/{network.prefix4} dev {network.link}"
        if ipv6:
            yield f"addr add {network.gateway6}/64 dev {network.link} nodad"
        yield f"link set {network.link} up"
    yield f"route add {ORIGINS4} via {ORIGIN.host4}"
    if ipv6:
        yield f"route add {ORIGINS6} via {ORIGIN.host6} dev {ORIGIN.link}"
