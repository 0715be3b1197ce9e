import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import wait_for
from gateway.lab.replay_support import NOW, sample, squid
from urlward.gateway.lab.errors import LabError
from urlward.gateway.lab.replay_check import Judge
from urlward.gateway.lab.replay_formats import Spec
from urlward.gateway.lab.replay_lines import Squid
from urlward.gateway.lab.replay_pool import Pool
from urlward.gateway.lab.replay_read import BLOCK

SPEC = Spec("squid")
BLOCKED = f"{squid('http://exact.test/')}\n".encode()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    fds = open_files()
    yield
    assert multiprocessing.active_children() == []
    assert open_files() <= fds + 1  # multiprocessing keeps one of its own


@pytest.mark.parametrize("workers", [1, 3])
def test_all_blocks_are_counted(workers: int) -> None:
    with Pool(Judge(sample(), NOW), workers) as pool:
        for number in range(50):
            pool.judge(SPEC, BLOCKED * 10 + b"junk\n", 1, 11 * number + 1)
        pool.judge(Spec("urls"), b"http://unlisted.test/\n", 2, 1)
        tally = pool.finish()
    assert (tally.lines, tally.requests, tally.blocked, tally.not_judged) == (551, 501, 500, 50)
    assert tally.bad["not a line of Squid's"].first == [(1, line) for line in (11, 22, 33, 44, 55)]
    assert (tally.clients.count, tally.hosts.count) == (1, 2)


def test_a_block_of_all_sizes() -> None:
    with Pool(Judge(sample(), NOW), 1) as pool:
        whole = BLOCKED * (BLOCK // len(BLOCKED))
        pool.judge(SPEC, whole + b"\n" * (BLOCK - len(whole)), 1, 1)
        pool.judge(SPEC, BLOCKED, 1, 1)
        assert pool.finish().blocked == BLOCK // len(BLOCKED) + 1


def test_nothing_to_do() -> None:
    with Pool(Judge(sample(), NOW), 2) as pool:
        assert pool.finish().lines == 0


def test_a_process_that_dies_is_told() -> None:
    with Pool(Judge(sample(), NOW), 2) as pool:
        victim = multiprocessing.active_children()[0]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        with pytest.raises(LabError, match="a process that judges lines was ended by signal 9"):
            judge_many(pool)


def judge_many(pool: Pool) -> None:
    for _ in range(100_000):
        pool.judge(SPEC, BLOCKED, 1, 1)


def test_one_that_dies_at_the_end_too() -> None:
    with Pool(Judge(sample(), NOW), 1) as pool:
        (victim,) = multiprocessing.active_children()
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        with pytest.raises(LabError, match="signal 9"):
            pool.finish()


def test_all_that_die_too() -> None:
    with Pool(Judge(sample(), NOW), 2) as pool:
        for victim in multiprocessing.active_children():
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
        with pytest.raises(LabError, match="signal 9"):
            pool.judge(SPEC, BLOCKED, 1, 1)


def test_ctrl_c_is_left_to_whoever_began_them() -> None:
    with Pool(Judge(sample(), NOW), 2) as pool:
        for process in multiprocessing.active_children():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
        pool.judge(SPEC, BLOCKED, 1, 1)
        assert pool.finish().blocked == 1


def test_a_bug_is_told_without_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Squid, text: str) -> None:
        raise TypeError(text)

    monkeypatch.setattr(Squid, "columns", broken)
    with Pool(Judge(sample(), NOW), 1) as pool:
        pool.judge(SPEC, BLOCKED, 1, 1)
        with pytest.raises(LabError) as raised:
            pool.finish()
    assert str(raised.value).startswith("a bug: TypeError at test_replay_pool.py:")
    assert "exact.test" not in str(raised.value)


def test_they_end_with_whoever_began_them() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        pool = Pool(Judge(sample(), NOW), 3)
        pool.judge(SPEC, BLOCKED, 1, 1)
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
