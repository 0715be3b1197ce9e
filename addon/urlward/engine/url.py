"""Canonical URLs: the one spelling that all spellings of a URL reduce to.

Hosts follow the WHATWG URL standard, paths and queries the Safe Browsing rules
(https://developers.google.com/safe-browsing/reference/URLs.and.Hashing), both for the same reason:
an origin serves one page under many spellings, and a filter that knows fewer of them than the
origin can be walked around. Where the two disagree, the form is chosen for which canonicalising
twice changes nothing.

Text inside this module is a *byte string*: a ``str`` whose characters are bytes (Latin-1), as a
request head carries it. Only `split_url` and `canonical_host` take real text.
"""

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import can_ada

from urlward.engine.errors import UrlError

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
# Not `xn--` (to be validated), and no last label that could be a number (an IPv4 spelling).
_PLAIN_HOST = re.compile(r"(?!.*xn--)(?:[a-z0-9_\-]+\.)*(?!0x)[a-z0-9_\-]*[a-z_\-]\Z")
_PLAIN_PATH = re.compile(r"[!$&'()*+,\-./0-9:;=@A-Z\[\]^_`a-z{|}~\"<>]*").fullmatch
_PLAIN_QUERY = re.compile(r"[!$'()*+,\-./0-9:;=?@A-Z\[\]^_`a-z{|}~\"<>\\&]*").fullmatch
_AUTHORITY = re.compile(r"[^/\\?#]*").match
_QUERY_MARKS = re.compile(r"([&+])")
_STRIP = {9: None, 10: None, 13: None}
_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_HEX = frozenset(b"0123456789abcdefABCDEF")
_NAT64 = IPv6Network("64:ff9b::/96")

# Full unescaping is confluent (an escape never overlaps another), so a few whole-string passes and
# one linear pass end in the same fixed point. The passes are fast for honest input, the linear one
# bounds the cost of `%252525…`.
_FAST_PASSES = 3


class CanonicalUrl(NamedTuple):
    """A URL in canonical form.

    Attributes:
        host: lower-case name, dotted IPv4 or bracketed IPv6.
        path: begins with ``/``; printable ASCII.
        query: without the ``?``; empty when absent.
        port: what the URL says, or its scheme's default; None where it has neither.
    """

    host: str
    path: str
    query: str
    port: int | None

    def __str__(self) -> str:
        return f"{self.host}{self.path}?{self.query}" if self.query else f"{self.host}{self.path}"


def canonicalize(url: str | bytes) -> CanonicalUrl:
    """Reduce a whole URL to its canonical form.

    Raises:
        UrlError: the URL has no host, or one that no client could look up.
    """
    scheme, authority, target = split_url(url)
    host, port = split_authority(authority)
    path, query = split_target(target)
    return CanonicalUrl(
        canonical_host(host),
        canonical_path(path),
        canonical_query(query),
        port if port is not None else DEFAULT_PORTS.get(scheme),
    )


def split_url(url: str | bytes) -> tuple[str, str, str]:
    """Cut a URL into scheme (may be empty), authority and target, the last two as byte strings.

    A URL without a scheme is read as one whose authority begins at once (``www.site.test/``).
    Slashes and backslashes count alike, as for a browser.

    Raises:
        UrlError: the URL is empty or of a scheme without a host.
    """
    if isinstance(url, bytes):
        url = url.decode("latin-1")
    elif not url.isascii():
        url = url.encode("utf-8", "surrogatepass").decode("latin-1")
    text = url.strip(_C0_AND_SPACE)
    if not text.isprintable():
        text = text.translate(_STRIP)
    scheme = ""
    match = _SCHEME.match(text)
    if match is not None:
        name, rest = match[1].lower(), text[match.end() :]
        if name in DEFAULT_PORTS:
            scheme, text = name, rest.lstrip("/\\")
        elif rest.startswith(("//", "\\\\")):
            raise UrlError("scheme is not one of http, https, ws, wss")
    elif text.startswith(("//", "\\\\")):
        text = text.lstrip("/\\")
    end = _AUTHORITY(text).end()  # type: ignore[union-attr]
    if end == 0:
        raise UrlError("no host")
    return scheme, text[:end], text[end:]


def split_authority(authority: str) -> tuple[str, int | None]:
    """Cut user information and port off an authority or Host value.

    Returns:
        The host as written, and the port or None.

    Raises:
        UrlError: the port is not a number from 0 to 65535.
    """
    host = authority.rpartition("@")[2]
    colon = host.rfind(":")
    if colon < 0 or colon < host.rfind("]"):
        return host, None
    digits = host[colon + 1 :].translate(_STRIP)
    host = host[:colon]
    if not digits:
        return host, None
    if not (digits.isascii() and digits.isdecimal()):
        raise UrlError("port is not a number")
    digits = digits.lstrip("0") or "0"
    if len(digits) > 5 or int(digits) > 65535:
        raise UrlError("port is larger than 65535")
    return host, int(digits)


def split_target(target: str) -> tuple[str, str]:
    """Cut a request target or the rest of a URL into path and query, dropping the fragment."""
    target = target.partition("#")[0]
    path, _, query = target.partition("?")
    return path, query


def canonical_host(host: str) -> str:
    """Reduce a host, without port, to its canonical form (WHATWG URL standard, section 3.5).

    A byte string is taken as UTF-8 where it is valid UTF-8. Surplus dots go; IPv4-mapped
    (RFC 4291 section 2.5.5.2) and NAT64 (RFC 6052 section 2.1) IPv6 addresses become IPv4.

    Raises:
        UrlError: not a host.
    """
    if _PLAIN_HOST.match(host):
        return host
    # A second round settles what the first brought forth: dots out of `%2e` or U+3002, an IPv4
    # address out of surplus dots. Each round only shortens, so this ends.
    for _ in range(8):
        found = _whatwg_host(host)
        if found == host:
            return found
        host = found
    raise UrlError("host has no canonical form")


def _whatwg_host(host: str) -> str:
    host = host.translate(_STRIP)
    if not host.isascii():
        with suppress(UnicodeError):
            host = host.encode("latin-1").decode("utf-8")
    if not host or any(c in host for c in "/\\?#@"):
        raise UrlError("no host" if not host else "host has a character that ends it")
    if not host.startswith("["):
        if ":" in host:
            raise UrlError("host has a colon")
        host = _collapse_dots(host)
    try:
        parsed: str = can_ada.parse(f"http://{host}/").hostname
    except (ValueError, TypeError, UnicodeError, RuntimeError) as e:
        raise UrlError("not a valid host") from e
    if parsed.startswith("["):
        return _unmapped(IPv6Address(parsed[1:-1]))
    parsed = _collapse_dots(parsed)
    if not parsed:
        raise UrlError("no host")
    return parsed


def _collapse_dots(host: str) -> str:
    if host.startswith(".") or host.endswith(".") or ".." in host:
        return ".".join(filter(None, host.split(".")))
    return host


def _unmapped(address: IPv6Address) -> str:
    mapped = address.ipv4_mapped
    if mapped is None and address in _NAT64:
        mapped = IPv4Address(int(address) & 0xFFFFFFFF)
    return str(mapped) if mapped is not None else f"[{address.compressed}]"


def is_address(host: str) -> bool:
    """Whether a canonical host is an IP address (no other canonical host ends in a digit label)."""
    return host.startswith("[") or (host[-1:].isdigit() and host.rpartition(".")[2].isdigit())


def canonical_path(path: str) -> str:
    """Reduce a path as sent to its canonical form; linear in its length."""
    if _PLAIN_PATH(path) and "//" not in path and "/." not in path and path.startswith("/"):
        return path
    path = _resolve(_unescape(path.translate(_STRIP)).replace("\\", "/"))
    return _escape(path, _ESCAPE_PATH)


def _resolve(path: str) -> str:
    """Take dot segments and empty ones out of a path."""
    segments: list[str] = []
    parts = path.split("/")
    for part in parts:
        if part == "..":
            if segments:
                segments.pop()
        elif part and part != ".":
            segments.append(part)
    if not segments:
        return "/"
    return "/" + "/".join(segments) + ("/" if parts[-1] in ("", ".", "..") else "")


def target_readings(target: str) -> tuple[str, ...]:
    """Other targets that an origin may make of one, because it unescapes once or keeps backslashes.

    A dot segment then takes away another segment than in the canonical form: ``/a%5Cb/../page`` is
    ``/page`` to nginx. Nearly every target has none.
    """
    path, query = split_target(target)
    if ("%25" not in path and "\\" not in path and "%5c" not in path.lower()) or ".." not in _unescape(path):
        return ()
    once = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    found: dict[str, None] = {}
    for text in (once, once.replace("\\", "/")):
        resolved = _resolve(text).replace("?", "%3F").replace("#", "%23")
        found[f"{resolved}?{query}"] = None
    return tuple(found)


def canonical_query(query: str) -> str:
    """Reduce a query as sent to its canonical form; an escaped ``&`` or ``+`` stays escaped.

    To form decoding these two are marks where they stand bare and text where they are escaped.
    """
    if not query or _PLAIN_QUERY(query):
        return query
    pieces = _QUERY_MARKS.split(query.translate(_STRIP))
    pieces[::2] = [_escape(_unescape(piece), _ESCAPE_QUERY) for piece in pieces[::2]]
    return "".join(pieces)


def query_parameters(query: str) -> frozenset[str]:
    """The parameters of a canonical query, in the spelling in which they compare.

    Form decoding makes ``+`` and ``%20`` one, and ``a`` and ``a=`` one, so both are here.
    """
    return frozenset(
        piece[:-1] if piece.endswith("=") and piece.find("=") == len(piece) - 1 else piece
        for piece in query.replace("+", "%20").split("&")
        if piece and piece != "="
    )


def _unescape(text: str) -> str:
    """Percent-decode until nothing changes (linear time, no bound to hide behind)."""
    if "%" not in text:
        return text
    data = text.encode("latin-1")
    for _ in range(_FAST_PASSES):
        decoded = unquote_to_bytes(data)
        if decoded == data:
            return data.decode("latin-1")
        data = decoded
    out = bytearray()
    for byte in data:
        out.append(byte)
        # A decoded byte can complete an escape whose start is already out (`%4%31`).
        while len(out) > 2 and out[-3] == 0x25 and out[-1] in _HEX and out[-2] in _HEX:
            value = int(out[-2:], 16)
            del out[-3:]
            out.append(value)
    return out.decode("latin-1")


_ESCAPE_PATH = re.compile(r"[^!\"$&'()*+,\-./0-9:;=@A-Z\[\]\\^_`a-z{|}~<>]")
_ESCAPE_QUERY = re.compile(r"[^!\"$'()*,\-./0-9:;=?@A-Z\[\]\\^_`a-z{|}~<>]")
_ESCAPED = {chr(byte): f"%{byte:02X}" for byte in range(256)}


def _escape(text: str, unsafe: re.Pattern[str]) -> str:
    return unsafe.sub(lambda m: _ESCAPED[m[0]], text)
