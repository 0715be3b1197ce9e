import json
import stat
from pathlib import Path

import pytest

from urlward.lists.state import StateError
from urlward.records.holds import Hold, HoldError, current_holds, hold, release

NOW = 1_795_000_000.5
UNTIL = 1_795_100_000


def test_hold_and_release(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert current_holds(state, NOW) == ()
    made = hold(state, "REF-1", UNTIL, " a court asks ", "ann", now=NOW)
    assert made == Hold("REF-1", UNTIL, "a court asks", "ann", int(NOW))
    other = hold(state, "REF-2", UNTIL + 5, "too", "ann", now=NOW)
    assert current_holds(state, NOW) == (made, other)
    assert current_holds(state, UNTIL) == (other,)
    longer = hold(state, "REF-1", UNTIL + 9, "longer", "bob", now=NOW + 1)
    assert current_holds(state, NOW) == (other, longer)
    assert release(state, "REF-2", "done", "bob", now=NOW) == other
    assert current_holds(state, NOW) == (longer,)
    with pytest.raises(HoldError, match=r"^'REF-2' is not held$"):
        release(state, "REF-2", "done", "bob", now=NOW)
    assert stat.S_IMODE((state / "holds.json").stat().st_mode) == 0o600
    told = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    assert [(line["action"], line["reference"], line["who"], line["why"]) for line in told] == [
        ("held", "REF-1", "ann", "a court asks"),
        ("held", "REF-2", "ann", "too"),
        ("held", "REF-1", "bob", "longer"),
        ("released", "REF-2", "bob", "done"),
    ]
    assert told[0]["time"] == "2026-11-18T11:06:40Z"
    assert told[0]["until"] == "2026-11-19T14:53:20Z"


@pytest.mark.parametrize(
    ("reference", "until", "why", "reason"),
    [
        ("", UNTIL, "a", "not a reference"),
        ("a\n", UNTIL, "a", "not a reference"),
        ("a" * 101, UNTIL, "a", "not a reference"),
        ("a", int(NOW), "a", "until: a time to come is needed"),
        ("a", 1 << 40, "a", "until: a time to come is needed"),
        ("a", UNTIL, " ", "why: needed, one line of at most 500 characters"),
        ("a", UNTIL, "a\nb", "why: needed, one line of at most 500 characters"),
    ],
)
def test_what_cannot_be_held(tmp_path: Path, reference: str, until: int, why: str, reason: str) -> None:
    with pytest.raises(HoldError, match=f"^{reason}"):
        hold(tmp_path, reference, until, why, "ann", now=NOW)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1, "holds": [{}]}', '{"version": 2}', "\x80"])
def test_a_damaged_record_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "holds.json").write_text(content, "latin-1")
    with pytest.raises(HoldError, match=r"holds\.json: "):
        current_holds(tmp_path, NOW)
    with pytest.raises(HoldError, match=r"holds\.json: "):
        hold(tmp_path, "a", UNTIL, "a", "ann", now=NOW)


def test_nothing_is_held_that_the_audit_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(StateError):
        hold(tmp_path, "a", UNTIL, "a", "ann", now=NOW)
    assert current_holds(tmp_path, NOW) == ()
