import importlib.util
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples, matcher
from lists.formats.support import DATA, lines, read, refused
from rows import each_row
from urlward.engine.readings import target_readings
from urlward.lists.formats.adblock import read as read_rules
from urlward.lists.formats.format import DEFAULTS, Found

MATCHES = json.loads((DATA / "adblock_matches.json").read_text())
"""Rules, whether they are taken, and URLs with adblock-rust's verdict."""

COUNTS = {"whole": 11, "part": 3, "no": 14, "pairs": 54, "missed": 4}

PAGE = "http://a.example/dir/page"


@each_row(
    ("rule", "blocked", "passed"),
    [
        ("||a.example^", [PAGE, "https://x.a.example/", "http://a.example:81/"], ["http://ba.example/"]),
        ("||a.example^*", [PAGE], ["http://ba.example/"]),
        ("||a.example/", [PAGE, "http://x.a.example/"], ["http://ba.example/"]),
        ("||a.example^$all", [PAGE], ["http://b.example/"]),
        ("||test^", ["http://any.test/x"], [PAGE]),
        ("||192.0.2.7^", ["http://192.0.2.7/any"], ["http://192.0.2.8/"]),
        ("||a.*^", [PAGE, "http://x.a.test/y"], ["http://ba.example/", "http://a.b.example/"]),
        (
            "||a.example/Dir/page",
            [PAGE, f"{PAGE}?x", f"{PAGE}/below", "http://x.a.example/DIR/PAGE"],
            ["http://a.example/dir/", "http://a.example/dir/pages", "http://b.example/dir/page"],
        ),
        ("||a.example/dir/", [PAGE, "http://a.example/dir/"], ["http://a.example/dir", "http://a.example/"]),
        ("||a.example/dir/*", [PAGE], ["http://a.example/dir"]),
        ("||a.example/x//page|", ["http://a.example/x/page"], ["http://a.example/x/"]),
        ("||a.example/dir^", [PAGE, "http://a.example/dir"], ["http://a.example/dirx", "http://a.example/"]),
        ("||a.example/dir/page|", [PAGE, "http://x.a.example/dir/page"], [f"{PAGE}/below"]),
        ("||a.example/dir/|", ["http://a.example/dir/"], [PAGE]),
        ("||a.example/Page|$match-case", ["http://a.example/Page"], ["http://a.example/page"]),
        (
            "||a.example/p?id=5|",
            ["http://a.example/p?id=5"],
            ["http://a.example/p", "http://a.example/p?id=6"],
        ),
        (
            "|http://a.example/dir/page|",
            [PAGE],
            ["https://a.example/dir/page", "http://x.a.example/dir/page"],
        ),
        ("|https://a.example/dir/", ["https://a.example/dir/page"], [PAGE, "https://x.a.example/dir/page"]),
        ("|http://a.example^", [PAGE], ["https://a.example/", "http://x.a.example/"]),
        ("|http://a.example:8080/x|", ["http://a.example:8080/x"], ["http://a.example/x"]),
    ],
)
def test_a_rule_blocks_as_it_does_in_a_browser(rule: str, blocked: list[str], passed: list[str]) -> None:
    check = matcher(*lines("adblock", rule)).check_url
    assert [url for url in blocked if not check(url).blocked] == []
    assert [url for url in passed if check(url).blocked] == []


def test_taken_rules_have_the_verdicts_of_adblock_rust() -> None:
    counts = {"whole": 0, "part": 0, "no": 0, "pairs": 0, "missed": 0}
    for case in MATCHES:
        rule = case["rule"]
        counts[case["taken"]] += 1
        found = [each for each in read_rules(io.BytesIO(rule.encode()), DEFAULTS) if isinstance(each, Found)]
        assert {each.whole for each in found} == {"whole": {True}, "part": {False}, "no": set()}[
            case["taken"]
        ], rule
        if not found:
            continue
        check = matcher(*(each.text for each in found)).check_url
        for url, matched in case["urls"].items():
            blocked = check(url).blocked
            counts["pairs"] += 1
            counts["missed"] += matched and not blocked
            # There are origins that serve a file for all that seems to be below it.
            below_a_file = rule.endswith(".js|") and url.endswith(".js/x")
            assert blocked == matched or (matched and case["taken"] == "part") or below_a_file, (rule, url)
    assert counts == COUNTS


@pytest.mark.skipif(importlib.util.find_spec("adblock") is None, reason="adblock is not installed")
def test_the_verdicts_are_those_of_adblock_rust() -> None:
    import adblock

    for case in MATCHES:
        rules = adblock.FilterSet()
        rules.add_filters([case["rule"]])
        check = adblock.Engine(rules).check_network_urls
        for url, matched in case["urls"].items():
            assert check(url, "http://page.example/", "other").matched == matched, (case["rule"], url)


def test_exceptions() -> None:
    check = matcher(*lines("adblock", "||a.example^\n@@||a.example/dir/page|\n@@||ok.a.example^\n")).check_url
    assert check("http://a.example/").blocked
    assert not check(PAGE).blocked
    assert not check("http://ok.a.example/any").blocked


@each_row("rest", ["/dir/page^", "/dir/", "/dir/page|", "/dir/page"])
def test_a_page_of_www_is_one_of_no_host_beside_it(rest: str) -> None:
    check_allowed = matcher("a.example", *lines("adblock", f"@@||WWW.a.example{rest}")).check_url
    check = matcher(*lines("adblock", f"||WWW.a.example{rest}")).check_url
    for scheme in ("http", "https"):
        # That of a page counts as absent, as everywhere.
        for host in ("www.a.example", "a.example"):
            assert check(f"{scheme}://{host}/dir/page").blocked
            assert check_allowed(f"{scheme}://{host}/dir/page").action == "allow"
        for host in ("x.a.example", "xwww.a.example"):
            assert not check(f"{scheme}://{host}/dir/page").blocked
            assert check_allowed(f"{scheme}://{host}/dir/page").action != "allow"
    # Hosts whole, hosts whose name only begins so, and what no name is left of, are as ever.
    assert lines("adblock", "||www.a.example^") == ["www.a.example"]
    assert (
        matcher(*lines("adblock", f"||www2.a.example{rest}"))
        .check_url("http://x.www2.a.example/dir/page")
        .blocked
    )
    assert (
        matcher(*lines("adblock", f"||www.example{rest}")).check_url("http://x.www.example/dir/page").blocked
    )
    found = list(read_rules(io.BytesIO(f"||www.a.example{rest}".encode()), DEFAULTS))
    assert [each.whole for each in found if isinstance(each, Found)] == [False] * len(found)


def test_comments_and_conditions() -> None:
    text = "[Adblock Plus]\n! ||a.example^\n# b\n#\n!#if x\n!#if y\n||a.example^\n!#endif\n||b.example^\n"
    text += "!#endif\n||c.example^\n"
    found, skipped = read("adblock", text)
    assert found == ["c.example"]
    assert [(s.line, s.reason, s.unsupported) for s in skipped] == [
        (7, "a rule under a condition (!#if)", True), (9, "a rule under a condition (!#if)", True),
    ]  # fmt: skip


@each_row(
    "rule",
    [
        "||a.example", "||a.example|", "||a.^", "||.a^", "||-a^", "||a.example/x^y", "||a.example/x*y",
        "||a.example/x?y", "||a.example?y", "||a.example:81^", "||*.a.example^", "||a.example^x",
        "||user@a.example^", "a.example", "/ads/", "/ads/*", "ads.js", "|a.example/x|",
        "|ftp://a.example/|", "|http://a.example", "|http://a.example|", "||a.example^$third-party",
        "||a.example^$domain=b.example", "||a.example^$all,script", "||a.example^$important",
        "||a.example^$badfilter", "||a.example^$~script", "@@||a.example^$document",
        "||a.example/x$removeparam=/a$/", "a.example##.x", "##.x", "a.example#@#.x",
        "a.example#?#.x:has(a)", "a.example#$#body{}", "a.example#%#//scriptlet()",
        "a.example$$script", "a.example##+js(x)", "*",
        "||a.example/dir-", "||a.example/x#y|", "||a.example/x?y#z|",
        "||a.example//", "||a.example/.", "||a.example/x/..|", "||a.example/x/%2e%2e/", "||a.example/x\\y/",
        "||a.example/x%2Fy", "||a.example/" + "$" * 9, "||a.example/$a" * 9,
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_not_taken(rule: str) -> None:
    for text in (rule, f"@@{rule.removeprefix('@@')}"):
        skipped = refused("adblock", text)
        assert skipped.unsupported
        assert "a.example" not in skipped.reason


@each_row("rule", ["||1.2^", "||a..^", "||a.example/b c", "||a%00b^"])
def test_what_is_wrong_is_a_bad_line(rule: str) -> None:
    found, skipped = read("adblock", rule)
    assert not found
    assert skipped


_PIECES = st.sampled_from(
    [*"|@^*/$#?!=~,. ", "a", "a.example", "||", "@@", "|http://", "$all", "\u00e9", '"', " id=x"]
)


@examples(500)
@given(st.lists(_PIECES, max_size=8).map("".join))
def test_any_rule_gives_entries_on_its_host_or_reasons(rule: str) -> None:
    found, skipped = read("adblock", rule)
    for line in found:
        subject = line.removeprefix("@@").split()[0]
        assert not subject.startswith("*")
        assert "id=" not in line
        assert line.startswith("@@") == rule.lstrip().startswith("@@")
    assert not (found and skipped)


_PATHS = st.lists(st.sampled_from(["/", "a", "A", ".", "..", "%2e", "%2F", "//", "b"]), max_size=6).map(
    "".join
)


@examples(300)
@given(_PATHS, st.sampled_from(["", "^", "/"]), st.lists(_PATHS, min_size=1, max_size=8))
def test_nothing_is_blocked_that_does_not_begin_as_the_rule_says(
    rule: str, end: str, paths: list[str]
) -> None:
    found, _ = read("adblock", f"||a.example/{rule}{end}")
    check = matcher("b.example", *found).check_url
    for path in paths:
        if check(f"http://a.example/{path}").blocked:
            begins = re.sub("//+", "/", f"/{rule}").lower()
            # As an origin may take it: for some, "//a/b" is "/b" on another host, and "/a" is the page "/a/".
            assert any(
                reading.path.lower().startswith(begins) or f"{reading.path.lower()}/" == begins
                for reading in target_readings(f"/{path}")
            )
