"""Where the shipped sample list is."""

from pathlib import Path

_PACKAGED = Path(__file__).with_name("data") / "sample.txt"
_IN_REPOSITORY = Path(__file__).parents[2] / "lists" / "sample.txt"

# The wheel carries the sample inside the package; an editable install runs from the repository.
SAMPLE = _PACKAGED if _PACKAGED.exists() else _IN_REPOSITORY
