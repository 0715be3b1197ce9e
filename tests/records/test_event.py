import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.records.event import (
    FIELDS,
    MAX_TEXT,
    Event,
    UrlwardError,
    as_json,
    csv_cells,
    event_id,
    event_of,
    events_of,
    make_event,
    parse_reference,
)

REFERENCE = "7Q4M-2XKD-93FH"

NOW = 1_795_500_000_123_456_789


def test_an_id_is_a_uuid_of_version_7_with_its_time() -> None:
    made = uuid.UUID(event_id(NOW, b"\xff" * 8))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == NOW // 1_000_000


@given(st.integers(0, 1 << 62), st.integers(300, 1 << 40), st.binary(min_size=8, max_size=8))
def test_ids_are_in_order_of_time(now: int, later: int, random: bytes) -> None:
    assert event_id(now, random) < event_id(now + later, bytes(8))


def test_ids_of_one_moment_differ_by_their_randomness() -> None:
    assert len({event_id(NOW, n.to_bytes(8)) for n in range(1000)}) == 1000


def test_an_exported_event_has_what_applies() -> None:
    event = make_event("alarm", NOW, bytes(8), node="gw1", detail={"alarm": "stale", "text": "since noon"})
    assert json.loads(json.dumps(as_json(event))) == {
        "version": 1,
        "id": event.id,
        "time": "2026-11-24T06:00:00.123Z",
        "kind": "alarm",
        "node": "gw1",
        "detail": {"alarm": "stale", "text": "since noon"},
    }


def test_every_field_is_documented() -> None:
    from urlward.records import event

    assert event.__doc__ is not None
    assert [name for name in FIELDS if f"``{name}``" not in event.__doc__] == []


def test_values_make_the_event_again() -> None:
    event = make_event("block", NOW, bytes(8), client="192.0.2.7", client_port=40213, group="é\xa0")
    assert event_of(json.loads(json.dumps(event))) == event


GOOD: Event = make_event("block", NOW, bytes(8))


@each_row(
    "changes",
    [
        {"id": "0"},
        {"id": "x" * 32},
        {"kind": "other"},
        {"time": -1},
        {"time": 1 << 60},
        {"time": True},
        {"time": "1"},
        {"serial": 1 << 63},
        {"client_port": 65_536},
        {"destination_port": -1},
        {"client": None},
        {"client": "a\0b"},
        {"client": "\ud800"},
        {"list": ["a"]},
        {"entry": "x" * 513},
        {"digest": "x" * 33},
        {"detail": '{"a": "' + "x" * MAX_TEXT + '"}'},
        {"detail": "[]"},
        {"detail": "{"},
        {"detail": "[" * 8_000},
    ],
)
def test_what_is_no_event_is_refused(changes: dict[str, Any]) -> None:
    row = list(GOOD._replace(**changes))
    with pytest.raises(UrlwardError):
        event_of(row)


def test_too_few_values_are_refused() -> None:
    with pytest.raises(UrlwardError, match="not what it should be"):
        event_of([GOOD.id, 1])
    with pytest.raises(UrlwardError, match="time: not what it should be"):
        event_of([GOOD.id, "1", *GOOD[2:]])


@each_row("row", [[*GOOD, ""], {"id": GOOD.id}, "a", None, 5])
def test_what_has_another_shape_is_refused(row: object) -> None:
    with pytest.raises(UrlwardError):
        event_of(row)


def test_what_a_row_ends_before_does_not_apply() -> None:
    assert event_of(GOOD[:5]) == GOOD


def test_a_bad_event_does_not_take_the_others_with_it() -> None:
    rows = [GOOD, 5, GOOD[:2], GOOD._replace(id="0"), [None] * len(GOOD), GOOD]
    assert events_of(json.dumps(rows).encode()) == ([GOOD, GOOD], 4)


@each_row("data", [b"", b"{}", b"[", b"[" * 100_000, b'["\\ud800"]', b'["\xff"]', b"5"])
def test_what_is_no_array_of_events_is_refused(data: bytes) -> None:
    with pytest.raises(UrlwardError):
        events_of(data)


@each_row(
    "typed",
    [
        REFERENCE,
        "7q4m-2xkd-93fh",
        " 7Q4M 2XKD 93FH\n",
        "7Q4M2XKD93FH",
        "7Q4M--2XKD-93FH",
        "7Q4M\u20132XKD_93FH.",
    ],
)
def test_a_reference_is_known_however_it_is_typed(typed: str) -> None:
    assert parse_reference(typed) == REFERENCE


def test_letters_that_there_are_not_are_read_as_those_that_they_look_like() -> None:
    assert parse_reference("OIL0-0000-0000") == "0110-0000-0000"


@each_row(
    "typed", ["", "7Q4M", "7Q4M-2XKD-93F", "7Q4M-2XKD-93FHH", "7Q4M-2XKD-93FU", "7Q4M-2XKD-93F'", "٣" * 12]
)
def test_what_is_no_reference(typed: str) -> None:
    with pytest.raises(UrlwardError, match=r"^reference: "):
        parse_reference(typed)


def test_a_row_of_csv_is_no_formula_and_has_a_time() -> None:
    texts = ("-A1:B2", "=1+1", "+1", "@x", "\tx", "\r=1", "plain-1")
    rows = [csv_cells(make_event("block", NOW, bytes(8), entry=text)) for text in texts]
    assert [row[FIELDS.index("entry")] for row in rows] == [*(f"'{text}" for text in texts[:-1]), "plain-1"]
    assert rows[0][FIELDS.index("time")] == as_json(make_event("block", NOW, bytes(8)))["time"]
    assert rows[0][FIELDS.index("client_port")] == ""
