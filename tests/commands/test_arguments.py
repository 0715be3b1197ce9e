import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from rows import each_row
from urlward import cli
from urlward.commands.arguments import add_state_arguments, state_of, subcommand
from urlward.config import ConfigError
from urlward.options import given_number, given_path


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_state_arguments(subcommand(made.add_subparsers(required=True), "look", len, "Look."))
    return made


def test_a_command_has_what_runs_it(tmp_path: Path) -> None:
    parsed = parser().parse_args(["look", "--state", str(tmp_path)])
    assert parsed.command is len
    with pytest.raises(SystemExit):
        parser().parse_args(["look", "--sta", str(tmp_path)])


def test_the_state_folder_is_that_given_or_configured(tmp_path: Path) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text('state = "kept"\n')
    parse = parser().parse_args
    assert state_of(parse(["look", "--config", str(config)])) == tmp_path / "kept"
    assert state_of(parse(["look", "--config", str(config), "--state", "other"])) == Path("other")
    config.write_text("state = 5\n")
    with pytest.raises(ConfigError):
        state_of(parse(["look", "--config", str(config)]))


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from actions(sub)
        else:
            yield action


def test_no_path_may_be_empty() -> None:
    """As that of a variable which is not set: it would be the folder that the shell is in."""
    paths = [action for action in actions(cli._parser()) if action.type is given_path]
    assert len(paths) > 50
    assert not [action for action in actions(cli._parser()) if action.type is Path]
    for text, why in (
        ("", "it is empty"),
        ("-", "name a file"),
        ("https://a.example/b", "a URL, and a file"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=why):
            given_path(text)


def test_a_number_is_plain_digits() -> None:
    numbers = [action for action in actions(cli._parser()) if action.type is given_number]
    assert len(numbers) > 10
    assert not [action for action in actions(cli._parser()) if action.type is int]
    assert given_number("010") == 10
    for text in ("", "1_0", "+5", "-5", " 5", "\u0663", "\xb2", "0x5", "5.0", "9" * 5_000):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number"):
            given_number(text)


def test_a_bundle_needs_a_name_before_it_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["support", "-o", ""])
    assert raised.value.code == 2
    assert "argument -o/--output: it is empty" in capsys.readouterr().err


STATE_OF_NO_FILTER = (
    ("records", "purge"),
    ("records", "hold", "7Q4M-2XKD-93FH", "--until", "2999-01-01", "--why", "asked for"),
    ("records", "release", "7Q4M-2XKD-93FH", "--why", "done with"),
    ("objections", "grant", "x", "--why", "so"),
    ("objections", "decline", "x", "--why", "so"),
)


@each_row("state", ["", "mistyped"])
@each_row("command", STATE_OF_NO_FILTER)
def test_what_is_done_with_a_state_folder_is_not_done_with_another(
    command: tuple[str, ...],
    state: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text("[records.days]\nblocks = 30\noperations = 30\n")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(SystemExit) as raised:
        cli.main([*command, "--config", str(config), "--state", state])
    assert raised.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "argument --state: it is empty" in last or last == "urlward: mistyped: No such file or directory"
    assert not [*here.iterdir()]
