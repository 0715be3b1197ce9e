"""Packages of two versions, and a machine to install them in; made once for all tests of this folder."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from docs.documents import ROOT
from install.machine import Machine, booted, forbidden, made_tree, without

VERSIONS = ("0.1.0", "0.2.0")
"""Of the package that is there, whatever its number, and of the next one."""

COMMITTED = "1796083200"
"""Time of the commit that the package is of, as `SOURCE_DATE_EPOCH`."""

BASE = (
    "python3", "ca-certificates", "passwd", "systemd-standalone-sysusers", "systemd-standalone-tmpfiles",
)  # fmt: skip
"""Packages of an image's base."""


@pytest.fixture(scope="session")
def made(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> "Iterator[dict[str, Future[Any]]]":
    """What takes long to make, side by side, as far as tests ask for it: by the fixture that gives it."""
    if reason := without():
        pytest.skip(reason)
    if reason := forbidden():
        pytest.xfail(reason)
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    folder = tmp_path_factory.mktemp("made")
    running: dict[str, Future[Any]] = {}
    make: dict[str, Callable[[], object]] = {
        "package": lambda: build(folder / "package"),
        "next_package": lambda: as_of(running["package"].result(), folder / "package"),
        "base": lambda: made_tree(folder / "base.tar", BASE, sources=False),
        "tree": lambda: made_tree(folder / "root"),
    }
    with ThreadPoolExecutor(len(make)) as pool:
        for name in (name for name in make if name in asked):
            running[name] = pool.submit(make[name])
        yield running
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def package(made: "dict[str, Future[Any]]") -> Path:
    """The Debian package of this tree."""
    found: Path = made["package"].result()
    return found


@pytest.fixture(scope="session")
def next_package(made: "dict[str, Future[Any]]", package: Path) -> Path:
    """The same as its next version."""
    found: Path = made["next_package"].result()
    return found


def build(folder: Path) -> Path:
    """Build the package of this tree."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("addon", "lists", "packaging", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    project = source / "pyproject.toml"
    project.write_text(re.sub('(?m)^version = ".*"$', f'version = "{VERSIONS[0]}"', project.read_text()))
    done = subprocess.run(
        [source / "packaging/build-deb", "-o", folder],
        capture_output=True, text=True, check=False, timeout=400,
        env={name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
        | {"SOURCE_DATE_EPOCH": COMMITTED},
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
def base(made: "dict[str, Future[Any]]") -> Path:
    """An archive of the files of a Debian as an image is based on."""
    found: Path = made["base"].result()
    return found


@pytest.fixture(scope="session")
def tree(made: "dict[str, Future[Any]]") -> Path:
    """Files of a Debian with nothing of urlward's in it."""
    found: Path = made["tree"].result()
    return found


@pytest.fixture(scope="session")
def machine(tree: Path) -> Iterator[Machine]:
    """A machine that runs, of those files."""
    with booted(tree) as made:
        yield made
