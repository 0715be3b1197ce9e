"""``urlward demo``: the whole filter on one machine, without root or network.

An origin with a listed and unlisted pages, the filter in front of it as a process of its own, and a
client that asks for both, over HTTP and HTTPS. All names are reserved ones (RFC 6761) and all
traffic stays on 127.0.0.1.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from urlward.engine.errors import UrlwardError
from urlward.process import module_command

HOSTS = ("news.demo.test", "shop.demo.test")
LISTED = "http://news.demo.test/listed-page.html"
LATER = "http://shop.demo.test/added-later"
WAIT = 60.0


class _Response(NamedTuple):
    """Response to one of the demo's requests."""

    status: int
    reference: str
    issuer: str


class _WebServer:
    """Web server for the demo's hosts that remembers the requests."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(f"{self.headers['Host']}{self.path}")
                body = b"content of the page\n"
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def demo() -> None:
    """Run the demo and print what happens and why.

    Raises:
        UrlwardError: a step did not do what it should.
    """
    start = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="urlward-demo-")))
        _say("An origin with two sites, on HTTP and HTTPS, and a list with one page of the first.")
        ca, context = _authority(folder)
        plain, secure = _WebServer(None), _WebServer(context)
        stack.callback(plain.close)
        stack.callback(secure.close)
        source = folder / "demo.txt"
        source.write_text(f"{LISTED} id=DEMO-1 category=phishing\n")
        _show_artifact(folder, source)

        http_port, https_port = free_port(), free_port()
        _say("The filter in front of it (reverse mode; transparent, regular and socks5 do the same).")
        stack.enter_context(
            filtering(
                f"--list={source}",
                f"--confdir={folder / 'ca'}",
                f"--mode=reverse:http://127.0.0.1:{plain.port}@127.0.0.1:{http_port}",
                f"--mode=reverse:https://127.0.0.1:{secure.port}@127.0.0.1:{https_port}",
                f"--set=ssl_verify_upstream_trusted_ca={ca}",
                servers=2,
            )
        )

        _say("HTTP")
        _expect(200, "http://news.demo.test/", get(http_port, "news.demo.test", "/"), "not listed")
        _expect(451, LISTED, get(http_port, "news.demo.test", "/listed-page.html"), "listed, entry DEMO-1")
        odd = "/%6cisted-page.html?x=1"
        answer = get(http_port, "www.NEWS.demo.test", odd)
        _expect(451, f"http://www.NEWS.demo.test{odd}", answer, "the same page, spelt otherwise")

        _say("HTTPS")
        answer = get(https_port, "shop.demo.test", "/", tls=True)
        _expect(
            200,
            "https://shop.demo.test/",
            answer,
            f"no entry on this host: not decrypted, certificate by {answer.issuer}",
        )
        answer = get(https_port, "news.demo.test", "/listed-page.html", tls=True)
        _expect(
            451,
            "https://news.demo.test/listed-page.html",
            answer,
            f"listed: decrypted, certificate by {answer.issuer}",
        )
        answer = get(https_port, "news.demo.test", "/", tls=True)
        _expect(200, "https://news.demo.test/", answer, "same host, another page")

        _say("A new entry, while the filter runs")
        _expect(200, LATER, get(http_port, "shop.demo.test", "/added-later"), "not listed yet")
        with source.open("a") as file:
            file.write(f"{LATER} id=DEMO-2\n")
        changed = time.monotonic()
        while (answer := get(http_port, "shop.demo.test", "/added-later")).status == 200:
            if time.monotonic() - changed > WAIT:
                raise UrlwardError("demo: the new entry did not come into force")
            time.sleep(0.05)
        _expect(
            451,
            LATER,
            answer,
            f"listed, in force {time.monotonic() - changed:.1f} s after the file was saved",
        )

        _say("What the origin was asked for (nothing that was blocked reached it)")
        for asked in plain.asked[:2] + secure.asked:
            print(f"      {asked}")
        if any("listed-page" in asked for asked in plain.asked + secure.asked):
            raise UrlwardError("demo: a listed page reached the origin")
    print(f"\nDone in {time.monotonic() - start:.1f} s. Next: `urlward run --list FILE`, and `urlward help`.")


def _show_artifact(folder: Path, source: Path) -> None:
    artifact = folder / "demo.ward"
    done = _urlward("compile", str(source), "-o", str(artifact))
    if done.returncode:
        raise UrlwardError(f"demo: {done.stderr.strip()}")
    readable = [word for word in (b"news", b"demo.test", b"listed") if word in artifact.read_bytes()]
    if readable:
        raise UrlwardError("demo: the artifact holds an entry in plain text")
    print(f"      compiled: {artifact.stat().st_size} bytes, and no word of the entry can be read in them")


@contextmanager
def filtering(*arguments: str, servers: int = 1) -> Iterator[None]:
    """Run a filter, and show what it says.

    Args:
        arguments: of ``urlward run``.
        servers: that it has, until all of which listen is waited.

    Raises:
        UrlwardError: it does not start.
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
        module_command("urlward", "run", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ready = threading.Event()

    def show() -> None:
        assert process.stdout is not None
        waiting = servers
        for line in process.stdout:
            waiting -= "listening on" in line
            print(f"      | {line.rstrip()}", flush=True)
            if not waiting:
                ready.set()

    reader = threading.Thread(target=show, daemon=True)
    reader.start()
    try:
        end = time.monotonic() + WAIT
        while not ready.wait(0.1):
            if process.poll() is not None or time.monotonic() > end:
                raise UrlwardError("the filter did not start: see what it has said above")
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
        reader.join(5)


def get(port: int, host: str, target: str, *, tls: bool = False) -> _Response:
    """Ask a filter for a page."""
    with socket.create_connection(("127.0.0.1", port), WAIT) as raw:
        issuer = ""
        connection: socket.socket = raw
        if tls:
            # The client shows whose certificate it is given, so it takes any.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            wrapped = context.wrap_socket(raw, server_hostname=host)
            der = wrapped.getpeercert(binary_form=True)
            assert der is not None
            name = x509.load_der_x509_certificate(der).issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
            issuer = "the origin" if name and name[0].value == "demo origin" else "the filter"
            connection = wrapped
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        found = re.search(r"Reference: (\S+)", response.read().decode())
        return _Response(response.status, found[1] if found else "", issuer)


def _expect(status: int, url: str, answer: _Response, why: str) -> None:
    shown = f"{'blocked' if answer.status == 451 else 'passed'} ({answer.status})"
    why += f", reference {answer.reference}" if answer.reference else ""
    print(f"      {shown:14} {url}\n{'':21}{why}", flush=True)
    if answer.status != status:
        raise UrlwardError(f"demo: {url} gave {answer.status}, not {status}")


def _say(what: str) -> None:
    print(f"\n  ==> {what}", flush=True)


def _urlward(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own interpreter and arguments
        module_command("urlward", *arguments), capture_output=True, text=True, check=False
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def _authority(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for the demo's hosts that is its own authority: its file, and a server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo origin")])
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in HOSTS]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "origin.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context
