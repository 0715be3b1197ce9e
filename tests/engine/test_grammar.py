from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples
from rows import each_row
from urlward.engine.entry import Entry, Kind
from urlward.engine.errors import EntryError
from urlward.engine.grammar import MAX_LINE, parse_line, with_attribute


def entry(line: str) -> Entry:
    (found,) = parse_line(line)
    return found


# -- what each line means


@each_row(
    ("line", "expected"),
    [
        ("example.test", Entry(Kind.DOMAIN, "example.test")),
        ("||example.test^", Entry(Kind.DOMAIN, "example.test")),
        ("||example^", Entry(Kind.DOMAIN, "example")),
        ("www.example.test", Entry(Kind.DOMAIN, "www.example.test")),
        ("EXAMPLE.Test.", Entry(Kind.DOMAIN, "example.test")),
        ("bücher.test", Entry(Kind.DOMAIN, "xn--bcher-kva.test")),
        ("alte-bücher.test", Entry(Kind.DOMAIN, "xn--alte-bcher-feb.test")),
        ("0.0.0.0 example.test", Entry(Kind.HOST, "example.test")),
        ("0.0.0.0 www.example.test", Entry(Kind.HOST, "www.example.test")),
        ("@@0.0.0.0 example.test", Entry(Kind.HOST, "example.test", allow=True)),
        ("@@0.0.0.0 id=7", Entry(Kind.ADDRESS, "0.0.0.0/32", allow=True, id="7")),
        ("http://example.test/a/b.html", Entry(Kind.PAGE, "example.test", "/a/b.html")),
        ("http://www.example.test/a", Entry(Kind.PAGE, "example.test", "/a")),
        ("http://www.www.example.test/a", Entry(Kind.PAGE, "www.example.test", "/a")),
        ("http://www.test/a", Entry(Kind.PAGE, "www.test", "/a")),
        ("http://ws/a", Entry(Kind.PAGE, "ws", "/a")),
        ("HTTPS://Example.TEST/A/../b", Entry(Kind.PAGE, "example.test", "/b")),
        ("http://example.test/", Entry(Kind.PAGE, "example.test", "/")),
        ("http://example.test", Entry(Kind.PAGE, "example.test", "/")),
        ("http://example.test/a?", Entry(Kind.PAGE, "example.test", "/a")),
        ("http://example.test/a?&=", Entry(Kind.PAGE, "example.test", "/a")),
        ("http://example.test/a#b", Entry(Kind.PAGE, "example.test", "/a")),
        ("http://u:p@example.test/a", Entry(Kind.PAGE, "example.test", "/a")),
        ("http://example.test/a%2A", Entry(Kind.PAGE, "example.test", "/a*")),
        ("http://192.0.2.7/a", Entry(Kind.PAGE, "192.0.2.7", "/a")),
        ("http://[2001:db8::7]:81/a", Entry(Kind.PAGE, "[2001:db8::7]", "/a", port=81)),
        ("http://example.test/a?id=5", Entry(Kind.PARAMS, "example.test", "/a", frozenset({"id=5"}))),
        ("http://a.test/a?a=1;b=2", Entry(Kind.PARAMS, "a.test", "/a", frozenset({"a=1", "b=2"}))),
        (
            "http://example.test/?b=2&a=1&b=2",
            Entry(Kind.PARAMS, "example.test", "/", frozenset({"a=1", "b=2"})),
        ),
        ("http://example.test?q=x+y", Entry(Kind.PARAMS, "example.test", "/", frozenset({"q=x%20y"}))),
        ("http://www.example.test/dir/*", Entry(Kind.PREFIX, "example.test", "/dir/")),
        ("http://example.test/*", Entry(Kind.PREFIX, "example.test", "/")),
        ("http://example.test/a/./b//*", Entry(Kind.PREFIX, "example.test", "/a/b/")),
        # As all clients have it, which take dots out before they would unescape anything.
        ("http://example.test/a%2Fb/../c", Entry(Kind.PAGE, "example.test", "/c")),
        ("http://example.test/a/x%255Cb/%2E%2e/c?", Entry(Kind.PAGE, "example.test", "/a/c")),
        ("http://example.test/a%5Cb/../*", Entry(Kind.PREFIX, "example.test", "/")),
        ("example.*", Entry(Kind.NAME, "example")),
        ("www.Example.*", Entry(Kind.NAME, "www.example")),
        ("||example.*^", Entry(Kind.NAME, "example")),
        ("bücher.*", Entry(Kind.NAME, "xn--bcher-kva")),
        ("*/gallery/one-two/*", Entry(Kind.PATH, "", "/gallery/one-two/")),
        ("*/ä/%61/*", Entry(Kind.PATH, "", "/%C3%A4/a/")),
        ("192.0.2.7", Entry(Kind.ADDRESS, "192.0.2.7/32")),
        ("||192.0.2.7^", Entry(Kind.ADDRESS, "192.0.2.7/32")),
        ("0xC0000207.", Entry(Kind.ADDRESS, "192.0.2.7/32")),
        ("192.0.2.0/24", Entry(Kind.NETWORK, "192.0.2.0/24")),
        ("192.0.2.7/32", Entry(Kind.ADDRESS, "192.0.2.7/32")),
        ("[2001:db8::7]", Entry(Kind.ADDRESS, "2001:db8::7/128")),
        ("2001:DB8::7", Entry(Kind.ADDRESS, "2001:db8::7/128")),
        ("2001:db8::/32", Entry(Kind.NETWORK, "2001:db8::/32")),
        ("[2001:db8::]/32", Entry(Kind.NETWORK, "2001:db8::/32")),
        ("::ffff:192.0.2.7", Entry(Kind.ADDRESS, "192.0.2.7/32")),
        ("64:ff9b::192.0.2.0/120", Entry(Kind.NETWORK, "192.0.2.0/24")),
        ("@@example.test", Entry(Kind.DOMAIN, "example.test", allow=True)),
        ("@@||example.test^", Entry(Kind.DOMAIN, "example.test", allow=True)),
        ("@@http://example.test/a", Entry(Kind.PAGE, "example.test", "/a", allow=True)),
        ("@@*/a/*", Entry(Kind.PATH, "", "/a/", allow=True)),
        ("@@192.0.2.7", Entry(Kind.ADDRESS, "192.0.2.7/32", allow=True)),
        ("@@example.*", Entry(Kind.NAME, "example", allow=True)),
    ],
)
def test_line(line: str, expected: Entry) -> None:
    assert entry(line) == expected
    assert entry(f"  {line}\t # a comment") == expected


@each_row("line", ["", "  ", "\n", "# example.test", "! example.test", "#", "  !", "!!", '#"'])
def test_lines_without_an_entry(line: str) -> None:
    assert parse_line(line) == ()


MD5, PDQ = "0123456789abcdef" * 2, "0f" * 32


@each_row(
    ("line", "expected"),
    [
        (f"md5:{MD5}", Entry(Kind.FILE, "md5", MD5)),
        (f"MD5:{MD5.upper()}", Entry(Kind.FILE, "md5", MD5)),
        (f"sha1:{MD5}01234567", Entry(Kind.FILE, "sha1", f"{MD5}01234567")),
        (f"sha256:{MD5 * 2}", Entry(Kind.FILE, "sha256", MD5 * 2)),
        (f"pdq:{PDQ}", Entry(Kind.FILE, "pdq", PDQ, distance=31)),
        (f"pdq:{PDQ} distance=0", Entry(Kind.FILE, "pdq", PDQ)),
        (f"pdq:{PDQ} id=7 distance=63", Entry(Kind.FILE, "pdq", PDQ, id="7", distance=63)),
        (
            f"md5:{MD5} id=7 category=csam expires=1970-01-02 note=x",
            Entry(Kind.FILE, "md5", MD5, id="7", category="csam", expires=1),
        ),
        (f"@@md5:{MD5}", Entry(Kind.FILE, "md5", MD5, allow=True)),
        (f"@@pdq:{PDQ}", Entry(Kind.FILE, "pdq", PDQ, allow=True)),
        # What says so little that others would be near can be excused all the same.
        (f"@@pdq:{'0' * 64}", Entry(Kind.FILE, "pdq", "0" * 64, allow=True)),
        (f"pdq:{'0' * 60}ffff distance=15", Entry(Kind.FILE, "pdq", f"{'0' * 60}ffff", distance=15)),
    ],
)
def test_files(line: str, expected: Entry) -> None:
    assert entry(line) == expected
    assert entry(f"  {line}\t # a comment") == expected


@each_row("subject", [f"sha256:{MD5 * 2}", f"md5:{MD5}", f"pdq:{PDQ}"])
@each_row("attributes", ["", " id=A-1", " category=CSAM", "\tid=A-1   category=csam \n", f" id={MD5}"])
def test_the_short_way_of_plain_lines_reads_as_the_long_one(subject: str, attributes: str) -> None:
    assert entry(subject + attributes) == entry(f"{subject}{attributes} note=x")


def test_an_id_or_category_that_has_a_digest_in_it_is_left_out() -> None:
    for said in (MD5, f"file-{MD5[:12].upper()}", f"{MD5[4:8]}-{MD5[8:12]}:{MD5[12:16]}", "0a" * 20):
        found = entry(f"md5:{MD5} id={said} category={said.replace(':', '.')}")
        assert (found.id, found.category) == ("", "")
    for said in (MD5[:11], "6f9619ff-8b86-d011-b42d-00c04fc964ff", "1234567890123456"):
        assert entry(f"md5:{MD5} id={said}").id == said


def test_a_hosts_line_names_several_hosts_and_leaves_out_its_own() -> None:
    hosts = parse_line("127.0.0.1  localhost a.test localhost.localdomain www.b.test id=7  # c")
    assert [(e.kind, e.host, e.id) for e in hosts] == [
        (Kind.HOST, "a.test", "7"),
        (Kind.HOST, "www.b.test", "7"),
    ]
    assert parse_line("::1 ip6-localhost ip6-loopback") == ()
    assert parse_line("0.0.0.0 0.0.0.0") == ()
    assert entry(":: example.test").kind is Kind.HOST


def test_an_address_of_no_hosts_file_is_an_entry() -> None:
    assert entry("0.0.0.0 port=80") == Entry(Kind.ADDRESS, "0.0.0.0/32", port=80)


# -- attributes


UNICODE_HOSTS = [
    ("straße.test", "xn--strae-oqa.test"),
    ("STRAßE.Test", "xn--strae-oqa.test"),
    ("STRA\u1e9eE.test", "xn--strae-oqa.test"),
    ("stra%e1%BA%9Ee.test", "xn--strae-oqa.test"),
    ("stra%C3%9Fe.test", "xn--strae-oqa.test"),
    ("ßtra%C3%9Fe.test", "xn--trae-unad.test"),
    ("σίγμας.test", "xn--kxaef0b5ab.test"),
    ("क्\u200dष.test", "xn--11b2ezcw70k.test"),
    ("münchen.test", "xn--mnchen-3ya.test"),
    ("MÜNCHEN.test", "xn--mnchen-3ya.test"),
    ("m%C3%BCnchen.test", "xn--mnchen-3ya.test"),
    ("пример.test", "xn--e1afmkfd.test"),
    ("例え.test", "xn--r8jz45g.test"),
    ("例え。test", "xn--r8jz45g.test"),
    ("XN--Strae-OQA.test", "xn--strae-oqa.test"),
    ("xn--p41h.test", "xn--p41h.test"),
]


@each_row(
    "line",
    [
        *["{}", "||{}^", "@@{}", "0.0.0.0 {}", "@@0.0.0.0 {}", "a.{}", "www.{}"],
        *["http://{}/", "https://{}:8443/a/b.html", "http://www.{}/x id=1", "@@http://{}/x subdomains"],
        *["http://{}/dir/*", "@@http://{}/*", "http://{}/?a=1", "http://{}/ü?ü=ß", "http://u:p@{}/x"],
    ],
)
def test_a_host_in_unicode_is_its_a_labels_in_every_kind(line: str) -> None:
    for written, host in UNICODE_HOSTS:
        expected = parse_line(line.format(host))
        assert parse_line(line.format(written)) == expected, written
        assert expected[0].host.endswith(host)


@each_row(("written", "host"), UNICODE_HOSTS)
def test_a_name_in_unicode_under_any_suffix(written: str, host: str) -> None:
    if not written.endswith(".test"):
        written = written[: -len("。test")] + ".test"
    name, a_label = written.rpartition(".")[0], host.rpartition(".")[0]
    assert entry(f"{name}.*") == entry(f"{a_label}.*") == Entry(Kind.NAME, a_label)


def test_all_attributes() -> None:
    words = (
        "http://example.test/A id=Ab.1:c_- category=Phishing expires=2027-01-31 port=8080 nocase subdomains"
    )
    line = f'{words} note="a # b"'
    assert entry(line) == Entry(
        Kind.PAGE,
        "example.test",
        "/a",
        id="Ab.1:c_-",
        category="phishing",
        expires=(date(2027, 1, 31) - date(1970, 1, 1)).days,
        port=8080,
        nocase=True,
        subdomains=True,
    )


@each_row(
    ("url", "port"),
    [
        *[
            ("http://h.test:80/", 0),
            ("https://h.test:443/", 0),
            ("http://h.test/", 0),
            ("http://h.test:/", 0),
        ],
        *[("https://h.test:80/", 80), ("http://h.test:443/", 443), ("http://h.test:8080/", 8080)],
        *[("ws://h.test:80/", 0), ("wss://h.test:443/", 0), ("http://h.test/ port=80", 80)],
        *[("http://h.test:8080/ port=8080", 8080), ("h.test port=80", 80), ("http://h.test:80/ port=81", 81)],
    ],
)
def test_port(url: str, port: int) -> None:
    assert entry(url).port == port


def test_nocase_lowers_the_path_and_the_parameters() -> None:
    found = entry("http://example.test/A/%C3%84?B=C&d=%C3%84 nocase id=Ab")
    assert (found.path, found.params, found.id) == ("/a/%c3%a4", {"b=c", "d=%c3%a4"}, "Ab")
    assert entry("*/A/* nocase").path == "/a/"


def test_pages_of_iis_are_the_same_in_letters_of_either_case() -> None:
    for line in ("http://example.test/A/Page.aspx?Id=5", "https://example.test:443/A/PAGE.ASPX?ID=5 id=x"):
        found = entry(line)
        assert (found.path, found.params, found.nocase) == ("/a/page.aspx", {"id=5"}, True)
    for line in ("/A.asp", "/%41.ashx", "/A.asp?x=1&Y"):
        assert entry(f"http://example.test{line}").path[:3] == "/a."
    for line in ("/A.aspx?id=b5", "/A.aspx/", "/A.asp/*", "/Aasp", "/A.php", "/A.axd?x=%C3%84"):
        assert not entry(f"http://example.test{line}").nocase
    assert entry("@@http://example.test/A.aspx").path == "/A.aspx"


@each_row("word", ["expires=1970-01-02", "expires=2149-06-06", "id=" + "a" * 128, "port=65535", "note=é"])
def test_limits_that_hold(word: str) -> None:
    entry(f"example.test {word}")


# -- faults

ATTRIBUTES = "attributes are id=, category=, expires=, port=, distance=, note=, nocase, subdomains"


@each_row(
    ("line", "column", "reason"),
    [
        ("@@", 3, "nothing after @@"),
        ("name", 1, "a name without a dot"),
        ("“http://example.test/a”", 1, "character that no name has"),
        ("\u2018example.test\u2019", 1, "character that no name has"),
        ("http://exa\u2013mple.test/", 1, "character that no name has"),
        ("0.0.0.0 «example.test»", 9, "character that no name has"),
        ("http://http://example.test/a", 8, "a scheme where the host belongs"),
        ("http://https//example.test/a", 8, "a scheme where the host belongs"),
        ("||example.test", 1, "ends with ^"),
        ("||exa/mple^", 6, "not a host, address, page or path"),
        ("@@||exa/mple^", 8, "not a host, address, page or path"),
        ("example.test/a", 13, "not a host, address, page or path"),
        ("example.test:80", 13, "not a host, address, page or path"),
        ("  *.example.test", 3, "does not begin with *"),
        ("exa*mple.test", 4, "not a host, address, page or path"),
        (".example.test", 1, "does not begin with ."),
        ("@@.example.test", 3, "does not begin with ."),
        ("||.example.test^", 3, "does not begin with ."),
        ('"example.test"', 1, "character that no name has"),
        ("exa,mple.test", 1, "character that no name has"),
        ("http://*.example.test/", 8, "does not begin with *"),
        ("0.0.0.0 *.example.test", 9, "character that no name has"),
        ("ftp://example.test/", 1, "scheme is not one of"),
        ("http://", 1, "no host"),
        ("http://exa mple.test/", 12, "not an attribute"),
        ("http://a%20b.test/", 1, "not a valid host"),
        ("http://h.test:x/", 1, "port is not a number"),
        ("http://h.test:65536/", 1, "port is larger"),
        ("http://h.test/a*", 16, "* stands only at the end of a prefix"),
        ("http://h.test/*/a", 15, "* stands only at the end of a prefix"),
        ("http://h.test/*/*", 15, "* stands only at the end of a prefix"),
        ("http://h.test/a?b=*", 19, "* stands only at the end of a prefix"),
        ("http://h.test/a/*?b", 17, "* stands only at the end of a prefix"),
        ("*/a", 1, "begins with */ and ends with /*"),
        ("*/*", 1, "begins with */ and ends with /*"),
        ("*//*", 1, "names at least one segment"),
        ("*/./a/../*", 1, "names at least one segment"),
        ("*/a*b/*", 4, "no *, ? or # inside"),
        ("*/a?b/*", 4, "no *, ? or # inside"),
        ("192.0.2.7/24", 1, "host bits are set"),
        ("192.0.2", 1, "not an address or network"),
        ("192.0.2.256", 1, "not an address or network"),
        ("192.0.2.0/33", 1, "not an address or network"),
        ("2001:db8::7::", 1, "not an address or network"),
        ("192.0.2.*", 1, "written with its length"),
        ("*.*", 1, "a name under any suffix"),
        (".*", 1, "a name under any suffix"),
        ("0.0.0.0 example.test 192.0.2.7", 22, "names hosts, not addresses"),
        ("0.0.0.0 a/b", 9, "ends it"),
        ("0.0.0.0 a.test nocase", 16, "nocase goes with"),
        ("example.test foo", 14, "not an attribute"),
        ("example.test  allow", 15, "not an attribute"),
        ("example.test allow=1", 14, "not an attribute"),
        ("example.test nocase=1", 14, "not an attribute"),
        ("example.test id", 14, "not an attribute"),
        ("@@example.test foo=", 16, "not an attribute"),
        ("example.test id=1 id=2", 19, "id is given twice"),
        ("*/a/* nocase nocase", 14, "nocase is given twice"),
        ("example.test id=", 17, "id has 1 to 128"),
        ("example.test id=ü", 17, "id has 1 to 128"),
        ("example.test id=" + "a" * 129, 17, "id has 1 to 128"),
        ("example.test category=a:b", 23, "category has 1 to 64"),
        ("example.test expires=tomorrow", 22, "expires is a date"),
        ("example.test expires=1970-01-01", 22, "expires is a date from"),
        ("example.test expires=2149-06-07", 22, "expires is a date from"),
        ("example.test port=0", 19, "port is a number"),
        ("example.test port=65536", 19, "port is a number"),
        ("example.test port=٣", 19, "port is a number"),
        ("http://example.test:8080/ port=80", 1, "different ports"),
        ("example.test nocase", 14, "nocase goes with"),
        ("example.test subdomains", 14, "subdomains goes with"),
        ("*/a/* subdomains", 7, "subdomains goes with"),
        ("192.0.2.7 subdomains", 11, "subdomains goes with"),
        ('http://example.test/a"', 22, "a quote that nothing closes"),
        ('example.test note="a b', 19, "a quote that nothing closes"),
        ("a" * (MAX_LINE + 1), MAX_LINE, "line is longer"),
        ("md5:", 5, "a digest of md5 is 32 hexadecimal digits"),
        (MD5, 1, "a digest of a file has its algorithm before it"),
        (f"{MD5.upper()} id=A", 1, "a digest of a file has its algorithm before it"),
        (f"sha512:{MD5 * 4}", 1, "a digest of a file has its algorithm before it"),
        (f"@@sha-256:{MD5 * 2}", 3, "a digest of a file has its algorithm before it"),
        ("photodna:AAAA", 1, "a digest of a file has its algorithm before it"),
        (f"md5:{MD5[:-1]}g", 5, "a digest of md5 is 32 hexadecimal digits"),
        (f"@@sha1:{MD5}", 8, "a digest of sha1 has 40 hexadecimal digits, not 32"),
        (f"pdq:{PDQ}00", 5, "a digest of pdq has 64 hexadecimal digits, not 66"),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", 5, "the digest of an empty file"),
        ("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", 6, "the digest of an empty file"),
        (f"pdq:{'0' * 64}", 5, "pictures of one colour"),
        (f"pdq:{'f' * 64} distance=0", 5, "pictures of one colour"),
        (f"pdq:{'0' * 60}ffff distance=16", 5, "pictures of one colour"),
        (f"pdq:{PDQ} distance=64", 79, "distance is a number from 0 to 63"),
        (f"pdq:{PDQ} distance=-1", 79, "distance is a number from 0 to 63"),
        (f"md5:{MD5} distance=1", 38, "distance goes with pdq"),
        ("||pdq^ distance=1", 8, "distance goes with pdq"),
        (f"@@pdq:{PDQ} distance=1", 72, "distance goes with no exception"),
        (f"md5:{MD5} port=80", 38, "port goes with no file"),
        (f"md5:{MD5} nocase", 38, "nocase goes with"),
        (f"md5:{MD5} subdomains", 38, "subdomains goes with"),
    ],
)
def test_fault(line: str, column: int, reason: str) -> None:
    with pytest.raises(EntryError) as caught:
        parse_line(line)
    assert reason in caught.value.reason
    assert caught.value.column == column
    assert str(caught.value).startswith(f"column {column}: {caught.value.reason}")


@pytest.mark.parametrize(
    "line", ["\u200bhttp://h.test/a\u200e id=1", "\ufeff\u202ahttp://h.test/a\u202c \u2060id=1\u200b"]
)
def test_marks_that_nobody_sees_around_a_word_do_not_count(line: str) -> None:
    assert parse_line(line) == parse_line("http://h.test/a id=1")


def test_a_line_of_marks_takes_no_longer_than_another() -> None:
    """Not squared in its length, which would be minutes."""
    with pytest.raises(EntryError):
        parse_line("x" + "\u200b" * 70_000 + "x")


def test_a_fault_has_a_hint_where_there_is_something_to_write_instead() -> None:
    for line, hint in [
        ("name", "||name^"),
        ("||example.test", "||example.test^"),
        ("example.test/a", "http://"),
        ("*.example.test", "covers its subdomains"),
        ("||*.example.test^", "covers its subdomains"),
        ("http://*.example.test/a", "subdomains"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("192.0.2.*", "192.0.2.0/24"),
        ("http://h.test/a*", "%2A"),
        ("example.test foo", ATTRIBUTES),
        ('example.test"', "%22"),
    ]:
        with pytest.raises(EntryError) as caught:
            parse_line(line)
        assert hint in caught.value.hint
        assert caught.value.hint in str(caught.value)


PIECES = [
    *["s", "e", "c", "r", "t", "secret", "secret", "SECRET", "http://", "@@", "||", "^", "*", "/*", "*/"],
    *[".*", "://", ".", "/", ":", "?", "#", "&", "=", " ", '"', "%", "%2", "[", "]", "::", "192.0.2.", "/24"],
    *[" id=", " port=", " nocase", " expires=", " category=", " note=", " subdomains", "0.0.0.0 ", "\t"],
    *["\u3002", "\xad", "é", "\udcff", "\0", "\x1c", "\x85", "\u2003"],
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30))
@examples(2500)
def test_any_line_is_read_or_refused_with_a_place_and_without_its_text(line: str) -> None:
    try:
        entries = parse_line(line)
    except EntryError as e:
        fault = e
    else:
        for found in entries:
            assert found.host.isascii()
            assert found.path.isascii()
            assert bool(found.path) == (found.kind in (Kind.PAGE, Kind.PREFIX, Kind.PARAMS, Kind.PATH))
            assert bool(found.params) == (found.kind is Kind.PARAMS)
        return
    assert 1 <= fault.column <= max(len(line), 1) + 1
    assert "secret" not in str(fault).lower()


@given(
    st.sampled_from(
        [
            "a.test",
            "1.test",
            "a_b.test",
            "www.a.test",
            "www.test",
            "x.xn--p.test",
            "a.0x",
            "a.09",
            "a-.b",
            "xn--zz.test",
            "a.xn--a",
            "xn--zz.1",
            "localhost.localdomain",
        ]
    ),
    st.lists(
        st.sampled_from(
            ["/a", "/b", "/.a", "/.", "//", "/~a:b@c", "/a;b", "/a%62", "/", "/a,b=c", "/..", "/!"]
        )
        | st.sampled_from(["*", "/*", "?", "?*", "?x=1", "?a=b&amp;c=", "?&", "#x"]),
        max_size=3,
    ).map("".join),
    st.sampled_from(
        ["", " id=a.b", " id=E-1 category=Ab", "\tcategory=a-b ", " id=a-b-c", " id=", "\u2003", " x"]
    ),
)
@examples(400)
def test_the_short_way_for_plain_lines_is_the_long_way(host: str, path: str, more: str) -> None:
    def outcome(line: str) -> object:
        try:
            return parse_line(line)
        except EntryError:
            return None

    for subject in (host, f"0.0.0.0 {host}", f"http://{host}{path}", f"*{path}"):
        assert outcome(f"{subject}{more}") == outcome(f"{subject}{more} note=x")
    assert outcome(f"http://{host}{path}{more}") == outcome(f"http://u@{host}{path}{more}")
    assert outcome(host) == outcome(f"||{host}^")


# -- size


def test_an_entry_of_64_kib_is_read_whole() -> None:
    assert entry("http://example.test" + "/a" * 32_000).path == "/a" * 32_000
    assert len(entry("http://example.test/?" + "&".join(f"p{i}" for i in range(10_000))).params) == 10_000
    assert entry("a." * 30_000 + "test").host == "a." * 30_000 + "test"


@each_row(
    ("line", "said"),
    [
        ("http://host.example/page id=http:-host.example-page", ("", "")),
        ("http://host.example/page id=HOST.example category=host.example", ("", "")),
        ("host.example id=1 category=x.host.example", ("1", "")),
        ("http://host.example/page id=E-1 category=phishing port=8080", ("E-1", "phishing")),
        ("http://host.example:81/page id=host.example.1 category=phishing", ("", "phishing")),
        ("192.0.2.7 id=192.0.2.7", ("", "")),
        ("http://[2001:db8::7]/a id=http:-2001:db8::7-a", ("", "")),
        ("||www.x.test^ id=x.test", ("", "")),
        ("*/a/b/* id=a-b", ("a-b", "")),
        # A word is no name of anybody.
        ("||games^ category=games id=games-1", ("games-1", "games")),
        ("bet.* category=betting", ("", "betting")),
    ],
)
def test_what_is_said_of_an_entry_does_not_tell_its_host(line: str, said: tuple[str, str]) -> None:
    (entry,) = parse_line(line)
    assert (entry.id, entry.category) == said


PARTS = [
    "a.example",
    "||b.example^",
    "@@c.example",
    "0.0.0.0",
    "d.example",
    "category=x",
    "id=category=y",
    '"',
    "#",
    "!",
    "nocase",
    "expires=2030-01-31",
    "http://a.example/b#c",
]
WORDS = st.sampled_from([*PARTS, 'note="z #"', " "])


@examples(400)
@given(st.lists(WORDS, max_size=6).map(" ".join) | st.text(max_size=40))
def test_an_attribute_that_is_added_changes_nothing_else(line: str) -> None:
    try:
        entries = parse_line(line)
    except EntryError:
        with pytest.raises(EntryError):
            parse_line(with_attribute(line, "category", "added"))
        return
    given = parse_line(with_attribute(line, "category", "added"))
    assert [entry._replace(category="") for entry in given] == [
        entry._replace(category="") for entry in entries
    ]
    assert all(
        new.category == (old.category or new.category) for new, old in zip(given, entries, strict=True)
    )
