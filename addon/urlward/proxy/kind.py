"""What the first bytes of a connection are: HTTP, or neither HTTP nor TLS."""

import re
from typing import Literal

_MAX_LINE = 1 << 12

# What an origin could read as a request line, if a lenient one: a word, a blank, and a target of any form.
# Empty lines and blanks before it, and blanks of other kinds, are some origin's leniency too.
_COULD_BE = re.compile(rb"[\x00\t-\r ]*[!-~]+[\x00-\x20]+(?:[/*\\\\%]|[A-Za-z][A-Za-z0-9+.-]*:)").match
_COULD_BEGIN = re.compile(rb"[\x00\t-\r ]*(?:[!-~]+(?:[\x00-\x20]+[A-Za-z0-9+.-]*)?)?").fullmatch


def kind_of(data: bytes) -> Literal["http", "other", "unknown"]:
    """What a client's first bytes are.

    Returns:
        ``other`` only where no origin would find a request in them, ``unknown`` where there are too few.
    """
    if _COULD_BE(data) or b"HTTP/" in data[:_MAX_LINE]:
        return "http"
    if len(data) < _MAX_LINE and _COULD_BEGIN(data) and b"\n" not in data.lstrip():
        return "unknown"
    return "other"
