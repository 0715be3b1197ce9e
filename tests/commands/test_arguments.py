import argparse
from pathlib import Path

import pytest

from urlward.commands.arguments import add_state_arguments, state_of, subcommand
from urlward.config import ConfigError


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
