from lists.formats.support import lines, read


def test_lines_as_they_are() -> None:
    text = "# a\n\na.example id=1\n  ||b.example^ # c\n! d\n@@0.0.0.0 c.example\n"
    assert lines("grammar", text) == ["a.example id=1", "  ||b.example^ # c", "@@0.0.0.0 c.example"]


def test_what_is_not_of_the_grammar() -> None:
    found, [skipped] = read("grammar", "a.example\nb.example coulour=red\n")
    assert found == ["a.example"]
    assert (skipped.line, skipped.column, skipped.unsupported) == (2, 1, False)
    assert skipped.reason.startswith("not an attribute (attributes are id=")
