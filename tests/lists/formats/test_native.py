from lists.formats.support import lines, read


def test_lines_as_they_are() -> None:
    text = "# a\n\na.example id=1\n  ||b.example^ # c\n! d\n@@0.0.0.0 c.example\n"
    assert lines("grammar", text) == ["a.example id=1", "  ||b.example^ # c", "@@0.0.0.0 c.example"]


def test_what_is_not_of_the_grammar() -> None:
    found, [skipped] = read("grammar", "a.example\nb.example coulour=red\n")
    assert found == ["a.example"]
    assert (skipped.line, skipped.column, skipped.unsupported) == (2, 1, False)
    assert skipped.reason.startswith("not an attribute (attributes are id=")


def test_a_category_is_for_entries_that_have_none() -> None:
    text = "a.example\nb.example category=x # c\n0.0.0.0 c.example d.example # c\n"
    text += '@@e.example note="a category=y" \n'
    assert lines("grammar", text, category="A b") == [
        "a.example category=A-b",
        "b.example category=x # c",
        "0.0.0.0 c.example d.example category=A-b",
        '@@e.example note="a category=y" category=A-b',
    ]
    found, [skipped] = read("grammar", 'a.example note="b\n', category="x")
    assert not found
    assert skipped.reason.startswith("a quote")
