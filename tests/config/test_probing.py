from pathlib import Path

import pytest
from pydantic import ValidationError

from rows import each_row
from urlward.config import read_config
from urlward.config.proxy import ProbingTable


def test_nobody_is_slowed_where_the_table_is_absent(tmp_path: Path) -> None:
    file = tmp_path / "urlward.toml"
    file.touch()
    assert read_config(file).probing == ProbingTable(entries=50, window=600.0, slow=False, rate=1.0)


def test_all_keys(tmp_path: Path) -> None:
    file = tmp_path / "urlward.toml"
    file.write_text('[probing]\nentries = 30\nwindow = "5m"\nslow = true\nrate = 2\n')
    assert read_config(file).probing == ProbingTable(entries=30, window=300.0, slow=True, rate=2.0)


@each_row("values", [{"entries": 1}, {"window": 0}, {"rate": 0}, {"rate": float("nan")}, {"slow": "yes"}])
def test_values_have_bounds(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProbingTable.model_validate(values)
