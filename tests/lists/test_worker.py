import asyncio
import fcntl
import io
import json
import os
import subprocess
import sys
import termios
from array import array
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from lists.support import HTML, SECRET, SENTINEL, artifact, blocks
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.lists import worker
from urlward.lists.build import checksum, silent
from urlward.lists.files import Signature
from urlward.lists.source import SourceError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a.example\n")
    return path


def request(path: Path, fd: int, budget: str = "1%", parent: int | None = None, **more: object) -> bytes:
    asked = {
        "fd": fd,
        "path": str(path),
        "key": SECRET.hex(),
        "name": "mine",
        "budget": budget,
        "parent": parent or os.getpid(),
        **more,
    }
    return json.dumps(asked).encode()


def matcher_of(data: bytes) -> Matcher:
    key = Key(SECRET)
    return Matcher([load(data, key)])


def run(
    path: Path, *arguments: Any, cwd: Path | None = None, **more: Any
) -> tuple[subprocess.CompletedProcess[bytes], bytes]:
    """The worker's answer and what it wrote."""
    fd = os.memfd_create("test")
    with os.fdopen(fd, "rb") as file:
        done = subprocess.run(
            [sys.executable, "-P", "-m", worker.COMPILER],
            input=request(path, fd, *arguments, **more),
            capture_output=True,
            pass_fds=(fd,),
            check=False,
            cwd=cwd,
        )
        file.seek(0)
        return done, file.read()


def test_compiles_into_the_descriptor(path: Path) -> None:
    path.write_text(f"a.example\n{SENTINEL}\nb.example")
    done, data = run(path, "50%")
    assert (done.returncode, done.stderr) == (0, b"")
    answer = json.loads(done.stdout)
    first = answer.pop("first")
    assert answer.pop("signature") == list(Signature.of(path) or ())
    assert answer == {
        "format": "", "partly": 0,
        "lines": 3, "bad": 1, "unsupported": 0, "first_unsupported": "", "ends_with_newline": False,
        "content": checksum(path).hex(),
    }  # fmt: skip
    assert first.startswith(f"{path}:2:1: ")
    assert SENTINEL not in first
    assert load(data, Key(SECRET)).name == "mine"
    assert blocks(matcher_of(data), "http://b.example/")


def test_another_format(path: Path) -> None:
    path.write_text("no,link\n1,http://a.example/\n2,ftp://a.example/\n")
    options = {"columns": {"url": "link"}, "category": "phishing"}
    done, data = run(path, format="csv", options=options)
    answer = json.loads(done.stdout)
    assert answer["unsupported"] == 1
    assert answer["first_unsupported"].startswith(f"{path}:3:1: ")
    verdict = matcher_of(data).check_url("http://a.example/")
    assert (verdict.action, verdict.category) == ("block", "phishing")


@pytest.mark.parametrize(
    "content", [HTML, b"", b"a.example\n?\n", None], ids=["html", "empty", "bad", "missing"]
)
def test_a_refusal_is_an_answer(path: Path, content: bytes | None) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    done, data = run(path)
    assert (done.returncode, done.stderr, data) == (0, b"", b"")
    answer = json.loads(done.stdout)
    assert answer["error"].startswith(f"{path}: ")
    # What the system refused, it may give the next time; the content stays what it is.
    assert answer["lasting"] == (content is not None)


def test_a_file_name_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"l\xffst.txt")
    path.write_text("a.example\n")
    done, data = run(path)
    assert json.loads(done.stdout)["bad"] == 0
    assert load(data, Key(SECRET)).entries == 1


def test_a_parent_that_ended_before_it_began_wants_nothing(path: Path) -> None:
    done, data = run(path, parent=os.getppid())
    assert (done.returncode, done.stdout, data) == (1, b"", b"")


PARENT = """
import subprocess, sys
command = [sys.executable, "-m", "urlward.lists.worker"]
print(subprocess.Popen(command, stdin=subprocess.PIPE).pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        process = Path("/proc") / parent.stdout.readline().decode().strip()
        # The end of its standard input would end it too.
        stdin = os.open(process / "fd" / "0", os.O_WRONLY)
        try:
            wait_for(lambda: int(field(process, "SigIgn"), 16) & 0b11 == 0b11, "its signals to be set")
            # What reads has asked before that to end with its parent.
            os.write(stdin, b" ")
            wait_for(lambda: not unread(stdin), "it to read what it is told")
            parent.kill()
            wait_for(lambda: field(process, "State")[:1] in ("", "Z"), "its end")
        finally:
            os.close(stdin)


def unread(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    waiting = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0]


def field(process: Path, name: str) -> str:
    """A field of a process's status, empty when it has ended."""
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return ""
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def test_the_folder_it_starts_in_lends_it_no_code(path: Path) -> None:
    (path.parent / "json.py").write_text("raise SystemExit(9)\n")
    done, _ = run(path, cwd=path.parent)
    assert done.returncode == 0


def test_in_this_process(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ignored: list[int] = []
    nice: list[int] = []
    output = path.with_name("out")
    fd = os.open(output, os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(sys, "stdin", io.StringIO(request(path, fd, parent=os.getppid()).decode()))
    monkeypatch.setattr(worker.signal, "signal", lambda number, _: ignored.append(number))
    monkeypatch.setattr(os, "nice", nice.append)
    monkeypatch.setattr("urlward.process.end_with_parent", lambda _: None)  # ours is none of its business
    worker.main()
    answer = json.loads(capsys.readouterr().out)
    assert answer.pop("signature") == list(Signature.of(path) or ())
    assert answer == {
        "format": "", "partly": 0,
        "lines": 1, "bad": 0, "first": "", "unsupported": 0, "first_unsupported": "",
        "ends_with_newline": True, "content": checksum(path).hex(),
    }  # fmt: skip
    assert load(output.read_bytes(), Key(SECRET)).entries == 1
    assert set(ignored) >= {worker.signal.SIGHUP, worker.signal.SIGINT}
    assert [step > 0 for step in nice] == [True]


def ask(path: Path, **more: Any) -> dict[str, Any]:
    fd = os.memfd_create("test")
    try:
        asked = json.loads(request(path, fd)) | more
        return worker.ask(worker.COMPILER, asked, [fd], more.get("tell", silent))
    finally:
        os.close(fd)


def test_it_says_how_far_it_is(path: Path) -> None:
    path.write_text("".join(f"h{n}.example\n" for n in range(10_000)))
    said: list[tuple[str, float]] = []
    fd = os.memfd_create("test")
    asked = json.loads(request(path, fd, progress=True))
    answer = worker.ask(worker.COMPILER, asked, [fd], lambda *each: said.append(each))
    os.close(fd)
    assert answer["lines"] == 10_000
    assert said[-1] == ("compiling", 1)
    assert {what for what, _ in said} == {"reading", "compiling"}


def test_a_process_that_does_not_survive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(OSError, match="the process that compiles it ended with 1"):
        ask(path)
    with pytest.raises(SourceError, match=f"{path}: the process that compiles it ended with 1"):
        worker.content_of(path)


def test_a_process_that_hangs_is_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"]
    monkeypatch.setattr(worker, "module_command", lambda _: stopped)
    monkeypatch.setattr(worker, "LOOK", 0.05)
    hangs = f"{path}: the process that compiles it used no processor for 1 s"
    with pytest.raises(worker.NoCompilerError, match=hangs):
        worker.content_of(path)
    with pytest.raises(OSError, match="used no processor"):
        asyncio.run(worker.ask_async(worker.COMPILER, {}))


def test_a_process_that_computes_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([0.5, *[0.5] * (worker.LOOKS - 1), 0.6, *[0.6] * worker.LOOKS])
    monkeypatch.setattr(worker, "used_by", lambda _: next(used))
    progress = worker._Progress(worker.COMPILER, 1)
    assert [progress.look() for _ in range(2 * worker.LOOKS + 1)] == [False] * 2 * worker.LOOKS + [True]
    other = worker._Progress("urlward.lists.feed_refresh", 1)
    assert not any(other.look() for _ in range(2 * worker.LOOKS)), "it may wait for the network"


def test_a_source_that_changes_while_it_is_compiled_is_compiled_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fd = os.open(path.with_name("out"), os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(worker, "read_request", lambda: json.loads(request(path, fd)))
    real, before = worker.compile_sources, checksum(path)

    def compile_sources(*args: Any, **more: Any) -> Any:
        path.write_text("b.example\n")
        return real(*args, **more)

    monkeypatch.setattr(worker, "compile_sources", compile_sources)
    worker.main()
    assert json.loads(capsys.readouterr().out)["content"] == before.hex()
    assert blocks(Matcher([load(path.with_name("out").read_bytes(), Key(SECRET))]), "http://a.example/")


def test_checksums(path: Path) -> None:
    assert worker.content_of(path) == checksum(path)
    path.write_bytes(artifact(["a.example"]))
    assert worker.content_of(path) == checksum(path)
    path.unlink()
    with pytest.raises(SourceError, match=f"{path}: No such file"):
        worker.content_of(path)
