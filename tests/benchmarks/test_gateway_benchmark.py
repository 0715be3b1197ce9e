"""The parts of the gateway's benchmark that need neither root nor a network."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def result() -> dict[str, Any]:
    return json.loads((BENCHMARKS / "gateway" / "results.json").read_text())


def test_the_json_is_written_as_it_is_read(result: dict[str, Any]) -> None:
    from benchmarks.gateway.__main__ import to_json

    text = to_json(result)
    assert json.loads(text) == result
    assert (BENCHMARKS / "gateway" / "results.json").read_text() == text
    assert max(map(len, text.splitlines())) < 500, "a line for each round"


def test_ratios_are_taken_within_a_round() -> None:
    from benchmarks.gateway.routing import Case
    from benchmarks.gateway.summary import added, middle, ratio

    rates = [(100, 90), (200, 190), (10, 9)]
    rounds = [{str(Case.KEEP): {"plain": float(a), "urlward": float(b)}} for a, b in rates]
    assert middle(rounds, Case.KEEP, "urlward") == 90
    assert middle(rounds, Case.KEEP, "other") is None
    assert ratio(rounds, Case.KEEP, "urlward", "plain") == (0.9, pytest.approx(0.0125))
    assert added(rounds, Case.KEEP, "urlward", "plain") == (-10, 2.25)


def test_goals_are_judged(result: dict[str, Any]) -> None:
    from benchmarks.gateway.summary import goals

    result["dns"]["first_connections"]["escaped"] = 0
    result["listing"]["listings"][3] |= {"blocked_s": 1.9, "ended_s": 2.1}
    for one in result["routing"]["rounds"]:
        for case in one.values():
            case |= {"plain": 100.0, "urlward": 97.0}
        one["bulk"]["urlward"] = 96.0
    judged = {goal["goal"]: goal["passed"] for goal in goals(result)}
    assert len(judged) == 8
    missed = {goal for goal, passed in judged.items() if not passed}
    assert missed == {
        "unlisted host, bulk transfer: rate over plain routing's",
        "longest from a name listed to the end of a connection that is open",
    }


def test_a_readme_without_marks(tmp_path: Path) -> None:
    from benchmarks.readme import rewrite

    readme = tmp_path / "README.md"
    readme.write_text("nothing\n")
    with pytest.raises(ValueError, match="marks"):
        rewrite(readme, "gateway", "text")
    assert readme.read_text() == "nothing\n"
