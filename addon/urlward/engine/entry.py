"""The list grammar: one line of text to the entries it stands for.

The grammar is described for its users in ``lists/README.md``. Reading is strict: a line that could
be meant in two ways is refused with a hint, because a wrong guess blocks somebody else's page.
"""

import re
from collections.abc import Iterator
from datetime import date
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from urlward.engine.errors import EntryError, UrlError
from urlward.engine.url import (
    DEFAULT_PORTS,
    canonical_host,
    canonical_path,
    canonical_query,
    query_parameters,
    split_authority,
    split_target,
    split_url,
)

MAX_LINE = 72 * 1024
"""Characters a line may have: a URL of 64 KiB and its attributes."""

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class Kind(IntEnum):
    """What an entry matches, the more specific the higher."""

    NETWORK = 1
    ADDRESS = 2
    NAME = 3
    PATH = 4
    DOMAIN = 5
    HOST = 6
    PREFIX = 7
    PAGE = 8
    PARAMS = 9

    @property
    def label(self) -> str:
        """The word used in verdicts and reports."""
        return self.name.lower()


HOST_LEVEL = frozenset({Kind.NETWORK, Kind.ADDRESS, Kind.NAME, Kind.DOMAIN, Kind.HOST})
"""Kinds that the host alone decides."""


class Entry(NamedTuple):
    """One thing to block, or to allow.

    Attributes:
        kind: which of the fields below count.
        host: canonical host; for NAME the labels before the suffix, for ADDRESS and NETWORK the
            network in CIDR form, for PATH empty.
        path: canonical path; for PREFIX and PATH with its last slash.
        params: for PARAMS, the parameters that must be there, in comparable spelling.
        allow: True for an ``@@`` entry.
        id: the list body's own reference, or empty.
        category: or empty.
        expires: last day in force, in days since 1970-01-01 (UTC); 0 for none.
        port: the only port it matches; 0 for any.
        nocase: letters of the path compare without regard to case (ASCII).
        subdomains: a page, prefix or parameter entry also matches on every subdomain.
    """

    kind: Kind
    host: str
    path: str = ""
    params: frozenset[str] = frozenset()
    allow: bool = False
    id: str = ""
    category: str = ""
    expires: int = 0
    port: int = 0
    nocase: bool = False
    subdomains: bool = False


_HOSTS_SINKS = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1"})  # noqa: S104 - names of sinks, nothing is bound
_HOSTS_OWN_NAMES = frozenset(
    {
        "localhost",
        "localhost.localdomain",
        "local",
        "broadcasthost",
        "ip6-localhost",
        "ip6-loopback",
        "ip6-localnet",
        "ip6-mcastprefix",
        "ip6-allnodes",
        "ip6-allrouters",
        "ip6-allhosts",
        "0.0.0.0",  # noqa: S104 - a line of common hosts files, nothing is bound
    }
)
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_IP_LIKE = re.compile(r"\[[0-9A-Fa-f:.]+\](?:/\d+)?|[0-9.]+(?:/\d+)?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:/\d+)?")
_NAME = re.compile(r"[^\s/:?#@*|^\\\[\]]+")
_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_CATEGORY = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_FLAGS = ("nocase", "subdomains")
_ATTRIBUTES = ("id", "category", "expires", "port", "note")


def parse_line(line: str) -> tuple[Entry, ...]:
    """Read one line; blank and comment lines give no entry, a hosts line may give several.

    Raises:
        EntryError: the line is not of the grammar.
    """
    if len(line) > MAX_LINE:
        raise EntryError(MAX_LINE, f"line is longer than {MAX_LINE} characters")
    words = list(_words(line))
    if not words or words[0][1][0] == "!":
        return ()
    column, subject = words[0]
    rest = words[1:]
    if subject in _HOSTS_SINKS and rest and "=" not in rest[0][1] and rest[0][1] not in _FLAGS:
        return _hosts_line(rest)
    allow = subject.startswith("@@")
    if allow:
        subject, column = subject[2:], column + 2
    try:
        entry = _subject(subject, column)
    except UrlError as e:
        raise EntryError(column, str(e)) from e
    if not rest and not allow:
        return (entry,)
    return (_attributes(entry._replace(allow=allow), rest),)


def _words(line: str) -> Iterator[tuple[int, str]]:
    if '"' not in line and "#" not in line:
        # The common line: one word, or a few without quotes.
        stripped = line.strip()
        if " " not in stripped and "\t" not in stripped:
            if stripped:
                yield line.index(stripped) + 1, stripped
            return
    for match in _WORD.finditer(line):
        if match[0].startswith("#"):
            return
        yield match.start() + 1, match[0]


def _hosts_line(words: list[tuple[int, str]]) -> tuple[Entry, ...]:
    names = [(c, w) for c, w in words if w not in _FLAGS and "=" not in w]
    attributes = [(c, w) for c, w in words if w in _FLAGS or "=" in w]
    entries = []
    for column, name in names:
        if name.lower() in _HOSTS_OWN_NAMES:
            continue
        host = _host(name, column)
        if _IP_LIKE.fullmatch(host):
            raise EntryError(column, "a hosts line names hosts, not addresses")
        entries.append(_attributes(Entry(Kind.HOST, host), attributes))
    return tuple(entries)


def _subject(text: str, column: int) -> Entry:
    if not text:
        raise EntryError(column, "nothing after @@")
    if "://" in text[:9]:
        return _url(text, column)
    if text.startswith("*/"):
        return _path_sequence(text, column)
    if _IP_LIKE.fullmatch(text):
        return _network(text, column)
    whole = False
    name = text
    if text.startswith("||"):
        whole = True
        name = text[2:]
        column += 2
        if not name.endswith("^"):
            raise EntryError(column, "an entry that begins with || ends with ^", "||example.test^")
        name = name[:-1]
        if _IP_LIKE.fullmatch(name):
            return _network(name, column)
    if name.endswith(".*"):
        return _name_under_suffix(name, column)
    if not _NAME.fullmatch(name):
        bad = next((i for i, c in enumerate(name) if not _NAME.fullmatch(c)), 0)
        hint = "a page begins with http://, a path on any host is */path/*"
        raise EntryError(column + bad, "not a host, address, page or path", hint)
    if name.startswith("."):
        raise EntryError(column, "a name does not begin with a dot", "example.test stands for its subdomains too")
    host = _host(name, column)
    if "." not in host and not whole and not host.startswith("["):
        raise EntryError(column, "a name without a dot", "write ||name^ if all of it is meant")
    if _IP_LIKE.fullmatch(host):
        return _network(host, column)
    return Entry(Kind.DOMAIN, host)


def _host(text: str, column: int) -> str:
    if not text.isascii():
        text = text.encode("utf-8", "surrogatepass").decode("latin-1")
    try:
        return canonical_host(text)
    except UrlError as e:
        raise EntryError(column, str(e)) from e


def _url(text: str, column: int) -> Entry:
    scheme, authority, target = split_url(text)
    host, port = split_authority(authority)
    host = strip_www(canonical_host(host))
    if port == DEFAULT_PORTS.get(scheme) or port is None:
        port = 0
    raw_path, raw_query = split_target(target)
    if raw_path.endswith("/*") and not raw_query:
        path = canonical_path(raw_path[:-1])
        if not path.endswith("/"):
            raise EntryError(column, "a prefix ends in a whole directory", "http://example.test/dir/*")
        return Entry(Kind.PREFIX, host, path, port=port)
    if "*" in raw_path or "*" in raw_query:
        star = text.find("*")
        raise EntryError(column + star, "* stands only at the end of a prefix, after a slash", "%2A is a literal *")
    params = query_parameters(canonical_query(raw_query))
    path = canonical_path(raw_path)
    return Entry(Kind.PARAMS if params else Kind.PAGE, host, path, params, port=port)


def _path_sequence(text: str, column: int) -> Entry:
    if len(text) < 4 or not text.endswith("/*"):
        raise EntryError(column, "a path on any host begins with */ and ends with /*", "*/gallery/one-two/*")
    inner = text[1:-1]
    if "*" in inner or "?" in inner or "#" in inner:
        raise EntryError(column, "a path sequence has no *, ? or # inside")
    if not inner.isascii():
        inner = inner.encode("utf-8", "surrogatepass").decode("latin-1")
    path = canonical_path(inner)
    if path == "/":
        raise EntryError(column, "a path sequence names at least one segment")
    if not path.endswith("/"):
        path += "/"
    return Entry(Kind.PATH, "", path)


def _network(text: str, column: int) -> Entry:
    try:
        network = canonical_network(text.replace("[", "").replace("]", ""))
    except ValueError as e:
        raise EntryError(column, "not an address or network", str(e).rpartition(" has ")[2]) from e
    kind = Kind.ADDRESS if network.prefixlen == network.max_prefixlen else Kind.NETWORK
    return Entry(kind, str(network))


def canonical_network(text: str) -> IPv4Network | IPv6Network:
    """An address or network, IPv4-mapped and NAT64 ones as IPv4.

    Raises:
        ValueError: neither, or host bits set.
    """
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        high = int(network.network_address) >> 32
        if high in (0xFFFF, 0x64FF9B << 64):
            return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _name_under_suffix(text: str, column: int) -> Entry:
    name = text[:-2]
    if "*" in name or not _NAME.fullmatch(name):
        raise EntryError(column, "a name under any suffix is name.*", "example.*")
    # Canonicalised beneath a label that cannot be mistaken for a number.
    host = _host(f"{name}.suffix", column)
    if not host.endswith(".suffix"):
        raise EntryError(column, "not a name")
    return Entry(Kind.NAME, host[: -len(".suffix")])


def _attributes(entry: Entry, words: list[tuple[int, str]]) -> Entry:
    if not words:
        return entry
    values: dict[str, object] = {}
    for column, word in words:
        name, equals, value = word.partition("=")
        value = value.strip('"')
        if name in values:
            raise EntryError(column, f"{name} is given twice")
        if name in _FLAGS and not equals:
            _check_flag(entry, name, column)
            values[name] = True
        elif name in _ATTRIBUTES and equals:
            values[name] = _value(name, value, column + len(name) + 1)
        else:
            known = ", ".join([f"{a}=" for a in _ATTRIBUTES] + list(_FLAGS))
            raise EntryError(column, "not an attribute", f"attributes are {known}")
    values.pop("note", None)
    if "nocase" in values:
        values["path"] = entry.path.lower()
    return entry._replace(**values)  # type: ignore[arg-type]


def _check_flag(entry: Entry, name: str, column: int) -> None:
    with_path = entry.kind in (Kind.PAGE, Kind.PARAMS, Kind.PREFIX)
    if name == "subdomains" and not with_path:
        raise EntryError(column, "subdomains goes with a page, prefix or parameter entry")
    if name == "nocase" and not with_path and entry.kind is not Kind.PATH:
        raise EntryError(column, "nocase goes with an entry that has a path")


def _value(name: str, value: str, column: int) -> object:
    if name == "id":
        if not _ID.fullmatch(value):
            raise EntryError(column, "id has 1 to 128 letters, digits, or ._:-")
        return value
    if name == "category":
        if not _CATEGORY.fullmatch(value):
            raise EntryError(column, "category has 1 to 64 letters, digits, or ._-")
        return value.lower()
    if name == "port":
        if not value.isascii() or not value.isdecimal() or len(value) > 5 or not 0 < int(value) < 65536:
            raise EntryError(column, "port is a number from 1 to 65535")
        return int(value)
    if name == "expires":
        try:
            day = date.fromisoformat(value).toordinal() - _EPOCH_ORDINAL
        except ValueError as e:
            raise EntryError(column, "expires is a date", "2027-01-31") from e
        if not 0 < day < 65536:
            raise EntryError(column, "expires is a date from 1970-01-02 to 2149-06-06")
        return day
    return value


def strip_www(host: str) -> str:
    """Drop one leading ``www.`` where a name with a dot remains."""
    return host[4:] if host.startswith("www.") and "." in host[4:] else host
