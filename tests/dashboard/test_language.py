"""The dashboard's languages: that every text is translated, and that the right one is shown."""

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest
from jinja2 import Environment, nodes

from dashboard.admin_support import MadeUp, Site, serving
from dashboard.test_app import Browser
from rows import each_row
from urlward.config import Config
from urlward.dashboard import handler
from urlward.dashboard.handler import NAVIGATION
from urlward.dashboard.language import TEXTS, Language, language_of, languages
from urlward.engine.entry import Kind
from urlward.feeds.learn import Learning
from urlward.feeds.source import Reason
from urlward.feeds.status import STATES
from urlward.page.words import SHIPPED, read_texts
from urlward.policy.own import Learned
from urlward.records.event import KINDS
from urlward.records.exposition import ALARMS, OFFERS
from urlward.records.metrics import PUBLISHING, TROUBLES
from urlward.records.reading import _fields
from urlward.records.store import EventQuery
from urlward.records.watches import Watches
from urlward.state.audit_view import TOPICS
from urlward.state.folder import local_key

HERE = Path(handler.__file__).parent
ROOT = HERE.parent
TEMPLATES = sorted((HERE / "templates").glob("*.j2"))
OWN = read_texts(TEXTS)
ENGLISH = OWN["en"]

NAMES = {"CSV", "JSON Lines", "urlward", "ms", "h", "s", "UTC", "Z", "ssh -L", "urlward admin add"}
"""What is the same in every language."""

SEEN = {"alt", "aria-description", "aria-label", "aria-roledescription", "content", "data-label", "label",
        "placeholder", "summary", "title"}  # fmt: skip
WORDS = re.compile(r"[^\W\d_]{2,}")
HOLE = "\ue000"


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_each_language_has_each_text():
    for tag in SHIPPED:
        assert OWN[tag].keys() == ENGLISH.keys(), tag
        assert [key for key, text in OWN[tag].items() if not text.strip()] == []


@each_row("tag", SHIPPED)
def test_a_text_has_the_same_placeholders_in_each_language(tag: str):
    for key, text in OWN[tag].items():
        whole = fields(ENGLISH[key])
        if key.endswith(".one"):  # "1 event" needs no number to be filled in
            assert whole | {"count"} == fields(ENGLISH[key.removesuffix("one") + "other"]) | {"count"}, key
            assert fields(text) | {"count"} == whole | {"count"}, key
        else:
            assert fields(text) == whole, key
        for _, name, form, conversion in Formatter().parse(text):
            assert name is None or (name.isidentifier() and not form and not conversion), key


def test_a_plural_has_both_forms():
    for key in ENGLISH:
        if key.endswith(".one"):
            assert key.removesuffix("one") + "other" in ENGLISH


class Seen(HTMLParser):
    """What of a page is read or spoken."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside.append(tag)
        self.texts += [value for name, value in attrs if name in SEEN and value and tag != "meta"]

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.inside and "script" not in self.inside:
            self.texts.append(data)


def literal_texts(source: str) -> Iterator[str]:
    """Words of a template that are no expression, and those of its expressions that are no key."""
    environment = Environment(autoescape=True)
    parts = []
    depth = 0
    for _, kind, value in environment.lex(source):
        if kind in ("variable_begin", "block_begin", "comment_begin"):
            depth += 1
        elif kind in ("variable_end", "block_end", "comment_end"):
            depth -= 1
            parts.append(HOLE)
        elif kind == "data" and not depth:
            parts.append(value)
    parser = Seen()
    parser.feed("".join(parts))
    for text in parser.texts:
        yield text.replace(HOLE, " ")
    for node in environment.parse(source).find_all((nodes.Output, nodes.Assign, nodes.For, nodes.Call)):
        for const in node.find_all(nodes.Const):
            # A sentence, or a word that begins one; names and keys have neither blanks nor capitals.
            if isinstance(const.value, str) and re.search(r"[^\W\d_] |^[A-Z]", const.value.strip()):
                yield const.value


@each_row("path", TEMPLATES, ids=lambda path: path.name)
def test_no_text_stands_in_a_template(path: Path):
    found = {" ".join(text.split()) for text in literal_texts(path.read_text())}
    left = {text for text in found if any(word not in NAMES for word in WORDS.findall(text))}
    assert left - NAMES == set()


@each_row(
    "source",
    [
        "<p>Hello</p>",
        '<p aria-label="Hello"></p>',
        '<td data-label="Time">{{ x }}</td>',
        '{{ "No alarm." if x else "s" }}',
        '{{ badge("bad", "Not good") }}',
        '{% set label = "By list" %}',
        '{% for a in (("list", "By list"),) %}{% endfor %}',
    ],
)
def test_a_text_in_a_template_is_found(source: str):
    assert any(any(word not in NAMES for word in WORDS.findall(text)) for text in literal_texts(source))


def used_keys() -> set[str]:
    """Texts that templates and handlers ask for by a whole key."""
    found = set()
    for path in TEMPLATES:
        for node in Environment(autoescape=True).parse(path.read_text()).find_all(nodes.Call):
            if isinstance(node.node, nodes.Name) and node.node.name == "t":
                first = node.args[0]
                branches = [first.expr1, first.expr2] if isinstance(first, nodes.CondExpr) else [first]
                found |= {one.value for one in branches if isinstance(one, nodes.Const)}
    return found | {key for _, key in NAVIGATION}


def test_each_key_that_is_asked_for_has_a_text():
    assert {key for key in used_keys() if key not in ENGLISH and f"{key}.other" not in ENGLISH} == set()


def page_titles() -> Iterator[tuple[str, str]]:
    for path in sorted(HERE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and len(node.args) > 1:
                title = node.args[1]
                if node.func.attr == "page" and isinstance(title, ast.Constant):
                    yield path.name, title.value


def test_each_title_has_a_text():
    titles = list(page_titles())
    assert len(titles) >= 8
    assert [(file, title) for file, title in titles if title not in ENGLISH] == []


def test_no_text_is_of_nothing():
    literals = {
        node.value
        for path in HERE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for path in TEMPLATES:
        literals |= {
            one.value for one in Environment(autoescape=True).parse(path.read_text()).find_all(nodes.Const)
        }
    # Looked up by a name that only the running program knows.
    by_name = (
        "message.", "term.", "done.", "now.live.", "edit.", "field.", "hint.", "own.as_", "audit.topic.",
    )  # fmt: skip
    unused = set()
    for key in ENGLISH:
        whole = re.sub(r"\.(one|other)$", "", key)
        start, _, last = whole.rpartition(".")
        if not key.startswith(by_name) and whole not in literals and not {f"{start}.", last} <= literals:
            unused.add(key)
    assert unused == set()


def said(path: Path, *errors: str) -> Iterator[tuple[str, str]]:
    """Messages that a module raises: its constants and f-strings, with a letter for each part that varies."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        text = node.args[0]
        if name not in errors:
            continue
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            yield path.name, text.value
        elif isinstance(text, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "X" for one in text.values]
            yield path.name, "".join(map(str, parts))


REASONS = {
    reason
    for name in ("candidate.py", "guards.py", "refresh.py")
    for _, reason in said(ROOT / "feeds" / name, "RefusedError")
}
"""Why a candidate is refused."""


def test_words_that_scripts_rely_on_are_translated():
    states = {*STATES, "open", "granted", "declined", "pass", "monitor"}
    words = states | set(KINDS) | {kind.label for kind in Kind} | set(ALARMS)
    words |= {*OFFERS, *(action for actions in TOPICS.values() for action in actions)}
    for troubles in (TROUBLES, PUBLISHING):
        words |= {*troubles, *(end for end, _ in troubles.values())}
    words |= {*get_args(Reason), *REASONS}
    searched = EventQuery(("block",), 1, 1, *"rlc", None, (), *"eg")
    words |= {"form", *_fields(searched), *_fields(EventQuery(client="192.0.2.7"))}
    assert {word for word in words if f"term.{word}" not in ENGLISH} == set()


SPOKEN = [
    *(
        one
        for path in sorted(HERE.glob("*.py"))
        for one in said(path, "UrlwardError", "NotConfiguredError", "_again")
        if one != ("editing.py", "X: X")  # of another module
    ),
    *said(ROOT / "policy/reasons.py", "error"),
    *said(ROOT / "policy/allows.py", "UrlwardError"),
    *(
        one
        for one in said(ROOT / "objections/objections.py", "UrlwardError")
        if not one[1].endswith("decide some")  # in the log alone
    ),
    *said(ROOT / "policy/own.py", "UrlwardError"),
    *said(ROOT / "feeds/rollback.py", "UrlwardError"),
    *said(ROOT / "publish/rollout.py", "UrlwardError"),
    *said(ROOT / "publish/desk.py", "UrlwardError"),
    *(
        one
        for one in said(ROOT / "records/event.py", "UrlwardError")
        if one[1].startswith("reference: ")  # the others are of events that are left out
    ),
    *said(ROOT / "state/people.py", "UrlwardError"),
]
FOR_SCRIPTS = ("body: ", "admin: ", "who: ", "message: ")
"""Begins what no page shows: the body of a script's request, the address to listen on, and what is wrong with
an objection, whose page has words of its own."""


@each_row(("file", "message"), SPOKEN)
def test_messages_are_translated(file: str, message: str):
    if message.startswith(FOR_SCRIPTS) or message == "X":
        return
    if message == "at most X days, and not none":  # said before, of the same form's field
        return
    spanish = languages()["es"].message(message)
    assert "<span" not in spanish, message
    assert spanish != message


def test_a_message_keeps_its_parts():
    spanish = languages()["es"]
    assert "shop" in spanish.message("shop: not fetched: no thread")
    assert spanish.message("no rule fits, the list's use is block").endswith("el uso de la lista es bloqueo")
    assert spanish.message("limit: 1 to 1000") == "limit: de 1 a 1000"
    text = "no successful refresh since 2026-11-24T10:00:00Z, for 24h; the limit is 6h"
    assert spanish.message(text).startswith("ninguna descarga correcta desde 2026-11-24T10:00:00Z, hace 24h;")
    assert (
        spanish.message("no allow '<b>' is in force") == "no hay ningún permiso &#39;&lt;b&gt;&#39; en vigor"
    )


def test_what_has_no_translation_is_said_to_be_english():
    text = "connect: <refused>"
    assert languages()["fil"].message(text) == '<span lang="en">connect: &lt;refused&gt;</span>'
    assert languages()["en"].message(text) == "connect: &lt;refused&gt;"


def test_numbers():
    english, spanish = languages()["en"], languages()["es"]
    assert [english.number(n) for n in (0, 999, 1204, 1_204_311, 187.3, -4.5)] == [
        "0", "999", "1\u202f204", "1\u202f204\u202f311", "187.3", "-4.5",
    ]  # fmt: skip
    assert spanish.number(1204.25) == "1\u202f204,25"
    assert spanish.number("-") == "-"


def test_plurals():
    spanish = languages()["es"]
    assert [spanish("now.alarms", count=n) for n in (0, 1, 2, 1204)] == [
        "0 alarmas", "1 alarma", "2 alarmas", "1\u202f204 alarmas",
    ]  # fmt: skip


def test_a_value_is_escaped():
    assert languages()["en"]("allows.end_one", id='<b>"') == "End &lt;b&gt;&#34;"


def test_what_is_no_key_is_shown_as_it_is():
    assert languages()["es"]("<b>A title") == "&lt;b&gt;A title"


def test_a_text_that_a_language_lacks_is_english():
    texts = {"en": {"a.b": "one", "base.decimal": "."}, "es": {"base.decimal": ","}}
    assert Language("es", texts)("a.b") == "one"


@each_row(
    ("chosen", "accept", "tag"),
    [
        ("", "", "en"),
        ("", "es-MX,es;q=0.9,en;q=0.5", "es"),
        ("", "tl", "fil"),
        ("", "de", "en"),
        ("fil", "es", "fil"),
        ("xx", "es", "es"),
    ],
)
def test_which_language_is_read(chosen: str, accept: str, tag: str):
    assert language_of(chosen, accept).tag == tag


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(MadeUp(), tmp_path) as site:
        yield site


def test_a_page_is_in_the_browsers_language(site: Site):
    answer = Browser(site).get("/login", headers={"Accept-Language": "es-AR"})
    text = answer.data.decode()
    assert '<html lang="es"' in text
    assert "<h1>Iniciar sesión</h1>" in text
    assert answer.headers["Content-Language"] == "es"


def test_the_language_that_is_chosen_stays(site: Site):
    browser = Browser(site)
    answer = browser.form("/login", "/language", language="fil", back="/events?kind=block")
    assert (answer.status, answer.headers["Location"]) == (303, "/events?kind=block")
    (cookie,) = [one for one in browser.last_cookies if "-language=" in one]
    assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    browser.log_in()
    text = browser.get("/lists", headers={"Accept-Language": "es"}).data.decode()
    assert '<html lang="fil"' in text
    assert "<h1>Mga listahan at feed</h1>" in text


@pytest.mark.parametrize(
    "back", ["//evil.test/", "/\\evil.test/", "https://evil.test/", "", "x", "/a\r\nX: y", "/a b"]
)
def test_a_choice_of_language_leads_nowhere_else(site: Site, back: str):
    answer = Browser(site).form("/login", "/language", language="es", back=back)
    assert (answer.status, answer.headers["Location"]) == (303, "/")


def test_a_language_that_there_is_none_of(site: Site):
    browser = Browser(site)
    assert browser.form("/login", "/language", language="de", back="/login").status == 400
    assert browser.get("/login").status == 200


def test_a_wrong_form_is_answered_in_the_visitors_language(site: Site):
    browser = Browser(site).log_in()
    browser.form("/login", "/language", language="es", back="/")
    text = browser.form("/allows", url="http://a.example/", why="", **{"for": "2h"}).data.decode()
    assert "Motivo: hace falta, una línea de 500 caracteres como máximo" in text
    text = browser.form("/own", entry="a.example", category="a b").data.decode()
    assert "Categoría: de 1 a 64 letras, cifras o ._-" in text
    text = browser.get("/nothing").data.decode()
    assert "<h1>Error 404</h1>" in text
    assert "No se ha encontrado" in text


def test_scripts_are_answered_in_english(site: Site):
    answer = Browser(site).get("/api/now", headers={"Accept-Language": "es"})
    assert b'"error": "Unauthorized"' in answer.data


@each_row("path", sorted((HERE / "static").glob("[!u]*.js")), ids=lambda path: path.name)
def test_no_text_stands_in_a_script(path: Path):
    literals = re.findall(r'"([^"\n]*)"|`([^`]*)`', re.sub(r"(?m)//.*$", "", path.read_text()))
    sentences = [text for pair in literals for text in pair if re.match(r"[A-Z][a-z]|.*[a-z]\.$", text)]
    assert [text for text in sentences if text != "Etc/UTC"] == []


def test_what_an_alarm_says_of_known_files_is_translated(tmp_path: Path):
    texts: list[str] = []
    met = {"hotline": 2.0, "none": 1.0}
    watches = Watches(
        [],
        tmp_path,
        lambda *_, **__: None,
        known=lambda: (met, 3.0),
        alarm=lambda _, text, **__: texts.append(text),
    )
    watches.look_at_files()
    learning = Learning(Config(), tmp_path, local_key(tmp_path), 7, lambda _, text: texts.append(text))
    learning._tell(Learned([], False, 1), 0.0)
    assert len(texts) == 4
    for text in texts:
        for tag in ("es", "fil"):
            shown = languages()[tag].message(text)
            assert "<span" not in shown, text
            assert shown != text
