import re
from pathlib import Path

import pytest

from conftest import run_command
from lists.support import OTHER_SECRET, SECRET, SENTINEL, artifact, key_file, names_in
from urlward.commands.lists import add_list_commands
from urlward.engine.artifact import parse
from urlward.engine.errors import KeyFileError, UrlwardError
from urlward.lists.source import SourceError

COMMON = [f"{SENTINEL}{n}.example id={n}" for n in range(150)]


def run(*arguments: str | Path) -> int:
    """A command, as `urlward.cli` would run it."""
    return run_command(add_list_commands, *arguments)


def issue(path: Path, lines: list[str], serial: int, secret: bytes = SECRET) -> Path:
    path.write_bytes(artifact(lines, secret, "list", serial=serial, created=serial))
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    key_file(tmp_path / "old.ward.key")
    return issue(tmp_path / "old.ward", [*COMMON, "gone.test", "http://gone.test/page"], 1_764_000_000)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    key_file(tmp_path / "list.ward.key")
    return issue(tmp_path / "list.ward", [*COMMON, "come.test"], 1_764_043_200)


def refused(*arguments: str | Path) -> str:
    """The one line that a command which cannot be done ends with."""
    with pytest.raises(UrlwardError) as caught:
        run(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert SENTINEL not in message
    return message


def test_there_and_back(old: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    delta, made = tmp_path / "x.delta", tmp_path / "made.ward"
    assert run("delta", old, new, "-o", delta) == 0
    assert run("patch", old, delta, "-o", made) == 0
    assert made.read_bytes() == new.read_bytes()
    said = capsys.readouterr().out.splitlines()
    sizes = f"delta of {delta.stat().st_size} bytes for an artifact of {new.stat().st_size}"
    assert re.fullmatch(rf"{re.escape(str(delta))}: {sizes}, 1 entry added, 2 removed, \d+\.\d s", said[0])
    assert said[1] == f"{made}: serial 1764043200, {sizes}, 1 entry added, 2 removed"


def test_in_a_folder_it_has_the_name_that_feeds_look_for(old: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    run("delta", old, new, "-o", tmp_path / "served")
    assert names_in(tmp_path / "served") == ["list.ward.1764000000.delta"]


def test_what_is_not_there_is_what_was_named(old: Path, new: Path, tmp_path: Path) -> None:
    """And no key beside it, which nobody has spoken of."""
    for command in ("delta", "patch"):
        gone = tmp_path / "gone.ward"
        message = refused(command, gone, gone, "-o", tmp_path / "out")
        assert message == f"{gone}: No such file or directory"
    new.with_name("list.ward.key").unlink()
    message = refused("delta", old, new, "-o", tmp_path / "out")
    assert message == f"{new}: an artifact needs its key: --key FILE, or {new}.key"


def test_a_key_elsewhere(old: Path, new: Path, tmp_path: Path) -> None:
    new.with_name("list.ward.key").rename(tmp_path / "k")
    delta, made = tmp_path / "x.delta", tmp_path / "made.ward"
    with pytest.raises(KeyFileError, match=r"list\.ward\.key"):
        run("delta", old, new, "-o", delta)
    run("delta", old, new, "-o", delta, "--key", tmp_path / "k")
    run("patch", old, delta, "-o", made, "--key", tmp_path / "k")
    assert made.read_bytes() == new.read_bytes()


def test_in_place_of_the_old_one(old: Path, new: Path, tmp_path: Path) -> None:
    run("delta", old, new, "-o", tmp_path / "x.delta")
    run("patch", old, tmp_path / "x.delta", "-o", old)
    assert old.read_bytes() == new.read_bytes()


def test_the_wrong_way_round(old: Path, new: Path, tmp_path: Path) -> None:
    message = refused("delta", new, old, "-o", tmp_path / "x", "--key", tmp_path / "list.ward.key")
    assert message.startswith(f"{old}: its serial 1764000000 is not above 1764043200")
    assert "no feed" in refused("delta", new, new, "-o", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_little_in_common(old: Path, new: Path, tmp_path: Path) -> None:
    issue(new, [f"{n}.test" for n in range(150)], 1_764_043_200)
    assert refused("delta", old, new, "-o", tmp_path / "x").startswith(f"{new}: no delta: it would take ")
    assert not (tmp_path / "x").exists()


def test_another_key(old: Path, new: Path, tmp_path: Path) -> None:
    issue(old, COMMON, 1, OTHER_SECRET)
    assert refused("delta", old, new, "-o", tmp_path / "x").startswith(f"{old}: compiled under key ")


def test_files_that_are_something_else(old: Path, new: Path, tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_text(f"{SENTINEL}.example\n")
    assert refused("delta", source, new, "-o", tmp_path / "x").startswith(f"{source}: not a .ward file")
    assert refused("patch", old, source, "-o", tmp_path / "x").startswith(f"{source}: it does not begin")
    with pytest.raises(SourceError, match="absent"):
        run("delta", tmp_path / "absent", new, "-o", tmp_path / "x")


def test_a_delta_for_another_artifact(old: Path, new: Path, tmp_path: Path) -> None:
    run("delta", old, new, "-o", tmp_path / "x.delta")
    before = new.read_bytes()
    message = refused("patch", new, tmp_path / "x.delta", "-o", new)
    assert message.startswith(f"{tmp_path / 'x.delta'}: it is for the artifact with checksum ")
    assert new.read_bytes() == before


def test_what_is_read_is_not_overwritten(old: Path, new: Path, tmp_path: Path) -> None:
    run("delta", old, new, "-o", tmp_path / "x.delta")
    (tmp_path / "link").symlink_to(old)
    for arguments in (
        *[("delta", old, new, "-o", kept) for kept in (old, new, tmp_path / "link", f"{new}.key")],
        ("patch", old, tmp_path / "x.delta", "-o", tmp_path / "x.delta"),
        ("patch", old, tmp_path / "x.delta", "-o", f"{old}.key"),
    ):
        with pytest.raises(UrlwardError, match="would be overwritten"):
            run(*arguments)


def test_a_delta_holds_no_plaintext(old: Path, new: Path, tmp_path: Path) -> None:
    issue(new, [*COMMON, f"{SENTINEL}.test id=x", "203.0.113.9 id=y"], 1_764_043_200)
    run("delta", old, new, "-o", tmp_path / "x.delta")
    data = (tmp_path / "x.delta").read_bytes()
    assert SENTINEL.encode() not in data
    assert b"203.0.113.9" not in data
    assert parse(new.read_bytes()).meta["entries"] == len(COMMON) + 2
