"""Where the shipped lists are."""

from pathlib import Path

_PACKAGED = Path(__file__).with_name("data")
_IN_REPOSITORY = Path(__file__).parents[2] / "lists"

# The wheel carries them inside the package; an editable install runs from the repository.
_FOLDER = _PACKAGED if _PACKAGED.exists() else _IN_REPOSITORY

SAMPLE = _FOLDER / "sample.txt"

PROTECTED = _FOLDER / "protected.txt"
"""Hosts that no list blocks whole."""
