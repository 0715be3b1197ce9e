import pytest

from urlward.page.negotiation import Form, choose_form, choose_language

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
IMAGE = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Form.TEXT),
        ("*/*", Form.TEXT),
        (IMAGE, Form.TEXT),
        ("text/css,*/*;q=0.1", Form.TEXT),
        (BROWSER, Form.HTML),
        ("text/html, application/xhtml+xml, */*", Form.HTML),
        ("TEXT/HTML", Form.HTML),
        ("application/xhtml+xml", Form.HTML),
        ("text/html;level=1", Form.HTML),
        ("text/html;charset=utf-8;q=0.5, text/plain;q=0.4", Form.HTML),
        ("text/html;q=0.4, text/plain;q=0.5", Form.TEXT),
        ("text/*", Form.TEXT),
        ("application/*", Form.PROBLEM),
        ("application/json", Form.JSON),
        ("application/json; charset=utf-8", Form.JSON),
        ("application/json, text/plain, */*", Form.JSON),
        ("application/json, text/javascript, */*; q=0.01", Form.JSON),
        ("application/problem+json, application/json", Form.PROBLEM),
        ("application/problem+json;q=0.5, application/json", Form.JSON),
        ("text/html;q=0.1, application/json", Form.JSON),
        ("image/png, */*;q=0.5, text/html;q=0.1", Form.TEXT),
        ("text/html;q=0", Form.TEXT),
        ("text/html;q=0, */*", Form.TEXT),
        ("*/*;q=0", Form.TEXT),
        ("image/png", Form.TEXT),
        # hostile
        ("text/html;q=nan", Form.TEXT),
        ("text/html;q=9", Form.TEXT),
        ("text/html;q=-1", Form.TEXT),
        ("text/html;q=" + "9" * 400, Form.TEXT),
        ("*/html", Form.TEXT),
        ("text", Form.TEXT),
        (";;;,,,===", Form.TEXT),
        ('"text/html', Form.TEXT),
        ("text/html\r\nX: y", Form.TEXT),
        ("\x00\ud800\uffff", Form.TEXT),
        ("a/b;x*0*=utf-8''%ff;q*1=2", Form.TEXT),
        ("," * 100_000 + "text/html", Form.TEXT),
        ("text/html," + "x/y;q=0.1," * 100_000, Form.HTML),
    ],
)
def test_form(accept: str, expected: Form) -> None:
    assert choose_form(accept) is expected


@pytest.mark.parametrize(
    ("accept_language", "expected"),
    [
        ("", "en"),
        ("*", "en"),
        ("de", "en"),
        ("es", "es"),
        ("ES", "es"),
        ("es-MX", "es"),
        ("es_MX", "es"),
        ("es-419", "es"),
        ("es-x-example", "es"),
        ("fil-PH,fil;q=0.9,en-US;q=0.8,en;q=0.7", "fil"),
        ("tl", "fil"),
        ("tl-PH, en;q=0.5", "fil"),
        ("fil-PH, en;q=0.8", "fil"),
        ("en;q=0.2, es;q=0.9", "es"),
        ("de, fr;q=0.9, es;q=0.1", "es"),
        ("es;q=0, fil", "fil"),
        ("es;q=0", "en"),
        ("est", "en"),
        ("pt", "en"),
        ("pt-BR-x-private", "pt-br"),
        ("PT_br", "pt-br"),
        ("*, es;q=0.5", "es"),
        ("es;q=2", "en"),
        ("-", "en"),
        ("\x00,\ud800;q=1,es", "es"),
        ("-" * 100_000, "en"),
    ],
)
def test_language(accept_language: str, expected: str) -> None:
    assert choose_language(accept_language, {"en", "fil", "es", "pt-br"}, "en") == expected
