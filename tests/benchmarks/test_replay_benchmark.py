"""The part of the replay benchmark that starts nothing."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_readme_says_what_the_result_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.readme import rewrite
    from benchmarks.replay.__main__ import report

    result = json.loads((ROOT / "benchmarks" / "replay" / "results.json").read_text())
    text = (ROOT / "benchmarks" / "README.md").read_text()
    readme = tmp_path / "README.md"
    readme.write_text(text)
    rewrite(readme, "replay", report(result))
    assert readme.read_text() == text, "rewrite it: python -m benchmarks.replay --report"
    result["lines"] += 1
    rewrite(readme, "replay", report(result))
    assert readme.read_text() != text


def test_the_slowest_log_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.replay.__main__ import report

    result = json.loads((ROOT / "benchmarks" / "replay" / "results.json").read_text())
    result["figures"]["csv"] = [[299_999.0, 1.0]]
    assert "**missed**" in report(result)
    result["figures"]["csv"] = [[300_001.0, 1.0]]
    assert "| met |" in report(result)
