"""Links on the block page: an operator's URLs and contacts, checked before they reach a header or a page."""

import re
from dataclasses import dataclass
from urllib.parse import quote

import can_ada

from urlward.page.words import has_controls

_WEB = ("https:", "http:")
_LINKABLE = (*_WEB, "mailto:", "tel:")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*:)(?=\S)")
_EMAIL = re.compile(r"[^\s@<>\"]+@[^\s@<>\"]+\.[^\s@<>\"]+")
_PHONE = re.compile(r"\+?[0-9(][0-9 ()./\-]{4,}")


@dataclass(frozen=True, slots=True)
class Contact:
    """Contact on the block page: the text shown and, where it can be followed, the URL behind it."""

    text: str
    href: str | None

    def with_subject(self, subject: str) -> "Contact":
        """Return the contact with a subject line where it is an e-mail address without one (RFC 6068)."""
        if self.href is None or not self.href.startswith("mailto:") or "?" in self.href:
            return self
        return Contact(self.text, f"{self.href}?subject={quote(subject)}")


def parse_web_url(url: str) -> str:
    """Return an http(s) URL as ASCII, fit for a header between ``<`` and ``>`` (RFC 8288 sec. 3).

    Raises:
        ValueError: the URL has another scheme, a space or a control character, or cannot be parsed.
    """
    return _parse_url(url, _WEB)


def parse_link(url: str) -> str:
    """Return an http(s), ``mailto:`` or ``tel:`` URL as ASCII. Raises ValueError as :func:`parse_web_url`."""
    return _parse_url(url, _LINKABLE)


def parse_contact(value: str) -> Contact:
    """Read a way to reach someone: a URL, a bare e-mail address, a phone number, or any other line of text.

    Raises:
        ValueError: the value is empty, holds a control character, or a URL that :func:`parse_link` refuses.
    """
    text = value.strip(" ")
    if not text or has_controls(text):
        raise ValueError("must be one line of text or a URL")
    if _SCHEME.match(text):
        shown = re.sub(r"^(?:mailto|tel):", "", text, flags=re.IGNORECASE).partition("?")[0]
        href = parse_link(text)
        return Contact(text if href.startswith(_WEB) else shown, href)
    if _EMAIL.fullmatch(text):
        return Contact(text, "mailto:" + quote(text, safe="@+"))
    if _PHONE.fullmatch(text):
        return Contact(text, "tel:" + re.sub(r"[^0-9+]", "", text))
    return Contact(text, None)


def _parse_url(url: str, schemes: tuple[str, ...]) -> str:
    # The URL standard drops tabs and line ends in silence; here they are somebody's mistake, or an attack.
    if not url or has_controls(url) or re.search(r"[\s<>\"]", url):
        raise ValueError("must be a URL without spaces, quotes, angle brackets or control characters")
    try:
        parsed = can_ada.parse(url)
    except ValueError as error:
        raise ValueError("is not a URL with a scheme, such as https://operator.example/") from error
    if parsed.protocol not in schemes:
        known = ", ".join(scheme.rstrip(":") for scheme in schemes)
        raise ValueError(f"has the scheme {parsed.protocol.rstrip(':')!r}; allowed are {known}")
    return str(parsed.href)
