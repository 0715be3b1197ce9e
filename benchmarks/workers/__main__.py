"""Command line of the workers' benchmark."""

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks.command import command
from benchmarks.workers.measure import running
from benchmarks.workers.report import report
from benchmarks.workload import Workload

from urlward.engine.digest import Key, format_key
from urlward.lists.build import compile_sources

_SETTLED = 1.0
"""Seconds after a reload until what is past has been freed."""


def _measure(folder: Path, arguments: Namespace) -> dict[str, Any]:
    """Measure all combinations."""
    entries = 20_000 if arguments.quick else 1_000_000
    result: dict[str, Any] = {"entries": entries, "rows": []}
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
    sys.exit(command("workers", _measure, report))
