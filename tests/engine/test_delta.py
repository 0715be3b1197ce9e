"""From one artifact to the next and into force, whatever has changed."""

from hypothesis import given

from engine.delta_support import issue, pairs
from engine.support import examples, key
from engine.test_matcher_reference import REQUESTS, SHAPES, shapes
from urlward.engine.artifact import networks, parse
from urlward.engine.delta import apply_delta, extent, make_delta, read_change
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.engine.record import MARKER, Shape
from urlward.engine.table import Table
from urlward.engine.verdict import Verdict

type Request = tuple[str, str, tuple[int, ...], float]


@given(pairs(), SHAPES)
@examples(120)
def test_the_new_artifact_bit_by_bit(
    lists: tuple[list[str], list[str]], shape: tuple[int, int, int, int]
) -> None:
    with shapes(*shape):
        old, new = issue(lists[0]), issue(lists[1], 2)
        for before, after in ((old, new), (new, old)):
            delta = make_delta(before, after, key())
            assert apply_delta(before, delta, key()).artifact == after
            added, removed = extent(before, delta, key())
            assert rows(after) - rows(before) == added - removed


@given(pairs(), REQUESTS, SHAPES)
@examples(200)
def test_a_change_says_of_every_request_what_the_new_artifact_says(
    lists: tuple[list[str], list[str]], requests: list[Request], shape: tuple[int, int, int, int]
) -> None:
    with shapes(*shape):
        old, new = issue(lists[0]), issue(lists[1], 2)
        change = read_change(apply_delta(old, make_delta(old, new, key()), key()).change, key())
        assert change.old_checksum == parse(old).header.checksum
        assert change.header == parse(new).header
        changed = [load(old, key()).without(change.removed)]
        if change.added:
            changed.append(load(change.added, key()))
        by_change, whole = Matcher(changed), Matcher([load(new, key())])
        for host, target, *at in requests:
            for ask in (
                lambda m, host=host, target=target, at=at: m.check(host, target, *at, one_of),
                lambda m, host=host, at=at: m.check_host(host, *at, one_of),
                lambda m, host=host, at=at: m.check_address(host.strip("[]"), *at, one_of),
            ):
                assert ask(by_change) == ask(whole)
            # A host on which exceptions alone came anew, or stayed, need not be decrypted for them, which is
            # told of a list as a whole: whether it blocks any page.
            below = [bool(m.lists_below(host)) for m in (by_change, whole)]
            assert below[0] == below[1] or not _blocks_a_page(whole.check(host, target, *at, one_of))


@given(pairs(), SHAPES)
@examples(100)
def test_a_change_is_what_differs(
    lists: tuple[list[str], list[str]], shape: tuple[int, int, int, int]
) -> None:
    with shapes(*shape):
        old, new = issue(lists[0]), issue(lists[1], 2)
        change = read_change(apply_delta(old, make_delta(old, new, key()), key()).change, key())
        stayed = {fact for row, fact in enumerate(facts(old)) if row not in change.removed}
        added = set(facts(change.added)) if change.added else set()
        assert stayed | added == set(facts(new))
        assert {fact[0].kind for fact in stayed & added} <= {MARKER}
        assert not change.added or parse(change.added).meta["entries"] == entries(added)
        listed = [set(networks(parse(data), key())) for data in (old, new)]
        found = set(networks(parse(change.added), key())) if change.added else set()
        assert found == listed[1] - listed[0]


def _blocks_a_page(verdict: Verdict) -> bool:
    return verdict.blocked and verdict.kind in ("page", "prefix", "params")


type Fact = tuple[Shape, str, bytes, int, bytes, str, tuple[bytes, ...]]


def facts(data: bytes) -> list[Fact]:
    """What an artifact says of each row, in words rather than numbers."""
    artifact = parse(data)
    table = Table(artifact)
    categories = artifact.meta["categories"]
    return [
        (
            shape._replace(category=0),
            categories[shape.category],
            table.digest(row),
            table.lengths[row],
            table.below[row],
            table.id(row),
            tuple(table.further_params(row)),
        )
        for row, shape in enumerate(map(table.shape, range(table.rows)))
    ]


def entries(found: set[Fact]) -> int:
    return sum(fact[0].kind != MARKER for fact in found)


def rows(data: bytes) -> int:
    return Table(parse(data)).rows


def one_of(found: list[Verdict]) -> Verdict:
    """As `urlward.engine.verdict.decide`, but the same one among equals in whatever order they come."""
    return max(found, key=lambda v: (v.action == "allow", v.rank, v.entry, v.category, v.kind))
