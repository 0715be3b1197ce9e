"""Words of the block page: shipped per language as TOML, changed or added to by the operator.

A text is named by a key such as ``title`` or ``category.phishing``. Keys below ``category.``, ``advice.`` and
``help.`` end in a category of the lists, and an operator may add any; every other key is fixed. Those below
``form.`` are needed only where there is a form to object with.

The content security policy is here too: a page fetches, runs and sends nothing unintended.

Form and language are negotiated (RFC 9110 sec. 12.5, RFC 4647 sec. 3.4). Werkzeug reads the header values.
Its own choice of a language is not used: it prefers an exact tag of low quality (``en;q=0.1``) to the
shortened form of the tag that the reader asked for first (``es-MX``).
"""

import base64
import hashlib
import re
import tomllib
import unicodedata
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from enum import Enum
from pathlib import Path
from string import Formatter
from typing import Any, Final

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


SHIPPED = ("en", "fil", "es")
PLACEHOLDERS = frozenset({"operator", "list"})

_FORM = "form."
_FOLDER = Path(__file__).parent / "texts"
_BY_CATEGORY = re.compile(r"(?:category|advice|help)\.[a-z0-9]+(?:-[a-z0-9]+)*")
# How lists spell a category whose texts go by another name.
_SAME_CATEGORY = {
    "csam": "child-abuse",
    "csem": "child-abuse",
    "csea": "child-abuse",
    "child-sexual-abuse": "child-abuse",
    "child-sexual-abuse-material": "child-abuse",
    "phish": "phishing",
    "scam": "fraud",
    "virus": "malware",
    "extremism": "terrorism",
    "piracy": "copyright",
    "court": "court-order",
}

Texts = Mapping[str, str]

SHARED: Final = Path(__file__).parent / "templates"
"""Folder of ``style.css``, which pages include."""

_STYLE = re.compile(r"<style\b[^>]*>(.*?)</style>", re.DOTALL | re.IGNORECASE)


class BlockPageError(ValueError):
    """A setting of the block page cannot be used; ``key`` names it and ``message`` says why, in one line."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


def read_texts(folder: Path) -> dict[str, Texts]:
    """Read the texts of a folder, by shipped language: ``LANGUAGE.toml``, a table's name before its keys."""
    return {
        tag: dict(_flatten(tomllib.loads((folder / f"{tag}.toml").read_text("utf-8")))) for tag in SHIPPED
    }


def load_texts(overrides: Mapping[str, Texts]) -> dict[str, Texts]:
    """Read the shipped texts and lay ``overrides`` (language tag to texts) over them.

    A regional tag (``es-mx``) starts from the texts of its language. A language that is not shipped must
    bring every fixed key and the ``default`` of each kind.

    Raises:
        BlockPageError: naming ``texts.<language>.<key>``, for a tag, a key or a placeholder that is unknown.
    """
    texts: dict[str, Texts] = read_texts(_FOLDER)
    required = texts["en"].keys()
    # The shortest tag first, so that a region finds the changed texts of its language.
    for name in sorted(overrides, key=len):
        tag = normal_tag(name)
        if not is_language_tag(tag):
            raise BlockPageError(f"texts.{name}", "not a language tag such as 'en' or 'es-MX'")
        base = look_up(tag, texts.__contains__)
        changed = {**(texts[base] if base else {}), **overrides[name]}
        _check(name, overrides[name], required)
        missing = [key for key in required if key not in changed and not _is_optional(key)]
        if missing:
            raise BlockPageError(
                f"texts.{name}.{missing[0]}", "missing; a new language needs " + ", ".join(missing)
            )
        texts[tag] = changed
    return texts


def text_for(texts: Texts, kind: str, category: str | None) -> str:
    """Return the text of ``kind`` (``category``, ``advice``, ``help``) for a category, or its default."""
    slug = re.sub(r"[\s_]+", "-", (category or "").strip().lower())
    for name in (slug, _SAME_CATEGORY.get(slug, slug)):
        found = texts.get(f"{kind}.{name}")
        if found is not None:
            return found
    return texts[f"{kind}.default"]


def form_texts(texts: Mapping[str, Texts]) -> dict[str, dict[str, str]]:
    """Texts below ``form.`` by language, without that part of their keys.

    Raises:
        BlockPageError: a language of the operator's own lacks one.
    """
    needed = [key for key in texts[SHIPPED[0]] if key.startswith(_FORM)]
    for language, source in texts.items():
        missing = [key for key in needed if key not in source]
        if missing:
            raise BlockPageError(
                f"texts.{language}.{missing[0]}",
                "missing; with a form to object, a language needs " + ", ".join(missing),
            )
    return {
        language: {key.removeprefix(_FORM): source[key] for key in needed}
        for language, source in texts.items()
    }


def has_controls(text: str) -> bool:
    """Tell whether ``text`` holds a control character (Unicode category Cc), such as CR or LF."""
    return any(unicodedata.category(char) == "Cc" for char in text)


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _is_optional(key: str) -> bool:
    return "." in key and not key.endswith(".default")


def _check(language: str, texts: Texts, known: Container[str]) -> None:
    for key, text in texts.items():
        name = f"texts.{language}.{key}"
        if key not in known and not _BY_CATEGORY.fullmatch(key):
            raise BlockPageError(name, "unknown text")
        if not isinstance(text, str) or not text.strip():
            raise BlockPageError(name, "must be a text that is not empty")
        if key == "direction" and text not in ("ltr", "rtl"):
            raise BlockPageError(name, "must be 'ltr' or 'rtl'")
        if has_controls(text):
            raise BlockPageError(name, "holds a control character")
        _check_placeholders(name, text)


def _check_placeholders(name: str, text: str) -> None:
    try:
        fields = [field for _, *field in Formatter().parse(text) if field[0] is not None]
    except ValueError as error:
        raise BlockPageError(name, f"{error}; write {{{{ and }}}} for plain braces") from error
    for field, spec, conversion in fields:
        if field not in PLACEHOLDERS or spec or conversion:
            raise BlockPageError(
                name, f"unknown placeholder {{{field}}}; known are {{operator}} and {{list}}"
            )


def content_policy(page: str, *, form_action: str = "'none'", framed: bool = True) -> str:
    """Return a CSP (level 3) that lets the page's own style elements be used and nothing be fetched or run.

    Args:
        page: HTML; empty for what is none.
        form_action: where its forms may go: a source of CSP.
        framed: whether others may frame it. A blocked frame should say that it is blocked.
    """
    hashes = (hashlib.sha256(encode(style)).digest() for style in _STYLE.findall(page))
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    # Images in data: URLs are for a page's icon and an operator's logo.
    styles = f"style-src {sources or "'none'"}"
    policy = f"default-src 'none'; {styles}; img-src data:; base-uri 'none'; form-action {form_action}"
    return policy if framed else f"{policy}; frame-ancestors 'none'"


def encode(text: str) -> bytes:
    """Return ``text`` as UTF-8, whatever it holds."""
    # A lone surrogate, which JSON lists can bring in, must not cost the client its block page.
    return text.encode("utf-8", "replace")
