"""Starting programs on a core, ending them with all their helpers, and what they take of memory."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_KIB = 1024


class ProcessError(Exception):
    """A program did not start, or ended when it should not."""


@contextmanager
def running(
    command: Sequence[str], cores: str, log: Path, ports: Sequence[int], patience: float = 60
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own, once it listens on all ports; its session ends with it.

    Raises:
        ProcessError: it ended, or does not listen in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", cores, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        for port in ports:
            _wait(process, port, time.monotonic() + patience, log)
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the program to end, then make all that it has started."""
    members = tree(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in members[1:]:
        # Helpers in sessions of their own; a number that came to be somebody else's has another parent.
        with suppress(OSError):
            if _stat(pid)[1] in (1, *members):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                children.setdefault(_stat(int(path.name))[1], []).append(int(path.name))
    found = [pid]
    for member in found:
        found += children.get(member, ())
    return found


def memory(pid: int) -> int:
    """Bytes of a process and all below it, what they share counted once (proportional set size)."""
    total = 0
    for member in tree(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * _KIB
    return total


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all below it that still run."""
    ticks = 0
    for member in tree(pid):
        with suppress(OSError):
            ticks += sum(_stat(member)[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[int]:
    """Fields of /proc/PID/stat from the state on, which is given as 0."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [0, *map(int, fields[1:])]


def _wait(process: subprocess.Popen[bytes], port: int, until: float, log: Path) -> None:
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            raise ProcessError(f"it ended with {process.returncode}: {_last_words(log)}")
        if time.monotonic() > until:
            raise ProcessError(f"it does not listen on {port}: {_last_words(log)}")
        time.sleep(0.05)


def _last_words(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])[-300:]
