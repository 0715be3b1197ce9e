import pytest

from rows import each_row
from urlward.config import PageTable
from urlward.engine.errors import UrlwardError
from urlward.objections.server import ObjectionPage
from urlward.page.words import SHIPPED, load_texts

REFERENCE = "7Q4M-2XKD-93FH"


@each_row("language", SHIPPED)
def test_every_page_is_in_the_language_that_is_asked_for(language: str) -> None:
    page = ObjectionPage(PageTable(operator="Example Net"), 100)
    titles = load_texts({})[language]
    for rendered, title in (
        (page.form(language, REFERENCE), "form.title"),
        (page.answer(language, "received", REFERENCE), "form.received_title"),
        (page.answer(language, "faulty"), "form.faulty_title"),
        (page.answer(language, "later"), "form.later_title"),
    ):
        body = rendered.body.decode()
        assert rendered.language == language
        assert f'<html lang="{language}"' in body
        assert f"<title>{titles[title]}</title>" in body
        assert "{operator}" not in body


def test_the_form_has_what_is_known_filled_in() -> None:
    body = ObjectionPage(PageTable(), 77).form("", REFERENCE).body.decode()
    assert f'name="reference" value="{REFERENCE}"' in body
    assert 'maxlength="77"' in body
    assert '<form method="post"' in body


def test_the_operators_words_are_used_and_escaped() -> None:
    page = ObjectionPage(PageTable(operator="A <b> & C", texts={"en": {"form.title": "Tell {operator}"}}), 9)
    assert "<h1>Tell A &lt;b&gt; &amp; C</h1>" in page.form("en", "").body.decode()


def test_the_policy_lets_nothing_in_and_forms_go_nowhere_else() -> None:
    policy = ObjectionPage(PageTable(), 9).form("", "").policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("form-action 'self'; frame-ancestors 'none'")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (PageTable(texts={"en": {"form.nonsense": "x"}}), r"^page\.texts\.en\.form\.nonsense: unknown"),
        (PageTable(default_language="de"), r"^page\.default_language: no texts"),
    ],
)
def test_what_cannot_be_used(table: PageTable, message: str) -> None:
    with pytest.raises(UrlwardError, match=message):
        ObjectionPage(table, 9)
