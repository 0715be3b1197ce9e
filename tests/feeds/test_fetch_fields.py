import time
from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from rows import each_row
from urlward.feeds.fetch import fresh_for, retry_after

DATE = "Wed, 25 Nov 2026 13:40:35 GMT"


@each_row(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1" * 10, 1111111111.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (DATE.replace("2026", "1999"), 0.0),
        ("٣", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_a_date() -> None:
    seconds = retry_after({"retry-after": formatdate(time.time() + 3600, usegmt=True)})
    assert seconds is not None
    assert 3000 < seconds <= 3600


def test_retry_after_is_not_said() -> None:
    assert retry_after({}) is None


@each_row(
    ("fields", "seconds"),
    [
        ({}, None),
        ({"cache-control": "public"}, None),
        ({"cache-control": "max-age=60"}, 60.0),
        ({"cache-control": 'Public, MAX-AGE="60"'}, 60.0),
        ({"cache-control": "s-maxage=60"}, None),
        ({"cache-control": "max-age=60", "age": "20"}, 40.0),
        ({"cache-control": "max-age=60", "age": "90"}, 0.0),
        ({"cache-control": "max-age=60", "age": "old"}, 60.0),
        ({"cache-control": "max-age=60, no-cache"}, 0.0),
        ({"cache-control": "no-store"}, 0.0),
        ({"cache-control": 'max-age=60, no-cache="set-cookie"'}, 60.0),
        ({"cache-control": "max-age=-1"}, None),
        ({"cache-control": "max-age=" + "9" * 5000}, float(2**31)),
        ({"cache-control": "max-age=60", "expires": "0"}, 60.0),
        ({"expires": "0"}, 0.0),
        ({"expires": DATE, "date": DATE}, 0.0),
        ({"expires": DATE.replace("13:", "14:"), "date": DATE}, 3600.0),
        ({"expires": DATE.replace("13:", "14:"), "date": DATE, "age": "600"}, 3000.0),
    ],
)
def test_fresh_for(fields: dict[str, str], seconds: float | None) -> None:
    assert fresh_for(HTTPHeaderDict(fields)) == seconds


@given(st.sampled_from(["cache-control", "expires", "age", "retry-after", "date"]), st.text(max_size=40))
def test_nonsense_is_no_error(name: str, value: str) -> None:
    fields = {"cache-control": "max-age=60", name: value}
    for seconds in (fresh_for(fields), fresh_for({name: value, "expires": DATE}), retry_after(fields)):
        assert seconds is None or 0 <= seconds < 1e12
