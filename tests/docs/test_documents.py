"""The documentation is whole: links lead somewhere, references are complete, figures as measured."""

import os
import pty
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from docs.documents import BENCHMARKS, DOCS, PAGES, README, ROOT, anchors, code, links, prose, rows, sections
from rows import each_row
from urlward import cli
from urlward.config import Config
from urlward.docs import topics
from urlward.records.event import KINDS
from urlward.records.exposition import ALARMS

MOST_WORDS = 1200
"""What a stranger reads in five minutes."""

LINKED = [*PAGES, BENCHMARKS]


@each_row("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_readme_is_short_and_names_every_topic() -> None:
    assert len(README.read_text().split()) <= MOST_WORDS
    named = {Path(link).stem for link in links(README) if (ROOT / link).parent == DOCS}
    assert named >= set(topics())


def test_nothing_leads_to_a_package_of_that_name_elsewhere() -> None:
    """No public registry has one; who made one would have their code run by whom a message leads there."""
    source = (ROOT / "addon/urlward").rglob("*.[pj][y2]")
    assert [path for path in (*PAGES, *source) if re.search(r"""['"`]urlward\[""", path.read_text())] == []


def test_readmes_figures_are_those_that_were_measured() -> None:
    measured = sections(BENCHMARKS)
    table = rows(sections(README)["Figures"])
    assert table
    for what, ours, theirs, source in table:
        name = source.partition("[")[2].partition("]")[0]
        cells = {cell.strip() for row in rows(measured[name]) for part in row for cell in part.split(" ± ")}
        words = set(measured[name].replace(",\n", " ").replace(", ", " ").split()) | cells
        for figure in (*ours.split(", "), *theirs.split()[:1]):
            assert figure in words, f"{what}: {figure} is not in benchmarks/README.md, {name}"


@each_row("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_exist(page: Path) -> None:
    known = {word for action in cli._parser()._actions for word in action.choices or ()} | {"COMMAND"}
    named = {span.split()[1] for span in code(prose(page)) if span.startswith("urlward ")}
    assert named <= known


def test_lines_that_are_no_block_are_the_filters() -> None:
    source = "".join(path.read_text() for path in (ROOT / "addon/urlward/proxy").glob("*.py"))
    table = rows(sections(DOCS / "block-page.md")["What is no block"])
    assert [line for _, text, _ in table for line in code(text) if line not in source] == []


def test_every_alarm_metric_and_kind_of_event_is_in_the_reference() -> None:
    files = ROOT / "addon/urlward/records/files"
    used = {
        re.sub("_(bucket|sum|count)$", "", name)
        for path in files.iterdir()
        for name in re.findall(r"\burlward_[a-z_]+", path.read_text())
    }
    text = sections(DOCS / "monitoring.md")
    assert used - {span for row in rows(text["Metrics"]) for span in code(row[0])} == set()
    assert set(ALARMS) - {span for row in rows(text["Alarms"]) for span in code(row[0])} == set()
    (kinds,) = (row[1] for row in rows((DOCS / "records.md").read_text()) if row[0] == "`kind`")
    assert set(KINDS) == set(code(kinds))


# --- urlward help


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as raised:
        cli.main(["help", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(raised.value.code, int)
    return raised.value.code, out, err


def test_help_lists_the_topics_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = shown(capsys)
    assert (code, err) == (0, "")
    names = [path.stem for path in sorted(DOCS.glob("*.md"))]
    lines = out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == names
    assert all(len(line) <= 110 and len(line.split()) > 3 for line in lines)


@each_row("topic", topics())
def test_help_shows_a_page_as_it_is(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, topic) == (0, (DOCS / f"{topic}.md").read_text(), "")


@each_row(
    ("topic", "hint"),
    [
        ("feed", "did you mean feeds?"),
        ("own", "see urlward own --help, and of all commands urlward help commands"),
        ("nonsense", "urlward help lists the topics"),
        ("../docs/feeds", "urlward help lists the topics"),
        ("", "urlward help lists the topics"),
    ],
)
def test_an_unknown_topic_is_one_line(topic: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, topic) == (2, "", f"urlward: help: {topic!r} is no topic; {hint}\n")


def test_a_terminal_gets_a_page_laid_out_by_its_pager() -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [Path(sys.executable).with_name("urlward"), "help", "audit"],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env={**os.environ, "PAGER": "sed s/^/paged:/", "TERM": "xterm", "COLUMNS": "100"},
            timeout=60,
            check=True,
        )
        os.close(theirs)
        theirs = -1
        text = b"".join(iter(lambda: read(ours), b"")).decode()
    finally:
        for each in (ours, theirs):
            if each >= 0:
                os.close(each)
    assert not done.stderr
    assert text.count("paged:") > 20
    assert "](" not in text
    assert "audit.head" in text


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other side is closed
        return b""


# --- the configuration's reference

SAME = {"pages": "page", "rule": "group.rule", "records.assignments": "records.store"}
"""Tables with the keys of another, which the reference says of them in words."""

REFERENCE = DOCS / "configuration.md"


def table_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(table_in, get_args(annotation))), None)


def tables(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """All tables of the file by their places, such as ``gateway.dns``; the file itself is empty."""
    yield path, model
    for name, field in model.model_fields.items():
        inner, at = table_in(field.annotation), f"{path}.{name}".removeprefix(".")
        if inner is not None and at not in SAME:
            yield from tables(inner, at)


def documented() -> Iterator[tuple[str, str, str]]:
    """Place, key and default, in TOML or empty where it is said in words, of each key of the reference."""
    for heading, text in sections(REFERENCE).items():
        place = "" if heading == "The file" else heading.strip("`[]").replace(".NAME", "")
        for keys, _, default in rows(text):
            values = code(default)
            said = default == ", ".join(f"`{value}`" for value in values) and len(values) == len(code(keys))
            for n, key in enumerate(code(keys)):
                yield place, key, values[n] if said else ""


KEYS = list(documented())


def test_the_reference_has_every_key_and_no_other() -> None:
    expected = {
        (place, field.alias or name)
        for place, model in tables(Config)
        for name, field in model.model_fields.items()
        # Tables of the file have headings of their own.
        if place or (table_in(field.annotation) is None and name != "mitmproxy")
    }
    assert {(place, key) for place, key, _ in KEYS} == expected
    assert len(KEYS) == len(expected)
    headings = {heading.strip("`[]").replace(".NAME", "") for heading in sections(REFERENCE)}
    assert headings == {place for place, _ in tables(Config) if place} | {"The file", "mitmproxy"}
    for name in ("[pages.NAME]", "[[rule]]"):
        assert f"`{name}`" in prose(REFERENCE)


NEEDED = {
    "feed": {"name": "x", "url": "https://lists.example/"},
    "page.help": {"label": "x", "url": "x"},
    "group": {"name": "x"},
    "group.rule": {"action": "block"},
    "schedule": {"zone": "UTC"},
    "proxy.pac": {"proxies": ["proxy.example:8080"]},
    "objections": {"url": "https://object.example/"},
    "fleet": {"url": "valkey://127.0.0.1"},
    "publish": {"key": "x", "sign": "x"},
}
"""What a table has to say besides."""


@each_row(("place", "key", "default"), [pytest.param(*k, id=".".join(k[:2])) for k in KEYS if k[2]])
def test_a_default_is_that_of_the_reference(place: str, key: str, default: str) -> None:
    model = dict(tables(Config))[place]
    name = next(name for name, field in model.model_fields.items() if (field.alias or name) == key)
    value = tomllib.loads(f"value = {default}")["value"]
    kind = {"max_size": "jsonl", "keep": "jsonl", "tls": "syslog", "facility": "syslog"}.get(key)
    needed = NEEDED.get(place, {})
    if place == "records.store":
        needed = {"kind": kind} | ({"address": "log.example:6514"} if kind == "syslog" else {})
    if (place, key) == ("fleet", "service"):
        needed = {"sentinels": ["valkey://127.0.0.1"]}
    found = getattr(model.model_validate({**needed, key: value}), name)
    assert found == getattr(model.model_validate(needed), name)
