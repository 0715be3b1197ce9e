"""List grammar: parses one line of text into the entries it stands for.

The grammar is described for its users in ``docs/lists.md``. Reading is strict: a line that could
be meant in two ways is refused with a hint, because a wrong guess blocks somebody else's page.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any

from urlward.engine.entry import (
    ALGORITHMS,
    DISTANCE,
    PDQ,
    Entry,
    Kind,
    canonical_network,
    strip_www,
)
from urlward.engine.errors import EntryError, UrlError
from urlward.engine.telling import without_telling, without_telling_file
from urlward.engine.url import (
    DEFAULT_PORTS,
    byte_string,
    canonical_host,
    canonical_path,
    canonical_query,
    is_address,
    lowered,
    path_asked_for,
    query_parameters,
    split_authority,
    split_target,
    split_url,
)

MAX_LINE = 72 * 1024
"""Characters a line may have: a URL of 64 KiB and its attributes."""

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

_NO_PARAMS: frozenset[str] = frozenset()
HOSTS_SINKS = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1"})  # noqa: S104 - names of sinks, nothing is bound
"""Addresses of a hosts line that lead nowhere."""

HOSTS_OWN_NAMES = frozenset(
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
"""Names in common hosts files that are the machine's own: no entries."""

_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_MARKS = r"\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
_UNSEEN = re.compile(rf"(?<!\S)[{_MARKS}]++|(?<![{_MARKS}])[{_MARKS}]++(?!\S)")
"""Marks without width around a word, as chat programs, spreadsheets and joined files leave them."""
_IP_LIKE = re.compile(
    r"(?=[0-9\[A-Fa-f:])(?:\[[0-9A-Fa-f:.]+\](?:/\d+)?|[0-9.]+(?:/\d+)?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:/\d+)?)"
)
# Most lines are plain names and pages, already canonical: one match each instead of ten.
_LABELS = r"(?:[a-z0-9_\-]++\.)++(?!0x)[a-z0-9_\-]*[a-z_\-]"
_SEGMENT = r"/(?!\.)[A-Za-z0-9_\-.,~!$&'()+:;=@]++"
_PLAIN_LINE = re.compile(
    rf"(?:https?://(?:www\.)?((?!www\.){_LABELS})((?:{_SEGMENT})*+/?+)"
    r"(?:(?<=/)(\*)|\?([A-Za-z0-9_\-.,~!$&'()+:;=@/?]++))?"
    rf"|((?:0\.0\.0\.0|127\.0\.0\.1|::1?)[ \t]++)?({_LABELS})"
    rf"|\*((?:{_SEGMENT})++/)\*"
    r")(?:[ \t]++id=([A-Za-z0-9._:\-]{1,128}+))?(?:[ \t]++category=([A-Za-z0-9._\-]{1,64}+))?\s*+"
).fullmatch
_PLAIN_FILE = re.compile(
    r"(sha256:[0-9a-f]{64}|sha1:[0-9a-f]{40}|md5:[0-9a-f]{32}|pdq:[0-9a-f]{64})"
    r"(?:[ \t]+id=([A-Za-z0-9._:\-]{1,128}))?(?:[ \t]+category=([A-Za-z0-9._\-]{1,64}))?\s*"
).fullmatch
# Stricter than for a request, where a client may send anything: an entry is meant to match.
_ENTRY_HOST = re.compile(r"[a-z0-9_.\-]+|\[[0-9a-f:]+\]").fullmatch
_NAME = re.compile(r"[^\s/:?#@*|^\\\[\]]+")
_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}").fullmatch
_CATEGORY = re.compile(r"[A-Za-z0-9._\-]{1,64}").fullmatch
_FLAGS = ("nocase", "subdomains")
_OF_IIS = (".asp", ".aspx", ".ashx", ".asmx", ".axd")
_ENDS_IN = frozenset("dpxDPX")
_TYPESET = frozenset({"Pd", "Pe", "Pf", "Pi", "Ps"})

MOST_DISTANCE = 63
"""Bits at most by which a PDQ digest may differ: of two pictures that have nothing in common about 128 do."""

_HEX = re.compile(r"[0-9A-Fa-f]+").fullmatch
_OTHER_DIGEST = re.compile(
    r"(?:sha-?[0-9]{1,3}(?:-[0-9]{3})?|md[0-9]|blake[0-9a-z]+|photodna|phash|tlsh|ssdeep|xxh[0-9]+|crc32"
    r"|pdqf?|pdq_ocr|tmk|vpdq|video_md5|photo_md5):.*|(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})",
    re.IGNORECASE,
).fullmatch
"""What somebody means for a digest, of an algorithm that is none of `ALGORITHMS`, or is not said."""
_OF_NOTHING = frozenset(
    hashlib.new(name, usedforsecurity=False).hexdigest() for name in ALGORITHMS if name != PDQ
)
"""Digests of a file without a byte: lists have them by mistake, and nothing is said by them."""


def _id(value: str) -> str:
    if not _ID(value):
        raise ValueError("id has 1 to 128 letters, digits, or ._:-")
    return value


def _category(value: str) -> str:
    if not _CATEGORY(value):
        raise ValueError("category has 1 to 64 letters, digits, or ._-")
    return value.lower()


def _port(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 5 or not 0 < int(value) < 65536:
        raise ValueError("port is a number from 1 to 65535")
    return int(value)


def _expires(value: str) -> int:
    try:
        day = date.fromisoformat(value).toordinal() - _EPOCH_ORDINAL
    except ValueError as e:
        raise ValueError("expires is a date such as 2027-01-31") from e
    if not 0 < day < 65536:
        raise ValueError("expires is a date from 1970-01-02 to 2149-06-06")
    return day


def _distance(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 3 or int(value) > MOST_DISTANCE:
        raise ValueError(f"distance is a number from 0 to {MOST_DISTANCE}")
    return int(value)


_ATTRIBUTES: dict[str, Callable[[str], str | int]] = {
    "id": _id,
    "category": _category,
    "expires": _expires,
    "port": _port,
    "distance": _distance,
    "note": str,
}


class _Fault(Exception):
    """Fault at an offset in one of a line's words; the column is worked out when it is reported."""

    def __init__(self, word: int, offset: int, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.word = word
        self.offset = offset
        self.reason = reason
        self.hint = hint


def parse_line(line: str) -> tuple[Entry, ...]:
    """Read one line; blank and comment lines give no entry, a hosts line may give several.

    Raises:
        EntryError: the line is not of the grammar.
    """
    if len(line) > MAX_LINE:
        raise EntryError(MAX_LINE, f"line is longer than {MAX_LINE} characters")
    match = _PLAIN_LINE(line)
    if match is None:
        return _parse_odd(line)
    page_host, path, star, query, sink, host, sequence, id_, category = match.groups("")
    params = _NO_PARAMS
    if page_host:
        kind, host, path = Kind.PAGE, page_host, path or "/"
        if star:
            kind = Kind.PREFIX
        elif query:
            params = query_parameters(_with_ampersands(query, allow=False))
            kind = Kind.PARAMS if params else Kind.PAGE
    elif sequence:
        kind, path = Kind.PATH, sequence
    elif sink:
        kind = Kind.HOST
        if host in HOSTS_OWN_NAMES:
            return ()
    else:
        kind = Kind.DOMAIN
    if id_ or category:
        id_, category = without_telling(id_, category.lower(), host, path, params)
    # A named tuple's own constructor takes twice as long, a million times over.
    entry = tuple.__new__(Entry, (kind, host, path, params, False, id_, category, 0, 0, False, False, 0))
    return (_lowered(entry) if path[-1:] in _ENDS_IN and _is_of_iis(path, params) else entry,)


def _parse_odd(line: str) -> tuple[Entry, ...]:
    """As `parse_line`, of a line that is not in canonical form, or has more than an id and a category."""
    if (file := _plain_file(line)) is not None:
        return (file,)
    if not line.isascii():
        line = _UNSEEN.sub(lambda match: " " * len(match[0]), line)
    plain = '"' not in line and "#" not in line
    words = line.split() if plain else _WORD.findall(_without_comment(line))
    if not words or words[0][0] == "!":
        return ()
    if not plain and (quote := _unclosed_quote(line)) is not None:
        raise EntryError(quote + 1, "a quote that nothing closes", 'note="two words", and %22 is a literal "')
    try:
        return _parse_words(words)
    except _Fault as e:
        starts = [m.start() for m in _WORD.finditer(line)]
        column = (starts[e.word] if e.word < len(starts) else 0) + e.offset + 1
        raise EntryError(column, e.reason, e.hint) from None


def _parse_words(words: list[str]) -> tuple[Entry, ...]:
    subject = words[0]
    allow = subject.startswith("@@")
    sink = subject[2:] if allow else subject
    if len(words) > 1 and sink in HOSTS_SINKS and "=" not in words[1] and words[1] not in _FLAGS:
        return _hosts_line(words, allow)
    try:
        entry = _subject(subject[2:] if allow else subject, allow=allow)
    except UrlError as e:
        raise _Fault(0, 2 * allow, str(e)) from e
    except _Fault as e:
        e.offset += 2 * allow
        raise
    if len(words) == 1 and not allow:
        return (_check_file(entry, allow) if entry.kind is Kind.FILE else entry,)
    return (_attributes(entry, list(enumerate(words))[1:], allow),)


def _plain_file(line: str) -> Entry | None:
    """The entry of a file's line that is in canonical form; None too where something is wrong with it."""
    match = _PLAIN_FILE(line)
    if match is None:
        return None
    subject, id_, category = match.groups("")
    algorithm, _, digest = subject.partition(":")
    distance = DISTANCE if algorithm == PDQ else 0
    if digest in _OF_NOTHING or (distance and _is_flat(digest, distance)):
        return None
    id_, category = without_telling_file(id_, category.lower(), digest)
    entry = (Kind.FILE, algorithm, digest, _NO_PARAMS, False, id_, category, 0, 0, False, False, distance)
    return tuple.__new__(Entry, entry)


def _without_comment(line: str) -> str:
    """The line up to a ``#`` that begins a word (one inside a word is a URL's fragment)."""
    for match in _WORD.finditer(line):
        if match[0].startswith("#"):
            return line[: match.start()]
    return line


names_in_fragment = re.compile(r"(?!\s*@@)[^#]*[^\s#]#[!/][^\s]").match
"""Whether a line that blocks has a URL whose page is named behind ``#``, as applications in the browser do.
No request has that: the entry is the page in front of it, and all that it shows."""


def with_attribute(line: str, name: str, value: str) -> str:
    """Give a line an attribute, where it is an entry that has none of that name.

    Args:
        line: of the grammar, or what may be meant as one.
        name: of the attribute.
        value: as the grammar writes it, without white space.
    """
    entry = _without_comment(line)
    words = _WORD.findall(entry)
    if not words or words[0][0] == "!" or any(word.startswith(f"{name}=") for word in words[1:]):
        return line
    return f"{entry.rstrip()} {name}={value}"


def _unclosed_quote(line: str) -> int | None:
    """Offset of a quote before any comment that no other quote closes."""
    line = _without_comment(line)
    return line.rfind('"') if line.count('"') % 2 else None


def _hosts_line(words: list[str], allow: bool) -> tuple[Entry, ...]:
    numbered = list(enumerate(words))[1:]
    attributes = [(i, w) for i, w in numbered if w in _FLAGS or "=" in w]
    entries = []
    for i, name in numbered:
        if name in _FLAGS or "=" in name or name.lower() in HOSTS_OWN_NAMES:
            continue
        try:
            host = entry_host(byte_string(name))
        except UrlError as e:
            raise _Fault(i, 0, str(e)) from e
        if _IP_LIKE.fullmatch(host):
            raise _Fault(i, 0, "a hosts line names hosts, not addresses")
        entries.append(_attributes(Entry(Kind.HOST, host), attributes, allow))
    return tuple(entries)


def _subject(text: str, *, allow: bool) -> Entry:
    if not text:
        raise _Fault(0, 0, "nothing after @@")
    if "://" in text[:9]:
        return _url(text, allow=allow)
    algorithm, colon, digest = text.partition(":")
    if colon and algorithm.lower() in ALGORITHMS:
        return _file(algorithm.lower(), digest)
    if _OTHER_DIGEST(text):
        hint = ", ".join(f"{name}:…" for name in ALGORITHMS)
        raise _Fault(0, 0, "a digest of a file has its algorithm before it", hint)
    if text.startswith("*/"):
        return _path_sequence(text)
    if _IP_LIKE.fullmatch(text):
        return _network(text)
    name, offset = text, 0
    if text.startswith("||"):
        if not text.endswith("^"):
            raise _Fault(0, 0, "an entry that begins with || ends with ^", "||example.test^")
        name, offset = text[2:-1], 2
        if _IP_LIKE.fullmatch(name):
            return _network(name)
    if name.endswith(".*"):
        return _name_under_suffix(name)
    if name.startswith((".", "*.")):
        raise _Fault(0, offset, f"a name does not begin with {name[0]}", "example.test covers its subdomains")
    if not _NAME.fullmatch(name):
        bad = next((i for i, c in enumerate(name) if not _NAME.fullmatch(c)), 0)
        hint = "a page begins with http://, a path on any host is */path/*"
        raise _Fault(0, offset + bad, "not a host, address, page or path", hint)
    host = entry_host(byte_string(name))
    if "." not in host and not offset and not host.startswith("["):
        raise _Fault(0, 0, "a name without a dot", "write ||name^ if all of it is meant")
    if is_address(host):
        return _network(host)
    return Entry(Kind.DOMAIN, host)


def entry_host(name: str) -> str:
    """The canonical host of a byte string (`urlward.engine.url.byte_string`), as an entry may have it.

    Raises:
        UrlError: none, or with a character that no name has.
    """
    host = canonical_host(name)
    # Word processors put such quotes and dashes in place of those typed, and IDNA has A-labels for them.
    if not _ENTRY_HOST(host) or (not name.isascii() and any(map(_is_typeset, host.split(".")))):
        raise UrlError("host has a character that no name has")
    return host


def _is_typeset(label: str) -> bool:
    """Whether the Unicode of a label has quotes, brackets or dashes, which RFC 5892 has in no name; a hyphen
    is a dash as well, and is in many."""
    if not label.startswith("xn--"):
        return False
    with suppress(UnicodeError):
        text = label[4:].encode().decode("punycode").replace("-", "")
        return not _TYPESET.isdisjoint(map(unicodedata.category, text))
    return False


def _url(text: str, *, allow: bool) -> Entry:
    scheme, authority, target = split_url(text)
    host, port = split_authority(authority)
    if host.startswith("*."):
        hint = "http://example.test/a subdomains, or the name alone, which covers its subdomains"
        raise _Fault(0, text.find("://") + 3, "a name does not begin with *", hint)
    host = strip_www(entry_host(host))
    if host in DEFAULT_PORTS and target.startswith("//"):
        raise _Fault(0, text.find("://") + 3, "a scheme where the host belongs")
    if port is None or port == DEFAULT_PORTS.get(scheme):
        port = 0
    raw_path, raw_query = split_target(target)
    if "*" in target and ("*" in raw_path or "*" in raw_query):
        if not raw_path.endswith("/*") or raw_path.count("*") > 1 or raw_query:
            hint = "http://example.test/dir/*, and %2A is a literal *"
            raise _Fault(0, text.find("*"), "* stands only at the end of a prefix, after a slash", hint)
        return Entry(Kind.PREFIX, host, path_asked_for(raw_path[:-1]), port=port)
    path, params = path_asked_for(raw_path), _NO_PARAMS
    if raw_query:
        params = query_parameters(canonical_query(_with_ampersands(raw_query, allow=allow)))
    entry = Entry(Kind.PARAMS if params else Kind.PAGE, host, path, params, port=port)
    return _lowered(entry) if not allow and _is_of_iis(path, params) else entry


def _is_of_iis(path: str, params: frozenset[str]) -> bool:
    """Whether letters of either case are the same in a page to its server, Microsoft's, by its extension. A
    value with letters may be another one to the program."""
    return path[-5:].lower().endswith(_OF_IIS) and not any(
        character.isalpha() for param in params for character in param.partition("=")[2]
    )


def _lowered(entry: Entry) -> Entry:
    params = frozenset(map(lowered, entry.params))
    return entry._replace(path=lowered(entry.path), params=params, nocase=True)


def _with_ampersands(query: str, *, allow: bool) -> str:
    """A query with ``&`` between its parameters: in place of an entity, as it is copied out of HTML or XML,
    and of ``;``, as gitweb and forums (SMF) have it, to which their order is nothing, nor what is added.

    A request is split at semicolons as well, so that what is sent as it stands in the list matches to all. An
    ``@@`` entry keeps them, since to other programs it would allow more than is written.
    """
    query = query.replace("&amp;", "&")
    return query if allow else query.replace(";", "&")


def _file(algorithm: str, digest: str) -> Entry:
    digits = 2 * ALGORITHMS[algorithm]
    at = len(algorithm) + 1
    if not _HEX(digest):
        raise _Fault(0, at, f"a digest of {algorithm} is {digits} hexadecimal digits")
    if len(digest) != digits:
        raise _Fault(0, at, f"a digest of {algorithm} has {digits} hexadecimal digits, not {len(digest)}")
    digest = digest.lower()
    if digest in _OF_NOTHING:
        raise _Fault(0, at, "the digest of an empty file")
    return Entry(Kind.FILE, algorithm, digest, distance=DISTANCE if algorithm == PDQ else 0)


def _is_flat(digest: str, distance: int) -> bool:
    """Whether a picture of one colour is as near to a PDQ digest."""
    set_bits = int(digest, 16).bit_count()
    return min(set_bits, 8 * ALGORITHMS[PDQ] - set_bits) <= distance


def _check_file(entry: Entry, allow: bool) -> Entry:
    """A file entry with the distance that it asks for; an exception has none.

    Raises:
        _Fault: a picture of one colour would be as near.
    """
    if allow or entry.host != PDQ:
        return entry._replace(distance=0)
    if _is_flat(entry.path, entry.distance):
        raise _Fault(
            0, len(PDQ) + 1, "pictures of one colour would be as near to it", "a smaller distance=, or none"
        )
    return entry


def _path_sequence(text: str) -> Entry:
    if len(text) < 4 or not text.endswith("/*"):
        raise _Fault(0, 0, "a path on any host begins with */ and ends with /*", "*/gallery/one-two/*")
    inner = text[1:-1]
    for i, c in enumerate(inner):
        if c in "*?#":
            raise _Fault(0, i + 1, "a path sequence has no *, ? or # inside")
    path = canonical_path(byte_string(inner))
    if path == "/":
        raise _Fault(0, 0, "a path sequence names at least one segment")
    return Entry(Kind.PATH, "", path)


def _network(text: str) -> Entry:
    try:
        network = canonical_network(text.replace("[", "").replace("]", ""))
    except ValueError as e:
        reason = "host bits are set" if "host bits" in str(e) else "not an address or network"
        raise _Fault(0, 0, reason, "192.0.2.7, 192.0.2.0/24, [2001:db8::7]") from e
    kind = Kind.ADDRESS if network.prefixlen == network.max_prefixlen else Kind.NETWORK
    return Entry(kind, str(network))


def _name_under_suffix(text: str) -> Entry:
    name = text[:-2]
    if "*" in name or not _NAME.fullmatch(name):
        raise _Fault(0, 0, "a name under any suffix is name.*", "example.*")
    if all(label.isdecimal() for label in name.split(".")):
        raise _Fault(0, 0, "a network is written with its length", "192.0.2.0/24")
    # Canonicalised in front of a label that cannot be mistaken for a number.
    host = entry_host(byte_string(f"{name}.suffix"))
    if not host.endswith(".suffix"):
        raise _Fault(0, 0, "not a name", "example.*")
    return Entry(Kind.NAME, host[: -len(".suffix")])


def _attributes(entry: Entry, words: list[tuple[int, str]], allow: bool) -> Entry:
    values: dict[str, Any] = {"allow": allow}
    for i, word in words:
        name, equals, value = word.partition("=")
        if name in values and name != "allow":
            raise _Fault(i, 0, f"{name} is given twice")
        if equals and name in _ATTRIBUTES:
            if '"' in value:
                value = value.strip('"')
            _check_attribute(entry, name, i, allow)
            try:
                values[name] = _ATTRIBUTES[name](value)
            except ValueError as e:
                raise _Fault(i, len(name) + 1, str(e)) from e
        elif not equals and name in _FLAGS:
            _check_flag(entry, name, i)
            values[name] = True
        else:
            known = ", ".join([f"{a}=" for a in _ATTRIBUTES] + list(_FLAGS))
            raise _Fault(i, 0, "not an attribute", f"attributes are {known}")
    values.pop("note", None)
    id_, category = values.get("id", ""), values.get("category", "")
    if entry.kind is Kind.FILE:
        values["id"], values["category"] = without_telling_file(id_, category, entry.path)
        return _check_file(entry._replace(**values), allow)
    values["id"], values["category"] = without_telling(id_, category, entry.host, entry.path, entry.params)
    if values.get("port", entry.port) != entry.port and entry.port:
        raise _Fault(0, 0, "the URL and port= name different ports")
    entry = entry._replace(**values)
    return _lowered(entry) if "nocase" in values else entry


def _check_attribute(entry: Entry, name: str, word: int, allow: bool) -> None:
    if name == "port" and entry.kind is Kind.FILE:
        raise _Fault(word, 0, "port goes with no file: it is the same wherever it comes from")
    if name == "distance" and (entry.kind is not Kind.FILE or entry.host != PDQ):
        raise _Fault(word, 0, f"distance goes with {PDQ}, whose digests differ little where pictures do")
    if name == "distance" and allow:
        raise _Fault(word, 0, "distance goes with no exception: it excuses the listed digest that it names")


def _check_flag(entry: Entry, name: str, word: int) -> None:
    with_path = entry.kind in (Kind.PAGE, Kind.PARAMS, Kind.PREFIX)
    if name == "subdomains" and not with_path:
        raise _Fault(word, 0, "subdomains goes with a page, prefix or parameter entry")
    if name == "nocase" and not with_path and entry.kind is not Kind.PATH:
        raise _Fault(word, 0, "nocase goes with an entry that has a path")
