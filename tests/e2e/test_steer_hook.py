"""``urlward run --steer`` with a hook in the resolver that clients have, or its dnstap."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest

from conftest import wait_for
from e2e.steer_support import MANY, RESOLVER_PORT, address, elements, get, resolving, steering, while_alive
from e2e.support import Filter
from e2e.test_modes import may_make_namespaces
from gateway.network import IPV4, Network, first_line
from gateway.test_rules import echo
from resolver.dnstap_support import (
    ACCEPT,
    FINISH,
    READY_FRAME,
    START_FRAME,
    STOP,
    control,
    data_frame,
    tapped,
)
from resolver.hook_support import HOOKS, KINDS
from resolver.test_hook import answer
from urlward.dns.dnstap import CONTENT_TYPE

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")


@contextmanager
def unbound(net: Network, folder: Path, known: Path, **values: Any) -> Iterator[None]:
    """Unbound on the gateway, which forwards to the world's resolver; `values` as in `KINDS`."""
    if shutil.which("unbound") is None:
        pytest.skip("needs unbound")
    more = f"""\
    num-threads: 2
    interface: {IPV4.lan}@53
    access-control: 0.0.0.0/0 allow
    prefetch: no
forward-zone:
    name: "example."
    forward-addr: {IPV4.resolver}@{RESOLVER_PORT}
"""
    command = [*net.gateway.prefix, *KINDS["unbound"](folder, 5399, RESOLVER_PORT, more=more, **values)]
    env = {"PATH": os.environ["PATH"], "URLWARD_HOOK": str(known), "URLWARD_HOOKS": str(HOOKS)}
    with (folder / "unbound.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(lambda: "start of service" in (folder / "unbound.log").read_text(), "unbound")
        yield
    finally:
        process.terminate()
        process.wait(30)


def ask(net: Network, name: str) -> dns.message.Message:
    """The resolver, from a client."""
    with net.client.make(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        return dns.query.udp(dns.message.make_query(name, "A"), IPV4.lan, 30, sock=one)


PATIENT = "from urlward.config import HookTable; HookTable.seconds = 30.0"
"""A worker that waits for a processor is not late: what it had no time for would not be steered."""


@contextmanager
def hooked(folder: Path, name: str, setting: str) -> Iterator[tuple[Network, Filter, Path]]:
    """A network with a filter that steers what a resolver tells, and the folder for the resolver."""
    hook = folder / "hook"
    hook.mkdir()
    tables = f'[gateway.hook]\nfolder = "{hook}"\n{setting}\n'
    with (
        resolving(folder, name) as net,
        steering(net, folder, more=f'never = ["{IPV4.lan}"]', dns_more=tables, before=PATIENT) as proxy,
    ):
        yield net, proxy, hook


def test_the_resolver_that_is_there(tmp_path: Path) -> None:
    with hooked(tmp_path, "hooked", "") as (net, proxy, hook), unbound(net, tmp_path, hook):
        wait_for((hook / "filter").exists, "the filter")

        def steered(name: str) -> None:
            found = address(ask(net, name))
            assert found in elements(net, "steer4"), name

        assert address(ask(net, "plain.example")) not in elements(net, "steer4")
        for _ in 1, 2:
            while_alive(net, lambda: steered("www.blocked.example"))
        for i in range(20):
            while_alive(net, lambda i=i: steered(f"n{i}.blocked.example"))  # type: ignore[misc]
        while_alive(net, lambda: get(net, address(ask(net, "blocked.example")), "blocked.example") == 451)

        # A worker dies, perhaps the one that the hook is connected to: another takes its place.
        children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children")
        before = children.read_text().split()
        os.kill(int(before[0]), signal.SIGKILL)
        wait_for(lambda: before[0] not in (now := children.read_text().split()) and len(now) == 2, "another")
        for i in range(20, 60):
            while_alive(net, lambda i=i: steered(f"n{i}.blocked.example"))  # type: ignore[misc]


def is_cut(s: socket.socket) -> bool:
    try:
        return not echo(s)
    except ConnectionResetError:
        return True


def test_a_resolver_that_tells_when_it_has_answered(tmp_path: Path) -> None:
    """A first connection passes, and is cut."""
    with (
        hooked(tmp_path, "tapped", "dnstap = true") as (net, proxy, hook),
        unbound(net, tmp_path, hook, hook=False, tap=hook / "dnstap"),
    ):
        assert [one.name for one in hook.iterdir()] == ["dnstap"]
        assert hook.joinpath("dnstap").stat().st_mode & 0o777 == 0o660

        def cut(name: str) -> None:
            assert address(ask(net, name)) == IPV4.origin
            with net.client.connect(IPV4.origin, 80) as first:
                wait_for(lambda: IPV4.origin in elements(net, "steer4"), "the address")
                if first_line(first).startswith("origin "):
                    wait_for(lambda: is_cut(first), "the end of the first connection")

        with net.client.connect(IPV4.other, 80) as unlisted:
            assert first_line(unlisted).startswith("origin ")
            assert address(ask(net, "plain.example")) == IPV4.other
            with net.client.connect(IPV4.origin, 80) as older:
                assert first_line(older).startswith("origin ")
                cut("blocked.example")
                wait_for(lambda: is_cut(older), "the end of the older connection")
            assert echo(unlisted)
        while_alive(net, lambda: get(net, IPV4.origin, "blocked.example") == 451)

        # The worker that it tells dies: another does the same.
        children = Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children")
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        names = (f"n{i}.blocked.example" for i in range(MANY))
        before = set(elements(net, "steer4"))

        def told_again() -> bool:
            ask(net, next(names))
            return set(elements(net, "steer4")) > before

        wait_for(told_again, "what another worker is told")


def test_a_reload_loses_nothing_that_a_resolver_tells(tmp_path: Path) -> None:
    """Some find out that a connection has ended only by telling the next answer, which is lost then."""
    with (
        hooked(tmp_path, "reloaded", "dnstap = true") as (net, proxy, hook),
        socket.socket(socket.AF_UNIX) as resolver,
    ):
        resolver.settimeout(60)
        resolver.connect(str(hook / "dnstap"))
        resolver.sendall(READY_FRAME)
        assert resolver.recv(100) == control(ACCEPT, CONTENT_TYPE)
        resolver.sendall(START_FRAME)
        for n in range(2):  # again, by whom it was handed to
            name, where = f"n{n}.blocked.example", f"203.0.113.{200 + n}"
            frame = data_frame(tapped(answer(name, f"{name} 60 A {where}")))
            resolver.sendall(frame[:9])
            proxy.process.send_signal(signal.SIGUSR2)
            wait_for(lambda n=n: proxy.log().count("reload: done") == n + 1, "the reload", 120)
            resolver.sendall(frame[9:])
            wait_for(lambda where=where: where in elements(net, "steer4"), "what was told over a reload")
        assert proxy.log().count("a resolver tells of its answers") == 1
        assert "a resolver has gone" not in proxy.log()
        resolver.sendall(control(STOP))
        assert resolver.recv(100) == control(FINISH)
