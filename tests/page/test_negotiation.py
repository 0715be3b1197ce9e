import os
import subprocess
import sys

from rows import each_row
from urlward.page.words import PageForm, choose_form, choose_language

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
IMAGE = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


@each_row(
    ("accept", "expected"),
    [
        ("", PageForm.TEXT),
        ("*/*", PageForm.TEXT),
        (IMAGE, PageForm.TEXT),
        ("text/css,*/*;q=0.1", PageForm.TEXT),
        (BROWSER, PageForm.HTML),
        ("text/html, application/xhtml+xml, */*", PageForm.HTML),
        ("TEXT/HTML", PageForm.HTML),
        ("application/xhtml+xml", PageForm.HTML),
        ("text/html;level=1", PageForm.HTML),
        ("text/html;charset=utf-8;q=0.5, text/plain;q=0.4", PageForm.HTML),
        ("text/html;q=0.4, text/plain;q=0.5", PageForm.TEXT),
        ("text/*", PageForm.TEXT),
        ("application/*", PageForm.PROBLEM),
        ("application/json", PageForm.JSON),
        ("application/json; charset=utf-8", PageForm.JSON),
        ("application/json, text/plain, */*", PageForm.JSON),
        ("application/json, text/javascript, */*; q=0.01", PageForm.JSON),
        ("application/problem+json, application/json", PageForm.PROBLEM),
        ("application/problem+json;q=0.5, application/json", PageForm.JSON),
        ("text/html;q=0.1, application/json", PageForm.JSON),
        ("image/png, */*;q=0.5, text/html;q=0.1", PageForm.TEXT),
        ("text/html;q=0", PageForm.TEXT),
        ("text/html;q=0, */*", PageForm.TEXT),
        ("*/*;q=0", PageForm.TEXT),
        ("image/png", PageForm.TEXT),
        # hostile
        ("text/html;q=nan", PageForm.TEXT),
        ("text/html;q=9", PageForm.TEXT),
        ("text/html;q=-1", PageForm.TEXT),
        ("text/html;q=" + "9" * 400, PageForm.TEXT),
        ("*/html", PageForm.TEXT),
        ("text", PageForm.TEXT),
        (";;;,,,===", PageForm.TEXT),
        ('"text/html', PageForm.TEXT),
        ("text/html\r\nX: y", PageForm.TEXT),
        ("\x00\ud800\uffff", PageForm.TEXT),
        ("a/b;x*0*=utf-8''%ff;q*1=2", PageForm.TEXT),
        ("," * 100_000 + "text/html", PageForm.TEXT),
        ("text/html," + "x/y;q=0.1," * 100_000, PageForm.HTML),
    ],
)
def test_form(accept: str, expected: PageForm) -> None:
    assert choose_form(accept) is expected


@each_row(
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


def test_texts_are_read_whatever_the_locale_is() -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    program = "from urlward.page.words import load_texts; load_texts({})"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
