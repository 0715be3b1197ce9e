"""Resolvers with urlward's hook in them, or its dnstap, beside the same without, and urlward's side.

Answers are counted for each second of processor time of the process in question, which what else the machine
does changes little.
"""

import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
from benchmarks.command import command
from benchmarks.resolver.servers import HOOKS, KINDS

from urlward.dns.dnstap import CLIENT_RESPONSE, CONTENT_TYPE, RESOLVER_RESPONSE

_NAMES = 20_000
_LISTED = 100
"""One name of so many is listed."""

_ENTRIES = 100_000
_CONNECTIONS = 8
_AUTHORITY, _RESOLVER = 5301, 5302


def _measure(folder: Path, arguments: Namespace) -> dict[str, Any]:
    names = [f"www{i}.site{i % 997}.example" for i in range(_NAMES)]
    listed = [f"site{i}.listed.test" for i in range(_ENTRIES)]
    names[::_LISTED] = listed[: len(names[::_LISTED])]
    (folder / "list.txt").write_text("\n".join(listed) + "\n")
    (folder / "queries").write_text("".join(f"{name} A\n" for name in names))
    (folder / "hosts").write_text(
        "".join(f"203.0.{i >> 8 & 127}.{i & 255} {name}\n" for i, name in enumerate(names))
    )
    seconds, passes, rounds = (1, 1, 1) if arguments.quick else (3, 4, 3)
    authority = (
        *("dnsmasq", "--keep-in-foreground", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts"),
        *(f"--port={_AUTHORITY}", "--listen-address=127.0.0.1", "--bind-interfaces", "--conf-file=/dev/null"),
        *(f"--addn-hosts={folder / 'hosts'}", "--local-ttl=3600"),
    )
    with _process(folder, authority, 1), _urlward(folder) as urlward:
        result: dict[str, Any] = {"urlward": _urlward_side(folder, names, listed, seconds, urlward.pid)}
        result["resolvers"] = {kind: _resolver(kind, folder, passes, rounds) for kind in KINDS}
        urlward.stdin.close()  # type: ignore[union-attr]
        result["late"] = int(urlward.stdout.read())  # type: ignore[union-attr]
    return result


@contextmanager
def _process(folder: Path, command: tuple[str, ...] | list[str], core: int) -> Iterator[int]:
    env = {**os.environ, "URLWARD_HOOK": str(folder / "hook"), "URLWARD_HOOKS": str(HOOKS)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], cwd=folder, env=env, stdout=log, stderr=log
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _urlward(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    command = ["taskset", "-c", "1", sys.executable, "-m", "benchmarks.resolver.urlward_side", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("urlward's side did not start")
        yield process


def _resolver(kind: str, folder: Path, passes: int, rounds: int) -> dict[str, Any]:
    """Answers a second without the hook, with it and with dnstap, in turns; all come from the resolver's
    cache."""
    found: dict[str, list[float]] = {"off": [], "on": [], "tap": []}
    for _ in range(rounds):
        for way, answers in found.items():
            place = folder / f"{kind}-{way}"
            place.mkdir(exist_ok=True)
            more = {"knot": "cache.size = 100 * MB"}.get(kind, "")
            tap = folder / "hook" / "dnstap" if way == "tap" else None
            command = KINDS[kind](place, _RESOLVER, _AUTHORITY, hook=way == "on", tap=tap, more=more)
            with _process(folder, command, 0) as pid:
                _until_it_answers()
                _dnsperf(folder, 1)
                before = _taken(pid)
                count = _dnsperf(folder, passes)
                answers.append(count / (_taken(pid) - before))
    return {
        **{way: round(statistics.median(answers)) for way, answers in found.items()},
        "ratio": _ratio(found, "on"),
        "tap_ratio": _ratio(found, "tap"),
    }


def _ratio(found: dict[str, list[float]], way: str) -> float:
    ratios = (one / off for off, one in zip(found["off"], found[way], strict=True))
    return round(statistics.median(ratios), 2)


def _until_it_answers() -> None:
    query = dns.message.make_query("www1.site1.example", "A").to_wire()
    for _ in range(300):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.settimeout(0.1)
            one.connect(("127.0.0.1", _RESOLVER))
            try:
                one.send(query)
                one.recv(4096)
            except OSError:
                time.sleep(0.02)
            else:
                return
    raise RuntimeError("the resolver does not answer")


def _taken(pid: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _dnsperf(folder: Path, passes: int) -> int:
    """Ask for all names so often; gives how many answers came."""
    command = ["taskset", "-c", "1", "dnsperf", "-s", "127.0.0.1", "-p", str(_RESOLVER), "-n", str(passes)]
    command += ["-d", str(folder / "queries"), "-c", "20", "-q", "50"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    match = re.search(r"Queries completed:\s+(\d+)", said)
    assert match is not None, said
    return int(match[1])


def _urlward_side(
    folder: Path, names: list[str], listed: list[str], seconds: int, pid: int
) -> dict[str, int]:
    """Answers that are handed over, by several hooks at a time, each of which waits for its reply."""
    found = {}
    for what, some in (("not_listed", [n for n in names if n.endswith(".example")]), ("listed", listed)):
        before = _taken(pid)
        count = _handed_over(folder, some, seconds)
        found[what] = round(count / (_taken(pid) - before))
    for what, kind in (("told", CLIENT_RESPONSE), ("told_asked", RESOLVER_RESPONSE)):
        before = _taken(pid)
        count = _told(folder, names, kind, seconds)
        found[what] = round(count / (_taken(pid) - before))
    return found


def _told(folder: Path, names: list[str], kind: int, seconds: int) -> int:
    """Answers that a resolver tells of by dnstap, as fast as they are taken."""
    frames = []
    for i, name in enumerate(names[:2_000]):
        message = _answer(name, i)
        inner = struct.pack(">BBBB", 0x08, kind, 0x72, len(message)) + message  # type, response_message
        outer = struct.pack(">BB", 0x72, len(inner)) + inner + b"\x78\x01"  # message, type
        frames.append(struct.pack(">I", len(outer)) + outer)
    field = struct.pack(">II", 1, len(CONTENT_TYPE)) + CONTENT_TYPE
    ready, start, stop = (
        struct.pack(">III", 0, 4 + len(field) * (code != 3), code) + field * (code != 3) for code in (4, 2, 3)
    )
    until, rounds = time.monotonic() + seconds, 0
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(folder / "hook" / "dnstap"))
        one.sendall(ready)
        one.recv(4096)
        one.sendall(start)
        while time.monotonic() < until:
            one.sendall(b"".join(frames))
            rounds += 1
        one.sendall(stop)
        one.recv(4096)  # when all is taken
    return rounds * len(frames)


def _answer(name: str, number: int) -> bytes:
    message = dns.message.make_response(dns.message.make_query(name, "A"))
    message.answer.append(dns.rrset.from_text(f"{name}.", 3600, "IN", "A", f"203.0.113.{number & 255}"))
    return message.to_wire()


def _handed_over(folder: Path, names: list[str], seconds: int) -> int:
    frames = []
    for i, name in enumerate(names[:2_000]):
        data = b"\0" + _answer(name, i)
        frames.append(struct.pack(">H", len(data)) + data)
    counts = [0] * _CONNECTIONS
    until = time.monotonic() + seconds

    def hook(number: int) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(folder / "hook" / "socket"))
            while time.monotonic() < until:
                one.sendall(frames[counts[number] % len(frames)])
                reply = one.recv(65_537)
                assert reply[2:3] in (b"P", b"S")
                counts[number] += 1

    threads = [threading.Thread(target=hook, args=(number,)) for number in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def report(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = [
        "| answers a second of processor time, 1 % listed | alone | hook | ratio | dnstap | ratio |",
        "|---|---|---|---|---|---|",
    ]
    names = {"unbound": "Unbound", "powerdns": "PowerDNS Recursor", "knot": "Knot Resolver"}
    rows += [
        f"| {names[kind]} | {found['off']:,} | {found['on']:,} | {found['ratio']} "
        f"| {found['tap']:,} | {found['tap_ratio']} |"
        for kind, found in result["resolvers"].items()
    ]
    side = result["urlward"]
    rows += [
        "",
        f"Of urlward's, in a worker: {side['not_listed']:,} that are handed over and not listed, "
        f"{side['listed']:,} that are (without the kernel's part): {side['listed'] * _LISTED:,} answers of "
        f"resolvers of which 1 % are. {result['machine']['cpu']}, {result['date']}.",
    ]
    rows += [
        "",
        f"By dnstap it takes {side['told']:,} of answers to clients, of which 1 % are listed, and "
        f"{side['told_asked']:,} where the resolver tells of what it asks (without the kernel's part).",
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(command("resolver", _measure, report))
