import os
import subprocess
import sys
from pathlib import Path

import pytest

from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.lab.isolation import (
    Running,
    end,
    find_running,
    path_of,
    remember,
    running_labs,
    started_at,
    the_running,
)


def ours(name: str = "mine") -> Running:
    start = started_at(os.getpid())
    assert start
    return Running(name, os.getpid(), start, "smoke")


def test_what_is_remembered_is_found(tmp_path: Path) -> None:
    remember(ours(), tmp_path)
    assert find_running("mine", tmp_path) == ours()
    assert running_labs(tmp_path) == [ours()]
    assert find_running("other", tmp_path) is None


@each_row("text", ['{"name": "mine", "pid": 1, "start": 1, "scenario": ""}', "{", '{"pid": 1}', "[]"])
def test_what_is_stale_is_removed(text: str, tmp_path: Path) -> None:
    path_of("mine", tmp_path).write_text(text)
    assert find_running("mine", tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_has_come_to_be_another_process_is_not_it(tmp_path: Path) -> None:
    running = ours()
    remember(Running(running.name, running.pid, running.start - 1, ""), tmp_path)
    assert find_running("mine", tmp_path) is None


def test_one_that_is_not_up(tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match=r"is not up .none is"):
        the_running("mine", tmp_path)
    remember(ours("other"), tmp_path)
    with pytest.raises(UrlwardError, match=r"is not up .there are: other"):
        the_running("mine", tmp_path)


@each_row("name", ["", "../x", "a b", "x" * 33, "-x"])
def test_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="is no name for a lab"):
        path_of(name, tmp_path)


@pytest.mark.parametrize("obeys", [True, False])
def test_it_is_ended(obeys: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urlward.lab.isolation._END_WITHIN", 60.0 if obeys else 1.5)
    how = "SIG_DFL" if obeys else "SIG_IGN"
    program = f"import signal, time; signal.signal(15, signal.{how}); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    start = started_at(process.pid)
    assert start
    running = Running("mine", process.pid, start, "")
    remember(running, tmp_path)
    end(running, tmp_path)
    assert process.wait(60) == (-15 if obeys else -9)
    assert list(tmp_path.iterdir()) == []
