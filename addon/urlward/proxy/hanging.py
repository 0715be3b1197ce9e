"""Hang detection for a child process: silent for long, though the machine lets it run."""

from contextlib import suppress
from pathlib import Path

STARVED = 6
"""Times as long may a process be silent that the machine does not let run."""

BREAK = 1.0
"""Seconds between two looks from which on whoever looks has not had its turn either, so that silence tells
nothing."""

_BUSY = 0.75
"""Of its timeout, so much has a process to have computed that is in a circle. One that is only busy, with a
collection of all its garbage or with a list that changes, is so for less."""


def is_hung(silence: float, timeout: float, state: str, used: float) -> bool:
    """Whether a process hangs, rather than waits for its turn on an overloaded machine.

    Args:
        silence: seconds since it has last said that it lives.
        timeout: seconds that it may be silent.
        state: of the process, as `state_of` has it.
        used: seconds of CPU time that it has used since then.
    """
    if silence < timeout:
        return False
    waits_for_machine = state == "D" or (state in ("R", "") and used < timeout * _BUSY)
    return not waits_for_machine or silence >= STARVED * timeout


def state_of(process: int) -> str:
    """A process's state, a letter (proc_pid_stat(5)), or nothing where that is not to be had.

    Stopped, or else that of whichever thread could go on soonest: where one computes, the event loop's may
    wait for it.
    """
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/stat"):
        with suppress(OSError, IndexError):
            found.append(path.read_text().rpartition(")")[2].split()[0])
    return next((state for state in "TtDR" if state in found), found[0] if found else "")
