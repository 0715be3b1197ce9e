import os

import pytest

from urlward.commands.arguments import caller


def test_who_runs_this() -> None:
    assert caller().endswith(f" (uid {os.getuid()})")


def test_a_name_that_no_terminal_should_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "anna\n")
    assert "\n" not in caller()
