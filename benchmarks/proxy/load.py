"""The load: wrk for requests, curl for downloads, as a user whom the network redirects."""

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.proxy.plan import LOAD_CORE
from benchmarks.proxy.site import LOAD_USER

PREFIX = (
    "setpriv", f"--reuid={LOAD_USER}", f"--regid={LOAD_USER}", "--clear-groups",
    "taskset", "-c", str(LOAD_CORE),
)  # fmt: skip
SCRIPT = Path(__file__).with_name("load.lua")
TIMEOUT = 10
"""Seconds after which a request has failed."""


@dataclass(slots=True)
class Tally:
    """What came of some requests.

    Attributes:
        requests: that were answered.
        seconds: in which.
        failed: connections not made, broken or silent.
        refused: answers with status 400 and up.
        statuses: count of each, where they were counted.
        latencies: count of each, in microseconds.
    """

    requests: int = 0
    seconds: float = 0
    failed: int = 0
    refused: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: Counter[int] = field(default_factory=Counter)

    def add(self, result: dict[str, Any]) -> None:
        """Add one load generator's result to those of others beside it."""
        self.requests += result["requests"]
        self.seconds = max(self.seconds, result["microseconds"] / 1e6)
        self.failed += sum(result[kind] for kind in ("connect", "read", "write", "timeout"))
        self.refused += result["status"]
        for status, count in result["statuses"].items():
            self.statuses[int(status)] += count
        for value, count in result["latency"]:
            self.latencies[value] += count

    def quantile(self, share: float) -> float:
        """Milliseconds within which that share of the answers came."""
        wanted, seen = share * self.latencies.total(), 0
        for value in sorted(self.latencies):
            seen += self.latencies[value]
            if seen >= wanted:
                return value / 1000
        return 0.0


class Wrk:
    """A running load generator.

    Args:
        script: `load.lua`, where the load's user can read it.
        requests: the file of requests.
        host: to connect to, and to name in TLS.
        tls, close, count: TLS, a new connection for each request, count statuses.
        begin: share of the requests to leave out first.
    """

    def __init__(
        self,
        script: Path,
        requests: Path,
        host: str,
        seconds: int,
        connections: int,
        *,
        tls: bool = False,
        close: bool = False,
        count: bool = False,
        begin: float = 0,
    ) -> None:
        url = f"{'https' if tls else 'http'}://{host}/"
        how = ["close" if close else "keep", "count" if count else "", str(begin)]
        self._process = subprocess.Popen(
            [*PREFIX, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT}s",
             "-s", str(script), url, "--", str(requests), *how],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def result(self) -> dict[str, Any]:
        """What it says in the end.

        Raises:
            RuntimeError: it says nothing of use.
        """
        output, _ = self._process.communicate()
        _, mark, text = output.partition("RESULT ")
        if not mark:
            raise RuntimeError(f"wrk: {output.strip()[-300:]}")
        result: dict[str, Any] = json.loads(text)
        return result

    def stop(self) -> None:
        """End it without a result."""
        self._process.kill()
        self._process.communicate()


def total(generators: Sequence[Wrk]) -> Tally:
    """The sum of all, once they have ended."""
    tally = Tally()
    for generator in generators:
        tally.add(generator.result())
    return tally


@dataclass(frozen=True, slots=True)
class Download:
    """What came of one download."""

    seconds: float
    size: int
    status: int
    failed: bool


def download(url: str, trusted: Path) -> Download:
    """One download on a connection of its own, the certificate checked."""
    form = "%{time_total} %{size_download} %{http_code}"
    command = [*PREFIX, "curl", "-s", "-m", "120", "-o", "/dev/null", "-w", form]
    done = subprocess.run(
        [*command, "--cacert", str(trusted), url], capture_output=True, text=True, check=False
    )
    seconds, size, status = done.stdout.split()
    return Download(float(seconds), int(size), int(status), done.returncode != 0)


def version() -> str:
    text = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return text.split()[1].removeprefix("debian/") if text.startswith("wrk ") else "?"
