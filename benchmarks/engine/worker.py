"""The process of one engine with one list: memory and stalls in it are that engine's own.

``build`` makes the stored form and ends. ``serve`` loads or builds, then waits for its turns, so
that all engines' rounds can be taken alternately: what else the machine does meets all alike.
Commands and answers are JSON, one a line.
"""

import json
import os
import resource
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.engine.contenders import ENTRANTS
from benchmarks.engine.contenders.base import Contender
from benchmarks.engine.material import Files, Request, files, read_labelled, read_requests
from benchmarks.engine.measure import Series, Ticker, drive, peak, resident, timed
from benchmarks.engine.plan import Plan

_ESCAPES = "/" + "%25" * ((1 << 16) // 3)
"""A target of 64 KiB that is nothing but escapes of escapes."""
_TRIES = 20
_EXAMPLES = 20
"""Requests with a wrong verdict that a result names."""


def build(engine: Contender, material: Files, stored: Path) -> dict[str, Any]:
    took = drive(engine.build(material))
    data = engine.store()
    stored.write_bytes(data)
    return {"build": took, "peak": peak(), "stored": len(data)}


class Server:
    """An engine that takes turns."""

    def __init__(self, engine: Contender, work: Path, material: Files, plan: Plan) -> None:
        self._engine = engine
        self._material = material
        self._plan = plan
        common = {name: read_requests(work / f"{name}.tsv") for name in ("warm", "miss", "first")}
        own = {
            name: read_requests(material.requests(name)) for name in ("near_warm", "near", "hit_first", "hit")
        }
        self._requests: dict[str, list[Request]] = common | own

    def begin(self, name: str, stored: Path) -> dict[str, Any]:
        """Load or build, and see what that takes."""
        engine, result = self._engine, dict[str, Any]()
        before = resident()
        if engine.stores:
            result["loads"] = [drive(engine.load(stored.read_bytes()))]
        else:
            with Ticker() as ticker:
                result["build"] = drive(engine.build(self._material))
            result["stalls"] = [ticker.longest]
        memory = {"resident": resident(trim=False) - before, "trimmed": resident() - before}
        engine.run(self._requests["warm"])
        result["memory"] = memory | {"serving": resident(trim=False) - before}
        near = [(host, _ESCAPES) for host, _ in self._requests["near"][:_TRIES]]
        result["escapes"] = [timed(engine.run, [request]) for request in near]
        if engine.stores:
            self._reload(name, stored, result)
        return result

    def _reload(self, name: str, stored: Path, result: dict[str, Any]) -> None:
        """As when a list changes: the new one is loaded, then freed, beside the one in use."""
        result |= {"stalls": [], "releases": []}
        for _ in range(self._plan.reloads):
            other = ENTRANTS[name].create()
            data = stored.read_bytes()
            result["loads"].append(drive(other.load(data)))
            result["releases"].append(drive(other.release()))
            with Ticker() as ticker:
                drive(other.load(data))
            result["stalls"].append(ticker.longest)
            drive(other.release())

    def round(self, index: int) -> dict[str, Series]:
        """One turn: the requests of that round, each series timed."""
        engine = self._engine
        # The turns of other engines have emptied the processor's caches, and hosts seen before may
        # have been forgotten: neither is this engine's doing.
        engine.run(self._requests["warm"])
        engine.run(self._turn("near_warm", index))
        answer = {
            s: timed(engine.run, self._turn(s, index)) for s in ("miss", "first", "near", "hit_first", "hit")
        }
        for name, run in engine.variants.items():
            # Requests of another round: those just checked would be in the caches.
            run(self._requests["warm"])
            answer[f"miss_{name}"] = timed(run, self._turn("miss", (index + 1) % self._plan.rounds))
        return answer

    def _turn(self, series: str, index: int) -> list[Request]:
        requests = self._requests[series]
        size = len(requests) // self._plan.rounds
        return requests[index * size : (index + 1) * size]

    def verify(self) -> dict[str, Any]:
        """Which listed requests it blocks, by kind, and which unlisted ones."""
        run = self._engine.run
        listed, found = Counter[str](), Counter[str]()
        missed: list[str] = []
        for series in ("hit_first", "hit"):
            for kind, *request in read_labelled(self._material.requests(series)):
                listed[kind] += 1
                if run([(request[0], request[1])]):
                    found[kind] += 1
                elif len(missed) < _EXAMPLES:
                    missed.append(f"{kind} {''.join(request)}")
        respelled = read_requests(self._material.requests("respelled"))
        unlisted = [request for name in ("miss", "first", "near") for request in self._requests[name]]
        return {
            "hits": {kind: [found[kind], listed[kind]] for kind in sorted(listed)},
            "respelled": [run(respelled), len(respelled)],
            "unlisted": [run(unlisted), len(unlisted)],
            "missed": missed,
        }


def serve(server: Server, name: str, stored: Path) -> None:
    _answer(server.begin(name, stored))
    for line in sys.stdin:
        command = json.loads(line)
        _answer(server.verify() if command == "verify" else server.round(command))


def _answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _arguments() -> Namespace:
    parser = ArgumentParser()
    parser.add_argument("mode", choices=("build", "serve"))
    parser.add_argument("engine", choices=list(ENTRANTS))
    parser.add_argument("size", type=int)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--plan", type=json.loads, required=True)
    parser.add_argument("--core", type=int, required=True)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    plan = Plan(**arguments.plan)
    os.sched_setaffinity(0, {arguments.core})
    resource.setrlimit(resource.RLIMIT_AS, (plan.memory_limit, plan.memory_limit))
    engine = ENTRANTS[arguments.engine].create()
    material = files(arguments.work, arguments.size)
    stored = material.directory / f"{arguments.engine}.stored"
    if arguments.mode == "build":
        _answer(build(engine, material, stored))
    else:
        serve(Server(engine, arguments.work, material, plan), arguments.engine, stored)


if __name__ == "__main__":
    main()
