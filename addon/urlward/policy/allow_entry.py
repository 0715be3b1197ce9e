"""Entry of a temporary allow, made from a URL: a page, or a host and its subdomains."""

from ipaddress import ip_network
from typing import Literal, NamedTuple

from urlward.engine.errors import EntryError, UrlError, UrlwardError
from urlward.engine.grammar import parse_line
from urlward.engine.url import (
    DEFAULT_PORTS,
    CanonicalUrl,
    canonicalize,
    is_address,
    split_authority,
    split_url,
)

Kind = Literal["page", "host"]


class AllowError(UrlwardError):
    """An allow that cannot be made or ended, or a damaged record of allows."""


class Allowed(NamedTuple):
    """Entry that allows a URL.

    Attributes:
        canonical: the URL's canonical form.
        kind: ``page``, or ``host`` for a host and its subdomains.
        line: the entry, in the grammar.
    """

    canonical: CanonicalUrl
    kind: Kind
    line: str

    def is_named_in(self, words: str) -> bool:
        """Whether words contain the host; one without a dot may be a word like any other."""
        name = self.canonical.host.strip("[]").removeprefix("www.")
        return not name.isalnum() and name in words.lower()


def allowed_by(url: str, *, whole_host: bool = False) -> Allowed:
    """Make the entry for a URL: that page, with its query's parameters where it has some; a host alone, with
    a port or without, is the host and its subdomains.

    Args:
        url: as typed.
        whole_host: whether a URL stands for its host.

    Raises:
        AllowError: it has no canonical form, or cannot be an entry.
    """
    try:
        raw = url.encode(errors="surrogateescape")
        scheme, authority, target = split_url(raw)
        port = split_authority(authority)[1]
        canonical = canonicalize(raw)
    except UrlError as e:
        raise AllowError(f"not a URL or host: {e}") from e
    if not scheme and target and _is_network(canonical.host, target):
        raise AllowError(
            "a network; what is allowed is a page or a host: give one address, or http:// before it"
        )
    kind: Kind = "host" if whole_host or not (scheme or target) else "page"
    line = _host_line(canonical.host) if kind == "host" else _page_line(canonical)
    if port is not None and port != DEFAULT_PORTS.get(scheme):
        line += f" port={port}"
    try:
        parse_line(line)
    except EntryError as e:
        raise AllowError(f"cannot be an entry: {e.reason}") from e
    return Allowed(canonical, kind, line)


def _is_network(host: str, target: str) -> bool:
    """Whether the text after an address is the length of a prefix, or a mask."""
    try:
        ip_network(host.strip("[]") + target, strict=False)
    except ValueError:
        return False
    return True


def _host_line(host: str) -> str:
    if "." not in host and not is_address(host):
        raise AllowError("a name without a dot, all of a top-level domain: give a page, or a host under it")
    return f"@@{host}"


def _page_line(canonical: CanonicalUrl) -> str:
    host, path, query, _ = canonical
    line = f"@@http://{host}{path}?{query}" if query else f"@@http://{host}{path}"
    # These have a meaning in the grammar; escaped they are the same URL.
    return line.replace("*", "%2A").replace('"', "%22")
