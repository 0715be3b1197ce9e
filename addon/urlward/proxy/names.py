"""Every name and address by which a request could reach an origin.

A client and an origin may disagree about which host is meant: the Host field, the absolute form, the
pseudo-header, the SNI or the address dialled. What is listed under any of them is listed.
"""

import re
from ipaddress import ip_address
from typing import NamedTuple

from mitmproxy import http
from mitmproxy.proxy import mode_specs
from mitmproxy.proxy.context import Context

from urlward.engine.errors import UrlError
from urlward.engine.url import split_authority

_LINE_BREAK = re.compile(rb"[\r\n\0]").search
_NOT_A_TARGET = re.compile(rb"[\0-\x20\x7f]").search


class Names(NamedTuple):
    """What a request calls its destination.

    Attributes:
        hosts: each once, without port, byte strings as sent.
        ports: every port that is named, so that an entry with a port cannot be dodged by naming another.
        address: the destination's IP address, or empty.
        target: path and query as sent, a byte string; empty for CONNECT.
    """

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    address: str
    target: str


def names_of(request: http.Request, context: Context) -> Names:
    """Collect the names in a request's head and around it.

    Must see the request as it was sent: mitmproxy rewrites Host in reverse mode and the host
    attribute in transparent mode.

    Raises:
        UrlError: a head that two readers could read differently, two Host fields, none that could be
            checked, or one that is no authority.
    """
    _check_head(request, context)
    hosts: dict[str, None] = {}
    ports: dict[int, None] = {}
    scheme_port = 443 if context.client.tls or request.data.scheme == b"https" else 80

    def take(authority: str) -> None:
        if "@" in authority:
            # Some origins read what is in front of it, some what is behind (RFC 9110 section 4.2.4).
            raise UrlError("user information in a host")
        host, port = split_authority(authority)
        if host:
            hosts[host] = None
            ports[scheme_port if port is None else port] = None

    # `Host :` is not a field name, but some origin may take it for one.
    fields = [value for name, value in request.headers.fields if name.strip().lower() == b"host"]
    if len(fields) > 1:
        raise UrlError("more than one Host field")
    for value in (*fields, request.data.authority):
        take(value.strip(b" \t").decode("latin-1"))
    if request.data.host:
        hosts[request.data.host] = None
        ports[request.data.port or scheme_port] = None
    if context.client.sni:
        hosts[context.client.sni] = None
    address = ""
    if context.server.address is not None:
        host, port = context.server.address[:2]
        address = as_address(host)
        if not hosts and address and not _destination_is_configured(context):
            # An origin answers such a request with its default site, whose name nobody here knows.
            raise UrlError("no Host field")
        hosts[f"[{address}]" if ":" in address else host] = None
        ports[port] = None
    target = "" if request.data.method == b"CONNECT" else request.data.path.decode("latin-1")
    if target and not target.startswith("/") and target != "*":
        # In HTTP/2 a path is all that is allowed; sent on to an HTTP/1 origin this could name a host.
        raise UrlError("a path that does not begin with a slash")
    return Names(tuple(hosts), tuple(ports), address, target)


def as_address(host: str) -> str:
    """The host if it is an IP address (zone dropped), else empty."""
    host = host.partition("%")[0].strip("[]")
    try:
        ip_address(host)
    except ValueError:
        return ""
    return host


def _check_head(request: http.Request, context: Context) -> None:
    """Refuse what an origin could read as something else than we do (RFC 9112 sections 2.2, 3, 5.2)."""
    if any(_LINE_BREAK(name) or _LINE_BREAK(value) for name, value in request.headers.fields):
        raise UrlError("a folded field or a bare line break")
    if _NOT_A_TARGET(request.data.method) or _NOT_A_TARGET(request.data.path):
        raise UrlError("a blank or control character in the request line")
    multiplexed = context.client.alpn is not None and context.client.alpn[:2] in (b"h2", b"h3")
    if not multiplexed and request.data.http_version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise UrlError("not a version of HTTP that is spoken here")


def _destination_is_configured(context: Context) -> bool:
    """In reverse mode the operator has named the origin, by address perhaps."""
    return isinstance(context.client.proxy_mode, mode_specs.ReverseMode)
