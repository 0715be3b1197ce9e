"""Command line of the workers' benchmark."""

import json
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from benchmarks.engine.machine import describe
from benchmarks.workers.measure import running
from benchmarks.workers.report import report, rewrite
from benchmarks.workload import Workload

from urlward.engine.digest import Key, format_key
from urlward.lists.build import compile_sources

_RESULTS = Path(__file__).with_name("results.json")
_README = Path(__file__).parents[1] / "README.md"
_SETTLED = 1.0
"""Seconds after a reload until what is past has been freed."""


def main() -> int:
    parser = ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small list, as a smoke test; writes nothing")
    parser.add_argument("--report", action="store_true", help="only rewrite the table from the JSON")
    arguments = parser.parse_args()
    if arguments.report:
        rewrite(_README, json.loads(_RESULTS.read_text()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), 20_000 if arguments.quick else 1_000_000)
    if not arguments.quick:
        _RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result))
    return 0


def run(folder: Path, entries: int) -> dict[str, Any]:
    """Measure all combinations."""
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "machine": describe(), "entries": entries, "rows": []
    }  # fmt: skip
    key = folder / "key"
    key.write_bytes(format_key(b"benchmark-key-with-32-bytes-----"))
    lines = list(Workload(1).entries(entries))
    sources, artifacts = [], []
    for number in range(2):
        source, artifact = folder / f"{number}.txt", folder / f"{number}.ward"
        source.write_text("\n".join([*lines, f"version-{number}.test", ""]))
        artifact.write_bytes(compile_sources([source], Key(key_secret(key)), name="list")[0])
        sources.append(source)
        artifacts.append(artifact)
    del lines
    result["artifact_bytes"] = artifacts[0].stat().st_size
    for workers in (1, 2, 4):
        print(f"{workers} workers", file=sys.stderr)
        path = folder / "list"
        path.write_bytes(artifacts[0].read_bytes())
        with running(path, key, workers) as proxy:
            row: dict[str, Any] = {"workers": workers, "start": proxy.memory()}
            row["artifact"] = [proxy.reload(path, artifacts[n % 2]) for n in (1, 2, 3)]
            row["source"] = [proxy.reload(path, sources[0])]
            row["artifact"] += [proxy.reload(path, artifacts[1])]
            time.sleep(_SETTLED)
            row["after"] = proxy.memory()
        result["rows"].append(row)
    return result


def key_secret(path: Path) -> bytes:
    """The secret in a key file of ours."""
    return bytes.fromhex(path.read_text())


if __name__ == "__main__":
    sys.exit(main())
