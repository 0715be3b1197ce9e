"""``urlward gateway`` and ``urlward ca``."""

import argparse
from collections.abc import Callable
from typing import Any

type Command = Callable[[str, Any, str], argparse.ArgumentParser]


def add_gateway_commands(command: Command) -> None:
    """Declare them; what they need is imported when they run."""
