"""Canonical URLs: the one spelling that all spellings of a URL reduce to.

Hosts follow the WHATWG URL standard, paths and queries the Safe Browsing rules
(https://developers.google.com/safe-browsing/reference/URLs.and.Hashing), both for the same reason:
an origin serves one page under many spellings, and a filter that knows fewer of them than the
origin can be walked around. Where the two disagree, the form is chosen for which canonicalising
twice changes nothing.

Text inside this module is a *byte string*: a ``str`` whose characters are bytes (Latin-1), as a
request head carries it. `byte_string` makes one of real text, which only `split_url` and
`canonical_host` take as well.

A name off the wire goes through `host_readings`, whatever carried it: what no client could look up may
still reach an origin, which has its own idea of what is meant.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address
from string import ascii_letters, ascii_lowercase, digits
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

import can_ada

from urlward.engine.errors import UrlError
from urlward.engine.nat64 import WELL_KNOWN_NAT64

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
# No last label that could be a number (an IPv4 spelling).
_PLAIN_HOST = re.compile(r"(?:[a-z0-9_\-]++\.)*+(?!0x)[a-z0-9_\-]*[a-z_\-]\Z")
_PLAIN_LABEL = re.compile(r"[a-z0-9_\-]+").fullmatch
# What ends a host in a URL or an authority, and what cannot be in one at all.
_HOST_ENDS = re.compile(r"[\0-\x20\x7f/\\?#@:\[\]]+")
_IPV6_TEXT = re.compile(r"[0-9A-Fa-f:.]{3,45}")
_FORBIDDEN = re.compile(r"[\0-\x20\x7f#%/:<>?@\[\\\]^|]").search
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*").fullmatch
_CAPITAL_SHARP_S = re.compile(r"\u1e9e|%[eE]1%[bB][aA]%9[eE]").sub
_MOST_HOST = 8192
MOST_ODD_HOST = 1024
_UNLISTABLE = "~"
_PLAIN_PATH = re.compile(r"[!$&'()*+,\-./0-9:;=@A-Z\[\]^_`a-z{|}~\"<>]*").fullmatch
# The parameters of such a query are the same to all: no escapes, blanks or other marks between, no names with
# dots or brackets.
_PLAIN_PARAMETERS = re.compile(r"[!$'()*,\-/0-9:=@A-Z^_`a-z{|}~\"<>\\&]*+").fullmatch
_PLAIN_QUERY = re.compile(r"[!$'()*+,\-./0-9:;=?@A-Z\[\]^_`a-z{|}~\"<>\\&]*").fullmatch
_AUTHORITY = re.compile(r"[^/\\?#]*").match
_RFC_AUTHORITY = re.compile(r"[^/?#]*").match
STRIPPED = {9: None, 10: None, 13: None}
C0_AND_SPACE = "".join(map(chr, range(0x21)))

# Unescaping is confluent (an escape never overlaps another), so `%252525…` may be shortened first, and
# whole-string passes end in the fixed point that one byte after the other would end in.
MAX_DECODES = 8
"""Passes after which a text that has escapes still is refused."""
_MAX_STRAYS = 256
"""Percent signs that escape nothing, which no client that means well sends."""
MAX_ODD_PATH = 16 * 1024
"""Characters of a path that is not plain; common origins refuse 8 or 16 KiB."""
_MAX_SEGMENTS = 1024
"""Segments of a path that has dot segments."""
_MAX_PARAMETERS = 1000
"""Parameters of a query, which is what common origins take."""
_MAX_PATHS = 256
"""Those of them that have a slash, in all their spellings."""
_MOST_NUMBER = 4_000
"""Digits of a number, the zeros in front of it apart; Python reads no more than 4,300."""
_MAX_NUMBERS = 256
"""Segments of a path that may be numbers in another spelling."""
_LEAST_IN_FRONT = 4
"""Digits of a number that a path begins with: `/007` may be another user than `/7`."""
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NESTED_PERCENT = re.compile(r"%(?:25){2,}")
SLASHES = re.compile(r"/{2,}")


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
        UrlError: the URL is empty or of a scheme without a host, or has one host to browsers and another to
            curl and Python, which take a backslash for a part of user information (RFC 3986 section 3.2.1).
    """
    url = url.decode("latin-1") if isinstance(url, bytes) else byte_string(url)
    text = url.strip(C0_AND_SPACE)
    if not text.isprintable():
        text = text.translate(STRIPPED)
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
    if text[end : end + 1] == "\\" and "@" in _RFC_AUTHORITY(text)[0]:  # type: ignore[index]
        raise UrlError("a backslash in front of an @: programs differ in which host is meant")
    return scheme, text[:end], text[end:]


def byte_string(text: str) -> str:
    """Real text as the bytes of its UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


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
    digits = host[colon + 1 :].translate(STRIPPED)
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
    Unlike in the standard, an A-label in a name all of ASCII need not be valid: Chromium opens such names.

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


is_plain_host = _PLAIN_HOST.match
"""Whether a name as sent is canonical, the same to every origin, and no address."""


def _only(kept: str) -> bytes:
    """Table for `bytes.translate` that changes all bytes but these: where a text is soon compared with what
    becomes of it, an expression takes twice as long."""
    return bytes(byte if chr(byte) in kept else ord(kept[0]) for byte in range(256))


PLAIN_LABELS = _only("_-." + ascii_lowercase + digits)
"""Changes a host, unless all its labels are such as a plain host may have in front of others."""


def host_readings(host: str) -> tuple[str, ...]:
    """Every host that a name as sent could mean to an origin, each once, in canonical form.

    Most names have a canonical form and mean that. One that has none is more than one name: what stands
    before a colon (nginx reads ``name:x`` so in an SNI), in brackets (Caddy), or around white space or
    another character that ends a host; and what it is below, since ``*.name`` of an origin takes any bytes
    for a label. A label that no entry can have becomes ``~``. Where there are escapes or bytes beyond ASCII,
    an origin may compare them as they are, so that reading is judged beside the canonical form.

    Args:
        host: a byte string, without a port that is a number.

    Returns:
        The canonical form first, where there is one; nothing where there is no label (``..``).

    Raises:
        UrlError: empty, or too long for its readings to be judged in bounded time.
    """
    if not host:
        raise UrlError("no host")
    if len(host) > _MOST_HOST:
        raise UrlError("host is too long to be judged")
    if _PLAIN_HOST.match(host):
        return (host,)
    if any(c > "\xff" for c in host):
        host = byte_string(host)
    as_it_is = host.isascii() and "%" not in host
    found: dict[str, None] = {}
    with suppress(UrlError):
        found[canonical_host(host)] = None
        if not as_it_is:
            found[_literal(host)] = None
        return tuple(found)
    if len(host) > MOST_ODD_HOST:
        raise UrlError("host is too long to be judged")
    for text in (host, unescape_all(host)):
        for alone in (text, *in_ways_of_blanks(text)):
            first, *others = _HOST_ENDS.split(alone)
            # Digits behind something are a port.
            pieces = (first, alone, *(piece for piece in others if not piece.isdecimal()))
            found.update(dict.fromkeys(map(_reading, dict.fromkeys(pieces))))
        for run in _IPV6_TEXT.findall(text):
            for address in (run, run.rpartition(":")[0]) if run.count(":") > 1 else ():
                with suppress(UrlError):
                    found[canonical_host(f"[{address}]")] = None
    found.pop("", None)
    return tuple(found)


def in_ways_of_blanks(text: str, cut: Callable[[str], str] = str.strip) -> list[str]:
    """Text without the white space of Unicode at its ends.

    Go's origins drop what is white space in UTF-8, Python's what is in Latin-1 (U+0085 and U+00A0 too).
    """
    found = {text: None}
    for encoding in ("utf-8", "latin-1"):
        # One may stand behind the other.
        for one in tuple(found):
            left = cut(one.encode("latin-1").decode(encoding, "surrogateescape"))
            found[left.encode(encoding, "surrogateescape").decode("latin-1")] = None
    del found[text]
    return list(found)


def _reading(text: str) -> str:
    with suppress(UrlError):
        return canonical_host(text)
    return _literal(text)


def _literal(text: str) -> str:
    """A host of the labels that text has as it is, empty where it has none."""
    labels = [label if _PLAIN_LABEL(label) else _UNLISTABLE for label in text.lower().split(".") if label]
    if labels and labels[-1] != _UNLISTABLE and _NUMBER(labels[-1]):
        labels[-1] = _UNLISTABLE  # or the host would be an address
    return ".".join(labels)


def _whatwg_host(host: str) -> str:
    host = host.translate(STRIPPED)
    if not host.isascii():
        with suppress(UnicodeError):
            host = host.encode("latin-1").decode("utf-8")
    if not host or any(c in host for c in "/\\?#@"):
        raise UrlError("no host" if not host else "host has a character that ends it")
    if not host.startswith("["):
        if ":" in host:
            raise UrlError("host has a colon")
        host = _collapse_dots(host)
        if host.isascii():
            plain = unquote_to_bytes(host).decode("latin-1").lower()
            if plain.isascii():
                if _FORBIDDEN(plain):
                    raise UrlError("not a valid host")
                plain = _collapse_dots(plain)
                if plain and not _NUMBER(plain.rpartition(".")[2]):
                    return plain
    elif 0 < host.find("]") < len(host) - 1:
        raise UrlError("host has something behind its bracket")
    try:
        # As browsers have it since Unicode 15.1, Ada not yet; `ss` would be another's name.
        parsed: str = can_ada.parse(f"http://{_CAPITAL_SHARP_S('ß', host)}/").hostname
    except (ValueError, TypeError, UnicodeError, RuntimeError) as e:
        raise UrlError("not a valid host") from e
    if parsed.startswith("["):
        return _unmapped(IPv6Address(parsed[1:-1]))
    return _collapse_dots(parsed)


def _collapse_dots(host: str) -> str:
    if host.startswith(".") or host.endswith(".") or ".." in host:
        return ".".join(filter(None, host.split(".")))
    return host


def _unmapped(address: IPv6Address) -> str:
    mapped = address.ipv4_mapped or WELL_KNOWN_NAT64.inner(address)
    return str(mapped) if mapped is not None else f"[{address.compressed}]"


def is_address(host: str) -> bool:
    """Whether a canonical host is an IP address (no other canonical host ends in a digit label)."""
    return host.startswith("[") or (host[-1:].isdigit() and host.rpartition(".")[2].isdigit())


# Less what some origin reads in another way: parameters, sessions, blanks, braces.
_PLAIN_TO_ALL = "/!$&'()*,-.:=@[]^_`|}~\"<>" + ascii_letters + digits
PLAIN_MARKS = bytes(
    ord("/" if chr(byte) in ".(" else chr(byte)) if chr(byte) in _PLAIN_TO_ALL else ord("?")
    for byte in range(256)
)
"""Table for `bytes.translate`. A path with a slash in front is plain (`is_plain_path`) where it becomes one
without ``?`` and ``//``; so do nearly all that are, but for those with two dots or parentheses in a row."""

has_plain_parameters = _PLAIN_PARAMETERS
"""Whether the names and values in a query as sent are the same to every origin."""


def canonical_path(path: str) -> str:
    """Reduce a path as sent to its canonical form; linear in its length.

    Dot segments go before empty ones, as in the WHATWG URL standard (section 4.4): a client that is
    given ``/a/b//..`` asks for ``/a/b/``.

    Raises:
        UrlError: escapes nested too deep, or too long, or of too many segments, for a path that is not plain.
    """
    if _PLAIN_PATH(path) and "//" not in path and "/." not in path and path.startswith("/"):
        return path
    return path_of_unescaped(unescape_all(bounded(path)))


def path_asked_for(path: str) -> str:
    """The canonical path of one in a list, of which clients ask for what is left without its dot segments: of
    ``/a%2Fb/../c`` that is ``/c`` (RFC 3986 section 5.2.4), though ``/a/c`` is a reading of the whole.

    Raises:
        UrlError: as `canonical_path`.
    """
    if "%" in path:
        dots = path.replace("%2e", ".").replace("%2E", ".").replace("\\", "/")
        path = without_dots(dots, merge=False)
    return canonical_path(path)


def bounded(path: str) -> str:
    """A path, if it can be looked at in bounded time.

    Raises:
        UrlError: it cannot.
    """
    if len(path) > MAX_ODD_PATH:
        raise UrlError(
            f"a path with escapes, braces or empty segments is longer than {MAX_ODD_PATH} characters"
        )
    return path if path.isprintable() else path.translate(STRIPPED)


def path_of_unescaped(unescaped: str) -> str:
    """The canonical path of one that is unescaped wholly."""
    return spelled(without_dots(unescaped.replace("\\", "/"), merge=False))


def spelled(path: str) -> str:
    """A path without escapes, written as entries are: no empty segments, all but printable ASCII escaped."""
    if not path.startswith("/"):
        path = "/" + path
    if "//" in path:
        path = SLASHES.sub("/", path)
    return path.translate(_ESCAPE_PATH)


def without_dots(path: str, *, merge: bool, unescape: bool = False) -> str:
    """Take dot segments out of a path: ``/a//../b`` is ``/b`` to an origin that merges slashes first.

    With `unescape` the other segments are unescaped once, and what has been an escaped slash parts them.

    Raises:
        UrlError: more segments than a limit.
    """
    if "/." not in path and not path.startswith("."):
        return path
    if path.count("/") > _MAX_SEGMENTS:
        raise UrlError(f"a path with dot segments has more than {_MAX_SEGMENTS} segments")
    segments: list[str] = []
    first, *parts = path.split("/")
    if first:
        parts.insert(0, first)
    for part in parts:
        if part == "..":
            if segments:
                segments.pop()
        elif unescape and "%" in part:
            segments += unescape_once(part).split("/")
        elif part != "." and (part or not merge):
            segments.append(part)
    if parts[-1] in (".", "..") or (merge and not parts[-1]):
        segments.append("")
    return "/" + "/".join(segments)


_BEYOND_ASCII = re.compile("(?:%[89A-F][0-9A-F])+").sub


def lowered(text: str) -> str:
    """A canonical path or parameter in lower case, in which it is compared where case does not count."""
    return (_BEYOND_ASCII(_in_lower_case, text) if "%" in text else text).lower()


def _in_lower_case(escaped: re.Match[str]) -> str:
    try:
        return quote(unquote(escaped[0], errors="strict").lower())
    except UnicodeDecodeError:
        return escaped[0]


def canonical_query(query: str) -> str:
    """Reduce a query as sent to its canonical form; an escaped ``&`` or ``+`` stays escaped.

    To form decoding these two are marks where they stand bare and text where they are escaped.

    Raises:
        UrlError: escapes nested too deep.
    """
    if not query or _PLAIN_QUERY(query):
        return query
    text = query if query.isprintable() else query.translate(STRIPPED)
    if "%" in text:
        text = unescape_all(text, _marks_kept).replace("%26", _AMPERSAND).replace("%2B", _PLUS)
    return text.translate(_ESCAPE_QUERY)


def _marks_kept(text: str) -> str:
    for mark in ("%26", "%2b", "%2B"):
        text = text.replace(mark, f"%25{mark[1:].upper()}")
    return text


def query_value(query: str, name: str) -> str:
    """The first value of a parameter, unescaped; empty where there is none.

    Raises:
        UrlError: too many percent signs that escape nothing.
    """
    values = (piece.partition("=")[2] for piece in query.split("&") if piece.startswith(f"{name}="))
    return unescape_once(next(values, "").replace("+", " "))


def query_parameters(query: str) -> frozenset[str]:
    """The parameters of a canonical query, in the spelling in which they compare.

    Form decoding makes ``+`` and ``%20`` one, and ``a`` and ``a=`` one, so both are here. Names are as PHP
    folds them (https://www.php.net/variables.external): a blank, a dot or an open bracket is ``_``.
    """
    return frozenset(map(_folded, _parameters(query.replace("+", "%20").split("&"))))


def request_parameters(query: str, *, loosely: bool = True) -> frozenset[str]:
    """The parameters that a query as sent has to any common origin.

    Those of `query_parameters`, the same with names as they are and as libraries for nested parameters read
    them, with values without blanks around them, and all where ``;`` separates too, where more than one ``?``
    begins the query, and without any at its end, as Pound has it where it rewrites a path. Where a path
    begins the query, that path alone is one as well. A value that is a path is there in each spelling of it.

    Args:
        query: as sent.
        loosely: whether values are there as programs may take them, too: paths without dot segments, and
            numbers without zeros or a plus in front, in digits of ASCII (Java and Python read any), without
            `_` between them (Python), decimal where they are to another base (JavaScript, Spring), without
            what follows them, or an exponent or what rounds them up (PHP, Ruby, MySQL).

    Raises:
        UrlError: more of them than origins take, or escapes nested too deep.
    """
    if _PLAIN_PARAMETERS(query) and query.lstrip("&")[:1] != "/" and query.count("&") <= _MAX_PARAMETERS:
        plain = _parameters(query.split("&"))
        if "/" not in query and not _MAY_BE_NUMBERS(query):
            return frozenset(plain)
        found = set(plain)
    else:
        # Escaped, a mark is in a value.
        sent = dict.fromkeys((query, query.rstrip("?"), query.replace(";", "&")))
        query, *others = [canonical_query(one).replace("+", "%20") for one in sent]
        if query.count("&") + query.count(";") > _MAX_PARAMETERS:
            raise UrlError(f"a query of more than {_MAX_PARAMETERS} parameters")
        found = _in_every_spelling(query, *others)
    if "/" in query:
        paths = [one for one in found if "/" in one]
        if len(paths) > _MAX_PATHS:
            raise UrlError(f"a query of more than {_MAX_PATHS} paths")
        found.update([spelling for one in paths for spelling in _paths(one, dots=loosely)])
    if loosely and ("%" in query or _MAY_BE_NUMBERS(query)):
        found.update([number for one in found for number in _as_numbers(one)])
    return frozenset(found)


_MAY_BE_NUMBERS = re.compile(r"=(?:0|\.[0-9]|[0-9]+[^0-9&])").search
_IN_NUMBERS = re.compile(r"(?<=\d)_(?=\d)").sub
_LEADING_NUMBER = re.compile(r"\+?(?:0[xX][0-9A-Fa-f]++|[0-9]++)").match
_DECIMAL = re.compile(r"\+?(?=[0-9]*+[.eE])(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?").match
_MOST_DECIMAL = 1e18
_LITERAL = re.compile(
    r"0(?:[xX](?=\w)0*+[0-9A-Fa-f]{,128}|[oO](?=\w)0*+[0-7]{,128}|[bB](?=\w)0*+[01]{,128})"
).fullmatch
# The user 007 is not the user 7, as the user_id 007 is.
_NAMES_A_TEXT = re.compile(
    r"(?i:\A[kqsuw]\Z|code|date|hash|isbn|key|login|name|nick|phone|query|search|sku|slug|tag|term|text|title"
    r"|token|user|version|word|zip)"
).search


def _as_numbers(parameter: str) -> set[str]:
    """A parameter with each number that programs take its value for."""
    name, _, value = parameter.partition("=")
    if len(value) > MAX_ODD_PATH or not ("%" in value or _MAY_BE_NUMBERS(f"={value}")):
        return set()
    if name != "u" and _is_of_texts(name):  # which is a user's number to forums (phpBB, SMF, vBulletin)
        return set()
    text = unquote(value)
    joined = _IN_NUMBERS("", text)
    # `15_1` is 151 to Python and 15 to PHP, to which, as to JavaScript, `1.5e1` is 15, and so is `14.999…`.
    found = {_number(joined), *[_number(match[0]) for t in (text, joined) if (match := _LEADING_NUMBER(t))]}
    if (match := _DECIMAL(text)) and (number := float(match[0])) < _MOST_DECIMAL:
        found.add(str(int(number)))
    return {f"{name}={number}" for number in found if number}


def _is_of_texts(name: str) -> bool:
    return _NAMES_A_TEXT(name) is not None and not name.lower().endswith("id")


def _number(text: str) -> str:
    """A number as programs write it; empty where a text is none."""
    digits = text.removeprefix("+")
    if digits.isdecimal():
        digits = digits.lstrip("0") or "0"
        return str(int(digits)) if len(digits) <= _MOST_NUMBER else ""
    return str(int(digits, 0)) if _LITERAL(digits) else ""


PADDED = (
    r"0(?!(?:(?<=/[0-9]{4}/0)|(?<=/[0-9]{4}/[0-9]{2}/0))[1-9](?![^/]))"
    r"(?:[0-9]++|[xXoObB][0-9A-Fa-f]++)(?![^/])"
)
"""Expression of a segment that may be a number to another base, or has zeros in front: no month or day."""
_MAY_BE_NUMBER = re.compile(rf"(?<=/)(?:{PADDED}|(?:[0-9]++%|[+%])[^/]*+)")


def numbered(path: str) -> tuple[str, int]:
    """A canonical path with its segments that are numbers as programs write them: to nearly all frameworks
    `05` is 5, to most ` 5` and `+5` are. Linear in its length.

    In front of all others, and behind what names a text, a few digits may be a user's name.

    Returns:
        It, and how many segments have been looked at.

    Raises:
        UrlError: too many are to be.
    """
    path, looked_at = _MAY_BE_NUMBER.subn(_as_segment, path, _MAX_NUMBERS + 1)
    if looked_at > _MAX_NUMBERS:
        raise UrlError(f"a path of more than {_MAX_NUMBERS} segments that may be numbers")
    return path, looked_at


def _as_segment(found: re.Match[str]) -> str:
    path, start = found.string, found.start()
    number = _number(unquote(found[0]).strip())
    above = path[path.rfind("/", 0, start - 1) + 1 : start - 1]
    if not number or (_is_of_texts(above) if above else len(number) < _LEAST_IN_FRONT):
        return found[0]
    return number


def _in_every_spelling(query: str, *others: str) -> set[str]:
    """The parameters of a canonical query, and of what it is too, but for the spellings of paths."""
    spellings = list(dict.fromkeys((query, query.lstrip("?"), *others)))
    spellings += [spelling.replace(";", "&") for spelling in spellings if ";" in spelling]
    found = {parameter for spelling in spellings for parameter in _parameters(spelling.split("&"))}
    if "%" in query:
        found.update(map(_trimmed, tuple(found)))
    found.update(map(_folded, tuple(found)), [_nested(one) for one in found if "[" in one or "]" in one])
    found.update([_OF_LIST(r"\1", one) for one in found if "[" in one])
    if query.lstrip("?&")[:1] == "/":
        found.update([path[0] for one in found if (path := _PATH_AS_NAME(one))])
    return found


def name_and_value(parameter: str, *, nocase: bool) -> tuple[str, str]:
    """What origins may hold against each other of a parameter of `request_parameters`.

    Case does not count in names, nor with `nocase` in values; ``id[]`` is another value of ``id``, and one
    path without a name of the next. Dot segments count.
    """
    name, equals, value = parameter.partition("=")
    if "/" in parameter and (spellings := _paths(parameter, dots=False)):
        name, value = (name, spellings[-1].partition("=")[2]) if equals else ("", spellings[-1])
    if ("[" in name or "]" in name) and (match := _NESTED_NAME(name)):
        name = match[1]
    return lowered(name), lowered(value) if nocase else value


def _paths(parameter: str, *, dots: bool) -> tuple[str, ...]:
    """A parameter whose value, or name where it has no value, is a path, with that as programs find a file or
    a page by it: without empty segments, nor with `dots` dot segments, with a slash in front and without, and
    at the end, too, only if it has one. The shortest is the last."""
    name, equals, value = parameter.partition("=")
    if not equals:
        name, value = "", name
    path = SLASHES.sub("/", f"/{value}")
    if dots:
        path = without_dots(path, merge=False)
    if "/" not in value or path == "/":
        return ()
    ends = (path, path[:-1]) if path[-1] == "/" else (path,)
    return tuple([f"{name}{equals}{end[begin:]}" for end in ends for begin in (0, 1)])


def _parameters(pieces: list[str]) -> list[str]:
    return [
        piece[:-1] if piece.endswith("=") and piece.find("=") == len(piece) - 1 else piece
        for piece in pieces
        if piece and piece != "="
    ]


# Tornado takes blanks and controls for blanks, and those around a value away.
_BLANKS = re.compile(
    r"(?:%(?:[01][0-9A-F]|20|C2%(?:85|A0)|E1%9A%80|E2%80%(?:8[0-9A]|A[89F])|E2%81%9F|E3%80%80|EF%BB%BF))+"
).finditer


def _trimmed(parameter: str) -> str:
    """A parameter without the blanks around its value."""
    name, equals, value = parameter.partition("=")
    start, end = 0, len(value)
    for run in _BLANKS(value):
        if run.start() == 0:
            start = run.end()
        if run.end() == len(value):
            end = max(start, run.start())
    return f"{name}{equals}{value[start:end]}" if value[start:end] else name


# `[a]` is `a` to qs, which Express takes queries apart with; to Rack 2 `[a` and `a]` are, too.
_NESTED_NAME = re.compile(r"[\[\]]*([^\[\]=]+)\]*").match

# `a[]=5` and `a[0]=5` are a list of one to qs and to Rack, which databases' drivers compare with its element.
_OF_LIST = re.compile(r"\A([^=]+)\[[0-9]{0,2}\](?==|\Z)").sub


# `?/a/5` is a page of programs that go by a query's first name (Piwigo), or by it up to the next mark
# (CodeIgniter).
_PATH_AS_NAME = re.compile(r"/[^=?]+(?=[=?])").match


def _nested(parameter: str) -> str:
    """A parameter without the brackets around the first part of its name."""
    match = _NESTED_NAME(parameter)
    return f"{match[1]}{parameter[match.end() :]}" if match else parameter


_LEADING_BLANKS = re.compile(r"\A(?:%20)+").sub
_FOLDS = re.compile(r"[.\[]|%20|%00").search


def _folded(parameter: str) -> str:
    """A parameter with its name as PHP makes a variable of it."""
    name, equals, value = parameter.partition("=")
    if not _FOLDS(name):
        return parameter
    name = _LEADING_BLANKS("", name.partition("%00")[0])
    name, bracket, index = name.partition("[")
    if "]" in index:
        # An array: its indices stay as they are, and what follows the last is dropped.
        bracket += index[: index.rfind("]") + 1]
    else:
        name, bracket = f"{name}{bracket}{index}".replace("[", "_"), ""
    return f"{name.replace('%20', '_').replace('.', '_')}{bracket}{equals}{value}"


def unescape_once(text: str) -> str:
    """Percent-decode once; a ``%`` that escapes nothing stays.

    Python decodes the escapes of its own literals in C, and percent-encoding in a loop.

    Raises:
        UrlError: too many percent signs that escape nothing.
    """
    if "%" not in text:
        return text
    literal = text.replace("\\", "\\\\").replace("%", "\\x").encode("latin-1")
    try:
        return literal.decode("unicode_escape")
    except UnicodeDecodeError:
        text, strays = _STRAY_PERCENT.subn("%25", text, _MAX_STRAYS + 1)
        if strays > _MAX_STRAYS:
            raise UrlError(f"more than {_MAX_STRAYS} percent signs that escape nothing") from None
        return unescape_once(text)


def unescape_all(text: str, kept: Callable[[str], str] | None = None) -> str:
    """Percent-decode until nothing changes.

    Args:
        text: a byte string.
        kept: escapes once more what is to stay escaped.

    Raises:
        UrlError: escapes nested too deep.
    """
    for _ in range(MAX_DECODES):
        if "%" not in text:
            return text
        if "%2525" in text:
            text = _NESTED_PERCENT.sub("%25", text)
        decoded = unescape_once(kept(text) if kept is not None else text)
        if decoded == text:
            return text
        text = decoded
    if text != unescape_once(kept(text) if kept is not None else text):
        raise UrlError(f"escapes nested more than {MAX_DECODES} deep")
    return text


_AMPERSAND, _PLUS = "\u0100", "\u0101"
"""Stand for an escaped ``&`` and ``+`` while the rest is escaped."""


def escapes_of(unescaped: str) -> dict[int, str]:
    """Table for `str.translate` that escapes all bytes but these."""
    return {byte: f"%{byte:02X}" for byte in range(256) if chr(byte) not in unescaped}


LETTERS = "".join(c for c in map(chr, range(128)) if c.isalnum())
_ESCAPE_PATH = escapes_of(LETTERS + "!\"$&'()*+,-./:;=@[]^_`{|}~<>")
_ESCAPE_QUERY = escapes_of(LETTERS + "!\"$&'()*+,-./:;=?@[]\\^_`{|}~<>") | {
    ord(_AMPERSAND): "%26",
    ord(_PLUS): "%2B",
}
