"""Content negotiation of the block page: its form and language (RFC 9110 sec. 12.5, RFC 4647 sec. 3.4).

Werkzeug reads the header values. Its own choice of a language is not used: it prefers an exact tag of low
quality (``en;q=0.1``) to the shortened form of the tag that the reader asked for first (``es-MX``).
"""

import re
from collections.abc import Callable, Collection
from enum import Enum

from werkzeug.datastructures import Accept, MIMEAccept
from werkzeug.http import parse_accept_header

# A browser's values have under 200 characters; the bound keeps a hostile one from costing more than the page.
MAX_VALUE = 512

# The tags that BCP 47 or old systems use for a language we know under another one.
SAME_LANGUAGE = {"tl": "fil"}

_TAG = re.compile(r"[a-z]{1,8}(?:-[a-z0-9]{1,8})*")


class PageForm(Enum):
    """Form of the block page; the value is its media type."""

    HTML = "text/html"
    PROBLEM = "application/problem+json"
    JSON = "application/json"
    TEXT = "text/plain"


# Among forms that a client names and likes equally, the earlier wins.
_NAMED = (PageForm.HTML, PageForm.PROBLEM, PageForm.JSON, PageForm.TEXT)
# Among forms that only a wildcard covers, the short text: ``*/*`` is an image, a script or curl.
_COVERED = (PageForm.TEXT, PageForm.PROBLEM, PageForm.JSON, PageForm.HTML)
_SPELLINGS = {"application/xhtml+xml": "text/html"}


def choose_form(accept: str) -> PageForm:
    """Choose the form that an ``Accept`` value prefers.

    Media type parameters other than ``q`` are ignored. Where nothing we have is acceptable, or the value
    cannot be read, the answer is plain text and never 406: the client must see that it was blocked.
    A client that names ``application/problem+json`` gets that type, one that names ``application/json``
    gets the same problem object (RFC 9457) under the type it asked for.
    """
    ranges = _parse(accept)
    named = {media for media, _ in ranges}
    qualities = MIMEAccept(ranges)

    def rank(form: PageForm) -> tuple[float, bool, int]:
        is_named = form.value in named
        order = _NAMED if is_named else _COVERED
        return qualities.quality(form.value), is_named, -order.index(form)

    best = max(PageForm, key=rank)
    return best if qualities.quality(best.value) > 0 else PageForm.TEXT


def choose_language(accept_language: str, available: Collection[str], default: str) -> str:
    """Look up the best of ``available`` (lower-case BCP 47 tags), or ``default`` (RFC 4647 sec. 3.4).

    Each range, from the most wanted on, is shortened from its end until a tag is met. ``*`` and ranges of
    quality 0 meet nothing.
    """
    ranges = [(tag, quality) for tag, quality in _parse(accept_language) if quality > 0]
    for tag, _ in sorted(ranges, key=lambda entry: -entry[1]):
        found = look_up(tag, available.__contains__)
        if found is not None:
            return found
    return default


def look_up(tag: str, is_known: Callable[[str], bool]) -> str | None:
    """Return ``tag``, or the longest form of it without its last subtags, that ``is_known`` accepts."""
    subtags = normal_tag(tag).split("-")
    while subtags:
        candidate = "-".join(subtags)
        if is_known(candidate):
            return candidate
        subtags.pop()
        # A singleton ("x", "u") opens a sequence and means nothing at the end of a tag.
        if subtags and len(subtags[-1]) == 1:
            subtags.pop()
    return None


def normal_tag(tag: str) -> str:
    """Return ``tag`` in lower case with hyphens, its language under the code that we know it by."""
    language, hyphen, rest = tag.lower().replace("_", "-").partition("-")
    return SAME_LANGUAGE.get(language, language) + hyphen + rest


def is_language_tag(tag: str) -> bool:
    """Tell whether ``tag`` is spelled like a BCP 47 tag in lower case."""
    return _TAG.fullmatch(tag) is not None


def _parse(value: str) -> list[tuple[str, float]]:
    """Parse a header value into lower-case items without parameters, each with its quality, in order."""
    parsed = parse_accept_header(value[:MAX_VALUE], Accept)
    best: dict[str, float] = {}
    for item, quality in parsed:
        name = item.partition(";")[0].strip().lower()
        name = _SPELLINGS.get(name, name)
        best[name] = max(quality, best.get(name, 0.0))
    return list(best.items())
