import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from rows import each_row
from urlward.config import Config, read_config
from urlward.engine.errors import UrlwardError
from urlward.gateway import ca
from urlward.gateway.ca import FORMATS, Authority, authority, authority_folder, describe, export
from urlward.lists.source import SourceError
from urlward.proxy.settings import DEFAULT_CONFDIR


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("confdir"), make=True)


def read(data: bytes, form: str) -> x509.Certificate:
    if form == "p12":
        loaded = pkcs12.load_pkcs12(data, None)
        assert loaded.key is None
        return (loaded.cert or loaded.additional_certs[0]).certificate
    return {"pem": x509.load_pem_x509_certificate, "der": x509.load_der_x509_certificate}[form](data)


def test_one_is_made_and_stays(made: Authority) -> None:
    again = authority(made.folder)
    assert again == made
    assert made.fingerprint.replace(":", "").lower() == made.certificate.fingerprint(hashes.SHA256()).hex()
    for name in ("mitmproxy-ca.pem", "mitmproxy-ca.p12"):
        assert (made.folder / name).stat().st_mode & 0o777 == 0o600


@each_row(
    ("operator", "organisation", "name"),
    [
        ("", "mitmproxy", "mitmproxy"),
        ("Example Net", "Example Net", "Example Net filter"),
        ("é" * 80, "é" * 32, "é" * 28 + " filter"),
    ],
)
def test_it_is_made_in_the_operators_name(
    tmp_path: Path, operator: str, organisation: str, name: str
) -> None:
    subject = authority(tmp_path / "ca", make=True, operator=operator).certificate.subject
    assert {part.oid: part.value for part in subject} == {
        NameOID.ORGANIZATION_NAME: organisation,
        NameOID.COMMON_NAME: name,
    }


def test_it_is_the_one_that_mitmproxy_signs_with(made: Authority) -> None:
    from mitmproxy.certs import CertStore

    store = CertStore.from_store(made.folder, "mitmproxy", 2048)
    assert store.default_ca.to_cryptography() == made.certificate


@each_row("form", FORMATS)
def test_export_is_the_certificate_alone(made: Authority, tmp_path: Path, form: str) -> None:
    path = tmp_path / "out"
    export(made, path, form)
    data = path.read_bytes()
    assert read(data, form) == made.certificate
    assert b"PRIVATE" not in data
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_openssl_finds_no_key_in_it(made: Authority, tmp_path: Path) -> None:
    export(made, tmp_path / "out.p12", "p12")
    command = ["openssl", "pkcs12", "-in", tmp_path / "out.p12", "-passin", "pass:", "-nodes"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("BEGIN CERTIFICATE") == 1
    assert "PRIVATE KEY" not in done.stdout


@pytest.mark.parametrize("name", ["mitmproxy-ca.pem", "mitmproxy-ca.p12"])
def test_export_never_overwrites_the_key(made: Authority, tmp_path: Path, name: str) -> None:
    secret = made.folder / name
    before = secret.read_bytes()
    link = tmp_path / "link"
    link.symlink_to(secret)
    for path in (secret, link):
        with pytest.raises(UrlwardError, match="holds the key"):
            export(made, path, "pem")
    assert secret.read_bytes() == before


@each_row("form", FORMATS)
def test_export_takes_the_place_of_a_certificate_alone(made: Authority, tmp_path: Path, form: str) -> None:
    for before in FORMATS:
        path = tmp_path / f"{before}.out"
        export(made, path, before)
        export(made, path, form)
        assert read(path.read_bytes(), form) == made.certificate
    (tmp_path / "empty").touch()
    export(made, tmp_path / "empty", form)
    server = authority(tmp_path / "another", make=True, key_size=1024, operator="Somebody else")
    others = {
        "server.pem": server.encoded("pem"),
        "bundle.pem": made.encoded("pem") + server.encoded("pem"),
        "list.key": b"0" * 64,
        "urlward.toml": b"[gateway]\n",
        "both.pem": (made.folder / "mitmproxy-ca.pem").read_bytes(),
        "both.p12": (made.folder / "mitmproxy-ca.p12").read_bytes(),
    }
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match="there already, and no certificate of this name: it is not"):
            export(made, tmp_path / name, form)
        assert (tmp_path / name).read_bytes() == data


def test_describe(made: Authority, tmp_path: Path) -> None:
    text = describe(made)
    for part in (made.fingerprint, "CN=mitmproxy", str(made.folder), "mitmproxy-ca-cert.pem", "secret"):
        assert part in text
    assert "expired" not in text
    (tmp_path / "mitmproxy-ca.pem").write_bytes((made.folder / "mitmproxy-ca.pem").read_bytes())
    text = describe(authority(tmp_path))
    assert "mitmproxy-ca-cert.p12" not in text, "only what is there"


def test_an_expired_one(made: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2099, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(ca, "datetime", Later)
    assert ", expired: urlward help modes has" in describe(made)


def test_what_is_no_authority(made: Authority, tmp_path: Path) -> None:
    (tmp_path / "mitmproxy-ca.pem").write_text("nonsense")
    with pytest.raises(UrlwardError, match=r"mitmproxy-ca.pem: no certificate in it"):
        authority(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UrlwardError, match="Not a directory"):
        authority(tmp_path / "file/confdir", make=True)


def test_none_is_made_where_one_is_to_be_shown(tmp_path: Path) -> None:
    for folder in (tmp_path / "elsewhere", tmp_path):
        with pytest.raises(UrlwardError, match=rf"^{folder}: no certificate authority in it: .*--make now"):
            authority(folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_makes_for_a_service_the_service_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    authority(folder, make=True)
    assert {path.stat().st_uid for path in folder.iterdir()} == {65534}
    assert (folder / "mitmproxy-ca.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_makes_none_where_a_services_links_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, roots = tmp_path / "state", tmp_path / "roots"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    roots.write_text("root's")
    link = folder / "mitmproxy-ca-cert.pem"
    link.symlink_to(roots)
    with pytest.raises(UrlwardError, match=r"mitmproxy-ca-cert.pem: a link"):
        authority(folder, make=True)
    assert (roots.read_text(), roots.stat().st_uid) == ("root's", 0)
    link.unlink()
    really = ca.make_authority

    def made_and_replaced(*given: Any) -> bool:
        made = really(*given)
        link.unlink()
        link.symlink_to(roots)
        return made

    monkeypatch.setattr(ca, "make_authority", made_and_replaced)
    authority(folder, make=True)
    assert roots.stat().st_uid == 0


def test_without_a_home_folder_its_folder_has_to_be_named() -> None:
    with pytest.raises(UrlwardError, match="no home folder to keep the authority in: set `confdir`"):
        authority_folder(Config(), "~nobody-of-that-name/ca")


def test_with_the_machines_file_goes_the_services_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody's own trial has made in their home is not what clients come to trust."""
    service, system, other = tmp_path / "service", tmp_path / "system.toml", tmp_path / "other.toml"
    for path in (system, other):
        path.write_text("workers = 1\n")
    monkeypatch.setattr(ca, "SYSTEM", system)
    monkeypatch.setattr(ca, "SERVICE", str(service))
    home = Path(DEFAULT_CONFDIR).expanduser()
    assert authority_folder(read_config(system)) == home, "there is no service"
    service.mkdir()
    assert [authority_folder(read_config(path)) for path in (system, other)] == [service, home]
    assert authority_folder(read_config(system), "given") == Path("given")
    system.write_text('confdir = "own"\n')
    assert authority_folder(read_config(system)) == tmp_path / "own"
