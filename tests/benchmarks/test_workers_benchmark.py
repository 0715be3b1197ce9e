"""The part of the workers' benchmark that starts nothing."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_readme_says_what_the_result_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.workers.report import rewrite

    result = json.loads((ROOT / "benchmarks" / "workers" / "results.json").read_text())
    text = (ROOT / "benchmarks" / "README.md").read_text()
    readme = tmp_path / "README.md"
    readme.write_text(text)
    rewrite(readme, result)
    assert readme.read_text() == text, "rewrite it: python -m benchmarks.workers --report"
    result["rows"][0]["workers"] += 1
    rewrite(readme, result)
    assert readme.read_text() != text
