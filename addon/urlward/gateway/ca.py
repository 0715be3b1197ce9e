"""Certificate authority of interception: mitmproxy makes and keeps it, users must come to trust it, from
static files for any web server.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from jinja2 import Environment, PackageLoader, StrictUndefined

from urlward.config import SYSTEM, Config
from urlward.engine.errors import UrlwardError
from urlward.lists.build import check_place, write_atomically
from urlward.process import SERVICE
from urlward.proxy.authority import CA_FILE, KEY_SIZE, NAME, make_authority
from urlward.proxy.settings import DEFAULT_CONFDIR
from urlward.regular import read_regular, without_bom

FORMATS = ("pem", "der", "p12")

_SECRET = (CA_FILE, f"{NAME}-ca.p12")

_FILES = (
    (_SECRET[0], "PEM", "secret: certificate and key, what the filter signs with"),
    (_SECRET[1], "PKCS #12", "secret: the same"),
    (f"{NAME}-ca-cert.pem", "PEM", "for Linux, Firefox and most programs"),
    (f"{NAME}-ca-cert.cer", "PEM", "for Android"),
    (f"{NAME}-ca-cert.p12", "PKCS #12", "for Windows"),
)

_EXPLANATION = """\
A browser shows a block page over HTTPS, and opens the other pages of a host with listed pages, only if it
trusts this certificate. Unless all is intercepted, connections to hosts without an entry are not decrypted
and do not need it.
Whoever has the key can pass for any site before all who trust it: it stays on this machine.
"""


def authority_folder(config: Config, given: str | None = None) -> Path:
    """Folder of the certificate authority: as given or configured, else the service's with the machine's
    configuration, as its unit says, or mitmproxy's own.

    Raises:
        UrlwardError: there is no home folder for that.
    """
    is_services = config.file == SYSTEM and Path(SERVICE).is_dir()
    try:
        return Path(given or config.confdir or (SERVICE if is_services else DEFAULT_CONFDIR)).expanduser()
    except RuntimeError as e:
        raise UrlwardError("no home folder to keep the authority in: set `confdir`") from e


@dataclass(frozen=True, slots=True)
class Authority:
    """Certificate authority, in its folder.

    Attributes:
        folder: where its files are.
        certificate: it.
    """

    folder: Path
    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        """SHA-256 fingerprint, as browsers and operating systems show it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    @property
    def expired(self) -> bool:
        """Whether the certificate has expired."""
        return datetime.now(UTC) > self.certificate.not_valid_after_utc

    def encoded(self, form: str) -> bytes:
        """The certificate alone, in one of `FORMATS`."""
        if form == "der":
            return self.certificate.public_bytes(serialization.Encoding.DER)
        if form == "p12":
            return pkcs12.serialize_key_and_certificates(
                NAME.encode(), None, None, [self.certificate], serialization.NoEncryption()
            )
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def authority(folder: Path, *, make: bool = False, key_size: int = KEY_SIZE, operator: str = "") -> Authority:
    """Load the authority in a folder.

    Args:
        folder: mitmproxy's ``confdir``.
        make: whether one is made where there is none. Otherwise that is an error: a new one, shown in place
            of the filter's, would be taken for it.
        key_size: of a key that is made, in bits.
        operator: in whose name one is made.

    Raises:
        UrlwardError: there is none; the folder or the files cannot be used.
    """
    path = folder / _SECRET[0]
    try:
        if make and make_authority(folder, operator, key_size):
            _give_to_owner(folder)
        # The chain's first is the one that signs.
        certificate = x509.load_pem_x509_certificates(without_bom(read_regular(path)))[0]
    except FileNotFoundError as e:
        raise UrlwardError(
            f"{folder}: no certificate authority in it: give the filter's --confdir or --config; "
            "the filter makes one at its start, and --make now"
        ) from e
    except OSError as e:
        raise UrlwardError(f"{e.filename or folder}: {e.strerror or e}") from e
    except ValueError as e:
        raise UrlwardError(f"{path}: no certificate in it: move it away, and a new one is made") from e
    return Authority(folder, certificate)


def describe(one: Authority) -> str:
    """Description of the authority, in lines."""
    certificate = one.certificate
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    lines = [
        f"subject      {certificate.subject.rfc4514_string()}",
        f"SHA-256      {one.fingerprint}",
        f"valid        {certificate.not_valid_before_utc:%Y-%m-%d} to {until}"
        + (", expired: urlward help modes has how another takes its place" if one.expired else ""),
        f"folder       {one.folder}",
    ]
    present = [(name, form, use) for name, form, use in _FILES if (one.folder / name).exists()]
    lines += [f"  {name:24} {form:9} {use}" for name, form, use in present]
    return "\n".join(lines) + f"\n\n{_EXPLANATION}"


def export(one: Authority, path: Path, form: str) -> None:
    """Write the certificate, without the key.

    Raises:
        UrlwardError: the path is that of a key.
        SourceError: it is that of anything else which is no certificate of this name, or not writable.
    """
    for name in _SECRET:
        secret = one.folder / name
        if secret.exists() and path.exists() and path.samefile(secret):
            raise UrlwardError(f"{path}: holds the key, and would be overwritten")
    check_place(path, lambda data: _subject(data) == one.certificate.subject, "no certificate of this name")
    write_atomically(path, one.encoded(form))


def _subject(data: bytes) -> x509.Name | None:
    """Whose certificate that is, in one of `FORMATS`, alone and without a key; None where it is none."""
    if b"PRIVATE KEY" in data or data.count(b"-----BEGIN ") > 1:
        return None
    for load in (
        x509.load_pem_x509_certificate,
        x509.load_der_x509_certificate,
        lambda data: pkcs12.load_key_and_certificates(data, None),
    ):
        try:
            found = load(data)
        except ValueError:
            continue
        if not isinstance(found, tuple):
            return found.subject
        key, _, more = found
        return more[0].subject if key is None and len(more) == 1 else None
    return None


def _give_to_owner(folder: Path) -> None:
    """Give files that root makes in a service's folder to the folder's owner."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in folder.glob(f"{NAME}-*"):
            os.lchown(path, owner.st_uid, owner.st_gid)  # a link's target stays whose it is


FILES = {"der": "urlward-ca.cer", "pem": "urlward-ca.pem", "p12": "urlward-ca.p12"}


def write_page(one: Authority, folder: Path, config: Config) -> Iterator[Path]:
    """Write the page and the certificate's files, and name each.

    Args:
        one: whose certificate.
        folder: made where it is missing.
        config: tells who runs the filter, and what is decrypted.

    Raises:
        UrlwardError: the folder cannot be made.
        SourceError: it has other files of these names, or one cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.samefile(one.folder):
            raise UrlwardError(
                f"{folder}: the key is in there, and the page's folder is for everyone to read"
            )
    except OSError as e:
        raise UrlwardError(f"{folder}: {e.strerror or e}") from e
    for name in FILES.values():
        check_place(folder / name, lambda data: _subject(data) is not None, "no certificate")
    check_place(folder / "index.html", lambda data: FILES["pem"].encode() in data, "another page")
    for form, name in FILES.items():
        write_atomically(folder / name, one.encoded(form))
        yield folder / name
    write_atomically(folder / "index.html", page(one, config).encode())
    yield folder / "index.html"


def page(one: Authority, config: Config) -> str:
    """The page, as HTML."""
    environment = Environment(
        loader=PackageLoader("urlward.gateway"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("ca.html.j2").render(
        operator=config.page.operator,
        everything=config.intercept == "all",
        shared=config.gateway.steered == "intercept",
        fingerprint=one.fingerprint,
        subject=one.certificate.subject.rfc4514_string(),
        begins=f"{one.certificate.not_valid_before_utc:%Y-%m-%d}",
        ends=f"{one.certificate.not_valid_after_utc:%Y-%m-%d}",
        files=FILES,
    )
