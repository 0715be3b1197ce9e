"""DNS through ``urlward run`` beside its resolver alone, and first connections after an answer.

The resolver is dnsmasq, which answers from memory; origins are behind the same gateway.
"""

import asyncio
import re
import socket
import statistics
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dns.message
from benchmarks.gateway.network import Network, entered, ipv4, ipv6, network
from benchmarks.gateway.steering import RESOLVER_PORT, dnsmasq, install, resolver, steering

_NAMES = 20_000
_DNS = 53


def run(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure.

    Args:
        folder: for files.
        quick: fewer of all.
    """
    tries = 200 if quick else 10_000
    with ExitStack() as stack:
        made = network(stack, "bd")
        stack.enter_context(dnsmasq(folder, made.world, _material(folder, tries)))
        install(folder, made.gateways[0])
        result: dict[str, Any] = {}
        with steering(folder, made.gateways[0], 1), entered(made.client):
            seconds = 1 if quick else 5
            result["rounds"] = [
                {
                    "resolver": _dnsperf(folder, RESOLVER_PORT, seconds),
                    "urlward": _dnsperf(folder, _DNS, seconds),
                }
                for _ in range(1 if quick else 3)
            ]
            result["latency_ms"] = _latency(100 if quick else 3_000)
        with steering(folder, made.gateways[0], 2), entered(made.client):
            result["first_connections"] = asyncio.run(_first_connections(made, tries))
    return result


def _material(folder: Path, tries: int) -> list[str]:
    """Names for the load, and one with an address of its own for each first connection."""
    hosts, queries = [], []
    for i in range(_NAMES):
        name = f"www{i}.site{i % 997}.example"
        hosts.append(f"{ipv4(0, i % 50 + 1)} {name}")
        queries.append(f"{name} A")
    hosts += [f"{ipv6(0, i + 2)} n{i}.listed.example" for i in range(tries)]
    hosts.append(f"{ipv6(0, 1)} unlisted.example")
    hosts += [f"203.0.113.{i + 100} l{i}.listed.example" for i in range(100)]
    (folder / "queries").write_text("\n".join(queries) + "\n")
    (folder / "list.txt").write_text("listed.example\n")
    return hosts


def _dnsperf(folder: Path, port: int, seconds: int) -> dict[str, float]:
    where = ("-s", resolver(), "-p", str(port), "-d", str(folder / "queries"))
    said = subprocess.run(
        ["dnsperf", *where, "-l", str(seconds), "-c", "20", "-q", "20"],
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
        "resolver": (RESOLVER_PORT, "www{}.site{}.example"),
        "urlward": (_DNS, "www{}.site{}.example"),
        "urlward, listed": (_DNS, "l{}.listed.example"),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for i in range(count):
        for way, (port, pattern) in ways.items():
            name = pattern.format(i, i % 997) if "www" in pattern else pattern.format(i % 100)
            wire = dns.message.make_query(name, "A").to_wire()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.settimeout(5)
                s.connect((resolver(), port))
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


async def _first_connections(made: Network, tries: int) -> dict[str, Any]:
    """Ask for a listed name, connect at once to what was answered, and see who is there."""
    origin = await _origin(made.world)
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


async def _origin(world: str) -> asyncio.Server:
    """On all addresses of the world; it speaks first, so that a connection that escapes is known at once."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"origin\n")
        await writer.drain()

    with entered(world):
        listener = socket.create_server(("::", 80), family=socket.AF_INET6, backlog=1024)
    return await asyncio.start_server(serve, sock=listener)


async def _visit(name: str) -> str:
    loop = asyncio.get_running_loop()
    wire = dns.message.make_query(name, "AAAA").to_wire()
    try:
        async with asyncio.timeout(10):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.setblocking(False)
                s.connect((resolver(), _DNS))
                s.send(wire)
                answer = dns.message.from_wire(await loop.sock_recv(s, 4096))
            reader, writer = await asyncio.open_connection(answer.answer[0][0].address, 80)
            writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            first = await reader.readline()
            writer.transport.abort()
    except (OSError, TimeoutError, IndexError):
        return "failed"
    return "escaped" if first == b"origin\n" else "blocked" if b" 451 " in first else "failed"
