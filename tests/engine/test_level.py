"""What a host's level says is what the checks of its requests say."""

import pytest
from hypothesis import given

from engine import reference
from engine.reference import Rule
from engine.support import examples, matcher
from engine.test_matcher_reference import HOSTS, LISTS, REQUESTS, SHAPES, loaded, number, shapes
from rows import each_row
from urlward.engine import hosts
from urlward.engine.errors import UrlError

JUNE = 20_240 * 86_400.0  # 2025-06-01


@each_row(
    ("lines", "host", "found"),
    [
        ((), "a.test", ""),
        (("a.test",), "a.test", "whole"),
        (("a.test",), "B.A.test.", "whole"),
        (("0.0.0.0 a.test",), "b.a.test", ""),
        (("a.*",), "b.a.example", "whole"),
        (("192.0.2.0/24",), "192.0.2.7", "whole"),
        (("http://a.test/",), "a.test", "below"),
        (("http://a.test/",), "www.a.test", "below"),
        (("http://a.test/",), "b.a.test", ""),
        (("http://a.test/x subdomains",), "b.a.test", "below"),
        (("http://a.test/x subdomains", "http://a.test/y"), "b.a.test", "below"),
        (("@@http://a.test/x subdomains", "http://a.test/y"), "b.a.test", ""),
        (("http://a.test/?x=1",), "a.test", "below"),
        (("a.test port=8443",), "a.test", "below"),
        (("a.test", "@@a.test port=8443"), "a.test", "below"),
        (("a.test", "@@a.test"), "a.test", ""),
        (("a.test", "@@b.a.test"), "b.a.test", ""),
        (("http://a.test/", "@@a.test"), "a.test", ""),
        (("@@a.test",), "a.test", ""),
        (("@@http://a.test/x",), "a.test", ""),
        (("a.test", "@@http://a.test/x"), "a.test", "below"),
        (("a.test", "http://a.test/x"), "a.test", "whole"),
        (("a.test", "a.test port=8443", "@@http://a.test/x"), "a.test", "below"),
        (("http://a.test/x", "@@http://a.test/x"), "a.test", "below"),
        (("*/x/*",), "a.test", ""),
        (("a.test", "*/x/*"), "a.test", "whole"),
        (("a.test", "@@*/x/*"), "a.test", "below"),
        (("a.test", "@@*/x/* expires=2025-05-31"), "a.test", "whole"),
        (("a.test expires=2025-06-01",), "a.test", "whole"),
        (("a.test expires=2025-05-31",), "a.test", ""),
        (("a.test", "@@a.test expires=2025-05-31"), "a.test", "whole"),
        (("http://a.test/ expires=2025-05-31",), "a.test", ""),
        (("a.test", "@@http://a.test/x expires=2025-05-31"), "a.test", "whole"),
    ],
)
def test_level(lines: tuple[str, ...], host: str, found: str) -> None:
    for _ in range(2):
        assert matcher(*lines).level(host, JUNE) == found


def test_several_lists_are_one() -> None:
    both = matcher(
        one=["a.test", "http://a.test/y"], other=["@@http://a.test/x", "http://b.test/", "@@c.test"]
    )
    assert [both.level(f"{label}.test") for label in "abcd"] == ["below", "below", "", ""]


def test_a_host_with_more_entries_than_are_looked_at_may_have_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "LOOK", 8)
    for count, found in ((7, "whole"), (8, "below")):
        lines = [f"http://a.test/{n} expires=2030-01-01" for n in range(count)]
        assert matcher("a.test", *lines).level("a.test") == found
    assert matcher(*(f"@@http://a.test/{n}" for n in range(8))).level("a.test") == "below"


def test_no_host_is_an_error() -> None:
    with pytest.raises(UrlError):
        matcher("a.test").level("")


def test_the_gravest_level_of_what_a_name_could_mean() -> None:
    found = matcher("whole.test", "http://paged.test/x", "http://parent.test/x subdomains")
    assert found.level("a^b.whole.test") == "whole"
    assert found.level("paged.test:whole.test") == "whole"
    assert found.level("paged.test:x") == found.level("a^b.parent.test") == "below"
    assert found.level("a^b.paged.test") == found.level("printer.42") == ""


@given(LISTS.map(number), REQUESTS, SHAPES)
@examples(250)
def test_as_the_reference_has_it(
    lists: list[list[Rule]],
    requests: list[tuple[str, str, tuple[int, ...], float]],
    shape: tuple[int, int, int, int],
) -> None:
    everything = [rule for lines in lists for rule in lines]
    # Where letters are few, a row may be found at many places.
    with shapes(*shape):
        matcher = loaded(lists)
        for host, target, ports, now in requests:
            found = matcher.level(host, now)
            assert found == reference.level(everything, host, now)
            verdict = matcher.check(host, target, ports, now)
            if found == "whole":
                assert verdict.blocked
                assert matcher.check_host(host, ports, now).blocked
            elif not found:
                assert not verdict.blocked or verdict.kind == "path"
                assert not matcher.check_host(host, ports, now).blocked


@given(HOSTS)
@examples(20)
def test_of_a_host_without_an_entry(host: str) -> None:
    assert matcher("other.invalid", "*/x/*").level(host) == ""
