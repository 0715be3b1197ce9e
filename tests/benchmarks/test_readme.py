"""The tables in ``benchmarks/README.md`` are those of the results beside them; nothing is started."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rows import each_row

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _doubled(result: dict[str, Any]) -> None:
    result["delta_bytes"] = [2 * size for size in result["delta_bytes"]]


def _more(*names: str | int) -> Callable[[Any], None]:
    """Adds one to a figure of a result."""

    def change(result: Any) -> None:
        for name in names[:-1]:
            result = result[name]
        result[names[-1]] += 1

    return change


CHANGES: dict[str, Callable[[Any], None]] = {
    "digests.report": _more("unlisted_us"),
    "engine.report": _more("machine", "load"),
    "files.report": _more("pictures"),
    "fleet.report": _more("answers", 0, "p99"),
    "gateway.report": _more("dns", "first_connections", "escaped"),
    "lists.report": _doubled,
    "proxy.report": _more("plan", "rounds"),
    "publish.report": _more("rows", "delta", "share_s"),
    "records.report": _more("sustained", "lost"),
    "replay.__main__": _more("lines"),
    "resolver.__main__": _more("urlward", "listed"),
    "workers.report": _more("rows", 0, "workers"),
}
"""Modules that report, and a change of a result that its table has to show."""

RESULTS = {"engine": "results/engine.json"}


@each_row("module", CHANGES)
def test_the_readme_says_what_the_result_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent))
    rewrite, differs = (getattr(import_module("benchmarks.readme"), name) for name in ("rewrite", "differs"))
    report = import_module(f"benchmarks.{module}").report
    name = module.partition(".")[0]
    result = json.loads((BENCHMARKS / name / RESULTS.get(name, "results.json")).read_text())
    text = (BENCHMARKS / "README.md").read_text()
    readme = tmp_path / "README.md"
    readme.write_text(text)
    rewrite(readme, name, report(result))
    assert readme.read_text() == text, f"rewrite it: python -m benchmarks.{name} --report"
    CHANGES[module](result)
    assert differs(readme, name, report(result))
    rewrite(readme, name, report(result))
    assert readme.read_text() != text
    assert not differs(readme, name, report(result))
