"""Paths of the shipped lists and of the example configuration."""

from pathlib import Path


def _shipped(name: str) -> Path:
    # The wheel carries them inside the package; an editable install runs from the repository.
    packaged = Path(__file__).with_name("data") / name
    return packaged if packaged.exists() else Path(__file__).parents[2] / "lists" / name


SAMPLE = _shipped("sample.txt")
"""One entry of each kind that a URL matches."""

PROTECTED = _shipped("protected.txt")
"""Hosts and addresses that no feed may block whole."""

LISTS = (SAMPLE, PROTECTED, _shipped("hosts.txt"), _shipped("pages.txt"), _shipped("allow.txt"))
"""All lists, those that only show what one may look like included."""

EXAMPLE = _shipped("urlward.example.toml")
"""A configuration file with most keys, all of them explained."""
