import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples
from rows import each_row
from urlward.engine.dates import parse_time, time_text

DAY = 86400


@each_row(
    ("text", "seconds"),
    [
        ("1970-01-01", 0),
        ("2023-11-14", 1_699_920_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14t22:13:20z", 1_700_000_000),
        ("2023-11-14 22:13:20.999Z", 1_700_000_000),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000),
        ("2023-11-14T17:13:20-05:00", 1_700_000_000),
    ],
)
def test_dates_and_times(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


def test_a_date_can_stand_for_its_end_and_a_time_stays_what_it_is() -> None:
    assert parse_time("2023-11-14", whole_day=True) == parse_time("2023-11-14") + DAY
    assert parse_time("2023-11-14T22:13:20Z", whole_day=True) == 1_700_000_000
    assert time_text(parse_time("9999-12-31", whole_day=True)) == "253402300800"


@each_row(
    ("text", "reason"),
    [
        ("", "not a date such as"),
        ("tomorrow", "not a date such as"),
        ("20231114", "not a date such as"),
        ("2023-W46-2", "not a date such as"),
        ("2023-11-14T22:13:20", "not a date such as"),
        ("2023-11-14T22:13Z", "not a date such as"),
        ("٢٠٢٣-11-14", "not a date such as"),
        ("2023-11-14\n", "not a date such as"),
        ("2023-02-30", "no such date"),
        ("2023-11-14T24:00:01Z", "no such date"),
        ("1969-12-31", "before 1970"),
        ("0001-01-01T00:00:00+23:00", "before 1970|no such date"),
    ],
)
def test_what_is_neither(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_time(text)


@given(st.integers(0, 253_402_300_799))
@examples(100)
def test_what_is_written_is_read(seconds: int) -> None:
    assert parse_time(time_text(seconds)) == seconds


def test_times_out_of_the_calendar() -> None:
    assert time_text(2**64 - 1) == "18446744073709551615"


@given(st.text(max_size=30) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{8}Z)?"))
@examples(200)
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        assert parse_time(text) >= 0
    except ValueError:
        return
