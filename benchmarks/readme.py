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
    before, begin, rest = readme.read_text().partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"the marks {first} and {last} are not there")
    readme.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}")
