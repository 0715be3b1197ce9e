"""Pairs of lists that have much in common, for the tests of deltas."""

from dataclasses import replace

from hypothesis import strategies as st

from engine.reference import Rule
from engine.support import CREATED, compile_lines, key
from engine.test_matcher_reference import rules
from urlward.engine.artifact import dump, read_header
from urlward.engine.delta_columns import Column
from urlward.engine.delta_format import DELTA_MAGIC, read_columns, read_frame, write_frame

# Both lists have these, so that a delta of short lists is worth it.
FILLER = [f"filler{n}.example" for n in range(150)]

IDS = st.sampled_from(["all", "all", "some", "none"])


def _lines(found: list[Rule], ids: str) -> list[str]:
    lines = [rule.line() for rule in found]
    bare = [line.replace(f" id={rule.id}", "") for line, rule in zip(lines, found, strict=True)]
    return {"all": lines, "some": lines[::2] + bare[1::2], "none": bare}[ids]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Lines of an old list and of a new one: some stay, some go, some come, in any order."""
    stay, go, come = (
        [replace(rule, id=f"{name}{n}") for n, rule in enumerate(draw(st.lists(rules(), max_size=8)))]
        for name in ("s", "g", "c")
    )
    if draw(st.booleans()):
        # An entry that differs in little but its id.
        stay, go, come = stay, go + stay[:1], come + [replace(rule, id="s") for rule in stay[:1]]
    old, new = draw(st.permutations(stay + go)), draw(st.permutations(stay + come))
    ids = draw(IDS)
    filler = draw(st.sampled_from([FILLER, FILLER[3:], FILLER[:-1]]))
    return _lines(old, ids) + FILLER, filler + _lines(new, draw(st.sampled_from([ids, draw(IDS)])))


def issue(lines: list[str], serial: int = 1, name: str = "list") -> bytes:
    """An artifact of some lines, under `engine.support.key`."""
    under = key()
    return dump(compile_lines(lines, under), under, name=name, serial=serial, created=CREATED + serial)


def opened(delta: bytes) -> dict[Column, bytes]:
    """A delta's columns."""
    columns = read_columns(DELTA_MAGIC, read_frame(DELTA_MAGIC, delta), key(), len(Column))
    return dict(zip(Column, columns, strict=True))


def forged(old: bytes, new: bytes, delta: bytes, changes: dict[Column, bytes]) -> bytes:
    """A delta with other columns, sealed as by one who has the key."""
    columns = opened(delta) | changes
    headers = read_header(old), read_header(new)
    return write_frame(DELTA_MAGIC, *headers, [columns[c] for c in Column], key(), deflate=True)
