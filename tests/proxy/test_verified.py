"""Digests of right passwords, in memory of their own or shared."""

from urlward.proxy import passwords
from urlward.proxy.passwords import Verified


def test_what_is_added_is_known() -> None:
    known = Verified()
    digests = [known.digest(b"a", str(n).encode()) for n in range(1000)]
    for digest in digests:
        assert digest not in known
        known.add(digest)
    assert all(digest in known for digest in digests)
    assert known.digest(b"a", b"1") == digests[1]
    assert known.digest(b"a1", b"") != digests[1]
    assert known.digest(b"a", b"1", b"") != digests[1]


def test_a_full_set_forgets_one() -> None:
    known = Verified()
    digests = [bytes(4) + n.to_bytes(12) for n in range(1, 10)]
    for digest in digests:
        known.add(digest)
    assert sum(digest in known for digest in digests) == 8
    assert digests[-1] in known
    assert not any(known._memory[passwords._SET :])
