"""What passes a gateway that steers, beside one that only tracks connections and one that only routes.

The three gateways are there at the same time, each with a network state of its own, and lead to the same
origin. Client, gateways and origin are on one core, so that all that a gateway does takes from the rate;
were the origin on another, work on the core that waits would not show.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks.gateway.datagrams import Datagrams
from benchmarks.gateway.listing import ENTRIES
from benchmarks.gateway.network import entered, inside, ipv4, ipv6, network, process
from benchmarks.gateway.steering import install, steering

GATEWAYS = ("plain", "stateful", "urlward")
CUTTING = "urlward, cutting"
"""A turn of urlward's while it looks out for connections that are to end, as it does after a listing."""

LISTED = "host0.listed.example"
FILE_BYTES = 64 << 20
STEERED = 5_000
"""Addresses in each set of the kernel; none of them is the origin's."""

_CUT = 100
"""Of these, addresses that were listed lately."""

FILTER_CORE, LOAD_CORE = 0, 1
_CONNECTIONS, _DOWNLOADS = 32, 4
_HOST, _STEERED_HOST = 10, 20
_SCRIPT = Path(__file__).with_name("load.lua")
_PAGE = "<!doctype html><title>origin</title><p>" + "content " * 120

_STATEFUL = """\
table inet stateful {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
	}
}
"""
_NGINX = """\
daemon off; user root; worker_processes 1; worker_rlimit_nofile 20000;
pid {folder}/nginx.pid; error_log {folder}/nginx.error.log;
events {{ worker_connections 9000; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 80 backlog=4096; listen [::]:80 backlog=4096;
    location / {{ default_type text/html; return 200 "{page}"; }}
    location = /file {{ root {folder}; default_type application/octet-stream; }}
  }}
}}
"""


class Case(StrEnum):
    """What is measured."""

    KEEP = "keep-alive"
    KEEP6 = "keep-alive, IPv6"
    CLOSE = "new connection each"
    BULK = "bulk"
    PACKET = "a packet"


_ALSO_CUTTING = (Case.KEEP, Case.PACKET)
SECONDS = {Case.KEEP: 2, Case.KEEP6: 2, Case.CLOSE: 1, Case.BULK: 3}


def run(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure.

    Args:
        folder: for files.
        quick: fewer of all.
    """
    with ExitStack() as stack:
        made = network(stack, "br", len(GATEWAYS))
        stack.enter_context(_origin(folder, made.world))
        _, stateful, urlward = made.gateways
        inside(stateful, "nft", "-f", "-", text=_STATEFUL)
        (folder / "list.txt").write_text("".join(f"host{i}.listed.example\n" for i in range(ENTRIES)))
        install(folder, urlward, GATEWAYS.index("urlward"))
        stack.enter_context(steering(folder, urlward, 2, FILTER_CORE))
        _fill(urlward)
        with entered(made.client):
            _check()
            os.sched_setaffinity(0, {LOAD_CORE})
            turns = _Turns(urlward, Datagrams(made, [ipv4(i, _HOST) for i in range(len(GATEWAYS))]), quick)
            turns.round(0)  # to warm up
            rounds = [turns.round(number) for number in range(2 if quick else 15)]
            turns.datagrams.close()
        tracked = {name: _tracked(space) for name, space in zip(GATEWAYS, made.gateways, strict=True)}
    if tracked["plain"] or not tracked["stateful"] or not tracked["urlward"]:
        raise RuntimeError(f"connections are not tracked as they should be: {tracked}")
    return {"entries": ENTRIES, "steered": STEERED, "connections": _CONNECTIONS, "rounds": rounds}


@contextmanager
def _origin(folder: Path, world: str) -> Iterator[None]:
    block = os.urandom(1 << 20)
    with (folder / "file").open("wb") as file:
        for _ in range(FILE_BYTES // len(block)):
            file.write(block)
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, page=_PAGE))
    command = ("nginx", "-p", str(folder), "-c", str(configuration))
    with process(folder, "nginx", world, *command, core=LOAD_CORE):
        yield


def _fill(gateway: str) -> None:
    """Addresses of names that are resolved all the time."""
    own = GATEWAYS.index("urlward")
    four = [ipv4(own, _STEERED_HOST), *(f"198.18.{i >> 8}.{i & 255}" for i in range(STEERED - 1))]
    six = [ipv6(own, _STEERED_HOST), *(f"2001:db8:5::{i:x}" for i in range(STEERED - 1))]
    for name, addresses in (("steer4", four), ("steer6", six)):
        elements = ", ".join(f"{address} timeout 1h" for address in addresses)
        inside(gateway, "nft", "-f", "-", text=f"add element inet urlward {name} {{ {elements} }}\n")
    for name, addresses in (("cut4", four), ("cut6", six)):
        elements = ", ".join(f"{address} timeout 1h" for address in addresses[-_CUT:])
        inside(gateway, "nft", "-f", "-", text=f"add element inet urlward {name} {{ {elements} }}\n")


def _check() -> None:
    """See that what is measured is what passes by the filter, and that it would not pass were it steered.

    Raises:
        RuntimeError: it is not so.
    """
    own = GATEWAYS.index("urlward")
    for host, expected in ((_HOST, "200"), (_STEERED_HOST, "451")):
        for address in (ipv4(own, host), f"[{ipv6(own, host)}]"):
            command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {LISTED}"]
            status = subprocess.run(
                [*command, f"http://{address}/"], check=False, capture_output=True, text=True
            ).stdout
            if status != expected:
                raise RuntimeError(f"{address}: {status}, not {expected}")


@dataclass(frozen=True, slots=True)
class _Turns:
    """Turns of the gateways.

    Attributes:
        urlward: namespace of that one.
        datagrams: for the case of these.
        quick: whether turns are short.
    """

    urlward: str
    datagrams: Datagrams
    quick: bool

    def round(self, number: int) -> dict[str, dict[str, float]]:
        """All cases, all gateways; in each round another begins."""
        return {str(case): self._case(case, number) for case in Case}

    def _case(self, case: Case, number: int) -> dict[str, float]:
        names = [*GATEWAYS, CUTTING] if case in _ALSO_CUTTING else [*GATEWAYS]
        first = number % len(names)
        order = names[first:] + names[:first]
        if number % 2:
            order.reverse()
        figures = {name: round(self._turn(case, name), 1) for name in order}
        return {name: figures[name] for name in names}

    def _turn(self, case: Case, name: str) -> float:
        gateway = GATEWAYS.index(name if name in GATEWAYS else "urlward")
        if gateway == GATEWAYS.index("urlward"):
            self._cut(on=name == CUTTING)
        if case is Case.PACKET:
            return self.datagrams.nanoseconds(gateway)
        return _wrk(case, gateway, 1 if self.quick else SECONDS[case])

    def _cut(self, *, on: bool) -> None:
        # The filter's start is such a time too, so that it must be ended for the turns without.
        text = "flush set inet urlward cutting\n"
        if on:
            text += "add element inet urlward cutting { 6 timeout 1m, 17 timeout 1m }\n"
        inside(self.urlward, "nft", "-f", "-", text=text)


def _wrk(case: Case, gateway: int, seconds: int) -> float:
    """Requests a second, of bulk megabytes a second.

    Raises:
        RuntimeError: any of them failed.
    """
    address = f"[{ipv6(gateway, _HOST)}]" if case is Case.KEEP6 else ipv4(gateway, _HOST)
    bulk = case is Case.BULK
    # How fast a connection is depends on how its windows came to grow: many are to have their share.
    more = ("-H", "Connection: close") if case in (Case.CLOSE, Case.BULK) else ()
    command = ["wrk", "-t1", f"-c{_DOWNLOADS if bulk else _CONNECTIONS}", f"-d{seconds}s", *more]
    url = f"http://{address}/{'file' if bulk else ''}"
    said = subprocess.run(
        [*command, "-s", str(_SCRIPT), url], check=True, capture_output=True, text=True
    ).stdout
    result = json.loads(said.partition("RESULT ")[2])
    if result["failed"]:
        raise RuntimeError(f"{case}, {GATEWAYS[gateway]}: {result['failed']} requests failed")
    amount = result["bytes"] / 1e6 if bulk else result["requests"]
    return float(amount * 1e6 / result["microseconds"])


def _tracked(gateway: str) -> int:
    """How many connections a gateway's kernel knows of."""
    return int(inside(gateway, "sysctl", "-n", "net.netfilter.nf_conntrack_count"))
