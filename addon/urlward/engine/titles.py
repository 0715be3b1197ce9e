"""Titles: the page that a wiki gives for another's name.

MediaWiki finds a page by a title that it makes of what is asked for (`MediaWikiTitleCodec`), and leads to the
page's own URL only where no parameter is behind it: ``/wiki/Listed%20page?utm_source=x``,
``/wiki/_listed__page?x`` and ``/w/index.php?title=Listed+page&x`` are ``/wiki/Listed_page``. A wiki that
tells ``polish`` from ``Polish``, as dictionaries do, or has a page ``C#``, does so in short names.
"""

import re
from unicodedata import normalize
from urllib.parse import quote

from urlward.engine.url import byte_string, spelled, unescape_once

_WORD = 8
"""Characters of one word that is the same with another first letter."""

_MOST = 255
"""Bytes of a title at most. From each ``/wiki/`` of a path, the rest of it would be looked through."""

_MOST_APART = 2 * _MOST
"""Characters that one may have before they are put together. Some Pythons, all from before June 2026 among
them, take the square of the number of marks behind a letter to put these in order."""

_SUBJECTS = ("User", "Project", "File", "MediaWiki", "Template", "Help", "Category")
_NAMESPACES = {name.lower(): name for subject in _SUBJECTS for name in (subject, f"{subject}_talk")} | {
    "talk": "Talk",
    "media": "File",
    "image": "File",
    "image_talk": "File_talk",
}
"""What a wiki calls each, in whichever language it has others."""

OWN_TITLE = (
    rf"(?![_:]|[a-z](?:[^_&]{{,{_WORD}}}_|[^&]{{{_WORD - 1}}}))"
    rf"(?:(?:Talk|Special|(?:{'|'.join(_SUBJECTS)})(?:_talk)?):(?![_a-z]))?+"
    rf"(?:[!\"$'-*,-9;->@-^`-~]|_(?![_&]|\Z)){{1,{_MOST}}}+"
)
"""Expression of most titles that a page has itself, as sent."""

_is_own = re.compile(OWN_TITLE).fullmatch
_PAGE = re.compile(r"(.*?/(?:wiki/(?:index\.php/)?|index\.php/))(.+)", re.DOTALL).fullmatch
_MARKS = re.compile("[\u200e\u200f\u202a-\u202e]+").sub
_BLANKS = re.compile("[ _\xa0\u1680\u180e\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+").sub


def titled(path: str, query: str) -> tuple[str, str]:
    """The path and query of the page that a wiki gives; linear in their length.

    Args:
        path: of a reading, in canonical form.
        query: as sent.
    """
    if page := _PAGE(path):
        if _is_own(page[2]):
            return path, query
        title = _title(unescape_once(page[2]))
        return (spelled(page[1] + title) if title else path), query
    if not path.endswith("/index.php"):
        return path, query
    pieces = query.split("&")
    for at, piece in enumerate(pieces):
        name, mark, value = piece.partition("=")
        if not mark or _is_own(value) or unescape_once(name.replace("+", " ")).lstrip(" ") != "title":
            continue
        if title := _title(unescape_once(value.replace("+", " "))):
            pieces[at] = f"title={quote(title.encode('latin-1'), safe='')}"
    return path, "&".join(pieces)


def _title(asked: str) -> str:
    """A page's own title; empty where no page has it. Both are byte strings."""
    try:
        text = asked.encode("latin-1").decode()
    except UnicodeError:
        return ""
    title = normalize("NFC", _BLANKS("_", _MARKS("", text))[:_MOST_APART])
    title = title.strip("_").removeprefix(":").strip("_")
    if _is_long(title):
        title = title.partition("#")[0].rstrip("_")
    space, _, name = title.partition(":")
    if (own := _NAMESPACES.get(space.rstrip("_").lower())) and (name := name.lstrip("_")):
        return byte_string(f"{own}:{_with_capital(name)}")
    return byte_string(_with_capital(title))


def _is_long(title: str) -> bool:
    return "_" in title or len(title) >= _WORD


def _with_capital(title: str) -> str:
    first = title[:1].upper()
    return first + title[1:] if _is_long(title) and len(first) == 1 else title
