import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.delta_support import issue, pairs
from engine.support import compile_lines, examples, key
from engine.test_artifact import forge
from engine.test_matcher_reference import SHAPES, shapes
from urlward.engine.artifact import Section, parse
from urlward.engine.patterns import Groups, Patterns

LINES = [f"http://h{n % 9}.test/{'/'.join(str(n * n))}" for n in range(3000)] + ["*/one/two/*", "*/one/x/*"]


def test_every_pattern_of_many_by_itself() -> None:
    """More than one block of them, and far apart."""
    compiled = compile_lines(LINES, key())
    texts = [text.encode("latin-1") for patterns in compiled.patterns for text in patterns.letters]
    artifact = parse(issue(LINES))
    for step in (1, 7, 1000):
        patterns = Patterns(artifact)
        assert [patterns.read(at).text for at in range(0, len(texts), step)] == texts[::step]


@given(pairs(), SHAPES, st.data())
@examples(100)
def test_patterns_what_they_begin_with_and_their_rows(
    lists: tuple[list[str], list[str]], shape: tuple[int, int, int, int], data: st.DataObject
) -> None:
    with shapes(*shape):
        compiled, artifact = compile_lines(lists[0], key()), parse(issue(lists[0]))
        floating, total = len(compiled.rows[0]), sum(map(len, compiled.rows))
        texts: list[tuple[bytes, int, int]] = []
        for base, stop, patterns in zip((0, floating), (floating, total), compiled.patterns, strict=True):
            starts = [base + row for row in patterns.rows] + [stop]
            letters = (text.encode("latin-1") for text in patterns.letters)
            texts += zip(letters, starts, starts[1:], strict=False)
        split = len(compiled.patterns[0])
        found, groups = Patterns(artifact), Groups(artifact)
        for at in sorted(data.draw(st.sets(st.integers(0, len(texts) - 1)))):
            text, start, end = texts[at]
            pool = range(split) if at < split else range(split, len(texts))
            begins = {n for n in pool if n != at and text.startswith(texts[n][0])}
            read = found.read(at)
            assert read.text == text
            assert dict(read.beginnings) == {n: len(texts[n][0]) for n in begins}
            assert groups.rows(at) == range(start, end)
            assert {groups.pattern(row) for row in range(start, end)} == {at}


@pytest.mark.parametrize(
    ("section", "content"),
    [
        (Section.SHARED, b"\xff" * 3),
        (Section.SHARED, b"\1" * 3),
        (Section.ADDED, b"\0" * 3),
        (Section.LETTERS, b""),
    ],
)
def test_patterns_that_contradict_themselves(section: Section, content: bytes) -> None:
    patterns = Patterns(parse(forge(issue(["a.test", "b.test", "c.test"]), {section: content})))
    with pytest.raises((ValueError, IndexError)):
        list(map(patterns.read, range(4)))


@pytest.mark.parametrize("pairs", [(5, 2), (0, 3, 2, 4), (4, 5, 0, 1)])
def test_groups_that_overlap(pairs: tuple[int, ...]) -> None:
    content = b"".join(number.to_bytes(4, "little") for number in pairs)
    with pytest.raises(ValueError):
        Groups(parse(forge(issue(["a.test"]), {Section.GROUPS: content})))
