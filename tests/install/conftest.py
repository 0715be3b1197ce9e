"""Packages of two versions, and a machine to install them in; made once for all tests of this folder."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.documents import ROOT
from install.machine import Machine, booted, made_tree, without

VERSIONS = ("0.1.0", "0.2.0")
"""Of the package that is there, whatever its number, and of the next one."""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The Debian packages of two versions."""
    if reason := without():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("packages")
    yield build(folder, VERSIONS[0]), build(folder, VERSIONS[1])
    shutil.rmtree(folder)


def build(folder: Path, version: str) -> Path:
    """Build the package of this tree, as of some version."""
    source = folder / version
    source.mkdir()
    for name in ("addon", "lists", "packaging", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    project = source / "pyproject.toml"
    project.write_text(re.sub('(?m)^version = ".*"$', f'version = "{version}"', project.read_text()))
    done = subprocess.run(
        [source / "packaging/build-deb", "-o", folder],
        capture_output=True, text=True, check=False, timeout=400,
        env={name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    shutil.rmtree(source)
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files of a Debian with nothing of urlward's in it."""
    if reason := without():
        pytest.skip(reason)
    made = made_tree(tmp_path_factory.mktemp("machine") / "root")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def machine(tree: Path) -> Iterator[Machine]:
    """A machine that runs, of those files."""
    with booted(tree) as made:
        yield made
