"""The engines that are compared, by name."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from benchmarks.engine.contenders.base import Contender


class Entrant(NamedTuple):
    """How to find a contender without importing it, since its package may not be installed.

    Attributes:
        title: as shown in tables.
        module: in this package.
        distribution: the package whose version counts; None for the standard library.
    """

    title: str
    module: str
    distribution: str | None

    def create(self) -> Contender:
        """A new, empty engine.

        Raises:
            ImportError: its package is not installed.
        """
        contender: Contender = import_module(f"{__name__}.{self.module}").Engine()
        return contender

    def version(self) -> str | None:
        """Of its package; None where that is not installed or there is none."""
        try:
            return version(self.distribution) if self.distribution else None
        except PackageNotFoundError:
            return None


ENTRANTS = {
    "urlward": Entrant("urlward", "urlward", "urlward"),
    "adblock-rust": Entrant("adblock-rust", "adblock_rust", "adblock"),
    "safe-browsing": Entrant("Safe Browsing way", "safe_browsing", None),
    "pyahocorasick": Entrant("pyahocorasick, plaintext", "pyahocorasick", "pyahocorasick"),
    "ahocorasick-rs": Entrant("ahocorasick-rs, plaintext", "ahocorasick_rust", "ahocorasick-rs"),
    "hyperscan": Entrant("hyperscan", "hyperscan_literals", "hyperscan"),
}
