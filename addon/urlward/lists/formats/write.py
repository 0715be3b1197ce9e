"""Writer of grammar lines for values from foreign formats.

Values come from people we do not know, so nothing of them may be read as part of the grammar: white
space, quotes, ``#`` and ``*`` are escaped where they are part of a URL, and what cannot be an id or a
category is made one.
"""

import re
from datetime import UTC, datetime
from urllib.parse import unquote

from urlward.engine.entry import ALGORITHMS, strip_www
from urlward.engine.errors import UrlError
from urlward.engine.grammar import HOSTS_OWN_NAMES, entry_host
from urlward.engine.url import byte_string, canonical_host, is_address, split_authority, split_url
from urlward.lists.formats.format import NOT_UTF8, NotTakenError

# Nothing of the grammar in it but the URL; what it leaves over goes the long way.
_PLAIN_URL = re.compile(
    r"https?://[A-Za-z0-9.\-]+(?::[1-9][0-9]{0,4})?"
    r"(?:/[A-Za-z0-9_\-.,~!$&'()+:;=@%/]*(?:\?[A-Za-z0-9_\-.,~!$&'()+:;=@%/?]*)?)?"
).fullmatch
_PLAIN_NAME = re.compile(r"(?:[a-z0-9_\-]+\.)+(?!0x)[a-z0-9_\-]*[a-z_\-]").fullmatch
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(?=:[/\\]{2})").match
_WEB = ("http", "https", "ws", "wss")
_HEX = re.compile(r"[0-9A-Fa-f]+").fullmatch
_UNSAFE = re.compile(r"[^!$%&'()+,\-./0-9:;<=>?@A-Z\[\\\]^_`a-z{|}~]")
_DOTS = frozenset({".", ".."})
_SLASHES = re.compile(r"//+")
_ODD = re.compile(r"\\|%(?:2[e5f]|5c)", re.IGNORECASE).search
_NOT_ID = re.compile(r"[^A-Za-z0-9._:\-]+")
# From its beginning alone: the rest of a long text in ASCII would be read from each letter.
_NAMES = re.compile(r"(?<![^\s/\\:?#@&=,;])[^\s/\\:?#@&=,;]*[^\x00-\x7f\s][^\s/\\:?#@&=,;]*")
_NOT_CATEGORY = re.compile(r"[^A-Za-z0-9._\-]+")

FRAGMENT = "a fragment (#), which no request carries"


def attributes(id_: str = "", category: str = "", expires: str = "") -> str:
    """Format the attributes of an entry: a space and an attribute for each that is not empty.

    Args:
        id_: a reference; what an id cannot have becomes ``-``, and it is cut at 128 characters.
        category: likewise, at 64.
        expires: a date, or a date and time (ISO 8601), whose day in UTC is the last in force.

    Raises:
        NotTakenError: `expires` is neither.
    """
    text = ""
    if id_:
        text = f" id={_NOT_ID.sub('-', _spelled(id_))[:128]}"
    if category:
        text += f" category={category_of(category)}"
    if expires:
        text += f" expires={_day(expires)}"
    return text


def category_of(text: str) -> str:
    """Make a category of a text, as of `attributes`; empty of an empty one."""
    return _NOT_CATEGORY.sub("-", _spelled(text))[:64]


def _spelled(text: str) -> str:
    """A text with escapes read, and names in it as entries have them, so that those are found in it
    (`urlward.engine.telling`)."""
    if text.isascii() and "%" not in text:
        return text
    return _NAMES.sub(_as_of_entries, unquote(text))


def _as_of_entries(match: re.Match[str]) -> str:
    try:
        found = canonical_host(_utf8(match[0]))
    except (UrlError, NotTakenError):
        return match[0]
    return found if "." in found else match[0]  # a word is no host


def _day(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
    except (ValueError, OverflowError) as e:
        raise NotTakenError("expires is a date such as 2027-01-31", unsupported=False) from e
    return moment.date().isoformat()


def page(url: str) -> str:
    """Line for a page: never one for a host or a prefix, whatever is in the URL.

    Raises:
        NotTakenError: of a scheme that is not the web's, or port 0.
        UrlError: not a URL.
    """
    if _PLAIN_URL(url):
        return url
    scheme = _SCHEME(url)
    if scheme is not None and scheme[0].lower() not in _WEB:
        raise NotTakenError("a scheme that is not filtered: entries are http or https")
    name, authority, target = split_url(_utf8(url))
    host, port = split_authority(authority)
    if not name and ("@" in authority or not any(c in host for c in ".[")):
        raise NotTakenError("not a URL: no http:// and no name with a dot", unsupported=False)
    if port == 0:
        raise NotTakenError("port 0", unsupported=False)
    return f"{name or 'http'}://{entry_host(host)}{'' if port is None else f':{port}'}{_escaped(target)}"


def address(url: str) -> str:
    """Line for a URL as lists of URLs have it.

    What is only a host, without scheme or slash, is that host alone, any path: a list of URLs that names a
    host means no other host. With a dot in front it stands for subdomains too, as for Squid and firewalls.

    Raises:
        NotTakenError: as of `page`, or a name without a dot, a slip.
        UrlError: not a URL.
    """
    if _PLAIN_URL(url):
        return url
    below = url.startswith(".")
    url = url[below:]
    if url.startswith("//") or any(c in url for c in "/\\?#@"):
        return page(url) + " subdomains" * below
    host, port = split_authority(url)
    if "." not in host and not host.startswith("["):
        raise NotTakenError("a name without a dot", unsupported=False)
    if port == 0:
        raise NotTakenError("port 0", unsupported=False)
    return (domain if below else host_alone)(host) + (f" port={port}" if port else "")


def file_digest(algorithm: str, digest: str) -> str:
    """Line for a file.

    Raises:
        NotTakenError: not a digest of the algorithm.
    """
    if not _HEX(digest) or len(digest) != 2 * ALGORITHMS[algorithm]:
        digits = 2 * ALGORITHMS[algorithm]
        raise NotTakenError(f"a digest of {algorithm} has {digits} hexadecimal digits", unsupported=False)
    return f"{algorithm}:{digest.lower()}"


def prefix(host: str, path: str) -> str:
    """Line for all below a folder.

    Args:
        host: a name.
        path: from its first slash to its last.

    Raises:
        NotTakenError: the path has a query.
        UrlError: not a host.
    """
    if "?" in path:
        raise NotTakenError("a prefix with a query")
    return f"http://{entry_host(_bytes(host))}{_escaped(_bytes(path))}*"


def literal(path: str) -> str:
    """A path that a foreign list means letter by letter, with runs of slashes as one.

    Requests are compared in canonical form, in which runs of slashes are one; malware asks for ``//arm5`` and
    is found as ``/arm5``. What else would be another path in canonical form is refused: ``/a/../`` or ``//``
    as a prefix would be all there is on its host.

    Raises:
        NotTakenError: it has a fragment, dot segments, escaped or reversed slashes, or slashes alone.
    """
    if "#" in path:
        raise NotTakenError(FRAGMENT)
    if not _DOTS.isdisjoint(path.split("/")) or _ODD(path):
        raise NotTakenError("a path with dot segments, escaped slashes or backslashes")
    collapsed = _SLASHES.sub("/", path)
    if collapsed == "/" != path:
        raise NotTakenError("a path of nothing but slashes, which would be the whole host")
    return collapsed


def host_alone(text: str) -> str:
    """Line for a host without its subdomains, and any path on it.

    Raises:
        NotTakenError: an address in an odd spelling, or a name such as localhost.
        UrlError: not a host.
    """
    name = _name(text)
    if name in HOSTS_OWN_NAMES:
        raise NotTakenError("a name that is every machine's own", unsupported=False)
    # An address entry would block all hosts at that address.
    return f"http://{name}/*" if is_address(name) else f"0.0.0.0 {name}"


def has_www(text: str) -> bool:
    """Whether a page on this host is one of the host without ``www.``, as of entries.

    Raises:
        NotTakenError: as of `host_alone`.
        UrlError: not a host.
    """
    name = _name(text)
    return strip_www(name) != name


def domain(text: str) -> str:
    """Line for a host with its subdomains.

    Raises:
        NotTakenError: an address in an odd spelling.
        UrlError: not a host.
    """
    name = _name(text)
    if is_address(name):
        return f"http://{name}/*"
    return name if "." in name else f"||{name}^"


def _name(text: str) -> str:
    if _PLAIN_NAME(text):
        return text
    name = entry_host(_bytes(text))
    if is_address(name) and name.strip("[]") != text.strip("[]").lower():
        raise NotTakenError("a number for a name: an address is written 192.0.2.7", unsupported=False)
    return name


def _utf8(text: str) -> str:
    """The text, where it is some; bytes that are not are carried as surrogates.

    Raises:
        UrlError: it has any.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise UrlError(NOT_UTF8) from e
    return text


def _bytes(text: str) -> str:
    return byte_string(_utf8(text))


def _escaped(target: str) -> str:
    target = target.partition("#")[0]
    return _UNSAFE.sub(lambda m: f"%{ord(m[0]):02X}", target)
