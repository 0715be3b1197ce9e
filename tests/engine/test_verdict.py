from itertools import permutations

from urlward.engine.verdict import PASS, Verdict, decide


def test_nothing_found_passes() -> None:
    assert decide([]) is PASS
    assert not PASS.blocked
    assert Verdict("pass") == PASS


def test_allow_beats_block_and_the_most_specific_is_named() -> None:
    low, high = Verdict("block", entry="low", rank=1), Verdict("block", entry="high", rank=2)
    excuse, better = Verdict("allow", entry="excuse", rank=0), Verdict("allow", entry="better", rank=1)
    assert high.blocked
    assert not excuse.blocked
    for found in permutations([low, high]):
        assert decide(list(found)) is high
    for found in permutations([low, high, excuse, better]):
        assert decide(list(found)) is better


def test_of_equals_the_same_is_named_in_any_order() -> None:
    one, other = Verdict("block", entry="1", rank=1), Verdict("block", entry="2", rank=1)
    assert decide([one, other]) is decide([other, one]) is other
