import os
import pty
import re
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from replay.replay_support import SAMPLE, squid
from urlward import cli
from urlward.replay.formats import FORMATS

FAR = re.compile(r"reading logs .*log 1 of 1, [\d,]+ lines, [\d,]+ lines/s").search
COMMAND = [sys.executable, "-m", "urlward", "lab", "replay"]


def test_help_says_what_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["lab", "replay", "--help"])
    assert raised.value.code == 0
    told = capsys.readouterr().out
    for word in (
        "LOG",
        "--list",
        "--format",
        "--host",
        "--column",
        "--time",
        "--output",
        "--json",
        "Squid",
        "HAR",
    ):
        assert word in told


def test_each_format_that_is_known_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["lab", "replay", "--help"])
    assert f"--format {{{','.join(FORMATS)}}}" in capsys.readouterr().out


def test_on_a_terminal_it_shows_how_far_it_is(tmp_path: Path) -> None:
    piece = f"{squid('http://unlisted.test/')}\n".encode() * 1_000
    path = tmp_path / "access.log"
    os.mkfifo(path)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--json", "--list", SAMPLE, "--workers", "1", path],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)
    text, pieces = "", 0
    with suppress(OSError), path.open("wb") as log:  # that of a process that has ended
        # One that takes less than some seconds shows nothing.
        while pieces < 5_000 and not FAR(text):
            log.write(piece)
            pieces += 1
            while select.select([ours], [], [], 0)[0]:
                text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(ours, 65536).decode())
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert f'"requests": {pieces * 1_000}'.encode() in out
    assert FAR(text)
    assert "unlisted" not in text


def test_logs_without_a_request(tmp_path: Path) -> None:
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    for path, text in zip(logs, ("", "\n# nothing\n"), strict=True):
        path.write_text(text)
    done = subprocess.run(
        [*COMMAND, *logs, "-o", tmp_path / "report", "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"urlward: {logs[0]}, {logs[1]}: empty, no request in it\n")
    assert not (tmp_path / "report").exists()
