import errno
import multiprocessing
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rows import each_row
from urlward.engine.digest import format_key
from urlward.engine.errors import KeyFileError
from urlward.publish.place import NEW, Folder, PlaceError
from urlward.state import keys
from urlward.state.folder import (
    MOST_DAMAGED,
    StateError,
    append_private,
    damaged_lately,
    forget_damaged,
    kept_key,
    local_key,
    locked,
    made_folder,
    open_private,
    read_kept,
    set_aside,
    state_folder,
    write_private,
)
from urlward.state.watch import Signature

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@each_row(
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
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert state_folder(configured, environment) == Path(folder)


def test_roots_commands_find_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert state_folder(None, {}) == Path("/var/lib/urlward")
    assert state_folder(None, {"XDG_STATE_HOME": "/x"}) == Path("/x/urlward")


def test_the_folder_and_the_key_are_the_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "a" / "state"
    key = local_key(state)
    assert mode(state) == 0o700
    assert mode(state / "key") == 0o600
    assert sorted(p.name for p in state.iterdir()) == ["key", "key.copy"]
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


def test_a_key_that_is_none_comes_back_from_its_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = local_key(tmp_path).secret
    (tmp_path / "key").write_bytes(b"secret words")
    assert local_key(tmp_path).secret == secret
    assert (tmp_path / "key").read_bytes() == format_key(secret)
    (aside,) = (tmp_path / "damaged").iterdir()
    assert aside.read_bytes() == b"secret words"
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path / 'key'}: a key file holds 64 hexadecimal digits")
    assert line.endswith(f"set aside as damaged/{aside.name}; its copy takes its place")


def test_without_key_and_copy_there_is_a_new_one(tmp_path: Path) -> None:
    secret = local_key(tmp_path).secret
    (tmp_path / "key").write_bytes(b"")
    (tmp_path / "key.copy").write_bytes(b"\xff")
    assert local_key(tmp_path).secret == local_key(tmp_path).secret != secret


def test_a_flipped_digit_is_not_another_key(tmp_path: Path) -> None:
    secret = local_key(tmp_path).secret
    (tmp_path / "key").write_bytes(format_key(bytes([secret[0] ^ 1, *secret[1:]])))
    assert local_key(tmp_path).secret == secret


def test_the_key_or_its_copy_is_read_where_nothing_is_mended(tmp_path: Path) -> None:
    assert kept_key(tmp_path) is None
    key = local_key(tmp_path)
    path, copy = tmp_path / "key", tmp_path / "key.copy"
    for text in (format_key(bytes([key.secret[0] ^ 1, *key.secret[1:]])), b"", format_key(key.secret)):
        path.write_bytes(text)
        found = kept_key(tmp_path)
        assert found is not None
        assert found.secret == key.secret
    copy.unlink()
    assert (found := kept_key(tmp_path)) is not None
    assert found.secret == key.secret


def test_a_key_that_takes_its_place_is_the_key(tmp_path: Path) -> None:
    local_key(tmp_path)
    other = b"\x5a" * 32
    (tmp_path / "key").write_bytes(format_key(other))
    assert local_key(tmp_path).secret == other
    (tmp_path / "key").write_bytes(b"")
    assert local_key(tmp_path).secret == other


def test_a_key_that_is_taken_away_does_not_come_back(tmp_path: Path) -> None:
    secret = local_key(tmp_path).secret
    (tmp_path / "key").unlink()
    assert local_key(tmp_path).secret != secret


def test_a_lack_of_descriptors_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_key(tmp_path)

    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(keys, "open_regular", none_left)
    with pytest.raises(KeyFileError, match="Too many open files"):
        local_key(tmp_path)
    assert not (tmp_path / "damaged").exists()


def test_what_is_no_regular_file_is_waited_for_by_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = local_key(tmp_path).secret
    for name in ("key", "key.copy", "kept.json", "lock", "log"):
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
    assert local_key(tmp_path).secret != secret
    assert read_kept(tmp_path / "kept.json", 1, "kept", dict, StateError, "begun anew") == []
    os.close(open_private(tmp_path / "lock"))
    assert (tmp_path / "lock").is_file()
    with pytest.raises(StateError, match=r"log: not a regular file$"):
        append_private(tmp_path / "log", b"a line")
    assert f"{tmp_path}/kept.json: not a regular file; set aside as" in caplog.text
    assert len(list((tmp_path / "damaged").iterdir())) == 4


def test_what_is_set_aside_is_bounded(tmp_path: Path) -> None:
    for number in range(MOST_DAMAGED + 3):
        (tmp_path / "file").write_bytes(b"%d" % number)
        set_aside(tmp_path, tmp_path / "file", "damaged")
    (tmp_path / "audit.jsonl").touch()
    set_aside(tmp_path, tmp_path / "audit.jsonl", "damaged")
    (tmp_path / "file").mkdir()
    set_aside(tmp_path, tmp_path / "file", "damaged")
    names = damaged_lately(tmp_path, time.time())
    assert len(names) == MOST_DAMAGED + 1
    assert damaged_lately(tmp_path, time.time() + 2 * 86_400) == []
    forget_damaged(tmp_path, time.time() + 31 * 86_400)
    (left,) = (tmp_path / "damaged").iterdir()
    assert left.name.startswith("audit.jsonl.")


def test_another_file_by_now_is_not_set_aside(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"damaged")
    seen = Signature.of(tmp_path / "file")
    write_private(tmp_path / "file", b"good")
    assert set_aside(tmp_path, tmp_path / "file", "damaged", seen=seen) is None
    assert (tmp_path / "file").read_bytes() == b"good"
    assert set_aside(tmp_path, tmp_path / "none", "damaged") is None


def test_a_folder_in_a_files_place_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / ".file.tmp").mkdir()
    write_private(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    (tmp_path / "feeds").touch()
    assert made_folder(tmp_path / "feeds", tmp_path).is_dir()


def test_what_is_written_is_on_the_disk_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the call leaves the new file, one before it the old one (fsync(2))."""
    synchronised: list[tuple[str, bytes]] = []

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        synchronised.append((path.name, path.read_bytes() if path.is_file() else b""))

    monkeypatch.setattr(os, "fsync", fsync)
    write_private(tmp_path / "file", b"new")
    assert synchronised == [(".file.tmp", b"new"), (tmp_path.name, b"")]
    synchronised.clear()
    append_private(tmp_path / "lines", b"one")
    append_private(tmp_path / "lines", b"two")
    assert synchronised == [("lines", b"one\n"), (tmp_path.name, b""), ("lines", b"one\ntwo\n")]


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


@needs_root
def test_a_link_in_place_of_what_root_made_gives_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose folder it is, and is not to be root, may be as quick."""
    roots, state = tmp_path / "roots", tmp_path / "state"
    roots.mkdir(0o700)
    state.mkdir()
    os.chown(state, 54_321, 54_322)
    really = Path.mkdir

    def made_and_replaced(path: Path, *given: int, **more: bool) -> None:
        really(path, *given, **more)
        if path.parent == state:
            path.rmdir()
            path.symlink_to(roots)

    monkeypatch.setattr(Path, "mkdir", made_and_replaced)
    made_folder(state / "feeds")
    assert (roots.stat().st_uid, mode(roots)) == (0, 0o700)
    with pytest.raises(PlaceError):
        Folder(state).write("stable/a.ward", b"", NEW)
    assert (roots.stat().st_uid, mode(roots)) == (0, 0o700)
