"""Certificates of the lab: an authority for its origins, and what its clients trust.

Clients trust the lab's authority and the filter's, installed as a deployment installs them: in the
system's bundle, which programs read, and by policy for Chromium.
"""

import base64
import json
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY = "urlward lab origins"
"""Common name of the authority that signs for origins; whoever sees it has not been decrypted."""

_VALID = timedelta(days=30)


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
