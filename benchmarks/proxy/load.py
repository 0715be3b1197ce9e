"""The load: wrk for requests on kept connections, h2load for those of HTTP/2, ``sessions.py`` for new
connections in TLS and tunnels, curl for downloads, in a way that the network redirects.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, override

from benchmarks.proxy import sessions
from benchmarks.proxy.origin import BODY
from benchmarks.proxy.plan import LOAD_CORE
from benchmarks.proxy.sessions import Job
from benchmarks.proxy.site import LOAD_USER, MARK

_ON_CORE = ("taskset", "-c", str(LOAD_CORE))
PREFIX = ("setpriv", f"--reuid={LOAD_USER}", f"--regid={LOAD_USER}", "--clear-groups", *_ON_CORE)
SCRIPT = Path(__file__).with_name("load.lua")
TIMEOUT = 10
"""Seconds after which a request has failed."""
_STUCK = 15
"""Seconds after its end that a load generator may take to say so."""


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
        resumed: handshakes of TLS that resumed a session, where they were counted.
    """

    requests: int = 0
    seconds: float = 0
    failed: int = 0
    refused: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: Counter[int] = field(default_factory=Counter)
    resumed: int = 0

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
        self.resumed += result.get("resumed", 0)

    def quantile(self, share: float) -> float:
        """Milliseconds within which that share of the answers came."""
        wanted, seen = share * self.latencies.total(), 0
        for value in sorted(self.latencies):
            seen += self.latencies[value]
            if seen >= wanted:
                return value / 1000
        return 0.0


class Generator:
    """A running load generator, which prints a line of JSON as ``load.lua`` does.

    Args:
        command: what to run.
        seconds: how long it will make requests.
        given: its standard input.
    """

    def __init__(self, command: Sequence[str], seconds: int, given: str = "") -> None:
        self._patience = seconds + _STUCK
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        stdin = self._process.stdin
        assert stdin
        with suppress(BrokenPipeError), stdin:
            stdin.write(given)
        self._process.stdin = None

    def result(self) -> dict[str, Any]:
        """What it says in the end.

        Raises:
            RuntimeError: it says nothing of use, or does not end.
        """
        try:
            output, _ = self._process.communicate(timeout=self._patience)
        except subprocess.TimeoutExpired:
            self.stop()
            raise RuntimeError("the load generator did not end") from None
        return self._read(output)

    def _read(self, output: str) -> dict[str, Any]:
        _, mark, text = output.partition("RESULT ")
        if not mark:
            raise RuntimeError(f"{type(self).__name__}: {output.strip()[-300:]}")
        result: dict[str, Any] = json.loads(text)
        return result

    def stop(self) -> None:
        """End it and its helpers without a result."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


class Wrk(Generator):
    """HTTP/1.1 on connections that are kept, or on new ones without TLS.

    Args:
        script: `load.lua`, where the load's user can read it.
        requests: the file of requests.
        host: to connect to, and to name in TLS.
        tls, close, count: TLS, a new connection for each request, count statuses.
        absolute: ask as one asks an explicit proxy.
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
        absolute: bool = False,
        begin: float = 0,
    ) -> None:
        url = f"{'https' if tls else 'http'}://{host}/"
        how = ["close" if close else "keep", "count" if count else "", str(begin)]
        how.append("absolute" if absolute else "origin")
        super().__init__(
            [*PREFIX, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT}s",
             "-s", str(script), url, "--", str(requests), *how],
            seconds,
        )  # fmt: skip


class H2load(Generator):
    """HTTP/2 on one connection.

    Args:
        requests: the file of requests, all to one host.
        streams: requests at a time.
        begin: share of the requests to leave out first.
        address: host and port to connect to instead of the requests' host.
    """

    def __init__(
        self, requests: Path, seconds: int, streams: int, *, begin: float = 0, address: str = ""
    ) -> None:
        self._seconds = seconds
        self._folder = tempfile.TemporaryDirectory(prefix="h2load-")
        self._log = Path(self._folder.name, "log")
        os.chown(self._folder.name, LOAD_USER, LOAD_USER)
        rows = [line.split("\t") for line in requests.read_text().splitlines()]
        at = int(len(rows) * begin)
        uris = "".join(f"https://{host}{target}\n" for host, target in rows[at:] + rows[:at])
        where = [f"--connect-to={address}"] if address else []
        super().__init__(
            [*PREFIX, "h2load", "-t1", "-c1", f"-m{streams}", f"-D{seconds}",
             f"--connection-inactivity-timeout={TIMEOUT}", "--alpn-list=h2", f"--log-file={self._log}",
             *where, "-i", "-"],
            seconds, uris,
        )  # fmt: skip

    @override
    def _read(self, output: str) -> dict[str, Any]:
        with self._folder:
            log = self._log.read_text() if self._log.exists() else ""
        return read_h2load(output, log, self._seconds)


def read_h2load(output: str, log: str, seconds: int) -> dict[str, Any]:
    """What h2load printed and logged, in the form of ``load.lua``.

    Raises:
        RuntimeError: there was no connection, or another protocol on it.
    """
    done = re.search(r"^requests: .* (\d+) errored, (\d+) timeout", output, re.MULTILINE)
    if "Application protocol: h2\n" not in output or not done:
        raise RuntimeError(f"h2load: no HTTP/2: {output.strip()[-300:]}")
    # Beginning, status (-1 for a failure), microseconds.
    rows = [list(map(int, line.split("\t"))) for line in log.splitlines()]
    statuses = Counter(status for _, status, _ in rows)
    broken = statuses.pop(-1, 0)
    latencies = Counter(took for _, status, took in rows if status != -1)
    return {
        "requests": statuses.total(), "microseconds": seconds * 1_000_000, "connect": 0,
        "read": max(broken, int(done[1])), "write": 0, "timeout": int(done[2]),
        "status": sum(count for status, count in statuses.items() if status >= 400), "statuses": statuses,
        "latency": list(latencies.items()),
    }  # fmt: skip


class Sessions(Generator):
    """New connections, as ``sessions.py`` makes them."""

    def __init__(self, jobs: Sequence[Job], seconds: int) -> None:
        load: sessions.Load = {
            "seconds": seconds, "timeout": TIMEOUT, "mark": MARK, "size": len(BODY), "jobs": list(jobs),
        }  # fmt: skip
        # It runs as root with a mark: the load's user might not be let to the interpreter.
        command = [*_ON_CORE, sys.executable, "-I", "-S", sessions.__file__]
        super().__init__(command, seconds, json.dumps(load))


def total(generators: Sequence[Generator]) -> Tally:
    """The sum of all, once they have ended.

    Raises:
        RuntimeError: one of them failed; the others were stopped.
    """
    tally = Tally()
    try:
        for generator in generators:
            tally.add(generator.result())
    except BaseException:
        for generator in generators:
            generator.stop()
        raise
    return tally


@dataclass(frozen=True, slots=True)
class Download:
    """What came of one download."""

    seconds: float
    size: int
    status: int
    failed: bool


def download(url: str, trusted: Path, *more: str) -> Download:
    """One download on a connection of its own, the certificate checked; `more` is for curl."""
    form = "%{time_total} %{size_download} %{http_code}"
    command = [*PREFIX, "curl", "-q", "-s", "-m", "120", "-o", "/dev/null", "-w", form, *more]
    done = subprocess.run(
        [*command, "--cacert", str(trusted), url], capture_output=True, text=True, check=False
    )
    seconds, size, status = done.stdout.split()
    return Download(float(seconds), int(size), int(status), done.returncode != 0)


def version() -> str:
    """Of wrk and h2load."""
    wrk, h2load = (
        subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        for command in (["wrk", "-v"], ["h2load", "--version"])
    )
    return f"wrk {wrk[1].removeprefix('debian/')}, h2load {h2load[-1].rpartition('/')[2]}"
