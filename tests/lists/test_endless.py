"""Files of any length, as a damaged file system may give them: none is read to its end."""

import os
from pathlib import Path

import pytest

from lists.support import artifact
from urlward.lists.source import SourceError, open_list
from urlward.regular import lines_of, open_regular, read_regular
from urlward.state.audit import FILE, append, mend_audit, verify
from urlward.state.folder import StateError, read_kept, write_kept

NOW = 1_764_064_000.9
ENDLESS = 1 << 42
"""Bytes, none of which is on the disk, and more than any machine's memory."""


def test_one_that_is_kept_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    write_kept(path, 1, "kept", [{"a": 1}])
    os.truncate(path, ENDLESS)
    with pytest.raises(OSError, match="too large to be what it should be"):
        read_regular(path)
    assert read_kept(path, 1, "kept", dict, StateError, "begun anew") == []
    assert not path.exists()


def test_an_artifact_is_as_long_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "list.ward"
    path.write_bytes(artifact(["blocked.example"]))
    open_list(path).close()
    os.truncate(path, ENDLESS)
    with pytest.raises(SourceError, match=rf"list\.ward: {ENDLESS} bytes where the header says \d+: "):
        open_list(path)


def test_the_audit_log(tmp_path: Path) -> None:
    append(tmp_path, "anna", "asked", NOW, why="a case")
    os.truncate(tmp_path / FILE, ENDLESS)
    mend_audit(tmp_path, NOW)
    report = verify(tmp_path)
    assert (report.lines, report.broken) == (1, None)
    assert "its last line is not a line of this log" in report.anew


def test_a_line_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n" + b"x" * 3_000_000 + b"\ntwo")
    with open_regular(path) as file:
        lines = list(lines_of(file))
    assert b"".join(lines) == path.read_bytes()
    assert (lines[0], lines[-1]) == (b"one\n", b"two")
    assert max(map(len, lines)) == 1 << 20
