import os
import subprocess
import sys

import pytest

from urlward.process import ALLOCATOR, best_allocator, choose_allocator


def test_the_program_starts_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *args: started.append(args))
    monkeypatch.delenv("PYTHONMALLOC", raising=False)
    choose_allocator()
    ((program, arguments, environment),) = started
    assert (program, arguments) == (sys.executable, sys.orig_argv)
    assert environment["PYTHONMALLOC"] == best_allocator()
    monkeypatch.setenv("PYTHONMALLOC", "default")
    choose_allocator()
    assert len(started) == 1, "what the operator has chosen stands"


def test_this_python_has_the_allocator() -> None:
    command = [sys.executable, "-c", ""]
    done = subprocess.run(
        command, env={**os.environ, ALLOCATOR: best_allocator()}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b""), "Python ends at once with one that it does not know"
