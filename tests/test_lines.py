import fcntl
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from urlward.lines import MOST, Lines, finish, plain, say

LINE = "x" * 99


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe that nobody reads, and that takes one page."""
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writes, "w") as stream:
        yield reads, stream
        os.close(reads)


def test_who_does_not_read_makes_nobody_wait(pipe: tuple[int, TextIO]) -> None:
    reads, stream = pipe
    lines = Lines()
    for number in range(MOST + 500):
        lines.write(f"{number} {LINE}", stream)
    lines.finish(0.0)
    # Who reads again gets what waited, in its order, and how much is missing.
    with os.fdopen(os.dup(reads)) as reader:
        got = []
        while "lost" not in (line := reader.readline()):
            got.append(line)
    first = [int(line.split()[0]) for line in got]
    assert MOST <= len(first) < MOST + 500
    assert first == sorted(first)
    assert line == f"log: {MOST + 500 - len(first)} lines are lost: nobody read them\n"
    lines.write("again", stream)
    lines.finish()
    assert os.read(reads, 100) == b"again\n"


def test_a_pipe_without_a_reader_is_no_fault(pipe: tuple[int, TextIO]) -> None:
    _, stream = pipe
    reads, writes = os.pipe()
    os.close(reads)
    lines = Lines()
    with os.fdopen(writes, "w") as broken:
        lines.write("gone", broken)
        lines.finish(60)
    lines.write("there", stream)
    lines.finish()
    assert os.read(pipe[0], 100) == b"there\n"


def test_a_pipe_that_somebody_has_made_not_to_wait(pipe: tuple[int, TextIO]) -> None:
    reads, stream = pipe
    os.set_blocking(stream.fileno(), False)
    lines = Lines()
    for _ in range(100):
        lines.write(LINE, stream)
    got = b""
    while got.count(b"\n") < 100:
        got += os.read(reads, 4096)
    assert got == f"{LINE}\n".encode() * 100


def test_a_file_is_written_to_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        Lines().write("one", stream)
        assert (tmp_path / "log").read_text() == "one\n"


def test_a_closed_stream_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    Lines().write("one", None)
    closed = io.StringIO()
    closed.close()
    Lines().write("one", closed)
    monkeypatch.setattr(sys, "stdout", None)
    say("one")


def test_what_a_terminal_would_obey_is_an_escape(capfd: pytest.CaptureFixture[str]) -> None:
    assert plain("café.test/x y") == "café.test/x y"
    assert plain("a\x1b[31m\n\u202eb\udcff\x9b") == r"a\x1b[31m\n\u202eb\udcff\x9b"
    say("of /tmp/\x1b]0;title\a\nits second line")
    finish()
    assert capfd.readouterr().out == "of /tmp/\\x1b]0;title\\x07\nits second line\n"


def test_the_journal_is_told_what_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stream"
    with path.open("w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setattr(sys, "stdout", stream)
        say("one", warning=True)
        there = os.fstat(stream.fileno())
        patch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        say("two\nthree", warning=True)
        say("four")
    assert path.read_text() == "one\n<4>two\n<4>three\nfour\n"
