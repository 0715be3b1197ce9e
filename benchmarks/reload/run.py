"""What a reload costs those whose traffic is under way.

A filter, the load and an nginx origin on one machine. The list is replaced again and
again, as an artifact and as a source, while requests go on. Reported: failed requests, the event
loop's longest stall with and without a reload, the time from the file's replacement to the new list
in force, and resident memory before and after.

    uv run python benchmarks/reload/run.py [--entries 1000000] [--reloads 5] [--output FILE]
    uv run python benchmarks/reload/run.py --report
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from workload import Workload

from urlward.engine.digest import Key, format_key
from urlward.lists.build import compile_sources

CONNECTIONS = 8
REQUESTS_PER_S = 300
"""About a third of what the filter manages on one core: a machine that is full stalls by itself."""
BEGIN = "<!-- reload: written by `benchmarks/reload/run.py --report`, not by hand -->"
END = "<!-- reload: end -->"
MARKER = "reload-marker-{}.test"


@dataclass
class Load:
    """Requests at a steady pace over keep-alive connections until told to stop."""

    port: int
    stop: bool = False
    done: int = 0
    failed: int = 0
    latencies: list[float] = field(default_factory=list)

    async def run(self, offset: float) -> None:
        """One connection, whose first request comes after `offset` seconds."""
        requests = Workload(99).requests(5000)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        number = 0
        due = time.perf_counter() + offset
        while not self.stop:
            host, target = requests[number % len(requests)]
            number += 1
            due += CONNECTIONS / REQUESTS_PER_S
            await asyncio.sleep(due - time.perf_counter())
            start = time.perf_counter()
            writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            self.latencies.append(time.perf_counter() - start)
            self.done += 1
            self.failed += not head.startswith(b"HTTP/1.1 200")
        writer.close()


async def status(port: int, host: str) -> int:
    """The status of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


@contextmanager
def origin(folder: Path, port: int) -> Iterator[None]:
    """nginx with one answer for everything."""
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"keepalive_requests 1000000; server {{ listen 127.0.0.1:{port};\n"
        'location / { return 200 "content\\n"; } } }\n'
    )
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A free TCP port."""
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def measure(folder: Path, entries: int, reloads: int) -> dict[str, Any]:
    """Run it all and give the figures."""
    key = Key(b"benchmark-key-with-32-bytes-----")
    (folder / "key").write_bytes(format_key(key.secret))
    lines = list(Workload(1).entries(entries))
    versions: list[tuple[bytes, bytes]] = []
    for number in range(2):
        source = folder / f"v{number}.txt"
        source.write_text("\n".join([*lines, MARKER.format(number), ""]))
        versions.append((compile_sources([source], key, name="bench")[0], source.read_bytes()))
    del lines
    path = folder / "list"
    path.write_bytes(versions[1][0])
    result: dict[str, Any] = {"entries": entries, "reloads": []}
    ports = free_port(), free_port()
    with origin(folder, ports[0]):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("filter.py")), str(path), str(folder / "key"),
            *map(str, ports),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        while b"listening" not in await process.stdout.readline():
            pass

        async def ask() -> tuple[float, int]:
            process.stdin.write(b"\n")  # type: ignore[union-attr]
            while not (line := await process.stdout.readline()).startswith(b"stall"):  # type: ignore[union-attr]
                assert line, "the filter ended"
            _, stall, memory = line.split()
            return float(stall) * 1000, int(memory)

        load = Load(ports[1])
        tasks = [asyncio.create_task(load.run(n / REQUESTS_PER_S)) for n in range(CONNECTIONS)]
        await asyncio.sleep(2)
        await ask()
        baseline = []
        for _ in range(5):
            await asyncio.sleep(1)
            baseline.append(await ask())
        result["baseline"] = {
            "stall_ms": [s for s, _ in baseline], "resident_bytes": baseline[-1][1],
            "p50_ms": 1000 * statistics.median(load.latencies), "max_ms": 1000 * max(load.latencies),
            "requests_per_s": load.done / 7,
        }  # fmt: skip
        for kind in (0, 1):
            for number in range(reloads):
                version = (kind * reloads + number) % 2
                temporary = folder / "new"
                temporary.write_bytes(versions[version][kind])
                load.latencies.clear()
                await ask()
                start = time.perf_counter()
                temporary.replace(path)
                while await status(ports[1], MARKER.format(version)) != 451:
                    await asyncio.sleep(0.05)
                in_force = time.perf_counter() - start
                stall, _ = await ask()
                # Releasing the old list comes after the new one is in force.
                await asyncio.sleep(1.5)
                after, memory = await ask()
                result["reloads"].append({
                    "kind": ("artifact", "source")[kind], "in_force_s": in_force,
                    "stall_ms": max(stall, after), "resident_bytes": memory,
                    "p50_ms": 1000 * statistics.median(load.latencies), "max_ms": 1000 * max(load.latencies),
                })  # fmt: skip
                print(json.dumps(result["reloads"][-1]), flush=True)
        load.stop = True
        await asyncio.gather(*tasks)
        result["requests"], result["failed"] = load.done, load.failed
        process.terminate()
        await process.wait()
    return result


def goals(result: dict[str, Any]) -> list[tuple[str, float, str, float]]:
    """Name, value, unit and limit of each goal."""
    reloads = result["reloads"]
    return [
        ("failed requests", result["failed"], "", 0),
        ("longest stall of the event loop, in all reloads", max(r["stall_ms"] for r in reloads), "ms", 20),
        (
            "resident memory after the last reload over that before the first",
            result["memory_ratio"],
            "times",
            1.1,
        ),
    ]


def report(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    machine, base = result["machine"], result["baseline"]
    lines = [
        "",
        f"Measured {result['date']} on {machine['cpu']}, {machine['cores']} cores, Linux "
        f"{machine['kernel']}, CPython {machine['python']}; {result['entries']:,} entries, "
        f"{result['requests']:,} requests.",
        "",
        "| goal | limit | measured | |",
        "|---|---:|---:|---|",
    ]
    for name, value, unit, limit in goals(result):
        met = "met" if value <= limit else "**missed**"
        lines.append(f"| {name} | {limit:g} {unit} | {value:.4g} {unit} | {met} |")
    lines += [
        "",
        "| | in force after s | longest stall ms | median request ms | slowest request ms | resident MB |",
        "|---|---:|---:|---:|---:|---:|",
        f"| no reload (1 s each) | - | {statistics.median(base['stall_ms']):.1f} | {base['p50_ms']:.1f} | "
        f"{base['max_ms']:.0f} | {base['resident_bytes'] / 1e6:.0f} |",
    ]
    for kind in ("artifact", "source"):
        rows = [r for r in result["reloads"] if r["kind"] == kind]
        mid = {k: statistics.median(r[k] for r in rows) for k in rows[0] if k != "kind"}
        lines.append(
            f"| {kind} replaced (median of {len(rows)}) | {mid['in_force_s']:.1f} | {mid['stall_ms']:.1f} | "
            f"{mid['p50_ms']:.1f} | {mid['max_ms']:.0f} | {mid['resident_bytes'] / 1e6:.0f} |"
        )
    return "\n".join([*lines, "", ""])


def rewrite(result: dict[str, Any]) -> None:
    """Put the report between its marks in ``benchmarks/README.md``."""
    readme = Path(__file__).parents[1] / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{report(result)}{END}{after}")


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--reloads", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the JSON")
    args = parser.parse_args()
    if args.report:
        rewrite(json.loads(args.output.read_text()))
        return
    with tempfile.TemporaryDirectory() as name:
        result = asyncio.run(measure(Path(name), args.entries, args.reloads))
    with Path("/proc/cpuinfo").open() as file:
        cpu = next((line.split(":")[1].strip() for line in file if "model name" in line), "")
    result["machine"] = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    result["date"] = time.strftime("%Y-%m-%d")
    result["memory_ratio"] = result["reloads"][-1]["resident_bytes"] / result["baseline"]["resident_bytes"]
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    for goal, value, unit, limit in goals(result):
        print(f"{'met' if value <= limit else 'MISSED'}  {goal}: {value:.4g} {unit}, limit {limit:g}")


if __name__ == "__main__":
    main()
