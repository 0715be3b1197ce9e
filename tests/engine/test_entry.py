"""Entries: their kinds, networks in one form, and the ``www.`` that counts as absent."""

import pytest

from rows import each_row
from urlward.engine.entry import Kind, canonical_network, strip_www


def test_kinds_from_the_most_specific() -> None:
    assert [kind.label for kind in sorted(Kind, reverse=True)] == [
        *["file", "params", "page", "prefix", "host", "domain", "path", "name", "address", "network"]
    ]


@each_row(
    ("text", "canonical"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:DB8::7", "2001:db8::7/128"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("64:ff9b::192.0.2.7", "192.0.2.7/32"),
        ("64:ff9b::/96", "0.0.0.0/0"),
    ],
)
def test_networks_have_one_form(text: str, canonical: str) -> None:
    assert str(canonical_network(text)) == canonical


@each_row("text", ["192.0.2.7/24", "host.test", "", "192.0.2.256"])
def test_other_text_is_no_network(text: str) -> None:
    with pytest.raises(ValueError):
        canonical_network(text)


@each_row(
    ("host", "stripped"),
    [
        ("www.a.test", "a.test"),
        ("www.www.a.test", "www.a.test"),
        ("www.test", "www.test"),
        ("wwww.a.test", "wwww.a.test"),
    ],
)
def test_one_www_counts_as_absent(host: str, stripped: str) -> None:
    assert strip_www(host) == stripped
