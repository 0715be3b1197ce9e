"""What tests of the lab share: running ``urlward lab``, and looking for what is left of one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from urlward.gateway.lab.errors import LabError
from urlward.gateway.lab.isolation import NETNS, WORK
from urlward.gateway.lab.needs import check_needs

LAB = [sys.executable, "-m", "urlward", "lab"]


def why_not() -> str:
    """Why this machine cannot run labs; empty where it can."""
    try:
        check_needs()
    except LabError as e:
        return str(e).replace("\n", "; ")
    return ""


def lab(*arguments: str | Path, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*LAB, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=timeout
    )


def inside_processes() -> set[int]:
    """Processes of labs, as seen from here."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(b"urlward.gateway.lab." in word or str(WORK).encode() in word for word in words):
            found.add(int(path.name))
    return found


def left() -> dict[str, set[str]]:
    """What a lab could leave outside of its namespaces, by kind."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return {
        "mounts": {line.split()[1] for line in mounts if "urlward-lab" in line},
        "links": {path.name for path in Path("/sys/class/net").iterdir()},
        "states": {path.name for path in WORK.iterdir()} if WORK.exists() else set(),
        "namespaces": {p.name for p in NETNS.iterdir() if p.name in _MACHINES} if NETNS.exists() else set(),
    }


_MACHINES = {"client", "client6", "gateway", "neighbour", "resolver", "origin"}


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found
