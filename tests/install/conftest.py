"""Packages of two versions, and a machine to install them in; made once for all tests of this folder."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.documents import ROOT
from install.machine import Machine, booted, forbidden, made_tree, without

VERSIONS = ("0.1.0", "0.2.0")
"""Of the package that is there, whatever its number, and of the next one."""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The Debian packages of two versions."""
    if reason := without():
        pytest.skip(reason)
    if reason := forbidden():
        pytest.xfail(reason)
    folder = tmp_path_factory.mktemp("packages")
    built = build(folder)
    yield built, as_of(built, folder)
    shutil.rmtree(folder)


def build(folder: Path) -> Path:
    """Build the package of this tree."""
    source = folder / "source"
    source.mkdir()
    for name in ("addon", "lists", "packaging", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    project = source / "pyproject.toml"
    project.write_text(re.sub('(?m)^version = ".*"$', f'version = "{VERSIONS[0]}"', project.read_text()))
    done = subprocess.run(
        [source / "packaging/build-deb", "-o", folder],
        capture_output=True, text=True, check=False, timeout=400,
        env={name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    shutil.rmtree(source)
    return Path(done.stdout.strip())


def as_of(built: Path, folder: Path) -> Path:
    """The package as its next version: the same files, and another number wherever there is one."""
    content, made = folder / "content", folder / built.name.replace(*VERSIONS)
    subprocess.run(["dpkg-deb", "-R", built, content], check=True)
    numbered = [
        content / "DEBIAN/control",
        *content.glob("usr/lib/urlward/lib/python3*/site-packages/urlward-*/METADATA"),
    ]
    assert len(numbered) == 2
    for path in numbered:
        path.write_text(
            re.sub(rf"(?m)^Version: {re.escape(VERSIONS[0])}", f"Version: {VERSIONS[1]}", path.read_text())
        )
    subprocess.run(["dpkg-deb", "-Zzstd", "-z1", "-b", content, made], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(content)
    return made


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files of a Debian with nothing of urlward's in it."""
    if reason := without():
        pytest.skip(reason)
    if reason := forbidden():
        pytest.xfail(reason)
    made = made_tree(tmp_path_factory.mktemp("machine") / "root")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def machine(tree: Path) -> Iterator[Machine]:
    """A machine that runs, of those files."""
    with booted(tree) as made:
        yield made
