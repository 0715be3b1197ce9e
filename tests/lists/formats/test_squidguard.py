from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples, matcher
from lists.formats.support import DATA, lines, read, refused
from rows import each_row
from urlward.lists.formats import format_named
from urlward.lists.formats.format import DEFAULTS, FormatError, FormatOptions, Found, Part
from urlward.lists.formats.squidguard import parts, read_domains, read_expressions, read_urls
from urlward.lists.source import Report, SourceError, read_source


class Nothing:
    """A compiler that forgets."""

    def add(self, entry: object) -> None:
        pass


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


@each_row(
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
            ["a.example/x?id=5&y=6", "a.example/X?id=5", "a.example/x?ID=5"],
            ["a.example/x", "a.example/x?id=6"],
        ),
        (
            "v.example/watch?v=abc1%c3%a4",
            ["v.example/Watch?V=ABC1%C3%A4&list=X", "v.example/watch?v=aBc1%c3%a4"],
            ["v.example/watch?v=ABC2%C3%A4", "v.example/watch"],
        ),
        ("192.0.2.37//arm5", ["192.0.2.37/arm5", "192.0.2.37//arm5"], ["192.0.2.37/", "192.0.2.37/x"]),
        ("192.0.2.7/x", ["192.0.2.7/x"], ["192.0.2.7/"]),
        ("192.0.2.7", ["192.0.2.7/x"], ["192.0.2.8/"]),
        ("a.example/x http://redirect.example/", ["a.example/x"], ["redirect.example/"]),
    ],
)
def test_urls_are_the_beginning_of_a_path(line: str, blocked: list[str], passed: list[str]) -> None:
    check = matcher(*lines("squidguard-urls", line)).check_url
    assert [url for url in blocked if not check(f"http://{url}").blocked] == []
    assert [url for url in passed if check(f"http://{url}").blocked] == []


@each_row(("kind", "line"), [("domains", "a/b"), ("domains", "a_*.b"), ("urls", "a?c=d"), ("urls", "/x")])
def test_bad_lines(kind: str, line: str) -> None:
    _, skipped = read(f"squidguard-{kind}", f"  {line}")
    assert [(s.line, s.column, s.unsupported) for s in skipped] == [(1, 3, False)]


@each_row(
    "line",
    [
        "ftp://a.example/x", "a.example//", "a.example/../", "a.example/x/.", "a.example/x%2f..%2fy/",
        "a.example/x#y", "a.example/#!/x", "a.example#x", "a.example/x?y#z",
    ],
)  # fmt: skip
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


def _database(tmp_path: Path, *folders: str) -> Path:
    for name in folders:
        (tmp_path / name).mkdir()
        (tmp_path / name / "domains").write_text(f"{name.replace('_', '-')}.example\n")
    return tmp_path


def _taken(path: Path, white: str = "skip") -> tuple[list[str], list[tuple[str, str]]]:
    found, skipped = [], []
    for part in parts(path, FormatOptions(white=white)):
        with part.path.open("rb") as file:
            for each in part.read(file, part.options):
                if isinstance(each, Found):
                    found.append(each.text.split()[0])
                else:
                    assert each.unsupported
                    skipped.append((part.path.parent.name, each.reason))
    return found, skipped


WHITE_REASON = "a folder of what is allowed, not blocked: --white allow takes it as @@"


def test_folders_that_allow_are_named_and_never_block(tmp_path: Path) -> None:
    path = _database(tmp_path, "bank", "liste_blanche", "exceptions_liste_bu", "malware")
    found, skipped = _taken(path)
    assert found == ["bank.example", "malware.example"]
    assert skipped == [("exceptions_liste_bu", WHITE_REASON), ("liste_blanche", WHITE_REASON)]
    assert _taken(path / "liste_blanche") == ([], [("liste_blanche", WHITE_REASON)])
    assert _taken(path / "liste_blanche" / "domains") == ([], [("liste_blanche", WHITE_REASON)])
    assert _taken(path / "liste_blanche", "allow") == (["@@liste-blanche.example"], [])
    assert _taken(path / "liste_blanche", "block") == (["liste-blanche.example"], [])


def test_global_usage_says_which_folders_allow(tmp_path: Path) -> None:
    path = _database(tmp_path, "bank", "liste_bu", "malware", "press", "sports")
    (path / "global_usage").write_bytes(
        b"# x\nNAME:\tbank\nDEFAULT_TYPE: white\nDESC FR: \xe9\nNAME FR: sports\n\n"
        b"NAME: sports\nDEFAULT_TYPE: black\n"
        b"NAME: press\nDEFAULT_TYPE:\twhite\nNAME: liste_bu\nDEFAULT_TYPE: black\n"
    )
    found, skipped = _taken(path)
    assert found == ["liste-bu.example", "malware.example", "sports.example"]
    assert [name for name, _ in skipped] == ["bank", "press"]
    assert _taken(path, "allow")[0][0] == "@@bank.example"
    assert _taken(path / "bank" / "domains")[0] == []


def test_a_source_of_what_is_allowed_alone_says_so(tmp_path: Path) -> None:
    path = _database(tmp_path, "liste_blanche")
    with pytest.raises(
        SourceError, match=r"that cannot be taken; first: .*liste_blanche/domains:1:1: a folder"
    ):
        read_source(path, Nothing(), Report(), format="squidguard")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="white: format urls has no folders"):
        format_named("urls", FormatOptions(white="allow"))
    with pytest.raises(FormatError, match="white: 'maybe' is not one of skip, allow, block"):
        FormatOptions(white="maybe")


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
