import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples, matcher
from lists.formats.support import DATA, read
from rows import each_row
from urlward.engine.grammar import MAX_LINE
from urlward.lists.formats.format import FormatError

COLUMNS = {"url": "address", "host": "Site", "id": "Ref", "category": "Kind", "expires": "Until"}


def test_named_columns() -> None:
    found, skipped = read("csv", (DATA / "table.csv").read_bytes(), COLUMNS, ";")
    assert found == [
        "http://one.example/a id=R-1 category=phishing expires=2027-01-31",
        "0.0.0.0 two.example id=R-2 category=Malware-more expires=2027-02-01",
        "http://three.example/%22x%22%20y id=R-3",
    ]
    assert [(s.line, s.unsupported) for s in skipped] == [(5, False), (6, False)]


def test_numbered_columns_have_no_line_of_names() -> None:
    found, _ = read(
        "csv", "x,http://a.example/,7\ny,http://b.example/\n", {"url": "2", "id": "3"}, category="c"
    )
    assert found == ["http://a.example/ id=7 category=c", "http://b.example/ category=c"]


def test_columns_that_are_called_like_fields_need_no_naming() -> None:
    assert read("csv", "ID, Domain ,note\n5,a.example,x\n")[0] == ["a.example id=5"]


@each_row(
    ("text", "columns", "reason"),
    [
        ("http://secret.example/\n", {}, "no column that says what to block"),
        ("http://secret.example/\n", {"url": "link"}, "line 1 names no column 'link'"),
        ("url,Action\nsecret.example,allow\n", {}, "a column 'action': --column url=NAME says"),
        ("id\n", {"id": "id"}, "no column that says what to block"),
        ("1\n", {"id": "1"}, "no column that says what to block"),
    ],
)
def test_columns_that_are_not_there(text: str, columns: dict[str, str], reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as raised:
        read("csv", text, columns)
    assert "secret" not in str(raised.value)


def test_quotes_and_line_breaks_inside() -> None:
    found, skipped = read("csv", 'url,note\n"http://a.example/""x"",y","two\nlines"\nhttp://b.example/,z\n')
    assert found == ["http://a.example/%22x%22,y", "http://b.example/"]
    assert not skipped


@each_row(
    "row",
    [
        '"http://a.example/"x',
        '"open',
        '"' + "x" * 140_000 + '"',
        "x" * (4 * MAX_LINE),
        "http://a\udcff.example/",
    ],
)
def test_a_row_that_cannot_be_read_is_one_bad_line(row: str) -> None:
    data = ("url\nhttp://one.example/\n" + row + "\n").encode("utf-8", "surrogateescape")
    found, skipped = read("csv", data)
    assert found == ["http://one.example/"]
    assert [(s.line, s.unsupported) for s in skipped] == [(3, False)]


def test_rows_follow_a_bad_one() -> None:
    found, skipped = read(
        "csv", 'url\n"a"b\nhttp://one.example/\n' + "x" * (4 * MAX_LINE) + "\nhttp://two.example/\n"
    )
    assert found == ["http://one.example/", "http://two.example/"]
    assert [s.line for s in skipped] == [2, 4]


def test_a_quote_that_nobody_closes_takes_no_entries_with_it() -> None:
    urls = [f"http://a.example/{n}" for n in range(60)]
    rows = [f"{url},x" for url in urls]
    found, skipped = read("csv", "\n".join(["url,note", *rows[:30], 'http://b.example/,"x', *rows[30:], ""]))
    assert found == urls
    assert [s.line for s in skipped] == [32]


def test_other_columns_may_be_of_any_encoding() -> None:
    assert read("csv", b"url,name\nhttp://a.example/,caf\xe9\n")[0] == ["http://a.example/"]


@each_row(
    ("record", "line"),
    [
        ({"url": "http://a.example/x"}, "http://a.example/x"),
        ({"url": "a.example"}, "0.0.0.0 a.example"),
        ({"url": ".a.example"}, "a.example"),
        ({"url": ".a.example/x"}, "http://a.example/x subdomains"),
        ({"url": "", "host": "a.example"}, "0.0.0.0 a.example"),
        ({"host": "a.example", "path": "x/y?z=1"}, "http://a.example/x/y?z=1"),
        ({"host": "a.example", "path": "/*"}, "http://a.example/%2A"),
        ({"domain": "a.example", "id": 5}, "a.example id=5"),
        ({"domain": "a.example", "id": 'x" nocase'}, "a.example id=x-nocase"),
        ({"host": "a.example/x", "path": "y"}, None),
        ({"host": "a.example id=x"}, None),
        ({"url": ["http://a.example/"]}, None),
        ({}, None),
        ([], None),
        ("http://a.example/", None),
        (None, None),
    ],
)
@each_row("kind", ["json", "jsonl"])
def test_records(kind: str, record: object, line: str | None) -> None:
    text = json.dumps(record)
    found, skipped = read(kind, f"[{text}]" if kind == "json" else text)
    assert (found, len(skipped)) == (([line], 0) if line else ([], 1))


def test_members_of_members() -> None:
    text = '{"a": {"b": "http://a.example/", "c": 7}}\n{"a": 5}\n'
    found, [skipped] = read("jsonl", text, {"url": "a.b", "id": "a.c"})
    assert found == ["http://a.example/ id=7"]
    assert skipped.line == 2


def test_lines_that_are_not_json() -> None:
    text = '{"host": "a.example"}\n{"host": \n' + "[" * 100_000 + "\nNaN\n" + "9" * 5000 + "\n"
    found, skipped = read("jsonl", text)
    assert found == ["0.0.0.0 a.example"]
    assert [s.line for s in skipped] == [2, 3, 4, 5]


@each_row(
    "text",
    ['[{"host": "a.example"}', '[{"host": "a.example"},', '[{"host": "a.example"}, x]', "[", '["a\xff"]'],
)
def test_half_an_array_is_none(text: str) -> None:
    with pytest.raises(FormatError, match="not whole, or not JSON, after record") as raised:
        read("json", text.encode("latin-1"))
    assert "a.example" not in str(raised.value)


@each_row("text", ["", "{}", "5", "url"])
def test_no_array(text: str) -> None:
    with pytest.raises(FormatError, match="not a JSON array"):
        read("json", text)


@examples(200)
@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_a_url_of_any_text_is_one_page_that_it_matches(rest: str) -> None:
    url = f"http://a.example/{rest}"
    found, skipped = read("json", json.dumps([{"url": url}]))
    assert not skipped
    assert matcher(*found).check_url(url.strip()).blocked
