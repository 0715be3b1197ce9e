"""``urlward lab``: the command line of the pilot lab; one function a subcommand."""

import argparse
from collections.abc import Callable
from typing import Any

from urlward.gateway.commands import Command
from urlward.gateway.lab.replay_commands import add_replay

type Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Declares a subcommand by its name, its function, which returns the exit code, and its help."""


def add_lab_commands(command: Command) -> None:
    """Declare it; what it needs is imported when it runs."""
    lab = command("lab", None, "A whole network on one machine, and what a list would have blocked.")
    commands = lab.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, function: Callable[[argparse.Namespace], Any], help_text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        sub.set_defaults(command=function)
        return sub

    for declare in (add_replay,):
        declare(add)
