"""The configurations with a schedule that the documentation shows do what is said of them there."""

import json
from pathlib import Path

import pytest

from urlward import cli

ROOT = Path(__file__).parents[2]
README, GRAMMAR, EXAMPLE = ROOT / "README.md", ROOT / "lists/README.md", ROOT / "lists/urlward.example.toml"

LESSON, SATURDAY, EVENING = (
    "2026-11-23T10:00:00+01:00",
    "2026-11-28T23:00:00+01:00",
    "2026-11-23T17:00:00+01:00",
)


def block_of(document: Path) -> str:
    """The document's TOML block with a schedule in it."""
    (found,) = (
        block.partition("```")[0]
        for block in document.read_text().split("```toml\n")[1:]
        if "[schedule." in block.partition("```")[0]
    )
    return found


def commented_of(example: Path) -> str:
    """The example file's groups, which are comments there."""
    groups = example.read_text().partition("# Who is filtered how.")[2].partition("# Lists that arrive")[0]
    text = groups[groups.index("# [[group]]") :]
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("text", "category"),
    [(block_of(README), "games"), (block_of(GRAMMAR), "adverts"), (commented_of(EXAMPLE), "phishing")],
    ids=["README", "lists/README", "example"],
)
@pytest.mark.parametrize(("at", "verdict"), [(LESSON, "block"), (SATURDAY, "pass"), (EVENING, "pass")])
def test_it_blocks_in_its_schedule_and_not_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, category: str, at: str, verdict: str
) -> None:
    (tmp_path / "games.txt").write_text(f"listed.test category={category}\nother.test category=none\n")
    path = tmp_path / "urlward.toml"
    path.write_text(f'list = ["games.txt"]\n{text}')
    for url, expected in (("http://listed.test/", verdict), ("http://other.test/", "block")):
        with pytest.raises(SystemExit) as raised:
            cli.main(["check", "--config", str(path), "--client", "192.0.2.5", "--at", at, "--json", url])
        out, err = capsys.readouterr()
        assert not err
        assert json.loads(out)["verdict"] == expected
        assert raised.value.code == (expected == "block")
