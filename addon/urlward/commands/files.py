"""``urlward files``: what is shipped beside the program, written into a folder."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from urlward.commands.arguments import DONE, Command, write_new_file
from urlward.engine.errors import UrlwardError
from urlward.options import given_path


def add_files_command(command: Command) -> None:
    """Declare ``urlward files``; what it needs is imported when it runs."""
    files = command(
        "files",
        _files,
        "Write what is shipped: an example configuration, lists, units, hooks, rules for monitoring.",
    )
    files.add_argument(
        "folder", type=given_path, metavar="DIR", help="folder to write into; nothing is overwritten"
    )
    files.add_argument(
        "--command",
        type=given_path,
        dest="program",
        metavar="FILE",
        help="urlward as the units start it (this one)",
    )


def _files(args: argparse.Namespace) -> int:
    for path in write_files(args.folder, args.program):
        print(path)
    return DONE


def write_files(folder: Path, program: Path | None = None) -> Iterator[Path]:
    """Write all of them, and name each.

    Args:
        folder: is made where it is not there.
        program: urlward as the units start it; the one that runs where None.

    Raises:
        UrlwardError: one is there already, so that none is written, or the folder cannot be written.
    """
    made = {folder / name: data for name, data in _shipped(program)}
    for path in made:
        if path.exists() or path.is_symlink():
            raise UrlwardError(f"{path}: there already, and is not overwritten: give another folder")
    for path, data in made.items():
        write_new_file(path, data)
        yield path


def _shipped(program: Path | None) -> Iterator[tuple[str, bytes]]:
    """Name, relative to the folder, and content of each."""
    from urlward.commands.metrics import NAMES, read_file
    from urlward.dns import hooks
    from urlward.docs import FOLDER
    from urlward.gateway.service import proxy_files, publisher_files
    from urlward.samples import EXAMPLE, LISTS

    yield EXAMPLE.name, EXAMPLE.read_bytes()
    for path in LISTS:
        yield f"lists/{path.name}", path.read_bytes()
    for path in sorted(FOLDER.glob("*.md")):
        yield f"docs/{path.name}", path.read_bytes()
    for name, text in (proxy_files(program) | publisher_files(program)).items():
        yield f"systemd/{name}", text.encode()
    for name in hooks.NAMES:
        yield f"hooks/{name}", (hooks.FOLDER / name).read_bytes()
    for name in NAMES:
        yield f"monitoring/{name}", read_file(name)
