"""One laboratory for the whole folder: origins and filters are started once."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from evasion.lab import Lab, lab
from evasion.origins import missing


@pytest.fixture(scope="session")
def laboratory() -> Iterator[Lab]:
    """Origins, filters and ways between them."""
    if missing():
        pytest.skip(f"needs {missing()}")
    folder = Path(tempfile.mkdtemp(prefix="urlward-evasion-"))
    # An Apache that was started by root reads the pages as somebody else.
    folder.chmod(0o755)
    try:
        with lab(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
