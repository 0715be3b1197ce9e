"""Declarations that commands share: subcommands, exit codes, and where the state folder is."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from urlward.config import SYSTEM, configured
from urlward.state.folder import state_folder

type Command = Callable[[str, Any, str], argparse.ArgumentParser]
"""Declares a command by its name, what runs it (None for one that has commands of its own), and its help."""

DONE, WRONG = 0, 1
"""Exit codes; an error is 2, which `urlward.cli` gives."""


def subcommand(commands: Any, name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
    """Declare a command.

    Args:
        commands: what `argparse` gives for a parser's commands.
        name: of this one.
        function: takes the arguments and gives the exit code.
        help_text: a sentence.
    """
    sub: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text, allow_abbrev=False
    )
    sub.set_defaults(command=function)
    return sub


def state_subcommand(commands: Any, name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
    """Declare a command that has `add_state_arguments`. Arguments as of `subcommand`."""
    sub = subcommand(commands, name, function, help_text)
    add_state_arguments(sub)
    return sub


def add_state_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where configuration and state folder are; `state_of` takes the latter."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"TOML file ({SYSTEM})")
    parser.add_argument("--state", type=Path, metavar="DIR", help="state folder (as configured)")


def state_of(args: argparse.Namespace) -> Path:
    """The state folder as given, or else as configured.

    Raises:
        ConfigError: the configuration cannot be used.
        StateError: nor the folder.
    """
    return args.state or state_folder(configured(args.config)[1].state)
