import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from urlward.state.watch import SETTLE, Signature, Watch, being_written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a.example\n")
    return path


@pytest.fixture
def watch(path: Path) -> Watch:
    return Watch(path, Signature.of(path))


@pytest.fixture
def default_sigio() -> Iterator[None]:
    before = signal.signal(signal.SIGIO, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGIO, before)


def replace(path: Path, text: str) -> None:
    beside = path.with_name("new")
    beside.write_text(text)
    beside.replace(path)


class TestSignature:
    def test_none_without_a_file(self, path: Path) -> None:
        assert Signature.of(path) == Signature.of(path)
        path.unlink()
        assert Signature.of(path) is None
        assert Signature.of(path / "below") is None

    def test_a_file_in_its_place_is_another_though_it_looks_the_same(self, path: Path) -> None:
        before = Signature.of(path)
        assert before is not None
        beside = path.with_name("new")
        beside.write_bytes(path.read_bytes())
        os.utime(beside, ns=(before.modified, before.modified))
        beside.replace(path)
        assert Signature.of(path) != before

    def test_a_link_that_points_elsewhere(self, path: Path) -> None:
        other, link = path.with_name("other"), path.with_name("link")
        other.write_text("b.example\n")
        link.symlink_to(path)
        before = Signature.of(link)
        link.unlink()
        link.symlink_to(other)
        assert Signature.of(link) != before


class TestChanged:
    def test_never_where_nothing_changes(self, watch: Watch) -> None:
        assert watch.changed() is None

    def test_at_once_and_until_it_is_acted_on(self, watch: Watch) -> None:
        replace(watch.path, "b.example\n")
        signature = watch.changed()
        assert signature == watch.changed() == Signature.of(watch.path)
        watch.seen = signature
        assert watch.changed() is None


class TestVanished:
    def test_told_once(self, watch: Watch) -> None:
        assert not watch.vanished(1)
        watch.path.unlink()
        assert [watch.vanished(now) for now in (2, 3, 4, 5)] == [False, True, False, False]
        assert watch.changed() is None

    def test_told_again_where_it_goes_again(self, watch: Watch) -> None:
        for start in (10, 20):
            watch.path.unlink()
            assert [watch.vanished(start + i) for i in range(3)] == [False, True, False]
            watch.path.write_text("a.example\n")
            assert not watch.vanished(start + 5)

    def test_a_moment_without_a_file_is_not_told(self, watch: Watch) -> None:
        for now in range(10, 20):
            watch.path.unlink()
            assert not watch.vanished(now)
            watch.path.write_text("a.example\n")
            assert not watch.vanished(now + SETTLE / 2)

    def test_the_same_file_come_back_is_looked_at(self, watch: Watch) -> None:
        kept = watch.path.with_name("kept")
        watch.path.rename(kept)
        watch.vanished(1)
        assert watch.vanished(2)
        kept.rename(watch.path)
        assert watch.changed() is not None


class TestBeingWritten:
    def test_while_it_is_open_for_writing(self, path: Path) -> None:
        assert not being_written(path)
        with path.open("r+"):
            assert being_written(path)
        assert not being_written(path)

    def test_by_another_process(self, path: Path) -> None:
        holds = "import sys; f = open(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", holds, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"\n"
            assert being_written(path)
            writer.communicate()
        assert not being_written(path)

    def test_readers_do_not_count(self, path: Path) -> None:
        with path.open("rb"):
            assert not being_written(path)

    def test_no_lease_is_left_behind(self, path: Path) -> None:
        assert not being_written(path)
        with path.open("rb") as file:
            assert fcntl.fcntl(file, fcntl.F_GETLEASE) == fcntl.F_UNLCK

    def test_false_where_it_cannot_be_told(self, path: Path) -> None:
        path.unlink()
        assert not being_written(path)
        assert not being_written(path.parent)
        os.mkfifo(path)
        assert not being_written(path)

    def test_the_signal_of_a_broken_lease_does_not_kill(self, path: Path, default_sigio: None) -> None:
        with path.open("r+"):
            assert being_written(path)
        assert signal.getsignal(signal.SIGIO) is signal.SIG_IGN

    def test_a_thread_leaves_signals_and_leases_alone(self, path: Path, default_sigio: None) -> None:
        found: list[bool] = []
        with path.open("r+"):
            thread = threading.Thread(target=lambda: found.append(being_written(path)))
            thread.start()
            thread.join()
        assert found == [False]
        assert signal.getsignal(signal.SIGIO) is signal.SIG_DFL
