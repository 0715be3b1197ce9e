"""urlward on a gateway: its rules and its filter, and the resolver behind it."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gateway.network import inside, ipv4, process, wait

RESOLVER_PORT = 5300
"""Of the resolver behind a gateway; no rule redirects it."""

_RESOLVER = 53
_PATIENCE = 10.0
_URLWARD = (sys.executable, "-m", "urlward")
_CONFIG = """\
[gateway]
interfaces = ["lan0"]
steer = true
[gateway.dns]
resolvers = ["{address}:{port}"]
"""


def resolver(gateway: int = 0) -> str:
    """The address of the resolver behind a gateway."""
    return ipv4(gateway, _RESOLVER)


def install(folder: Path, namespace: str, gateway: int = 0) -> None:
    """Put the rules into the kernel."""
    config = folder / "urlward.toml"
    config.write_text(_CONFIG.format(address=resolver(gateway), port=RESOLVER_PORT))
    inside(namespace, *_URLWARD, "gateway", "up", "--config", str(config))


@contextmanager
def steering(folder: Path, namespace: str, workers: int, core: int | None = None) -> Iterator[Path]:
    """The filter behind the rules, once it answers and the kernel knows that it lives.

    Args:
        folder: has what `install` wrote, and ``list.txt``.
        namespace: of the gateway.
        workers: how many.
        core: the only one that they may use.

    Yields:
        Its log.
    """
    config, entries, confdir = (str(folder / name) for name in ("urlward.toml", "list.txt", "ca"))
    command = ("run", "--config", config, "--list", entries, "--confdir", confdir, "--workers", str(workers))
    with process(folder, f"{workers}-workers", namespace, *_URLWARD, *command, core=core) as log:
        # Each worker answers over IPv4 and IPv6.
        wait(log, "(dns@5353)", 2 * workers)
        end = time.monotonic() + _PATIENCE
        while "elements" not in inside(namespace, "nft", "list", "set", "inet", "urlward", "alive"):
            if time.monotonic() > end:
                raise TimeoutError(log.read_text())
            time.sleep(0.05)
        yield log


@contextmanager
def dnsmasq(folder: Path, world: str, hosts: Iterable[str]) -> Iterator[None]:
    """A resolver that answers from memory, with lines of a hosts file."""
    (folder / "hosts").write_text("\n".join([*hosts, ""]))
    command = (
        *("dnsmasq", "--keep-in-foreground", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts"),
        *(f"--port={RESOLVER_PORT}", f"--listen-address={resolver()}", "--bind-interfaces"),
        *("--cache-size=10000", "--conf-file=/dev/null", f"--addn-hosts={folder / 'hosts'}"),
        *("--log-facility=-", "--local-ttl=60"),
    )
    with process(folder, "dnsmasq", world, *command) as log:
        wait(log, "read ")
        yield
