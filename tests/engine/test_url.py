import json
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.support import examples
from urlward.engine.errors import UrlError
from urlward.engine.url import (
    CanonicalUrl,
    canonical_host,
    canonical_path,
    canonical_query,
    canonicalize,
    is_address,
    query_parameters,
    split_authority,
    split_target,
    split_url,
)

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "canonicalization.json").read_text())["vectors"]

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


@pytest.mark.parametrize(("url", "expected"), VECTORS)
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
    canonical_path(text)
    query_parameters(canonical_query(text))
    for function in (canonical_host, split_authority, split_url):
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


ESCAPES = st.lists(
    st.sampled_from(["%", "2", "5", "25", "4", "1", "d", "D", "%25", "%32", "%35", "z"]), max_size=60
)


@given(ESCAPES.map("".join))
@example("%" + "25" * 400 + "41")
@example("%25%32%35" * 100 + "41")
@example("%%%%" + "34" * 6 + "1")
@examples(1500)
def test_unescaping_ends_where_repeated_decoding_ends(text: str) -> None:
    expected = decoded_until_nothing_changes(text)
    assert decoded_until_nothing_changes(canonical_path("/" + text)) == "/" + expected
    assert decoded_until_nothing_changes(canonical_query("x" + text)) == "x" + expected


@given(st.text("ab%2/.", max_size=30), st.integers(0, 8))
@examples(500)
def test_escaping_an_escape_again_hides_nothing(path: str, times: int) -> None:
    spelled = "/" + path
    for _ in range(times):
        spelled = "/" + "".join(f"%{ord(c):02x}" if c != "/" else c for c in spelled[1:])
        if len(spelled) > 20_000:
            break
    assert canonical_path(spelled) == canonical_path("/" + path)


# -- hosts


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
    "spelling", ["[2001:db8::7]", "[2001:DB8::7]", "[2001:0db8:0:0:0:0:0:7]", "[2001:db8::0.0.0.7]"]
)
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
    "host", ["a_b.test", "-a.test", "a-.test", "a--b.test", "123.test", "0x.test", "0xg.test", "a"]
)
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("port", ["65536", "x", "-1", "+1", "8 0", "0x50", "1" * 30_000, "\xb2", "80:80x"])
def test_ports_that_are_none(port: str) -> None:
    with pytest.raises(UrlError, match=r"^port is"):
        split_authority(f"h.test:{port}")


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
    "url", ["", "http://", "http:///", "/a", "?a", "ftp://h.test/", "file:///a", "data://h.test"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(UrlError):
        canonicalize(url)


def test_an_error_does_not_repeat_what_it_was_given() -> None:
    for url in ("secretscheme://x/", "http://secret host/", "http://h.test:secret/"):
        with pytest.raises(UrlError) as caught:
            canonicalize(url)
        assert "secret" not in str(caught.value)


# -- paths and queries


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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


# -- size


@pytest.mark.parametrize(
    "unit", ["%25", "%2525", "/../", "//", "/./", "a/", "\\", "%", "&", "@", "[", ";", "?", "é"]
)
def test_nothing_is_cut_off_a_url_of_64_kib(unit: str) -> None:
    long = unit * (65_000 // len(unit))
    assert canonical_path(f"/{long}/end".encode().decode("latin-1")).endswith("/end")
    assert canonical_query(f"{long}&end=1".encode().decode("latin-1")).endswith("&end=1")


def test_there_is_no_limit_to_labels_segments_and_parameters() -> None:
    assert canonical_host("A." * 30_000 + "test") == "a." * 30_000 + "test"
    assert canonical_path("/%61" * 30_000) == "/a" * 30_000
    assert len(query_parameters(canonical_query("&".join(f"%61{i}" for i in range(30_000))))) == 30_000
