import base64
import json
import ssl
from pathlib import Path

from cryptography import x509

from urlward.lab.services import make_certificates, write_bundle, write_chromium_policy


def test_certificates(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["a.example", "*.a.example"], ["203.0.113.1", "2001:db8::1"])
    context = ssl.create_default_context(cafile=str(made.authority))
    assert len(context.get_ca_certs()) == 1
    origin = x509.load_pem_x509_certificate(made.origin.read_bytes())
    names = origin.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example", "*.a.example"]
    authority = x509.load_pem_x509_certificate(made.authority.read_bytes())
    origin.verify_directly_issued_by(authority)
    assert made.key.stat().st_mode & 0o077 == 0


def test_what_clients_trust(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["a.example"], [])
    write_bundle(tmp_path / "bundle.pem", [made.authority, made.authority])
    assert (tmp_path / "bundle.pem").read_text().count("BEGIN CERTIFICATE") == 2
    write_chromium_policy(tmp_path / "policies" / "managed", [made.authority])
    (policy,) = (json.loads(p.read_text()) for p in (tmp_path / "policies" / "managed").iterdir())
    (der,) = (base64.b64decode(text) for text in policy["CACertificates"])
    assert x509.load_der_x509_certificate(der) == x509.load_pem_x509_certificate(made.authority.read_bytes())
