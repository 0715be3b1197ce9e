"""A client, gateways side by side and the world behind them: network namespaces that end with the run."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 60.0
"""Seconds that something may take to be ready."""


@dataclass(frozen=True, slots=True)
class Network:
    """Names of namespaces.

    Attributes:
        client: where requests come from; its address of a family differs from gateway to gateway.
        gateways: between client and world, each with a network of the world that is behind it alone.
        world: has all addresses that `ipv4` and `ipv6` give.
    """

    client: str
    gateways: tuple[str, ...]
    world: str


def ipv4(gateway: int, host: int) -> str:
    """An address of the world that is behind the gateway of this number (0 to 3); host is 1 to 62."""
    return f"203.0.113.{64 * gateway + host}"


def ipv6(gateway: int, host: int) -> str:
    """Likewise; host is 1 to 65,535."""
    return f"2001:db8:f{gateway}::{host:x}"


def network(stack: ExitStack, prefix: str, gateways: int = 1) -> Network:
    """Make a network, and have the stack remove it.

    Args:
        stack: ends with the network.
        prefix: of the namespaces' names.
        gateways: how many of them.
    """
    names = [f"uw-{prefix}-{kind}-{os.getpid()}" for kind in ("c", "w", *map(str, range(gateways)))]
    for name in names:
        ip("netns", "add", name)
        stack.callback(ip, "netns", "del", name)
        ip("-n", name, "link", "set", "lo", "up")
    client, world, *between = names
    for number, gateway in enumerate(between):
        _connect(client, gateway, world, number)
    ip("-n", world, "route", "add", "local", "203.0.113.0/24", "dev", "lo")
    for number in range(gateways):
        ip("-n", world, "-6", "route", "add", "local", f"2001:db8:f{number}::/48", "dev", "lo")
    inside(client, "sysctl", "-qw", "net.ipv4.ip_local_port_range=2048 65000")
    return Network(client, tuple(between), world)


def _connect(client: str, gateway: str, world: str, number: int) -> None:
    """Wires, addresses and routes of one gateway."""
    lan = (f"192.0.2.{16 * number + 1}/28", f"192.0.2.{16 * number + 2}/28", f"2001:db8:a{number}:")
    wan = (f"198.51.100.{16 * number + 1}/28", f"198.51.100.{16 * number + 2}/28", f"2001:db8:b{number}:")
    for end, own, other, (there, here, six) in (
        (client, f"lan{number}", "lan0", lan),
        (world, f"wan{number}", "wan0", wan),
    ):
        ip("-n", end, "link", "add", own, "type", "veth", "peer", "name", other, "netns", gateway)
        for name, link, four, host in ((end, own, there, 1), (gateway, other, here, 2)):
            ip("-n", name, "addr", "add", four, "dev", link)
            ip("-n", name, "addr", "add", f"{six}:{host}/64", "dev", link, "nodad")
            ip("-n", name, "link", "set", link, "up")
    to_world = (f"203.0.113.{64 * number}/26", f"2001:db8:f{number}::/48")
    to_client = (f"192.0.2.{16 * number}/28", f"2001:db8:a{number}::/64")
    for name, networks, four, six in (
        (client, to_world, lan[1], lan[2]),
        (world, to_client, wan[1], wan[2]),
    ):
        ip("-n", name, "route", "add", networks[0], "via", four.partition("/")[0])
        ip("-n", name, "-6", "route", "add", networks[1], "via", f"{six}:2")
    ip("-n", gateway, "route", "add", to_world[0], "via", wan[0].partition("/")[0])
    ip("-n", gateway, "-6", "route", "add", to_world[1], "via", f"{wan[2]}:1")
    for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
        inside(gateway, "sysctl", "-qw", setting)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Have this thread, and what it starts, in a namespace."""
    with open("/proc/thread-self/ns/net") as before:  # noqa: PTH123 - for its descriptor alone
        with open(f"/run/netns/{name}") as file:  # noqa: PTH123
            os.setns(file.fileno(), os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(before.fileno(), os.CLONE_NEWNET)


@contextmanager
def process(
    folder: Path, name: str, namespace: str, *command: str, core: int | None = None
) -> Iterator[Path]:
    """Run something in a namespace.

    Args:
        folder: for its output.
        name: of the file there.
        namespace: where it runs.
        command: what.
        core: the only one that it may use.

    Yields:
        The file with its output.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        running = subprocess.Popen(
            [*prefix(namespace, core), *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield log
    finally:
        running.terminate()
        running.wait(_PATIENCE)


def wait(log: Path, text: str, times: int = 1) -> None:
    """Until a text stands in a file so many times.

    Raises:
        TimeoutError: that takes too long; the message is the file.
    """
    end = time.monotonic() + _PATIENCE
    while log.read_text().count(text) < times:
        if time.monotonic() > end:
            raise TimeoutError(log.read_text())
        time.sleep(0.05)


def prefix(namespace: str, core: int | None = None) -> Sequence[str]:
    """What comes before a command that is to run in a namespace, on one core or any."""
    bound = () if core is None else ("taskset", "-c", str(core))
    return ("ip", "netns", "exec", namespace, *bound)


def inside(namespace: str, *command: str, text: str = "") -> str:
    """The output of a command that ran in a namespace; `text` is its input."""
    done = subprocess.run(
        [*prefix(namespace), *command], check=False, input=text, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def ip(*arguments: str) -> None:
    """Run ``ip``."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
