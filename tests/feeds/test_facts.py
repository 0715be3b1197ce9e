import json
from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from urlward.feeds.store import Accepted, Facts, Refused, dump_facts, parse_facts

FACTS = Facts(
    since=1.0,
    kind="text",
    serial=7,
    refused=Refused("shrunk", "ab", 1, 20, 3.0),
    accepted=Accepted("ab", 1, 4.0),
    alarms={"stale": "for long"},
    more={"later": [1]},
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2)


def test_there_and_back() -> None:
    assert parse_facts(dump_facts(FACTS)) == FACTS
    assert parse_facts(dump_facts(Facts())) == Facts()


def test_a_part_that_is_damaged_takes_no_other_with_it() -> None:
    data = json.loads(dump_facts(FACTS))
    data |= {"serial": "7", "since": -1, "refused": {"reason": "shrunk"}, "alarms": [1], "entries": 1 << 70}
    del data["sum"]
    facts = parse_facts(json.dumps(data).encode())
    assert facts is not None
    assert facts.accepted == FACTS.accepted
    assert facts.kind == "text"
    assert (facts.serial, facts.since, facts.refused, facts.alarms, facts.entries) == (0, 0.0, None, {}, 0)


@given(st.dictionaries(st.sampled_from([part.name for part in fields(Facts)] + ["version", "x"]), JSON))
def test_whatever_is_there(data: dict[str, Any]) -> None:
    facts = parse_facts(json.dumps(data).encode())
    assert facts is not None
    assert parse_facts(dump_facts(facts)) == facts


@given(st.binary(max_size=50))
def test_whatever_bytes(data: bytes) -> None:
    parse_facts(data)


def test_nested_without_end() -> None:
    assert parse_facts(b"[" * 100_000) is None


def test_each_flipped_bit_is_damage() -> None:
    data = dump_facts(FACTS)
    for at in range(len(data)):
        for bit in range(8):
            found = parse_facts(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            assert found in (None, FACTS) or found.more, data[at : at + 20]
