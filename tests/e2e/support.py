"""Origins, clients and a running filter for tests with real sockets; loopback only."""

import atexit
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.client import HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mitmproxy.certs import CertStore

from conftest import free_port, listening, wait_for
from e2e.forks import Forked, forks
from nginx_log import AccessLog, nginx_in
from urlward.process import best_allocator

HERE = Path(__file__).parent
_COMMAND = (sys.executable, "-m", "urlward")
TIMEOUT = 60.0
"""Seconds without an answer after which there is none."""

ENDS_WITHIN = 60.0
"""Seconds that a process has to end: a filter takes some of them for what is under way."""

LIST = """\
# Reserved names and addresses only.
blocked.example                           id=E-1 category=phishing
http://paged.example/listed.html          id=E-2 category=csam
http://paged.example/dir/*                id=E-3 category=csam
http://paged.example/view?topic=q31337q     id=E-4
*/gallery/do-not-visit/*                  id=E-5 category=csam
127.0.0.9                                 id=E-6 category=malware
http://panel.example/login port=8443      id=E-7
"""
SECRETS = (
    "blocked.example",
    "paged.example",
    "listed.html",
    "q31337q",
    "do-not-visit",
    "127.0.0.9",
    "panel.example",
)
"""What no log line may contain: listed hosts, paths and addresses."""


RECORDS = """\
[records]
node = "gw1"
[records.days]
blocks = 30
operations = 365
[admin]
listen = "127.0.0.1:{admin}"
"""
"""The end of a configuration: what is recorded, and where that is shown."""

NGINX_HEAD = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""
"""How the configuration of an nginx in a folder of its own begins; its servers, and a brace, follow."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority for origins, made for one test run."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "origin-ca.pem"

    def client_context(self, *more: Path, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """Trusts the origins' authority, and others given."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        for path in more:
            context.load_verify_locations(cafile=str(path))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


def make_authority(folder: Path, names: Sequence[str]) -> Authority:
    """An authority, and a leaf certificate of it for all names, in a folder."""
    now = datetime.now(UTC)

    def build(subject: str, issuer: str, public: Any, signer: Any, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=7))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
        )
        if ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        else:
            general: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
            general.append(x509.IPAddress(ip_address("127.0.0.1")))
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        return builder.sign(signer, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = build("Test origin CA", "Test origin CA", ca_key.public_key(), ca_key, True)
    leaf = build("origin", "Test origin CA", key.public_key(), ca_key, False)
    (folder / "origin-ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "origin.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (folder / "origin.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Authority(folder)


_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
http {{
    log_format seen escape=json
        '{{"port":"$server_port","method":"$request_method","host":"$http_host","uri":"$request_uri","protocol":"$server_protocol","status":"$status","length":"$request_length","connection":"$connection"}}';
    access_log {folder}/access.log seen;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    keepalive_requests 100000;
    default_type text/plain;
    ssl_certificate {folder}/origin.pem;
    ssl_certificate_key {folder}/origin.key;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        location / {{ return 200 "origin\\n"; }}
        location /big {{ root {folder}; }}
        location /part {{ root {folder}; }}
        location /slow {{ root {folder}; limit_rate 256k; }}
        location /upload {{ dav_methods PUT; root {folder}; create_full_put_path on; }}
    }}
    server {{
        listen 127.0.0.1:{h2} ssl;
        http2 on;
        location / {{ return 200 "origin\\n"; }}
        location /big {{ root {folder}; }}
        location /part {{ root {folder}; }}
        location /upload {{ dav_methods PUT; root {folder}; create_full_put_path on; }}
    }}
}}
"""


@dataclass
class Nginx:
    """An origin that writes down every request that reaches it."""

    folder: Path
    http: int
    https: int
    h2: int
    log: AccessLog

    def requests(self, expected: int = 0) -> list[dict[str, str]]:
        """What has been served since this was last asked; `expected` as for `AccessLog.new`."""
        return [json.loads(line) for line in self.log.new(expected)]


@contextmanager
def nginx(folder: Path) -> Iterator[Nginx]:
    """Run nginx over the certificates in a folder."""
    http, https, h2 = free_port(), free_port(), free_port()
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, http=http, https=https, h2=h2))
    (folder / "upload").mkdir()
    with (folder / "big").open("wb") as file:
        file.truncate(50 << 20)
    for name in ("slow", "part"):
        with (folder / name).open("wb") as file:
            file.truncate(1 << 20)
    with nginx_in(folder, (http, https, h2)):
        yield Nginx(folder, http, https, h2, AccessLog(folder / "access.log", http))


class RawOrigin:
    """An origin of a few lines: counts connections, keeps what it is sent, answers with a function.

    Args:
        serve: called with the socket in a thread of its own for each connection.
    """

    def __init__(self, serve: Callable[[socket.socket], None] | None = None, host: str = "127.0.0.1") -> None:
        self._serve = serve or answer_anything
        self.connections = 0
        self.received = bytearray()
        self._listener = listening(host)
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT)
        with suppress(OSError), connection:
            self._serve(_Recording(connection, self.received))  # type: ignore[arg-type]

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends the thread that waits on it
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.close()

    def __enter__(self) -> "RawOrigin":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Recording:
    def __init__(self, connection: socket.socket, received: bytearray) -> None:
        self._connection = connection
        self._received = received

    def recv(self, size: int) -> bytes:
        data = self._connection.recv(size)
        if len(self._received) < 1 << 20:
            self._received += data
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def answer_anything(connection: socket.socket) -> None:
    """Answer each segment that ends a request head."""
    buffer = b""
    while data := connection.recv(65536):
        buffer += data
        while b"\r\n\r\n" in buffer:
            buffer = buffer.partition(b"\r\n\r\n")[2]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\norigin\n")


def has_ended(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def children_of(pid: int) -> list[int]:
    """Process ids of what any of its threads has started."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has ended meanwhile
            found += map(int, path.read_text().split())
    return found


def command_of(pid: int) -> str:
    """Command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def files_in(folder: Path) -> dict[Path, bytes]:
    """Files of a folder in which others write, without those that go meanwhile."""
    found: dict[Path, bytes] = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                found[path] = path.read_bytes()
    return found


def resident_memory(pid: int) -> int:
    """Resident bytes of a process, without those of files: of its own program it reads more as it runs."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", text, re.M)
    assert len(found) == 2
    return sum(map(int, found)) << 10


@dataclass
class Filter:
    """``urlward run`` (or a mitmproxy tool) as a subprocess."""

    process: "subprocess.Popen[bytes] | Forked"
    folder: Path
    ports: list[int] = field(default_factory=list)
    secrets: tuple[str, ...] = SECRETS

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def ca(self) -> Path:
        """The authority that its own certificates are of."""
        return self.folder / "confdir" / "mitmproxy-ca-cert.pem"

    @property
    def list_file(self) -> Path:
        return self.folder / "list.txt"

    def log(self) -> str:
        """Everything it has printed."""
        return "".join(
            path.read_text(errors="replace")
            for path in (self.folder / "stdout", self.folder / "stderr")
            if path.exists()
        )

    def blocks(self, word: str = "block") -> list[dict[str, str]]:
        """The block lines so far, or others of that form, each as its fields."""
        found = []
        for line in self.log().splitlines(keepends=True):
            # One without its end is still being written.
            match = re.fullmatch(rf"(\S+) {word} ((?:\w+=\S+ ?)+)\n", line)
            if match:
                found.append({"time": match[1], **dict(part.split("=", 1) for part in match[2].split())})
        return found

    def blocks_from_here(self, word: str = "block") -> Callable[[], list[dict[str, str]]]:
        """What gives those that have come since this was called.

        Of a filter that other tests have used, too: a client before may have had the same address and port.
        """
        before = len(self.blocks(word))
        return lambda: self.blocks(word)[before:]

    @property
    def worker(self) -> int:
        """Process id of the worker that was started first; of the filter where it is another program's."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return min(map(int, path.read_text().split()), default=self.process.pid)

    def memory(self) -> int:
        return resident_memory(self.worker)

    def check_log(self) -> None:
        """No log line names what is listed, and nothing of ours or mitmproxy's broke."""
        log = self.log()
        for secret in self.secrets:
            assert secret not in log, f"{secret} is in the log"
        for bad in ("Traceback", "crashed", "Unhandled", "RuntimeWarning"):
            assert bad not in log, log

    def end(self) -> None:
        """SIGTERM twice: asked again, it does not wait for what is under way, nor whether something is."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
        self.stop()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def environment(**more: str) -> dict[str, str]:
    """For a filter under test: reserved names resolve on loopback."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE / "names"), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        **more,
    }


@cache
def filters_authority() -> Path:
    """A CA as filters make it at their first start: each would take half a second of a core for its key."""
    folder = Path(tempfile.mkdtemp(prefix="urlward-ca-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    CertStore.create_store(folder, "mitmproxy", 2048)
    return folder


@contextmanager
def running(
    folder: Path,
    *arguments: str,
    text: str = LIST,
    modes: Sequence[str] = ("regular",),
    command: Sequence[str] = _COMMAND,
    prefix: Sequence[str] = (),
    check: bool = True,
    shares_ca: bool = True,
    forked: bool = True,
    before: str = "",
    namespace: str = "",
    executes: bool = False,
    **more: str,
) -> Iterator[Filter]:
    """Run ``urlward run`` over a list, once in each mode.

    Args:
        shares_ca: whether its CA is that of other tests' filters; else it makes one.
        forked: whether it may be made by a fork, where nothing else is asked (`forks`).
        before: Python that is run first, in one that is made by a fork.
        namespace: name of a network namespace for it, made by a fork.
        executes: whether the processes beside its workers are no forks, for tests of these and of memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list.txt").write_text(text)
    if shares_ca and not (folder / "confdir").exists():
        shutil.copytree(filters_authority(), folder / "confdir")
    line = [
        *prefix,
        *command,
        "run",
        "--list",
        str(folder / "list.txt"),
        "--confdir",
        str(folder / "confdir"),
    ]
    for mode in modes:
        line += ["--mode", f"{mode}@127.0.0.1:{free_port()}" if "@" not in mode else mode]
    line += arguments
    process: subprocess.Popen[bytes] | Forked
    out, err = folder / "stdout", folder / "stderr"
    if forked and not prefix and not more and tuple(command) == _COMMAND:
        process = _forked(line[len(_COMMAND) :], out, err, before, namespace, executes)
    else:
        assert not before
        assert not namespace
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                line, stdout=out_file, stderr=err_file, stdin=subprocess.DEVNULL, env=environment(**more)
            )
    proxy = Filter(process, folder)
    try:

        def ready() -> bool:
            assert process.poll() is None, proxy.log()
            return len(re.findall(r"listening on .*\n", proxy.log())) >= len(modes)

        wait_for(ready, "the filter to listen", 180.0)
        proxy.ports = [int(p) for p in re.findall(r"listening on \S+:(\d+) ", proxy.log())]
        yield proxy
        if check:
            proxy.check_log()
    finally:
        proxy.end()


def _forked(
    arguments: Sequence[str],
    out: Path,
    err: Path,
    before: str = "",
    namespace: str = "",
    executes: bool = False,
) -> Forked:
    begun = environment(PYTHONMALLOC=best_allocator())
    return forks(begun).start(arguments, out, err, begun, before, namespace, executes)


def urlward(
    *arguments: str | Path, before: str = "", namespace: str = "", within: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, made by a fork; some Python may go before it.

    Args:
        namespace: name of a network namespace to run it in; this one where empty.
        within: seconds that it has.
    """
    with tempfile.TemporaryDirectory(prefix="urlward-command-") as folder:
        out, err = Path(folder) / "stdout", Path(folder) / "stderr"
        process = _forked([str(argument) for argument in arguments], out, err, before, namespace)
        try:
            code = process.wait(within)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


# -- clients


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes
    reason: str = ""

    @property
    def reference(self) -> str:
        match = re.search(rb"[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}", self.body)
        return match[0].decode() if match else ""


def connect(port: int, host: str = "127.0.0.1", timeout: float = TIMEOUT) -> socket.socket:
    s = socket.create_connection((host, port), timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read_response(s: socket.socket, method: str = "GET") -> Response:
    """Read one response and nothing behind it (unbuffered, so keep-alive and pipelining work)."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = s.recv(1)
        if not data:
            raise ConnectionError(f"closed in the head: {head!r}")
        head += data

    class Rest:
        def __init__(self) -> None:
            self.left = head

        def makefile(self, *_: object) -> "Rest":
            return self

        def readline(self, limit: int = -1) -> bytes:
            if self.left:
                line, newline, self.left = self.left.partition(b"\n")
                return line + newline
            line = b""
            while not line.endswith(b"\n"):
                c = s.recv(1)
                if not c:
                    break
                line += c
            return line

        def read(self, size: int = -1) -> bytes:
            parts, got = [], 0
            while size < 0 or got < size:
                data = s.recv(65536 if size < 0 else min(65536, size - got))
                if not data:
                    break
                parts.append(data)
                got += len(data)
            return b"".join(parts)

        def readinto(self, buffer: memoryview) -> int:
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    response = HTTPResponse(Rest(), method=method)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Response(response.status, headers, body, response.reason)


def ask(port: int, request: bytes | str, method: str = "GET") -> Response:
    """One request on a connection of its own."""
    with connect(port) as s:
        s.sendall(request.encode() if isinstance(request, str) else request)
        return read_response(s, method)


def get(port: int, url: str, host: str | None = None) -> Response:
    """GET through an explicit proxy."""
    name = host if host is not None else url.split("/")[2]
    return ask(port, f"GET {url} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")


def status_of(port: int, url: str) -> int:
    """The status that a GET has; 0 where it is cut, as what is under way is that comes to be listed."""
    try:
        return get(port, url).status
    except ConnectionError:
        return 0


def tunnel(port: int, authority: str) -> socket.socket:
    """CONNECT through an explicit proxy; the open tunnel."""
    s = connect(port)
    open_tunnel(s, authority)
    return s


def open_tunnel(s: socket.socket, authority: str) -> None:
    """CONNECT on a connection to an explicit proxy."""
    s.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = s.recv(1)
        if not data:
            break
        head += data
    assert head.startswith(b"HTTP/1.1 200"), head


def socks(port: int, host: str, target: int) -> socket.socket:
    """SOCKS5 without authentication, by name or IPv4 address."""
    s = connect(port)
    open_socks(s, host, target)
    return s


def open_socks(s: socket.socket, host: str, target: int) -> None:
    """The same on a connection to the proxy."""
    s.sendall(b"\x05\x01\x00")
    assert receive(s, 2) == b"\x05\x00"
    try:
        destination = b"\x01" + socket.inet_aton(host)
    except OSError:
        destination = b"\x03" + bytes([len(host)]) + host.encode()
    s.sendall(b"\x05\x01\x00" + destination + target.to_bytes(2, "big"))
    assert receive(s, 10)[:2] == b"\x05\x00"


def receive(s: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = s.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def read_to_end(s: socket.socket) -> bytes:
    """All that comes until the peer closes; a reset counts as an end."""
    data = b""
    with suppress(ConnectionError, ssl.SSLError):
        while more := s.recv(65536):
            data += more
    return data


def send_to_the_end(s: socket.socket, *pieces: bytes) -> None:
    """Sends the pieces and half-closes; a peer that has had enough may reset the connection at any of it."""
    with suppress(OSError):
        for piece in pieces:
            s.sendall(piece)
        s.shutdown(socket.SHUT_WR)


def issuer(s: ssl.SSLSocket) -> str:
    """Common name of the authority that a connection's certificate is of."""
    certificate = s.getpeercert()
    assert certificate is not None
    for rdn in certificate["issuer"]:  # type: ignore[union-attr]
        for name, value in rdn:  # type: ignore[misc]
            if name == "commonName":
                return str(value)
    return ""


def client_hello(name: str | None) -> bytes:
    """A ClientHello for a name, as OpenSSL writes it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it reads no authorities
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def settle(seconds: float = 0.3) -> None:
    """Give what must not happen the time in which it would."""
    time.sleep(seconds)
