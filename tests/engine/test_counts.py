from lists.support import artifact
from urlward.engine.artifact import parse
from urlward.engine.delta import changes


def test_changes() -> None:
    old = parse(artifact(["a.example", "http://b.example/page", "*/c/d/*"]))
    new = parse(artifact(["a.example", "http://b.example/other", "*/c/d/*", "e.example category=x"]))
    assert changes(old, new) == (2, 1)
    assert changes(new, old) == (1, 2)
    assert changes(old, old) == (0, 0)
