"""The certificate authority of interception, made under the operator's name, which users are to recognise."""

from collections.abc import Sequence
from pathlib import Path

from mitmproxy.certs import CertStore

NAME = "mitmproxy"
"""What the files begin with; mitmproxy looks for them so."""

CA_FILE = f"{NAME}-ca.pem"
"""Certificate and key, in mitmproxy's ``confdir``."""

KEY_SIZE = 2048

_LONGEST = 64
"""Of a common name or an organisation (RFC 5280, appendix A.1, ub-common-name); libraries count bytes."""

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
        OSError: the folder cannot be written to.
    """
    if (folder / CA_FILE).exists():
        return False
    name = operator.strip()
    common = _cut(name, _LONGEST - len(_WHAT)) + _WHAT if name else None
    CertStore.create_store(folder, NAME, key_size, _cut(name, _LONGEST) or None, common)
    return True


def _cut(text: str, size: int) -> str:
    """The beginning of a text, at most so many bytes of UTF-8."""
    return text.encode()[:size].decode(errors="ignore").strip()


def key_size_of(options: Sequence[str]) -> int:
    """mitmproxy's option ``key_size`` among ``OPTION=VALUE``: the last one, if it is a number."""
    sizes = [value for name, _, value in (option.partition("=") for option in options) if name == "key_size"]
    return int(sizes[-1]) if sizes and sizes[-1].isdecimal() else KEY_SIZE
