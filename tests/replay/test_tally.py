import pickle
import random
import subprocess
import sys
from collections import Counter

from urlward.replay.judge import KEPT_LINES, BadLines, Distinct, Hasher, Tally


def hashes(count: int, seed: int = 1) -> list[int]:
    r = random.Random(seed)
    return [r.getrandbits(64) for _ in range(count)]


class TestDistinct:
    def test_few_are_counted_exactly(self) -> None:
        distinct = Distinct()
        distinct.add(hashes(1000) * 3)
        distinct.add([0, (1 << 64) - 1])
        assert (distinct.count, distinct.exact) == (1002, True)

    def test_none(self) -> None:
        assert Distinct().count == 0

    def test_many_are_estimated_in_bounded_memory(self) -> None:
        distinct = Distinct()
        for seed in range(12):
            distinct.add(hashes(50_000, seed) * 2)
        assert not distinct.exact
        assert abs(distinct.count / 600_000 - 1) < 0.02
        assert len(distinct._kept) <= 1 << 17

    def test_merging_counts_once_what_both_have_seen(self) -> None:
        one, other = Distinct(), Distinct()
        one.add(hashes(1000))
        other.add(hashes(1500))
        one.update(other)
        assert (one.count, one.exact) == (1500, True)

    def test_merging_estimates(self) -> None:
        one, other, few = Distinct(), Distinct(), Distinct()
        one.add(hashes(200_000, 1))
        other.add(hashes(200_000, 1)[:150_000] + hashes(100_000, 2))
        few.add(hashes(10, 3))
        one.update(other)
        one.update(few)
        few.update(one)
        assert abs(one.count / 300_010 - 1) < 0.02
        assert not few.exact
        assert few.count == one.count


class TestHasher:
    def test_the_same_text_has_the_same_hash_under_one_key_only(self) -> None:
        one, other = Hasher(), Hasher()
        assert one("192.0.2.1") == one("192.0.2.1") != one("192.0.2.2")
        assert one("192.0.2.1") != other("192.0.2.1")
        assert 0 <= one("\xff") < 1 << 64

    def test_the_key_is_random_even_where_pythons_is_not(self) -> None:
        code = "from urlward.replay.judge import Hasher; print(Hasher()('192.0.2.1'))"
        seen = {
            subprocess.run(
                [sys.executable, "-c", code], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True
            ).stdout
            for _ in range(2)
        }
        assert len(seen) == 2


def test_of_bad_lines_the_first_are_kept() -> None:
    bad = BadLines()
    bad.add("why", 9, [(2, 5), (2, 9), (2, 1)])
    bad.add("why", 4, [(1, 70), (1, 3), (3, 1), (1, 4)])
    count, first = bad["why"]
    assert count == 13
    assert first == [(1, 3), (1, 4), (1, 70), (2, 1), (2, 5)][:KEPT_LINES]


def test_tallies_add_up() -> None:
    def tally(seed: int) -> Tally:
        made = Tally(lines=10, requests=8, unseen=1)
        made.verdicts["block", "list", "", "page", "S-1"] = 2
        made.verdicts["allow", "list", "", "page", "S-2"] = 1
        made.hours[5], made.blocked_hours[5] = 8, 2
        made.statuses["200"], made.blocked_statuses["200"] = 8, 2
        made.clients.add(hashes(3, seed))
        made.connects.update(all=4, whole=1, below=2)
        made.https.update(all=4, below=1)
        made.bad.add("why", 2, [(1, seed)])
        return made

    total = Tally()
    total.merge(tally(1))
    total.merge(pickle.loads(pickle.dumps(tally(2))))
    assert (total.lines, total.requests, total.blocked, total.not_judged, total.unseen) == (20, 16, 4, 4, 2)
    assert (total.hours[5], total.blocked_hours[5], total.statuses["200"], total.blocked_statuses["200"]) == (
        16, 4, 16, 4,
    )  # fmt: skip
    assert total.clients.count == 6
    assert total.connects == Counter(all=8, whole=2, below=4)
    assert total.https == Counter(all=8, below=2)
    assert total.bad == {"why": (4, [(1, 1), (1, 2)])}
