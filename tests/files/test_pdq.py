"""PDQ digests, and the index of listed ones."""

from collections.abc import Sequence

import numpy as np

from files.pictures import picture, written
from rows import each_row
from urlward.files.pdq import CONFIDENT, MOST_MATCHES, QUALITY, Index, digests_of
from urlward.files.seen import DIGEST, TURNS


def test_a_digest_is_that_of_threatexchange() -> None:
    from threatexchange.signal_type.pdq.pdq_hasher import pdq_from_bytes

    image = picture(1)
    theirs, quality = pdq_from_bytes(written(image, "PNG"))
    ours = digests_of(np.asarray(image))
    assert (ours[0][:DIGEST].hex(), ours[1]) == (theirs, quality)
    assert len(ours[0]) == TURNS * DIGEST


def test_thresholds_are_those_of_threatexchange() -> None:
    from threatexchange.signal_type.pdq.signal import PdqSignal

    assert (PdqSignal.QUALITY_THRESHOLD, PdqSignal.get_index_cls().get_match_threshold()) == (
        QUALITY,
        CONFIDENT,
    )


def _changed(digest: bytes, bits: Sequence[int]) -> bytes:
    number = int.from_bytes(digest)
    for bit in bits:
        number ^= 1 << bit
    return number.to_bytes(DIGEST)


def _asked(*digests: bytes) -> bytes:
    """What is asked of pictures that have these digests, and others that are far from all when turned."""
    rng = np.random.default_rng(99)
    return b"".join(each + rng.bytes(DIGEST * (TURNS - 1)) for each in digests)


def test_what_differs_in_no_more_bits_than_an_entry_says_is_found() -> None:
    rng = np.random.default_rng(1)
    listed = [rng.bytes(DIGEST) for _ in range(2_000)]
    distances = bytes(int(each) for each in rng.choice([0, 5, 16, 31, 32, 60, 90], len(listed)))
    rows = [1_000_000 + 3 * n for n in range(len(listed))]
    index = Index(b"".join(listed), distances, rows)
    assert len(index) == 2_000
    for number in range(0, 2_000, 7):
        most = distances[number]
        bits = rng.permutation(256)[:most].tolist()
        asked = _asked(rng.bytes(DIGEST), _changed(listed[number], bits))
        near = {match.row: match for match in index.search(asked)}
        assert (near[rows[number]].query, near[rows[number]].distance) == (1, most)
        one_more = rng.permutation(256)[: most + 1].tolist()
        found = index.search(_asked(_changed(listed[number], one_more)))
        assert rows[number] not in [match.row for match in found]


def test_any_turn_of_a_picture_finds_it() -> None:
    rng = np.random.default_rng(2)
    listed = rng.bytes(DIGEST)
    for turn in range(TURNS):
        asked = bytearray(rng.bytes(DIGEST * TURNS))
        asked[turn * DIGEST : (turn + 1) * DIGEST] = listed
        assert [match[:] for match in Index(listed, b"\x1f", [7]).search(bytes(asked))] == [(0, 7, 0)]


def test_the_closest_come_first_and_not_all() -> None:
    rng = np.random.default_rng(3)
    digest = rng.bytes(DIGEST)
    listed = [_changed(digest, range(n)) for n in range(31)]
    found = Index(b"".join(listed), b"\x1f" * 31, list(range(31))).search(_asked(digest))
    assert [match.row for match in found] == list(range(MOST_MATCHES))


@each_row("distances", [b"\0", b"\x1f", b"\x7f"])
def test_lists_of_one_digest(distances: bytes) -> None:
    digest = np.random.default_rng(4).bytes(DIGEST)
    assert [match.distance for match in Index(digest, distances, [0]).search(_asked(digest))] == [0]


def test_a_search_has_no_threads() -> None:
    """Beside traffic they wait for a processor, and a search of 0.1 ms takes 20."""
    import faiss

    faiss.omp_set_num_threads(4)
    Index(bytes(DIGEST), b"\x1f", [0])
    assert faiss.omp_get_max_threads() == 1
