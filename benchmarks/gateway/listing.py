"""From a name listed to its next connection blocked, and to the end of one that is open.

The client has resolved the name before and never asks again. Its connections go to the origin by way of
the kernel alone, until the list's file is replaced.
"""

import asyncio
import math
import random
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dns.message
import dns.query
from benchmarks.gateway.network import Network, entered, ipv4, ipv6, network
from benchmarks.gateway.steering import dnsmasq, install, resolver, steering

ENTRIES = 20_000
"""Of the list, before any name is added."""

_EVERY = 0.01
"""Seconds from one attempt to connect to the next, and between requests on the connection that is open."""

_SURE = 0.3
"""Seconds without a connection that reaches the origin, until there is taken to be no more."""

_PATIENCE = 10.0
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\norigin\n"


def run(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure.

    Args:
        folder: for files.
        quick: fewer of all.
    """
    count = 4 if quick else 20
    names = [f"name{i}.later.example" for i in range(count)]
    # Every other name has an IPv6 address.
    addresses = [ipv6(0, i + 1) if i % 2 else ipv4(0, i + 1) for i in range(count)]
    entries = [f"host{i}.listed.example" for i in range(ENTRIES)]
    with ExitStack() as stack:
        made = network(stack, "bl")
        hosts = [f"{address} {name}" for address, name in zip(addresses, names, strict=True)]
        stack.enter_context(dnsmasq(folder, made.world, hosts))
        _replace(folder / "list.txt", entries)
        install(folder, made.gateways[0])
        stack.enter_context(steering(folder, made.gateways[0], 2))
        listings = asyncio.run(_listings(made, folder, entries, dict(zip(names, addresses, strict=True))))
    return {"entries": ENTRIES, "listings": listings}


def _replace(path: Path, entries: list[str]) -> None:
    new = path.with_suffix(".new")
    new.write_text("\n".join([*entries, ""]))
    new.rename(path)


async def _listings(
    made: Network, folder: Path, entries: list[str], addresses: dict[str, str]
) -> list[dict[str, Any]]:
    """List one name after the other; the addresses are theirs."""
    with entered(made.world):
        listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
    found = []
    with entered(made.client):
        origin = await asyncio.start_server(_serve, sock=listener)
        for name, address in addresses.items():
            entries.append(name)
            found.append(await _listing(folder / "list.txt", entries, address))
            # Lists are looked at in fixed steps; a listing may come anywhere between two.
            await asyncio.sleep(random.uniform(0.2, 0.6))
        origin.close()
    return found


async def _listing(path: Path, entries: list[str], address: str) -> dict[str, Any]:
    """List the last of the entries, whose address is given."""
    name = entries[-1]
    kind = "AAAA" if ":" in address else "A"
    answer = dns.query.udp(dns.message.make_query(name, kind), resolver(), timeout=5)
    assert answer.answer[0][0].address == address
    reader, writer = await asyncio.open_connection(address, 80)
    if await _attempt(name, address) != "passed" or await _ask(name, reader, writer) != 200:
        raise RuntimeError("blocked before it was listed")
    _replace(path, entries)
    listed = time.monotonic()
    end = asyncio.create_task(_end(name, reader, writer))
    attempts: list[tuple[float, asyncio.Task[str]]] = []
    async with asyncio.timeout(_PATIENCE):
        while not end.done() or _first_blocked(attempts, listed) > time.monotonic() - _SURE:
            attempts.append((time.monotonic(), asyncio.create_task(_attempt(name, address))))
            await asyncio.sleep(_EVERY)
    said = [await task for _, task in attempts]
    writer.close()
    return {
        "family": kind,
        "blocked_s": round(_first_blocked(attempts, listed) - listed, 3),
        "ended_s": round(await end - listed, 3),
        "failed": said.count("failed"),
    }


def _first_blocked(attempts: list[tuple[float, asyncio.Task[str]]], listed: float) -> float:
    """When the first began of those that were blocked, behind all that reached the origin."""
    known = [(begun, task.result()) for begun, task in attempts if task.done()]
    passed = max((begun for begun, what in known if what == "passed"), default=listed)
    return min((begun for begun, what in known if what == "blocked" and begun > passed), default=math.inf)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(_ANSWER)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        writer.transport.abort()


async def _attempt(name: str, address: str) -> str:
    """One new connection, one request."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(address, 80)
            try:
                status = await _ask(name, reader, writer)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return "failed"
    return {200: "passed", 451: "blocked"}.get(status, "failed")


async def _ask(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """The status of an answer; all of it is read where it is the origin's."""
    writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split()[1])
    if status == 200:
        await reader.readexactly(7)
    return status


async def _end(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    """When a connection that goes on asking no longer gets answers from the origin."""
    try:
        while await _ask(name, reader, writer) == 200:
            await asyncio.sleep(_EVERY)
    except (OSError, asyncio.IncompleteReadError):
        pass
    return time.monotonic()
