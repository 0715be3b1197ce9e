"""TLS of the data path: sessions on memory buffers, leaf certificates, checks of origins' certificates.

The authority, and the options that say what is spoken, are mitmproxy's. Leaf certificates have keys of their
own, of elliptic curves, which cost a handshake a tenth of what RSA does; RSA for clients without them.
"""

import datetime
import ipaddress
import os
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cachetools import LRUCache
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from mitmproxy.options import Options

from urlward.proxy.mitm import tls_version

_READ: Final = 1 << 14
_MOST_AT_ONCE: Final = 1 << 16
"""Bytes that are encrypted at once: OpenSSL's buffers keep the room that they have once needed."""

_LEAVES: Final = 500
"""Hosts whose certificates are kept."""

_SESSIONS: Final = 1000
"""Origins whose sessions are kept to be resumed."""

_CHAIN: Final = 1 << 14
"""Bytes of certificates with which a session is kept, or a connection at rest: OpenSSL needs ten times as
many bytes for them. Servers send 3,000 to 6,000, for very many names 14,000, and may send 100,000."""

_BESIDES: Final = 1 << 12
"""Bytes of a handshake besides certificates with which a connection is kept at rest: of names of authorities
for a client's certificate, which may be 65,000, OpenSSL makes 45 times as many."""

MOST_HELLO: Final = 1 << 13
"""Bytes that a client may send before its handshake goes on. Browsers send 2,000, twice where they are asked
to; of names of authorities, or of OCSP's responders, OpenSSL keeps 45 times as many with the connection."""

MOST_EMPTY: Final = 1 << 16
"""Bytes that may come without any data in them, such as changes of keys: each takes OpenSSL 20 microseconds,
and whoever sends nothing else would have a session for ever, though the other side is gone."""

_HANDSHAKE, _DATA = 22, 23
"""Types of records."""

_SERVER_HELLO: Final = 2
"""Type of that message."""

_LONGEST_NAME: Final = 63
_BEFORE, _AFTER = datetime.timedelta(days=2), datetime.timedelta(days=199)
"""How long before now and after it a certificate is valid (browsers take no more than 200 days)."""

_RENEWED: Final = 86_400.0
"""Seconds for which a certificate is shown. A filter may run for longer than one is valid, and may have begun
under a clock that has been set since, by years where the machine keeps no time of its own."""

_CLIENTS: Final = 100
"""Sessions of clients without tickets that a certificate's context keeps before it is made anew: OpenSSL
keeps 20,480 of each for two hours, and has no bound for all."""

_NO_RX_CERTIFICATE_COMPRESSION: Final = 1 << 33
"""Option of OpenSSL that Python has no name for: certificates come as large as they are."""

_DER: Final = 2
"""`ENCODING_DER` of OpenSSL's side of Python's ssl."""

# OpenSSL's texts for these (x509_vfy.h) have the name in Python's words, which may stand nowhere.
_MISMATCHES = {62: "hostname mismatch", 64: "IP address mismatch"}


def nothing(*_: object) -> None:
    """Do nothing."""


class Tls:
    """TLS session on memory buffers.

    Args:
        context: by which it is.
        server_name: of the origin, where this side is the client.
        resumed: a session with that origin to go on with, if there is one.

    Attributes:
        session: OpenSSL's.
        client_side: whether this side began it.
        damaged: whether what has come cannot be decrypted any more.
        handshake: bytes that have come for the handshake, but for early data.
        empty: bytes that have come behind it since there was data in them.
        incoming: what comes from the socket.
        outgoing: what is to go there.
        outer: the session that this one is inside of, if there is one.
        ready: whether the handshake is done.
        established: called then.
        failed: called where it fails instead.
    """

    __slots__ = (
        "_head", "_is_large", "_left", "_pending", "_read", "_write", "client_side", "damaged", "empty",
        "established", "failed", "handshake", "incoming", "outer", "outgoing", "ready", "session",
    )  # fmt: skip

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        client_side: bool,
        server_name: bytes | None = None,
        resumed: ssl.SSLSession | None = None,
    ) -> None:
        self.client_side = client_side
        self.outer: Tls | None = None
        self._is_large: bool | None = None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ready = self.damaged = False
        self.handshake = self.empty = self._left = 0
        self._head = b""
        self.session = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=not client_side,
            # As bytes it is taken as it is; Python's IDNA 2003 refuses names that are somebody's.
            server_hostname=server_name,
            session=resumed,
        )
        # Its methods without Python's around them.
        inner: Any = self.session._sslobj  # type: ignore[attr-defined]
        self._read, self._write, self._pending = inner.read, inner.write, inner.pending
        self.established: Callable[[], None] = nothing
        self.failed: Callable[[Exception], None] = nothing

    def forget(self) -> None:
        """Drop the callbacks of the handshake."""
        self.established = self.failed = nothing

    def encrypted(self, data: bytes) -> bytes:
        """Ciphertext for the socket, from data to send."""
        if len(data) > _MOST_AT_ONCE:
            starts = range(0, len(data), _MOST_AT_ONCE)
            return b"".join([self.encrypted(data[start : start + _MOST_AT_ONCE]) for start in starts])
        write = self._write
        sent = write(data)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[write(rest) :]
        return self.outgoing.read()

    def decrypted(self) -> tuple[bytes, bool]:
        """Received plaintext, and whether the session has ended."""
        parts = []
        read, incoming = self._read, self.incoming
        ended = False
        try:
            while True:
                part = read(_READ)
                if not part:
                    ended = True
                    break
                parts.append(part)
                if not incoming.pending and not self._pending():
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError:
            # What was whole is passed on; nothing behind it can be.
            self.damaged = True
        return parts[0] if len(parts) == 1 else b"".join(parts), ended

    def shake(self, data: bytes) -> None:
        """Continue the handshake.

        Args:
            data: that has come for it.

        Raises:
            ssl.SSLWantReadError: more has to come.
            ssl.SSLError: it has failed.
            ValueError: so has Python's part in it.
        """
        self.incoming.write(data)
        self.handshake += len(data) if self.client_side else len(data) - self._early(data)
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError as e:
            if self.handshake > MOST_HELLO and not self.client_side:
                raise ssl.SSLError("a ClientHello that is too large") from e
            raise
        self.handshake -= self.incoming.pending
        self.ready = True

    def hello_end(self, data: bytes) -> int:
        """Where the first ServerHello ends that has come, if it is all that its record has; else 0."""
        if self.handshake or len(data) < 9 or (data[0], data[5]) != (_HANDSHAKE, _SERVER_HELLO):
            return 0
        end = 5 + int.from_bytes(data[3:5])
        return end if end == 9 + int.from_bytes(data[6:9]) <= len(data) else 0

    def _early(self, data: bytes) -> int:
        """Bytes of records of data that begin here: a client that had a ticket of the origin's own sends a
        request with its ClientHello, of which OpenSSL skips 16 KiB at most, and keeps nothing."""
        data, at, early = self._head + data, self._left, 0
        while at + 5 <= len(data):
            size = 5 + int.from_bytes(data[at + 3 : at + 5])
            early += size if data[at] == _DATA else 0
            at += size
        self._left, self._head = max(at - len(data), 0), data[at:]
        return early

    @property
    def is_large(self) -> bool:
        """Whether the other side has sent so much in its handshake that this should not be kept."""
        if self._is_large is None:
            inner: Any = self.session._sslobj  # type: ignore[attr-defined] # public from Python 3.13 on
            chain = sum(len(one.public_bytes(_DER)) for one in inner.get_unverified_chain() or ())
            self._is_large = chain > _CHAIN or self.handshake - chain > _BESIDES
        return self._is_large

    def shut_down(self) -> None:
        """Send close_notify (RFC 8446 section 6.1): no more will be sent."""
        with suppress(ssl.SSLError, ValueError, OSError):
            self.session.unwrap()


def reason_of(error: Exception) -> str:
    """Reason why an origin's certificate was refused, without its name; empty for other errors."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return ""
    return _MISMATCHES.get(error.verify_code, error.verify_message)


class Certificates:
    """Factory of server contexts with leaf certificates, for clients.

    Args:
        options: mitmproxy's, of which the settings of clients' sessions are heeded.
        authority: its certificate.
        key: of that.
        chain: PEM with the certificates that clients need besides, or empty.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        options: Options,
        authority: x509.Certificate,
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
        chain: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authority = authority
        self._key = key
        above = x509.load_pem_x509_certificates(chain) if chain else []
        self._chain = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in above)
        self._options = options
        self._ec = ec.generate_private_key(ec.SECP256R1())
        self._clock = clock
        self._contexts: LRUCache[tuple[bool, tuple[str, ...]], tuple[float, ssl.SSLContext]]
        self._contexts = LRUCache(_LEAVES)

    def context(self, *names: str, http2: bool = False) -> ssl.SSLContext:
        """The context for a client that calls its origin by these names or addresses.

        Args:
            names: they.
            http2: whether HTTP/2 is spoken, with those who offer it.

        Raises:
            ValueError: a certificate cannot have such a name.
        """
        now = self._clock()
        # Nobody's certificate has the dot of a full name, and Firefox takes none that has.
        names = tuple(dict.fromkeys(name.rstrip(".") or name for name in names))
        made, context = self._contexts.get((http2, names), (0.0, None))
        if context is None or abs(now - made) >= _RENEWED or context.session_stats()["number"] >= _CLIENTS:
            context = self._make(names, now, http2=http2)
            self._contexts[http2, names] = now, context
        return context

    def _make(self, names: tuple[str, ...], now: float, *, http2: bool) -> ssl.SSLContext:
        options = self._options
        context = _context(
            ssl.PROTOCOL_TLS_SERVER,
            options.tls_version_client_min,
            options.tls_version_client_max,
            options.ciphers_client,
        )
        context.set_alpn_protocols([*(["h2"] if http2 else []), "http/1.1", "http/1.0"])
        # OpenSSL takes the one whose algorithm the client knows. The authority's own key is mitmproxy's way.
        for key in (self._key, self._ec):
            self._load(context, self._leaf(names, key, now), key)
        return context

    def _load(
        self,
        context: ssl.SSLContext,
        leaf: x509.Certificate,
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    ) -> None:
        """Load a certificate through an unnamed file in memory: Python reads them from files alone."""
        pem = leaf.public_bytes(serialization.Encoding.PEM) + self._chain
        pem += key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = os.memfd_create("urlward-leaf", os.MFD_CLOEXEC)
        try:
            os.write(file, pem)
            context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)

    def _leaf(
        self, names: tuple[str, ...], key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, now: float
    ) -> x509.Certificate:
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        common = names[0] if names[0] and len(names[0]) <= _LONGEST_NAME else ""
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
        authority = self._authority
        try:
            ours = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            above = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours)
        except x509.ExtensionNotFound:
            above = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())  # type: ignore[arg-type]
        return (
            x509.CertificateBuilder()
            .issuer_name(authority.subject)
            .subject_name(x509.Name(subject))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - _BEFORE)
            .not_valid_after(moment + _AFTER)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            # RFC 5280 section 4.2.1.6: critical where the subject is empty.
            .add_extension(
                x509.SubjectAlternativeName(list(map(_general_name, names))),
                critical=not common,
            )
            .add_extension(above, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Origins:
    """Factory of TLS sessions with origins.

    Args:
        options: mitmproxy's: which authorities are trusted, which certificates are shown, what is spoken.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        self._sessions: LRUCache[object, ssl.SSLSession] = LRUCache(_SESSIONS)

    def begin(self, address: tuple[str, int, str], name: bytes, *protocols: str) -> Tls:
        """Create a TLS session with an origin.

        Args:
            address: host and port, and the client's address where the origin sees that.
            name: of the host, or its IP address, for which its certificate has to be.
            protocols: that are offered (RFC 7301).

        Raises:
            ValueError: OpenSSL takes no such name.
        """
        name = name.rstrip(b".") or name  # whose dot no certificate has
        context = self._context(name.decode("latin-1"), protocols)
        # Python lets a session be resumed under its own context alone.
        resumed = self._sessions.get((context, address, name))
        try:
            return Tls(context, client_side=True, server_name=name, resumed=resumed)
        except (ssl.SSLError, TypeError) as e:
            raise ValueError("not a name for TLS") from e

    def keep(self, address: tuple[str, int, str], name: bytes, tls: Tls) -> None:
        """Store a session so that it can be resumed."""
        session = tls.session.session
        if session is not None and session.has_ticket and not tls.is_large:
            self._sessions[tls.session.context, address, name] = session

    def _context(self, name: str, protocols: tuple[str, ...]) -> ssl.SSLContext:
        shown = self._certificate_for(name)
        found = self._contexts.get((shown, *protocols))
        if found is None:
            found = self._contexts[shown, *protocols] = self._make(shown, protocols)
        return found

    def _certificate_for(self, name: str) -> str:
        """The file with the certificate that is shown to an origin, or empty."""
        if not self._options.client_certs:
            return ""
        path = Path(os.path.expanduser(self._options.client_certs))  # noqa: PTH111 - never raises
        if path.is_dir():
            path = path / f"{name}.pem"
        return str(path) if path.is_file() and "/" not in name else ""

    def _make(self, shown: str, protocols: tuple[str, ...]) -> ssl.SSLContext:
        options = self._options
        context = _context(
            ssl.PROTOCOL_TLS_CLIENT,
            options.tls_version_server_min,
            options.tls_version_server_max,
            options.ciphers_server,
        )
        context.hostname_checks_common_name = False
        context.options |= _NO_RX_CERTIFICATE_COMPRESSION
        if options.ssl_insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.options |= ssl.OP_LEGACY_SERVER_CONNECT
        file = options.ssl_verify_upstream_trusted_ca
        folder = options.ssl_verify_upstream_trusted_confdir
        if not (file or folder):
            import certifi

            file = certifi.where()
        context.load_verify_locations(_expanded(file), _expanded(folder))
        if shown:
            context.load_cert_chain(shown)
            context.post_handshake_auth = True
        if protocols:
            context.set_alpn_protocols(protocols)
        return context


def _expanded(path: str | None) -> str | None:
    return os.path.expanduser(path) if path else None  # noqa: PTH111 - never raises


def _context(side: int, least: str, most: str, ciphers: str | None) -> ssl.SSLContext:
    """TLS context from mitmproxy's options, with its words for versions."""
    context = ssl.SSLContext(side)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.minimum_version = _version(least, ssl.TLSVersion.MINIMUM_SUPPORTED)
    context.maximum_version = _version(most, ssl.TLSVersion.MAXIMUM_SUPPORTED)
    if ciphers:
        context.set_ciphers(ciphers)
    return context


def _version(word: str, unbounded: ssl.TLSVersion) -> ssl.TLSVersion:
    value = tls_version(word)
    return unbounded if value is None else ssl.TLSVersion(value)
