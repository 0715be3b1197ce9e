"""Files that a configuration includes."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from urlward.config import ConfigError, config_of, read_config, sources
from urlward.config.sources import Sources, read_sources
from urlward.regular import open_given

MAIN = (
    'include = ["more/feeds.toml", "own.toml"]\nlist = ["a.txt"]\n[[feed]]\nname = "one"\npath = "one.txt"\n'
)
MORE = """list = ["b.txt"]
[[feed]]
name = "two"
path = "two.txt"
[[rule]]
action = "monitor"
schedule = "night.shift"
[schedule."night.shift"]
zone = "UTC"
[pages.school]
template_dir = "templates"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/feeds.toml").write_text(MORE)
    path = tmp_path / "urlward.toml"
    path.write_text(MAIN)
    return path


def lines(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        read_config(path)
    return tuple(line.replace(f"{path.parent}/", "") for line in refused.value.lines)


def test_all_is_as_of_one_file_and_names_are_from_each_files_folder(path: Path) -> None:
    folder = path.parent
    config = read_config(path)
    assert config.list == (str(folder / "a.txt"), str(folder / "more/b.txt"))
    assert [(feed.name, feed.path) for feed in config.feed] == [
        ("one", str(folder / "one.txt")),
        ("two", str(folder / "more/two.txt")),
    ]
    assert config.rule[0].schedule in config.schedule
    assert config.pages["school"].template_dir == str(folder / "more/templates")


def test_the_last_file_may_be_missing_and_no_other(path: Path) -> None:
    read_config(path)
    (path.parent / "own.toml").write_text('[[feed]]\nname = "three"\npath = "3.txt"\n')
    assert [feed.name for feed in read_config(path).feed] == ["one", "two", "three"]
    (path.parent / "more/feeds.toml").unlink()
    assert lines(path) == ("more/feeds.toml: No such file or directory",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[feed]]\nname = "x"\npath = "x"\ninterval = "1"\n', "own.toml:4: feed.0.interval: "),
        ('[[rule]]\naction = "block"\nschedule = "no"\n', "own.toml:3: rule.0.schedule: there is no [sch"),
        ('[schedule."night.shift"]\nzone = "UTC"\n', 'own.toml:1: schedule.night.shift: in more/feeds'),
        ('[schedule.a]\nzone = "Nowhere"\n', "own.toml:2: schedule.a.zone: no such time zone"),
        (
            '[[rule]]\nlists = ["a"]\naction = "allow"\n[[rule]]\nlists = ["a"]\naction = "block"\n',
            "own.toml:4: rule.1: never reached, since rule.0 fits",
        ),
        (
            '[[rule]]\naction = "block"\nschedule = "night.shift"\n',
            "own.toml:1: rule.0: never reached, since rule.0 of more/feeds.toml fits",
        ),
        ("\nstatus = 403\n", "own.toml:2: status: not of an included file, which has list, feed"),
        ("include = []\n", "own.toml:1: include: not of an included file"),
        ("feed = 1\n", "own.toml:1: feed: input should be an array"),
        ("pages = 1\n", "own.toml:1: pages: input should be a table"),
        ("x = \n", "own.toml:1: not TOML: "),
        ("list = [1]\n", "own.toml:1: list.0: input should be text, in quotes"),
    ],
)  # fmt: skip
def test_problems_are_told_of_the_file_that_they_stand_in(path: Path, text: str, told: str) -> None:
    (path.parent / "own.toml").write_text(text)
    (line,) = lines(path)
    assert line.startswith(told)


def test_problems_of_several_files_in_their_order(path: Path) -> None:
    (path.parent / "own.toml").write_text('[[feed]]\nname = "x"\n')
    path.write_text(MAIN + "intervall = 1\n")
    assert [line.partition(": ")[0] for line in lines(path)] == ["urlward.toml:6", "own.toml:1"]


@pytest.mark.parametrize("names", ['["urlward.toml"]', '["x.toml", "./x.toml"]'])
def test_no_file_is_read_twice(path: Path, names: str) -> None:
    (path.parent / "x.toml").touch()
    path.write_text(f"include = {names}\n")
    assert lines(path)[0].endswith(": read already")


@pytest.mark.parametrize(
    "value", ["1", "[1]", '[""]', '"x.toml"', '["more"]', '["*.toml"]', '["more/[a].toml"]']
)
def test_what_names_no_files_is_refused(path: Path, value: str) -> None:
    path.write_text(f"include = {value}\n")
    assert lines(path)[0].startswith(("urlward.toml:1: include", "urlward.toml: include.0: "))


@pytest.fixture
def filter_has(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Makes a text that which is in force."""
    from urlward.config import sources

    def give(text: bytes) -> None:
        fd = os.memfd_create("test")
        os.write(fd, text)
        sources._in_force.cache_clear()
        monkeypatch.setenv(sources.IN_FORCE, str(fd))

    yield give
    sources._in_force.cache_clear()


def test_what_is_in_force_is_all_files_as_they_were(path: Path, filter_has: Callable[[bytes], None]) -> None:
    before = read_config(path)
    filter_has(before.text)
    path.write_text(MAIN.replace('"one"', '"other"'))
    (path.parent / "more/feeds.toml").unlink()
    (path.parent / "own.toml").write_text("[[feed]]\n")
    assert read_config(path) == before


@pytest.mark.parametrize("text", ["status = 403\n", "[records.days]\nblocks = 1\noperations = 1\n"])
def test_a_filter_from_before_has_one_text(
    path: Path, filter_has: Callable[[bytes], None], text: str
) -> None:
    """Its supervisor replaces a worker after an upgrade, before it is reloaded."""
    path.write_text(text)
    before = read_config(path)
    filter_has(text.encode())
    path.write_text("status = 451\n")
    assert read_config(path) == before


def test_a_text_in_place_of_a_files_is_checked_before_it_is_written(path: Path) -> None:
    read = read_sources(path)
    changed = [
        each if n != 2 else each._replace(data=b"[[feed]]\nname = 'x'\n") for n, each in enumerate(read.files)
    ]
    with pytest.raises(ConfigError, match=r"own\.toml:1: feed\.0: "):
        config_of(Sources(changed))
    assert not (path.parent / "own.toml").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
@pytest.mark.parametrize("may_look", [True, False])
def test_a_file_that_only_its_owner_may_read_says_who_that_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, may_look: bool
) -> None:
    """As whoever has no business in the service's folder meets it, with the configuration of a package."""
    own, stat = path.parent / "kept/own.toml", os.stat
    own.parent.mkdir()
    own.touch()
    os.chown(own if may_look else own.parent, 65_534, 65_534)
    path.write_text('include = ["kept/own.toml"]\n')

    def refuse(asked: Path) -> BinaryIO:
        if asked == own:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), asked)
        return open_given(asked)

    def refuse_look(asked: Any, **how: Any) -> os.stat_result:
        if asked == own and not may_look:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), asked)
        return stat(asked, **how)

    monkeypatch.setattr(sources, "open_given", refuse)
    monkeypatch.setattr(os, "stat", refuse_look)
    (line,) = lines(path)
    assert line == (
        "kept/own.toml: Permission denied: urlward.toml includes it, so only root or nobody can use that "
        "configuration here"
    )
