"""What the first bytes of a connection are: HTTP, or neither HTTP nor TLS."""

import re
from typing import Literal

_MAX_LINE = 1 << 12

# What origins pass over before a request: line breaks and blanks, if not NULs, which only make one doubtful.
_PASSED_OVER = b"\t\n\x0b\x0c\r "
# What an origin could read as a request line, if a lenient one: a word, blanks, and a target of any form.
_COULD_BE = re.compile(rb"[!-~]+[\x00-\x20]+(?:[/*\\%]|[A-Za-z][A-Za-z0-9+.-]*:)").match
_COULD_BEGIN = re.compile(rb"(?:[!-~]+(?:[\x00-\x20]+[A-Za-z0-9+.-]*)?)?").fullmatch


def kind_of(data: bytes) -> Literal["http", "other", "unknown"]:
    """What a client's first bytes are.

    Returns:
        ``other`` only where no origin would find a request in them, ``unknown`` where there are too few. What
        may still become a request when it should have, is ``http``.
    """
    text = data.lstrip(_PASSED_OVER)
    if _COULD_BE(text.lstrip(b"\0" + _PASSED_OVER)) or b"HTTP/" in data[:_MAX_LINE]:
        return "http"
    if not _COULD_BEGIN(text) or b"\n" in text:
        return "other"
    return "unknown" if len(data) < _MAX_LINE else "http"
