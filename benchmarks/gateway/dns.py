"""DNS through ``urlward run --steer`` beside its resolver alone, and first connections after an answer.

In network namespaces: a client, the gateway with its rules and the filter, and a resolver (dnsmasq, which
answers from memory) with an origin behind it. Needs root, ``ip``, ``nft``, ``dnsmasq`` and ``dnsperf``.
"""

import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dns.message
from benchmarks.engine.machine import describe

_RESULTS = Path(__file__).with_name("dns.json")
_NAMES = 20_000
_CLIENT, _GATEWAY, _WORLD = (f"uw-bd-{kind}-{os.getpid()}" for kind in "cgw")
_RESOLVER = "203.0.113.53"
_DIRECT = 5300
"""Port of the resolver that no rule redirects."""

_CONFIG = f"""\
[gateway]
interfaces = ["lan0"]
steer = true
[gateway.dns]
resolvers = ["{_RESOLVER}:{_DIRECT}"]
"""


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.gateway.dns", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        result = run(Path(folder), stack, quick=arguments.quick)
    print(json.dumps(result, indent=1))
    if not arguments.quick:
        _RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def run(folder: Path, stack: ExitStack, *, quick: bool) -> dict[str, Any]:
    """Measure."""
    tries = 200 if quick else 10_000
    _network(stack)
    _material(folder, tries)
    stack.enter_context(_process(folder, "dnsmasq", _WORLD, *_dnsmasq(folder)))
    config = folder / "urlward.toml"
    config.write_text(_CONFIG)
    urlward = (sys.executable, "-m", "urlward.cli")
    _in(_GATEWAY, *urlward, "gateway", "up", "--config", str(config))
    result: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": describe()}
    arguments = ("--config", str(config), "--list", str(folder / "list.txt"), "--confdir", str(folder / "ca"))
    with _process(folder, "one", _GATEWAY, *urlward, "run", *arguments, "--workers", "1") as log:
        _wait(log, "(dns@5353)", 1)
        _enter(_CLIENT)
        seconds = 1 if quick else 5
        rounds = [
            {
                "resolver": _dnsperf(folder, _DIRECT, seconds),
                "urlward": _dnsperf(folder, 53, seconds),
            }
            for _ in range(1 if quick else 3)
        ]
        result["rounds"] = rounds
        result["latency_ms"] = _latency(100 if quick else 3_000)
    with _process(folder, "two", _GATEWAY, *urlward, "run", *arguments, "--workers", "2") as log:
        _wait(log, "(dns@5353)", 4)
        result["first_connections"] = asyncio.run(_first_connections(tries))
    result["goal"] = {
        "answers_per_s": statistics.median(r["urlward"]["answers_per_s"] for r in rounds),
        "added_ms_p50": round(
            result["latency_ms"]["urlward"]["p50"] - result["latency_ms"]["resolver"]["p50"], 3
        ),
        "escaped": result["first_connections"]["escaped"],
    }
    return result


def _network(stack: ExitStack) -> None:
    for name in (_CLIENT, _GATEWAY, _WORLD):
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "del", name)
        _ip("-n", name, "link", "set", "lo", "up")
    for inner, other, index in ((_CLIENT, "lan0", 1), (_WORLD, "wan0", 2)):
        _ip("-n", inner, "link", "add", "eth0", "type", "veth", "peer", "name", other, "netns", _GATEWAY)
        for name, link, host in ((inner, "eth0", 1), (_GATEWAY, other, 2)):
            _ip("-n", name, "addr", "add", f"192.0.2.{index * 64 + host}/26", "dev", link)
            _ip("-n", name, "addr", "add", f"2001:db8:{index}::{host}/64", "dev", link, "nodad")
            _ip("-n", name, "link", "set", link, "up")
        _ip("-n", inner, "route", "add", "default", "via", f"192.0.2.{index * 64 + 2}")
        _ip("-n", inner, "-6", "route", "add", "default", "via", f"2001:db8:{index}::2")
    _ip("-n", _GATEWAY, "route", "add", "203.0.113.0/24", "via", "192.0.2.129")
    _ip("-n", _GATEWAY, "-6", "route", "add", "2001:db8:f::/48", "via", "2001:db8:2::1")
    _ip("-n", _WORLD, "addr", "add", f"{_RESOLVER}/32", "dev", "lo")
    _ip("-n", _WORLD, "-6", "route", "add", "local", "2001:db8:f::/48", "dev", "lo")
    for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
        _in(_GATEWAY, "sysctl", "-qw", setting)


def _material(folder: Path, tries: int) -> None:
    """Names for the load, and one with an address of its own for each first connection."""
    hosts, queries = [], []
    for i in range(_NAMES):
        name = f"www{i}.site{i % 997}.example"
        hosts.append(f"203.0.113.{i % 50 + 1} {name}")
        queries.append(f"{name} A")
    hosts += [f"2001:db8:f::{i + 1:x} n{i}.listed.example" for i in range(tries)]
    hosts.append("2001:db8:f:1::1 unlisted.example")
    hosts += [f"203.0.113.{i + 100} l{i}.listed.example" for i in range(100)]
    (folder / "hosts").write_text("\n".join(hosts) + "\n")
    (folder / "queries").write_text("\n".join(queries) + "\n")
    (folder / "list.txt").write_text("listed.example\n")


def _dnsmasq(folder: Path) -> tuple[str, ...]:
    return (
        *("dnsmasq", "--keep-in-foreground", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts"),
        *(f"--port={_DIRECT}", f"--listen-address={_RESOLVER}", "--bind-interfaces", "--cache-size=10000"),
        *("--conf-file=/dev/null", f"--addn-hosts={folder / 'hosts'}", "--log-facility=-", "--local-ttl=60"),
    )


def _dnsperf(folder: Path, port: int, seconds: int) -> dict[str, float]:
    said = subprocess.run(
        [
            "dnsperf",
            "-s",
            _RESOLVER,
            "-p",
            str(port),
            "-d",
            str(folder / "queries"),
            "-l",
            str(seconds),
            *["-c", "20", "-q", "20"],
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    def number(what: str) -> float:
        match = re.search(rf"{what}[^:]*:\s+([\d.]+)", said)
        assert match is not None, said
        return float(match[1])

    return {
        "answers_per_s": round(number("Queries per second")),
        "lost": number("Queries lost"),
        "mean_ms": round(1000 * number(r"Average Latency"), 3),
    }


def _latency(count: int) -> dict[str, dict[str, float]]:
    """One query after the other, taking turns, so that what else the machine does meets all alike."""
    ways = {
        "resolver": (_DIRECT, "www{}.site{}.example"),
        "urlward": (53, "www{}.site{}.example"),
        "urlward, listed": (53, "l{}.listed.example"),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for i in range(count):
        for way, (port, pattern) in ways.items():
            name = pattern.format(i, i % 997) if "www" in pattern else pattern.format(i % 100)
            wire = dns.message.make_query(name, "A").to_wire()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.settimeout(5)
                s.connect((_RESOLVER, port))
                start = time.perf_counter()
                s.send(wire)
                s.recv(4096)
                taken[way].append(time.perf_counter() - start)
    return {
        way: {
            "p50": round(1000 * statistics.median(values), 3),
            "p99": round(1000 * statistics.quantiles(values, n=100)[98], 3),
        }
        for way, values in taken.items()
    }


async def _first_connections(tries: int) -> dict[str, Any]:
    """Ask for a listed name, connect at once to what was answered, and see who is there."""
    origin = await _origin()
    if await _visit("unlisted.example") != "escaped":
        raise RuntimeError("a connection that escapes would not be known")
    seen = {"blocked": 0, "escaped": 0, "failed": 0}
    numbers = iter(range(tries))
    start = time.monotonic()

    async def visit() -> None:
        for i in numbers:
            seen[await _visit(f"n{i}.listed.example")] += 1

    await asyncio.gather(*(visit() for _ in range(16)))
    origin.close()
    return {"tries": tries, **seen, "seconds": round(time.monotonic() - start, 1)}


async def _origin() -> asyncio.Server:
    """On all addresses of the world; it speaks first, so that a connection that escapes is known at once."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"origin\n")
        await writer.drain()

    with _entered(_WORLD):
        listener = socket.create_server(("::", 80), family=socket.AF_INET6, backlog=1024)
    return await asyncio.start_server(serve, sock=listener)


async def _visit(name: str) -> str:
    loop = asyncio.get_running_loop()
    wire = dns.message.make_query(name, "AAAA").to_wire()
    try:
        async with asyncio.timeout(10):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.setblocking(False)
                s.connect((_RESOLVER, 53))
                s.send(wire)
                answer = dns.message.from_wire(await loop.sock_recv(s, 4096))
            reader, writer = await asyncio.open_connection(answer.answer[0][0].address, 80)
            writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            first = await reader.readline()
            writer.transport.abort()
    except (OSError, TimeoutError, IndexError):
        return "failed"
    return "escaped" if first == b"origin\n" else "blocked" if b" 451 " in first else "failed"


def _enter(name: str) -> None:
    with open(f"/run/netns/{name}") as file:  # noqa: PTH123 - for its descriptor alone
        os.setns(file.fileno(), os.CLONE_NEWNET)


@contextmanager
def _entered(name: str) -> Iterator[None]:
    with open("/proc/self/ns/net") as before:  # noqa: PTH123
        _enter(name)
        try:
            yield
        finally:
            os.setns(before.fileno(), os.CLONE_NEWNET)


@contextmanager
def _process(folder: Path, name: str, namespace: str, *command: str) -> Iterator[Path]:
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield log
    finally:
        process.terminate()
        process.wait(20)


def _wait(log: Path, text: str, times: int) -> None:
    end = time.monotonic() + 60
    while log.read_text().count(text) < times:
        if time.monotonic() > end:
            raise TimeoutError(log.read_text())
        time.sleep(0.05)


def _in(namespace: str, *command: str) -> None:
    subprocess.run(["ip", "netns", "exec", namespace, *command], check=True, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
