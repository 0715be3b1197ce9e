"""Certificates of a feed's server and its subscribers, good ones and bad."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_certificates(folder: Path) -> None:
    """An authority and what it certifies, and an authority that nobody trusts."""
    ca = _certify(folder / "ca", "Feed test CA", None)
    now = datetime.now(UTC)
    _certify(folder / "good", "feed", ca, names=["localhost", "127.0.0.1"])
    _certify(folder / "misnamed", "feed", ca, names=["elsewhere.test"])
    _certify(folder / "expired", "feed", ca, names=["127.0.0.1"], until=now - timedelta(days=1))
    _certify(folder / "client", "subscriber-cert", ca)
    _certify(folder / "unknown", "Another CA", None)
    both = (folder / "client.pem").read_text() + (folder / "client.key").read_text()
    (folder / "both.pem").write_text(both)


_Signer = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _certify(
    path: Path,
    subject: str,
    by: _Signer | None,
    *,
    names: list[str] | None = None,
    until: datetime | None = None,
) -> _Signer:
    key = ec.generate_private_key(ec.SECP256R1())
    until = until or datetime.now(UTC) + timedelta(days=7)
    signer = by[1] if by else key
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by[0].subject if by else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - timedelta(days=30))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if names:
        general = [x509.IPAddress(ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    path.with_suffix(".pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, key
