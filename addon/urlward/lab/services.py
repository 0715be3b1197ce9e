"""Services around the filter: origins (nginx) and the network's resolver (dnsmasq)."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from urlward.lab.addresses import ORIGIN, OTHER_RESOLVER, RESOLVER, Site
from urlward.lab.errors import LabError
from urlward.lab.machines import AgentLink, LabService
from urlward.lab.material import LabCertificates
from urlward.lab.needs import find
from urlward.lab.topology import run
from urlward.process import module_command

MARKER = "Served by an origin of the lab."
"""In each page of an origin."""

TTL = 60
"""Seconds; of all records."""

_SLOW_PORT = 5300
_BULK_MB = (1, 8, 64)
_SLOW_BYTES = 4 << 20
_PATIENCE = 60.0


def write_template(name: str, path: Path, **values: Any) -> None:
    """Fill in a configuration file."""
    environment = Environment(  # noqa: S701 - configuration files, not HTML
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path.write_text(environment.get_template(name).render(**values))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    """Poll until a condition is true.

    Raises:
        LabError: it is not, in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"lab: waited {seconds:g} s for {what}")
        time.sleep(0.02)


def start_origins(folder: Path, logs: Path, certificates: LabCertificates, ipv6: bool) -> LabService:
    """Start nginx for all hosts.

    Raises:
        LabError: it does not start.
    """
    for size in _BULK_MB:
        _sparse(folder / "bulk" / str(size), size << 20)
    _sparse(folder / "slow" / "file", _SLOW_BYTES)
    binary = find("nginx") or "nginx"
    values = {
        "folder": folder, "log": logs, "certificates": certificates, "ipv6": ipv6,
        "http3": has_http3(), "marker": MARKER, "workers": 1,
    }  # fmt: skip
    write_template("nginx.conf.j2", folder / "nginx.conf", **values)
    (logs / "origin.log").touch()
    command = [binary, "-p", str(folder), "-e", str(logs / "nginx-error.log"), "-c", f"{folder}/nginx.conf"]
    service = LabService("nginx", ORIGIN.name, command, logs / "nginx.log")

    def ready() -> bool:
        service.check()
        return (folder / "nginx.pid").exists() and bool((folder / "nginx.pid").read_text().strip())

    wait_until(ready, "nginx")
    return service


def has_http3() -> bool:
    """Whether this machine's nginx speaks HTTP/3."""
    with suppress(LabError):
        # It says so on standard error.
        return "http_v3_module" in run(["sh", "-c", f"{find('nginx')} -V 2>&1"])
    return False


def _sparse(path: Path, size: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


class LabResolver:
    """Network's resolver, which can be made to fail in each of the ways that resolvers fail.

    Raises:
        LabError: a record cannot be written, or dnsmasq does not start.
    """

    def __init__(self, folder: Path, logs: Path, sites: list[Site], ipv6: bool, agent: AgentLink) -> None:
        self._folder = folder
        self._logs = logs
        self._agent = agent
        self._records = [_records(site, ipv6) for site in sites]
        self._addresses = [RESOLVER.host4, OTHER_RESOLVER[0]]
        if ipv6:
            self._addresses += [RESOLVER.host6, OTHER_RESOLVER[1]]
        self._running: list[LabService] = []
        self.start()

    def start(self) -> None:
        """Start normal operation."""
        self.stop()
        self._running = [self._dnsmasq(53, self._addresses)]
        self._wait(self._running[0], 0)

    def stop(self) -> None:
        """Stop the resolver: its machine refuses queries."""
        for service in self._running:
            service.process.send_signal(signal.SIGCONT)
            service.stop(signal.SIGKILL)
        self._running = []

    def hang(self) -> None:
        """Make it receive queries and answer none."""
        for service in self._running:
            service.process.send_signal(signal.SIGSTOP)

    def slow(self, seconds: float) -> None:
        """Delay each response by so many seconds."""
        self.stop()
        behind = self._dnsmasq(_SLOW_PORT, ["127.0.0.1"])
        command = module_command("urlward.lab.slow_dns", str(seconds), *self._addresses)
        front = LabService("slow resolver", RESOLVER.name, command, self._logs / "slow-dns.log")
        self._running = [front, behind]
        self._wait(front, seconds)

    def _dnsmasq(self, port: int, addresses: list[str]) -> LabService:
        path = self._folder / "dnsmasq.conf"
        write_template(
            "dnsmasq.conf.j2",
            path,
            port=port,
            addresses=addresses,
            log=self._logs,
            ttl=TTL,
            sites=self._records,
        )
        command = [find("dnsmasq") or "dnsmasq", "--keep-in-foreground", f"--conf-file={path}"]
        return LabService("dnsmasq", RESOLVER.name, command, self._logs / "dnsmasq.out")

    def _wait(self, service: LabService, seconds: float) -> None:
        def answers() -> bool:
            service.check()
            answer = self._agent.ask(
                "dns", name="probe.invalid", kind="A", server=self._addresses[0], timeout=seconds + 0.5
            )
            return "rcode" in answer

        wait_until(answers, service.name)


def _records(site: Site, ipv6: bool) -> dict[str, Any]:
    addresses = []
    if site.place:
        wanted = [4, 6] if ipv6 else [4]
        pairs = zip((4, 6), site.place.both, strict=True)
        addresses = [a for family, a in pairs if family in wanted and family in site.host.families]
    https = ""
    if site.host.https:
        try:
            record = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.HTTPS, f"1 . {site.host.https}")
        except dns.exception.DNSException as e:
            raise LabError(f"hosts.{site.name}.https: cannot be read: {e}") from e
        https = (record.to_wire() or b"").hex()
    return {
        "name": site.name, "place": site.place, "host": site.host, "addresses": addresses, "https": https,
    }  # fmt: skip
