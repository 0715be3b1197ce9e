from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples, matcher
from lists.formats.support import DATA, lines, read, refused
from urlward.lists.formats.found import DEFAULTS, FormatError, FormatOptions, Part
from urlward.lists.formats.squidguard import parts, read_domains, read_expressions, read_urls

FOLDER = DATA / "squidguard"


def test_domains_cover_subdomains() -> None:
    check = matcher(*lines("squidguard-domains", "# x\nA.example\n.b.example\n192.0.2.7\nxxx\n")).check_url
    for url in (
        "http://a.example/x",
        "http://x.a.example/",
        "http://x.b.example/",
        "http://192.0.2.7/x",
        "http://y.xxx/",
    ):
        assert check(url).blocked
    assert not check("http://ba.example/").blocked


@pytest.mark.parametrize(
    ("line", "blocked", "passed"),
    [
        (
            "a.example/Dir/Page",
            ["a.example/dir/page", "www.a.example/dir/page?x=1", "a.example:81/DIR/PAGE/below"],
            ["a.example/dir/", "a.example/dir/pages", "sub.a.example/dir/page"],
        ),
        ("a.example/dir/", ["a.example/dir/", "a.example/dir/x"], ["a.example/dir", "a.example/"]),
        ("a.example", ["a.example/", "www.a.example/x"], ["sub.a.example/", "a.example.b.example/"]),
        ("a.example/", ["a.example/", "www.a.example/x"], ["sub.a.example/"]),
        ("www.a.example", ["www.a.example/"], ["a.example/"]),
        ("www.a.example:8080/x", ["a.example/x", "www.a.example/x"], ["a.example/"]),
        ("http://a.example/x", ["a.example/x"], ["a.example/"]),
        (
            "a.example/x?id=5",
            ["a.example/x?id=5&y=6", "a.example/X?id=5"],
            ["a.example/x", "a.example/x?id=6"],
        ),
        ("192.0.2.7/x", ["192.0.2.7/x"], ["192.0.2.7/"]),
        ("192.0.2.7", ["192.0.2.7/x"], ["192.0.2.8/"]),
        ("a.example/x http://redirect.example/", ["a.example/x"], ["redirect.example/"]),
    ],
)
def test_urls_are_the_beginning_of_a_path(line: str, blocked: list[str], passed: list[str]) -> None:
    check = matcher(*lines("squidguard-urls", line)).check_url
    assert [url for url in blocked if not check(f"http://{url}").blocked] == []
    assert [url for url in passed if check(f"http://{url}").blocked] == []


@pytest.mark.parametrize(
    ("kind", "line"), [("domains", "a/b"), ("domains", "a_*.b"), ("urls", "a?c=d"), ("urls", "/x")]
)
def test_bad_lines(kind: str, line: str) -> None:
    _, skipped = read(f"squidguard-{kind}", f"  {line}")
    assert [(s.line, s.column, s.unsupported) for s in skipped] == [(1, 3, False)]


@pytest.mark.parametrize(
    "line", ["ftp://a.example/x", "a.example//", "a.example/../", "a.example/x/.", "a.example/x%2f..%2fy/"]
)
def test_what_is_of_a_kind_that_cannot_be_taken(line: str) -> None:
    assert refused("squidguard-urls", line).unsupported


def test_a_scheme_in_a_query_is_part_of_it() -> None:
    assert lines("squidguard-urls", "a.example/x?u=http://b.example/") == [
        "http://a.example/x?u=http://b.example/ nocase"
    ]


def test_a_folder_in_a_folder_names_the_category() -> None:
    of = {category: FormatOptions(category=category) for category in ("banking", "phishing", "empty")}
    assert parts(FOLDER, FormatOptions(category="other")) == [
        Part(FOLDER / "empty/urls", read_urls, of["empty"]),
        Part(FOLDER / "finance/banking/domains", read_domains, of["banking"]),
        Part(FOLDER / "finance/banking/expressions", read_expressions, of["banking"]),
        Part(FOLDER / "phishing/domains", read_domains, of["phishing"]),
        Part(FOLDER / "phishing/urls", read_urls, of["phishing"]),
    ]


def test_a_file_by_its_name() -> None:
    path = FOLDER / "phishing" / "urls"
    assert parts(path, DEFAULTS) == [Part(path, read_urls, FormatOptions(category="phishing"))]
    assert parts(path, FormatOptions(category="a"))[0].options.category == "a"


def test_neither(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no file named domains or urls in it"):
        parts(tmp_path, DEFAULTS)
    (tmp_path / "list.txt").touch()
    with pytest.raises(FormatError, match="a folder, or a file named domains or urls"):
        parts(tmp_path / "list.txt", DEFAULTS)
    with pytest.raises(FileNotFoundError):
        parts(tmp_path / "none", DEFAULTS)
    with pytest.raises(FormatError, match="a folder, or a file named domains or urls"):
        read("squidguard", "a.example\n")


def test_expressions_are_counted() -> None:
    found = list(read_expressions((FOLDER / "finance/banking/expressions").open("rb"), DEFAULTS))
    assert [(s.line, s.reason, s.unsupported) for s in found] == [(1, "a regular expression", True)]


_PIECES = st.sampled_from(
    [*"/?*\"'#=& .:@%^|", "a", "a.example", "www.", "http://", " id=x", "\u00e9", "[", "]"]
)


@examples(400)
@given(st.lists(_PIECES, max_size=8).map("".join), st.sampled_from(["squidguard-urls", "squidguard-domains"]))
def test_any_line_gives_blocks_or_reasons(text: str, kind: str) -> None:
    found, _ = read(kind, text)
    for line in found:
        assert not line.startswith(("@", "*", "#", "!"))
        assert "id=x" not in line.split()


def test_refused() -> None:
    assert refused("squidguard-urls", "?x").reason == "a query without a path"
