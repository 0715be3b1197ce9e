"""The parts of ``benchmarks/README.md`` that runs write."""

from pathlib import Path

README = Path(__file__).with_name("README.md")


def rewrite(readme: Path, name: str, text: str) -> None:
    """Put a text between the marks of a benchmark.

    Args:
        readme: the file.
        name: the module in `benchmarks` that is the benchmark's command, and the marks' name.
        text: Markdown.

    Raises:
        ValueError: the marks are not there.
    """
    first, last = _marks(name)
    before, _, after = parts(readme.read_text(), first, last)
    readme.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}")


def differs(readme: Path, name: str, text: str) -> bool:
    """Whether another text stands between the marks of a benchmark.

    Raises:
        ValueError: the marks are not there.
    """
    return parts(readme.read_text(), *_marks(name))[1] != f"\n\n{text}\n\n"


def _marks(name: str) -> tuple[str, str]:
    written = f"written by `python -m benchmarks.{name} --report`, not by hand"
    return f"<!-- {name}: {written} -->", f"<!-- {name}: end -->"


def parts(text: str, begin: str, end: str) -> tuple[str, str, str]:
    """What stands before, between and behind two marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, first, rest = text.partition(begin)
    between, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"the marks {begin} and {end} are not there")
    return before, between, after
