"""TLS of the data path: what clients are shown, and what is asked of origins. Sessions on memory alone."""

import datetime
import ipaddress
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from mitmproxy.certs import CertStore
from mitmproxy.options import Options
from OpenSSL import SSL

from e2e.support import make_authority
from proxy.rig import Rig
from rows import each_row
from urlward.proxy import tls
from urlward.proxy.tls import Certificates, Origins, Tls, reason_of
from urlward.proxy.upstream import Pool


def options(**changes: Any) -> Options:
    made = Options()
    from mitmproxy.addons.tlsconfig import TlsConfig
    from mitmproxy.test import taddons

    with taddons.context(TlsConfig(), options=made):
        made.update(**changes)
    return made


class Session:
    """A session between two parties on memory; either may be a `Tls` of ours."""

    def __init__(self, client: ssl.SSLObject | Tls, server: ssl.SSLObject | Tls, bios: Any) -> None:
        self.both = client, server
        self.parts = [part.session if isinstance(part, Tls) else part for part in self.both]
        (self.to_client, self.from_client), (self.to_server, self.from_server) = bios

    def move(self) -> None:
        ways = (self.from_client, self.to_server), (self.from_server, self.to_client)
        for (source, sink), whose in zip(ways, reversed(self.both), strict=True):
            if isinstance(whose, Tls) and not whose.ready:
                with suppress(ssl.SSLWantReadError):
                    whose.shake(source.read())
            else:
                sink.write(source.read())

    def shake(self) -> "Session":
        for _ in range(6):
            for part in self.parts:
                with suppress(ssl.SSLWantReadError):
                    part.do_handshake()
                self.move()
        client, server = self.parts
        server.write(b"x")
        self.move()
        assert client.read() == b"x"  # and with it tickets
        return self


def with_client(context: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    """A client's side of a handshake with our server."""
    bios = (ssl.MemoryBIO(), ssl.MemoryBIO())
    one = client.wrap_bio(*bios, server_hostname=name)
    tls = Tls(context, client_side=False)
    Session(one, tls, (bios, (tls.incoming, tls.outgoing))).shake()
    return one


def with_origin(tls: Tls, server: ssl.SSLContext) -> ssl.SSLObject:
    """An origin's side of a handshake with our client."""
    bios = (ssl.MemoryBIO(), ssl.MemoryBIO())
    one = server.wrap_bio(*bios, server_side=True)
    Session(tls, one, ((tls.incoming, tls.outgoing), bios)).shake()
    return one


def shown(one: ssl.SSLObject) -> x509.Certificate:
    der = one.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CertStore:
    folder = tmp_path_factory.mktemp("ca")
    return CertStore.from_store(folder, "mitmproxy", 2048)


@pytest.fixture
def trusting(store: CertStore) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=store.default_ca.to_pem().decode())


@pytest.fixture(scope="module")
def certificates(store: CertStore) -> Certificates:
    return made(store)


def made(store: CertStore, clock: Callable[[], float] = time.time, **changes: Any) -> Certificates:
    authority = store.default_ca._cert, store.default_privatekey
    return Certificates(options(**changes), *authority, clock=clock)  # type: ignore[arg-type]


# -- what clients are shown


@pytest.mark.parametrize(
    "name",
    [
        "plain.example",
        "xn--strae-oqa.example",
        "a" * 63 + "." + "b" * 63 + ".example",
        "192.0.2.7",
        "2001:db8::7",
    ],
)
def test_a_certificate_for_a_name(certificates: Certificates, trusting: ssl.SSLContext, name: str) -> None:
    one = with_client(certificates.context(name), trusting, name)  # which checks the name
    certificate = shown(one)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert names.critical is not bool(common), "critical where the subject is empty"
    days = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert days < datetime.timedelta(days=202)
    assert days > datetime.timedelta(days=30)


@pytest.mark.parametrize("days", [-10_000, -3, 250, 10_000], ids=lambda days: f"{days} days")
def test_a_certificate_is_valid_however_long_the_filter_runs_and_however_its_clock_is_set(
    store: CertStore, trusting: ssl.SSLContext, days: int
) -> None:
    now = time.time()
    moment = now - 86_400 * days
    certificates = made(store, lambda: moment)
    before = certificates.context("plain.example", http2=True)
    assert certificates.context("plain.example", http2=True) is before, "one host costs one signature"
    with pytest.raises(ssl.SSLCertVerificationError):
        with_client(before, trusting, "plain.example")
    moment = now
    with_client(certificates.context("plain.example", http2=True), trusting, "plain.example")
    after = certificates.context("plain.example", http2=True)
    moment += 3_600
    assert certificates.context("plain.example", http2=True) is after, "sessions are resumed under it"


def test_a_client_without_a_name(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    trusting.check_hostname = False
    certificate = shown(with_client(certificates.context("192.0.2.7"), trusting, None))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("192.0.2.7")]


@pytest.mark.parametrize(
    "name", ["a_b.example", "a$b.example", "a|b.example", "x" * 200, "foo.1", "*.example"]
)
def test_odd_names(certificates: Certificates, trusting: ssl.SSLContext, name: str) -> None:
    trusting.check_hostname = False
    certificate = shown(with_client(certificates.context(name, "192.0.2.7"), trusting, None))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]
    assert len(names.get_values_for_type(x509.IPAddress)) == 1


def test_a_certificate_has_no_dot_at_the_end(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    context = certificates.context("plain.example.", "plain.example", "..")
    certificate = shown(with_client(context, trusting, "plain.example"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["plain.example", ".."]
    assert certificates.context("plain.example", "..") is context


def test_a_name_that_no_certificate_has(certificates: Certificates) -> None:
    with pytest.raises(ValueError, match=r"."):
        certificates.context("b\xfc.example")
    assert ("b\xfc.example",) not in certificates._contexts


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_of_rsa_alone(
    certificates: Certificates, trusting: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    trusting.minimum_version = trusting.maximum_version = version
    if version is ssl.TLSVersion.TLSv1_2:
        trusting.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        one = with_client(certificates.context("plain.example"), trusting, "plain.example")
        assert not isinstance(shown(one).public_key(), ec.EllipticCurvePublicKey)
    else:
        one = with_client(certificates.context("plain.example"), trusting, "plain.example")
        assert one.version() == "TLSv1.3"


def test_a_context_is_made_once(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    context = certificates.context("plain.example", "192.0.2.7")
    assert certificates.context("plain.example", "192.0.2.7") is context
    assert certificates.context("other.example", "192.0.2.7") is not context
    one = with_client(context, trusting, "plain.example")
    bios = ssl.MemoryBIO(), ssl.MemoryBIO()
    again = trusting.wrap_bio(*bios, server_hostname="plain.example", session=one.session)
    tls = Tls(context, client_side=False)
    Session(again, tls, (bios, (tls.incoming, tls.outgoing))).shake()
    assert again.session_reused


def test_sessions_of_clients_without_tickets_have_a_bound(
    certificates: Certificates, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of TLS 1.2. One client, by one name after another, had megabytes kept for each."""
    monkeypatch.setattr(tls, "_CLIENTS", 3)
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    trusting.options |= ssl.OP_NO_TICKET
    contexts = []
    for _ in range(7):
        contexts.append(certificates.context("plain.example"))
        with_client(contexts[-1], trusting, "plain.example")
    assert [contexts.count(one) for one in dict.fromkeys(contexts)] == [3, 3, 1]


def test_a_client_hello_has_a_bound(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    """Of one with 64,000 bytes of names of authorities OpenSSL keeps 2.9 MB with the connection."""
    trusting.set_alpn_protocols(["x" * 250] * 20 + ["http/1.1"])
    with_client(certificates.context("plain.example"), trusting, "plain.example")
    trusting.set_alpn_protocols(["x" * 250] * 40)
    with pytest.raises(ssl.SSLError, match="too large"):
        with_client(certificates.context("plain.example"), trusting, "plain.example")


@pytest.mark.parametrize("size", [1, 4, 1000, 20_000])
def test_early_data_is_no_part_of_a_client_hello(
    certificates: Certificates, trusting: ssl.SSLContext, size: int
) -> None:
    """A client that has a ticket of the origin's own sends it, as much as 16 KiB."""
    to_client, from_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, from_client, server_hostname="plain.example")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = from_client.read()[9:]
    # Behind version, random, session, suites and methods: early data is announced.
    at = 35 + hello[34]
    at += 2 + int.from_bytes(hello[at : at + 2])
    at += 1 + hello[at]
    extensions = hello[at + 2 :] + b"\0\x2a\0\0"
    hello = hello[:at] + len(extensions).to_bytes(2) + extensions
    message = b"\1" + len(hello).to_bytes(3) + hello
    sent = b"\x16\3\1" + len(message).to_bytes(2) + message + 3 * (b"\x17\3\3\x10\0" + bytes(1 << 12))
    server = Tls(certificates.context("plain.example"), client_side=False)
    for start in range(0, len(sent), size):
        with pytest.raises(ssl.SSLWantReadError):
            server.shake(sent[start : start + size])
    assert server.handshake == 5 + len(message)
    assert server.outgoing.pending


def test_settings_of_clients_sessions(store: CertStore, trusting: ssl.SSLContext) -> None:
    old = made(store, tls_version_client_max="TLS1_2", ciphers_client="ECDHE-ECDSA-AES128-GCM-SHA256")
    one = with_client(old.context("plain.example"), trusting, "plain.example")
    assert (one.version(), one.cipher()[0]) == ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")  # type: ignore[index]
    new = made(store, tls_version_client_min="TLS1_3")
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        with_client(new.context("plain.example"), trusting, "plain.example")


@pytest.mark.parametrize(
    ("offered", "taken"),
    [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None), (["http/1.0"], "http/1.0")],
)
def test_the_protocol_is_http_1(
    certificates: Certificates, trusting: ssl.SSLContext, offered: list[str], taken: str | None
) -> None:
    if offered:
        trusting.set_alpn_protocols(offered)
    one = with_client(certificates.context("plain.example"), trusting, "plain.example")
    assert one.selected_alpn_protocol() == taken


def test_the_protocol_is_http_2_with_those_who_offer_it(
    certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    context = certificates.context("plain.example", http2=True)
    assert context is certificates.context("plain.example", http2=True)
    for offered in (["http/1.1", "h2"], ["http/1.1"]):
        trusting.set_alpn_protocols(offered)
        assert with_client(context, trusting, "plain.example").selected_alpn_protocol() == offered[-1]


async def test_the_authority_is_mitmproxys(rig: Rig) -> None:
    context = rig.addon.tls_with_clients().context("plain.example")
    with_client(context, rig.client_context(), "plain.example")
    rig.tctx.options.update(tls_version_client_max="TLS1_2")
    context = rig.addon.tls_with_clients().context("plain.example")
    assert with_client(context, rig.client_context(), "plain.example").version() == "TLSv1.2"


# -- origins


class Origin:
    """An authority and a server of it."""

    def __init__(self, folder: Path, *names: str, days: int = 7) -> None:
        self.folder = folder
        if names:
            make_authority(folder, names)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "origin.pem", folder / "origin.key")

    @property
    def trusted(self) -> dict[str, Any]:
        return {"ssl_verify_upstream_trusted_ca": str(self.folder / "origin-ca.pem")}


@pytest.fixture
def origin(authorities: Path) -> Origin:
    return Origin(authorities)


ADDRESS = ("plain.example", 443)


def begun(origins: Origins, name: bytes = b"plain.example", *protocols: str) -> Tls:
    return origins.begin(ADDRESS, name, *protocols)


def refusal(origins: Origins, server: ssl.SSLContext, name: bytes = b"plain.example") -> str:
    with pytest.raises(ssl.SSLError) as raised:
        with_origin(begun(origins, name), server)
    return reason_of(raised.value)


def test_an_origin_that_is_trusted(origin: Origin) -> None:
    origins = Origins(options(**origin.trusted))
    for name in (b"plain.example", b"sub.example", b"127.0.0.1", b"plain.example."):
        with_origin(begun(origins, name), origin.context)


def test_an_origin_that_nobody_knows(origin: Origin) -> None:
    assert "local issuer certificate" in refusal(Origins(options()), origin.context)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"other.invalid", "hostname mismatch"),
        (b"a.plain.example", "hostname mismatch"),
        (b"192.0.2.7", "IP address mismatch"),
    ],
)
def test_a_certificate_of_another_name(origin: Origin, name: bytes, reason: str) -> None:
    found = refusal(Origins(options(**origin.trusted)), origin.context, name)
    assert found == reason, "without the name, which may be listed"


def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plain.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now - datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("plain.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    for file in ("origin.pem", "origin-ca.pem"):
        (tmp_path / file).write_bytes(pem)
    (tmp_path / "origin.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    origin = Origin(tmp_path)
    assert refusal(Origins(options(**origin.trusted)), origin.context) == "certificate has expired"
    # A common name alone is none (RFC 9525), which OpenSSL would take.
    with_origin(begun(Origins(options(ssl_insecure=True))), origin.context)


def test_nothing_is_checked_where_the_operator_says_so(origin: Origin) -> None:
    with_origin(begun(Origins(options(ssl_insecure=True)), b"other.invalid"), origin.context)


def test_a_folder_of_authorities(origin: Origin, tmp_path: Path) -> None:
    import subprocess

    ca = origin.folder / "origin-ca.pem"
    name = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", ca], capture_output=True, check=True, text=True
    ).stdout.strip()
    (tmp_path / f"{name}.0").write_bytes(ca.read_bytes())
    origins = Origins(options(ssl_verify_upstream_trusted_confdir=str(tmp_path)))
    with_origin(begun(origins), origin.context)


def test_certificates_that_origins_are_shown(origin: Origin, tmp_path: Path) -> None:
    pem = (origin.folder / "origin.pem").read_bytes() + (origin.folder / "origin.key").read_bytes()
    (tmp_path / "plain.example.pem").write_bytes(pem)
    origin.context.verify_mode = ssl.CERT_OPTIONAL
    origin.context.load_verify_locations(origin.folder / "origin-ca.pem")
    for given, name, is_shown in (
        (tmp_path, b"plain.example", True),
        (tmp_path, b"sub.example", False),
        (tmp_path / "plain.example.pem", b"sub.example", True),
    ):
        origins = Origins(options(client_certs=str(given), **origin.trusted))
        one = with_origin(begun(origins, name), origin.context)
        assert bool(one.getpeercert(binary_form=True)) is is_shown, (given, name)
    origins = Origins(options(client_certs=str(tmp_path), ssl_insecure=True))
    assert origins._certificate_for("../plain.example") == "", "a name is no path"


@pytest.mark.parametrize("version", ["TLS1_2", "TLS1_3"])
def test_versions_of_origins(origin: Origin, version: str) -> None:
    bounds = {"tls_version_server_min": version, "tls_version_server_max": version}
    one = with_origin(begun(Origins(options(**origin.trusted, **bounds))), origin.context)
    assert one.version() == version.replace("TLS", "TLSv").replace("_", ".")


def test_ciphers_and_protocols_of_origins(origin: Origin) -> None:
    origins = Origins(
        options(
            **origin.trusted, tls_version_server_max="TLS1_2", ciphers_server="ECDHE-ECDSA-AES256-GCM-SHA384"
        )
    )
    origin.context.set_alpn_protocols(["h2", "http/1.1"])
    for taken, *protocols in (("http/1.1", "http/1.1"), ("h2", "h2", "http/1.1"), (None,)):
        one = with_origin(begun(origins, b"plain.example", *protocols), origin.context)  # type: ignore[arg-type]
        assert one.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"  # type: ignore[index]
        assert one.selected_alpn_protocol() == taken


@pytest.mark.parametrize("version", ["TLS1_2", "TLS1_3"])
def test_sessions_are_resumed(origin: Origin, version: str) -> None:
    origins = Origins(options(**origin.trusted, tls_version_server_max=version))
    first = begun(origins)
    with_origin(first, origin.context)
    origins.keep(ADDRESS, b"plain.example", first)
    second = begun(origins)
    with_origin(second, origin.context)
    assert second.session.session_reused
    for name, *protocols in ((b"sub.example",), (b"plain.example", "http/1.1")):
        other = begun(origins, name, *protocols)
        with_origin(other, origin.context)
        assert not other.session.session_reused, "of another name, or by another context"
    elsewhere = origins.begin(("plain.example", 444), b"plain.example")
    with_origin(elsewhere, origin.context)
    assert not elsewhere.session.session_reused


def test_no_session_is_kept_that_has_none(origin: Origin) -> None:
    origins = Origins(options(**origin.trusted))
    origins.keep(ADDRESS, b"plain.example", begun(origins))
    assert not origins._sessions


class Other:
    """An origin of pyOpenSSL's, which can name authorities for a client's certificate."""

    def __init__(self, context: SSL.Context) -> None:
        self._connection = SSL.Connection(context)
        self._connection.set_accept_state()
        self.write = self._connection.send

    def do_handshake(self) -> None:
        with suppress(SSL.WantReadError):
            self._connection.do_handshake()

    def outgoing(self) -> bytes:
        with suppress(SSL.WantReadError):
            return self._connection.bio_read(1 << 17)
        return b""

    def incoming(self, data: bytes) -> None:
        if data:
            self._connection.bio_write(data)

    @property
    def bios(self) -> Any:
        return SimpleNamespace(write=self.incoming), SimpleNamespace(read=self.outgoing)


@cache
def named(number: int) -> bytes:
    """A certificate of a name of its own."""
    key, now = ed25519.Ed25519PrivateKey.generate(), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(number))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1 + number, now, now)
    return builder.sign(key, None).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("version", ["TLS1_2", "TLS1_3"])
async def test_nothing_is_kept_with_much_of_a_handshake(
    origin: Origin, tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90,000 bytes of certificates took 1.2 MB, and 64,000 of names of authorities for a client's certificate
    2.9: a client had 8,192 connections to a server of its own kept."""
    origins = Origins(options(**origin.trusted, tls_version_server_max=version))
    authority = (origin.folder / "origin-ca.pem").read_bytes()
    for many, names, kept in ((2, 10, 1), (100, 0, 0), (2, 400, 0)):
        (tmp_path / "chain.pem").write_bytes((origin.folder / "origin.pem").read_bytes() + many * authority)
        (tmp_path / "names.pem").write_bytes(b"".join(map(named, range(names))))
        server = SSL.Context(SSL.TLS_SERVER_METHOD)
        server.use_certificate_chain_file(str(tmp_path / "chain.pem"))
        server.use_privatekey_file(str(origin.folder / "origin.key"))
        if names:
            server.load_client_ca(bytes(tmp_path / "names.pem"))
            server.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        one = Other(server)
        Session(tls := begun(origins), one, ((tls.incoming, tls.outgoing), one.bios)).shake()  # type: ignore[arg-type]
        assert tls.ready
        origins.keep(ADDRESS, b"plain.example", tls)
        assert len(origins._sessions) == kept
        origins._sessions.clear()
        pool, connection = Pool(), Mock(open=True, waiting=0, tls=tls)
        pool.keep("plain.example", connection)
        assert (len(pool), connection.abort.called) == (kept, not kept)
        # Nor is much of many together.
        monkeypatch.setattr("urlward.proxy.upstream.MOST_HANDSHAKES", 3 * tls.handshake)
        for number in range(9):
            pool.keep(number, Mock(open=True, waiting=0, tls=tls))
        assert len(pool) == 3 * kept


@each_row("name", [b"", b".a", b"a\0b", b"b\xfc.example", b"x" * 300])
def test_a_name_that_tls_cannot_ask_for(name: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        begun(Origins(options()), name)


def test_errors_of_another_kind_have_no_reason() -> None:
    for error in (ssl.SSLError(1, "x"), OSError("x"), ValueError("x")):
        assert reason_of(error) == ""
