"""``urlward completion``: a script by which a shell completes commands, flags and paths.

shtab makes it from the parser. It is static: to complete a word starts no urlward, and urlward's start
imports nothing for it.
"""

import argparse
from collections.abc import Callable

from urlward.commands.arguments import DONE, Command

SHELLS = ("bash", "zsh", "fish")

_FOLDERS = frozenset(("DIR", "FOLDER"))
_FILES = frozenset(("FILE", "PATH", "SOURCE", "DELTA", "KEY", "LOG", "NEW", "OLD", "STATEMENT"))
"""What the help calls an argument that a path completes."""


def add_completion_command(command: Command, parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Declare ``urlward completion``.

    Args:
        command: declares it.
        parser: makes the parser of the whole command line.
    """

    def completion(args: argparse.Namespace) -> int:
        print(script(parser(), args.shell))
        return DONE

    completes = command("completion", completion, "Print a script by which a shell completes commands.")
    completes.add_argument("shell", choices=SHELLS)


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Script that completes for one of `SHELLS`."""
    import shtab

    _say_what_completes(parser)
    return str(shtab.complete(parser, shell))


def _say_what_completes(parser: argparse.ArgumentParser) -> None:
    """Mark, here and in all commands, the arguments that paths or topics complete."""
    import shtab

    from urlward.docs import topics

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _say_what_completes(sub)
        elif action.metavar == "TOPIC":
            action.choices = list(topics())
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
