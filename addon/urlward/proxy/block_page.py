"""Responses of the filter's own: the block page, as HTML, a problem object or plain text, and lines of text.

Nothing of the request is ever reflected: of its header fields only ``Accept`` and ``Accept-Language`` come
in, and only to choose. A block page may be asked for thousands of times a second, so a response is rendered
once for each language, form, list and category, and after that only the reference is put in.

A custom template sees: ``status``, ``phrase``, ``language``, ``texts`` (the fixed texts by key), ``reason``,
``advice`` and ``help`` (the texts for the category), ``operator``, ``authority_url``, ``objection`` (None, or
``text`` and ``href``), ``form`` (None, or ``url``, ``link``, ``max_length`` and ``texts``), ``help_links``
(each ``text`` and ``href``), ``list_name``, ``category`` and ``reference``. An unknown variable is an error.
``<style>`` elements may be used; the page's own policy refuses scripts, ``style`` attributes and whatever has
to be fetched.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache, lru_cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import can_ada
from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from urlward.config import HelpLink, ObjectionsTable, PageTable
from urlward.page.words import (
    MAX_VALUE,
    SHARED,
    BlockPageError,
    PageForm,
    choose_form,
    choose_language,
    content_policy,
    encode,
    form_texts,
    has_controls,
    load_texts,
    normal_tag,
    text_for,
)

# A reference of these alone needs no escaping in any form, nor in a URL.
_NOT_REFERENCE = re.compile(r"[^0-9A-Za-z._-]")
# Crockford's base32: no I, L, O or U, so that what is read out on the phone is written down right.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_FALLBACK = "This page is blocked.\nReference: {}\n"

ACCESS_DENIED = bytes([21, 3, 3, 0, 2, 2, 49])
"""TLS record: fatal alert access_denied (RFC 8446 section 6.2)."""

_log = logging.getLogger(__name__)

_WEB = ("https:", "http:")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*:)(?=\S)")
_EMAIL = re.compile(r"[^\s@<>\"]+@[^\s@<>\"]+\.[^\s@<>\"]+")
_PHONE = re.compile(r"\+?[0-9(][0-9 ()./\-]{4,}")


type Fields = tuple[tuple[bytes, bytes], ...]
"""Names and values of a response's fields."""


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


def parse_link(url: str, schemes: tuple[str, ...] = (*_WEB, "mailto:", "tel:")) -> str:
    """Return a URL of one of these schemes as ASCII, fit for a header between ``<`` and ``>`` (RFC 8288).

    Raises:
        ValueError: the URL has another scheme, a space or a control character, or cannot be parsed.
    """
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


parse_web_url = partial(parse_link, schemes=_WEB)
"""The same of http(s) alone."""

FILES = {PageForm.HTML: "block.html.j2", PageForm.TEXT: "block.txt.j2"}

_SHIPPED = Path(__file__).parent / "templates"


def load_templates(folder: Path | None) -> dict[PageForm, Template]:
    """Compile the template of each form: the one in ``folder``, or else the shipped one.

    Raises:
        BlockPageError: the folder holds no template, or one that cannot be read or compiled.
    """
    if folder is not None and not any((folder / name).is_file() for name in FILES.values()):
        raise BlockPageError("template_dir", f"{str(folder)!r} holds no {' and no '.join(FILES.values())}")
    return _compiled(folder) if folder else _shipped()


@cache
def _shipped() -> dict[PageForm, Template]:
    """A filter makes its pages several times as it starts; nobody changes these meanwhile."""
    return _compiled()


def _compiled(*folders: Path) -> dict[PageForm, Template]:
    loader = FileSystemLoader([*folders, _SHIPPED, SHARED])
    templates = {}
    for form, name in FILES.items():
        # One environment a form: a file that the page includes is escaped like the page, whatever its name.
        environment = SandboxedEnvironment(
            loader=loader,
            autoescape=form is PageForm.HTML,
            undefined=StrictUndefined,
            auto_reload=False,  # what a page includes stays while an upgrade has its file away
            trim_blocks=True,
            lstrip_blocks=True,
        )
        try:
            templates[form] = environment.get_template(name)
        except (TemplateError, OSError, UnicodeError) as error:
            raise BlockPageError("template_dir", f"{name} cannot be loaded: {describe(error)}") from error
    return templates


def write_problem(context: Mapping[str, Any]) -> str:
    """Write a problem object (RFC 9457) with members of our own beside ``type`` to ``detail``."""
    objection: Contact | None = context["objection"]
    problem = {
        "type": "about:blank",
        "title": context["phrase"],
        "status": context["status"],
        "detail": f"{context['texts']['lead']} {context['reason']}",
        "reference": context["reference"],
        "operator": context["operator"],
        "authority": context["authority_url"],
        "list": context["list_name"],
        "category": context["category"],
        "objection": objection and (objection.href or objection.text),
        "objection_form": context["form"] and context["form"]["link"],
        "help": [{"label": contact.text, "url": contact.href} for contact in context["help_links"]],
    }
    return json.dumps(problem, ensure_ascii=False) + "\n"


def describe(error: Exception) -> str:
    """Describe a template error in one line, with the line number in the template."""
    number = getattr(error, "lineno", None)
    text = " ".join(str(error).split()) or type(error).__name__
    return f"line {number}: {text}" if number else text


@dataclass(frozen=True, slots=True)
class BlockNotice:
    """Facts of one hit that a block page shows; ``reference`` is the one in the log."""

    reference: str
    list_name: str
    category: str | None


@dataclass(frozen=True, slots=True)
class BlockResponse:
    """Response without connection fields: ``Connection`` and ``Date`` are the proxy's."""

    status: int
    reason: str
    headers: Fields
    body: bytes


class BlockPage:
    """Renderer of block pages from one set of settings. It may be used from several threads.

    Args:
        page: the settings. The operator's name is each language's own "your network operator" where empty.
            The authority's URL, of who implements the block, is the target of ``rel="blocked-by"`` (RFC 7725
            sec. 4); without one the link is a ``data:`` URL (RFC 2397) holding the operator's name.
        status: 451 (RFC 7725) or 403.
        objections: where a form on the HTML page posts ``reference`` and ``message``; the page's other forms
            name it. None for no form.

    Raises:
        BlockPageError: a setting cannot be used; the error names it. Texts and templates are tried once.
    """

    def __init__(
        self,
        page: PageTable,
        *,
        status: int = HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS,
        objections: ObjectionsTable | None = None,
    ) -> None:
        if status not in (HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS, HTTPStatus.FORBIDDEN):
            raise BlockPageError("status", f"{status!r} is not 451 or 403")
        if has_controls(page.operator):
            raise BlockPageError("operator", "holds a control character")
        self._status = HTTPStatus(status)
        self._operator = page.operator.strip()
        self._authority = _checked("authority_url", parse_web_url, page.authority_url)
        self._objection = _checked("objection", parse_contact, page.objection)
        self._form_url = objections and _checked("objection_form", parse_web_url, objections.url)
        self._form_length = objections and objections.max_length
        self._help_links = tuple(map(_help_link, page.help))
        self._texts = load_texts(page.texts)
        self._form_texts = form_texts(self._texts) if self._form_url else None
        self._default_language = normal_tag(page.default_language)
        if self._default_language not in self._texts:
            raise BlockPageError("default_language", f"no texts for {page.default_language!r}")
        self._templates = load_templates(Path(page.template_dir) if page.template_dir else None)
        self._choose = lru_cache(maxsize=1024)(self._negotiate)
        self._skeleton = lru_cache(maxsize=512)(self._build_skeleton)
        self._try_templates()

    def render(
        self, notice: BlockNotice, *, accept: str = "", accept_language: str = "", head: bool = False
    ) -> BlockResponse:
        """Return the response for one hit, in the form and language that the client prefers. Never raises.

        A reference loses whatever is not an ASCII letter, a digit, ``-``, ``.`` or ``_``. With ``head`` the
        body is empty and ``Content-Length`` is the one a GET would get (RFC 9110 sec. 9.3.2). Where a custom
        template fails, the answer is two lines of plain text.
        """
        reference = _NOT_REFERENCE.sub("", notice.reference)
        try:
            language, form = self._choose(accept[:MAX_VALUE], accept_language[:MAX_VALUE])
            headers, pieces = self._skeleton(language, form, notice.list_name, notice.category)
            if pieces:
                body = reference.encode().join(pieces)
            else:
                page = self._page(language, form, notice.list_name, notice.category, reference)
                headers, body = self._headers(language, form, page), encode(page)
        except Exception:  # noqa: BLE001 -- whatever fails here, the client still gets a block
            _log.warning("the block page could not be rendered; sent plain text", exc_info=True)
            page = _FALLBACK.format(reference)
            headers, body = self._headers("en", PageForm.TEXT, page), encode(page)
        length = (b"Content-Length", b"%d" % len(body))
        return BlockResponse(
            self._status.value, self._status.phrase, (*headers, length), b"" if head else body
        )

    def _negotiate(self, accept: str, accept_language: str) -> tuple[str, PageForm]:
        language = choose_language(accept_language, self._texts.keys(), self._default_language)
        return language, choose_form(accept)

    def _build_skeleton(
        self, language: str, form: PageForm, list_name: str, category: str | None
    ) -> tuple[Fields, tuple[bytes, ...]]:
        """Headers, and a rendered page cut at its references; no pieces where these cannot be cut out."""
        # A custom template may alter the reference (a filter, one letter a box). Two renderings tell: if they
        # differ in anything but the reference as it stands, the page cannot be cut and is rendered each time.
        first, second = new_reference(), new_reference()
        page = self._page(language, form, list_name, category, first)
        twin = self._page(language, form, list_name, category, second)
        headers = self._headers(language, form, page)
        if page.replace(first, second) != twin or headers != self._headers(language, form, twin):
            return headers, ()
        return headers, tuple(encode(piece) for piece in page.split(first))

    def _page(
        self, language: str, form: PageForm, list_name: str, category: str | None, reference: str
    ) -> str:
        context = self._context(language, list_name, category, reference)
        template = self._templates.get(form)
        return write_problem(context) if template is None else template.render(context)

    def _context(self, language: str, list_name: str, category: str | None, reference: str) -> dict[str, Any]:
        """Return the variables of the templates (see this module)."""
        source = self._texts[language]
        operator = self._operator or source["operator"]
        shown_list = "".join(char if char.isprintable() else "\ufffd" for char in list_name)

        def fill(text: str) -> str:
            return text.format(operator=operator, list=shown_list)

        subject = f"{source['reference_label']} {reference}"
        return {
            "status": self._status.value,
            "phrase": self._status.phrase,
            "language": language,
            "texts": {key: fill(text) for key, text in source.items() if "." not in key},
            "reason": fill(text_for(source, "category", category)),
            "advice": fill(text_for(source, "advice", category)),
            "help": fill(text_for(source, "help", category)),
            "operator": operator,
            "authority_url": self._authority,
            "objection": self._objection and self._objection.with_subject(subject),
            "form": self._form_texts
            and {
                "url": self._form_url,
                "link": f"{self._form_url}?reference={reference}",
                "max_length": self._form_length,
                "texts": {key: fill(text) for key, text in self._form_texts[language].items()},
            },
            "help_links": self._help_links,
            "list_name": shown_list,
            "category": category,
            "reference": reference,
        }

    def _headers(self, language: str, form: PageForm, page: str) -> Fields:
        # RFC 8259 defines no charset for JSON; UTF-8 goes without saying.
        charset = "; charset=utf-8" if form in FILES else ""
        blocked_by = self._authority or "data:," + quote(
            self._operator or "network operator", errors="replace"
        )
        fields = (
            ("Content-Type", form.value + charset),
            ("Content-Language", language),
            ("Cache-Control", "no-store"),
            ("Vary", "Accept, Accept-Language"),
            ("Link", f'<{blocked_by}>; rel="blocked-by"'),
            ("Content-Security-Policy", self._policy(page) if form is PageForm.HTML else content_policy("")),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        )
        return tuple((name.encode("ascii"), value.encode("ascii")) for name, value in fields)

    def _policy(self, page: str) -> str:
        return content_policy(page, form_action=self._form_url or "'none'")

    def _try_templates(self) -> None:
        for form, name in FILES.items():
            for language in self._texts:
                try:
                    first, second = (
                        self._page(language, form, "list", None, new_reference()) for _ in range(2)
                    )
                except Exception as error:
                    raise BlockPageError(
                        "template_dir", f"{name} cannot be rendered: {describe(error)}"
                    ) from error
                if first == second:
                    raise BlockPageError("template_dir", f"{name} does not show the reference")


def new_reference(random: Callable[[int], bytes] = os.urandom) -> str:
    """Return a new reference of 60 random bits, such as ``7Q4M-2XKD-93FH``, in Crockford's base32."""
    bits = int.from_bytes(random(8))
    letters = "".join(_ALPHABET[bits >> shift & 31] for shift in range(0, 60, 5))
    return f"{letters[:4]}-{letters[4:8]}-{letters[8:]}"


def _help_link(link: HelpLink) -> Contact:
    if not link.label.strip() or has_controls(link.label):
        raise BlockPageError("help", f"{link.label!r} is not a label that can be read")
    try:
        return Contact(link.label.strip(), parse_link(link.url))
    except ValueError as error:
        raise BlockPageError("help", f"{link.label}: {error}") from error


def _checked[T](key: str, parse: Callable[[str], T], value: str | None) -> T | None:
    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise BlockPageError(key, str(error)) from error


def plain(status: int, text: str, *, head: bool = False, more: Fields = ()) -> BlockResponse:
    """A line of text.

    Args:
        status: its code.
        text: of ASCII, without the line's end.
        head: whether the request was HEAD, whose answer has no body.
        more: fields.
    """
    body = f"{text}\n".encode("ascii", "replace")
    return BlockResponse(
        status,
        HTTPStatus(status).phrase,
        (
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", b"%d" % len(body)),
            (b"Cache-Control", b"no-store"),
            *more,
        ),
        b"" if head else body,
    )


def unreachable(reason: str = "", *, tls: bool) -> BlockResponse:
    """The response to a request whose origin cannot be reached.

    Args:
        reason: what is wrong with the origin's certificate; empty where something else is.
        tls: whether the origin was connected to, and TLS with it failed.
    """
    if reason:
        return plain(502, f"The certificate of the origin is not valid: {reason}.")
    if tls:
        return plain(502, "The origin and the filter could not agree on a TLS connection.")
    return plain(502, "The origin does not answer.")


def on_wire(answer: BlockResponse, *, keep_alive: bool) -> bytes:
    """A response serialised as HTTP/1.1."""
    fields = b"".join(b"%b: %b\r\n" % field for field in answer.headers)
    return b"HTTP/1.1 %d %b\r\n%bDate: %b\r\nConnection: %b\r\n\r\n%b" % (
        answer.status,
        answer.reason.encode(),
        fields,
        formatdate(usegmt=True).encode(),
        b"keep-alive" if keep_alive else b"close",
        answer.body,
    )
