"""``urlward run --steer`` with a hook in the resolver that clients have."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.query
import pytest

from conftest import wait_for
from e2e.steer_support import RESOLVER_PORT, address, elements, get, resolving, steering, while_alive
from e2e.test_modes import may_make_namespaces
from gateway.network import IPV4, Network
from resolver.hook_support import HOOKS, KINDS

pytestmark = pytest.mark.skipif(not may_make_namespaces(), reason="needs root, ip and nft")


@contextmanager
def unbound(net: Network, folder: Path, hook: Path) -> Iterator[None]:
    """Unbound on the gateway, which forwards to the world's resolver."""
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
    command = [*net.gateway.prefix, *KINDS["unbound"](folder, 5399, RESOLVER_PORT, more=more)]
    env = {"PATH": os.environ["PATH"], "URLWARD_HOOK": str(hook), "URLWARD_HOOKS": str(HOOKS)}
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


def test_the_resolver_that_is_there(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    with resolving(tmp_path, "hooked") as net:
        tables = f'[gateway.hook]\nfolder = "{hook}"\nsettle = 1000\n'
        with (
            steering(net, tmp_path, more=f'never = ["{IPV4.lan}"]', dns_more=tables) as proxy,
            unbound(net, tmp_path, hook),
        ):
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
            wait_for(
                lambda: before[0] not in (now := children.read_text().split()) and len(now) == 2, "another"
            )
            for i in range(20, 60):
                while_alive(net, lambda i=i: steered(f"n{i}.blocked.example"))  # type: ignore[misc]
