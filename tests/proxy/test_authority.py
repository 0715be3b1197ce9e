"""The authority's certificate: its end is spoken of ahead, and after; that it has yet to begin; and what can
sign."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtensionOID, NameOID

from urlward.proxy.authority import (
    CA_FILE,
    EXPIRES_SOON,
    authority_problem,
    make_authority,
    passphrase_of,
    validity_trouble,
)

NOW = 1_795_000_000.0


def test_the_end_of_a_certificate_is_spoken_of() -> None:
    assert validity_trouble(NOW - 1, NOW + EXPIRES_SOON + 1, NOW) == ""
    assert "certificate ends at 2026-12-18T" in validity_trouble(NOW - 1, NOW + EXPIRES_SOON, NOW)
    assert "certificate has ended at 2026-11-18T" in validity_trouble(NOW - 1, NOW, NOW)


def test_a_certificate_that_was_made_under_a_clock_that_ran_ahead_is_spoken_of() -> None:
    assert "certificate begins at 2026-11-18T" in validity_trouble(NOW, NOW + 2 * EXPIRES_SOON, NOW - 1)
    assert validity_trouble(NOW, NOW + 2 * EXPIRES_SOON, NOW) == ""


type Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
OWN, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def certificate(key: Key, *more: x509.ExtensionType, ca: bool = True) -> bytes:
    """A certificate of a key, signed by another, as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example filter")])
    since = datetime(2027, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, since, since + timedelta(days=1))
    for extension in (x509.BasicConstraints(ca, None), *more):
        made = made.add_extension(extension, critical=True)
    return made.sign(OTHER, hashes.SHA256()).public_bytes(Encoding.PEM)


def for_use(*, signs: bool) -> x509.KeyUsage:
    """A keyUsage extension."""
    return x509.KeyUsage(True, False, False, False, False, signs, False, False, False)


def secret(key: Key, passphrase: bytes = b"") -> bytes:
    """A key as PEM."""
    sealed = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)


def test_an_authority_of_ones_own_can_sign_or_its_file_is_refused() -> None:
    own, above = certificate(OWN), certificate(OTHER)
    for good in (secret(OWN) + own + above, own + above + secret(OWN)):
        assert authority_problem(good) == authority_problem(good, "of another file") == ""
    assert "its first certificate is not its key's" in authority_problem(secret(OWN) + above + own)
    assert "is no authority's" in authority_problem(secret(OWN) + certificate(OWN, ca=False))
    for signs in (True, False):
        other = "is for other uses" in authority_problem(secret(OWN) + certificate(OWN, for_use(signs=signs)))
        assert other is not signs
    x400 = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"0\x04\xa3\x02\x05\0")
    assert "extensions that cannot be read" in authority_problem(secret(OWN) + certificate(OWN, x400))
    sealed = secret(OWN, b"secret") + own
    assert authority_problem(sealed, "secret") == ""
    for passphrase in (None, "another"):
        assert "its key has a passphrase" in authority_problem(sealed, passphrase)
    short, odd = rsa.generate_private_key(65537, 1024), ed25519.Ed25519PrivateKey.generate()
    assert "has 1024 bits" in authority_problem(secret(short) + certificate(short))
    assert "neither RSA nor" in authority_problem(secret(odd) + certificate(odd))
    for nothing in (own, secret(OWN), b"\xff"):
        assert authority_problem(nothing).startswith("not a certificate with its key")


def test_where_not_all_can_be_written_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mitmproxy.certs.DEFAULT_DHPARAM", None
    )  # the last that is written, as on a full disk
    with pytest.raises(TypeError):
        make_authority(tmp_path)
    assert not (tmp_path / CA_FILE).exists()


def test_the_last_passphrase_counts() -> None:
    assert passphrase_of(["cert_passphrase=a=b", "key_size=2048"]) == "a=b"
    assert passphrase_of(["cert_passphrase=a", "cert_passphrase=b"]) == "b"
    assert passphrase_of([]) is None


def test_the_folder_of_a_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It is the state folder as well, where the configuration says so, and may be made here first."""
    folder = tmp_path / "state"
    assert make_authority(folder, key_size=1024)
    assert folder.stat().st_mode & 0o777 == 0o700
