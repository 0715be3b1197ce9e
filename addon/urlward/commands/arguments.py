"""Declarations that commands share: subcommands, exit codes, the state folder, and who calls."""

import argparse
import os
import pwd
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from urlward.config import SYSTEM, RecordsTable, configured
from urlward.engine.errors import UrlwardError
from urlward.options import given_path
from urlward.regular import write_new
from urlward.state.folder import state_folder

type Command = Callable[[str, Any, str], argparse.ArgumentParser]
"""Declares a command by its name, what runs it (None for one that has commands of its own), and its help."""

DONE, WRONG = 0, 1
"""Exit codes; an error is 2, which `urlward.cli` gives."""

_NO_LOGIN = 2**32 - 1


def spare(output: Path, *read: Path) -> None:
    """Refuse to overwrite what is read.

    Raises:
        UrlwardError: `output` is one of them.
    """
    for path in read:
        try:
            same = path.samefile(output)
        except OSError:
            same = path.absolute() == output.absolute()
        if same:
            raise UrlwardError(f"{output}: is read from, and would be overwritten")


def typed_url(argument: str) -> str:
    """Read a URL; ``-`` is standard input, which keeps a listed URL out of the shell's history, and out of
    process lists."""
    if argument != "-":
        return argument
    return sys.stdin.buffer.readline().decode(errors="surrogateescape").strip()


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
    sub.set_defaults(command=function, parser=sub)
    return sub


def state_subcommand(commands: Any, name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
    """Declare a command that has `add_state_arguments`. Arguments as of `subcommand`."""
    sub = subcommand(commands, name, function, help_text)
    add_state_arguments(sub)
    return sub


def add_state_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where configuration and state folder are; `state_of` takes the latter."""
    parser.add_argument("--config", type=given_path, metavar="FILE", help=f"TOML file ({SYSTEM})")
    parser.add_argument("--state", type=given_path, metavar="DIR", help="state folder (as configured)")


def state_of(args: argparse.Namespace) -> Path:
    """The state folder as given, or else as configured.

    Raises:
        ConfigError: the configuration cannot be used.
        StateError: nor the folder.
    """
    return args.state or state_folder(configured(args.config)[1].state)


def recorded(args: argparse.Namespace) -> tuple[RecordsTable, Path]:
    """The configuration's ``[records]``, and the state folder.

    Raises:
        UrlwardError: nothing is recorded.
    """
    path, config = configured(args.config)
    if config.records is None:
        from urlward.service.leftovers import unheeded

        told = [f"{path or 'no --config given'}: no [records]: nothing is recorded", *unheeded(config)]
        raise UrlwardError("; ".join(told))
    return config.records, state_folder(args.state or config.state)


def caller() -> str:
    """Name of the caller: the login that the kernel remembers through sudo and su, and the user ID."""
    uid = os.getuid()
    with suppress(OSError, ValueError):
        login = int(Path("/proc/self/loginuid").read_text())
        if login != _NO_LOGIN:
            return f"{_name(login)} (uid {uid})"
    # Only root can make others believe what sudo said.
    name = os.environ.get("SUDO_USER") if uid == 0 else None
    return f"{name if name and name.isprintable() else _name(uid)} (uid {uid})"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def write_new_file(path: Path, data: bytes) -> None:
    """Write a file that everybody may read and that is not there yet, and the folders above it.

    Raises:
        UrlwardError: it is there, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, data, 0o644)
    except OSError as e:
        raise UrlwardError(f"{path}: {e.strerror or e}") from e
