"""Edits of a configuration file's text."""

import tomllib
from collections.abc import Callable

import pytest

from rows import each_row
from urlward.config import ConfigError
from urlward.config.edit import add, change, remove

TEXT = """# head
list = ["a"]  # lists

# about one
[[feed]]
name = "one"   # its name
interval = '1h' # often
url = "https://a.example/"

# two
[[feed]]
name = "two"
path = "x"

[records.days]
blocks = 1

[[group]]
name = "g"
networks = [
  "192.0.2.0/24", # home
]
[[group.rule]]
action = "allow" # x
# tail of g
[[group]]
name = "h"
networks = ["198.51.100.0/24"]

[schedule.night]
zone = "UTC"
"""


@each_row(
    ("edit", "before", "after"),
    [
        (lambda t: change(t, ("feed", 0), {"interval": "2h"}), "'1h' # often", '"2h" # often'),
        (lambda t: change(t, ("feed", 0), {"interval": "1h"}), "", ""),
        (lambda t: change(t, ("feed", 0), {"paused": True}), 'a.example/"\n', 'a.example/"\npaused = true\n'),
        (lambda t: change(t, ("feed", 0), {"interval": None}), "interval = '1h' # often\n", ""),
        (lambda t: change(t, ("feed", 1), {"name": 'a"b'}), '"two"', r'"a\"b"'),
        (lambda t: change(t, ("group", 0), {"page": "p", "networks": ["10.0.0.0/8", "::/0"]}),
         '[\n  "192.0.2.0/24", # home\n]\n', '["10.0.0.0/8", "::/0"]\npage = "p"\n'),
        (lambda t: change(t, ("group", 0, "rule", 0), {"lists": ["one"]}), "# x\n", '# x\nlists = ["one"]\n'),
        (lambda t: add(t, ("feed",), {"name": "n", "columns": {"url": "U R L"}}),
         'zone = "UTC"\n', 'zone = "UTC"\n\n[[feed]]\nname = "n"\ncolumns = { url = "U R L" }\n'),
        (lambda t: add(t, ("group", 0, "rule"), {"action": "block"}),
         "# x\n# tail", '# x\n\n[[group.rule]]\naction = "block"\n\n# tail'),
        (lambda t: add(t, ("group", 1, "rule"), {"action": "block"}),
         '100.0/24"]\n\n', '100.0/24"]\n\n[[group.rule]]\naction = "block"\n\n'),
        (lambda t: add(t, ("schedule", "a b"), {"zone": "UTC"}),
         'zone = "UTC"\n', 'zone = "UTC"\n\n[schedule."a b"]\nzone = "UTC"\n'),
        (lambda t: remove(t, ("feed", 1)), '[[feed]]\nname = "two"\npath = "x"\n', ""),
        (lambda t: remove(t, ("group", 0, "rule", 0)), '[[group.rule]]\naction = "allow" # x\n', ""),
        (lambda t: remove(t, ("schedule", "night")), '\n[schedule.night]\nzone = "UTC"\n', "\n"),
    ],
)  # fmt: skip
def test_nothing_else_in_the_file_is_another(edit: Callable[[str], str], before: str, after: str) -> None:
    made = edit(TEXT)
    assert made == TEXT.replace(before, after).replace("\n\n\n", "\n\n") if before else made == TEXT


def test_the_last_of_an_array_takes_it_away() -> None:
    made = remove(remove(TEXT, ("feed", 0)), ("feed", 0))
    assert "feed" not in tomllib.loads(made)
    assert "# about one" in made
    assert "rule" not in tomllib.loads(remove(TEXT, ("group", 0, "rule", 0)))["group"][0]


@each_row("text", ["", "# nothing yet", "x = 1"])
def test_a_file_without_tables_gets_one(text: str) -> None:
    assert tomllib.loads(add(text, ("feed",), {"name": "n"}))["feed"] == [{"name": "n"}]


@each_row(
    "edit",
    [
        lambda: add('feed = [{ name = "a" }]\n[x]\n', ("feed",), {"name": "n"}),
        lambda: change('feed = [{ name = "a" }]\n', ("feed", 0), {"name": "n"}),
        lambda: remove('feed = [{ name = "a" }]\n', ("feed", 0)),
        lambda: change(
            '[[feed]]\nname="a"\n[feed.columns]\nurl="U"\n', ("feed", 0), {"columns": {"url": "V"}}
        ),
        lambda: change('[[feed]]\nname="a"\n', ("feed", 1), {"name": "n"}),
        lambda: remove('[[feed]]\nname="a"\n', ("feed", 1)),
    ],
)
def test_what_no_edit_knows_is_left_to_people(edit: Callable[[], str]) -> None:
    with pytest.raises(ConfigError, match=r"by hand|no such table"):
        edit()
