import json
import stat
from pathlib import Path

import pytest

from obstacles import audit_on_a_full_disk
from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.records.holds import Hold, current_holds, held_references, hold, release
from urlward.state.folder import StateError

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
    with pytest.raises(UrlwardError, match=r"^'REF-2' is not held$"):
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


def test_a_hold_is_not_shortened_by_another(tmp_path: Path) -> None:
    made = hold(tmp_path, "7q4m2xkd93fh", UNTIL, "a court asks", "ann", now=NOW)
    shorter = r"is held until 2026-11-19T14:53:20Z already, by ann \(a court asks\): release it"
    with pytest.raises(UrlwardError, match=f"^'7Q4M-2XKD-93FH' {shorter}"):
        hold(tmp_path, "7Q4M-2XKD-93FH", UNTIL - 1, "my own note", "bob", now=NOW)
    assert current_holds(tmp_path, NOW) == (made,)
    assert "my own note" not in (tmp_path / "audit.jsonl").read_text()
    again = hold(tmp_path, "7q4m2xkd93fh", UNTIL, "a court asks", "bob", now=NOW + 1)
    release(tmp_path, "7q4m2xkd93fh", "withdrawn", "ann", now=NOW)
    assert hold(tmp_path, "7q4m2xkd93fh", UNTIL - 1, "b", "bob", now=NOW).until < again.until


@each_row(
    ("reference", "until", "why", "reason"),
    [
        ("", UNTIL, "a", "not a reference"),
        ("a\n", UNTIL, "a", "not a reference"),
        ("a" * 101, UNTIL, "a", "not a reference"),
        ("a", int(NOW), "a", "until: a time to come is needed"),
        ("a", 1 << 40, "a", "until: 4147-08-20T07:32:16Z at the latest"),
        ("a", UNTIL, " ", "why: needed, one line of at most 500 characters"),
        ("a", UNTIL, "a\nb", "why: needed, one line of at most 500 characters"),
    ],
)
def test_what_cannot_be_held(tmp_path: Path, reference: str, until: int, why: str, reason: str) -> None:
    with pytest.raises(UrlwardError, match=f"^{reason}"):
        hold(tmp_path, reference, until, why, "ann", now=NOW)
    assert not list(tmp_path.iterdir())


def test_a_reference_in_any_spelling_is_one(tmp_path: Path) -> None:
    for typed in ("7q4m2xkd93fh", "7Q4M 2XKD 93FH", "7Q4M-2XKD-93FH"):
        assert hold(tmp_path, typed, UNTIL, "why", "ann", now=NOW).reference == "7Q4M-2XKD-93FH"
    # As it was kept before it was read in one way.
    path = tmp_path / "holds.json"
    kept = json.loads(path.read_bytes())
    kept["holds"][0]["reference"] = "7q4m-2xkd-93fh"
    kept.pop("sum", None)
    path.write_text(json.dumps(kept))
    assert held_references(tmp_path, NOW) == {"7Q4M-2XKD-93FH": UNTIL}
    assert release(tmp_path, "7q4m-2xkd-93fh", "done", "ann", now=NOW).reference == "7Q4M-2XKD-93FH"
    assert held_references(tmp_path, NOW) == {}


@each_row("content", ["{", "[]", '{"version": 1, "holds": [{}]}', '{"version": 2}', "\x80"])
def test_a_damaged_record_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "holds.json").write_text(content, "latin-1")
    with pytest.raises(UrlwardError, match=r"holds\.json: "):
        current_holds(tmp_path, NOW)
    with pytest.raises(UrlwardError, match=r"holds\.json: "):
        hold(tmp_path, "a", UNTIL, "a", "ann", now=NOW)


def test_nothing_is_held_that_the_audit_does_not_have(tmp_path: Path) -> None:
    with audit_on_a_full_disk(), pytest.raises(StateError):
        hold(tmp_path, "a", UNTIL, "a", "ann", now=NOW)
    assert current_holds(tmp_path, NOW) == ()


def test_release_ends_every_hold_of_the_reference(tmp_path: Path) -> None:
    hold(tmp_path, "7q4m2xkd93fh", UNTIL, "why", "ann", now=NOW)
    path = tmp_path / "holds.json"
    kept = json.loads(path.read_bytes())
    kept["holds"].append(kept["holds"][0] | {"reference": "7q4m-2xkd-93fh"})
    kept.pop("sum", None)
    path.write_text(json.dumps(kept))
    assert len(current_holds(tmp_path, NOW)) == 2
    release(tmp_path, "7Q4M-2XKD-93FH", "done", "ann", now=NOW)
    assert current_holds(tmp_path, NOW) == ()
