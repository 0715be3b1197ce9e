"""Telling identifiers: ids and categories that would give away their entry's host, path, parameter or digest.

What a list says of entries is in artifacts, logs and metrics and on block pages as it is, where no entry may
be. Tables have been taken for lists whose column of ids was the URL, or was made of it by a program that put
``-`` for what it did not like.
"""

import re
from collections.abc import Iterator
from unicodedata import combining, normalize
from urllib.parse import quote, unquote

from urlward.engine.entry import strip_www
from urlward.engine.url import is_address

SHORTEST = 6
"""Letters of a path, or of a parameter's value, that an id may not have in it; of fewer, chance would find
too many."""

SHORTEST_RUN = 8
"""Letters and digits of a host that an identifier may not have in it without what stood between them."""

DIGITS = 12
"""Digits of a file's digest that an identifier may not have in it."""

_DIGEST = re.compile(r"[0-9a-f]{32}").search
"""Of what has so many digits in a row, the shortest digest that a file is listed by."""

_APART = str.maketrans({chr(n): "-" for n in range(128) if not chr(n).isalnum()})
_MANY = re.compile("-{2,}")
_OTHER = re.compile(r"[^0-9a-z]+")
_ACE = "xn--"
_NO_LETTERS = bytes(n for n in range(128) if not chr(n).isalnum())


def without_telling(id_: str, category: str, host: str, path: str, params: frozenset[str]) -> tuple[str, str]:
    """An id and a category, each empty where it tells the entry; one without an id goes by its digest."""
    said = f"{id_} {category}".lower()
    # Of most entries the first letters tell that there is no more to look for.
    first = host[:4]
    apart = first not in said if first.isalnum() else not host or not _may_be_in(_name(host), said)
    if apart and len(path) > 1:
        first = path[1:4].lower()
        apart = first not in said if first.isalnum() else not _may_be_in(path.lower(), said)
    if apart and params:
        apart = all(value.isalnum() and value not in said for value in _values(params))
    if apart:
        return id_, category
    return (
        "" if tells(id_.lower(), host, path, params, words=True) else id_,
        "" if tells(category.lower(), host, path, params, words=False) else category,
    )


def _may_be_in(text: str, said: str) -> bool:
    return _ACE in text or "%" in text or _letters(text) in _letters(said)


def _letters(text: str) -> bytes:
    """The letters and digits of an identifier, a host or a path."""
    return text.encode().translate(None, _NO_LETTERS)


def _name(host: str) -> str:
    """A host, address or network as it is looked for."""
    return strip_www(host.partition("/")[0].strip("[]"))


def _values(params: frozenset[str]) -> list[str]:
    return [param.partition("=")[2].lower() for param in params]


def without_telling_file(id_: str, category: str, digest: str) -> tuple[str, str]:
    """An id and a category of a file, each empty where it tells the digest or has another one, as of a table
    whose column of ids is another digest of the same file."""
    return "" if tells_digest(id_, digest) else id_, "" if tells_digest(category, digest) else category


def tells_digest(said: str, digest: str) -> bool:
    """Whether an identifier has a digest in it, or a part of this one.

    Args:
        said: the identifier, ASCII.
        digest: of the entry, in lower-case hexadecimal.
    """
    said = said.lower()
    if len(said) < DIGITS:
        return False
    run = _OTHER.sub("", said)
    return bool(_DIGEST(said)) or any(run[at : at + DIGITS] in digest for at in range(len(run) - DIGITS + 1))


def tells(said: str, host: str, path: str, params: frozenset[str], *, words: bool) -> bool:
    """Whether an identifier tells an entry.

    Args:
        said: the identifier, ASCII without upper-case letters.
        host: the entry's, canonical; an address or network, or empty.
        path: likewise.
        params: likewise.
        words: whether one word of the entry's path or parameters is enough. It is of an id, which is the
            entry's own; a category is a word for many. Of a host no single word is: it is nobody's name.
    """
    if host and _host_is_in(_name(host), said):
        return True
    found = _apart(said)
    if any(_is_in(form, found, words=words) for form in _spellings(path)):
        return True
    forms = (form for value in _values(params) for form in _spellings(value))
    return words and any(_is_in(form, found, words=True) for form in forms)


def _host_is_in(host: str, said: str) -> bool:
    if ("." in host or ":" in host) and host in said:
        return True
    found = _apart(said)
    run = found.replace("-", "")
    for form in _spellings(host, ace=True):
        if _is_in(form, found, words=False, shortest=1):
            return True
        letters = form.replace("-", "")
        if (
            "-" in form.strip("-")
            and len(letters) >= SHORTEST_RUN
            and letters in run
            and not is_address(host)
        ):
            return True
    return False


def _is_in(form: str, found: str, *, words: bool, shortest: int = SHORTEST) -> bool:
    """Whether a form stands in another, not as a part of words."""
    inner = form.strip("-")
    return len(inner) >= shortest and (words or "-" in inner) and form in found


def _spellings(text: str, *, ace: bool = False) -> Iterator[str]:
    """Forms of a canonical text, as `_apart` has them."""
    yield _apart(text.lower())
    if ace and _ACE in text:
        plain = ".".join(map(_unicode, text.split(".")))
    elif "%" in text:
        plain = unquote(text)
    else:
        return
    plain = plain.lower()
    yield _apart(quote(plain).lower())
    decomposed = normalize("NFKD", plain)
    for each in (plain, decomposed, "".join(c for c in decomposed if not combining(c))):
        form = _OTHER.sub("-", each).strip("-")
        # Of letters that are all put for, nothing is left that could tell.
        if ("-" in form) >= ("." in plain):
            yield f"-{form}-"


def _unicode(label: str) -> str:
    """A label as it is shown; itself where it is none that can be."""
    try:
        return label[len(_ACE) :].encode().decode("punycode") if label.startswith(_ACE) else label
    except UnicodeError:
        return label


def _apart(text: str) -> str:
    """The words of an ASCII text, each between two ``-``."""
    text = f"-{text.translate(_APART)}-"
    return _MANY.sub("-", text) if "--" in text else text
