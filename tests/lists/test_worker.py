import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lists.support import HTML, SECRET, SENTINEL, blocks
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.lists import worker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a.example\n")
    return path


def request(path: Path, budget: str = "1%") -> bytes:
    asked = {"path": str(path), "key": SECRET.hex(), "name": "mine", "budget": budget}
    return json.dumps(asked).encode()


def run(request: bytes, cwd: Path | None = None) -> tuple[subprocess.CompletedProcess[bytes], bytes]:
    """The worker's answer and what it wrote."""
    fd = os.memfd_create("test")
    with os.fdopen(fd, "rb") as file:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "urlward.lists.worker", str(fd)],
            input=request,
            capture_output=True,
            pass_fds=(fd,),
            check=False,
            cwd=cwd,
        )
        file.seek(0)
        return done, file.read()


def test_compiles_into_the_descriptor(path: Path) -> None:
    path.write_text(f"a.example\n{SENTINEL}\nb.example")
    done, data = run(request(path, "50%"))
    assert (done.returncode, done.stderr) == (0, b"")
    answer = json.loads(done.stdout)
    first = answer.pop("first")
    assert answer == {"bad": 1, "ends_with_newline": False}
    assert first.startswith(f"{path}:2:1: ")
    assert SENTINEL not in first
    key = Key(SECRET)
    loaded = load(data, key)
    assert loaded.name == "mine"
    assert blocks(Matcher([loaded], key), "http://b.example/")


@pytest.mark.parametrize(
    "content", [HTML, b"", b"a.example\n?\n", None], ids=["html", "empty", "bad", "missing"]
)
def test_a_refusal_is_an_answer(path: Path, content: bytes | None) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    done, data = run(request(path))
    assert (done.returncode, done.stderr, data) == (0, b"", b"")
    answer = json.loads(done.stdout)
    assert list(answer) == ["error"]
    assert answer["error"].startswith(f"{path}: ")


def test_a_file_name_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"l\xffst.txt")
    path.write_text("a.example\n")
    done, data = run(request(path))
    assert json.loads(done.stdout)["bad"] == 0
    assert load(data, Key(SECRET)).entries == 1


def test_the_folder_it_starts_in_lends_it_no_code(path: Path) -> None:
    (path.parent / "json.py").write_text("raise SystemExit(9)\n")
    done, _ = run(request(path), cwd=path.parent)
    assert done.returncode == 0


def test_in_this_process(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ignored: list[int] = []
    nice: list[int] = []
    monkeypatch.setattr(sys, "stdin", io.StringIO(request(path).decode()))
    monkeypatch.setattr(worker.signal, "signal", lambda number, _: ignored.append(number))
    monkeypatch.setattr(os, "nice", nice.append)
    output = path.with_name("out")
    fd = os.open(output, os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(sys, "argv", ["worker", str(fd)])
    worker.main()
    assert json.loads(capsys.readouterr().out) == {"bad": 0, "first": "", "ends_with_newline": True}
    assert load(output.read_bytes(), Key(SECRET)).entries == 1
    assert set(ignored) == {worker.signal.SIGHUP, worker.signal.SIGINT}
    assert [step > 0 for step in nice] == [True]
