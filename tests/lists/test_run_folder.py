"""The run folder: one file for all workers, which nothing in a store can harm."""

import gc
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import wait_for
from lists.support import SECRET, artifact, blocks, descriptors
from urlward.engine.artifact import parse
from urlward.engine.digest import KEY_SIZE, Key
from urlward.engine.errors import ArtifactError
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.lists import run_folder
from urlward.lists.run_folder import FOLDER, PREFIX, RunFolder, RunFolderError, inherited
from urlward.lists.source import SourceError


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "tmp"
    base.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    return base


@pytest.fixture
def run(base: Path) -> Iterator[RunFolder]:
    run = RunFolder()
    yield run
    run.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.ward"
    path.write_bytes(artifact(["a.example", "http://b.example/page"]))
    return path


def mapped(run: RunFolder) -> set[str]:
    """Inodes of the files of a run folder that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if str(run.path) in line}


def test_nobody_else_may_look_into_it(run: RunFolder, path: Path) -> None:
    run.map(path, parse)
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o077 == 0 for file in run.path.iterdir())


def test_a_list_needs_no_copy_of_it(run: RunFolder, path: Path) -> None:
    data = run.map(path, parse)
    loaded = load(data, Key(SECRET))
    assert {section.obj for section in loaded.artifact.sections} == {data.obj}
    assert blocks(Matcher([loaded]), "http://b.example/page")
    assert not [part for part in loaded.artifact.sections if not part.readonly]


def test_all_map_one_file(run: RunFolder, path: Path) -> None:
    one, other = run.map(path, parse), RunFolder.joined(run.path, {}).map(path, parse)
    assert bytes(one) == bytes(other) == path.read_bytes()
    assert one.readonly
    assert len(mapped(run)) == 1


@pytest.mark.parametrize("inside", [True, False])
def test_what_is_mapped_outlives_what_becomes_of_the_artifact(
    run: RunFolder, path: Path, inside: bool
) -> None:
    if inside:
        path = path.rename(run.path / "store.ward")
    good = path.read_bytes()
    data = run.map(path, parse)
    if inside:  # where files are only replaced
        path.unlink()
    else:
        os.truncate(path, 10)  # a mapping of the file itself would end us now
    assert bytes(data) == good
    last = run.last(path)
    assert last is not None
    assert bytes(last) == good
    with pytest.raises((ArtifactError, SourceError)):
        run.map(path, parse)
    assert bytes(run.last(path) or b"") == good


def test_what_is_no_good_takes_no_place(run: RunFolder, path: Path) -> None:
    assert run.last(path) is None
    assert not run.has_any
    good = bytes(run.map(path, parse))
    assert run.has_any
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ArtifactError):
        run.map(path, parse)
    assert bytes(run.last(path) or b"") == good


def test_it_cannot_be_copied(run: RunFolder, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "_new", full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        run.map(path, parse)


def test_a_file_that_is_replaced_is_let_go(run: RunFolder, path: Path) -> None:
    before = descriptors()
    for number in range(10):
        path.write_bytes(artifact([f"a{number}.example"]))
        data = run.map(path, parse)
        assert load(data, Key(SECRET)).entries == 1
    del data
    gc.collect()
    assert descriptors() <= before
    assert len(list(run.path.glob("*.ward"))) == 1


class TestWorkers:
    @pytest.fixture(autouse=True)
    def anew(self) -> Iterator[None]:
        inherited.cache_clear()
        yield
        inherited.cache_clear()

    def test_nothing_in_a_filter_of_one_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(FOLDER, raising=False)
        assert inherited() is None

    def test_they_have_folder_and_key(self, run: RunFolder, path: Path) -> None:
        run.map(path, parse)
        variables, fds = run.pass_on()
        assert run.pass_on() == (variables, fds), "for each worker"
        code = (
            "import os, sys\nfrom pathlib import Path\nfrom urlward.lists.run_folder import inherited\n"
            "run = inherited()\nprint(run.secret.hex(), len(run.last(Path(sys.argv[1]))))\n"
            "assert not [name for name in os.environ if name in ('URLWARD_RUN', 'URLWARD_MEMORY')]\n"
        )
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", code, str(path)],
                env={**os.environ, **variables},
                pass_fds=fds,
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout.split() == [run.secret.hex(), str(path.stat().st_size)]
        assert run.path.is_dir(), "which they do not end"

    def test_the_key_is_in_no_file(self, run: RunFolder, path: Path) -> None:
        run.map(path, parse)
        run.pass_on()
        assert len(run.secret) == KEY_SIZE
        assert not [file for file in run.path.iterdir() if run.secret in file.read_bytes()]


def folders(base: Path) -> list[Path]:
    return list(base.glob(f"{PREFIX}*"))


def test_it_ends_with_its_owner(base: Path) -> None:
    run = RunFolder()
    assert folders(base) == [run.path]
    del run
    gc.collect()
    assert not folders(base)


OWNER = "from urlward.lists.run_folder import RunFolder; r = RunFolder(); print(r.path, flush=True); input()"


@pytest.mark.parametrize("killed", [True, False])
def test_what_a_killed_one_leaves_is_cleared_by_the_next(base: Path, killed: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        env={**os.environ, "TMPDIR": str(base)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().decode().strip())
        one = RunFolder()
        assert set(folders(base)) == {one.path, left}, "it lives"
        owner.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
        owner.wait()
        wait_for(lambda: owner.poll() is not None, "its end")
    assert left.is_dir()
    other = RunFolder()
    assert set(folders(base)) == {one.path, other.path}
    one.close()
    other.close()
    assert not folders(base)


def test_what_is_no_folder_of_a_filter_is_left_alone(base: Path) -> None:
    hidden, link, file = base / f".{PREFIX}other", base / f"{PREFIX}link", base / f"{PREFIX}file"
    hidden.mkdir()
    link.symlink_to(hidden)
    file.touch()
    RunFolder().close()
    assert hidden.is_dir()
    assert link.is_symlink()
    assert file.is_file()


@pytest.mark.parametrize("by", ["another user", "another start"])
def test_somebody_comes_between(by: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tempfile.mkdtemp
    made: list[Path] = []

    def seen(**named: str) -> str:
        path = Path(make(**named))
        made.append(path)
        if by == "another user":  # who sees its name, and takes the one that it may get next
            (base / path.name.removeprefix(".") / "taken").mkdir(parents=True)
        elif len(made) == 1:
            RunFolder().close()
        return str(path)

    monkeypatch.setattr(tempfile, "mkdtemp", seen)
    run = RunFolder()
    assert folders(base) == [run.path]
    run.close()
    assert not list(base.iterdir())


def test_a_copy_of_the_process_does_not_end_it(run: RunFolder) -> None:
    pid = os.fork()
    if not pid:
        run.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert run.path.is_dir()


def test_no_place_for_it(base: Path) -> None:
    base.rmdir()
    with pytest.raises(RunFolderError, match=r"temporary files: .*TMPDIR"):
        RunFolder()


def test_memory_that_all_write_to(base: Path) -> None:
    run = RunFolder({"a": 4096, "b": 4096})
    one, same, another = run.memory("a"), run.memory("a"), run.memory("b")
    with mmap.mmap(one, 4096) as first, mmap.mmap(same, 4096) as second, mmap.mmap(another, 4096) as third:
        first[7] = 1
        assert (second[7], third[7]) == (1, 0)
    for fd in (one, same, another):
        for size in (0, 8192):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        os.close(fd)
    run.close()


def test_what_is_kept_in_memory_is_whole_or_nothing(base: Path) -> None:
    run = RunFolder({"a": 4096})
    assert run.kept("a") is None
    for data in (b"one", b"", b"a longer one" * 100):
        run.keep("a", data)
        assert run.kept("a") == data
    run.keep("a", bytes(5000))
    assert run.kept("a") == b"a longer one" * 100, "what is too large is not kept"
    fd = run.memory("a")
    os.pwrite(fd, b"x", 50)
    assert run.kept("a") is None
    os.pwrite(fd, b"\xff" * 16, 16)
    assert run.kept("a") is None
    os.close(fd)
    run.close()
