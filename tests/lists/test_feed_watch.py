from pathlib import Path

from urlward.lists.feed_watch import PathWatch
from urlward.lists.files import UNSETTLED


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
