"""The certificate authority of interception, made under the operator's name, which users are to recognise."""

import errno
from collections.abc import Sequence
from pathlib import Path

from mitmproxy.certs import CertStore

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
    CertStore.create_store(folder, NAME, key_size, _cut(name, _LONGEST) or None, common)
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


def _cut(text: str, size: int) -> str:
    """The beginning of a text, at most so many bytes of UTF-8."""
    return text.encode()[:size].decode(errors="ignore").strip()


def key_size_of(options: Sequence[str]) -> int:
    """mitmproxy's option ``key_size`` among ``OPTION=VALUE``: the last one, if it is a number."""
    sizes = [value for name, _, value in (option.partition("=") for option in options) if name == "key_size"]
    return int(sizes[-1]) if sizes and sizes[-1].isdecimal() else KEY_SIZE
