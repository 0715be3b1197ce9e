"""Where the command line begins: what has to come before the rest is imported."""

import sys

from urlward.allocator import choose_allocator


def main() -> None:
    """Run the command line and exit."""
    if sys.argv[1:2] == ["run"]:
        # It starts the interpreter anew, which must not import everything twice.
        choose_allocator()
    from urlward.cli import main as run

    run()
