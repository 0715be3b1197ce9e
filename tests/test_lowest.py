"""The choice of tests that run with the lowest versions (`lowest.txt`)."""

import re
import tomllib
from itertools import chain

from docs.documents import ROOT


def test_each_package_has_tests_that_are_there() -> None:
    lines = [
        line for line in (ROOT / "tests/lowest.txt").read_text().splitlines() if not line.startswith("#")
    ]
    chosen = [line.partition(": ")[::2] for line in lines]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    assert {name for name, _ in chosen} == {re.split(r"[^\w.-]", text)[0] for text in asked}
    paths = [path for _, tests in chosen for path in tests.split()]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert all(tests.split() for _, tests in chosen)
