import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from urlward.config import Config, ConfigError, read_config
from urlward.config.problem import Problem, lines_of_keys
from urlward.config.sources import ConfigFile, Sources

# Each $ becomes a key of its own, and each % a table of its own.
PIECES = [
    "$ = 1\n",
    "$ = 'a # b' # $ = 2\n",
    '$ = "a \\" = # [x]"\n',
    '$ = """\na = 1\n[b]\n\\"""c""""\n',
    "$ = '''\na = 1\n[b]'''''\n",
    "$ . $ = 1979-05-27 07:32:00Z\n",
    "$ = [\n  1, # ]\n\n  [ 'a]', { $ = 1, $ . $ = [ ] } ],\n]\n",
    "$ = { $ = { $ = 'x' }, \"$\" = 2 }\n",
    '"$" = +inf\r\n',
    "'$' = []\n",
    "\n# comment [a]\n \t\n",
    "[%]\n",
    " [ % . '%' ] # x\n",
    "[[%]]\n$ = 1\n",
    "[[%.%]]\n",
    "[[several]]\n$ = {}\n",
    "[[several.deeper]]\n$ = 1\n",
    "[several.table]\n$ = 1\n",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_each_key_is_on_its_line(pieces: list[str]) -> None:
    text = "[[several]]\n"
    for piece in pieces:
        for n, letter in enumerate(piece):
            text += f"k{len(text)}_{n}k" if letter in "$%" else letter
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a table twice
    lines = lines_of_keys(text)
    found = dict(paths(data))
    assert found.keys() <= lines.keys()
    for path, name in found.items():
        if name.startswith("k"):
            assert lines[path] == text[: text.index(name)].count("\n") + 1


def paths(value: object, path: str = "", name: str = "") -> list[tuple[str, str]]:
    """Each key and index in a document: its place, and its own name."""
    inside: list[tuple[str, object]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = [(str(n), each) for n, each in enumerate(value)]
    here = [(path, name)] if path else []
    return here + [p for key, each in inside for p in paths(each, f"{path}.{key}".lstrip("."), key)]


@given(st.text(alphabet="ab=[]{}\"'\n.,# 1\\"))
@example("a=[}")
@example("a=[=1]")
@example("a={a=}}")
def test_what_is_no_toml_harms_nothing(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in lines_of_keys(text).values())


def test_several_elements_of_an_array_of_tables() -> None:
    lines = lines_of_keys('[[a]]\nx = 1\n[[a.b]]\n[[a.b]]\ny = [\n1,\n2]\n[[a]]\n[a."c.d"]\nz = 1\n')
    assert lines == {
        "a": 1, "a.0": 1, "a.0.x": 2, "a.0.b": 3, "a.0.b.0": 3, "a.0.b.1": 4, "a.0.b.1.y": 5,
        "a.0.b.1.y.0": 6, "a.0.b.1.y.1": 7, "a.1": 8, "a.1.c.d": 9, "a.1.c.d.z": 10,
    }  # fmt: skip


def test_problems_of_flags_and_of_no_file_have_no_place() -> None:
    problems = [Problem("status", "x"), Problem("--listen", "y", in_file=False), Problem("", "z")]
    made = Sources([ConfigFile(Path("u.toml"), b"status = 451\n")])
    assert made.refused(problems).lines == ("--listen: y", "u.toml: z", "u.toml:1: status: x")
    assert Config().refused(*problems[:1]).lines == ("status: x",)


def test_a_pipe_is_read_once() -> None:
    end, writing = os.pipe()
    os.write(writing, b"status = 451\nfoo = 1\n")
    os.close(writing)
    try:
        with pytest.raises(ConfigError) as refused:
            read_config(Path(f"/dev/fd/{end}"))
    finally:
        os.close(end)
    assert str(refused.value) == f"/dev/fd/{end}:2: foo: no such key"
