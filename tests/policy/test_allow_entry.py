import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lists.support import SENTINEL, artifact
from rows import each_row
from urlward.engine.digest import Key
from urlward.engine.errors import UrlError, UrlwardError
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.engine.url import canonicalize
from urlward.policy.allows import Allowed, allowed_by, check_readings

KEY = Key(bytes(range(32)))
HOST = f"{SENTINEL}.test"
WHOLE = [HOST, "192.0.2.7", "[2001:db8::7]"]
"""All of these is blocked; what of it passes has been allowed."""


def matcher(allowed: Allowed) -> Matcher:
    return Matcher([load(artifact(lines), KEY) for lines in (WHOLE, [f"{allowed.line} id=a-1"])])


@each_row(
    ("url", "whole_host", "kind", "passes", "blocked"),
    [
        (
            f"https://{HOST}/a/b.html", False, "page",
            [f"http://{HOST}/a/b.html", f"https://www.{HOST}/a/b.html?q=1"],
            [f"http://{HOST}/", f"http://{HOST}/a/b.html/c", f"http://sub.{HOST}/a/b.html"],
        ),
        (f"http://{HOST}/", False, "page", [f"http://{HOST}"], [f"http://{HOST}/a"]),
        (f"http://{HOST}", False, "page", [f"http://{HOST}/"], [f"http://{HOST}/a"]),
        (f"{HOST}/a", False, "page", [f"http://{HOST}/a"], [f"http://{HOST}/b"]),
        (
            f"http://{HOST}/a?id=5&x=1#part", False, "page",
            [f"http://{HOST}/a?x=1&y=2&id=5"],
            [f"http://{HOST}/a", f"http://{HOST}/a?id=5"],
        ),
        (HOST, False, "host", [f"http://{HOST}/", f"https://sub.{HOST}/any"], ["http://192.0.2.7/"]),
        (f"http://{HOST}/a?id=5", True, "host", [f"http://{HOST}/", f"https://sub.{HOST}/any"], []),
        (
            f"http://{HOST}:8443/a", False, "page",
            [f"http://{HOST}:8443/a"], [f"http://{HOST}/a", f"https://{HOST}/a"],
        ),
        (f"https://{HOST}:443/a", False, "page", [f"http://{HOST}:81/a"], []),
        (f"{HOST}:8443", False, "host", [f"http://x.{HOST}:8443/a"], [f"http://{HOST}/a"]),
        ("192.0.2.7", False, "host", ["http://192.0.2.7/a", "http://3221225991/a"], [f"http://{HOST}/"]),
        # It is the destination, too, and as that it is listed whole.
        ("192.0.2.7/a", False, "page", [], ["http://192.0.2.7/a", "http://192.0.2.7/b"]),
        ("[2001:db8::7]", False, "host", ["http://[2001:db8:0::7]/a"], ["http://192.0.2.7/"]),
        (f"http://{HOST}/a*b/*", False, "page", [f"http://{HOST}/a*b/*"], [f"http://{HOST}/axb/c"]),
        (f'http://{HOST}/a"b c', False, "page", [f"http://{HOST}/a%22b%20c"], [f"http://{HOST}/a"]),
        (f"http://{HOST}/a?*=\"#", False, "page", [f"http://{HOST}/a?*=%22"], [f"http://{HOST}/a?x"]),
        (f"HTTP://WWW.{HOST.upper()}./A/../b", False, "page", [f"http://{HOST}/b"], [f"http://{HOST}/B"]),
    ],
)  # fmt: skip
def test_what_a_url_means(
    url: str, whole_host: bool, kind: str, passes: list[str], blocked: list[str]
) -> None:
    allowed = allowed_by(url, whole_host=whole_host)
    assert allowed.kind == kind
    found = matcher(allowed)
    for one in passes:
        assert (found.check_url(one).action, found.check_url(one).entry) == ("allow", "a-1"), one
    for one in blocked:
        assert found.check_url(one).blocked, one


# What begins like a network path (`//host/`), some origins read as another host's.
@given(target=st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda text: text[:1] not in "/\\"))
@example(".\\")
@example("a/b/.#part")
@example("a?%u0041")
@example("a%2e/..;")
def test_any_page_that_can_be_asked_for_can_be_allowed(target: str) -> None:
    url = f"http://{HOST}/{target}"
    try:
        canonical = canonicalize(url)
    except UrlError:
        return
    allowed = allowed_by(url)
    assert allowed.canonical == canonical
    found = matcher(allowed)
    # A fragment is no part of what is asked for; an origin that is sent one could serve another page.
    asked, fragment, _ = url.partition("#")
    if fragment and canonicalize(asked) != canonical:
        return  # blanks that stood before it are at the end now, and count for nothing
    try:
        check_readings(allowed, url)
    except UrlwardError:  # some origins take it for another page
        assert found.check_url(asked).blocked
        return
    assert found.check_url(asked).action == "allow"
    assert found.check_url(f"http://{HOST}{canonical.path}x/").blocked


@each_row(
    ("url", "message"),
    [
        ("", "not a URL or host: no host"),
        ("http://", "not a URL or host: no host"),
        ("ftp://a.test/", "not a URL or host: scheme is not one of http, https, ws, wss"),
        ("http://a.test:x/", "not a URL or host: port is not a number"),
        ("http://[::1/", "not a URL or host: not a valid host"),
        ("a.test:0", "cannot be an entry: port is a number from 1 to 65535"),
        ("com", "a name without a dot, all of a top-level domain: give a page, or a host under it"),
        ("http://exa%21mple.test/", "cannot be an entry: host has a character that no name has"),
    ],
)
def test_what_is_no_url(url: str, message: str) -> None:
    with pytest.raises(UrlwardError, match=f"^{message}$"):
        allowed_by(url)


@each_row("whole_host", [False, True])
@each_row("network", ["192.0.2.0/24", "192.0.2.7/32", "192.0.2.0/255.255.255.0", "[2001:db8::]/32"])
def test_a_network_is_no_page(network: str, whole_host: bool) -> None:
    with pytest.raises(UrlwardError, match=r"^a network; "):
        allowed_by(network, whole_host=whole_host)
    assert allowed_by(f"http://{network}").kind == "page"


def test_a_page_of_a_host_without_a_dot() -> None:
    assert allowed_by("http://wiki/a").kind == "page"
    with pytest.raises(UrlwardError, match="without a dot"):
        allowed_by("http://wiki/a", whole_host=True)


@each_row(
    ("url", "words", "named"),
    [
        (HOST, f"for {HOST}", True),
        (f"http://www.{HOST}/a", f"{HOST.upper()} is fine", True),
        (f"http://www.{HOST}/a", f"{SENTINEL} is fine", False),
        ("[2001:db8::7]", "2001:DB8::7 is ours", True),
        ("http://wiki/a", "the wiki is ours", False),
    ],
)
def test_words_that_name_the_host(url: str, words: str, named: bool) -> None:
    assert allowed_by(url).is_named_in(words) is named
