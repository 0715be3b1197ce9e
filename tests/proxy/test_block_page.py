import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rows import each_row
from urlward.config import PageTable
from urlward.page.words import SHIPPED, BlockPageError, load_texts
from urlward.proxy.block_page import (
    BlockNotice,
    BlockPage,
    BlockResponse,
    new_reference,
)

REFERENCE = "7Q4M-2XKD-93FH"
NOTICE = BlockNotice(REFERENCE, "Example list", "phishing")
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
HTML, PROBLEM, JSON, TEXT = "text/html", "application/problem+json", "application/json", "text/plain"

PLAIN = BlockPage(PageTable())


def page_with(status: Any = 451, links: Iterable[tuple[str, str]] = (), **changes: Any) -> BlockPage:
    help_ = [{"label": label, "url": url} for label, url in links]
    return BlockPage(PageTable(help=help_, **changes), status=status)


FULL = page_with(
    operator="Example Networks",
    authority_url="https://operator.example/blocking",
    objection="objections@operator.example",
    links=(("Example helpline", "https://help.example/"), ("Call the helpline", "tel:+631234567")),
)


def fields(response: BlockResponse) -> dict[str, str]:
    names = [name.decode() for name, _ in response.headers]
    assert len(names) == len(set(names))
    return {name.decode(): value.decode() for name, value in response.headers}


def media(response: BlockResponse) -> str:
    return fields(response)["Content-Type"].partition(";")[0]


def german(**changes: str) -> dict[str, str]:
    return {**load_texts({})["en"], "title": "Diese Seite ist gesperrt", **changes}


def test_headers_of_the_html_page() -> None:
    response = FULL.render(NOTICE, accept=BROWSER)
    assert (response.status, response.reason) == (451, "Unavailable For Legal Reasons")
    headers = fields(response)
    policy = headers.pop("Content-Security-Policy")
    assert headers == {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Language": "en",
        "Cache-Control": "no-store",
        "Vary": "Accept, Accept-Language",
        "Link": '<https://operator.example/blocking>; rel="blocked-by"',
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Content-Length": str(len(response.body)),
    }
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


@each_row("accept", [HTML, PROBLEM, JSON, TEXT])
def test_every_form_says_what_is_needed(accept: str) -> None:
    body = FULL.render(NOTICE, accept=accept).body.decode()
    for needed in ("Example Networks", "https://operator.example/blocking", "objections@operator.example"):
        assert needed in body
    for needed in (REFERENCE, "Example list", "imitate a trusted service", "https://help.example/"):
        assert needed in body


def test_403() -> None:
    response = page_with(status=403).render(NOTICE, accept=JSON)
    assert (response.status, response.reason) == (403, "Forbidden")
    assert json.loads(response.body)["title"] == "Forbidden"
    assert 'rel="blocked-by"' in fields(response)["Link"]


@each_row(
    ("changes", "target"),
    [
        ({}, "data:,network%20operator"),
        ({"operator": "Red de Ñuñoa; <x>, Inc"}, "data:,Red%20de%20%C3%91u%C3%B1oa%3B%20%3Cx%3E%2C%20Inc"),
        ({"authority_url": "https://opérateur.example/a?b=<c>".replace("<c>", "ñ")}, "https://xn--oprateur-c1a.example/a?b=%C3%B1"),
    ],
)  # fmt: skip
def test_blocked_by_always_has_a_target(changes: dict[str, str], target: str) -> None:
    assert fields(page_with(**changes).render(NOTICE))["Link"] == f'<{target}>; rel="blocked-by"'


def test_language_is_named_in_header_and_page() -> None:
    for language in SHIPPED:
        for accept in (HTML, JSON, TEXT):
            response = PLAIN.render(NOTICE, accept=accept, accept_language=f"{language}-ZZ")
            assert fields(response)["Content-Language"] == language
        html = PLAIN.render(NOTICE, accept=HTML, accept_language=language).body.decode()
        assert f'<html lang="{language}" dir="ltr">' in html


@each_row(
    ("objection", "shown"),
    [
        (
            "a@operator.example",
            f'<a href="mailto:a@operator.example?subject=Reference%20{REFERENCE}">a@operator.example</a>',
        ),
        ("https://operator.example/o", '<a href="https://operator.example/o">https://operator.example/o</a>'),
        ("By post", "Object here: By post</p>"),
    ],
)
def test_objection(objection: str, shown: str) -> None:
    assert shown in page_with(objection=objection).render(NOTICE, accept=HTML).body.decode()


def test_default_language() -> None:
    page = page_with(default_language="es")
    assert fields(page.render(NOTICE))["Content-Language"] == "es"
    assert fields(page.render(NOTICE, accept_language="en"))["Content-Language"] == "en"


@each_row("accept", [HTML, JSON, TEXT])
def test_head_has_the_headers_of_get(accept: str) -> None:
    get = FULL.render(NOTICE, accept=accept)
    head = FULL.render(NOTICE, accept=accept, head=True)
    assert head.body == b""
    assert head.headers == get.headers
    assert fields(head)["Content-Length"] == str(len(get.body))


def test_problem_object() -> None:
    response = FULL.render(NOTICE, accept=JSON)
    problem = json.loads(response.body)
    assert problem.pop("detail").startswith("The address you tried to open is on a blocklist")
    assert problem == {
        "type": "about:blank",
        "title": "Unavailable For Legal Reasons",
        "status": 451,
        "reference": REFERENCE,
        "operator": "Example Networks",
        "authority": "https://operator.example/blocking",
        "list": "Example list",
        "category": "phishing",
        "objection": f"mailto:objections@operator.example?subject=Reference%20{REFERENCE}",
        "objection_form": None,
        "help": [
            {"label": "Example helpline", "url": "https://help.example/"},
            {"label": "Call the helpline", "url": "tel:+631234567"},
        ],
    }


def test_each_response_has_its_own_reference() -> None:
    for accept in (HTML, JSON, TEXT):
        bodies = [
            FULL.render(BlockNotice(ref, "Example list", None), accept=accept).body for ref in ("AAAA", "BB")
        ]
        assert b"AAAA" in bodies[0]
        assert bodies[1] == bodies[0].replace(b"AAAA", b"BB")


def test_markup_is_escaped() -> None:
    evil = "<script>alert('x')</script>"
    page = page_with(
        operator=evil,
        objection=evil,
        links=((evil, "https://help.example/?a=1&b='2"),),
        texts={"en": {"title": evil}},
    )
    html = page.render(BlockNotice(evil, evil, evil), accept=HTML).body.decode()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 6
    assert "scriptalertxscript" in html  # the reference keeps its letters alone
    text = page.render(BlockNotice(REFERENCE, evil, None)).body.decode()
    assert evil in text
    assert json.loads(page.render(BlockNotice(REFERENCE, evil, evil), accept=JSON).body)["list"] == evil


def test_control_characters_of_a_list_name_are_shown_as_such() -> None:
    body = PLAIN.render(BlockNotice(REFERENCE, "a\r\n\x1b[31m\u202eb", None)).body.decode()
    assert "a\ufffd\ufffd\ufffd[31m\ufffdb" in body


@each_row(
    ("changes", "key"),
    [
        ({"status": 200}, "status"),
        ({"status": "451"}, "status"),
        ({"operator": "A\r\nX: y"}, "operator"),
        ({"authority_url": "https://a.example/\r\nX: y"}, "authority_url"),
        ({"authority_url": "https://a.example/\tb"}, "authority_url"),
        ({"authority_url": 'https://a.example/>; rel="x"'}, "authority_url"),
        ({"authority_url": "javascript:alert(1)"}, "authority_url"),
        ({"authority_url": "mailto:a@operator.example"}, "authority_url"),
        ({"authority_url": "operator.example"}, "authority_url"),
        ({"authority_url": "https://"}, "authority_url"),
        ({"authority_url": ""}, "authority_url"),
        ({"objection": "javascript:alert(1)"}, "objection"),
        ({"objection": "JavaScript:alert('a b')"}, "objection"),
        ({"objection": "data:text/html,x"}, "objection"),
        ({"objection": "call\nus"}, "objection"),
        ({"objection": "  "}, "objection"),
        ({"links": (("Help", "javascript:alert(1)"),)}, "help"),
        ({"links": (("Help", "/help"),)}, "help"),
        ({"links": (("", "https://help.example/"),)}, "help"),
        ({"links": (("He\rlp", "https://help.example/"),)}, "help"),
        ({"texts": {"en": {"titel": "x"}}}, "texts.en.titel"),
        ({"texts": {"en": {"title": " "}}}, "texts.en.title"),
        ({"texts": {"en": {"title": "x\r\ny"}}}, "texts.en.title"),
        ({"texts": {"en": {"title": "{reference}"}}}, "texts.en.title"),
        ({"texts": {"en": {"title": "{operator.__class__}"}}}, "texts.en.title"),
        ({"texts": {"en": {"title": "{operator!r}"}}}, "texts.en.title"),
        ({"texts": {"en": {"title": "{operator:>999999999}"}}}, "texts.en.title"),
        ({"texts": {"en": {"title": "{"}}}, "texts.en.title"),
        ({"texts": {"en": {"direction": "up"}}}, "texts.en.direction"),
        ({"texts": {"en": {"category.A B": "x"}}}, "texts.en.category.A B"),
        ({"texts": {"not a tag": {"title": "x"}}}, "texts.not a tag"),
        ({"texts": {"de": {"title": "Gesperrt"}}}, "texts.de.direction"),
        ({"default_language": "de"}, "default_language"),
        ({"template_dir": "/nonexistent"}, "template_dir"),
    ],
)
def test_a_bad_setting_is_named_in_one_line(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(BlockPageError) as caught:
        page_with(**changes)
    assert caught.value.key == key
    assert str(caught.value) == f"{key}: {caught.value.message}"
    assert len(str(caught.value).splitlines()) == 1


@each_row("language", SHIPPED)
def test_each_language_has_every_text(language: str) -> None:
    texts = load_texts({})
    assert texts[language].keys() == texts["en"].keys()
    same = {key for key, text in texts[language].items() if text == texts["en"][key]}
    assert same <= ({"direction", "reference_label"} if language != "en" else texts["en"].keys())


@each_row("language", SHIPPED)
@each_row(
    ("category", "key"),
    [
        (None, "default"),
        ("never heard of", "default"),
        ("phishing", "phishing"),
        ("CSAM", "child-abuse"),
        ("child_sexual abuse", "child-abuse"),
    ],
)
def test_reason_and_advice_follow_the_category(language: str, category: str | None, key: str) -> None:
    texts = load_texts({})[language]
    html = PLAIN.render(
        BlockNotice(REFERENCE, "l", category), accept=HTML, accept_language=language
    ).body.decode()
    assert texts[f"category.{key}"] in html
    assert texts[f"advice.{key}"] in html


def test_texts_can_be_changed_and_added() -> None:
    page = page_with(
        operator="Example & Co",
        texts={
            "en": {"title": "{operator} says no", "category.court-order-7": "Order 7 on {list}."},
            "es-MX": {"badge": "Bloqueado en México"},
            "es": {"title": "Cambiado"},
            "tl": {"badge": "Bawal"},
            "de-AT": german(),
        },
    )
    english = page.render(BlockNotice(REFERENCE, "Seven", "court_order 7"), accept=HTML).body.decode()
    assert "<h1>Example &amp; Co says no</h1>" in english
    assert "Order 7 on Seven." in english
    mexican = page.render(NOTICE, accept=HTML, accept_language="es-mx").body.decode()
    assert "Bloqueado en México" in mexican
    assert "<h1>Cambiado</h1>" in mexican
    assert "México" not in page.render(NOTICE, accept=HTML, accept_language="es").body.decode()
    assert "Bawal" in page.render(NOTICE, accept=HTML, accept_language="fil").body.decode()
    austrian = page.render(NOTICE, accept=HTML, accept_language="de-AT")
    assert fields(austrian)["Content-Language"] == "de-at"
    assert "Diese Seite ist gesperrt" in austrian.body.decode()


def test_a_custom_template_replaces_one_file(tmp_path: Path) -> None:
    (tmp_path / "block.html.j2").write_text("<style>b{}</style>{{ operator }}\r\n<b>{{ reference }}</b>")
    page = page_with(template_dir=str(tmp_path), operator="<x>")
    response = page.render(NOTICE, accept=HTML)
    assert response.body.decode() == f"<style>b{{}}</style>&lt;x&gt;\n<b>{REFERENCE}</b>"
    # printf 'b{}' | openssl dgst -sha256 -binary | base64
    assert (
        "'sha256-7yqHVAesot11p6HczDsgKRipvI5UPgs97z80zNXlans='" in fields(response)["Content-Security-Policy"]
    )
    assert "THIS PAGE IS BLOCKED" in page.render(NOTICE).body.decode()


def test_an_included_file_is_escaped_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "block.html.j2").write_text("{% include 'part.txt.j2' %}{{ reference }}")
    (tmp_path / "part.txt.j2").write_text("{{ operator }}")
    page = page_with(template_dir=str(tmp_path), operator="<x>")
    assert page.render(NOTICE, accept=HTML).body.startswith(b"&lt;x&gt;")


def test_an_included_file_is_not_missed_later(tmp_path: Path) -> None:
    """As while the package is upgraded in its place."""
    (tmp_path / "block.html.j2").write_text("{% include 'part.txt.j2' %}{{ reference }}")
    part = tmp_path / "part.txt.j2"
    part.write_text("part ")
    page = page_with(template_dir=str(tmp_path))
    part.unlink()
    assert page.render(NOTICE, accept=HTML).body == f"part {REFERENCE}".encode()


def test_a_template_that_alters_the_reference_is_rendered_each_time(tmp_path: Path) -> None:
    (tmp_path / "block.html.j2").write_text("{{ reference | lower | replace('-', ' ') }}")
    page = page_with(template_dir=str(tmp_path))
    for _ in range(2):
        assert page.render(NOTICE, accept=HTML).body == b"7q4m 2xkd 93fh"
    other = page.render(BlockNotice("AAAA-BBBB", "l", None), accept=HTML, head=True)
    assert fields(other)["Content-Length"] == "9"


@each_row(
    ("source", "message"),
    [
        ("{% if %}{{ reference }}", "line 1: Expected"),
        ("{{ reference }}{{ url }}", "'url' is undefined"),
        ("{{ reference }}{{ 1 / 0 }}", "division by zero"),
        ("{{ reference }}{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ reference }}{% include 'missing.j2' %}", "missing.j2"),
        ("blocked", "does not show the reference"),
    ],
)
def test_a_broken_template_is_refused(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "block.html.j2").write_text(source)
    with pytest.raises(BlockPageError, match=f"^template_dir: block.html.j2 .*{re.escape(message)}"):
        page_with(template_dir=str(tmp_path))


def test_an_unreadable_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BlockPageError, match=r"holds no block\.html\.j2 and no block\.txt\.j2"):
        page_with(template_dir=str(tmp_path))
    (tmp_path / "block.txt.j2").write_bytes(b"\xff{{ reference }}")
    with pytest.raises(BlockPageError, match=r"block\.txt\.j2 cannot be loaded"):
        page_with(template_dir=str(tmp_path))


def test_a_template_that_fails_later_gives_plain_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "block.html.j2").write_text("{{ reference }}{{ 1 / (category != 'bad') }}")
    page = page_with(template_dir=str(tmp_path))
    assert media(page.render(NOTICE, accept=HTML)) == HTML
    response = page.render(BlockNotice(REFERENCE, "Example list", "bad"), accept=HTML)
    assert response.status == 451
    assert media(response) == TEXT
    assert response.body == f"This page is blocked.\nReference: {REFERENCE}\n".encode()
    assert 'rel="blocked-by"' in fields(response)["Link"]
    assert "could not be rendered" in caplog.text


hostile = st.text(st.characters(codec=None), max_size=60)
header_like = st.lists(
    st.sampled_from(
        [*'"\\;,=*/ \t\r\n\0', "q=", "0.5", "text", "html", "json", "es", "fil", "-", "utf-8''%", "*0*"]
    )
).map("".join)


@settings(max_examples=300)
@given(
    notice=st.builds(BlockNotice, hostile, hostile, st.none() | hostile),
    accept=hostile | header_like | st.just(HTML) | st.just(JSON),
    accept_language=hostile | header_like,
    head=st.booleans(),
)
def test_render_never_raises(notice: BlockNotice, accept: str, accept_language: str, head: bool) -> None:
    response = FULL.render(notice, accept=accept, accept_language=accept_language, head=head)
    assert response.status == 451
    for name, value in response.headers:
        assert re.fullmatch(rb"[A-Za-z-]+: [ -~]+", name + b": " + value)
    if not head:
        assert fields(response)["Content-Length"] == str(len(response.body))
        response.body.decode()
    if media(response) == JSON:
        assert head or json.loads(response.body)["status"] == 451


@given(hostile)
def test_any_operator_is_refused_or_gives_clean_headers(operator: str) -> None:
    try:
        page = page_with(operator=operator)
    except BlockPageError as error:
        assert error.key == "operator"  # noqa: PT017 -- most examples are not refused
        return
    link = fields(page.render(NOTICE))["Link"]
    assert re.fullmatch(r'<data:,[!-;=?-~]+>; rel="blocked-by"', link)


def test_reference() -> None:
    assert new_reference(lambda size: bytes(size)) == "0000-0000-0000"
    assert new_reference(lambda size: b"\xff" * size) == "ZZZZ-ZZZZ-ZZZZ"
    made = {new_reference() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{4}(?:-[0-9A-HJKMNP-TV-Z]{4}){2}", ref) for ref in made)
