"""Entry point of the command line: signals and allocator, before the rest is imported."""

import signal
import sys

from urlward.allocator import choose_allocator
from urlward.process import hold_requests


def main() -> None:
    """Run the command line and exit."""
    if sys.argv[1:2] == ["run"]:
        hold_requests()
        # By which others open their logs anew: who sends it does not mean to end the filter.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        # It starts the interpreter anew, which must not import everything twice.
        choose_allocator()
    from urlward.cli import main as run

    run()
