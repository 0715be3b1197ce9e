"""Two filters with a gateway each, in namespaces, and a Valkey between them."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from conftest import wait_for
from e2e.steer_support import MANY, address, ask, elements, get, resolving, steering, while_alive
from e2e.support import Filter
from e2e.test_modes import may_make_namespaces
from e2e.test_processes import workers_of
from fleet.servers import HAS_VALKEY
from gateway.network import IPV4, Network
from urlward.records.asking import ask as ask_recorder

pytestmark = [
    pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft"),
    pytest.mark.skipif(not HAS_VALKEY, reason="needs valkey-server"),
]

HERE, THERE, PORT = "198.18.7.1", "198.18.7.2", 6379
FLEET = f"""
[fleet]
url = "valkey://{HERE}:{PORT}"
seal = "fleet.key"
node = "{{node}}"
[records]
node = "{{node}}"
days = {{{{ blocks = 1, operations = 1 }}}}
"""
PATIENT = """
import sys
from urlward.fleet import steer_sets
from urlward.fleet.steer_sets import SharedSteerSet
from urlward.gateway.steering import Steering

share, see = Steering._share, SharedSteerSet._see
Steering._share = lambda self, connection, settle: share(self, connection, 3_000)
steer_sets.LEASE = 10.0

async def seen(self):
    await see(self)
    if self._awaited():
        print("fleet: waits for the other", file=sys.stderr, flush=True)
        self._see = lambda: see(self)

SharedSteerSet._see = seen
"""
"""A node that waits for a processor is waited for, or it would not have the address yet. Each worker says so:
before it waits for the other node, its answers do not."""


class Valkey:
    """A server in a namespace."""

    def __init__(self, net: Network, folder: Path) -> None:
        self._net = net
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            *self._net.gateway.prefix, "valkey-server", "--port", str(PORT), "--bind", HERE, "--save", "",
            "--dir", str(self._folder), "--protected-mode", "no",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers, "Valkey")

    def _answers(self) -> bool:
        with suppress(OSError):
            self._net.gateway.connect(HERE, PORT, patience=1.0).close()
            return True
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass
class Pair:
    """Two nodes."""

    nets: tuple[Network, Network]
    filters: tuple[Filter, Filter]
    states: tuple[Path, Path]
    valkey: Valkey


@contextmanager
def joined(a: Network, b: Network) -> Iterator[None]:
    """A wire between two gateways."""
    command = [
        "ip",
        "link",
        "add",
        "fl0",
        "netns",
        a.gateway.name,
        "type",
        "veth",
        "peer",
        "name",
        "fl0",
        "netns",
    ]
    subprocess.run([*command, b.gateway.name], check=True)
    for net, one in ((a, HERE), (b, THERE)):
        subprocess.run(["ip", "-n", net.gateway.name, "addr", "add", f"{one}/30", "dev", "fl0"], check=True)
        subprocess.run(["ip", "-n", net.gateway.name, "link", "set", "fl0", "up"], check=True)
    yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        folders = [folder / name for name in ("gw1", "gw2")]
        for one in folders:
            one.mkdir()
            (one / "fleet.key").write_text("5a" * 32 + "\n")
        nets = tuple(stack.enter_context(resolving(each, f"fl{n}")) for n, each in enumerate(folders))
        stack.enter_context(joined(*nets))
        server = Valkey(nets[0], folder)
        stack.callback(server.kill)
        server.start()
        filters = tuple(
            stack.enter_context(
                steering(
                    net, each, workers=2, top=f'state = "{each}/state"',
                    dns_more=FLEET.format(node=each.name), before=PATIENT,
                )
            )
            for net, each in zip(nets, folders, strict=True)
        )  # fmt: skip
        for each in filters:
            wait_for(
                lambda each=each: each.log().count("fleet: waits for the other") >= 2, "both workers to meet"
            )
        yield Pair(nets, filters, (folders[0] / "state", folders[1] / "state"), server)


def steered(net: Network, where: str) -> bool:
    return where in elements(net, "steer4")


def test_an_address_is_in_the_other_kernel_when_the_answer_is_read(pair: Pair) -> None:
    """Whichever worker answers, and whichever node."""
    a, b = pair.nets

    def attempt(asked: Network, other: Network, number: int) -> None:
        where = address(ask(asked, f"n{number}.blocked.example"))
        assert steered(asked, where)
        assert steered(other, where)

    for number in range(10):
        asked, other = (a, b) if number % 2 else (b, a)
        while_alive(asked, partial(attempt, asked, other, number))


def metric(state: Path, name: str) -> float:
    text: str = ask_recorder(state, "metrics")["text"]
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


def test_both_count_and_see_each_other(pair: Pair) -> None:
    for number, net in enumerate(pair.nets, 50):
        address(ask(net, f"n{number}.blocked.example"))
    counted = (
        'urlward_fleet_answers_total{outcome="settled"}', 'urlward_fleet_addresses_total{way="received"}',
        'urlward_fleet_settle_seconds_bucket{le="+Inf"}', "urlward_fleet_up",
    )  # fmt: skip
    for state in pair.states:
        for name in counted:
            wait_for(lambda state=state, name=name: metric(state, name), name)
        wait_for(lambda state=state: metric(state, 'urlward_fleet_nodes{state="up"}') == 2, "both nodes")


def test_a_listed_page_is_blocked_by_the_node_that_the_traffic_takes(pair: Pair) -> None:
    a, b = pair.nets

    def attempt() -> None:
        assert address(ask(a, "blocked.example")) == IPV4.origin
        assert get(b, IPV4.origin, "blocked.example") == 451

    while_alive(b, attempt)


@pytest.mark.long
def test_nothing_is_missed_over_a_reload_and_the_end_of_all_workers(pair: Pair) -> None:
    a, b = pair.nets
    other = pair.filters[1]
    wheres = []
    numbers = iter(range(120, MANY))

    def answer() -> None:
        wheres.append(address(ask(a, f"n{next(numbers)}.blocked.example")))

    other.process.send_signal(signal.SIGUSR2)
    while "reload: done" not in other.log():
        answer()
        time.sleep(0.5)
    before = workers_of(other)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    answer()
    wait_for(lambda: len(workers_of(other)) == len(before) and not {*before} & {*workers_of(other)}, "others")
    answer()
    for where in wheres:
        wait_for(lambda where=where: steered(b, where), "an address")


def test_without_valkey_each_filters_on_and_both_merge_when_it_is_back(pair: Pair) -> None:
    a, b = pair.nets
    pair.valkey.kill()
    for each in pair.filters:
        wait_for(lambda each=each: "filters on with what it has" in each.log(), "the word that it is away")
    for state in pair.states:
        alarms = partial(ask_recorder, state, "status")
        wait_for(lambda alarms=alarms: "worker" in alarms()["alarms"].get("fleet", ""), "the alarm")
    answers = 'urlward_fleet_answers_total{{outcome="{}"}}'.format
    before = [metric(state, answers("late")) for state in pair.states]
    first, second = (address(ask(net, f"n{n}.blocked.example")) for net, n in ((a, 100), (b, 101)))
    for state in pair.states:
        wait_for(lambda state=state: metric(state, answers("away")), "the answers that went at once")
    assert [metric(state, answers("late")) for state in pair.states] == before
    assert steered(a, first)
    assert not steered(b, first)
    pair.valkey.start()
    for net, where in ((a, second), (b, first)):
        wait_for(lambda net=net, where=where: steered(net, where), "what the other has steered")
    for each in pair.filters:
        wait_for(lambda each=each: "fleet: Valkey is back" in each.log(), "the word that it is back")
        assert where not in each.log()
