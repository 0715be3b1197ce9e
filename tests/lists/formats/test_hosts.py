from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples, matcher
from lists.formats.support import lines, read, refused
from rows import each_row


def test_each_name_is_that_host_alone() -> None:
    found = lines("hosts", "0.0.0.0 one.example two.example # three.example\n::1 www.four.example\n")
    assert found == ["0.0.0.0 one.example", "0.0.0.0 two.example", "0.0.0.0 www.four.example"]
    blocks = matcher(*found).check_url
    assert blocks("https://one.example/any").blocked
    assert not blocks("https://sub.one.example/").blocked
    assert not blocks("https://four.example/").blocked


def test_own_names_and_comments_are_no_entries() -> None:
    assert (
        lines("hosts", "127.0.0.1 localhost\n# \xe9\n 255.255.255.255 broadcasthost\n0.0.0.0 0.0.0.0\n") == []
    )


def test_a_category_goes_with_each() -> None:
    assert lines("hosts", "0.0.0.0 a.example", category="Bad kind") == ["0.0.0.0 a.example category=Bad-kind"]


@each_row(
    ("line", "column", "reason", "unsupported"),
    [
        ("192.0.2.1 a.example", 1, "a name led to an address, not blocked", True),
        ("  a.example", 3, "a hosts line is an address and names", False),
        ("0.0.0.0", 1, "an address without a name", False),
        ("0.0.0.0 # a.example", 1, "an address without a name", False),
        ("0.0.0.0 192.0.2.1", 9, "a hosts line names hosts, not addresses", False),
        ("0.0.0.0 id=x", 9, "host has a character that no name has", False),
        ("0.0.0.0 nocase", 9, "nocase goes with an entry", False),
        ("0.0.0.0 a.example/path", 9, "host has a character that ends it", False),
        ("||a.example^", 1, "a hosts line is an address and names", False),
    ],
)
def test_not_taken(line: str, column: int, reason: str, unsupported: bool) -> None:
    skipped = refused("hosts", line)
    assert (skipped.line, skipped.column, skipped.unsupported) == (1, column, unsupported)
    assert skipped.reason.startswith(reason)


def test_one_bad_name_does_not_take_the_others_along() -> None:
    found, [skipped] = read("hosts", "0.0.0.0 one.example a_*.example two.example\n")
    assert found == ["0.0.0.0 one.example", "0.0.0.0 two.example"]
    assert skipped.column == 21


@examples(200)
@given(st.text())
def test_any_text_gives_hosts_or_reasons(text: str) -> None:
    found, _ = read("hosts", text.encode("utf-8", "surrogatepass"))
    assert all(line.startswith("0.0.0.0 ") for line in found)
