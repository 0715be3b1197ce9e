import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ENGINES = {"urlward", "adblock-rust", "safe-browsing", "pyahocorasick", "ahocorasick-rs", "hyperscan"}
SERIES = {"miss", "first", "near", "hit", "hit_first"}

_absent = [n for n in ("adblock", "ahocorasick_rs", "hyperscan", "matplotlib") if find_spec(n) is None]
pytestmark = [
    pytest.mark.skipif(
        bool(_absent), reason=f"dependency group bench is not installed: no {', '.join(_absent)}"
    ),
    pytest.mark.turn(0, 2),  # nobody filters with it
]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.engine", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("engine")
    done = benchmark("--quick", "--output", str(directory))
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def result(output: Path) -> dict[str, Any]:
    return json.loads((output / "engine.json").read_text())


def test_says_what_it_was_measured_on(result):
    assert result["format"] == 1
    assert set(result["machine"]) == {"cpu", "cores", "memory", "kernel", "python", "packages", "load"}
    assert result["machine"]["packages"]["urlward"]
    assert set(result["engines"]) == ENGINES


def test_has_every_engine_at_every_size(result):
    assert [(r["size"], r["engine"]) for r in result["results"]] == [
        (size, engine) for size in result["plan"]["sizes"] for engine in result["engines"]
    ]
    assert {r["status"] for r in result["results"]} == {"ok"}


def test_keeps_every_rounds_numbers(result):
    plan = result["plan"]
    for row in result["results"]:
        assert len(row["rounds"]) == plan["rounds"]
        for turn in row["rounds"]:
            assert set(turn) >= SERIES
            assert turn["miss"]["requests"] == plan["miss"]
        assert set(row["figures"]["check_us"]) >= SERIES
        assert len(row["stalls"]) >= 1


def test_urlward_and_adblock_find_all_hits_and_nothing_else(result):
    for row in result["results"]:
        found = row["found"]
        assert found["unlisted"][0] == 0
        if row["engine"] in ("urlward", "adblock-rust"):
            assert found["missed"] == []
            assert all(blocked == listed for blocked, listed in found["hits"].values())
        if row["engine"] == "urlward":
            assert found["respelled"][0] == found["respelled"][1]


def test_quick_run_passes_no_judgement_on_the_goals(result):
    assert result["goals"]
    assert {goal["passed"] for goal in result["goals"]} == {None}
    assert all(goal["value"] is not None for goal in result["goals"])


def test_draws_a_plot(output):
    assert "<svg" in (output / "engine.svg").read_text()[:1000]
