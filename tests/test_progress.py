"""A bar where somebody looks and the work is long, and else not a byte."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import run_command
from lists.support import key_file
from publish.publish_support import listed
from urlward import progress
from urlward.commands import lists, records
from urlward.engine import delta as engine_delta
from urlward.progress import Progress, progress_bar, silent
from urlward.state.audit import append


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(monkeypatch: pytest.MonkeyPatch, seconds: float) -> str:
    """What work of so many seconds writes to a terminal."""
    terminal = Terminal()
    clock = iter([0.0, *(seconds * i / 20 for i in range(100))])
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patched:
        # Its own clock, and not that of all threads there are.
        patched.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        with progress_bar() as tell:
            for i in range(20):
                tell("reading", i / 20)
            tell("reading", 1)
            tell("compiling", 1)
    return terminal.getvalue()


def test_a_bar_for_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "reading" in told(monkeypatch, 3.0)


def test_not_a_byte_for_short_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, 0.9) == ""


def test_none_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar() as tell:
        assert tell is silent
    monkeypatch.setattr(sys, "stderr", None)
    with progress_bar() as tell:
        assert tell is silent


class Told(list[tuple[str, float]]):
    """What a command has told a bar."""

    @contextmanager
    def bar(self) -> Iterator[Progress]:
        yield lambda what, share: self.append((what, share))


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Told:
    made = Told()
    for command in (lists, records):
        monkeypatch.setattr(command, "progress_bar", made.bar)
    return made


def test_deltas_and_patches_say_how_far_they_are(
    bar: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file(tmp_path / "key")
    old, new = (tmp_path / f"{n}.ward" for n in range(2))
    old.write_bytes(listed(range(150), 1))
    new.write_bytes(listed(range(151), 2))
    monkeypatch.setattr(engine_delta, "_CHUNK", 1 << 10)
    given = ("-o", tmp_path / "delta", "--key", tmp_path / "key")
    assert run_command(lists.add_list_commands, "delta", old, new, *given) == 0
    assert list(dict.fromkeys(what for what, _ in bar)) == ["reading", "compressing", "checking"]
    shares = [share for what, share in bar if what == "compressing"]
    assert len(shares) > 3
    assert shares == sorted(shares)
    bar.clear()
    given = ("-o", tmp_path / "made.ward", "--key", tmp_path / "key")
    assert run_command(lists.add_list_commands, "patch", old, tmp_path / "delta", *given) == 0
    assert (tmp_path / "made.ward").read_bytes() == new.read_bytes()
    assert {what for what, _ in bar} == {"making"}
    assert [share for _, share in bar] == sorted(share for _, share in bar)


def test_the_verification_of_the_audit_log_says_how_far_it_is(bar: Told, tmp_path: Path) -> None:
    for n in range(20):
        append(tmp_path, "anna", "allowed", n, why="x")
    assert run_command(records.add_audit_commands, "audit", "verify", "--state", tmp_path) == 0
    assert [what for what, _ in bar] == ["verifying"] * 20
    shares = [share for _, share in bar]
    assert shares == sorted(set(shares))
    assert shares[-1] == 1
