"""``urlward lab``."""

from urlward.gateway.commands import Command


def add_lab_commands(command: Command) -> None:
    """Declare it; what it needs is imported when it runs."""
