from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.dashboard import asked
from urlward.engine.errors import UrlwardError
from urlward.objections.objections import Grant
from urlward.records.store import EventQuery


def wanted(values: Mapping[str, str], kinds: list[str] | None = None) -> EventQuery:
    return asked.event_filter(lambda name: values.get(name, ""), kinds or [], limit=50)


@each_row(
    ("text", "seconds"),
    [
        ("", None),
        ("2027-01-31", 1_801_353_600),
        ("2027-01-31 08:30", 1_801_384_200),
        ("2027-01-31T08:30Z", 1_801_384_200),
        (" 2027-01-31T08:30:00Z ", 1_801_384_200),
        ("2027-01-31T09:30:00+01:00", 1_801_384_200),
    ],
)
def test_times(text: str, seconds: float | None):
    assert asked.moment("since", text) == seconds


@each_row("text", ["31.01.2027", "01/31/2027", "2027-02-30", "2027-01-31 25:00", "now"])
def test_times_that_are_none(text: str):
    with pytest.raises(UrlwardError, match="since: not a date"):
        asked.moment("since", text)


def test_what_is_not_given_is_not_looked_at():
    assert wanted({}) == EventQuery(limit=50)


def test_filters():
    values = {
        "reference": " 7q4m-2xkd-93fh ", "list": "hotline", "category": "phishing", "entry": "S-1",
        "since": "2027-01-31", "until": "2027-02-01", "before": "0" * 32, "limit": "7",
    }  # fmt: skip
    assert wanted(values, ["block", "cut", "block"]) == EventQuery(
        kinds=("block", "cut"), since=1_801_353_600_000, until=1_801_440_000_000, reference="7Q4M-2XKD-93FH",
        list="hotline", category="phishing", entry="S-1", before="0" * 32, limit=7,
    )  # fmt: skip


@each_row(
    ("name", "value"),
    [
        ("before", "x"),
        ("before", "0" * 31),
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "9" * 5000),
        ("limit", "²"),
        ("list", "x" * 201),
        ("entry", "a\nb"),
        ("since", "x"),
        ("reference", "x"),
    ],
)
def test_filters_that_do_not_fit(name: str, value: str):
    with pytest.raises(UrlwardError, match=f"^{name}: "):
        wanted({name: value})


def test_kinds_that_are_none():
    with pytest.raises(UrlwardError, match=r"^kind: "):
        wanted({}, ["blok"])


@given(st.text(max_size=40), st.sampled_from(["since", "until", "before", "limit", "reference"]))
def test_nothing_that_is_typed_is_a_fault_of_ours(text: str, name: str):
    with suppress(UrlwardError):
        wanted({name: text})


def test_what_is_granted():
    def of(**values: str) -> Grant | None:
        return asked.grant(lambda name: values.get(name, ""))

    assert of(answer="decline", url="http://a.example/") is None
    assert of(answer="grant") == Grant()
    assert of(answer="grant", url=" http://a.example/ ", **{"for": "2h"}, host="yes") == Grant(
        "http://a.example/", 7_200, True
    )
    with pytest.raises(UrlwardError):
        of(answer="")
    with pytest.raises(UrlwardError):
        of(answer="grant", url="http://a.example/", **{"for": "soon"})


def test_a_client_is_an_address():
    assert asked.client(" 2001:DB8::1 ") == "2001:db8::1"
    assert asked.client("") == ""
    with pytest.raises(UrlwardError):
        asked.client("host.example")


def test_a_url_is_bounded_and_not_told():
    with pytest.raises(UrlwardError) as caught:
        asked.url("http://secret.example/" + "x" * asked.MAX_URL)
    assert "secret" not in str(caught.value)
    with pytest.raises(UrlwardError):
        asked.url("  ")
