from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.config.policy import DAYS, ScheduleTable
from urlward.policy.policy import LOOK_AHEAD, Schedule

MADRID, NEW_YORK, LORD_HOWE = "Europe/Madrid", "America/New_York", "Australia/Lord_Howe"
DAY = 86_400


def schedule(zone: str, begins: str = "00:00", ends: str = "24:00", days: tuple[str, ...] = DAYS) -> Schedule:
    return Schedule(ScheduleTable.model_validate({"zone": zone, "days": days, "from": begins, "to": ends}))


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@each_row(
    ("now", "holds"),
    [
        ("2026-11-25T08:29:59.9+01:00", False),
        ("2026-11-25T08:30:00+01:00", True),
        ("2026-11-25T16:59:59.9+01:00", True),
        ("2026-11-25T17:00:00+01:00", False),
        ("2026-11-28T12:00:00+01:00", False),  # a Saturday
        ("2026-11-25T07:30:00Z", True),
        ("2026-07-01T06:30:00Z", True),  # in summer an hour earlier
        ("2026-07-01T06:29:59Z", False),
    ],
)
def test_lessons(now: str, holds: bool) -> None:
    assert schedule(MADRID, "08:30", "17:00", DAYS[:5]).holds(at(now)) is holds


@each_row(
    ("now", "holds"),
    [
        ("2026-11-27T21:59+01:00", False),
        ("2026-11-27T22:00+01:00", True),  # a Friday
        ("2026-11-28T05:59+01:00", True),
        ("2026-11-28T06:00+01:00", False),
        ("2026-11-28T22:00+01:00", False),
        ("2026-11-27T05:59+01:00", False),  # Thursday's night is in no schedule
    ],
)
def test_past_midnight(now: str, holds: bool) -> None:
    assert schedule(MADRID, "22:00", "06:00", ("fri",)).holds(at(now)) is holds


def test_sunday_night_ends_on_monday() -> None:
    assert schedule(MADRID, "22:00", "06:00", ("sun",)).holds(at("2026-11-30T03:00+01:00"))


# In 2027 Madrid goes from 02:00 to 03:00 on 28 March and from 03:00 back to 02:00 on 31 October; New York
# from 02:00 to 03:00 on 14 March and from 02:00 back to 01:00 on 7 November.
@each_row(
    ("zone", "begins", "ends", "now", "changes"),
    [
        # A time that is skipped is in nothing: it begins with the first that is shown.
        (MADRID, "02:30", "04:00", "2027-03-28T00:00Z", ["2027-03-28T01:00Z", "2027-03-28T02:00Z"]),
        (NEW_YORK, "02:30", "04:00", "2027-03-14T05:00Z", ["2027-03-14T07:00Z", "2027-03-14T08:00Z"]),
        # One that ends in it ends with the jump.
        (MADRID, "01:00", "02:30", "2027-03-27T22:00Z", ["2027-03-28T00:00Z", "2027-03-28T01:00Z"]),
        # All of it skipped: it comes the day after.
        (MADRID, "02:15", "02:45", "2027-03-27T22:00Z", ["2027-03-29T00:15Z", "2027-03-29T00:45Z"]),
        (NEW_YORK, "02:00", "03:00", "2027-03-14T05:00Z", ["2027-03-15T06:00Z", "2027-03-15T07:00Z"]),
        # One that is shown twice counts both times.
        (
            MADRID, "02:15", "02:45", "2027-10-30T23:00Z",
            ["2027-10-31T00:15Z", "2027-10-31T00:45Z", "2027-10-31T01:15Z", "2027-10-31T01:45Z"],
        ),
        (
            NEW_YORK, "01:15", "01:45", "2027-11-07T04:00Z",
            ["2027-11-07T05:15Z", "2027-11-07T05:45Z", "2027-11-07T06:15Z", "2027-11-07T06:45Z"],
        ),
        # The clock goes back out of it, and it begins again.
        (
            MADRID, "02:30", "04:00", "2027-10-30T23:00Z",
            ["2027-10-31T00:30Z", "2027-10-31T01:00Z", "2027-10-31T01:30Z", "2027-10-31T03:00Z"],
        ),
        # A whole night that has the change in it is longer, and shorter.
        (MADRID, "22:00", "06:00", "2027-10-30T12:00Z", ["2027-10-30T20:00Z", "2027-10-31T05:00Z"]),
        (MADRID, "22:00", "06:00", "2027-03-27T12:00Z", ["2027-03-27T21:00Z", "2027-03-28T04:00Z"]),
        # Half an hour, on the other side of the world.
        (LORD_HOWE, "02:10", "03:00", "2027-10-02T13:00Z", ["2027-10-02T15:30Z", "2027-10-02T16:00Z"]),
    ],
)  # fmt: skip
def test_where_clocks_change(zone: str, begins: str, ends: str, now: str, changes: list[str]) -> None:
    one = schedule(zone, begins, ends)
    moment, found = at(now), []
    for _ in changes:
        moment = one.next_change(moment)
        found.append(moment)
    assert found == [at(text) for text in changes]
    assert one.holds(found[0])


def test_one_that_is_always_in_force_is_asked_again_after_days() -> None:
    now = at("2027-03-27T12:00Z")
    assert schedule(MADRID).next_change(now) == now + LOOK_AHEAD * DAY


def test_a_weekly_one_that_a_clock_change_skips_comes_a_week_later() -> None:
    one = schedule(MADRID, "02:15", "02:45", ("sun",))
    now = at("2027-03-28T00:00Z")
    assert one.next_change(now) == at("2027-04-04T00:15Z")


zones = st.sampled_from([MADRID, NEW_YORK, LORD_HOWE, "Asia/Kathmandu", "UTC", "America/Sao_Paulo"])
times = st.integers(0, 24 * 60 - 1)


@given(
    zone=zones,
    begins=times,
    ends=times,
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    now=st.integers(int(at("2015-01-01T00:00Z")), int(at("2036-01-01T00:00Z"))),
)
def test_nothing_changes_before_the_next_change(
    zone: str, begins: int, ends: int, days: set[str], now: int
) -> None:
    one = schedule(zone, *(f"{t // 60:02}:{t % 60:02}" for t in (begins, ends)), tuple(days))
    change = one.next_change(now)
    assert change > now
    held = one.holds(now)
    for moment in range(now, int(change), 7 * 60 + 13):
        assert one.holds(moment) == held
    assert one.holds(change - 1) == held
    if change != now + LOOK_AHEAD * DAY:
        assert one.holds(change) != held


@given(zone=zones, begins=times, ends=times, now=st.integers(int(at("2026-01-01T00:00Z")), 2**31))
def test_against_what_the_wall_shows(zone: str, begins: int, ends: int, now: int) -> None:
    one = schedule(zone, *(f"{t // 60:02}:{t % 60:02}" for t in (begins, ends)), ("wed",))
    wall = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=now)).astimezone(ZoneInfo(zone))
    shown = wall.strftime("%H:%M")
    first, last = (f"{t // 60:02}:{t % 60:02}" for t in (begins, ends))
    if first < last:
        expected = wall.strftime("%a") == "Wed" and first <= shown < last
    else:
        expected = (wall.strftime("%a") == "Wed" and shown >= first) or (
            wall.strftime("%a") == "Thu" and shown < last
        )
    assert one.holds(now) is expected
