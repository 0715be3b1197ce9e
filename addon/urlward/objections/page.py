"""HTML pages of the objections server, in the block page's words and style."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from urlward.config import PageTable
from urlward.objections.objections import ObjectionError
from urlward.page.negotiation import choose_language, normal_tag
from urlward.page.safety import SHARED, content_policy, encode
from urlward.page.words import BlockPageError, form_texts, load_texts

Outcome = Literal["received", "faulty", "later"]

_HERE = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Rendered:
    """Rendered page.

    Attributes:
        language: its tag.
        policy: of its content.
        body: HTML.
    """

    language: str
    policy: str
    body: bytes


class ObjectionPage:
    """Renderer of the objections server's pages.

    Args:
        page: the block page's texts and operator.
        max_length: characters of a message.

    Raises:
        ObjectionError: a text cannot be used; the message names its key.
    """

    def __init__(self, page: PageTable, max_length: int) -> None:
        try:
            self._texts = load_texts(page.texts)
            self._form = form_texts(self._texts)
        except BlockPageError as e:
            raise ObjectionError(f"page.{e}") from e
        self._operator = page.operator.strip()
        self._default = normal_tag(page.default_language)
        if self._default not in self._texts:
            raise ObjectionError(f"page.default_language: no texts for {page.default_language!r}")
        self._max_length = max_length
        environment = Environment(
            loader=FileSystemLoader([_HERE, SHARED]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("objection.html.j2")

    def form(self, languages: str, reference: str) -> Rendered:
        """Render the form.

        Args:
            languages: ``Accept-Language``.
            reference: filled in already; may be empty.
        """
        return self._render(languages, reference, None)

    def answer(self, languages: str, outcome: Outcome, reference: str = "") -> Rendered:
        """Render the reply to an objection."""
        return self._render(languages, reference, outcome)

    def _render(self, languages: str, reference: str, outcome: Outcome | None) -> Rendered:
        language = choose_language(languages, self._texts.keys(), self._default)
        source = self._texts[language]
        operator = self._operator or source["operator"]
        form = {key: text.format(operator=operator, list="") for key, text in self._form[language].items()}
        body = self._template.render(
            language=language,
            direction=source["direction"],
            title=form[f"{outcome}_title" if outcome else "title"],
            text=form[outcome] if outcome else "",
            form=None if outcome else form,
            reference=reference,
            reference_label=source["reference_label"],
            max_length=self._max_length,
        )
        return Rendered(language, content_policy(body, form_action="'self'", framed=False), encode(body))
