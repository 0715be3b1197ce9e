"""Measured figures, as the other benchmarks have written them to their JSON."""

import json
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

_FOLDER = Path(__file__).parents[1]


class Figures(NamedTuple):
    """What one core, one process or one row costs.

    Attributes:
        packet_s: seconds that stage 1 adds to a packet, over plain routing.
        keep_alive, new_plain, relayed, intercepted, http2, blocked: requests a second of a core, or
            connections where each request has one of its own.
        answers: answers of DNS a second of a core.
        first_worker, worker: bytes of memory with 1,000,000 entries, of a filter with one worker and of each
            more.
        artifact, delta: bytes of a list of 1,000,000 entries, and of 1,000 changes of it.
        intervals: assignments a second that one process reads into PostgreSQL.
        interval: bytes of one in a database.
        events: a second, that one process kept for a minute.
        measured: which benchmark was measured when.
    """

    packet_s: float
    keep_alive: float
    new_plain: float
    relayed: float
    intercepted: float
    http2: float
    blocked: float
    answers: float
    first_worker: float
    worker: float
    artifact: float
    delta: float
    intervals: float
    interval: float
    events: float
    measured: dict[str, str]


def _read(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((_FOLDER / name).read_text())
    return result


def read() -> Figures:
    """The figures of the last runs.

    Raises:
        OSError: a benchmark has no results.
        KeyError: or not those that are needed.
    """
    proxy, gateway, lists = (_read(f"{name}/results.json") for name in ("proxy", "gateway", "lists"))
    records, workers = _read("records/results.json"), _read("workers/results.json")
    assignments = _read("records/assignments.json")
    a_core = {
        row["case"]: row["figures"]["per_cpu_s"] for row in proxy["results"] if row["proxy"] == "urlward"
    }
    packets = [row["a packet"] for row in gateway["routing"]["rounds"]]
    sizes = {row["workers"]: row["after"]["total_pss"] for row in workers["rows"]}
    rows = sum(assignments["sqlite"][kind]["rows"] for kind in ("intervals", "leases"))
    return Figures(
        packet_s=median(row["urlward"] - row["plain"] for row in packets) / 1e9,
        keep_alive=a_core["plain keep-alive"],
        new_plain=a_core["plain new connection each"],
        relayed=a_core["new TLS relayed"],
        intercepted=a_core["new TLS intercepted"],
        http2=a_core["HTTP/2"],
        blocked=a_core["block page"],
        answers=median(row["urlward"]["answers_per_s"] for row in gateway["dns"]["rounds"]),
        first_worker=sizes[1],
        worker=(sizes[4] - sizes[2]) / 2,
        artifact=lists["artifact_bytes"],
        delta=median(lists["delta_bytes"]),
        intervals=assignments["postgresql"]["intervals"]["rows_per_second"],
        interval=assignments["sqlite"]["bytes"] / rows,
        events=records["sustained"]["kept"] / records["sustained"]["seconds"],
        measured={
            "proxy": proxy["date"],
            "gateway": gateway["date"],
            "lists": lists["date"],
            "records": records["date"],
            "workers": workers["date"],
            "assignments": assignments["date"],
        },
    )
