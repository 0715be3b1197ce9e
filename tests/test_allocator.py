import os
import sys

import pytest

from urlward.process import choose_allocator


def test_the_program_starts_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *args: started.append(args))
    monkeypatch.delenv("PYTHONMALLOC", raising=False)
    choose_allocator()
    ((program, arguments, environment),) = started
    assert (program, arguments) == (sys.executable, sys.orig_argv)
    assert environment["PYTHONMALLOC"] == "malloc"
    monkeypatch.setenv("PYTHONMALLOC", "default")
    choose_allocator()
    assert len(started) == 1, "what the operator has chosen stands"
