"""``urlward lab replay``."""

import argparse
from collections.abc import Callable


def add_replay(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare it."""
