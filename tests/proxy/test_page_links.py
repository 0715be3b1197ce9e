import pytest

from rows import each_row
from urlward.proxy.block_page import Contact, parse_contact, parse_link, parse_web_url


@each_row(
    ("value", "href", "shown"),
    [
        ("https://operator.example/object", "https://operator.example/object", "https://operator.example/object"),
        ("mailto:a@operator.example?subject=b", "mailto:a@operator.example?subject=b", "a@operator.example"),
        ("mailto:a@operator.example", "mailto:a@operator.example", "a@operator.example"),
        ("a@operator.example", "mailto:a@operator.example", "a@operator.example"),
        ("+63 (2) 1234-567", "tel:+6321234567", "+63 (2) 1234-567"),
        ("Write to: P.O. Box 1, Exampleton", None, "Write to: P.O. Box 1, Exampleton"),
    ],
)  # fmt: skip
def test_contact(value: str, href: str | None, shown: str) -> None:
    contact = parse_contact(value)
    assert (contact.text, contact.href) == (shown, href)


def test_subject_goes_into_an_address_that_has_none() -> None:
    written = parse_contact("a@operator.example").with_subject("Référence A-1")
    assert written == Contact(
        "a@operator.example", "mailto:a@operator.example?subject=R%C3%A9f%C3%A9rence%20A-1"
    )
    for other in ("mailto:a@operator.example?subject=b", "https://operator.example/", "By post"):
        assert parse_contact(other).with_subject("A-1") == parse_contact(other)


def test_urls_become_ascii() -> None:
    url = "https://opérateur.example/ñ?q=ñ#ñ"
    assert parse_web_url(url) == "https://xn--oprateur-c1a.example/%C3%B1?q=%C3%B1#%C3%B1"
    assert parse_link("TEL:+63") == "tel:+63"


@each_row(
    "url",
    ["", "a", "//a.example/", "https://a b.example/", "https://a.example/\x00", "ftp://a.example/", "tel:"],
)
def test_web_url_refuses(url: str) -> None:
    with pytest.raises(ValueError):
        parse_web_url(url)
