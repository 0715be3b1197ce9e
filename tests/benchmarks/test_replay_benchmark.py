"""The part of the replay benchmark that starts nothing."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_slowest_log_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.replay.__main__ import report

    result = json.loads((ROOT / "benchmarks" / "replay" / "results.json").read_text())
    result["figures"] = {name: [[1e6, 1.0]] for name in result["figures"]}
    result["figures"]["csv"] = [[299_999.0, 1.0]]
    assert "**missed**" in report(result)
    result["figures"]["csv"] = [[300_001.0, 1.0]]
    assert "| met |" in report(result)
