import multiprocessing
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from urlward.engine.digest import format_key
from urlward.engine.errors import KeyFileError
from urlward.lists.state import (
    StateError,
    append_private,
    local_key,
    locked,
    made_folder,
    state_folder,
    write_private,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("configured", "environment", "folder"),
    [
        ("/srv/state", {"STATE_DIRECTORY": "/var/lib/urlward"}, "/srv/state"),
        (None, {"STATE_DIRECTORY": "/var/lib/urlward", "XDG_STATE_HOME": "/x"}, "/var/lib/urlward"),
        (None, {"STATE_DIRECTORY": "/var/lib/one:/var/lib/two"}, "/var/lib/one"),
        (None, {"XDG_STATE_HOME": "/home/u/state"}, "/home/u/state/urlward"),
        (None, {"STATE_DIRECTORY": "", "XDG_STATE_HOME": "relative"}, "/home/u/.local/state/urlward"),
        ("", {}, "/home/u/.local/state/urlward"),
    ],
)
def test_where_it_is(
    configured: str | None, environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert state_folder(configured, environment) == Path(folder)


def test_the_folder_and_the_key_are_the_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "a" / "state"
    key = local_key(state)
    assert mode(state) == 0o700
    assert mode(state / "key") == 0o600
    assert sorted(p.name for p in state.iterdir()) == ["key"]
    assert local_key(state).secret == key.secret
    assert (state / "key").read_bytes() == format_key(key.secret)


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    made_folder(tmp_path)
    assert mode(tmp_path) == 0o750


def test_a_file_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.touch()
    with pytest.raises(StateError, match=f"^{file}: Not a directory$"):
        local_key(file)
    with pytest.raises(StateError, match=f"^{file}: File exists$"):
        local_key(file / "below")


def test_a_key_that_is_none_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"secret words")
    with pytest.raises(KeyFileError, match="64 hexadecimal digits"):
        local_key(tmp_path)
    assert (tmp_path / "key").read_bytes() == b"secret words"


def at_once(target: Callable[..., None], *arguments: object, times: int) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=target, args=arguments) for _ in range(times)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * times


def _key(state: Path, results: Path) -> None:
    (results / str(os.getpid())).write_bytes(local_key(state).secret)


def test_many_at_once_get_one_key(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    at_once(_key, tmp_path / "state", results, times=8)
    assert {path.read_bytes() for path in results.iterdir()} == {local_key(tmp_path / "state").secret}


def _count(folder: Path) -> None:
    path = folder / "number"
    for _ in range(25):
        with locked(folder):
            write_private(path, b"%d" % (int(path.read_bytes()) + 1))
            append_private(folder / "lines", path.read_bytes())


def test_locked_writers_lose_nothing(tmp_path: Path) -> None:
    write_private(tmp_path / "number", b"0")
    at_once(_count, tmp_path, times=4)
    assert (tmp_path / "number").read_bytes() == b"100"
    assert (tmp_path / "lines").read_text().split() == [str(n) for n in range(1, 101)]


def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"half")
    write_private(tmp_path / "file", b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert mode(tmp_path / "file") == 0o600


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_private(path, b"one")
    with path.open("ab") as file:
        file.write(b"tw")
    append_private(path, b"three")
    assert path.read_bytes() == b"one\ntw\nthree\n"
    assert mode(path) == 0o600


@needs_root
def test_files_belong_to_whom_the_folder_belongs(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65533)
    local_key(tmp_path)
    write_private(tmp_path / "file", b"")
    append_private(tmp_path / "lines", b"")
    made_folder(tmp_path / "feeds")
    for path in tmp_path.iterdir():
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65533), path.name


def test_links_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"as it was")
    (tmp_path / "lines").symlink_to(victim)
    (tmp_path / ".file.tmp").symlink_to(victim)
    write_private(tmp_path / "file", b"x")
    with pytest.raises(StateError, match=f"^{tmp_path / 'lines'}: "):
        append_private(tmp_path / "lines", b"x")
    assert victim.read_bytes() == b"as it was"


def test_no_folder_no_lock(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=f"^{tmp_path / 'no'}: No such file"), locked(tmp_path / "no"):
        pass
