"""Filter under test: set up and run by the commands that a deployment uses.

Its list and its log are on a small file system of their own, which can be filled.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w

from urlward.engine.errors import UrlwardError
from urlward.gateway.table import ALIVE, FAMILY_AND_NAME
from urlward.lab import topology
from urlward.lab.isolation import children_of, environment, runs, small_disk
from urlward.lab.scenario import Loaded
from urlward.lab.services import LabService, wait_until
from urlward.lab.topology import EXEMPT, FILTERED_LINKS, GATEWAY, RESOLVER, inside, run
from urlward.lists.build import write_atomically
from urlward.process import module_command
from urlward.proxy.child import MODULES

_LINE = re.compile(r"(\S+) (block|would-block|cut|would-cut) ((?:\w+=\S+ ?)+)")
_LISTENS = re.compile(r"listening on 0\.0\.0\.0:\d+ \(transparent\)")
"""Each worker says it once."""

_LIST_MB = 32
"""Megabytes of the small file system, besides three times the list."""

_START_WITHIN = 60.0

_OUT = "type filter hook output priority raw; policy accept;"


@dataclass(frozen=True, slots=True)
class LoggedHit:
    """Line of the filter's log about something listed.

    Attributes:
        what: ``block``, ``cut``, ``would-block`` or ``would-cut``.
        client: address and port.
        entry, category, reference: of the hit.
    """

    what: str
    client: str
    entry: str
    category: str
    reference: str


@dataclass(frozen=True, slots=True)
class Holds:
    """Resources that processes hold: open files, and bytes of memory."""

    descriptors: int
    bytes: int


@dataclass(slots=True)
class FilterLog:
    """Filter's log, read as it grows."""

    path: Path
    events: list[LoggedHit] = field(default_factory=list)
    _at: int = 0
    _rest: bytes = b""

    def read(self) -> list[LoggedHit]:
        """All events so far."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
            self._at += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.events += filter(None, (_event(line.decode(errors="replace")) for line in lines))
        return self.events

    def text(self) -> str:
        """The whole text of the log."""
        return self.path.read_text(errors="replace") if self.path.exists() else ""


def _event(line: str) -> LoggedHit | None:
    match = _LINE.fullmatch(line.strip())
    if not match:
        return None
    fields = dict(part.split("=", 1) for part in match[3].split())
    names = ("client", "entry", "category", "reference")
    return LoggedHit(match[2], *(fields.get(name, "") for name in names))


class LabFilter:
    """Filter under test: ``urlward gateway up`` and ``urlward run``, configured by the scenario.

    Args:
        folder: for its files.
        loaded: the scenario.
        authority: certificate of the origins' authority, which it trusts.
        ipv6: whether the lab has IPv6.
        machine: that it runs on.
        links: that clients come in by.
        resolvers: that it asks.
        more: of its configuration. With ``feed``, its list comes from there, and `list` is not its own.
    """

    def __init__(
        self,
        folder: Path,
        loaded: Loaded,
        authority: Path,
        ipv6: bool,
        *,
        machine: str = GATEWAY,
        links: tuple[str, ...] = FILTERED_LINKS,
        resolvers: tuple[str, ...] = (RESOLVER.host4,),
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        scenario = loaded.scenario
        self._machine = machine
        self._links = links
        self._resolvers = resolvers
        self._folder = folder
        self._scenario = scenario
        self._base = _list_text(loaded)
        self._more = ""
        self.disk = folder / "disk"
        small_disk(self.disk, _LIST_MB + 3 * len(self._base) // (1 << 20))
        self.list = self.disk / "list.txt"
        self.log = FilterLog(self.disk / "urlward.log")
        self.config = folder / "gateway.toml"
        self.confdir = folder / "ca"
        self.config.write_text(tomli_w.dumps(self._configuration(loaded, authority, ipv6, more)))
        self._service: LabService | None = None
        self.write_list()

    @property
    def authority(self) -> Path:
        """Certificate of the filter's authority."""
        return self.confdir / "mitmproxy-ca-cert.pem"

    @property
    def up_command(self) -> list[str]:
        """Command that installs the rules."""
        return self._command("gateway", "up", "--config", str(self.config))

    @property
    def running(self) -> bool:
        """Whether the main process exists."""
        return self._service is not None and self._service.process.poll() is None

    def start(self) -> None:
        """Install the rules and run the filter, until it serves.

        Raises:
            UrlwardError: it does not start; with what it has said.
        """
        run(inside(self._machine, self.up_command))
        said = len(self.log.text())
        command = self._command("run", "--config", str(self.config))
        self._service = LabService("urlward", self._machine, command, self.log.path, environment())
        workers = self._scenario.filter.workers

        def serves() -> bool:
            assert self._service is not None
            self._service.check()
            return len(_LISTENS.findall(self.log.text(), said)) >= workers

        def lives() -> bool:
            # Until the rules have heard of a worker, names are asked for where clients ask for them.
            listed = run(inside(self._machine, ["nft", "list", "set", *FAMILY_AND_NAME.split(), ALIVE]))
            return "elements" in listed

        wait_until(serves, "urlward to listen", _START_WITHIN)
        wait_until(lives, "the rules to hear of urlward", _START_WITHIN)

    def second(self) -> "subprocess.CompletedProcess[str]":
        """Start the filter a second time, as by mistake; returns its exit code and output."""
        command = inside(self._machine, self._command("run", "--config", str(self.config)))
        try:
            return subprocess.run(  # noqa: S603 - our own program
                command, capture_output=True, text=True, check=False, timeout=_START_WITHIN, env=environment()
            )
        except subprocess.TimeoutExpired as e:
            raise UrlwardError("lab: a second urlward runs beside the first") from e

    def stop(self) -> int:
        """Stop the filter as the service is stopped; returns the exit code."""
        if self._service is None:
            return 0
        code = self._service.stop(signal.SIGTERM, patience=20)
        run(
            inside(
                self._machine, self._command("gateway", "down", "--if-stopped", "--config", str(self.config))
            )
        )
        return code

    def begin_anew(self) -> None:
        """Install the rules as after a boot: nothing in their sets, and no worker yet."""
        self.stop()
        self.remove_rules()
        run(inside(self._machine, self.up_command))

    def status(self) -> "subprocess.CompletedProcess[str]":
        """Result of ``gateway status``."""
        command = inside(self._machine, self._command("gateway", "status", "--config", str(self.config)))
        return subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, text=True, check=False, timeout=60, env=environment()
        )

    @contextmanager
    def in_the_way(self, rule: str) -> Iterator[None]:
        """Context with a foreign firewall rule that drops matching packets that leave the gateway."""
        table = "inet somebody"
        run(inside(self._machine, ["nft", f"add table {table}; add chain {table} out {{ {_OUT} }}"]))
        try:
            run(inside(self._machine, ["nft", f"add rule {table} out {rule} drop"]))
            yield
        finally:
            run(inside(self._machine, ["nft", f"delete table {table}"]))

    def remove_rules(self) -> None:
        """Remove the rules, whatever the configuration says of keeping them."""
        run(inside(self._machine, self._command("gateway", "down", "--config", str(self.config))))

    def kill(self) -> None:
        """Kill all processes of the filter, at once."""
        if self._service is not None:
            for pid in [self._service.process.pid, *self.workers()]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._service.process.wait()

    def kill_workers(self, count: int | None = None) -> None:
        """Kill so many workers, or all.

        Raises:
            UrlwardError: there are none.
        """
        pids = self.workers()[:count]
        if not pids:
            raise UrlwardError("lab: the filter has no workers to kill")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop_worker(self) -> int:
        """Make a worker hang; returns its process number.

        Raises:
            UrlwardError: there is none.
        """
        pids = self.workers()
        if not pids:
            raise UrlwardError("lab: the filter has no workers to stop")
        os.kill(pids[-1], signal.SIGSTOP)
        return pids[-1]

    def workers(self) -> list[int]:
        """Process numbers of its workers."""
        if self._service is None or self._service.process.poll() is not None:
            return []
        beside = MODULES.values()
        children = children_of(self._service.process.pid)
        return [pid for pid in children if not any(runs(pid, module) for module in beside)]

    def holds(self) -> Holds:
        """Resources that the filter's processes hold."""
        pids = self.workers()
        return Holds(sum(map(_descriptors, pids)), sum(map(_memory, pids)))

    def write_list(self, more: str | None = None) -> None:
        """Write the list: its original content, and these lines (the last ones where None)."""
        self._more = self._more if more is None else more
        write_atomically(self.list, (self._base + self._more).encode())

    def damage_list(self) -> None:
        """Replace the list with other content, as a captive portal or a broken copy does."""
        write_atomically(
            self.list, b"<!doctype html><html><title>Please log in</title>\x00\xff</html>\n" * 40
        )

    def fill_disk(self) -> None:
        """Fill the file system of the list and the log."""
        with (self.disk / "filler").open("ab", buffering=0) as file, suppress(OSError):
            for size in (1 << 20, 4096, 1):
                with suppress(OSError):
                    while file.write(b"\0" * size):
                        pass

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        (self.disk / "filler").unlink(missing_ok=True)

    def secrets(self) -> set[str]:
        """Hosts and pages of the list's entries, none of which its log may contain."""
        found = set()
        for line in self._base.splitlines()[:2000]:
            entry = line.split("#")[0].split("!")[0].split(" ")[0].strip().removeprefix("@@").strip("|^*")
            words = entry.removeprefix("http://").removeprefix("https://").strip("/")
            if "." in words:
                found |= {words, words.split("/")[0]}
        return {
            secret for secret in found if len(secret) > 3 and not secret[0].isdigit() and ":" not in secret
        }

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return module_command("urlward", *arguments)

    def _configuration(
        self, loaded: Loaded, authority: Path, ipv6: bool, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        gateway = dict(loaded.gateway)
        dns = {"resolvers": [*self._resolvers], **gateway.pop("dns", {})}
        defaults = {
            "interfaces": [*self._links],
            "exempt": list(_networks(EXEMPT, ipv6)),
            "steer": True,
        }
        return {
            **({} if "feed" in more else {"list": [str(self.list)]}),
            "confdir": str(self.confdir),
            **self._scenario.filter.model_dump(),
            "page": {"operator": "urlward lab"},
            "gateway": {**defaults, **gateway, "dns": dns},
            "mitmproxy": {"ssl_verify_upstream_trusted_ca": str(authority)},
            **more,
        }


def _networks(addresses: Iterable[str], ipv6: bool) -> Iterable[str]:
    return (f"{a}/{128 if ':' in a else 32}" for a in addresses if ipv6 or ":" not in a)


def _list_text(loaded: Loaded) -> str:
    table = loaded.scenario.list
    text = table.entries.strip() + "\n" if table.entries.strip() else ""
    if table.file:
        path = loaded.folder / table.file
        try:
            text += path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise UrlwardError(f"{path}: {getattr(e, 'strerror', None) or 'not UTF-8'}") from e
    if table.make:
        text += "".join(topology.lines(table.make.entries, table.make.seed))
    return text


def _descriptors(pid: int) -> int:
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def _memory(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
    return 0
