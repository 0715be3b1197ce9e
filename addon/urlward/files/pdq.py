"""PDQ: digests of how a picture looks, and the search for listed ones that differ in few bits.

Digests, thresholds and the index are those of Meta's ``threatexchange`` (extra ``files``): so a digest that
an institution has made is met by the one made here.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from urlward.files.seen import DIGEST, TURNS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUALITY = 50
"""Quality, 0 to 100, below which a picture has too little in it for its digest to say anything
(``PdqSignal.QUALITY_THRESHOLD``)."""

CONFIDENT = 31
"""Bits in which digests of the same picture differ at most, as its makers say
(``PDQ_CONFIDENT_MATCH_THRESHOLD``); so far the index needs not look at each digest."""

MOST_MATCHES = 16
"""Rows that a search finds, the closest ones."""


class PdqMatch(NamedTuple):
    """Listed digest that a search has found.

    Attributes:
        query: number of the picture that was asked for.
        row: of the digest.
        distance: bits in which they differ.
    """

    query: int
    row: int
    distance: int


def prepare() -> None:
    """Load what makes digests.

    Raises:
        ImportError: it is not installed.
    """
    import numpy as np

    digests_of(np.zeros((64, 64, 3), np.uint8))


def digests_of(pixels: "NDArray[np.uint8]") -> tuple[bytes, float]:
    """The `TURNS` digests of a picture in a row, and their quality.

    Args:
        pixels: height, width and three colours.
    """
    import numpy as np
    import pdqhash

    vectors, quality = pdqhash.compute_dihedral(np.ascontiguousarray(pixels))
    return np.packbits(np.asarray(vectors, np.uint8), axis=1).tobytes(), float(quality)


class Index:
    """Index of one list's digests.

    Args:
        digests: in a row.
        distances: bits in which a picture's may differ from each, a byte each.
        rows: numbers that name them (`urlward.engine.perceptual.PerceptualList`).

    Raises:
        ImportError: ``threatexchange``, or what it needs, is not installed.
    """

    def __init__(self, digests: bytes, distances: bytes, rows: Sequence[int]) -> None:
        logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells of each way in which it tries to load
        import faiss
        import numpy as np
        from threatexchange.signal_type.pdq.pdq_faiss_matcher import PDQFlatHashIndex, PDQMultiHashIndex

        faiss.omp_set_num_threads(1)  # traffic has the other processors, and threads would wait for them
        listed = np.frombuffer(digests, np.uint8).reshape(-1, DIGEST)
        self._distances = np.frombuffer(distances, np.uint8)
        self._rows = rows
        close = self._distances <= CONFIDENT
        self._parts: list[tuple[Any, int]] = []
        if close.any():
            multi = PDQMultiHashIndex()
            # Buckets that a digest may be in differ from its own in no more bits than that.
            most = int(self._distances[close].max())
            multi.mih_index.nflip = most // multi.mih_index.nhash
            self._add(multi, listed, close, most)
        if not close.all():
            self._add(PDQFlatHashIndex(), listed, ~close, int(self._distances.max()))

    def _add(self, part: Any, listed: "NDArray[np.uint8]", which: "NDArray[np.bool_]", most: int) -> None:
        import numpy as np

        part.faiss_index.add_with_ids(np.ascontiguousarray(listed[which]), np.flatnonzero(which))
        self._parts.append((part, most))

    def __len__(self) -> int:
        return len(self._distances)

    def search(self, digests: bytes) -> list[PdqMatch]:
        """Find the rows that look like a picture.

        Args:
            digests: of pictures, `TURNS` of each, in a row.

        Returns:
            `MOST_MATCHES` at most, the closest first, each row once.
        """
        import numpy as np

        asked = np.frombuffer(digests, np.uint8).reshape(-1, DIGEST)
        best: dict[int, PdqMatch] = {}
        for part, most in self._parts:
            ends, distances, places = part.faiss_index.range_search(asked, most + 1)
            queries = np.repeat(np.arange(len(asked)) // TURNS, np.diff(ends.astype(np.int64)))
            near = distances <= self._distances[places]
            for query, place, distance in zip(
                queries[near].tolist(), places[near].tolist(), distances[near].tolist(), strict=True
            ):
                if place not in best or distance < best[place].distance:
                    best[place] = PdqMatch(query, self._rows[place], int(distance))
        return sorted(best.values(), key=lambda match: match.distance)[:MOST_MATCHES]
