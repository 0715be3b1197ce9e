"""What assignments cost: reading 10,000,000 intervals into the store, and asking who had an address.

    python -m benchmarks.records.assignments [--intervals N] [--postgresql URL] [--quick]

The intervals are of a provider with 200,000 addresses of its own, leased for hours to days, and as many
blocks of ports behind 1,600 shared ones; then a tenth as many renewals as Kea writes them. Questions are of
a random address, port and time, each in a transaction of its own; the database's files are in the page cache
as far as they fit. At last what a day ended is deleted, while somebody asks all the time: the longest wait
for an answer is how long the tables were locked.
"""

import json
import random
import statistics
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.engine.machine import describe

from urlward.assignments.formats import ReadOptions
from urlward.assignments.importing import import_file
from urlward.assignments.retention import _paces, purge_assignments
from urlward.assignments.store import AssignmentStore
from urlward.assignments.who import WhoQuestion, who

_RESULTS = Path(__file__).with_name("assignments.json")

_APART = ("partitions",)
"""Keys of the results that this measures not: one table and partitions, side by side."""
_START = 1_780_000_000
_DAYS = 180
_ADDRESSES, _SHARED, _BLOCK = 200_000, 1_600, 512
_DAY_MS = 86_400_000
_LONGEST_DAYS = 3


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _shared(number: int) -> str:
    return f"198.18.{number >> 8 & 255}.{number & 255}"


def write_csv(path: Path, intervals: int, seed: int = 1) -> None:
    """Intervals in order of their beginnings, half of them of whole addresses."""
    rng = random.Random(seed)
    step = _DAYS * 86_400 / intervals
    with path.open("w") as file:
        file.write("address,first_port,last_port,from,to,subscriber\n")
        for n in range(intervals):
            start = _START + int(n * step)
            end = start + rng.randrange(600, _LONGEST_DAYS * 86_400)
            if n % 2:
                file.write(f"{_address(rng.randrange(_ADDRESSES))},0,65535,{start},{end},s{n}\n")
            else:
                first = 1024 + _BLOCK * rng.randrange(126)
                last = first + _BLOCK - 1
                file.write(f"{_shared(rng.randrange(_SHARED))},{first},{last},{start},{end},s{n}\n")


def write_leases(path: Path, renewals: int) -> None:
    """Renewals at half of the lifetime, of a tenth as many clients."""
    clients = max(renewals // 10, 1)
    last = "1,0,0,,0,,0"
    with path.open("w") as file:
        file.write(
            "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n"
        )
        for n in range(renewals):
            client, turn = n % clients, n // clients
            expire = _START + turn * 1800 + client * 1800 // clients + 3600
            mac = ":".join(f"{byte:02x}" for byte in client.to_bytes(6))
            file.write(
                f"172.{16 + (client >> 16)}.{client >> 8 & 255}.{client & 255},{mac},,3600,{expire},{last}\n"
            )


def questions(count: int, seed: int = 2) -> Iterator[WhoQuestion]:
    rng = random.Random(seed)
    for n in range(count):
        at = (_START + rng.randrange(_DAYS * 86_400)) * 1000
        address = _address(rng.randrange(_ADDRESSES)) if n % 2 else _shared(rng.randrange(_SHARED))
        yield WhoQuestion(address, rng.randrange(1024, 65_536), at, 5000)


def purge_of_a_day(database: Path | str) -> dict[str, object]:
    """Deletion of what ended in one day, which is not the first: that one has what ends soon alone."""
    answered = []
    done = threading.Event()

    def ask() -> None:
        with closing(AssignmentStore(database)) as store:
            for question in questions(1_000_000, seed=3):
                begun = time.perf_counter()
                who(store, question)
                answered.append(time.perf_counter() - begun)
                if done.wait(0.02):
                    return

    limit = _START * 1000 + (_LONGEST_DAYS + 1) * _DAY_MS
    with closing(AssignmentStore(database)) as store:
        purge_assignments(store, limit)
    # A purge of another process: this one would wait until a rewrite is due again.
    _paces.clear()
    asking = threading.Thread(target=ask)
    asking.start()
    with closing(AssignmentStore(database)) as store:
        begun = time.perf_counter()
        rows = purge_assignments(store, limit + _DAY_MS)
        seconds = time.perf_counter() - begun
    done.set()
    asking.join()
    return {"rows": rows, "seconds": round(seconds, 2), "longest_wait_ms": round(max(answered) * 1000, 1)}


def measure(database: Path | str, intervals: Path, leases: Path, asked: int) -> dict[str, object]:
    with closing(AssignmentStore(database)) as store:
        result: dict[str, object] = {}
        for name, format_, path in (("intervals", "csv", intervals), ("leases", "kea", leases)):
            begun, cpu = time.perf_counter(), time.process_time()
            done = import_file(store, store.source(name, format_, path.name), path, ReadOptions(), time.time)
            seconds = time.perf_counter() - begun
            assert not done.skipped
            result[name] = {
                "rows": done.rows,
                "rows_per_second": round(done.rows / seconds),
                "seconds": round(seconds, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
            }
        took, answers = [], 0
        for question in questions(asked):
            begun = time.perf_counter()
            answers += bool(who(store, question).candidates)
            took.append((time.perf_counter() - begun) * 1000)
        took.sort()
        result["who"] = {
            "questions": asked,
            "answered": answers,
            "median_ms": round(statistics.median(took), 2),
            "p99_ms": round(took[int(asked * 0.99)], 2),
            "worst_ms": round(took[-1], 2),
        }
    if isinstance(database, Path):
        result["bytes"] = database.stat().st_size
    result["purge"] = purge_of_a_day(database)
    return result


def measured_apart(path: Path) -> dict[str, object]:
    """What a file of results has that is measured by hand, and stays as it is."""
    before = json.loads(path.read_text()) if path.exists() else {}
    return {name: before[name] for name in _APART if name in before}


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.records.assignments", description=__doc__)
    parser.add_argument("--intervals", type=int, default=10_000_000)
    parser.add_argument("--postgresql", metavar="URL", help="of an empty database")
    parser.add_argument("--folder", type=Path, help="for the files (a temporary one)")
    parser.add_argument("--quick", action="store_true", help="a smoke test; writes nothing")
    arguments = parser.parse_args()
    count, asked = (20_000, 100) if arguments.quick else (arguments.intervals, 2000)
    result: dict[str, object] = {"date": time.strftime("%Y-%m-%d"), "machine": describe()}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_csv(folder / "intervals.csv", count)
        write_leases(folder / "leases.csv", max(count // 10, 1000))
        files = folder / "intervals.csv", folder / "leases.csv"
        result["sqlite"] = measure(folder / "assignments.db", *files, asked)
        print(json.dumps(result["sqlite"]), flush=True)
        if arguments.postgresql:
            result["postgresql"] = measure(arguments.postgresql, *files, asked)
            print(json.dumps(result["postgresql"]), flush=True)
    if not arguments.quick:
        _RESULTS.write_text(json.dumps(result | measured_apart(_RESULTS), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
