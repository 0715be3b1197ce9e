"""Nodes as processes around a Valkey of their own."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from benchmarks.fleet.node import SEAL, address

NODES = (2, 4, 8)
RATE = 20.0
"""Answers with new addresses a second, of all nodes together."""

_A_COMMAND = 1_000


@contextmanager
def valkey(folder: Path) -> Iterator[int]:
    """A server; its port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = int(s.getsockname()[1])
    command = [
        "valkey-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


class Process:
    """A node, in a process of its own."""

    def __init__(self, port: int, name: str, size: int) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.fleet.node",
            f"valkey://127.0.0.1:{port}",
            name,
            str(size),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._pool = ThreadPoolExecutor(1)
        self._read()

    def do(self, what: str, **arguments: Any) -> Any:
        """Begin something; its `result` is what comes of it."""
        return self._pool.submit(self._do, json.dumps({"do": what, **arguments}))

    def _do(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def cpu(self) -> float:
        """CPU time that it has taken so far, ms."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) * 1000 / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._pool.shutdown()


@contextmanager
def fleet(port: int, count: int, size: int) -> Iterator[list[Process]]:
    """So many nodes, which wait for each other."""
    with ExitStack() as stack:
        nodes = []
        for n in range(count):
            nodes.append(node := Process(port, f"n{n}", size))
            stack.callback(node.end)
        for doing in [node.do("join") for node in nodes]:
            doing.result()
        for doing in [node.do("others", count=count - 1) for node in nodes]:
            doing.result()
        yield nodes


def answers(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """How long an answer takes, alone and with other nodes: one node is asked, or all are, in turn."""
    found = []
    for count in NODES:
        with valkey(folder) as port, fleet(port, count, 262_144) as nodes:
            cases = (("alone", nodes[:1], False), ("one", nodes[:1], True), ("all", nodes, True))
            # No address comes twice.
            first = itertools.count(0, 20_000)
            for who, asked, shares in cases:
                rate, before = RATE / len(asked), [node.cpu() for node in nodes]
                each = {"count": round(rate * seconds), "rate": rate, "shares": shares}
                # By turns: that all are asked at a time happens by chance alone.
                begun = [
                    node.do("answer", first=next(first), after=n / RATE, **each)
                    for n, node in enumerate(asked)
                ]
                taken = sorted(ms for doing in begun for ms in doing.result()["ms"])
                cpu = [(node.cpu() - b) / len(taken) for node, b in zip(nodes, before, strict=True)]
                spent = {"cpu_ms": round(cpu[0], 2), "cpu_other_ms": round(sum(cpu[1:]) / (count - 1), 2)}
                found.append({"nodes": count, "asked": who, **summary(taken), **spent})
    return found


def summary(taken: Sequence[float]) -> dict[str, Any]:
    """Percentiles of milliseconds, ascending."""

    def at(share: float) -> float:
        return round(taken[min(int(len(taken) * share), len(taken) - 1)], 2)

    within = sum(one <= 5.0 for one in taken) / len(taken)
    return {"answers": len(taken), "p50": at(0.5), "p99": at(0.99), "within_5ms": round(within, 4)}


def join(folder: Path, count: int) -> dict[str, Any]:
    """What it takes a node to come to others that steer so many addresses."""
    with (
        valkey(folder) as port,
        socket.create_connection(("127.0.0.1", port)) as s,
        s.makefile("rb") as replies,
    ):

        def run(*parts: bytes) -> bytes:
            s.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
            line: bytes = replies.readline()
            return line if line[:1] != b"$" else replies.read(int(line[1:]) + 2)

        end = time.time() + 1_200
        for i in range(0, count, _A_COMMAND):
            rows = [b"ZADD", b"{urlward}:steered"]
            for n in range(i, i + _A_COMMAND):
                rows += (b"%d" % (end + n % 120), SEAL.seal(ip_address(address(n)).packed))
            run(*rows)
        memory = run(b"INFO", b"memory")
        used = next(line for line in memory.splitlines() if line.startswith(b"used_memory:"))
        node = Process(port, "joins", 2 * count)
        try:
            found: dict[str, Any] = node.do("join").result()
        finally:
            node.end()
        return {"addresses": count, "valkey": int(used.partition(b":")[2]), **found}
