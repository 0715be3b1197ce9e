"""The canary behind the kernel's rules, in namespaces: it comes through, and says where it does not."""

import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from e2e.steer_support import address, ask, command, elements, get, resolving, steering, while_alive
from e2e.support import Filter, children_of
from e2e.test_modes import may_make_namespaces
from gateway.network import Network, canaries
from urlward.proxy import notify

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")

CANARY4, CANARY6 = "192.0.2.252", "2001:db8:ffff:ffff::252"
RECORDS = """\
state = "state"
[records]
node = "gw1"
[records.days]
blocks = 30
operations = 365
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with resolving(tmp_path_factory.mktemp("steer"), "canary") as made:
        yield made


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[bytes]]:
    """What a service manager has heard, whose socket the environment of what is started names."""
    path = tmp_path_factory.mktemp("manager") / "notify"
    found: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s, pytest.MonkeyPatch.context() as patch:
        s.bind(str(path))
        patch.setenv(notify.SOCKET, str(path))
        patch.setenv(notify.INTERVAL, "400000")

        def hear() -> None:
            while message := s.recv(200):
                found.append(message)

        thread = threading.Thread(target=hear, daemon=True)
        thread.start()
        yield found
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", str(path))
        thread.join()


@pytest.fixture(scope="module")
def proxy(net: Network, heard: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    """Two workers, with records."""
    folder = tmp_path_factory.mktemp("canary")
    with steering(net, folder, top=RECORDS) as proxy:
        # Each worker has an element of its own.
        wait_for(lambda: len(elements(net, "canary")) == 2, "both workers' canaries to come through")
        yield proxy


def config(proxy: Filter) -> str:
    return str(proxy.folder / "urlward.toml")


def status(net: Network, proxy: Filter) -> Any:
    return command(net, "gateway", "status", "--json", "--config", config(proxy))


def summary(net: Network, proxy: Filter) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command(net, "status", "--json", "--config", config(proxy)).stdout)
    return found


def test_it_goes_the_whole_way_and_is_not_counted(net: Network, proxy: Filter) -> None:
    both = {"worker 0": "ok", "worker 1": "ok"}
    wait_for(lambda: json.loads(status(net, proxy).stdout)["canary"] == both, "both to come through")
    assert CANARY4 in elements(net, "steer4")
    assert CANARY6 in elements(net, "steer6")
    wait_for(lambda: summary(net, proxy).get("canary"), "the recorder to be told")
    wait_for(lambda: not summary(net, proxy)["ready"]["failing"], "all to be well")
    found = summary(net, proxy)
    assert (found["hour"]["judged"], found["hour"]["blocked"]) == (0, 0)
    assert "canary" in found["ready"]["checks"]
    events = command(net, "events", "--kind", "block", "--config", config(proxy))
    assert "canary" not in events.stdout
    assert " block client=" not in proxy.log()


def test_clients_may_look_too(net: Network, proxy: Filter) -> None:
    assert address(ask(net, "canary.urlward.invalid")) == CANARY4
    assert while_alive(net, lambda: get(net, CANARY4, "canary.urlward.invalid")) == 451


FOREIGN = """\
add table inet foreign
add chain inet foreign {hook} {{ type filter hook {hook} priority {priority}; }}
add rule inet foreign {hook} {rule}
"""
STAGES = {
    "redirect": ("output", "raw", f"ip daddr {CANARY4} tcp dport 80 reject with tcp reset"),
    "DNS": ("input", "filter", "udp dport 5353 drop"),
    "block page": ("input", "filter", "tcp dport 8080 ct state established drop"),
}


@contextmanager
def broken(net: Network, stage: str) -> Iterator[None]:
    """Somebody's firewall in the way."""
    hook, priority, rule = STAGES[stage]
    net.nft.run(FOREIGN.format(hook=hook, priority=priority, rule=rule))
    try:
        wait_for(lambda: {one.partition(": ")[0] for one in canaries(net)} == {stage}, "the canary to fail")
        yield
    finally:
        net.nft.run("delete table inet foreign")
    wait_for(lambda: canaries(net) == {"ok"}, "the canary to come through")


def test_a_stage_that_breaks_is_named_everywhere_until_it_is_mended(
    net: Network, proxy: Filter, heard: list[bytes]
) -> None:
    wait_for(lambda: heard[-1] == b"WATCHDOG=1", "a sign of life")
    with broken(net, "redirect"):
        wait_for(lambda: len(summary(net, proxy)["ready"]["failing"].get("canary", ())) == 2, "both workers")
        assert all("redirect: " in one for one in summary(net, proxy)["ready"]["failing"]["canary"])
        wait_for(lambda: "redirect: " in summary(net, proxy)["alarms"].get("canary", ""), "the alarm")
        wait_for(lambda: heard[-1].startswith(b"STATUS=canary: redirect: "), "the service manager to hear it")
        assert not summary(net, proxy)["ok"]
        assert status(net, proxy).returncode == 1
        assert heard[-1].startswith(b"STATUS=canary: redirect: "), "no sign of life after it"
    wait_for(lambda: heard[-1] == b"WATCHDOG=1", "a sign of life")
    wait_for(lambda: status(net, proxy).returncode == 0, "all to be well")
    wait_for(lambda: summary(net, proxy)["ok"], "the end of the alarm")


def lowest_free(pid: int) -> int:
    """The number that its next descriptor would have."""
    taken = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in count() if number not in taken)


def test_whoever_is_out_of_descriptors_is_not_ended(net: Network, proxy: Filter, heard: list[bytes]) -> None:
    wait_for(lambda: canaries(net) == {"ok"}, "the canary to come through")
    pids = [proxy.process.pid, *children_of(proxy.process.pid)]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}

    def has_no_socket() -> bool:
        # Again and again: one that was open for a moment when this was counted leaves its number free.
        for pid, (_, hard) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free(pid), hard))
        return canaries(net) == {"socket: too many open files"}

    try:
        wait_for(has_no_socket, "the canary to have no socket")
        assert status(net, proxy).returncode == 1
        since = len(heard)
        wait_for(lambda: heard[since:].count(b"WATCHDOG=1") > 10, "signs of life")
        assert not any(one.startswith(b"STATUS=canary") for one in heard[since:])
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    wait_for(lambda: canaries(net) == {"ok"}, "the canary to come through")
    assert [proxy.process.pid, *children_of(proxy.process.pid)] == pids, "the same processes"
    wait_for(lambda: status(net, proxy).returncode == 0, "all to be well")


@pytest.mark.long
@pytest.mark.parametrize("stage", ["DNS", "block page"])
def test_further_stages(net: Network, proxy: Filter, stage: str) -> None:
    with broken(net, stage):
        assert status(net, proxy).returncode == 1
