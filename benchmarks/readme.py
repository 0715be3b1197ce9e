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
    first = f"<!-- {name}: written by `python -m benchmarks.{name} --report`, not by hand -->"
    last = f"<!-- {name}: end -->"
    before, _, after = parts(readme.read_text(), first, last)
    readme.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}")


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
