"""The part of the resolvers' benchmark that needs no resolver."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_the_readme_says_what_the_result_says(tmp_path: Path) -> None:
    from benchmarks.readme import rewrite
    from benchmarks.resolver.__main__ import report

    text = (BENCHMARKS / "README.md").read_text()
    readme = tmp_path / "README.md"
    readme.write_text(text)
    rewrite(readme, "resolver", report(json.loads((BENCHMARKS / "resolver" / "results.json").read_text())))
    assert readme.read_text() == text
