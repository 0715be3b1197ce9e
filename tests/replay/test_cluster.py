"""Replay on a cluster of Dask's: its own scheduler and workers, as processes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import free_port, wait_for
from replay.replay_support import squid
from rows import each_row
from urlward import samples
from urlward.cli import main
from urlward.feeds.keeper import Keeper
from urlward.lists.build import find_key
from urlward.replay import cluster, run
from urlward.replay.formats import SQUID, URLS
from urlward.replay.run import Log, LogSource, open_logs

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.usefixtures("compiles_here")

ROOT = Path(__file__).parents[2]
LINES = [
    squid(f"http://{'exact' if n % 7 == 0 else f'h{n % 900}'}.test/{n}") if n % 50 else "junk"
    for n in range(6_000)
]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


def test_parts_have_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for data in (TEXT, TEXT[:-1], b"\n\n" + TEXT, b"x" * 300 + b"\n" + TEXT[:1000], b"one line alone"):
        path.write_bytes(data)
        for size in (1, 7, 100, 4_096, len(data), len(data) + 9) if len(data) < 3_000 else (997, 50_000):
            parts = [(at, min(at + size, len(data))) for at in range(0, len(data), size)]
            read = [b"".join(iter(LogSource(path, part).read, b"")) for part in parts]
            assert b"".join(read) == data
            for one in [one for one in read if one][:-1]:
                assert one.endswith(b"\n")


@each_row("pack", [gzip.compress, zstd.compress])
@each_row("cut", [997, 20_000, 70_001])
def test_parts_of_a_compressed_log_have_each_line_once(tmp_path: Path, pack: Any, cut: int) -> None:
    # Members that end within lines, and one that is a part of one line.
    texts = [TEXT[i : i + cut] for i in range(0, len(TEXT), cut)] + [b"half of ", b"a", b" line", b"\nend\n"]
    members = [pack(text) for text in texts]
    data, whole = b"".join(members), b"".join(texts)
    path = tmp_path / "log.gz"
    path.write_bytes(data)
    for size in (613, len(data) // 3 + 1, len(data)):
        parts = [(at, min(at + size, len(data))) for at in range(0, len(data), size)]
        read = [b"".join(iter(LogSource(path, part).read, b"")) for part in parts]
        assert b"".join(read) == whole
        assert sum(map(bool, read)) > 1 or size == len(data) or len(members) == 1


def test_what_only_looks_like_a_member_is_none(tmp_path: Path) -> None:
    text = os.urandom(3_000)
    data = gzip.compress(b"\x1f\x8b\x08\0" * 500 + text, 0) + gzip.compress(b"\nlast\n")
    (tmp_path / "log.gz").write_bytes(data)
    parts = [(at, min(at + 100, len(data))) for at in range(0, len(data), 100)]
    read = [b"".join(iter(LogSource(tmp_path / "log.gz", part).read, b"")) for part in parts]
    assert b"".join(read) == b"\x1f\x8b\x08\0" * 500 + text + b"\nlast\n"


def test_a_log_whose_lines_may_hold_line_ends_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PIECE", 100)
    monkeypatch.setattr(cluster, "PACKED_PIECE", 10)
    path = Path("log")
    assert [piece.part for piece in cluster.pieces_of(Log(path, SQUID, 250), 1)] == [
        (0, 100), (100, 200), (200, 250),
    ]  # fmt: skip
    assert len(cluster.pieces_of(Log(path, SQUID, 95, packed=True), 1)) == 10
    assert [
        p.part for p in cluster.pieces_of(Log(path, run.detect(b"a,url\n1,http://x.test/\n", "x"), 250), 1)
    ] == [None]
    assert len(cluster.pieces_of(Log(path, URLS, 100), 1)) == 1


@contextmanager
def process(*command: str, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'addon'}",
        "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "1h",
    }
    with (folder / "log.txt").open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, cwd=folder, stdout=log, stderr=log
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@contextmanager
def worker(address: str, folder: Path, name: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = (
        "distributed.cli.dask_worker", address, "--name", name, "--nthreads", "1", "--no-dashboard",
        "--no-nanny", "--local-directory", str(folder / name),
    )  # fmt: skip
    with process(*command, folder=folder) as one:
        yield one


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder, port = tmp_path_factory.mktemp("dask"), free_port()
    command = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    with process(*command, folder=folder):
        yield f"tcp://127.0.0.1:{port}", folder


@pytest.fixture(scope="module")
def two(scheduler: tuple[str, Path]) -> Iterator[str]:
    address, folder = scheduler
    with worker(address, folder, "one"), worker(address, folder, "two"):
        wait_for_workers(address, 2)
        yield address


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    deadline = time.monotonic() + 60
    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=max(deadline - time.monotonic(), 1))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(["lab", "replay", *arguments])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Traceback" not in said
    return said


@pytest.mark.ours
def test_nothing_waits_for_a_cluster_without_workers(
    scheduler: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scheduler's first test: those below give it workers."""
    log = tmp_path / "a.log"
    log.write_bytes(TEXT)
    assert "the cluster has no worker" in refused(capsys, "--cluster", scheduler[0], str(log))


def figures(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output)
    for name in ("made", "seconds", "took", "lists"):  # a serial is the second that a list was compiled in
        found.pop(name, None)
    return found


def replayed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit, match="0"):
        main(["lab", "replay", "--json", *arguments])
    return figures(capsys.readouterr().out)


def replayed_while_one_dies(
    address: str, log: Path, dies: "subprocess.Popen[bytes]", then: Callable[[], object] | None = None
) -> run.Replay:
    """Replay on a cluster, of which a worker is killed behind the fifth piece, with more that it has done."""
    killed: list[int] = []

    def progress(text: str, _: float) -> None:
        if not killed and "piece 5 " in text:
            done = client.futures.values()
            wait_for(lambda: sum(one.status == "finished" for one in done) > 6, "more pieces")
            dies.send_signal(signal.SIGKILL)
            killed.append(dies.wait())
            if then is not None:  # without another worker, all is lost
                wait_for(lambda: not any(one.status == "finished" for one in done), "the loss")
        elif then is not None and "piece 6 " in text:
            then()

    keeper = Keeper([samples.SAMPLE], find_key(None, [samples.SAMPLE]))
    keeper.load()
    with cluster.connected(address) as client:
        done = cluster.replay_on(client, open_logs([log]), keeper.matcher.lists, progress=progress)
    assert killed == [-signal.SIGKILL]
    return done


@pytest.mark.ours
def test_lists_that_no_worker_has_any_more_are_sent_again(
    scheduler: tuple[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dask leaves what it is sent on one worker; with that one's end the replay ended."""
    address, folder = scheduler
    monkeypatch.setattr(cluster, "PIECE", 20_000)
    (tmp_path / "a.log").write_bytes(TEXT)
    here = replayed(capsys, str(tmp_path / "a.log"))
    with ExitStack() as workers:
        first = workers.enter_context(worker(address, folder, "first"))
        wait_for_workers(address, 1)
        done = replayed_while_one_dies(
            address,
            tmp_path / "a.log",
            first,
            lambda: workers.enter_context(worker(address, folder, "second")),
        )
    assert (done.tally.requests, done.tally.blocked) == (here["requests"], here["blocked"])


def test_the_report_is_the_same(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PIECE", 40_000)
    monkeypatch.setattr(cluster, "PACKED_PIECE", 9_000)
    (tmp_path / "a.log").write_bytes(TEXT)
    (tmp_path / "b.log.gz").write_bytes(gzip.compress(TEXT[:100_000]) + gzip.compress(TEXT[100_000:]))
    (tmp_path / "c.csv").write_text("id,url\n" + "".join(f'{n},"http://exact.test/{n}"\n' for n in range(50)))
    logs = [str(tmp_path / name) for name in ("a.log", "b.log.gz", "c.csv")]
    here = replayed(capsys, *logs)
    assert here["blocked"] > 100
    assert here["not_judged"]["not a line of Squid's"]["first"][1] == {"log": 1, "line": 51}
    assert replayed(capsys, "--cluster", two, *logs) == here
    assert replayed(capsys, f"file://{tmp_path}/*.log", *logs[1:]) == here
    assert (
        replayed(capsys, "--cluster", two, str(tmp_path / "a.l*"), f"file://{tmp_path}/b.log.gz", logs[2])
        == here
    )


@pytest.mark.ours
def test_a_worker_that_is_killed_changes_nothing(
    two: str,
    scheduler: tuple[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, folder = scheduler
    monkeypatch.setattr(cluster, "PIECE", 20_000)
    (tmp_path / "a.log").write_bytes(TEXT)
    here = replayed(capsys, str(tmp_path / "a.log"))
    with worker(two, folder, "victim") as victim:
        wait_for_workers(two, 3)
        done = replayed_while_one_dies(two, tmp_path / "a.log", victim)
        assert (done.tally.requests, done.tally.blocked) == (here["requests"], here["blocked"])
        assert done.logs[0].lines == len(LINES)
        assert done.tally.hosts.count == here["hosts"]["seen"]


@pytest.mark.ours
def test_what_is_wrong_is_one_line(
    scheduler: tuple[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, _ = scheduler
    log = tmp_path / "a.log"
    log.write_bytes(TEXT)
    monkeypatch.setattr(cluster, "CONNECT_WITHIN", 1.0)
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    assert f"{nowhere}: no scheduler of Dask answers there" in refused(capsys, "--cluster", nowhere, str(log))
    assert "no scheduler" in refused(capsys, "--cluster", "nonsense://", str(log))
    assert "standard input" in refused(capsys, "--cluster", address, "-")
    assert "--cluster or --workers" in refused(capsys, "--cluster", address, "--workers", "2", str(log))
    assert "missing: No such file" in refused(capsys, "--cluster", address, str(tmp_path / "missing"))
    assert "no such file" in refused(capsys, "--cluster", address, str(tmp_path / "*.none"))
    assert "nothing-like-it" in refused(capsys, "--cluster", address, "nothing-like-it://x/y")


@pytest.mark.ours
def test_a_log_that_only_this_machine_has(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(TEXT)
    gathered = cluster._gathered

    def gone(*arguments: Any) -> Any:
        log.unlink()
        return gathered(*arguments)

    monkeypatch.setattr(cluster, "_gathered", gone)
    assert "a.log: No such file or directory" in refused(capsys, "--cluster", two, str(log))


def test_a_url_where_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}/a.log"
    assert refused(capsys, url) == f"urlward: {url}: no such file, or nobody answers"


def test_what_a_library_says_of_a_url_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has errors of its own; they were said to be a bug of ours."""

    class NoCredentialsError(Exception):
        """As botocore has one."""

    def fails(*_: object, **__: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    log = tmp_path / "a.log"
    log.write_bytes(TEXT)
    url = log.as_uri()
    said = f"urlward: {url}: Unable to locate credentials"
    with monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.local.LocalFileOpener.seek", fails)
        assert refused(capsys, url) == said
    with monkeypatch.context() as patch:
        patch.setattr("fsspec.open_files", fails)
        assert refused(capsys, url) == said


def test_workers_have_no_lists_when_it_is_over(
    two: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They live on, and had them until another replay, with their keys."""
    from distributed import Client

    log = tmp_path / "a.log"
    log.write_bytes(TEXT)
    replayed(capsys, "--cluster", two, str(log))
    with Client(two, timeout=60, set_as_default=False) as client:
        assert list(client.run(lambda: len(cluster._loaded)).values()) == [0, 0]


def test_threads_of_a_worker_load_lists_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loaded all by itself: as many times the memory as a worker has threads."""
    loads, begun = [], threading.Event()

    def load(*_: Any, **__: Any) -> Any:
        loads.append(1)
        begun.wait(0.3)  # time enough for the others to begin as well

    monkeypatch.setattr(cluster, "load", load)
    monkeypatch.setattr(cluster, "Matcher", lambda _: object())
    task = cluster.Task("one", (cluster.SentList("a", b"", bytes(32), False),), 0.0, "log", b"")
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: cluster._matcher(task), range(4)))
    assert (len(loads), len(found)) == (1, 1)
    cluster.forget("one")
    assert cluster._loaded == {}
