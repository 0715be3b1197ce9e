"""Fleet of the lab: nodes behind a router that spreads connections over them, the Valkey and the Sentinels
by which they share, and the publisher that their lists come from.

The machine that is the gateway of other scenarios is a router here, and filters nothing. What comes from
clients it gives to a node by a hash of addresses and ports (ECMP, in resilient groups, so that a node that is
lost moves no connection of another), what comes back from origins to a node by a hash of its own, so mostly
to another one. What the neighbour sends goes to a virtual address, which one node has at a time (VRRP).
Further addresses of the client lead through one node each.

Each node has a link to the clients' side and one to the origins' side. On that side is the machine
``services``: two Valkeys, three Sentinels, the publisher and its web server.
"""

import json
import secrets
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tomli_w

from urlward.config import CanaryTable
from urlward.engine.errors import UrlwardError
from urlward.engine.signing import SigningKey
from urlward.gateway.system import LIBERAL
from urlward.gateway.table import FAMILY_AND_NAME
from urlward.lab.filter import LabFilter
from urlward.lab.isolation import environment, find
from urlward.lab.scenario import Loaded
from urlward.lab.services import LabService, wait_until, write_template
from urlward.lab.topology import (
    CLIENT,
    CLIENT6,
    GATEWAY,
    NEIGHBOUR,
    NODES_BACK,
    NODES_FRONT,
    ORIGIN,
    OTHER_RESOLVER,
    RESOLVER,
    ROUTER_PLACE,
    Side,
    inside,
    ip_commands,
    node_place,
    run,
    set_sysctl,
    via,
)
from urlward.process import module_command

SERVICES = "services"
_SIDES = (NODES_FRONT, NODES_BACK)
_VIRTUAL = NODES_FRONT.at(61)
_SERVICES_PLACE = 50
_SERVICES = NODES_BACK.at(_SERVICES_PLACE)

_TO_ORIGINS, _TO_CLIENTS, _VIRTUALLY, _BY_NODE = 31, 32, 33, 40
"""Routing tables."""

_PORTS = (6379, 6380)
_SENTINELS = (26379, 26380, 26381)
_SERVICE = "lab"
_DOWN_AFTER = 1000
"""Milliseconds after which a Sentinel takes a Valkey for dead."""

_SETTLE = 1000
"""Milliseconds that an answer waits at most: the nodes share the cores of one machine."""

_WITHIN = 60.0

LIST = "lab"
"""Name of the list that the publisher offers."""


def _name(number: int) -> str:
    return f"node{number}"


class Fleet:
    """Nodes and what they share.

    Args:
        folder: for all files.
        logs: for the logs of services.
        loaded: a scenario with ``[fleet]``.
        authority: certificate of the origins' authority.
        ipv6: whether the lab has IPv6.
    """

    def __init__(self, folder: Path, logs: Path, loaded: Loaded, authority: Path, ipv6: bool) -> None:
        assert loaded.scenario.fleet
        self.numbers = range(1, loaded.scenario.fleet.nodes + 1)
        self._folder = folder / SERVICES
        self._folder.mkdir(exist_ok=True)
        self._logs = logs
        self._ipv6 = ipv6
        self._stack = ExitStack()
        self._key = self._folder / "lists.key"
        self._key.write_text(secrets.token_hex(32) + "\n")
        self._key.chmod(0o600)
        self._sign = SigningKey(secrets.token_bytes(32))
        self._valkeys: dict[int, LabService] = {}
        self._lost = 0
        self._workers = loaded.scenario.filter.workers
        self._blocked: dict[int, int] = {}
        self._virtual = 1
        _make_network(self.numbers, ipv6)
        self._stack.callback(_remove_network, self.numbers, ipv6)
        self._alive = set(self.numbers)
        self._route()
        self.nodes = {n: self._node(n, folder, loaded, authority) for n in self.numbers}
        # The first node's list is what the publisher compiles: the nodes themselves have feeds alone.
        self._publisher = self._folder / "publisher.toml"
        self._publisher.write_text(tomli_w.dumps(self._publishing(self.nodes[1].list)))

    def start(self) -> None:
        """Start everything, until all nodes have the list and each other."""
        for port in _PORTS:
            self._start_valkey(port, replica_of=None if port == _PORTS[0] else _PORTS[0])
        for port in _SENTINELS:
            self._start_sentinel(port)
        self._start_publisher()
        wait_until(lambda: (self._folder / "lists" / "stable" / f"{LIST}.ward").exists(), "the publisher")
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(self._start_node, self.numbers))
        wait_until(lambda: self._all_with(_PORTS[0]), "all nodes to know of each other", _WITHIN)

    def close(self) -> None:
        """End everything."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(LabFilter.stop, self.nodes.values()))
        self._stack.close()

    # Nodes

    def kill(self, number: int) -> None:
        """End a node as a power cut does; the router then spreads connections over the others."""
        self.nodes[number].kill()
        ip_commands(_name(number), (f"link set {side.link} down" for side in _SIDES))
        self._alive.discard(number)
        self._route()

    def start_again(self, number: int) -> str:
        """Start a node as after a boot; the router gives it connections when it filters.

        Returns:
            What it lacks of another's steered addresses; empty where it has them.
        """
        node = self.nodes[number]
        node.remove_rules()
        _connect(number, self._ipv6)
        node.start()
        mine = self._steered(number)
        lacking = {a for other in self._alive for a in self._steered(other)} - mine
        self._alive.add(number)
        self._route()
        return f"{len(lacking)} addresses that others steer are missing" if lacking or not mine else ""

    def move_address(self) -> tuple[int, str, str, str]:
        """Move the virtual address to the next node.

        Returns:
            Its number, its interface, the address, and its hardware address, which is to be announced.
        """
        device = NODES_FRONT.link
        ip_commands(_name(self._virtual), [f"addr del {_VIRTUAL}/26 dev {device}"])
        self._virtual = self._virtual % len(self.numbers) + 1
        ip_commands(_name(self._virtual), [f"addr add {_VIRTUAL}/26 dev {device}"])
        link = json.loads(run(["ip", "-n", _name(self._virtual), "-json", "link", "show", "dev", device]))
        return self._virtual, device, _VIRTUAL, link[0]["address"]

    def idle(self) -> list[int]:
        """The living nodes that have blocked nothing since this was last asked."""
        now = {n: len(self.nodes[n].log.read()) for n in self._alive}
        found = [n for n, blocked in now.items() if blocked == self._blocked.get(n, 0)]
        self._blocked |= now
        return found

    def allow(self, number: int, url: str) -> None:
        """Have a URL pass, on one node."""
        run(
            inside(
                _name(number),
                module_command("urlward", "allow", url, "--for", "1h", "--why", "lab", *self._config(number)),
            )
        )

    def roll_back(self) -> None:
        """Issue the list before anew."""
        words = ("rollout", "rollback", LIST, "--why", "lab", "--config", str(self._publisher))
        run(inside(SERVICES, module_command("urlward", *words)))

    # Valkey

    def kill_valkey(self) -> None:
        """End the Valkey that takes writes."""
        self._lost = self._primary()
        self._valkeys.pop(self._lost).stop(signal.SIGKILL)

    def hang_valkey(self) -> None:
        """Make the Valkey that takes writes hang."""
        self._lost = self._primary()
        self._valkeys[self._lost].process.send_signal(signal.SIGSTOP)

    def flush_valkey(self) -> int:
        """Have Valkey lose everything, and wait for the nodes to give it back; returns how many addresses."""
        port = self._primary()
        before = int(self._ask(port, "ZCARD", "{urlward}:steered"))
        self._ask(port, "FLUSHALL")

        def is_back() -> bool:
            return int(self._ask(port, "ZCARD", "{urlward}:steered")) >= before > 0

        wait_until(is_back, "the nodes to give Valkey what it had", _WITHIN)
        return before

    def come_together(self) -> None:
        """Wait until another Valkey takes writes and all living nodes are with it; then let the one that was
        killed or hung follow.
        """
        wait_until(
            lambda: self._primary() != self._lost, "Sentinel to have another Valkey take over", _WITHIN
        )
        primary = self._primary()
        wait_until(lambda: self._all_with(primary), "all nodes to find the new Valkey", _WITHIN)
        wait_until(self._status, "the status of the fleet to be good", _WITHIN)
        if self._lost in self._valkeys:
            # Sentinel has it follow, in its own time.
            self._valkeys[self._lost].process.send_signal(signal.SIGCONT)
            return
        self._start_valkey(self._lost, replica_of=primary)

        def follows() -> bool:
            return "state=online" in self._ask(primary, "INFO", "replication")

        wait_until(follows, "the replica", _WITHIN)

    def _all_with(self, port: int) -> bool:
        """Whether all processes of living nodes are connected to a Valkey, and nodes wait for each other."""
        words = self._ask(port, "CLIENT", "LIST").split()
        connected = {word.removeprefix("name=") for word in words if word.startswith("name=")}
        of_node = [*map(str, range(self._workers)), "service"]
        wanted = {f"urlward-{_name(n)}-{process}" for n in self._alive for process in of_node}
        awaited = int(self._ask(port, "ZCARD", "{urlward}:receivers"))
        return wanted <= connected and awaited >= len(self._alive)

    def _primary(self) -> int:
        told = self._ask(_SENTINELS[0], "SENTINEL", "get-master-addr-by-name", _SERVICE).split()
        return int(told[1])

    def _ask(self, port: int, *words: str) -> str:
        return run(inside(SERVICES, [_program("valkey-cli"), "-h", _SERVICES, "-p", str(port), *words]))

    def _start_valkey(self, port: int, replica_of: int | None) -> None:
        folder = self._folder / f"valkey-{port}"
        folder.mkdir(exist_ok=True)
        command = [
            _program("valkey-server"), "--port", str(port), "--bind", _SERVICES, "--dir", str(folder),
            "--protected-mode", "no", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0",
            *(["--replicaof", f"{_SERVICES} {replica_of}"] if replica_of else []),
        ]  # fmt: skip
        self._valkeys[port] = self._run("Valkey", command)
        wait_until(lambda: self._listens(port), "Valkey")

    def _start_sentinel(self, port: int) -> None:
        path = self._folder / f"sentinel-{port}.conf"
        path.write_text(
            f"port {port}\nbind {_SERVICES}\nprotected-mode no\ndir {self._folder}\n"
            f"sentinel monitor {_SERVICE} {_SERVICES} {_PORTS[0]} 2\n"
            f"sentinel down-after-milliseconds {_SERVICE} {_DOWN_AFTER}\n"
            f"sentinel failover-timeout {_SERVICE} 2000\n"
        )
        self._run("Sentinel", [_program("valkey-sentinel"), str(path)])
        wait_until(lambda: self._listens(port), "Sentinel")

    def _listens(self, port: int) -> bool:
        return f":{port} " in run(inside(SERVICES, ["ss", "-tlnH"]))

    # Lists

    def _start_publisher(self) -> None:
        folder = self._folder / "lists"
        folder.mkdir(exist_ok=True)
        path = self._folder / "nginx.conf"
        write_template(
            "lists.conf.j2", path, folder=self._folder, root=folder, log=self._logs, address=_SERVICES
        )
        nginx = [find("nginx") or "nginx", "-p", str(self._folder), "-e", str(self._logs / "lists-error.log")]
        self._run("nginx", [*nginx, "-c", str(path)])
        self._run("publisher", module_command("urlward", "publish", "--config", str(self._publisher)))

    def _publishing(self, source: Path) -> dict[str, Any]:
        sign = self._folder / "body.key"
        sign.write_bytes(self._sign.pem())
        sign.chmod(0o600)
        return {
            "state": str(self._folder / "publisher"),
            "publish": {"to": str(self._folder / "lists"), "key": str(self._key), "sign": str(sign)},
            "feed": [{"name": LIST, "path": str(source), "max_shrink": 1.0, "max_grow": 1000.0}],
        }

    def _run(self, name: str, command: list[str]) -> LabService:
        service = LabService(name, SERVICES, command, self._logs / f"{SERVICES}.log", environment())
        self._stack.callback(service.stop)
        return service

    # What a node is

    def _node(self, number: int, folder: Path, loaded: Loaded, authority: Path) -> LabFilter:
        name = _name(number)
        (folder / name).mkdir(exist_ok=True)
        more = {
            "state": str(folder / name / "state"),
            "key": str(self._key),
            "feed": [
                {
                    "name": LIST,
                    "url": f"http://{_SERVICES}/stable/{LIST}.ward",
                    "trust": [str(self._sign.public)],
                    "poll": "1s",
                    "max_shrink": 1.0,
                    "max_grow": 1000.0,
                }
            ],
            "records": {"node": name, "log": True, "days": {"blocks": 1, "operations": 1}},
            "fleet": {
                "sentinels": [f"valkey://{_SERVICES}:{port}" for port in _SENTINELS],
                "service": _SERVICE,
                "seal": str(self._key),
                "node": name,
                "settle": _SETTLE,
            },
        }
        resolvers = (RESOLVER.host4, OTHER_RESOLVER[0])
        return LabFilter(
            folder / name, loaded, authority, self._ipv6,
            machine=name, links=(NODES_FRONT.link,), resolvers=resolvers, more=more,
        )  # fmt: skip

    def _config(self, number: int) -> tuple[str, str]:
        return "--config", str(self.nodes[number].config)

    def _start_node(self, number: int) -> None:
        node = self.nodes[number]
        node.start()
        # Before its first list, a node lets everything pass.
        wait_until(lambda: " in force, serial " in node.log.text(), "a node to have its list", _WITHIN)

    def _status(self) -> bool:
        command = module_command("urlward", "fleet", "status", *self._config(1))
        done = subprocess.run(  # noqa: S603 - our own program
            inside(_name(1), command), capture_output=True, text=True, check=False, env=environment()
        )
        return done.returncode == 0 and all(_name(n) in done.stdout for n in self.numbers)

    def _steered(self, number: int) -> set[str]:
        """Addresses that a node steers, without the canary's, which each has for itself."""
        listing = run(inside(_name(number), ["nft", "list", "set", *FAMILY_AND_NAME.split(), "steer4"]))
        _, _, elements = listing.partition("elements = {")
        found = {words[0] for part in elements.partition("}")[0].split(",") if (words := part.split())}
        return found.difference(CanaryTable().addresses)

    def _route(self) -> None:
        """Have the router use the living nodes."""
        for family, option in _of_families(self._ipv6):
            groups = (_members(side, self._alive, family) for side in _SIDES)
            ip_commands(GATEWAY, (f"nexthop replace {group}" for group in groups))
            lines = []
            for number in self.numbers:
                hop = (
                    _hop(NODES_FRONT, number, family)
                    if number in self._alive
                    else _group(NODES_FRONT, family)
                )
                lines.append(f"route replace default nhid {hop} table {_BY_NODE + number}")
            ip_commands(GATEWAY, lines, option)


def _program(name: str) -> str:
    path = find(name)
    if path is None:
        package = {"valkey-sentinel": "valkey-sentinel", "valkey-cli": "valkey-tools"}.get(
            name, "valkey-server"
        )
        raise UrlwardError(f"lab: {name}: not found; install the Debian package {package}")
    return path


def _of_families(ipv6: bool) -> Iterator[tuple[int, str]]:
    yield 4, "-4"
    if ipv6:
        yield 6, "-6"


def _group(side: Side, family: int) -> int:
    """Number of the group of next hops on a side."""
    return family * 1000 + (100 if side is NODES_FRONT else 200)


def _hop(side: Side, number: int, family: int) -> int:
    return _group(side, family) + number


_CLIENTS: Mapping[int, tuple[str, ...]] = {
    4: ("192.0.2.0/26", "192.0.2.128/26"),
    6: tuple(f"{network.gateway6.removesuffix('1')}/64" for network in (CLIENT, CLIENT6, NEIGHBOUR)),
}


def _make_network(numbers: Iterable[int], ipv6: bool) -> None:
    numbers = list(numbers)
    for setting in ("net.ipv4.fib_multipath_hash_policy",) + ("net.ipv6.fib_multipath_hash_policy",) * ipv6:
        set_sysctl(GATEWAY, setting, "1")
    lines = []
    for side in _SIDES:
        lines += [
            f"link add {side.bridge} type bridge",
            f"addr add {side.at(ROUTER_PLACE)}/26 dev {side.bridge}",
        ]
        lines += [f"addr add {side.at(ROUTER_PLACE, 6)}/64 dev {side.bridge} nodad"] * ipv6
        lines += [f"link set {side.bridge} up"]
    ip_commands(GATEWAY, lines)
    for number in numbers:
        name = _name(number)
        run(["ip", "netns", "add", name])
        for side in _SIDES:
            _attach(name, side, number)
        for setting in ("net.ipv4.ip_forward", LIBERAL) + ("net.ipv6.conf.all.forwarding",) * ipv6:
            set_sysctl(name, setting, "1")
        _connect(number, ipv6)
    ip_commands(_name(1), [f"addr add {_VIRTUAL}/26 dev {NODES_FRONT.link}"])
    run(["ip", "netns", "add", SERVICES])
    _attach(SERVICES, NODES_BACK, _SERVICES_PLACE)
    ip_commands(
        SERVICES,
        [
            "link set lo up",
            f"addr add {_SERVICES}/26 dev {NODES_BACK.link}",
            f"link set {NODES_BACK.link} up",
        ],
    )
    client = []
    for number in numbers:
        own4, *own6 = _own(number, ipv6)
        client += [
            f"addr add {own4} dev eth0",
            *(f"addr add {a} dev eth0 nodad preferred_lft 0" for a in own6),
        ]
    ip_commands(CLIENT.name, client)
    for family, option in _of_families(ipv6):
        hops: list[str] = []
        for side in _SIDES:
            for number in numbers:
                where = f"via {side.at(node_place(number), family)} dev {side.bridge}"
                hops.append(f"nexthop add id {_hop(side, number, family)} {where}")
            hops.append(f"nexthop add {_members(side, numbers, family)}")
        ip_commands(GATEWAY, hops)
        routes = [f"nhid {_group(NODES_FRONT, family)} table {_TO_ORIGINS}"]
        routes.append(f"nhid {_group(NODES_BACK, family)} table {_TO_CLIENTS}")
        if family == 4:
            routes.append(f"via {_VIRTUAL} dev {NODES_FRONT.bridge} table {_VIRTUALLY}")
        ip_commands(GATEWAY, (f"route add default {route}" for route in routes), option)
        ip_commands(GATEWAY, (f"rule add {rule}" for rule in _rules(numbers, family)), option)


def _members(side: Side, numbers: Iterable[int], family: int) -> str:
    """A group of next hops, as ``ip nexthop`` takes it."""
    hops = "/".join(str(_hop(side, number, family)) for number in sorted(numbers))
    return f"id {_group(side, family)} group {hops} type resilient buckets 64 idle_timer 1"


def _rules(numbers: Iterable[int], family: int) -> Iterator[str]:
    """Rules of routing of the router."""
    yield f"to {NODES_FRONT.network(family)} lookup main pref 90"
    for number in numbers:
        yield f"from {via(number).both[family == 6]} iif {CLIENT.link} lookup {_BY_NODE + number} pref 95"
    for link in (CLIENT.link, CLIENT6.link) + (NEIGHBOUR.link,) * (family == 6):
        yield f"iif {link} lookup {_TO_ORIGINS} pref 100"
    if family == 4:
        yield f"iif {NEIGHBOUR.link} lookup {_VIRTUALLY} pref 100"
    for clients in _CLIENTS[family]:
        yield f"iif {ORIGIN.link} to {clients} lookup {_TO_CLIENTS} pref 100"


def _port(side: Side, number: int) -> str:
    """The router's end of a link."""
    return f"{side.bridge}-{number}"


def _attach(machine: str, side: Side, number: int) -> None:
    peer = _port(side, number)
    ip_commands(machine, [f"link add {side.link} type veth peer name {peer} netns {GATEWAY}"])
    ip_commands(GATEWAY, [f"link set {peer} master {side.bridge} up"])


def _connect(number: int, ipv6: bool) -> None:
    """Give a node its addresses and routes, as after a boot."""
    lines = ["link set lo up"]
    for side in _SIDES:
        lines += [f"addr replace {side.at(node_place(number))}/26 dev {side.link}"]
        lines += [f"addr replace {side.at(node_place(number), 6)}/64 dev {side.link} nodad"] * ipv6
        lines += [f"link set {side.link} up"]
    ip_commands(_name(number), lines)
    for family, option in _of_families(ipv6):
        routes = [f"route replace default via {NODES_BACK.at(ROUTER_PLACE, family)} dev {NODES_BACK.link}"]
        routes += [
            f"route replace {to} via {NODES_FRONT.at(ROUTER_PLACE, family)} dev {NODES_FRONT.link}"
            for to in _CLIENTS[family]
        ]
        ip_commands(_name(number), routes, option)


def _remove_network(numbers: Iterable[int], ipv6: bool) -> None:
    numbers = list(numbers)
    for family, option in _of_families(ipv6):
        ip_commands(GATEWAY, (f"rule del {rule}" for rule in _rules(numbers, family)), option)
    # A namespace lasts as long as a process in it, and so would its links.
    ports = [
        _port(NODES_BACK, _SERVICES_PLACE),
        *(_port(side, number) for side in _SIDES for number in numbers),
    ]
    ip_commands(GATEWAY, (f"link del {link}" for link in (*ports, *(side.bridge for side in _SIDES))))
    for name in (SERVICES, *map(_name, numbers)):
        run(["ip", "netns", "del", name])
    ip_commands(CLIENT.name, (f"addr del {a} dev eth0" for n in numbers for a in _own(n, ipv6)))


def _own(number: int, ipv6: bool) -> list[str]:
    """Addresses of the client that lead through one node."""
    pair = via(number)
    return [f"{pair.v4}/{CLIENT.prefix4}", *([f"{pair.v6}/64"] if ipv6 else [])]
