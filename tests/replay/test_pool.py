import errno
import gc
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest

from conftest import wait_for
from replay.replay_support import NOW, sample, squid
from urlward.engine.errors import UrlwardError
from urlward.replay.formats import SQUID, URLS, LogFormat
from urlward.replay.judge import LogJudge
from urlward.replay.run import BLOCK, JudgePool

BLOCKED = f"{squid('http://exact.test/')}\n".encode()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    fds = open_files()
    yield
    gc.collect()  # an error that was raised may still hold on to a pool
    assert multiprocessing.active_children() == []
    assert open_files() <= fds + 1  # multiprocessing keeps one of its own


@pytest.mark.parametrize("workers", [1, 3])
def test_all_blocks_are_counted(workers: int) -> None:
    with JudgePool(LogJudge(sample(), NOW), workers) as pool:
        for number in range(50):
            pool.judge(SQUID, BLOCKED * 10 + b"junk\n", 1, 11 * number + 1)
        pool.judge(URLS, b"http://unlisted.test/\n", 2, 1)
        tally = pool.finish()
    assert (tally.lines, tally.requests, tally.blocked, tally.not_judged) == (551, 501, 500, 50)
    assert tally.bad["not a line of Squid's"][1] == [(1, line) for line in (11, 22, 33, 44, 55)]
    assert (tally.clients.count, tally.hosts.count) == (1, 2)


def test_a_block_of_all_sizes() -> None:
    with JudgePool(LogJudge(sample(), NOW), 1) as pool:
        whole = BLOCKED * (BLOCK // len(BLOCKED))
        pool.judge(SQUID, whole + b"\n" * (BLOCK - len(whole)), 1, 1)
        pool.judge(SQUID, BLOCKED, 1, 1)
        assert pool.finish().blocked == BLOCK // len(BLOCKED) + 1


def test_nothing_to_do() -> None:
    with JudgePool(LogJudge(sample(), NOW), 2) as pool:
        assert pool.finish().lines == 0


def test_no_process_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    start, starts = ForkProcess.start, iter([True, False])

    def first_only(process: ForkProcess) -> None:
        if not next(starts):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        start(process)

    monkeypatch.setattr(ForkProcess, "start", first_only)
    with pytest.raises(UrlwardError, match="no process to judge lines in: Resource temporarily unavailable"):
        JudgePool(LogJudge(sample(), NOW), 3)


def test_a_process_that_dies_is_told() -> None:
    with JudgePool(LogJudge(sample(), NOW), 2) as pool:
        victim = multiprocessing.active_children()[0]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        with pytest.raises(UrlwardError, match="a process that judges lines was ended by signal 9"):
            judge_many(pool)


def judge_many(pool: JudgePool) -> None:
    for _ in range(100_000):
        pool.judge(SQUID, BLOCKED, 1, 1)


def test_one_that_dies_at_the_end_too() -> None:
    with JudgePool(LogJudge(sample(), NOW), 1) as pool:
        (victim,) = multiprocessing.active_children()
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGSTOP)  # or it could have judged all that there is before it dies
        pool.judge(SQUID, BLOCKED, 1, 1)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        with pytest.raises(UrlwardError, match="signal 9"):
            pool.finish()


def test_all_that_die_too() -> None:
    with JudgePool(LogJudge(sample(), NOW), 2) as pool:
        for victim in multiprocessing.active_children():
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
        with pytest.raises(UrlwardError, match="signal 9"):
            pool.judge(SQUID, BLOCKED, 1, 1)


def test_ctrl_c_is_left_to_whoever_began_them() -> None:
    with JudgePool(LogJudge(sample(), NOW), 2) as pool:
        for process in multiprocessing.active_children():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
        pool.judge(SQUID, BLOCKED, 1, 1)
        assert pool.finish().blocked == 1


def test_a_bug_is_told_without_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: LogFormat, text: str) -> None:
        raise TypeError(text)

    monkeypatch.setattr(LogFormat, "columns", broken)
    with JudgePool(LogJudge(sample(), NOW), 1) as pool:
        pool.judge(SQUID, BLOCKED, 1, 1)
        with pytest.raises(UrlwardError) as raised:
            pool.finish()
    assert str(raised.value).startswith("a bug: TypeError at test_pool.py:")
    assert "exact.test" not in str(raised.value)


def test_they_end_with_whoever_began_them() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        pool = JudgePool(LogJudge(sample(), NOW), 3)
        pool.judge(SQUID, BLOCKED, 1, 1)
        os.write(writing, b".")
        signal.pause()
    os.close(writing)
    assert os.read(reading, 1) == b"."
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    # The processes have the pipe's other end open as long as they live.
    os.set_blocking(reading, False)
    ended = []

    def all_ended() -> bool:
        try:
            ended.append(os.read(reading, 1))
        except BlockingIOError:
            return False
        return True

    wait_for(all_ended, "the processes to end")
    os.close(reading)
    assert ended == [b""]
