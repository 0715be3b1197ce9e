"""What the matcher decides, case by case; `test_matcher_reference` has the combinations."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.support import CREATED, key, load_lines, matcher
from rows import each_row
from urlward.engine.digest import Key
from urlward.engine.errors import UrlError
from urlward.engine.hosts import LOOK
from urlward.engine.matcher import Matcher
from urlward.engine.readings import Work
from urlward.engine.verdict import PASS, Verdict, decide


def hits(lines: str | list[str], *urls: str) -> list[bool]:
    found = matcher(*([lines] if isinstance(lines, str) else lines))
    return [found.check_url(url).blocked for url in urls]


@each_row(
    ("line", "blocked", "passed"),
    [
        (
            "example.test",
            ["example.test", "a.example.test/b?c", "www.example.test", "https://example.test:8443/"],
            ["test", "ample.test", "anexample.test", "example.test.invalid", "example.example"],
        ),
        (
            "0.0.0.0 example.test",
            ["example.test", "http://example.test:81/a"],
            ["www.example.test", "a.example.test", "test"],
        ),
        (
            "0.0.0.0 www.example.test",
            ["www.example.test"],
            ["example.test", "www.www.example.test"],
        ),
        ("www.example.test", ["www.example.test", "a.www.example.test"], ["example.test", "w.example.test"]),
        (
            "http://example.test/",
            [
                "example.test",
                "example.test/?a=1",
                "www.example.test",
                "https://example.test:81/.",
                "example.test/x/..",
            ],
            ["example.test/a", "a.example.test", "www.a.example.test", "www.www.example.test"],
        ),
        (
            "http://www.example.test/a/b.html",
            [
                "example.test/a/b.html",
                "www.example.test/a/b.html?c=d",
                "https://example.test:444/a//b.html#e",
            ],
            [
                *[
                    "example.test/a/b/html",
                    "example.test/a/b",
                    "example.test/A/b.html",
                    "a.example.test/a/b.html",
                ],
                *[
                    "example.test/a/b.htm",
                    "example.test/a/b.html,c",
                    "example.test/",
                ],
            ],
        ),
        (
            "http://example.test/a?id=5&b",
            ["example.test/a?id=5&b", "www.example.test/a?x&b=&id=%35", "example.test/a?b&id=5#c"],
            [
                *["example.test/a", "example.test/a?id=5", "example.test/a?b", "example.test/a?id=55&b"],
                *[
                    "example.test/a?id=5%26b",
                    "example.test/b?id=5&b",
                    "example.test/a%23?id=5&b",
                    "example.test/a?ID=5&b",
                ],
            ],
        ),
        (
            "http://example.test/?q=a+b%2Bc",
            ["example.test/?q=a+b%2Bc", "example.test?q=a%20b%2bc", "example.test/?q=a%20b%252Bc"],
            ["example.test/?q=a+b+c", "example.test/?q=a%2Bb%2Bc", "example.test/?q=a+b%20c"],
        ),
        (
            "http://example.test/dir/*",
            [
                "example.test/dir/",
                "example.test/dir/a/b?c",
                "www.example.test/dir/a",
                "example.test/x/../dir/",
            ],
            [
                "example.test/dir",
                "example.test/dir?a/",
                "example.test/directory/",
                "a.example.test/dir/",
                "example.test/",
            ],
        ),
        (
            "http://example.test/*",
            ["example.test", "example.test/a", "www.example.test/"],
            ["a.example.test"],
        ),
        (
            "example.*",
            ["example.test", "a.example.test/b", "example.com", "example.invalid", "www.example.example"],
            ["example", "test.example", "anexample.test", "example.a.test"],
        ),
        ("a.example.*", ["a.example.test", "b.a.example.test"], ["example.test", "b.example.test"]),
        (
            "*/gallery/one-two/*",
            ["a.test/gallery/one-two/", "b.test/x/gallery/one-two/y?z", "192.0.2.1/gallery/one-two/a"],
            [
                *["a.test/gallery/one-two", "a.test/gallery/x/one-two/", "a.test/?/gallery/one-two/"],
                *["a.test/Gallery/one-two/", "a.test/agallery/one-two/", "a.test/gallery/one-two-three/"],
            ],
        ),
        (
            "192.0.2.7",
            ["192.0.2.7", "192.0.2.7./a", "0xC0000207", "3221225991:81", "[::ffff:192.0.2.7]", "192.0.519"],
            ["192.0.2.8", "192.0.2.7.test", "7.2.0.192", "[2001:db8::c000:207]"],
        ),
        ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255", "[64:ff9b::c000:201]"], ["192.0.3.0", "192.0.1.255"]),
        ("0.0.0.0/0", ["192.0.2.1", "203.0.113.7"], ["a.test", "[2001:db8::1]"]),
        ("[2001:db8::7]", ["[2001:db8::7]", "[2001:DB8:0:0::7]:81/a"], ["[2001:db8::8]", "192.0.2.7"]),
        ("2001:db8::/32", ["[2001:db8::]", "[2001:db8:ffff::1]"], ["[2001:db9::]", "192.0.2.1"]),
        ("::/16", ["[::1]", "[::7]", "[::1:0:0]"], ["[1::]", "192.0.2.1"]),
        ("::/96", ["[::1]", "[::7]"], ["[::1:0:0]", "0.0.0.1", "[::ffff:192.0.2.1]"]),
        ("http://192.0.2.7/a", ["0xc0000207/a", "192.0.2.7/a"], ["192.0.2.7/", "www.192.0.2.7.test/a"]),
        ("http://[2001:db8::7]/a", ["[2001:db8:0::7]/a"], ["[2001:db8::7]/", "[2001:db8::8]/a"]),
        (
            "http://example.test/a subdomains",
            ["example.test/a", "b.example.test/a", "www.c.b.example.test/a?d", "www.example.test/a"],
            ["b.example.test/", "anexample.test/a", "test/a"],
        ),
        (
            "http://example.test/dir/* subdomains",
            ["a.example.test/dir/b"],
            ["a.example.test/dir", "a.test/dir/b"],
        ),
        ("http://example.test/?a=1 subdomains", ["a.example.test/?a=1"], ["a.example.test/?a=2"]),
        (
            "http://example.test/Ab/C nocase",
            ["example.test/ab/c", "example.test/AB/C", "example.test/%61B/c"],
            ["example.test/ab/c/d", "example.test/ab/d"],
        ),
        (
            "http://example.test/%C3%84/* nocase",
            ["example.test/%c3%84/A", "example.test/%c3%a4/A"],
            ["example.test/%c3%85/A"],
        ),
        (
            "http://example.test/a?b=1&amp;c=2",
            ["example.test/a?c=2&b=1", "example.test/a?b=1&amp;c=2"],
            ["example.test/a?b=1", "example.test/a?b=1&amp"],
        ),
        (
            "http://example.test/A?b=C nocase",
            ["example.test/a?b=C", "example.test/a?b=c", "example.test/A?B=C&x=Y", "example.test/a?%42=c"],
            ["example.test/a?b=d", "example.test/a"],
        ),
        (
            "http://example.test/a?b=%C3%84 nocase",
            ["example.test/a?b=%c3%84", "example.test/A?B=%C3%84", "example.test/a?b=%C3%A4"],
            ["example.test/a?b=%C3%A5"],
        ),
        (
            "http://example.test/a?b=\u65e5 nocase",
            ["example.test/a?b=\u65e5", "example.test/a?b=%E6%97%A5"],
            [],
        ),
        ("*/Ab/* nocase", ["a.test/AB/", "a.test/x/ab/C"], ["a.test/ab"]),
        ("*/%C3%84b/* nocase", ["a.test/%C3%A4B/x"], ["a.test/%C3%A5B/x"]),
        (
            "http://example.test:8080/",
            ["example.test:8080", "https://example.test:8080"],
            ["example.test:80", "http://example.test"],
        ),
        ("http://example.test:80/", ["http://example.test:81", "https://example.test"], []),
        (
            "https://example.test:80/",
            ["http://example.test", "example.test"],
            ["https://example.test", "example.test:81"],
        ),
        ("example.test port=8080", ["example.test:8080/a"], ["http://example.test", "example.test:808"]),
        ("192.0.2.7 port=81", ["192.0.2.7:81"], ["192.0.2.7:82"]),
        ("*/a/* port=81", ["a.test:81/a/"], ["a.test:82/a/"]),
    ],
)
def test_entry(line: str, blocked: list[str], passed: list[str]) -> None:
    found = matcher(line)
    assert [url for url in blocked if not found.check_url(url).blocked] == []
    assert [url for url in passed if found.check_url(url) != PASS] == []
    excused = matcher(f"@@{line}") if not line.startswith("0.0.0.0 ") else None
    if excused is not None:
        assert {excused.check_url(url).action for url in blocked} == {"allow"}


# -- evasions: spellings that servers or their applications take for the listed page


@each_row(
    "url",
    [
        *["http://EXAMPLE.TEST/a/b?id=5", "http://example.test./a/b?id=5", "http://example.test../a/b?id=5"],
        *["http://u:p@example.test/a/b?id=5", "http://other.invalid@example.test/a/b?id=5"],
        *[
            "http://example.test:80/a/b?id=5",
            "https://example.test:444/a/b?id=5",
            "http://www.example.test/a/b?id=5",
        ],
        *[
            "http://ex%61mple.test/a/b?id=5",
            "http://\uff45xample\u3002test/a/b?id=5",
            "http:\\\\example.test\\a\\b?id=5",
        ],
        *[
            "http://example.test//a///b?id=5",
            "http://example.test/./a/./b?id=5",
            "http://example.test/x/../a/b?id=5",
        ],
        *[
            "http://example.test/../a/b?id=5",
            "http://example.test/%2e/a/b?id=5",
            "http://example.test/x/%2E%2e/a/b?id=5",
        ],
        *[
            "http://example.test/x%2f..%2fa/b?id=5",
            "http://example.test/a%2Fb?id=5",
            "http://example.test/a%5cb?id=5",
        ],
        *[
            "http://example.test/%61/%62?id=5",
            "http://example.test/%2561/b?id=5",
            "http://example.test/a/b?%69d=5",
        ],
        *[
            "http://example.test/a/b?id=%35",
            "http://example.test/a/b?id=%2535",
            "http://example.test/a/b?x=1&id=5",
        ],
        *[
            "http://example.test/a/b?id=5&x=1",
            "http://example.test/a/b?&&id=5&",
            "http://example.test/a/b?id=6&id=5",
        ],
        *[
            "http://example.test/a/b?id=5#x",
            "http://example.test/a/b?id=5&id=5",
            "http://example.test/a\t/b?i\nd=5",
        ],
    ],
)
def test_no_spelling_gets_around(url: str) -> None:
    assert matcher("http://example.test/a/b?id=5").check_url(url).blocked
    assert matcher("http://example.test/a/b").check_url(url).blocked
    assert matcher("*/a/*").check_url(url).blocked


def test_a_raw_byte_is_its_escape() -> None:
    found = matcher("http://example.test/bücher/ä?ö=ü")
    for target in ("/b\xc3\xbccher/\xc3\xa4?\xc3\xb6=\xc3\xbc", "/b%c3%bccher/%C3%A4?%c3%b6=%C3%BC"):
        assert found.check("example.test", target).blocked
    # Nor does it matter to all that it is not UTF-8.
    for target in ("/b\xfccher/\xe4?\xf6=\xfc", "/b%fccher/\xe4?%F6=%c3%bc"):
        assert found.check("example.test", target).blocked
    for target in ("/b\xe4cher/\xe4?\xf6=\xfc", "/b%c3%83%c2%bccher/%e4?%f6=%fc", "/b%ccher/%e4?%f6=%fc"):
        assert not found.check("example.test", target).blocked


def test_nothing_of_a_long_url_is_left_unread() -> None:
    found = matcher("http://example.test/end?id=5", "*/one/two/*", "tail.test")
    assert found.check("example.test", "/a/.." * 500 + "/end?id=5").blocked
    assert found.check("example.test", "/end?" + "x" * 60_000 + "&id=5").blocked
    assert found.check("example.test", "/end?" + "".join(f"{n}&" for n in range(990)) + "id=5").blocked
    assert found.check("example.test", "/end?%" + "25" * 30_000 + "69d=5").blocked
    for refused in (
        "/a/.." * 13_000 + "/end?id=5",
        "/end?" + "x&" * 32_000 + "id=5",
        "/%25" * 16_000,
        "/a" * 30_000 + "/one/two/",
    ):
        with pytest.raises(UrlError):
            found.check("example.test", refused)
    assert found.check("a.test", "/a" * 8_000 + "/one/two/").blocked
    assert found.check_host("a." * 4_000 + "tail.test").blocked
    assert found.check_host("\ud800.tail.test").blocked
    deep = matcher("http://example.test" + "/a" * 8_000, "http://example.test" + "/a" * 7_999 + "/* id=x")
    assert deep.check("example.test", "/a" * 8_000).kind == "page"
    assert deep.check("example.test", "/a" * 7_999 + "/").entry == "x"
    assert deep.check("example.test", "/a" * 7_999) == PASS
    assert matcher("a." * 4_000 + "test").check_host("b." + "a." * 4_000 + "test").blocked


# -- which entry is named

BY_RANK = [
    "http://h.example.test/d/e/p?a=1 id=params",
    "http://h.example.test/d/e/p id=page",
    "http://h.example.test/d/e/* id=prefix2",
    "http://h.example.test/d/* id=prefix1",
    "0.0.0.0 h.example.test id=host",
    "h.example.test id=domain3",
    "example.test id=domain2",
    "||test^ id=domain1",
    "*/d/e/* id=path2",
    "*/d/* id=path1",
    "h.example.* id=name2",
    "example.* id=name1",
]
NUMERIC_BY_RANK = [
    "http://192.0.2.7/d/p id=page",
    "*/d/* id=path",
    "192.0.2.7 id=address",
    "192.0.2.0/24 id=network24",
    "192.0.0.0/16 id=network16",
]


@each_row(
    ("lines", "url"),
    [(BY_RANK, "http://h.example.test/d/e/p?a=1&b=2"), (NUMERIC_BY_RANK, "http://192.0.2.7/d/p")],
)
@each_row("several_lists", [False, True])
def test_the_most_specific_entry_is_named(lines: list[str], url: str, several_lists: bool) -> None:
    for first in range(len(lines)):
        rest = lines[first:]
        found = (
            matcher(**{f"l{n}": [line] for n, line in enumerate(rest)})
            if several_lists
            else matcher(*rest[::-1])
        )
        verdict = found.check_url(url)
        assert f"id={verdict.entry}" in rest[0].split()
        assert verdict.kind == verdict.entry.rstrip("0123456789")


def test_allow_beats_block_however_specific() -> None:
    lines = [*BY_RANK, "@@example.* id=excuse category=c"]
    verdict = matcher(*lines).check_url("http://h.example.test/d/e/p?a=1")
    assert (verdict.action, verdict.entry, verdict.category, verdict.kind) == ("allow", "excuse", "c", "name")
    assert not verdict.blocked
    other = matcher(blocks=BY_RANK, excuses=["@@http://h.example.test/d/e/p"])
    assert other.check_url("http://h.example.test/d/e/p?a=1").list == "excuses"
    assert other.check_url("http://h.example.test/d/e/q").list == "blocks"


def test_a_verdict_names_the_entry_or_a_digest_its_category_and_list() -> None:
    found = matcher(hotline=["a.test id=K-7 category=Phishing", "b.test"])
    verdict = found.check_host("a.test")
    assert (verdict.action, verdict.kind, verdict.entry, verdict.category, verdict.list) == (
        *("block", "domain", "K-7", "phishing", "hotline"),
    )
    nameless = found.check_host("b.test")
    assert nameless.category == ""
    assert len(nameless.entry) == 16
    assert int(nameless.entry, 16)
    assert nameless.entry == found.check_host("c.b.test").entry


# -- dates and ports


def test_an_entry_is_in_force_to_the_end_of_its_last_day() -> None:
    last = datetime(2027, 1, 31, tzinfo=UTC)
    lines = ["a.test", "http://b.test/", "*/c/*", "192.0.2.7", "d.*"]
    found = matcher(*[f"{line} expires=2027-01-31" for line in lines])
    for url in ("http://a.test/", "http://b.test/", "http://x.test/c/", "http://192.0.2.7/", "http://d.test"):
        for moment, blocked in [
            (0.0, True),
            (last.timestamp(), True),
            ((last + timedelta(days=1)).timestamp() - 0.001, True),
            ((last + timedelta(days=1)).timestamp(), False),
        ]:
            assert found.check_url(url, moment).blocked is blocked
    assert found.check_address("192.0.2.7", (), 4e9) == PASS
    assert found.check_host("a.test", (), 4e9) == PASS


def test_an_expired_excuse_excuses_no_more() -> None:
    found = matcher("a.test", "@@a.test expires=2027-01-31")
    assert found.check_host("a.test", now=CREATED).action == "allow"
    assert found.check_host("a.test", now=4e9).blocked


@each_row("host", ["192.0.2.1", "192.0.2.1.", "0xC0000201", "192.0.513", "[::ffff:192.0.2.1]"])
def test_a_page_that_is_excused_does_not_excuse_its_address_however_spelt(host: str) -> None:
    found = matcher("192.0.2.0/24", "@@http://192.0.2.1/*")
    assert found.check(host, "/a").blocked


def test_any_of_several_ports_and_none_given() -> None:
    found = matcher("a.test port=81", "192.0.2.7 port=81")
    for ports, blocked in [((), True), ((81,), True), ((80, 81), True), ((80,), False), ((80, 443), False)]:
        assert found.check("a.test", "/", ports).blocked is blocked
        assert found.check_host("a.test", ports).blocked is blocked
        assert found.check_address("192.0.2.7", ports).blocked is blocked


def test_an_excuse_for_a_port_is_for_that_port_alone() -> None:
    found = matcher("a.test", "@@http://a.test:81/ok/*", "192.0.2.7", "@@192.0.2.7 port=81")
    for ports, action in [((81,), "allow"), ((81, 81), "allow"), ((80,), "block"), ((81, 80), "block")]:
        # Whoever connects to port 80 may write port 81 behind the host.
        assert found.check("a.test", "/ok/x", ports).action == action
        assert found.check_address("192.0.2.7", ports).action == action


@each_row(
    ("query", "action"),
    [
        ("id=1", "allow"),
        ("x=2&id=1&x=3", "allow"),
        ("id=1&id=1", "allow"),
        ("id=1&id2=2", "allow"),
        ("id=2", "block"),
        *((query, "block") for query in ("id=1&id=2", "id=2&id=1", "id=1;id=2", "id=1&i%64=2", "id=1&ID=2")),
        *(
            (query, "block")
            for query in (
                "id=1&id[]=2",
                "id=1&[id]=2",
                "id=1&+id=2",
                "id=1&id%00=2",
                "id=1&id",
                "id=01",
                "id=1&id=01",
            )
        ),
    ],
)
def test_an_excuse_by_a_parameter_is_for_its_only_value(query: str, action: str) -> None:
    found = matcher("a.test", "@@http://a.test/view?id=1", "@@http://a.test/both?x=1&id=1")
    assert found.check("a.test", f"/view?{query}").action == action
    assert found.check("a.test", f"/both?x=1&{query}").action == (action if "x=2" not in query else "block")
    assert matcher("http://a.test/view?id=1").check("a.test", f"/view?{query}").blocked == (query != "id=2")


def test_an_excuse_by_a_number_is_for_its_own_spelling() -> None:
    found = matcher("a.test", "@@http://a.test/get?month=05")
    assert found.check("a.test", "/get?x=1&month=05").action == "allow"
    for query in ("month=5", "month=005", "month=05&month=5"):
        assert found.check("a.test", f"/get?{query}").blocked, query


def test_an_excuse_by_a_path_is_for_any_spelling_of_it() -> None:
    found = matcher("a.test", "@@http://a.test/get?f=/ok/x")
    for query in ("f=/ok/x", "f=ok//x&y=/", "f=/ok/x&f=ok/x"):
        assert found.check("a.test", f"/get?{query}").action == "allow"
    # The last are `y` to what takes a number from the beginning of a value, or its first segment.
    for query in ("f=/ok/x&f=/y", "f=/ok", "f=/ok/x/../y", "f=y/../ok/x", "f=/ok/x&f=/y/../ok/x"):
        assert found.check("a.test", f"/get?{query}").blocked


def test_an_excuse_by_dot_segments_is_for_those() -> None:
    found = matcher("a.test", "@@http://a.test/get?f=../x", "@@http://a.test/get?5")
    for query in ("f=../x", "f=../x&y", "5", "/5"):
        assert found.check("a.test", f"/get?{query}").action == "allow", query
    for query in ("f=x", "f=/x/../../x", "f=../x&f=x", "7/../5"):
        assert found.check("a.test", f"/get?{query}").blocked, query


def test_an_excuse_by_a_path_without_a_name_is_for_the_only_one() -> None:
    found = matcher("a.test", "@@http://a.test/get?/ok/x")
    for query in ("/ok/x", "ok//x/&y", "/ok/x=1"):
        assert found.check("a.test", f"/get?{query}").action == "allow", query
    for query in ("/y&/ok/x", "/ok/x&/y=1", "/y/../ok/x"):
        assert found.check("a.test", f"/get?{query}").blocked, query


def test_case_of_an_excuse_by_a_parameter() -> None:
    found = matcher("a.test", "@@http://a.test/any?id=b nocase", "@@http://a.test/own?id=b")
    for target, action in [
        ("/any?id=b&ID=B", "allow"),
        ("/any?id=b&ID=C", "block"),
        ("/own?id=b", "allow"),
        ("/own?id=b&id=B", "block"),
    ]:
        assert found.check("a.test", target).action == action


# -- hosts and addresses alone


def test_a_host_alone() -> None:
    found = matcher("a.test", "http://b.test/", "*/c/*", "d.*", "192.0.2.7", "@@e.a.test")
    assert [
        found.check_host(host).action
        for host in ("a.test", "x.a.test", "b.test", "d.test", "192.0.2.7", "E.A.test.")
    ] == [*["block", "block", "pass", "block", "block", "allow"]]


def test_whether_a_path_matters() -> None:
    found = matcher(
        "a.test", "http://b.test/", "http://c.test/?a", "http://d.test/*", "http://e.test/ subdomains", "f.*"
    )
    below = ["b.test", "www.b.test", "c.test", "d.test", "e.test", "x.y.e.test", "B.test."]
    not_below = ["a.test", "x.a.test", "x.b.test", "test", "f.test", "192.0.2.7", "ee.test"]
    assert [found.lists_below(host) for host in below] == [("list",)] * 7
    assert [found.lists_below(host) for host in not_below] == [()] * 7
    assert not matcher("*/a/*").lists_below("a.test")
    found = matcher("http://b.test/", "@@http://c.test/", "d.test", "@@http://d.test/")
    assert [bool(found.lists_below(host)) for host in ("b.test", "c.test", "d.test")] == [True, False, True]
    for excuse, matters in (("@@b.test", False), ("@@b.*", False), ("@@b.test port=80", True)):
        assert bool(matcher("http://b.test/", excuse).lists_below("b.test", (443,))) is matters


def test_a_path_matters_where_an_entry_is_in_force_for_the_port() -> None:
    found = matcher(
        "http://a.test/1 expires=2027-01-31",
        "http://a.test/2 port=81",
        "http://b.test/ subdomains expires=2027-01-31",
        "http://b.test/",
        *[f"http://many.test/{n} expires=2027-01-31" for n in range(LOOK - 1)],
        *[f"http://more.test/{n} expires=2027-01-31" for n in range(LOOK)],
    )
    for host, ports, now, matters in [
        ("a.test", (), 0.0, True),
        ("a.test", (80,), 0.0, True),
        ("a.test", (80,), 4e9, False),
        ("a.test", (80, 81), 4e9, True),
        ("a.test", (), 4e9, True),
        ("x.b.test", (), 0.0, True),
        ("x.b.test", (), 4e9, False),
        ("b.test", (), 4e9, True),
        ("many.test", (), 4e9, False),
        ("more.test", (), 4e9, True),
    ]:
        assert bool(found.lists_below(host, ports, now)) is matters, (host, ports, now)
    [li] = found.lists
    assert (li.entries, li.expired(0.0), li.expired(4e9)) == (2 * LOOK + 3, 0, 2 * LOOK + 1)


def test_a_destination_address() -> None:
    def once(told: list[Verdict]) -> Verdict:
        assert len(set(told)) == len(told)
        return decide(told)

    found = matcher(
        "192.0.2.7 id=1", "198.51.100.0/24 id=2", "2001:db8::/32 id=3", "a.test", "@@198.51.100.9 id=4"
    )
    for address, entry in [
        *[("192.0.2.7", "1"), ("::ffff:192.0.2.7", "1"), ("64:ff9b::c000:207", "1"), ("198.51.100.200", "2")],
        *[("198.51.100.9", "4"), ("2001:db8::1", "3"), ("2001:db8::1%eth0", "3")],
    ]:
        assert found.check_address(address, decide=once).entry == entry
    for address in ("192.0.2.8", "2001:db9::1", "a.test", "", "%", "[2001:db8::1]", "192.0.2.07", "1" * 5000):
        assert found.check_address(address) == PASS


def test_no_host_is_an_error() -> None:
    for found in (matcher("a.test"), matcher("*/a/*"), Matcher([])):
        for ask in (found.check_host, found.lists_below, found.level, lambda h, m=found: m.check(h, "/")):
            with pytest.raises(UrlError):
                ask("")


@each_row("host", ["a b", "a/b", "[::", "256.0.0.1", "\0", "..", "a^b.test", "printer.42", "\xff"])
def test_a_name_that_nothing_could_be_listed_on_passes(host: str) -> None:
    for found in (matcher("a.test"), matcher("*/a/*"), Matcher([])):
        assert (found.check_host(host), found.check(host, "/")) == (PASS, PASS)
        assert (found.lists_below(host), found.level(host)) == ((), "")
    assert matcher("*/a/*").check(host, "/a/b").blocked


def test_every_host_that_a_name_could_mean_is_judged() -> None:
    found = matcher("listed.test", "http://paged.test/x", "@@allowed.test", "*/path/*")
    for host in ("listed.test:443", "allowed.test:listed.test", "listed.test/allowed.test", "[listed.test]"):
        assert found.check_host(host).blocked
        assert found.check(host, "/").blocked
        assert found.level(host) == "whole"
    assert found.lists_below("paged.test:x")
    assert found.level("paged.test:x") == "below"
    assert found.check("paged.test:x", "/x").blocked
    assert not found.check("allowed.test", "/path/1").blocked
    assert found.check("allowed.test:x", "/path/1").blocked, "an exception excuses only the host it is on"


def test_an_exception_excuses_no_other_spelling_that_an_origin_may_take_as_it_is() -> None:
    found = matcher("whole.test", "@@www.whole.test")
    assert not found.check("www.whole.test", "/").blocked
    assert found.check("w%77w.whole.test", "/").blocked
    assert found.check("\xc2\xad.www.whole.test", "/").action == "allow"
    assert found.check("ww\xc2\xadw.whole.test", "/").blocked


# -- requests that name several hosts


@each_row(
    ("hosts", "target", "entry"),
    [
        (["x.test", "y.test"], "/", ""),
        (["x.test", "a.test"], "/", "a"),
        (["a.test", "x.test"], "/", "a"),
        (["x.test", "b.test"], "/page", "b"),
        (["x.test", "b.test"], "/other", ""),
        (["x.test", "y.test"], "/p/q/", "path"),
        # An excuse holds for its host, not for another that the request names beside it.
        (["c.test", "a.test"], "/", "a"),
        (["a.test", "c.test"], "/", "a"),
        (["c.test", "x.test"], "/p/q/", "path"),
        (["c.test", "x.test"], "/", "c"),
        (["c.test"], "/p/q/", "c"),
        # A destination address is on every request that is not sent to a proxy.
        (["c.test", "192.0.2.9"], "/p/q/", "c"),
        (["c.test", "[2001:db8::9]"], "/p/q/", "c"),
        (["x.test", "192.0.2.9"], "/p/q/", "path"),
        (["192.0.2.9", "[2001:db8::9]"], "/p/q/", "path"),
        (["c.test", "192.0.2.7"], "/", "address"),
        ([], "/p/q/", ""),
    ],
)
def test_a_block_under_any_host_counts(hosts: list[str], target: str, entry: str) -> None:
    found = matcher(
        "a.test id=a", "http://b.test/page id=b", "*/p/q/* id=path", "@@c.test id=c", "192.0.2.7 id=address"
    )
    verdict = found.check_request(hosts, target)
    assert verdict.entry == entry
    assert verdict.action == {"": "pass", "c": "allow"}.get(entry, "block")


@each_row("target", ["/page", "/page;x", "/d.html.", "/page\xa0", "/;/page", "/d.html/x", "/(S(x))/page"])
@each_row("other", ["excused.test", "192.0.2.7", "pages.test"])
def test_an_exception_excuses_no_other_host_in_any_reading(target: str, other: str) -> None:
    found = matcher(
        "http://b.test/page",
        "http://b.test/d.html",
        "@@excused.test",
        "@@192.0.2.0/24",
        "@@http://pages.test/*",
    )
    for hosts in (["b.test", other], [other, "b.test"]):
        assert found.check_request(hosts, target).blocked
    assert found.check_request([other], target).action == "allow"


@each_row("entry", ["listed.test", "http://listed.test/a.html", "http://listed.test/*"])
@each_row("more", [(), ("*/some/where/*",)])
@each_row("host", ["other.test", "quiet.test", "192.0.2.7"])
def test_a_host_that_the_target_begins_with_is_one_of_the_request(
    entry: str, more: tuple[str, ...], host: str
) -> None:
    """`new URL(request.url, base)` of Node goes by it, and fasthttp where there is no Host field."""
    found = matcher(entry, "http://other.test/b", "@@http://other.test/a.html", *more)
    for begins in (
        "//listed.test", "//LISTED.test:80", "///listed.test", "/\\listed.test", "//u:p@listed.test",
        "//%6cisted.test", "/%2flisted.test", "/%2F%252flisted.test", "/%5Cu@listed.test:80",
        "//u%2f@listed.test", "/%09/lis%0ated.test", "/%%32flisted.test", "//listed.test%2fx%2f..",
        "//b.test//listed.test", "//b.test/\\u@listed.test",
    ):  # fmt: skip
        target = f"{begins}/a.html"
        assert found.check(host, target).blocked, target
        assert found.check_request([host], f"{target}?b").blocked, target
        assert found.check_request(["third.test", host], target).blocked, target
    for innocent in (
        "/listed.test/a.html", "/a//listed.test/a.html", "//unlisted.test/a.html", "/?//listed.test/a.html",
        "/x/\\listed.test/a.html", "/#//listed.test/a.html", "//[/a", "//", "//listed.test:x/a",
        "//" + "a" * 9000, "/x%2flisted.test/a.html", "/x%2f%2flisted.test/a.html",
        "/%2funlisted.test/a.html", "/%09listed.test/a.html", "/%2f", "/%",
        "/%C3%A4%2f%2flisted.test/a.html", "/?%2f%2flisted.test/a.html",
    ):  # fmt: skip
        assert not found.check(host, innocent).blocked, innocent
        assert not found.check_request([host], innocent).blocked, innocent


def test_a_page_without_its_breaks_is_excused_where_the_whole_is() -> None:
    found = matcher("a.test", "@@http://a.test/ok/*", "http://b.test/listed", "@@*/fine/*")
    assert found.check("a.test", "/ok/x%09y").action == "allow"
    for target in ("/o%09k/x", "/ok/.%09./x", "/ok/%0a../x"):
        assert found.check("a.test", target).blocked
    assert found.check("b.test", "/lis%0ated").blocked
    # A break in the query, or one that no listed page's name is left without, says nothing.
    for target in ("/other%0Aline", "/x?text=lis%0Ated", "/fine/lis%09ted"):
        assert not found.check("b.test", target).blocked


@each_row("target", ["/%2f" + "%25" * 9 + "41", "/%2f" + "%61" * 9000, "/%2f" + "%zz" * 300])
def test_a_host_with_nothing_listed_passes_whatever_its_targets_begin_with(target: str) -> None:
    assert matcher("a.test").check("b.test", target) == PASS


def test_every_host_of_several_must_be_there() -> None:
    with pytest.raises(UrlError):
        matcher("a.test").check_request(["a.test", ""], "/")


# -- lists and caches


def test_no_list_passes_everything() -> None:
    found = Matcher([])
    assert found.check("a.test", "/") == PASS
    assert found.check_address("192.0.2.7") == PASS
    assert not found.lists_below("a.test")


def test_several_lists() -> None:
    found = matcher(one=["a.test", "http://b.test/x"], two=["http://b.test/y", "*/z/*"], three=["@@b.test"])
    assert found.check("a.test", "/").list == "one"
    assert found.check("c.test", "/z/").list == "two"
    assert found.check("b.test", "/y").list == "three"
    assert [li.name for li in found.lists] == ["one", "two", "three"]


def test_a_full_cache_of_hosts_changes_no_verdict() -> None:
    under = key()
    found = Matcher([load_lines([f"h{n}.test" for n in range(0, 50, 2)], under)], hosts=3)
    for _ in range(3):
        assert [found.check_host(f"h{n}.test").blocked for n in range(50)] == [True, False] * 25
    assert [found.check_address(f"192.0.2.{n}").blocked for n in range(50)] == [False] * 50


def test_deciding_changes_nothing() -> None:
    found = matcher(*BY_RANK, "@@x.test")
    url = "http://h.example.test/d/e/p?a=1"
    first = found.check_url(url)
    found.check_url("http://x.test/")
    assert found.check_url(url) == first


def test_a_page_of_many_parameter_entries() -> None:
    found = matcher(
        *[f"http://h.test/watch?view=1&v={n} id=v{n}" for n in range(2000)],
        "http://h.test/watch?v=2000 id=v2000",
    )
    for n in (0, 7, 1999, 2000):
        assert found.check("h.test", f"/watch?v={n}&x=y&view=1").entry == f"v{n}"
    assert found.check("h.test", "/watch?v=1999") == PASS
    assert found.check("h.test", "/watch?v=2001&view=1") == PASS
    assert found.check("h.test", "/watch") == PASS


def test_entries_that_agree_in_more_letters_than_a_pattern_has() -> None:
    deep = "/a" * 100
    lines = [f"http://h.test{deep}/{n} id=p{n}" for n in range(40)]
    lines += [f"http://h.test{deep}/{n}/* id=x{n}" for n in range(40)]
    lines += [f"*{deep}/{n}/* id=f{n}" for n in range(40)]
    lines += [f"{n}.{'b.' * 100}test id=d{n}" for n in range(40)]
    found = matcher(*lines)
    for n in range(40):
        assert found.check("h.test", f"{deep}/{n}").entry == f"p{n}"
        assert found.check("h.test", f"{deep}/{n}/y").entry == f"x{n}"
        assert found.check("g.test", f"/a{deep}/{n}/y").entry == f"f{n}"
        assert found.check_host(f"c.{n}.{'b.' * 100}test").entry == f"d{n}"
    assert found.check("h.test", f"{deep}/40") == PASS
    assert found.check("h.test", deep) == PASS


# -- readings

SERVED = json.loads((Path(__file__).parents[1] / "data" / "readings.json").read_text())
SERVED_LIST = (
    "http://listed.test/listed.html",
    "http://listed.test/deep/listed-page.html",
    "http://listed.test/tree/*",
    "http://listed.test/app/*",
    "http://listed.test/app.html",
    "http://listed.test/view.php?topic=31337",
    "http://listed.test/view.php?user_id=5&a=1",
)


def test_what_origins_serve_as_a_listed_page_is_blocked() -> None:
    assert len(SERVED["served"]) == 169
    found = matcher(*SERVED_LIST)
    passed = [vector for vector in SERVED["served"] if not found.check("listed.test", vector[0]).blocked]
    assert not passed


def test_what_no_origin_serves_as_a_listed_page_passes() -> None:
    assert len(SERVED["unlisted"]) == 38
    found = matcher(*SERVED_LIST)
    assert not [target for target in SERVED["unlisted"] if found.check("listed.test", target).blocked]


@each_row(
    ("page", "target"),
    [
        # Python's http.server, gevent and werkzeug
        ("/listed.html", "/listed.html\xa0"),
        ("/listed.html", "/listed.html\x85"),
        ("/view.php?topic=31337", "/view.php?topic=31337\xa0"),
        ("/a.cgi?topic=31337", "/a.cgi/x?topic=31337\xa0"),
        # lighttpd, php -S
        ("/v.3gp", "/v.3gp/x"),
        ("/v.7z", "/v.7z/"),
        ("/v.torrent", "/v.torrent/x"),
        ("/a.jpg", "/a.jpg/x"),
        ("/a.jxl", "/a.jxl/x"),
        ("/v.m2v", "/v.m2v/x"),
        ("/c.cbz", "/c.cbz/x"),
        # nginx, told to pass on `$uri` or what it has captured of a path
        ("/listed.html", "/listed.html%3fx"),
        ("/listed.html", "/listed.html%23"),
        ("/view?topic=31337", "/view%3ftopic=31337"),
        ("/noext", "/noext%3Futm_source=x"),
        # Apache and nginx, told to pass on a path as a parameter of a program
        ("/listed.html", "/listed.html&"),
        ("/listed.html", "/listed.html%26x"),
        ("/noext", "/noext&x=1"),
        ("/noext", "/noext/&amp;x=%2f"),
        ("/q?id=5", "/q&id=5"),
        ("/q?id=5", "/q&?id=5"),
        # Flask's `<int:id>`, and `\d+` of Django and aiohttp
        ("/g/15/a", "/g/1%D9%A5/a"),
        ("/g/15/*", "/g/%EF%BC%91%EF%BC%95/x"),
        ("/g/15/*", "/g/1\xd9\xa5/../x"),
        # The same, Rails, Symfony, Express and nearly all others; FastAPI, Rails, Symfony; Fastify
        ("/g/15", "/g/0015/"),
        ("/g/15/*", "/g/%30%31%35/a.jpg"),
        ("/g/15/*", "/g/015/../x"),
        ("/g/15?a=1", "/g/015?a=1"),
        ("/2024/05/g/15", "/2024/05/g/015"),
        ("/topic/15/a-title", "/topic/015/a-title/20"),
        ("/users/15/likes/7/x", "/users/15/likes/007/x"),
        ("/1234", "/01234"),
        ("/g/15/*", "/g/+15/x"),
        ("/g/15/*", "/g/%0915%20/x"),
        ("/g/15", "/g/0xf"),
        ("/g/15", "/g/015&x=1"),
        ("/g/15/a.html", "/g/015./a.html"),
        # IIS
        ("/%D0%96.aspx", "/%D0%B6.ASPX"),
        # Flask, Django; Node, Spring
        ("/q?id=115", "/q?id=1_15"),
        ("/q?id=15", "/q?id=0xf"),
        ("/q?id=15", "/q?id=0b1111"),
        ("/q?id=15", "/q?id=%EF%BB%BF15"),
        # PHP (phpBB, MyBB, Joomla), Ruby, MySQL
        ("/q?id=15", "/q?id=15x"),
        ("/q?id=15", "/q?x=1&id=015:a-title"),
        ("/q?id=15", "/q?id[]=15.0"),
        ("/q?id=15", "/q?id=%31%35%27"),
        ("/q?id=15", "/q?id=15_1"),
        ("/q?id=15", "/q?id=15%D9%A1"),
        # Ruby
        ("/q?id=115", "/q?id=1_15x"),
        # PHP, MySQL and `Number` of JavaScript; its `parseInt`
        ("/q?id=115", "/q?id=1.15e2"),
        ("/q?id=15", "/q?id=.15E%2b2"),
        ("/q?id=15", "/q?x&id=00150e-1x"),
        ("/q?id=15", "/q?id=14.9999999999999999"),
        ("/q?id=15", "/q?id=0xf:x"),
        # phpBB, SMF, vBulletin
        ("/q?mode=a&u=5", "/q?u=05x&mode=a"),
        # Pound, told to rewrite
        ("/q?id=5", "/q?id=5?"),
        # Caddy, told to rewrite to `/folder{uri}`
        ("/listed.html", "/lis{b/c}ted.html{}"),
        ("/listed.html", "/lis%7bx}te{y{z%7Dd.html?}"),
        *[("/{x}/ab", f"/{path}") for path in ("{x}%0a/ab", "{%09x}/ab")],
        ("/listed.html", "/lis{x}%0Ated.html"),
        ("/noext", "/{x}no{y}ext{z}/"),
        # Express, Koa, Nuxt, Mojolicious, Spring; servers of files where it is a folder
        ("/noext", "/noext/"),
        ("/noext", "/noext//?x"),
        ("/noext", "/no%65xt%2f"),
        ("/noext", "/x/../noext/"),
        ("/noext", "/noext/;x"),
        # MariaDB, SQL Server
        ("/noext", "/noext%20/?x"),
        ("/q?id=5", "/q/?x=1&id=5"),
        # Caddy, Node
        ("/noext", "/noext/."),
        ("/noext", "/noext/x/.."),
        # IIS
        ("/A/b.aspx?Id=5", "/a/B.ASPX?x=Y&id=5"),
        # MediaWiki, with a parameter behind the title
        ("/wiki/A_title", "/wiki/A%20title?x"),
        ("/wiki/A_title", "/wiki/%E2%80%8Ea%C2%A0_t%E2%80%8Eitle_?x"),
        ("/wiki/A_title", "/wiki/:A__title?x"),
        ("/wiki/Eighteen", "/wiki/eighteen?x"),
        ("/wiki/A_title", "/wiki/A_title_%23x?x"),
        ("/b/wiki/%C3%89t%C3%A9_a/b", "/b/wiki/E%CC%81te%CC%81%20a/b_?x"),
        ("/w/index.php/Talk:A_title", "/w/index.php/Talk:A%20title?x"),
        ("/wiki/User:Some_Body", "/wiki/user_:_some_Body?x"),
        ("/wiki/File:A_title.jpg", "/wiki/Image:a%20title.jpg?x"),
        ("/wiki/File:A_title.jpg", "/wiki/Media:A_title.jpg"),
        ("/wiki/User_talk:Some_Body", "/wiki/USER%20talk:Some_Body?x"),
        ("/w/index.php?title=A_title", "/w/index.php?+title=a+title&x=1"),
        ("/w/index.php?title=A_title", "/w/?title=a+title&x=1"),
        ("/w/index.php?title=A_title", "/w/index.php?x=1&title=A+title"),
        ("/w/index.php?title=A_title", "/w/index.php?titl%65=a%20title_&x=1"),
        # Whatever has an `index.php`, such as SMF, XenForo, Joomla
        ("/b/index.php?id=5", "/b/?id=5&x=1"),
        ("/?id=5", "/index.php?id=5"),
        ("/index.php?threads/a.5", "/?threads/a.5"),
        ("/a/b/index.php?id=5", "/a/./b/?id=5"),
        # Symfony, Laravel, Slim, Yii, CodeIgniter, to which paths that are no files are led
        ("/noext", "/index.php/noext"),
        ("/a/noext", "/a/index.php//noext/?x=1"),
        ("/a/noext", "/index.php/a%2Fnoext"),
        ("/q?id=5", "/index.php/q?id=5"),
    ],
)
def test_a_page_is_blocked_under_what_one_origin_serves_it_for(page: str, target: str) -> None:
    assert matcher(f"http://p.test{page}").check("p.test", target).blocked
    assert matcher(f"http://p.test{page[:-1]}").check("p.test", target) == PASS
    letter = matcher("http://p.test/%C3%A0").check("p.test", "/\xc3\xa0")
    assert letter.blocked


def test_another_page_of_a_like_name_passes() -> None:
    page = matcher(*(f"http://p.test/{p}" for p in ("wiki/A_title", "wiki/Word", "i?title=A_title")))
    for target in (
        "wiki/word",
        "wiki/Word%23x",
        "wiki/A_Title",
        "wiki/A-title",
        "wiki/A_title/_",
        "wiki/_",
        "wiki/%FF",
        "b/wiki/A%20title",
        "wikis/A%20title",
        "index.php?title=A+title",
        "i?title=A+title",
        "i?titles=A_title",
    ):
        assert page.check("p.test", f"/{target}?x=1") == PASS
    page = matcher("http://p.test/b/index.php", "http://p.test/c/", "http://p.test/d/index.php?id=5")
    for target in ("b/?id=5", "b/", "c/index.php?id=5", "c/index.php", "d/?id=6", "d/", "d?id=5", "?id=5"):
        assert page.check("p.test", f"/{target}") == PASS
    picture = matcher("http://p.test/a.jpg", "http://p.test/")
    for target in (
        "index.php",
        "index.php/",
        "index.php/b/a.jpg",
        "b/index.php/a.jpg",
        "an-index.php/a.jpg",
        "index.php;/a.jpg",
        "view.php/a.jpg",
    ):
        assert picture.check("p.test", f"/{target}") == PASS


@each_row(
    ("page", "targets"),
    [
        # Names in the letters of Windows-1251, GBK, EUC-KR and Latin-1 are no bytes that can be left out.
        ("/", "/%CF%F0%E8%E2%E5%F2 /%C4%E3%BA%C3/ /%B9%AB%C1%F6?x /\xb9\xab"),
        ("/tag/", "/tag/%CF%F0%E8%E2%E5%F2 /tag/%C4%E3/ /tag/\xd0\xa0"),
        ("/i/1.jpg", "/i/%CD%BC1.jpg /i/%E41.jpg"),
        ("/caf", "/caf%E9 /caf%E9/"),
        # Links with one slash too many.
        ("/", "//login.php //forum/ //forum//x /%2fforum ///forum //forum?x"),
        # `Fun.` is a band, and what is shortened ends so.
        ("/wiki/Fun", "/wiki/Fun. /wiki/Fun... /wiki/Fun%2e"),
        ("/wiki/Fun/b", "/wiki/Fun./b /wiki/Fun%2e/b%20"),
        ("/w?title=Who", "/w?title=Who%3F /w?title=Who%3f&x"),
        # The user 007, picture 3 of the album 12, release 5.0, and a digest.
        ("/users/7", "/users/007 /users/+7"),
        ("/7", "/007 /07/"),
        ("/a/123", "/a/12_3 /a/123.0 /a/0123a"),
        ("/a/0123", "/a/123"),
        ("/in/C", "/in/C++/ /in/C++/x /in/C%2b/ /in/C%20/x"),
        ("/q?title=15", "/q?title=15x"),
        ("/q?slug=15", "/q?slug=15-ways-to-a"),
        ("/sku/512", "/sku/00512"),
        ("/q?date=2024", "/q?date=2024-05"),
        ("/q?token=15", "/q?token=15a0f /q?token=015"),
        ("/q?id=15", "/q?id=151 /q?id=x15 /q?id=-15 /q?ids=15x /q?id=.15 /q?id=1e999999"),
    ],
)
def test_an_ordinary_page_of_another_name_passes(page: str, targets: str) -> None:
    found = matcher(f"http://p.test{page}")
    assert found.check("p.test", page).blocked
    for target in targets.split():
        assert found.check("p.test", target) == PASS, target


def test_dots_at_the_end_are_no_name_of_a_file_a_folder_or_a_page_with_parameters() -> None:
    found = matcher(
        "http://p.test/a.html",
        "http://p.test/d/",
        "http://p.test/d/a.html",
        "http://p.test/q?id=5",
        "http://p.test/n",
    )
    for target in ("/a.html.", "/a.html%20.", "/d./", "/q.?id=5", "/n%20", "/n%20%20", "/d./a.html"):
        assert found.check("p.test", target).blocked, target


def test_a_slash_behind_a_page_excuses_nothing_and_is_excused_with_it() -> None:
    for entry, target in (
        ("/dir.html/", "/dir.html/x"),
        ("/dir", "/dir/x"),
        ("/dir/*", "/dir"),
        ("/?id=5", "/x/?id=5"),
    ):
        assert matcher(f"http://p.test{entry}").check("p.test", target) == PASS
    for allowed, target, blocked in (
        ("http://p.test/ok", "/ok/", True),
        ("http://p.test/ok/", "/ok/", False),
        ("http://p.test/ok/*", "/ok/", False),
        ("*/ok/seq/*", "/ok/seq/", False),
        ("*/ok/seq/*", "/a+b/ok/seq/?x", False),
        ("*/ok/seq/*", "/ok/seq", True),
        ("http://p.test/ok/", "/ok", True),
    ):
        assert matcher("p.test", f"@@{allowed}").check("p.test", target).blocked is blocked
    assert not matcher("http://p.test/a", "@@http://p.test/a/*").check("p.test", "/a/").blocked
    # The exception is on one reading alone.
    assert matcher("http://p.test/a", "@@http://p.test/b").check("p.test", "/b;/../a/").blocked


@each_row(
    "entry, target",
    [
        ("/dir/", "/dir"),
        ("/dir/?id=5", "/dir?x&id=5"),
        ("/a/dir/", "/a//./dir"),
        ("/dir/ nocase", "/Dir"),
        ("/dir/ subdomains", "/dir"),
        ("/dir/", "/%64ir?x"),
        ("/dir.x/", "/dir.x"),
        ("/dir/", "/dir;x"),
        ("/dir/5/", "/dir/05&x=1"),
        ("/dir/", "/dir%20/"),
        ("/t/a-dir/5/", "/t/a-dir/5.json"),
        ("/t/dir-x/5/", "/t/dir-x/5/17"),
    ],
)
def test_a_page_with_a_slash_at_its_end_is_it_without(entry: str, target: str) -> None:
    """To most frameworks, and no server has two pages there."""
    for lines in ([], [f"http://p.test/{n}/x" for n in range(3_000)]):
        found = matcher(f"http://p.test{entry}", *lines)
        assert found.check("p.test", target).blocked
        assert found.check("p.test", target.replace("ir", "is")) == PASS


@each_row("host", ["p.test\xa0", "\xa0p.test", "p.test\x85", "\xc2\xa0p.test\xa0"])
def test_a_host_with_blanks_around_it_is_the_host(host: str) -> None:
    assert matcher("p.test").check(host, "/").blocked
    assert matcher("http://p.test/a").check(host, "/a\xa0").blocked


@each_row("target", ["/listed.html;x", "/other;/../listed.html", "/x%2f/../listed.html"])
def test_what_is_only_told_of_is_told_of_in_any_reading(target: str) -> None:
    found = matcher("http://p.test/listed.html;x", "http://p.test/listed.html")

    def told(verdicts: list[Verdict]) -> Verdict:
        return verdicts[0]._replace(action="monitor")

    assert found.check("p.test", target, decide=told).action == "monitor"
    alone = matcher("http://p.test/listed.html;x")
    assert alone.check("p.test", "/listed.html;x", decide=told).action == "monitor"


def test_a_block_in_any_reading_counts_before_what_is_told_of_or_allowed() -> None:
    found = matcher("http://p.test/a id=block", "@@http://p.test/b id=allow")
    assert found.check("p.test", "/a%2f../b").entry == "allow"
    assert found.check("p.test", "/a;y").entry == "block"
    assert found.check("p.test", "/b/..;/a").entry == "block"


@each_row(
    "page", ["/a;x", "/v1.api/x", "/a.", "/a%20", "/a.html/b", "/v1.api/*", "/a+b/c", "/a%20b", "/%E4/*"]
)
def test_what_allows_a_whole_path_allows_its_shorter_readings(page: str) -> None:
    found = matcher("p.test", f"@@http://p.test{page}")
    assert found.check("p.test", page.replace("*", "b")).action == "allow"
    assert found.check("p.test", page.rstrip("*") + "/../c").blocked


@each_row("query", ["q=who?", "u=http://o.test/?a=1", "?", "a?b?c"])
def test_what_allows_a_page_below_a_name_with_a_dot_allows_marks_in_its_query(query: str) -> None:
    """lighttpd's path up to the last mark is no page: with it only a file above is another."""
    found = matcher("p.test", "@@http://p.test/v1.2/x", f"@@http://p.test/v1.php/?{query}")
    assert found.check("p.test", f"/v1.2/x?{query}").action == "allow"
    assert found.check("p.test", f"/v1.php/?{query}").action == "allow"
    assert found.check("p.test", f"/v1.2/y?{query}").blocked


@each_row("listed", ["a=1;f=x.y;raw", "a=1&f=x.y&raw", "a=1&amp;f=x.y&amp;raw", "a=1;f=x.y;raw nocase"])
def test_a_semicolon_parts_what_is_listed_as_well(listed: str) -> None:
    """gitweb and forums have URLs of it; order, and what is added, is nothing to them."""
    found = matcher(f"http://p.test/view?{listed}")
    for query in ("a=1;f=x.y;raw", "a=1;f=x.y;raw;b", "b;a=1;f=x.y;raw", "f=x.y;raw;a=1", "a=1&f=x.y&raw"):
        assert found.check("p.test", f"/view?{query}").blocked, query
    for query in ("a=1;f=x.y", "a=1;f=x.z;raw", "raw", ""):
        assert not found.check("p.test", f"/view?{query}").blocked, query


def test_what_is_in_a_name_or_value_parts_nothing() -> None:
    for listed in ("u=a%3Bb&c", "u=a%3Bb;c", "u=a%3Bb&amp;c"):
        found = matcher(f"http://p.test/view?{listed}")
        for query in ("u=a%3Bb&c", "c;u=a%3bb", "d&u=a%253bb;c"):
            assert found.check("p.test", f"/view?{query}").blocked, (listed, query)
        assert not found.check("p.test", "/view?u=a&b").blocked


@each_row("query", ["q=a%3Bb", "x=1;y=2", "q=%20x", "a=1&q=%C2%A0x%20", "a.b=1;c", "id=5&id=6"])
def test_what_is_allowed_as_written_is_so_whatever_origins_make_of_it(query: str) -> None:
    found = matcher("p.test", f"@@http://p.test/view?{query}")
    assert found.check("p.test", f"/view?{query}").action == "allow"
    assert found.check("p.test", f"/view?{'&'.join(reversed(query.split('&')))}").action == "allow"
    for more in ("&q=c", "&x=3", ";x=1", "&a_b=2"):
        name = more[1:].partition("=")[0]
        if name in query.replace(".", "_"):
            assert found.check("p.test", f"/view?{query}{more}").blocked


def test_what_is_allowed_with_escaped_dots_does_not_allow_where_they_lead() -> None:
    found = matcher("http://p.test/a%20b", "@@http://p.test/ok/*")
    assert found.check("p.test", "/ok/%u002e%u002e/a+b").blocked
    assert found.check("p.test", "/ok/x%u002e/a+b").action == "allow"


@pytest.mark.parametrize("spelled", ["/a%20b/", "/a+b/"])
def test_an_allowed_path_sequence_allows_what_it_is_to_origins_that_spell_it_otherwise(spelled: str) -> None:
    found = matcher("p.test", f"@@*{spelled}*")
    assert found.check("p.test", f"{spelled}c").action == "allow"
    assert found.check("p.test", f"/c.html{spelled}c").blocked, "to some, the rest of a file is none"
    assert found.check("p.test", f"{spelled}../c").blocked


@each_row("spelled", ["/a%20b/", "/a+b/", "/x/a%20b/"])
@each_row("more", ["c;d", "c.html/d", "c%00", "c%3fd", "c\xa0", "c;d\xa0", "c.", "c;d+e", "c+;d"])
def test_an_allowed_path_sequence_allows_what_is_left_of_it_otherwise_spelt(spelled: str, more: str) -> None:
    found = matcher("p.test", f"@@*{spelled}*")
    assert found.check("p.test", f"{spelled}{more}").action == "allow"
    assert found.check("p.test", f"/l.html{spelled}{more}").blocked, "to some, the rest of a file is none"
    assert found.check("p.test", f"{spelled}../{more}").blocked


@each_row("page", ["/m+n.html", "/m%20n.html", "/m%C3%A9.html"])
@each_row("sent", ["/m+n.html", "/m%20n.html", "/m%E9.html"])
@each_row("more", ["/a%20b/c", "/a%20b/c;d", ";/a%20b/c", "%00/a%20b/c", "%3f/a%20b/c", "/a%20b/\xa0"])
def test_an_allowed_path_sequence_does_not_allow_what_is_left_without_it_otherwise_spelt(
    page: str, sent: str, more: str
) -> None:
    found = matcher(f"http://p.test{page}", "@@*/a%20b/*")
    is_same = ("m+n" in page or "m%20n" in page) == ("m+n" in sent or "m%20n" in sent)
    assert found.check("p.test", sent + more).blocked is is_same
    if is_same:
        found = matcher(f"http://p.test{page}")
        assert found.check("p.test", f"{sent}%3fx").blocked, "a server in front has made it the end of a path"


@each_row("target", ["/listed.html/ok/x/", "/listed.html/ok/x/.", "/listed.html/ok/x/y;z"])
def test_an_allowed_path_sequence_does_not_allow_what_is_left_without_it(target: str) -> None:
    found = matcher("http://p.test/listed.html", "@@*/ok/x/*")
    assert found.check("p.test", target).blocked
    assert found.check("p.test", "/a.html/ok/x/").action == "allow"
    assert found.check("p.test", "/ok/x/listed.html;a").action == "allow"
    whole = matcher("p.test", "@@*/ok/x/*")
    assert whole.check("p.test", "/ok/x/a.html/b;c").action == "allow"
    assert (
        matcher("p.test", "@@*/ok/x/*", "@@http://p.test/v1.api/ok/*")
        .check("p.test", "/v1.api/ok/x/y")
        .action
        == "allow"
    )


@each_row("target", ["/a%2f../ok", "/ok/..;/a", "/x//../ok", "/a\\../ok", "/ok#x", "/%252e%252e/ok"])
def test_what_allows_one_reading_does_not_allow_another_page(target: str) -> None:
    assert matcher("p.test", "@@http://p.test/ok").check("p.test", target).blocked


@each_row(
    "target",
    ["/a;/../ok", "/a%00/../ok", "/a%zz/../ok/x", "/a\xa0/%2e%2e/ok", "/(S(x))/a;/%2e./ok/x", "/a%0a/..;/ok"],
)
def test_what_allows_a_page_does_not_allow_what_a_way_to_it_begins_with(target: str) -> None:
    """To Fastify a path ends at a semicolon, to servers of Perl at a zero byte."""
    assert matcher("p.test", "@@http://p.test/ok", "@@http://p.test/ok/*").check("p.test", target).blocked


@each_row("page", ["/foo/bar//..", "/foo/bar/", "/foo//bar/x/..", "/foo/bar/x/%2e%2e"])
def test_an_entry_is_what_a_browser_asks_for_where_it_is_given_the_entry(page: str) -> None:
    found = matcher(f"http://p.test{page}")
    assert found.check("p.test", "/foo/bar/").blocked
    assert found.check("p.test", page).blocked
    assert found.check("p.test", "/foo/") == PASS


@each_row(
    "target",
    [
        "/x/one+two/three/y",
        "/x/one%2Btwo/three/y",
        "/one%20two./three/y",
        "/one%20two/three../y",
        "/a./one+two/three/y",
        # lighttpd
        "/x?/../one%20two/three/y?",
        "/x?a/%2e./../one%20two/three/y?",
    ],
)
def test_a_path_sequence_on_any_host_is_found_in_every_reading(target: str) -> None:
    assert matcher("*/one%20two/three/*").check("quiet.test", target).blocked


def test_a_path_sequence_may_begin_with_a_number() -> None:
    for more in ([], ["*/one/TWO/* nocase"]):
        assert matcher("*/15/three/*", *more).check("quiet.test", "/x/015/three/y").blocked


@each_row(
    "target",
    [
        "/login?next=/one/two/.well-known/x?y",
        "/r?u=https://a.test/one/two/p?id=1&v=/.x",
        "/r?u=/one/two/...?y",
        "/r?u=/one/two/x?y=/a.b",
    ],
)
def test_a_name_with_a_dot_in_front_has_no_path_sequence_read_in_a_query(target: str) -> None:
    """lighttpd's dot segments are whole ones."""
    assert matcher("*/one/two/*").check("quiet.test", target) == PASS


@each_row("target", ["/x/one./two/y", "/one/two./y", "/one../two/"])
def test_dots_at_the_end_of_a_segment_hide_no_path_sequence(target: str) -> None:
    assert matcher("*/one/two/*").check("quiet.test", target).blocked


def test_more_path_behind_a_script_is_another_page_of_it_but_the_same_with_parameters() -> None:
    pages = "index.php", "view.php?id=5", "a.html", "AT", "", "AT?p=2"
    found = matcher(*(f"http://p.test/{page}" for page in pages))
    assert found.check("p.test", "/index.php/Other") == PASS
    for target in ("/AT&T", "/AT&T?p=2", "/AT&T/x=1", "/{D-1}/x", "/{id}", "/%7Bid%7D/", "/{a}/{b}?x=1"):
        assert found.check("p.test", target) == PASS
    assert found.check("p.test", "/view.php/x") == PASS
    assert found.check("p.test", "/view.php/x?id=5").kind == "params"
    assert found.check("p.test", "/view.php;/x.php?id=5").kind == "params"
    # As Caddy has them, which takes no dot segments out.
    assert found.check("p.test", "/view.ph%70/.%2e/%252e%252e%2Fa/other.php?id=5").kind == "params"
    assert found.check("p.test", "/view.php/../other.php") == PASS
    assert found.check("p.test", "/a.html/x?y").kind == "page"


def test_what_is_sent_is_looked_for_in_lower_case_where_its_host_has_such_entries_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lists have pages of IIS, and each request to any of their hosts would take longer for it."""
    many = [f"http://many.test/{n}" for n in range(250)]
    found = matcher(
        *many, "http://many.test/B nocase", "http://a.test/b", "http://a.test/c/*", "http://i.test/B.aspx",
        "http://p.test/x/*", "http://p.test/Y/* nocase", "http://a.test/q?id=5",
        "http://d.test/B nocase subdomains",
    )  # fmt: skip
    for host in ("many.test", "d.test", "x.d.test"):
        assert found.check(host, "/b").blocked
        assert found.check(host, "/B").blocked
    assert found.check("i.test", "/b.ASPX").blocked
    assert [found.check("p.test", path).blocked for path in ("/x/", "/X/", "/y/", "/Y/")] == [
        True,
        False,
        True,
        True,
    ]
    searched = Matcher._search_place
    cases = []

    def search(*args: Any, **named: Any) -> None:
        cases.append(args[6])
        searched(*args, **named)

    monkeypatch.setattr(Matcher, "_search_place", search)
    assert found.check("a.test", "/b").blocked
    assert found.check("a.test", "/B?X") == PASS
    assert not any(cases)
    assert found.check("i.test", "/b.ASPX").blocked
    assert any(cases)


@each_row("target", ["/listed.html", "/a&b.json", "/q?a=1", "/thumb/1.png?x=%20"])
def test_what_is_listed_as_it_is_sent_is_not_read_in_other_ways(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = matcher(f"http://p.test{target}")
    for name in ("is_one_page", "target_readings"):
        monkeypatch.setattr(f"urlward.engine.matcher.{name}", None)
    assert found.check("p.test", target).blocked
    assert found.check_request(["p.test"], target).blocked


PARAMETERS = "&".join(f"topic.{n}=%20x" for n in range(990))


@each_row(
    "target",
    [
        f"/view?{PARAMETERS}",
        f"/{'a' * 50_000}/view?{PARAMETERS}",
        f"/a.gif{'/c.gif' * 12}?{'&'.join(f't{n}=%41' for n in range(990))}",
        f"/{'a%u002f/../b;c//' * 100}#?{'&'.join(f'a={n}' for n in range(60))}",
        f"\xa0/{'a%2f\xc2\xa0/..;b//(S(x))/' * 50}?x=1#y?z=2;\xa0",
        "/" + "/".join(f"{n:x}" for n in range(13_000)),
    ],
)
def test_what_would_take_long_is_refused_by_what_there_is_to_look_at(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A way in which origins may read it, a parameter and a byte each count; time does not."""
    looked = []
    spend = Work.spend

    def noted(self: Work, characters: int, texts: int = 1) -> None:
        looked.append(characters)
        spend(self, characters, texts)

    monkeypatch.setattr(Work, "spend", noted)
    found = matcher("http://p.test/view?topic=5", "http://p.test/q?a=1 nocase", "http://p.test/listed.html")
    with pytest.raises(UrlError, match="too many ways"):
        found.check("p.test", target)
    assert sum(looked[:-1]) < 160 * 1024
    assert len(looked) < 420


def test_a_query_is_taken_apart_once_however_many_entries_it_is_compared_with() -> None:
    """Entries of one page on many ports, and a name with several values, which asks what each entry has."""
    found = matcher(*[f"http://example.test:{port}/?x=1" for port in range(1, 1000)])
    assert found.check("example.test", "/?x=2&x=1").blocked


@each_row(
    "target",
    [
        "/forum/viewtopic.php?f=5&t=%41bc&start=20",
        f"/search;jsessionid=0123/..%2f/a.php?q={'%20foo' * 100}&{'&'.join(f'p{n}=%41' for n in range(60))}",
        f"/view.php/a.b/c?{'&'.join(f'T{n}=A' for n in range(120))}",
        f"/{'%e4%b8%ad' * 300}/x?{'%e4%b8%ad' * 300}",
        "/" + "a" * 60_000,
    ],
)
def test_what_clients_send_is_judged(target: str) -> None:
    found = matcher("http://p.test/view?topic=5", "http://p.test/q?a=1 nocase", "http://p.test/listed.html")
    assert found.check("p.test", target) == PASS


@pytest.mark.parametrize("more", ["", " nocase"])
def test_many_parameters_of_a_page_in_several_lists_are_looked_at(more: str) -> None:
    found = matcher(one=["http://p.test/view?topic=5" + more], other=["http://p.test/view?topic=6" + more])
    asked = "&".join(f"p{n:03}=v{n:03}" for n in range(990))
    assert found.check("p.test", f"/view?{asked}") == PASS
    assert found.check("p.test", f"/view?{asked}&topic=6").blocked


@each_row(
    ("lines", "refused", "blocked"),
    [
        (
            [f"http://h.test/a?i={i}&j={j}" for i in range(80) for j in range(80)],
            "/a?" + "&".join(f"i={i}&j=x{i}" for i in range(80)),
            "/a?i=7&k=1&j=5",
        ),
        ([f"http://h.test/{'a/' * n}*" for n in range(1, 300)], "/b/" + "a/" * 2000, "/a/b"),
        ([f"*/{'a/' * n}b/*" for n in range(200, 400)], "/a" * 2000 + "/c/", "/a" * 200 + "/b/"),
    ],
    ids=["combinations of parameters", "prefixes within each other", "path sequences that begin alike"],
)
def test_the_rows_of_a_list_that_a_target_leads_to_are_counted(
    lines: list[str], refused: str, blocked: str
) -> None:
    """A list of which many entries are much alike makes judging no dearer than readings may."""
    found = matcher(*lines)
    with pytest.raises(UrlError, match="too many ways"):
        found.check("h.test", refused)
    assert found.check("h.test", blocked).blocked


def test_a_long_path_is_looked_at_once_however_many_hosts_a_request_names() -> None:
    found = matcher("*/a/b/*", "http://p.test/x")
    hosts = [f"h{n}.test" for n in range(60)]
    assert found.check_request(hosts, "/" + "a" * 30_000) == PASS
    assert found.check_request([*hosts, "p.test"], "/x").blocked
    assert found.check_request(hosts, "/a/b/c").blocked


def test_what_was_hit_before_is_judged_anew_where_more_than_its_url_counts() -> None:
    """Verdicts are kept by digest, of rows that say the same of each request."""
    found = matcher(
        "h.test",
        "@@http://h.test/c?x=1",
        "@@http://h.test/p port=80",
        "@@http://h.test/e expires=2027-01-31",
        "http://s.test/a",
        "http://s.test/b subdomains",
        "http://s.test/n nocase",
    )
    for _ in range(2):
        assert found.check("h.test", "/c?x=1").action == "allow"
        assert found.check("h.test", "/c?x=1&x=2").blocked
        assert found.check("h.test", "/p", (80,)).action == "allow"
        assert found.check("h.test", "/p", (80, 443)).blocked
        assert found.check("h.test", "/e", now=0.0).action == "allow"
        assert found.check("h.test", "/e", now=2e9).blocked
        assert found.check("s.test", "/a").blocked
        assert found.check("x.s.test", "/a") == PASS
        assert found.check("x.s.test", "/b").blocked
        assert found.check("s.test", "/N").blocked
        assert found.check("s.test", "/A") == PASS


def test_a_path_sequence_is_confirmed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = matcher("*/a/*")
    made: list[str] = []
    digest = Key.digest
    monkeypatch.setattr(Key, "digest", lambda self, text: (made.append(text), digest(self, text))[1])
    assert found.check("h.test", "/a" * 3000 + "/").blocked
    assert len(made) < 10


def test_what_many_lists_cost_counts() -> None:
    """A request of 4 KB took 0.15 s where each of 20 lists had parameters on nine hosts that it named."""
    lists = {f"l{n}": [f"http://p.test/a{n}?x={n} nocase"] for n in range(30)}
    target = f"/x.data?{'2\xe9' * 2000}"
    assert matcher(*lists["l0"]).check("p.test", target) == PASS
    with pytest.raises(UrlError, match="too many ways"):
        matcher(**lists).check("p.test", target)
    assert matcher(**lists).check("p.test", f"/x?{'&'.join(f'a{n}=Bc%20d' for n in range(100))}") == PASS
