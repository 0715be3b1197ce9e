"""Regular files alone are read whole, and what the shell gave in the place of one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rows import each_row
from urlward import regular
from urlward.regular import given_fd, open_given, open_regular, read_regular


def odd_files(folder: Path) -> dict[str, Path]:
    """What is no regular file, by what is said of it."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "socket"))
    (folder / "link").symlink_to("pipe")
    return {
        "pipe": folder / "pipe",
        "folder": folder / "folder",
        "socket": folder / "socket",
        "link": folder / "link",
        "device": Path("/dev/zero"),
    }


def test_nothing_but_regular_files_is_opened(tmp_path: Path) -> None:
    for name, path in odd_files(tmp_path).items():
        for read in (open_regular, read_regular, open_given):
            with pytest.raises(OSError) as raised:
                read(path)
            assert raised.value.strerror == ("Is a directory" if name == "folder" else "not a regular file")


def test_one_that_has_no_more_for_a_while_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As /proc/kmsg, which is regular by its mode: nobody waits for it."""
    (tmp_path / "file").touch()
    for read in (read_regular, lambda path: open_given(path).read(1 << 24)):
        ours, theirs = os.pipe2(os.O_NONBLOCK)
        monkeypatch.setattr(regular, "regular_fd", lambda _, fd=ours: fd)
        with pytest.raises(OSError, match="not a regular file"):
            read(tmp_path / "file")
        os.close(theirs)


@each_row(
    ("name", "number"),
    [
        ("/dev/stdin", 0),
        ("/dev/fd/63", 63),
        ("/proc/self/fd/7", 7),
        ("/dev/stdin2", None),
        ("dev/stdin", None),
        ("/dev/fd/", None),
    ],
)
def test_what_the_shell_gives(name: str, number: int | None) -> None:
    assert given_fd(Path(name)) == number


@each_row("name", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_what_the_shell_gives_is_read_to_its_end(name: str) -> None:
    program = f"import pathlib, urlward.regular as r; print(r.open_given(pathlib.Path('{name}')).read())"
    done = subprocess.run([sys.executable, "-c", program], input=b"some", capture_output=True, check=True)
    assert done.stdout == b"b'some'\n"
