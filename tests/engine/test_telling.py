"""Ids and categories that would tell an entry are left out; others stay as they are."""

from engine.support import SECRET, build
from rows import each_row
from urlward.engine.digest import Key
from urlward.engine.grammar import parse_line

IDN = "http://b\u00fccher.test/"


@each_row(
    ("entry", "said"),
    [
        ("example.test", "example.test"),
        ("example.test", "S-7:EXAMPLE.TEST"),
        ("example.test", "example-test"),
        ("example.test", "www-example-test-7"),
        ("example.test", "exampletest7"),
        ("http://www.example.test/a", "http:-example.test-a"),
        ("b\u00fccher.test", "xn--bcher-kva.test"),
        ("xn--bcher-kva.test", "b-cher.test"),
        ("xn--bcher-kva.test", "S-7-B-CHER-TEST"),
        ("xn--bcher-kva.test", "bucher.test"),
        ("xn--bcher-kva.test", "b-c3-bccher.test"),
        ("xn--bcher-kva.test", "bu-cher.test"),
        (IDN, "b-cher.test"),
        ("http://example.test/gallery/one-two.html", "gallery-one-two.html"),
        ("http://example.test/gallery/one-two.html", "S-Gallery.One.Two.HTML"),
        ("http://example.test/gallery/%c3%bcber/*", "gallery--ber"),
        ("http://example.test/gallery/%c3%bcber/*", "gallery-uber"),
        ("*/gallery/one-two/*", "gallery.one-two"),
        ("http://other.test/watch?page=gallery-one", "gallery-one"),
        ("192.0.2.7", "S-192-0-2-7"),
        ("[2001:db8::7]", "2001-db8-7"),
        ("http://example.test/secret-page", "S-secret-page"),
        ("http://example.test/secret", "secret-7"),
        ("http://example.test/gallery", "gallery-7"),
        ("http://example.test/.hidden/page", "hidden-page"),
        ("http://foo-bar.test/a", "foobar-test"),
        ("http://foo_bar.test/a", "www.foo-bar.test"),
        ("http://example.test/one_two/three", "one-two-three"),
        ("http://example.test/?id=one-two", "7:one.two"),
    ],
)
def test_an_id_that_tells_its_entry(entry: str, said: str) -> None:
    (found,) = parse_line(f"{entry} id={said}")
    assert found.id == ""
    (found,) = parse_line(f"{entry} id={said} note=x")  # by the longer way
    assert found.id == ""
    assert said.lower() not in build([f"{entry} id={said}"], Key(SECRET)).decode("latin-1").lower()


@each_row(
    ("entry", "said"),
    [
        ("b\u00fccher.test", "b-cher.test"),
        ("example.test", "example-test"),
        ("http://example.test/gallery/one-two.html", "gallery-one-two.html"),
    ],
)
def test_a_category_that_tells_its_entry(entry: str, said: str) -> None:
    (found,) = parse_line(f"{entry} category={said}")
    assert found.category == ""


@each_row(
    ("entry", "id_", "category"),
    [
        ("a.test", "beta-test-7", "phishing"),
        ("example.test", "S-7", "example"),
        ("phishing.*", "P-7", "phishing"),
        ("||intranet^", "intranet-7", "intranet"),
        ("http://example.test/a/b", "A-B", "a-b"),
        ("http://example.test/a", "A-17", "malware"),
        ("http://example.test/", "A-17", "malware"),
        ("http://example.test/phishing", "A-17", "phishing"),
        ("192.0.2.7", "1920271", "malware"),
        ("\u043f\u0440\u0438\u043c\u0435\u0440.test", "test-7", "test"),
        ("http://example.test/a?id=5", "5", "x"),
    ],
)
def test_others_stay(entry: str, id_: str, category: str) -> None:
    (found,) = parse_line(f"{entry} id={id_} category={category}")
    assert (found.id, found.category) == (id_, category)
