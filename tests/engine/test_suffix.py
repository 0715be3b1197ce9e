import io

import pytest
from publicsuffixlist import PublicSuffixList

from rows import each_row
from urlward.engine import hosts
from urlward.engine.hosts import is_suffix, labels_before_suffix


@each_row(
    ("host", "labels"),
    [
        ("example.test", ("example",)),
        ("a.b.example.test", ("example", "b", "a")),
        ("example.com", ("example",)),
        ("a.example.com", ("example", "a")),
        # What is a suffix has nothing in front of it; the list's private section counts too.
        *[(name, ()) for name in ("test", "unknown", "com", "co.uk", "xn--p1ai", "github.io")],
    ],
)
def test_the_bundled_list(host: str, labels: tuple[str, ...]) -> None:
    assert labels_before_suffix(host) == labels


@each_row(
    ("host", "labels"),
    [
        ("a.example.co.test", ("example", "a")),
        ("co.test", ()),
        ("a.other.test", ("other", "a")),
        ("a.b.c.example", ("b", "a")),
        ("b.c.example", ("b",)),
        ("c.example", ()),
        ("wild.test", ()),
        ("www.example", ("www",)),
        ("a.www.example", ("www", "a")),
        ("xn--bcher-kva.xn--bcher-kva", ("xn--bcher-kva",)),
        ("xn--bcher-kva", ()),
    ],
)
def test_rules(host: str, labels: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rules = PublicSuffixList(
        source=io.StringIO("test\nco.test\n*.example\n*.wild.test\n!www.example\nbücher")
    )
    monkeypatch.setattr(hosts, "_suffixes", lambda: rules)
    assert labels_before_suffix(host) == labels
    assert is_suffix(host) == (not labels)


def test_a_host_of_30000_labels() -> None:
    assert len(labels_before_suffix("a." * 30_000 + "test")) == 30_000
