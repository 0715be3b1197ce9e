"""Entry point of the command line: signals and allocator, before the rest is imported."""

import os
import signal
import sys

_SAID_AT_ONCE = {"-h", "--help", "--check"}
"""Flags of ``run`` by which nothing is run."""


def main() -> None:
    """Run the command line and exit."""
    # Ctrl-C while modules are imported ends it, without the traceback of whichever that is.
    interrupts = signal.getsignal(signal.SIGINT)
    if interrupts is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from urlward.process import ALLOCATOR, best_allocator, choose_allocator, hold_requests

    if sys.argv[1:2] == ["run"]:
        hold_requests()
        # By which others open their logs anew: who sends it does not mean to end the filter.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        from urlward.plan import WORKER

        if WORKER not in os.environ and not _SAID_AT_ONCE.intersection(sys.argv):
            os.environ.setdefault(ALLOCATOR, best_allocator())  # of the workers
            from urlward.supervise import supervise

            supervise()
        # It starts the interpreter anew, which must not import everything twice.
        choose_allocator()
    from urlward.cli import main as run

    signal.signal(signal.SIGINT, interrupts)
    run()
