"""Single requests that look closely: status, place to go on to, and whose certificate it was."""

import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

from benchmarks.proxy.sessions import open_tunnel
from benchmarks.proxy.site import EXPLICIT, MARK, ORIGIN
from cryptography import x509
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        status: of HTTP.
        size: of the body.
        location: where a redirect leads.
        issuer: common name of the authority that signed the certificate; empty without TLS.
    """

    status: int
    size: int
    location: str
    issuer: str


def ask(host: str, target: str, trusted: Path | None = None, *, explicit: bool = False) -> Answer:
    """One request on a connection of its own; over TLS where something is trusted.

    Args:
        explicit: ask an explicit proxy, by CONNECT where it is over TLS.

    Raises:
        OSError: no connection, no tunnel, no answer, or a certificate that is not trusted.
    """
    with socket.socket() as plain:
        plain.settimeout(10)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        plain.connect(EXPLICIT if explicit else (ORIGIN, 443 if trusted else 80))
        if trusted is None:
            return _exchange(plain, host, f"http://{host}{target}" if explicit else target, "")
        if explicit:
            open_tunnel(plain, host, 443)
        context = ssl.create_default_context(cafile=str(trusted))
        # Some make certificates that lack what RFC 5280 asks of them.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        with context.wrap_socket(plain, server_hostname=host) as tls:
            certificate = tls.getpeercert(binary_form=True)
            assert certificate
            issuer = x509.load_der_x509_certificate(certificate).issuer
            name = issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            return _exchange(tls, host, target, str(name))


def _exchange(s: socket.socket, host: str, target: str, issuer: str) -> Answer:
    s.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    with HTTPResponse(s) as response:
        response.begin()
        size = len(response.read())
        return Answer(response.status, size, response.getheader("Location") or "", issuer)
