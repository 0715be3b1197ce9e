import pytest
from mitmproxy.http import Headers, Request
from mitmproxy.proxy.context import Context

from proxy.driver import make_context, make_matcher
from rows import each_row
from urlward.engine.errors import UrlError
from urlward.proxy import names
from urlward.proxy.head import RequestHead, read_request_head
from urlward.proxy.names import Names, Place, as_address, names_of, split_absolute


def request(
    *fields: tuple[bytes, bytes],
    host: str = "",
    port: int = 0,
    method: bytes = b"GET",
    scheme: bytes = b"",
    authority: bytes = b"",
    path: bytes = b"/a?b",
    version: bytes = b"HTTP/1.1",
) -> Request:
    return Request(host, port, method, scheme, authority, path, version, Headers(fields), b"", None, 0, 0)


def to(address: str | None, port: int = 80, mode: str = "transparent", sni: str | None = None) -> Context:
    context = make_context(mode)
    context.server.address = (address, port) if address else None
    context.client.sni = sni
    context.client.tls = sni is not None
    return context


HOST = (b"Host", b"a.example:81")


def test_of_an_explicit_proxy_request() -> None:
    absolute = request(HOST, host="b.example", port=82, scheme=b"http", authority=b"b.example:82")
    assert names_of(absolute, make_context()) == Names(("a.example", "b.example"), (81, 82), "", "/a?b")
    for host in ("2001:db8::7", "[2001:db8::7]"):
        absolute = request(host=host, port=82, scheme=b"http", authority=b"[2001:db8::7]:82")
        assert names_of(absolute, make_context()) == Names(("[2001:db8::7]",), (82,), "", "/a?b")


def test_a_field_that_frames_to_some_is_refused() -> None:
    for name in (b"Content_Length", b"transfer_encoding"):
        with pytest.raises(UrlError):
            names_of(request(HOST, (name, b"5")), to("192.0.2.1"))


def test_an_expectation_that_an_origin_may_refuse_before_the_body_is_refused() -> None:
    for value in (b"x", b"100-continue, x", b"100-continue;x"):
        with pytest.raises(UrlError):
            names_of(request(HOST, (b"eXpect", value)), to("192.0.2.1"))
    for field in ((b"Expect", b"100-Continue"), (b"X-Expect", b"x")):
        assert names_of(request(HOST, field), to("192.0.2.1")).target == "/a?b"


def test_of_a_transparent_request() -> None:
    names = names_of(request(HOST), to("192.0.2.7", 80))
    assert names == Names(("a.example", "192.0.2.7"), (81, 80), "192.0.2.7", "/a?b")
    names = names_of(request(HOST), to("2001:db8::7", 443, sni="c.example"))
    assert names == Names(("a.example", "c.example", "[2001:db8::7]"), (81, 443), "2001:db8::7", "/a?b")


def test_of_connect() -> None:
    connect = request(
        HOST, host="b.example", port=443, method=b"CONNECT", authority=b"b.example:443", path=b""
    )
    assert names_of(connect, make_context()) == Names(("a.example", "b.example"), (81, 443), "", "")


def test_the_sni_is_enough_where_there_is_no_host() -> None:
    assert names_of(request(), to("192.0.2.7", 443, sni="c.example")).hosts == ("c.example", "192.0.2.7")


def test_a_reverse_proxy_has_an_origin_without_a_host() -> None:
    assert names_of(request(), to("192.0.2.7", mode="reverse:http://192.0.2.7")).hosts == ("192.0.2.7",)


def test_behind_an_empty_host_a_target_may_begin_with_one() -> None:
    """Node's `new URL("http://" + host + url)` finds the page `/a` of the host `x` in `http:///x/a`."""
    lists = make_matcher("http://a.example/a", "http://x.example/b")
    place = Place(to("192.0.2.7", 443, sni="a.example"))
    for target, blocked in (("/x/a", True), ("/a", True), ("/x.example/b", True), ("/x/b", False)):
        empty = request((b"Host", b""), path=target.encode())
        for found in (
            place.names(head(b"GET %b HTTP/1.1|Host: ||" % target.encode())),
            names_of(empty, to("192.0.2.7", 443, sni="a.example")),
        ):
            assert lists.check_request(found.hosts, found.target).blocked is blocked
    assert place.names(head(b"GET /x/a HTTP/1.1|Host: a.example||")).target == "/x/a"


def head(text: bytes) -> RequestHead:
    return read_request_head(text.replace(b"|", b"\r\n"))


def test_an_address_that_a_name_has_led_to_counts_for_the_requests_that_follow() -> None:
    place, lists = Place(to("a.example", 80)), make_matcher("192.0.2.66")
    first = head(b"GET / HTTP/1.1|Host: a.example||")
    assert place.names(first).address == ""
    assert place.is_quiet(place.names(first), lists)
    place.reached("192.0.2.7")
    place.reached("192.0.2.66")  # another origin's, where a proxy is asked for many
    assert place.names(first).address == "192.0.2.66"
    assert not place.is_quiet(place.names(first), lists)
    # The destination's name is known as before, so none is missing.
    assert place.names(head(b"GET / HTTP/1.0||")).hosts == ("a.example",)
    known = Place(to("192.0.2.7", 80))
    known.reached("")
    assert known.address == "192.0.2.7"
    known.reached("192.0.2.66")  # in its place, as another of its name
    assert known.address == "192.0.2.66"
    with pytest.raises(UrlError, match="no Host field"):
        known.names(head(b"GET / HTTP/1.0||"))


def test_an_origin_that_is_named_by_its_address_has_that_before_it_is_reached() -> None:
    for host, address in (("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:db8::7"), ("a.example", "")):
        place = Place(to(host, mode="reverse:http://192.0.2.7"))
        place.reached("192.0.2.66")
        assert place.address == "192.0.2.66"
        place.reached("")
        assert place.address == address


@each_row(
    ("bad", "why"),
    [
        (request(), "no Host field"),
        (request((b"Host", b"")), "no Host field"),
        (request(HOST, HOST), "more than one"),
        (request(HOST, (b"Host ", b"a.example")), "more than one"),
        (request((b"Host", b"a.example\r\n b")), "folded"),
        (request(HOST, (b"X", b"a\nb")), "folded"),
        (request(HOST, (b"X\r\nY", b"a")), "folded"),
        (request(HOST, (b"X", b"\0")), "folded"),
        (request((b"Host", b"a.example:x")), "port"),
        (request(HOST, path=b"/a b"), "blank"),
        (request(HOST, path=b"/a\tb"), "blank"),
        (request(HOST, method=b"GET /"), "blank"),
        (request(HOST, version=b"HTTP/2.0"), "version"),
        (request(HOST, version=b"HTTP/0.9"), "version"),
    ],
)
def test_what_is_refused(bad: Request, why: str) -> None:
    with pytest.raises(UrlError, match=why):
        names_of(bad, to("192.0.2.7"))


@each_row("authority", ["x%2fa", "x%6c", "x'", "x~", "x;", "x:80%2f", "x`", "x^", "x,y", "x|"])
def test_an_authority_that_some_origin_ends_before_others_is_refused(authority: str) -> None:
    with pytest.raises(UrlError, match="neither a path nor a URL"):
        split_absolute(f"http://{authority}/b")
    with pytest.raises(UrlError, match="in no name"):
        names_of(request(HOST, authority=authority.encode(), scheme=b"http"), to("192.0.2.7"))


@each_row("authority", ["a.test", "A_b-c.test:80", "[2001:db8::7]:81", "b\xc3\xbccher.test"])
def test_an_authority_in_which_all_find_the_same_host_is_none_of_these(authority: str) -> None:
    assert split_absolute(f"http://{authority}?b") == ("http", authority, "/?b")


def test_an_absolute_form_of_another_host_is_a_path_too_where_it_is_sent_on() -> None:
    asked = head(b"GET http://b.example HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert Place(to("192.0.2.7")).names(asked).target == "//b.example"
    assert Place(make_context()).names(asked).target == "/"
    alike = head(b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert Place(to("192.0.2.7")).names(alike).target == "//a.example/x", "whatever Host says"
    assert Place(make_context()).names(alike).target == "/x"
    flow = request(HOST, authority=b"b.example", scheme=b"http", path=b"/x")
    assert names_of(flow, to("192.0.2.7")).target == "//b.example/x"
    found = make_matcher("http://a.example/b.example/x", "http://c.example/x")
    assert found.check_request(("a.example",), "//b.example/x").blocked
    assert found.check_request(("c.example",), "//b.example/x").blocked


@each_row("rest", ["?/listed", "#/listed", "?//x/../listed", "?a=1", "?"])
def test_an_absolute_form_without_a_path_is_refused_where_it_is_sent_on(rest: str) -> None:
    """thttpd and Drogon take `http://x?/listed` for `/listed`; a proxy's client gets the root page of it."""
    for authority in ("b.example", "a.example:80", "[2001:db8::7]:80"):
        asked = head(f"GET http://{authority}{rest} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
        for mode in ("transparent", "reverse:http://192.0.2.7"):
            with pytest.raises(UrlError, match="without a path"):
                Place(to("192.0.2.7", mode=mode)).names(asked)
            whole = head(f"GET http://{authority}/{rest} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
            assert Place(to("192.0.2.7", mode=mode)).names(whole).target == f"//{authority}/{rest}"
        assert Place(make_context()).names(asked).target == f"/{rest}"


def test_a_host_field_goes_by_its_name_where_its_port_is_too_large() -> None:
    for digits in (b"99999", b"65536", b"1" * 5_000):
        names = names_of(request((b"Host", b"a.example:" + digits)), to("192.0.2.7", 80))
        assert (names.hosts[0], names.ports) == ("a.example", (80,))
    for host in (b"a.example", b"a.example:99999"):
        target = head(b"GET http://a.example:99999/ HTTP/1.1|Host: %b||" % host)
        with pytest.raises(UrlError, match="port is larger"):
            Place(to("192.0.2.7", 80)).names(target)


def test_http2_is_a_version_where_it_was_negotiated() -> None:
    context = to("192.0.2.7", 443, sni="c.example")
    context.client.alpn = b"h2"
    assert names_of(request(version=b"HTTP/2.0"), context).hosts[0] == "c.example"


@each_row(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("a.example", ""),
        ("192.0.2", ""),
        ("", ""),
    ],
)
def test_as_address(host: str, address: str) -> None:
    assert as_address(host) == address


@each_row("mark", list("%;'\"<>{}|^`,"))
def test_a_host_field_is_what_stands_before_the_end_that_node_finds_too(mark: str) -> None:
    hosts, _ = Place(to("192.0.2.7")).collect([f"a.example{mark}b:80".encode()])
    assert hosts[:2] == (f"a.example{mark}b", "a.example")


def test_a_host_field_is_what_stands_before_a_comma_too() -> None:
    hosts, _ = Place(to("192.0.2.7")).collect([b"%61.example,b%"])
    assert hosts[:2] == ("%61.example,b%", "%61.example")


def test_a_host_field_with_an_escaped_slash_is_refused() -> None:
    """To Node's `url.parse` a path begins there."""
    asked = head(b"GET /x HTTP/1.1\r\nHost: a.example%2fdir\r\n\r\n")
    for place in (Place(to("192.0.2.7")), Place(make_context())):
        with pytest.raises(UrlError, match="a character that no host has"):
            place.names(asked)


@each_row("end", [",other.test", "%00", "\xcc\xb8", "\xce", "*", "*\x85", "^x", "'", "!", "~a"])
def test_a_host_goes_as_far_as_some_reader_takes_it(end: str) -> None:
    """A comma ends it to Koa, what is in no name to webfs and to Node."""
    names = names_of(request((b"Host", f"listed.test{end}".encode("latin-1"))), to("192.0.2.7"))
    assert "listed.test" in names.hosts
    assert f"listed.test{end}" in names.hosts


@each_row("host", ["a.listed.test", "listed.test-x", "listed.test_x", "listed.test.x", "x-listed.test"])
def test_a_host_that_is_one_goes_to_its_end(host: str) -> None:
    names = names_of(request((b"Host", host.encode())), to("192.0.2.7"))
    assert names.hosts == (host, "192.0.2.7")


def test_of_long_fields_nothing_is_remembered() -> None:
    """A client could fill the memory with them."""
    place, remembered = Place(make_context()), names._read_hosts_lately.cache_info
    before = remembered().currsize
    long = b"a" * names._SHORT + b".example"
    assert place.collect([long]) == ((long.decode(),), (80,))
    assert remembered().currsize == before
    assert place.collect([b"new.example"]) == place.collect([b"new.example"]) == (("new.example",), (80,))
    assert remembered().currsize == before + 1
