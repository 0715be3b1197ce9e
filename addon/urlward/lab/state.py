"""State of running labs: a small file for each, which says which process it is.

A lab that has ended without telling anybody leaves such a file and nothing else. It is seen by the
process's start, which no other process of that number shares, and removed.
"""

import json
import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from urlward.lab.errors import LabError
from urlward.lab.isolation import WORK, started_at

DEFAULT = "lab"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_END_WITHIN = 15.0


@dataclass(frozen=True, slots=True)
class Running:
    """Running lab.

    Attributes:
        name: given to it.
        pid: of its number 1, as seen from outside.
        start: of that process, in clock ticks since the boot.
        scenario: that it was set up for.
    """

    name: str
    pid: int
    start: int
    scenario: str


def path_of(name: str, folder: Path = WORK) -> Path:
    """Path of a lab's state file.

    Raises:
        LabError: that is no name for a lab.
    """
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} is no name for a lab: letters, digits, - and _, 32 at most")
    return folder / f"{name}.json"


def find_running(name: str, folder: Path = WORK) -> Running | None:
    """Find the running lab of that name; None where there is none."""
    path = path_of(name, folder)
    try:
        running = Running(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        running = Running(name, 0, 0, "")
    if running.pid and started_at(running.pid) == running.start:
        return running
    with suppress(OSError):
        path.unlink()
    return None


def running_labs(folder: Path = WORK) -> list[Running]:
    """All running labs."""
    found = [find_running(path.stem, folder) for path in sorted(folder.glob("*.json"))]
    return [running for running in found if running]


def the_running(name: str, folder: Path = WORK) -> Running:
    """Find the running lab of that name, or raise.

    Raises:
        LabError: it is not up.
    """
    running = find_running(name, folder)
    if running is None:
        others = ", ".join(other.name for other in running_labs(folder))
        raise LabError(
            f"lab {name}: is not up ({f'there are: {others}' if others else 'none is'}); try: urlward lab up"
        )
    return running


def remember(running: Running, folder: Path = WORK) -> None:
    """Write a lab's state."""
    path = path_of(running.name, folder)
    try:
        path.write_text(json.dumps(asdict(running)))
    except OSError as e:
        raise LabError(f"{path}: {e.strerror or e}") from e


def end(running: Running, folder: Path = WORK) -> None:
    """Stop a lab, and wait until it has ended.

    Raises:
        LabError: it does not end.
    """
    until = time.monotonic() + _END_WITHIN
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(running.pid, number)
        while started_at(running.pid) == running.start and time.monotonic() < until - _END_WITHIN / 3:
            time.sleep(0.02)
        until += _END_WITHIN / 3
    if started_at(running.pid) == running.start:
        raise LabError(f"lab {running.name}: process {running.pid} does not end")
    with suppress(OSError):
        path_of(running.name, folder).unlink()
