"""``[objections]``: the form on the block page, and where it is taken."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from urlward.config.tables import Addresses, Table

_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^:\[\]\s]*)):([0-9]{1,5})", re.ASCII).fullmatch
# What would end the URL in a Content-Security-Policy or an attribute.
_UNFIT = re.compile(r"[\s;,\"'<>\\?#@]|[^\x21-\x7e]")


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or _UNFIT.search(value):
        raise ValueError(
            "is not an http:// or https:// URL of ASCII letters without query, fragment, credentials, "
            "quotes, commas and semicolons"
        )
    return value


def _listen(value: str) -> str:
    match = _LISTEN(value)
    if match is None or not 0 < int(match[3]) <= 0xFFFF:
        raise ValueError(f"{value!r} is not HOST:PORT, such as 192.0.2.1:8091 or [2001:db8::1]:8091")
    return value


class ObjectionsTable(Table):
    """``[objections]``.

    Attributes:
        url: where the block page's form posts to; no form where absent.
        listen: address on which objections are taken; they are not taken here where absent.
        proxies: addresses whose word on whom a request is from counts (``X-Forwarded-For``).
        per_hour: objections taken of one client: an IPv4 address, or an IPv6 network of 64 bits.
        per_hour_all: objections taken in all.
        max_length: characters of a message.
    """

    url: Annotated[str, AfterValidator(_url)] | None = None
    listen: Annotated[str, AfterValidator(_listen)] | None = None
    proxies: Addresses = ()
    per_hour: Annotated[int, Field(ge=1, le=10_000)] = 5
    per_hour_all: Annotated[int, Field(ge=1, le=10_000)] = 200
    max_length: Annotated[int, Field(ge=1, le=10_000)] = 2000

    @property
    def address(self) -> tuple[str, int] | None:
        """`listen` as host and port; an empty host stands for all addresses."""
        match = _LISTEN(self.listen or "")
        return (match[1] or match[2], int(match[3])) if match else None
