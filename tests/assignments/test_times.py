from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.assignments.interval import FIRST, LAST, moment_of, ms_text, to_ms

BERLIN = ZoneInfo("Europe/Berlin")


@each_row(
    ("value", "expected"),
    [
        (1_795_000_000, "2026-11-18T11:06:40Z"),
        ("1795000000.25", "2026-11-18T11:06:40.250Z"),
        (" 1795000000250 ", "2026-11-18T11:06:40.250Z"),
        ("2026-11-18T12:06:40+01:00", "2026-11-18T11:06:40Z"),
        ("2026-11-18 12:06:40", "2026-11-18T11:06:40Z"),
        ("2026-07-18 12:00:00", "2026-07-18T10:00:00Z"),
        (datetime(2026, 11, 18, 12, 6, 40), "2026-11-18T11:06:40Z"),
        (datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC), "2026-11-18T11:06:40Z"),
        ("0x6AFD8530", "2026-11-18T11:00:00Z"),
    ],
)
def test_times(value: Any, expected: str) -> None:
    first, last = moment_of(value, BERLIN)
    assert (ms_text(first), last) == (expected, first)


@each_row(
    "value",
    [
        *("", "today", 0, "0", "-5", "1e400", "9" * 400, None, "0001-01-01", "9999-12-31"),
        # Dates without signs between, which are no seconds and no milliseconds.
        *("20261128", "202611281200", "20261128120000"),
    ],
)
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(ValueError):
        to_ms(value)


@given(ms=st.integers(FIRST, LAST - 1))
def test_there_and_back(ms: int) -> None:
    assert to_ms(ms_text(ms)) == to_ms(ms) == ms
