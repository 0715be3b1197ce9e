"""What tests of the lab share: running ``urlward lab``, and looking for what is left of one."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from urlward.engine.errors import UrlwardError
from urlward.lab.isolation import NETNS, WORK, check_needs
from urlward.lab.scenario import MOST_NODES
from urlward.lab.topology import NETWORKS

LAB = [sys.executable, "-m", "urlward", "lab"]

_OURS = f"URLWARD_LABS_OF={os.getpid()}-{secrets.token_hex(8)}"
"""In the environment of the labs of this run: another may be under way on this machine."""


def why_not() -> str:
    """Why this machine cannot run labs; empty where it can."""
    try:
        check_needs()
    except UrlwardError as e:
        return str(e).replace("\n", "; ")
    return ""


def lab(*arguments: str | Path, timeout: float = 400) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*LAB, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=surroundings(),
    )


def surroundings() -> dict[str, str]:
    """The environment that labs are started in."""
    name, _, value = _OURS.partition("=")
    return {**os.environ, name: value}


def inside_processes() -> set[int]:
    """Processes of labs of this run, as seen from here."""
    spaces: dict[int, str] = {}
    ours: set[str] = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if not any(b"urlward.lab." in word or str(WORK).encode() in word for word in words):
                continue
            # Some write over their environment, but are in a namespace with those that do not.
            spaces[int(path.name)] = space = str((path / "ns/pid_for_children").readlink())
            if _OURS.encode() in (path / "environ").read_bytes().split(b"\0"):
                ours.add(space)
        except OSError:
            continue
    return {number for number, space in spaces.items() if space in ours - {_SPACE}}


def left() -> dict[str, set[str]]:
    """What a lab could leave outside of its namespaces, by kind."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return {
        "mounts": {line.split()[1] for line in mounts if "urlward-lab" in line},
        "links": {path.name for path in Path("/sys/class/net").iterdir() if path.name in _LINKS},
        "states": {path.name for path in WORK.iterdir()} if WORK.exists() else set(),
        "namespaces": {p.name for p in NETNS.iterdir() if p.name in _MACHINES} if NETNS.exists() else set(),
    }


_MACHINES = {"client", "client6", "gateway", "neighbour", "resolver", "origin", "services"} | {
    f"node{number}" for number in range(1, MOST_NODES + 1)
}
_LINKS = {network.link for network in NETWORKS}
_SPACE = str(Path("/proc/self/ns/pid").readlink())


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found
