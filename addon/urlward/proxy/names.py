"""Every name and address by which a request could reach an origin.

A client and an origin may disagree about which host is meant: the Host field, the absolute form, the
pseudo-header, the SNI or the address dialled. What is listed under any of them is listed.
"""

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from mitmproxy import http
from mitmproxy.proxy import mode_specs

from urlward.engine.errors import UrlError
from urlward.engine.matcher import Matcher
from urlward.engine.url import split_authority
from urlward.proxy.head import RequestFields, RequestHead, forwards_url, frames_to_some

_LINE_BREAK = re.compile(rb"[\r\n\0]").search
# Node's `url.parse`, and Express with it, takes what is in no name for the beginning of the path.
_AUTHORITY = re.compile(r"[0-9A-Za-z.+_\-:@\[\]\x80-\xff]+(?=[/?#]|\Z)").match
# What ends a host in one reader ends the field's value in another (RFC 9112 section 3.2).
_HOST = re.compile(r"[^\0-\x20\x7f/\\?#@:\[\]]*|\[[0-9A-Fa-f:.]+\]").fullmatch
_BEGINNING = re.compile(r"[0-9A-Za-z.\-_]*+").match
"""A host up to what ends it to some reader: any byte that is in no name to webfs, and most of them to Node's
`url.parse`, which takes the rest for the beginning of the path. To Koa a comma does, behind escapes too."""
_ESCAPED_SLASH = re.compile(r"%(?:2[Ff]|5[Cc]|25)").search
_REMEMBERED = 1 << 9
"""Readings of Host fields and authorities: of a connection each, many of which lead to the same host."""
_SHORT = 1 << 8
"""Characters of fields and authorities whose reading is remembered, since they may be of any length."""
_FORWARDED_HOST = re.compile(r"(?i:\bhost)[ \t]*=([^;,]*)").findall
_BETWEEN_HOSTS = re.compile(r"[,\s]+").split
"""In X-Forwarded-Host; at blanks, too, to Rack."""
_ORIGIN_OF_URL = re.compile(r"\A[^/:]+://[^/]+").sub
"""To Zend, a whole URL in such a field is its path."""
_MOST_FORWARDED = 8
_NOT_A_TARGET = re.compile(rb"[\0-\x20\x7f]").search


class Client(Protocol):
    """Client side of a connection; mitmproxy's or the data path's.

    Attributes:
        id: unique.
        peername: the client's address and port.
        sockname: those of this machine that it came to; empty where it was led here untranslated.
        proxy_mode: that the connection came by.
        tls: whether it has begun TLS that ends here.
        alpn: protocol agreed on by ALPN inside TLS.
        sni: server name of that TLS, a byte string (`take_sni`).
    """

    id: str
    peername: tuple[Any, ...]
    sockname: tuple[Any, ...]
    proxy_mode: mode_specs.ProxyMode
    tls: bool
    alpn: bytes | None
    sni: str | None


class Context(Protocol):
    """Context of a connection; mitmproxy's or the data path's.

    Attributes:
        server: the origin side: host and port as its `address`, if they are known.
        layers: protocol layers around it.
    """

    server: Any
    layers: list[Any]

    @property
    def client(self) -> Client:
        """The client side."""


class Names(NamedTuple):
    """Names of a request's destination.

    Attributes:
        hosts: each once, without port, byte strings as sent.
        ports: every port that is named, so that an entry with a port cannot be dodged by naming another.
        address: the destination's IP address, or empty.
        target: path and query as sent, a byte string; empty for CONNECT and for what is not HTTP.
        tls: whether it is TLS that goes by these names.
        told: whether the log has said that it would be blocked, where nothing is.
        forwarded: lines of `RequestFields.forwarded`, of a request that has passed: in parts they would take
            many times the room, for as long as it is under way.
    """

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    address: str
    target: str
    tls: bool = False
    told: bool = False
    forwarded: bytes = b""


NO_NAMES = Names((), (), "", "")
"""Names of a request that passes although it could not be judged."""


def as_forwarded(names: Names) -> list[Names]:
    """Names of a request as programs have it that go by `Names.forwarded`, of whoever sent them: Rack and
    Rails take the host from there, older Symfony, Zend and Yii the target.

    Raises:
        UrlError: more of them than servers in front of each other add.
    """
    hosts: dict[str, None] = {}
    targets: dict[str, None] = {}
    for line in names.forwarded.split(b"\n") if names.forwarded else ():
        name, _, value = line.partition(b":")
        text = value.decode("latin-1")
        if name[-1:] in b"lL":
            text = _ORIGIN_OF_URL("", text)
            targets[text if text.startswith("/") else f"/{text}"] = None
            continue
        for authority in _FORWARDED_HOST(text) if name[:1] in b"fF" else _BETWEEN_HOSTS(text):
            with suppress(UrlError):  # what is no host is none to them either
                hosts[split_authority(authority.strip(' \t"'))[0]] = None
    for host in ("", *names.hosts):
        hosts.pop(host, None)
    targets.pop(names.target, None)
    if len(hosts) > _MOST_FORWARDED or len(targets) > 1:
        raise UrlError("too many hosts or targets in fields")
    if hosts:
        targets = {names.target: None} | targets
    return [names._replace(hosts=(*hosts, *names.hosts), target=target) for target in targets]


class Place:
    """Facts known of a connection before any request on it.

    Attributes:
        sni: the name that TLS was begun with, a byte string; or empty.
        address: the destination's IP address, or empty.
        port: its port, or 0.
        destination: its name, or its address as a host is written; or empty.
    """

    __slots__ = (
        "_asked", "_by_name", "_host", "_known", "_quiet", "_scheme_port", "_told", "address", "destination",
        "port", "sni",
    )  # fmt: skip

    ours: Final = True
    """Whether the data path carries it, and so shows a block page inside a tunnel."""

    def __init__(self, context: Context, *, https: bool = False) -> None:
        self.sni = (sni_of(context) or b"").decode("latin-1")
        self.address = ""
        self.port = 0
        self.destination = ""
        if context.server.address is not None:
            host, self.port = _host_of(context.server), context.server.address[1]
            self.address = as_address(host)
            self.destination = f"[{self.address}]" if ":" in self.address else host
        # In reverse mode the operator has named the origin, by address perhaps.
        self._by_name = not self.address or isinstance(context.client.proxy_mode, mode_specs.ReverseMode)
        self._told = is_told(context)
        self._scheme_port = 443 if context.client.tls or https else 80
        self._host: bytes | None = None
        self._asked: object = None
        self._known: tuple[tuple[str, ...], tuple[int, ...]] = ((), ())
        self._quiet: tuple[object, tuple[str, ...], bool] = (None, (), False)

    def names(self, head: RequestHead) -> Names:
        """The names in a request's head and around it.

        Raises:
            UrlError: as `names_of`.
        """
        fields, absolute = head.fields.hosts, head.absolute
        if absolute is None:
            target = head.target.decode("latin-1")
            if len(fields) == 1 and target.startswith("/"):
                # Requests of one connection have the same Host, nearly always.
                if fields[0] != self._host:
                    self._known = self.collect(fields)
                    self._host, self._asked = fields[0], None
                hosts, ports = self._known
                if not fields[0]:
                    target = _behind_no_host(target)
                return Names(hosts, ports, self.address, target, False, self._told)
            if head.method == b"CONNECT":
                hosts, ports = self.collect(fields, target)
                return Names(hosts, ports, self.address, "", False, self._told)
            has_none = target == "*" or target.startswith("/")
            absolute = ("", "", target) if has_none else split_absolute(target)
        scheme, authority, rest = absolute
        port = 443 if scheme == "https" else self._scheme_port
        if authority and self.destination:
            # Sent on as it is, it is a path to programs that put `http://` and the Host field in front of it.
            rest = target[target.index("//") :]
            if rest[2 + len(authority) :].startswith(("?", "#")):
                # thttpd and what came of it, and Drogon, look for the path behind it.
                raise UrlError("an absolute form without a path")
        # As above, of a proxy's client.
        asked = (authority, port, fields)
        if asked != self._asked:
            self._known = self.collect(fields, authority, scheme_port=port)
            self._asked, self._host = asked, None
        hosts, ports = self._known
        return Names(hosts, ports, self.address, rest, False, self._told)

    def collect(
        self, fields: Sequence[bytes], *authorities: str, scheme_port: int = 0
    ) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Hosts and ports, from Host fields, other authorities and the connection.

        Raises:
            UrlError: as `names_of`.
        """
        read = _read_hosts_lately if sum(map(len, (*fields, *authorities))) <= _SHORT else _read_hosts
        found, named = read(tuple(fields), authorities, scheme_port or self._scheme_port)
        if not (self.sni or self.destination):
            return found, named
        hosts, ports = dict.fromkeys(found), dict.fromkeys(named)
        if self.sni:
            hosts[self.sni] = None
        if self.destination:
            if not hosts and not self._by_name:
                # An origin answers such a request with its default site, whose name nobody here knows.
                raise UrlError("no Host field")
            hosts[self.destination] = None
            ports[self.port] = None
        return tuple(hosts), tuple(ports)

    def reached(self, address: str) -> None:
        """Remember the address that a name leads to, or that stands in for the one dialled, for the requests
        that follow; empty where that is yet to be found out, unless the name is an address itself."""
        if self.address != address and (self._by_name or address):
            self.address = address or (self.destination and as_address(self.destination))
            self._quiet = (None, (), False)

    def is_quiet(self, names: Names, matcher: Matcher) -> bool:
        """Whether nothing is listed on any of the hosts, and the address is not, so that only path
        sequences can match. Remembered for the hosts and the matcher of the last request."""
        known, hosts, quiet = self._quiet
        if known is not matcher.identity or hosts is not names.hosts:
            quiet = bool(names.hosts) and matcher.is_quiet(names.hosts, names.address)
            self._quiet = (matcher.identity, names.hosts, quiet)
        return quiet


def _read_hosts(
    fields: tuple[bytes, ...], authorities: tuple[str, ...], scheme_port: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Hosts and ports of Host fields and other authorities, as `Place.collect`."""
    if len(fields) > 1:
        raise UrlError("more than one Host field")
    hosts: dict[str, None] = {}
    ports: dict[int, None] = {}
    values = [value.strip(b" \t").decode("latin-1") for value in fields]
    for number, authority in enumerate((*values, *(each for each in authorities if each not in values))):
        if "@" in authority:
            # Some origins read what is in front of it, some what is behind (RFC 9110 section 4.2.4).
            raise UrlError("user information in a host")
        try:
            host, port = split_authority(authority)
        except UrlError:
            # Origins go by the name in a Host field, whatever digits follow; nobody connects there.
            host, _, digits = authority.rpartition(":")
            if authority in authorities or not (digits.isascii() and digits.isdecimal()):
                raise
            port = None
        if not is_host(host) or (number < len(values) and _ESCAPED_SLASH(host)):
            raise UrlError("a character that no host has")
        if host.strip("."):
            hosts[host] = None
            for first in (_BEGINNING(host)[0], host.partition(",")[0]):  # type: ignore[index]
                if first:
                    hosts[first] = None
            ports[scheme_port if port is None else port] = None
    return tuple(hosts), tuple(ports)


_read_hosts_lately = lru_cache(_REMEMBERED)(_read_hosts)


class FlowPlace(NamedTuple):
    """The same of one request that mitmproxy has read."""

    request: http.Request
    context: Context
    ours: bool = False

    def names(self, _: RequestHead) -> Names:
        """The names in the request and around it, as `names_of`."""
        return names_of(self.request, self.context)

    def is_quiet(self, names: Names, matcher: Matcher) -> bool:  # noqa: ARG002 - asked once
        """Not known."""
        return False


def head_of(request: http.Request) -> RequestHead:
    """What is read here of a request's head that mitmproxy has read."""
    found = list(request.headers.fields)
    forwarded = [(name, value) for name, value in found if forwards_url(name)]
    fields = RequestFields(1, keep_alive=True, all=found, forwarded=forwarded)
    return RequestHead(request.data.method, b"", fields)


def names_of(request: http.Request, context: Context) -> Names:
    """Collect the names in a request's head and around it.

    Must see the request as it was sent: mitmproxy rewrites Host in reverse mode and the host
    attribute in transparent mode.

    Raises:
        UrlError: a head that two readers could read differently, two Host fields, none that could be
            checked, or one that is no authority.
    """
    _check_head(request, context)
    place = Place(context, https=request.data.scheme == b"https")
    # `Host :` is not a field name, but some origin may take it for one.
    fields = [value for name, value in request.headers.fields if name.strip().lower() == b"host"]
    authorities = [request.data.authority.decode("latin-1")]
    if request.first_line_format == "absolute" and not _AUTHORITY(authorities[0]):
        raise UrlError("an absolute form with what is in no name")
    if request.data.host:
        host = _as_sent(request.data.host)
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        authorities.append(f"{host}:{request.data.port}" if request.data.port else host)
    hosts, ports = place.collect(fields, *authorities)
    target = "" if request.data.method == b"CONNECT" else request.data.path.decode("latin-1")
    if target and not target.startswith("/") and target != "*":
        # In HTTP/2 a path is all that is allowed; sent on to an HTTP/1 origin this could name a host.
        raise UrlError("a path that does not begin with a slash")
    if request.first_line_format == "absolute" and context.server.address:
        target = f"//{authorities[0]}{target}"  # as in `Place.names`
    elif target.startswith("/") and fields and not fields[0].strip(b" \t"):
        target = _behind_no_host(target)
    return Names(hosts, ports, place.address, target, False, is_told(context))


def _behind_no_host(target: str) -> str:
    """A target as it is judged behind an empty Host field: programs that put `http://` and the field in front
    of it, and have `new URL` read that, take its first segment for the host."""
    return f"/{target}"


def is_multiplexed(context: Context) -> bool:
    """Whether the client speaks HTTP/2 or HTTP/3, where a request is a stream and not the connection."""
    alpn = context.client.alpn or b""
    return alpn == b"h2" or alpn.startswith(b"h3")


def take_sni(context: Any, sni: bytes | None) -> None:
    """Note the server name of a client's TLS connection, in any bytes, where mitmproxy looks for it.

    mitmproxy's own reading is None for names with one of its characters out of place, and None means that
    there is no name. What mitmproxy cannot put into a certificate fails there, and the connection with it.
    """
    context.client.sni = None if sni is None else sni.decode("latin-1")


def sni_of(context: Context) -> bytes | None:
    """The server name that `take_sni` has noted."""
    sni = context.client.sni
    return None if sni is None else sni.encode("latin-1", "replace")


def names_of_tls(context: Context, sni: bytes | None) -> Names:
    """The names that a ClientHello goes to; they have no target."""
    place = Place(context)
    hosts = dict.fromkeys(filter(None, (sni.decode("latin-1") if sni else "", place.destination)))
    ports = (place.port,) if place.destination else ()
    return Names(tuple(hosts), ports, place.address, "", True, is_told(context))


def is_told(context: Context) -> bool:
    """Whether this is inside a tunnel already logged as one that would be blocked."""
    return any(getattr(part, "told", False) for part in context.layers)


def split_absolute(target: str) -> tuple[str, str, str]:
    """Cut a target in absolute form into scheme, authority and the target below it (RFC 9112 section 3.2.2).

    Raises:
        UrlError: it has no host, one with what is in no name, or a scheme other than http and https.
    """
    scheme, _, rest = target.partition("://")
    scheme = scheme.lower()
    authority = _AUTHORITY(rest)
    if scheme not in ("http", "https") or authority is None:
        raise UrlError("a target that is neither a path nor a URL")
    path = rest[authority.end() :]
    return scheme, authority[0], path if path.startswith("/") else f"/{path}"


def _host_of(server: Any) -> str:
    assert server.address is not None
    host = str(server.address[0])
    return host if getattr(server, "as_sent", False) else _as_sent(host)


def _as_sent(host: str) -> str:
    """A name that mitmproxy has decoded from its A-labels (IDNA 2003), in A-labels again."""
    if not host.isascii():
        with suppress(UnicodeError):
            return host.encode("idna").decode("ascii")
    return host


def is_host(text: str) -> bool:
    """Whether nothing in a name, as sent without port, ends a host for one reader and not for another."""
    return _HOST(text) is not None


def as_address(host: str) -> str:
    """The host if it is an IP address (zone dropped), else empty."""
    host = host.partition("%")[0].strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return ""
    return host


def _check_head(request: http.Request, context: Context) -> None:
    """Refuse what an origin could read as something else than we do (RFC 9112 sections 2.2, 3, 5.2)."""
    if any(_LINE_BREAK(name) or _LINE_BREAK(value) for name, value in request.headers.fields):
        raise UrlError("a folded field or a bare line break")
    if any(frames_to_some(name) for name, _ in request.headers.fields):
        raise UrlError("a field that some take for a message's length")
    if any(
        name.lower() == b"expect" and value.lower() != b"100-continue"
        for name, value in request.headers.fields
    ):
        # Which mitmproxy passes on, with the body, and asks its origin on: see `relay.Pending.unasked`.
        raise UrlError("an expectation that nobody knows")
    if _NOT_A_TARGET(request.data.method) or _NOT_A_TARGET(request.data.path):
        raise UrlError("a blank or control character in the request line")
    if not is_multiplexed(context) and request.data.http_version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise UrlError("not a version of HTTP that is spoken here")
