"""The documentation as tests read it: its pages, their fenced blocks, tables, headings and links."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "addon/urlward/docs"
README, BENCHMARKS = ROOT / "README.md", ROOT / "benchmarks/README.md"
PAGES = [README, ROOT / "lists/README.md", *sorted(DOCS.glob("*.md"))]

_FENCE = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
_LINK = re.compile(r"""(?:\]\(|src=")([^)"\s]+)[)"]""")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        line: of its first line in the page, from 1.
    """

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """A page's fenced blocks; those of some languages where any is named."""
    text = page.read_text()
    found = [
        Block(page, text.count("\n", 0, match.start(3)) + 1, match[2].strip(), match[3])
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def prose(page: Path) -> str:
    """A page's text without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Targets of a page's links and pictures, those inside the repository."""
    text = re.sub(r"`[^`\n]*`(?!\])", "", prose(page))
    return [link for link in _LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives a page's headings."""
    names = (
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(prose(page))
    )
    return set(names)


def sections(page: Path, level: str = "## ") -> dict[str, str]:
    """What stands under each heading of a level, by the heading."""
    return {
        heading.strip(): text
        for heading, _, text in (
            part.partition("\n") for part in f"\n{page.read_text()}".split(f"\n{level}")[1:]
        )
    }


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of all tables in a text, without the heads."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if not line.lstrip().startswith("|"):
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found.pop()
        else:
            found.append(cells)
    return found


def code(cell: str) -> list[str]:
    """The code spans of a cell."""
    return re.findall(r"`([^`]+)`", cell)
