"""Where the shipped list of protected hosts is."""

from pathlib import Path

_PACKAGED = Path(__file__).parents[1] / "data" / "protected.txt"
_IN_REPOSITORY = Path(__file__).parents[3] / "lists" / "protected.txt"

# The wheel carries it inside the package; an editable install runs from the repository.
PROTECTED = _PACKAGED if _PACKAGED.exists() else _IN_REPOSITORY
"""Hosts and addresses that no feed may block whole."""
