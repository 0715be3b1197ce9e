"""``urlward demo``: the whole filter on one machine, without root or network.

An origin with a listed and unlisted pages, the filter in front of it as a process of its own, and a
client that asks for both, over HTTP and HTTPS. With ``--files`` the origin has a known file, which is an
invented picture, and the list its digest. All names are reserved ones (RFC 6761) and all traffic stays on
127.0.0.1.
"""

import hashlib
import http.client
import io
import ipaddress
import json
import random
import re
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
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

_PIECE, _PAUSE = 16_384, 0.02
"""Bytes that the origin sends at a time, and seconds between two: as over a network."""

_KINDS = {".png": "image/png", ".jpg": "image/jpeg"}
_SIDES = 320, 240
"""Width and height of the invented pictures."""


class _Response(NamedTuple):
    """Response to one of the demo's requests; `size` is of what has arrived of its body, `whole` whether that
    is all of it."""

    status: int
    reference: str
    issuer: str
    size: int = 0
    whole: bool = True


class _WebServer:
    """Web server for the demo's hosts that remembers the requests.

    Args:
        context: of TLS; None without.
        files: bodies by paths; other paths have one and the same.
    """

    def __init__(self, context: ssl.SSLContext | None, files: Mapping[str, bytes] | None = None) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(f"{self.headers['Host']}{self.path}")
                body = (files or {}).get(self.path, b"content of the page\n")
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                if kind := _KINDS.get(Path(self.path).suffix):
                    self.send_header("Content-Type", kind)
                self.end_headers()
                with suppress(OSError):  # the filter has cut it off
                    for begin in range(0, len(body), _PIECE):
                        self.wfile.write(body[begin : begin + _PIECE])
                        time.sleep(_PAUSE)

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
        while not (later := _get_or_cut(http_port, "shop.demo.test", "/added-later")) or later.status == 200:
            if time.monotonic() - changed > WAIT:
                raise UrlwardError("demo: the new entry did not come into force")
            time.sleep(0.05)
        _expect(
            451,
            LATER,
            later,
            f"listed, in force {time.monotonic() - changed:.1f} s after the file was saved",
        )

        _say("What the origin was asked for (nothing that was blocked reached it)")
        for asked in plain.asked[:2] + secure.asked:
            _print(f"      {asked}")
        if any("listed-page" in asked for asked in plain.asked + secure.asked):
            raise UrlwardError("demo: a listed page reached the origin")
    _print(
        f"\nDone in {time.monotonic() - start:.1f} s. Next: `urlward run --list FILE`, and `urlward help`."
    )


def demo_files() -> None:
    """Run the demo of known files and print what happens and why.

    Raises:
        UrlwardError: a step did not do what it should.
    """
    start = time.monotonic()
    known, other = _picture(1), _picture(2)
    alike, digest = _reencoded(known)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="urlward-demo-")))
        _say("An origin with an invented picture, and a list with its digest.")
        files = {"/known.png": known, "/moved.png": known, "/other.png": other, "/smaller.jpg": alike}
        origin = _WebServer(None, {path: body for path, body in files.items() if body})
        stack.callback(origin.close)
        lines = [f"sha256:{hashlib.sha256(known).hexdigest()} id=DEMO-1 category=demo"]
        lines += [f"pdq:{digest} id=DEMO-2 category=demo"] * bool(digest)
        (folder / "demo.txt").write_text("\n".join(lines) + "\n")
        port = free_port()
        config = folder / "urlward.toml"
        config.write_text(
            f'state = "state"\nlist = ["demo.txt"]\nmode = ["reverse:http://127.0.0.1:{origin.port}@127.0.0.1:'
            f'{port}"]\n\n[files]\naction = "cut"\npictures = "{"learn" if digest else "off"}"\n\n[records]\n'
            "[records.days]\nblocks = 1\noperations = 1\n"
        )
        for line in (*lines, "", *config.read_text().splitlines()):
            _print(f"      {line}")

        _say("The filter in front of it.")
        stack.enter_context(filtering(f"--config={config}", f"--confdir={folder / 'ca'}"))

        def ask(path: str) -> _Response:
            return get(port, HOSTS[0], path)

        _say("A picture that no list knows, and one that one does")
        _expect_file(ask("/other.png"), "/other.png", other, "no list has its digest")
        _expect_cut(ask("/known.png"), "/known.png", known)

        _say("The same again: its URL was learned, so that the origin is not asked")
        _expect_learned(origin, ask, "/known.png")

        _say("The same bytes under another name, as when a page has moved")
        _expect_cut(ask("/moved.png"), "/moved.png", known)

        _say("The same picture, half as large, as JPEG: its bytes are others, it looks the same")
        if digest:
            _expect_file(ask("/smaller.jpg"), "/smaller.jpg", alike, "compared beside the traffic (PDQ)")
            _expect_learned(origin, ask, "/smaller.jpg")
        else:
            _print("      left out: it needs the extra `files`: `urlward help install`")

        _show_known(config, folder, {"DEMO-1", "DEMO-2"} if digest else {"DEMO-1"})
    _print(f"\nDone in {time.monotonic() - start:.1f} s. Next: `urlward help files`.")


def _show_known(config: Path, folder: Path, entries: set[str]) -> None:
    """Show what is recorded of the known files, what was learned, and a report."""
    _say("What is recorded: neither the file nor its URL")
    events: list[dict[str, Any]] = []
    newest: dict[str, dict[str, Any]] = {}
    end = time.monotonic() + WAIT
    while not entries <= newest.keys():
        if time.monotonic() > end:
            raise UrlwardError("demo: the known files are not recorded")
        time.sleep(0.1)
        said = _urlward("events", "--kind", "file", "--json", "--config", str(config)).stdout
        events = [json.loads(line) for line in said.splitlines()]
        newest = {event["entry"]: event for event in events[::-1]}
    _print(f"      {len(events)} events of kind file; the newest of each entry:")
    for event in newest.values():
        detail = event["detail"]
        far = f", distance {detail['distance']} of 256" if "distance" in detail else ""
        _print(
            f"      {event['reference']}  list {event['list']}, entry {event['entry']}, "
            f"{detail['algorithm']}{far}: {detail['action']}"
        )

    _say("What was learned: own entries, which you may remove")
    for line in _urlward("own", "list", "--config", str(config)).stdout.splitlines():
        _print(f"      {line}")

    _say("A report for a hotline: what the records have of one event, and no client")
    reference = events[-1]["reference"]
    done = _urlward(
        "report",
        "file",
        reference,
        "-o",
        str(folder / "report"),
        "--why",
        "the demo",
        "--config",
        str(config),
    )
    if done.returncode:
        raise UrlwardError(f"demo: {done.stderr.strip()}")
    found = json.loads((folder / "report/report.json").read_text())["data"]["events"][0]
    _print(f'      urlward report file {reference} -o report --why "the demo"')
    _print(f"      wrote report.html for people and report.json for programs; of {len(found)} facts in them:")
    for name in ("time", "list", "entry", "destination", "detail"):
        value = found[name]
        text = ", ".join(f"{key} {each}" for key, each in value.items()) if name == "detail" else value
        _print(f"      {name:12} {text}")


def _expect_file(answer: _Response, path: str, body: bytes, why: str) -> None:
    _show(answer, path, f"{answer.size} of {len(body)} bytes: {why}")
    if answer.status != 200 or answer.size != len(body):
        raise UrlwardError(f"demo: {path} did not pass")


def _expect_cut(answer: _Response, path: str, body: bytes) -> None:
    is_page = answer.status == 451  # nothing of it had left when all had come
    what = "the block page in its place" if is_page else f"{answer.size} of {len(body)} bytes"
    _show(answer, path, f"{what}: entry DEMO-1 has its SHA-256")
    if not is_page and (answer.whole or answer.size >= len(body)):
        raise UrlwardError(f"demo: {path} was not cut")


def _expect_learned(origin: _WebServer, ask: Callable[[str], _Response], path: str) -> None:
    begun = time.monotonic()
    while True:
        before = len(origin.asked)
        answer = ask(path)
        if answer.status == 451 and len(origin.asked) == before:
            break
        if time.monotonic() - begun > WAIT:
            raise UrlwardError(f"demo: {path} was not learned")
        time.sleep(1)
    _show(answer, path, f"an own entry, {time.monotonic() - begun:.1f} s later; reference {answer.reference}")


def _show(answer: _Response, path: str, why: str) -> None:
    shown = "blocked" if answer.status == 451 else "passed" if answer.whole else "cut"
    _print(f"      {f'{shown} ({answer.status})':14} http://{HOSTS[0]}{path}\n{'':21}{why}")


def _picture(seed: int) -> bytes:
    """An invented picture: discs on a slope, with some noise; as PNG."""
    width, height = _SIDES
    chance = random.Random(seed)
    discs = [
        (
            chance.randrange(width),
            chance.randrange(height),
            chance.randrange(15, 70) ** 2,
            chance.randrange(256),
        )
        for _ in range(25)
    ]
    rows = bytearray()
    for y in range(height):
        rows.append(0)  # no filter (PNG specification, third edition, section 9)
        for x in range(width):
            light = x * 255 // width
            for left, top, radius, shade in discs:
                if (x - left) ** 2 + (y - top) ** 2 < radius:
                    light = shade
            rows.append(min(255, light + chance.randrange(8)))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _reencoded(picture: bytes) -> tuple[bytes, str]:
    """A picture at half the size as JPEG, and its PDQ digest; empty without the extra ``files``."""
    try:
        from PIL import Image
        from threatexchange.signal_type.pdq.signal import PdqSignal
    except ImportError:
        return b"", ""
    made = io.BytesIO()
    width, height = _SIDES
    Image.open(io.BytesIO(picture)).resize((width // 2, height // 2)).save(made, "JPEG", quality=60)
    return made.getvalue(), PdqSignal.hash_from_bytes(picture)


def _show_artifact(folder: Path, source: Path) -> None:
    artifact = folder / "demo.ward"
    done = _urlward("compile", str(source), "-o", str(artifact))
    if done.returncode:
        raise UrlwardError(f"demo: {done.stderr.strip()}")
    readable = [word for word in (b"news", b"demo.test", b"listed") if word in artifact.read_bytes()]
    if readable:
        raise UrlwardError("demo: the artifact holds an entry in plain text")
    _print(f"      compiled: {artifact.stat().st_size} bytes, and no word of the entry can be read in them")


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
            _print(f"      | {line.rstrip()}")
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
        body = b""
        with suppress(OSError):  # cut off
            while piece := response.read1():
                body += piece
        found = re.search(rb"Reference: ([0-9A-Z-]+)", body)
        reference, whole = found[1].decode() if found else "", not response.length
        return _Response(response.status, reference, issuer, len(body), whole)


def _get_or_cut(port: int, host: str, target: str) -> _Response | None:
    """Ask a filter for a page; None where a list that came into force meanwhile has cut the answer off."""
    with suppress(ConnectionError):  # which RemoteDisconnected is, too
        return get(port, host, target)
    return None


def _expect(status: int, url: str, answer: _Response, why: str) -> None:
    shown = f"{'blocked' if answer.status == 451 else 'passed'} ({answer.status})"
    why += f", reference {answer.reference}" if answer.reference else ""
    _print(f"      {shown:14} {url}\n{'':21}{why}")
    if answer.status != status:
        raise UrlwardError(f"demo: {url} gave {answer.status}, not {status}")


def _print(text: str) -> None:
    """Print in one piece, since the filter's lines come meanwhile."""
    print(f"{text}\n", end="", flush=True)


def _say(what: str) -> None:
    _print(f"\n  ==> {what}")


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
