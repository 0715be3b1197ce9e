import json
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from engine.support import examples
from rows import each_row
from urlward.engine import readings as readings_module
from urlward.engine import url as url_module
from urlward.engine.errors import UrlError
from urlward.engine.readings import is_one_page, path_readings, target_readings
from urlward.engine.url import (
    CanonicalUrl,
    canonical_host,
    canonical_path,
    canonical_query,
    canonicalize,
    host_readings,
    is_address,
    query_parameters,
    request_parameters,
    split_authority,
    split_target,
    split_url,
)

DATA = Path(__file__).parents[1] / "data"
VECTORS = json.loads((DATA / "canonicalization.json").read_text())["vectors"]
READINGS = json.loads((DATA / "host_readings.json").read_text())["vectors"]

# Pieces that mean something to some parser, so that they meet in one URL more often than by chance.
PIECES = [
    *[
        "http:",
        "https:",
        "ws:",
        "ftp:",
        "//",
        "/",
        "\\",
        "?",
        "#",
        "&",
        "=",
        "+",
        "@",
        ":",
        ";",
        ".",
        "..",
        "[",
        "]",
    ],
    *[
        "%",
        "%2",
        "%25",
        "%2525",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "%00",
        "%09",
        "%26",
        "%2b",
        "%3d",
        "%c3%a4",
        "%4%31",
    ],
    *[
        "a",
        "A",
        "b",
        "www.",
        "test",
        "xn--",
        "xn--zca",
        "ä",
        "ß",
        "\uff41",
        "\u3002",
        "\u00ad",
        "\u200d",
        "_",
        "-",
        "*",
    ],
    *["1", "0x", "0x7f", "127", "192.0.2.1", "3221225985", "[::1]", "[::ffff:192.0.2.1]", "80", "65536", "٣"],
    *[" ", "\t", "\r", "\n", "\0", "\x7f", "\x80", "\xa0", "\xff", "\udcff", '"', "|", "^", "{", "<", "~"],
]
TANGLES = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
AFTER_HOST = st.lists(st.sampled_from(PIECES), max_size=14).map(
    lambda pieces: "http://h.test/" + "".join(pieces)
)
URLS = TANGLES | AFTER_HOST | st.text(max_size=40) | st.binary(max_size=40)
BYTE_STRINGS = (TANGLES.map(lambda s: s.encode("utf-8", "surrogatepass")) | st.binary(max_size=60)).map(
    lambda b: b.decode("latin-1")
)


def canonical_or_none(url: str | bytes) -> CanonicalUrl | None:
    try:
        return canonicalize(url)
    except UrlError:
        return None


def test_there_are_as_many_vectors_as_there_should_be() -> None:
    assert len(VECTORS) == 40
    assert len(READINGS) == 72


@each_row(("url", "expected"), VECTORS)
def test_vector(url: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(UrlError):
            canonicalize(url)
    else:
        assert str(canonicalize(url)) == expected
        assert str(canonicalize(url.encode())) == expected


# -- properties


@given(URLS)
@example("http://h.test/%%341")
@example("http://a.%2e.b.test/")
@example("http://192.0.2.1../")
@example("http://xn--zca.xn--zca/")
@examples(1500)
def test_canonicalising_twice_changes_nothing(url: str | bytes) -> None:
    once = canonical_or_none(url)
    if once is not None:
        assert canonicalize(str(once))[:3] == once[:3]
        assert canonical_host(once.host) == once.host
        assert canonical_path(once.path) == once.path
        assert canonical_query(once.query) == once.query


@given(URLS)
@examples(1500)
def test_a_canonical_url_is_printable_ascii_with_an_absolute_path(url: str | bytes) -> None:
    found = canonical_or_none(url)
    if found is not None:
        assert str(found).isascii()
        assert str(found).isprintable()
        assert " " not in str(found)
        assert found.host == found.host.lower()
        assert found.path.startswith("/")
        assert "//" not in found.path
        assert not {".", ".."} & set(found.path.split("/"))
        assert not set(found.path) & set("?#\\")
        assert "#" not in found.query


@given(BYTE_STRINGS)
@examples(1000)
def test_byte_strings_raise_nothing_but_url_errors(text: str) -> None:
    functions = (canonical_path, canonical_query, request_parameters, target_readings)
    for function in (*functions, canonical_host, split_authority, split_url):
        with suppress(UrlError):
            function(text)


@given(BYTE_STRINGS, BYTE_STRINGS)
@examples(1000)
def test_pieces_of_a_request_give_what_the_whole_url_gives(authority: str, rest: str) -> None:
    # White space at the end belongs to no request, and the authority ends at the first of these.
    authority = re.split(r"[/\\?#]", authority)[0].strip("".join(map(chr, range(0x21))))
    target = "/" + rest.rstrip("".join(map(chr, range(0x21))))
    try:
        host, port = split_authority(authority)
        path, query = split_target(target)
        pieces = CanonicalUrl(canonical_host(host), canonical_path(path), canonical_query(query), port or 80)
    except UrlError:
        pieces = None
    whole = canonical_or_none(f"http://{authority}{target}".encode("latin-1"))
    if authority.translate({9: None, 10: None, 13: None}) and (pieces is None or port != 0):
        assert pieces == whole


def decoded_until_nothing_changes(text: str) -> str:
    data = text.encode("latin-1")
    while (decoded := unquote_to_bytes(data)) != data:
        data = decoded
    return data.decode("latin-1")


def decoded_times(text: str) -> int:
    """How often decoding changes a text, counting `%252525…` as one that is changed twice at most."""
    text, times = re.sub("%(?:25){2,}", "%25", text), 0
    while (decoded := unquote_to_bytes(text.encode("latin-1")).decode("latin-1")) != text:
        text, times = re.sub("%(?:25){2,}", "%25", decoded), times + 1
    return times


ESCAPES = st.lists(
    st.sampled_from(["%", "2", "5", "25", "4", "1", "d", "D", "%25", "%32", "%35", "z"]), max_size=60
)


@given(ESCAPES.map("".join))
@example("%" + "25" * 400 + "41")
@example("%25%32%35" * 100 + "41")
@example("%%%%" + "34" * 6 + "1")
@example("%" * 20 + "34" * 20 + "1")
@examples(1500)
def test_unescaping_ends_where_repeated_decoding_ends(text: str) -> None:
    expected = decoded_until_nothing_changes(text)
    try:
        assert decoded_until_nothing_changes(canonical_path("/" + text)) == "/" + expected
        assert decoded_until_nothing_changes(canonical_query("x" + text)) == "x" + expected
    except UrlError:
        assert decoded_times(text) > 8


def test_what_is_nested_too_deep_is_refused() -> None:
    def nested(times: int) -> str:
        return "%" * times + "3" * (times - 1) + "41"

    assert canonical_path(f"/{nested(8)}") == "/A"
    assert canonical_query(nested(8)) == "A"
    for function in (canonical_path, canonical_query, target_readings, request_parameters):
        with pytest.raises(UrlError, match="nested more than 8 deep"):
            function(nested(9))


@given(st.text("ab%2/.", max_size=30), st.integers(0, 6))
@examples(500)
def test_escaping_an_escape_again_hides_nothing(path: str, times: int) -> None:
    spelled = "/" + path
    for _ in range(times):
        again = "/" + "".join(f"%{ord(c):02x}" if c != "/" else c for c in spelled[1:])
        if len(again) > 16_000:
            break
        spelled = again
    assert canonical_path(spelled) == canonical_path("/" + path)


# -- hosts


@each_row(
    "spelling",
    [
        *[
            "example.test",
            "EXAMPLE.test",
            "example.test.",
            "example.test..",
            ".example.test",
            "example..test",
        ],
        *[
            "ex%61mple.test",
            "%65%78%61%6d%70%6c%65.test",
            "example%2etest",
            "exam\tple.test",
            "example.test\r\n",
        ],
        *["\uff45xample.test", "example。test", "example\uff0etest", "exam\u00adple.test", "ⓔxample.test"],
    ],
)
def test_spellings_of_a_name(spelling: str) -> None:
    assert canonicalize(f"http://{spelling}/").host == "example.test"
    assert canonicalize(f"http://{spelling}/".encode()).host == "example.test"


@each_row(
    "spelling",
    [
        *["192.0.2.11", "192.0.2.11.", "192.0.523", "192.523", "3221225995", "0xC000020B", "0xc0.0.2.11"],
        *[
            "0300.0.02.013",
            "192.0.2.%311",
            "\uff1192.0.2.11",
            "192。0。2。11",
            "192..0.2.11",
            "0xc0.0x0.0x2.0xb",
        ],
        *["[::ffff:192.0.2.11]", "[::FFFF:c000:20b]", "[0:0:0:0:0:ffff:c000:020b]", "[64:ff9b::c000:20b]"],
    ],
)
def test_spellings_of_an_ipv4_address(spelling: str) -> None:
    assert canonical_host(spelling) == "192.0.2.11"
    assert is_address(canonical_host(spelling))


@each_row("spelling", ["[2001:db8::7]", "[2001:DB8::7]", "[2001:0db8:0:0:0:0:0:7]", "[2001:db8::0.0.0.7]"])
def test_spellings_of_an_ipv6_address(spelling: str) -> None:
    assert canonical_host(spelling) == "[2001:db8::7]"
    assert is_address("[2001:db8::7]")


def test_an_internationalised_name_is_one_in_unicode_punycode_and_bytes() -> None:
    assert {
        canonical_host("bücher.test"),
        canonical_host("BÜCHER.test"),
        canonical_host("bücher.test".encode().decode("latin-1")),
        canonical_host("b%C3%BCcher.test"),
        canonical_host("xn--bcher-kva.test"),
        canonical_host("XN--BCHER-KVA.test"),
        canonical_host("bu\u0308cher.test"),
    } == {"xn--bcher-kva.test"}


@each_row(("name", "hosts"), READINGS)
def test_every_host_that_a_name_could_mean(name: str, hosts: list[str]) -> None:
    assert list(host_readings(name)) == hosts


@given(BYTE_STRINGS)
@examples(1500)
def test_readings_are_canonical_hosts(text: str) -> None:
    try:
        hosts = host_readings(text)
    except UrlError:
        assert not text
        return
    for host in hosts:
        assert canonical_host(host) == host
        assert host_readings(host) == (host,)
    assert len(set(hosts)) == len(hosts)
    with suppress(UrlError):
        assert canonical_host(text) == hosts[0]


LABELS = st.lists(
    st.binary(min_size=1, max_size=8).map(lambda b: b.decode("latin-1").replace(".", "")), max_size=3
)
AROUND = st.sampled_from(
    ["", ":", ":443", ":x", "/", "?a", "#", "\\", " ", "\t", "]", "]:1", "@", "\0", "\xa0", "\x85"]
)
BEFORE = st.sampled_from(["", "[", " ", "\xc2\xa0", "\xa0\x85", "u@", "http://"])


@given(LABELS, BEFORE, AROUND)
@examples(1500)
def test_whatever_stands_around_a_listed_host_or_below_it_it_is_read(
    labels: list[str], before: str, behind: str
) -> None:
    """As nginx, Apache and Caddy read it: any label below ``*.listed.test``, and what follows a delimiter."""
    name = before + ".".join([*labels, "LISTED.test"]) + behind
    assert any(f".{host}".endswith(".listed.test") for host in host_readings(name))


def test_what_cannot_be_judged_in_bounded_time_is_refused() -> None:
    assert host_readings("a" * 5000 + ".test")[0].endswith(".test")
    assert len(host_readings(":".join(f"a{i}" for i in range(200)))) > 200
    with pytest.raises(UrlError, match="too long"):
        host_readings("^" * 1025)
    with pytest.raises(UrlError, match="too long"):
        host_readings("a." * 5000 + "test")


def test_an_a_label_that_is_none_is_a_name_as_chromium_has_it() -> None:
    for host in ("xn--zz.test", "xn--a.test", "xn--.test", "xn--p41h.test", "xn--5na8215fyoa6ewa0n10b.test"):
        for spelling in (host, host.upper(), host.replace("--", "%2D-"), f".{host}."):
            assert canonical_host(spelling) == host
    with pytest.raises(UrlError):
        canonical_host("xn--zz.\xc3\x9f.test")


def test_an_address_in_brackets_ends_with_them() -> None:
    for text in ("http://[1::2]:3:4/", "http://[1::2]x/", "http://[1::2]]/", "http://[1::2][1::2]/"):
        with pytest.raises(UrlError):
            canonicalize(text)


@each_row(
    "host",
    [
        *[
            "",
            ".",
            "..",
            "a b.test",
            "a%20b.test",
            "a/b",
            "a?b",
            "a#b",
            "a@b",
            "a%2Fb.test",
            "a%00b.test",
            "a:b",
            "a|b",
        ],
        *[
            "256.256.256.256",
            "192.0.2.1.1",
            "0x1ffffffff",
            "[",
            "[]",
            "[::1",
            "::1",
            "[::g]",
            "[fe80::1%25eth0]",
            "%",
        ],
        *["xn--\u0080.test", "a<b.test", "a^b.test", "\udcff.test"],
    ],
)
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(UrlError):
        canonical_host(host)


@each_row("host", ["a_b.test", "-a.test", "a-.test", "a--b.test", "123.test", "0x.test", "0xg.test", "a"])
def test_plain_names_stay_as_they_are(host: str) -> None:
    assert canonical_host(host) == host
    assert not is_address(host)


@given(
    st.lists(
        st.sampled_from(["a", "0x", "0xa", "1", "-", "_", "09", "xn--a", "0", "a1", "1a"]),
        min_size=1,
        max_size=5,
    )
)
@examples(500)
def test_the_short_way_for_plain_hosts_is_the_long_way(labels: list[str]) -> None:
    host = ".".join(labels)
    try:
        expected = canonical_host("%61" + host)  # an escape takes the long way
    except UrlError:
        expected = None
    try:
        found = canonical_host("a" + host)
    except UrlError:
        found = None
    assert found == expected


# -- authority, target


@each_row(
    ("authority", "expected"),
    [
        ("h.test", ("h.test", None)),
        ("h.test:", ("h.test", None)),
        ("h.test:8080", ("h.test", 8080)),
        ("h.test:00080", ("h.test", 80)),
        ("h.test:0", ("h.test", 0)),
        ("h.test:65535", ("h.test", 65535)),
        ("u:p@h.test:81", ("h.test", 81)),
        ("other.test@h.test", ("h.test", None)),
        ("a@b@h.test", ("h.test", None)),
        ("[2001:db8::7]", ("[2001:db8::7]", None)),
        ("[2001:db8::7]:81", ("[2001:db8::7]", 81)),
    ],
)
def test_authority(authority: str, expected: tuple[str, int | None]) -> None:
    assert split_authority(authority) == expected


@each_row("port", ["65536", "x", "-1", "+1", "8 0", "0x50", "1" * 30_000, "\xb2", "80:80x"])
def test_ports_that_are_none(port: str) -> None:
    with pytest.raises(UrlError, match=r"^port is"):
        split_authority(f"h.test:{port}")


@each_row(
    ("url", "port"),
    [
        ("http://h.test/", 80),
        ("https://h.test/", 443),
        ("ws://h.test/", 80),
        ("wss://h.test/", 443),
        ("h.test", None),
    ],
)
def test_a_scheme_has_its_port(url: str, port: int | None) -> None:
    assert canonicalize(url).port == port
    assert canonicalize(url.replace("h.test", "h.test:7")).port == 7


@each_row(
    "url",
    [
        *[
            "http:h.test/a",
            "http:/h.test/a",
            "http:\\\\h.test\\a",
            "http:////h.test/a",
            "//h.test/a",
            "HTTP://h.test/a",
        ],
        *[
            "ht\ttp://h.test/a",
            " http://h.test/a\n",
            "\0http://h.test/a",
            "h.test/a",
            "u@h.test:81/a",
            "h.test:81/a",
        ],
    ],
)
def test_a_whole_url_is_read_as_a_browser_reads_it(url: str) -> None:
    assert str(canonicalize(url)) == "h.test/a"


@each_row("url", ["", "http://", "http:///", "/a", "?a", "ftp://h.test/", "file:///a", "data://h.test"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(UrlError):
        canonicalize(url)


def test_an_error_does_not_repeat_what_it_was_given() -> None:
    for url in ("secretscheme://x/", "http://secret host/", "http://h.test:secret/"):
        with pytest.raises(UrlError) as caught:
            canonicalize(url)
        assert "secret" not in str(caught.value)


# -- paths and queries


@each_row(
    ("path", "expected"),
    [
        *[
            ("", "/"),
            ("/", "/"),
            ("*", "/*"),
            ("a", "/a"),
            ("//", "/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../..", "/"),
        ],
        *[
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a//b", "/a/b"),
            ("/a/", "/a/"),
            ("/a/b//..", "/a/b/"),
            ("/a//../b", "/a/b"),
        ],
        *[
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E./b", "/b"),
            ("/a/.%252e/b", "/b"),
            ("/a%2fb", "/a/b"),
            ("/a%5Cb", "/a/b"),
        ],
        *[("/a\\b", "/a/b"), ("/a/..\\b", "/b"), ("/...", "/..."), ("/.a", "/.a"), ("/a/..b", "/a/..b")],
        *[
            ("/a\tb", "/ab"),
            ("/%09", "/%09"),
            ("/%00", "/%00"),
            ("/a b", "/a%20b"),
            ("/a?b", "/a%3Fb"),
            ("/%3f", "/%3F"),
        ],
        *[
            ("/\xc3\xa4", "/%C3%A4"),
            ("/%c3%a4", "/%C3%A4"),
            ("/\xff", "/%FF"),
            ("/%7e", "/~"),
            ("/%41", "/A"),
        ],
        *[("/a;b=c", "/a;b=c"), ("/a+b", "/a+b"), ("/a&b", "/a&b"), ("/%", "/%25"), ("/%4\t1", "/A")],
    ],
)
def test_path(path: str, expected: str) -> None:
    assert canonical_path(path) == expected


@each_row(
    ("query", "expected"),
    [
        *[
            ("", ""),
            ("a=1", "a=1"),
            ("%61=%31", "a=1"),
            ("a=%26", "a=%26"),
            ("a=%2526", "a=%26"),
            ("a&&b", "a&&b"),
        ],
        *[
            ("a=\xe4", "a=%E4"),
            ("a=%e4", "a=%E4"),
            ("a=1+2", "a=1+2"),
            ("a=1%2b2", "a=1%2B2"),
            ("a=1%252b2", "a=1%2B2"),
        ],
        *[
            ("a=1%202", "a=1%202"),
            ("a=1 2", "a=1%202"),
            ("a/../b", "a/../b"),
            ("a=%23", "a=%23"),
            ("a\r\nb", "ab"),
        ],
        *[("a%2", "a%252"), ("a=%3", "a=%253"), ("?", "?"), ("%3f", "?")],
    ],
)
def test_query(query: str, expected: str) -> None:
    assert canonical_query(query) == expected


@each_row(
    ("query", "expected"),
    [
        *[
            ("", set()),
            ("&&", set()),
            ("=", set()),
            ("a", {"a"}),
            ("a=", {"a"}),
            ("a==", {"a=="}),
            ("a=1", {"a=1"}),
        ],
        *[
            ("b=2&a=1&b=2", {"a=1", "b=2"}),
            ("a=x+y", {"a=x%20y"}),
            ("a=x%20y", {"a=x%20y"}),
            ("a=x%2By", {"a=x%2By"}),
        ],
    ],
)
def test_parameters(query: str, expected: set[str]) -> None:
    assert query_parameters(canonical_query(query)) == expected


def test_a_target_ends_at_its_fragment() -> None:
    assert split_target("/a?b?c#d?e#f") == ("/a", "b?c")
    assert split_target("/a#b?c") == ("/a", "")


@each_row("url", ["http://other.test\\@h.test/a", "other.test\\b@h.test", "http:\\\\other.test\\@h.test"])
def test_a_url_of_which_browsers_and_curl_read_different_hosts_is_none(url: str) -> None:
    with pytest.raises(UrlError, match="differ in which host"):
        split_url(url)
    assert split_url(url.replace("@", "/@"))[1] == "other.test"
    assert split_url(url.replace("\\@", "@").replace("\\b@", "@"))[1] == "other.test@h.test"


# -- size


@each_row("unit", ["a/", "a", "&", "a.", ";", "@", "[", "="])
def test_nothing_is_cut_off_a_plain_url_of_64_kib(unit: str) -> None:
    long = unit * (65_000 // len(unit))
    assert canonical_path(f"/{long}end").endswith("end")
    assert canonical_query(f"{long}&end=1").endswith("&end=1")


@each_row("unit", ["%25", "%2525", "/../", "//", "/./", "\\", "%", "%41", "%2f", "\xe9", "%2e%2e/"])
def test_a_path_is_refused_where_it_would_take_long(unit: str) -> None:
    long = unit * (65_000 // len(unit))
    for function in (canonical_path, path_readings, target_readings):
        with pytest.raises(UrlError, match="longer than 16384"):
            function(f"/{long}/end")
    assert canonical_path("/" + "%41" * 5_000) == "/" + "A" * 5_000


def test_a_path_with_dot_segments_has_no_more_segments_than_a_limit() -> None:
    assert canonical_path("/x/.." * 511 + "/a") == "/a"
    for function in (canonical_path, path_readings, target_readings):
        with pytest.raises(UrlError, match="more than 1024 segments"):
            function("/x/.." * 512 + "/a")
    assert canonical_path("/%41" * 4_000) == "/A" * 4_000


def test_percent_signs_that_escape_nothing_are_counted() -> None:
    for text in ("/" + "%" * 256, "/" + "%zz" * 256):
        assert canonical_path(text) == text.replace("%", "%25")
        assert canonical_query(text) == text.replace("%", "%25")
        for function in (canonical_path, canonical_query, target_readings, request_parameters):
            with pytest.raises(UrlError, match="escape nothing"):
                function(text + "%")


def test_there_is_no_limit_to_labels_and_plain_segments() -> None:
    assert canonical_host("A." * 30_000 + "test") == "a." * 30_000 + "test"
    assert len(path_readings("/a" * 30_000)) == 1
    assert canonical_query("&".join(f"%61{i}" for i in range(30_000))).endswith("&a29999")


def test_a_query_has_as_many_parameters_as_origins_take() -> None:
    assert len(request_parameters("&".join(f"%61{i}" for i in range(1_000)))) == 1_000
    for mark in "&;":
        with pytest.raises(UrlError, match="more than 1000 parameters"):
            request_parameters(mark.join(f"a{i}" for i in range(1_002)))


# -- readings


def paths(target: str) -> set[str]:
    return {reading.path for reading in target_readings(target)}


@each_row(
    "target",
    [
        "/",
        "/a/b.html?x=1",
        "/a//b",
        "/a//b}",
        "/a%21b",
        "/100%25",
        "/a\\b",
        "*",
        "/x?y=%5c..",
        "/a%2fb",
        "/%c3%a4",
        "/a_(b)",
        "/(b)/c",
    ],
)
def test_nearly_all_targets_have_one_reading(target: str) -> None:
    assert len(target_readings(target)) == 1


@each_row(
    ("target", "others"),
    [
        # Apache keeps an escaped slash inside its segment.
        ("/a%2fb/../c", ["/c"]),
        ("/.../c", ["/.../c", "/c"]),
        ("/c%z", ["/c"]),
        ("/c%zz.jpg", ["/c"]),
        ("/x/.../../c", ["/x/c", "/c"]),
        ("/d/.%2e./c;...", ["/d/c"]),
        ("/d/%2f/../c", ["/d/c"]),
        # nginx keeps a backslash, and unescapes once.
        ("/a%5Cb/../c", ["/c"]),
        ("/a\\b/../c", ["/c"]),
        ("/d/%252e%252e/../c", ["/d/c"]),
        ("/d/%2e.\\/c", ["/d/..%5C/c"]),
        ("/a%2fb%252f/../c", ["/a/c"]),
        # To Node a backslash as sent is a slash, and an escaped one is not.
        ("/a%5cb%2f..\\c", ["/c"]),
        # lighttpd unescapes twice.
        ("/d/%%32f/../c", ["/d/c"]),
        ("/d%%32fx/../c", ["/d/c", "/c"]),
        # Caddy and Node leave out the slash at the end with the dots.
        ("/a.%2f.", ["/a.", "/a"]),
        # Slashes are merged before dot segments go, or after.
        ("/a//../b", ["/a/b", "/b"]),
        ("/a//..//../b", ["/b"]),
        # Tomcat leaves out what follows a semicolon.
        ("/a;b=c/d;e", ["/a/d"]),
        ("/x/..;/a", ["/a"]),
        ("/x\\..;/a", ["/x%5C../a", "/a"]),
        ("/x/..;a=/..;/a;%2f", ["/a"]),
        ("/a%3bb", ["/a"]),
        # The same, behind nginx, which unescapes, takes out dot segments and knows no parameters.
        ("//a;b/..;%255c%2Fc/d", ["/c/d"]),
        ("/x/a;b/y\\z/../..%5c../c", ["/c"]),
        # The same, behind a server that has taken out dot segments, or a fragment.
        ("/;/../a;b/c", ["/a"]),
        ("/;\\..\\a;b/c", ["/a"]),
        ("/x/..?/../a?", ["/a"]),
        ("/x%2f..?/../a?", ["/a"]),
        ("/x/%0e/..%2fa%0d", ["/x/a"]),
        ("/a/%c0%ae%c0%ae/e/%2f0/../%2e%2e/b", ["/b"]),
        # nginx passes on a path that it has unescaped as it is, where it is told so.
        ("/a.html%3fx", ["/a.html"]),
        ("/a.html%3F", ["/a.html"]),
        ("/a.html%20%3f", ["/a.html"]),
        ("/a.html.%3f", ["/a.html"]),
        ("/x/../a.jpg%23%3f", ["/a.jpg"]),
        ("/a.php%20http/1.1%0d%0aX:", ["/a.php"]),
        # Caddy's `rewrite * /folder{uri}` leaves out a placeholder that it does not know.
        ("/{x%7da", ["/a"]),
        # `new URL(request.url, base)` takes the first segment for a host.
        ("//h/a", ["/a"]),
        ("/\\h/a", ["/a"]),
        ("/x/../\\h/a", ["/a"]),
        # Before it is unescaped, or after; `java.net.URI` likewise.
        ("//u%2f@x/a", ["/@x/a", "/a"]),
        ("//u%5C@x/a", ["/@x/a", "/a"]),
        ("//u%252f%%32f@x/a", ["/a"]),
        ("/%2fu@x/a%2fb", ["/a/b"]),
        ("/.//u%2f@x/a", ["/a"]),
        ("//u%2f..@x/b/../a", ["/a"]),
        ("//u\\@x/a", ["/@x/a", "/a"]),
        # Node's `url.parse` ends a host at what is in none.
        ("//u@x%6c/a", ["/l/a"]),
        ("//u@v@x:80~a/b", ["/~a/b"]),
        ("//u@x'a/b", ["/'a/b"]),
        # The same, behind Varnish, which takes the authority out of an absolute form.
        ("//h//x/a", ["/x/a", "/a"]),
        ("//h:8/\\x/a", ["/a"]),
        ("//h/%2fx/a;b", ["/a"]),
        # uWSGI takes out dot segments before it unescapes dots.
        ("/d/%2e/../c", ["/d/c"]),
        ("/d/%2E%2e/../c", ["/d/c"]),
        ("/d/x/%2e%2e/../../c", ["/d/c", "/c"]),
        ("/d/x/%252e%252e/.%2e/.%2e/%2e/../..", ["/d/x/"]),
        # A slash may be escaped in what it takes out then, and a stray percent sign takes two characters.
        ("/d%2F%2e/../c", ["/d/c"]),
        ("/d/%/../../c", ["/d/c"]),
        ("/d/a%2f/../%2e/../%2e/..%2fc", ["/d/c"]),
        # The same, behind nginx, which keeps a backslash and merges slashes.
        ("/x//../\\h\\a", ["/a"]),
        # Go knows no fragment in a request.
        ("/a#/../b", ["/a", "/b"]),
        ("/x#?/y", ["/x", "/x%23"]),
        # More path behind a file.
        ("/a.html/", ["/a.html"]),
        ("/d/a.html/x/y", ["/d/a.html"]),
        ("/a.php/x", ["/a.php"]),
        ("/a.php;/b.php", ["/a.php"]),
        ("/a.php5/x", ["/a.php", "/a.php5"]),
        ("/a.7z/x", ["/a.7z"]),
        ("/a.torrent/x", ["/a.torrent"]),
        ("/a.JPG/x/y", ["/a.JPG"]),
        ("/john.doe/", ["/john.doe"]),
        ("/1.a/2.html/3.c/4.d/5.png/6.f/7.pdf/x", ["/1.a/2.html/3.c/4.d/5.png/6.f/7.pdf", "/1.a/2.html"]),
        # Caddy and Node take the slash away with dot segments.
        ("/a/.", ["/a/", "/a"]),
        ("/a/x/..", ["/a/", "/a"]),
        ("/a/%2e", ["/a"]),
        ("/a\\x%5c%252e.", ["/a"]),
        # Python's origins split the request line at what is a blank as Latin-1.
        ("/a.html\xa0", ["/a.html"]),
        ("/a.html\x85\xa0", ["/a.html"]),
        ("/a.html\xa0x", ["/a.html"]),
        ("/d%0a/a.html\xa0", ["/d/a.html"]),
        ("/a%20\xa0", ["/a%20"]),
        ("/\xc3\xa0", ["/%C3"]),
        ("/a.html\xe3\x80\x80x", ["/a.html"]),
        # ASP.NET's sessions without cookies.
        ("/(S(x1))/a", ["/a"]),
        ("/d/(A(x)S(y))/c", ["/d/c"]),
        ("/d\\%28s%28x%29%29/../(F())/c", ["/d/c"]),
        # IIS knows escapes of four digits.
        ("/a%u002ehtml", ["/a.html"]),
        ("/d/%U002E%u002e/c", ["/c"]),
        ("/a%u002fb/..%u002Fc", ["/a/c"]),
        ("/%ud83d%ude00%u00e9", ["/%F0%9F%98%80%C3%A9"]),
        ("/%ud83dx%u003f", ["/%EF%BF%BDx%3F"]),
        # A plus is a blank to S3, CivetWeb and Sinatra, and a blank so may be listed as one.
        ("/a%20b", ["/a+b"]),
        ("/a%20b+c/x", ["/a%20b%20c/x", "/a+b+c/x"]),
        ("/a+b.html%2b+", ["/a%20b.html%20%20", "/a%20b.html"]),
        ("/a+b/C++", ["/a%20b/C++"]),
        ("/a+b.html/x+y", ["/a%20b.html"]),
        ("/%E4%2B%u0062?+", ["/%C3%A4%20b"]),
        # Bytes that are not UTF-8 are letters to IIS, Jetty and CherryPy.
        ("/%E4", ["/%C3%A4"]),
        ("/\xe4/%e4;x/%C3%A4", ["/%C3%A4/%C3%A4/%C3%A4"]),
        ("/x/../%e4%96\xe4", ["/%C3%A4%E2%80%93%C3%A4"]),
        ("/a%u002e%E4", ["/a.%C3%A4"]),
        ("/%E4\xa0", ["/%C3%A4"]),
        ("/\xe4+a\x85x", ["/%C3%A4%20a"]),
        # To SWI-Prolog UTF-8 may be longer than need be.
        ("/d/%c0%ae%C0%AE%c0%af%e0%83%a4", ["/%C3%A4"]),
        ("/%e0%80%af%c1%a1?%c0%a6", ["/a"]),
        ("/d%f0%80%80%af%F8%80%80%81%a1%fc%80%80%80%80%af%f0%84%80%80", ["/d/a/%E4%80%80"]),
        ("/%f0%8d%a0%80", ["/%ED%A0%80"]),
        # Fastify 4 begins the query at a semicolon.
        ("/a;b/c;d", ["/a"]),
        # A zero byte ends a path for Perl's servers, `$` is before a line feed for Python.
        ("/a%00.html/x", ["/a"]),
        ("/a%2500.html", ["/a"]),
        ("/x/../a%0a", ["/a"]),
        ("//u%2f@x/a%0A", ["/a"]),
        # lighttpd takes dot segments out up to the last question mark, of which one makes a name of dots.
        ("/a.html/..??", ["/a.html"]),
        ("/x/../a.html%2F%2e%2E?x?y", ["/a.html"]),
        ("/x?/../a.html/..?y?", ["/a.html"]),
        # Starlette's `request.url`, and Node's `new URL` of what is unescaped, have no tabs and line breaks.
        ("/a%09b", ["/ab"]),
        ("/%0aa%2509/%0D%0Ab%u000a;x", ["/a/b"]),
        ("/a/.%09./b", ["/b"]),
        ("/%c0%ae/a%0a%2f..%%32f", ["/%C0%AE/a/..~2f"]),
        ("/x/../a%0A.html/%09x", ["/a.html"]),
        ("/;/../a%09b", ["/ab"]),
        ("/a%09b.html%3fx", ["/ab.html"]),
        ("/%E4+%09a", ["/%C3%A4%20a"]),
        # To uWSGI half an escape at the end is nothing.
        ("/a%", ["/a"]),
        ("/x/../a%4", ["/a"]),
        # Dots and blanks at the end do not count for Windows.
        ("/a.html.", ["/a.html"]),
        ("/a.html%20.%20", ["/a.html"]),
        # Nor do dots at the end of any segment for CivetWeb.
        ("/d./a.html", ["/d/a.html"]),
        ("/d.../x./a%2e", ["/d/x/a"]),
        ("/..../d/a%20/", ["/d/a%20/"]),
        ("/x/../d.%2fa", ["/d/a"]),
    ],
)
def test_reading(target: str, others: list[str]) -> None:
    assert {canonical_path(split_target(target)[0]), *others} <= paths(target)


@each_row("target", ["/a.html/..", "/a.html/..?x", "/a.html/../b??", "/a.html/..b/../..?x", "/a.html?/..?"])
def test_dots_that_no_second_question_mark_follows_are_no_name(target: str) -> None:
    assert ("/a.html" in paths(target)) is target.startswith("/a.html?")


@each_row(
    ("run", "times", "behind"),
    [(".", 60_000, ""), (".", 15_000, "/b"), ("%20.", 3_000, ""), ("%20.", 3_000, "/b")],
)
def test_runs_of_dots_take_no_more_time_than_other_text(run: str, times: int, behind: str) -> None:
    # By the square of their length it would be minutes.
    before = f"/a{run * times}x"
    assert before + behind in paths(f"{before}.{behind}")


@each_row(
    ("target", "queries"),
    [
        ("/a;x=1", {"", "x=1"}),
        ("/a;x=1;y#z", {"", "x=1;y#z", "x=1;y", "z"}),
        ("/a;b?x=1", {"x=1", "b?x=1"}),
        ("/a;x=1%26y=2", {"", "x=1%26y=2", "x=1&y=2"}),
        ("/a#x=1", {"", "x=1"}),
        ("/a#?x=1", {"", "?x=1", "x=1"}),
        ("/a#b?x=1#y", {"", "b?x=1#y", "x=1#y"}),
        ("/a?b#x=1", {"b", "b#x=1"}),
        ("/a?;x=1", {";x=1"}),
        ("/a?b;x=1", {"b;x=1"}),
        ("/a;%20#b?x=1", {"", "b?x=1", "x=1", "%20", "%20#b?x=1", "+#b?x=1"}),
        ("//u%2f@h/a;x=1", {"", "x=1"}),
        ("/x?/../a?x=1&y=?z", {"x=1&y=?z"}),
    ],
)
def test_where_a_query_begins(target: str, queries: set[str]) -> None:
    assert {reading.query for reading in target_readings(target) if reading.path == "/a"} == queries


@each_row(
    ("target", "queries"),
    [
        ("/a%3fx=1", ["x=1"]),
        ("/a%3fx=1?y", ["x=1?y", "x=1"]),
        ("/a%3fx=1?#", ["x=1?", "x=1?#", "x=1"]),
        ("/a%23x?y", [""]),
        ("/a%3f", [""]),
        ("/a%3fx", ["x"]),
    ],
)
def test_what_is_escaped_begins_a_query_for_parameters_or_with_one(target: str, queries: list[str]) -> None:
    readings = {(r.path, r.query, r.script) for r in target_readings(target)}
    assert {reading for reading in readings if reading[0] == "/a"} == {
        ("/a", query, "=" not in target) for query in queries
    }
    assert {path for path, _, _ in readings} == {"/a", canonical_path(target.partition("?")[0])}


@each_row("target", ["/john.doe/photos", "/v1.2/x", "/commander.js/issues", "/a.html;/b.c/d"])
def test_a_name_with_a_dot_is_no_file_for_that(target: str) -> None:
    assert target[: target.rindex("/")] not in paths(target)


def test_a_query_begins_at_the_last_question_mark_behind_a_script() -> None:
    """To lighttpd as Debian configures it; no other page has a mark in its path."""

    def readings(target: str) -> set[tuple[str, str]]:
        return {(r.path, r.query) for r in target_readings(target)}

    for target in (
        "/a.php/x?y?id=5",
        "/a.php/?y&z?b/c?id=5",
        "/%61%2ephp%2fx?y?id=5",
        "/x/../a.php//?y?id=5",
    ):
        assert ("/a.php", "id=5") in readings(target), target
    # A link back, such as that of a login, is a value.
    for target in ("/a.php?next=/a.php?id=5", "/login/x?next=/a.php?id=5", "/v1.2/login?next=/a.php?id=5"):
        assert ("/a.php", "id=5") not in readings(target), target
    for target in ("/v1.2/login?next=/one/two/3?page=2", "/a.php/x?next=http://b.test/one/two/3?page=2"):
        assert not any("/one/" in path for path, _ in readings(target)), "no path sequence is in a value"
    started = "/a.php/x" + "." * 15_000
    assert ("/a.php", "id=5") in readings(f"{started}?y?id=5"), "in no more time than other text"


def test_a_query_begins_behind_dots_that_a_question_mark_makes_a_name() -> None:
    found = {(r.path, r.query) for r in target_readings("/a.php/..?x=1&y=?z") if r.path == "/a.php"}
    assert ("/a.php", "x=1&y=?z") in found


def test_a_blank_ends_a_query_too() -> None:
    for target in ("/a?x=1\xa0", "/a?x=1\x85y=2", "/a?x=1\xc2\xa0"):
        assert "x=1" in {reading.query for reading in target_readings(target)}


def test_escapes_of_four_digits_in_a_query() -> None:
    queries = {reading.query for reading in target_readings("/a?%u0069d=%u0035%u0026%u0")}
    assert queries == {"%u0069d=%u0035%u0026%u0", "id=5%26%u0"}


def test_bytes_of_latin_1_in_a_query() -> None:
    queries = {reading.query for reading in target_readings("/a?id=%E4&b=%c3%a4")}
    assert queries == {"id=%E4&b=%c3%a4", "id=%C3%A4&b=%c3%a4"}


def test_a_path_that_may_be_too_many_files_is_refused() -> None:
    with pytest.raises(UrlError, match="too many ways"):
        target_readings("/a.gif" * 400 + "/")


def test_only_parameters_count_behind_a_script() -> None:
    scripts = {reading.path: reading.script for reading in target_readings("/a.php/b.html/c?x=1")}
    assert scripts == {"/a.php/b.html/c": False, "/a.php": True, "/a.php/b.html": False}
    # A slash alone is no further page.
    assert {reading.path: reading.script for reading in target_readings("/a.php/")} == dict.fromkeys(
        ("/a.php/", "/a.php"), False
    )


@given(BYTE_STRINGS)
@example("/a%3fb/%5c../c")
@example("/a%23/%2f../c")
@examples(1000)
def test_readings_are_written_as_entries_are(text: str) -> None:
    try:
        found = target_readings("/" + text)
        expected = canonical_path("/" + split_target(text)[0])
    except UrlError:
        return
    assert found[0].path == expected
    for reading in found:
        assert reading.path.isascii()
        assert reading.path.isprintable()
        assert reading.path.startswith("/")
        assert "//" not in reading.path
        assert not set(reading.path) & set("?#\\ ")


@each_row(
    "target",
    [
        "/a%2f..\\;%5c/%252f;..//" * 60 + "../x",
        "//u%2f@x\\;%2e" * 100 + "/../x",
        "/%2e/..//u@%2f;\\" * 150 + "#?;x",
        "/a%2f..\\;%5c/%252f;..//" * 20 + "#;%00/../x",
    ],
)
def test_a_target_with_too_many_readings_is_refused(target: str) -> None:
    with pytest.raises(UrlError, match="too many ways"):
        target_readings(target)


@each_row(
    "unit",
    ["//u%2f@x", "u@", "%00", "%0a", "{x}%0a", "%ff", "#", ";", "#;?", "@%2f", "%2e/", "/%2e/..", "\xc3%a0"],
)
def test_few_readings_are_added_by_what_is_repeated(unit: str) -> None:
    for start in ("/", "//", "//u%2f@x/", "/;", "/#"):
        for times in (100, 16_000 // len(unit), 65_000 // len(unit)):
            try:
                assert len(target_readings(f"{start}{unit * times}/x?y")) < 200, start
            except UrlError:
                assert times > 100 or "." in unit, start


@each_row(
    "query",
    [
        *[
            "user_id=5",
            "[user_id]=5",
            "user_id[]=5",
            "user.id%5B0%5D=5",
            "[user_id][12]=5",
            "[[user_id=5",
            "user_id]=5",
            "x;%5buser_id%5D=5",
            "user_id=+5%20",
            "user_id=5%00%09",
            "user.id=%c2%a05%E2%80%A8",
            "user_id=005",
            "user_id=%2B5",
            "user_id=+05",
            "x=/a&user_id=0%D9%A5",
            "user_id=%EF%BC%95",
            "user_id=0_5",
            "user_id=0x05",
            f"user_id={'0' * 9000}5",
            f"user_id={'%D9%A0' * 1000}5",
            f"user_id=0x{'0' * 9000}5",
            "+user_id=5",
            "%20user_id=5",
            "%20+%20user_id=5",
            "user_id%00z=5",
            "user.id=5",
            "user%20id=5",
            "user+id=5",
        ],
        *[
            "user[id=5",
            "user%5Bid=5",
            "user%2Eid=5",
            "+user.id%00.x=5",
            "us%65r.id=%35",
            "x;user_id=5",
            "?user_id=5",
            "a=1&user_id=5",
        ],
    ],
)
def test_spellings_of_a_parameter(query: str) -> None:
    assert "user_id=5" in request_parameters(query)


@given(BYTE_STRINGS)
@example("??")
@example("?;&;?")
@examples(500)
def test_a_request_has_the_parameters_of_an_entry_spelled_like_it(query: str) -> None:
    with suppress(UrlError):
        assert query_parameters(canonical_query(query)) <= request_parameters(query)


def test_an_entry_names_a_parameter_in_any_spelling_of_it() -> None:
    for name in ("user.id", "user%20id", "user[id", "+user_id"):
        assert query_parameters(canonical_query(f"{name}=5")) == {"user_id=5"}
        assert request_parameters(f"{name}=5") > {"user_id=5"}


@each_row(
    ("query", "name"),
    [
        ("a[b]=1", "a[b]=1"),
        ("a.c[b.d]x=1", "a_c[b.d]=1"),
        ("a[b=1", "a_b=1"),
        ("a]=1", "a]=1"),
        ("_a=.+", "_a=.%20"),
    ],
)
def test_names_are_folded_as_php_folds_them(query: str, name: str) -> None:
    assert query_parameters(canonical_query(query)) == {name}


@each_row(
    "query",
    [
        "user_id[x]=5",
        "user_id=55",
        f"user_id={'5' * 9000}",
        f"user_id={'%D9%A0' * 9000}5",
        f"user_id=0x{'5' * 9000}",
        "user_id=0__5",
        "user_id=-05",
        "user_id=%C2%B2%C2%B5",
        "user-id=5",
        "USER_ID=5",
        "user%2bid=5",
        "userid=5",
        "auser_id=5",
    ],
)
def test_other_parameters_are_others(query: str) -> None:
    assert "user_id=5" not in request_parameters(query)


@each_row("name", ["title", "user", "UserName", "q", "a[tag]", "zipcode"])
def test_a_number_in_a_text_is_another_text(name: str) -> None:
    assert f"{name}=7" not in request_parameters(f"{name}=007")
    assert "userid=7" in request_parameters("userid=007")


@each_row(
    ("query", "entry"),
    [
        ("f=a/b.jpg", "f=/a/b.jpg"),
        ("f=/a/b.jpg", "f=a/b.jpg"),
        ("f=.//a/%2e/x/../b.jpg", "f=a/b.jpg"),
        ("x&f=%2Fa%2f%2fb.jpg;y", "f=/a/b.jpg"),
        ("f=/a/", "f=a"),
        ("f[]=a//b", "f=/a/b"),
        ("a//b.1/", "a/b.1"),
        ("?/a/./b=x", "a/b"),
    ],
)
def test_a_value_that_is_a_path_is_spelt_in_any_way(query: str, entry: str) -> None:
    """As file systems have it, and programs that take what is between slashes."""
    assert entry in request_parameters(query)
    assert {"f=a", "f=b.jpg", "f=", "f", ""}.isdisjoint(request_parameters("f=/a/b.jpg&g=/a/&f=/"))
    with pytest.raises(UrlError, match="256 paths"):
        request_parameters("&".join(f"{i}=/" for i in range(257)))


@each_row(
    "query",
    ["/a/5", "/a/5=x", "/a/5=", "/a/5?x=1", "%2fa/5=x", "&/a/5=x&y", "?/a/5=x", "/a%2f5%3fx", "/a/5;x=1"],
)
def test_a_path_that_begins_a_query_is_one_whatever_follows_it(query: str) -> None:
    """As Piwigo has it, which goes by the first name, and CodeIgniter."""
    assert "/a/5" in request_parameters(query)


@each_row("query", ["/a/5x", "/a/5-x=1", "/a/5/x=1", "u=/a/5=x", "a/5=x", "x&/a/5=x"])
def test_other_names_are_not(query: str) -> None:
    assert "/a/5" not in request_parameters(query)


@each_row(
    ("part", "spelt", "function"),
    [("%e9", "%C3%A9", "_letters"), ("%c0%af", "/", "_shortest"), ("%u002f", "/", "_narrow")],
)
def test_what_a_target_has_many_times_is_spelt_once(
    part: str, spelt: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is some microseconds' work, and a target has room for 12,000."""
    asked: list[str] = []
    spell = getattr(readings_module, function)

    def counted(found: str) -> str:
        asked.append(found)
        return str(spell(found))

    monkeypatch.setattr(readings_module, function, counted)
    target = "/a?" + f"x{part}" * 3_000
    found = {unquote_to_bytes(reading.query) for reading in target_readings(target)}
    assert unquote_to_bytes("x" + spelt) * 3_000 in found
    assert len(asked) <= 8
    assert set(asked) == {part}


@given(st.binary(max_size=6).map(lambda data: bytes(byte | 0x80 for byte in data)), st.booleans())
@example(b"\xc3\xa9", False)
@example(b"\xc3\xa9\xe9", True)
@example(b"\x81\x98", True)
def test_bytes_that_are_not_utf_8_are_letters_of_windows(data: bytes, escaped: bool) -> None:
    """All of them, where some are not; else they stay as they are, but for digits of other scripts."""
    assume(not any(map(str.isdecimal, data.decode(errors="ignore"))))
    text = "".join(f"%{byte:02x}" for byte in data) if escaped else data.decode("latin-1")
    found = readings_module._from_latin1(f"/a?x{text}y")
    try:
        data.decode()
    except UnicodeDecodeError:
        letters = "".join(bytes((byte,)).decode("cp1252", "ignore") or chr(byte) for byte in data)
        assert found == f"/a?x{quote(letters, safe='')}y"
    else:
        assert found == f"/a?x{text}y"


def test_no_longer_title_is_looked_at_than_a_wiki_has() -> None:
    """From each of 10,000 of these, the rest of the path was looked through, which took seconds."""
    assert is_one_page("/wiki/A" * 30)
    assert not is_one_page("/wiki/A" * 50)


SERVICES = ("/_ipx/", "/cdn-cgi/image/", "/_image", "/_next/image", "/styles/a/public/")
SIZES = ("/content/images/size/", "/cdn/shop/", "_1x1.jpg")
OLD = ("/albums/thumb_", "/thumbs/thumbs_a", "/samples/sample_", "/1234567890123s.", "/i.php", "?/a-me.jpg")
BOARD = (
    "/res/12",
    "+50.html",
    "-100.html",
    "/.media/t_",
    "0f" * 16,
    "/360x360/",
    "/cache/",
    "_1.png",
    "/zp-core/",
    "/topic/5/a",
    "/thread-5-1",
    "/forum.php",
    "?mod=viewthread",
    "&tid=5",
    "&topic=5.msg1",
    "/topic,5.new",
    "-post-9.html",
    "-2.html",
    "/d/5-a",
)
SIZED = (
    "/app/uploads/",
    "/_data/i/",
    "/optimized/",
    "/thumb/",
    "/1px-",
    "-1x1.jpg",
    "/small/",
    *SIZES,
    *OLD,
    *BOARD,
)
API = (
    "/api/topic/",
    "/api/post/",
    "/api/public/dl/",
    "/api/v2/Album",
    "album_id=a",
    "/api/v3/post",
    "id=5",
    ".md",
    "/image/upload",
    "/w_1",
    "/v1/",
)
WIKI = ("/wiki/", "/wiki/eightee", "/wiki/A", "/index.php", "?title=", "&title=A", "_", ":", "%20")
DATA = ("/_next/data/", "/page-data/", "page-data", "__data", "/_payload", "q-data", "/index", "?_rsc=")
SPELT = ("//", "..", ".php", ".PHP", ".html", ".json", ".js", ".data", ".txt", "/(", "url=/a", *DATA)


@examples(300)
@given(
    st.lists(st.sampled_from([*"ab/.;?(&=+%[", *SPELT, *SERVICES, *SIZED, *API, *WIKI]), max_size=9).map(
        "".join
    )
)
@example("a.b/c.html")
@example("a.php5/")
def test_what_is_plain_is_read_as_if_it_were_looked_at_in_every_way(text: str) -> None:
    readings, params = target_readings(f"/{text}"), request_parameters(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(readings_module, "_ONE_PAGE", lambda _: None)
        patched.setattr(url_module, "_PLAIN_PARAMETERS", lambda _: None)
        assert target_readings(f"/{text}") == readings
        assert request_parameters(text) == params
