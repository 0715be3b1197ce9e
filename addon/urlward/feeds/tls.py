"""TLS contexts for servers that are fetched from or written to: their CAs, and the client's certificate."""

import re
import ssl
from pathlib import Path

from urlward.feeds.source import FetchError
from urlward.regular import open_regular, read_regular

_PEM = re.compile("(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----").findall


def context(ca: str | None, client_cert: str | None = None, client_key: str | None = None) -> ssl.SSLContext:
    """Make a context that verifies certificates and names.

    Args:
        ca: file of the CAs to trust in place of the system's.
        client_cert: file of our certificate and its chain, PEM.
        client_key: file of its key; where not given, it is in the file of the certificate.

    Raises:
        FetchError: a file is not readable, or not what it should be ("settings", "secret").
    """
    made = ssl.create_default_context(cadata=None if ca is None else _certificates(ca))
    # From 3.13 on Python refuses authorities without keyUsage, as `openssl req -x509` makes them by itself.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if client_cert is not None:
        _identify(made, client_cert, client_key)
    return made


def proxy_context(ca: str | None) -> ssl.SSLContext:
    """Make a context for the proxy's own certificate: the system's CAs, and those of the feed's file."""
    made = context(None)
    if ca is not None:
        made.load_verify_locations(cadata=_certificates(ca))
    return made


def _certificates(path: str) -> str:
    """Read the certificates in a file; what stands around them, such as names in any script, is left out.

    Raises:
        FetchError: not readable, or there are none ("settings").
    """
    try:
        found = "\n".join(_PEM(read_regular(Path(path)).decode("ascii", "ignore")))
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except (OSError, ValueError) as e:
        raise FetchError(f"{path!r}: {_words(e, 'no CA certificates in PEM form')}", "settings") from None
    return found


def _identify(made: ssl.SSLContext, cert: str, key: str | None) -> None:
    for path in filter(None, (cert, key)):
        try:
            open_regular(Path(path)).close()
        except (OSError, ValueError) as e:
            raise FetchError(f"{path!r}: {_words(e, 'not a file')}", "secret") from None
    try:
        made.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError):
        # OpenSSL's words may quote from the file.
        raise FetchError(
            f"{cert!r}: no certificate and key that belong together, in PEM form without a passphrase",
            "secret",
        ) from None


def _no_password() -> bytes:
    """Refuse to give a password: without this, OpenSSL asks for one on the terminal."""
    raise ValueError


def _words(error: OSError | ValueError, otherwise: str) -> str:
    said = None if isinstance(error, ssl.SSLError | ValueError) else error.strerror
    return said or otherwise
