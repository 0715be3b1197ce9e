import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from engine.support import examples, matcher
from rows import each_row
from urlward.engine.entry import Kind
from urlward.engine.errors import EntryError, UrlError
from urlward.engine.grammar import parse_line
from urlward.engine.url import canonicalize
from urlward.lists.formats.format import NotTakenError
from urlward.lists.formats.write import attributes, domain, host_alone, literal, page, prefix


@each_row(
    ("url", "line"),
    [
        ("http://a.example/b?c=d", "http://a.example/b?c=d"),
        ("HTTPS://A.example:8443/b", "https://a.example:8443/b"),
        ("http://a.example/*", "http://a.example/%2A"),
        ("http://a.example/b?c=*", "http://a.example/b?c=%2A"),
        ('http://a.example/"b" c#d e', "http://a.example/%22b%22%20c"),
        ("http://a.example/b\u00a0\u2003c", "http://a.example/b%C2%A0%E2%80%83c"),
        ("http://a.example/b\nc\td", "http://a.example/bcd"),
        ("http://user:pass word@a.example/", "http://a.example/"),
        ("http://bücher.example/ü", "http://xn--bcher-kva.example/%C3%BC"),
        ("http:\\\\a.example\\b", "http://a.example\\b"),
        ("a.example/b", "http://a.example/b"),
        ("//a.example/b", "http://a.example/b"),
        ("http://[2001:DB8::7]/b", "http://[2001:db8::7]/b"),
        ("http://a.example id=x/", None),
        ("http://a.example:0/", None),
        ("ftp://a.example/", None),
        ("mailto:a@b.example", None),
        ("somebody@b.example/", None),
        ("javascript:alert(1)", None),
        ("word", None),
        ("http://\udcff.example/", None),
        ("http://a.example/\udcff", None),
        ("", None),
    ],
)
def test_page(url: str, line: str | None) -> None:
    if line is None:
        with pytest.raises((UrlError, NotTakenError)):
            page(url)
    else:
        assert page(url) == line


_PIECES = st.sampled_from(
    [
        *"/a*\"'#?&=%^!\\é:@+;01 \t\n\u2003\x85\x1c\0",
        *(
            "/*",
            "%20",
            "%2a",
            "%23",
            "@@",
            "||",
            "id=",
            "nocase",
            "subdomains",
            "..",
            "www.",
            " #",
            " id=x",
            ".example",
        ),
    ]
)


@examples(400)
@given(st.lists(_PIECES | st.text(max_size=3), max_size=12).map("".join))
def test_a_line_for_any_url_is_that_page_and_matches_it(rest: str) -> None:
    url = f"http://a.example/{rest}"
    try:
        canonical = canonicalize(url)
        line = page(url)
    except (UrlError, NotTakenError, UnicodeEncodeError):
        assume(False)
    [entry] = parse_line(line + attributes("1", "c"))
    assert (entry.host, entry.path) == (canonical.host, canonical.path)
    assert entry.kind is (Kind.PARAMS if entry.params else Kind.PAGE)
    assert (entry.id, entry.category, entry.allow, entry.nocase) == ("1", "c", False, False)
    found = matcher(line)
    assert found.check_url(url).blocked
    assert not found.check_url("http://a.example/another/page").blocked


@examples(300)
@given(st.lists(_PIECES, max_size=6).map("".join) | st.text(max_size=12))
@example("id=x")
@example("nocase")
def test_a_line_for_a_host_is_never_another_kind(text: str) -> None:
    for write, kinds in ((host_alone, (Kind.HOST, Kind.PREFIX)), (domain, (Kind.DOMAIN, Kind.PREFIX))):
        try:
            entries = parse_line(write(text))
        except (UrlError, NotTakenError, EntryError):
            continue
        assert len(entries) == 1
        assert entries[0].kind in kinds
        assert not entries[0].allow


def test_a_long_id_takes_no_long_time() -> None:
    """Names in other letters would be looked for from each of its own."""
    assert attributes("%" + "x" * 300_000) == f" id=-{'x' * 127}"


@examples(300)
@given(st.text(), st.text())
def test_attributes_are_always_of_the_grammar(id_: str, category: str) -> None:
    [entry] = parse_line("a.example" + attributes(id_, category))
    assert bool(entry.id) == bool(id_)
    assert bool(entry.category) == bool(category)


@each_row(
    ("text", "day"),
    [
        ("2027-01-31", "2027-01-31"),
        ("2027-01-31T10:00:00", "2027-01-31"),
        ("2027-01-31 23:30:00-05:00", "2027-02-01"),
        ("2027-01-31T10:00:00Z", "2027-01-31"),
    ],
)
def test_the_last_day(text: str, day: str) -> None:
    assert attributes(expires=text) == f" expires={day}"


@each_row("text", ["soon", "31.01.2027", "9999-12-31T23:59:59-05:00", "1700000000"])
def test_no_date(text: str) -> None:
    with pytest.raises(NotTakenError, match="2027-01-31"):
        attributes(expires=text)


@each_row(
    ("write", "text", "line"),
    [
        (host_alone, "A.example.", "0.0.0.0 a.example"),
        (host_alone, "bücher.example", "0.0.0.0 xn--bcher-kva.example"),
        (host_alone, "192.0.2.7", "http://192.0.2.7/*"),
        (host_alone, "[2001:db8::7]", "http://[2001:db8::7]/*"),
        (domain, "a.example", "a.example"),
        (domain, "example", "||example^"),
        (domain, "192.0.2.7", "http://192.0.2.7/*"),
    ],
)
def test_hosts(write: type[str], text: str, line: str) -> None:
    assert write(text) == line


@each_row("text", ["1.2", "0xC0000207", "192.0.2.007", "3221225991"])
def test_a_number_is_no_host(text: str) -> None:
    with pytest.raises(NotTakenError, match="a number for a name"):
        host_alone(text)


def test_a_host_that_is_an_address_is_not_all_hosts_there() -> None:
    found = matcher(host_alone("192.0.2.7"), domain("192.0.2.8"))
    assert found.check_url("http://192.0.2.7/any").blocked
    assert found.check_url("http://192.0.2.8/any").blocked
    assert not found.check_address("192.0.2.7").blocked
    assert not found.check_address("192.0.2.8").blocked


@each_row("text", ["localhost", "LocalHost.localdomain", "broadcasthost"])
def test_every_machines_own_names_are_no_hosts(text: str) -> None:
    with pytest.raises(NotTakenError, match="every machine's own"):
        host_alone(text)


@each_row(
    ("path", "reason"),
    [
        *[
            (path, "dot segments, escaped slashes or backslashes")
            for path in ("/a/../", "/.", "/a%2fb", "/a\\b", "/%2e%2e/", "/a%252f../b", "/a%5Cb", "/a/..")
        ],
        ("//", "nothing but slashes"),
        ("/a#b", "a fragment"),
    ],
)
def test_a_path_that_would_be_another(path: str, reason: str) -> None:
    with pytest.raises(NotTakenError, match=reason):
        literal(path)


@each_row(
    ("path", "same"),
    [("/", "/"), ("/a.b/..c/é%20/", "/a.b/..c/é%20/"), ("//arm5", "/arm5"), ("/a///b//", "/a/b/")],
)
def test_runs_of_slashes_are_one(path: str, same: str) -> None:
    assert literal(path) == same


def test_prefix() -> None:
    assert prefix("A.example", "/b c/*d/") == "http://a.example/b%20c/%2Ad/*"
    with pytest.raises(NotTakenError):
        prefix("a.example", "/b?c/")
