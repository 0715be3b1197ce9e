from pathlib import Path

import pytest
from pydantic import ValidationError

from rows import each_row
from urlward.config import ConfigError, FilesTable, read_config


def test_nothing_is_looked_at_where_the_table_is_absent(tmp_path: Path) -> None:
    file = tmp_path / "urlward.toml"
    file.touch()
    assert read_config(file).files is None


def test_the_table_alone_has_exact_digests_compared(tmp_path: Path) -> None:
    file = tmp_path / "urlward.toml"
    file.write_text("[files]\n")
    table = read_config(file).files
    assert table == FilesTable()
    assert (table.exact, table.max_size, table.action) == (True, 64 << 20, "cut")
    assert not table.inspects


def test_all_keys(tmp_path: Path) -> None:
    file = tmp_path / "urlward.toml"
    file.write_text(
        '[files]\nexact = false\nmax_size = "1MB"\ntypes = ["image/png", "video/*", "*"]\naction = "alert"\n'
        'pictures = "cut"\nlearn_days = 3\nlearn_folders = true\nmax_picture = "2MB"\n'
        "video = false\nprocesses = 2\n"
        'sandbox = false\ndeadline = "2s"\nqueue = 7\n'
        'classifier = "institute.model:score"\nclassifier_threshold = 0.5\n'
    )
    assert read_config(file).files == FilesTable(
        exact=False,
        max_size=1 << 20,
        types=("image/png", "video/*", "*"),
        action="alert",
        pictures="cut",
        learn_days=3,
        learn_folders=True,
        max_picture=2 << 20,
        video=False,
        processes=2,
        sandbox=False,
        deadline=2.0,
        queue=7,
        classifier="institute.model:score",
        classifier_threshold=0.5,
    )


@each_row(
    "values",
    [
        {"max_size": 0},
        {"types": []},
        {"types": ["Image/PNG"]},
        {"types": ["image"]},
        {"types": ["*/png"]},
        {"action": "off"},
        {"pictures": "block"},
        {"learn_days": -1},
        {"processes": 0},
        {"deadline": 0},
        {"queue": 0},
        {"classifier": "os.system"},
        {"classifier": "os:system()"},
        {"classifier_threshold": float("nan")},
        {"classifier_threshold": 1.1},
    ],
)
def test_values_have_bounds(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FilesTable.model_validate(values)


def test_a_size_has_its_unit(tmp_path: Path) -> None:
    file = tmp_path / "urlward.toml"
    file.write_text("[files]\nmax_size = 64\n")
    with pytest.raises(ConfigError, match=r"files\.max_size"):
        read_config(file)
