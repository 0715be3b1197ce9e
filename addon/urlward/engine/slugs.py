"""Slugs: the path of a page that WordPress gives for another path.

WordPress finds a page by a name that it makes of each segment of what is asked for
(`sanitize_title_with_dashes`), and does not lead to the page's own URL where that differs:
``/2024/05/Listed--page/``, ``/2024/5/listed.page!/`` and ``/2024/05/listed-page/0/`` are all
``/2024/05/listed-page/``. To most other programs they are pages of their own, so only a page whose path could
be one of WordPress's is looked for so: it ends in a slash, and its segments are slugs. Where WordPress's date
does not stand in front, a name of one or two words may be a user's, and ``/users/john.doe/`` another one than
``/users/john-doe/``.
"""

import re
from string import ascii_letters
from urllib.parse import unquote_to_bytes

from urlward.engine.url import byte_string

_LEAST = 5
"""Bytes of the last segment: `/b/` and `/B/`, or `/ж/` and `/Ж/`, are two pages of an index by letter."""
_MOST = 200
"""Characters of a segment that WordPress looks at."""
_WORD = 8
"""Characters of one word that is the same in other letters: `/marie/` and `/Marie/` may be two users."""

# What WordPress takes for a number of a page or of comments behind it, and has in other sites' frames.
_PART = r"(?:0++|page/?(?:0++1?|1)|comment-page-[0-9]++|embed)/?\Z"
_MONTH = r"[0-9]{4}/(?:[0-9]{1,2}/)?[0-9]/"
_LETTERS = r"(?:[0-9a-z_]|%[89A-F][0-9A-F])++"

is_own_slug = re.compile(rf"(?:/(?!{_PART}|amp/\Z|{_MONTH})[0-9a-z_]++(?:-[0-9a-z_]++)*+)++/\Z").match
"""Whether a path that ends in a slash is the one that WordPress makes of it, for most of them."""

_is_listable = re.compile(rf"(?:/{_LETTERS}(?:-{_LETTERS})*+)++/\Z").match
_BEFORE_PART = re.compile(rf"(?<=.)/{_PART}|(?<=/)([^/-]++-[^/]++)/amp/?\Z").sub
_ONE_DIGIT = re.compile(r"(?:(?<=/[0-9]{4}/)|(?<=/[0-9]{4}/[0-9]/)|(?<=/[0-9]{4}/[0-9]{2}/))([0-9])(?=/)").sub
_TOO_LONG = re.compile(rf"(?<=/)([^/]{{{_MOST}}})[^/]+").sub
_TAGS = re.compile(r"<[^>/]*+>?").sub
# Searched up to the last semicolon, or from each ampersand the rest would be.
_ENTITIES = re.compile(r"&[^/][^;/]*+;").sub
# Of users, as of npm's scopes: `/@name/` and `/~name/` are other pages than `/name/`.
_IS_OF_A_USER = re.compile(r"/[@~][^/.\-]*+/").search
_DASHES = re.compile(r"-{2,}").sub
_DATE = re.compile(r"/[0-9]{4}/[0-9]{2}/").search
_JOINS = re.compile("[-. +]").findall

_MADE = (
    dict.fromkeys(range(128), "#")
    | {ord(mark): "" for mark in "!\"$%&'()*+,:;<=>@[]^`{|}~"}
    | {ord(mark): "-" for mark in ". "}
    | {ord(kept): kept for kept in "0123456789_-/"}
    | {ord(letter): letter.lower() for letter in ascii_letters}
)
"""What WordPress makes of each character. It keeps escapes, which browsers send of those that become `#`."""
_ESCAPES = {byte: f"%{byte:02X}" for byte in range(128, 256)}


asks_wordpress = re.compile(
    r"(?:^|&)[+ ]*+(?:attachment|attachment_id|author|author_name|calendar|cat|category_name|cpage|"
    r"day|embed|error|exact|favicon|feed|hour|m|minute|monthnum|more|name|order|"
    r"orderby|p|page|page_id|paged|pagename|pb|post_type|posts|preview|robots|s|"
    r"search|second|sentence|subpost|subpost_id|tag|taxonomy|tb|term|w|withcomments|"
    r"withoutcomments|year)(?![\w-])"
).search
"""Whether a query has a parameter of WordPress's own (`WP::$public_query_vars`); with some of them, such as
`preview=1`, it leads nobody to the slash that a path lacks."""


def slug_paths(path: str) -> tuple[str, ...]:
    """The paths that the page may be listed by which WordPress gives for a path, as `slug_path`: with and
    without the `index.php` that is in front of all names where its server rewrites none."""
    if len(path) <= _MOST and is_own_slug(path):
        return (path,) if len(path) - path.rfind("/", 0, -1) - len("//") >= _LEAST else ()
    front, index, behind = path.rpartition("/index.php/")
    slug = slug_path(f"/{behind}" if index else path)
    if not slug:
        return ()
    return (f"{front}/index.php{slug}", f"{front}{slug}") if index else (slug,)


def slug_path(path: str) -> str:
    """The path of the page that WordPress gives for a path; linear in its length.

    Args:
        path: of a reading, in canonical form.

    Returns:
        In canonical form; empty where no page that is looked for so has it.
    """
    text = _BEFORE_PART(r"\1/", path)
    if not text.endswith("/") or _IS_OF_A_USER(text):
        return ""
    text = _TOO_LONG(r"\1", text)
    if "<" in text:
        text = _TAGS("", text)
    entities, semicolon, rest = text.rpartition(";")
    if semicolon and "&" in entities:
        text = _ENTITIES("", entities + semicolon) + rest
    asked = unquote_to_bytes(text).decode("latin-1")
    text = asked.translate(_MADE)
    if not text.isascii():
        # Letters that are not escaped are in lower case, too, and bytes that are not UTF-8 are marks.
        text = byte_string(text.encode("latin-1").decode(errors="ignore").lower())
    text = _DASHES("-", text).replace("-/", "/").replace("/-", "/")
    text = _ONE_DIGIT(r"0\1", text)
    last = len(text) - text.rfind("/", 0, -1) - len("//")
    page = text.translate(_ESCAPES)
    if last < _LEAST or not _is_listable(page):
        return ""
    date = _DATE(text)
    undated = text[: date.start()] if date else text
    pairs = zip(asked.split("/"), undated.split("/"), strict=False)
    return page if all(one == slug or _is_title(one, slug) for one, slug in pairs) else ""


def _is_title(asked: str, slug: str) -> bool:
    """Whether a name and the slug that is made of it are hardly those of two users."""
    joins = "-" * slug.count("-")
    if len(joins) > 1:
        return True
    is_long = joins != "" or len(slug.encode("latin-1").decode()) >= _WORD
    return is_long and "".join(_JOINS(asked)) == joins
