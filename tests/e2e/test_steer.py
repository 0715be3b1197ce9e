"""``urlward run --steer`` behind the kernel's rules, in namespaces: DNS, the sets, the filter."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from http.client import BadStatusLine
from pathlib import Path

import dns.exception
import pytest

from conftest import wait_for
from e2e.steer_support import (
    MANY,
    TEXT,
    address,
    alive,
    ask,
    command,
    configure,
    elements,
    get,
    resolving,
    steering,
    while_alive,
)
from e2e.support import Filter, read_response
from e2e.test_modes import may_make_namespaces
from gateway.network import IPV4, IPV6, Family, Network, first_line
from urlward.config import configured
from urlward.config.tables import join_address
from urlward.gateway import control
from urlward.gateway.rules import planned

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")

families = pytest.mark.parametrize("f", [IPV4, IPV6], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with resolving(tmp_path_factory.mktemp("steer"), "steer") as made:
        yield made


@pytest.fixture(scope="module")
def proxy(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    """Two workers."""
    with steering(net, tmp_path_factory.mktemp("shared")) as proxy:
        yield proxy


@families
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_what_is_not_listed_stays_in_the_kernel(net: Network, proxy: Filter, f: Family, tcp: bool) -> None:
    kind = "A" if f.version == 4 else "AAAA"
    for _ in range(4):
        assert address(ask(net, "plain.example", kind, f, tcp=tcp)) == f.other
    assert f.other not in elements(net, f.of("steer"))
    assert net.says(f.other, 80) == f"origin {f.client} {f.other} 80"


@families
def test_what_is_listed_comes_to_the_filter(net: Network, proxy: Filter, f: Family) -> None:
    kind = "A" if f.version == 4 else "AAAA"

    def attempt() -> None:
        got = ask(net, "blocked.example", kind, f)
        assert address(got) == f.origin
        assert f.origin in elements(net, f.of("steer"))
        assert get(net, f.origin, "blocked.example") == 451
        shared = address(ask(net, "paged.example", kind, f))
        assert get(net, shared, "paged.example", "/listed.html") == 451
        assert shared == address(ask(net, "shared.example", kind, f)), "also that of a name nobody lists"

    while_alive(net, attempt)


@families
def test_a_port_of_several_destinations_is_recorded(net: Network, proxy: Filter, f: Family) -> None:
    """The kernel gives what is redirected from a port that it knows another, which may be somebody else's."""
    kind = "A" if f.version == 4 else "AAAA"
    pages = (("blocked.example", "/"), ("paged.example", "/listed.html"))

    def attempt() -> None:
        port = 0
        with ExitStack() as stack:
            for host, path in pages:
                where = address(ask(net, host, kind, f))
                s = stack.enter_context(net.client.make(f.family, socket.SOCK_STREAM))
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind((f.client, port))
                port = s.getsockname()[1]
                s.connect((where, 80))
                s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert read_response(s).status == 451
            name = f"client={join_address(f.client, port)} "
            wait_for(lambda: proxy.log().count(name) == len(pages), "the port")

    while_alive(net, attempt)


def test_addresses_are_in_the_kernel_before_the_answer_leaves(net: Network, proxy: Filter) -> None:
    def attempt(number: int) -> None:
        where = address(ask(net, f"n{number}.blocked.example"))
        assert elements(net, "steer4")[where] > 900

    for number in range(MANY):
        while_alive(net, partial(attempt, number))


def test_names_that_lead_to_one(net: Network, proxy: Filter) -> None:
    def attempt() -> None:
        where = address(ask(net, "alias.example"))
        assert where in elements(net, "steer4")
        assert get(net, where, "www.blocked.example") == 451

    while_alive(net, attempt)


def is_blocked(net: Network, where: str, host: str) -> None:
    """It has to be, where a worker counts as alive."""

    def attempt() -> None:
        assert get(net, where, host) == 451

    while_alive(net, attempt)


def test_listed_addresses(net: Network, proxy: Filter) -> None:
    is_blocked(net, "203.0.113.66", "plain.example")


def test_a_name_listed_after_it_was_resolved(net: Network, proxy: Filter) -> None:
    where = address(ask(net, "later.example"))
    with net.client.connect(where, 80) as s:
        assert first_line(s).startswith("origin ")
        before = proxy.log().count(" in force, serial")
        proxy.list_file.write_text(TEXT + "later.example id=S-9\n")
        wait_for(lambda: proxy.log().count(" in force, serial") == before + 2, "the list, in both workers")
        wait_for(
            lambda: where in elements(net, "steer4") and is_cut(s),
            "the set, and the end of the connection that was open",
        )
        is_blocked(net, where, "later.example")
    wait_for(lambda: "names resolved before are listed now" in proxy.log(), "the line")
    assert address(ask(net, "plain.example")) == IPV4.other


def is_cut(s: socket.socket) -> bool:
    s.settimeout(0.2)
    try:
        s.send(b"x")
        return s.recv(10) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_worker_that_dies_is_not_missed(net: Network, proxy: Filter) -> None:
    workers = [int(p) for p in children(proxy.process.pid)]
    subprocess.run(["kill", "-9", str(workers[1])], check=True)
    deadline = time.monotonic() + 1.5
    failures = 0
    while time.monotonic() < deadline:
        try:
            assert address(ask(net, "plain.example", timeout=2)) == IPV4.other
        except dns.exception.Timeout:
            failures += 1
    assert failures <= 2, "queries that it had taken"
    wait_for(lambda: len(children(proxy.process.pid)) == 2, "another worker")


def test_a_worker_that_hangs_is_replaced(net: Network, proxy: Filter) -> None:
    """Stopped, it is killed after two seconds; the other has its sockets then, and what waits in them."""
    stopped = int(children(proxy.process.pid)[0])  # the oldest, which serves
    wait_for(lambda: " S " in Path(f"/proc/{stopped}/stat").read_text(), "it to have nothing to do")
    os.kill(stopped, signal.SIGSTOP)
    try:
        said = re.compile(rf"\(process {stopped}\) has not answered for \d+ s: it is ended")
        wait_for(lambda: said.search(proxy.log()), "its end")
    finally:
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
    for _ in range(8):
        assert address(ask(net, "plain.example")) == IPV4.other
    wait_for(lambda: len(children(proxy.process.pid)) == 2, "another worker")


@pytest.mark.parametrize("table", ["", "table inet filter {\n}\n"])
def test_a_firewall_reload_is_not_noticed(net: Network, proxy: Filter, table: str) -> None:
    where = address(ask(net, "blocked.example"))
    # Without the canary's, which stay for seconds.
    steered = {one for one, left in elements(net, "steer4").items() if left > 60}
    listed = elements(net, "listed4")
    said = proxy.log().count("took rules away; they are back")
    reload = ["nft", "-f", "-"]
    subprocess.run([*net.gateway.prefix, *reload], input=f"flush ruleset\n{table}", text=True, check=True)
    wait_for(lambda: proxy.log().count("took rules away; they are back") > said, "the line")
    assert elements(net, "steer4").keys() >= steered
    assert elements(net, "listed4").keys() == listed.keys()
    wait_for(lambda: alive(net), "a worker to say again that it lives")

    def is_back() -> bool:
        with suppress(BadStatusLine):  # the origin's, where no worker counted as alive just then
            return get(net, where, "blocked.example") == 451
        return False

    wait_for(is_back, "the page, without another question")
    wait_for(lambda: command(net, "gateway", "status").returncode == 0, "all to be well")


def test_rules_that_are_away_for_less_than_a_beat(net: Network, proxy: Filter) -> None:
    where = address(ask(net, "blocked.example"))
    listed = elements(net, "listed4").keys()
    plan = planned(configured(configure(proxy.list_file.parent))[1]).plan

    def anew() -> None:
        control.down(net.nft)
        control.up(net.nft, plan)

    net.gateway.do(anew)
    wait_for(lambda: elements(net, "listed4").keys() == listed, "listed addresses")
    wait_for(lambda: where in elements(net, "steer4"), "what was steered, without another question")


def test_workers_wait_for_rules(net: Network, proxy: Filter) -> None:
    config = str(configure(proxy.list_file.parent))
    where = address(ask(net, "blocked.example"))
    assert command(net, "gateway", "down", "--config", config).returncode == 0
    worker = children(proxy.process.pid)[0]
    os.kill(int(worker), signal.SIGKILL)
    wait_for(lambda: "gateway: no rules in the kernel; nothing is filtered" in proxy.log(), "another worker")
    assert net.says(where, 80).startswith("origin "), "the operator's will"
    assert command(net, "gateway", "status").returncode == 1
    assert command(net, "gateway", "up", "--config", config).returncode == 0
    wait_for(lambda: alive(net), "a sign of life")
    is_blocked(net, address(ask(net, "blocked.example")), "blocked.example")
    wait_for(lambda: proxy.log().count("(dns@5353)") >= 2 and len(children(proxy.process.pid)) == 2, "both")


def children(pid: int) -> list[str]:
    """Of the command that a namespace's prefix runs, or that has become it."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_second_one_says_so(net: Network, proxy: Filter, tmp_path: Path) -> None:
    second = command(net, "run", "--config", str(configure(tmp_path)), "--list", str(proxy.list_file))
    assert (second.returncode, second.stderr) == (
        2,
        "urlward: another urlward steers in this network namespace\n",
    )
