"""What the resolver's tests share."""

import pytest


@pytest.fixture(autouse=True)
def lists_are_compiled_here(compiles_here: None) -> None:
    """The process that compiles a list has tests of its own."""
