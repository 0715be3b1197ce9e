from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples, matcher
from lists.formats.support import lines, read, refused
from rows import each_row


def test_a_url_is_that_page() -> None:
    blocks = matcher(
        *lines("urls", "http://a.example/dir/\nhttp://b.example\nhttp://c.example/x?id=5\n")
    ).check_url
    for url in ("https://a.example/dir/?x", "http://b.example/", "http://c.example/x?y=1&id=5"):
        assert blocks(url).blocked
    for url in (
        "http://a.example/dir/below",
        "http://b.example/x",
        "http://c.example/x",
        "http://sub.b.example/",
    ):
        assert not blocks(url).blocked


def test_a_host_is_that_host_alone() -> None:
    blocks = matcher(*lines("urls", "a.example\nb.example:8080\n192.0.2.7\n")).check_url
    for url in ("https://a.example/any", "http://b.example:8080/any", "http://192.0.2.7/any"):
        assert blocks(url).blocked
    for url in ("http://sub.a.example/", "http://b.example/", "http://192.0.2.8/"):
        assert not blocks(url).blocked


def test_a_dot_in_front_stands_for_subdomains() -> None:
    blocks = matcher(*lines("urls", ".a.example\n.b.example:8080\n.c.example/x\n")).check_url
    for url in (
        "http://a.example/any",
        "http://sub.a.example/",
        "http://s.b.example:8080/",
        "http://s.c.example/x",
    ):
        assert blocks(url).blocked
    for url in ("http://sub.b.example/", "http://s.c.example/"):
        assert not blocks(url).blocked


@each_row(
    ("line", "reason"),
    [
        ("url", "a name without a dot"),
        ("http://a.example/b c", "white space inside"),
        ("http://a.example/ http://b.example/", "white space inside"),
        ("a.example id=5", "white space inside"),
        ("user@a.example", "not a URL"),
        ("a.example:0", "port 0"),
        ("@@http://a.example/", "not a URL"),
        ("||a.example^", "not a valid host"),
    ],
)
def test_not_taken(line: str, reason: str) -> None:
    assert refused("urls", f"  {line}\r\n")[:3] == (1, 3, refused("urls", line).reason)
    assert refused("urls", line).reason.startswith(reason)


def test_another_scheme_is_of_a_kind_that_cannot_be_taken() -> None:
    assert refused("urls", "ftp://a.example/").unsupported


def test_comments() -> None:
    assert lines("urls", "# a\n; b\n ! c\n\n") == []


@examples(300)
@given(st.text(st.characters(codec="utf-8")))
def test_any_text_gives_blocks_or_reasons(text: str) -> None:
    found, skipped = read("urls", text)
    assert not any(line.startswith(("@", "#", "!", "*", "|")) for line in found)
    assert all("*" not in line or line.endswith("/*") for line in found)
    assert len(found) + len(skipped) <= text.count("\n") + 1
