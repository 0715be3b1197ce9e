"""The certificate authority of interception, made under the operator's name, which users are to recognise."""

import errno
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from mitmproxy.certs import CertStore, load_pem_private_key

from urlward.engine.dates import time_text

NAME = "mitmproxy"
"""Prefix of the files' names, as mitmproxy expects it."""

CA_FILE = f"{NAME}-ca.pem"
"""Certificate and key, in mitmproxy's ``confdir``."""

KEY_SIZE = 2048

EXPIRES_SOON = 30 * 86_400.0
"""Seconds before its end from which an authority's certificate is spoken of."""

_LONGEST = 64
"""Bytes of a common name or organisation (RFC 5280, appendix A.1, ub-common-name); libraries count bytes."""

_WHAT = " filter"

_NO_PAIR = "not a certificate with its key: move it away, and new ones are made"
_SEALED = "its key has a passphrase, which cert_passphrase in [mitmproxy] does not say"


def make_authority(folder: Path, operator: str = "", key_size: int = KEY_SIZE) -> bool:
    """Make the authority where there is none.

    Args:
        folder: mitmproxy's ``confdir``; it is made too.
        operator: who runs the filter; mitmproxy's own name where empty.
        key_size: of its key, in bits.

    Returns:
        Whether one was made.

    Raises:
        OSError: the folder cannot be written to, or has a link where a file is to be.
    """
    if (folder / CA_FILE).exists():
        return False
    for path in folder.glob(f"{NAME}-*"):
        if path.is_symlink():  # by which root would write wherever a service wants
            raise OSError(errno.ELOOP, "a link, by which no authority is written", str(path))
    name = operator.strip()
    common = _cut(name, _LONGEST - len(_WHAT)) + _WHAT if name else None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        CertStore.create_store(folder, NAME, key_size, _cut(name, _LONGEST) or None, common)
    except BaseException:
        # Such as half of it on a full disk, which would be taken for one at the next start.
        with suppress(OSError):
            (folder / CA_FILE).unlink()
        raise
    return True


def validity_trouble(since: float, until: float, now: float) -> str:
    """Warning about the days of an authority's certificate; empty where it is valid, and its end is far.

    Args:
        since: when it begins, seconds since 1970-01-01 UTC.
        until: when it ends, likewise.
        now: likewise.
    """
    if now < since:
        return (
            f"the authority's certificate begins at {time_text(since)}: the clock is wrong, or was as it was "
            "made, and clients refuse what is decrypted"
        )
    if until - now > EXPIRES_SOON:
        return ""
    when = time_text(until)
    if until <= now:
        return f"the authority's certificate has ended at {when}: clients refuse what is decrypted"
    return f"the authority's certificate ends at {when}: make another, and have clients trust it"


def authority_problem(data: bytes, passphrase: str | None = None) -> str:
    """Why nothing can be signed by an authority's file that clients accept; empty where it can.

    Args:
        data: of `CA_FILE`.
        passphrase: of its key.
    """
    try:
        key = load_pem_private_key(data, passphrase.encode() if passphrase else None)
        certificate = x509.load_pem_x509_certificates(data)[0]
    except TypeError:
        return _SEALED
    except (ValueError, UnsupportedAlgorithm, InternalError):
        return _SEALED if passphrase and b"ENCRYPTED" in data else _NO_PAIR
    if certificate.public_key() != key.public_key():
        return "its first certificate is not its key's: the key's own goes first, then those above it"
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < KEY_SIZE:
            return f"its key has {key.key_size} bits, and clients want {KEY_SIZE}"
    elif not isinstance(key, ec.EllipticCurvePrivateKey):
        return "its key is neither RSA nor of an elliptic curve (ECDSA)"
    try:
        extensions = [one.value for one in certificate.extensions]
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return "its certificate has extensions that cannot be read"
    if not any(isinstance(one, x509.BasicConstraints) and one.ca for one in extensions):
        return "its certificate is no authority's (basicConstraints), so clients take none signed by it"
    if any(isinstance(one, x509.KeyUsage) and not one.key_cert_sign for one in extensions):
        return "its certificate is for other uses (keyUsage), so clients take none signed by it"
    return ""


def _cut(text: str, size: int) -> str:
    """The beginning of a text, at most so many bytes of UTF-8."""
    return text.encode()[:size].decode(errors="ignore").strip()


def key_size_of(options: Sequence[str]) -> int:
    """mitmproxy's option ``key_size`` among ``OPTION=VALUE``, if it is a number."""
    size = _last(options, "key_size")
    return int(size) if size.isdecimal() else KEY_SIZE


def passphrase_of(options: Sequence[str]) -> str | None:
    """mitmproxy's option ``cert_passphrase`` among ``OPTION=VALUE``; None where there is none."""
    return _last(options, "cert_passphrase") or None


def _last(options: Sequence[str], wanted: str) -> str:
    """The last value of an option; empty where it has none."""
    return next((each.partition("=")[2] for each in reversed(options) if each.startswith(f"{wanted}=")), "")
