"""One laboratory for the whole folder: origins and filters are started once."""

from collections.abc import Iterator

import pytest

from evasion.lab import Lab, lab
from evasion.origins import missing
from evasion.runs import servers_folder


@pytest.fixture(scope="session")
def laboratory() -> Iterator[Lab]:
    """Origins, filters and ways between them."""
    if missing():
        pytest.skip(f"needs {missing()}")
    with servers_folder("evasion") as folder, lab(folder) as made:
        yield made
