"""What the plaintext engines share: literals, and the parameters that confirm some of them."""

from benchmarks.engine.material import Files

type Needs = dict[int, frozenset[str]]
"""Index of a literal to the parameters of which the query must have one."""


def read_literals(files: Files) -> tuple[list[str], Needs]:
    texts: list[str] = []
    needs: Needs = {}
    with files.literals.open() as lines:
        for index, line in enumerate(lines):
            text, *params = line.rstrip("\n").split("\t")
            texts.append(text)
            if params:
                needs[index] = frozenset(params)
    return texts, needs


def confirmed(need: frozenset[str] | None, query: str) -> bool:
    return need is None or not need.isdisjoint(query.split("&"))
