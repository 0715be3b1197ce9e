"""``[page]`` and ``[objections]``: texts of the block page, its form, and the server that takes that."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from urlward.config.tables import SHAREABLE, Address, Addresses, FileName, Table, split_address


class HelpLink(Table):
    """Help link shown on the block page."""

    label: str
    url: str


class PageTable(Table):
    """``[page]``: texts of the block page; see `urlward.proxy.block_page.BlockPageSettings`."""

    operator: str = ""
    authority_url: str | None = None
    objection: str | None = None
    help: tuple[HelpLink, ...] = Field(default=(), strict=False)
    template_dir: FileName | None = None
    default_language: Annotated[str, SHAREABLE] = "en"
    texts: dict[str, dict[str, str]] = Field(default={})


# What would end the URL in a Content-Security-Policy or in an attribute, a query, which the form would lose,
# and an IPv6 address, which that policy has no way to write (CSP level 3, section 2.3.1).
_UNFIT = re.compile(r"[\s;,\"'<>\\?#@\[]|[^\x21-\x7e]").search


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or _UNFIT(value):
        raise ValueError("not an http:// or https:// URL without query")
    return value


class ObjectionsTable(Table):
    """``[objections]``; its presence puts the form on the block page.

    Attributes:
        url: where the form posts to, as clients reach it, by name or IPv4 address. In ASCII, without
            credentials, query, fragment, commas, semicolons and quotes.
        listen: HOST:PORT where objections are taken; another machine takes them where absent.
        proxies: addresses whose word on whom a request is from counts (``X-Forwarded-For``).
        per_hour: objections taken of one client: an IPv4 address, or an IPv6 network of 64 bits.
        per_hour_all: objections taken in all.
        max_length: characters of a message.
    """

    url: Annotated[str, AfterValidator(_url)]
    listen: Address | None = None
    proxies: Addresses = ()
    per_hour: Annotated[int, Field(ge=1, le=1000)] = 3
    per_hour_all: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_length: Annotated[int, Field(ge=1, le=4000)] = 1000

    @property
    def address(self) -> tuple[str, int] | None:
        """`listen` as host, without brackets, and port."""
        return None if self.listen is None else split_address(self.listen)
