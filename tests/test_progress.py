"""A bar where somebody looks and the work is long, and else not a byte."""

import io
import sys
from types import SimpleNamespace

import pytest

from urlward import progress
from urlward.progress import progress_bar, silent


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
