"""Programs on the lab's machines: services in the background, single commands, and agents."""

import io
import json
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from urlward.lab.errors import LabError
from urlward.lab.topology import inside
from urlward.process import module_command

_PATIENCE = 60.0


class LabService:
    """Background program on a machine.

    Args:
        name: of the program, for messages.
        machine: the namespace that it runs in.
        command: with arguments.
        log: file that its output is added to.
        environment: the whole of it; this process's where None.

    Raises:
        LabError: it cannot be started.
    """

    def __init__(
        self,
        name: str,
        machine: str,
        command: Sequence[str],
        log: Path,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            try:
                self.process = subprocess.Popen(  # noqa: S603 - the lab's own commands
                    inside(machine, command),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=environment,
                    # Ctrl-C is for the lab, which ends what it has started.
                    start_new_session=True,
                )
            except OSError as e:
                raise LabError(f"lab: {name}: {e.strerror}") from e

    def check(self) -> None:
        """Raise an error if the program has ended by itself.

        Raises:
            LabError: it has; with its last words.
        """
        if self.process.poll() is not None:
            raise LabError(f"lab: {self.name} ended with {self.process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of output."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "without a word"

    def stop(self, number: int = signal.SIGTERM, patience: float = 15.0) -> int:
        """Terminate the program, by force if need be; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class AgentLink:
    """Connection to an agent on a machine: commands in, results out; usable from any number of threads."""

    def __init__(self, machine: str, log: Path, environment: dict[str, str] | None = None) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                inside(machine, module_command("urlward.lab.agent")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=environment,
                start_new_session=True,
            )
        self.machine = machine
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[threading.Event, dict[str, Any]]] = {}
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, do: str, patience: float = _PATIENCE, **arguments: Any) -> dict[str, Any]:
        """Send a command and return its result.

        Args:
            do: the command; see `urlward.lab.agent.Agent`.
            patience: seconds to wait for the answer.
            arguments: the command's.

        Raises:
            LabError: it has ended, or does not answer.
        """
        arrived = threading.Event()
        answer: dict[str, Any] = {}
        assert self._process.stdin is not None
        with self._lock:
            if self._ended:
                raise LabError(f"lab: the client on {self.machine} has ended")
            number = next(self._numbers)
            self._waiting[number] = (arrived, answer)
            line = json.dumps({"number": number, "do": do, **arguments}).encode()
            try:
                self._process.stdin.write(line + b"\n")
            except OSError as e:
                raise LabError(f"lab: the client on {self.machine} has ended") from e
        if not arrived.wait(patience):
            raise LabError(f"lab: the client on {self.machine} does not answer ({do})")
        if "bug" in answer or self._ended:
            raise LabError(f"lab: the client on {self.machine}: {answer.get('bug', 'has ended')}")
        return answer

    def close(self) -> None:
        """Stop the agent."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert isinstance(self._process.stdout, io.RawIOBase)
        for line in io.BufferedReader(self._process.stdout):
            with suppress(ValueError, KeyError):
                answer = json.loads(line)
                arrived, place = self._waiting.pop(answer.pop("number"))
                place.update(answer)
                arrived.set()
        with self._lock:
            self._ended = True
            for arrived, _ in self._waiting.values():
                arrived.set()
