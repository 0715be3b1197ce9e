import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend(str(ROOT))
    from benchmarks.records import assignments


def test_what_is_measured_apart_stays_in_the_results(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert assignments.measured_apart(path) == {}
    path.write_text(json.dumps({"date": "2026-01-01", "sqlite": {}, "partitions": {"date": "2026-01-02"}}))
    assert assignments.measured_apart(path) == {"partitions": {"date": "2026-01-02"}}
    assert "partitions" in assignments.measured_apart(assignments._RESULTS)
