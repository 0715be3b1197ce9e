"""The origin: one nginx with one certificate for all names."""

import os
import re
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.proxy.material import BLOCKED_ZONE, DOWNLOAD, PAGE_FOLDER
from benchmarks.proxy.plan import LOAD_CORE
from benchmarks.proxy.processes import running
from benchmarks.proxy.site import LOAD_NETWORK, ORIGIN
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BODY = "<!doctype html><title>origin</title><p>" + "content " * 120
"""One kilobyte of page."""
STRAIGHT = (81, 444)
"""Ports for the load that has no proxy in between; at all others it is refused."""
_STATUS_PORT = 8099

_CONFIGURATION = """\
daemon off; master_process off; user root;
pid {folder}/nginx.pid; error_log {folder}/nginx.error.log;
events {{ worker_connections 9000; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  large_client_header_buffers 4 16k; http2 on; http2_max_concurrent_streams 1000;
  ssl_certificate {folder}/origin.pem; ssl_certificate_key {folder}/origin.key;
  ssl_session_cache shared:tls:10m;
  map "$host$uri" $listed {{ default 0; "~\\.{zone}/" 1; "~\\.inspected\\.test{pages}" 1; }}
  log_format missed "$host";
  map $remote_addr $bypass {{ default 0; "~^{load}" 1; }}
  server {{
    listen {origin}:80 backlog=4096; listen {origin}:443 ssl backlog=4096;
    if ($bypass) {{ return 421; }}
    access_log {folder}/missed.log missed if=$listed;
    location / {{ default_type text/html; return 200 "{body}"; }}
    location = {download} {{ root {folder}; default_type application/octet-stream; }}
  }}
  server {{
    listen 127.0.0.1:{straight[0]} backlog=4096; listen 127.0.0.1:{straight[1]} ssl backlog=4096;
    location / {{ default_type text/html; return 200 "{body}"; }}
    location = {download} {{ root {folder}; default_type application/octet-stream; }}
  }}
  server {{ listen 127.0.0.1:{status_port}; location / {{ stub_status; }} }}
}}
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """A running origin.

    Attributes:
        folder: where its files are.
    """

    folder: Path

    @property
    def authority(self) -> Path:
        """The certificate that its own is signed by."""
        return self.folder / "origin-ca.pem"

    def requests(self) -> int:
        """How many requests have come until now, those for this number not counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{_STATUS_PORT}/") as answer:
            text = answer.read().decode()
        match = re.search(r"^ (\d+) (\d+) (\d+)", text, re.MULTILINE)
        assert match
        count = _asked.get(self.folder, 0) + 1
        _asked[self.folder] = count
        return int(match[3]) - count

    def missed(self) -> int:
        """How many requests for something listed have come until now."""
        return (self.folder / "missed.log").read_bytes().count(b"\n")


_asked: dict[Path, int] = {}


@contextmanager
def origin(folder: Path, hosts: Iterable[str], download_bytes: int) -> Iterator[Origin]:
    """An origin in the network of this process."""
    folder.mkdir()
    certify(folder, ["localhost", *hosts])
    block = os.urandom(1_000_000)
    with (folder / DOWNLOAD.lstrip("/")).open("wb") as file:
        for at in range(0, download_bytes, len(block)):
            file.write(block[: download_bytes - at])
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder, origin=ORIGIN, body=BODY, status_port=_STATUS_PORT, download=DOWNLOAD,
            zone=BLOCKED_ZONE.replace(".", r"\."), pages=PAGE_FOLDER, straight=STRAIGHT,
            load=LOAD_NETWORK.replace(".", r"\."),
        )
    )  # fmt: skip
    command = ["nginx", "-p", str(folder), "-c", str(configuration)]
    with running(command, str(LOAD_CORE), folder / "nginx.out", [_STATUS_PORT]):
        yield Origin(folder)


def version() -> str:
    text = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return text.strip().rpartition("/")[2]


def certify(folder: Path, names: list[str], authority: str = "origin-ca", leaf: str = "origin") -> None:
    """Write an authority (certificate and key) and a certificate by it for all names.

    Keys are on P-256: the origin is not to spend its core on signing, and Squid is half again as fast
    with such an authority as with one of RSA.
    """
    authority_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"benchmark {authority}")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    signs = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
    top = _builder(issuer, issuer, authority_key, authority_key)
    top = top.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    top = top.add_extension(signs, critical=True)
    bottom = _builder(subject, issuer, leaf_key, authority_key).add_extension(alternative, critical=False)
    for name, builder, key in ((authority, top, authority_key), (leaf, bottom, leaf_key)):
        certificate = builder.sign(authority_key, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, signer: Any) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
