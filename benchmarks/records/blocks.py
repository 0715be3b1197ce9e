"""What recording costs: all requests blocked, with records and without; and events in haste."""

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.reload.run import free_port

from urlward.config import read_config
from urlward.engine.verdict import Verdict
from urlward.records.database import Database
from urlward.records.outbox import Outbox
from urlward.records.recorder import place_of
from urlward.records.store import EventQuery
from urlward.records.stores import open_store
from urlward.records.worker import Hit, Recording
from urlward.state.folder import local_key

RECORDS = "[records]\n[records.days]\nblocks = 30\noperations = 365\n"
FILTERS = {"without": "", "with": RECORDS, "logged": RECORDS.replace("\n", "\nlog = true\n", 1)}
"""By name, what is in their configuration: a filter without records has each block in its log, one with
records in these alone, and the third in both."""

CONNECTIONS = 16
RATE = 5_000
"""Events a second."""


@contextmanager
def filtering(folder: Path, name: str, more: str) -> Iterator[int]:
    """A filter for which every request is blocked; its port."""
    port = free_port()
    (folder / "list.txt").write_text("blocked.example category=phishing id=B-1\n")
    config = folder / f"{name}.toml"
    config.write_text(
        f'state = "state-{name}"\nlist = ["list.txt"]\nmode = ["reverse:http://127.0.0.1:9"]\n'
        f'listen = "127.0.0.1:{port}"\n{more}'
    )
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "urlward", "run", "--config", str(config)], stdout=log, stderr=log
        )
    try:
        while b"listening" not in (folder / f"{name}.log").read_bytes():
            time.sleep(0.1)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def load(folder: Path, port: int, seconds: int) -> float:
    """Requests a second that are blocked."""
    script = folder / "host.lua"
    script.write_text('wrk.headers["Host"] = "blocked.example"\n')
    done = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{seconds}s",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}/page",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


def throughput(folder: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """All by turns."""
    with ExitStack() as running:
        ports = {name: running.enter_context(filtering(folder, name, more)) for name, more in FILTERS.items()}
        for port in ports.values():
            load(folder, port, 1)
        found = [{name: load(folder, port, seconds) for name, port in ports.items()} for _ in range(rounds)]
    return {
        "rounds": found,
        "ratio": statistics.median(one["with"] / one["without"] for one in found),
        "ratio_logged": statistics.median(one["logged"] / one["without"] for one in found),
    }


def sustained(folder: Path, seconds: int) -> dict[str, Any]:
    """So many events a second into SQLite, and how many of them are there in the end."""
    config = folder / "haste.toml"
    config.write_text(f'state = "state-haste"\n{RECORDS}')
    process = subprocess.Popen(
        [sys.executable, "-m", "urlward.service.process"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"config": str(config), "parent": os.getpid()}).encode() + b"\n")
    process.stdin.close()
    read = read_config(config)
    assert read.records is not None
    state = Path(str(read.state))
    sent = asyncio.run(_send(Recording(read.records, state, local_key(state).secret), seconds))
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    store = open_store(read.records.store[0], state)
    assert isinstance(store, Database)
    kept = store.count(EventQuery(kinds=("block",)), "kind").get("block", 0)
    store.close()
    outbox, place = Outbox(state), place_of(read.records.store[0])
    waits = outbox.waiting(place, outbox.cursors()[place][0])  # for the next start
    outbox.close()
    return {
        "seconds": seconds,
        "rate": sent / seconds,
        "sent": sent,
        "kept": kept,
        "lost": sent - kept - waits,
    }


async def _send(recording: Recording, seconds: int) -> int:
    running = asyncio.ensure_future(recording.run())
    verdict = Verdict("block", "domain", "B-1", "phishing", "list")
    start, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - start) < seconds:
        while sent < now * RATE:
            port, reference = 1024 + sent % 60_000, f"{sent:08x}"
            recording.hit(
                Hit(verdict, "192.0.2.7", port, "http", "match", reference, lambda: "blocked.example/")
            )
            sent += 1
        await asyncio.sleep(0.005)
    await recording.close()
    running.cancel()
    return sent
