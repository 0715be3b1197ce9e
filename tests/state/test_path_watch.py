import os
import subprocess
import sys
import threading
from pathlib import Path

from urlward.state.path_watch import PATIENCE, UNSETTLED, PathWatch


def settled(watch: PathWatch) -> bool:
    """Whether it speaks up within two looks."""
    return watch.changed() or watch.changed()


def acted(watch: PathWatch) -> bool:
    found = settled(watch)
    watch.acted()
    return found


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "list"
    watch = PathWatch(path)
    path.write_text("a")
    assert not watch.changed()
    assert watch.changed()
    watch.acted()
    assert not settled(watch)
    path.write_text("ab")
    assert acted(watch)
    with path.open("a") as writer:
        writer.write("c")
        writer.flush()
        assert not settled(watch)
    assert acted(watch)
    path.unlink()
    assert acted(watch)
    assert not settled(watch)


def test_a_path_that_cannot_be_looked_at(tmp_path: Path) -> None:
    path, beside = tmp_path / "list", tmp_path / "beside"
    path.write_text("a")
    watch = PathWatch(path)
    assert acted(watch)
    beside.symlink_to("a" * 300)  # longer than a name may be
    beside.replace(path)
    assert acted(watch)
    assert not settled(watch)
    beside.write_text("b")
    beside.replace(path)
    assert acted(watch)


def test_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    watch = PathWatch(folder)
    (folder / "kind").mkdir(parents=True)
    (folder / "kind/domains").write_text("a.example\n")
    assert acted(watch)
    assert not settled(watch)
    (folder / "kind/urls").write_text("a.example/b\n")
    assert acted(watch)
    (folder / "kind/urls").write_text("a.example/bc\n")
    assert acted(watch)


def test_a_path_that_never_settles_is_read_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "list"
    watch = PathWatch(path)
    found = []
    for second in range(round(2.5 * UNSETTLED)):
        path.write_text("a" * (second + 1))
        if watch.changed(second):
            found.append(second)
            watch.acted()
    assert found == [UNSETTLED, 2 * UNSETTLED + 1]


def test_each_further_change_starts_the_wait_anew(tmp_path: Path) -> None:
    path = tmp_path / "list"
    watch = PathWatch(path)
    for step in range(20):
        path.write_text("a" * (step + 1))
        assert not watch.changed(0.2 * step)
    assert watch.changed(4.0)
    assert watch.changed(4.2), "until it is acted on"
    watch.acted()
    assert not watch.changed(4.4)


def test_a_change_that_is_taken_back_is_none(tmp_path: Path) -> None:
    path, kept = tmp_path / "list", tmp_path / "kept"
    path.write_text("a")
    watch = PathWatch(path)
    watch.acted()
    path.rename(kept)
    path.write_text("b")
    assert not watch.changed()
    kept.rename(path)
    assert not settled(watch)
    watch.acted_too_soon()
    assert settled(watch), "what was not to be read is looked at again"


def test_a_writer_that_never_closes_is_spoken_of_once(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("a")
    watch = PathWatch(path)
    watch.acted()
    with path.open("a"):
        assert not any(watch.changed(now) or watch.is_kept_open(now) for now in range(40)), "nothing changes"
    with path.open("a") as writer:
        writer.write("b")
        writer.flush()
        told = []
        for now in range(100, 200):
            assert not watch.changed(now)
            if watch.is_kept_open(now):
                told.append(now)
    assert told == [100 + 1 + PATIENCE + 1]
    assert watch.changed(200)
    watch.acted()
    assert not watch.is_kept_open(300)


def test_whether_it_has_changed_since(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("a")
    watch = PathWatch(path)
    watch.acted()
    assert watch.is_as_acted()
    path.write_text("ab")
    assert not watch.is_as_acted()


def test_a_look_that_hangs_keeps_no_process_from_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hangs")
    code = (
        "import asyncio, sys, threading\n"
        "from pathlib import Path\n"
        "from urlward.state.path_watch import PathWatch\n"
        "async def main():\n"
        "    path, begun = Path(sys.argv[1]), threading.Event()\n"
        "    watch = PathWatch(path)\n"
        "    watch.aside(lambda: (begun.set(), path.read_bytes()))\n"
        "    begun.wait()\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "hangs"], check=True, timeout=60)


async def test_the_thread_of_looks_ends_with_the_watches(tmp_path: Path) -> None:
    watch = PathWatch(tmp_path / "a")
    (thread,) = {
        await watch.aside(threading.current_thread),
        await PathWatch(tmp_path / "b").aside(threading.current_thread),
    }
    assert thread.is_alive()
    del watch
    thread.join(60)
    assert not thread.is_alive()
