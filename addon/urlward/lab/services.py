"""Services around the filter: origins (nginx) with their certificates, the network's resolver (dnsmasq),
agents, and other programs on the lab's machines.

Clients trust the lab's authority and the filter's, installed as a deployment installs them: in the system's
bundle, which programs read, and by policy for Chromium.
"""

import base64
import io
import json
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from urlward.engine.errors import UrlwardError
from urlward.lab.isolation import find
from urlward.lab.topology import ORIGIN, RESOLVER, Site, inside, run
from urlward.process import module_command

_ANSWER_WITHIN = 60.0

AUTHORITY = "urlward lab origins"
"""Common name of the authority that signs for origins; whoever sees it has not been decrypted."""

_VALID = timedelta(days=30)

MARKER = "Served by an origin of the lab."
"""In each page of an origin."""

TTL = 60
"""Seconds; of all records."""

_SLOW_PORT = 5300
_BULK_MB = (1, 8, 64)
_SLOW_BYTES = 4 << 20
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
        UrlwardError: it cannot be started.
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
                raise UrlwardError(f"lab: {name}: {e.strerror}") from e

    def check(self) -> None:
        """Raise an error if the program has ended by itself.

        Raises:
            UrlwardError: it has; with its last words.
        """
        if self.process.poll() is not None:
            raise UrlwardError(f"lab: {self.name} ended with {self.process.returncode}: {self.last_words()}")

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

    def ask(self, do: str, patience: float = _ANSWER_WITHIN, **arguments: Any) -> dict[str, Any]:
        """Send a command and return its result.

        Args:
            do: the command; see `urlward.lab.agent.Agent`.
            patience: seconds to wait for the answer.
            arguments: the command's.

        Raises:
            UrlwardError: it has ended, or does not answer.
        """
        arrived = threading.Event()
        answer: dict[str, Any] = {}
        assert self._process.stdin is not None
        with self._lock:
            if self._ended:
                raise UrlwardError(f"lab: the client on {self.machine} has ended")
            number = next(self._numbers)
            self._waiting[number] = (arrived, answer)
            line = json.dumps({"number": number, "do": do, **arguments}).encode()
            try:
                self._process.stdin.write(line + b"\n")
            except OSError as e:
                raise UrlwardError(f"lab: the client on {self.machine} has ended") from e
        if not arrived.wait(patience):
            raise UrlwardError(f"lab: the client on {self.machine} does not answer ({do})")
        if "bug" in answer or self._ended:
            raise UrlwardError(f"lab: the client on {self.machine}: {answer.get('bug', 'has ended')}")
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


@dataclass(frozen=True, slots=True)
class LabCertificates:
    """Files in PEM: the authority's certificate, and an origin's certificate and key."""

    authority: Path
    origin: Path
    key: Path


def make_certificates(folder: Path, names: Iterable[str], addresses: Iterable[str]) -> LabCertificates:
    """Make an authority, and one certificate by it for all origins."""
    found = LabCertificates(folder / "origins-ca.pem", folder / "origin.pem", folder / "origin.key")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _build(AUTHORITY, ca_key, ca_key, None)
    general: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    general += [x509.IPAddress(ip_address(address)) for address in addresses]
    origin = _build("origin", key, ca_key, x509.SubjectAlternativeName(general))
    found.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    found.origin.write_bytes(origin.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    found.key.chmod(0o600)
    return found


def _build(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    names: x509.SubjectAlternativeName | None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, AUTHORITY)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if names is None:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        builder = builder.add_extension(names, critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def write_bundle(path: Path, authorities: Iterable[Path]) -> None:
    """Write the bundle of authorities that the lab's clients trust, and no others."""
    path.write_text("".join(authority.read_text() for authority in authorities))


def write_chromium_policy(folder: Path, authorities: Iterable[Path]) -> None:
    """Make Chromium trust these authorities, through its folder of administrator's policies.

    See the policy ``CACertificates`` (Chromium 128 and later). ``DnsOverHttpsMode`` is left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    certificates = [ssl.PEM_cert_to_DER_cert(authority.read_text()) for authority in authorities]
    policy = {"CACertificates": [base64.b64encode(der).decode() for der in certificates]}
    (folder / "urlward-lab.json").write_text(json.dumps(policy))


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
        UrlwardError: it is not, in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise UrlwardError(f"lab: waited {seconds:g} s for {what}")
        time.sleep(0.02)


def start_origins(folder: Path, logs: Path, certificates: LabCertificates, ipv6: bool) -> LabService:
    """Start nginx for all hosts.

    Raises:
        UrlwardError: it does not start.
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
    with suppress(UrlwardError):
        # It says so on standard error.
        return "http_v3_module" in run(["sh", "-c", f"{find('nginx')} -V 2>&1"])
    return False


def _sparse(path: Path, size: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


class LabResolver:
    """Network's resolver, which can be made to fail in each of the ways that resolvers fail.

    Args:
        folder, logs: for its files.
        sites: all hosts.
        ipv6: whether the lab has IPv6.
        agent: that asks it whether it answers.
        addresses: its own.

    Raises:
        UrlwardError: a record cannot be written, or dnsmasq does not start.
    """

    def __init__(
        self,
        folder: Path,
        logs: Path,
        sites: list[Site],
        ipv6: bool,
        agent: AgentLink,
        addresses: Sequence[str],
    ) -> None:
        self._folder = folder
        self._logs = logs
        self._agent = agent
        self._records = [_records(site, ipv6) for site in sites]
        self._addresses = [a for a in addresses if ipv6 or ":" not in a]
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
        command = module_command("urlward.lab.agent", str(seconds), *self._addresses)
        front = LabService("slow resolver", RESOLVER.name, command, self._logs / "slow-dns.log")
        self._running = [front, behind]
        self._wait(front, seconds)

    def _dnsmasq(self, port: int, addresses: list[str]) -> LabService:
        path = self._folder / f"dnsmasq-{self._addresses[0]}.conf"
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
            raise UrlwardError(f"hosts.{site.name}.https: cannot be read: {e}") from e
        https = (record.to_wire() or b"").hex()
    return {
        "name": site.name, "place": site.place, "host": site.host, "addresses": addresses, "https": https,
    }  # fmt: skip
