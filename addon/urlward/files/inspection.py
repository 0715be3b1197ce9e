"""Inspection of pictures and video elsewhere: what a worker hands over, and what it hears.

A worker decodes nothing. It offers a copy of what passes to an inspector, which answers when it can, or not
at all; nothing here blocks, and what there is no room for is passed over and counted.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol


class Found(NamedTuple):
    """Match of a picture, or of a frame, with a listed digest; or what a classifier makes of it.

    Attributes:
        list: name of the list; empty for the classifier.
        row: of the digest in it (`urlward.engine.matcher.Matcher.file_verdict`).
        distance: bits in which the digests differ.
        algorithm: ``pdq``, or ``classifier``.
        frame: seconds from the beginning of a video; 0 in a picture.
        score: the classifier's, 0 to 1.
    """

    list: str
    row: int
    distance: int
    algorithm: str = "pdq"
    frame: float = 0.0
    score: float = 0.0


type Hear = Callable[[Found | None], None]
"""Is told of each match, in the event loop; with None once, when no more will be said. After `Copy.drop` of
nothing."""


class Copy(Protocol):
    """Copy of one body, on its way to the inspector. No method raises or waits."""

    def write(self, content: bytes) -> None:
        """Add the content that follows, its codings undone."""

    def end(self) -> None:
        """That was all."""

    def drop(self) -> None:
        """It is not to be looked at any more."""


class Inspector(Protocol):
    """What a worker has of the inspector process."""

    def offer(self, media: str, size: int | None, found: Hear) -> Copy | None:
        """Begin a copy.

        Args:
            media: ``image`` or ``video``, by the body's first bytes.
            size: bytes of content that it is said to have; None where nothing is said.
            found: hears of what is found, also while more is coming.

        Returns:
            None where there is no room, or the inspector is not there, which is counted.
        """

    def close(self) -> None:
        """End the connection to the inspector."""
