"""The form to object with, in all forms of the block page."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from rows import each_row
from urlward.config import ObjectionsTable, PageTable
from urlward.page.words import SHIPPED, BlockPageError, load_texts
from urlward.proxy.block_page import BlockNotice, BlockPage, BlockResponse

URL = "http://gateway.example:8091/"
REFERENCE = "7Q4M-2XKD-93FH"
NOTICE = BlockNotice(REFERENCE, "Example list", "phishing")
HTML, JSON, TEXT = "text/html", "application/json", "text/plain"


def page(url: str | None = URL, length: int = 1000, **changes: Any) -> BlockPage:
    form = ObjectionsTable(url=url, max_length=length) if url else None
    return BlockPage(PageTable(**changes), objections=form)


def policy(response: BlockResponse) -> str:
    return dict(response.headers)[b"Content-Security-Policy"].decode()


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@each_row("language", SHIPPED)
def test_the_form_posts_reference_and_message(language: str) -> None:
    body = page(length=99).render(NOTICE, accept=HTML, accept_language=language).body.decode()
    elements = Elements(body)
    (form,) = elements.all("form")
    assert (form["action"], form["method"]) == (URL, "post")
    assert elements.all("input") == [{"type": "hidden", "name": "reference", "value": REFERENCE}]
    (message,) = elements.all("textarea")
    assert (message["name"], message["maxlength"]) == ("message", "99")
    assert {"for": message["id"]} in elements.all("label")
    assert len(elements.all("button")) == 1
    assert "{operator}" not in body


def test_the_policy_lets_the_form_go_there_and_nowhere_else() -> None:
    assert policy(page().render(NOTICE, accept=HTML)).endswith(f"form-action {URL}")
    for accept in (JSON, TEXT):
        assert policy(page().render(NOTICE, accept=accept)).endswith("form-action 'none'")


def test_no_form_where_there_is_no_url() -> None:
    response = page(url=None).render(NOTICE, accept=HTML)
    assert b"<form" not in response.body
    assert policy(response).endswith("form-action 'none'")
    assert json.loads(page(url=None).render(NOTICE, accept=JSON).body)["objection_form"] is None


def test_the_other_forms_name_the_url() -> None:
    link = f"{URL}?reference={REFERENCE}"
    assert json.loads(page().render(NOTICE, accept=JSON).body)["objection_form"] == link
    assert f"Object to a block: {link}\n" in page().render(NOTICE, accept=TEXT).body.decode()


def test_a_url_that_is_none() -> None:
    with pytest.raises(BlockPageError, match=r"^objection_form: "):
        page("http://1.2.3.400/")  # not to browsers


def test_a_language_without_the_forms_texts_is_refused_only_where_there_is_a_form() -> None:
    german = {key: text for key, text in load_texts({})["en"].items() if not key.startswith("form.")}
    page(url=None, texts={"de": german})
    with pytest.raises(BlockPageError, match=r"^texts\.de\.form\.title: missing") as raised:
        page(texts={"de": german})
    assert "form.message" in raised.value.message


def test_texts_can_be_changed() -> None:
    texts = {"en": {"form.send": "Write to {operator}"}}
    body = page(texts=texts, operator="Example <Net>").render(NOTICE, accept=HTML).body
    assert b"<button>Write to Example &lt;Net&gt;</button>" in body
