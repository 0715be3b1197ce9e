"""Documentation: one Markdown page a topic, which ``urlward help`` shows."""

import re
from difflib import get_close_matches
from pathlib import Path

from urlward.engine.errors import UrlwardError

FOLDER = Path(__file__).parent


def topics() -> dict[str, str]:
    """Each topic's name and what it is about, by the heading of its page (``# Title: what it is about``)."""
    found = {}
    for path in sorted(FOLDER.glob("*.md")):
        with path.open(encoding="utf-8") as file:
            found[path.stem] = file.readline().partition(": ")[2].strip()
    return found


def page(topic: str) -> str:
    """A topic's page, as Markdown.

    Raises:
        UrlwardError: there is none.
    """
    known = topics()
    if topic not in known:
        meant = get_close_matches(topic, known, 1)
        hint = f"did you mean {meant[0]}?" if meant else "urlward help lists the topics"
        if re.search(rf"`urlward {re.escape(topic)}[ `]", page("commands")):
            hint = f"see urlward {topic} --help, and of all commands urlward help commands"
        raise UrlwardError(f"help: {topic!r} is no topic; {hint}")
    return (FOLDER / f"{topic}.md").read_text(encoding="utf-8")


def show(topic: str | None) -> None:
    """Print a page, or the topics; on a terminal a page is laid out, and shown by the pager.

    Raises:
        UrlwardError: there is no such topic.
    """
    if topic is None:
        print("urlward help TOPIC shows one of these:\n")
        for name, about in topics().items():
            print(f"  {name:16}{about}")
        return
    text = page(topic)

    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    if not console.is_terminal:
        print(text, end="")
        return
    with console.pager():
        console.print(Markdown(text, hyperlinks=False))
