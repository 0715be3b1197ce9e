"""The part of the fleet's benchmark that starts nothing."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_readme_says_what_the_result_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.fleet.report import report
    from benchmarks.readme import rewrite

    result = json.loads((ROOT / "benchmarks" / "fleet" / "results.json").read_text())
    text = (ROOT / "benchmarks" / "README.md").read_text()
    readme = tmp_path / "README.md"
    readme.write_text(text)
    rewrite(readme, "fleet", report(result))
    assert readme.read_text() == text, "rewrite it: python -m benchmarks.fleet --report"
    result["answers"][0]["p99"] += 1
    rewrite(readme, "fleet", report(result))
    assert readme.read_text() != text
